"""The C parts built under a sanitizer, for the tests that run them.

``build`` asks native/Makefile, which keeps what is up to date: the first run of the tests compiles, the
next one does not. ``run`` makes every finding an exit code. The compilers may come without a sanitizer's
run-time library: ``Missing`` says so.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "native"
MEMORY, THREADS = "address,undefined", "thread"
OUTCOME = subprocess.CompletedProcess[str]
ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=0:exitcode=99:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=99",
}


class Missing(Exception):
    """The compiler cannot build or run with this sanitizer here; the text says why."""


def build(*targets: str, sanitizer: str = "") -> Path:
    """Makes targets of native/Makefile and returns the directory with the results.

    Raises ``Missing`` where the sanitizer's library is not installed. Test runs may build side by side.
    """
    directory = NATIVE / "build" / sanitizer
    directory.mkdir(parents=True, exist_ok=True)
    command = ["make", "-s", f"-j{os.cpu_count() or 1}", "-C", str(NATIVE), f"PYTHON={sys.executable}"]
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(
            [*command, f"SAN={sanitizer}", *targets], capture_output=True, text=True, env=_plain_environment()
        )
    if library := re.search(r"cannot find \S*(?:san|fuzzer)\S*", made.stderr):
        raise Missing(f"{library[0]}: the compiler's sanitizer libraries are not installed")
    assert made.returncode == 0, made.stderr
    return directory


def run(*command: str | Path, timeout_s: float = 200, cwd: Path | None = None) -> OUTCOME:
    """Runs a sanitized program. Raises ``Missing`` where the kernel's address layout leaves it no room."""
    done = _run(command, timeout_s, cwd)
    if "unexpected memory mapping" in done.stderr:  # ThreadSanitizer with more random bits than it knows
        done = _run(("setarch", "-R", *command), timeout_s, cwd)
    if "unexpected memory mapping" in done.stderr:
        raise Missing("ThreadSanitizer cannot run with this kernel's address layout (vm.mmap_rnd_bits)")
    return done


def library(name: str) -> str:
    """Path of gcc's run-time library ``name``, to be preloaded. Raises ``Missing``."""
    found = subprocess.check_output(["gcc", f"-print-file-name={name}"], text=True).strip()
    if not Path(found).is_absolute():
        raise Missing(f"gcc has no {name} here")
    return found


def _run(command: tuple[str | Path, ...], timeout_s: float, cwd: Path | None) -> OUTCOME:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        cwd=cwd,
        env=_plain_environment() | ENVIRONMENT,
    )


def _plain_environment() -> dict[str, str]:
    """Without what an outer make or a preloaded sanitizer left."""
    left = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "LD_PRELOAD", "CFLAGS", "SAN")
    return {key: value for key, value in os.environ.items() if key not in left}
