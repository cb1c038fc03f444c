"""Mistakes in the tables of a pair beside its nodes and VIPs.

Each is made alone in GOOD_PAIR, before its first [[pair.node]].
"""

from __future__ import annotations

from tests.cases.config_mistakes import GOOD_PAIR, ON_VPP, VIPS, Mistake

FIRST = '[[pair.node]]\nname = "n1"'
AT = 'address = "10.9.0.3:6082"\nkey_file = "w"\n'
ETCD = f'{AT}endpoints = ["https://e"]\n'


def _before(table: str, text: str, key: str, *words: str) -> Mistake:
    return Mistake(FIRST, f"{table}\n{text}\n{FIRST}", key, *words)


WITNESS = [
    _before("[pair.witness]", f"kind = {kind}\n{keys}", f"pair.witness{key}", text)
    for kind, keys, key, text in [
        ('"node"', 'key_file = "w"', "", "key 'address' is missing"),
        ('"zk" #!', AT, ".kind", "not one of node, etcd"),
        ('"node"', 'address = "127.0.0.1:1" #!\nkey_file = "w"', ".address", "127.0.0.1 is loopback"),
        ('"node"', AT.replace('"w"', '"pair.key" #!'), ".key_file", "could speak for either node"),
        ('"node"', f'{AT}ttl = "20s" #!', ".ttl", "not between 50ms and 10s"),
        ('"node"', f'{AT}ttl = "50ms" #!', ".ttl", "shorter than the dead time"),
        ('"etcd"', f'{ETCD}ttl = "2500ms" #!', ".ttl", "whole seconds"),
        ('"etcd"', AT, "", "needs endpoints"),
        ('"etcd"', f'{AT}endpoints = ["e:1"] #!', ".endpoints[0]", "no URL of an etcd"),
        ('"node"', f'{AT}endpoints = ["http://e"] #!', ".endpoints", 'is for kind = "etcd"'),
        ('"etcd"', f'{ETCD}cert_file = "c"', "", "cert_file and cert_key_file go together"),
    ]
]
CRITERIA = [
    _before("[[pair.criterion]]", text, key, message)
    for text, key, message in [
        (
            'kind = "link"\ninterface = "e"\naddress = "10.9.0.9"',
            "pair.criterion[0]",
            "a link has no address",
        ),
        ('kind = "echo"\ninterface = "e"', "pair.criterion[0]", "whom does this echo ask?"),
        ('kind = "arp" #!\ninterface = "e"', "pair.criterion[0].kind", "not one of link, neighbour, echo"),
        (
            'kind = "echo"\ninterface = "e"\naddress = "10.9.0.1" #!',
            "pair.criterion[0].address",
            "an address of the pair itself",
        ),
        (
            'kind = "echo"\ninterface = "e"\naddress = "224.0.0.1" #!',
            "pair.criterion[0].address",
            "is multicast",
        ),
        (
            'kind = "link"\ninterface = "e"\ninterval = "1ms" #!',
            "pair.criterion[0].interval",
            "not between 10ms and 60s",
        ),
    ]
]
CRITERIA.append(
    Mistake(
        "[pair]\n",
        "[pair]\ncriteria_needed = 1 #!\n",
        "pair.criteria_needed",
        "1 criteria are needed, and there are 0",
    )
)
PUBLIC = [
    _before(
        "[[pair.public]]", f'prefix = "{prefix}" #!\ninterface = "eth0"', "pair.public[0].prefix", message
    )
    for prefix, message in [
        ("10.0.0.0/15", "more than 65,536 addresses"),
        ("2001:db8::/111", "more than 65,536 addresses"),
        ("224.0.0.0/24", "224.0.0.0/24 is multicast"),
        ("10.9.0.0/31", "contains 10.9.0.1, which is the end of a path"),
        ("192.168.5.0/30", "contains 192.168.5.1, which is a VIP already"),
        ("192.0.2.0/31", "contains 192.0.2.1, which is in icmp_source"),
    ]
]
BOTH = 'via = ["10.9.0.1", "10.9.0.2"]'
ROUTES = [
    _before(
        "[[pair.route]]", f'kind = "{kind}"\nprefix = "0.0.0.0/0"\n{keys}', f"pair.route[0]{key}", message
    )
    for kind, keys, key, message in [
        ("linux", 'via = ["10.9.0.1"] #!', ".via", "1 next hops"),
        ("linux", 'via = ["10.9.0.1", "fd00::2"] #!', ".via", "needs next hops of IPv4"),
        ("linux", 'via = ["10.9.0.1", "10.9.0.1"] #!', ".via", "both next hops are the same"),
        ("linux", f'{BOTH}\ncommand = ["/x"] #!', ".command", 'is for kind = "command"'),
        ("command", BOTH, "", "needs an absolute path"),
        ("command", f'{BOTH}\ncommand = ["/x"]\ntable = 7 #!', ".table", 'is for kind = "linux"'),
    ]
]
PORT = '[[pair.interface]]\nname = "w0"\nparent = "eth0"\nmac = "02:00:00:00:00:01"\n'
PORTS = [
    _before(
        f"{PORT}[[pair.interface]]",
        f'{keys}\nparent = "eth0"',
        f"pair.interface[1].{key}",
        "sub-interface above",
    )
    for keys, key in [
        ('name = "w0" #!\nmac = "02:00:00:00:00:02"', "name"),
        ('name = "w1"\nmac = "02:00:00:00:00:01" #!', "mac"),
    ]
]
PORTS.append(
    _before(
        "[[pair.interface]]",
        PORT.partition("\n")[2].replace('parent = "eth0"\n', ""),
        "pair.interface[0]",
        "'parent' is missing",
    )
)
WORKLOAD = """[[interface]]
name = "eth2"
[[pair.interface]]
name = "eth2"
mac = "02:00:00:00:00:01"
[[pair.public]]
prefix = "198.51.100.0/28"
interface = "eth2"
[[pair.criterion]]
kind = "echo"
interface = "eth1"
address = "192.168.5.254"
"""
ALL_ON_VPP = ON_VPP.format("192.168.5.2", "", "eth1", "") + WORKLOAD
GOOD_PAIR_ON_VPP = GOOD_PAIR.replace(VIPS, ALL_ON_VPP)
_OTHER_MAC = ('[[interface]]\nname = "eth2"', '[[interface]]\nname = "eth2"\nmac = "02:00:00:00:00:02"')
ROUTER = """interface = "eth2"
[[route]]
prefix = "0.0.0.0/0"
via = "198.51.100.1"
"""
NEIGHBOR = """interface = "eth2"
[[neighbor]]
address = "198.51.100.2"
mac = "02:00:00:00:00:09"
"""
PORTS_OF_VPP = [
    Mistake(
        VIPS,
        ALL_ON_VPP.replace(old, new).replace(*_OTHER_MAC if key.endswith("mac") else ("", "")),
        key,
        message,
    )
    for old, new, key, message in [
        (
            '0/28"\ninterface = "eth2"',
            '0/28"\ninterface = "eth9" #!',
            "pair.public[0].interface",
            "named 'eth9'",
        ),
        (
            'echo"\ninterface = "eth1"',
            'echo"\ninterface = "eth9" #!',
            "pair.criterion[0].interface",
            "named 'eth9'",
        ),
        (
            'interface]]\nname = "eth2"\nmac',
            'interface]]\nname = "eth9" #!\nmac',
            "pair.interface[0].name",
            "named 'eth9'",
        ),
        ("\nmac =", '\nparent = "eth1" #!\nmac =', "pair.interface[0].parent", "eth2 of VPP has no parent"),
        (
            '0:01"\n[[pair.public',
            '0:01" #!\n[[pair.public',
            "pair.interface[0].mac",
            "eth2 has the MAC address 02:00:00:00:00:02",
        ),
        (
            "198.51.100.0/28",
            '192.168.5.2/32" #!\ninterface = "eth2"\n[[pair.public]]\nprefix = "198.51.100.0/28',
            "pair.public[0].prefix",
            "contains 192.168.5.2, which is an address of eth1",
        ),
        (
            'prefix = "198.51.100.0/28"\n',
            f'prefix = "198.51.100.0/28" #!\n{ROUTER}',
            "pair.public[0].prefix",
            "contains 198.51.100.1, which is the next hop of a route",
        ),
        (
            'prefix = "198.51.100.0/28"\n',
            f'prefix = "198.51.100.0/28" #!\n{NEIGHBOR}',
            "pair.public[0].prefix",
            "contains 198.51.100.2, which is a neighbour's",
        ),
    ]
]
ALONE = [*WITNESS, *CRITERIA, *PUBLIC, *ROUTES, *PORTS, *PORTS_OF_VPP]
