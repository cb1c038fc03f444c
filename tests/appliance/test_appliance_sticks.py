"""The ISO from a USB stick and a CD, by UEFI and BIOS, with the verbs that somebody runs in its live
system by SSH; what that installed, told by a stick of plain files, with a clock that is empty; another
version and the way back; a disk that is full, one that is damaged. One box, and two starts of others.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.appliance import stick
from ipshare.director.store import SCHEMA
from tests.appliance_built import made, seed, slot
from tests.appliance_qemu import Box, ssh_key
from tests.appliance_site import SITE

MENU = "Type a number, and Enter."
MIB = 1 << 20
NEXT = os.environ.get("IPSHARE_APPLIANCE_NEXT")


def plain(place: Path, name: str, files: dict[str, str], kind: str = "vfat") -> Path:
    """A stick as any tool makes one: a volume with that label and those files."""
    tree, volume = place / name, place / f"{name}.img"
    tree.mkdir()
    for file, text in files.items():
        (tree / file).write_text(text)
    with volume.open("wb") as file:
        file.truncate(16 * MIB)
    if kind == "ext4":
        make = ["mke2fs", "-q", "-t", "ext4", "-L", stick.LABEL, "-d", str(tree), str(volume)]
        subprocess.run(make, check=True)
        return volume
    at, sectors = ["-i", str(volume)], str(16 * MIB // 512)
    subprocess.run(
        ["mformat", *at, "-T", sectors, "-h", "16", "-s", "32", "-v", stick.LABEL, "::"], check=True
    )
    subprocess.run(["mcopy", *at, *map(str, sorted(tree.iterdir())), "::"], check=True)
    return volume


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Its disk is empty at first; the ISO is a USB stick, beside one that says who may log in."""
    place = tmp_path_factory.mktemp("sticks")
    key = ssh_key(place)
    told = plain(place, "live", {"authorized_keys": key.with_suffix(".pub").read_text()})
    iso = slot().with_suffix(".iso")
    machine = Box(place, None, None, key, name="sticks", size="3G", uefi=True, usb=[iso, told])
    machine.power_on()
    yield machine
    machine.cut_power()


def refused(box: Box, command: str) -> str:
    """Why it was refused."""
    return box.ssh(f"! {command} 2>&1")


def test_the_iso_by_uefi_from_a_usb_stick_installs_by_its_verb(box: Box) -> None:
    assert "Live system of the installation medium" in box.says(MENU)
    box.ssh("test -d /sys/firmware/efi && mountpoint -q /run/ipshare-medium")
    medium = box.ssh("basename $(findmnt -no SOURCE /run/ipshare-medium)").strip()
    assert medium.startswith("sd"), medium
    assert "this system runs from it" in refused(box, f"ipshare appliance install-disk /dev/{medium} --yes")
    assert "is lost" in refused(box, "ipshare appliance install-disk /dev/vda")
    assert "take the medium out" in box.ssh("ipshare appliance install-disk /dev/vda --yes")


def test_the_menu_does_not_offer_the_stick(box: Box) -> None:
    box.types("1")
    said = box.says("Number [1]: ")
    assert "this system runs from it" in said, said
    assert "  1  /dev/vda" in said and "  2  " not in said, said


def started(box: Box, *usb: Path) -> str:
    """From its disk, with those sticks; what it says up to the end of the start."""
    box.cut_power()
    box.usb = usb
    box.power_on()
    return box.healthy()


def runs(box: Box, script: str) -> str:
    """Python in the box."""
    (box.place / "script.py").write_text(script)
    return box.ssh("cd /run && python3 -", box.place / "script.py")


CERTIFICATES = """
import ssl, subprocess, tempfile
from pathlib import Path
from ipshare.certs.contexts import Contexts, Files

def handshake(place):
    files, (up, down) = Files(place / "ca/ca.pem", place / "c1.pem"), (ssl.MemoryBIO(), ssl.MemoryBIO())
    server = Contexts(files, server=True).current().wrap_bio(up, down, server_side=True)
    client = Contexts(files, server=False).current().wrap_bio(down, up)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
    return client.version()

def run(*words):
    subprocess.run(words, check=True, capture_output=True)

with tempfile.TemporaryDirectory() as place:
    run("ipshare", "cert", "init", "--ca", f"{place}/ca")
    run("ipshare", "cert", "issue", "node", "c1", "-o", f"{place}/c1.pem", "--ca", f"{place}/ca")
    print(handshake(Path(place)))
    run("date", "--set", "@86400")
    print(handshake(Path(place)))
    run("ipshare", "appliance", "clock")
    print(handshake(Path(place)))
"""


def test_a_stick_and_an_empty_clock_at_the_first_start(box: Box) -> None:
    """Plain files on a USB stick, FAT; the clock says 1970. The box goes on from the image's time, and takes
    certificates of it."""
    key = box.key.with_suffix(".pub").read_text()
    box.clock = "1970-01-01"
    said = started(
        box, plain(box.place, "first", {"site.toml": SITE, "hostname": "c1\n", "authorized_keys": key})
    )
    assert "before the last known time" in said, said
    assert "plain files applied: c1, 1 SSH keys, 0 interfaces, 1 files" in said, said
    assert box.ssh("hostname; systemctl is-active ipshare-agent@site chrony").split() == [
        "c1",
        "active",
        "active",
    ]
    late = int(box.ssh("echo $(($(date +%s) - $(stat -c %Y /run/ipshare-slot/release.json)))"))
    assert 0 <= late <= time.monotonic() - box.began + 60, "the image's time, and what this start took"
    assert runs(box, CERTIFICATES).splitlines() == ["TLSv1.3", "certificate is not yet valid", "TLSv1.3"]


# ---- another version, and the way back -----------------------------------------

NODE = "/var/lib/ipshare/c1"
DIRECTOR = """
from pathlib import Path
from ipshare.director.store import SqliteStore
store = SqliteStore(Path("/var/lib/ipshare-director"))
store.begin()
store.close()
"""
LATER = """
import json, sqlite3
from pathlib import Path
from ipshare.agent.store import VERSION
from ipshare.director.store import SCHEMA
node = Path("/var/lib/ipshare/c1")
for path in (node / "state.json", *node.glob("configs/*/config.json")):
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": VERSION + 1}))
(node / "pair.epoch").write_text("9\\n")
(node / "director.heard").write_text("term 9\\n")
with sqlite3.connect("/var/lib/ipshare-director/director.db") as db:
    db.execute("UPDATE meta SET value = 9 WHERE key = 'term'")
    db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
with open("/etc/ipshare/site.toml", "a") as file:
    file.write("[of_a_later_version]\\nnew = 1\\n")
"""
BACK = """
from dataclasses import replace
from ipshare.appliance import slots
with slots.environment() as path:
    slots.store(path, replace(slots.look(path), good="a"))
"""
TERM = "SELECT (SELECT value FROM meta WHERE key = 'term'), user_version FROM pragma_user_version"


@pytest.fixture(scope="module")
def seeded(box: Box) -> Box:
    """From here on it has a NoCloud seed, too."""
    box.seed = seed(box.place, "c2", box.key, SITE, "c2")
    return box


@pytest.mark.skipif(NEXT is None, reason="there is no second build (IPSHARE_APPLIANCE_NEXT)")
def test_another_version_copies_what_was_left(seeded: Box) -> None:
    """Its start has both kinds of seeds, and a clock that is empty again."""
    box = seeded
    runs(box, DIRECTOR)
    box.ssh(f"echo 7 >{NODE}/pair.epoch; echo term 7 >{NODE}/director.heard")
    box.ssh("ipshare appliance install -", made("2.0", box.place))
    known = int(box.ssh("date --set @$(($(date +%s) + 86400)) +%s; ipshare appliance clock --keep; sync"))
    said = started(box, plain(box.place, "second", {"hostname": "c9\n"}, "ext4"))
    assert "a volume labelled IPSHARE-CFG is there, too, and is not read" in said, said
    assert " applied: c2, 1 SSH keys" in said and "slot b (2.0)" in said + box.says("\n"), said
    assert int(box.ssh("date +%s")) >= known, "the time that was known"
    assert box.ssh("hostname; systemctl is-active ipshare-agent@site").split() == ["c2", "active"]
    copies = "/data/appliance/before/v1.0"
    box.ssh(
        f"cmp {copies}/etc/ipshare/site.toml /etc/ipshare/site.toml; test -s {copies}/data{NODE}/state.json"
    )
    assert box.ssh(f"cd {copies}/data{NODE}; ls *.epoch director.heard 2>/dev/null || true") == "", "stay"


@pytest.mark.skipif(NEXT is None, reason="there is no second build (IPSHARE_APPLIANCE_NEXT)")
def test_the_version_before_takes_its_own_for_what_it_cannot_read(seeded: Box) -> None:
    box = seeded
    box.ssh("systemctl stop ipshare-agent@site")
    runs(box, LATER)
    runs(box, BACK)
    box.ssh("sync")
    said = started(box)
    for part in ("the state of c1", "the director's store", "the site file"):
        assert f"{part} was written by a later version: it is as this version left it" in said, said
    assert "slot a (1.0)" in said + box.says("\n"), said
    assert box.ssh("systemctl is-active ipshare-agent@site") == "active\n"
    assert box.ssh(f"cat {NODE}/pair.epoch {NODE}/director.heard").split() == ["9", "term", "9"]
    found = runs(
        box,
        "import sqlite3\n"
        f"print(*sqlite3.connect('/var/lib/ipshare-director/director.db').execute({TERM!r}).fetchone())",
    )
    assert found.split() == ["9", str(SCHEMA)]
    assert "of_a_later_version" not in box.ssh("cat /etc/ipshare/site.toml")


# ---- a disk that is full, and one that is damaged --------------------------------

EMPTIED = f"""
systemctl stop ipshare-agent@site systemd-journald-audit.socket
systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald
rm -rf {NODE}/configs {NODE}/state.json /data/appliance/seed.applied
rm -rf /data/overlay/etc/* /data/var/log/journal/*
sync
echo 3 >/proc/sys/vm/drop_caches
fallocate --length $(df --output=avail -B1 /data | tail -n 1) /data/filler
dd if=/dev/zero of=/data/rest bs=4k 2>/dev/null
sync
"""
"""As a box that was never told anything, with a /data that takes nothing more. What was removed below /etc is
there as long as the kernel remembers the names."""


def degraded(box: Box) -> str:
    return str(json.loads(box.ssh("ipshare appliance status --json"))["degraded"])


def test_a_full_disk_at_the_first_start(seeded: Box) -> None:
    box = seeded
    box.ssh(EMPTIED)
    said = started(box) + box.says("degraded: /data is full")
    assert "degraded: /data is full: changes of /etc are in memory" in said, said
    assert " applied: c2, 1 SSH keys" in said, said
    assert box.ssh("hostname; systemctl is-active ipshare-agent@site").split() == ["c2", "active"]
    assert "starting with the file, of which nothing is kept" in box.ssh("ipshare show")
    assert degraded(box).startswith("/data is full")
    box.ssh(f"rm /data/filler /data/rest && ipshare apply && test -s {NODE}/state.json")
    assert "nothing is kept" not in box.ssh("ipshare show")
    assert degraded(box).startswith("/data was full when this start began")


def test_a_damaged_data_partition(seeded: Box) -> None:
    """Without any of its superblocks."""
    box = seeded
    box.ssh("dd if=/dev/zero of=/dev/disk/by-partlabel/ipshare-data bs=1M conv=fsync || true", ends=True)
    said = started(box) + box.says("degraded: ")
    assert "ipshare: degraded: the data partition is damaged" in said, said
    assert "nothing is kept until this is mended" in said and " applied: c2, 1 SSH keys" in said, said
    assert box.ssh("hostname; systemctl is-active ipshare-agent@site").split() == ["c2", "active"]
    assert degraded(box).startswith("the data partition is damaged")


# ---- the ISO on other ways -----------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Box]:
    """One with an empty disk, before its power is on."""
    machine = Box(tmp_path, None, None, ssh_key(tmp_path), name="other", size="3G")
    yield machine
    machine.cut_power()


def test_the_iso_by_bios_from_a_usb_stick(other: Box) -> None:
    """Up to its kernel: from there on it is the same as by UEFI."""
    other.usb = (slot().with_suffix(".iso"),)
    other.power_on()
    other.says("ipshare: live system")
    other.says("Linux version")


def test_the_iso_by_uefi_from_a_cd_and_the_wizard_as_a_verb(tmp_path: Path) -> None:
    """A stick with ext4 says who may log in."""
    key = ssh_key(tmp_path)
    public = key.with_suffix(".pub").read_text()
    told = plain(tmp_path, "told", {"authorized_keys": public}, "ext4")
    iso = slot().with_suffix(".iso")
    box = Box(tmp_path, None, None, key, name="cd", size="3G", uefi=True, iso=iso, sticks=[told])
    box.power_on()
    try:
        assert "Live system of the installation medium" in box.says(MENU)
        box.ssh("test -d /sys/firmware/efi && findmnt -no SOURCE /run/ipshare-medium | grep ^/dev/sr")
        # host name; Ethernet; DHCP; a key is pasted; management only; apply it
        (tmp_path / "answers").write_text(f"c5\n1\n1\n1\n{public}1\n1\n")
        said = box.ssh("ipshare appliance wizard", tmp_path / "answers")
        assert "applied: c5, 1 SSH keys, 1 interfaces, 0 files" in said, said
        assert box.ssh("hostname") == "c5\n"
    finally:
        box.cut_power()
