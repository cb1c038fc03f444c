"""The command lines that the documentation names can be typed: each verb and option is there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ipshare.cli.app import cli, run

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
OWN_OPTIONS = ("demo", "bench")
"""Verbs that read their options themselves."""


def command_lines(text: str) -> Iterator[list[str]]:
    """``ipshare ...`` in code: in a line or a line of its own, cut where a comment or the shell begins."""
    for span in re.findall(r"`([^`\n]+)`", text) + re.findall(r"^    (.+)$", text, re.MULTILINE):
        for line in re.findall(r"\bipshare ([a-z][^\n#;|&')]*)", span):
            yield line.split()


def options_of(words: list[str]) -> set[str]:
    """Those of the command that the words name, its groups followed."""
    command: click.Command = cli
    for word in words:
        if not isinstance(command, click.Group) or word.startswith("-"):
            break
        found = command.get_command(click.Context(command), word)
        assert found is not None, f"there is no {' '.join(words)}"
        command = found
    return {name for parameter in command.params for name in parameter.opts} | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_written_can_be_typed(page: Path) -> None:
    for words in command_lines(page.read_text()):
        if words[0] not in OWN_OPTIONS and not words[0].endswith(":"):
            ours = words[: words.index("--")] if "--" in words else words
            named = {word.partition("=")[0] for word in ours if re.match("--?[a-z]", word)}
            assert named <= options_of([word.strip(",.") for word in ours]), words


def test_the_options_in_the_table_of_verbs_exist() -> None:
    section = (ROOT / "docs/cli.md").read_text().split("## Verbs")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+(?: [a-z][a-z-]*)?)[^`]*`.*?\| (.*) \|$", section, re.MULTILINE)
    assert len(rows) > 15
    for verb, text in rows:
        if verb not in OWN_OPTIONS:
            assert set(re.findall(r"`(--[a-z-]+)", text)) <= options_of(verb.split()), verb


@pytest.mark.parametrize("verb", OWN_OPTIONS)
def test_options_of_verbs_with_a_parser_of_their_own(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        run([verb, "--help"])
    help_ = capsys.readouterr().out
    for page in PAGES:
        for words in command_lines(page.read_text()):
            if words[0] == verb:
                assert {word for word in words if word.startswith("--")} <= set(
                    re.findall(r"--[a-z-]+", help_)
                )
