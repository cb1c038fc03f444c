"""hw-check and support-bundle: what a machine has, read from files; what is taken along, without secrets."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from ipshare.appliance import hardware, support


def machine(root: Path, flags: str = "ssse3 sse4_2 popcnt", driver: str = "ixgbe") -> Path:
    for path, text in {
        "proc/cpuinfo": f"processor\t: 0\nflags\t\t: {flags}\nbugs\t:\n\nprocessor\t: 1\n",
        "proc/meminfo": "MemTotal:       2048000 kB\nHugePages_Total:      64\nHugepagesize:       2048 kB\n",
        "dev/net/tun": "",
        "sys/class/net/eth0/device/numa_node": "1\n",
        "sys/class/net/lo/mtu": "65536\n",
        f"drivers/{driver}/bind": "",
        "sys/kernel/iommu_groups/0/type": "",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "sys/class/net/eth0/device/driver").symlink_to(root / "drivers" / driver)
    return root


def test_a_machine_is_read(tmp_path: Path) -> None:
    found = {finding.name: finding for finding in hardware.look(machine(tmp_path))}
    assert found["processor"].is_good and found["memory"].is_good and found["tun"].is_good
    assert found["eth0"].is_good and "ixgbe, NUMA node 1" in found["eth0"].text
    assert "lo" not in found
    assert found["hugepages"].text == "64 of 2 MiB" and found["IOMMU"].is_good
    assert found["cores"].text.startswith("2,")
    assert found["watchdog"].is_good is None


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    found = {f.name: f for f in hardware.look(machine(tmp_path, flags="fpu", driver="r8169"))}
    assert found["processor"].is_good is False and found["eth0"].is_good is None
    nothing = {f.name: f for f in hardware.look(tmp_path / "nowhere")}
    assert nothing["network cards"].is_good is False and nothing["tun"].is_good is False


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('password = "hunter2"\nname = "x"\n', "hunter2"),
        ('  "api_token": "hunter2",\n', "hunter2"),
        ("bgp_password: hunter2\n", "hunter2"),
        ('key = "hunter2"\n', "hunter2"),
        ('url = "redis://user:hunter2@192.0.2.1/0"\n', "hunter2"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n", "hunter2"),
        ("-----BEGIN EC PRIVATE KEY-----\nhunter2\n", "hunter2"),
    ],
)
def test_secrets_stay(text: str, secret: str) -> None:
    assert secret in text and secret not in support.cleaned(text) and support.REMOVED in support.cleaned(text)


def test_what_is_no_secret_is_kept() -> None:
    text = 'name = "c1"\npassword_file = "bgp.password"\nkey_file = "pair.key"\nlocal = ["10.1.0.0/24"]\n'
    assert support.cleaned(text) == text


def test_the_bundle_has_what_is_on_the_list_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "etc"
    place.mkdir()
    (place / "site.toml").write_text('token = "hunter2"\nname = "c1"\n')
    (place / "pair.key").write_text("hunter2")
    (place / "node.pem").write_text("hunter2")
    (place / "link.toml").symlink_to(place / "pair.key")
    target = tmp_path / "b.tar.gz"
    support.write(target, support.files([place, tmp_path / "nowhere"]))
    assert target.stat().st_mode & 0o77 == 0
    with tarfile.open(target) as archive:
        (member,) = archive.getmembers()
        assert member.name.endswith("site.toml")
        file = archive.extractfile(member)
        assert file is not None
        text = file.read().decode()
    assert "hunter2" not in text and 'name = "c1"' in text
