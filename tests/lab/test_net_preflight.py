"""Each obstacle gives one sentence with its remedy; a clean machine gives none; nothing is changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from test_net_apply import G4, G6, L4, L6, machine, run, snapshot, tun

from ipshare.errors import Problem
from ipshare.net import GlobalNetwork, NodeNet, Reply, facts, nft
from ipshare.net.kernel import Kernel
from ipshare.net.preflight import preflight

OUTER = NodeNet(networks=(GlobalNetwork(G4, 1400), GlobalNetwork(G6, 1400)))
INNER = NodeNet(local_networks=(L4, L6), tunnels=(ip_address("198.18.1.250"),))
Fresh = Callable[[Callable[[], Any]], Any]


def findings(
    spec: NodeNet, prepare: Callable[[], object], fresh: Fresh, *, running: bool = False
) -> list[Problem]:
    """preflight() on a machine that was prepared; checks that looking changes nothing."""

    def body() -> list[Problem]:
        devices = machine() if running else []
        if not running:
            run("ip link set lo up")
        Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("0")
        kept = prepare()
        before = snapshot()
        found = preflight(spec, devices_exist=running)
        assert snapshot() == before
        for fd in devices:
            os.close(fd)
        del kept
        return found

    result: list[Problem] = fresh(body)
    return result


def lines(*commands: str) -> Callable[[], None]:
    return lambda: [run(command) for command in commands] and None


def sysctl(path: str, value: str) -> Callable[[], object]:
    return lambda: Path("/proc/sys/net", path).write_text(value)


def nft_script(text: str) -> Callable[[], object]:
    return lambda: nft._nft("-f", "-", text=text)


DOCKER = """table ip filter {
  chain FORWARD { type filter hook forward priority 0; policy drop; %s }
}"""
ACCEPT = 'iifname "ips-*" accept; oifname { "ips-out", "ips-in" } accept;'
CASES: list[tuple[str, NodeNet, Callable[[], object], str, str]] = [
    ("rp_filter", OUTER, sysctl("ipv4/conf/all/rp_filter", "1"), "rp_filter is 1", "rp_filter=2"),
    ("device", OUTER, lines("ip link add ips-out type bridge"), "ips-out is taken", "ip link del ips-out"),
    ("tun of another", OUTER, lambda: tun("ips-in"), "ips-in is taken", "another engine"),
    (
        "table",
        OUTER,
        lines("ip route add blackhole 192.0.2.0/24 table 17301"),
        "routing table 17301",
        "another table number",
    ),
    (
        "reply table",
        OUTER,
        lines("ip -6 route add unreachable 2001:db8:5::/64 table 17302"),
        "table 17302",
        "another table number",
    ),
    (
        "priority",
        OUTER,
        lines("ip rule add priority 503 from 192.0.2.0/24 lookup main"),
        "priority 503",
        "rule_priority",
    ),
    (
        "gateway address in the Global Network",
        OUTER,
        lines("ip link add lan type bridge", "ip address add 203.0.113.1/24 dev lan", "ip link set lan up"),
        "203.0.113.1 in the Global Network",
        "network namespace",
    ),
    (
        "address in the local network",
        INNER,
        lines("ip -6 address add 2001:db8:1::5/128 dev lo"),
        "2001:db8:1::5",
        "off its device",
    ),
    (
        "tunnel address configured",
        INNER,
        lines("ip address add 198.18.1.250/32 dev lo"),
        "198.18.1.250",
        "off its device",
    ),
    (
        "Docker",
        OUTER,
        nft_script(DOCKER % ""),
        "drops forwarded packets",
        "nft insert rule ip filter FORWARD",
    ),
    (
        "Docker with half a remedy",
        OUTER,
        nft_script(DOCKER % 'iifname "ips-*" accept;'),
        "drops forwarded packets",
        "oifname",
    ),
    (
        "reply device",
        replace(INNER, replies=(Reply(G4, "nowhere"),)),
        lambda: None,
        "no device nowhere",
        "correct its name",
    ),
    (
        "held at a distribution point",
        replace(OUTER, held=(ip_address("203.0.113.9"),)),
        lambda: None,
        "203.0.113.9 cannot be held",
        "network namespace",
    ),
    ("long name", replace(OUTER, outer_device="a-very-long-name"), lambda: None, "longer than 15", "shorter"),
    ("contradiction", replace(OUTER, rule_priority=0), lambda: None, "priority 0", "use 1 to"),
]


@pytest.mark.parametrize(
    ("name", "spec", "prepare", "message", "hint"), CASES, ids=[case[0] for case in CASES]
)
def test_obstacle(
    name: str, spec: NodeNet, prepare: Callable[[], object], message: str, hint: str, fresh: Fresh
):
    found = findings(spec, prepare, fresh)
    matching = [p for p in found if message in p.message]
    assert matching, found
    assert hint in matching[0].hint
    assert "\n" not in matching[0].message


@pytest.mark.parametrize("spec", [OUTER, INNER], ids=["outer", "inner"])
@pytest.mark.parametrize("running", [False, True])
def test_clean_machine_has_none(spec: NodeNet, running: bool, fresh: Fresh):
    assert findings(spec, lambda: None, fresh, running=running) == []


def test_remedied_firewall_is_none(fresh: Fresh):
    assert findings(OUTER, nft_script(DOCKER % ACCEPT), fresh) == []


def test_a_drop_policy_of_the_other_family_does_not_matter(fresh: Fresh):
    only6 = NodeNet(networks=(GlobalNetwork(G6),))
    assert findings(only6, nft_script(DOCKER % ""), fresh) == []


def test_held_address_of_an_end_point_is_no_trap(fresh: Fresh):
    held = replace(INNER, held=(ip_address("203.0.113.9"),))
    assert findings(held, lines("ip address add 203.0.113.9/32 dev lo"), fresh) == []


def test_strict_device_where_global_ips_live_on_a_distribution_point(fresh: Fresh):
    """Their reverse route is our device: rp_filter 1 there drops every reply."""
    lan = lines(
        "ip link add lan type bridge",
        "ip address add 10.9.0.1/24 dev lan",
        "ip link set lan up",
        "ip route add 203.0.113.0/25 dev lan",
        "sysctl -qw net.ipv4.conf.lan.rp_filter=1",
    )
    found = findings(OUTER, lan, fresh)
    assert [p for p in found if "lan.rp_filter is 1" in p.message]


def test_missing_devices_while_running(fresh: Fresh):
    def body() -> list[Problem]:
        return preflight(OUTER, devices_exist=True)

    assert [p.message for p in fresh(body)] == ["there is no device ips-out", "there is no device ips-in"]


def test_all_at_once(fresh: Fresh):
    def trouble() -> None:
        sysctl("ipv4/conf/all/rp_filter", "1")()
        run("ip link add ips-out type bridge")
        run("ip rule add priority 500 lookup main")
        nft_script(DOCKER % "")()

    assert len(findings(OUTER, trouble, fresh)) >= 4


@pytest.mark.parametrize("command", ["iptables-legacy", "ip6tables-legacy"])
def test_legacy_iptables_policy(command: str, fresh: Fresh):
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    accept = [
        f"{command} -A FORWARD {way} {device} -j ACCEPT"
        for way in ("-i", "-o")
        for device in ("ips-out", "ips-in")
    ]
    drop = f"{command} -P FORWARD DROP"
    noise = f"{command} -A FORWARD -p tcp --dport 80 -j ACCEPT"
    found = findings(OUTER, lines(noise, drop), fresh)
    assert [p for p in found if p.message.startswith(f"{command}: FORWARD drops")], found
    assert findings(OUTER, lines(noise, drop, *accept), fresh) == []
    assert (
        findings(
            OUTER,
            lines(drop, f"{command} -A FORWARD -i ips+ -j ACCEPT", f"{command} -A FORWARD -o ips+ -j ACCEPT"),
            fresh,
        )
        == []
    )
    assert findings(OUTER, lines(drop, *accept[:3]), fresh) != []
    assert findings(OUTER, lines(noise), fresh) == [], "policy accept"


def test_without_privilege(monkeypatch: pytest.MonkeyPatch, fresh: Fresh):
    monkeypatch.setattr(facts, "has_net_admin", lambda: False)
    monkeypatch.setattr(facts, "sysctls_writable", lambda: False)
    monkeypatch.setattr(facts, "tun_error", lambda: "No such file or directory")
    monkeypatch.setattr(nft, "is_available", lambda: False)
    words = " / ".join(
        p.message + p.hint for p in findings(replace(OUTER, notrack=True), lambda: None, fresh)
    )
    for word in ("run as root", "read-only", "/dev/net/tun", "apt install nftables"):
        assert word in words


def test_facts(fresh: Fresh):
    def body() -> tuple[str, ...]:
        machine()
        run("ip -6 route add default via fe80::1 dev up0 proto ra")
        with Kernel() as kernel:
            return facts.ra_devices(kernel)

    assert fresh(body) == ("up0",)
    assert facts.has_net_admin() and facts.sysctls_writable() and facts.tun_error() == ""
    assert facts.conntrack_in_use() == Path("/proc/sys/net/netfilter/nf_conntrack_max").exists()


def test_networks_are_networks():
    """The constants of this file, so that a typing error in one does not make a test pass for nothing."""
    assert ip_network("203.0.113.0/24") == G4 and G6.version == 6
