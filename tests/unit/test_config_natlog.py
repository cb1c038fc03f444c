"""[nat_log], deterministic [[nat]]s and [[lease]]s in a file: what they become, every mistake by name."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest

from ipshare.agent.codec import decode, encode
from ipshare.config import check_text, load_text
from ipshare.engine.leased import unfit, with_leases
from ipshare.engine.natlog import NAT_LOG, encode_nat_log, whois
from ipshare.errors import Refused
from ipshare.model import BindingKind, Config, Lease, NatCollector
from ipshare.model_flows import nat_digest
from ipshare.model_natlog import block_size

GOOD = """
[node]
name = "gw"
distribution = "C"
icmp_source = ["192.0.2.1"]
[[network]]
name = "g4"
prefix = "203.0.113.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
replies = "rewrite"
[[endpoint]]
name = "B"
local = ["10.2.0.0/24"]
path = "ipip"
tunnel = ["10.2.0.254"]
[[distribution]]
name = "C"
tunnel = ["192.0.2.2"]
[[binding]]
global = "203.0.113.7"
to = "A"
local = "10.1.0.7"
[[nat]]
name = "homes"
inside = ["100.64.0.0/22", "fd00:5::/56"]
addresses = ["198.51.100.8/29", "2001:db8:5::10-2001:db8:5::17"]
deterministic = true
interfaces = ["eth1"]
[nat_log]
events = ["sessions", "limits"]
[[nat_log.collector]]
address = "192.168.5.40:4739"
[[nat_log.collector]]
address = "[2001:db8::40]:514"
format = "syslog"
facility = "local7"
[[lease]]
name = "vm1"
mac = "02:00:00:00:00:01"
local = "10.1.0.201"
interface = "eth0"
[[lease]]
name = "vm2"
mac = "02:00:00:00:00:02"
local = "10.1.0.202"
interface = "eth0"
"""
EVENTS = 'events = ["sessions", "limits"]'
FIRST = 'address = "192.168.5.40:4739"'
INSIDE = '"100.64.0.0/22"'
VM2 = "02:00:00:00:00:02"
ETH0 = '"10.1.0.202"\ninterface = "eth0"'
MISTAKES = [
    (EVENTS, "events = []", "nat_log.events", "events is empty"),
    (EVENTS, 'events = ["packets"]', "nat_log.events[0]", "'packets' is not one of"),
    (EVENTS, 'templates = "0s"', "nat_log.templates", "no whole number of seconds from 1"),
    (EVENTS, 'templates = "1500ms"', "nat_log.templates", "1.5 s is no whole number"),
    (EVENTS, "domain = -1", "nat_log.domain", "at least 0"),
    (FIRST, 'address = "224.0.0.9:4739"', "nat_log.collector[0].address", "is multicast: no collector"),
    (FIRST, 'address = "[2001:db8::40]:514"\nformat = "syslog"', "nat_log.collector[1].address", "already"),
    (FIRST, FIRST + '\nformat = "netflow"', "nat_log.collector[0].format", "'netflow' is not one of"),
    (FIRST, FIRST + '\nfacility = "local9"', "nat_log.collector[0].facility", "'local9' is not one of"),
    (INSIDE, f'{INSIDE}, "100.65.0.0/24"', "nat[0].deterministic", "take one inside prefix and one range"),
    (INSIDE, '"100.64.0.0/10"', "nat[0].deterministic", "too few ports for every subscriber"),
    (VM2, "02:00:00:00:00:01", "lease[1].mac", "is that of 'vm1' already"),
    (VM2, "03:00:00:00:00:02", "lease[1].mac", "no station's MAC"),
    ('"10.1.0.202"', '"10.1.0.201"', "lease[1].local", "is that of 'vm1' already"),
    ('"10.1.0.202"', '"10.2.0.9"', "lease[1].local", "in no local network of a rewriting end point"),
    ('"10.1.0.202"', '"fd00::9"', "lease[1].local", "leases are DHCPv4"),
    (ETH0, '"10.1.0.202"\ninterface = "ips-out"', "lease[1].interface", "the engine's own outer_device"),
    (ETH0, f'{ETH0}\nserver = "2001:db8::1"', "lease[1].server", "no address of a DHCPv4 server"),
    (ETH0, f'{ETH0}\nserver = "192.0.2.9"', "lease[1].server", "has another server at"),
    ('"vm2"', '"vm1"', "lease[1].name", "'vm1' is taken"),
]


def site(*change: tuple[str, str]) -> Config:
    text = GOOD
    for old, new in change:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return load_text(text, Path("/etc/ipshare/site.toml"))


ON_VPP = """[engine]
kind = "vpp"
counter_cells = 64
[[interface]]
name = "{}"
host = "{}"
"""


@pytest.mark.parametrize("port", [("eth0", "up0"), ("host-eth0", "eth0")])
def test_a_lease_is_not_asked_for_by_an_interface_of_vpp(port: tuple[str, str]) -> None:
    found = [one for one in check_text(GOOD + ON_VPP.format(*port)).problems if "lease[0]" in one.key]
    assert ["is VPP's" in one.message for one in found] == [True]


def test_the_good_file_is_good_and_survives_the_store() -> None:
    report = check_text(GOOD)
    assert not report.problems and not report.warnings
    config = site()
    assert decode(Config, encode(config)) == config


@pytest.mark.parametrize(("old", "new", "key", "text"), MISTAKES, ids=[m[3][:60] for m in MISTAKES])
def test_a_mistake_is_named(old: str, new: str, key: str, text: str) -> None:
    assert GOOD.count(old) == 1
    made = GOOD.replace(old, new)
    problems = list(check_text(made).problems)
    assert [(p.key, text in p.message, bool(p.hint)) for p in problems] == [(key, True, True)], problems
    kind = key.split(".")[0].split("[")[0]
    tables = [n for n, line in enumerate(made.split("\n"), 1) if line.strip("[]").split(".")[0] == kind]
    assert problems[0].file == "site.toml" and problems[0].line >= tables[0]


def test_few_ports_are_a_warning() -> None:
    report = check_text(GOOD.replace(INSIDE, '"100.64.0.0/18"'))
    assert not report.problems
    assert ["each subscriber of 100.64.0.0/18 has 31 ports" in w.message for w in report.warnings] == [True]


def test_a_log_without_nat_is_a_mistake() -> None:
    head, tail = GOOD.split("[[nat]]")
    (problem,) = check_text(head + "[nat_log]" + tail.split("[nat_log]")[1]).problems
    assert problem.key == "nat_log" and "no [[nat]]" in problem.message


def test_what_it_becomes() -> None:
    config = site()
    assert config.nat_log is not None
    assert (config.nat_log.events, config.nat_log.domain, config.nat_log.template_s) == (
        ("sessions", "limits"),
        1,
        600,
    )
    assert config.nat_log.collectors == (
        NatCollector(ip_address("192.168.5.40"), 4739, "ipfix", 16),
        NatCollector(ip_address("2001:db8::40"), 514, "syslog", 23),
    )
    assert config.leases[0] == Lease("vm1", "02:00:00:00:00:01", IPv4Address("10.1.0.201"), "A", "eth0", None)


def test_what_an_engine_is_told() -> None:
    import numpy as np

    (record,) = np.frombuffer(encode_nat_log(site().nat_log, "gw"), NAT_LOG)
    assert (record["what"], record["domain"], record["template_s"], record["n_targets"]) == (5, 1, 600, 2)
    assert bytes(record["host"]).rstrip(b"\0") == b"gw"
    first, second = record["targets"][:2]
    assert (bytes(first["address"][:4]), first["port"], first["family"], first["format"]) == (
        b"\xc0\xa8\x05\x28", 4739, 4, 1,
    )  # fmt: skip
    assert (second["family"], second["format"], second["facility"]) == (6, 2, 23)
    (nothing,) = np.frombuffer(encode_nat_log(None, "gw"), NAT_LOG)
    assert nothing["n_targets"] == 0


# ---- deterministic ports ----------------------------------------------------------


def test_blocks_are_as_large_as_everyone_can_have_one() -> None:
    assert block_size(ip_network("100.64.0.0/22"), 8, 64512) == 504
    assert block_size(ip_network("fd00:5::/56"), 8, 64512) == 64512 // 32
    assert block_size(ip_network("10.0.0.0/8"), 65536, 64512) == 64512 // 256
    assert block_size(ip_network("fd00::/32"), 65536, 64512) == 0


@pytest.mark.parametrize(
    ("inside", "subscriber"),
    [("100.64.0.0", "100.64.0.0/32"), ("100.64.3.255", "100.64.3.255/32"), ("fd00:5::9:1", "fd00:5::/64")],
)
def test_whois_both_ways(inside: str, subscriber: str) -> None:
    nats = site().nats
    (mine,) = whois(nats, ip_address(inside), None)
    assert str(mine.subscriber) == subscriber and mine.nat == "homes"
    for port in (mine.first, mine.last):
        assert whois(nats, mine.address, port) == [mine]
    assert whois(nats, mine.address, mine.last + 1 if mine.last < 65000 else 80) != [mine]
    assert whois(nats, ip_address("198.18.0.1"), 5000) == [] == whois(nats, ip_address("192.0.2.9"), None)


def test_a_pair_agrees_on_the_plan() -> None:
    assert nat_digest(site().nats) != nat_digest(site(("deterministic = true\n", "")).nats)


def test_whois_in_python_and_its_refusals(tmp_path: Path) -> None:
    from ipshare.api import Node

    file = tmp_path / "site.toml"
    file.write_text(GOOD.replace('name = "gw"', f'name = "gw"\nruntime_dir = "{tmp_path}/run"'))
    with Node(file) as node:
        (block,) = node.nat_whois("100.64.1.1")
        assert node.nat_whois(str(block.address), block.first) == [block]
        with pytest.raises(Refused, match="not an IP address"):
            node.nat_whois("nobody")
    file.write_text(file.read_text().replace("deterministic = true\n", ""))
    with Node(file) as node, pytest.raises(Refused, match="no NAT of this node has deterministic"):
        node.nat_whois("100.64.1.1")


# ---- leases as bindings -------------------------------------------------------------


def test_a_leased_address_is_bound_to_the_private_one() -> None:
    config = site()
    after = with_leases(config, {"vm1": IPv4Address("203.0.113.90"), "gone": IPv4Address("203.0.113.91")})
    (binding,) = after.bindings[len(config.bindings) :]
    assert (str(binding.prefix), binding.kind, binding.target) == (
        "203.0.113.90/32",
        BindingKind.ENDPOINT,
        "A",
    )
    assert (str(binding.local), binding.offset) == ("10.1.0.201/32", 90)
    assert with_leases(config, {}) is config


@pytest.mark.parametrize(
    ("address", "text"), [("198.51.100.9", "in no Global Network"), ("203.0.113.7", "a [[binding]] has")]
)
def test_an_address_that_does_not_fit_is_left_out(address: str, text: str) -> None:
    config = site()
    assert text in unfit(config, IPv4Address(address))
    assert with_leases(config, {"vm1": IPv4Address(address)}) is config
