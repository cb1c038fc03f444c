"""S1.5 on VPP: replies that enter by a named interface, compared with the core one by one.

At the end point: tunnelled to a distribution point, or their source made local; at the distribution point:
their source made global. What has no such source, or is for VPP itself, passes as if the feature were not
there.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipshare.config import load_text
from ipshare.core import Worker, lib
from ipshare.engine.desired import desired
from ipshare.engine.tables import pack
from tests.cases import cases
from tests.cases.build import build
from tests.oracle.parse import Refused
from tests.oracle.rewrite import DST, SRC, translate
from tests.sites import CLIENT4, CLIENT6, GLOBAL4, GLOBAL6, LOCAL_A4, LOCAL_A6, toml
from tests.vpp.pg import hop
from tests.vpp.pg_node import ADDRESSES, PgNode, pg_node
from tests.vpp.taken_over import CASES
from tests.vpp.test_core_vpp import DOORS, compare

KINDS = {
    "tunnelled": ("A", "inner", {"replies": "tunnel"}, (GLOBAL4, GLOBAL6), "ENCAPSULATED"),
    "tunnelled by ip-in-ip": (
        "A", "inner", {"replies": "tunnel", "reply_path": "ipip"}, (GLOBAL4, GLOBAL6), "ENCAPSULATED",
    ),
    "made local": ("A", "inner", {"replies": "rewrite"}, (GLOBAL4, GLOBAL6), "OK"),
    "made global": ("C", "outer", {"replies": "rewrite"}, (LOCAL_A4, LOCAL_A6), "OK"),
}  # fmt: skip
"""Node, side, configuration, sources, verdict of most."""


def replies(sources: tuple[str, str]) -> Iterator[bytes]:
    """The shapes of the packet cases, from these sources to a client."""
    for case in cases():
        if case.verdict != "OK" or not case.on_wire or case.name in CASES or "/" in case.name:
            continue
        if case.packet[0] >> 4 == 4 and case.packet[0] != 0x45:
            continue  # NO_REPLIES
        at = case.family // 6
        try:
            there = translate(case.packet, SRC, ip_address(sources[at]).packed)
            yield translate(there, DST, ip_address((CLIENT4, CLIENT6)[at]).packed)
        except Refused:
            continue


@pytest.fixture(scope="module")
def node() -> Iterator[PgNode]:
    with pg_node(tables=(0, 8)) as made:
        yield made


def look_at_replies(node: PgNode, side: str, enable: bool) -> None:
    for row in node.client.dump("sw_interface_dump"):
        if row.interface_name in ("pg0", "pg2", "pg3"):
            fields = {
                "sw_if_index": row.sw_if_index,
                "side": ("outer", "inner").index(side),
                "enable": enable,
            }
            node.client.call("ipshare_reply_interface", **fields)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", KINDS)
def test_s1_5_replies(node: PgNode, kind: str, door: str) -> None:
    name, side, options, sources, usual = KINDS[kind]
    image = bytes(pack(desired(load_text(toml(name, **options), Path(f"{name}.toml")))))  # type: ignore[arg-type]
    enter, leave = DOORS[door]
    node.leave_by(leave)
    with Worker(cells=1 << 12) as worker:
        lib.ips_worker_set_coalescing(worker._worker, False)
        worker.load(image)
        node.commit(node.prepare(image))
        look_at_replies(node, side, True)
        try:
            verdicts, _ = compare(node, worker, side, list(replies(sources)), enter)
            assert verdicts[usual] > 50, verdicts
            others = [build([{ip: {"src": "other", "dst": "client"}}, "udp"]) for ip in ("ip4", "ip6")]
            own = [
                build([{"ip4": {"src": sources[0], "dst": ADDRESSES[0].partition("/")[0]}}, "icmp"]),
                build([{"ip6": {"src": sources[1], "dst": ADDRESSES[1].partition("/")[0]}}, "icmp6"]),
            ]
            passed = node.generator.pass_(others + own, enter="pg0", leave=leave)
            assert [one.sent for one in passed[:2]] == [(hop(packet),) for packet in others]
            for one in passed[2:]:
                assert {"ip4-receive", "ip6-receive"} & set(one.nodes), one.trace
        finally:
            look_at_replies(node, side, False)
        (found,) = node.generator.pass_(others[:1], leave=leave)
        assert not any(visited.startswith("ipshare") for visited in found.nodes)
