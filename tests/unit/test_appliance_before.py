"""Updates and the way back: what another version left is kept, and what this version cannot read comes back,
but never an epoch or a term."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ipshare.agent.confirm import State
from ipshare.agent.store import VERSION, Store
from ipshare.appliance import before
from ipshare.director.store import SCHEMA, SqliteStore
from ipshare.errors import Refused
from tests.agent_world import site
from tests.appliance_site import SITE

NODE = "data/var/lib/ipshare/c1"


class Box:
    """A box on which version 1 has run."""

    def __init__(self, root: Path) -> None:
        self.root, self.node, self.said = root, root / NODE, list[str]()
        self.store = Store(self.node)
        serial = self.store.add(site(root))
        self.store.put(State(current=serial, last=serial))
        self.store.keep("remaps.json", "of 1")
        (self.node / "pair.epoch").write_text("7")
        (self.node / "director.heard").write_text("term 7")
        self.write("etc/ipshare/site.toml", SITE)
        self.director = root / "data/var/lib/ipshare-director"
        director = SqliteStore(self.director)
        for _ in range(3):
            director.begin()
        director.close()
        self.start("1")

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def start(self, version: str) -> None:
        before.follow(version, self.said.append, self.root)

    def later(self) -> None:
        """Version 2 runs, and writes what version 1 does not know."""
        self.start("2")
        for path in (self.node / "state.json", self.node / "remaps.json"):
            path.write_text(json.dumps({**json.loads(path.read_text()), "version": VERSION + 1, "new": 1}))
        (self.node / "pair.epoch").write_text("9")
        (self.node / "director.heard").write_text("term 9")
        (self.node / "more.json").write_text("{}")
        with closing(sqlite3.connect(self.director / "director.db")) as db:
            db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
            db.execute("UPDATE meta SET value = 9 WHERE key = 'term'")
            db.commit()
        self.write("etc/ipshare/site.toml", SITE + "\n[of_version_2]\nx = 1\n")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_a_later_version_wrote_is_refused_and_not_written_over(box: Box) -> None:
    box.later()
    kept = files(box.node)
    for ask in (
        box.store.state,
        lambda: box.store.kept("remaps.json"),
        lambda: box.store.add(site(box.root)),
    ):
        with pytest.raises(Refused, match=r"was written by a later ipshare \(format 2, this one knows 1\)"):
            ask()
    assert files(box.node) == kept


def test_a_roll_back_brings_back_what_cannot_be_read_and_no_epoch(box: Box) -> None:
    old = files(box.node)
    box.later()
    new = files(box.node)
    box.start("1")
    assert len(box.said) == 3
    assert files(box.node) == {**old, "pair.epoch": b"9", "director.heard": b"term 9"}
    assert (box.root / "etc/ipshare/site.toml").read_text() == SITE
    director = SqliteStore(box.director)
    assert director.begin() == 10, "after the newest term"
    director.close()
    aside = files(box.root / before.PLACE / "v2" / NODE)
    assert aside == {name: text for name, text in new.items() if name not in ("pair.epoch", "director.heard")}


def test_what_can_be_read_stays_as_the_other_version_left_it(box: Box) -> None:
    box.start("2")
    box.store.keep("remaps.json", "of 2")
    now = files(box.node)
    box.start("1")
    assert files(box.node) == now and box.said == []


def test_and_forward_again(box: Box) -> None:
    """Version 2 is installed once more: what version 1 went on with is what it finds."""
    box.later()
    box.start("1")
    box.store.keep("remaps.json", "of 1 again")
    now = files(box.node)
    box.start("2")
    assert files(box.node) == now
    assert sorted(one.name for one in (box.root / before.PLACE).iterdir()) == ["v1", "v2"]


def test_a_roll_back_that_loses_power_is_done_again(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each file that came back; the copy of what the later version had stays whole."""
    old = files(box.node)
    box.later()
    state = json.loads((box.node / "state.json").read_text())
    (box.node / "state.json").write_text(json.dumps(state | {"version": VERSION}))  # the last by name
    new = files(box.node)
    begun = box.root.with_name("begun")
    shutil.copytree(box.root, begun, symlinks=True)
    real, steps = before._take, 0

    def take(source: str, target: str) -> None:
        nonlocal steps
        if target.endswith(".back"):
            steps -= 1
            if steps == 0:
                raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(before, "_take", take)
    for number in range(1, 5):
        shutil.rmtree(box.root)
        shutil.copytree(begun, box.root, symlinks=True)
        steps = number
        with pytest.raises(KeyboardInterrupt):
            box.start("1")
        steps = 0
        box.start("1")
        now = files(box.node)
        assert now == {**old, "pair.epoch": b"9", "director.heard": b"term 9"}, number
        aside = files(box.root / before.PLACE / "v2" / NODE)
        assert {**aside, "pair.epoch": b"9", "director.heard": b"term 9"} == new


def test_a_file_of_an_earlier_version_has_defaults_for_what_that_did_not_know(box: Box) -> None:
    path = box.node / "state.json"
    record = json.loads(path.read_text())
    del record["state"]["rejected"]
    path.write_text(json.dumps(record))
    assert box.store.state().current == 1 and box.store.state().rejected == 0


def test_a_copy_of_a_key_is_never_open(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has its mode only after what is in it was copied; the directory above all of them is closed."""
    (box.root / before.PLACE).mkdir(mode=0o755, exist_ok=True)
    seen, take, database = list[int](), before._take, before._copy_database

    def look() -> None:
        seen.append((box.root / before.PLACE).stat().st_mode & 0o777)

    def taken(source: str, target: str) -> None:
        look()
        take(source, target)

    def copied(source: Path, target: Path) -> None:
        look()
        database(source, target)

    monkeypatch.setattr(before, "_take", taken)
    monkeypatch.setattr(before, "_copy_database", copied)
    box.start("2")
    assert len(seen) > 2 and set(seen) == {0o700}
