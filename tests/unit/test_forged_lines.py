"""What somebody writes into a request, a reason or an answer forges no line of a log, steers no terminal."""

from __future__ import annotations

import logging
import sys

import pytest

from ipshare.cli import node, output

EVIL = "fine\n2026-01-01 ERROR forged\r\x1b[31m"


@pytest.mark.parametrize("journal", [False, True])
def test_a_message_of_several_lines_is_one_entry(journal: bool) -> None:
    record = logging.LogRecord("x", logging.INFO, "x", 1, "POST %s", (EVIL,), None)
    first, second = node._Lines(journal=journal).format(record).split("\n")
    assert first.endswith("POST fine")
    assert second.removeprefix("<6>") == "    2026-01-01 ERROR forged\\r\\x1b[31m"


def test_a_trace_stays_readable() -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "it failed", (), sys.exc_info())
    text = node._Lines(journal=False).format(record)
    assert "it failed\nTraceback" in text and "ValueError: odd" in text


def test_a_table_has_a_line_a_row_and_no_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("revision", "why"), [(1, EVIL), (2, "")])
    output.line(EVIL)
    output.fail(EVIL, EVIL, 1, as_json=False)
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and "\r" not in said.out + said.err
    assert len(said.out.splitlines()) == 3 + 2
