"""Files, includes and merging: what is read, in which order, and what is refused with both places."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipshare.config import check, load
from ipshare.errors import Problem

MAIN = """include = {include}
[node]
name = "a"
endpoint = "A"
[[network]]
name = "one"
prefix = "203.0.113.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site.d").mkdir()
    return tmp_path


def write(site: Path, name: str, text: str) -> Path:
    path = site / name
    path.write_text(text)
    return path


def problems(path: Path) -> list[tuple[str, int, str]]:
    return [(Path(p.file).name, p.line, p.message) for p in check(path).problems]


def test_globs_are_sorted_and_arrays_append(site: Path) -> None:
    main = write(site, "site.toml", MAIN.format(include='["site.d/*.toml", "last.toml"]'))
    for name in ("20-b.toml", "10-a.toml"):
        number = name[:2]
        write(site, f"site.d/{name}", f'[[network]]\nname = "n{number}"\nprefix = "198.51.{number}.0/24"\n')
    write(site, "last.toml", '[engine]\nworkers = 4\n[node]\nicmp_source = ["192.0.2.1"]\n')
    config = load(main)
    assert [network.name for network in config.networks] == ["one", "n10", "n20"]
    assert config.networks[2].place.file == site / "site.d/20-b.toml"
    assert config.networks[2].place.line == 1
    assert config.engine.workers == 4
    assert str(config.node.icmp_source4) == "192.0.2.1"
    assert [path.name for path in config.files] == ["site.toml", "10-a.toml", "20-b.toml", "last.toml"]


def test_mistakes_are_placed_in_the_file_that_has_them(site: Path) -> None:
    main = write(site, "site.toml", MAIN.format(include='["b.toml"]') + "mss = 1\n")
    write(site, "b.toml", '\n[[endpoint]]\nname = "B"\nlocal = ["10.2.0.0/24"]\npath_mtu = 5\n')
    assert problems(main) == [
        ("site.toml", 11, "unknown key 'mss'"),
        ("b.toml", 5, "path MTU 5 is below 68, the least that IPv4 allows (RFC 791)"),
    ]


def test_set_twice_names_both_places(site: Path) -> None:
    main = write(site, "site.toml", MAIN.format(include='["b.toml"]'))
    write(site, "b.toml", '[node]\nname = "b"\n[engine]\nworkers = 1\n')
    [problem] = check(main).problems
    assert (Path(problem.file).name, problem.line, problem.key) == ("b.toml", 2, "node.name")
    assert problem.message == f"set twice: already set at {main}:3"


def test_plain_arrays_do_not_append(site: Path) -> None:
    main = write(site, "site.toml", MAIN.format(include='["b.toml", "c.toml"]'))
    write(site, "b.toml", '[node]\nicmp_source = ["192.0.2.1"]\n')
    write(site, "c.toml", '[node]\nicmp_source = ["2001:db8::1"]\n')
    assert [line for _, line, text in problems(main) if "set twice" in text] == [2]


def test_a_table_against_an_array_of_tables(site: Path) -> None:
    main = write(site, "site.toml", MAIN.format(include='["b.toml"]'))
    write(site, "b.toml", '[endpoint]\nname = "B"\n')
    assert problems(main) == [("b.toml", 1, f"set twice: already set at {main}:8")]


@pytest.mark.parametrize("include", ['["site.toml"]', '["*.toml"]'])
def test_a_file_that_includes_itself(site: Path, include: str) -> None:
    main = write(site, "site.toml", MAIN.format(include=include))
    assert problems(main) == [("site.toml", 1, f"{main} includes itself")]


def test_cycle(site: Path) -> None:
    main = write(site, "site.toml", MAIN.format(include='["b.toml"]'))
    write(site, "b.toml", 'include = ["site.toml"]\n')
    assert problems(main) == [("b.toml", 1, f"{main} is included by what it includes")]


def test_included_twice(site: Path) -> None:
    main = write(site, "site.toml", MAIN.format(include='["b.toml", "b*.toml"]'))
    write(site, "b.toml", "")
    assert problems(main) == [("site.toml", 1, f"{site / 'b.toml'} is included twice")]


def test_missing_files_and_empty_globs(site: Path) -> None:
    main = write(site, "site.toml", MAIN.format(include='["none.toml", "site.d/*.toml"]'))
    report = check(main)
    assert [(p.key, p.message) for p in report.problems] == [
        ("include[0]", f"no such file: {site / 'none.toml'}")
    ]
    assert [p.message for p in report.warnings if "include" in p.key] == ["no file matches 'site.d/*.toml'"]


def test_the_main_file_is_missing(site: Path) -> None:
    [problem] = check(site / "site.toml").problems
    assert problem == Problem(
        str(site / "site.toml"),
        0,
        0,
        "",
        f"no such file: {site / 'site.toml'}",
        "check the name; includes are relative to the file that names them",
    )


def test_a_directory_and_foreign_bytes(site: Path) -> None:
    assert "cannot read" in check(site / "site.d").problems[0].message
    main = write(site, "site.toml", MAIN.format(include='["b.toml"]'))
    (site / "b.toml").write_bytes(b"# ok\n# \xff\n")
    assert problems(main) == [("b.toml", 2, "not UTF-8: byte 0xff")]


def test_syntax_in_one_file_does_not_hide_the_others(site: Path) -> None:
    main = write(site, "site.toml", MAIN.format(include='["b.toml", "c.toml"]') + "x = 1\n")
    write(site, "b.toml", 'a = "\n')
    write(site, "c.toml", "[probe]\nattempts = 0\n")
    found = problems(main)
    assert [(name, line) for name, line, _ in found] == [("site.toml", 11), ("b.toml", 1), ("c.toml", 2)]
    assert found[1][2].startswith("not TOML: Illegal character")


def test_syntax_of_the_only_file_is_the_only_problem(site: Path) -> None:
    main = write(site, "site.toml", "[node\n")
    [(_, line, text)] = problems(main)
    assert line == 1
    assert text.startswith("not TOML: ")


@pytest.mark.parametrize("include", ['"b.toml"', "[1]", '[""]', "3"])
def test_include_is_an_array_of_names(site: Path, include: str) -> None:
    main = write(site, "site.toml", MAIN.format(include=include))
    write(site, "b.toml", "")
    assert problems(main) == [("site.toml", 1, "include must be an array of file names")]


def test_include_of_an_included_file(site: Path) -> None:
    main = write(site, "site.toml", MAIN.format(include='["site.d/b.toml"]'))
    write(site, "site.d/b.toml", 'include = ["c.toml", 7]\n')
    write(site, "site.d/c.toml", "[engine]\nworkers = 9\n")
    assert problems(main) == [("b.toml", 1, "not a file name: 7")]


def test_a_byte_order_mark_is_no_mistake(site: Path) -> None:
    path = site / "site.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MAIN.format(include="[]").encode())
    assert load(path).node.name == "a"


def test_links_in_a_circle(site: Path) -> None:
    (site / "one.toml").symlink_to("two.toml")
    (site / "two.toml").symlink_to("one.toml")
    [(file, line, message)] = problems(write(site, "site.toml", MAIN.format(include='["one.toml"]')))
    assert (file, line) == ("site.toml", 1)
    assert "symbolic links" in message


def test_includes_do_not_nest_for_ever(site: Path) -> None:
    for number in range(1500):
        write(site, f"{number}.toml", f'include = ["{number + 1}.toml"]\n')
    found = problems(write(site, "site.toml", MAIN.format(include='["0.toml"]')))
    assert [message for _, _, message in found] == ["included through 32 other files"]


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100 + "]" * 100,
        "a = " + "[" * 90000 + "]" * 90000,
        "a" + ".a" * 300 + " = 1",
        "a = " + "9" * 5000,
    ],
    ids=["nested", "nested for ever", "dotted", "digits"],
)
def test_values_beyond_all_reason(site: Path, text: str) -> None:
    [(file, _, message)] = problems(write(site, "site.toml", MAIN.format(include="[]") + text))
    assert (file, message[:20]) == ("site.toml", "not a configuration:")


def test_a_file_without_end() -> None:
    [(_, _, message)] = problems(Path("/dev/zero"))
    assert message == "/dev/zero is longer than 64 MiB"
