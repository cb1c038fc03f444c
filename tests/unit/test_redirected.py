"""An end point that a workload has left sends on what still comes for it (DESIGN.md 9): tables, routes, and
what the core makes of packets with them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from ipshare.agent.netspec import Facts, netspec
from ipshare.config import load_text
from ipshare.engine.desired import desired
from ipshare.engine.memory import MemoryEngine
from ipshare.engine.packet_words import packet
from ipshare.engine.plan import diff
from ipshare.engine.redirected import legs, unable
from ipshare.model import Config, Redirect
from ipshare.net import recipe
from ipshare.net.actions import RouteAdd

SITE = """
[node]
name = "a1"
[[network]]
name = "g4"
prefix = "203.0.113.0/24"
[[network]]
name = "g6"
prefix = "2001:db8:9::/64"
[[endpoint]]
name = "A"
self = true
local = ["10.1.0.0/24", "2001:db8:a::/64"]
path = "{path}"
tunnel = ["10.1.0.250"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/24", "2001:db8:b::/64"]
tunnel = ["10.2.0.250"]
[[distribution]]
name = "C"
tunnel = ["10.3.0.250"]
[[binding]]
global = "203.0.113.0/24"
to = "A"
[[binding]]
global = "2001:db8:9::/64"
to = "A"
"""
SEVEN4, SEVEN6 = ip_network("203.0.113.7/32"), ip_network("2001:db8:9::7/128")


def site(path: str = "rewrite", *redirects: Redirect) -> Config:
    return replace(load_text(SITE.format(path=path)), redirects=redirects)


def engine(config: Config) -> MemoryEngine:
    made = MemoryEngine()
    made.apply(diff(made.read(), desired(config)))
    return made


def destination(data: bytes) -> str:
    return str(ip_address(data[16:20] if data[0] >> 4 == 4 else data[24:40]))


@pytest.mark.parametrize(
    ("prefix", "words", "here", "there"),
    [
        (SEVEN4, "tcp 198.51.100.9:1234 > {to}:80 syn", "10.1.0.7", "10.2.0.7"),
        (SEVEN6, "tcp [2001:db8:1::9]:1234 > [{to}]:80 syn", "2001:db8:a::7", "2001:db8:b::7"),
    ],
)
def test_what_comes_to_the_local_address_goes_to_the_other_end_point(
    prefix: object, words: str, here: str, there: str
) -> None:
    config = site("rewrite", Redirect(prefix, "B"))  # type: ignore[arg-type]
    answer = engine(config).why(packet(words.format(to=here)), "outer")
    assert destination(answer.packets[0]) == there
    others = "10.1.0.8" if prefix is SEVEN4 else "2001:db8:a::8"
    answer = engine(config).why(packet(words.format(to=others)), "inner")
    assert destination(answer.packets[0]) in ("203.0.113.8", "2001:db8:9::8")


def test_only_its_route_leads_into_the_outer_device() -> None:
    config = site("rewrite", Redirect(SEVEN4, "B"))
    routes = [one for one in recipe(netspec(config, Facts())) if isinstance(one, RouteAdd) and one.device]
    assert {one.prefix: one.device for one in routes} == {
        "10.1.0.7/32": "ips-out",
        "10.1.0.0/24": "ips-in",
        "2001:db8:a::/64": "ips-in",
        "10.1.0.250/32": "ips-in",
    }


def test_a_whole_local_network_has_one_route() -> None:
    whole = ip_network("203.0.113.0/24")
    config = site("rewrite", Redirect(whole, "B"))
    routes = [one for one in recipe(netspec(config, Facts())) if isinstance(one, RouteAdd) and one.device]
    assert [one.device for one in routes if one.prefix == "10.1.0.0/24"] == ["ips-out"]


def test_without_a_redirect_nothing_differs() -> None:
    assert list(legs(site())) == []
    assert desired(site()).roles == desired(load_text(SITE.format(path="rewrite"))).roles


@pytest.mark.parametrize(
    ("path", "to", "why"),
    [
        ("gue", "B", "the path to A is gue"),
        ("rewrite", "Z", "end point Z is not known"),
        ("rewrite", "B", ""),
    ],
)
def test_what_cannot_be_redirected_says_why(path: str, to: str, why: str) -> None:
    found = unable(site(path), SEVEN4, to)
    assert found.startswith(why) and bool(found) is bool(why)
    assert bool(list(legs(site(path, Redirect(SEVEN4, to))))) is not bool(why)
