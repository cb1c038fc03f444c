"""The box's clock: put forward to the last known time, never back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipshare.appliance import clock

BUILT, KEPT = 1_700_000_000.0, 1_800_000_000.0


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    kept, release = tmp_path / "appliance/clock", tmp_path / "release.json"
    release.touch()
    os.utime(release, (BUILT, BUILT))
    return kept, release


@pytest.mark.parametrize(
    ("now", "is_kept", "becomes"),
    [
        (0.0, True, KEPT),
        (0.0, False, BUILT),
        (BUILT + 5, True, KEPT),
        (BUILT + 5, False, None),
        (KEPT - 1, True, None),
        (KEPT, True, None),
        (KEPT + 10**9, True, None),
    ],
)
def test_an_empty_clock_begins_with_the_last_known_time(
    files: tuple[Path, Path], now: float, is_kept: bool, becomes: float | None
) -> None:
    kept, release = files
    if is_kept:
        assert clock.keep(kept, lambda: KEPT) == KEPT
    set_to, said = list[float](), list[str]()
    late = clock.put_forward(said.append, kept, release, lambda: now, set_to.append)
    if becomes is None:
        assert (set_to, said, late) == ([], [], 0.0)
    else:
        assert (set_to, late) == ([becomes], becomes - now)
        assert "UTC now" in said[0]


def test_a_time_that_chrony_put_back_is_kept_as_it_is(files: tuple[Path, Path]) -> None:
    kept, release = files
    clock.keep(kept, lambda: KEPT + 10**6)
    clock.keep(kept, lambda: KEPT)
    assert clock.known(kept, release) == KEPT


def test_nothing_is_known_without_files(tmp_path: Path) -> None:
    assert clock.known(tmp_path / "no", tmp_path / "none") == 0.0
