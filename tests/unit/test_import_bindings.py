"""Bindings in bulk: files, mistakes with their lines, differences."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.config import diff_bindings, import_bindings
from ipshare.config.bulk import render_diff
from ipshare.config.bulk_text import Cells, prefixes, words
from ipshare.config.units import Invalid, prefix
from ipshare.errors import ConfigError
from ipshare.model import NO_NAME, BindingKind, BindingSet, packed, unpacked
from tests.examples import examples


def cells(texts: list[str]) -> Cells:
    raw = [text.encode() for text in texts]
    ends = np.cumsum([len(text) for text in raw], dtype=np.int64)
    return Cells(np.frombuffer(b"".join(raw) + b"\n", np.uint8), ends - np.diff(ends, prepend=0), ends)


GOOD = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded),
    st.builds(
        lambda a, n: str(ip_network((int(a), n), strict=False)), st.ip_addresses(v=4), st.integers(0, 32)
    ),
    st.builds(
        lambda a, n: str(ip_network((a << 64, n), strict=False)),
        st.integers(2**60, 2**63),
        st.integers(0, 128),
    ),
    st.sampled_from(
        ["::", "::1", "1::", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "::/0", "0.0.0.0/0", "2001:DB8::A/128"]
    ),
)
BAD = st.text(alphabet="0123456789abcdefABCDEF:./ gx%", max_size=24)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = draw(GOOD)
    at = draw(st.integers(0, len(text)))
    return (
        text[:at]
        + draw(st.sampled_from(["", ":", "::", ".", "/", "0", "f", "-", " "]))
        + text[at + draw(st.integers(0, 2)) :]
    )


@given(st.lists(GOOD | BAD | damaged(), max_size=30))
@examples(150)
def test_the_fast_parser_takes_nothing_else_than_the_slow_one(texts: list[str]) -> None:
    """And what it leaves to the slow one is rare: no text that str() of a network gives."""
    found = prefixes(cells(texts))
    for index, text in enumerate(texts):
        family = int(found.family[index])
        try:
            value = prefix(text)
        except Invalid:
            assert family == 0, text
            continue
        if family:
            assert (family, int(found.prefix_len[index])) == (value.version, value.prefixlen), text
            assert found.address[index].tobytes() == packed(value.network_address), text
        else:
            assert text not in (str(value), str(value.network_address)), text


EDGES = [
    "01.2.3.4",
    "1.2.3.04",
    "1.2.3.256",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.4/33",
    "1.2.3.4/",
    "1.2.3.4/032",
    "1..2.3",
    ".1.2.3",
    "1.2.3.",
    "1.2.3.4/32/1",
    "1.2.3.4.0/24",
    "999999999.1.1.1",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7:8::",
    "1:2:3:4:5:6:7",
    ":::",
    ":1::",
    "1::2::3",
    ":1",
    "1:",
    "12345::",
    "g::",
    "::1/129",
    "::1/",
    "::1/0128",
    "::1/1a",
    "::ffff:1.2.3.4",
    "1.2.3.4/255.255.255.255",
    "1:2:3:4:5:6:7:/128",
    "1:2:3:4::5:6:7:8",
    ":",
    "/",
    ".",
    "1",
    "::/-1",
]


def test_edges_of_the_fast_parser() -> None:
    assert not prefixes(cells(EDGES)).family.any()


@given(st.lists(st.text(alphabet="abc", max_size=20), max_size=30))
def test_words(texts: list[str]) -> None:
    found, code = words(cells(texts))
    assert [found[number] for number in code] == texts
    assert len(set(found)) == len(found)


def table(bindings: BindingSet) -> list[tuple[str, str, str, str, str]]:
    """prefix, kind, target, local, copy of each row."""
    return [
        (
            f"{unpacked(row['global'].tobytes(), row['family'])}/{row['prefix_len']}",
            BindingKind(row["kind"]).name,
            bindings.targets[row["target"]] if row["target"] != NO_NAME else "",
            str(unpacked(row["local"].tobytes(), row["local_family"])) if row["local_family"] else "",
            bindings.copies[row["copy"]] if row["copy"] != NO_NAME else "",
        )
        for row in bindings.rows
    ]


EXPECTED = [
    ("10.0.0.0/24", "POLICY", "p", "", ""),
    ("10.0.0.1/32", "ENDPOINT", "A", "192.168.0.9", "ids"),
    ("10.0.0.2/32", "ENDPOINT", "B", "", ""),
    ("10.0.0.3/32", "DOWN", "", "", ""),
    ("2001:db8::/64", "HERE", "", "", ""),
]
CSV = """global,to,local,policy,here,down,copy
2001:db8::/64,,,,yes,,
# a comment

10.0.0.3,,,,,true,
 10.0.0.2 ,\tB,,,,,
10.0.0.1,A,192.168.0.9,,,,ids
10.0.0.0/24,,,p,,,
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("quotes", [False, True])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_csv(tmp_path: Path, newline: str, quotes: bool, bom: bytes) -> None:
    text = CSV.replace("10.0.0.1,A,", '"10.0.0.1","A",') if quotes else CSV
    path = tmp_path / "b.csv"
    path.write_bytes(bom + text.replace("\n", newline).encode())
    found = import_bindings(path)
    assert table(found) == EXPECTED
    assert found.rows["line"].tolist() == [8, 7, 6, 5, 2]
    assert found.files == (path,)


def test_json(tmp_path: Path) -> None:
    rows = [
        {"global": "2001:db8::/64", "here": True},
        {"global": "10.0.0.3", "down": True, "here": False},
        {"global": "10.0.0.2", "to": "B", "local": None},
        {"global": "10.0.0.1", "to": "A", "local": "192.168.0.9", "copy": "ids"},
        {"global": "10.0.0.0/24", "policy": "p"},
    ]
    path = tmp_path / "b.json"
    path.write_text(json.dumps(rows))
    found = import_bindings(path)
    assert table(found) == EXPECTED
    assert found.rows["line"].tolist() == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("text", ["global,to\n", "global\n# nothing\n\n"])
def test_no_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.csv").write_text(text)
    assert len(import_bindings(tmp_path / "b.csv")) == 0


MISTAKES = [
    ("b.csv", "", [(1, "header line is missing")]),
    ("b.csv", "glob,to\n1.2.3.4,A\n", [(1, "unknown column 'glob'")]),
    ("b.csv", "global,to,to\n1.2.3.4,A,B\n", [(1, "column 'to' twice")]),
    ("b.csv", "# x\nto\nA\n", [(2, "column 'global' is missing")]),
    ("b.txt", "global,to\n", [(0, "ends in .csv or .json")]),
    (
        "b.csv",
        "global,to,down\n1.2.3.4/8,A,\n1.2.3.5,A\n1.2.3.6,,\n1.2.3.7,A,true\n"
        "1.2.3.8,A b,\n1.2.3.9,A,perhaps\n,A,\nx,y,\n",
        [
            (2, "1.2.3.4/8 has host bits set"),
            (3, "2 cells instead of 3"),
            (4, "leads nowhere"),
            (5, "to and down exclude each other"),
            (6, "not a name: 'A b'"),
            (7, "must be true or false, not 'perhaps'"),
            (8, "key 'global' is missing"),
            (9, "not a prefix: 'x'"),
        ],
    ),
    ("b.csv", "global,policy,local\n1.2.3.4,p,10.0.0.1\n", [(2, "local goes only together with `to`")]),
    ("b.csv", "global,to\n1.2.3.4,A\n1.2.3.4/32,B\n", [(3, "bound a second time: first in line 2")]),
    ("b.csv", 'global,to\n"1.2.3.4\n",A\n1.2.3.5,"A\n', [(3, "not a prefix"), (4, "not a name")]),
    ("b.csv", 'global,to\n"' + "1" * 200_000 + ",A\n", [(0, "not CSV: field larger than")]),
    ("b.json", "[{]", [(1, "not JSON")]),
    ("b.json", "[" * 100_000, [(0, "maximum recursion depth exceeded")]),
    ("b.json", '[{"global": ' + "9" * 5000 + "}]", [(0, "exceeds the limit (4300 digits)")]),
    ("b.json", '{"global": "1.2.3.4"}', [(1, "not an array of objects")]),
    ("b.json", "[1]", [(1, "row 1 is no object")]),
    (
        "b.json",
        '[{"global": "1.2.3.4", "to": "A"}, {"globl": "1.2.3.5", "to": 7}]',
        [(2, "unknown key 'globl'"), (2, "7 in row 2 is neither")],
    ),
]


@pytest.mark.parametrize(("name", "text", "expected"), MISTAKES, ids=lambda value: str(value)[:30])
def test_mistakes(tmp_path: Path, name: str, text: str, expected: list[tuple[int, str]]) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        import_bindings(tmp_path / name)
    found = caught.value.problems
    assert [problem.line for problem in found] == [line for line, _ in expected], found
    for problem, (_, message) in zip(found, expected, strict=True):
        assert message in problem.message
        assert problem.hint
        assert problem.file == str(tmp_path / name)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        import_bindings(tmp_path / "none.csv")


def test_a_hundred_mistakes_and_a_count(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text("global,to\n" + "".join(f"10.0.0.{i % 256}/24,A\n" for i in range(1, 251)))
    with pytest.raises(ConfigError) as caught:
        import_bindings(path)
    assert len(caught.value.problems) == 101
    assert caught.value.problems[-1].message == "and 150 more rows with mistakes"


def rows_of(path: Path, *lines: str) -> BindingSet:
    path.write_text("global,to,local,policy,copy\n" + "\n".join(lines) + "\n")
    return import_bindings(path)


def test_diff(tmp_path: Path) -> None:
    old = rows_of(tmp_path / "old.csv", "10.0.0.1,A,,,", "10.0.0.2,B,,,ids", "10.0.0.3,A,,,", "10.0.0.4,,,p,")
    new = rows_of(
        tmp_path / "new.csv", "10.0.0.4,,,q,", "10.0.0.3,A,,,", "10.0.0.2,B,10.9.0.1,,ids", "10.0.0.9,C,,,"
    )
    change = diff_bindings(old, new)
    assert change
    assert (len(change.added), len(change.removed), len(change.before), len(change.after)) == (1, 1, 2, 2)
    assert render_diff(change).split("\n") == [
        "1 added, 1 removed, 2 changed",
        "- 10.0.0.1/32 -> A",
        "+ 10.0.0.9/32 -> C",
        "~ 10.0.0.2/32 -> B copy ids  =>  -> B 10.9.0.1 copy ids",
        "~ 10.0.0.4/32 -> policy p  =>  -> policy q",
    ]
    assert render_diff(change, most=1).split("\n")[1:] == ["- 10.0.0.1/32 -> A", "... and 3 more"]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from("AB")), max_size=8),
    st.lists(st.integers(0, 9), max_size=8),
)
@examples(40)
def test_diff_is_what_it_takes(
    tmp_path_factory: pytest.TempPathFactory, old: list[tuple[int, str]], new: list[int]
) -> None:
    path = tmp_path_factory.mktemp("diff")
    first, second = dict(old), dict.fromkeys(new, "B")
    before = rows_of(path / "old.csv", *(f"10.0.0.{host},{to},,," for host, to in first.items()))
    after = rows_of(path / "new.csv", *(f"10.0.0.{host},{to},,," for host, to in second.items()))
    change = diff_bindings(before, after)
    assert not diff_bindings(before, before)
    assert {int(row["global"][3]) for row in change.added} == second.keys() - first.keys()
    assert {int(row["global"][3]) for row in change.removed} == first.keys() - second.keys()
    both = first.keys() & second.keys()
    assert {int(row["global"][3]) for row in change.after} == {
        host for host in both if first[host] != second[host]
    }
