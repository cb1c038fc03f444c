"""S1.5-S1.8 on VPP: whatever the tables say, VPP's plugin does with a packet what the C core alone does.

One image with every kind of binding, path and unmatched address, and packets of every shape to each of
them; then what left the distribution point, tunnels included, into the end point. The core runs in this
process (ipshare.core.Worker, judged by the oracles elsewhere); verdicts, packets, ICMP errors are compared
one by one. Only what a tunnel's end is free to choose may differ.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

import pytest

from ipshare.core import Worker, lib
from tests.cases import cases
from tests.cases.build import build
from tests.oracle.parse import Offload, Refused
from tests.oracle.rewrite import DST, translate
from tests.table_images import Image, binding, endpoint, in_order, member, network, policy
from tests.vpp.pg import hop
from tests.vpp.pg_node import PgNode, as_described, pg_node, verdict_of
from tests.vpp.taken_over import CASES

IPIP_, GUE = lib.IPS_ENCAP_IPIP, lib.IPS_ENCAP_GUE
PATHS: dict[str, dict[str, int]] = {
    "rewritten": {},
    "ip-in-ip": {"encap": IPIP_},
    "gue": {"encap": GUE, "gue_port": 6080},
    "narrow": {"path_mtu": 1280},
    "narrow ip-in-ip": {"encap": IPIP_, "path_mtu": 1300},
    "narrow gue": {"encap": GUE, "gue_port": 6080, "path_mtu": 1300},
    "clamped": {"path_mtu": 1300, "flags": lib.IPS_EP_MSS_CLAMP},
    "traced": {"encap": lib.IPS_ENCAP_NONE, "flags": lib.IPS_EP_TRACE_TUNNEL},
}
NETS = {4: ("203.0.113.{}", "10.20.{}.0/24", 24), 6: ("2001:db8:60b:a1::{}", "2001:db8:10ca:{}::/64", 64)}
UNMATCHED = {4: "198.18.{}.0/24", 6: "2001:db8:18:{}::/64"}
TUNNELS = {4: ("10.99.{}.1", "10.98.0.1"), 6: ("2001:db8:99:{}::1", "2001:db8:98::1")}
DOORS = {"plain": ("pg0", "pg1"), "checksums": ("pg3", "pg4"), "gso": ("pg2", "pg4")}
VERDICTS = {"OK", "ENCAPSULATED", "HERE", "PASS", "SPLIT", "TTL_EXPIRED", "TOO_BIG"}
VERDICTS |= {"NO_BINDING", "UNREACHABLE", "HOST_DOWN"}
SOURCES = (ip_address("192.0.2.1").packed, ip_address("2001:db8:77::1").packed)


def tables(role: int, own: int = 0) -> bytes:
    """Both families; the paths in turn through tunnels of either family. own: flags of the end points."""
    networks, endpoints, bindings = [], [], []
    for family, (net, local, length) in NETS.items():
        networks.append(network(f"{net.format('0' if family == 4 else '')}/{length}"))
        first, bits = len(endpoints), 32 if family == 4 else 128
        for i, fields in enumerate(PATHS.values()):
            remote, near = TUNNELS[(4, 6)[(i + family // 6) % 2]]
            ends = remote.format(i + (100 if family == 6 else 0)), near
            tunnel = (ends[1], ends[0]) if own else ends
            flags = fields.get("flags", 0) | own
            endpoints.append(endpoint(local.format(i), tunnel=tunnel, **(fields | {"flags": flags})))
            bindings.append(binding(f"{net.format(i)}/{bits}", first + i, i))
        for at, kind in ((20, lib.IPS_KIND_HERE), (21, lib.IPS_KIND_DOWN)):
            bindings.append(binding(f"{net.format(at)}/{bits}", 0, 0, kind))
        bindings.append(binding(f"{net.format(22)}/{bits}", family // 6, 22, lib.IPS_KIND_POLICY))
        for i, unmatched in enumerate((lib.IPS_UNMATCHED_UNREACHABLE, lib.IPS_UNMATCHED_PASS)):
            networks.append(network(UNMATCHED[family].format(i), unmatched=unmatched))
    n = len(PATHS)
    header = {
        "roles": role, "icmp_rate": 10**6,
        "icmp_source4": list(SOURCES[0].ljust(16, b"\0")), "icmp_source6": list(SOURCES[1]),
    }  # fmt: skip
    return Image(
        networks=networks,
        endpoints=endpoints,
        policies=[policy(0, n), policy(n, n)],
        members=[member(i) for i in range(2 * n)],
        bindings=in_order(bindings),
        header=header,
    ).pack()


OUTER = tables(lib.IPS_ROLE_OUTER)
INNER = tables(lib.IPS_ROLE_INNER, lib.IPS_EP_SELF)


def shapes() -> Iterator[bytes]:
    """Packets client -> global: the good cases, quotes at some lengths only, and long ones, with and
    without DF."""
    for case in cases():
        cut = case.name.partition("/")[2]
        if (
            case.on_wire
            and case.verdict == "OK"
            and case.name not in CASES
            and (not cut or int(cut) % 16 == 0)
        ):
            yield case.packet
    for size in (1220, 1240, 1260, 1280, 1300, 1500, 4000):
        for df in (False, True):
            yield build([{"ip4": {"df": df}}, "udp", {"data": size - 28}])
        yield build(["ip6", "tcp", {"data": size - 60}])
        yield build([{"ip4": {"fragment": [0, size // 8 * 8]}}, "udp", {"data": 5000}])
    for ip in ("ip4", "ip6"):
        for ttl in (1, 2, 5, 40):
            yield build([{ip: {"ttl": ttl}}, "udp", {"data": 30}])
        yield build([ip, {"tcp": {"flags": 2, "options": "020405b4"}}])
        yield build([ip, {"tcp": {"flags": 2, "options": "0101020423280000"}}])


def targets(family: int) -> list[str]:
    """Every binding, and unmatched addresses of each network."""
    net = NETS[family][0]
    bound = [net.format(i) for i in (*range(len(PATHS)), 20, 21, 22, 99)]
    free = [UNMATCHED[family].format(i).partition("/")[0] for i in (0, 1)]
    return bound + [f"{one[:-1]}7" if family == 4 else f"{one}7" for one in free]


def packets() -> Iterator[bytes]:
    for shape in shapes():
        for target in targets(6 if shape[0] >> 4 == 6 else 4):
            try:
                yield translate(shape, DST, ip_address(target).packed)
            except Refused:
                continue


def comparable(one: bytes) -> bytes:
    """Without what a tunnel's end chooses: IPv4 identification (and sum), IPv6 flow label."""
    if one[0] >> 4 == 4:
        return one[:4] + one[6:10] + one[12:]
    return one[:1] + one[4:]


def by_the_core(worker: Worker, side: str, packet: bytes, fields: Offload) -> tuple[str, Counter[bytes]]:
    given = {name: value for name, value in vars(fields).items() if value}
    made = worker.process(side, packet, **given)  # type: ignore[arg-type]
    sent = [comparable(hop(one)) for one in made.packets] + [comparable(one) for one in made.errors]
    return made.verdict.name, Counter(sent)


def compare(
    node: PgNode, worker: Worker, side: str, batch: Sequence[bytes], enter: str
) -> tuple[Counter[str], list[bytes]]:
    """Verdicts, and what was sent."""
    verdicts, onward = Counter[str](), []
    for packet, found in zip(
        batch, node.generator.pass_(batch, enter=enter, leave=node.way_out), strict=True
    ):
        verdict, sent = by_the_core(worker, side, *as_described(packet, enter))
        story = (
            f"{packet.hex()}: the core says {verdict}, {[one.hex() for one in sent]}\n{found}\n{found.trace}"
        )
        assert verdict_of(found) == verdict, story
        verdicts[verdict] += 1
        if verdict in ("HERE", "PASS") and packet[8 if packet[0] >> 4 == 4 else 7] == 1:
            continue  # a hop that VPP's own rewrite does not find any more
        if verdict == "HERE" and len(node.tables) == 1:
            sent = Counter()  # its device has no route of its own here: the default route would lead it back
        assert Counter(comparable(one) for one in found.sent) == sent, story
        onward += found.sent
    return verdicts, onward


@pytest.fixture(scope="module", params=[((0, 0), 0), ((7, 8), 1)], ids=["one table", "two tables, a worker"])
def node(request: pytest.FixtureRequest) -> Iterator[PgNode]:
    """Packets are looked up, and those translated are, in one table, or in two others than VPP's first."""
    fib_tables, workers = request.param
    if workers >= len(os.sched_getaffinity(0)):
        pytest.skip("VPP wants a core for each of its threads")
    with pg_node(tables=fib_tables, workers=workers) as made:
        yield made


@pytest.mark.parametrize("door", DOORS)
def test_vpp_does_what_the_core_does(node: PgNode, door: str) -> None:
    """There and, with all that came out, back."""
    enter, leave = DOORS[door]
    node.leave_by(leave)
    with Worker(cells=1 << 12) as outer, Worker(cells=1 << 12) as inner:
        lib.ips_worker_set_coalescing(inner._worker, False)  # VPP's plugin does not
        outer.load(OUTER)
        node.commit(node.prepare(OUTER))
        verdicts, onward = compare(node, outer, "outer", list(packets()), enter)
        assert not VERDICTS - set(verdicts), verdicts
        inner.load(INNER)
        node.commit(node.prepare(INNER))
        ours = [one for one in onward if inner.process("inner", one).verdict.name != "NO_BINDING"]
        verdicts, _ = compare(node, inner, "inner", ours, enter)
        assert {"OK", "DECAPSULATED"} <= set(verdicts)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("path", ["ip-in-ip", "narrow ip-in-ip", "narrow gue"])
def test_full_frames_keep_their_order(node: PgNode, path: str, family: int) -> None:
    """A frame of packets each of which becomes several, or an ICMP error: all that is made leaves, in
    order."""
    node.leave_by("pg1")
    to = ip_address(NETS[family][0].format(list(PATHS).index(path))).packed
    sizes = [64, 1400, 3000, 5000, 8000] * 120
    batch = [
        translate(build([f"ip{family}", {"udp": {"sport": 1024 + i}}, {"data": size}]), DST, to)
        for i, size in enumerate(sizes)
    ]
    with Worker(cells=1 << 12) as worker:
        worker.load(OUTER)
        node.commit(node.prepare(OUTER))
        wanted = []
        for packet in batch:
            made = worker.process("outer", packet)
            wanted += [hop(one) for one in made.packets] + list(made.errors)
    assert len(wanted) >= len(batch)
    sent = node.generator.burst(batch)
    assert Counter(comparable(one) for one in sent) == Counter(comparable(one) for one in wanted)
    for is_error in (False, True):
        kept = [[comparable(one) for one in many if is_icmp(one) == is_error] for many in (sent, wanted)]
        assert kept[0] == kept[1]


def is_icmp(one: bytes) -> bool:
    return one[9 if one[0] >> 4 == 4 else 6] in (1, 58)
