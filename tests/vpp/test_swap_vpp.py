"""Tables swap while VPP forwards at full speed: no packet lost, none with parts of two generations, no
barrier.

Two generations map every Global IP to another site, and in a way that shows a mix: A puts host x at offset
x of its sites, B at offset 128 + x of other ones, and half of the hosts are behind tunnels whose ends
differ. An address of A's sites with B's offset, or one generation's outer source with the other's
destination, exists in neither. Unknown addresses have routes to an interface of their own, so that VPP
itself counts mixed packets over millions; a shorter run is captured, and there each frame has to be of one
generation, byte for byte.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import pytest

from ipshare.core import lib
from tests.cases.build import build
from tests.oracle.encap import IPIP, IPV6, encap
from tests.oracle.rewrite import DST, translate
from tests.table_images import Image, binding, endpoint, in_order, network
from tests.vpp.pg import hop, read_pcap, write_pcap
from tests.vpp.pg_node import PgNode, pg_node

HOSTS = 128
FRAME = 256
SWAPS = 60
CAPTURED = 400
"""Frames of the run that is captured."""
COUNT = re.compile(r"^(load\d)\s+\S+\s+(\d+)", re.MULTILINE)
PER_FAMILY = {4: ("203.0.113.", "10.{}.0.", 24), 6: ("2001:db8:60b:a1::", "2001:db8:{}::", 64)}


class Site(NamedTuple):
    """A generation. ``base``: offset of the first host; numbers name local prefixes and tunnel ends."""

    name: str
    base: int
    rewritten: int
    tunnelled: int


A, B = Site("A", 0, 20, 21), Site("B", HOSTS, 30, 31)


def glob(family: int, x: int) -> str:
    net = PER_FAMILY[family][0]
    return f"{net}{x}" if family == 4 else f"{net}{x:x}"


def local(family: int, site: int, offset: int) -> str:
    text = PER_FAMILY[family][1].format(site)
    return f"{text}{offset}" if family == 4 else f"{text}{offset:x}"


def ends(family: int, site: int) -> tuple[str, str]:
    """Remote and own tunnel address."""
    return local(family, site, 254), local(family, site + 100, 254)


def image(site: Site, *, more: bool = False) -> bytes:
    """``more``: another Global Network, so that the FIB changes as well."""
    networks, endpoints, bindings = [], [], []
    for family, (net, _, length) in PER_FAMILY.items():
        networks.append(network(f"{net}{0 if family == 4 else ''}/{length}"))
        at = len(endpoints)
        endpoints.append(endpoint(f"{local(family, site.rewritten, 0)}/{length}"))
        tunnel = ends(family, site.tunnelled)
        endpoints.append(
            endpoint(f"{local(family, site.tunnelled, 0)}/{length}", tunnel=tunnel, encap=lib.IPS_ENCAP_IPIP)
        )
        bits = 32 if family == 4 else 128
        bindings += [binding(f"{glob(family, x)}/{bits}", at + x % 2, site.base + x) for x in range(HOSTS)]
    if more:
        networks.append(network("198.18.7.0/24"))
        bindings.append(binding("198.18.7.9/32", 0, 9))
    made = Image(networks=networks, endpoints=endpoints, bindings=in_order(bindings))
    return made.but(header={"roles": lib.IPS_ROLE_OUTER}).pack()


IMAGES = (image(A), image(B), image(A, more=True), image(B, more=True))


def packet(family: int, x: int) -> bytes:
    """To host x; the source port says which."""
    return build([{f"ip{family}": {"dst": glob(family, x)}}, {"udp": {"sport": 1000 + x}}, {"data": 20}])


def forwarded(family: int, x: int, site: Site) -> bytes:
    """What a distribution point of this generation makes of it, but for the outer IPv4 identification."""
    made = packet(family, x)
    if x % 2 == 0:
        return hop(translate(made, DST, ip_address(local(family, site.rewritten, site.base + x)).packed))
    remote, own = ends(family, site.tunnelled)
    return hop(encap(made, own, remote))


@contextlib.contextmanager
def load(node: PgNode, frames: float) -> Iterator[dict[str, int]]:
    """Streams of both families at full speed, so many frames of each; inf: until the end of the block. What
    is yielded holds, after the block, how many packets each stream made."""
    made: dict[str, int] = {}
    limit = 10**15 if frames == float("inf") else int(frames) * FRAME
    for worker, family in enumerate((4, 6)):
        file = node.directory / f"load{family}.pcap"
        write_pcap(file, [packet(family, x % HOSTS) for x in range(FRAME)])
        node.run(
            f"packet-generator new {{ name load{family} pcap {file} source pg0 node ip{family}-input"
            f" limit {limit} worker {worker} }}"
        )
        file.unlink()
    node.run("packet-generator enable-stream")
    try:
        yield made
        if limit < 10**15:
            node.generator.until_idle()
    finally:
        node.run("packet-generator disable-stream")
        made |= {name: int(n) for name, n in COUNT.findall(node.client.cli("show packet-generator"))}
        node.run("packet-generator delete load4", "packet-generator delete load6")
    assert set(made) == {"load4", "load6"}


def swap(node: PgNode, times: int) -> None:
    """Another generation each time; every fifth time back to the one before."""
    for turn, made in enumerate(islice(cycle(IMAGES), times)):
        if turn % 5 == 4:
            node.client.call("ipshare_rollback")
        else:
            node.commit(node.prepare(made))


@pytest.fixture(params=[0, 1, 2], ids=lambda n: f"workers{n}")
def node(request: pytest.FixtureRequest) -> Iterator[PgNode]:
    """Known addresses leave by pg1, all others by pg5."""
    if request.param >= len(os.sched_getaffinity(0)):
        pytest.skip(f"VPP wants a core for each of its {request.param + 1} threads")
    with pg_node(workers=request.param) as made:
        made.generator.interface(5)
        made.leave_by("pg5")
        for site in (A, B):
            for family, half, host in ((4, 25, 32), (6, 121, 128)):
                made.run(f"ip route add {local(family, site.rewritten, site.base)}/{half} via pg1")
                made.run(f"ip route add {ends(family, site.tunnelled)[0]}/{host} via pg1")
        made.commit(made.prepare(IMAGES[0]))
        yield made


def test_nothing_is_lost_or_mixed(node: PgNode) -> None:
    """Millions of packets, counted by VPP."""
    before, verdicts = (node.sent("pg1"), node.sent("pg5")), node.verdicts()
    with load(node, float("inf")) as made:
        swap(node, SWAPS)
    total = sum(made.values())
    assert total > 100 * FRAME
    assert node.sent("pg1") - before[0] == total
    assert node.sent("pg5") == before[1]
    counted = node.verdicts() - verdicts
    assert counted == {("outer", "OK"): total // 2, ("outer", "ENCAPSULATED"): total // 2}


def test_a_frame_is_of_one_generation(node: PgNode, tmp_path: Path) -> None:
    """Every byte of what is sent, but for what a tunnel's end is free to choose."""
    out = tmp_path / "out.pcap"
    node.run(f"packet-generator capture pg1 pcap {out}")
    with load(node, CAPTURED):
        swap(node, SWAPS)
    node.run("packet-generator capture pg1 disable")
    sent: dict[int, list[bytes]] = {4: [], 6: []}
    for one in read_pcap(out):
        sent[6 if one[0] >> 4 == 6 else 4].append(one)
    generations = set()
    for family, packets in sent.items():
        assert len(packets) == CAPTURED * FRAME
        known = {
            site.name: sorted(comparable(forwarded(family, x % HOSTS, site)) for x in range(FRAME))
            for site in (A, B)
        }
        for at in range(0, len(packets), FRAME):
            frame = sorted(comparable(one) for one in packets[at : at + FRAME])
            of = [name for name, wanted in known.items() if frame == wanted]
            assert of, f"frame {at // FRAME} of IPv{family} is of no generation"
            generations.update(of)
    assert generations == {"A", "B"}, "no swap happened while packets were forwarded"


def comparable(one: bytes) -> bytes:
    """Without what a tunnel's end chooses: IPv4 identification (and sum), IPv6 flow label."""
    if one[0] >> 4 == 4 and one[9] == IPIP:
        return one[:4] + one[6:10] + one[12:]
    return one[:1] + one[4:] if one[0] >> 4 == 6 and one[6] == IPV6 else one


def barriers(node: PgNode, act: Callable[[], object]) -> list[str]:
    """Who stopped the workers while ``act`` ran, from VPP's event log. CLI lines do, so ``act`` has none."""
    node.client.cli("event-logger trace barrier")
    node.client.cli("event-logger clear")
    act()
    shown = node.client.cli("show event-logger all")
    found = re.findall(r"bar-trace-(\S+)-#\d+", shown)
    assert found.pop() == "vlib_cli_dispatch_sub_commands", shown  # the last line's own
    return [caller for caller in found if caller != "vlib_cli_dispatch_sub_commands"]


@pytest.mark.parametrize("node", [1, 2], ids=lambda n: f"workers{n}", indirect=True)
def test_no_barrier(node: PgNode) -> None:
    """Generations come and go, networks with them, and no worker is stopped. VPP's FIB stops them where its
    pools have to grow, so they have their size before."""
    mtu = {"sw_if_index": 1, "mtu": [8000, 0, 0, 0]}
    stopped = barriers(node, lambda: node.client.call("sw_interface_set_mtu", **mtu))
    assert "vl_msg_api_barrier_sync" in stopped, "a message that stops workers is seen"
    swap(node, len(IMAGES))
    with load(node, float("inf")):
        assert barriers(node, lambda: swap(node, SWAPS)) == []
