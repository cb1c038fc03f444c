"""Values as people write them: what is taken, what is refused, and with which remedy."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from ipshare.config import units
from ipshare.model import PathMtu


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.duration, "10ms", 0.01),
        (units.duration, "100us", 0.0001),
        (units.duration, "5m", 300.0),
        (units.duration, "1h30m", 5400.0),
        (units.duration, "1.5s", 1.5),
        (units.size, 1500, 1500),
        (units.size, "64KiB", 65536),
        (units.size, "1.5KiB", 1536),
        (units.size, "2MB", 2_000_000),
        (units.sample, "1/100", 100),
        (units.address, "2001:db8::1", ip_address("2001:db8::1")),
        (units.prefix, "198.51.100.0/24", ip_network("198.51.100.0/24")),
        (units.prefix, "198.51.100.7", ip_network("198.51.100.7/32")),
        (units.prefix, "2001:db8::", ip_network("2001:db8::/128")),
        (units.collector, "192.0.2.9:4789", (ip_address("192.0.2.9"), 4789)),
        (units.collector, "[2001:db8::9]:1", (ip_address("2001:db8::9"), 1)),
        (units.device, "ips-out", "ips-out"),
        (units.name, "a.b-c_1", "a.b-c_1"),
    ],
)
def test_taken(parse: Any, text: object, value: object) -> None:
    assert parse(text) == pytest.approx(value) if isinstance(value, float) else parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "message", "hint"),
    [
        (units.duration, 10, "a string with a unit", '"10ms"'),
        (units.duration, "10", "not a duration", "units: us, ms"),
        (units.duration, "10 ms", "not a duration", "units"),
        (units.duration, "10mss", "not a duration", "units"),
        (units.duration, "-1s", "not a duration", "units"),
        (units.duration, "", "not a duration", "units"),
        (units.size, -1, "not a size", "64KiB"),
        (units.size, True, "not a size", "64KiB"),
        (units.size, "64kib", "not a size", "KiB"),
        (units.size, "0.3B", "not a whole number of bytes", "64KiB"),
        (units.sample, "1/0", "not a sample", "1/100"),
        (units.sample, "0.01", "not a sample", "1/100"),
        (units.sample, 1, "not a sample", "1/100"),
        (units.address, "10.0.0.1/24", "not an IP address", "'10.0.0.1'"),
        (units.address, "fe80::1%eth0", "not an IP address", "IPv4 or IPv6"),
        (units.address, 1, "not an IP address", "IPv4 or IPv6"),
        (
            units.prefix,
            "10.0.0.1/24",
            "host bits set",
            '"10.0.0.0/24" for the whole prefix, or "10.0.0.1/32"',
        ),
        (units.prefix, "2001:db8::1/64", "host bits set", '"2001:db8::1/128"'),
        (units.prefix, "10.0.0/8", "not a prefix", "198.51.100.0/24"),
        (units.prefix, "10.0.0.0/33", "not a prefix", "198.51.100.0/24"),
        (units.prefix, 10, "not a prefix", "198.51.100.0/24"),
        (units.collector, "ids:4789", "not an address and port", "host names are not resolved"),
        (units.collector, "1.2.3.4:0", "not a port", "1 to 65535"),
        (units.collector, "1.2.3.400:1", "not an IP address", "192.0.2.9"),
        (units.device, "", "0 bytes", "shorter"),
        (units.device, "0123456789abcdef", "16 bytes", "shorter"),
        (units.device, "öööööööö", "16 bytes", "shorter"),
        (units.device, "a b", "no device name", "spaces"),
        (units.device, "..", "no device name", "slashes"),
        (units.name, "-a", "not a name", "letters"),
        (units.name, "a\n", "not a name", "letters"),
        (units.name, "x" * 64, "not a name", "63"),
    ],
)
def test_refused(parse: Any, text: object, message: str, hint: str) -> None:
    with pytest.raises(units.Invalid) as caught:
        parse(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("prefix", "scope"),
    [
        ("0.0.0.0/0", "unspecified"),
        ("127.0.0.1/32", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/24", "multicast"),
        ("::/128", "unspecified"),
        ("fe80::/64", "link-local"),
        ("ff02::/16", "multicast"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("10.0.0.0/8", None),
        ("fd00::/8", None),
        ("2001:db8::/32", None),
    ],
)
def test_scopes(prefix: str, scope: str | None) -> None:
    assert units.bad_scope(ip_network(prefix)) == scope


def test_path_mtu() -> None:
    from ipshare.config.schema import Endpoint

    def mtu(value: object) -> PathMtu:
        return Endpoint.model_validate({"name": "A", "path_mtu": value}).path_mtu

    assert mtu(1400) == PathMtu(1400, 1400)
    assert mtu({"v4": 600}) == PathMtu(600, 1500)
    assert mtu({"v6": 1280}) == PathMtu(1500, 1280)
