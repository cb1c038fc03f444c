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
from scapy.layers.inet import TCP, UDP
from scapy.packet import Raw

from ipshare.core import lib
from ipshare.core.remap import RemapWorker
from ipshare.engine.tables import pack
from tests.engine_lab import INNER
from tests.unit.test_express import _bent
from tests.unit.test_remap_packets import LEAVING, LOCAL, TAKING, flow, ip, raw, remap

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
