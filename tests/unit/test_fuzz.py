"""Every target of native/fuzz under libFuzzer, ASan and UBSan, from the seeds of the packet cases.

What a target claims stands at its top. IPSHARE_FUZZ_SECONDS gives each one more time than it has here; for
hours, and with a corpus that stays: ``make fuzz TARGET=fuzz_parse SECONDS=3600``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sanitized
from tests.ahead import AHEAD_S, Ahead, ahead
from tests.cases import seeds

SECONDS = int(os.environ.get("IPSHARE_FUZZ_SECONDS", "5"))
TARGETS = sorted(source.stem for source in (sanitized.NATIVE / "fuzz").glob("*.c"))
pytestmark = pytest.mark.skipif(shutil.which("clang") is None, reason="FUZZ TARGETS NOT RUN: no clang")


@pytest.fixture(scope="module")
def programs() -> Path:
    try:
        return sanitized.build("fuzz") / "fuzz"
    except sanitized.Missing as why:
        pytest.skip(f"FUZZ TARGETS NOT RUN: {why} (Debian: libclang-rt-dev)")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("seeds")
    seeds.write(directory)
    return directory


def test_every_target_has_seeds() -> None:
    assert sorted(seeds.TARGETS) == TARGETS


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, programs: Path, inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ahead[tuple[sanitized.OUTCOME, Path]]]:
    """Of each target: its end, and the directory in which it leaves what it found."""

    def fuzz(target: str) -> tuple[sanitized.OUTCOME, Path]:
        directory = tmp_path_factory.mktemp(target)
        corpus = directory / "corpus"
        corpus.mkdir()
        options = (f"-max_total_time={SECONDS}", "-max_len=4096", "-timeout=20", "-print_final_stats=1")
        apart = ("sh", "-c", '"$@"; exit $?', "sh")  # else what pytest once needed counts as its own
        words = (*apart, programs / target, *options, corpus, inputs / target)
        return sanitized.run(*words, timeout_s=SECONDS + 200, cwd=directory), directory

    with ahead(request, "test_target", fuzz) as found:
        yield found


@pytest.mark.timeout(AHEAD_S)
@pytest.mark.parametrize("target", TARGETS)
def test_target(
    target: str, runs: Ahead[tuple[sanitized.OUTCOME, Path]], request: pytest.FixtureRequest, inputs: Path
) -> None:
    """No input breaks a claim; each seed is one of the inputs."""
    done, directory = runs[request]
    found = [
        file for file in directory.iterdir() if file.name.startswith(("crash-", "leak-", "timeout-", "oom-"))
    ]
    words = "\n".join(f"{file}: {file.read_bytes().hex()}" for file in found)
    assert done.returncode == 0 and not found, f"{words}\n{done.stderr[-4000:]}"
    executed = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    assert executed and int(executed[1]) > len(list((inputs / target).iterdir())), done.stderr[-1000:]
