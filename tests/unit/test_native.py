"""Every program of native/tests under AddressSanitizer and UBSan; with threads, under ThreadSanitizer too."""

from __future__ import annotations

import pytest

from tests import sanitized

SOURCES = sorted((sanitized.NATIVE / "tests").glob("*.c"))
RUNS = [(source.stem, sanitized.MEMORY) for source in SOURCES] + [
    (source.stem, sanitized.THREADS) for source in SOURCES if "pthread_create" in source.read_text()
]


def test_there_are_programs_of_both_kinds() -> None:
    assert {sanitizer for _, sanitizer in RUNS} == {sanitized.MEMORY, sanitized.THREADS}


@pytest.mark.parametrize(("program", "sanitizer"), RUNS, ids=[f"{name}-{san}" for name, san in RUNS])
def test_program(program: str, sanitizer: str) -> None:
    """It ends well, says what it did, and no sanitizer objects."""
    try:
        built = sanitized.build(f"build/{sanitizer}/tests/{program}", sanitizer=sanitizer)
        done = sanitized.run(built / "tests" / program)
    except sanitized.Missing as why:
        pytest.skip(f"{sanitizer} NOT RUN: {why}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(int(word) > 0 for word in done.stdout.split() if word.isdigit()), "it checked nothing"
