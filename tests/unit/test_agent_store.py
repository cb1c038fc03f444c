"""What was applied, on disk and back: every configuration survives the trip, damage is no crash."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from ipshare import config as configuration
from ipshare.agent.codec import decode, encode
from ipshare.agent.confirm import State, Trial
from ipshare.agent.store import Store, same
from ipshare.errors import IpshareError
from ipshare.model import Config
from tests.agent_world import site, site_text

FILES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.toml"))  # folders: of others
EXAMPLES = [file for file in FILES if file.name != "policy.toml"]  # which distribution.toml includes


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_survives_json(file: Path) -> None:
    config = replace(configuration.load(file), bulk=None)
    assert decode(Config, json.loads(json.dumps(encode(config)))) == config


def test_bulk_bindings_survive(tmp_path: Path) -> None:
    (tmp_path / "many.csv").write_text("global,to\n203.0.113.9,B\n203.0.113.8,A\n")
    config = site(tmp_path, more='[[bindings_file]]\npath = "many.csv"\nname = "many"\n')
    store = Store(tmp_path / "state")
    serial = store.add(config)
    loaded = Store(tmp_path / "state").config(serial)
    assert loaded is not None and loaded.bulk is not None
    assert same(loaded, config)
    (tmp_path / "many.csv").write_text("global,to\n203.0.113.9,A\n203.0.113.8,A\n")
    other = site(tmp_path, more='[[bindings_file]]\npath = "many.csv"\nname = "many"\n')
    assert not same(loaded, other)
    assert not same(loaded, site(tmp_path))


def test_no_room_for_bulk_bindings(tmp_path: Path) -> None:
    rows = "".join(f"203.0.113.{host},B\n" for host in range(20, 250))
    (tmp_path / "many.csv").write_text("global,to\n" + rows)
    config = site(tmp_path, more='[[bindings_file]]\npath = "many.csv"\nname = "many"\n')
    store = Store(tmp_path / "state")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(IpshareError, match=r"cannot write .*bulk\.npy"):
            store.add(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "state" / "configs").iterdir()) == []
    serial = store.add(config)
    (tmp_path / "state" / "configs" / str(serial) / "bulk.npy").write_bytes(b"")
    assert Store(tmp_path / "state").config(serial) is None


def test_where_a_line_stands_does_not_matter(tmp_path: Path) -> None:
    moved = configuration.load_text("\n\n# new\n" + site_text(tmp_path), tmp_path / "site.toml")
    assert same(site(tmp_path), moved)


def test_state_survives_and_forgets_what_it_does_not_need(tmp_path: Path) -> None:
    store = Store(tmp_path)
    serials = [store.add(site(tmp_path, weight=weight)) for weight in (1, 2, 3)]
    state = State(current=serials[2], previous=serials[1], last=serials[2], trial=Trial(5, "boot"))
    store.put(state)
    again = Store(tmp_path)
    assert again.state() == state
    assert again.config(serials[0]) is None
    assert again.config(serials[1]) == site(tmp_path, weight=2)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"state": {}}', '{"state": {"current": "x"}}', "\0" * 40])
def test_damage_is_absence(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    serial = store.add(site(tmp_path))
    store.put(State(current=serial, last=serial))
    (tmp_path / "state.json").write_text(damage)
    assert Store(tmp_path).state() == State()
    (tmp_path / "configs" / str(serial) / "config.json").write_text(damage)
    assert Store(tmp_path).config(serial) is None


def test_cut_at_every_byte(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(State(current=0, last=7, trial=Trial(1, "b")))
    whole = (tmp_path / "state.json").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "state.json").write_bytes(whole[:length])
        assert Store(tmp_path).state() in (State(), State(last=7, trial=Trial(1, "b")))


def test_serials_are_never_given_twice(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.add(site(tmp_path))
    store.put(State(current=0, last=first))
    assert store.config(first) is None, "nobody needed it"
    assert store.add(site(tmp_path, weight=2)) > first


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.put(State())
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_two_names_of_what_is_kept_part_with_the_next_write(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.keep_text("heard", "one")
    (store.dir / ".heard.new").write_text("of who died in between")
    (store.dir / ".has.new").write_text("of who died in between")
    store.keep_as("heard", "has")
    store.keep_text("heard", "two")
    assert [(store.dir / name).read_text() for name in ("heard", "has")] == ["two", "one"]
    store.keep_as("heard", "has")
    store.keep_text("has", "three")
    assert [(store.dir / name).read_text() for name in ("heard", "has")] == ["two", "three"]
    assert sorted(entry.name for entry in store.dir.iterdir()) == ["has", "heard"]
    with pytest.raises(IpshareError, match="cannot write"):
        store.keep_as("nothing", "has")
