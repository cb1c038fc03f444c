"""A box that starts by UEFI, and is told wrong things: a site file with mistakes, a seed that is none, what
it was told taken back from a backup, a factory reset. It comes up for management each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.appliance_built import image, seed
from tests.appliance_qemu import Box, ssh_key
from tests.appliance_site import SITE

EPOCH = "/var/lib/ipshare/c1/pair.epoch"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    place = tmp_path_factory.mktemp("seeds")
    key = ssh_key(place)
    machine = Box(place, image(), seed(place, "c1", key, SITE, "c1"), key, name="uefi", uefi=True)
    machine.power_on()
    yield machine
    machine.cut_power()


def again(box: Box, told: Path) -> str:
    """Started with another seed; what it says up to the end of the start."""
    box.ssh("sync")
    box.cut_power()
    box.seed = told
    box.power_on()
    return box.healthy()


def test_it_boots_by_uefi(box: Box) -> None:
    assert "slot a" in box.healthy()
    box.ssh("test -d /sys/firmware/efi")
    assert box.ssh("systemctl is-active ipshare-agent@site").strip() == "active"
    box.ssh(f"ipshare appliance backup -o /data/box.backup; echo 7 >{EPOCH}")


def test_a_site_file_with_mistakes_leaves_the_one_before_it(box: Box) -> None:
    broken = SITE.replace('to = "A"', 'to = "Z"')
    console = again(box, unjudged(box.place, "broken", box.key, broken, "c2"))
    assert "there is no end point named 'Z'" in console and "the one before it stays" in console, console
    assert box.ssh("hostname; systemctl is-active ipshare-agent@site").split() == ["c2", "active"]
    assert 'to = "A"' in box.ssh("cat /etc/ipshare/site.toml")


def test_a_seed_that_is_none_leaves_everything(box: Box) -> None:
    torn = unjudged(box.place, "torn", box.key, SITE, "c3", end=90)
    console = again(box, torn)
    assert "seed: not applied; the settings before it stay" in console, console
    assert box.ssh("hostname; systemctl is-active ipshare-agent@site").split() == ["c2", "active"]


def test_a_backup_and_a_factory_reset(box: Box) -> None:
    assert box.ssh("ipshare appliance restore /data/box.backup").startswith("c1: ")
    assert box.ssh("cat /etc/hostname").strip() == "c1"
    box.ssh("echo >/etc/ipshare/forgotten.csv; ipshare appliance factory-reset --yes")
    console = again(box, seed(box.place, "c4", box.key, SITE, "c4"))
    assert "factory reset" in console and " applied: c4, 1 SSH keys" in console, console
    assert box.ssh(f"hostname; cat {EPOCH}; ls /etc/ipshare").split() == ["c4", "7", "site.toml"]
    assert box.ssh("systemctl is-active ipshare-agent@site").strip() == "active"


def unjudged(place: Path, name: str, key: Path, site: str, hostname: str, end: int | None = None) -> Path:
    """A seed as no builder of ours would write it; its user-data may end early."""
    from ipshare.appliance import seed as seeds

    texts = seeds.documents(hostname, [key.with_suffix(".pub").read_text().strip()], {}, None)
    lines = "".join(f"      {line}\n" for line in site.splitlines())
    files = f"write_files:\n- path: /etc/ipshare/site.toml\n  permissions: '0600'\n  content: |\n{lines}"
    texts["user-data"] = (texts["user-data"].replace("write_files: []\n", "") + files)[:end]
    seeds.write_image(texts, place / f"{name}.seed")
    return place / f"{name}.seed"
