"""Routing recipes that a configuration needs; path MTU search; egress over loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare import config as configuration
from ipshare.agent import egress
from ipshare.agent.netspec import Facts, netspec
from ipshare.agent.prober import Finding, paths, search, sentence
from ipshare.agent.prober import Path as Route
from ipshare.errors import IpshareError
from ipshare.lab.internet import LabSpec
from ipshare.lab.sites import site_toml
from ipshare.model import Config
from ipshare.net import GlobalNetwork, Reply, recipe
from tests.agent_world import site


def lab(node: str, **spec: object) -> Config:
    """The configuration of a lab's node."""
    text = site_toml(LabSpec(**spec), node, Path("/nowhere"), target="A")  # type: ignore[arg-type]
    return configuration.load_text(text)


def every_lab() -> Iterator[tuple[str, str, bool, str]]:
    """Tunnels with rewritten replies, and A where C is A, are in no lab."""
    for path, replies in product(("rewrite", "ipip", "gue"), ("direct", "tunnel", "rewrite")):
        if path == "rewrite" or replies != "rewrite":
            yield from ((path, replies, False, node) for node in "ABCD")
            yield from ((path, replies, True, node) for node in "BCD")


@pytest.mark.parametrize(("path", "replies", "combined", "node"), [*every_lab()])
def test_every_node_of_every_lab_has_a_recipe(path: str, replies: str, combined: bool, node: str) -> None:
    config = lab(node, path=path, replies=replies, combined=combined)
    spec = netspec(config, Facts(routes=((ip_network("203.0.113.0/24"), "lan"),)))
    assert recipe(spec)
    assert bool(spec.networks) == (config.self_distribution is not None)
    assert bool(spec.local_networks) == (config.self_endpoint is not None)


def test_what_a_distribution_point_needs(tmp_path: Path) -> None:
    spec = netspec(site(tmp_path), Facts(conntrack=True, ra_devices=("eth0",)))
    assert spec.networks == (GlobalNetwork(ip_network("203.0.113.0/24"), 1500),)
    assert (spec.local_networks, spec.replies, spec.held) == ((), (), ())
    assert (spec.notrack, spec.ra_devices, spec.service_table) == (True, ("eth0",), 4900)


def test_room_in_tunnels_is_less() -> None:
    assert netspec(lab("C", path="ipip"), Facts()).networks[0].mtu == 1480
    gue = {n.prefix.version: n.mtu for n in netspec(lab("C", path="gue"), Facts()).networks}
    assert gue == {4: 1500 - 32, 6: 1500 - 52}


def test_a_node_that_is_its_own_end_point_leaves_lengths_to_the_engine() -> None:
    assert netspec(lab("C", combined=True), Facts()).networks[0].mtu == 0


REPLY = """
[node]
name = "A"
endpoint = "A"
{inside}
[[network]]
name = "web"
prefix = "203.0.113.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
path = "ipip"
tunnel = ["10.1.0.250"]
replies = "tunnel"
[[distribution]]
name = "C"
tunnel = ["10.9.0.250"]
[[binding]]
global = "203.0.113.0/24"
to = "A"
"""


def reply_devices(*routes: tuple[str, str], inside: str = "") -> list[str]:
    config = configuration.load_text(REPLY.format(inside=inside))
    facts = Facts(routes=tuple((ip_network(prefix), device) for prefix, device in routes))
    replies = netspec(config, facts).replies
    assert all(r == Reply(ip_network("203.0.113.0/24"), r.device, "in") for r in replies)
    return [reply.device for reply in replies]


def test_replies_are_taken_where_main_says_that_devices_are() -> None:
    assert reply_devices(("0.0.0.0/0", "eth0"), ("203.0.113.10/32", "lan1"), ("203.0.113.64/26", "lan2")) == [
        "lan1",
        "lan2",
    ]
    assert reply_devices(("0.0.0.0/0", "eth0"), ("203.0.0.0/16", "lan")) == ["lan"]
    assert reply_devices(("0.0.0.0/0", "eth0"), ("203.0.113.0/24", "ips-out")) == [], "never our own"
    assert reply_devices(("0.0.0.0/0", "eth0")) == [], "the default route is no place of devices"
    assert reply_devices(("203.0.113.0/24", "lan"), inside='inside = ["br0"]') == ["br0"], "as configured"


@given(st.integers(576, 9000), st.integers(500, 9100))
def test_search_finds_the_largest_that_passes(configured: int, real: int) -> None:
    rounds = []

    def which(sizes: Sequence[int]) -> set[int]:
        rounds.append(len(sizes))
        return {size for size in sizes if size <= real}

    found = search(which, 576, configured)
    assert found == (None if real < 576 else min(real, configured))
    assert len(rounds) <= 5
    assert max(rounds) <= 40


def test_only_others_with_a_tunnel_address_are_probed(tmp_path: Path) -> None:
    assert paths(site(tmp_path)) == []
    names = {(p.name, p.family) for p in paths(lab("C"))}
    assert names == {("A", 4), ("A", 6), ("B", 4), ("B", 6)}
    assert {p.name for p in paths(lab("A"))} == {"C", "D"}


def test_sentences_say_what_is_wrong() -> None:
    route = Route("A", 4, ip_address("10.1.0.250"), 1500)
    assert "does not answer" in sentence(Finding(route, None, 0))
    assert "only 1400 bytes, configured are 1500" in sentence(Finding(route, 1400, 0))


class TestEgress:
    @pytest.fixture
    def listener(self) -> Iterator[int]:
        """A listener on loopback; its port."""
        ended = threading.Event()
        server = egress.open_listener("127.0.0.1", 0)
        port = server.getsockname()[1]
        work = threading.Thread(
            target=egress.listen, args=(server,), kwargs={"goes_on": lambda: not ended.is_set()}
        )
        work.start()
        yield port
        ended.set()
        work.join()

    def test_packets_that_arrive(self, listener: int) -> None:
        answer = egress.probe(ip_address("127.0.0.9"), "127.0.0.1", listener)
        assert answer.passes is True and "may leave directly" in answer.sentence

    def test_nobody_listens(self) -> None:
        with egress.open_listener("127.0.0.1", 0) as silent:
            port = silent.getsockname()[1]
            answer = egress.probe(ip_address("127.0.0.9"), "127.0.0.1", port, timeout_s=0.01, attempts=2)
        assert answer.passes is None and "nothing can be said" in answer.sentence

    def test_packets_that_are_filtered(self, listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
        sent = egress._send
        monkeypatch.setattr(
            egress, "_send", lambda out, message, to: None if b" mark" in message else sent(out, message, to)
        )
        answer = egress.probe(ip_address("127.0.0.9"), "127.0.0.1", listener, timeout_s=0.5, attempts=2)
        assert answer.passes is False and "BCP 38" in answer.sentence

    def test_packets_that_are_translated(self, listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(egress, "_from", lambda _source: real(ip_address("127.0.0.8")))
        answer = egress.probe(ip_address("127.0.0.9"), "127.0.0.1", listener)
        assert (answer.passes, answer.seen_as) == (False, "127.0.0.8")

    def test_a_name_that_is_none(self) -> None:
        with pytest.raises(IpshareError):
            egress.probe(ip_address("127.0.0.9"), "no.such.host.invalid")

    def test_answers_are_never_longer_than_questions(self) -> None:
        assert len(egress._message("n" * 32, "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")) <= egress.BYTES


real = egress._from
