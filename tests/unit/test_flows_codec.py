"""What an engine is told of sessions and mirror, octet by octet; filters; and what it says, as values."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipshare.config import load_text
from ipshare.core import lib
from ipshare.core.flows import MIRROR_COUNTERS
from ipshare.engine.flows import (
    FLOWS,
    FLOWS_STATE,
    MIRROR,
    FlowsSettings,
    MirrorSettings,
    decode_state,
    encode_flows,
    encode_mirror,
)
from ipshare.engine.session_filter import FILTER, BadFilter, SessionFilter
from ipshare.errors import EngineError
from ipshare.model import Config
from ipshare.model_flows import PARTS, nat_digest
from tests.cases.flow_mistakes import GOOD_NAT

OBSERVER = '[[mirror.observer]]\nname = "obs"\npaths = ["10.9.0.3:7000"]'


def gateway(*change: tuple[str, str]) -> Config:
    text = GOOD_NAT
    for old, new in change:
        assert old in text
        text = text.replace(old, new)
    return load_text(text, Path("/etc/ipshare/site.toml"))


def flows_of(config: Config) -> Any:
    assert config.sessions is not None
    return np.frombuffer(encode_flows(FlowsSettings(config.sessions, config.nats)), FLOWS)[0]


def mirror_of(config: Config) -> Any:
    assert config.mirror is not None
    settings = MirrorSettings(config.mirror, config.nats, config.sessions, b"k" * 32)
    return np.frombuffer(encode_mirror(settings), MIRROR)[0]


def test_sessions_and_pools_as_the_engine_gets_them() -> None:
    record = flows_of(gateway(("half_open = 4096", 'half_open = 4096\ntimeouts = {udp = "2m"}')))
    assert (record["sessions"], record["half_open"], record["half_open_per_source"]) == (65536, 4096, 1024)
    assert (record["addresses"], record["mappings"], record["tombstones"]) == (1024, 0, 0)
    assert (record["timeouts"]["tcp_open"], record["timeouts"]["udp"]) == (7440, 120)
    assert (record["source_bits4"], record["source_bits6"], record["udp_inbound_refreshes"]) == (32, 64, 0)
    assert (record["n_pools"], record["n_insides"]) == (3, 3)
    first, second, third = record["pools"][:3]
    assert (bytes(first["first"][:4]), first["n"], first["family"]) == (bytes([198, 51, 100, 8]), 8, 4)
    assert (second["n"], second["family"], second["realm"], second["first_port"]) == (16, 6, 1, 1024)
    assert (third["realm"], third["first_port"], third["last_port"], third["n"]) == (2, 2048, 65535, 4)
    insides = [(int(inside["prefix_len"]), int(inside["realm"])) for inside in record["insides"][:3]]
    assert insides == [(16, 1), (64, 1), (16, 2)]
    assert record["filtering"] == lib.IPS_FILTER_ENDPOINT_INDEPENDENT


def test_filtering_is_of_all_pools() -> None:
    both = [('name = "office"', 'name = "office"\nfiltering = "address-and-port"')]
    both.append(('name = "guests"', 'name = "guests"\nfiltering = "address-and-port"'))
    assert flows_of(gateway(*both))["filtering"] == lib.IPS_FILTER_ADDRESS_AND_PORT


def test_the_mirror_as_the_engine_gets_it() -> None:
    record = mirror_of(gateway())
    assert (record["id"], record["n_peers"], record["role"]) == (2, 1, lib.IPS_CTL_MIRROR_PAIR)
    assert (record["commit_acked"], record["commit_us"], record["digest_ns"]) == (1, 2000, 60 * 10**9)
    assert record["config_digest"] == nat_digest(gateway().nats)
    assert record["key"].tobytes() == b"k" * 32
    peer = record["peers"][0]
    assert (peer["id"], peer["n_paths"], peer["name"].tobytes()[:4]) == (1, 2, b"gw1\0")
    path = peer["paths"][1]
    assert (bytes(path["local"][:4]), path["local_port"]) == (bytes([10, 9, 1, 2]), 6082)
    assert (bytes(path["remote"][:4]), path["remote_port"]) == (bytes([10, 9, 1, 1]), 6082)
    assert mirror_of(gateway(('commit = "acked"', 'commit = "async"')))["commit_acked"] == 0


def test_observers_are_peers_of_both_nodes_and_both_nodes_theirs() -> None:
    more = ('commit = "acked"', f'commit = "acked"\n{OBSERVER}')
    half = mirror_of(gateway(more))
    assert (half["n_peers"], half["role"]) == (2, lib.IPS_CTL_MIRROR_PAIR)
    first, second = half["peers"][:2]
    assert (first["id"], second["id"], first["n_paths"], second["n_paths"]) == (1, 3, 2, 2)
    path = second["paths"][0]
    assert (bytes(path["local"][:4]), path["local_port"]) == (bytes([10, 9, 0, 2]), 6082)
    assert (bytes(path["remote"][:4]), path["remote_port"]) == (bytes([10, 9, 0, 3]), 7000)
    config = gateway(more, ('[node]\nname = "gw2"', '[node]\nname = "obs"'))
    assert config.pair is None and config.is_observer
    there = mirror_of(config)
    assert (there["id"], there["n_peers"], there["role"]) == (3, 2, lib.IPS_CTL_MIRROR_OBSERVER)
    assert [int(peer["id"]) for peer in there["peers"][:2]] == [1, 2]
    for name in ("local", "remote"):
        other = "remote" if name == "local" else "local"
        assert bytes(there["peers"][1]["paths"][0][name]) == bytes(path[other])
        assert there["peers"][1]["paths"][0][f"{name}_port"] == path[f"{other}_port"]


def test_each_part_of_what_should_be_equal_has_a_name_and_a_sum() -> None:
    mine = mirror_of(gateway())
    assert mine["n_items"] == len(PARTS)
    names = [bytes(item["name"]).rstrip(b"\0").decode() for item in mine["items"][: len(PARTS)]]
    assert tuple(names) == PARTS
    for part, change in {
        "names": ('"guests"', '"visitors"'),
        "inside": ('"10.64.0.0/16"', '"10.65.0.0/16"'),
        "addresses": ("198.51.100.19", "198.51.100.18"),
        "ports": ("2048", "2049"),
        "timeouts": ("half_open = 4096", 'half_open = 4096\ntimeouts = {udp = "2m"}'),
        "sizes": ("half_open = 4096", "half_open = 4095"),
    }.items():
        other = mirror_of(gateway(change))
        differs = [name for name, a, b in zip(PARTS, mine["items"], other["items"], strict=False) if a != b]
        assert differs == [part]
        assert (mine["config_digest"] == other["config_digest"]) == (part in ("timeouts", "sizes"))


def test_too_many_pools_are_refused_here_too() -> None:
    config = gateway()
    assert config.sessions is not None
    with pytest.raises(EngineError, match="at most 64 pools"):
        encode_flows(FlowsSettings(config.sessions, config.nats * 40))


def test_a_state_becomes_values() -> None:
    record = np.zeros(1, FLOWS_STATE)[0]
    record["has_flows"], record["is_ready"], record["committed"] = 1, 1, 77
    record["sessions"]["sessions"], record["sessions"]["conflicts"] = 5, 2
    record["mirror"]["is_active"], record["mirror"]["epoch"] = 1, 9
    record["mirror"]["counters"][:2] = (3, 4)
    peer = record["mirror"]["peers"][0]
    peer["phase"], peer["is_ready"], peer["lag_events"], peer["refusal"] = lib.IPS_MIRROR_LIVE, 1, 12, 4
    record["mirror"]["peers"][1]["phase"] = 99
    record["peer_notes"][0] = lib.IPS_CTL_MIRROR_HEARD | lib.IPS_CTL_MIRROR_MISMATCH
    record["peer_differs"][0] = 1 << PARTS.index("ports") | 1 << PARTS.index("sizes")
    record["peer_refused"][:2] = (5, 0)
    state = decode_state(record)
    assert (state.peers[0].differs, state.peers[0].refused) == (("ports", "sizes"), 5)
    assert state.peers[0].notes == ("mismatch", "heard") and state.peers[1].notes == ()
    assert (state.has_flows, state.has_mirror, state.is_ready, state.is_active) == (True, False, True, True)
    assert (state.epoch, state.committed, state.sessions["conflicts"]) == (9, 77, 2)
    assert list(state.counters)[:2] == ["RING_FULL", "EVENTS_SENT"] and state.counters["EVENTS_SENT"] == 4
    assert set(state.counters) == {counter.name for counter in MIRROR_COUNTERS}
    assert (state.peers[0].phase, state.peers[0].lag_events, state.peers[0].refusal) == ("live", 12, "apply")
    assert state.peers[1].phase == "phase 99"


# ---- filters -----------------------------------------------------------------------------


def asked(**words: Any) -> Any:
    return np.frombuffer(SessionFilter.parse(words).encode(), FILTER)[0]


def test_a_filter_as_the_engine_gets_it() -> None:
    ends = {"src": "10.0.0.7/16", "dst": "203.0.113.5", "dst_port": "443", "proto": "tcp"}
    record = asked(**ends, state="open", kind="napt", realm=2, limit=9)
    assert (bytes(record["src"][:4]), record["src_len"]) == (bytes([10, 0, 0, 0]), 16)
    assert (record["dst_len"], record["mapped_len"], record["family"]) == (32, 0, 4)
    assert (record["dst_port"], record["proto"], record["realm"], record["limit"]) == (443, 6, 3, 9)
    assert (record["state"], record["kind"]) == (lib.IPS_STATE_OPEN, lib.IPS_SESSION_NAPT)


def test_nothing_matters_in_an_empty_filter() -> None:
    assert SessionFilter().is_empty and SessionFilter(limit=5).is_empty
    assert not any(SessionFilter().encode())
    assert asked(src="0.0.0.0/0")["family"] == 4 and not SessionFilter(src=ip_network("::/0")).is_empty


def test_a_filter_survives_json() -> None:
    words = {
        "src": "10.0.0.0/8",
        "proto": "udp",
        "state": "opening",
        "mapped_port": 5,
        "realm": 0,
        "limit": 3,
    }
    wanted = SessionFilter.parse(words)
    assert SessionFilter.parse(wanted.to_json()) == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"src": "10.0.0"}, "is no prefix"),
        ({"src": "10.0.0.1", "dst": "2001:db8::1"}, "IPv4 and IPv6 in one filter"),
        ({"src_port": "http"}, "is no src port"),
        ({"dst_port": 0}, "is no dst port"),
        ({"dst_port": True}, "is no dst port"),
        ({"mapped_port": 65536}, "is no mapped port"),
        ({"proto": "256"}, "is no proto"),
        ({"state": "openn"}, "is no state of a session"),
        ({"state": "none"}, "is no state of a session"),
        ({"kind": "nat"}, "is no kind of a session"),
        ({"family": 5, "src": "::1"}, "in one filter"),
        ({"sorce": "10.0.0.1"}, "no 'sorce'"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(words: dict[str, Any], message: str) -> None:
    with pytest.raises(BadFilter, match=message) as error:
        SessionFilter.parse(words).encode()
    assert error.value.hint
