"""Files that hold keys: never readable for a moment, never in the place of a device; backups that would
restore half of themselves, or something else; what a support bundle leaves out."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from ipshare import durable
from ipshare.appliance import backup, firstboot, room, seed, support
from ipshare.cli.app import run
from ipshare.errors import Refused
from tests.unit.test_appliance_box import seeded
from tests.unit.test_appliance_keep import snapshot


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    assert firstboot.apply(seeded(), lambda text: None, place)
    return place


def tar(*members: tuple[str, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in ((backup.ABOUT, b'{"format": 1}'), *members):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ([("opt/etc/ssh/ssh_host_x_key", b"x")], "no place in a backup"),
        ([("usr/etc/systemd/network/10-seed-x.network", b"x")], "no place in a backup"),
        ([("etc/ipshare/.", b"x")], "no place in a backup"),
        ([("etc/ipshare/./site.toml", b"x")], "no place in a backup"),
        ([("etc/ipshare/" + "a" * 255, b"x")], "no place in a backup"),
        ([("etc/hostname", b"c9\n"), ("etc/ipshare/q", b"x"), ("etc/ipshare/q/b", b"x")], "below a file"),
        ([("etc/hostname", b"c9\n"), ("etc/ipshare/site.toml/b", b"x")], "below a file"),
        (
            [("etc/ipshare/site.toml", b"x"), ("etc/ipshare/q", b"x"), ("etc/ipshare/q/b", b"x")],
            "below a file",
        ),
        ([("etc/hostname", b"c9\n"), ("etc/ssh/authorized_keys.d", b"x")], "no place in a backup"),
    ],
)
def test_a_backup_is_restored_whole_or_not_at_all(
    members: list[tuple[str, bytes]], word: str, root: Path, tmp_path: Path
) -> None:
    before, file = snapshot(root), tmp_path / "box.backup"
    file.write_bytes(gzip.compress(tar(*members).getvalue()))
    with pytest.raises(Refused, match=word):
        backup.restore(file, root)
    assert snapshot(root) == before


def test_a_backup_that_a_full_disk_would_take_half_of_changes_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "box.backup"
    backup.backup(file, "1.0", root)
    before = snapshot(root)
    monkeypatch.setattr(room, "free", lambda path: 20_000 if path == root / "etc" else 0)
    with pytest.raises(Refused, match="KiB, and /etc has 19"):
        backup.restore(file, root)
    assert snapshot(root) == before


def test_a_restore_waits_for_who_tells_the_box_something(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They write beside the same files, and would take each other's halves for whole."""
    file, asks, flock = tmp_path / "box.backup", threading.Event(), fcntl.flock
    backup.backup(file, "1.0", root)
    (root / "etc/hostname").write_text("other\n")

    def asked(lock: IO[str], how: int) -> None:
        asks.set()
        flock(lock, how)

    restoring = threading.Thread(target=lambda: backup.restore(file, root), daemon=True)
    with firstboot.alone(root):
        monkeypatch.setattr(firstboot.fcntl, "flock", asked)
        restoring.start()
        assert asks.wait(20) and (root / "etc/hostname").read_text() == "other\n"
    restoring.join(20)
    assert (root / "etc/hostname").read_text() == "c1\n"


def test_a_terabyte_in_a_few_octets_is_not_unfolded(root: Path, tmp_path: Path) -> None:
    """GNU's sparse files; and an "about" of brackets."""
    head = bytearray(tarfile.TarInfo("etc/ipshare/s").tobuf(tarfile.GNU_FORMAT))
    head[156:157] = tarfile.GNUTYPE_SPARSE
    head[386:410] = b"00000000000\0" * 2
    head[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    file = tmp_path / "box.backup"
    file.write_bytes(gzip.compress(tar().getvalue()[:1024] + bytes(head) + bytes(1024)))
    with pytest.raises(Refused, match="etc/ipshare/s has no place"):
        backup.read(file)
    file.write_bytes(gzip.compress(tar((backup.ABOUT, b"[" * 100_000)).getvalue()))
    with pytest.raises(Refused, match="is no backup"):
        backup.read(file)


def test_a_backup_does_not_take_the_place_of_a_device_or_a_pipe(root: Path, tmp_path: Path) -> None:
    """`--output /dev/stdout`, as root: there would be a file with keys in its place."""
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", tmp_path):
        with pytest.raises(Refused, match="is no file"):
            backup.backup(target, "1.0", root)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("put", [durable.put, firstboot.write])
def test_who_waits_for_the_file_beside_gets_nothing(
    put: Callable[[Path, bytes, int], None], tmp_path: Path
) -> None:
    """Another one's file, or a link, is there already under the name that is renamed later."""
    target, theirs = tmp_path / "box.backup", tmp_path / "theirs"
    for name in ("box.backup.new", ".box.backup.new"):
        theirs.write_text("")
        theirs.chmod(0o666)
        (tmp_path / name).hardlink_to(theirs)
        put(target, b"keys", 0o600)
        assert theirs.read_text() == "" and target.read_bytes() == b"keys"
        assert target.stat().st_mode & 0o777 == 0o600


def test_what_a_full_disk_did_not_take_does_not_stay_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        firstboot.write(tmp_path / "site.toml", "x", 0o600)
    assert list(tmp_path.iterdir()) == []


def test_a_mode_is_what_was_asked_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        firstboot.write(tmp_path / "hosts", "x", 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "hosts").stat().st_mode & 0o777 == 0o644


def test_outputs_with_keys_are_closed_also_where_an_open_file_was(tmp_path: Path) -> None:
    for name in ("s.tar.gz", "seed.img"):
        (tmp_path / name).touch(mode=0o644)
        (tmp_path / name).chmod(0o644)
    support.write(tmp_path / "s.tar.gz", {"a": "b"})
    seed.write_image(seeded(), tmp_path / "seed.img")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_an_output_may_be_a_pipe_or_a_link(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("old")
    got = list[bytes]()
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    durable.put(tmp_path / "pipe", b"new", 0o600)
    reader.join(30)
    durable.put(tmp_path / "link", b"new", 0o600)
    assert got == [b"new"] and (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("verb", [["support-bundle"], ["appliance", "backup"]])
def test_an_output_that_cannot_be_is_said(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "COMMANDS", {})
    assert run([*verb, "-o", str(tmp_path / "nowhere/x")]) == 1
    assert f"cannot use {tmp_path}/nowhere/x: No such file" in capsys.readouterr().err


def test_who_may_not_is_told_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/etc/ipshare/site.toml")

    monkeypatch.setattr(backup, "backup", refuses)
    assert run(["appliance", "backup", "-o", "x"]) == 5
    assert "may not use /etc/ipshare/site.toml: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        '# password = "hunter2"\n',
        '{"id": "#1", "token": "hunter2"}\n',
        'access_key = "hunter2"\n',
        'url = "https://192.0.2.1/feed?apikey=hunter2"\n',
        'keys = [\n  "hunter2",\n]\n',
        'psk = """\nhunter2\n"""\n',
        '{"secrets": {\n "a": "hunter2"\n}}\n',
        "Authorization: Basic hunter2\n",
        "ipshare[1]: sent Bearer hunter2hunter2\n",
        'url = "https://hunter2@192.0.2.1/x"\n',
        "PASSPHRASE=hunter2\n",
        'password_file = "x"  # password: hunter2\n',
    ],
)
def test_secrets_of_other_forms_stay_too(text: str) -> None:
    assert "hunter2" not in support.cleaned(text)


def test_what_is_no_secret_is_kept_around_them() -> None:
    text = 'a = 1\nkey_file = "pair.key"\n"certificate": "monkey"\nmonkey = 1\ntoken = [\n "x",\n]\nb = 2\n'
    cleaned = support.cleaned(text)
    assert cleaned == text.replace('[\n "x",\n]', f'"{support.REMOVED}"')


def test_a_long_line_is_cleaned_in_time() -> None:
    """The state of a large site is one line."""
    program = "from ipshare.appliance.support import cleaned; cleaned('{\"a\": \"' + 'x' * (1 << 20) + '\"}')"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_file_that_cannot_be_read_or_is_too_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "long.json").write_text("x" * 100)
    (tmp_path / "gone.json").write_text("x")
    monkeypatch.setattr(support, "MOST", 50)
    read = Path.read_text

    def gone(path: Path, **how: str) -> str:
        if path.name == "gone.json":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, **how)

    monkeypatch.setattr(Path, "read_text", gone)
    found = {Path(name).name: text for name, text in support.files([tmp_path]).items()}
    assert found == {
        "long.json": "left out: longer than 50 octets\n",
        "gone.json": "left out: Permission denied\n",
    }
