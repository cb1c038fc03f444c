"""A witness's rules, records and memory: whom it may support, and what it knows after a restart.

That a pair obeys it: tests/lab/test_witness_lab.py, and native/tests/pair_model.c, which runs the same rules.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipshare.core.witness import ANSWER, ASK, GRANTED, REFUSED, RELEASE, UNKNOWN, Message, Rules, decode
from ipshare.errors import IpshareError
from ipshare.pair import witness_node
from ipshare.pair.witness_node import NodeJudge, line_of, read, write

S = 10**9
QUESTION = Message(ASK, counter=5, asked_ns=100, ttl_ns=S)


def rules(granted: tuple[int, int] = (4, 2)) -> Rules:
    """Of a witness that waits no more."""
    return Rules(granted, S, longest_ns=10 * S, now_ns=0)


def ask(witness: Rules, node: int, counter: int, now: int, **more: Any) -> int:
    return witness.judge(node, replace(QUESTION, counter=counter, asked_ns=now, **more), now)


def test_one_at_a_time_and_the_holder_goes_on() -> None:
    witness = rules()
    assert ask(witness, 1, 5, 20 * S) == GRANTED
    assert ask(witness, 2, 6, 21 * S - 1) == REFUSED, "the grant runs"
    assert ask(witness, 1, 5, 21 * S - 1) == GRANTED
    assert ask(witness, 2, 6, 22 * S - 2) == REFUSED
    assert ask(witness, 1, 7, 22 * S - 2) == GRANTED, "the holder may begin another reign"
    assert ask(witness, 2, 8, 23 * S - 2) == GRANTED
    assert witness.promise == (8, 2, S)


@pytest.mark.parametrize("counter", [0, 3, 4])
def test_only_a_higher_counter(counter: int) -> None:
    assert ask(rules(), 1, counter, 20 * S) == REFUSED


def test_a_restart_waits_for_what_may_have_been_granted() -> None:
    with_file = Rules((4, 2), S, longest_ns=10 * S, now_ns=0)
    assert ask(with_file, 1, 5, S - 1) == REFUSED
    assert ask(with_file, 2, 4, S - 1) == GRANTED, "its holder goes on"
    without = Rules((0, 0), 0, longest_ns=10 * S, now_ns=0)
    assert [ask(without, node, 9, 10 * S - 1) for node in (1, 2)] == [REFUSED, REFUSED]
    assert ask(without, 1, 9, 10 * S) == GRANTED


def test_a_restart_waits_for_the_longest_promise_not_for_the_last() -> None:
    """The holder may use the longer one, which it got under an earlier configuration."""
    witness = rules()
    assert ask(witness, 1, 5, 20 * S, ttl_ns=9 * S) == GRANTED
    assert ask(witness, 1, 5, 21 * S) == GRANTED
    assert witness.promise == (5, 1, 8 * S)
    again = Rules((5, 1), witness.promise[2], longest_ns=10 * S, now_ns=22 * S)
    assert ask(again, 2, 6, 29 * S) == REFUSED
    assert ask(again, 2, 6, 30 * S) == GRANTED


def test_a_grant_that_is_too_long_is_none() -> None:
    assert ask(rules(), 1, 5, 20 * S, ttl_ns=10 * S + 1) == UNKNOWN


def test_a_grant_given_back_is_free_but_not_by_a_late_word() -> None:
    witness = rules()
    assert ask(witness, 1, 5, 20 * S) == GRANTED
    release = replace(QUESTION, kind=RELEASE, counter=5)
    witness.release(1, replace(release, asked_ns=20 * S - 1), 20 * S)  # said before it asked (again)
    witness.release(2, replace(release, asked_ns=21 * S), 20 * S)
    witness.release(1, replace(release, counter=4, asked_ns=21 * S), 20 * S)
    assert ask(witness, 2, 6, 20 * S + 1) == REFUSED
    witness.release(1, replace(release, asked_ns=20 * S), 20 * S + 1)
    assert ask(witness, 2, 6, 20 * S + 1) == GRANTED


def test_records_there_and_back() -> None:
    for message in (QUESTION, replace(QUESTION, kind=RELEASE), QUESTION.answered(GRANTED, (5, 1))):
        assert decode(message.encode()) == message


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 2), (1, 0), (1, 4), (2, 1), (3, 1), (8, 255), (16, 255), (24, 255), (32, 255), (7, 1)],
)
def test_what_is_out_of_range_is_no_record(at: int, value: int) -> None:
    data = bytearray(QUESTION.encode())
    data[at] = value
    assert decode(bytes(data)) is None


def test_no_record_of_another_length() -> None:
    data = QUESTION.encode()
    assert [decode(data[:n]) for n in range(len(data))] == [None] * len(data)
    assert decode(data + b"\0") is None


def test_an_answer_needs_an_answer() -> None:
    data = bytearray(QUESTION.answered(UNKNOWN, (0, 0)).encode())
    assert decode(bytes(data)) is not None
    data[2] = 0
    assert decode(bytes(data)) is None and data[1] == ANSWER


def test_a_promise_is_on_disk_before_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, clock = tmp_path / "promise", [20 * S]
    monkeypatch.setattr(witness_node, "now_ns", lambda: clock[0])
    write(file, (4, 2, S))
    judge = NodeJudge(file)
    clock[0] += S
    assert judge.ask(1, QUESTION) == QUESTION.answered(GRANTED, (5, 1))
    assert read(file) == (5, 1, S)
    file.unlink()
    assert judge.ask(1, QUESTION).answer == GRANTED
    assert not file.exists(), "a grant that is extended writes nothing"
    again = NodeJudge(file)
    assert again.ask(1, QUESTION).answer == REFUSED, "no file: the longest grant is waited for"


def test_who_cannot_write_promises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    clock = [20 * S]
    monkeypatch.setattr(witness_node, "now_ns", lambda: clock[0])
    judge = NodeJudge(folder / "promise")
    clock[0] += 10 * S
    folder.rmdir()
    assert judge.ask(1, QUESTION).answer == UNKNOWN
    folder.mkdir()
    assert judge.ask(2, replace(QUESTION, counter=6)).answer == REFUSED, "it may have been promised"
    assert judge.ask(1, QUESTION).answer == GRANTED


@pytest.mark.parametrize("text", ["", "ipshare witness 1 5 1 1000 00000000\n", line_of((5, 1, 9))[:-1]])
def test_a_damaged_file_is_not_taken_for_a_missing_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "promise"
    file.write_text(text)
    with pytest.raises(IpshareError, match="damaged"):
        NodeJudge(file)
