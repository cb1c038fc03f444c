"""Packets of remapped addresses by the express lane are those by the whole way (native/ips_remap_lane.c).

Two workers with the same remaps, flows and packets, one with bindings that are copied, which sends all of
them the whole way. Packets are bent a little, so that they fall on either side of every condition; verdicts,
bytes, errors and counters have to be equal, and so has what the session tables know afterwards.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.packet import Raw

from ipshare.core import lib
from ipshare.core.remap import RemapWorker
from ipshare.engine.tables import pack
from tests.engine_lab import INNER
from tests.unit.test_express import _bent
from tests.unit.test_remap_packets import CHANNELS, GLOBAL, LEAVING, LOCAL, TAKING, flow, ip, raw, remap

PORTS = (1000, 1001, 1002, 1003)  # the giver's, this node's, the giver's and closing, nobody's
COPIED = replace(INNER, bindings=INNER.bindings.copy())
COPIED.bindings["flags"] = lib.IPS_BINDING_COPY
COPIED = replace(COPIED, bindings=COPIED.bindings)


def known(worker: RemapWorker, family: int) -> None:
    """Of UDP and TCP: one flow of the giver, one of this node, one that is over at the giver."""
    for proto in (6, 17):
        worker.follow(1, flow(family, proto, sport=PORTS[0]))
        worker.own(flow(family, proto, sport=PORTS[1]))
        worker.follow(1, flow(family, proto, lib.IPS_STATE_CLOSED, sport=PORTS[2]))


def made(rng: random.Random, family: int) -> bytes:
    to = LOCAL[family] if rng.random() < 0.8 else LOCAL[family][:-1] + "8"
    port, data = rng.choice(PORTS), Raw(bytes(rng.choice((0, 1, 30, 1100, 1300, 1440))))
    above: Any = UDP(sport=port, dport=53, **({"chksum": 0} if rng.random() < 0.2 else {}))
    if rng.random() < 0.5:
        above = TCP(sport=port, dport=53, flags=rng.choice(("A", "A", "S", "F", "R", "FA", "SA")))
    packet = ip(family, to=to) / above / data
    if family == 4 and rng.random() < 0.5:
        packet.flags = "DF"
    return _bent(rng, bytes(packet)) if rng.random() < 0.6 else bytes(packet)


def shown(worker: RemapWorker, packet: bytes) -> tuple[Any, ...]:
    out = worker.process("inner", packet)
    return out.verdict.name, out.packets, out.errors, out.counter, out.endpoint, worker.count()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", ["ipip", "gue", "rewrite"])
@pytest.mark.parametrize("more", ["", "left", "another"])
def test_the_lane_is_the_whole_way_shortened(family: int, kind: str, more: str) -> None:
    rng = random.Random(f"{family} {kind} {more}")
    outside = family if kind == "rewrite" else rng.choice((4, 6))
    channel = remap(TAKING, kind, family, outside=outside, mtu=1400)
    if kind == "rewrite":
        ends = [f"10.7.{n}.1" if family == 4 else f"2001:db8:77::{n}" for n in range(4)]
        channel["channel"] |= {"local": [raw(a) for a in ends[:2]], "remote": [raw(a) for a in ends[2:]]}
    remaps = [channel]
    if more == "left":  # and given to another: two remaps of the address
        remaps.append(remap(LEAVING, "gue", family, number=2, peer=2))
    elif more == "another":  # of another address, so that the filter has more to say
        remaps.append({**remap(TAKING, "gue", family, number=2, peer=2), "prefix": raw("203.0.113.8")})
        if family == 6:
            remaps[1]["prefix"] = raw("2001:db8:9::8")
    with RemapWorker(sessions=64, cells=1 << 10) as short, RemapWorker(sessions=64, cells=1 << 10) as whole:
        for worker, tables in ((short, INNER), (whole, COPIED)):
            worker.load(pack(tables))
            worker.set_remaps(remaps)
            known(worker, family)
        seen: Counter[str] = Counter()
        for _ in range(400):
            packet = made(rng, family)
            lane, way = shown(short, packet), shown(whole, packet)
            assert lane == way, packet.hex()
            seen[lane[0]] += 1
        for number in [remap["id"] for remap in remaps]:
            assert short.remap_counters(number) == whole.remap_counters(number)
        assert np.array_equal(short.cell_counts(), whole.cell_counts())
    assert {"OK", "OPENED_HERE" if more != "left" else "ASKED"} <= set(seen) and seen["FOLLOWED"] > 10


WIDE = {4: ("198.18.1.{}", 24, range(1, 60)), 6: ("2001:db8:1::{:x}", 120, range(1, 60))}


def various(rng: random.Random, family: int) -> bytes:
    """Of flows to many addresses, most of them known; anything that headers have, fragments, errors."""
    host, port = rng.choice(WIDE[family][2]), rng.choice((1000, 1001, 1002, 1003))
    head = ip(family, to=WIDE[family][0].format(host))
    life, tos = rng.choice((1, 2, 3, 64, 255)), rng.randrange(256)
    if family == 4:
        head.ttl, head.tos, head.id = life, tos, rng.randrange(65536)
        head.flags, head.frag = rng.choice(((0, 0), (2, 0), (2, 0), (4, 0), (1, 0), (1, 3), (0, 3)))
    else:
        head.hlim, head.tc, head.fl = life, tos, rng.randrange(1 << 20)
    above: Any = rng.choice(
        (UDP(sport=port, dport=53), UDP(sport=port, dport=53), TCP(sport=port, dport=53, flags="A"))
    )
    packet = bytes(head / above / Raw(bytes(rng.randrange(64))))
    if rng.random() < 0.1:  # about something that a device here had sent
        back = bytes(IP(src=GLOBAL[4], dst=head.src) / UDP(sport=53, dport=port)) if family == 4 else bytes(
            IPv6(src=GLOBAL[6], dst=head.src) / UDP(sport=53, dport=port))  # fmt: skip
        error = ICMP(type=3, code=1) if family == 4 else ICMPv6DestUnreach()
        return bytes(ip(family, to=head.dst) / error / Raw(back))
    return _bent(rng, packet) if rng.random() < 0.3 else packet


@pytest.mark.parametrize(("kind", "family", "outside"), [*CHANNELS, ("rewrite", 4, 4), ("rewrite", 6, 6)])
def test_many_flows_of_a_prefix(kind: str, family: int, outside: int) -> None:
    """Several sessions in a chain, hosts of a prefix, whatever a channel's header tells of a packet."""
    rng = random.Random(f"{kind} {family} {outside}")
    whole_of = remap(TAKING, kind, family, outside=outside, mtu=1280 if outside == 6 else 600)
    whole_of["prefix_len"] = WIDE[family][1]
    whole_of["prefix"] = raw("203.0.113.0" if family == 4 else "2001:db8:9::")
    if kind == "rewrite":
        ends = [f"10.{n}.0.0" if family == 4 else f"2001:db8:7{n}::" for n in range(4)]
        whole_of["channel"] |= {"local": [raw(a) for a in ends[:2]], "remote": [raw(a) for a in ends[2:]]}
    with RemapWorker(sessions=200, cells=1 << 10) as short, RemapWorker(sessions=200, cells=1 << 10) as whole:
        for worker, tables in ((short, INNER), (whole, COPIED)):
            worker.load(pack(tables))
            worker.set_remaps([whole_of])
            for host in WIDE[family][2]:
                for proto, port in ((6, 1000), (17, 1000), (17, 1001)):
                    known = flow(family, proto, sport=port)
                    known["flow"]["dst"][0, 3 if family == 4 else 15] = host
                    worker.follow(1, known) if port == 1000 else worker.own(known)
        seen: Counter[str] = Counter()
        for _ in range(600):
            packet = various(rng, family)
            lane, way = shown(short, packet), shown(whole, packet)
            assert lane == way, packet.hex()
            seen[lane[0]] += 1
        assert short.remap_counters(1) == whole.remap_counters(1)
        assert (short.verdict_counts() == whole.verdict_counts()).all()
        assert np.array_equal(short.cell_counts(), whole.cell_counts())
    assert seen["FOLLOWED"] > 50 and seen["OK"] > 20 and seen["OPENED_HERE"] > 10, seen


def test_other_addresses_stay_on_the_lane_and_channels_do_not() -> None:
    """A remap of one address leaves its neighbours what they were; of 64 remaps as of one."""
    with RemapWorker(sessions=64) as worker:
        worker.load(pack(INNER))
        many = [
            {**remap(TAKING, "gue", number=n, peer=n % 60), "prefix": raw(f"203.0.113.{n}")}
            for n in range(100, 164)
        ]
        worker.set_remaps(many)
        for host in range(1, 255):
            packet = bytes(ip(4, to=f"198.18.1.{host}") / UDP(sport=5, dport=6))
            wanted = "OPENED_HERE" if 100 <= host < 164 else "OK"
            assert worker.process("inner", packet).verdict.name == wanted
            assert worker.process("inner", packet).verdict.name == "OK"
