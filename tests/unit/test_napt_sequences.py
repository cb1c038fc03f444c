"""Port-translating NAT beside its oracle, over any sequence of packets, closings and time (DESIGN.md 7).

Few inside ends, remotes and ports, so that everything meets everything. After every step both agree about
the verdict, where the packet goes, every session's state and counters, and who has which public port.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.napt_door import ACK, FIN, ICMP, ICMP6, RST, SYN, TCP, UDP, Flow, Nat, ticks
from tests.oracle.napt import Napt

FLAGS = {"syn": SYN, "ack": ACK, "fin": FIN | ACK, "rst": RST}
TIMES = {"tcp_opening": 40, "tcp_open": 200, "tcp_closing": 30, "udp": 60, "icmp": 20}
INSIDE = {4: ("10.0.0.1", "10.9.8.7"), 6: ("fd00::1", "fd77::2:3")}
REMOTE = {4: ("198.51.100.1", "192.0.2.9"), 6: ("2001:db8:1::1", "2001:db8:2::2")}
POOL = {4: ("203.0.113.0", "203.0.113.1"), 6: ("2001:db8:ff::", "2001:db8:ff::1")}
PORTS = (4000, 4007)

packets = st.tuples(
    st.sampled_from(("out", "out", "back")),
    st.sampled_from((4, 6)),
    st.sampled_from((TCP, UDP, ICMP)),
    st.integers(0, 3),  # inside address and port; from outside: address of the pool and half of a port
    st.integers(0, 3),  # remote
    st.sampled_from(tuple(FLAGS)),
    st.integers(0, 3),
)
steps = st.one_of(
    packets,
    packets,
    packets,
    st.tuples(st.just("time"), st.sampled_from((1, 5, ticks(20), ticks(40), ticks(60), ticks(200)))),
    st.tuples(st.just("close"), st.integers(0, 15)),
)


class Both:
    def __init__(self, independent: bool) -> None:
        self.nat = Nat(ports=PORTS, filtering=0 if independent else 1, timeouts=TIMES)
        self.model = Napt(independent, {k: ticks(v) for k, v in TIMES.items()})
        self.recent: list[tuple[int, tuple[str, int]]] = []

    def out(self, family: int, proto: int, a: int, b: int, what: str, _port: int) -> None:
        inside = (INSIDE[family][a % 2], 1000 + a // 2)
        remote = (REMOTE[family][b % 2], 0 if proto == ICMP else 53 + b // 2)
        wire = ICMP6 if proto == ICMP and family == 6 else proto
        verdict, went = self.nat.out(Flow(wire, inside, remote), FLAGS[what])
        assert verdict == self.model.out(proto, inside, remote, what, self.nat.now)
        if verdict != "OK":
            return
        assert went.src[0] in POOL[family] and went.dst[0] == remote[0]
        assert proto == ICMP or PORTS[0] <= went.src[1] <= PORTS[1]
        assert proto == ICMP or went.dst == remote
        assert self.model.may_take(proto, inside, went.src)
        self.recent.append((proto, went.src))

    def back(self, family: int, proto: int, a: int, b: int, what: str, port: int) -> None:
        """To a public end that was given out before, mostly."""
        known = [end for p, end in self.recent if p == proto and (":" in end[0]) == (family == 6)]
        public = known[-1 - port % len(known)] if known else (POOL[family][a % 2], PORTS[0] + port)
        remote = (REMOTE[family][b % 2], 0 if proto == ICMP else 53 + b // 2)
        wire = ICMP6 if proto == ICMP and family == 6 else proto
        sent = Flow(wire, (remote[0], public[1] if proto == ICMP else remote[1]), public)
        verdict, went = self.nat.back(sent, FLAGS[what])
        expected, inside = self.model.back(proto, remote, public, what, self.nat.now)
        assert verdict == expected
        if inside is not None and verdict == "OK":
            assert went.dst == inside
            assert went.src[0] == remote[0]

    def time(self, passed: int) -> None:
        self.nat.now += passed
        assert self.nat.expire() == self.model.expire(self.nat.now)

    def close(self, which: int) -> None:
        if not self.model.sessions:
            return
        key = sorted(self.model.sessions, key=str)[which % len(self.model.sessions)]
        proto, inside, remote = key
        wire = ICMP6 if proto == ICMP and ":" in inside[0] else proto
        assert self.nat.close(Flow(wire, inside, remote)) == 1
        assert self.model.end(key)

    def agree(self) -> None:
        for (proto, inside, remote), s in self.model.sessions.items():
            wire = ICMP6 if proto == ICMP and ":" in inside[0] else proto
            r = self.nat.get(Flow(wire, inside, remote))
            assert r is not None
            assert (r.state, r.packets, r.flags) == (s.state, tuple(s.packets), int(s.from_outside))
            assert r.mapped == self.model.mapped[proto, inside]
        half = sum(s.half for s in self.model.sessions.values())
        counts = (self.nat.stat("sessions"), self.nat.stat("half_open"), self.nat.stat("mappings"))
        assert counts == (len(self.model.sessions) - half, half, len(self.model.mapped))
        assert self.nat.ports() == len(self.model.mapped)


@given(independent=st.booleans(), sequence=st.lists(steps, max_size=60))
@examples(300)
def test_any_sequence(independent: bool, sequence: list[tuple[object, ...]]) -> None:
    both = Both(independent)
    for verb, *rest in sequence:
        getattr(both, str(verb))(*rest)
        both.agree()
    told = {r.flow: op for op, r in sorted(both.nat.events, key=lambda e: e[1].version)}
    assert len({(r.flow, r.version) for _, r in both.nat.events}) == len(both.nat.events)
    assert {f for f, op in told.items() if op == 1} == {r.flow for r in both.nat.scan()}
