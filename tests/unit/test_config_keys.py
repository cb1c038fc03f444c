"""The scanner of key places against tomllib: for any valid TOML, the same set of key paths."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ipshare.config.keys import KeyPath, render, scan
from tests.examples import examples


def paths(value: Any, at: KeyPath = ()) -> set[KeyPath]:
    """Every key path in what tomllib gave."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    found = set()
    for key, child in children:
        found |= {(*at, key)} | paths(child, (*at, key))
    return found


# Pieces of TOML that a scanner might stumble over: what ends a string or an array, inside of strings and
# comments.
TRAPS = st.sampled_from(
    ['"', "'", "]", "}", "[", "{", "#", ",", "=", ".", " ", "\t", "a", "é", "\\", "[[x]]", "]]", '""', "''"]
)

TRAP_TEXT = st.lists(TRAPS, max_size=6).map("".join)


def basic(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "") + "'"


def multi_basic(text: str) -> str:
    body = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"""\n' + body + '\n[no]\nx = 1 # ""\\\n  """' + ('"' if body else "")


def multi_literal(text: str) -> str:
    return "'''" + text.replace("'", "") + "\n[[no]] '' #\n''" + "'''"


STRINGS = st.builds(
    lambda form, text: form(text), st.sampled_from([basic, literal, multi_basic, multi_literal]), TRAP_TEXT
)
ATOMS = STRINGS | st.sampled_from(
    [
        "1",
        "0x1F",
        "1_000",
        "1.5e-3",
        "inf",
        "true",
        "1979-05-27 07:32:00.5Z",
        "07:32:00",
        "[]",
        "{}",
    ]
)
KEYS = st.sampled_from(["a", "b", "c-d", "1", '"q.x"', "'l ]'", '"\\u0061b"', '""', "'#'"])
GAPS = st.sampled_from(["", " ", "\n", " # ]}\"'\n", "\n\n\t"])
BLANKS = st.sampled_from(["", " ", "\t "])


@st.composite
def key(draw: st.DrawFn) -> str:
    parts = draw(st.lists(KEYS, min_size=1, max_size=3))
    return (draw(BLANKS) + "." + draw(BLANKS)).join(parts)


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda items, gap, tail: (
            "[" + gap + (gap + "," + gap).join(items) + (tail if items else "") + gap + "]"
        ),
        st.lists(values, max_size=3),
        GAPS,
        st.sampled_from(["", ","]),
    )


def inline_tables(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.builds(lambda k, blank, v: f"{k}{blank}={blank}{v}", key(), BLANKS, values)
    return st.lists(pair, max_size=3).map(lambda pairs: "{ " + ", ".join(pairs) + " }")


VALUES = st.recursive(ATOMS, lambda inner: arrays(inner) | inline_tables(inner), max_leaves=5)
LINES = st.builds(lambda k, blank, v: f"{k}{blank}={blank}{v}", key(), BLANKS, VALUES)
HEADERS = st.builds(
    lambda k, form: form.format(k), key(), st.sampled_from(["[{}]", "[[{}]]", "[ {} ]", "[[ {} ]]"])
)
BLOCKS = st.lists(LINES | HEADERS | st.sampled_from(["# [x] = '", "", "  "]), max_size=12)


def kept(lines: list[str]) -> str:
    """As many of the lines as make valid TOML: whatever would break it (a key twice, ...) is left out."""
    text = ""
    for line in lines:
        try:
            tomllib.loads(text + line + "\n")
        except tomllib.TOMLDecodeError:
            continue
        text += line + "\n"
    return text


@given(BLOCKS, st.sampled_from(["\n", "\r\n"]))
@examples(100)
def test_the_same_paths_as_tomllib(lines: list[str], newline: str) -> None:
    text = kept(lines)
    assert set(scan(text.replace("\n", newline))) == paths(tomllib.loads(text))


@given(BLOCKS)
@examples(100)
def test_a_place_is_where_the_key_is_written(lines: list[str]) -> None:
    text = kept(lines)
    rows = text.split("\n")
    for path, (line, column) in scan(text).items():
        rest = rows[line - 1][column - 1 :]
        last = next(part for part in reversed(path) if isinstance(part, str))
        if isinstance(path[-1], str):
            word = rest.split(" ")[0] if rest[0] not in "\"'" else rest
            assert word.startswith((last, '"', "'")), (path, rest)


def test_places() -> None:
    text = 'a = 1\n[b . "c"]\n  d = [\n 1, # x\n {e = 2}]\n[[f]]\ng.h = 3\n[[f]]\n[f.i]\n'
    assert scan(text) == {
        ("a",): (1, 1),
        ("b",): (2, 2),
        ("b", "c"): (2, 6),
        ("b", "c", "d"): (3, 3),
        ("b", "c", "d", 0): (4, 2),
        ("b", "c", "d", 1): (5, 2),
        ("b", "c", "d", 1, "e"): (5, 3),
        ("f",): (6, 3),
        ("f", 0): (6, 3),
        ("f", 0, "g"): (7, 1),
        ("f", 0, "g", "h"): (7, 3),
        ("f", 1): (8, 3),
        ("f", 1, "i"): (9, 4),
    }


def test_render() -> None:
    assert render(("endpoint", 0, "path_mtu", "v4")) == "endpoint[0].path_mtu.v4"
    assert render(("a.b", 'c"')) == '"a.b"."c\\""'
    assert render(()) == ""
