"""Every mistake that a configuration can contain, made on purpose: one edit of a good file for each.

An edit is (what is replaced, by what); "" appends. ``#!`` marks the line that the report has to name. Each
mistake is made alone, and then with every other one: all of them have to be reported at once.
"""

from __future__ import annotations

import itertools

import pytest

from ipshare.config import check_text, load_text
from ipshare.errors import ConfigError, Problem
from tests.cases.channel_mistakes import CHANNEL_MISTAKES, GOOD_CHANNEL
from tests.cases.cluster_mistakes import CLUSTER_MISTAKES, GOOD_CLUSTER
from tests.cases.config_mistakes import (
    CASCADES,
    GOOD,
    GOOD_PAIR,
    GOOD_VPP,
    MISTAKES,
    ONE_PATH,
    PAIR_MISTAKES,
    VPP_MISTAKES,
    WARNINGS,
    Mistake,
)
from tests.cases.flow_mistakes import GOOD_NAT, NAT_MISTAKES
from tests.cases.metal_mistakes import GOOD_METAL, METAL_MISTAKES
from tests.cases.pair_mistakes import ALONE

FILES = [(GOOD, MISTAKES), (GOOD_VPP, VPP_MISTAKES), (GOOD_PAIR, PAIR_MISTAKES), (GOOD_NAT, NAT_MISTAKES)]
KINDS = ["embedded", "vpp", "pair", "nat"]
EVERY = [(good, mistake) for good, mistakes in FILES for mistake in mistakes]
EVERY += [(GOOD_PAIR, mistake) for mistake in ALONE]
EVERY += [(GOOD_CHANNEL, mistake) for mistake in CHANNEL_MISTAKES]
EVERY += [(GOOD_CLUSTER, mistake) for mistake in CLUSTER_MISTAKES]
EVERY += [(GOOD_METAL, mistake) for mistake in METAL_MISTAKES]


def problems_of(text: str) -> list[Problem]:
    return list(check_text(text).problems)


def matching(problems: list[Problem], mistake: Mistake) -> list[Problem]:
    return [
        problem for problem in problems if mistake.text in problem.message and mistake.hint in problem.hint
    ]


@pytest.mark.parametrize(
    "good",
    [*(good for good, _ in FILES), GOOD_CHANNEL, GOOD_CLUSTER, GOOD_METAL],
    ids=[*KINDS, "channel", "cluster", "metal"],
)
def test_the_good_file_is_good(good: str) -> None:
    report = check_text(good)
    assert not report.problems
    assert not report.warnings
    assert report.config is not None


@pytest.mark.parametrize(
    ("good", "mistake"), EVERY, ids=[f"{mistake.key}: {mistake.text}"[:70] for _, mistake in EVERY]
)
def test_a_mistake_is_named(good: str, mistake: Mistake) -> None:
    if mistake.old:
        assert good.count(mistake.old) == 1
    text = mistake.made_in(good)
    problems = problems_of(text)
    assert len(problems) == 1, "\n".join(map(str, problems))
    assert matching(problems, mistake), problems[0]
    assert problems[0].key == mistake.key
    assert problems[0].file == "site.toml"
    assert problems[0].hint
    lines = [number for number, line in enumerate(text.split("\n"), 1) if "#!" in line]
    assert not lines or problems[0].line == lines[0]
    with pytest.raises(ConfigError, match="1 mistake in the configuration"):
        load_text(text)


# What cannot be judged beside another mistake, because that one leaves open (or changes) what it depends on.
_TABLES = {"overlaps", "of host-up0 in the same", "a second route to", "inside Global Network"}
_UPLINK = ("address of host-up0 already", "of host-up0 in the same")  # its subnet is another one
_ENDS = {"has 1 paths", "IPv4 and IPv6", "end of a path", "is loopback"}
_PAIR_NODES = {*_ENDS, "'n1' nor", "both nodes", "two nodes, not 3"}
_PAIR_VIPS = {"a VIP already", "multicast", "inside", "in icmp_source", "end of a path", "inner_device"}
_POOLS = {"65 ranges in all", "public addresses: [sessions] has", "has no IPv6 address"}
HIDDEN = {
    # no one knows which prefix was meant, nor what is inside of it
    "host bits set": {
        "overlaps Global Network 203.0.113.0/24",
        "overlaps Global Network",
        "inside Global Network",
        "outside of every Global Network",
        "is claimed by 203.0.113.0/24 too",
        "differ in length",
        "is IPv4, its local side",
        "224.0.0.5/32 is multicast",
        "is larger than local network 10.9.0.0/28",
        "starts 34 addresses into",
        "also the local address of a Global IP",
        *_POOLS,
    },
    "unknown key 'prbe'": {"a string with a unit", "not a duration", "more than 0", "not below interval"},
    "16 bytes; Linux allows 1 to 15": {"own outer_device"},
    "are both 'ips-out'": {"own outer_device", "own inner_device"},
    "not one of rewrite, ipip, gue": {"'D' has no IPv4 tunnel address"},  # is it a tunnel that was meant?
    "'D' has no IPv4 tunnel address": {"an IPv6 tunnel address"},  # D has one
    "at most 65535": {"an IPv6 tunnel address"},  # may D take replies?
    "key 'endpoint' is missing": {"policy 'p': "},
    "not one of embedded": {"is for the VPP engine"},  # which one was meant?
    # VPP: names of interfaces, addresses, tables, that are not known
    "not a name of an interface": {"no [[interface]] named", "is a port of bridge"},
    "not an address with a length": {*_UPLINK, "is link-local", "below 1280"},
    "is the subnet, or its broadcast": {*_UPLINK},
    "is multicast": {*_UPLINK},
    "is the tunnel address at": {*_UPLINK},
    "overlaps Global Network 203.0.113.0/24": {*_UPLINK},
    "overlaps local network 10.1.0.0/24": {*_UPLINK},
    "address of host-up0 already": {"below 1280"},  # that address was the IPv6 one
    "no [[interface]] named 'loop2'": {"is a bridge's bvi", "loop0 is the bvi of"},
    "at least 1, not 0": {"bridge domain 10 is that of"},
    "at least 0, not -1": _TABLES,
    "unknown key": _TABLES,
    "would be sent on again": {"overlaps", "inside Global Network"},
    "is in runtime_dir": {"started by somebody else", "startup.conf"},
    # a pair: a node or a VIP that could not be read, names and addresses that are not known
    "on the embedded engine only": {mistake.text for mistake in PAIR_MISTAKES},
    "not an address and port": _PAIR_NODES,
    "two nodes, not 3": _PAIR_NODES,
    "both nodes of the pair are named": {"neither 'n1' nor 'n2'"},
    "fe80::5 is a VIP already": {"at most 16"},
    "has 1 paths": {"are IPv4 and IPv6"},
    "127.0.0.1 is loopback": {"end of a path"},
    "are IPv4 and IPv6": {"end of a path"},
    "is an end of a path at": {"VIP 10.9.0.2 is the end"},
    "key 'interface' is missing": {*_PAIR_VIPS, "at most 16"},
    # NAT: how many, and of which family, is not known of addresses that cannot be read
    **dict.fromkeys(
        ("ends before it begins", "ends in IPv6", "not an IP address: 'x'", "addresses is empty"), _POOLS
    ),
    "131,072 addresses": {"public addresses: [sessions] has"},
}


def _hides(one: Mistake, other: Mistake) -> bool:
    return any(
        cause in one.text and any(text in other.text for text in texts) for cause, texts in HIDDEN.items()
    )


def _can_meet(one: Mistake, other: Mistake) -> bool:
    if one.old and other.old and (one.old in other.old or other.old in one.old):
        return False  # both edit the same place
    return not _hides(one, other) and not _hides(other, one)


def _groups(mistakes: list[Mistake]) -> list[list[Mistake]]:
    """Few groups of mistakes that can be made in one file; every two that can meet do so in one of them."""
    pairs = {
        (i, j)
        for i, j in itertools.combinations(range(len(mistakes)), 2)
        if _can_meet(mistakes[i], mistakes[j])
    }
    apart, groups = set(pairs), []
    while apart:
        group = list(min(apart))
        for new in range(len(mistakes)):
            ties = {(min(new, old), max(new, old)) for old in group}
            if new not in group and ties <= pairs and ties & apart:
                group.append(new)
        apart -= set(itertools.combinations(sorted(group), 2))
        groups.append([mistakes[index] for index in sorted(group)])
    return groups


@pytest.mark.parametrize(("good", "mistakes"), FILES, ids=KINDS)
def test_every_two_mistakes_are_reported_together(good: str, mistakes: list[Mistake]) -> None:
    missing = []
    for group in _groups(mistakes):
        text = good
        for mistake in sorted(group, key=lambda mistake: not mistake.old):
            text = mistake.made_in(text)
        problems = problems_of(text)
        missing += [f"{m.text!r} among {[o.text for o in group]}" for m in group if not matching(problems, m)]
    assert not missing, f"{len(missing)}\n" + "\n".join(missing)


@pytest.mark.parametrize("mistake", WARNINGS, ids=lambda mistake: mistake.text)
def test_a_warning_keeps_nothing_from_running(mistake: Mistake) -> None:
    good = (
        GOOD
        if mistake.key != "endpoint[1].tunnel[0]"
        else GOOD.replace('"203.0.113.7"\n', '"203.0.113.240/28"\n')
    )
    if mistake.key == "network[0].prefix":
        good = good.replace('global = "203.0.113.0/24"', 'global = "203.0.113.0/25"')
    if mistake.key == "network[1].prefix":
        good = good.replace('global = "2001:db8:100::/48"', 'global = "2001:db8:100::/49"')
    text = mistake.made_in(good)
    report = check_text(text)
    assert not report.problems
    assert report.config is not None
    [warning] = matching(list(report.warnings), mistake)
    assert warning.key == mistake.key
    lines = [number for number, line in enumerate(text.split("\n"), 1) if "#!" in line]
    assert not lines or warning.line == lines[0]


def test_a_pair_with_one_path_is_warned_of_what_it_cannot_do() -> None:
    report = check_text(ONE_PATH)
    assert report.config is not None
    [warning] = report.warnings
    assert (warning.key, warning.line) == ("pair.node[0].paths", 17)
    assert "both are active" in warning.message and "second path" in warning.hint


def test_a_dead_time_that_no_machine_can_keep_is_lengthened_and_said() -> None:
    report = check_text(GOOD_PAIR.replace('"20ms"', '"100us"'))
    [warning] = report.warnings
    assert warning.key == "pair.interval"
    assert "3 misses take 0.3 ms: the peer is given 20 ms" in warning.message
    assert report.config is not None and report.config.pair is not None
    assert report.config.pair.dead_s == 0.02


@pytest.mark.parametrize("mistake", CASCADES, ids=lambda mistake: mistake.new)
def test_a_mistake_is_not_reported_by_what_follows_from_it(mistake: Mistake) -> None:
    assert GOOD.count(mistake.old) == 1
    problems = problems_of(mistake.made_in(GOOD))
    assert [problem.key for problem in problems] == [mistake.key], "\n".join(map(str, problems))
    assert matching(problems, mistake)
