"""A pair of engines with a mirror: what the standby knows, and what outlives the active node."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipshare.core import lib
from ipshare.lab.netns import inside
from tests.engine_lab import run
from tests.flows_lab import OUTSIDE4, OUTSIDE6, REFUSED, Nat, NatNode, nat_lab
from tests.mirror_world import Settings
from tests.pair_lab import until
from tests.unit.test_seal import End

FAMILIES = [(socket.AF_INET, OUTSIDE4), (socket.AF_INET6, OUTSIDE6)]
Ends = list[tuple[socket.socket, socket.socket]]


@pytest.fixture
def kind() -> type[NatNode]:
    """Which engine."""
    return NatNode


@pytest.fixture
def lab(tmp_path: Path, kind: type[NatNode]) -> Iterator[Nat]:
    with nat_lab(tmp_path, kind) as made:
        yield made


PATIENT = {"interval_ns": 200_000_000, "misses": 10}
"""Of a pair that is to stay as it is, however busy the machine."""


def begin(
    node: NatNode, table: dict[str, int] | None = None, pair: dict[str, int] | None = None, **values: Any
) -> None:
    """table: sizes of its session table; pair: what is special in it."""
    node.start()
    node.join(**(pair or {}))
    node.serve(**(table or {}))
    node.mirror(**values)


def active_and_standby(lab: Nat) -> tuple[NatNode, NatNode]:
    """As soon as there are both; the lab's routers follow."""

    def found() -> tuple[NatNode, NatNode] | None:
        states = [node.pair_state() for node in (lab.a, lab.b)]
        if sorted(states) != sorted((lib.IPS_PAIR_ACTIVE, lib.IPS_PAIR_STANDBY)):
            return None
        return (lab.a, lab.b) if states[0] == lib.IPS_PAIR_ACTIVE else (lab.b, lab.a)

    active, standby = until(found)
    lab.follow("a" if active is lab.a else "b")
    return active, standby


def is_mirrored(active: NatNode, standby: NatNode) -> bool:
    peer = active.state()["mirror"]["peers"][0]
    return bool(standby.state()["is_ready"] and peer["is_ready"] and not peer["lag_events"])


def start(lab: Nat, **values: Any) -> tuple[NatNode, NatNode]:
    for node in (lab.a, lab.b):
        begin(node, **values)
    active, standby = active_and_standby(lab)
    until(lambda: is_mirrored(active, standby))
    return active, standby


def connections(lab: Nat, n: int) -> Ends:
    ends = []
    for family, address in FAMILIES:
        made = functools.partial(socket.socket, family)
        with inside(lab.names["out"], made) as listener:
            listener.bind((address, 0))
            listener.listen(n)
            listener.settimeout(60)
            for _ in range(n):
                client = inside(lab.names["in"], made)
                client.settimeout(60)
                client.connect(listener.getsockname()[:2])
                server, _ = listener.accept()
                server.settimeout(60)
                ends.append((client, server))
    return ends


def speak(ends: Ends) -> None:
    for client, server in ends:
        client.sendall(b"question")
        assert server.recv(8) == b"question"
        server.sendall(b"answer")
        assert client.recv(6) == b"answer"


def table(node: NatNode) -> dict[bytes, tuple[Any, ...]]:
    """All that has to be equal at both nodes."""
    names = ("mapped_port", "kind", "state", "flags", "version")
    return {
        r["flow"].tobytes(): (r["mapped"].tobytes(), *(int(r[name]) for name in names))
        for r in node.sessions()
    }


def notes(node: NatNode, wanted: int) -> int:
    return int(node.state()["peer_notes"][0]) & wanted


def closed(ends: Ends) -> None:
    for pair in ends:
        for end in pair:
            end.close()


def test_connections_outlive_the_node_that_was_killed(lab: Nat) -> None:
    """Each first packet waited for the standby; who was killed comes back as a standby, under load."""
    active, standby = start(lab, commit_acked=1, commit_us=1_000_000)
    ends = connections(lab, 20)
    speak(ends)
    until(lambda: table(active) == table(standby) and len(table(active)) == 40)
    state = active.state()
    assert int(state["committed"]) > 0 and int(state["uncommitted"]) == int(state["held"]) == 0
    with pytest.raises(REFUSED, match="at the active node"):
        standby.close_sessions()
    active.kill()
    until(lambda: standby.pair_state() == lib.IPS_PAIR_ACTIVE)
    lab.follow("a" if standby is lab.a else "b")
    speak(ends)
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            more = connections(lab, 3)
            speak(more)
            closed(more)

    loader = threading.Thread(target=load)
    loader.start()
    begin(active)
    until(lambda: is_mirrored(standby, active))
    stop.set()
    loader.join(120)
    speak(ends)
    until(lambda: table(standby) == table(active))
    closed(ends)


def test_equal_after_a_third_was_lost(lab: Nat) -> None:
    """Digests compared all the while, and both whole tables."""
    active, standby = start(lab, pair=PATIENT)
    for node in (active, standby):
        run(node.name, "nft add table inet lossy")
        run(node.name, "nft add chain inet lossy in { type filter hook input priority 0 ; }")
        run(node.name, "nft add rule inet lossy in udp dport 6082 numgen random mod 100 < 30 drop")
    kept = connections(lab, 20)
    for _ in range(5):
        gone = connections(lab, 10)
        speak(gone)
        closed(gone)
    speak(kept)
    active.close_sessions(state=lib.IPS_STATE_CLOSED)
    until(lambda: is_mirrored(active, standby) and table(active) == table(standby))
    compared = int(standby.state()["mirror"]["counters"][16])
    until(lambda: int(standby.state()["mirror"]["counters"][16]) > compared)
    assert int(active.state()["mirror"]["counters"][4]) > 0, "nothing was sent again"
    assert len(table(standby)) >= 40
    closed(kept)


def test_a_switchover_waits_until_the_standby_knows_the_sessions(lab: Nat) -> None:
    active, standby = start(lab)
    ends = connections(lab, 2)
    record = np.zeros(1, np.dtype([("order", np.uint32), ("argument", np.uint32)]))
    record[0]["order"] = lib.IPS_CTL_PAIR_SWITCHOVER
    standby.clear_mirror()
    standby.mirror(config_digest=8)  # never ready
    assert not standby.state()["is_ready"]

    def is_refused() -> bool:
        try:
            standby.set(lib.IPS_CTL_PAIR_COMMAND, record)
        except REFUSED as error:
            return "mirror" in error.message
        return False

    until(is_refused)
    standby.mirror()
    until(lambda: is_mirrored(active, standby))

    def is_taken() -> bool:
        try:
            standby.set(lib.IPS_CTL_PAIR_COMMAND, record)
        except REFUSED:
            return False
        return True

    until(is_taken)
    until(lambda: standby.pair_state() == lib.IPS_PAIR_ACTIVE)
    active_and_standby(lab)
    speak(ends)
    closed(ends)


def test_another_key_and_another_configuration_are_named(lab: Nat) -> None:
    for node, key in ((lab.a, b"a" * 32), (lab.b, b"b" * 32)):
        begin(node, key=key)
    for node in (lab.a, lab.b):
        until(functools.partial(notes, node, lib.IPS_CTL_MIRROR_WRONG_KEY))
    for node, digest in ((lab.a, 1), (lab.b, 2)):
        node.mirror(config_digest=digest)
    for node in (lab.a, lab.b):
        until(functools.partial(notes, node, lib.IPS_CTL_MIRROR_MISMATCH))


def test_a_peer_without_a_version_in_common_is_named_and_makes_nothing_ready(lab: Nat) -> None:
    """Both channels of the peer are played, by the sealed channel itself: first of versions to come only,
    then of one that speaks this one, too."""
    begin(lab.a, pair=PATIENT)
    flags = lib.IPS_CTL_PAIR_OTHER_VERSION, lib.IPS_CTL_MIRROR_OTHER_VERSION

    def said() -> tuple[bool, bool]:
        return bool(int(lab.a.pair_record()["flags"]) & flags[0]), bool(notes(lab.a, flags[1]))

    with contextlib.ExitStack() as after:
        doors = []
        for port, name in ((6081, "{}"), (6082, "m{}")):
            door = after.enter_context(inside(lab.b.name, lambda: socket.socket(type=socket.SOCK_DGRAM)))
            door.bind(("10.9.0.2", port))
            door.connect(("10.9.0.1", port))
            door.setblocking(False)
            doors.append((door, name.format(2).encode(), name.format(1).encode()))
        for versions, boot, is_other in (((3, 2), 1, True), ((2, 1), 2, False)):
            settings = Settings(version=versions[0], oldest=versions[1], keys=((1, b"k" * 32),))
            peers = [(door, End(own, peer, boot, settings)) for door, own, peer in doors]

            def spoken(peers: list[tuple[socket.socket, End]] = peers, wanted: bool = is_other) -> bool:
                for door, end in peers:
                    speak_for(door, end)
                opened = {bool(end.info().open) for _, end in peers}
                return said() == (wanted, wanted) and opened == {not wanted}

            until(spoken)
            assert not lab.a.state()["is_ready"] or not is_other
            assert lab.a.pair_state() != lib.IPS_PAIR_ACTIVE, "it has heard nobody"


def speak_for(door: socket.socket, end: End) -> None:
    """What has come in goes to the end, what it has to say goes out."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
        while data := door.recv(2048):
            end.open(data, now)
    for data in end.tick(now):
        with contextlib.suppress(ConnectionRefusedError):
            door.send(data)


def test_a_mirror_set_anew_at_the_active_node_is_believed(lab: Nat) -> None:
    """In the same epoch: the process is the same, and still has its sessions."""
    active, standby = start(lab)
    ends = connections(lab, 2)
    for changed in ({"commit_us": 1000}, {"commit_us": 2000}):
        active.mirror(**changed)
        until(lambda: is_mirrored(active, standby) and table(active) == table(standby))
    assert len(table(standby)) == 4
    closed(ends)


def test_a_silent_standby_costs_the_first_packet_its_patience(lab: Nat) -> None:
    """It goes all the same, and is counted."""
    active, standby = start(lab, commit_acked=1, commit_us=20_000)
    run(standby.name, "nft add table inet deaf")
    run(standby.name, "nft add chain inet deaf in { type filter hook input priority 0 ; }")
    run(standby.name, "nft add rule inet deaf in udp dport 6082 drop")
    ends = connections(lab, 1)
    speak(ends)
    assert int(active.state()["uncommitted"]) >= 1
    closed(ends)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"n_peers": 0}, "1 to 8 peers"),
    ({"role": 2}, "role"),
    ({"ring": 5}, "ring"),
    ({"window": 3}, "window"),
    ({"id": 2}, "this node's id"),
    ({"commit_us": 1_000_001}, "1 us to 1 s"),
    ({"commit_acked": 1}, "1 us to 1 s"),
    ({"n_items": 13}, "12 items"),
    ({"n_items": 1}, "an item needs a name"),
]


def test_refused_mirrors(lab: Nat) -> None:
    lab.a.start(workers=1)
    with pytest.raises(REFUSED, match="nothing to mirror"):
        lab.a.mirror()
    lab.a.serve()
    for values, sentence in WRONG:
        with pytest.raises(REFUSED, match=sentence):
            lab.a.mirror(**values)
