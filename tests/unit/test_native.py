"""Every program of native/tests under AddressSanitizer and UBSan; with threads, under ThreadSanitizer too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import sanitized
from tests.ahead import AHEAD_S, Ahead, ahead

SOURCES = sorted((sanitized.NATIVE / "tests").glob("*.c"))
RUNS = [(source.stem, sanitized.MEMORY) for source in SOURCES] + [
    (source.stem, sanitized.THREADS) for source in SOURCES if "pthread_create" in source.read_text()
]


def test_there_are_programs_of_both_kinds() -> None:
    assert {sanitizer for _, sanitizer in RUNS} == {sanitized.MEMORY, sanitized.THREADS}


def run(program: str, sanitizer: str) -> sanitized.OUTCOME:
    built = sanitized.build(f"build/{sanitizer}/tests/{program}", sanitizer=sanitizer)
    return sanitized.run(built / "tests" / program)


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Ahead[sanitized.OUTCOME]]:
    with ahead(request, "test_program", run) as found:
        yield found


@pytest.mark.timeout(AHEAD_S)
@pytest.mark.parametrize(("program", "sanitizer"), RUNS, ids=[f"{name}-{san}" for name, san in RUNS])
def test_program(
    program: str, sanitizer: str, runs: Ahead[sanitized.OUTCOME], request: pytest.FixtureRequest
) -> None:
    """It ends well, says what it did, and no sanitizer objects."""
    try:
        done = runs[request]
    except sanitized.Missing as why:
        pytest.skip(f"{sanitizer} NOT RUN: {why}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(int(word) > 0 for word in done.stdout.split() if word.isdigit()), "it checked nothing"
