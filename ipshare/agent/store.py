"""store: what was applied to a node, on disk: configurations by serial, and which one is current.

``state_dir``/state.json (confirm.State) and ``state_dir``/configs/SERIAL/ (config.json, bulk.npy). A file
is written aside and renamed, the configuration before the state that names it, so a crash leaves the old
state or the new one. What cannot be read (another version, damage) is treated as absent, and said so.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from ipshare import durable
from ipshare.agent.codec import decode, encode
from ipshare.agent.confirm import State
from ipshare.errors import IpshareError, NoPrivilege, Refused
from ipshare.model import BindingSet, Config

log = logging.getLogger(__name__)
VERSION = 1


class Unwritable(IpshareError):
    """A file could not be written: the disk is full, or gone. What was there before is there."""


class Store:
    """The files of one node. One writer at a time: whoever holds the node's lock."""

    def __init__(self, state_dir: Path) -> None:
        self.dir = state_dir
        self._cache: dict[int, Config] = {}

    def state(self) -> State:
        try:
            record = _of_now(self.dir / "state.json")
            state: State = decode(State, record["state"])
            return state
        except FileNotFoundError:
            return State()
        except PermissionError as error:
            raise _no_privilege(self.dir) from error
        except (ValueError, TypeError, KeyError) as error:
            log.warning("%s is not readable (%s): starting without history", self.dir / "state.json", error)
            return State()

    def put(self, state: State) -> None:
        """Makes ``state`` the node's state, and forgets configurations that it does not need."""
        self._write(self.dir / "state.json", json.dumps({"version": VERSION, "state": encode(state)}))
        for entry in self._configs():
            if int(entry.name) not in state.kept:
                shutil.rmtree(entry, ignore_errors=True)
                self._cache.pop(int(entry.name), None)

    def add(self, config: Config) -> int:
        """Stores a configuration under a new serial, which is returned."""
        serial = 1 + max([self.state().last, *(int(entry.name) for entry in self._configs())], default=0)
        folder = self.dir / "configs" / str(serial)
        self._make(folder)
        record = encode(config, skip=frozenset({"bulk"}))
        if config.bulk is not None:
            import numpy as np

            try:
                with (folder / "bulk.npy").open("wb") as file:
                    np.save(file, config.bulk.rows, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise _unwritable(folder / "bulk.npy", error) from error
            names = {"targets": config.bulk.targets, "copies": config.bulk.copies, "files": config.bulk.files}
            record["bulk"] = {name: encode(value) for name, value in names.items()}
        self._write(folder / "config.json", json.dumps({"version": VERSION, "config": record}))
        self._cache[serial] = config
        return serial

    def config(self, serial: int) -> Config | None:
        """A stored configuration; None if it is not there or not readable."""
        if serial in self._cache:
            return self._cache[serial]
        folder = self.dir / "configs" / str(serial)
        try:
            record = _of_now(folder / "config.json")["config"]
            bulk = record.pop("bulk")
            config: Config = decode(Config, {**record, "bulk": None})
            if bulk is not None:
                config = _with_bulk(config, folder / "bulk.npy", bulk)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise _no_privilege(self.dir) from error
        except (ValueError, TypeError, KeyError, EOFError) as error:
            log.warning("stored configuration %d is not readable: %s", serial, error)
            return None
        self._cache[serial] = config
        return config

    def current(self) -> Config | None:
        """The configuration that the node is on."""
        return self.config(self.state().current)

    def kept(self, name: str) -> Any:
        """What ``keep`` wrote; None: nothing, or not readable."""
        try:
            return _of_now(self.dir / name)["content"]
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise _no_privilege(self.dir) from error
        except (ValueError, TypeError, KeyError) as error:
            log.warning("%s is not readable: %s", self.dir / name, error)
            return None

    def keep(self, name: str, content: Any) -> None:
        """JSON values in a file of their own, on the disk when this returns."""
        self._write(self.dir / name, json.dumps({"version": VERSION, "content": content}))

    def keep_text(self, name: str, text: str) -> None:
        """The same for text as it is."""
        self._write(self.dir / name, text)

    def keep_as(self, name: str, other: str) -> None:
        """What is kept as ``name`` is kept as ``other`` as well, on the disk when this returns. Nothing is
        written twice: later writes to either leave the other as it is."""
        path = self.dir / other
        try:
            durable.link(self.dir / name, path)
        except PermissionError as error:
            raise _no_privilege(self.dir) from error
        except OSError as error:
            raise _unwritable(path, error) from error

    def _configs(self) -> list[Path]:
        folder = self.dir / "configs"
        return [entry for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []

    def _make(self, folder: Path) -> None:
        try:
            self.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except PermissionError as error:
            raise _no_privilege(self.dir) from error
        except OSError as error:
            raise Unwritable(
                f"cannot keep state in {self.dir}: {error.strerror}", hint="set state_dir in [node]"
            ) from error

    def _write(self, path: Path, text: str) -> None:
        content = text.encode()
        try:
            try:
                durable.write(path, content, 0o644)
            except FileNotFoundError:
                self._make(path.parent)
                durable.write(path, content, 0o644)
        except PermissionError as error:
            raise _no_privilege(path.parent) from error
        except OSError as error:
            raise _unwritable(path, error) from error


def format_of(path: Path) -> int:
    """The version of ipshare's files by which ``path`` was written; 0: it does not say. Raises OSError."""
    try:
        return int(json.loads(path.read_text())["version"])
    except (ValueError, TypeError, KeyError):
        return 0


def _of_now(path: Path) -> Any:
    """What is in the file. Raises Refused where a later version wrote it."""
    if (found := format_of(path)) > VERSION:
        raise Refused(
            f"{path} was written by a later ipshare (format {found}, this one knows {VERSION})",
            hint="start that one again; nothing was changed",
        )
    return json.loads(path.read_text())


def same(one: Config, other: Config) -> bool:
    """Whether two configurations ask for the same (bulk bindings included, which Config.__eq__ leaves
    out)."""
    return one == other and _same_bulk(one.bulk, other.bulk)


def _same_bulk(one: BindingSet | None, other: BindingSet | None) -> bool:
    if one is None or other is None:
        return one is other
    import numpy as np

    places = ["line", "source"]
    wanted = [name for name in one.rows.dtype.names or () if name not in places]
    return (
        (one.targets, one.copies) == (other.targets, other.copies)
        and len(one) == len(other)
        and all(np.array_equal(one.rows[name], other.rows[name]) for name in wanted)
    )


def _with_bulk(config: Config, path: Path, names: dict[str, Any]) -> Config:
    from dataclasses import replace

    import numpy as np

    rows = _as_now(np.load(path, allow_pickle=False))
    files = tuple(Path(name) for name in names["files"])
    return replace(config, bulk=BindingSet(rows, tuple(names["targets"]), tuple(names["copies"]), files))


def _as_now(rows: Any) -> Any:
    """Rows that an earlier version wrote have fewer fields: the others are 0."""
    import numpy as np

    from ipshare.model import BINDING_ROW

    out = np.zeros(len(rows), BINDING_ROW)
    for name in set(rows.dtype.names or ()) & set(out.dtype.names or ()):
        out[name] = rows[name]
    return out


def _no_privilege(folder: Path) -> NoPrivilege:
    return NoPrivilege(f"may not use {folder}", hint="run as root")


def _unwritable(path: Path, error: OSError) -> Unwritable:
    # NumPy reports a full disk without an errno of its own.
    return Unwritable(f"cannot write {path}: {error.strerror or error}", hint="is the disk full?")
