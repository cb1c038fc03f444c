"""Mistakes that [[cluster]] can contain, as in tests.cases.config_mistakes."""

from __future__ import annotations

from tests.cases.config_mistakes import Mistake as M

GOOD_CLUSTER = """
[node]
name = "a"
icmp_source = ["10.0.9.11"]
[pair]
key_file = "pair.key"
[[pair.node]]
name = "a"
paths = ["10.0.9.11:6081", "10.8.0.1:6081"]
[[pair.node]]
name = "b"
paths = ["10.0.9.12:6081", "10.8.0.2:6081"]
[[pair.vip]]
address = "10.0.9.10"
interface = "eth1"
[[pair.vip]]
address = "fd00:9::10"
interface = "eth1"
[sessions]
addresses = 300
[[nat]]
name = "out"
inside = ["172.16.0.0/24"]
addresses = ["192.0.2.0/29"]
interfaces = ["eth2"]
[[cluster]]
name = "web"
address = ["198.51.100.10", "2001:db8:5::10"]
subnet = ["10.0.9.0/24", "fd00:9::/64"]
interface = "eth1"
routers = ["10.0.9.1"]
slow_start = "30s"
[[cluster.server]]
name = "w1"
address = ["10.0.9.21", "fd00:9::21"]
weight = 3
[[cluster.server]]
name = "w2"
address = ["10.0.9.22"]
weight = 0
[cluster.probe]
kind = "tcp"
port = 443
interval = "2s"
timeout = "1s"
[[cluster]]
name = "mail"
address = ["198.51.100.11"]
subnet = ["10.0.9.0/24"]
interface = "eth1"
[[cluster.server]]
name = "m1"
address = ["10.0.9.21"]
"""

CLUSTER_MISTAKES = [
    M('name = "mail"', 'name = "web" #!', "cluster[1].name", "the name 'web' is taken"),
    M('["198.51.100.11"]', '["198.51.100.10"] #!', "cluster[1].address[0]", "cluster 'web' already"),
    M('["198.51.100.11"]', '["198.51.100.11", "198.51.100.12"] #!', "cluster[1].address[1]", "a second IPv4"),
    M('["198.51.100.11"]', '["10.0.9.200"] #!', "cluster[1].address[0]", "is in the access subnet"),
    M('["198.51.100.11"]', '["192.0.2.3"] #!',
      "cluster[1].address[0]", "is in 192.0.2.0-192.0.2.7 of the NAT"),
    M('["198.51.100.11"]', '["224.0.0.5"] #!', "cluster[1].address[0]", "is multicast"),
    M('["198.51.100.11"]', "[] #!", "cluster[1].address", "no address"),
    M('address = ["10.0.9.22"]', 'address = ["10.0.8.22"] #!',
      "cluster[0].server[1].address[0]", "not on-link", "encapsulation"),
    M('address = ["10.0.9.22"]', 'address = ["10.0.9.255"] #!',
      "cluster[0].server[1].address[0]", "no host of"),
    M('address = ["10.0.9.22"]', 'address = ["10.0.9.21"] #!',
      "cluster[0].server[1].address[0]", "server 'w1' already"),
    M('address = ["10.0.9.22"]', 'address = ["10.0.9.10"] #!',
      "cluster[0].server[1].address[0]", "VIP of the pair"),
    M('name = "w2"', 'name = "w1" #!', "cluster[0].server[1].name", "the name 'w1' is taken"),
    M("weight = 3", "weight = 0", "cluster[0].server", "every server has weight 0"),
    M("weight = 3", "weight = 70000 #!", "cluster[0].server[0].weight", "at most 65535"),
    M(', "fd00:9::21"]', "]", "cluster[0].address[1]", "no server has an IPv6 address"),
    M(', "fd00:9::/64"]\n', "]\n", "cluster[0].address[1]", "has no such subnet"),
    M('routers = ["10.0.9.1"]', 'routers = ["10.0.7.1"] #!',
      "cluster[0].routers[0]", "not on-link", "routers are in"),
    M('slow_start = "30s"', 'slow_start = "2h" #!', "cluster[0].slow_start", "at most an hour"),
    M('timeout = "1s"', 'timeout = "2s" #!', "cluster[0].probe.timeout", "not below interval"),
    M('timeout = "1s"', 'timeout = "1ms" #!', "cluster[0].probe.timeout", "between 10ms and 1h"),
    M("port = 443\n", "", "cluster[0].probe", "a tcp probe needs a port"),
    M('kind = "tcp"', 'kind = "icmp"', "cluster[0].probe.port", "an icmp probe has no port"),
    M('kind = "tcp"', 'kind = "udp" #!', "cluster[0].probe.kind", "'udp' is not one of"),
    M("port = 443\n", 'port = 443\npath = "/x" #!\n', "cluster[0].probe.path", "asks for no path"),
    M('kind = "tcp"', 'kind = "http"\npath = "x y" #!', "cluster[0].probe.path", "no path of a URL"),
    M('[[cluster.server]]\nname = "m1"\naddress = ["10.0.9.21"]\n', "server = []\n",
      "cluster[1].server", "has no server"),
    M("addresses = 300", "addresses = 9 #",
      "cluster[0]", "3 addresses of servers", "addresses = ... in [sessions]"),
    M('slow_start = "30s"', 'by = ["speed"] #!', "cluster[0].by[0]", "'speed' is not one of"),
    M('routers = ["10.0.9.1"]', 'router = ["10.0.9.1"] #!', "cluster[0].router", "unknown key", "routers"),
]  # fmt: skip
CLUSTER_ALONE = [
    M(
        'subnet = ["10.0.9.0/24"]\ninterface = "eth1"',
        'subnet = ["10.0.9.0/24"]\ninterface = "ips-out" #!',
        "cluster[1].interface",
        "engine's own outer_device",
    ),
]
