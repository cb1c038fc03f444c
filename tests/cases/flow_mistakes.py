"""One edit of a good pair of NAT gateways for each mistake that its tables can contain.

As tests.cases.config_mistakes, whose machinery this uses.
"""

from __future__ import annotations

from tests.cases.config_mistakes import M, Mistake, appended

GOOD_NAT = """
[node]
name = "gw2"
endpoint = "A"
icmp_source = ["192.0.2.1"]
outside = ["eth0"]
[[network]]
name = "g4"
prefix = "203.0.113.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
[[binding]]
global = "203.0.113.0/25"
to = "A"
track = "always"
[[binding]]
global = "203.0.113.200"
down = true
[pair]
key_file = "pair.key"
[[pair.node]]
name = "gw1"
paths = ["10.9.0.1:6081", "10.9.1.1:6081"]
[[pair.node]]
name = "gw2"
paths = ["10.9.0.2:6081", "10.9.1.2:6081"]
[sessions]
half_open = 4096
[[nat]]
name = "office"
inside = ["10.0.0.0/16", "fd00:5::/64"]
addresses = ["198.51.100.8/29", "2001:db8:5::10-2001:db8:5::1f"]
interfaces = ["eth1"]
[[nat]]
name = "guests"
inside = ["10.64.0.0/16"]
addresses = ["198.51.100.16-198.51.100.19"]
ports = [2048, 65535]
interfaces = ["eth2"]
[mirror]
commit = "acked"
"""
HALF = "half_open = 4096"
PORTS = "ports = [2048, 65535]"
ACKED = 'commit = "acked"'
RANGE = '"198.51.100.16-198.51.100.19"'
ANOTHER = '[[nat]]\nname = "more"\ninside = ["10.65.0.0/16"]\ninterfaces = ["eth2"]\n'


def times(line: str, key: str, text: str, hint: str = "") -> Mistake:
    return M(HALF, f"{HALF}\ntimeouts = {{{line}}} #!", f"sessions.timeouts.{key}", text, hint)


def mirror(line: str, key: str, text: str, hint: str = "") -> Mistake:
    return M(ACKED, f"{ACKED}\n{line} #!", f"mirror.{key}", text, hint)


def pool(text: str, message: str, hint: str = "") -> Mistake:
    return M(f"[{RANGE}]", f'["{text}"] #!', "nat[1].addresses[0]", message, hint)


NAT_MISTAKES = [
    # [sessions]
    M(HALF, "capacity = 0 #!", "sessions.capacity", "at least 1, not 0"),
    M(HALF, 'capacity = "64k" #!', "sessions.capacity", "a whole number"),
    M(HALF, "capcity = 5 #!", "sessions.capcity", "unknown key", "did you mean 'capacity'"),
    M(HALF, "half_open = 1023\n", "sessions.half_open_per_source", "is above half_open", "1023 at most"),
    M(HALF, "addresses = 24", "nat[1].addresses", "public addresses: [sessions] has", "or more"),
    M(HALF, "source_bits = {v4 = 33} #!", "sessions.source_bits.v4", "at most 32, not 33"),
    times("udp = 300", "udp", "a string with a unit"),
    times('udp = "1500ms"', "udp", "1.5 s is no whole number of seconds"),
    times('icmp = "30s"', "refresh", "icmp (30 s) is not above refresh (30 s)", "lower refresh"),
    times('tcp_opn = "1h"', "tcp_opn", "unknown key", "did you mean 'tcp_open'"),
    # [[nat]]
    M('name = "guests"', 'name = "office"', "nat[1].name", "'office' is taken by the nat"),
    M('["10.64.0.0/16"]', '["10.64.0.1/16"] #!', "nat[1].inside[0]", "has host bits set"),
    M('["10.64.0.0/16"]', "[]", "nat[1].inside", "inside is empty"),
    M('["10.64.0.0/16"]', '["10.0.0.0/16"]', "nat[1].inside[0]", "10.0.0.0/16 is inside of the NAT at"),
    M('["10.64.0.0/16"]', '["224.1.0.0/16"]', "nat[1].inside[0]", "is multicast: it is never translated"),
    M('["10.64.0.0/16"]', '["0.0.0.0/0"]', "nat[1].inside[0]", "makes everything inside"),
    M('["10.64.0.0/16"]', '["203.0.113.0/26"]', "nat[1].inside[0]", "overlaps Global Network"),
    M(
        '["10.64.0.0/16"]',
        '["10.64.0.0/16", "fd00:6::/64"]',
        "nat[1].inside[1]",
        "fd00:6::/64 is IPv6, and this NAT has no IPv6 address",
    ),
    M(f"[{RANGE}]", "[]", "nat[1].addresses", "addresses is empty"),
    pool("198.51.100.19-198.51.100.16", "ends before it begins", "198.51.100.16-198.51.100.19"),
    pool("198.51.100.16-2001:db8::1", "begins in IPv4 and ends in IPv6"),
    pool("198.51.100.16-x", "not an IP address: 'x'"),
    pool("198.51.100.17/29", "has host bits set"),
    pool("198.18.0.0/15", "131,072 addresses: a range has at most 65,536"),
    pool("127.0.0.1", "127.0.0.1 is loopback: no public address"),
    pool("198.51.100.15-198.51.100.18", "overlaps 198.51.100.8-198.51.100.15"),
    pool("10.0.0.7", "10.0.0.7 overlaps inside 10.0.0.0/16"),
    pool("203.0.113.77", "203.0.113.77 overlaps Global Network 203.0.113.0/24"),
    pool("10.1.0.9", "10.1.0.9 overlaps local network 10.1.0.0/24"),
    pool("192.0.2.1", "192.0.2.1 overlaps 192.0.2.1, an icmp_source"),
    pool("10.9.1.1", "10.9.1.1 overlaps 10.9.1.1, the end of a path"),
    M(PORTS, "ports = [1024]", "nat[1].ports", "ports has 1 numbers"),
    M(PORTS, "ports = [60000, 50000]", "nat[1].ports", "ports ends (50000) before", "[50000, 60000]"),
    M(PORTS, "ports = [0, 50000] #!", "nat[1].ports[0]", "at least 1, not 0"),
    M(
        PORTS,
        'filtering = "address-and-port" #!',
        "nat[1].filtering",
        "filtering is 'address-and-port', and 'endpoint-independent' at",
        "the same in every",
    ),
    M(PORTS, 'filtering = "none" #!', "nat[1].filtering", "'none' is not one of endpoint-independent"),
    M('["eth2"]', '["eth2", "eth2"]', "nat[1].interfaces[1]", "'eth2' is named twice"),
    M('["eth2"]', '["ips-in"]', "nat[1].interfaces[0]", "the engine's own inner_device"),
    M('["eth2"]', '["eth0"]', "nat[1].interfaces[0]", "'eth0' is in [node].outside"),
    M('["eth2"]', "[]", "nat[1].interfaces", "interfaces is empty"),
    appended(
        f'{ANOTHER}addresses = [{", ".join(f"{chr(34)}100.64.{n}.1{chr(34)}" for n in range(62))}] #!\n',
        "nat[2].addresses",
        "65 ranges in all [[nat]]: an engine has at most 64",
    ),
    # [mirror]
    mirror('commit_timeout = "0s"', "commit_timeout", "not between 1us and 1s"),
    mirror('commit_timeout = "30ms"', "commit_timeout", "is not below the pair's dead time"),
    mirror("ring = 1000", "ring", "ring = 1000 is no power of two"),
    mirror("window = 1", "window", "window = 1 is no power of two"),
    mirror("port = 6081", "port", "10.9.0.1 port 6081 is the end of a path of the pair"),
    mirror('digest = "10ms"', "digest", "0.01 s between two comparisons"),
    M(ACKED, 'commit = "sync" #!', "mirror.commit", "'sync' is not one of acked, async"),
    # [[binding]]
    M('track = "always"', 'track = "remap" #!', "binding[0].track", "not one of off, always"),
    M('track = "always"', 'observe = "both" #!', "binding[0].observe", "observe goes only together with"),
    M("down = true", 'down = true\ntrack = "always" #!', "binding[1].track", "with down = true"),
]
