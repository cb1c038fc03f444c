"""What `drbdsetup status --json` says, whole: each field that drbd-utils 9.22 prints, in its states."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ipshare.migration import drbd


def volume(state: str = "UpToDate", number: int = 0) -> dict[str, Any]:
    """A device here."""
    return {
        "volume": number, "minor": 1000 + number, "disk-state": state, "client": state == "Diskless",
        "quorum": True, "size": 1048576, "read": 65536, "written": 4096, "al-writes": 1, "bm-writes": 0,
        "upper-pending": 0, "lower-pending": 0,
    }  # fmt: skip


def at_peer(state: str = "UpToDate", replication: str = "Established", number: int = 0) -> dict[str, Any]:
    """The same device at a peer."""
    return {
        "volume": number, "replication-state": replication, "peer-disk-state": state, "peer-client": False,
        "resync-suspended": "no", "received": 0, "sent": 4096, "out-of-sync": 0, "pending": 0, "unacked": 0,
        "has-sync-details": replication.startswith("Sync"), "has-online-verify-details": False,
        "percent-in-sync": 100.0,
    }  # fmt: skip


def link(name: str, *volumes: dict[str, Any], state: str = "Connected") -> dict[str, Any]:
    role = "Secondary" if state == "Connected" else "Unknown"
    return {
        "peer-node-id": 1, "name": name, "connection-state": state, "congested": False, "peer-role": role,
        "ap-in-flight": 0, "rs-in-flight": 0, "peer_devices": list(volumes),
    }  # fmt: skip


def status(devices: list[dict[str, Any]], *links: dict[str, Any]) -> str:
    row = {
        "name": "shop", "node-id": 0, "role": "Primary", "suspended": False, "suspended-user": False,
        "suspended-no-data": False, "suspended-fencing": False, "suspended-quorum": False,
        "force-io-failures": False, "write-ordering": "flush", "devices": devices, "connections": list(links),
    }  # fmt: skip
    return json.dumps([row])


def cut(state: str) -> dict[str, Any]:
    """A connection that is none: DRBD knows nothing of the peer's disk."""
    return link("b1", at_peer("DUnknown", "Off"), state=state)


GOOD = link("b1", at_peer())
TWO = [volume(), volume(number=1)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (status([volume()], GOOD), []),
        *((status([volume(state)], GOOD), [f"volume 0 here is {state}"]) for state in (
            "Diskless", "Attaching", "Detaching", "Failed", "Negotiating", "Inconsistent", "Outdated",
            "DUnknown", "Consistent",
        )),
        *((status([volume()], link("b1", at_peer(state))), [f"volume 0 at b1 is {state}"]) for state in (
            "Diskless", "Failed", "Inconsistent", "Outdated", "DUnknown", "Consistent",
        )),
        *((status([volume()], cut(state)), [f"b1 is {state}"]) for state in (
            "StandAlone", "Disconnecting", "Unconnected", "Timeout", "BrokenPipe", "NetworkFailure",
            "ProtocolError", "TearDown", "Connecting",
        )),
        *((status([volume()], link("b1", at_peer(replication=state))), [f"volume 0 at b1 is {state}"])
          for state in ("Off", "WFBitMapS", "SyncSource", "PausedSyncS", "VerifyS", "Ahead")),
        (status([volume("Inconsistent")], link("b1", at_peer(replication="SyncTarget"))),
         ["volume 0 here is Inconsistent", "volume 0 at b1 is SyncTarget"]),
        (status(TWO, link("b1", at_peer(), at_peer("Outdated", number=1))), ["volume 1 at b1 is Outdated"]),
        # what nobody speaks of is not in sync
        (status(TWO, GOOD), ["volume 1 is not at b1"]),
        (status([volume()], link("b1")), ["volume 0 is not at b1"]),
        (status([], link("b1")), ["it has no volume"]),
        (status([volume()]), ["it has no peer"]),
    ],
)  # fmt: skip
def test_each_state_is_judged(text: str, why: list[str]) -> None:
    assert list(drbd.troubles(text, "shop", "b1")) == why


def test_of_several_peers_the_target_counts_and_no_other() -> None:
    other = link("c1", at_peer("DUnknown", "Off"), state="StandAlone")
    text = status([volume()], other, GOOD)
    assert list(drbd.troubles(text, "shop", "b1")) == []
    assert list(drbd.troubles(text, "shop", "c1")) == ["c1 is StandAlone"]
    assert list(drbd.troubles(text, "shop", "somewhere")) == ["c1 is StandAlone"]
