"""witness: records and rules of native/ips_witness_api.h as values (who runs one: ipshare.pair.witness)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ipshare.core._native import ffi, lib

ASK, RELEASE, ANSWER = (
    int(lib.IPS_WITNESS_ASK),
    int(lib.IPS_WITNESS_RELEASE),
    int(lib.IPS_WITNESS_ANSWER),
)
GRANTED, REFUSED, UNKNOWN = (
    int(lib.IPS_PAIR_GRANTED),
    int(lib.IPS_PAIR_REFUSED),
    int(lib.IPS_PAIR_UNKNOWN),
)


@dataclass(frozen=True, slots=True)
class Message:
    """A question (ASK, RELEASE) or an answer. ``highest``: (counter, node) last granted; (0, 0): unknown."""

    kind: int
    counter: int
    asked_ns: int
    ttl_ns: int
    answer: int = 0
    highest: tuple[int, int] = (0, 0)

    def encode(self) -> bytes:
        record, out = _record(self), ffi.new("uint8_t[]", lib.IPS_WITNESS_BYTES)
        lib.ips_witness_encode(record, out)
        return bytes(ffi.buffer(out))

    def answered(self, answer: int, highest: tuple[int, int]) -> Message:
        """The answer to this question."""
        return Message(ANSWER, self.counter, self.asked_ns, self.ttl_ns, answer, highest)


def decode(data: bytes) -> Message | None:
    """None: not a record of this version, or one with a value out of range."""
    m = ffi.new("struct ips_witness_msg *")
    if not lib.ips_witness_decode(data, len(data), m):
        return None
    highest = (int(m.highest.counter), int(m.highest.node))
    return Message(int(m.kind), int(m.counter), int(m.asked_ns), int(m.ttl_ns), int(m.answer), highest)


class Rules:
    """What was promised, and to whom. Times: CLOCK_BOOTTIME in ns."""

    def __init__(self, granted: tuple[int, int], ttl_ns: int, *, longest_ns: int, now_ns: int) -> None:
        self._w = ffi.new("struct ips_witness *")
        epoch = {"counter": granted[0], "node": granted[1], "zero": 0}
        lib.ips_witness_start(self._w, epoch, ttl_ns, longest_ns, now_ns)

    @property
    def promise(self) -> tuple[int, int, int]:
        """Counter, node, ttl_ns: what has to be on disk."""
        return int(self._w.granted.counter), int(self._w.granted.node), int(self._w.ttl_ns)

    def judge(self, node: int, question: Message, now_ns: int) -> int:
        return int(lib.ips_witness_judge(self._w, node, _record(question), now_ns))

    def release(self, node: int, question: Message, now_ns: int) -> None:
        lib.ips_witness_release(self._w, node, _record(question), now_ns)


def _record(message: Message) -> Any:
    m = ffi.new("struct ips_witness_msg *")
    m.kind, m.answer, m.counter = message.kind, message.answer, message.counter
    m.asked_ns, m.ttl_ns = message.asked_ns, message.ttl_ns
    m.highest.counter, m.highest.node = message.highest
    return m
