"""Port-translating NAT as a few dicts: slow, obvious, without limits, without packets.

It does not choose ports: it is told what the core chose, and says whether that was allowed. Time in ticks.
States by their names in ips_flow_api.h; TCP transitions are a table, written from RFC 5382, RFC 6146 3.5.2
and RFC 7857 2.2, not from the code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

End = tuple[str, int]
TCP, UDP, ICMP = 6, 17, 1
OPENING, OPEN, CLIENT, SERVER, CLOSED, RESET = 1, 2, 3, 4, 5, 6
# (state, what, by the opener) -> state; what is not here changes nothing. "syn": a first one; "fin": ACK too.
AFTER: dict[tuple[int, str, bool], int] = {
    (OPENING, "syn", False): OPEN,  # both open at once: RFC 5382 REQ-2
    (OPENING, "ack", False): OPEN,
    (OPENING, "fin", False): SERVER,
    (OPEN, "fin", True): CLIENT,
    (OPEN, "fin", False): SERVER,
    (CLIENT, "fin", False): CLOSED,
    (SERVER, "fin", True): CLOSED,
    (CLIENT, "syn", True): OPENING,
    (SERVER, "syn", True): OPENING,
    (CLOSED, "syn", True): OPENING,
    (CLOSED, "syn", False): OPENING,
    (RESET, "syn", True): OPENING,
    (RESET, "syn", False): OPENING,
} | {(state, "rst", who): RESET for state in range(1, 7) for who in (True, False)}


@dataclass
class Session:
    state: int
    half: bool
    last: int
    from_outside: bool
    packets: list[int] = field(default_factory=lambda: [0, 0])


@dataclass
class Napt:
    independent: bool  # filtering
    patience: dict[str, int]  # ticks, by the names of struct ips_session_timeouts
    sessions: dict[tuple[int, End, End], Session] = field(default_factory=dict)
    mapped: dict[tuple[int, End], End] = field(default_factory=dict)

    def owner(self, proto: int, public: End) -> End | None:
        found = [i for (p, i), e in self.mapped.items() if p == proto and e == public]
        assert len(found) < 2
        return found[0] if found else None

    def may_take(self, proto: int, inside: End, public: End) -> bool:
        """May this be the public end of ``inside``? It then is."""
        had = self.mapped.setdefault((proto, inside), public)
        return had == public and self.owner(proto, public) == inside

    def out(self, proto: int, inside: End, remote: End, what: str, now: int) -> str:
        """OK: the caller has to say, by ``may_take``, where it came out."""
        key = (proto, inside, remote)
        if key in self.sessions:
            self._touch(key, 0, what, now)
            return "OK"
        if proto == TCP and what != "syn":
            return "NO_SESSION"
        self.sessions[key] = Session(OPENING, True, now, False, [1, 0])
        return "OK"

    def back(self, proto: int, remote: End, public: End, what: str, now: int) -> tuple[str, End | None]:
        inside = self.owner(proto, public)
        if inside is None:
            return "NO_SESSION", None
        key = (proto, inside, remote)
        if key not in self.sessions:
            if not self.independent:
                return "FILTERED", None
            if proto == ICMP or (proto == TCP and what != "syn"):
                return "NO_SESSION", None
            self.sessions[key] = Session(OPENING, True, now, True, [0, 1])
            return "OK", inside
        self._touch(key, 1, what, now)
        return "OK", inside

    def _touch(self, key: tuple[int, End, End], side: int, what: str, now: int) -> None:
        s, by_opener = self.sessions[key], (side == 1) == self.sessions[key].from_outside
        s.packets[side] += 1
        if key[0] != TCP:
            changed = s.state == OPENING and not by_opener
            changed |= s.half
            s.state, s.half = (OPEN if not by_opener else s.state), False
            if key[0] != UDP or side == 0 or changed:  # RFC 4787 REQ-6
                s.last = now
            return
        after = AFTER.get((s.state, what, by_opener), s.state)
        if after == OPENING and s.state > OPEN and not s.half:
            s.from_outside = side == 1
            s.packets = [0, 0]
            s.packets[side] = 1
        if s.state == OPENING and after in (OPEN, SERVER):
            s.half = False
        s.state, s.last = after, now

    def expire(self, now: int) -> int:
        due = [k for k, s in self.sessions.items() if now - s.last > self._patience(k[0], s.state)]
        for key in due:
            self.end(key)
        return len(due)

    def end(self, key: tuple[int, End, End]) -> bool:
        if self.sessions.pop(key, None) is None:
            return False
        if not any(k[:2] == key[:2] for k in self.sessions):
            del self.mapped[key[:2]]
        return True

    def _patience(self, proto: int, state: int) -> int:
        if proto != TCP:
            return self.patience["udp" if proto == UDP else "icmp"]
        return self.patience[
            "tcp_opening" if state == OPENING else "tcp_open" if state <= SERVER else "tcp_closing"
        ]
