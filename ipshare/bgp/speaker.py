"""speaker: the BIRD of a node: started, told its configuration, watched, ended. Blocking; thread-safe.

Files in runtime_dir: bird.conf (0600: passwords), bird.ctl, bird.pid, bird.log. BIRD outlives its agent,
and the next one finds it by its control socket; what bird.conf says is what it announces. A change is a new
bird.conf and `configure`: sessions go on. `hold` comes before every start of an engine: the new device must
not bring the announcement back before the engine has its tables. It also makes void what was decided before
it: `publish` takes the number of holds that its decision was made after.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ipshare.bgp.control import BirdGone, Control, Session
from ipshare.bgp.render import held, is_announcing
from ipshare.errors import EngineError, IpshareError, NotRunning

log = logging.getLogger(__name__)
START_S, END_S = 5.0, 5.0
LOG_BYTES = 1 << 20
"""A longer bird.log is begun again when BIRD starts."""
INSTALL = "apt-get install bird2"
OLDEST = 2
MOST_SILENCES = 3
NAMESPACES, OURS = Path("/run/netns"), Path("/proc/self/ns/net")
_FILES = ("bird.conf", "bird.ctl", "bird.pid", "bird.log")


@dataclass(frozen=True, slots=True)
class Report:
    """What BIRD says. ``bfd``: by address of the neighbour."""

    pid: int
    version: str
    sessions: dict[str, Session]
    bfd: dict[str, str]


def find() -> str:
    """The program. Raises NotRunning where there is none."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    program = os.environ.get("IPSHARE_BIRD") or shutil.which("bird", path=path)
    if program is None:
        raise NotRunning("announcing needs BIRD 2, and there is none on this machine", hint=INSTALL)
    return program


class Speaker:
    """Of whatever node's runtime_dir is given. One for each process that changes nodes."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.holds = 0
        self._child = self._silences = 0

    def is_there(self, runtime_dir: Path) -> bool:
        return (runtime_dir / "bird.ctl").exists()

    def is_announcing(self, runtime_dir: Path) -> bool:
        """Whether a BIRD that runs was told to announce."""
        with self._lock:
            return self._runs(runtime_dir) and is_announcing(self._text(runtime_dir))

    def _runs(self, runtime_dir: Path) -> bool:
        """Whether one answers. Who stays silent is ended at the third time: its sessions are dead by then."""
        try:
            with Control(runtime_dir / "bird.ctl"):
                self._silences = 0
                return True
        except BirdGone:
            return False
        except EngineError as error:
            self._silences += 1
            if self._silences < MOST_SILENCES:
                raise
            log.error("%s: it is ended", error.message)
            self._kill(runtime_dir)
            return False

    def publish(self, runtime_dir: Path, text: str, holds: int, namespace: str = "") -> bool:
        """BIRD has the configuration ``text``; it is started if it does not run. False: everything was so
        already, or ``hold`` came in between. ``namespace``: below /run/netns, that it runs in; "": ours. One
        that runs in another is ended. Raises NotRunning, EngineError."""
        with self._lock:
            if holds != self.holds:
                return False
            runs = self._runs(runtime_dir) and self._is_in(namespace, runtime_dir)
            if runs and text == self._text(runtime_dir):
                return False
            before = self._text(runtime_dir)
            try:
                self._write(runtime_dir, text)
                if runs:
                    self._configure(runtime_dir)
                else:
                    self._start(runtime_dir, namespace)
            except OSError as error:
                raise EngineError(f"cannot tell BIRD: {error}", hint="is the disk full?") from None
            except IpshareError:
                if runs:  # it goes on with what it had, and the file says so
                    self._write(runtime_dir, before)
                raise
            return True

    def hold(self, runtime_dir: Path) -> None:
        """Nothing is announced from now on, until ``publish``. A BIRD that does not obey is ended."""
        with self._lock:
            self.holds += 1
            if not self.is_there(runtime_dir):
                return
            text = self._text(runtime_dir)
            try:
                if is_announcing(text):
                    self._write(runtime_dir, held(text))
                    self._configure(runtime_dir)
            except BirdGone:
                return
            except (IpshareError, OSError) as error:
                log.error("BIRD does not withdraw (%s): it is ended", error)
                self._kill(runtime_dir)

    def end(self, runtime_dir: Path) -> bool:
        """BIRD closes its sessions and ends; its files go. True: it ran."""
        with self._lock:
            self.holds += 1
            if not self.is_there(runtime_dir):
                return False
            pid = self._pid(runtime_dir)
            with contextlib.suppress(IpshareError), Control(runtime_dir / "bird.ctl") as control:
                control.call("down")
            if pid and not _wait_gone(pid, END_S):
                self._kill(runtime_dir)
            for name in _FILES:
                (runtime_dir / name).unlink(missing_ok=True)
            return bool(pid)

    def report(self, runtime_dir: Path) -> Report:
        """Raises BirdGone, EngineError."""
        with Control(runtime_dir / "bird.ctl") as control:
            return Report(self._pid(runtime_dir), control.version, control.sessions(), control.bfd())

    # ---- inside ---------------------------------------------------------------

    def _version(self, runtime_dir: Path) -> str:
        """Of the BIRD that runs; "": none."""
        try:
            with Control(runtime_dir / "bird.ctl") as control:
                return control.version
        except BirdGone:
            return ""

    def _text(self, runtime_dir: Path) -> str:
        try:
            return (runtime_dir / "bird.conf").read_text()
        except FileNotFoundError:
            return ""

    def _write(self, runtime_dir: Path, text: str) -> None:
        aside = runtime_dir / "bird.conf.new"
        aside.unlink(missing_ok=True)
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w") as file:
            file.write(text)
        aside.replace(runtime_dir / "bird.conf")

    def _configure(self, runtime_dir: Path) -> None:
        with Control(runtime_dir / "bird.ctl") as control:
            control.call("configure")

    def _is_in(self, namespace: str, runtime_dir: Path) -> bool:
        """Whether BIRD sees that network. One of the same name that was made anew is another one."""
        if not (pid := self._pid(runtime_dir)):
            return True  # it answers, and that is all that is known of it
        try:
            there = Path(f"/proc/{pid}/ns/net").stat().st_ino
            return there == (NAMESPACES / namespace if namespace else OURS).stat().st_ino
        except OSError:
            return False

    def _start(self, runtime_dir: Path, namespace: str) -> None:
        """Returns when it answers. Files that a killed one left are no hindrance; one that runs although its
        socket was removed is ended."""
        program, journal = find(), runtime_dir / "bird.log"
        self._kill(runtime_dir)
        (runtime_dir / "bird.ctl").unlink(missing_ok=True)
        if journal.exists() and journal.stat().st_size > LOG_BYTES:
            journal.unlink()
        files = {"-c": "bird.conf", "-s": "bird.ctl", "-P": "bird.pid"}
        words = [word for option, name in files.items() for word in (option, str(runtime_dir / name))]
        within = ["nsenter", f"--net={_there(namespace)}"] if namespace else []
        with journal.open("ab") as out:
            start = out.tell()
            process = subprocess.Popen(
                [*within, program, "-f", *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < end:
            version = self._version(runtime_dir)
            if version and int(version.partition(".")[0]) < OLDEST:
                process.kill()
                process.wait()
                raise NotRunning(f"{program} is BIRD {version}: announcing needs BIRD 2", hint=INSTALL)
            if version:
                process.returncode = 0  # it outlives us: Popen must not warn; _wait_gone reaps
                self._child = process.pid
                return
            _wait_gone(process.pid, 0.02)
        if process.poll() is None:
            process.kill()
            process.wait()
        words_ = journal.read_bytes()[start:].decode(errors="replace").strip().splitlines()
        raise EngineError(
            f"BIRD did not start: {words_[-1] if words_ else 'it said nothing'}", hint=f"see {journal}"
        )

    def _pid(self, runtime_dir: Path) -> int:
        """Of the BIRD with this control socket, by its pid file; 0: none."""
        try:
            pid = int((runtime_dir / "bird.pid").read_text())
        except (OSError, ValueError):
            return 0
        return pid if _is_ours(pid, runtime_dir) else 0

    def _kill(self, runtime_dir: Path) -> None:
        """All that were started with this control socket."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        for pid in pids:
            if _is_ours(pid, runtime_dir):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                _wait_gone(pid, END_S)
        if self._child:
            _wait_gone(self._child, 0)
            self._child = 0


def _there(namespace: str) -> Path:
    path = NAMESPACES / namespace
    if not path.exists():
        hint = f"ip netns add {namespace}"
        raise NotRunning(f"there is no network namespace {namespace} for BIRD to run in", hint=hint)
    return path


def _is_ours(pid: int, runtime_dir: Path) -> bool:
    """A number in a file proves nothing."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return str(runtime_dir / "bird.ctl").encode() in words and b"-P" in words


def _wait_gone(pid: int, timeout_s: float) -> bool:
    """Whether the process ended in time; a child of ours is reaped."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        gone = bool(select.select([fd], [], [], timeout_s)[0])
    finally:
        os.close(fd)
    with contextlib.suppress(ChildProcessError):
        if gone:
            os.waitpid(pid, os.WNOHANG)
    return gone
