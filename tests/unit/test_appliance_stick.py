"""Plain files for a box: judged as a seed is, applied once, what there is no file for stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ipshare.appliance import document, firstboot, stick, volumes, wizard
from ipshare.appliance.seed import is_public_key
from tests.appliance_site import SITE

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL29DkcKJoNFqV7oOrBYH+9drzn1aMFXZCBcPX3PAnfo operator@example"
NETWORK = "version: 2\nethernets: {ens4: {addresses: [192.0.2.1/24]}}\n"
ALL = {"site.toml": SITE, "hostname": "c1\n", "authorized_keys": f"# me\n{KEY}\n\n", "network.yaml": NETWORK}


def test_plain_files_are_applied_once_and_the_rest_stays(tmp_path: Path) -> None:
    said: list[str] = []
    assert firstboot.apply(ALL | {"more.csv": "a\n"}, said.append, tmp_path)
    assert said == ["seed: plain files applied: c1, 1 SSH keys, 1 interfaces, 2 files"]
    assert (tmp_path / firstboot.KEYS).read_text() == KEY + "\n"
    site = tmp_path / "etc/ipshare/site.toml"
    assert site.read_text() == SITE and site.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "etc/ipshare/more.csv").exists() and not (tmp_path / "etc/ipshare/hostname").exists()
    site.write_text(SITE + "# by hand\n")
    assert firstboot.apply(ALL | {"more.csv": "a\n"}, said.append, tmp_path)
    assert site.read_text().endswith("# by hand\n"), "the same again changes nothing"
    assert firstboot.apply({"site.toml": SITE}, said.append, tmp_path)
    assert site.read_text() == SITE
    assert (tmp_path / "etc/hostname").read_text() == "c1\n" and KEY in (
        tmp_path / firstboot.KEYS
    ).read_text()
    assert (tmp_path / "etc/systemd/network/10-seed-ens4.network").exists()


def test_a_site_file_with_mistakes_leaves_the_one_before_it(tmp_path: Path) -> None:
    said: list[str] = []
    assert firstboot.apply(ALL, said.append, tmp_path)
    broken = SITE.replace('to = "A"', 'to = "Z"')
    assert not firstboot.apply({"site.toml": broken, "hostname": "c2"}, said.append, tmp_path)
    assert (tmp_path / "etc/ipshare/site.toml").read_text() == SITE
    assert (tmp_path / "etc/hostname").read_text() == "c2\n"
    assert any("site.toml:15" in line for line in said) and "the one before it stays" in said[-2]


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("hostname", "a b", "hostname: 'a b' is none"),
        ("authorized_keys", f"{KEY}\nnonsense\n", "authorized_keys:2: no public key"),
        ("network.yaml", "version: 1\n", "network.yaml: version 2"),
        ("network.yaml", "a: [\n", "network.yaml: no YAML"),
        ("network.yaml", "version: 2\nethernets: {e: {addresses: [192.0.2.1]}}\n", "no prefix length"),
        ("a name", "x", "a name of letters"),
        ("photo.jpg", "\ufffd\ufffd", "is no text"),
        ("big.csv", "x" * (document.MOST + 1), "longer than"),
    ],
)
def test_a_mistake_changes_nothing_and_is_said(name: str, text: str, word: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert firstboot.apply(ALL, said.append, tmp_path)
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert not firstboot.apply(ALL | {"hostname": "c9", name: text}, said.append, tmp_path)
    assert any(word in line for line in said), said
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_nothing_and_too_much_are_mistakes() -> None:
    assert stick.read({})[1] == ["there is no file; site.toml is one"]
    assert stick.read({f"f{n}": "" for n in range(65)})[1] == ["65 files; 64 are taken"]


def test_cut_anywhere_it_is_judged_not_crashed_on() -> None:
    for name, text in ALL.items():
        for end in range(len(text)):
            found, mistakes = stick.read({**ALL, name: text[:end]})
            assert (found is None) == bool(mistakes)


def test_a_directory_is_read_without_what_systems_leave_there(tmp_path: Path) -> None:
    (tmp_path / "System Volume Information").mkdir()
    (tmp_path / ".Trashes").write_text("x")
    (tmp_path / "site.toml").write_text(SITE)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    assert volumes.files(tmp_path) == {"site.toml": SITE, "photo.jpg": "\ufffd\ufffd"}


def test_a_seed_goes_before_a_stick_and_labels_are_found_in_both_cases(tmp_path: Path) -> None:
    assert volumes.find(tmp_path) == (None, [])
    (tmp_path / "ipshare-cfg").touch()
    assert volumes.find(tmp_path) == (str(tmp_path / "ipshare-cfg"), [])
    (tmp_path / "CIDATA").touch()
    device, said = volumes.find(tmp_path)
    assert device == str(tmp_path / "CIDATA") and "ipshare-cfg is there, too" in said[0]


def test_a_key_that_was_cut_is_none() -> None:
    """Whoever has only that one could not log in any more."""
    kind, blob, _ = KEY.split()
    assert is_public_key(KEY) and is_public_key(f"{kind} {blob}")
    assert not any(is_public_key(f"{kind} {blob[:end]}") for end in range(len(blob)))
    assert not is_public_key(KEY.replace("ssh-ed25519", "ssh-rsa"))


def test_a_usb_stick_that_is_no_disk_yet_is_waited_for(tmp_path: Path) -> None:
    """A keyboard is not; one that never becomes a disk is, for a while."""
    usb = tmp_path / "sys/bus/usb/devices"
    for name, kind in (("1-1:1.0", "03"), ("1-2:1.0", volumes.STORAGE), ("usb1", volumes.STORAGE)):
        (usb / name).mkdir(parents=True)
        (usb / name / "bInterfaceClass").write_text(kind + "\n")
    pauses: list[float] = []

    def appears(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            (usb / "1-2:1.0/host2/target2:0:0/2:0:0:0/block/sda").mkdir(parents=True)

    assert volumes.late_sticks(tmp_path) == ["1-2:1.0"]
    volumes.await_sticks(tmp_path, appears, lambda: pauses.append(0.0))
    assert pauses == [volumes.LOOK_S] * 3 + [0.0], "then udev is waited for, which names it"
    assert volumes.late_sticks(tmp_path) == []
    shutil.rmtree(usb / "1-2:1.0/host2")
    pauses.clear()
    volumes.await_sticks(tmp_path, pauses.append, lambda: None)
    assert sum(pauses) == volumes.STICK_S


def test_where_data_takes_nothing_a_seed_is_applied_at_each_start(tmp_path: Path) -> None:
    """But once at each, and the console knows that the box was told."""
    (tmp_path / "data").write_text("no directory, as a disk that is full has no room for one")
    texts, said = {"site.toml": SITE, "hostname": "c1\n"}, list[str]()
    assert firstboot.told(tmp_path) == "" == wizard.state(tmp_path)
    assert firstboot.apply(texts, said.append, tmp_path)
    assert (tmp_path / "etc/ipshare/site.toml").read_text() == SITE
    assert said[0].startswith("seed: /data does not take that it was applied: ") and len(said) == 2
    assert firstboot.told(tmp_path) == wizard.state(tmp_path) != ""
    assert firstboot.apply(texts, said.append, tmp_path) and len(said) == 2
    (tmp_path / "data").unlink()
    assert firstboot.apply({**texts, "hostname": "c2\n"}, said.append, tmp_path)
    assert not (tmp_path / firstboot.APPLIED_NOW).exists() and (tmp_path / firstboot.APPLIED).exists()
