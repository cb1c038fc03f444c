"""Bindings files among networks and end points: a row and a [[binding]] are judged alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.config import check_text
from ipshare.model import BindingKind, packed
from tests.examples import examples
from tests.unit.test_import_bindings import table

SITE = """
[node]
name = "c"
distribution = "C"
icmp_source = ["192.0.2.1", "2001:db8:f::1"]
[[distribution]]
name = "C"
tunnel = ["192.0.2.10"]
[[network]]
name = "g4"
prefix = "203.0.113.0/24"
[[network]]
name = "g6"
prefix = "2001:db8:100::/48"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24", "2001:db8:a::/48"]
tunnel = ["10.1.0.254"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/28"]
[[endpoint]]
name = "E"
local = ["10.3.0.0/28"]
tunnel = ["10.3.0.1"]
path = "gue"
[[policy]]
name = "p"
members = [{endpoint = "A"}, {endpoint = "B"}]
[[copy]]
name = "ids"
interface = "eth9"
"""
GLOBALS = [
    "203.0.113.0/24",
    "203.0.113.0/29",
    "203.0.113.3",
    "203.0.113.4",
    "203.0.113.5",
    "203.0.113.99",
    "203.0.113.254",
    "2001:db8:100::/64",
    "2001:db8:100::7",
    "198.51.100.1",
    "203.0.112.0/23",
]
LOCALS = [
    "",
    "",
    "",
    "10.1.0.3",
    "10.1.0.4",
    "10.2.0.4",
    "10.1.0.0/29",
    "10.77.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "2001:db8:a::7",
    "10.0.0.0/8",
]
ROW = st.one_of(
    st.tuples(
        st.sampled_from(GLOBALS), st.sampled_from(["A", "B", "E", "X"]), st.sampled_from(LOCALS), st.just("")
    ),
    st.tuples(st.sampled_from(GLOBALS), st.just(""), st.just(""), st.sampled_from(["p", "y"])),
)


def as_toml(row: tuple[str, str, str, str]) -> str:
    values = zip(("global", "to", "local", "policy"), row, strict=True)
    return "[[binding]]\n" + "".join(f'{key} = "{value}"\n' for key, value in values if value)


@given(st.lists(ROW, max_size=6, unique_by=lambda row: row[0]), st.integers(0, 6))
@examples(100)
def test_a_row_is_judged_like_a_table(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str, str]], in_toml: int
) -> None:
    """All in TOML, and some of them in a CSV file: the same messages about rows, the same bindings."""
    path = tmp_path_factory.mktemp("rows")
    (path / "b.csv").write_text(
        "global,to,local,policy\n" + "".join(",".join(row) + "\n" for row in rows[in_toml:])
    )
    plain = check_text(SITE + "".join(map(as_toml, rows)))
    mixed_text = (
        SITE + "".join(map(as_toml, rows[:in_toml])) + '[[bindings_file]]\nname = "f"\npath = "b.csv"\n'
    )
    mixed = check_text(mixed_text, path / "site.toml")
    assert bool(plain.problems) == bool(mixed.problems)
    alone = {p.message for p in plain.problems if "claimed" not in p.message and "tunnel" not in p.message}
    assert alone <= {p.message for p in mixed.problems}
    if plain.config is None or mixed.config is None or mixed.config.bulk is None:
        return
    bulk = table(mixed.config.bulk)
    expected = [
        (
            str(binding.prefix),
            binding.kind.name,
            binding.target or "",
            str(binding.local.network_address) if binding.local else "",
            "",
        )
        for binding in plain.config.bindings[in_toml:]
    ]
    assert sorted(bulk) == sorted(expected)
    for row in mixed.config.bulk.rows:
        if row["kind"] == BindingKind.POLICY:
            [binding] = [
                b
                for b in plain.config.bindings
                if packed(b.prefix.network_address) == row["global"].tobytes()
                and b.prefix.prefixlen == row["prefix_len"]
            ]
            assert int.from_bytes(row["local"][:4].tobytes(), "big") == binding.offset


def judged(tmp_path: Path, extra: str, *lines: str) -> list[tuple[str, int, str, str]]:
    (tmp_path / "b.csv").write_text("global,to,local,policy,here,down,copy\n" + "\n".join(lines) + "\n")
    report = check_text(
        SITE + extra + '[[bindings_file]]\nname = "f"\npath = "b.csv"\n', tmp_path / "site.toml"
    )
    return [(Path(p.file).name, p.line, p.key, p.message) for p in (*report.problems, *report.warnings)]


def test_rows_against_tables_and_each_other(tmp_path: Path) -> None:
    extra = '[[binding]]\nglobal = "203.0.113.3"\nto = "A"\n'
    found = judged(
        tmp_path, extra, "203.0.113.3,B,,,,,", "203.0.113.4,A,10.1.0.3,,,,", "203.0.113.5,A,10.1.0.254,,,,",
        "203.0.113.6,A,10.77.0.1,,,,", "203.0.113.7,A,,,,,nix",
    )  # fmt: skip
    assert found == [
        (
            "site.toml",
            18,
            "endpoint[0].tunnel[0]",
            "tunnel address 10.1.0.254 is also the local address of a Global IP of 203.0.113.5/32 "
            f"({tmp_path}/b.csv:4), which cannot be reached",
        ),
        (
            "b.csv",
            2,
            "global",
            f"203.0.113.3/32 is bound again, to a different target: first at {tmp_path}/site.toml:33",
        ),
        (
            "b.csv",
            3,
            "local",
            "local address 10.1.0.3 of end point 'A' is claimed by 203.0.113.3/32 too "
            f"({tmp_path}/site.toml:33)",
        ),
        ("b.csv", 6, "copy", "there is no copy named 'nix'"),
        (
            "b.csv",
            5,
            "local",
            "1 row has a local address outside of the local networks of end point 'A', this one first",
        ),
    ]


def test_a_moved_host_frees_its_local_address(tmp_path: Path) -> None:
    assert not judged(
        tmp_path, "", "203.0.113.0/28,B,,,,,", "203.0.113.3,A,,,,,", "203.0.113.4,B,10.2.0.3,,,,"
    )
