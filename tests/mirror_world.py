"""Nodes with a mirror between them, on a network that a test drives by hand: seeded, no clock, no socket.

``Store`` is a whole session table in a dictionary, with the contract of ips_mirror_api.h at both its doors.
``World`` holds nodes and datagrams under way; ``Faults`` says what happens to these. Everything random comes
from one seed, which every failure prints.
"""

from __future__ import annotations

import heapq
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from ipshare.core import ffi, lib

MS = 10**6
S = 10**9
REC = "struct ips_session_rec"
SIZE, FLOW = ffi.sizeof(REC), ffi.sizeof("struct ips_flow")
VERSION = ffi.offsetof(REC, "version")
UPSERT, DELETE = lib.IPS_SESSION_UPSERT, lib.IPS_SESSION_DELETE
COUNTERS = [ffi.string(lib.ips_mirror_counter_name(i)).decode() for i in range(lib.ips_mirror_counters())]
RESULTS = [ffi.string(lib.ips_seal_name(i)).decode() for i in range(lib.ips_seal_count())]
KEY = bytes(range(32))


def flow(number: int, family: int = 4, realm: int = 7, proto: int = 6) -> dict[str, Any]:
    """A flow that differs from that of every other number."""
    base = "10.0.0.0" if family == 4 else "2001:db8::"
    packed = (ip_address(base) + number).packed.ljust(16, b"\0")
    peer = ip_address("198.51.100.1" if family == 4 else "2001:db8:f::1").packed.ljust(16, b"\0")
    return {
        "src": packed,
        "dst": peer,
        "src_port": 1024 + number % 60000,
        "dst_port": 443,
        "family": family,
        "proto": proto,
        "realm": realm,
    }


def record(number: int, version: int = 1, family: int = 4, **changes: Any) -> bytes:
    """The octets of one struct ips_session_rec."""
    r = ffi.new(f"{REC} *")
    f = flow(number, family)
    f.update({k: changes.pop(k) for k in ("realm", "proto") if k in changes})
    for key, value in f.items():
        setattr(r.flow, key, value)
    r.kind, r.state, r.version = lib.IPS_SESSION_NAPT, lib.IPS_STATE_OPEN, version
    r.mapped, r.mapped_port = f["dst"], 40000
    for key, value in changes.items():
        setattr(r, key, value)
    return bytes(ffi.buffer(r))


def version_of(rec: bytes) -> int:
    return int(struct.unpack_from("=Q", rec, VERSION)[0])


class Store:
    """A session table: what the mirror reads on the active node, and fills on a standby."""

    def __init__(self, room: int = 1 << 30, per_scan: int = 64, digest_calls: int = 1) -> None:
        self.sessions: dict[bytes, bytes] = {}
        self.versions = 0
        self.room, self.per_scan, self.digest_calls = room, per_scan, digest_calls
        self._sums: list[int] = []
        self._calls = 0
        self.while_scanning: Callable[[], None] = lambda: None
        self.unconfirmed: dict[int, set[bytes]] = {}  # of each snapshot that is open
        self.applied: list[tuple[int, bytes]] = []
        self.snapshots: list[tuple[int, bool]] = []
        self._places: dict[bytes, int] = {}  # where a scan finds it: its own as long as it is there
        self._next_place = 1
        self._doors = (
            ffi.callback(f"size_t(void *, uint64_t *, {REC} *, size_t)", self._scan),
            ffi.callback(f"int(void *, int, {REC} const *)", self._apply),
            ffi.callback("void(void *, int, _Bool)", self._begin),
            ffi.callback("void(void *, int, _Bool)", self._end),
            ffi.callback("int(void *, _Bool, uint64_t *)", self._digest),
        )

    def doors(self, config: Any) -> None:
        config.source.scan = self._doors[0]
        (
            config.sink.apply,
            config.sink.begin_snapshot,
            config.sink.end_snapshot,
            config.sink.digest,
        ) = self._doors[1:]

    def _scan(self, _arg: Any, cursor: Any, out: Any, room: int) -> int:
        """A few at a time; the table may change between two calls, and several scans may be under way."""
        self.while_scanning()
        self._places = {key: place for key, place in self._places.items() if key in self.sessions}
        for key in self.sessions:
            if key not in self._places:
                self._places[key] = self._next_place
                self._next_place += 1
        left = sorted((place, key) for key, place in self._places.items() if place >= cursor[0])
        for i, (_, key) in enumerate(left[: min(room, self.per_scan)]):
            ffi.buffer(out + i)[:] = self.sessions[key]
        found = min(len(left), room, self.per_scan)
        cursor[0] = left[found][0] if found < len(left) else 2**64 - 1
        return found

    def _apply(self, _arg: Any, op: int, rec: Any) -> int:
        data = bytes(ffi.buffer(rec, SIZE))
        key = data[:FLOW]
        known = self.sessions.get(key)
        for waiting in self.unconfirmed.values():
            waiting.discard(key)
        if known is not None and version_of(known) >= version_of(data):
            return 0
        if op == UPSERT and known is None and len(self.sessions) >= self.room:
            return -1
        self.applied.append((op, data))
        if op == UPSERT:
            self.sessions[key] = data
        else:
            self.sessions.pop(key, None)
        return 0

    def _begin(self, _arg: Any, shard: int, is_new_origin: bool) -> None:
        if is_new_origin:
            zero = struct.pack("=Q", 0)
            self.sessions = {k: v[:VERSION] + zero + v[VERSION + 8 :] for k, v in self.sessions.items()}
        self.unconfirmed[shard] = {k for k in self.sessions if shard in (-1, shard_of(k))}

    def _end(self, _arg: Any, shard: int, is_complete: bool) -> None:
        gone = self.unconfirmed.pop(shard)
        self.snapshots.append((shard, bool(is_complete)))
        for key in gone if is_complete else ():
            self.sessions.pop(key, None)

    def _digest(self, _arg: Any, begins: bool, sums: Any) -> int:
        """As they are when it begins; told after ``digest_calls``, 0: never to be had."""
        if begins:
            self._sums, self._calls = [0] * 256, 0
            for key, rec in self.sessions.items():
                self._sums[shard_of(key)] += lib.ips_mirror_digest(view(rec))
        self._calls += 1
        if self._calls < self.digest_calls or not self.digest_calls:
            return 0 if self.digest_calls else -1
        for i, one in enumerate(self._sums):
            sums[i] = one & (2**64 - 1)
        return 1


def view(rec: bytes) -> Any:
    """A copy of its own: a cast would not keep the octets alive."""
    made = ffi.new(f"{REC} *")
    ffi.memmove(made, rec, SIZE)
    return made


def shard_of(rec: bytes) -> int:
    made = ffi.new("struct ips_flow *")
    ffi.memmove(made, rec, FLOW)
    return int(lib.ips_mirror_shard(made))


@dataclass
class Settings:
    """Of one node; small by default, so that every limit is met."""

    workers: int = 2
    ring: int = 64
    window: int = 16
    tombstones: int = 256
    burst: int = 64
    scan: int = 256
    digest_ns: int = 0
    backoff_ns: int = 50 * MS
    must_match: int = 0
    keys: tuple[tuple[int, bytes], ...] = ((1, KEY),)
    version: int = 0
    oldest: int = 0
    items: tuple[tuple[str, int], ...] = ()
    store: dict[str, Any] = field(default_factory=dict)


def seal_config(own: bytes, peer: bytes, boot: int, s: Settings) -> Any:
    c = ffi.new("struct ips_seal_config *")
    c.id, c.peer, c.boot = own.ljust(16, b"\0"), peer.ljust(16, b"\0"), boot
    c.n_keys, c.version, c.oldest = len(s.keys), s.version, s.oldest
    for i, (number, key) in enumerate(s.keys):
        c.keys[i], c.key_numbers[i] = key, number
    c.n_items = len(s.items)
    for i, (name, digest) in enumerate(s.items):
        c.items[i].name, c.items[i].digest = name.encode(), digest
    c.hello_ns, c.silence_ns = 10 * MS, 100 * MS
    return c


class Node:
    """One node: a table, a seal for each peer, the mirror between them."""

    def __init__(self, world: World, name: str, peers: list[str], settings: Settings, boot: int) -> None:
        self.world, self.name, self.peers, self.settings = world, name, peers, settings
        self.store = Store(**settings.store)
        self._random = ffi.callback(
            "void(void *, uint8_t *, size_t)", lambda _a, out, n: ffi.memmove(out, world.rng.randbytes(n), n)
        )
        c = ffi.new("struct ips_mirror_config *")
        for key in ("workers", "ring", "window", "tombstones", "burst", "scan", "digest_ns", "backoff_ns"):
            setattr(c, key, getattr(settings, key))
        c.must_match = settings.must_match
        c.rto_ns, c.idle_ns, c.n_peers = 20 * MS, 10 * MS, len(peers)
        self.seals = []
        for i, peer in enumerate(peers):
            made = lib.ips_seal_new(
                seal_config(name.encode(), peer.encode(), boot, settings), self._random, ffi.NULL
            )
            assert made != ffi.NULL
            self.seals.append(ffi.gc(made, lib.ips_seal_free))
            c.seals[i] = self.seals[i]
        self.store.doors(c)
        made = lib.ips_mirror_new(c)
        assert made != ffi.NULL
        self.m = ffi.gc(made, lib.ips_mirror_free)
        self._emit = ffi.callback(
            "void(void *, uint32_t, uint8_t const *, size_t)",
            lambda _a, p, d, n: world.sent(self.name, self.peers[p], bytes(ffi.buffer(d, n))),
        )

    def tick(self) -> None:
        lib.ips_mirror_tick(self.m, self.world.now, self._emit, ffi.NULL)

    def input(self, peer: str, data: bytes) -> str:
        return RESULTS[lib.ips_mirror_input(self.m, self.peers.index(peer), data, len(data), self.world.now)]

    def message(self, peer: str, data: bytes) -> None:
        lib.ips_mirror_message(self.m, self.peers.index(peer), data, len(data), self.world.now)

    def role(self, active: bool, epoch: int) -> bool:
        return bool(lib.ips_mirror_set_role(self.m, active, epoch))

    # -- what workers do: the table changes, then its change is pushed, under the session's lock

    def open(self, number: int, worker: int = 0, family: int = 4, **fields: Any) -> int:
        self.store.versions += 1
        rec = record(number, self.store.versions, family, **fields)
        self.store.sessions[rec[:FLOW]] = rec
        return self.push(worker, UPSERT, rec)

    def close(self, number: int, worker: int = 0, family: int = 4) -> int:
        self.store.versions += 1
        rec = record(number, self.store.versions, family)
        self.store.sessions.pop(rec[:FLOW], None)
        return self.push(worker, DELETE, rec)

    def push(self, worker: int, op: int, rec: bytes) -> int:
        return int(lib.ips_mirror_push(self.m, worker, op, view(rec)))

    def committed(self, worker: int, number: int) -> str:
        return ("WAIT", "DONE", "ALONE")[lib.ips_mirror_committed(self.m, worker, number)]

    def stats(self) -> Any:
        out = ffi.new("struct ips_mirror_stats *")
        lib.ips_mirror_stats(self.m, self.world.now, out)
        return out

    def count(self, counter: str) -> int:
        return int(self.stats().counters[COUNTERS.index(counter)])

    def peer(self, name: str) -> Any:
        stats = self.stats()
        self._kept = stats
        return stats.peers[self.peers.index(name)]

    def sealed(self, peer: str, result: str) -> int:
        return int(lib.ips_seal_counter(self.seals[self.peers.index(peer)], RESULTS.index(result)))

    def info(self, peer: str) -> Any:
        out = ffi.new("struct ips_seal_info *")
        lib.ips_seal_info(self.seals[self.peers.index(peer)], self.world.now, out)
        return out


@dataclass
class Faults:
    """Probabilities per datagram; delays in milliseconds."""

    loss: float = 0
    twice: float = 0
    flip: float = 0
    cut: float = 0
    delay_ms: tuple[float, float] = (0.1, 0.1)


class World:
    """Nodes, and what is under way between them."""

    def __init__(self, seed: int = 1, faults: Faults | None = None) -> None:
        self.seed, self.rng, self.now = seed, random.Random(seed), S
        self.faults = faults or Faults()
        self.nodes: dict[str, Node] = {}
        self.way: list[tuple[int, int, str, str, bytes]] = []
        self.log: list[tuple[str, str, bytes]] = []
        self.cut_links: set[tuple[str, str]] = set()
        self.by_hand = False
        self._count = 0
        self._boots = 100

    def add(self, name: str, peers: list[str], settings: Settings | None = None) -> Node:
        """Also: again, as a new process with an empty table."""
        self._boots += 1
        self.nodes[name] = Node(self, name, peers, settings or Settings(), self._boots)
        return self.nodes[name]

    def sent(self, source: str, to: str, data: bytes) -> None:
        self.log.append((source, to, data))
        f, rng = self.faults, self.rng
        if (source, to) in self.cut_links or rng.random() < f.loss:
            return
        for _ in range(2 if rng.random() < f.twice else 1):
            out = data
            if rng.random() < f.flip:
                at = rng.randrange(len(out))
                out = out[:at] + bytes([out[at] ^ 1 << rng.randrange(8)]) + out[at + 1 :]
            if rng.random() < f.cut:
                out = out[: rng.randrange(len(out))]
            self._count += 1
            due = self.now + int(rng.uniform(*f.delay_ms) * MS)
            heapq.heappush(self.way, (due, self._count, source, to, out))

    def step(self, ns: int = MS) -> None:
        """A millisecond: what is due arrives, everyone ticks."""
        self.now += ns
        while self.way and self.way[0][0] <= self.now and not self.by_hand:
            _, _, source, to, data = heapq.heappop(self.way)
            if to in self.nodes:
                self.nodes[to].input(source, data)
        for node in list(self.nodes.values()):
            node.tick()

    def run(self, ms: int) -> None:
        for _ in range(ms):
            self.step()

    def until(self, claim: Callable[[], Any], ms: int = 20_000) -> None:
        """Runs until the claim holds. Fails with the seed where it never does."""
        for _ in range(ms):
            if claim():
                return
            self.step()
        words = {name: counters(node) for name, node in self.nodes.items()}
        raise AssertionError(f"seed {self.seed}: it never held; {words}")


def counters(node: Node) -> dict[str, int]:
    stats = node.stats()
    return {name: int(stats.counters[i]) for i, name in enumerate(COUNTERS) if stats.counters[i]}


def pair(
    seed: int = 1, faults: Faults | None = None, settings: Settings | None = None
) -> tuple[World, Node, Node]:
    """An active node `a` in epoch 1 and its standby `b`."""
    w = World(seed, faults)
    a, b = w.add("a", ["b"], settings), w.add("b", ["a"], settings)
    a.role(True, 1)
    return w, a, b


def ready(w: World, a: Node, b: str = "b") -> None:
    w.until(lambda: a.peer(b).is_ready)


def same(a: Node, b: Node) -> bool:
    return a.store.sessions == b.store.sessions
