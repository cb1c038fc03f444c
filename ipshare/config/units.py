"""Values of the configuration as people write them: durations, sizes, samples, prefixes, addresses.

Each parse function takes what TOML gave, returns the value, or raises Invalid with a message and a hint;
`ipshare.config.schema` wraps them as pydantic types. Durations and sizes carry their unit in the
string, because a bare number is what operators misread. Pure.
"""

from __future__ import annotations

import re
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    NetmaskValueError,
    ip_address,
    ip_interface,
    ip_network,
)

from ipshare.model import Address, AddressRange, Prefix

DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}

# JSON Schema patterns, for editors; the parsers below are the judges.
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(us|ms|s|m|h|d))+$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|kB|MB|GB)$"
MAC_PATTERN = r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$"
_DOMAIN = r"[0-9a-fA-F]{4}:"
CARD_PATTERN = _DOMAIN + r"[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7]"
SAMPLE_PATTERN = r"^1/[1-9][0-9]*$"


class Invalid(ValueError):
    """A value that cannot be taken, and what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def duration(value: object) -> float:
    """Seconds from "10ms", "5m", "1h30m"."""
    hint = 'write a number with its unit, for example "10ms", "5s", "5m" (units: us, ms, s, m, h, d)'
    if not isinstance(value, str):
        raise Invalid(f"a duration is a string with a unit, not {value!r}", hint)
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h|d)(?![a-z])", value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise Invalid(f"not a duration: {value!r}", hint)
    return sum(float(number) * DURATION_UNITS[unit] for number, unit in parts)


def size(value: object) -> int:
    """Bytes from 1500, "1500B", "64KiB"."""
    hint = 'write bytes as a number, or with a unit: "64KiB" (units: B, KiB, MiB, GiB, kB, MB, GB)'
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = (
        re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(B|[KMG]iB|[kMG]B)", value) if isinstance(value, str) else None
    )
    if match is None:
        raise Invalid(f"not a size: {value!r}", hint)
    number = float(match[1]) * SIZE_UNITS[match[2]]
    if number != int(number):
        raise Invalid(f"{value!r} is not a whole number of bytes", hint)
    return int(number)


def sample(value: object) -> int:
    """N from "1/N": one packet of N is copied."""
    match = re.fullmatch(r"1/([1-9][0-9]{0,8})", value) if isinstance(value, str) else None
    if match is None:
        raise Invalid(
            f"not a sample: {value!r}", 'write "1/1" for every packet, "1/100" for one of a hundred'
        )
    return int(match[1])


def address(value: object) -> Address:
    """An IPv4 or IPv6 address without scope."""
    if isinstance(value, str) and "%" not in value:
        try:
            return ip_address(value)
        except ValueError:
            pass
    hint = "write an IPv4 or IPv6 address such as 192.0.2.1 or 2001:db8::1"
    if isinstance(value, str) and "/" in value:
        hint = f"write the address alone: {value.split('/')[0]!r}"
    raise Invalid(f"not an IP address: {value!r}", hint)


def prefix(value: object) -> Prefix:
    """A prefix with no host bits set; an address alone means its /32 or /128."""
    if not isinstance(value, str) or "%" in value:
        raise Invalid(f"not a prefix: {value!r}", _PREFIX_HINT)
    try:
        return ip_network(value)
    except (AddressValueError, NetmaskValueError, ValueError):
        pass
    try:
        loose = ip_network(value, strict=False)
    except ValueError:
        raise Invalid(f"not a prefix: {value!r}", _PREFIX_HINT) from None
    alone = value.split("/")[0]
    raise Invalid(
        f"{value} has host bits set",
        f'write "{loose}" for the whole prefix, or "{alone}/{loose.max_prefixlen}" for the one address',
    )


_PREFIX_HINT = 'write a prefix such as "198.51.100.0/24" or "2001:db8:1::/48"'


def pool(value: object) -> AddressRange:
    """Addresses from a prefix, an address alone, or "192.0.2.8-192.0.2.15"."""
    if not isinstance(value, str) or "-" not in value:
        network = prefix(value)
        return AddressRange(network.network_address, network.num_addresses)
    first, last = (address(part.strip()) for part in value.split("-", 1))
    if first.version != last.version:
        raise Invalid(f"{value!r} begins in IPv{first.version} and ends in IPv{last.version}", _POOL_HINT)
    if int(last) < int(first):
        raise Invalid(f"{value!r} ends before it begins", f'write "{last}-{first}"')
    return AddressRange(first, int(last) - int(first) + 1)


_POOL_HINT = 'write a prefix ("192.0.2.8/29") or first and last address ("192.0.2.8-192.0.2.15")'


def collector(value: object) -> tuple[Address, int]:
    """Address and UDP port from "192.0.2.9:4789" or "[2001:db8::9]:4789". Names are not resolved here."""
    match = (
        re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", value)
        if isinstance(value, str)
        else None
    )
    hint = (
        'write an address and a port: "192.0.2.9:4789" or "[2001:db8::9]:4789" (host names are not resolved)'
    )
    if match is None:
        raise Invalid(f"not an address and port: {value!r}", hint)
    try:
        host: Address = IPv6Address(match[1]) if match[1] else IPv4Address(match[2])
    except ValueError:
        raise Invalid(f"not an IP address: {match[1] or match[2]!r}", hint) from None
    if not 1 <= int(match[3]) <= 65535:
        raise Invalid(f"{match[3]} is not a port", "write a port from 1 to 65535")
    return host, int(match[3])


def device(value: object) -> str:
    """A name that Linux accepts for a network device (dev_valid_name)."""
    if not isinstance(value, str):
        raise Invalid(f"a device name is a string, not {value!r}", 'for example "eth0"')
    if not 1 <= len(value.encode()) <= 15:
        raise Invalid(
            f"device name {value!r} has {len(value.encode())} bytes; Linux allows 1 to 15",
            "choose a shorter name",
        )
    if value in (".", "..") or re.search(r"[\s/:]", value):
        raise Invalid(f"{value!r} is no device name", "leave out spaces, slashes and colons")
    return value


def card(value: object) -> str:
    """A network card: its PCI address, in lower case, or Linux's name of it."""
    if not isinstance(value, str) or not re.search(r":|^[0-9a-fA-F]{2}\.[0-7]$", value):
        return device(value)
    if re.fullmatch(CARD_PATTERN, value):
        return value.lower()
    short = re.fullmatch(CARD_PATTERN.removeprefix(_DOMAIN), value)
    hint = f'write "0000:{value.lower()}"' if short else 'write it as lspci -D does: "0000:03:00.0"'
    raise Invalid(f"not a PCI address: {value!r}", hint)


def page_size(value: object) -> int:
    """Bytes of a hugepage: a power of two."""
    bytes_ = size(value)
    if bytes_ < 1 << 16 or bytes_ & (bytes_ - 1):
        raise Invalid(f"no hugepage has {bytes_} bytes", 'write "2MiB" or "1GiB"')
    return bytes_


def port_name(value: object) -> str:
    """A name of an interface, VPP's included ("TenGigabitEthernet3/0/0.100")."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{1,63}", value):
        raise Invalid(f"not a name of an interface: {value!r}", 'for example "host-eth0", without spaces')
    return value


def interface_address(value: object) -> IPv4Interface | IPv6Interface:
    """An address with the length of its subnet."""
    hint = 'write an address and the length of its subnet, such as "10.0.1.2/29" or "2001:db8:1::1/64"'
    if not isinstance(value, str) or "/" not in value or "%" in value:
        raise Invalid(f"not an address with a length: {value!r}", hint)
    try:
        return ip_interface(value)
    except ValueError:
        raise Invalid(f"not an address with a length: {value!r}", hint) from None


COMMUNITIES = {"no-export": (65535, 65281), "no-advertise": (65535, 65282)}
"""Well-known communities (RFC 1997)."""


def community(value: object) -> tuple[int, ...]:
    """Two numbers of 16 bits (RFC 1997), three of 32 (RFC 8092), or the numbers of a well-known name."""
    hint = 'write two numbers "65000:100", three of a large one "65000:1:2", "no-export" or "no-advertise"'
    if isinstance(value, str) and value in COMMUNITIES:
        return COMMUNITIES[value]
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,10}(:[0-9]{1,10}){1,2}", value):
        raise Invalid(f"not a community: {value!r}", hint)
    numbers = tuple(int(part) for part in value.split(":"))
    most = 0xFFFF if len(numbers) == 2 else 0xFFFFFFFF
    if max(numbers) > most:
        raise Invalid(f"{value}: {max(numbers)} is above {most}", hint)
    return numbers


def mac(value: object) -> str:
    """A unicast MAC address, in lower case."""
    if not isinstance(value, str) or not re.fullmatch(MAC_PATTERN, value):
        raise Invalid(f"not a MAC address: {value!r}", 'write it as "02:00:00:00:00:01"')
    if int(value[:2], 16) & 1 or not int(value.replace(":", ""), 16):
        raise Invalid(f"{value} is no station's MAC address", "the first octet of one is even")
    return value.lower()


def name(value: object) -> str:
    """The name of a thing: letters, digits, '-', '_', '.'; at most 63."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", value):
        raise Invalid(
            f"not a name: {value!r}",
            "use 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit",
        )
    return value


SCOPES: list[tuple[Prefix, str]] = [
    (IPv4Network("0.0.0.0/8"), "unspecified"),
    (IPv4Network("127.0.0.0/8"), "loopback"),
    (IPv4Network("169.254.0.0/16"), "link-local"),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("255.255.255.255/32"), "broadcast"),
    (IPv6Network("::/128"), "unspecified"),
    (IPv6Network("::1/128"), "loopback"),
    (IPv6Network("::ffff:0:0/96"), "IPv4-mapped"),
    (IPv6Network("fe80::/10"), "link-local"),
    (IPv6Network("ff00::/8"), "multicast"),
]


def bad_scope(value: Prefix) -> str | None:
    """The scope that `value` overlaps and that is never translated; None where it is good."""
    for scope, text in SCOPES:
        if scope.version == value.version and scope.overlaps(value):
            return text
    return None
