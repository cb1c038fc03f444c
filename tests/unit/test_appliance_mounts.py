"""Volumes that a box mounts for a moment: let go of, never emptied; one update at a time; sticks with more
files than fit."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.appliance import before, clock, firstboot, guard, slots, stick, volumes
from ipshare.cli.app import run as run_verb
from ipshare.errors import Refused


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of /run, with a mount that fills the directory and an umount that fails."""
    programs, place = tmp_path / "bin", tmp_path / "run"
    for name, text in (
        ("mount", 'for last; do :; done; mkdir "$last/grub"; echo good=a >"$last/grub/grubenv"'),
        ("umount", "exit 32"),
    ):
        programs.mkdir(exist_ok=True)
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    place.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(slots, "RUN", place)
    return place


def test_a_volume_that_stays_mounted_keeps_what_it_has(run: Path) -> None:
    """A busy ESP, or a Ctrl-C that ended umount: it was the boot loader's, and would be gone."""
    with slots.mounted(Path("/dev/esp"), "vfat", "rw,sync") as place:
        assert place.parent == run
    assert (place / "grub/grubenv").read_text() == "good=a\n"
    assert volumes.read("/dev/stick", lambda name: name != "grub") == {}
    assert len(list(run.glob("*/grub/grubenv"))) == 2


def test_one_update_or_rollback_at_a_time(run: Path) -> None:
    with slots.alone():
        with pytest.raises(Refused, match="another update"), slots.alone():
            pass
        with pytest.raises(Refused, match="another update"), slots.alone():
            pass
    with slots.alone():
        pass


def test_of_a_stick_full_of_files_no_more_are_read_than_say_that(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"photo{number}").write_text("x")
    found = volumes.files(tmp_path)
    assert len(found) == stick.NUMBER + 1
    assert any("files" in mistake for mistake in stick.read(found)[1])


@pytest.mark.parametrize("verb", [["firstboot"], ["guard"], ["clock"], ["clock", "--keep"]])
def test_what_a_unit_does_at_a_box_is_refused_elsewhere(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A VM in a cloud has a CIDATA volume, too: host name, keys and addresses would become what that says. A
    guard resets the machine that a stopped engine of a lab is on."""

    def touched(*_: object) -> None:
        raise AssertionError("this machine was touched")

    for module, name in ((before, "at_start"), (firstboot, "run"), (guard, "run")):
        monkeypatch.setattr(module, name, touched)
    for name in ("keep", "put_forward"):
        monkeypatch.setattr(clock, name, touched)
    assert run_verb(["appliance", *verb]) == 3
    assert "not started from an appliance image" in capsys.readouterr().err


def test_no_journal_of_another_system_is_played_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The wizard looks for keys on every disk of the machine: that of a system asleep would be changed."""
    rows = [("/dev/sda1", "ext4", None), ("/dev/sdb1", "vfat", None), ("/dev/sdc5", "ext4", "ipshare-data")]
    listed = [
        {"path": path, "fstype": kind, "partlabel": label, "mountpoints": [None]}
        for path, kind, label in rows
    ]
    monkeypatch.setattr(volumes.tools, "run", lambda command: json.dumps({"blockdevices": listed}))
    (tmp_path / "id.pub").write_text("key")
    mounts = list[tuple[str, str]]()

    @contextlib.contextmanager
    def mounted(target: Path, kind: str, options: str) -> Iterator[Path]:
        mounts.append((str(target), options))
        yield tmp_path

    monkeypatch.setattr(slots, "mounted", mounted)
    assert volumes.public_keys() == {"/dev/sda1: id.pub": "key", "/dev/sdb1: id.pub": "key"}
    assert mounts == [("/dev/sda1", "ro,norecovery"), ("/dev/sdb1", "ro")]
