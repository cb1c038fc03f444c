"""The UDP ports of pair and mirror on running engines: who forges, replays, cuts, floods (LESSONS.md 18).

Whatever is not fresh and authentic is dropped before it is parsed, counted, and changes nothing: neither
sessions nor roles, and the mirror stays ready. A node that has just started is not fooled by a recording of
real nodes either.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipshare.core import lib
from tests.engine_lab import run
from tests.flows_lab import PAIR_STATE, Nat, NatNode, nat_lab
from tests.forger import FLOOD, Ear, Forger, mac
from tests.lab.test_engine_mirror import begin, closed, connections, is_mirrored, speak, start, table
from tests.pair_lab import until

PAIR, MIRROR = 6081, 6082
EACH, PORTION = 2500, 100
"""Datagrams of one flood, of which there are eight; of what is counted one by one."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Nat]:
    with nat_lab(tmp_path) as made:
        for node in (made.a, made.b):
            run(node.name, "ip link set direct mtu 9000")
        yield made


def pair_of(node: NatNode) -> Any:
    return node.control._call(lib.IPS_CTL_PAIR_STATE).one(PAIR_STATE)


def refused(node: NatNode, port: int) -> int:
    return int(pair_of(node)["refused"] if port == PAIR else node.state()["peer_refused"][0])


def spoiled(real: list[bytes], source: random.Random) -> Iterator[bytes]:
    """Nothing of it may be taken: cut, flipped, of another version, too long; of one's own making."""
    by_kind = {datagram[1]: datagram for datagram in real}
    assert {lib.IPS_SEAL_HELLO, lib.IPS_SEAL_HELLO_ACK, lib.IPS_SEAL_CONFIRM} & set(by_kind)
    for datagram in by_kind.values():
        yield from (datagram[:n] for n in range(0, len(datagram), 1 if len(datagram) < 120 else 37))
        for octet in range(0, len(datagram), 5):
            yield bytes(
                [*datagram[:octet], datagram[octet] ^ 1 << source.randrange(8), *datagram[octet + 1 :]]
            )
        yield bytes([2]) + datagram[1:]
    for n in (0, 1, 31, 32, 33, 96, 1400, 1401, 2048, 2049, 8900):
        for first in (0, 1, 2, 255):
            yield bytes([first] * (n > 0)) + source.randbytes(max(0, n - 1))


@contextlib.contextmanager
def nothing_changes(lab: Nat, nodes: tuple[NatNode, NatNode]) -> Iterator[None]:
    before = [(table(node), int(pair_of(node)["state"]), int(pair_of(node)["changes"])) for node in nodes]
    yield
    until(lambda: is_mirrored(*nodes))
    after = [(table(node), int(pair_of(node)["state"]), int(pair_of(node)["changes"])) for node in nodes]
    assert after == before


class Attack:
    """Whoever sits on the link of the two, and sends to ``victim`` as if it were ``peer``."""

    def __init__(self, victim: NatNode, peer: NatNode) -> None:
        self.victim = victim
        self.forger = Forger(peer.name, "direct", mac(victim.name, "direct"))
        self.theirs, self.ours = f"10.9.0.{peer.number}", f"10.9.0.{victim.number}"

    def __enter__(self) -> Attack:
        return self

    def __exit__(self, *_: object) -> None:
        self.forger.close()

    def all_refused(self, port: int, datagrams: list[bytes]) -> None:
        """In portions that a socket's buffer holds; each one is counted."""
        for at in range(0, len(datagrams), PORTION):
            before, some = refused(self.victim, port), datagrams[at : at + PORTION]
            self.forger.datagrams(self.theirs, self.ours, port, some)
            wanted = before + len(some)
            until(lambda wanted=wanted: refused(self.victim, port) >= wanted)  # type: ignore[misc]

    def flood(self, port: int, payload: bytes) -> None:
        before = refused(self.victim, port)
        self.forger.flood("10.9.0.77", self.ours, port, payload, EACH * FLOOD)
        strangers = refused(self.victim, port) - before  # some of what came before is counted late
        assert strangers < EACH // 10, "the kernel hands over the peer's alone"
        self.forger.flood(self.theirs, self.ours, port, payload, EACH * FLOOD)
        until(lambda: refused(self.victim, port) > before)


def handshakes(recorded: list[bytes]) -> list[bytes]:
    return [one for one in recorded if one[1] < lib.IPS_SEAL_ALIVE]


def sealed(recorded: list[bytes]) -> list[bytes]:
    return [one for one in recorded if one[1] >= lib.IPS_SEAL_ALIVE]


def test_forged_replayed_cut_and_flooded(lab: Nat) -> None:
    source = random.Random(5)
    ears = {
        node.number: {port: Ear(node.name, "direct") for port in (PAIR, MIRROR)} for node in (lab.a, lab.b)
    }
    active, standby = nodes = start(lab)
    ends = connections(lab, 2)
    speak(ends)
    until(lambda: is_mirrored(*nodes) and table(active) == table(standby))
    real = {number: {port: ear.heard(port) for port, ear in some.items()} for number, some in ears.items()}
    for victim, peer in (nodes, nodes[::-1]):
        with Attack(victim, peer) as attack:
            for port in (PAIR, MIRROR):
                recorded = real[victim.number][port]
                with nothing_changes(lab, nodes):
                    attack.all_refused(port, list(spoiled(recorded, source)))
                with nothing_changes(lab, nodes):  # seen before: one that came before its stream is not yet
                    attack.forger.datagrams(attack.theirs, attack.ours, port, recorded[::-1])
                    attack.all_refused(port, sealed(recorded)[::-1][: 2 * PORTION])
                with nothing_changes(lab, nodes):
                    attack.flood(port, sealed(recorded)[0])
                    assert is_mirrored(*nodes), "ready all the while"
    speak(ends)
    for node in nodes:
        node.kill()
    is_not_fooled(standby, active, real[standby.number])
    closed(ends)


def is_not_fooled(fresh: NatNode, peer: NatNode, real: dict[int, list[bytes]]) -> None:
    """Everything that came to it in a former life comes again, while its peer is away."""
    begin(fresh)
    with Attack(fresh, peer) as attack:
        for port in (PAIR, MIRROR):
            attack.forger.datagrams(attack.theirs, attack.ours, port, handshakes(real[port]))
            attack.all_refused(port, sealed(real[port])[: 4 * PORTION])
            attack.all_refused(port, sealed(real[port])[::-1][: 4 * PORTION])
    state, pair = fresh.state(), pair_of(fresh)
    assert len(fresh.sessions()) == 0 and not state["mirror"]["peers"][0]["feeds_us"]
    assert not int(state["peer_notes"][0]) & lib.IPS_CTL_MIRROR_HEARD
    assert (int(pair["peer_heard_ns"]), int(pair["paths_up"])) == (0, 0)
    begin(peer)
    until(lambda: is_mirrored(fresh, peer) or is_mirrored(peer, fresh))
