"""One edit of a good configuration for each mistake that a configuration can contain.

An edit is (what is replaced, by what); "" appends. ``#!`` marks the line that the report has to name.
"""

from __future__ import annotations

from dataclasses import dataclass

GOOD = """
[node]
name = "c1"
distribution = "C"
icmp_source = ["192.0.2.1", "2001:db8:f::1"]
[engine]
workers = 2
[[network]]
name = "g4"
prefix = "203.0.113.0/24"
[[network]]
name = "g6"
prefix = "2001:db8:100::/48"
[[distribution]]
name = "C"
tunnel = ["192.0.2.10"]
[[endpoint]]
name = "A"
local = ["10.1.0.0/24", "2001:db8:a::/48"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/23"]
tunnel = ["10.2.1.254"]
replies = "tunnel"
[[endpoint]]
name = "E"
local = ["10.3.0.0/28"]
tunnel = ["10.3.0.1"]
path = "ipip"
[[policy]]
name = "p"
members = [{endpoint = "A", weight = 2}, {endpoint = "B"}]
[[binding]]
global = "203.0.113.0/24"
to = "A"
[[binding]]
global = "203.0.113.7"
to = "B"
[[binding]]
global = "203.0.113.8"
policy = "p"
[[binding]]
global = "2001:db8:100::/48"
to = "E"
[[binding]]
global = "203.0.113.9"
down = true
[[copy]]
name = "ids"
interface = "eth9"
[probe]
interval = "10s"
"""


@dataclass(frozen=True)
class Mistake:
    old: str  # in GOOD exactly once; "": append
    new: str
    key: str
    text: str
    hint: str = ""

    def made_in(self, site: str) -> str:
        return site.replace(self.old, self.new) if self.old else site + self.new


def appended(table: str, key: str, text: str, hint: str = "") -> Mistake:
    return Mistake("", table, key, text, hint)


M = Mistake
MISTAKES = [
    # one table alone
    M(
        'name = "c1"',
        'name = "c1"\nicmp_rtae = 5 #!',
        "node.icmp_rtae",
        "unknown key",
        "did you mean 'icmp_rate'",
    ),
    M('[node]\nname = "c1"', "[node] #!", "node", "key 'name' is missing"),
    M('name = "c1"', 'name = "c 1" #!', "node.name", "not a name"),
    M('name = "c1"', 'name = "c1"\nruntime_dir = "run" #!', "node.runtime_dir", "not an absolute path"),
    M('name = "c1"', 'name = "c1"\nicmp_rate = -1 #!', "node.icmp_rate", "at least 0, not -1"),
    M(
        'name = "c1"',
        'name = "c1"\ninside = ["ips-in"] #!',
        "node.inside[0]",
        "the engine's own inner_device",
    ),
    M('name = "c1"', 'name = "c1"\noutside = ["a/b"] #!', "node.outside[0]", "is no device name"),
    M('"192.0.2.1", ', '"192.0.2.1", "192.0.2.2",\n', "node.icmp_source[1]", "a second IPv4 source"),
    M('"192.0.2.1", ', '"127.0.0.1", ', "node.icmp_source[0]", "127.0.0.1 is loopback"),
    M('"192.0.2.1", ', '"192.0.2.1/24", ', "node.icmp_source[0]", "not an IP address", "the address alone"),
    M(
        'distribution = "C"',
        'distribution = "CC" #!',
        "node.distribution",
        "no distribution point named 'CC'",
    ),
    M("workers = 2", 'workers = "2" #!', "engine.workers", "must be a whole number, not '2'"),
    M("workers = 2", "workers = true #!", "engine.workers", "must be a whole number, not True"),
    M("workers = 2", "workers = 2\nworker = 2 #!", "engine.worker", "unknown key", "did you mean 'workers'?"),
    M("workers = 2", "workers = 0 #!", "engine.workers", "at least 1, not 0"),
    M("workers = 2", 'kind = "embeded" #!', "engine.kind", "not one of embedded", "did you mean 'embedded'?"),
    M(
        "workers = 2",
        'outer_device = "sixteen-letters-" #!',
        "engine.outer_device",
        "16 bytes; Linux allows 1 to 15",
    ),
    M("workers = 2", 'inner_device = "ips-out" #!', "engine.inner_device", "are both 'ips-out'"),
    M("workers = 2", "service_table = 254 #!", "engine.service_table", "254 is main"),
    M("workers = 2", "service_table = 255 #!", "engine.service_table", "255 is local"),
    M("workers = 2", "reply_table = 253 #!", "engine.reply_table", "253 is default"),
    M("workers = 2", "reply_table = 4900 #!", "engine.reply_table", "both 4900"),
    M("workers = 2", "rule_priority = 32757 #!", "engine.rule_priority", "at most 32756"),
    M('interval = "10s"', "interval = 10 #!", "probe.interval", "a string with a unit, not 10", '"10ms"'),
    M('interval = "10s"', 'interval = "10 s" #!', "probe.interval", "not a duration: '10 s'"),
    M('interval = "10s"', 'interval = "0s" #!', "probe.interval", "more than 0"),
    M('interval = "10s"', 'interval = "10s"\ntimeout = "10s" #!', "probe.timeout", "not below interval"),
    M("[probe]", "[prbe] #!", "prbe", "unknown key 'prbe'", "did you mean 'probe'?"),
    # networks
    M(
        '"203.0.113.0/24"\n[[network]]',
        '"203.0.113.1/24" #!\n[[network]]',
        "network[0].prefix",
        "host bits set",
        '"203.0.113.0/24"',
    ),
    M(
        '"203.0.113.0/24"\n[[network]]',
        '"203.0.113.0/24"\nunmatched = "pass" #!\n[[network]]',
        "network[0].unmatched",
        "would go back upstream and loop",
    ),
    M('name = "g6"', 'name = "g4" #!', "network[1].name", "the name 'g4' is taken"),
    appended(
        '[[network]]\nname = "o"\nprefix = "203.0.113.128/25" #!\n',
        "network[2].prefix",
        "overlaps Global Network 203.0.113.0/24",
    ),
    appended('[[network]]\nname = "m"\nprefix = "239.0.0.0/8" #!\n', "network[2].prefix", "is multicast"),
    appended('[[network]]\nname = "l"\nprefix = "fe80::/64" #!\n', "network[2].prefix", "is link-local"),
    appended('[[network]]\nname = "u"\nprefix = "0.0.0.0/8" #!\n', "network[2].prefix", "is unspecified"),
    appended('[[network]]\nname = "z"\nprefix = "::1" #!\n', "network[2].prefix", "::1/128 is loopback"),
    # end points and distribution points
    M(
        '["10.1.0.0/24", ',
        '["10.1.0.0/24", "203.0.113.64/26", ',
        "endpoint[0].local[1]",
        "overlaps Global Network 203.0.113.0/24",
    ),
    M(
        '["10.1.0.0/24", ',
        '["10.1.0.0/24", "10.2.1.0/24", ',
        "endpoint[1].local[0]",
        "overlaps 10.2.1.0/24 of end point 'A'",
    ),
    M('["10.1.0.0/24", ', '["10.1.0.0/24", "169.254.1.0/24", ', "endpoint[0].local[1]", "is link-local"),
    appended('[[endpoint]] #!\nname = "N"\n', "endpoint[3]", "'N' has no local network", "ipip"),
    appended(
        '[[endpoint]]\nname = "N"\nlocal = ["10.9.0.0/24"]\npath = "gue" #!\n',
        "endpoint[3].path",
        "end point 'N' has no tunnel address",
    ),
    appended(
        '[[endpoint]]\nname = "N"\nlocal = ["10.9.0.0/24"]\nreplies = "tunnel" #!\n',
        "endpoint[3].replies",
        "end point 'N' has no tunnel address",
    ),
    appended(
        '[[endpoint]]\nname = "N"\nlocal = ["10.9.0.0/24"]\ntunnel = ["10.8.0.1"] #!\n',
        "endpoint[3].tunnel[0]",
        "not inside a local network",
    ),
    appended(
        '[[endpoint]]\nname = "N"\nlocal = ["10.9.0.0/24"]\ntunnel = ["10.9.0.1", "10.9.0.2"] #!\n',
        "endpoint[3].tunnel[1]",
        "a second IPv4 tunnel address",
    ),
    appended(
        '[[endpoint]]\nname = "N"\nlocal = ["fd00::/64"]\ntunnel = ["fd00::1"] \nreplies = "tunnel" #!\n',
        "endpoint[3].replies",
        "an IPv6 tunnel address",
    ),
    appended(
        '[[endpoint]]\nname = "N"\nlocal = ["10.9.0.0/24"]\npath_mtu = 1000 #!\n',
        "endpoint[3].path_mtu",
        "below 1280",
        "path_mtu = {v4 = 1000}",
    ),
    appended(
        '[[endpoint]]\nname = "N"\nlocal = ["10.9.0.0/24"]\npath_mtu = {v4 = 67, v6 = 1279} #!\n',
        "endpoint[3].path_mtu",
        "67 is below 68, the least that IPv4 allows (RFC 791); path MTU 1279",
    ),
    appended(
        '[[endpoint]]\nname = "N"\nlocal = ["10.9.0.0/24"]\npath_mtu = {v5 = 1500} #!\n',
        "endpoint[3].path_mtu",
        "unknown key 'v5'",
    ),
    M(
        'path = "ipip"',
        'path = "ipip"\nreplies = "rewrite" #!',
        "endpoint[2].replies",
        "needs path = 'rewrite'",
    ),
    M(
        'path = "ipip"',
        'path = "ippip" #!',
        "endpoint[2].path",
        "not one of rewrite, ipip, gue",
        "mean 'ipip'?",
    ),
    M('name = "C"\n', 'name = "C"\npath = "rewrite" #!\n', "distribution[0].path", "not one of ipip, gue"),
    appended(
        '[[distribution]] #!\nname = "D"\ntunnel = ["2001:db8:f::10"]\n',
        "distribution[1]",
        "'D' has no IPv4 tunnel address, but end point 'E'",
    ),
    appended(
        '[[distribution]]\nname = "D"\ntunnel = ["10.2.1.254"] #!\n',
        "distribution[1].tunnel[0]",
        "configured twice",
    ),
    appended(
        '[[distribution]]\nname = "D"\ntunnel = ["203.0.113.99"] #!\n',
        "distribution[1].tunnel[0]",
        "inside Global Network",
    ),
    appended(
        '[[distribution]]\nname = "D"\ntunnel = ["192.0.2.12"]\nself = true #!\n',
        "distribution[1].self",
        "cannot be distribution point 'D'",
    ),
    appended(
        '[[distribution]]\nname = "D"\ntunnel = ["192.0.2.12"]\nweight = 70000 #!\n',
        "distribution[1].weight",
        "at most 65535",
    ),
    # policies
    M(
        '{endpoint = "A", weight = 2}',
        '\n{weight = 1}, #!\n{endpoint = "A"}',
        "policy[0].members[0]",
        "key 'endpoint' is missing",
    ),
    M(
        '{endpoint = "A", weight = 2}',
        '\n{endpoint = "X"} #!\n',
        "policy[0].members[0].endpoint",
        "no end point named 'X'",
        "known: A, B, E",
    ),
    M(
        '{endpoint = "A", weight = 2}',
        '{endpoint = "A", weight = 2},\n{endpoint = "A"} #!\n',
        "policy[0].members[1].endpoint",
        "a member twice",
    ),
    appended('[[policy]]\nname = "q"\nmembers = [] #!\n', "policy[1].members", "'q' has no members"),
    appended(
        '[[policy]]\nname = "q"\nmembers = [{endpoint = "A", weight = 0}] #!\n',
        "policy[1].members",
        "has no weight",
    ),
    appended(
        '[[policy]]\nname = "q"\nmembers = [{endpoint = "A"}]\nclient_bits = {v4 = 33} #!\n',
        "policy[1].client_bits.v4",
        "at most 32, not 33",
    ),
    appended('[[policy]]\nname = "q"\nmembers = "A" #!\n', "policy[1].members", "must be an array, not 'A'"),
    # bindings
    appended('[[binding]] #!\nglobal = "203.0.113.20"\n', "binding[5]", "leads nowhere"),
    appended(
        '[[binding]] #!\nglobal = "203.0.113.21"\nto = "A"\ndown = true\n', "binding[5]", "exclude each other"
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.22"\nto = "a" #!\n', "binding[5].to", "no end point named 'a'"
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.23"\npolicy = "pp" #!\n',
        "binding[5].policy",
        "no policy named 'pp'",
        "did you mean 'p'?",
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.24"\nto = "A"\ncopy = "idz" #!\n',
        "binding[5].copy",
        "no copy named 'idz'",
        "did you mean 'ids'?",
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.25"\npolicy = "p"\nlocal = "10.1.0.9" #!\n',
        "binding[5].local",
        "only together with `to`",
    ),
    appended(
        '[[binding]]\nglobal = "198.51.100.1" #!\nto = "A"\n',
        "binding[5].global",
        "outside of every Global Network",
    ),
    appended(
        '[[binding]]\nglobal = "203.0.112.0/23" #!\nto = "A"\n',
        "binding[5].global",
        "outside of every Global Network",
        "bind 203.0.113.0/24 instead",
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.7" #!\nto = "A"\n',
        "binding[5].global",
        "to a different target",
        "make a policy",
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.9" #!\ndown = true\n', "binding[5].global", "bound a second time"
    ),
    appended(
        '[[binding]] #!\nglobal = "203.0.113.26"\nto = "A"\nlocal = "10.1.0.27"\n',
        "binding[5]",
        "local address 10.1.0.27 of end point 'A' is claimed by 203.0.113.0/24 too",
        "encapsulate",
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.28"\nto = "B"\nlocal = "10.2.0.0/24" #!\n',
        "binding[5].local",
        "differ in length",
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.29"\nto = "A"\nlocal = "2001:db8:a::5" #!\n',
        "binding[5].local",
        "is IPv4, its local side 2001:db8:a::5/128 IPv6",
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.30"\nto = "A"\nlocal = "203.0.113.31" #!\n',
        "binding[5].local",
        "overlaps Global Network",
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.32"\nto = "A"\nlocal = "224.0.0.5" #!\n',
        "binding[5].local",
        "224.0.0.5/32 is multicast",
    ),
    appended(
        '[[binding]]\nglobal = "2001:db8:100:1::/64" #!\nto = "B"\n',
        "binding[5].global",
        "end point 'B' has no IPv6 local network",
    ),
    appended(
        '[[binding]]\nglobal = "2001:db8:100:2::/64"\npolicy = "p" #!\n',
        "binding[5].policy",
        "policy 'p': 2001:db8:100:2::/64 is IPv6",
    ),
    appended(
        '[[endpoint]]\nname = "S"\nlocal = ["10.9.0.0/28"]\n[[binding]]\nglobal = "203.0.113.32/27" #!\n'
        'to = "S"\n',
        "binding[5].global",
        "is larger than local network 10.9.0.0/28",
    ),
    appended(
        '[[endpoint]]\nname = "S"\nlocal = ["10.9.0.0/28"]\n'
        '[[binding]]\nglobal = "203.0.113.34" #!\nto = "S"\n',
        "binding[5].global",
        "starts 34 addresses into 203.0.113.0/24",
        "write `local`",
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.35"\nto = "B"\nlocal = "10.2.1.254"\n',
        "endpoint[1].tunnel[0]",
        "also the local address of a Global IP of 203.0.113.35/32",
    ),
    # copies
    appended('[[copy]] #!\nname = "n"\n', "copy[1]", "this copy goes nowhere"),
    appended('[[copy]] #!\nname = "n"\nfile = "x"\ninterface = "eth1"\n', "copy[1]", "exclude each other"),
    appended(
        '[[copy]]\nname = "n"\nfile = "x"\nsample = "2/3" #!\n', "copy[1].sample", "not a sample: '2/3'"
    ),
    appended('[[copy]]\nname = "n"\nfile = "x"\nsnaplen = "10QB" #!\n', "copy[1].snaplen", "not a size"),
    appended(
        '[[copy]]\nname = "n"\nfile = "x"\nsnaplen = 20 #!\n', "copy[1].snaplen", "not between 64 and 65535"
    ),
    appended(
        '[[copy]]\nname = "n"\ncollector = "ids.example:4789" #!\n',
        "copy[1].collector",
        "not an address and port",
        "host names are not resolved",
    ),
    appended('[[copy]]\nname = "n"\ninterface = "ips-out" #!\n', "copy[1].interface", "own outer_device"),
    appended(
        '[[bindings_file]]\nname = "f"\npath = "none.csv" #!\n',
        "bindings_file[0].path",
        "cannot read none.csv",
    ),
]

MISTAKES += [
    M(
        'path = "ipip"',
        'path = "ipip"\nnext_hop = ["192.0.2.9"] #!',
        "endpoint[2].next_hop",
        "is for the VPP engine",
    ),
    appended("[vpp] #!\nmanaged = true\n", "vpp", "[vpp] is for the VPP engine", 'kind = "vpp"'),
    appended('[[interface]] #!\nname = "host-x"\n', "interface[0]", "[[interface]] is for the VPP engine"),
    appended('[[bridge]]\nname = "b"\nid = 1\n', "bridge[0]", "[[bridge]] is for the VPP engine"),
    appended('[[route]]\nprefix = "10.0.0.0/8"\n', "route[0]", "[[route]] is for the VPP engine"),
    appended(
        '[[neighbor]]\ninterface = "x"\naddress = "10.0.0.1"\nmac = "02:00:00:00:00:01"\n',
        "neighbor[0]",
        "[[neighbor]] is for the VPP engine",
    ),
]

# Found, but no reason not to run.
WARNINGS = [
    M(
        '"203.0.113.0/24"\n[[network]]',
        '"203.0.113.0/25" #!\n[[network]]',
        "network[0].prefix",
        "longer than /24",
    ),
    M(
        '"2001:db8:100::/48"\n[[dist',
        '"2001:db8:100::/49" #!\n[[dist',
        "network[1].prefix",
        "longer than /48",
    ),
    M('"192.0.2.1", ', "", "node", "no IPv4 address in icmp_source"),
    M('distribution = "C"', "", "node", "neither an end point nor a distribution point"),
    M(
        'path = "ipip"',
        'path = "ipip"\npath_mtu = 1290 #!',
        "endpoint[2].path_mtu",
        "less 20 bytes",
        "1300 bytes",
    ),
    M(
        'path = "ipip"',
        'path = "gue"\npath_mtu = 1311 #!',
        "endpoint[2].path_mtu",
        "less 32 bytes",
        "1312 bytes",
    ),
    M('["10.2.1.254"]', '["10.2.0.254"] #!', "endpoint[1].tunnel[0]", "tunnel address", "no binding maps"),
    appended(
        '[[binding]]\nglobal = "203.0.113.40"\nto = "A"\nlocal = "10.77.0.1" #!\n',
        "binding[5].local",
        "outside of the local networks",
    ),
    appended(
        '[[binding]]\nglobal = "203.0.113.41"\nhere = true #!\n', "binding[5].here", "served on this node"
    ),
]

# Mistakes from which others would seem to follow.
CASCADES = [
    M('name = "E"\n', 'name = "E E"\n', "endpoint[2].name", "not a name"),
    M('path = "ipip"', 'pth = "ipip"', "endpoint[2].pth", "unknown key"),
    M('[[endpoint]]\nname = "B"', '[[endpiont]]\nname = "B"', "endpiont", "unknown key"),
    M("[[policy]]", "[[polcy]]", "polcy", "unknown key"),
    M("[[policy]]", "[policy]", "policy", "must be an array of tables", "[[policy]]"),
    M("[[copy]]", "[copy]", "copy", "must be an array of tables", "[[copy]]"),
    M('prefix = "203.0.113.0/24"', "", "network[0]", "key 'prefix' is missing"),
    M('local = ["10.1.0.0/24"', 'lcal = ["10.1.0.0/24"', "endpoint[0].lcal", "unknown key"),
    M('local = ["10.1.0.0/24"', 'local = ["10.1.0.0/244"', "endpoint[0].local[0]", "not a prefix"),
    M("[[distribution]]", "[[distributions]]", "distributions", "unknown key"),
    M('prefix = "2001:db8:100::/48"', "prefix = 1", "network[1].prefix", "not a prefix"),
]


# ---- with VPP -----------------------------------------------------------------

GOOD_VPP = """
[node]
name = "v1"
distribution = "C"
endpoint = "A"
icmp_source = ["192.0.2.2"]
inside = ["loop0"]
[engine]
kind = "vpp"
[vpp]
delivery_table = 1
api_socket = "/run/vpp/api.sock"
[[interface]]
name = "host-up0"
host = "up0"
addresses = ["192.0.2.2/29", "2001:db8:f::2/64"]
[[interface]]
name = "GigabitEthernet0/8/0"
bridge = "lan"
[[interface]]
name = "loop0"
table = "delivery"
addresses = ["203.0.113.1/25"]
linux_cp = "lan0"
[[bridge]]
name = "lan"
id = 10
bvi = "loop0"
[[route]]
prefix = "0.0.0.0/0"
via = "192.0.2.1"
[[neighbor]]
interface = "loop0"
address = "203.0.113.77"
mac = "02:00:00:00:00:01"
[[network]]
name = "g4"
prefix = "203.0.113.0/24"
[[distribution]]
name = "C"
tunnel = ["192.0.2.10"]
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/24"]
[[binding]]
global = "203.0.113.0/24"
to = "A"
[[binding]]
global = "203.0.113.9"
to = "B"
"""


PORT = '[[interface]]\nname = "host-x"\nhost = "x"\n'
VPP_MISTAKES = [
    M(
        'local = ["10.2.0.0/24"]',
        'local = ["10.2.0.0/24"]\nnext_hop = ["192.0.2.3", "192.0.2.4"] #!',
        "endpoint[1].next_hop[1]",
        "a second IPv4 next hop",
    ),
    M('kind = "vpp"', 'kind = "vpp"\nouter_device = "ips-out" #!', "engine.outer_device", "no TUN devices"),
    M(
        'kind = "vpp"',
        'kind = "vpp"\nservice_table = 4900 #!',
        "engine.service_table",
        "[vpp]",
        "leave it out",
    ),
    M('kind = "vpp"', 'kind = "vpp"\nrule_priority = 4900 #!', "engine.rule_priority", "VPP has no rules"),
    M('kind = "vpp"', 'kind = "vpp"\nworkers = 2 #!', "engine.workers", "startup.conf", "cpu { workers N }"),
    M('["loop0"]', '["loop1"] #!', "node.inside[0]", "no [[interface]] named 'loop1'", "mean 'loop0'?"),
    M(
        "delivery_table = 1",
        "delivery_table = 0 #!",
        "vpp.delivery_table",
        "would be sent on again",
        "another",
    ),
    M("delivery_table = 1", "delivery_table = -1 #!", "vpp.delivery_table", "at least 0, not -1"),
    M(
        "delivery_table = 1",
        "delivery_tabel = 1 #!",
        "vpp.delivery_tabel",
        "unknown key",
        "'delivery_table'?",
    ),
    M('"/run/vpp/api.sock"', '"vpp/api.sock" #!', "vpp.api_socket", "not an absolute path"),
    M('"/run/vpp/api.sock"', '"/run/vpp/api.sock"\nmanaged = true', "vpp.api_socket", "is in runtime_dir"),
    M(
        '"/run/vpp/api.sock"',
        '"/run/x"\nbuffers = 4096 #!',
        "vpp.buffers",
        "started by somebody else",
        "managed",
    ),
    M('"/run/vpp/api.sock"', '"/run/x"\npoll_sleep = "1ms" #!', "vpp.poll_sleep", "started by somebody else"),
    M('host = "up0"', 'host = "up1"', "interface[0].name", "host-up1, not host-up0", '"host-up1"'),
    M('"192.0.2.2/29"', '"192.0.2.2" #!\n', "interface[0].addresses[0]", "not an address with a length"),
    M(
        '"192.0.2.2/29"',
        '"192.0.2.0/29" #!\n',
        "interface[0].addresses[0]",
        "is the subnet, or its broadcast",
    ),
    M('"192.0.2.2/29"', '"224.0.0.5/29" #!\n', "interface[0].addresses[0]", "is multicast"),
    M('"192.0.2.2/29"', '"192.0.2.10/29" #!\n', "interface[0].addresses[0]", "is the tunnel address at"),
    M(
        '"192.0.2.2/29"',
        '"203.0.113.130/29" #!\n',
        "interface[0].addresses[0]",
        "overlaps Global Network 203.0.113.0/24",
        'table = "delivery"',
    ),
    M(
        '"192.0.2.2/29"',
        '"10.1.0.1/29" #!\n',
        "interface[0].addresses[0]",
        "overlaps local network 10.1.0.0/24",
    ),
    M('"2001:db8:f::2/64"', '"fe80::2/64" #!\n', "interface[0].addresses[1]", "is link-local", "itself"),
    M(
        '"2001:db8:f::2/64"',
        '"192.0.2.2/30" #!\n',
        "interface[0].addresses[1]",
        "address of host-up0 already",
    ),
    M('host = "up0"', 'host = "up0"\nmtu = 1000', "interface[0].mtu", "below 1280"),
    M('host = "up0"', 'host = "up0"\nmac = "01:00:00:00:00:01" #!', "interface[0].mac", "no station's"),
    M('host = "up0"', 'host = "up0"\nmac = "1" #!', "interface[0].mac", "not a MAC address"),
    M('host = "up0"', 'host = "up0"\nrx_mode = "poll" #!', "interface[0].rx_mode", "not one of polling"),
    M(
        'host = "up0"',
        'host = "up0"\nlinux_cp_netns = "bird" #!',
        "interface[0].linux_cp_netns",
        "without linux_cp",
    ),
    M('bridge = "lan"', 'bridge = "lam" #!', "interface[1].bridge", "no [[bridge]] named 'lam'", "'lan'?"),
    M(
        'bridge = "lan"',
        'bridge = "lan"\naddresses = ["10.9.0.1/24"] #!',
        "interface[1].addresses",
        "is a port of bridge 'lan'",
        "bvi",
    ),
    M(
        'bridge = "lan"',
        'bridge = "lan"\ntabel = "service" #!',
        "interface[1].tabel",
        "unknown key",
        "'table'?",
    ),
    M('"GigabitEthernet0/8/0"', '"Gigabit 0/8/0" #!', "interface[1].name", "not a name of an interface"),
    M('"203.0.113.1/25"', '"203.0.113.9/25" #!\n', "interface[2].addresses[0]", "and a Global IP ("),
    M(
        'linux_cp = "lan0"',
        'linux_cp = "lan0"\nbridge = "lan" #!',
        "interface[2].bridge",
        "is a bridge's bvi",
    ),
    M("id = 10", "id = 0 #!", "bridge[0].id", "at least 1, not 0"),
    M('bvi = "loop0"', 'bvi = "loop2" #!', "bridge[0].bvi", "no [[interface]] named 'loop2'", "'loop0'?"),
    appended('[[bridge]]\nname = "lan2"\nid = 10 #!\n', "bridge[1].id", "bridge domain 10 is that of"),
    appended('[[bridge]]\nname = "lan" #!\nid = 11\n', "bridge[1].name", "the name 'lan' is taken"),
    appended('[[bridge]]\nname = "b"\nid = 12\nbvi = "loop0" #!\n', "bridge[1].bvi", "loop0 is the bvi of"),
    appended(PORT.replace("host-x", "host-up0").replace('"x"', '"up0"'), "interface[3].name", "is taken"),
    appended(
        f'{PORT}addresses = ["192.0.2.5/29"] #!\n', "interface[3].addresses[0]", "of host-up0 in the same"
    ),
    appended(f'{PORT}linux_cp = "lan0" #!\n', "interface[3].linux_cp", "'lan0' is the pair of"),
    appended('[[route]] #!\nprefix = "10.2.0.0/16"\n', "route[1]", "this route leads nowhere"),
    appended('[[route]]\nprefix = "fd00::/16"\nvia = "fe80::2" #!\n', "route[1].via", "on which link?"),
    appended('[[route]]\nprefix = "10.3.0.0/16"\nvia = "::1" #!\n', "route[1].via", "next hop IPv6"),
    appended(
        '[[route]]\nprefix = "0.0.0.0/0" #!\nvia = "192.0.2.3"\n', "route[1].prefix", "a second route to"
    ),
    appended(
        '[[route]]\nprefix = "10.4.0.0/16"\ninterface = "host-up1" #!\n',
        "route[1].interface",
        "no [[interface]] named 'host-up1'",
        "'host-up0'?",
    ),
    appended(
        '[[route]]\nprefix = "203.0.113.64/26" #!\nvia = "192.0.2.1"\n',
        "route[1].prefix",
        "inside Global Network 203.0.113.0/24",
    ),
    appended(
        '[[neighbor]]\ninterface = "host-up" #!\naddress = "192.0.2.4"\nmac = "02:00:00:00:00:02"\n',
        "neighbor[1].interface",
        "no [[interface]] named 'host-up'",
    ),
    appended(
        '[[neighbor]]\ninterface = "loop0"\naddress = "192.0.2.4" #!\nmac = "02:00:00:00:00:02"\n',
        "neighbor[1].address",
        "in no subnet of loop0",
    ),
    appended(
        '[[neighbor]]\ninterface = "loop0"\naddress = "203.0.113.77" #!\nmac = "02:00:00:00:00:02"\n',
        "neighbor[1].address",
        "already",
    ),
    appended(
        '[[copy]]\nname = "ids"\ninterface = "host-ids" #!\n',
        "copy[0].interface",
        "no [[interface]] named 'host-ids'",
    ),
]


# ---- a pair -------------------------------------------------------------------

ONE_PLACE = """[[network]]
name = "g4"
prefix = "203.0.113.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
"""
"""A Global Network and an end point."""
GOOD_PAIR = f"""
[node]
name = "n2"
endpoint = "A"
icmp_source = ["192.0.2.1"]
{ONE_PLACE}[pair]
key_file = "pair.key"
interval = "20ms"
[[pair.node]]
name = "n1"
paths = ["10.9.0.1:6081", "[fd00:9::1]:6081"]
[[pair.node]]
name = "n2"
paths = ["10.9.0.2:6081", "[fd00:9::2]:6081"]
[[pair.vip]]
address = "192.168.5.1"
interface = "eth1"
[[pair.vip]]
address = "fe80::5"
interface = "eth1"
"""
VIPS = GOOD_PAIR[GOOD_PAIR.index("[[pair.vip]]") :]
ON_VPP = """[engine]
kind = "vpp"
[[interface]]
name = "eth1"
addresses = ["{}/24"]
[[pair.vip]]
address = "192.168.5.1"{}
interface = "{}"{}
"""
PAIR_MISTAKES = [
    M('key_file = "pair.key"\n', "", "pair", "key 'key_file' is missing"),
    M('interval = "20ms"', 'interval = "20us" #!', "pair.interval", "not between 100us and 2s"),
    M('interval = "20ms"', "misses = 2 #!", "pair.misses", "a node would stop in between", "more misses"),
    M('interval = "20ms"', "interval = 20 #!", "pair.interval", "a string with a unit"),
    M('interval = "20ms"', 'interval = "20ms"\nmisses = 1 #!', "pair.misses", "at least 2, not 1"),
    M('interval = "20ms"', 'interval = "20ms"\nmode = "ask" #!', "pair.mode", "not one of heartbeat, query"),
    M('interval = "20ms"', 'interval = "20ms"\nhook = "x.sh" #!', "pair.hook", "not an absolute path"),
    M(
        'interval = "20ms"',
        'interval = "20ms"\npremept = true #!',
        "pair.premept",
        "unknown key",
        "'preempt'",
    ),
    M('name = "n1"', 'name = "n2"', "pair.node[1].name", "both nodes of the pair are named 'n2'"),
    M('[node]\nname = "n2"', '[node]\nname = "n3"', "pair.node", "neither 'n1' nor 'n2' of the pair"),
    M(
        '[[pair.vip]]\naddress = "192',
        '[[pair.node]]\nname = "n9"\npaths = []\n[[pair.vip]]\naddress = "192',
        "pair.node",
        "two nodes, not 3",
    ),
    M('["10.9.0.1:6081", "[fd00:9::1]:6081"]', '["10.9.0.1:6081"]', "pair.node[1].paths", "has 1 paths and "),
    M('["10.9.0.1:6081", ', '["10.9.0.1", #!\n', "pair.node[0].paths[0]", "not an address and port"),
    M('"10.9.0.2:6081"', '"[fd00:9::3]:6081" #!\n', "pair.node[1].paths[0]", "are IPv4 and IPv6"),
    M('"10.9.0.2:6081"', '"10.9.0.1:6081" #!\n', "pair.node[1].paths[0]", "is an end of a path at"),
    M('"10.9.0.2:6081"', '"127.0.0.1:6081" #!\n', "pair.node[1].paths[0]", "127.0.0.1 is loopback"),
    M('"192.168.5.1"', '"224.0.0.1" #!', "pair.vip[0].address", "224.0.0.1 is multicast"),
    M('"192.168.5.1"', '"fe80::5"', "pair.vip[1].address", "fe80::5 is a VIP already"),
    M('"192.168.5.1"', '"203.0.113.9" #!', "pair.vip[0].address", "inside Global Network 203.0.113.0/24"),
    M('"192.168.5.1"', '"10.1.0.9" #!', "pair.vip[0].address", "inside local network 10.1.0.0/24"),
    M('"192.168.5.1"', '"192.0.2.1" #!', "pair.vip[0].address", "is in icmp_source"),
    M('"192.168.5.1"', '"10.9.0.2" #!', "pair.vip[0].address", "VIP 10.9.0.2 is the end of a path"),
    M(
        '"192.168.5.1"\ninterface = "eth1"',
        '"192.168.5.1"\ninterface = "ips-in" #!',
        "pair.vip[0].interface",
        "the engine's own inner_device",
    ),
    M(
        '"fe80::5"\ninterface = "eth1"\n',
        '"fe80::5"\n',
        "pair.vip[1]",
        "key 'interface' is missing",
        "access subnet",
    ),
    M(
        '"fe80::5"\ninterface = "eth1"\n',
        '"fe80::5"\ninterface = "eth1"\n'
        + "".join(f'[[pair.vip]]\naddress = "192.168.6.{n}"\ninterface = "eth1"\n' for n in range(15)),
        "pair.vip[16]",
        "17 VIPs: a pair has at most 16",
    ),
    M(VIPS, ON_VPP.format("192.168.5.2", "", "eth9", " #!"), "pair.vip[0].interface", "named 'eth9'"),
    M(VIPS, ON_VPP.format("192.168.5.1", " #!", "eth1", ""), "pair.vip[0].address", "of VPP's interface"),
    M(
        VIPS,
        VIPS.replace("eth1", "TenGigabitEthernet3/0/0", 1).replace('0/0"', '0/0" #!', 1),
        "pair.vip[0].interface",
        "Linux allows 1 to 15",
    ),
]
ONE_PATH = GOOD_PAIR.replace(', "[fd00:9::1]:6081"', "").replace(', "[fd00:9::2]:6081"', "")
