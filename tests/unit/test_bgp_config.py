"""[bgp] in a file: what it becomes, every mistake by name, announcements against ROAs."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from ipshare.agent.codec import decode, encode
from ipshare.config import check_text, load_text
from ipshare.config.roa import Unreadable, judge
from ipshare.model import Config

GOOD = """
[node]
name = "c1"
distribution = "C"
icmp_source = ["192.0.2.2"]
[[network]]
name = "g4"
prefix = "198.51.100.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
[[distribution]]
name = "C"
[[binding]]
global = "198.51.100.0/24"
to = "A"
[bgp]
asn = 64500
local = ["192.0.2.2"]
[[bgp.neighbor]]
address = "192.0.2.1"
asn = 64496
password_file = "secret"
[[bgp.neighbor]]
address = "192.0.2.9"
asn = 64500
"""
ASN, LOCAL, FIRST, SECOND = (
    "asn = 64500\nlocal",
    'local = ["192.0.2.2"]',
    "asn = 64496",
    'address = "192.0.2.9"',
)
MISTAKES = [
    (ASN, "asn = 0\nlocal", "bgp.asn", "at least 1"),
    (ASN, "asn = 23456\nlocal", "bgp.asn", "AS_TRANS"),
    (FIRST, "asn = 65535", "bgp.neighbor[0].asn", "reserved (RFC 7300)"),
    (LOCAL, 'router_id = "2001:db8::1"', "bgp.router_id", "is no router_id"),
    (LOCAL, "", "bgp.router_id", "no router_id"),
    (LOCAL, 'local = ["192.0.2.2", "192.0.2.3"]', "bgp.local[1]", "a second IPv4 address"),
    (LOCAL, LOCAL + '\nhold_time = "2s"', "bgp.hold_time", "no whole number of seconds from 3"),
    (LOCAL, LOCAL + '\nbfd_interval = "1ms"', "bgp.bfd_interval", "from 10 to 10,000"),
    (LOCAL, LOCAL + '\nmax_stale = "5s"', "bgp.max_stale", "is below 30 s"),
    (LOCAL, LOCAL + '\nholdtime = "9s"', "bgp.holdtime", "unknown key 'holdtime'"),
    (SECOND, 'address = "192.0.2.1"', "bgp.neighbor[1].address", "is a neighbour already"),
    (SECOND, 'address = "192.0.2.2"', "bgp.neighbor[1].address", "is this node itself"),
    (SECOND, 'address = "fe80::1"\nfamilies = ["v6"]', "bgp.neighbor[1].address", "is link-local"),
    (SECOND, 'address = "198.51.100.9"', "bgp.neighbor[1].address", "is in Global Network 198.51.100.0/24"),
    (SECOND, SECOND + "\nprepend = 1", "bgp.neighbor[1].prepend", "for a loop"),
    (SECOND, SECOND + '\nfamilies = ["v4", "v6"]', "bgp.neighbor[1].families", "no IPv6 next hop"),
    (SECOND, SECOND + '\nnext_hop = ["192.0.2.2", "192.0.2.3"]', "bgp.neighbor[1].next_hop[1]", "a second"),
    (SECOND, SECOND + '\ncommunities = ["64500:70000"]', "bgp.neighbor[1].communities[0]", "is above 65535"),
    (SECOND, SECOND + '\ncommunities = ["blackhole"]', "bgp.neighbor[1].communities[0]", "not a community"),
    (SECOND, SECOND + "\nmultihop = 0", "bgp.neighbor[1].multihop", "at least 1"),
    ('prefix = "198.51.100.0/24"', 'prefix = "198.51.100.0/25"', "network[0].prefix", "longer than /24"),
]  # fmt: skip


def test_the_good_file_is_good_and_survives_the_store() -> None:
    report = check_text(GOOD)
    assert not report.problems and not report.warnings
    config = load_text(GOOD, Path("/etc/ipshare/site.toml"))
    assert decode(Config, encode(config)) == config
    assert config.bgp is not None
    first, second = config.bgp.neighbors
    assert str(config.bgp.router_id) == "192.0.2.2"
    assert first.password_file == Path("/etc/ipshare/secret") and second.password_file is None
    assert (first.families, first.multihop, config.bgp.hold_s, config.bgp.max_stale_s) == (
        (4,),
        None,
        30,
        600,
    )


@pytest.mark.parametrize(("old", "new", "key", "text"), MISTAKES, ids=[m[2] + m[3][:20] for m in MISTAKES])
def test_a_mistake_is_named(old: str, new: str, key: str, text: str) -> None:
    assert GOOD.count(old) == 1
    made = GOOD.replace(old, new).replace('global = "198.51.100.0/24"', 'global = "198.51.100.0/25"')
    problems = list(check_text(made).problems)
    assert [(p.key, text in p.message, bool(p.hint)) for p in problems] == [(key, True, True)], problems


def test_who_has_nothing_to_announce_is_told() -> None:
    found = check_text(GOOD.replace('distribution = "C"\n', 'endpoint = "A"\n', 1)).problems
    assert any("no distribution point" in p.message and p.key == "bgp" and p.hint for p in found), found


def test_long_prefixes_go_out_on_purpose_or_within_the_own_as() -> None:
    long = GOOD.replace("198.51.100.0/24", "198.51.100.0/26")
    assert check_text(long).problems
    assert not check_text(long.replace(LOCAL, LOCAL + "\nallow_long = true")).problems
    assert not check_text(long.replace(FIRST, "asn = 64500")).problems


def test_a_family_that_nobody_hears_is_a_warning() -> None:
    more = GOOD + '[[network]]\nname = "g6"\nprefix = "2001:db8:100::/48"\n'
    (warning,) = (w for w in check_text(more).warnings if w.key.startswith("bgp"))
    assert "no neighbour hears IPv6" in warning.message


ROAS = [
    ("AS64500", "198.51.100.0/24", "24", "valid"),
    ("AS64500", "198.51.0.0/16", "24", "valid"),
    ("AS64500", "198.51.0.0/16", "", "invalid"),  # no max length: its own
    ("64501", "198.51.100.0/24", "24", "invalid"),
    ("AS0", "198.0.0.0/8", "32", "invalid"),  # RFC 7607: nobody
    ("AS64500", "198.51.101.0/24", "24", "unknown"),
    ("AS64500", "0.0.0.0/0", "32", "valid"),
]


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize(("asn", "prefix", "most", "word"), ROAS, ids=[r[1] + r[3] + r[0] for r in ROAS])
def test_origins(tmp_path: Path, form: str, asn: str, prefix: str, most: str, word: str) -> None:
    file = tmp_path / f"roas.{form}"
    noise = [
        ("AS1", "2001:db8::/32", "48"),
        ("AS2", "198.51.100.128/25", "25"),
        ("AS3", "203.0.113.0/24", "24"),
    ]
    rows = [*noise, (asn, prefix, most)]
    if form == "csv":
        file.write_text(
            "ASN,IP Prefix,Max Length,Trust Anchor\n" + "".join(f"{a},{p},{m},x\n" for a, p, m in rows)
        )
    else:
        roas = [{"asn": a, "prefix": p} | ({"maxLength": int(m)} if m else {}) for a, p, m in rows]
        file.write_text(json.dumps({"roas": roas}))
    wanted = ip_network("198.51.100.0/24")
    assert judge(file, 64500, [wanted])[wanted].word == word


@pytest.mark.parametrize(
    "text",
    ["{}", "[", '{"roas": [{"asn": 1}]}', '{"roas": 5}', '{"roas": [{"asn": "x", "prefix": "0.0.0.0/0"}]}'],
)
def test_what_is_no_list_of_roas_says_so(tmp_path: Path, text: str) -> None:
    file = tmp_path / "roas.json"
    file.write_text(text)
    with pytest.raises(Unreadable):
        judge(file, 64500, [ip_network("198.51.100.0/24")])


def test_an_invalid_announcement_is_a_mistake_or_a_warning(tmp_path: Path) -> None:
    (tmp_path / "roas.csv").write_text("AS64511,198.51.100.0/24,24\n")
    text = GOOD.replace("[[bgp.neighbor]]", '[bgp.roa]\nfile = "roas.csv"\n[[bgp.neighbor]]', 1)
    (problem,) = check_text(text, tmp_path / "site.toml").problems
    assert problem.key == "network[0].prefix" and "allowed is AS 64511 up to /24" in problem.message
    loose = check_text(text.replace('"roas.csv"', '"roas.csv"\nstrict = false'), tmp_path / "site.toml")
    assert not loose.problems and "allowed is AS 64511" in loose.warnings[0].message
    (missing,) = check_text(text.replace("roas.csv", "none.csv"), tmp_path / "site.toml").problems
    assert missing.key == "bgp.roa.file" and "cannot read" in missing.message
