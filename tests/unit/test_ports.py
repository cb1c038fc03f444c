"""The parts that VPP shall have: what a configuration becomes, plans between any two, the journal."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.config import load, load_text
from ipshare.engine.vpp import ports as p
from ipshare.engine.vpp.elsewhere import elsewhere, summarized
from ipshare.engine.vpp.ports_journal import Journal
from ipshare.engine.vpp.ports_keep import tag_of
from ipshare.engine.vpp.ports_plan import Step, plan, undo
from ipshare.engine.vpp.ports_wanted import made_up_mac, parts
from ipshare.errors import EngineError, Refused
from ipshare.model import BindingKind, Config, contains
from tests.cases.config_mistakes import GOOD_VPP
from tests.examples import examples
from tests.vpp_sites import EDITS, site

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


class Imagined:
    """A VPP that takes any step which a real one would take, and refuses the others."""

    def __init__(self, parts: Iterable[p.Part] = ()) -> None:
        self.parts = set(parts)
        self.made: dict[p.Part, p.Part | None] = {}

    def walk(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.take(step)

    def take(self, step: Step) -> None:
        part = step.part
        if step.verb == "add":
            slots = {other.slot for other in self.parts}
            assert part.can_change or part.slot not in slots, f"{p.describe(part)}: its slot is taken"
            assert all(need in slots or need[0] == "in table" for need in part.needs), p.describe(part)
            self._not_under_addresses(part)
            self.parts = {other for other in self.parts if other.slot != part.slot} | {part}
            for other in [other for other in self.made if other.slot == part.slot]:
                del self.made[other]
            self.made[part] = step.before
            if isinstance(part, p.HostPort | p.Loopback):  # as VPP makes them
                self.parts |= {p.InTable(part.port, family, 0) for family in (4, 6)}
                self.parts |= {p.Mac(part.port, "02:fe:00:00:00:01"), p.Mtu(part.port, 9000)}
                self.parts |= {p.Admin(part.port, False)}
            return
        assert part in self.parts, f"{p.describe(part)} is not there"
        self._not_under_addresses(part)
        self.parts.discard(part)
        self.made.pop(part, None)
        if part.can_change and step.before is not None:
            self.parts.add(step.before)
        elif isinstance(part, p.InTable):
            self.parts.add(replace(part, table=0))
        if isinstance(part, p.HostPort | p.Loopback):
            left = [o for o in self.parts if ("port", part.port) in o.needs]
            assert all(isinstance(o, p.Admin | p.Mac | p.Mtu | p.RxMode | p.InTable | p.Quiet) for o in left)
            self.parts.difference_update(left)
            for other in left:
                self.made.pop(other, None)

    def _not_under_addresses(self, part: p.Part) -> None:
        """VPP refuses another table for an interface that has addresses."""
        if isinstance(part, p.InTable) and part not in self.parts:
            assert not [o for o in self.parts if isinstance(o, p.PortAddress) and part.slot in o.needs]

    def become(self, wanted: Sequence[p.Part]) -> list[Step]:
        steps = plan(frozenset(self.parts), dict(self.made), wanted)
        self.walk(steps)
        return steps


SITES = [site(*edits) for edits in EDITS]


@pytest.mark.parametrize("pair", list(itertools.product(range(len(SITES)), repeat=2)), ids=str)
def test_every_configuration_is_reachable_from_every_other(pair: tuple[int, int]) -> None:
    first, second = (parts(SITES[index]) for index in pair)
    vpp = Imagined()
    vpp.become(first)
    vpp.become(second)
    assert vpp.become(second) == []
    fresh = Imagined()
    fresh.become(second)
    assert vpp.parts == fresh.parts, "the way does not matter"
    vpp.walk(undo(frozenset(vpp.parts), vpp.made))
    assert vpp.parts == set() and vpp.made == {}


@pytest.mark.parametrize("pair", [(0, 2), (2, 0), (0, 1), (3, 6), (8, 4), (10, 1), (9, 0)], ids=str)
def test_a_plan_interrupted_anywhere_still_arrives(pair: tuple[int, int]) -> None:
    first, second = (parts(SITES[index]) for index in pair)
    fresh = Imagined()
    fresh.become(second)
    for cut in itertools.count():
        vpp = Imagined()
        vpp.become(first)
        steps = plan(frozenset(vpp.parts), vpp.made, second)
        vpp.walk(steps[:cut])
        vpp.become(second)
        assert vpp.parts == fresh.parts, f"after {cut} steps"
        if cut > len(steps):
            return


def test_what_somebody_else_made_stays() -> None:
    theirs = {
        p.FoundPort("Eth0"),
        p.PortAddress("Eth0", "10.0.0.1/24"),
        p.InTable("Eth0", 4, 0),
        p.InTable("Eth0", 6, 0),
        p.Admin("Eth0", True),
        p.Mtu("Eth0", 9000),
        p.StaticRoute(0, "10.9.0.0/16", "10.0.0.9"),
        p.StaticRoute(0, "0.0.0.0/0", "10.0.0.8"),
    }
    wanted = [
        p.FoundPort("Eth0"),
        p.Mtu("Eth0", 1500),
        p.PortAddress("Eth0", "10.0.1.1/24"),
        p.StaticRoute(0, "0.0.0.0/0", "10.0.1.9"),
    ]
    vpp = Imagined(theirs)
    assert len(vpp.become(wanted)) == 3
    assert theirs - vpp.parts == {p.Mtu("Eth0", 9000), p.StaticRoute(0, "0.0.0.0/0", "10.0.0.8")}
    vpp.become([*wanted[:1], p.Mtu("Eth0", 1400), *wanted[2:]])
    vpp.walk(undo(frozenset(vpp.parts), vpp.made))
    assert vpp.parts == theirs, "and what was changed is as it was"


def test_what_is_in_the_way_is_said() -> None:
    wanted = [p.FoundPort("Eth1")]
    with pytest.raises(Refused, match="VPP has no interface Eth1"):
        plan(frozenset(), {}, wanted)
    several = p.StaticRoute(0, "0.0.0.0/0", p.SEVERAL)
    with pytest.raises(Refused, match="VPP has something else in the place of table 0: route 0.0.0.0/0"):
        plan(frozenset([several]), {}, [p.StaticRoute(0, "0.0.0.0/0", "10.0.0.1")])
    pair = p.LinuxPair("Eth0", "up0", "")
    with pytest.raises(Refused, match="linux-cp pair up1 in bird: Eth0: linux-cp pair up0"):
        plan(frozenset([p.FoundPort("Eth0"), pair]), {}, [p.LinuxPair("Eth0", "up1", "bird")])


def test_a_new_route_is_there_before_the_old_one_goes() -> None:
    vpp = Imagined([p.FoundPort("Eth0")])
    vpp.become([p.FoundPort("Eth0"), p.StaticRoute(0, "10.0.0.0/8", "10.0.0.1")])
    steps = vpp.become([p.FoundPort("Eth0"), p.StaticRoute(0, "10.0.0.0/9", "10.0.0.1")])
    assert [str(step) for step in steps] == [
        "table 0: route 10.0.0.0/9 via 10.0.0.1",
        "undone: table 0: route 10.0.0.0/8 via 10.0.0.1",
    ]


# ---- what a configuration becomes ----------------------------------------------


def test_what_an_end_point_becomes() -> None:
    """The example of an end point: a bridge with a loopback in the delivery table, devices elsewhere."""
    found = parts(load(EXAMPLES / "vpp-endpoint.toml"))
    assert [part for part in found if isinstance(part, p.HostPort)] == []
    assert p.FoundPort("GigabitEthernet0/4/0") in found and p.Loopback("loop0") in found
    assert p.Member("loop0", 10, True) in found and p.Member("GigabitEthernet0/5/0", 10, False) in found
    assert {p.InTable("loop0", 4, 1), p.InTable("GigabitEthernet0/4/0", 4, 0)} <= {*found}
    assert p.Mac("loop0", made_up_mac("a1", "loop0")) in found
    assert p.Mac("GigabitEthernet0/4/0", "02:00:00:00:0a:01") in found
    assert p.StaticRoute(1, "0.0.0.0/0", "10.255.1.1", "GigabitEthernet0/4/0") in found
    assert p.StaticRoute(1, "198.51.100.64/26", again_in=0) in found
    assert p.ArpRange(1, "198.51.100.64", "198.51.100.127") in found and p.ArpProxy("loop0") in found
    assert p.StaticNeighbor("loop0", "198.51.100.200", "02:00:00:00:0a:c8") in found
    assert found.index(p.Loopback("loop0")) < found.index(p.PortAddress("loop0", "198.51.100.1/24"))


def test_a_pair_in_linux_is_planned_and_said() -> None:
    """linux-cp needs /dev/vhost-net: what is asked of VPP is tested here, that it works is not."""
    found = parts(load(EXAMPLES / "vpp-distribution.toml"))
    pair = p.LinuxPair("TenGigabitEthernet3/0/0", "up0", "bird")
    assert pair in found and p.RxMode("TenGigabitEthernet3/0/0", "polling") in found
    assert p.describe(pair) == "TenGigabitEthernet3/0/0: linux-cp pair up0 in bird"
    assert found.index(pair) < found.index(p.Admin("TenGigabitEthernet3/0/0", True)), "its state follows"


def test_mac_addresses_survive_a_restart_and_differ() -> None:
    made = {made_up_mac(node, port) for node in "abc" for port in ("loop0", "loop1", "host-x")}
    assert len(made) == 9
    assert made_up_mac("a", "loop0") in made
    assert all(int(mac[:2], 16) & 3 == 2 for mac in made), "local, unicast"


REPLIES = 'replies = "tunnel"\ntunnel = ["10.1.0.254"]'


def test_interfaces_that_replies_come_in_by() -> None:
    def sides(config: Config) -> set[p.Part]:
        return {part for part in parts(config) if isinstance(part, p.ReplySide)}

    local_a = 'name = "A"\nlocal = ["10.1.0.0/24"]'
    local_b = 'local = ["10.2.0.0/24"]'
    no_inside = ('inside = ["loop0"]', "")
    assert sides(site()) == set()
    assert sides(site((local_a, f"{local_a}\n{REPLIES}"))) == {p.ReplySide("loop0", 1)}
    assert sides(site((local_a, f"{local_a}\n{REPLIES}"), no_inside)) == {p.ReplySide("loop0", 1)}
    gateway = ('via = "192.0.2.1"', 'via = "192.0.2.1"\n[[route]]\nprefix = "10.2.0.0/16"\nvia = "192.0.2.4"')
    rewrite = (local_b, f'{local_b}\nreplies = "rewrite"')
    assert sides(site(rewrite, gateway, no_inside)) == {p.ReplySide("host-up0", 0)}
    assert sides(site(rewrite, no_inside)) == set(), "a default route says nothing"
    assert sides(site(rewrite)) == {p.ReplySide("loop0", 0)}, "as [node] inside says"


# ---- devices that are elsewhere -------------------------------------------------


def _longest(config: Config, address: int, version: int) -> bool | None:
    """Slow and obvious: is this one elsewhere? None: no binding."""
    host = ip_network((address, 32 if version == 4 else 128))
    covering = [b for b in config.bindings if contains(b.prefix, host)]
    if not covering:
        return None
    binding = max(covering, key=lambda b: b.prefix.prefixlen)
    return binding.target != "A" and binding.kind is not BindingKind.HERE


BOUND = st.tuples(
    st.integers(96, 127), st.integers(27, 32), st.sampled_from(['to = "A"', 'to = "B"', "down = true"])
)
HEAD = GOOD_VPP.split("[[binding]]")[0].replace('"10.2.0.0/24"', '"10.2.0.0/23"')


@given(st.lists(BOUND, max_size=8), st.integers(27, 30), st.integers(96, 127))
@examples(120)
def test_elsewhere_is_what_the_longest_binding_says(
    bound: list[tuple[int, int, str]], length: int, own: int
) -> None:
    text = {str(ip_network((f"203.0.113.{host}", size), strict=False)): to for host, size, to in bound}
    bindings = "".join(f'[[binding]]\nglobal = "{prefix}"\n{to}\n' for prefix, to in text.items())
    config = load_text(HEAD + bindings)
    within = ip_network((f"203.0.113.{own}", length), strict=False)
    address = ip_address(f"203.0.113.{own}")
    spans = list(elsewhere(config, within, address))
    found = {host for span in spans for host in range(span.first, span.last + 1)}
    assert found == {
        int(host) for host in within if _longest(config, int(host), 4) is True and host != address
    }
    assert all(one.last + 1 < two.first for one, two in itertools.pairwise(spans))
    assert {int(host) for prefix in summarized(spans, 4) for host in prefix} == found


def test_elsewhere_in_a_bindings_file(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(
        "global,to\n203.0.113.0/26,A\n203.0.113.8/29,B\n203.0.113.9,A\n203.0.113.192/26,B\n"
    )
    config = load_text(f'{HEAD}[[bindings_file]]\nname = "b"\npath = "b.csv"\n', tmp_path / "site.toml")
    spans = elsewhere(config, ip_network("203.0.113.0/25"), ip_address("203.0.113.12"))
    names = [(str(ip_address(span.first)), str(ip_address(span.last))) for span in spans]
    assert names == [
        ("203.0.113.8", "203.0.113.8"),
        ("203.0.113.10", "203.0.113.11"),
        ("203.0.113.13", "203.0.113.15"),
    ]


# ---- the journal ------------------------------------------------------------------


def test_the_journal_tells_what_was_made(tmp_path: Path) -> None:
    file = tmp_path / "ports.undo"
    journal = Journal(file, "boot 1")
    journal.will_make(p.Loopback("loop0"), None)
    journal.will_make(p.Mtu("loop0", 1500), p.Mtu("loop0", 9000))
    journal.will_make(p.Mtu("loop0", 1400), p.Mtu("loop0", 9000))
    journal.will_make(p.StaticRoute(1, "10.0.0.0/8", again_in=0), None)
    journal.is_gone(p.StaticRoute(1, "10.0.0.0/8", again_in=0))
    assert Journal(file, "boot 1").made == journal.made
    assert list(journal.made) == [p.Loopback("loop0"), p.Mtu("loop0", 1400)]
    assert Journal(file, "boot 2").made == {}, "another VPP has nothing of it"
    assert not file.exists()
    journal.rewrite()
    assert Journal(file, "boot 1").made == journal.made
    for part in list(journal.made):
        journal.is_gone(part)
    assert not file.exists()


def test_a_journal_cut_anywhere_tells_what_was_begun(tmp_path: Path) -> None:
    file = tmp_path / "ports.undo"
    journal = Journal(file, "boot 1")
    wanted = [p.Loopback("loop0"), p.Domain(1), p.Member("loop0", 1, True)]
    for part in wanted:
        journal.will_make(part, None)
    text = file.read_bytes()
    for cut in range(len(text)):
        file.write_bytes(text[:cut])
        made = list(Journal(file, "boot 1").made)
        assert made == wanted[: len(made)]
        assert len(made) == max(0, text[:cut].count(b"\n") - 1)


@pytest.mark.parametrize(
    "damage", ["x\n", '{"vpp": "boot 1"}\n{"made": {"kind": "Nonsense"}, "before": null}\n']
)
def test_a_damaged_journal_is_said(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "ports.undo"
    file.write_text(damage)
    with pytest.raises(EngineError, match="is damaged"):
        Journal(file, "boot 1")


def test_parts_survive_json() -> None:
    for config in SITES:
        for part in parts(config):
            assert p.from_json(p.to_json(part)) == part
            assert p.describe(part)


def test_tags_fit_into_what_vpp_has_room_for() -> None:
    """string tag[64] of VPP; names have up to 63 characters."""
    names = ["a", "n" * 55, "n" * 56, "n" * 62 + "1", "n" * 62 + "2"]
    tags = [tag_of(name) for name in names]
    assert len(set(tags)) == len(names) and all(len(tag) <= 63 for tag in tags)
    assert tags[:2] == ["ipshare a", "ipshare " + "n" * 55]
