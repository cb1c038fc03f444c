"""What a box keeps: backup and restore of what it was told, a factory reset by the initrd's own function, a
disk that is larger than its image, and the pinned packages of all extras."""

from __future__ import annotations

import importlib.metadata
import io
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ipshare.agent import assignment, keeper
from ipshare.appliance import backup, firstboot, grow, layout, room, tools
from ipshare.errors import Refused
from tests.appliance_site import SITE
from tests.unit.test_appliance_box import seeded

TOP = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    assert firstboot.apply(seeded(), lambda text: None, place)
    firstboot.write(place / "etc/ipshare/pair.key", b"\x00\xff\x10", 0o600)
    firstboot.write(place / "etc/ssh/ssh_host_ed25519_key", "host key", 0o600)
    firstboot.write(place / "data/var/lib/ipshare/c1/pair.epoch", "7", 0o600)
    return place


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_backup_brings_back_what_the_box_was_told_and_no_state(root: Path, tmp_path: Path) -> None:
    before, file = snapshot(root), tmp_path / "box.backup"
    names = backup.backup(file, "1.0", root)
    assert file.stat().st_mode & 0o777 == 0o600 and "etc/ipshare/pair.key" in names
    assert not any("epoch" in name for name in names)
    assert firstboot.apply(seeded(SITE + "# more\n", "c2"), lambda text: None, root)
    (root / "etc/ipshare/pair.key").unlink()
    (root / "etc/ipshare/extra.toml").write_text("")
    firstboot.write(root / "data/var/lib/ipshare/c1/pair.epoch", "8", 0o600)
    about, restored = backup.restore(file, root)
    assert about["hostname"] == "c1" and sorted(names) == restored
    after = snapshot(root)
    assert after.pop("data/var/lib/ipshare/c1/pair.epoch")[0] == b"8", "an old backup takes no epoch back"
    before.pop("data/var/lib/ipshare/c1/pair.epoch")
    after.pop(firstboot.LOCK)
    assert after == before
    assert firstboot.apply(seeded(), lambda text: None, root), "its seed is the one that it took"


@pytest.mark.parametrize("name", ["../etc/passwd", "/etc/passwd", "etc/passwd", "etc/ipshare/../passwd"])
def test_a_backup_writes_nowhere_else(name: str, root: Path, tmp_path: Path) -> None:
    before, file = snapshot(root), tmp_path / "evil"
    with tarfile.open(file, "w:gz") as archive:
        for path, data in ((backup.ABOUT, b'{"format": 1}'), ("etc/hostname", b"x\n"), (name, b"x")):
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(Refused, match="no place in a backup"):
        backup.restore(file, root)
    assert snapshot(root) == before


def test_a_backup_that_is_cut_or_whose_site_has_mistakes_changes_nothing(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "box.backup"
    site = root / "etc/ipshare/site.toml"
    site.write_text(SITE.replace('to = "A"', 'to = "Z"'))
    backup.backup(file, "1.0", root)
    site.write_text(SITE)
    before = snapshot(root)
    with pytest.raises(Refused, match="Z"):
        backup.restore(file, root)
    whole = file.read_bytes()
    for end in range(0, len(whole) - 8, max(1, len(whole) // 20)):
        file.write_bytes(whole[:end])
        with pytest.raises(Refused, match="no backup"):
            backup.restore(file, root)
    assert snapshot(root) == before


def reset(data: Path) -> None:
    """The function of the initrd, by the shell, with the console elsewhere."""
    script = (TOP / "appliance/image/initrd.sh").read_text().replace("/dev/console", "/dev/null")
    shell = ["busybox", "sh"] if shutil.which("busybox") else ["sh"]
    subprocess.run([*shell, "-euc", f'{script}\nreset "{data}"'], check=True)


@pytest.mark.parametrize("everything", [False, True])
def test_a_factory_reset_keeps_epochs_and_terms_unless_everything_goes(
    everything: bool, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    kept = {
        "var/lib/ipshare/c1/pair.epoch",
        f"var/lib/ipshare/c1/{assignment.SEEN}",
        f"var/lib/ipshare/c1/{assignment.EARLIER}",
        f"var/lib/ipshare/c1/{keeper.RELEASED}",
        "var/lib/ipshare-witness/p/state",
        "var/lib/ipshare-director/terms",
    }
    gone = {
        "overlay/etc/ipshare/site.toml",
        "var/lib/ipshare/c1/configs/1/site.toml",
        "var/log/journal/x",
        "appliance/seed.applied",
    }
    for name in kept | gone:
        firstboot.write(data / name, "x", 0o600)
    reset(data)
    assert {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()} == kept | gone, (
        "no order"
    )
    backup.order_reset(everything, tmp_path)
    reset(data)
    left = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
    assert left == (set() if everything else kept)
    assert (data / "overlay/etc").is_dir() and (data / "overlay/etc.work").is_dir()


@pytest.mark.parametrize("left", [(room.LEAST >> 10) - 1, room.LEAST >> 10])
def test_etc_is_laid_in_memory_where_the_disk_takes_nothing_more(left: int, tmp_path: Path) -> None:
    """The same limit as that of `ipshare appliance status`."""
    script = (TOP / "appliance/image/initrd.sh").read_text().replace("/dev/console", "/dev/null")
    script = script.replace("/run/ipshare-etc", f"{tmp_path}/ipshare-etc")
    played = f'left() {{ echo {left}; }}\nmount() {{ echo "$4"; }}\netc {tmp_path}/over {tmp_path}/root'
    shell = ["busybox", "sh"] if shutil.which("busybox") else ["sh"]
    asked = subprocess.run(
        [*shell, "-euc", f"{script}\n{played}"], check=True, capture_output=True, text=True
    )
    over, root, memory = f"{tmp_path}/over/etc", f"{tmp_path}/root/etc", tmp_path / room.ETC_IN_MEMORY.name
    if left << 10 < room.LEAST:
        assert asked.stdout == f"lowerdir={over}:{root},upperdir={memory}/upper,workdir={memory}/work\n"
        assert (memory / "upper").is_dir() and (memory / "work").is_dir()
    else:
        assert asked.stdout == f"lowerdir={root},upperdir={over},workdir={over}.work\n"
        assert not memory.exists()
    real = subprocess.run(
        [*shell, "-euc", f"{script}\nleft {tmp_path}"], check=True, capture_output=True, text=True
    )
    assert int(real.stdout) > 0


def test_the_data_partition_takes_what_the_disk_has_more(tmp_path: Path) -> None:
    disk, plan = tmp_path / "disk", layout.disk(64, 32)
    with disk.open("wb") as file:
        file.truncate(plan.size)
    tools.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)], text=layout.sfdisk(plan))
    before = tools.run(["sfdisk", "--dump", str(disk)])
    data = plan["data"]
    assert grow.room(plan.size, data.start, data.size) == 0
    with disk.open("r+b") as file:
        file.truncate(plan.size + (100 << 20))
    assert grow.room(plan.size + (100 << 20), data.start, data.size) == 100 << 20
    grow.table(str(disk), data.number)
    after = tools.run(["sfdisk", "--dump", str(disk)])
    assert "No errors" in tools.run(["sfdisk", "--verify", str(disk)])
    size = int(re.search(r'size= *(\d+)[^\n]*name="ipshare-data"', after)[1]) * layout.SECTOR  # type: ignore[index]
    assert data.size + (99 << 20) < size <= data.size + (101 << 20)
    others = [line for line in before.splitlines() if "name=" in line and "ipshare-data" not in line]
    assert len(others) == 4 and all(line in after for line in others), "nothing else moves"


def test_every_extra_that_a_box_needs_is_pinned() -> None:
    """What an image has not cannot be fetched later: the pins have all that their packages want."""
    pins = dict(line.split("==") for line in (TOP / "appliance/requirements.txt").read_text().split())
    pinned = {plain(name): version for name, version in pins.items()}
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in ("vpp", "redis", "appliance", "export", "hazards", "etcd", "web"):
        wanted += project["optional-dependencies"][extra]
    seen: set[str] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        name = plain(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        assert name in pinned, f"{requirement} is not in appliance/requirements.txt"
        wanted += importlib.metadata.requires(name) or []
    assert seen <= set(pinned)


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
