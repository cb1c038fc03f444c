"""`ipshare director export`: what is in force goes back into the file, comments stay, and nothing is lost."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ipshare.director.export import exported
from ipshare.director.moves import moved
from ipshare.director.topology import KINDS, Topology
from ipshare.errors import Refused

HEAD = """# our director
[director]
name = "d"  # as its certificate says
[[health.probe]]
endpoint = "A"
"""
FILE = (
    HEAD
    + """
# where the sun shines
[[site]]
name = "dallas"
[[node]]
name = "a1"  # the old one
address = "10.0.0.1:7443"
endpoint = "A"

# its end point
[[endpoint]]
name = "A"
local = [
  "10.1.0.0/24",  # two racks
]
[[node]]
name = "b1"
address = "10.0.0.2:7443"
endpoint = "B"
[[endpoint]]
name = "B"
local = ["10.2.0.0/24"]
[endpoint.path_mtu]
v4 = 1400
[[policy]]
name = "p"
[[policy.members]]
endpoint = "A"
weight = 2
[[policy.members]]
endpoint = "B"

# the shop: ask ann before
[[workload]]
name = "shop"
node = "a1"        # near its disks
addresses = ["203.0.113.7/32"]
[[workload]]
node = "a1"
name = "mail"
[[binding]]
global = "203.0.113.7/32"
to = "A" # the shop
[[binding]]
global = "203.0.113.0/24"
to = "A"

[failover]  # settings at the end, too
mode = "automatic"
list = [
  ["a"],
  [{x = 1}],
]
"""
)


def topology(*texts: str) -> Topology:
    """As a director reads it, with no check of what it means."""
    tables: dict[str, list[Any]] = {}
    for text in texts:
        for kind, rows in tomllib.loads(text).items():
            if kind in KINDS:
                tables.setdefault(kind, []).extend(rows)
    return Topology(tables)


def again(text: str, wanted: Topology) -> str:
    made = exported({"f": text}, wanted)["f"]
    assert topology(made) == wanted
    assert exported({"f": made}, wanted)["f"] == made, "and that changes nothing"
    return made


def test_what_did_not_change_stays_to_the_byte() -> None:
    assert again(FILE, topology(FILE)) == FILE
    crlf = FILE.replace("\n", "\r\n")
    assert exported({"f": crlf}, topology(FILE))["f"] == crlf


def test_a_failover_changes_two_words() -> None:
    made = again(FILE, moved(topology(FILE), {"shop": "b1"}))
    lines = FILE.splitlines()
    differ = [(old, new) for old, new in zip(lines, made.splitlines(), strict=True) if old != new]
    assert differ == [
        ('node = "a1"        # near its disks', 'node = "b1"        # near its disks'),
        ('to = "A" # the shop', 'to = "B" # the shop'),
    ]


def test_rows_come_go_and_change_places() -> None:
    now = topology(FILE)
    tables = {kind: list(rows) for kind, rows in now.tables.items()}
    shop, mail = tables["workload"]
    tables["workload"] = [{"name": "dns", "node": "b1", "size": 0.5, "apart": ["x"]}, mail, shop]
    tables["endpoint"] = [tables["endpoint"][1]]
    tables["distribution"] = [{"name": "C", "path": "rewrite"}]
    tables["policy"] = [{"name": "p", "members": [{"endpoint": "B", "weight": 3}]}]
    tables["node"][0] = {**tables["node"][0], "capacity": 3.5}
    tables["node"][1] = {k: v for k, v in tables["node"][1].items() if k != "endpoint"}
    made = again(FILE, Topology(tables))
    assert '# the shop: ask ann before\n[[workload]]\nname = "shop"' in made, "comments go with their row"
    assert "# its end point" not in made and "# the old one" in made
    assert made.startswith(HEAD) and made.index("[failover]") > made.index("[[binding]]")


def test_a_file_with_settings_alone_gets_all() -> None:
    text = HEAD.rstrip()
    assert again(text, topology(FILE)).startswith(text + "\n")
    assert again(FILE, Topology({})).startswith(HEAD)


def test_included_files_keep_their_rows() -> None:
    main, other = FILE.partition("# the shop: ask ann before")[0], FILE[FILE.index("# the shop: ask") :]
    now = topology(main, other)
    wanted = moved(now, {"mail": "b1"})
    made = exported({"main": main, "other": other}, wanted)
    assert made["main"] == main and topology(*made.values()) == wanted


def test_what_cannot_be_rewritten_is_refused_and_never_wrong() -> None:
    inline = 'workload = [{name = "shop", node = "a1"}, {name = "mail", node = "a1"}]\n'
    with pytest.raises(Refused, match="cannot be rewritten"):
        exported({"f": inline}, Topology({"workload": [{"name": "shop", "node": "b1"}]}))
    assert exported({"f": inline}, topology(inline))["f"] == inline


def test_any_two_topologies_are_reached_from_each_other() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    text = FILE
    for _ in range(60):
        tables = {kind: list(rows) for kind, rows in topology(text).tables.items()}
        for rows in tables.values():
            change: Callable[[], Any] = rng.choice(
                [lambda r=rows: rng.shuffle(r), lambda r=rows: r.pop(), lambda r=rows: r.append(_new(r, rng))]
            )
            if rows:
                change()
        text = again(text, Topology({kind: rows for kind, rows in tables.items() if rows}))
    assert text.startswith(HEAD)


def _new(rows: list[Any], rng: random.Random) -> dict[str, Any]:
    number = rng.randrange(1 << 30)
    row = {**rng.choice(rows), "note": f"n{number}"}
    if "global" in row:
        return row | {"global": f"198.51.{number % 256}.{number // 256 % 256}/32", "to": "Ä"}
    return row | {"name": f"x{number}", "list": [{"a": 1}, {"b": [True, 2.5]}]}


def test_replace_is_of_rows_only() -> None:
    """A topology read from the store has lists where the file has arrays: equal is equal."""
    now = topology(FILE)
    assert replace(now, tables=dict(now.tables)) == now
