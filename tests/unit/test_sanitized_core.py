"""The tests of the C core once more with the core under AddressSanitizer and UBSan behind Python.

Buffers of cffi are allocations of their own then (PYTHONMALLOC), so that one byte past a packet is seen. What
is slow because of its number of packets is left out: the fuzz targets do that faster.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest

from tests import sanitized
from tests.ahead import AHEAD_S, Ahead, ahead

PACKETS = (
    "test_forward.py",
    "test_encap.py",
    "test_encap_errors.py",
    "test_gro.py",
    "test_gso.py",
    "test_fragments.py",
    "test_translate.py",
    "test_translate_generated.py",
    "test_translate_mss.py",
    "test_icmp_errors.py",
    "test_tables.py",
    "test_tables_errors.py",
    "test_worker.py",
    "test_vip.py",
    "test_pair_codec.py",
)
FLOWS = (
    "test_dispatch_packets.py",
    "test_napt.py",
    "test_napt_packets.py",
    "test_napt_sequences.py",
    "test_natlog.py",
    "test_sessions.py",
)
CHANNEL = ("test_seal.py", "test_mirror.py", "test_mirror_wire.py")
LEFT_OUT = (
    "truncated",
    "flipped",
    "chain",
    "thousands",
    "fifty_thousand",
    "crowded",
    "test_view",
    "only_whole_echo_requests",
    "every_order",
    "against_a_set",
    "evenly",
)


GROUPS = {"packets": (PACKETS, 1500), "flows": (FLOWS, 200), "channel": (CHANNEL, 80)}


def run(files: tuple[str, ...], at_least: int) -> sanitized.OUTCOME:
    core = sanitized.build("module", sanitizer=sanitized.MEMORY) / "_native.abi3.so"
    preload = sanitized.library("libasan.so")
    settings = {
        "LD_PRELOAD": preload,
        "PYTHONMALLOC": "malloc",
        "HYPOTHESIS_PROFILE": "quick",
        "IPSHARE_TEST_CORE": str(core),
        "ASAN_OPTIONS": sanitized.ENVIRONMENT["ASAN_OPTIONS"] + ":detect_leaks=0",
    }
    chosen = " and ".join(f"not {word}" for word in LEFT_OUT)
    return sanitized.run(
        *("env", *(f"{name}={value}" for name, value in settings.items())),
        *(sys.executable, "-m", "pytest", "-q", "-p", "tests.sanitized_door", "-k", chosen),
        *(sanitized.ROOT / "tests" / "unit" / name for name in files),
        cwd=sanitized.ROOT,
        timeout_s=AHEAD_S,
    )


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Ahead[sanitized.OUTCOME]]:
    with ahead(request, "test_core_tests", run) as found:
        yield found


@pytest.mark.timeout(AHEAD_S)
@pytest.mark.parametrize(("files", "at_least"), GROUPS.values(), ids=GROUPS)
def test_core_tests(
    files: tuple[str, ...], at_least: int, runs: Ahead[sanitized.OUTCOME], request: pytest.FixtureRequest
) -> None:
    try:
        done = runs[request]
    except sanitized.Missing as why:
        pytest.skip(f"CORE TESTS NOT RUN UNDER {sanitized.MEMORY}: {why}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > at_least, done.stdout[-1000:]
