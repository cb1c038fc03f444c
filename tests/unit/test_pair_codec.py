"""Heartbeats as bytes: what is written is read, and nothing else (native/ips_pair_wire.c)."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.core import ffi, lib

LAYOUT = struct.Struct(">4BI6QIB3x")
NAMES = ("version", "kind", "state", "flags", "node", "boot", "to_boot", "sent_ns", "echo_ns", "claim",
         "counter", "owner", "priority")  # fmt: skip
GOOD = {"version": 1, "kind": 1, "state": 3, "flags": 0x16, "node": 2, "boot": 7, "to_boot": 9,
        "sent_ns": 1000, "echo_ns": 900, "claim": 4, "counter": 4, "owner": 1, "priority": 100}  # fmt: skip


def record(**changes: int) -> bytes:
    return LAYOUT.pack(*((GOOD | changes)[name] for name in NAMES))


def decode(data: bytes) -> tuple[str, Any]:
    room, msg = ffi.new("uint8_t[]", len(data) or 1), ffi.new("struct ips_pair_msg *")
    ffi.memmove(room, data, len(data))
    return ffi.string(lib.ips_pair_refusal(lib.ips_pair_decode(room, len(data), msg))).decode(), msg


def encode(msg: Any) -> bytes:
    out = ffi.new("uint8_t[]", lib.IPS_PAIR_BYTES)
    lib.ips_pair_encode(msg, out)
    return bytes(ffi.buffer(out))


def test_the_record_is_as_it_is_written_down() -> None:
    text, msg = decode(record())
    assert text == "taken" and encode(msg) == record() and LAYOUT.size == lib.IPS_PAIR_BYTES
    assert (msg.node, msg.boot, msg.to_boot, msg.sent_ns, msg.echo_ns, msg.claim) == (2, 7, 9, 1000, 900, 4)
    assert (msg.epoch.counter, msg.epoch.node, msg.priority) == (4, 1, 100)


FAR = 1 << 61


@pytest.mark.parametrize(
    ("changes", "text"),
    (
        ({"version": 2}, "the record has another version"),
        ({"kind": 0}, "unknown kind of message"),
        ({"kind": 5}, "unknown kind of message"),
        ({"state": 0}, "unknown state"),
        ({"state": 5}, "unknown state"),
        ({"kind": 4, "state": 2, "flags": 0, "claim": 0}, "unknown state"),
        ({"flags": 0x80}, "unknown or contradicting flags"),
        ({"flags": 0x18}, "unknown or contradicting flags"),
        ({"flags": 0x11}, "unknown or contradicting flags"),
        ({"state": 2, "flags": 0x10}, "unknown or contradicting flags"),
        ({"node": 0}, "not from the peer of this pair"),
        ({"boot": 0}, "the sender has no boot id"),
        ({"counter": FAR}, "the epoch is out of range"),
        ({"counter": 0}, "the epoch is out of range"),
        ({"owner": 0}, "the epoch is out of range"),
        ({"state": 2, "flags": 1, "claim": 0, "counter": 0, "owner": 0}, "the epoch is out of range"),
        ({"sent_ns": 0}, "a time is out of range"),
        ({"sent_ns": FAR}, "a time is out of range"),
        ({"echo_ns": FAR}, "a time is out of range"),
        ({"to_boot": 0}, "a time is out of range"),
        ({"claim": 0}, "the claim is out of range, or missing"),
        ({"claim": FAR}, "the claim is out of range, or missing"),
        ({"flags": 0}, "the claim is out of range, or missing"),
    ),
)
def test_each_field_is_checked(changes: dict[str, int], text: str) -> None:
    assert decode(record(**changes))[0] == text


@pytest.mark.parametrize("at", (61, 62, 63))
def test_reserved_bytes_are_zero(at: int) -> None:
    data = bytearray(record())
    data[at] = 1
    assert decode(bytes(data))[0] == "a reserved field is not zero"


def test_any_other_length_is_refused() -> None:
    for length in [*range(64), 65, 128, 1500]:
        assert decode((record() * 30)[:length])[0] == "the record has another length"


@given(st.binary(min_size=60, max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_what_is_taken_encodes_to_the_same_bytes(rest: bytes, kind: int, state: int) -> None:
    data = bytes((1, kind, state)) + rest[:58] + bytes(3)
    text, msg = decode(data)
    assert text != "taken" or encode(msg) == data


def test_refusals_have_texts() -> None:
    texts = {ffi.string(lib.ips_pair_refusal(i)) for i in range(lib.ips_pair_refusals())}
    assert len(texts) == lib.ips_pair_refusals()
    assert lib.ips_pair_refusal(lib.ips_pair_refusals()) == ffi.NULL == lib.ips_pair_refusal(-1)
