"""backup: what a box was told, in one file, and back again: site files with their keys, host name, addresses,
SSH keys, which seed it took.

State is no part of it: epochs, terms, leases and what a director assigned stay as they are on /data, so an
old backup takes nobody back in time. A backup is judged before anything is written: one whose site file has
mistakes changes nothing. Paths are relative to `root`, so that tests run it in a directory.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ipshare import durable
from ipshare.appliance import firstboot, room
from ipshare.appliance.overlay import SITE
from ipshare.appliance.seed import NAME
from ipshare.errors import Refused

FORMAT = 1
RESET = "data/appliance/reset"
"""What the initrd looks for (appliance/image/initrd.sh)."""
ABOUT = "ipshare-backup.json"
TREES = ("etc/ipshare", "etc/ssh/authorized_keys.d")
"""Taken whole, and emptied of what the backup has not."""
FILES = ("etc/hostname", "etc/hosts", "etc/resolv.conf", firstboot.APPLIED)
PATTERNS = (f"{firstboot.NETWORKS}/10-seed-*.network", "etc/ssh/ssh_host_*_key", "etc/ssh/ssh_host_*_key.pub")
MOST = 64 << 20
BLOCK = 4096


def _there(root: Path) -> Iterator[Path]:
    for tree in TREES:
        yield from sorted(path for path in (root / tree).rglob("*"))
    for pattern in (*FILES, *PATTERNS):
        yield from sorted(root.glob(pattern))


def backup(target: Path, version: str, root: Path = Path("/")) -> list[str]:
    """Writes a tar.gz with mode 0600: it holds keys. Returns the names of what is in it."""
    found = [path for path in _there(root) if path.is_file() and not path.is_symlink()]
    if sum(path.stat().st_size for path in found) > MOST:
        raise Refused(
            f"the configuration has more than {MOST >> 20} MiB", hint="what is large in /etc/ipshare?"
        )
    hostname = root / "etc/hostname"
    about = {
        "format": FORMAT,
        "version": version,
        "hostname": hostname.read_text().strip() if hostname.exists() else "",
    }
    if target.exists() and not target.is_file():
        raise Refused(f"{target} is no file", hint="name one: with --output, and fetch it from there")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        _add(archive, ABOUT, json.dumps(about).encode() + b"\n", 0o600)
        for path in found:
            _add(archive, str(path.relative_to(root)), path.read_bytes(), path.stat().st_mode & 0o777)
    durable.put(target, out.getvalue(), 0o600)
    return [str(path.relative_to(root)) for path in found]


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    archive.addfile(member, io.BytesIO(data))


def _is_ours(name: str) -> bool:
    """Whether it is the one name of a file that a backup has."""
    path = Path(name)
    if str(path) != name or ".." in path.parts or any(len(os.fsencode(part)) > NAME for part in path.parts):
        return False
    return (
        name in FILES
        or any(name.startswith(tree + "/") for tree in TREES)
        or any(path.parent == Path(p).parent and path.match(p) for p in PATTERNS)
    )


def read(source: Path) -> tuple[dict[str, object], dict[str, tuple[bytes, int]]]:
    """What a backup says of itself, and its files. Raises Refused with what is wrong with it."""
    files: dict[str, tuple[bytes, int]] = {}
    about: object = None
    try:
        with gzip.open(source) as file:
            whole = file.read(2 * MOST)
            if file.read(1):
                raise Refused(f"{source} is larger than any backup", hint="nothing was changed")
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
            for member in archive:
                is_plain = member.isfile() and not member.issparse()  # a few octets may be a terabyte
                content = archive.extractfile(member) if is_plain else None
                if content is None:
                    raise Refused(f"{member.name} has no place in a backup", hint="nothing was changed")
                if member.name == ABOUT:
                    about = json.loads(content.read())
                elif _is_ours(member.name):
                    files[member.name] = (content.read(), member.mode & 0o777)
                else:
                    raise Refused(f"{member.name} has no place in a backup", hint="nothing was changed")
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError, zlib.error) as error:
        raise Refused(f"{source} is no backup: {error}", hint="ipshare appliance backup makes one") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise Refused(f"{source} is no backup of this format", hint="ipshare appliance backup makes one")
    return about, files


def restore(source: Path, root: Path = Path("/")) -> tuple[dict[str, object], list[str]]:
    """Makes the configuration that of the backup. Returns what it says of itself, and its files' names."""
    about, files = read(source)
    if homeless := [name for name in sorted(files) if not _has_place(root, name, files)]:
        raise Refused(
            f"{', '.join(homeless)}: a directory, or below a file, of this box or of the backup",
            hint="nothing was changed",
        )
    judged = {"/" + name: content for name, content in files.items()}
    if problems := firstboot.site_problems(judged, root):
        raise Refused(
            "the backup's site.toml has mistakes:\n" + "\n".join(problems), hint="nothing was changed"
        )
    needed, left = sum(len(data) + BLOCK for data, _ in files.values()), room.free(root / "etc")
    if left < needed:
        raise Refused(
            f"the backup takes {needed >> 10:,} KiB, and /etc has {left >> 10:,}", hint="nothing was changed"
        )
    with firstboot.alone(root):
        _replace(files, root)
    return about, sorted(files)


def _replace(files: Mapping[str, tuple[bytes, int]], root: Path) -> None:
    """The site file last: what it includes is there before it, also if the power goes in between."""
    for name in sorted(files, key=lambda name: ("/" + name == SITE, name)):
        firstboot.write(root / name, *files[name])
    for path in _there(root):
        name = str(path.relative_to(root))
        is_key = name.startswith("etc/ssh/ssh_host_")  # of none in the backup, the box keeps its own
        if path.is_file() and name not in files and not is_key and name not in FILES:
            path.unlink()


def _has_place(root: Path, name: str, files: Mapping[str, object]) -> bool:
    return firstboot.has_place(root / name) and not any(str(up) in files for up in Path(name).parents)


def order_reset(everything: bool, root: Path = Path("/")) -> str:
    """Orders a factory reset, which the initrd carries out at the next start. Returns the order."""
    if (root / "run/ipshare-degraded").exists():
        raise Refused("/data is memory: there is nothing to reset", hint="mend the data partition first")
    order = "everything" if everything else "configuration"
    firstboot.write(root / RESET, order + "\n", 0o600)
    return order
