"""An installation medium: what is made of a raw image, a disk made of it, and which disks are refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ipshare.appliance import disks, grub, iso, layout, medium
from ipshare.errors import IpshareError, Refused

SLOT_MIB, DATA_MIB = 2, 3


def made(place: Path) -> tuple[medium.Medium, Path, Path]:
    """A medium of a small raw image with noise in it; its directory, and the image."""
    plan, noise = layout.disk(SLOT_MIB, DATA_MIB), random.Random(7)
    place.mkdir()
    slot, raw = place / medium.SLOT, place.parent / "image.raw"
    slot.write_bytes(noise.randbytes(layout.MIB + 512))
    with raw.open("wb") as disk:
        disk.write(noise.randbytes(medium.CODE))
        for part, size in (("bios", 4096), ("esp", 70_000), ("data", 5000)):
            disk.seek(plan[part].start)
            disk.write(noise.randbytes(size))
        disk.seek(plan["a"].start)
        disk.write(slot.read_bytes())
        disk.truncate(plan.size)
    return medium.make(raw, slot, "1.0", SLOT_MIB, DATA_MIB, place), place, raw


def target(place: Path, more: int = 0) -> Path:
    """A disk with something on it that was there before."""
    path = place / "disk"
    path.write_bytes(b"old!" * ((layout.disk(SLOT_MIB, DATA_MIB).size + more) // 4))
    return path


def test_a_disk_is_made_of_a_medium(tmp_path: Path) -> None:
    about, place, raw = made(tmp_path / "m")
    assert medium.read(place) == about and about.disk == layout.disk(SLOT_MIB, DATA_MIB)
    said: list[str] = []
    disk = target(tmp_path, more=4 * layout.MIB)
    medium.install(about, place, disk, said.append)
    image, written = raw.read_bytes(), disk.read_bytes()
    assert written[: medium.CODE] == image[: medium.CODE]
    for name in ("bios", "esp", "data"):
        part = about.disk[name]
        assert written[part.start : part.start + part.size] == image[part.start : part.start + part.size], (
            name
        )
    at = about.disk["a"].start
    assert written[at : at + about.pieces[1].size] == (place / medium.SLOT).read_bytes()
    assert b"old!" not in written[: layout.MIB] and written[-512:-504] == b"EFI PART", (
        "the table fits the disk"
    )
    assert said[-1] == "written; reading it back" and len(said) == 4
    assert medium.make(raw, place / medium.SLOT, "1.0", SLOT_MIB, DATA_MIB, place) == about, "always the same"


@pytest.mark.parametrize("file", ["boot.gz", medium.SLOT, "data.gz"])
@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_a_bad_medium_leaves_a_disk_that_does_not_boot(tmp_path: Path, file: str, harm: str) -> None:
    about, place, _ = made(tmp_path / "m")
    octets = bytearray((place / file).read_bytes())
    octets[len(octets) // 2] ^= 1
    (place / file).write_bytes(octets[: len(octets) // 2] if harm == "cut" else octets)
    disk = target(tmp_path)
    with pytest.raises(IpshareError):
        medium.install(about, place, disk, lambda _: None)
    with disk.open("rb") as left:
        assert left.read(layout.MIB) == bytes(layout.MIB), "neither code nor table"


def test_what_is_read_back_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about, place, _ = made(tmp_path / "m")
    disk, write = target(tmp_path), medium._write

    def forgetful(file: object, source: Path, piece: medium.Piece) -> None:
        write(file, source, piece)  # type: ignore[arg-type]
        if piece.file == medium.SLOT:
            with disk.open("r+b") as again:
                again.seek(piece.start + 600)
                again.write(b"\xff" * 8)

    monkeypatch.setattr(medium, "_write", forgetful)
    with pytest.raises(IpshareError, match="read back of ipshare.slot"):
        medium.install(about, place, disk, lambda _: None)
    assert disk.read_bytes()[: layout.MIB] == bytes(layout.MIB)


def test_no_medium_and_one_of_another_layout(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not started from an installation medium"):
        medium.read(tmp_path)
    _, place, _ = made(tmp_path / "m")
    text = (place / "disk.json").read_text()
    (place / "disk.json").write_text(text.replace('"number": 1', '"number": 2'))
    with pytest.raises(Refused, match="layout 2"):
        medium.read(place)
    for end in range(0, len(text) - 2, 9):
        (place / "disk.json").write_text(text[:end])
        with pytest.raises(Refused, match="cannot be read"):
            medium.read(place)
    for name, value in (
        ("start", -1),
        ("start", 1 << 60),
        ("size", "x"),
        ("slot_mib", None),
        ("slot_mib", "64"),
    ):
        record = json.loads(text)
        (record if name in record else record["pieces"][0])[name] = value
        (place / "disk.json").write_text(json.dumps(record))
        with pytest.raises(Refused, match="lies on no disk"):
            medium.read(place)


def machine(root: Path) -> Path:
    mounts = "20 1 8:0 / /run/ipshare-medium ro - iso9660 /dev/sda ro\n"
    mounts += "30 1 10:1 / /mnt rw - ext4 /dev/sdc1 rw\n"
    mib = {"sda": 8000, "sdb": 8000, "sdc": 8000, "sdd": 10, "loop0": 9000, "sr0": 9000}
    for major, (name, size) in enumerate(mib.items(), 8):
        block = root / "sys/block" / name
        (block / f"{name}1/holders").mkdir(parents=True)
        (block / "holders").mkdir()
        (block / "size").write_text(f"{size * 2048}\n")
        (block / "dev").write_text(f"{major}:0\n")
        (block / f"{name}1/dev").write_text(f"{major}:1\n")
        (block / f"{name}1/partition").write_text("1\n")
    (root / "sys/block/sdc/sdc1/holders/dm-0").mkdir()
    (root / "proc/self").mkdir(parents=True)
    mounts = (
        "20 1 8:0 / /run/ipshare-medium ro - iso9660 /dev/sda ro\n30 1 10:1 / /mnt rw - ext4 /dev/sdc1 rw\n"
    )
    (root / "proc/self/mountinfo").write_text(mounts)
    (root / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/sdc1 partition 1 0 -2\n")
    return root


def test_disks_that_are_in_use_or_too_small_are_refused(tmp_path: Path) -> None:
    found = {disk.name: disk for disk in disks.look(1600 << 20, machine(tmp_path))}
    assert set(found) == {"sda", "sdb", "sdc", "sdd"}
    assert found["sda"].against == ("this system runs from it",)
    assert found["sdb"].against == () and found["sdb"].size == 8000 << 20
    assert found["sdc"].against == ("sdc1 is mounted at /mnt", "sdc1 is in use by dm-0", "sdc1 is swapped to")
    assert found["sdd"].against == ("it has 10 MiB, the image needs 1,600",)


def test_a_second_appliance_in_one_machine_is_refused_the_same_disk_is_not(tmp_path: Path) -> None:
    links = machine(tmp_path) / "dev/disk/by-partlabel"
    links.mkdir(parents=True)
    (links / "ipshare-a").symlink_to("../../sdb1")
    found = {disk.name: disk for disk in disks.look(1, tmp_path)}
    assert found["sdb"].against == ()
    assert found["sdd"].against[0].startswith("sdb has an appliance already")


def test_the_boot_loader_of_the_iso_looks_for_its_own_medium() -> None:
    uuid = iso.identity(1_790_000_000)
    assert uuid == "2026-09-21-14-13-20-00"
    assert f"--fs-uuid --set=root {uuid}" in grub.live_early(uuid)
    assert f"ipshare.live={uuid} panic=10" in grub.live(uuid) and "quiet" in grub.live(uuid, "quiet")
