"""The plugin under a sanitizer, in VPP: no packet test leaves a word about our code in its log.

`make plugin SAN=undefined` builds it, with UBSan: overflows, shifts, misaligned and null accesses, indexes
past a known end, values that no bool or enum has. It sees what is compiled with the plugin: the core,
native/rt, the plugin's own sources, and VPP's headers as far as they are inlined there; not VPP itself.
What it says of those headers is VPP's: its lookups read addresses where they lie in the packet, aligned or
not.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipshare.lab import userns
from tests.sanitized import ROOT
from tests.vpp.vpp_process import vpp

pytestmark = [pytest.mark.skipif(not userns.is_root(), reason="needs root"), pytest.mark.timeout(3600)]
PACKETS = ("cases", "properties", "replies", "flows", "remap", "groups", "workers", "leases")
"""What is run: tests/vpp/test_..._vpp.py."""
BUILT_BEFORE = "MAKEFLAGS", "MAKELEVEL", "MFLAGS"


def plugins(sanitizer: str) -> Path:
    """The directory with the plugin, built if need be: a few minutes."""
    directory = ROOT / "build" / f"plugin-{sanitizer}"
    directory.parent.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in BUILT_BEFORE}
    with (directory.parent / f"plugin-{sanitizer}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["make", "-s", "plugin", f"SAN={sanitizer}"]
        made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return directory / "lib" / "vpp_plugins"


def test_no_undefined_behaviour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPSHARE_VPP_PLUGINS", str(plugins("undefined")))
    monkeypatch.setenv("UBSAN_OPTIONS", f"log_path={tmp_path}/found")
    with vpp() as running:
        loaded = Path(f"/proc/{running.process.pid}/maps").read_text()
        assert "libubsan" in loaded and "plugin-undefined" in loaded
    files = [f"tests/vpp/test_{name}_vpp.py" for name in PACKETS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = [line for log in sorted(tmp_path.glob("found.*")) for line in log.read_text().splitlines()]
    found = {line for line in said if "runtime error" in line and line.startswith(f"{ROOT}/")}
    assert not found, "\n".join(said)
    assert done.returncode == 0, done.stdout[-8000:]
