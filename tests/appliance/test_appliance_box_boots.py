"""An image in QEMU: it boots, takes its seed, its agent is ready. The power goes while an update is written,
after it, and while it is tried; it is kept. A slot that cannot be read is given up, a broken update rolled
back. An engine that hangs resets the box. What is on /data outlives all of it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.appliance import build, bundle
from ipshare.appliance.slots import other
from tests.appliance_built import KEY, image, made, seed, slot
from tests.appliance_qemu import Box, ssh_key
from tests.appliance_site import SITE

EPOCH = "/var/lib/ipshare/c1/pair.epoch"
APPLIED = re.compile(r"seed: ipshare-[0-9a-f]+ applied: c1, 1 SSH keys")
UPDATE, BROKEN = "/dev/vdc", "/dev/vdd"


def broken(place: Path) -> Path:
    """An update with nothing in its root."""
    tree = place / "tree"
    subprocess.run(
        ["unsquashfs", "-q", "-n", "-d", str(tree), str(slot()), "vmlinuz", "initrd.img"], check=True
    )
    (place / "nothing").mkdir()
    subprocess.run(
        ["mksquashfs", str(place / "nothing"), str(tree / "root.squashfs"), "-quiet", "-no-progress"],
        check=True,
    )
    build.pack_slot(tree, place / "broken.slot", "3.0", 1_700_000_000, "bookworm")
    bundle.make(place / "broken.slot", "3.0", KEY, place / "broken")
    return place / "broken"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    place = tmp_path_factory.mktemp("box")
    key = ssh_key(place)
    sticks = [made("2.0", place), broken(place)]
    machine = Box(place, image(), seed(place, "c1", key, SITE, "c1"), key, size="3G", sticks=sticks)
    machine.power_on()
    machine.healthy()
    machine.ssh(f"echo 7 >{EPOCH}; cp /etc/ipshare/site.toml /data/copy; sync")
    yield machine
    machine.cut_power()


def status(box: Box) -> dict[str, object]:
    record = json.loads(box.ssh("ipshare appliance status --json"))
    assert isinstance(record, dict)
    return record


def slots(box: Box) -> tuple[str, str, str]:
    """Which slot runs, which is good, which is on trial."""
    found = status(box)
    assert found["degraded"] == ""
    return str(found["slot"]), str(found["good"]), str(found["trial"])


def intact(box: Box) -> None:
    """What has to outlive everything, and what was configured."""
    assert box.ssh(f"cat {EPOCH}; hostname").split() == ["7", "c1"]
    assert (
        box.ssh("cmp /etc/ipshare/site.toml /data/copy && systemctl is-active ipshare-agent@site")
        == "active\n"
    )


def test_it_boots_takes_its_seed_and_its_agent_is_ready(box: Box) -> None:
    console = box.console.read_text(errors="replace")
    assert "slot a" in console and APPLIED.search(console), console
    assert "degraded: " not in console, console
    assert box.ssh("hostname").strip() == "c1"
    assert box.ssh("systemctl is-active ipshare-agent@site").strip() == "active"
    assert "10.1.0.5" in box.ssh("ipshare why 'tcp 198.51.100.7:1234 > 198.51.100.5:80 syn' --json")
    assert slots(box) == ("a", "a", "")
    assert re.search(r"passwordauthentication no", box.ssh("sshd -T"))
    assert box.ssh("systemctl --failed --no-legend").strip() == ""
    assert int(box.ssh("df --output=size -m /data | tail -n 1")) > 1024, "/data grew with the disk"


def test_every_extra_is_there_without_network(box: Box) -> None:
    wanted = "httpx2, zipcodes, fastapi, uvicorn, h11, jinja2, prometheus_client, redis.asyncio, yaml"
    box.ssh(f"unshare -n python3 -c 'import {wanted}, vpp_papi, ipshare.web.app'")


@pytest.mark.parametrize("after_mib", [1, 150])
def test_the_power_may_go_while_an_update_is_written(box: Box, after_mib: int) -> None:
    """After so many MiB of the other slot were written, by the kernel's own count; more do not come."""
    good, _, _ = before = slots(box)
    spare = box.ssh(f"basename $(realpath /dev/disk/by-partlabel/ipshare-{other(good)})").strip()
    given = f"(head -c {after_mib + 8}M {UPDATE}; sleep infinity) | ipshare appliance install -"
    written = f"$(awk '{{print int($7/2048)}}' /sys/class/block/{spare}/stat)"
    box.ssh(f"({given}) >/dev/null 2>&1 & until sync; [ {written} -ge {after_mib} ]; do sleep 0.2; done")
    box.cut_power()
    box.power_on()
    assert f"slot {good}" in box.healthy()
    assert slots(box) == before
    intact(box)


def test_the_power_may_go_before_and_while_an_update_is_tried(box: Box) -> None:
    """Once it is installed, and once when its kernel runs: the second of two tries is kept."""
    new = other(slots(box)[0])
    box.ssh(f"ipshare appliance install {UPDATE}")
    box.cut_power()
    box.power_on()
    box.says(f"slot {new}")
    box.says("Linux version")
    box.cut_power()
    box.power_on()
    assert f"slot {new}" in box.healthy()
    assert "kept from now on" in box.says("\n")
    assert slots(box) == (new, new, "")
    intact(box)


def test_a_slot_that_cannot_be_read_is_given_up(box: Box) -> None:
    """The other one runs, is the good one, and takes updates (the next test's)."""
    good, _, _ = slots(box)
    box.ssh(f"dd if=/dev/zero of=/dev/disk/by-partlabel/ipshare-{good} bs=4096 count=1 conv=fsync,notrunc")
    box.cut_power()
    box.power_on()
    box.says(f"slot {good} cannot be read; the other one")
    assert f"slot {other(good)}" in box.healthy()
    box.says(f"{other(good)} is the good one now")
    assert slots(box) == (other(good), other(good), "")
    intact(box)


def test_an_update_without_a_root_is_rolled_back(box: Box) -> None:
    good, _, _ = before = slots(box)
    box.ssh(f"ipshare appliance install {BROKEN} --reboot", ends=True)
    box.says(f"slot {other(good)}")
    box.says(f"slot {other(good)}")
    box.says(f"slot {good}")
    box.says("the version before it")
    assert slots(box) == before
    intact(box)


def test_an_engine_that_hangs_resets_the_box(box: Box) -> None:
    """Stopped, and with nobody there who would end it."""
    box.ssh("systemctl stop ipshare-agent@site; pkill -STOP ipshare-engine")
    box.says("this machine is reset")
    box.healthy()
    intact(box)
