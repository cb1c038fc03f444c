"""A VPP with more workers than the machine has processors for: processors.c, built when first asked for.

settings, before = crowded(Settings(directory, workers=2))
start(settings, wrap=(*namespace, *before))
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from ipshare.engine.vpp.startup import Settings

RELATIVE = "cpu { relative main-core 0 }"
"""VPP asks the kernel which processors it may use, instead of which there are."""


@functools.cache
def _library() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """It goes with the tests' process."""
    directory = tempfile.TemporaryDirectory(prefix="ipshare-processors-")
    made = Path(directory.name) / "processors.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-o", str(made), str(source), "-ldl"], check=True)
    return directory, made


def crowded(settings: Settings) -> tuple[Settings, tuple[str, ...]]:
    """What such a VPP needs, and the command before its own; nothing where there are enough processors."""
    needed = settings.workers + 1
    if needed <= len(os.sched_getaffinity(0)):
        return settings, ()
    before = ("nice", "-n", "-10", "env", f"LD_PRELOAD={_library()[1]}", f"IPSHARE_PROCESSORS={needed}")
    return replace(settings, extra=f"{settings.extra}\n{RELATIVE}"), before
