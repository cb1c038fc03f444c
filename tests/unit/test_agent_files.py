"""The agent's files under attack: the node's lock removed, the undo journal damaged, no room on the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent import datapath
from ipshare.agent.datapath import NetRoutes, NodeLock
from ipshare.errors import Refused
from ipshare.net import apply as net_apply
from ipshare.net.actions import LinkSet, NetError
from ipshare.net.apply import Report
from ipshare.net.journal import Journal
from tests.agent_world import site

ACTION = LinkSet("ips-out", 65535)


def test_a_lock_whose_file_was_removed_is_taken_again(tmp_path: Path) -> None:
    config = site(tmp_path)
    lock = NodeLock(config)
    (tmp_path / "run" / "lock").unlink()
    (tmp_path / "run").rmdir()
    lock.keep()
    with pytest.raises(Refused, match=str(os.getpid())):
        NodeLock(config)
    lock.keep()
    lock.release()
    NodeLock(config).release()


def test_a_lock_that_another_took_meanwhile_stays_his(tmp_path: Path) -> None:
    config = site(tmp_path)
    lock = NodeLock(config)
    (tmp_path / "run" / "lock").unlink()
    other = NodeLock(config)
    with pytest.raises(Refused):
        lock.keep()
    other.release()
    lock.keep()
    lock.release()


@pytest.mark.parametrize("junk", ["{garbage", "[]", "{}", '{"do": 1}', "null"])
def test_a_damaged_journal_is_one_sentence_and_not_held(tmp_path: Path, junk: str) -> None:
    file = tmp_path / "undo"
    with Journal(file) as journal:
        journal.record(ACTION, None)
    file.write_text(file.read_text() + junk + "\n")
    for _ in range(2):  # the second would find it in use if the first had kept it open
        with pytest.raises(NetError, match="is damaged") as caught:
            Journal(file)
        assert caught.value.hint


def test_a_full_disk_leaves_whole_lines_and_stops_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    with Journal(tmp_path / "undo") as journal:
        journal.record(ACTION, None)
        with monkeypatch.context() as full:
            full.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
            with pytest.raises(NetError, match="No space left"):
                journal.record(LinkSet("ips-in", 65535), None)
        journal.record(LinkSet("other", 1500), None)
    assert [json.loads(line) for line in (tmp_path / "undo").read_text().splitlines()]
    with Journal(tmp_path / "undo") as journal:
        assert [entry.action.name for entry in journal.entries.values()] == ["ips-out", "other"]


def test_a_journal_that_somebody_removed_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, undone = site(tmp_path), []

    def apply(_actions: Any, file: Path) -> Report:
        file.parent.mkdir(exist_ok=True)
        file.write_text("what was there before")
        return Report()

    def undo(file: Path) -> Report:
        undone.append(file.read_text())
        return Report()

    monkeypatch.setattr(datapath, "netspec", lambda *_: None)
    monkeypatch.setattr(datapath, "read_facts", lambda: None)
    monkeypatch.setattr(datapath, "recipe", lambda _: [])
    monkeypatch.setattr(net_apply, "apply", apply)
    monkeypatch.setattr(net_apply, "undo", undo)
    routes = NetRoutes()
    routes.apply(config)
    assert routes.missing(config) == []
    (tmp_path / "run" / "net.undo").unlink()
    (tmp_path / "run").rmdir()
    assert routes.missing(config) == [f"{tmp_path / 'run' / 'net.undo'} is gone"]
    routes.undo(config)
    assert undone == ["what was there before"]
