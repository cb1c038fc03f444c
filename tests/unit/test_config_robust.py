"""Whatever a file contains, `check_text` reports; it never raises."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.config import check_text, import_bindings
from ipshare.errors import ConfigError
from tests.examples import examples

EXAMPLES = [
    re.sub(r"^include.*$|^\[\[bindings_file\]\]\n.*\n.*$", "", path.read_text(), flags=re.MULTILINE)
    for path in sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.toml"))
]
VALUES = st.sampled_from(
    [
        "1",
        "-1",
        "1.5",
        "true",
        "nan",
        "1979-05-27",
        "99999999999999999999",
        '""',
        '"x"',
        '"A"',
        '"gue"',
        '"5m"',
        '"1/1"',
        "[]",
        "{}",
        "[[]]",
        "[{}]",
        "[1]",
        '["x", 1]',
        "{v4 = 1}",
        '"::"',
        '"10.0.0.0/8"',
        '"2001:db8::/32"',
        '"0.0.0.0/0"',
        '"203.0.113.1/24"',
        '["::1", "10.0.0.1"]',
    ]
)


@st.composite
def spoiled(draw: st.DrawFn) -> str:
    """An example in which some lines have another value, are gone, doubled, or stand elsewhere."""
    lines = [line.split("  #")[0] for line in draw(st.sampled_from(EXAMPLES)).split("\n")]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 4)):
            case 0 | 1:
                lines[at] = re.sub(r"=.*", lambda _: "= " + draw(VALUES), lines[at])
            case 2:
                lines[at] = ""
            case 3:
                lines.insert(draw(st.integers(0, len(lines))), lines[at])
            case 4:
                lines[at] = lines[at].replace("[[", "[").replace("]]", "]")
    return "\n".join(lines)


@given(spoiled())
@examples(150)
def test_a_report_and_nothing_else(text: str) -> None:
    report = check_text(text)
    assert (report.config is None) == bool(report.problems)
    for problem in (*report.problems, *report.warnings):
        assert problem.message
        assert problem.hint
        assert problem.line <= text.count("\n") + 1


@given(st.text(max_size=60))
@examples(100)
def test_any_text(text: str) -> None:
    report = check_text(text)
    assert report.problems
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assert [problem.message.startswith("not TOML") for problem in report.problems] == [True]


def test_what_a_file_holds_does_not_steer_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("global,to,\x1b[31mred\x07\n")
    with pytest.raises(ConfigError) as caught:
        import_bindings(file)
    assert "\\x1b[31mred" in str(caught.value.problems[0])
    assert all(c.isprintable() or c == "\n" for c in str(caught.value.problems[0]))
