"""An image in QEMU: it boots, takes its seed, its agent is ready; an update is kept, a broken one is rolled
back, the power goes while one is written.

IPSHARE_APPLIANCE is the directory of the build, IPSHARE_APPLIANCE_KEY the key of its updates.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.appliance import build, bundle
from tests.appliance_qemu import Box
from tests.appliance_site import SITE

BUILT = Path(os.environ.get("IPSHARE_APPLIANCE", "build/appliance"))
KEY = Path(os.environ.get("IPSHARE_APPLIANCE_KEY", "update.key"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("box")


@pytest.fixture(scope="module")
def slot() -> Path:
    found = sorted(BUILT.glob("*.slot"), key=lambda path: path.stat().st_mtime)
    assert found, f"no image in {BUILT}: make appliance"
    return found[-1]


@pytest.fixture(scope="module")
def box(place: Path, slot: Path) -> Iterator[Box]:
    key = place / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(key)], check=True)
    (place / "site.toml").write_text(SITE)
    seed = [
        sys.executable,
        "-m",
        "ipshare",
        "appliance",
        "seed",
        "--hostname",
        "c1",
        "--ssh-key",
        f"{key}.pub",
    ]
    subprocess.run([*seed, "--config", str(place / "site.toml"), "-o", str(place / "seed.img")], check=True)
    machine = Box(place, slot.with_suffix(".qcow2"), place / "seed.img", key)
    machine.power_on()
    yield machine
    machine.cut_power()


def status(box: Box) -> dict[str, object]:
    record = json.loads(box.ssh("ipshare appliance status --json"))
    assert isinstance(record, dict)
    return record


def test_it_boots_takes_its_seed_and_its_agent_is_ready(box: Box) -> None:
    began = time.monotonic()
    console = box.says(": healthy")
    print(f"healthy {time.monotonic() - began:.0f} s after power-on")
    assert "slot a" in console and "applied: c1, 1 SSH keys" in console, console
    assert "degraded" not in console
    assert box.ssh("hostname").strip() == "c1"
    assert box.ssh("systemctl is-active ipshare-agent@site").strip() == "active"
    assert "10.1.0.5" in box.ssh("ipshare why 'tcp 198.51.100.7:1234 > 198.51.100.5:80 syn' --json")
    found = status(box)
    assert (found["slot"], found["good"], found["trial"], found["degraded"]) == ("a", "a", "", "")
    assert re.search(r"passwordauthentication no", box.ssh("sshd -T"))


def test_an_update_is_tried_and_kept(box: Box, place: Path, slot: Path) -> None:
    bundle.make(slot, "2.0", KEY, place / "update")
    box.ssh("ipshare appliance install - && systemctl reboot", place / "update")
    box.says("slot b")
    box.says("kept from now on")
    found = status(box)
    assert (found["slot"], found["good"], found["trial"]) == ("b", "b", "")
    assert box.ssh("systemctl is-active ipshare-agent@site").strip() == "active"


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
    box.says("the version before it")
    found = status(box)
    assert (found["slot"], found["good"], found["trial"]) == ("b", "b", "")


@pytest.mark.parametrize("after_mib", [0, 40, 200])
def test_the_power_may_go_while_an_update_is_written(box: Box, place: Path, after_mib: int) -> None:
    """After so many MiB of the other slot were written, by the kernel's own count."""
    written = "$(awk '{print int($7/2048)}' /sys/class/block/vda/vda3/stat)"
    begun = f"until [ {written} -ge {after_mib} ]; do :; done"
    box.ssh(f"exec 3<&0; (ipshare appliance install - <&3 >/dev/null 2>&1) & {begun}", place / "update")
    box.cut_power()
    box.power_on()
    assert "slot b" in box.says(": healthy")
    assert status(box)["good"] == "b"
