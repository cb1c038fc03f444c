"""Records and messages of the mirror, octet by octet: cut, flipped, made up; nothing odd is taken.

After the seal: as from a peer that has the key and a fault of its own (HAProxy: a codec mismatch).
"""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from ipshare.core import ffi, lib
from tests.mirror_world import DELETE, REC, UPSERT, Node, World, pair, ready, record, same, view

HEAD = 22


def put(op: int, rec: bytes) -> bytes:
    out = ffi.new("uint8_t[120]")
    return bytes(ffi.buffer(out, lib.ips_mirror_put(out, op, view(rec))))


def get(data: bytes) -> tuple[int, int, bytes]:
    """Octets read, op, record; from an allocation of exactly that size."""
    exact, op, rec = ffi.new("uint8_t[]", max(1, len(data))), ffi.new("int *"), ffi.new(f"{REC} *")
    ffi.memmove(exact, data, len(data))
    n = lib.ips_mirror_get(exact, len(data), op, rec)
    return int(n), int(op[0]), bytes(ffi.buffer(rec))


def samples() -> list[bytes]:
    rng = random.Random(4)
    out = []
    for i in range(300):
        fields: dict[str, Any] = {
            "state": rng.randrange(1, 7),
            "kind": rng.randrange(1, 4),
            "age_s": rng.getrandbits(32),
            "idle_ms": rng.getrandbits(rng.choice((1, 32))),
            "flags": rng.choice((0, 0, rng.getrandbits(32))),
            "realm": rng.getrandbits(16),
            "proto": rng.getrandbits(8),
        }
        if i % 3:
            fields["packets"] = (rng.getrandbits(rng.randrange(1, 65)), 0)
            fields["bytes"] = (0, rng.getrandbits(rng.randrange(1, 65)))
        if i % 4 == 0:
            fields["mapped"], fields["mapped_port"] = bytes(16), 0
        out.append(record(i, rng.getrandbits(63) + 1, rng.choice((4, 6)), **fields))
    return out


@pytest.mark.parametrize("rec", samples()[:40], ids=range(40))
def test_a_record_comes_back_and_every_cut_is_refused(rec: bytes) -> None:
    data = put(UPSERT, rec)
    assert get(data) == (len(data), UPSERT, rec) and len(data) <= 120
    assert get(data + b"\xff" * 9)[0] == len(data), "what follows is not its own"
    for n in range(len(data)):
        assert get(data[:n])[0] == 0, n
    gone = put(DELETE, rec)
    n, op, back = get(gone)
    assert (n, op, back[:40]) == (len(gone), DELETE, rec[:40])


def test_one_form_for_each_record() -> None:
    """Every single flipped bit: refused, or another record with exactly these octets."""
    for rec in samples()[:60]:
        for op in (UPSERT, DELETE):
            data = put(op, rec)
            for bit in range(8 * len(data)):
                other = bytearray(data)
                other[bit // 8] ^= 1 << bit % 8
                n, what, back = get(bytes(other))
                if n:
                    assert put(what, back) == bytes(other[:n]), (op, bit)


def test_compact() -> None:
    assert len(put(UPSERT, record(1))) == 40 and len(put(UPSERT, record(1, family=6))) == 76
    assert len(put(DELETE, record(1))) == 24
    largest = record(1, 2**64 - 1, 6, flags=1, packets=(2**64 - 1,) * 2, bytes=(2**64 - 1,) * 2)
    assert len(put(UPSERT, largest)) == 120


@pytest.mark.parametrize("field", ["kind", "state"])
@pytest.mark.parametrize("value", [0, 7, 255])
def test_enums_out_of_range(field: str, value: int) -> None:
    assert get(put(UPSERT, record(1, **{field: value})))[0] == 0


def test_version_zero_is_none() -> None:
    assert get(put(UPSERT, record(1, 0)))[0] == 0


# -- messages, by a sender that has the key


class Forger:
    """`a` is real; what it would have sent next is made up here."""

    def __init__(self) -> None:
        self.w, self.a, self.b = pair()
        for i in range(5):
            self.a.open(i)
        ready(self.w, self.a)
        self.stream = self.a.peer("b").stream

    def data(
        self, seq: int, entries: bytes, epoch: int = 1, stream: int | None = None, kind: int = 1
    ) -> bytes:
        number = self.stream if stream is None else stream
        return struct.pack(">BBQIQII", kind, 0, epoch, number, seq, 1, 0) + entries


MARKS = {
    "a beginning in the middle": b"\xf0\x00",
    "an unknown mark": b"\xf6\x00",
    "a mark cut short": b"\xf2",
    "a mark with a number that has none": b"\xf2\x01",
    "sums cut short": b"\xf5\x00" + bytes(1055),
    "an operation that does not exist": b"\x03" + bytes(40),
    "no operation": b"\x00" + bytes(40),
    "nothing": b"",
    "a good record and then one cut": put(UPSERT, record(99)) + put(UPSERT, record(98))[:-1],
}


@pytest.mark.parametrize("entries", MARKS.values(), ids=MARKS.keys())
def test_what_makes_no_sense_is_refused_as_a_whole_and_recovers(entries: bytes) -> None:
    """conntrackd: a malformed message ends injection silently until a restart (15)."""
    f = Forger()
    before = dict(f.b.store.sessions)
    f.b.message("a", f.data(2, entries))
    assert f.b.count("MALFORMED") == 1 and f.b.store.sessions == before, "not even its good part is taken"
    f.a.open(77)
    f.w.until(lambda: f.a.peer("b").refusal == lib.IPS_REFUSED_MALFORMED)
    assert not f.a.peer("b").is_ready
    ready(f.w, f.a)
    assert same(f.a, f.b) and f.a.count("RESYNC_REFUSED") == 1


def test_a_stream_has_to_begin_with_its_beginning() -> None:
    f = Forger()
    f.b.message("a", f.data(1, put(UPSERT, record(9)), stream=f.stream + 1))
    assert f.b.count("MALFORMED") == 1


def test_a_stream_that_is_over_is_not_heard() -> None:
    f = Forger()
    f.b.message("a", f.data(2, put(DELETE, record(1, 99)), stream=f.stream - 1))
    assert f.b.count("STALE_STREAM") == 1 and same(f.a, f.b)


def test_beyond_the_window_is_counted() -> None:
    f = Forger()
    for seq in (2**64 - 1, 2**63, 2 + 16 + 100):
        f.b.message("a", f.data(seq, put(DELETE, record(1, 99))))
    assert f.b.count("BEYOND") == 3 and same(f.a, f.b)


def ack(
    f: Forger, cumulative: int, ranges: list[tuple[int, int]], flags: int = 1, transmission: int = 0
) -> bytes:
    latest = (transmission, 0)
    head = struct.pack(">BBBBIQHQII", 3, flags, 0, len(ranges), f.stream, cumulative, 16, 1, *latest)
    return head + b"".join(struct.pack(">HH", *r) for r in ranges)


def test_acknowledgements_of_what_was_never_sent() -> None:
    f = Forger()
    f.w.by_hand = True
    numbers = [f.a.open(i) for i in range(3)]
    f.w.step()
    for bad in (ack(f, 99, []), ack(f, 2**64 - 1, []), ack(f, 1, [(1, 9)]), ack(f, 1, [(65535, 65535)])):
        f.a.message("b", bad)
    for transmission in (1000, 2**31, 2**32 - 1):
        f.a.message("b", ack(f, 1, [], transmission=transmission))
    f.a.message("b", ack(f, 1, [(1, 1)])[:-1])
    f.a.message("b", b"\x03")
    assert f.a.count("ACKS_BAD") == 9
    assert f.a.committed(0, numbers[-1]) == "WAIT"
    f.a.message("b", b"")
    f.a.message("b", b"\x09" + bytes(40))
    assert f.a.count("MALFORMED") == 2


def real_messages(node: Node, w: World) -> list[bytes]:
    """Everything that arrived at `node`, after the seal, by listening at its door."""
    return [d for _, to, d in w.log if to == node.name]


def test_random_octets_and_damaged_messages_never_reach_the_table() -> None:
    rng = random.Random(11)
    f = Forger()
    entries = put(UPSERT, record(1, 50)) + put(DELETE, record(2, 50)) + b"\xf2\x00"
    good = f.data(2, entries)
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.getrandbits(8)
        f.b.message("a", bytes(data[: rng.randrange(len(data) + 1)]))
        f.a.message("b", rng.randbytes(rng.randrange(80)))
        f.a.message("b", b"\x03" + rng.randbytes(33))
    for rec in f.b.store.sessions.values():
        n, _, back = get(put(UPSERT, rec))
        assert n and back == rec, "what is in the table is a record"
