"""before: at the box, at each start, before anything of ours runs: state and configuration as the version
before had them, so that there is a way back to it.

    another version ran last      -> what it left is copied to data/appliance/before/VERSION
    it wrote what this cannot read -> what this version left itself, the last time that it ran, comes back

Only what cannot be read comes back, in parts that belong together: a node's state, a director's store, the
site files. Nothing is destroyed: what a part had is in the copy made just before. Epochs, terms, what was
heard of and what was given back never go back: such a file stays as it is, and a version that cannot read it
refuses it; a director's store comes back with the newest term. Two copies are kept. Paths are relative to
``root``, so that tests run it in a directory.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from ipshare.agent import store as agent
from ipshare.agent.assignment import EARLIER, SEEN
from ipshare.agent.keeper import RELEASED
from ipshare.appliance import firstboot, room, slots
from ipshare.appliance.overlay import SITE
from ipshare.config.assigned import FILE as ASSIGNED
from ipshare.director.store import SCHEMA
from ipshare.errors import IpshareError

PLACE, MARK = "data/appliance/before", "data/appliance/version"
NODES, DIRECTOR, SITES = "data/var/lib/ipshare", "data/var/lib/ipshare-director/director.db", "etc/ipshare"
STAYS = ("*.epoch", SEEN, EARLIER, ASSIGNED, RELEASED, "audit.log*")
"""What never goes back, and the log of what was done."""
COPIES = 2


def follow(version: str, say: Callable[[str], None], root: Path = Path("/")) -> None:
    """``version``: of the image that runs. A start that loses power anywhere is done again by the next one.
    Raises OSError (the disk is full), sqlite3.Error."""
    ran, is_done = _mark(root)
    if ran == version and is_done:
        return
    if ran != version:
        if ran:
            _copy(root, root / PLACE / _name(ran))
        _write_mark(root, version, False)
    ours = root / PLACE / _name(version)
    if ours.is_dir():
        for what in _back(root, ours):
            say(f"{what} was written by a later version: it is as this version left it")
        os.sync()
    _write_mark(root, version, True)


def at_start(say: Callable[[str], None]) -> None:
    """For the image that runs; whatever goes wrong is said, and the start goes on."""
    try:
        if not room.IN_MEMORY.exists():
            follow(str(slots.release().get("version", "")), say)
    except Exception as error:  # a file that is damaged may be anything, and the box has to start
        say(f"no copy of what the version before left could be made, or brought back: {error}")


def _mark(root: Path) -> tuple[str, bool]:
    try:
        record = json.loads((root / MARK).read_text())
        return str(record["version"]), bool(record["done"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", False


def _write_mark(root: Path, version: str, done: bool) -> None:
    firstboot.write(root / MARK, json.dumps({"version": version, "done": done}) + "\n", 0o600)


def _name(version: str) -> str:
    """As the name of a directory."""
    return "v" + "".join(c if c.isalnum() or c in ".-_" else "_" for c in version)


# ---- the copy ----------------------------------------------------------------------


def _copy(root: Path, target: Path) -> None:
    """All of it, or nothing; copies of other versions but the newest go."""
    aside = target.with_name(".new")
    aside.parent.mkdir(parents=True, exist_ok=True)
    aside.parent.chmod(0o700)  # a copy of a key has the mode of a new file until it has its own
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for tree in (NODES, SITES):
            if (root / tree).is_dir():
                shutil.copytree(root / tree, aside / tree, copy_function=_take, ignore=_stays)
        if (root / DIRECTOR).exists():
            _copy_database(root / DIRECTOR, aside / DIRECTOR)
        aside.mkdir(parents=True, exist_ok=True)
        os.sync()
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    by_age = sorted(target.parent.iterdir(), key=lambda one: one.stat().st_ctime_ns)
    for old in by_age[:-COPIES]:
        shutil.rmtree(old, ignore_errors=True)


_stays = shutil.ignore_patterns(*STAYS)


def _take(source: str, target: str) -> None:
    """Arrays are never written again once they are there: a second name costs nothing."""
    if source.endswith(".npy"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _copy_database(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(source)) as have, closing(sqlite3.connect(target)) as want:
        have.backup(want)
    target.chmod(0o600)


# ---- the way back --------------------------------------------------------------------


def _back(root: Path, ours: Path) -> Iterator[str]:
    """The parts that came back."""
    for node in sorted((root / NODES).glob("*/")):
        if (ours / NODES / node.name).is_dir() and not _is_readable(node):
            _replace(ours / NODES / node.name, node)
            yield f"the state of {node.name}"
    if (ours / DIRECTOR).exists() and _schema(root / DIRECTOR) > SCHEMA:
        _director_back(ours / DIRECTOR, root / DIRECTOR)
        yield "the director's store"
    if (ours / SITES).is_dir() and _mistakes(root / SITES, root) and not _mistakes(ours / SITES, ours):
        _replace(ours / SITES, root / SITES)
        yield "the site file"


def _is_readable(node: Path) -> bool:
    kept = (path for path in node.rglob("*.json") if not any(path.match(name) for name in STAYS))
    if any(_is_later(path) for path in kept):
        return False
    store = agent.Store(node)
    return not store.state().current or store.current() is not None


def _replace(source: Path, target: Path) -> None:
    """``target`` becomes what ``source`` has, but for what stays. What cannot be read goes last: where the
    power goes before, the part is one that has to come back still."""
    have = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    for path in target.rglob("*"):
        name = path.relative_to(target)
        if path.is_file() and name not in have and not any(name.match(pattern) for pattern in STAYS):
            path.unlink()
    for name in sorted(have, key=lambda name: (_is_later(target / name), name)):
        aside = (target / name).with_name(".back")
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        _take(str(source / name), str(aside))
        aside.replace(target / name)


def _is_later(path: Path) -> bool:
    return path.suffix == ".json" and path.exists() and agent.format_of(path) > agent.VERSION


def _schema(path: Path) -> int:
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def _director_back(ours: Path, path: Path) -> None:
    """With the newest term: nodes refuse earlier ones, and another director may have begun one."""
    term = "SELECT coalesce(max(value), 0) FROM meta WHERE key = 'term'"
    aside = path.with_name(".back")
    aside.unlink(missing_ok=True)
    _copy_database(ours, aside)
    with closing(sqlite3.connect(path)) as newer, closing(sqlite3.connect(aside, isolation_level=None)) as db:
        newest = max(newer.execute(term).fetchone()[0], db.execute(term).fetchone()[0])
        db.execute("INSERT OR REPLACE INTO meta VALUES ('term', ?)", (newest,))
        newer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for rest in ("-wal", "-shm"):
        path.with_name(path.name + rest).unlink(missing_ok=True)
    aside.replace(path)


def _mistakes(folder: Path, root: Path) -> bool:
    """Whether this version cannot take the site file there."""
    site = folder / Path(SITE).name
    try:
        return site.exists() and bool(firstboot.site_problems({SITE: (site.read_bytes(), 0o600)}, root))
    except IpshareError:
        return True
