"""The epoch file: what is reserved survives, what is damaged is noticed (LESSONS 33: fencing tokens)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ipshare.pair.epoch import HIGHEST, BadEpochFile, EpochFile


@pytest.fixture
def file(tmp_path: Path) -> EpochFile:
    return EpochFile(tmp_path / "epoch", 3)


def test_what_was_reserved_is_loaded(file: EpochFile) -> None:
    assert file.load() is None
    for counter in (1, 2, 2, 700, HIGHEST):
        file.reserve(counter)
        assert file.load() == counter
    assert [path.name for path in file.path.parent.iterdir()] == ["epoch"]


@pytest.mark.parametrize("counter", (0, -1, 4, HIGHEST + 1))
def test_a_counter_never_falls(file: EpochFile, counter: int) -> None:
    file.reserve(5)
    with pytest.raises(ValueError, match="after 5"):
        file.reserve(counter)
    assert file.load() == 5


def test_a_write_that_was_torn_at_any_byte_is_noticed(file: EpochFile) -> None:
    file.reserve(1234)
    whole = file.path.read_bytes()
    for length in range(len(whole)):
        file.path.write_bytes(whole[:length])
        with pytest.raises(BadEpochFile, match="is damaged"):
            file.load()


def test_every_flipped_bit_is_noticed(file: EpochFile) -> None:
    file.reserve(1234)
    whole = file.path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.path.write_bytes(damaged)
        with pytest.raises(BadEpochFile):
            file.load()


def test_a_file_of_another_node_is_refused_with_a_hint(file: EpochFile) -> None:
    EpochFile(file.path, 4).reserve(9)
    with pytest.raises(BadEpochFile, match="belongs to node 4") as refused:
        file.load()
    assert "remove it" in refused.value.hint


def test_a_directory_in_its_place_is_refused(file: EpochFile) -> None:
    file.path.mkdir()
    with pytest.raises(BadEpochFile, match="cannot be read"):
        file.load()


STEPS = ("open", "write", "fsync", "close")


@pytest.mark.parametrize("step", STEPS)
def test_a_stop_before_any_step_leaves_the_old_or_the_new_value(
    file: EpochFile, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut before each call in turn; afterwards the next reservation works, whatever lies about."""
    file.reserve(5)
    real = getattr(os, step)
    seen = set()
    for number in range(4):
        count = iter(range(100))

        def cut(*args: Any, number: int = number, count: Any = count) -> Any:
            if next(count) == number:
                raise OSError(5, "power cut")
            return real(*args)

        with monkeypatch.context() as patched:
            patched.setattr(os, step, cut)
            before = file.load()
            try:
                file.reserve((before or 0) + 1)
            except OSError:
                seen.add("cut")
            else:
                seen.add("done")
        assert file.load() in (before, (before or 0) + 1)
    file.reserve(100)
    assert file.load() == 100 and seen == {"cut", "done"}


def test_data_is_on_disk_before_the_name_and_the_name_before_the_return(
    file: EpochFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for name in ("write", "fsync"):
        real = getattr(os, name)

        def noted(*args: Any, name: str = name, real: Any = real) -> Any:
            order.append(name)
            return real(*args)

        monkeypatch.setattr(os, name, noted)
    rename = Path.replace

    def renamed(self: Path, target: Path) -> Path:
        order.append("replace")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", renamed)
    file.reserve(1)
    assert order == ["write", "fsync", "replace", "fsync"]


def test_short_writes_are_continued(file: EpochFile, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    file.reserve(77)
    assert file.load() == 77
