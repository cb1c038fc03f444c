"""An image in QEMU: it boots, takes its seed, its agent is ready; an update is kept, a broken one is rolled
back, the power goes while one is written and while it is tried. What is on /data outlives all of it.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.appliance import build, bundle
from tests.appliance_built import KEY, image, made, seed
from tests.appliance_qemu import Box, ssh_key
from tests.appliance_site import SITE

EPOCH = "/var/lib/ipshare/c1/pair.epoch"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("box")


@pytest.fixture(scope="module")
def box(place: Path) -> Iterator[Box]:
    key = ssh_key(place)
    machine = Box(place, image(), seed(place, "c1", key, SITE, "c1"), key, size="3G")
    machine.power_on()
    yield machine
    machine.cut_power()


@pytest.fixture(scope="module")
def update(place: Path) -> Path:
    return made("2.0", place)


def status(box: Box) -> dict[str, object]:
    record = json.loads(box.ssh("ipshare appliance status --json"))
    assert isinstance(record, dict)
    return record


def slots(box: Box) -> tuple[object, ...]:
    found = status(box)
    assert found["degraded"] == ""
    return found["slot"], found["good"], found["trial"]


def intact(box: Box) -> None:
    """What has to outlive everything, and what was configured."""
    assert box.ssh(f"cat {EPOCH}; hostname").split() == ["7", "c1"]
    assert (
        box.ssh("cmp /etc/ipshare/site.toml /data/copy && systemctl is-active ipshare-agent@site")
        == "active\n"
    )


def test_it_boots_takes_its_seed_and_its_agent_is_ready(box: Box) -> None:
    console = box.healthy()
    assert "slot a" in console and "applied: ipshare-" in console, console
    assert "degraded" not in console
    assert box.ssh("hostname").strip() == "c1"
    assert box.ssh("systemctl is-active ipshare-agent@site").strip() == "active"
    assert "10.1.0.5" in box.ssh("ipshare why 'tcp 198.51.100.7:1234 > 198.51.100.5:80 syn' --json")
    assert slots(box) == ("a", "a", "")
    assert re.search(r"passwordauthentication no", box.ssh("sshd -T"))
    assert box.ssh("systemctl --failed --no-legend").strip() == ""
    assert int(box.ssh("df --output=size -m /data | tail -n 1")) > 1024, "/data grew with the disk"
    box.ssh(f"echo 7 >{EPOCH}; cp /etc/ipshare/site.toml /data/copy; sync")


def test_every_extra_is_there_without_network(box: Box) -> None:
    wanted = "httpx2, zipcodes, fastapi, uvicorn, h11, jinja2, prometheus_client, redis.asyncio, yaml"
    box.ssh(f"unshare -n python3 -c 'import {wanted}, vpp_papi, ipshare.web.app'")


def test_an_update_is_tried_and_kept(box: Box, update: Path) -> None:
    box.ssh("ipshare appliance install - && systemctl reboot", update)
    box.says("slot b")
    assert "slot b (2.0)" in box.healthy()
    box.says("kept from now on")
    assert slots(box) == ("b", "b", "")
    intact(box)


def test_an_update_without_a_root_is_rolled_back(box: Box, place: Path) -> None:
    tree = place / "tree"
    (tree / "root").mkdir(parents=True)
    for name in ("vmlinuz", "initrd.img"):
        (tree / name).write_bytes(base64.b64decode(box.ssh(f"base64 -w0 /run/ipshare-slot/{name}")))
    subprocess.run(
        ["mksquashfs", str(tree / "root"), str(tree / "root.squashfs"), "-quiet", "-no-progress"], check=True
    )
    (tree / "root").rmdir()
    build.pack_slot(tree, place / "broken.slot", "3.0", 1_700_000_000, "bookworm")
    bundle.make(place / "broken.slot", "3.0", KEY, place / "broken")
    box.ssh("ipshare appliance install - && systemctl reboot", place / "broken")
    box.says("slot a")
    box.says("slot a")
    box.says("the version before it")
    assert slots(box) == ("b", "b", "")
    intact(box)


@pytest.mark.parametrize("after_mib", [0, 150])
def test_the_power_may_go_while_an_update_is_written(box: Box, update: Path, after_mib: int) -> None:
    """After so many MiB of the other slot were written, by the kernel's own count."""
    written = "$(awk '{print int($7/2048)}' /sys/class/block/vda/vda3/stat)"
    begun = f"until [ {written} -gt {after_mib} ]; do :; done"
    box.ssh(f"exec 3<&0; (ipshare appliance install - <&3 >/dev/null 2>&1) & {begun}", update)
    box.cut_power()
    box.power_on()
    assert "slot b" in box.healthy()
    assert slots(box) == ("b", "b", "")
    intact(box)


def test_the_power_may_go_before_and_while_an_update_is_tried(box: Box, update: Path) -> None:
    """Once it is installed, and once when its kernel runs: the second of two tries is kept."""
    box.ssh("ipshare appliance install -", update)
    box.cut_power()
    box.power_on()
    box.says("slot a")
    box.says("Linux version")
    box.cut_power()
    box.power_on()
    assert "slot a (2.0)" in box.healthy()
    box.says("kept from now on")
    assert slots(box) == ("a", "a", "")
    intact(box)
