"""Keys and signed updates at the builder's: what a box would not start from is not signed, nothing is written
over, no half of a key is left alone."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from ipshare.appliance import bundle, slots
from ipshare.errors import Refused


@pytest.fixture
def place(tmp_path: Path) -> Path:
    bundle.make_key(tmp_path / "key", tmp_path / "key.pub")
    (tmp_path / "slot").write_bytes(slots.SQUASHFS + bytes(100_000))
    return tmp_path


def snapshot(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}


@pytest.mark.parametrize("target", ["slot", "key", "link"])
def test_a_bundle_is_not_written_over_what_it_is_made_of(target: str, place: Path) -> None:
    (place / "link").symlink_to(place / "slot")
    before = snapshot(place)
    with pytest.raises(Refused, match="would be written over"):
        bundle.make(place / "slot", "1.1", place / "key", place / target)
    assert snapshot(place) == before


@pytest.mark.parametrize("version", ["", "a" * 5000, "1 1", "1\n1", "../1"])
def test_a_version_that_no_box_could_read_is_not_signed(version: str, place: Path) -> None:
    """Its line would be longer than the box takes: "no update bundle", of one that is signed."""
    with pytest.raises(Refused, match="is no version"):
        bundle.make(place / "slot", version, place / "key", place / "update")
    assert not (place / "update").exists()


@pytest.mark.parametrize("image", [b"", b"hsq", b"QFI\xfb" + bytes(1000), bytes(100_000)])
def test_only_a_slot_image_is_signed(image: bytes, place: Path) -> None:
    """The qcow2 of the same build fits into a slot, and starts nothing."""
    (place / "image").write_bytes(image)
    with pytest.raises(Refused, match="is no slot image"):
        bundle.make(place / "image", "1.1", place / "key", place / "update")
    assert not (place / "update").exists()


def test_no_half_of_a_key_is_made_or_replaced(place: Path) -> None:
    (place / "old.pub").write_text("of a key that is elsewhere")
    (place / "folder.pub").mkdir()
    before = snapshot(place)
    for name in ("old", "folder"):
        with pytest.raises(Refused, match=f"{name}.pub exists"):
            bundle.make_key(place / name, place / f"{name}.pub")
    (place / "key.pub").rename(place / "moved.pub")
    with pytest.raises(Refused, match="key exists"):
        bundle.make_key(place / "key", place / "key.pub")
    (place / "moved.pub").rename(place / "key.pub")
    assert snapshot(place) == before
    assert (place / "key").stat().st_mode & 0o777 == 0o600


def test_a_bundle_that_the_disk_does_not_take_leaves_the_one_before_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.make(place / "slot", "1.1", place / "key", place / "update")
    before = snapshot(place)
    opened = Path.open

    class Full(io.BytesIO):
        def write(self, piece: Any) -> int:
            raise OSError(28, "No space left on device")

    def full(path: Path, mode: str = "r", **how: Any) -> Any:
        if mode != "wb":
            return opened(path, mode, **how)
        opened(path, "wb").close()
        return Full()

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space"):
        bundle.make(place / "slot", "1.2", place / "key", place / "update")
    monkeypatch.undo()
    assert snapshot(place) == before


def test_a_bundle_may_go_into_a_pipe(place: Path) -> None:
    os.mkfifo(place / "pipe")
    got = list[bytes]()
    reader = threading.Thread(target=lambda: got.append((place / "pipe").read_bytes()), daemon=True)
    reader.start()
    bundle.make(place / "slot", "1.1", place / "key", place / "pipe")
    reader.join(30)
    assert got[0].endswith((place / "slot").read_bytes()) and (place / "pipe").is_fifo()


def test_of_what_is_no_key_no_more_is_read_than_shows_it(place: Path) -> None:
    """`--update-key` with the name of an image."""
    with (place / "image").open("wb") as file:
        file.truncate(64 << 20)
    assert len(bundle.key_text(place / "image")) == bundle.KEY_MOST
    with pytest.raises(Refused, match="holds no private key"):
        bundle.make(place / "slot", "1.1", place / "image", place / "update")
