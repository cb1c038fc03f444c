"""One installation with a policy over two end points, as its three nodes' files say it: distribution point C,
end points A and B behind encapsulated paths, and a channel between these.

For tests of what a change of the policy does to connections (DESIGN.md 4).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ipshare import config as configuration
from ipshare.engine.desired import desired
from ipshare.engine.tables import Tables
from ipshare.model import Config, Member

GLOBAL = {4: "203.0.113.9", 6: "2001:db8:9::9"}
TUNNEL = {"A": ("10.1.0.250", "2001:db8:a1::250"), "B": ("10.2.0.250", "2001:db8:a2::250")}
CHANNEL = {"A": ("10.1.0.251", "10.1.0.252"), "B": ("10.2.0.251", "10.2.0.252")}
SITE = """
[node]
name = "{node}"
{what}
icmp_source = ["192.0.2.1", "2001:db8:77::1"]
[[network]]
name = "four"
prefix = "203.0.113.0/24"
[[network]]
name = "six"
prefix = "2001:db8:9::/64"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24", "2001:db8:a1::/64"]
path = "{path}"
tunnel = {a}
[[endpoint]]
name = "B"
local = ["10.2.0.0/24", "2001:db8:a2::/64"]
path = "{path}"
tunnel = {b}
[[distribution]]
name = "C"
tunnel = ["10.9.0.250", "2001:db8:a9::250"]
path = "gue"
[[policy]]
name = "both"
members = [{{ endpoint = "A", weight = {weights[0]} }}, {{ endpoint = "B", weight = {weights[1]} }}]
client_bits = {{ v4 = 32, v6 = 128 }}
drain = "{drain}"
[[binding]]
global = "203.0.113.0/24"
policy = "both"
[[binding]]
global = "2001:db8:9::/64"
policy = "both"
[[channel]]
name = "A-B"
kind = "{kind}"
key_file = "key"
[[channel.end]]
endpoint = "A"
addresses = {ends_a}
paths = ["192.0.2.1:6090"]
[[channel.end]]
endpoint = "B"
addresses = {ends_b}
paths = ["192.0.2.2:6090"]
"""


def quoted(words: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def site(
    node: str,
    weights: tuple[int, int],
    *,
    path: str = "gue",
    kind: str = "gue",
    drain: str = "15m",
    head: str = "",
) -> Config:
    """head: more lines of [node]."""
    ends = 2 if kind == "ipip" else 1
    text = SITE.format(
        node=node,
        drain=drain,
        what=head + ('distribution = "C"' if node == "C" else f'endpoint = "{node}"'),
        weights=weights,
        path=path,
        kind=kind,
        a=quoted(TUNNEL["A"]),
        b=quoted(TUNNEL["B"]),
        ends_a=quoted(CHANNEL["A"][:ends]),
        ends_b=quoted(CHANNEL["B"][:ends]),
    )
    return configuration.load_text(text, Path("/nowhere/site.toml"))


def changed(node: str, was: tuple[int, int] | None, now: tuple[int, int], **how: str) -> Tables:
    """The node's tables after a change; was None: nothing is kept of what was before."""
    found = site(node, now, **how)
    policy = found.policies[0]
    if was is not None:
        policy = replace(policy, previous=(Member("A", was[0]), Member("B", was[1])))
    return desired(replace(found, policies=(policy,)))
