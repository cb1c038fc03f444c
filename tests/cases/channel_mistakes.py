"""Mistakes that [[channel]] can contain, as in tests.cases.config_mistakes."""

from __future__ import annotations

from tests.cases.config_mistakes import Mistake as M

GOOD_CHANNEL = """
[node]
name = "a1"
endpoint = "A"
icmp_source = ["192.0.2.1", "2001:db8:f::1"]
[[network]]
name = "g4"
prefix = "203.0.113.0/24"
[[network]]
name = "g6"
prefix = "2001:db8:100::/48"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24", "2001:db8:a::/48"]
tunnel = ["10.1.0.250"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/24", "2001:db8:b::/48"]
[[endpoint]]
name = "E"
local = ["10.3.0.0/24"]
[[binding]]
global = "203.0.113.0/25"
to = "A"
[[channel]]
name = "one"
mtu = 1500
key_file = "channel.key"
[[channel.end]]
endpoint = "A"
addresses = ["10.1.0.251", "10.1.0.252"]
paths = ["192.0.2.1:6090"]
[[channel.end]]
endpoint = "B"
addresses = ["10.2.0.251", "10.2.0.252"]
paths = ["192.0.2.2:6090"]
[[channel]]
name = "two"
kind = "rewrite"
key_file = "channel.key"
[[channel.end]]
endpoint = "B"
addresses = ["2001:db8:b:1::/64", "2001:db8:b:2::/64"]
paths = ["[2001:db8:f::2]:6090"]
[[channel.end]]
endpoint = "A"
addresses = ["2001:db8:a:1::/64", "2001:db8:a:2::/64"]
paths = ["[2001:db8:f::1]:6090"]
[[channel]]
name = "others"
kind = "gue"
gue_port = 6081
key_file = "channel.key"
[[channel.end]]
endpoint = "B"
addresses = ["10.2.0.253"]
paths = ["192.0.2.2:6290"]
[[channel.end]]
endpoint = "E"
addresses = ["10.3.0.253"]
paths = ["192.0.2.3:6290"]
"""

CHANNEL_MISTAKES = [
    M('name = "others"', 'name = "one" #!', "channel[2].name", "the name 'one' is taken"),
    M('kind = "gue"', 'kind = "gre" #!', "channel[2].kind", "'gre' is not one of"),
    M("mtu = 1500", "mtu = 500 #!", "channel[0].mtu", "at least 576"),
    M("mtu = 1500", "mtu = 1290 #!", "channel[0].mtu", "leaves 1270 bytes", "the least is 1300"),
    M("gue_port = 6081", "gue_port = 0 #!", "channel[2].gue_port", "at least 1"),
    M("gue_port = 6081", "gue_prot = 1 #!", "channel[2].gue_prot", "unknown key", "'gue_port'"),
    M('endpoint = "E"', 'endpoint = "F" #!', "channel[2].end[1].endpoint", "no end point named 'F'"),
    M('endpoint = "E"', 'endpoint = "B" #!', "channel[2].end[1].endpoint", "both ends"),
    M(
        '[[channel.end]]\nendpoint = "E"\naddresses = ["10.3.0.253"]\npaths = ["192.0.2.3:6290"]\n',
        "",
        "channel[2].end",
        "two ends, not 1",
    ),
    M('["10.2.0.251", "10.2.0.252"]', '["10.2.0.251"] #!', "channel[0].end[1].addresses", "has 2"),
    M('["10.3.0.253"]', '["10.3.0.253", "10.3.0.254"] #!', "channel[2].end[1].addresses", "has 1"),
    M('"10.2.0.252"]', '\n"10.2.0.0/31"] #!', "channel[0].end[1].addresses[1]", "more than one address"),
    M('"10.2.0.252"]', '\n"127.0.0.1"] #!', "channel[0].end[1].addresses[1]", "is loopback"),
    M('"10.2.0.252"]', '\n"2001:db8:b::1"] #!', "channel[0].end[1].addresses[1]", "is IPv6"),
    M('"10.2.0.252"]', '\n"10.1.0.251"] #!', "channel[0].end[1].addresses[1]", "of this channel"),
    M('"10.2.0.252"]', '\n"203.0.113.5"] #!', "channel[0].end[1].addresses[1]", "in Global Network"),
    M('"10.1.0.252"]', '\n"10.1.0.250"] #!', "channel[0].end[0].addresses[1]", "a tunnel address already"),
    M(
        '"2001:db8:b:2::/64"',
        '\n"2001:db8:b:2::/63"',
        "channel[1].end[0].addresses[1]",
        "not as long as",
    ),
    M('["10.2.0.253"]', '["10.2.0.252"]', "channel[2].end", "of channel"),
    M('"192.0.2.3:6290"', "", "channel[2].end[1].paths", "0 paths: an end has 1 to 4"),
    M(
        '"192.0.2.3:6290"',
        '"192.0.2.3:6290", "192.0.2.3:6490"',
        "channel[2].end[1].paths",
        "one end has 1 paths and the other 2",
    ),
    M('"192.0.2.3:6290"', '"[2001:db8::3]:6290"', "channel[2].end[1].paths[0]", "are IPv4 and IPv6"),
    M('"192.0.2.3:6290"', '"127.0.0.1:6290"', "channel[2].end[1].paths[0]", "is loopback"),
    M('"192.0.2.3:6290"', '"192.0.2.3:65500"', "channel[2].end[1].paths[0]", "no 63 ports after it"),
    M('"192.0.2.2:6290"', '"192.0.2.2:6153"', "channel[2].end[0].paths[0]", "within 64 of port 6090"),
]
