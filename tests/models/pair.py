"""Two nodes of a pair as a world of their own: the machine of native/, simulated clocks, paths, disks,
witness.

Nothing happens by itself: ``run`` moves true time on in ticks; each node sees its own clock (rate, frozen).
Messages go through the codec. ``forwarding`` is the worst case: a node whose lease runs by its own clock
may forward, also while its pair thread does not run. ``check`` holds what must be true at every instant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ipshare.core import VERDICTS, ffi, lib

MS = 1_000_000
TICK, INTERVAL, DEAD, LEASE, HOLD = MS, 10 * MS, 30 * MS, 20 * MS, 100 * MS
TTL, ASK = 300 * MS, 20 * MS
GATE = {0: True, next(v.number for v in VERDICTS if v.name == "PAIR_NOT_ACTIVE"): False}
STATES = {1: "initial", 2: "active", 3: "standby", 4: "inop"}


def config(node: int, **changes: int) -> Any:
    c = ffi.new("struct ips_pair_config *")
    values = {
        "node": node, "peer": 3 - node, "clock_ppm": 200, "n_paths": 2, "losses": 3, "jitter_times": 3,
        "tick_ns": TICK, "interval_ns": INTERVAL, "dead_ns": DEAD, "lease_ns": LEASE, "floor_ns": 10 * MS,
        "jitter_ns": 2 * MS, "late_ns": 5 * MS, "stall_ns": 8 * MS, "hold_ns": HOLD,
        "preempt_hold_ns": 50 * MS, "witness_ttl_ns": TTL, "witness_ask_ns": ASK,
    }  # fmt: skip
    for name, value in (values | changes).items():
        setattr(c, name, value)
    return c


def text(reason: Any) -> str:
    return str(ffi.string(reason).decode()) if reason != ffi.NULL else ""


class Witness:
    """One lock with a time to live, by its own clock (true time); ``up`` False: it does not answer."""

    def __init__(self) -> None:
        self.up, self.holder, self.counter, self.until = True, 0, 0, 0

    def ask(self, node: int, counter: int, now: int) -> tuple[int, tuple[int, int]]:
        free = self.until <= now or self.holder == node
        renews = (self.holder, self.counter) == (node, counter)
        if counter and free and (counter > self.counter or renews):
            self.holder, self.counter, self.until = node, counter, now + TTL
            return lib.IPS_PAIR_GRANTED, (counter, node)
        return lib.IPS_PAIR_REFUSED, (self.counter, self.holder)

    def release(self, node: int, counter: int) -> None:
        if (self.holder, self.counter) == (node, counter):
            self.until = 0


@dataclass
class Node:
    """A node and what the host around it would do. ``disk``: the epoch file, None: there is none."""

    number: int
    world: World
    disk: int | None = 0
    changes: dict[str, int] = field(default_factory=dict)
    rate_ppm: int = 0
    up: bool = False
    paused: bool = False  # the pair thread does not run; the workers may
    frozen: int = 0  # nothing runs and the clock stands: how much it has lost
    is_frozen: bool = False
    disk_works: bool = True
    lease: int = 0
    boots: int = 0
    sent: int = 0
    states: list[tuple[str, str]] = field(default_factory=list)
    announced: list[int] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.m, self.out = ffi.new("struct ips_pair *"), ffi.new("struct ips_pair_actions *")
        self.facts = {"link_up": 1, "criteria_ok": 1, "loaded": 1, "mirror_ready": 1}
        self.stalled_at: int | None = None
        self.inbox: list[bytes] = []

    def clock(self) -> int:
        return self.world.now + self.world.now * self.rate_ppm // 1_000_000 - self.frozen

    @property
    def state(self) -> str:
        return STATES[self.m.state] if self.up else "down"

    @property
    def reason(self) -> str:
        return text(lib.ips_pair_reason_name(self.m.reason))

    @property
    def runs(self) -> bool:
        return self.up and not self.paused and not self.is_frozen

    @property
    def forwards(self) -> bool:
        return self.up and not self.is_frozen and GATE[lib.ips_pair_gate_at(self.lease, self.clock())]

    def start(self) -> None:
        self.up, self.lease, self.inbox, self.boots = True, 0, [], self.boots + 1
        boot = self.number * 1000 + self.boots
        has_file = self.disk is not None
        lib.ips_pair_start(
            self.m, config(self.number, **self.changes), boot, has_file, self.disk or 0, self.clock()
        )
        self.set_facts()

    def crash(self) -> None:
        self.up, self.lease = False, 0

    def set_facts(self, **facts: int) -> None:
        self.facts |= facts
        f = ffi.new("struct ips_pair_facts *", self.facts)
        f.workers_ns = self.clock() if self.stalled_at is None else self.stalled_at
        lib.ips_pair_set_facts(self.m, f, self.clock(), self.out)
        self.act()

    def order(self, command: int) -> str:
        why = text(lib.ips_pair_order(self.m, command, self.clock(), self.out))
        self.act()
        return why

    def receive(self, data: bytes) -> int:
        msg = ffi.new("struct ips_pair_msg *")
        refused = lib.ips_pair_decode(data, len(data), msg)
        if not refused:
            refused = lib.ips_pair_message(self.m, msg, self.clock(), self.out)
            self.act()
        self.refused[refused] = self.refused.get(refused, 0) + 1
        return int(refused)

    def tick(self) -> None:
        """As the host does it: drain the sockets, then tick."""
        inbox, self.inbox = self.inbox, []
        for data in inbox:
            self.receive(data)
        self.m.facts.workers_ns = self.clock() if self.stalled_at is None else self.stalled_at
        lib.ips_pair_tick(self.m, self.clock(), self.out)
        self.act()

    def act(self) -> None:
        for a in [ffi.new("struct ips_pair_action *", self.out.a[i]) for i in range(self.out.n)]:
            ACTIONS[a.kind](self, a)

    def _send(self, a: Any) -> None:
        data = ffi.new("uint8_t[]", lib.IPS_PAIR_BYTES)
        lib.ips_pair_encode(ffi.addressof(a, "msg"), data)
        self.sent += 1
        self.world.send(self.number, bytes(ffi.buffer(data)))

    def _lease(self, a: Any) -> None:
        self.lease = a.value
        if a.value:
            assert self.disk is not None and self.m.reign <= self.disk, "forwards under an epoch not on disk"

    def _persist(self, a: Any) -> None:
        if self.disk_works:
            self.disk = max(self.disk or 0, a.value)
        self.world.later(lambda: self._persisted(self.boots, a.value, self.disk_works))

    def _persisted(self, boot: int, counter: int, ok: bool) -> None:
        if self.runs and boot == self.boots:
            lib.ips_pair_persisted(self.m, counter, ok, self.clock(), self.out)
            self.act()

    def _state(self, a: Any) -> None:
        self.states.append((STATES[a.to], text(lib.ips_pair_reason_name(a.reason))))
        assert STATES[a.to] != STATES[getattr(a, "from")]
        if STATES[a.to] == "active":
            self.epochs.append(int(self.m.reign))
            assert self.epochs == sorted(set(self.epochs)), "a counter was used twice"

    def _announce(self, a: Any) -> None:
        assert self.forwards
        self.announced.append(self.world.now)

    def _ask(self, a: Any) -> None:
        self.world.ask(self, int(a.value), int(a.at_ns))

    def _release(self, a: Any) -> None:
        if self.world.witness_reached(self):
            self.world.witness.release(self.number, int(a.value))


ACTIONS: dict[int, Callable[[Node, Any], None]] = {
    lib.IPS_PAIR_SEND: Node._send,
    lib.IPS_PAIR_LEASE: Node._lease,
    lib.IPS_PAIR_PERSIST: Node._persist,
    lib.IPS_PAIR_STATE: Node._state,
    lib.IPS_PAIR_ANNOUNCE: Node._announce,
    lib.IPS_PAIR_ASK: Node._ask,
    lib.IPS_PAIR_RELEASE: Node._release,
}


class World:
    """``cut``: pairs (sender, path) that lose everything. ``deliver(sender, path)``: delay in ns, None:
    lost."""

    def __init__(
        self, start: bool = True, disks: tuple[int | None, int | None] = (0, 0), **changes: int
    ) -> None:
        self.now, self.step = 1000 * MS, TICK
        self.cut: set[tuple[int, int]] = set()
        self.deliver: Callable[[int, int], int | None] = lambda sender, path: MS // 4
        self.flying: list[tuple[int, int, int, bytes]] = []
        self.todo: list[tuple[int, Callable[[], None]]] = []
        self.number = 0
        self.witness, self.witness_cut = Witness(), set[int]()
        self.a, self.b = Node(1, self, disks[0], dict(changes)), Node(2, self, disks[1], dict(changes))
        self.nodes = (self.a, self.b)
        self.both_at: list[int] = []
        if start:
            self.a.start()
            self.b.start()

    def later(self, call: Callable[[], None], delay: int = MS // 2) -> None:
        self.todo.append((self.now + delay, call))

    def send(self, sender: int, data: bytes) -> None:
        for path in range(2):
            delay = None if (sender, path) in self.cut else self.deliver(sender, path)
            if delay is not None:
                self.number += 1
                self.flying.append((self.now + delay, self.number, 3 - sender, data))

    def cut_all(self, *senders: int) -> None:
        self.cut |= {(sender, path) for sender in senders or (1, 2) for path in range(2)}

    def witness_reached(self, node: Node) -> bool:
        return self.witness.up and node.number not in self.witness_cut

    def ask(self, node: Node, counter: int, asked: int) -> None:
        if not self.witness_reached(node):
            return
        boot = node.boots

        def arrive() -> None:
            answer, highest = self.witness.ask(node.number, counter, self.now)
            self.later(lambda: answered(answer, highest))

        def answered(answer: int, highest: tuple[int, int]) -> None:
            if node.runs and node.boots == boot and self.witness_reached(node):
                epoch = ffi.new("struct ips_pair_epoch *", {"counter": highest[0], "node": highest[1]})
                lib.ips_pair_witness(node.m, answer, counter, epoch[0], asked, node.clock(), node.out)
                node.act()

        self.later(arrive)

    def run(self, ms: float, until: Callable[[], bool] | None = None) -> float:
        """Returns the milliseconds that passed."""
        begin, end = self.now, self.now + int(ms * MS)
        while self.now < end and not (until and until()):
            self.once()
        return (self.now - begin) / MS

    def once(self) -> None:
        self.now += self.step
        for node in self.nodes:
            if node.is_frozen:
                node.frozen += self.step
        due, self.todo = [t for t in self.todo if t[0] <= self.now], [t for t in self.todo if t[0] > self.now]
        for _, call in due:
            call()
        arrived = sorted(f for f in self.flying if f[0] <= self.now)
        self.flying = [f for f in self.flying if f[0] > self.now]
        for _, _, to, data in arrived:
            if self.nodes[to - 1].up:
                self.nodes[to - 1].inbox.append(data)
        for node in self.nodes:
            if node.runs:
                node.tick()
        self.check()

    def check(self) -> None:
        if self.a.forwards and self.b.forwards:
            self.both_at.append(self.now)

    @property
    def active(self) -> Node | None:
        """The one that forwards, if it is one."""
        forward = [node for node in self.nodes if node.forwards]
        return forward[0] if len(forward) == 1 else None
