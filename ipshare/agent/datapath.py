"""datapath: the node's real engine and the node's real routes, as ipshare.agent.reconcile wants them.

Files in runtime_dir: engine.sock (the engine's), engine.log, net.undo (what has to be put back), copies.json,
pair.json, flows.json, agent.sock, lock. All of it is void after a reboot, as is what it describes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ipshare.agent.ending import SILENT_TIMEOUT_S, end, silent, terminate
from ipshare.agent.flows import align as align_flows
from ipshare.agent.flows import memory_short
from ipshare.agent.natlog import align_nat_log
from ipshare.agent.netspec import netspec, read_facts
from ipshare.agent.pair import Told, align
from ipshare.agent.pair import preflight as pair_preflight
from ipshare.engine.desired import desired
from ipshare.engine.embedded import EmbeddedEngine, EngineGone
from ipshare.engine.embedded.launch import start
from ipshare.engine.protocol import Engine
from ipshare.engine.tables import Tables
from ipshare.errors import IpshareError, NoPrivilege, Problem, Refused
from ipshare.model import Config
from ipshare.net import recipe
from ipshare.net.clusters import cluster_problems

PROGRAM = "ipshare-engine"


def engine_socket(runtime_dir: Path) -> Path:
    return runtime_dir / "engine.sock"


class EmbeddedDataPath:
    """ipshare-engine as a process of its own, in the network namespace of the caller."""

    def __init__(self) -> None:
        self._pair: Told | None = None

    def attach(self, config: Config) -> EmbeddedEngine | None:
        socket = engine_socket(config.node.runtime_dir)
        try:
            if not socket.exists():
                return None
        except PermissionError:
            raise NoPrivilege(f"may not look into {socket.parent}", hint="run as root") from None
        engine = EmbeddedEngine(socket)
        try:
            hello = engine.control.hello()
        except EngineGone as error:
            engine.close()
            if isinstance(error.__cause__, PermissionError):
                raise NoPrivilege(f"may not talk to the engine at {socket}", hint="run as root") from None
            return None
        if hello.netns != Path("/proc/thread-self/ns/net").stat().st_ino:
            engine.close()
            raise Refused(
                f"the engine of {config.node.name} runs in another network namespace",
                hint="run this command where it was started (ip netns exec, nsenter)",
            )
        return engine

    def launch(self, config: Config) -> EmbeddedEngine:
        make_runtime_dir(config.node.runtime_dir)
        wanted = config.engine
        socket = engine_socket(config.node.runtime_dir)
        process = start(
            socket,
            workers=wanted.workers,
            outer=wanted.outer_device,
            inner=wanted.inner_device,
            counter_cells=wanted.counter_cells,
            node=config.node.name,
            nice=wanted.nice,
            log=config.node.runtime_dir / "engine.log",
        )
        process.process.returncode = 0  # it outlives us: Popen must not warn; EngineGuard reaps
        return EmbeddedEngine(socket)

    def ready(self, engine: Engine, config: Config) -> None:
        pass

    def tables(self, engine: Engine, config: Config) -> Tables:
        return desired(config)

    def stop(self, config: Config, engine: Engine | None) -> str:
        done = ""
        if engine is not None:
            assert isinstance(engine, EmbeddedEngine), "this data path makes no other"
            with contextlib.closing(engine):
                done = end(engine.info().pid, "engine", lambda _: engine.control.shutdown())
        elif pid := silent(engine_socket(config.node.runtime_dir), PROGRAM):
            done = end(pid, "engine", terminate, SILENT_TIMEOUT_S)
        for name in (
            "engine.sock",
            "engine.sock.lock",
            "engine.log",
            "copies.json",
            "pair.json",
            "flows.json",
        ):
            (config.node.runtime_dir / name).unlink(missing_ok=True)
        return done

    def copies(self, engine: Engine, config: Config) -> int:
        from ipshare.agent.copies import align

        assert isinstance(engine, EmbeddedEngine), "this data path makes no other"
        return align(engine, config, config.node.runtime_dir / "copies.json")

    def pair(self, engine: Engine, config: Config) -> bool:
        self._pair, changed = align(engine, config, self._pair)
        return changed

    def flows(self, engine: Engine, config: Config) -> bool:
        changed = align_flows(engine, config, config.node.runtime_dir / "flows.json")
        return align_nat_log(engine, config) or changed

    def learn_path(self, engine: Engine, endpoint: int, mtu: int, seconds: int) -> None:
        assert isinstance(engine, EmbeddedEngine), "this data path makes no other"
        engine.control.set_path_mtu(endpoint, mtu, seconds)


class NetRoutes:
    """The routing recipes of ipshare.net, in the network namespace of the caller.

    The undo journal is kept in memory as well: it survives a runtime_dir that somebody empties.
    """

    def __init__(self) -> None:
        self._kept = b""

    def preflight(self, config: Config, *, engine_runs: bool) -> Sequence[Problem]:
        from ipshare.net.preflight import preflight

        facts = read_facts()
        found = preflight(netspec(config, facts), devices_exist=engine_runs)
        clustered = cluster_problems(config.clusters, facts.devices, facts.routes)
        short = memory_short(config) if not engine_runs else None
        paired = pair_preflight(config.pair) if config.pair is not None else ()
        return [*found, *clustered, *paired, *([short] if short is not None else ())]

    def apply(self, config: Config) -> Sequence[str]:
        from ipshare.net.apply import apply

        file = self._journal(config)
        try:
            report = apply(recipe(netspec(config, read_facts())), file)
        finally:
            self._kept = file.read_bytes() if file.exists() else b""
        return [*report.done, *(f"undone: {line}" for line in report.undone)]

    def missing(self, config: Config) -> Sequence[str]:
        from ipshare.net.actions import describe
        from ipshare.net.apply import missing

        lines = [describe(action) for action in missing(recipe(netspec(config, read_facts())))]
        file = _undo_file(config)
        return lines if file.exists() else [*lines, f"{file} is gone"]

    def left(self, config: Config) -> Sequence[str]:
        from ipshare.net.actions import RouteAdd, RuleAdd, describe
        from ipshare.net.apply import missing

        ours = [a for a in recipe(netspec(config, read_facts())) if isinstance(a, RouteAdd | RuleAdd)]
        gone = set(missing(ours))
        return [describe(action) for action in ours if action not in gone]

    def undo(self, config: Config) -> Sequence[str]:
        from ipshare.net.apply import undo

        report = undo(self._journal(config))
        self._kept = b""
        left = (f"left, somebody else changed it: {line}" for line in report.left)
        return [*(f"undone: {line}" for line in report.undone), *left]

    def _journal(self, config: Config) -> Path:
        """Its file, put back if it is gone."""
        file = _undo_file(config)
        if self._kept and not file.exists():
            make_runtime_dir(file.parent)
            file.write_bytes(self._kept)
            file.chmod(0o600)
        return file


def _undo_file(config: Config) -> Path:
    return config.node.runtime_dir / "net.undo"


def make_runtime_dir(path: Path) -> None:
    """Raises NoPrivilege or IpshareError. The sockets in it have modes of their own."""
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except PermissionError:
        raise NoPrivilege(f"may not make {path}", hint="run as root, or set runtime_dir in [node]") from None
    except OSError as error:
        raise IpshareError(
            f"cannot make {path}: {error.strerror}", hint="set runtime_dir in [node]"
        ) from error


class NodeLock:
    """Held by whoever changes the node: its agent for life, a command without agent for as long as it works.

    The kernel drops it with its holder. Raises Refused if another has it.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._fd = self._take()

    def keep(self) -> None:
        """Takes it again if somebody removed its file: what has no name keeps nobody out."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._fd), self._path.lstat()):
                return
        fd = self._take()
        os.close(self._fd)
        self._fd = fd

    def release(self) -> None:
        os.close(self._fd)

    @property
    def _path(self) -> Path:
        return self._config.node.runtime_dir / "lock"

    def _take(self) -> int:
        make_runtime_dir(self._config.node.runtime_dir)
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except PermissionError:
            raise NoPrivilege(f"may not use {self._path}", hint="run as root") from None
        except OSError as error:
            raise IpshareError(
                f"cannot make {self._path}: {error.strerror}", hint="make room there, or set runtime_dir"
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode(errors="replace").strip() or "another process"
            os.close(fd)
            raise Refused(
                f"node {self._config.node.name} is in the hands of process {holder}",
                hint="that is its agent, or another ipshare command: ask it, or end it",
            ) from None
        with contextlib.suppress(OSError):  # a full disk: only the name of the holder is missing
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd


@contextlib.contextmanager
def node_lock(config: Config) -> Iterator[NodeLock]:
    """The lock while the block runs. Raises Refused if another has it."""
    lock = NodeLock(config)
    try:
        yield lock
    finally:
        lock.release()


def remove_runtime_dir(config: Config) -> None:
    """After everything in it was undone, by the holder of the lock: no agent listens at a socket then."""
    for name in ("agent.sock", "lock"):
        (config.node.runtime_dir / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody else's files
        config.node.runtime_dir.rmdir()
