"""sessions, nat, mirror on the command line, over a node in memory: what they say to people and programs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipshare import api
from ipshare.cli import exits
from ipshare.core import lib
from ipshare.engine.flows import SESSION
from ipshare.engine.session_text import COLUMNS, greatest, sources
from ipshare.errors import Refused
from tests.agent_world import Routes, World, site_text
from tests.flowing_memory import NOBODY, record
from tests.unit.test_cli_verbs import documented_keys
from tests.unit.test_cli_verbs import ipshare as ipshare
from tests.unit.test_cli_verbs import world as world
from tests.unit.test_flows_agent import text

Run = Callable[..., tuple[int, str, str]]
TRACKED = np.concatenate(
    [
        record(
            "10.200.0.5 40000", "203.0.113.9 443", "198.51.100.8 1024", bytes_=1000, packets=3, idle_ms=500
        ),
        record(
            "10.200.0.5 40001", "203.0.113.9 80", "198.51.100.8 1025", bytes_=50, packets=9, idle_ms=90_000
        ),
        record("10.200.0.6 5353", "203.0.113.7 53", "198.51.100.8 1026", proto=17, state="opening", bytes_=7),
        record("fd00::5 40002", "2001:db8::9 443", "2001:db8:5::1 2000", bytes_=10, packets=1),
    ]
)
ONE_SIDED = record(
    "192.0.2.7 1000", "203.0.113.7 22", kind="track", flags=lib.IPS_SESSION_ONE_SIDED, realm=0, bytes_=5
)


LISTED = """
proto  state    source            destination        mapped                nat     packets  bytes  idle s
tcp    open     10.200.0.5:40000  203.0.113.9:443    198.51.100.8:1024     office        6  3,000  0.5
tcp    open     10.200.0.5:40001  203.0.113.9:80     198.51.100.8:1025     office       18    150  90.0
udp    opening  10.200.0.6:5353   203.0.113.7:53     198.51.100.8:1026     office        0     21  0.0
tcp    open     [fd00::5]:40002   [2001:db8::9]:443  [2001:db8:5::1]:2000  office        2     30  0.0
4 sessions (3 active in 60 s)
"""


@pytest.fixture
def gateway(world: World) -> World:
    """A node with a NAT and a mirror, and some sessions."""
    (world.directory / "site.toml").write_text(site_text(world.directory, more=text(world, mirror=True)))
    api.Node("site.toml").apply(start_engine=True)
    assert world.running is not None
    world.running.tracked = TRACKED
    return world


def test_the_list_and_its_count(gateway: World, ipshare: Run) -> None:
    code, out, err = ipshare("sessions")
    assert (code, err) == (0, "")
    assert "\n" + out == LISTED
    code, out, _ = ipshare("sessions", "--max", "1")
    assert out.endswith("4 sessions (3 active in 60 s)\n1 shown (--max 0 shows all)\n")


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("--src", "10.200.0.5"), 2),
        (("--src", "10.200.0.0/16", "--proto", "udp"), 1),
        (("--dst", "203.0.113.9", "--dst-port", "443"), 1),
        (("--mapped", "198.51.100.8", "--mapped-port", "1026"), 1),
        (("--state", "opening"), 1),
        (("--kind", "track"), 0),
        (("--nat", "office"), 4),
        (("--src", "::/0"), 1),
        (("--src-port", "40002", "--src", "10.0.0.0/8"), 0),
    ],
    ids=str,
)
def test_filters(gateway: World, ipshare: Run, words: tuple[str, ...], count: int) -> None:
    code, out, _ = ipshare("sessions", *words, "--json")
    found = json.loads(out)
    assert (code, found["matched"], len(found["sessions"]), found["scanned"]) == (0, count, count, 4)


def test_what_only_one_direction_is_seen_of_is_an_upper_bound(gateway: World, ipshare: Run) -> None:
    assert gateway.running is not None
    gateway.running.tracked = np.concatenate([TRACKED, ONE_SIDED])
    out = ipshare("sessions")[1]
    assert "open*" in out and "* only what goes to the device is seen" in out
    assert "at most 5 sessions (4 active in 60 s): of 1 only one direction is seen, not their end" in out
    found = json.loads(ipshare("sessions", "--json")[1])
    assert (found["exact"], found["one_sided"]) == (False, 1)


def test_the_greatest(gateway: World, ipshare: Run) -> None:
    by_bytes = json.loads(ipshare("sessions", "--top", "2", "--json")[1])["sessions"]
    assert [row["src_port"] for row in by_bytes] == [40000, 40001]
    by_packets = json.loads(ipshare("sessions", "--top", "2", "--by", "packets", "--json")[1])["sessions"]
    assert [row["src_port"] for row in by_packets] == [40001, 40000]
    out = ipshare("sessions", "--top", "2", "--by", "source")[1].splitlines()
    assert re.split(r" {2,}", out[1]) == ["10.200.0.5", "2", "24", "3,150"]
    assert len(out) == 4 and out[3].startswith("4 sessions")


def test_the_greatest_of_none_and_of_fewer() -> None:
    assert len(greatest(TRACKED[:0], 3, "bytes")) == 0 == len(sources(TRACKED[:0], 3))
    assert len(greatest(TRACKED, 99, "bytes")) == 4


def test_the_greatest_are_those_of_a_full_sort() -> None:
    made = np.zeros(1000, SESSION)
    made["bytes"] = np.random.default_rng(7).integers(0, 300, (1000, 2))
    for count in (1, 10, 999, 1000):
        found = greatest(made, count, "bytes")["bytes"].sum(axis=1)
        assert found.tolist() == sorted(made["bytes"].sum(axis=1).tolist(), reverse=True)[:count]


def test_csv_has_all_of_them(gateway: World, ipshare: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(ipshare("sessions", "--csv", "--max", "1")[1])))
    assert len(rows) == 4 and tuple(rows[0]) == COLUMNS
    assert (rows[0]["src"], rows[0]["bytes_out"], rows[0]["bytes_in"]) == ("10.200.0.5", "1000", "2000")


def test_npy_is_the_array_itself(gateway: World, ipshare: Run, tmp_path: Path) -> None:
    code, out, _ = ipshare("sessions", "--npy", "s.npy", "--proto", "tcp")
    assert (code, out) == (0, "s.npy: 3 sessions (2 active in 60 s)\n")
    assert np.array_equal(np.load(tmp_path / "s.npy"), TRACKED[TRACKED["flow"]["proto"] == 6])
    assert ipshare("sessions", "--npy", "no/s.npy")[0] == exits.USAGE


def test_closing_takes_a_filter_and_a_yes(gateway: World, ipshare: Run) -> None:
    assert ipshare("sessions", "close", "--yes")[0] == exits.USAGE, "all of them by accident"
    code, _, err = ipshare("sessions", "close", "--src", "10.200.0.5")
    assert code == exits.USAGE and "2 sessions match" in err and "--yes" in err
    assert gateway.running is not None and len(gateway.running.tracked) == 4
    assert ipshare("sessions", "close", "--src", "10.200.0.5", "--yes")[1] == "2 sessions ended\n"
    assert json.loads(ipshare("sessions", "close", "--proto", "udp", "--yes", "--json")[1]) == {"closed": 1}
    assert len(gateway.running.tracked) == 1
    code, _, err = ipshare("sessions", "--src", "10.0.0.1", "close", "--yes")
    assert code == exits.USAGE and "after it" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--src", "10.0.0"), "is no prefix"),
        (("--proto", "tpc"), "is no proto"),
        (("--nat", "offic"), "no NAT named 'offic'"),
        (("--src", "10.0.0.1", "--dst", "::1"), "IPv4 and IPv6"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(gateway: World, ipshare: Run, words: tuple[str, ...], message: str) -> None:
    code, _, err = ipshare("sessions", *words)
    assert code == exits.USAGE and message in err and "hint:" in err


def test_nat_shows_its_pools(gateway: World, ipshare: Run) -> None:
    code, out, _ = ipshare("nat")
    assert (code, out) == (
        0,
        "office: 10.200.0.0/16 -> 198.51.100.8\n"
        "address       tcp  udp  icmp  others  ports used\n"
        "198.51.100.8    2    1     0       0  0.0%\n"
        "\n"
        "no connection was refused for want of a port\n",
    )
    assert gateway.running is not None
    gateway.running.flows_say(sessions={**gateway.running.flows_now.sessions, "ports_exhausted": 3})
    assert "3 connections were refused because no address" in ipshare("nat")[1]
    report = json.loads(ipshare("nat", "--json")[1])
    assert report["nats"][0]["ports"] == 64512 and report["nats"][0]["tcp"] == 2


def test_the_fullest_addresses_come_first(gateway: World, ipshare: Run) -> None:
    (gateway.directory / "site.toml").write_text(
        site_text(gateway.directory, more=text(gateway, pool="198.51.100.5-198.51.100.8"))
    )
    assert ipshare("apply")[0] == 0
    out = ipshare("nat", "--max", "2")[1]
    assert out.splitlines()[2].startswith("198.51.100.8") and "... and 2 more" in out


def test_diff_says_what_changes_beside_the_tables(gateway: World, ipshare: Run) -> None:
    assert "nothing differs" in ipshare("diff")[1]
    (gateway.directory / "site.toml").write_text(
        site_text(gateway.directory, more=text(gateway, pool="198.51.100.8/31"))
    )
    out = ipshare("diff")[1]
    assert "~ nat office: pools 198.51.100.8 -> 198.51.100.8-198.51.100.9" in out and "- mirror" in out
    assert ipshare("diff", "--exit-code")[0] == exits.NO
    assert ipshare("apply")[0] == 0
    assert "nothing differs" in ipshare("diff")[1]


def test_mirror_status_of_a_standby(gateway: World, ipshare: Run) -> None:
    code, out, _ = ipshare("mirror", "status")
    assert code == 0
    assert "role           standby, not ready, epoch 0, 4 sessions" in out
    assert "from D         no stream" in out
    assert "note           this node has not all sessions of D: a takeover now would break connections" in out
    assert gateway.running is not None
    gateway.running.flows_say(is_ready=True, peers=(replace(NOBODY, feeds_us=True, is_complete=True),))
    out = ipshare("mirror", "status")[1]
    assert "standby, ready" in out and "from D         complete" in out and "note" not in out


def test_an_active_node_is_not_ready_while_its_standby_is_not(gateway: World, ipshare: Run) -> None:
    """The engine calls itself ready then: it has all sessions."""
    assert gateway.running is not None
    gateway.running.flows_say(is_active=True, is_ready=True, peers=(replace(NOBODY, phase="snapshot"),))
    assert json.loads(ipshare("mirror", "status", "--json")[1])["ready"] is False


def test_mirror_status_of_the_active(gateway: World, ipshare: Run) -> None:
    assert gateway.running is not None
    peer = replace(NOBODY, phase="live", is_ready=True, lag_events=12, lag_ns=1_500_000, under_way=3)
    counters = {**gateway.running.flows_now.counters, "GAPS": 4, "RESYNC_RING": 1, "RESYNC_LAG": 1,
                "SHARDS_RESYNCED": 2}  # fmt: skip
    gateway.running.flows_say(
        is_active=True, is_ready=True, epoch=7, peers=(peer,), committed=100, uncommitted=2, counters=counters
    )
    code, out, _ = ipshare("mirror", "status")
    assert (code, out) == (
        0,
        "role           active, ready, epoch 7, 4 sessions\n"
        "to D           live, ready, 12 changes (1.5 ms) behind, 3 datagrams under way\n"
        "first packets  100 committed, 2 not in time, 0 waiting; commit = acked\n"
        "so far         4 gaps, 2 resyncs, 0 conflicts, 2 digest mismatches\n",
    )


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        ({"phase": "off"}, "D gets no sessions: a takeover"),
        ({"notes": ()}, "D is not heard on any path of the mirror"),
        ({"notes": ("heard", "mismatch")}, "D has other [[nat]] tables, and sessions are not mirrored"),
        (
            {"notes": ("heard", "mismatch"), "differs": ("addresses", "ports", "sizes")},
            "D has other [[nat]] tables (addresses, ports), and",
        ),
        (
            {"is_ready": True, "notes": ("heard",), "differs": ("timeouts", "sizes")},
            "D has other timeouts and sizes in [sessions]: apply",
        ),
        ({"refused": 12_000}, "old or of another key: 12,000 from D"),
        ({"notes": ("wrong_key",)}, "sealed with another key"),
        ({"notes": ("other_version",)}, "D speaks no version of the mirror's protocol that is known here: a"),
        ({"phase": "waiting", "refusal": "apply"}, "D refused the mirror's stream (apply)"),
        ({"phase": "fence"}, "D is being brought up to date"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_stream_is_said(gateway: World, ipshare: Run, peer: dict, said: str) -> None:
    assert gateway.running is not None
    gateway.running.flows_say(is_active=True, peers=(replace(NOBODY, **peer),))
    assert said in ipshare("mirror", "status")[1]


def test_watching_ends_with_an_engine_that_nobody_starts_again(gateway: World, ipshare: Run) -> None:
    """The first look finds it, the next one does not."""
    assert gateway.running is not None
    first = gateway.running.flows_state()

    def once() -> object:
        assert gateway.running is not None
        gateway.kill_engine()
        return first

    gateway.running.flows_state = once  # type: ignore[method-assign]
    code, out, err = ipshare("mirror", "status", "--watch", "--interval", "1ms")
    assert code == exits.NOT_RUNNING and out.startswith("role") and "no engine running" in err


JSON_CALLS = {
    "sessions": ("sessions",),
    "sessions --top": ("sessions", "--top", "2"),
    "sessions --top --by source": ("sessions", "--top", "2", "--by", "source"),
    "sessions --npy": ("sessions", "--npy", "x.npy"),
    "sessions close": ("sessions", "close", "--proto", "6", "--yes"),
    "nat": ("nat",),
    "mirror status": ("mirror", "status"),
}


@pytest.mark.parametrize("verb", JSON_CALLS)
def test_json_has_the_documented_keys(gateway: World, ipshare: Run, verb: str) -> None:
    code, out, err = ipshare(*JSON_CALLS[verb], "--json")
    assert (code, err) == (0, "")
    assert set(json.loads(out)) == documented_keys()[verb]


def test_a_node_without_any_of_it_refuses(world: World, ipshare: Run) -> None:
    api.Node("site.toml").apply(start_engine=True)
    for words, message in (
        (("sessions",), "tracks no connections"),
        (("nat",), "tracks no connections"),
        (("mirror", "status"), "mirrors no sessions"),
    ):
        code, _, err = ipshare(*words)
        assert code == exits.REFUSED and message in err, words


def test_from_python(gateway: World) -> None:
    node = api.Node("site.toml", data_path=gateway, routes=Routes(gateway), clock=gateway)
    found = node.sessions(src="10.200.0.5", proto="tcp")
    assert found.dtype == SESSION and found["flow"]["src_port"].tolist() == [40000, 40001]
    assert node.mirror_status()["role"] == "standby"
    assert node.nat()["nats"][0]["addresses"][0]["tcp"] == 2
    assert node.flows().sessions["capacity"] == 1000
    (gateway.directory / "site.toml").write_text(site_text(gateway.directory, more=text(gateway)))
    node.close()
    again = api.Node("site.toml", data_path=gateway, routes=Routes(gateway), clock=gateway)
    again.apply()
    with pytest.raises(Refused, match="mirrors no sessions"):
        again.mirror_status()
