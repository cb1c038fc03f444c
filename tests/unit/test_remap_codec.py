"""The records of a remap on the control socket, and the engine of the tests that has remaps without
packets."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import numpy as np
import pytest

from ipshare.core import lib
from ipshare.engine.flows import SESSION
from ipshare.engine.remapping import (
    REMAP,
    REMAP_STATE,
    ChannelKind,
    RemapChannel,
    Remapping,
    RemapRole,
    RemapSettings,
    decode_remap,
    encode_remap,
)
from ipshare.errors import EngineError, Refused
from ipshare.model import PairPath
from tests.remapping_memory import RemappingMemory, RemapWire

CHANNEL = RemapChannel(
    ChannelKind.IPIP, *(ip_address(f"10.0.{node}.{mark}") for node in (1, 2) for mark in (8, 9)), mtu=1400
)
GIVES = RemapSettings(
    id=7, node="a", peer="b", prefix=ip_network("203.0.113.8/29"), role=RemapRole.PREPARING, channel=CHANNEL,
    paths=(PairPath(ip_address("10.0.1.1"), 4790, ip_address("10.0.2.1"), 4790),), key=bytes(range(32)),
    quic=True,
)  # fmt: skip
TAKES = replace(GIVES, node="b", peer="a", role=RemapRole.READY, channel=CHANNEL.turned())


def test_what_is_said_stands_in_the_record() -> None:
    row = np.frombuffer(encode_remap(GIVES), REMAP)[0]
    assert (int(row["id"]), int(row["role"]), int(row["prefix_len"])) == (7, lib.IPS_REMAP_PREPARING, 29)
    assert row["prefix"].tobytes()[:4] == ip_address("203.0.113.8").packed
    assert [row["channel"]["local"][i].tobytes()[:4] for i in range(2)] == [b"\n\0\1\x08", b"\n\0\1\x09"]
    assert [row["channel"]["remote"][i].tobytes()[:4] for i in range(2)] == [b"\n\0\2\x08", b"\n\0\2\x09"]
    assert int(row["flags"]) == lib.IPS_REMAP_QUIC
    assert CHANNEL.turned().turned() == CHANNEL


def test_what_does_not_fit_is_said() -> None:
    for change in ({"key": b"short"}, {"id": 0}, {"id": 2**56}, {"paths": ()}, {"node": "n" * 64}):
        with pytest.raises(EngineError):
            encode_remap(replace(GIVES, **change))


def test_a_state_is_read() -> None:
    record = np.zeros(1, REMAP_STATE)[0]
    record["id"], record["role"], record["family"], record["prefix_len"] = 7, lib.IPS_REMAP_LEAVING, 6, 128
    record["prefix"][:] = np.frombuffer(ip_address("2001:db8::7").packed, np.uint8)
    record["flows"], record["one_sided"], record["counters"][0], record["notes"] = 5, 2, 11, 4
    state = decode_remap(record)
    assert (state.prefix, state.role) == (ip_network("2001:db8::7/128"), RemapRole.LEAVING)
    assert (state.flows, state.is_exact, state.counters["here"], state.notes) == (5, False, 11, ("heard",))


def test_two_engines_of_the_tests_are_each_others_peers() -> None:
    wire, a, b = RemapWire(), RemappingMemory(), RemappingMemory()
    a.remap_join(wire)
    b.remap_join(wire)
    assert isinstance(a, Remapping)
    b.set_remap(TAKES)
    a.set_remap(GIVES)
    a.remap_rows[7] = np.zeros(3, SESSION)
    assert [state.is_ready for state in (*a.remaps(), *b.remaps())] == [True, True]
    assert [len(engine.remap_flows(7).records) for engine in (a, b)] == [3, 3]
    wire.late.add(7)
    a.set_remap(replace(GIVES, role=RemapRole.LEAVING))
    assert not a.remaps()[0].fence_applied
    wire.late.clear()
    assert a.remaps()[0].fence_applied
    with pytest.raises(Refused):
        b.set_remap(replace(TAKES, role=RemapRole.LEAVING))
    wire.cut.add(7)
    assert not a.remaps()[0].is_ready
    assert a.clear_remap(7) is not None
    assert a.clear_remap(7) is None
