"""[bgp] where the engine is VPP: what the file must say, what BIRD is told, what the machine must have."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent import vpp_preflight
from ipshare.agent.vpp import LCP_SYNC, settings
from ipshare.bgp.render import render
from ipshare.bgp.where import devices, namespace
from ipshare.config import check_text, load_text

UP = """[[interface]]
name = "host-up{n}"
host = "up{n}"
addresses = ["192.0.{n}.2/29", "2001:db8:f{n}::2/64"]
linux_cp = "to{n}"
linux_cp_netns = "bird"
"""
PORTS = UP.format(n=2) + UP.format(n=3)
GOOD = f"""
[node]
name = "v1"
distribution = "C"
icmp_source = ["192.0.2.2"]
[engine]
kind = "vpp"
[vpp]
managed = true
{PORTS}
[[interface]]
name = "host-in"
host = "in"
addresses = ["192.0.4.2/29"]
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
bfd = true
[[bgp.neighbor]]
address = "192.0.3.1"
asn = 64497
bfd = true
"""
MISTAKES = [
    ('"192.0.3.1"', '"192.0.9.1"', "bgp.neighbor[1].address", "192.0.9.1 is in no subnet of"),
    ('"192.0.3.1"', '"192.0.4.1"', "bgp.neighbor[1].address", "host-in, by which 192.0.4.1 is"),
    ('local = ["192.0.2.2"]', 'local = ["192.0.2.3"]', "bgp.local[0]", "192.0.2.3 is no address of an"),
    ('local = ["192.0.2.2"]', 'router_id = "192.0.2.2"\nlocal = ["192.0.4.2"]', "bgp.local[0]", "no address"),
    (
        'linux_cp = "to3"\nlinux_cp_netns = "bird"',
        'linux_cp = "to3"',
        "interface[1].linux_cp_netns",
        "to3 and to2 are in different network namespaces",
    ),
]  # fmt: skip


def test_announcements_hang_on_the_pairs_and_bird_runs_beside_them() -> None:
    report = check_text(GOOD)
    assert not report.problems and not report.warnings
    config = load_text(GOOD)
    assert devices(config) == ("to2", "to3") and namespace(config) == "bird"
    assert '  route 198.51.100.0/24 via "to2" via "to3";\n' in render(config, announces=True)
    one = load_text(GOOD.replace('"192.0.3.1"', '"192.0.2.3"').replace('linux_cp_netns = "bird"\n', ""))
    assert devices(one) == ("to2",) and namespace(one) == ""


@pytest.mark.parametrize(("old", "new", "key", "text"), MISTAKES, ids=[m[3] for m in MISTAKES])
def test_a_mistake_is_named(old: str, new: str, key: str, text: str) -> None:
    assert GOOD.count(old) == 1
    problems = check_text(GOOD.replace(old, new)).problems
    assert [(p.key, text in p.message, bool(p.hint)) for p in problems] == [(key, True, True)], problems


def test_without_bfd_a_dead_vpp_is_seen_late() -> None:
    """A warning: BIRD's own withdrawal cannot get out, since it would pass VPP."""
    (warning,) = check_text(GOOD.replace("asn = 64497\nbfd = true", "asn = 64497")).warnings
    assert warning.key == "bgp.neighbor[1]" and "hold_time is over (30 s)" in warning.message


def test_what_concerns_pairs_is_said_of_vpp_alone() -> None:
    """Neither of these checks says anything about the embedded engine."""
    start, end = GOOD.index("[engine]"), GOOD.index("[[network]]")
    report = check_text(GOOD[:start] + GOOD[end:].replace("bfd = true\n", ""))
    assert not report.problems and not report.warnings


def test_a_vpp_of_ours_makes_pairs_that_follow_it() -> None:
    """tap makes the devices: without that plugin VPP refuses every pair (feature disabled). linux_nl would
    have VPP follow the kernel."""
    what = settings(load_text(GOOD))
    assert {"tap_plugin.so", "linux_cp_plugin.so"} <= set(what.plugins) and what.extra == LCP_SYNC
    assert "linux_nl_plugin.so" not in what.plugins
    none = settings(load_text(GOOD[: GOOD.index("[bgp]")].replace('linux_cp = "to', 'mac = "02:00:00:00:00:0')
                              .replace('linux_cp_netns = "bird"\n', "")))  # fmt: skip
    assert "tap_plugin.so" not in none.plugins and not none.extra


# ---- what the machine must have --------------------------------------------------------


def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, vhost: bool, spaces: tuple[str, ...]) -> None:
    (tmp_path / "netns").mkdir()
    for name in spaces:
        (tmp_path / "netns" / name).touch()
    if vhost:
        (tmp_path / "vhost-net").touch()
    monkeypatch.setattr(vpp_preflight, "VHOST", tmp_path / "vhost-net")
    monkeypatch.setattr(vpp_preflight, "NAMESPACES", tmp_path / "netns")


def said(config: Any) -> str:
    return "\n".join(f"{p.message}; {p.hint}" for p in vpp_preflight.preflight(config, None))


def test_what_is_missing_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_text(GOOD)
    machine(tmp_path, monkeypatch, vhost=False, spaces=())
    text = said(config)
    assert "vhost-net is missing, which VPP needs for the pair to2 of host-up2; modprobe vhost_net" in text
    assert "there is no network namespace bird for the pair to3 of host-up3; ip netns add bird" in text


def test_nothing_of_pairs_is_said_where_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, vhost=True, spaces=("bird",))
    text = said(load_text(GOOD))
    assert "vhost" not in text and "namespace" not in text


@dataclass
class OtherVpp:
    """A client of somebody else's VPP: which messages it knows, which pairs it has."""

    known: set[str]
    pairs: list[str] = field(default_factory=list)

    @property
    def client(self) -> OtherVpp:
        return self

    def has(self, name: str) -> bool:
        return name in self.known

    def dump(self, _name: str, **_fields: Any) -> list[str]:
        return self.pairs


@pytest.mark.parametrize(
    ("known", "lacks"),
    [
        (set(), "that pairs in Linux need: tap, linux_cp"),
        ({"lcp_itf_pair_add_del_v3"}, "that pairs in Linux need: tap"),
        ({"tap_create_v2"}, "that pairs in Linux need: linux_cp"),
    ],
)
def test_a_vpp_of_others_lacks_plugins(known: set[str], lacks: str) -> None:
    config = load_text(GOOD)
    assert config.vpp is not None
    (problem,) = vpp_preflight._paired(config.vpp, OtherVpp(known))  # type: ignore[arg-type]
    assert problem.message.endswith(lacks)
    assert "plugin tap_plugin.so { enable }" in problem.hint and LCP_SYNC in problem.hint


def test_pairs_that_are_there_need_nothing_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, vhost=False, spaces=("bird",))
    config, known = load_text(GOOD), {"tap_create_v2", "lcp_itf_pair_add_del_v3"}
    assert config.vpp is not None
    assert not list(vpp_preflight._paired(config.vpp, OtherVpp(known, ["to2"])))  # type: ignore[arg-type]
    found = list(vpp_preflight._paired(config.vpp, OtherVpp(known)))  # type: ignore[arg-type]
    assert len(found) == 2 and all("vhost-net is missing" in problem.message for problem in found)
