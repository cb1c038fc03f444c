"""launch: starts ipshare-engine and says why it did not start.

The engine gets a session of its own and outlives its starter. It runs in the caller's
network namespace. Readiness is the engine's own READY message (sd_notify), death is its pidfd: nobody polls.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ipshare
from ipshare.errors import EngineError, NoPrivilege, NotRunning

EXIT_PRIVILEGE = 4
READY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Engine:
    """A started engine. ``pidfd`` becomes readable when it dies; the starter reaps it with ``wait``."""

    process: subprocess.Popen[bytes]
    socket: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def terminate(self, timeout_s: float = 10.0) -> int:
        """Ends it in order (SIGTERM); returns its exit code. Raises ``EngineError`` if it does not end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"engine {self.pid} does not end", hint=f"kill -9 {self.pid}") from error


def binary() -> Path:
    """``IPSHARE_ENGINE``, else the one built with the package. Raises ``NotRunning`` if there is none."""
    path = Path(os.environ.get("IPSHARE_ENGINE") or Path(ipshare.__file__).parent / "_bin" / "ipshare-engine")
    if not path.is_file():
        raise NotRunning(f"{path} does not exist", hint="build the package, or set IPSHARE_ENGINE")
    return path


def arguments(
    socket_path: Path,
    *,
    workers: int | None = None,
    outer: str = "ips-out",
    inner: str = "ips-in",
    counter_cells: int | None = None,
    node: str = "",
    nice: int = 0,
    plain_io: bool = False,
) -> list[str]:
    """The engine's command line, for a service unit as well."""
    command = [str(binary()), "--socket", str(socket_path), "--outer", outer, "--inner", inner]
    if workers is not None:
        command += ["--workers", str(workers)]
    if counter_cells is not None:
        command += ["--counter-cells", str(counter_cells)]
    if node:
        command += ["--node", node]
    if nice:
        command += ["--nice", str(nice)]
    if plain_io:
        command.append("--plain-io")
    return command


def start(
    socket_path: Path | str,
    *,
    workers: int | None = None,
    outer: str = "ips-out",
    inner: str = "ips-in",
    counter_cells: int | None = None,
    node: str = "",
    nice: int = 0,
    plain_io: bool = False,
    log: Path | None = None,
    timeout_s: float = READY_TIMEOUT_S,
) -> Engine:
    """Starts an engine in the caller's network namespace and returns when it serves its socket.

    ``nice``: -20 to 0; without privilege it stays as it is.
    ``plain_io``: one system call per packet even where io_uring works.
    ``log``: file that its messages are appended to; None: they are dropped after the start.
    Raises ``EngineError`` (``NoPrivilege``) with the engine's own sentence and remedy.
    """
    path = Path(socket_path)
    command = arguments(
        path,
        workers=workers,
        outer=outer,
        inner=inner,
        counter_cells=counter_cells,
        node=node,
        nice=nice,
        plain_io=plain_io,
    )
    with (
        tempfile.TemporaryDirectory(prefix="ipshare-") as scratch,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
    ):
        ready.bind(f"{scratch}/ready")
        errors = log or Path(scratch) / "errors"
        offset = errors.stat().st_size if errors.exists() else 0
        process = _spawn([*command, "--json-errors"], errors, f"{scratch}/ready")
        if _wait_ready(process, ready, timeout_s):
            return Engine(process, path)
        raise _failure(process, errors, offset)


def _spawn(command: Sequence[str], errors: Path, notify: str) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WATCHDOG_")}
    environment["NOTIFY_SOCKET"] = notify
    with errors.open("ab") as stderr:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )


def _wait_ready(process: subprocess.Popen[bytes], ready: socket.socket, timeout_s: float) -> bool:
    """True: it is ready. False: it has ended, or the time is up."""
    pidfd = os.pidfd_open(process.pid)
    try:
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([ready.fileno(), pidfd], [], [], left)
            if ready.fileno() in readable and b"READY=1" in ready.recv(4096):
                return True
            if pidfd in readable:
                return False
        return False
    finally:
        os.close(pidfd)


def _failure(process: subprocess.Popen[bytes], errors: Path, offset: int) -> EngineError | NoPrivilege:
    code = process.poll()
    if code is None:
        process.kill()
        process.wait()
        return EngineError("the engine did not become ready in time", hint="see its log")
    with errors.open("rb") as file:
        file.seek(offset)
        lines = file.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        try:
            record = json.loads(line)
            kind = NoPrivilege if record["exit"] == EXIT_PRIVILEGE else EngineError
            return kind(record["error"], hint=record["hint"])
        except (ValueError, KeyError, TypeError):
            continue
    return EngineError(f"the engine ended at once with code {code}", hint="; ".join(lines[-3:]))
