"""Clusters beside the packet path: effective weights, what probes make of a server, what the engine is
told, the addresses that are needed (S2.1, S2.5)."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.agent.cluster_probes import probe
from ipshare.agent.clusters import Clusters, Health
from ipshare.agent.codec import decode, encode
from ipshare.cli.app import run
from ipshare.cli.clusters import show_clusters
from ipshare.config import check_text, load_text
from ipshare.engine.cluster_weights import STEPS, Measured, effective
from ipshare.engine.dispatching import (
    SERVER_STATE,
    ClusterSetting,
    ServerReport,
    ServerSetting,
    ServerState,
    decode_servers,
    encode_clusters,
)
from ipshare.engine.settings_text import setting_items
from ipshare.errors import EngineError, Refused
from ipshare.model import ClusterProbe, Config
from ipshare.net.clusters import cluster_problems, unprobed
from tests.cases.cluster_mistakes import CLUSTER_ALONE, GOOD_CLUSTER

# ---- weights ------------------------------------------------------------------

FACTORS = st.sets(st.sampled_from(["active", "new", "response"]))
SERVER = st.builds(
    Measured,
    weight=st.integers(0, 65535),
    is_live=st.booleans(),
    is_draining=st.booleans(),
    response_s=st.none() | st.floats(0, 60),
    active=st.integers(0, 10**7),
    new_s=st.floats(0, 10**6),
    up_s=st.none() | st.floats(0, 10**6),
)


@given(st.lists(SERVER, max_size=12), FACTORS, st.floats(0, 3600), st.floats(0.01, 1))
def test_s2_5_every_live_server_keeps_its_least_share(
    servers: list[Measured], by: set[str], slow_start_s: float, least: float
) -> None:
    chosen = effective(servers, by=by, slow_start_s=slow_start_s, least=least)
    best = False
    for server, each in zip(servers, chosen, strict=True):
        assert (each.weight > 0) == server.takes
        assert each.weight <= server.weight * STEPS < 2**32
        if server.takes:
            assert each.weight >= server.weight * max(1, int(least * STEPS))
            best |= each.weight == server.weight * STEPS
            assert all(0 <= factor < 1 for factor in each.factors.values())
    assert best or not any(server.takes for server in servers), "somebody has all of its weight"
    assert sum(each.share for each in chosen) == pytest.approx(1 if best else 0)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=9), FACTORS)
def test_servers_that_do_alike_have_their_weights(weights: list[int], by: set[str]) -> None:
    """Load in proportion to weight, equal times: no factor counts."""
    servers = [Measured(w, response_s=0.01, active=98 * w, new_s=8.0 * w) for w in weights]
    chosen = effective(servers, by=by - {"active", "new"})
    assert [each.weight for each in chosen] == [w * STEPS for w in weights]


def test_each_factor_shifts_towards_the_better_server() -> None:
    for name, good, bad in (
        ("response", {"response_s": 0.010}, {"response_s": 0.100}),
        ("active", {"active": 10}, {"active": 1000}),
        ("new", {"new_s": 1.0}, {"new_s": 100.0}),
    ):
        first, second = effective([Measured(1, **good), Measured(1, **bad)], by=[name])  # type: ignore[arg-type]
        assert second.weight < first.weight == STEPS, name
        assert name in second.factors and not first.factors
        alike = effective([Measured(1, **good), Measured(1, **bad)])  # type: ignore[arg-type]
        assert alike[0].weight == alike[1].weight, "what is not asked for does not count"


def test_the_worst_server_keeps_what_least_says() -> None:
    slow = [Measured(7, response_s=0.001), Measured(7, response_s=60.0, active=10**6, new_s=1e5)]
    for least, kept in ((0.25, 5), (0.1, 2), (0.01, 1)):
        chosen = effective(slow, by=["response", "active", "new"], least=least)
        assert [each.weight for each in chosen] == [7 * STEPS, 7 * kept]


def test_a_server_that_comes_back_begins_slowly() -> None:
    shares = [
        effective([Measured(1), Measured(1, up_s=up_s)], slow_start_s=10, least=0.05)[1].weight
        for up_s in (0, 2.5, 5, 10, 20)
    ]
    assert shares == [1, STEPS // 4, STEPS // 2, STEPS, STEPS]


# ---- health -------------------------------------------------------------------


def test_s2_5_one_failed_probe_is_enough_by_default() -> None:
    health = Health()
    assert not health.heard(0.01, 1, 2, 0.0)
    assert health.heard(None, 1, 2, 1.0) and not health.is_live
    assert not health.heard(0.01, 1, 2, 2.0)
    assert health.heard(0.01, 1, 2, 3.0) and health.is_live and health.since == 3.0


def test_as_many_probes_as_configured() -> None:
    health = Health()
    health.heard(0.01, 3, 1, 0.0)
    assert [health.heard(None, 3, 1, 0.0) for _ in range(3)] == [False, False, True]
    assert Health().heard(None, 3, 1, 0.0), "of a server that never answered, the first one decides"


# ---- what the engine is told ---------------------------------------------------


class Engine:
    """An engine that remembers what it was told, and says of servers what the test says."""

    def __init__(self) -> None:
        self.told: list[tuple[ClusterSetting, ...]] = []
        self.left: dict[str, int] = {}
        self.boot_id = "one"

    def info(self) -> Any:
        return self

    def set_clusters(self, clusters: Any) -> None:
        self.told.append(tuple(clusters))

    def servers(self) -> tuple[ServerReport, ...]:
        return tuple(
            ServerReport(
                c.address,
                s.address,
                s.state,
                s.weight,
                self.left.get(str(s.address), 0),
                0,
                0,
                0,
                0,
                0,
                0,
                None,
            )
            for c in (self.told[-1] if self.told else ())
            for s in c.servers
        )


def settings_of(engine: Engine) -> dict[str, tuple[int, str]]:
    return {str(s.address): (s.weight, s.state.value) for s in engine.told[-1][0].servers}


CONFIG = load_text(GOOD_CLUSTER)


def test_the_engine_is_told_once_and_again_what_changed() -> None:
    engine, clock = Engine(), itertools.count()
    clusters = Clusters(clock=lambda: float(next(clock)))
    assert clusters.align(engine, CONFIG)  # type: ignore[arg-type]
    assert not clusters.align(engine, CONFIG), "nothing is new"  # type: ignore[arg-type]
    assert settings_of(engine) == {"10.0.9.21": (60, "up"), "10.0.9.22": (0, "up")}
    assert [str(c.address) for c in engine.told[0]] == ["198.51.100.10", "2001:db8:5::10", "198.51.100.11"]
    web, key = CONFIG.clusters[0], (ip_address("198.51.100.10"), ip_address("10.0.9.21"))
    assert clusters.heard(web, key, None)
    assert clusters.align(engine, CONFIG)  # type: ignore[arg-type]
    assert settings_of(engine)["10.0.9.21"] == (0, "failed")
    assert clusters.troubles(CONFIG) == ["cluster web: w1 of 198.51.100.10 does not answer"]
    engine.boot_id = "two"
    assert clusters.align(engine, CONFIG), "another engine knows nothing"  # type: ignore[arg-type]
    assert settings_of(engine)["10.0.9.21"] == (0, "failed"), "what probes found stays"


def test_a_server_that_left_the_file_is_drained_until_it_has_nothing() -> None:
    engine, clusters = Engine(), Clusters()
    clusters.align(engine, CONFIG)  # type: ignore[arg-type]
    engine.left = {"10.0.9.22": 5}
    web = CONFIG.clusters[0]
    fewer = dataclasses.replace(CONFIG, clusters=(dataclasses.replace(web, servers=web.servers[:1]),))
    clusters.align(engine, fewer)  # type: ignore[arg-type]
    assert settings_of(engine)["10.0.9.22"] == (0, "draining")
    rows = clusters.report(engine, fewer)  # type: ignore[arg-type]
    assert [s["state"] for s in rows[0]["servers"]] == ["up", "removed"]
    engine.left = {}
    clusters.align(engine, fewer)  # type: ignore[arg-type]
    assert "10.0.9.22" not in settings_of(engine)
    clusters.align(engine, dataclasses.replace(CONFIG, clusters=()))  # type: ignore[arg-type]
    assert engine.told[-1] == ()


def test_a_server_that_is_added_begins_slowly_and_the_first_ones_do_not() -> None:
    engine, now = Engine(), [0.0]
    clusters = Clusters(clock=lambda: now[0])
    web = CONFIG.clusters[0]
    few = dataclasses.replace(CONFIG, clusters=(dataclasses.replace(web, servers=web.servers[:1]),))
    grown = dataclasses.replace(web, servers=(web.servers[0], dataclasses.replace(web.servers[1], weight=3)))
    clusters.align(engine, few)  # type: ignore[arg-type]
    assert settings_of(engine) == {"10.0.9.21": (60, "up")}
    clusters.align(engine, dataclasses.replace(CONFIG, clusters=(grown,)))  # type: ignore[arg-type]
    assert settings_of(engine)["10.0.9.22"] == (3 * 2, "up"), "a tenth"
    now[0] = 30.0
    clusters.align(engine, dataclasses.replace(CONFIG, clusters=(grown,)))  # type: ignore[arg-type]
    assert settings_of(engine)["10.0.9.22"] == (60, "up")


def test_another_agent_goes_on_with_what_the_engine_knows() -> None:
    engine, first = Engine(), Clusters()
    first.align(engine, CONFIG)  # type: ignore[arg-type]
    web, key = CONFIG.clusters[0], (ip_address("198.51.100.10"), ip_address("10.0.9.21"))
    first.heard(web, key, None)
    first.align(engine, CONFIG)  # type: ignore[arg-type]
    second = Clusters()
    second.align(engine, CONFIG)  # type: ignore[arg-type]
    assert settings_of(engine)["10.0.9.21"] == (0, "failed")
    assert [second.heard(web, key, 0.01) for _ in range(2)] == [False, True], "it has to answer first"


def test_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    engine, clusters = Engine(), Clusters()
    clusters.align(engine, CONFIG)  # type: ignore[arg-type]
    web, key = CONFIG.clusters[0], (ip_address("198.51.100.10"), ip_address("10.0.9.21"))
    clusters.heard(web, key, 0.0125)
    engine.left = {"10.0.9.21": 1234}
    show_clusters(clusters.report(engine, CONFIG), False)  # type: ignore[arg-type]
    text = capsys.readouterr().out
    assert "cluster web at 198.51.100.10, by weight\n" in text
    assert "at most 1,234 (0 open)" in text and "12.5 ms" in text and "100.0%" in text
    assert "note: w1 answers no ARP" in text, "no hardware address is known"


def test_an_engine_that_cannot_says_so() -> None:
    class Plain:
        kind = "vpp"

        def info(self) -> Plain:
            return self

    with pytest.raises(Refused, match="engine vpp dispatches"):
        Clusters().align(Plain(), CONFIG)  # type: ignore[arg-type]
    assert not Clusters().align(Plain(), dataclasses.replace(CONFIG, clusters=()))  # type: ignore[arg-type]


def test_records_of_the_control_socket() -> None:
    address, own = ip_address("2001:db8::1"), ip_address("fd00::1")
    cluster = ClusterSetting(address, "eth0", (ServerSetting(own, 7, ServerState.DRAINING),))
    assert b"eth0\0" in encode_clusters([cluster])
    with pytest.raises(EngineError, match="64 with 512"):
        encode_clusters([cluster] * 65)
    with pytest.raises(EngineError, match="no interface"):
        encode_clusters([dataclasses.replace(cluster, interface="x" * 64)])
    record = __import__("numpy").zeros(1, SERVER_STATE)
    record["family"], record["state"], record["weight"], record["left"] = 4, ServerState.FAILED.code, 3, 9
    record["has_mac"], record["mac"] = 1, [2, 0, 0, 0, 0, 1]
    (report,) = decode_servers(record.tobytes())
    assert (report.state, report.weight, report.left) == (ServerState.FAILED, 3, 9)
    assert report.mac == "02:00:00:00:00:01"


# ---- probes -------------------------------------------------------------------


@pytest.fixture
def answers() -> Iterator[tuple[int, list[bytes]]]:
    """A port of this machine that answers each request with the next of a list; nothing left: with
    nothing."""
    lines: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plug, _ = listener.accept()
                except OSError:
                    return
                with plug:
                    if lines:
                        plug.recv(4096)
                        plug.sendall(lines.pop(0))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], lines
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def asked(kind: str, port: int, path: str = "/", timeout_s: float = 10.0) -> float | None:
    wanted = ClusterProbe(kind, port, path, 20.0, timeout_s, 1, 1)
    return asyncio.run(probe(wanted, ip_address("127.0.0.1")))


def test_what_an_http_probe_takes_for_an_answer(answers: tuple[int, list[bytes]]) -> None:
    port, lines = answers
    for line, is_well in (
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 302 Found\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\n", False),
        (b"HTTP/1.1 503 busy\r\n", False),
        (b"SSH-2.0-x\r\n", False),
        (b"HTTP/1.1 two\r\n", False),
        (b"x" * 100_000, False),
        (b"", False),
    ):
        lines.append(line or b" ")
        found = asked("http", port)
        assert (found is not None) == is_well, line[:20]


def test_a_tcp_probe_needs_a_connection_alone(answers: tuple[int, list[bytes]]) -> None:
    port, _ = answers
    assert asked("tcp", port) is not None
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert asked("tcp", unused.getsockname()[1]) is None


# ---- configuration, addresses ----------------------------------------------------


def test_clusters_survive_being_stored_and_are_compared() -> None:
    again = decode(Config, json.loads(json.dumps(encode(CONFIG, skip=frozenset({"bulk"})))))
    assert again.clusters == CONFIG.clusters
    assert not [item for item in setting_items(CONFIG, CONFIG) if item.section == "cluster"]
    web = CONFIG.clusters[0]
    other = dataclasses.replace(CONFIG, clusters=(dataclasses.replace(web, least=0.2), *CONFIG.clusters[1:]))
    (item,) = [item for item in setting_items(CONFIG, other) if item.section == "cluster"]
    assert "least 0.1 -> 0.2" in " ".join(item.lines)


@pytest.mark.parametrize("mistake", CLUSTER_ALONE, ids=lambda mistake: mistake.text)
def test_a_mistake_that_brings_others_is_named(mistake: Any) -> None:
    problems = check_text(mistake.made_in(GOOD_CLUSTER)).problems
    assert any(mistake.text in p.message and p.key == mistake.key for p in problems)


ON_VPP = """[engine]
kind = "vpp"
[[interface]]
name = "host-eth1"
host = "eth1"
addresses = ["10.0.9.2/24", "fd00:9::2/64"]
[sessions]"""


def _on_vpp(*edits: tuple[str, str]) -> list[str]:
    text = GOOD_CLUSTER.replace("[sessions]", ON_VPP)
    for old, new in (('interface = "eth1"', 'interface = "host-eth1"'), *edits):
        assert old in text
        text = text.replace(old, new)
    return [p.message for p in check_text(text).problems if p.key.startswith("cluster")]


def test_on_vpp_the_interface_is_one_of_vpp_with_an_address_in_the_subnet() -> None:
    assert _on_vpp() == []
    found = _on_vpp(('"host-eth1"\nhost = "eth1"', '"host-eth9"\nhost = "eth9"'))
    assert found and all("host-eth1" in message for message in found), "no such [[interface]]"
    found = _on_vpp((', "fd00:9::2/64"]', "]"))
    assert "fd00:9::/64 is not on-link at host-eth1: no address of it is in there" in found


@pytest.mark.parametrize(
    ("routes", "found"),
    [
        (("10.0.9.0/24", "fd00:9::/64"), ()),
        (("0.0.0.0/0", "::/0"), ()),
        (("10.0.0.0/8",), ("fd00:9::/64",)),
        ((), ("10.0.9.0/24", "fd00:9::/64")),
    ],
)
def test_on_vpp_servers_that_the_kernel_cannot_probe_are_named(
    routes: tuple[str, ...], found: tuple[str, ...]
) -> None:
    problems = unprobed(CONFIG.clusters[:1], [(ip_network(prefix), "eth0") for prefix in routes])
    assert [p.message.split(" no route to ")[1].split(": ")[0] for p in problems] == list(found)


def test_a_subnet_without_a_vip_is_a_warning() -> None:
    cut = GOOD_CLUSTER.index('[[pair.vip]]\naddress = "fd00:9::10"')
    text = GOOD_CLUSTER[:cut] + GOOD_CLUSTER[GOOD_CLUSTER.index("[sessions]") :]
    assert any("no VIP of the pair is in fd00:9::/64" in w.message for w in check_text(text).warnings)


@pytest.mark.parametrize(
    ("devices", "routes", "text"),
    [
        (("eth0",), (("10.0.9.0/24", "eth0"),), "there is no device eth1"),
        (("eth1",), (("0.0.0.0/0", "eth1"), ("::/0", "eth1")), "10.0.9.0/24 is not on-link at eth1"),
        (
            ("eth1", "eth0"),
            (("10.0.0.0/8", "eth1"), ("fd00::/16", "eth0")),
            "fd00:9::/64 is not on-link at eth1",
        ),
    ],
)
def test_what_a_machine_has_against_a_cluster(
    devices: tuple[str, ...], routes: tuple[tuple[str, str], ...], text: str
) -> None:
    known = [(ip_network(prefix), device) for prefix, device in routes]
    found = cluster_problems(CONFIG.clusters[:1], devices, known)
    assert text in found[0].message and found[0].hint


EXAMPLE = GOOD_CLUSTER.replace('routers = ["10.0.9.1"]', 'routers = ["10.0.9.1", "10.0.9.2", "10.0.9.3"]')


def test_s2_1_six_public_addresses_become_one(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The document's example: two routers with a shared address, two balancers, the cluster."""
    file = tmp_path / "site.toml"
    file.write_text(EXAMPLE)
    assert run(["plan", "addresses", "-c", str(file), "--json"]) == 0
    web, web6, mail = json.loads(capsys.readouterr().out)
    assert (web["public_before"], web["public_now"], web["saved"]) == (6, 1, 5)
    assert web["route"] == "198.51.100.10/32 via 10.0.9.10"
    assert [(r["role"], r["address"], r["suggested"]) for r in web["needed"]] == [
        ("router", "10.0.9.1", False),
        ("router", "10.0.9.2", False),
        ("router", "10.0.9.3", False),
        ("balancer", "10.0.9.11", False),
        ("balancer", "10.0.9.12", False),
        ("vip", "10.0.9.10", False),
        ("server", "10.0.9.21", False),
        ("server", "10.0.9.22", False),
    ]
    assert web6["route"] == "2001:db8:5::10/128 via fd00:9::10"
    assert {r["suggested"] for r in web6["needed"]} == {True, False}, "routers and balancers have none there"
    suggested = [r["address"] for r in mail["needed"] if r["suggested"]]
    assert len(set(suggested)) == 3 and suggested[0] == "10.0.9.254", "two routers and a shared address"
    assert run(["plan", "addresses", "-c", str(file)]) == 0
    text = capsys.readouterr().out
    assert "public addresses: 6 -> 1, 5 saved" in text
    assert "static route of the routers: 198.51.100.10/32 via 10.0.9.10" in text


def test_a_plan_needs_a_cluster(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "site.toml"
    file.write_text(GOOD_CLUSTER[: GOOD_CLUSTER.index("[[cluster]]")])
    assert run(["plan", "addresses", "-c", str(file)]) == 3
    assert "no cluster" in capsys.readouterr().err
