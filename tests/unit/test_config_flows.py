"""NAT gateways in a file: what both nodes of a pair make of it, defaults, and what needs what."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ipshare.agent.codec import decode, encode
from ipshare.config import check_text, load_text
from ipshare.config.units import Invalid, pool
from ipshare.model import AddressRange, Commit, Config, Filtering, Mirror, Nat, Sessions, Tracking
from ipshare.model_flows import ADDRESS_BYTES, SESSION_BYTES, memory_bytes, nat_digest
from tests.cases.flow_mistakes import GOOD_NAT


def gateway(name: str = "gw2", *change: tuple[str, str]) -> Config:
    text = GOOD_NAT.replace('[node]\nname = "gw2"', f'[node]\nname = "{name}"')
    for old, new in change:
        assert old in text
        text = text.replace(old, new)
    return load_text(text, Path("/etc/ipshare/site.toml"))


def test_realms_go_by_the_order_of_the_file() -> None:
    office, guests = gateway().nats
    assert (office.name, office.realm, guests.name, guests.realm) == ("office", 1, "guests", 2)
    assert office.inside == (ip_network("10.0.0.0/16"), ip_network("fd00:5::/64"))
    assert [str(p) for p in office.pools] == ["198.51.100.8-198.51.100.15", "2001:db8:5::10-2001:db8:5::1f"]
    assert (office.first_port, office.last_port, guests.first_port) == (1024, 65535, 2048)
    assert (office.filtering, office.interfaces) == (Filtering.ENDPOINT_INDEPENDENT, ("eth1",))
    assert office.addresses == 24


def test_both_nodes_agree_on_the_digest_and_on_each_others_ports() -> None:
    one, two = gateway("gw1"), gateway("gw2")
    assert nat_digest(one.nats) == nat_digest(two.nats) < 1 << 64
    assert one.mirror is not None and two.mirror is not None
    assert [(str(p.local), p.local_port) for p in one.mirror.paths] == [
        ("10.9.0.1", 6082), ("10.9.1.1", 6082),
    ]  # fmt: skip
    assert [(p.local, p.local_port) for p in one.mirror.paths] == [
        (p.remote, p.remote_port) for p in two.mirror.paths
    ]
    assert one.mirror.commit is Commit.ACKED and one.mirror.commit_timeout_s == 0.002
    own = gateway("gw1", ('commit = "acked"', "port = 7000")).mirror
    assert own is not None and {p.local_port for p in own.paths} | {p.remote_port for p in own.paths} == {
        7000
    }


@pytest.mark.parametrize(
    "change",
    [
        ('"guests"', '"visitors"'),
        ('"10.64.0.0/16"', '"10.65.0.0/16"'),
        ("198.51.100.19", "198.51.100.18"),
        ("2048", "2049"),
        ("198.51.100.8/29", "198.51.100.0/29"),
    ],
    ids=str,
)
def test_what_has_to_be_equal_is_in_the_digest(change: tuple[str, str]) -> None:
    assert nat_digest(gateway("gw1", change).nats) != nat_digest(gateway("gw2").nats)


def test_devices_may_differ() -> None:
    assert nat_digest(gateway("gw1", ('"eth2"', '"lan7"')).nats) == nat_digest(gateway("gw2").nats)


def test_the_order_of_nats_has_to_be_equal() -> None:
    office, guests = gateway().nats
    assert nat_digest((office, guests)) != nat_digest((guests, office))


def test_all_of_it_survives_json() -> None:
    config = gateway()
    for kind, value in ((Sessions, config.sessions), (Mirror, config.mirror), (Nat, config.nats[0])):
        assert decode(kind, encode(value)) == value
    assert decode(AddressRange, encode(config.nats[0].pools[1])) == config.nats[0].pools[1]


def test_a_nat_alone_gets_a_session_table_and_needs_no_role() -> None:
    text = (
        '[node]\nname = "n"\n[[nat]]\nname = "a"\ninside = ["10.0.0.0/8"]\n'
        'addresses = ["198.51.100.1"]\ninterfaces = ["eth1"]\n'
    )
    report = check_text(text)
    assert report.config is not None and not report.warnings
    sessions = report.config.sessions
    assert sessions is not None and (sessions.capacity, sessions.half_open) == (65536, 8192)
    assert (sessions.timeouts.tcp_open, sessions.timeouts.udp, sessions.timeouts.refresh) == (7440, 300, 30)
    assert report.config.mirror is None
    wanted = (65536 + 8192) * SESSION_BYTES + ADDRESS_BYTES
    assert memory_bytes(sessions, report.config.nats) == wanted


def test_without_any_of_it_there_is_nothing() -> None:
    config = load_text('[node]\nname = "n"\n')
    assert (config.sessions, config.nats, config.mirror) == (None, (), None)


def test_tracking_is_of_a_binding() -> None:
    assert [b.tracking for b in gateway().bindings] == [Tracking.INBOUND, Tracking.OFF]
    both = gateway("gw2", ('track = "always"', 'track = "always"\nobserve = "both"'))
    assert both.bindings[0].tracking is Tracking.BOTH


def cut(text: str, start: str, end: str) -> str:
    return text[: text.index(start)] + text[text.index(end) :]


def test_a_mirror_needs_a_pair_and_sessions() -> None:
    [problem] = check_text(cut(GOOD_NAT, "[pair]", "[sessions]")).problems
    assert (problem.key, "there is no pair" in problem.message) == ("mirror", True)
    text = cut(GOOD_NAT, "[sessions]", "[mirror]").replace('track = "always"\n', "")
    [problem] = check_text(text).problems
    assert (problem.key, "there are no sessions to mirror" in problem.message) == ("mirror", True)


def test_on_vpp_the_inside_is_behind_interfaces_of_vpp() -> None:
    """All else is as on the embedded engine; an address of VPP itself is in no pool."""
    ports = ('[[interface]]\nname = "host-eth0"\nhost = "eth0"\naddresses = ["192.0.2.2/24"]\n'
             '[[interface]]\nname = "host-eth1"\nhost = "eth1"\n')  # fmt: skip
    text = GOOD_NAT.replace('outside = ["eth0"]\n', "").replace("eth1", "host-eth1")
    text = text.replace("[[network]]", f'[engine]\nkind = "vpp"\n{ports}[[network]]', 1)
    [problem] = check_text(text).problems
    assert (problem.key, problem.message) == (
        "nat[1].interfaces[0]",
        "there is no [[interface]] named 'eth2'",
    )
    good = text.replace("eth2", "host-eth0")
    assert not check_text(good).problems
    [problem] = check_text(good.replace("192.0.2.2/24", "198.51.100.9/24")).problems
    assert (problem.key, "an address of host-eth0" in problem.message) == ("nat[0].addresses[0]", True)
    route = '[[route]]\nprefix = "198.51.100.12/32"\ninterface = "host-eth0"\ntable = "delivery"\n[[network]]'
    [problem] = check_text(good.replace("[[network]]", route, 1)).problems
    assert "inside pool 198.51.100.8/29" in problem.message


def test_what_is_strange_but_possible_is_a_warning() -> None:
    plain = '[node]\nname = "n"\n'
    [_, warning] = check_text(plain + "[sessions]\n").warnings
    assert (warning.key, "no connections are tracked" in warning.message) == ("sessions", True)
    large = check_text(GOOD_NAT.replace("half_open = 4096", "half_open = 4096\ncapacity = 30_000_000"))
    [warning] = large.warnings
    assert (warning.key, "takes 4.4 GiB" in warning.message) == ("sessions.capacity", True)
    other = check_text(GOOD_NAT.replace('"198.51.100.16-198.51.100.19"', '"198.51.100.16", "2001:db8:9::1"'))
    [warning] = other.warnings
    assert (warning.key, "nothing inside of this NAT is" in warning.message) == ("nat[1].addresses[1]", True)


def test_a_port_that_does_not_exist() -> None:
    [problem] = check_text(GOOD_NAT.replace(":6081", ":65535")).problems
    assert problem.key == "mirror" and "would be 65536" in problem.message


@pytest.mark.parametrize(
    ("text", "first", "count"),
    [
        ("192.0.2.8/30", "192.0.2.8", 4),
        ("192.0.2.8", "192.0.2.8", 1),
        ("192.0.2.8 - 192.0.2.10", "192.0.2.8", 3),
        ("2001:db8::1-2001:db8::1", "2001:db8::1", 1),
    ],
)
def test_a_pool_is_a_prefix_or_a_range(text: str, first: str, count: int) -> None:
    assert pool(text) == AddressRange(ip_address(first), count)
    assert sum(prefix.num_addresses for prefix in pool(text).prefixes) == count


@pytest.mark.parametrize("value", [5, "", "192.0.2.8-", "-192.0.2.8", "192.0.2.8-9", "a-b"])
def test_what_is_no_pool(value: object) -> None:
    with pytest.raises(Invalid):
        pool(value)
