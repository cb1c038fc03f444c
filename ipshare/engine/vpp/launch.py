"""launch: starts a VPP of our own, and says in VPP's words why it did not start.

Writes startup.conf, starts VPP in the caller's network namespace (in a session of its own: it outlives its
starter), and waits until its API socket answers: inotify tells of the socket, a pidfd of VPP's death. For a
VPP that somebody else manages none of this is needed: see engine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket as sockets
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ipshare.engine.vpp.cards import addresses
from ipshare.engine.vpp.find import PLUGIN, find
from ipshare.engine.vpp.startup import Settings, startup_conf
from ipshare.errors import EngineError, NoPrivilege

READY_TIMEOUT_S = 180.0
"""For one that neither ends nor answers, on a machine however slow: its end is noticed at once."""
STOP_TIMEOUT_S = 10.0
IN_CREATE = 0x100
QUIET = ("vat-plug/load", "received signal", "received SIG")
"""Lines of VPP that explain nothing."""
SHOWN = 4
LONGEST_SOCKET = 107
"""Bytes of a Unix socket's path (sun_path)."""


@dataclass(frozen=True, slots=True)
class Vpp:
    """A VPP that was started. ``process`` is reaped by ``terminate``, or by its starter."""

    process: subprocess.Popen[bytes]
    settings: Settings

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def printed(self) -> str:
        """The last lines of what VPP printed, those that explain nothing left out."""
        return said(self.settings.log)

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Ends it in order and removes its files; returns its exit code. Raises ``EngineError``."""
        if self.is_alive():
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"VPP {self.pid} does not end", hint=f"kill -9 {self.pid}") from error
        clean(self.settings)
        return code


def start(
    settings: Settings,
    *,
    needs_plugin: bool = True,
    wrap: Sequence[str] = (),
    timeout_s: float = READY_TIMEOUT_S,
) -> Vpp:
    """Starts VPP and returns when its API answers. ``wrap``: a command that runs VPP (nsenter, taskset).

    ``needs_plugin`` False: start even without ours. Raises ``EngineError`` (``NoPrivilege``) with what VPP
    said, ``NotRunning``: VPP is not installed, ``Refused``: a card is not there.
    """
    install = find(settings.binary, settings.plugin_path)
    if needs_plugin and install.plugin is None:
        looked = ", ".join(str(path) for path in install.plugin_dirs)
        raise EngineError(
            f"{PLUGIN} is nowhere: looked in {looked}",
            hint="install vpp-plugin-ipshare, or set IPSHARE_VPP_PLUGINS to its directory",
        )
    for path in (settings.api, settings.stats, settings.cli):
        if len(bytes(path)) > LONGEST_SOCKET:
            raise EngineError(f"{path} is too long for a socket", hint="use a shorter directory")
    clean(settings)
    conf = settings.directory / "startup.conf"
    conf.write_text(startup_conf(settings, install, addresses(settings.metal.cards)))
    with contextlib.closing(_Watch(settings.api.parent)) as watch:
        with settings.log.open("wb") as output:
            process = subprocess.Popen(
                [*wrap, str(install.binary), "-c", str(conf)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            is_ready = _wait_ready(process, watch, settings.api, timeout_s)
        except BaseException:  # ^C: nobody would know of it
            _end(process, settings)
            raise
    if not is_ready:
        raise _failure(process, settings)
    if settings.floats:
        _float(process.pid)
    _unname_shared_memory(settings)
    return Vpp(process, settings)


def clean(settings: Settings) -> None:
    """Removes what a VPP that has ended leaves behind."""
    for path in (settings.api, settings.stats, settings.cli):
        path.unlink(missing_ok=True)
    _unname_shared_memory(settings)


def _unname_shared_memory(settings: Settings) -> None:
    """VPP keeps what it has mapped. Only clients of its old shared-memory API need the names, and a VPP that
    is killed would leave them, and the memory, behind."""
    for name in ("vpe-api", "global_vm"):
        Path(f"/dev/shm/{settings.prefix}-{name}").unlink(missing_ok=True)


def said(log: Path, lines: int = SHOWN) -> str:
    """The last ``lines`` of VPP's log that explain something, in one line; empty: nothing."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    kept = (" ".join(line.split()) for line in text.splitlines() if not line.startswith(QUIET))
    return "; ".join([line for line in kept if line][-lines:])


def _wait_ready(process: subprocess.Popen[bytes], watch: _Watch, path: Path, timeout_s: float) -> bool:
    """True: it serves its API. False: it has ended, or the time is up."""
    pidfd = os.pidfd_open(process.pid)
    try:
        deadline = time.monotonic() + timeout_s
        wait_s = timeout_s
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([watch.fd, pidfd], [], [], min(left, wait_s))
            if pidfd in readable:
                return False
            if watch.fd in readable:
                watch.drain()
            if _accepts(path):
                return True
            wait_s = 0.005 if path.exists() else left  # bound, and about to listen: no event tells of that
        return False
    finally:
        os.close(pidfd)


def _float(pid: int) -> None:
    """VPP pins its main thread to where it happened to start: of several on one machine all may sit there."""
    with contextlib.suppress(OSError):  # it has just ended, or we may not: it works all the same
        os.sched_setaffinity(pid, os.sched_getaffinity(0))


def _accepts(path: Path) -> bool:
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def _end(process: subprocess.Popen[bytes], settings: Settings) -> None:
    process.kill()
    process.wait()
    clean(settings)


def _failure(process: subprocess.Popen[bytes], settings: Settings) -> EngineError | NoPrivilege:
    code = process.poll()
    _end(process, settings)
    words = said(settings.log)
    if code is None:
        return EngineError("VPP did not become ready in time", hint=words or "see its log")
    if os.geteuid() != 0 and "ermission" in words:
        return NoPrivilege(f"VPP did not start: {words}", hint="run as root")
    ended = f"signal {-code}" if code < 0 else f"code {code}"
    return EngineError(f"VPP did not start: {words or ended}", hint=f"see {settings.log}")


class _Watch:
    """inotify on a directory: ``fd`` is readable when something was created there."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0 or libc.inotify_add_watch(self.fd, bytes(directory), IN_CREATE) < 0:
            why = os.strerror(ctypes.get_errno())
            raise EngineError(f"cannot watch {directory}: {why}", hint="does it exist?")

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.fd, 4096):
                pass

    def close(self) -> None:
        os.close(self.fd)
