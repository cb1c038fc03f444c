"""seed: what a box is told: a NoCloud seed, three YAML files on a volume labelled CIDATA. Written here, and
read here.

The format is cloud-init's, so tools that make such seeds can make ours; the box understands this of it, and
says what it does not: meta-data: instance-id, local-hostname. user-data (#cloud-config): hostname,
ssh_authorized_keys, write_files below /etc/ipshare. network-config: version 2 (network). Passwords and
commands are no part of it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ipshare import durable
from ipshare.appliance import document, network, tools
from ipshare.errors import Refused

LABEL = "CIDATA"
SIZE = 4 << 20
HOSTNAME = re.compile(r"(?=.{1,64}\Z)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
"""The kernel's has 64 characters at most."""
KEY = re.compile(
    r"(ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp(?:256|384|521)|sk-[a-z0-9@.-]+) ([A-Za-z0-9+/=]+)(?: [^\n]*)?"
)
BELOW = "/etc/ipshare/"
NAME = 250
"""Octets of a file's name at most, so that what is written beside it has one, too."""


@dataclass(frozen=True, slots=True)
class Seed:
    """What a seed says, judged. `files`: path -> (content, mode). None: it says nothing of that, and what the
    box has stays (a seed of NoCloud says all of it)."""

    instance: str
    hostname: str | None
    keys: tuple[str, ...] | None = ()
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    networks: Mapping[str, str] | None = field(default_factory=dict)
    servers: tuple[str, ...] = ()


def is_public_key(line: str) -> bool:
    """Whether it is one of SSH's, and whole: a seed that was cut within a key would lock everybody out. The
    blob is strings with their lengths (RFC 4251, 5), the first one is the type."""
    found = KEY.fullmatch(line)
    if found is None:
        return False
    try:
        blob = base64.b64decode(found[2], validate=True)
    except ValueError:
        return False
    parts, at = list[bytes](), 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
        if end > len(blob):
            return False
        parts.append(blob[at + 4 : end])
        at = end
    return len(parts) >= 2 and parts[0] == found[1].encode() and all(parts[1:])


def documents(
    hostname: str,
    keys: Sequence[str],
    files: Mapping[str, str],
    networks: Mapping[str, Any] | None,
) -> dict[str, str]:
    """The three files. `networks`: of ethernets, or None for DHCP everywhere. Raises Refused with what the
    box would refuse."""
    user = {
        "ssh_authorized_keys": list(keys),
        "write_files": [
            {"path": path, "permissions": "0600", "content": text} for path, text in files.items()
        ],
    }
    texts = {"user-data": "#cloud-config\n" + _dump(user)}
    if networks is not None:
        texts["network-config"] = _dump({"version": 2, "ethernets": dict(networks)})
    name = hashlib.sha256("\0".join([hostname, *texts.values()]).encode()).hexdigest()[:16]
    texts["meta-data"] = _dump({"instance-id": f"ipshare-{name}", "local-hostname": hostname})
    _, mistakes = read(texts)
    if mistakes:
        raise Refused("the box would not take this seed:\n" + "\n".join(mistakes))
    return texts


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True  # the box takes none


def _dump(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000))


def read(texts: Mapping[str, str]) -> tuple[Seed | None, list[str]]:
    """What the files say, or all that is wrong with them."""
    mistakes: list[str] = []
    meta = _mapping("meta-data", texts.get("meta-data", ""), mistakes)
    user = _mapping("user-data", texts.get("user-data", ""), mistakes)
    if texts.get("user-data", "").strip() and not texts["user-data"].startswith("#cloud-config"):
        mistakes.append("user-data: begins with #cloud-config, or is empty; scripts are not run")
    known = {"hostname", "ssh_authorized_keys", "write_files"}
    mistakes.extend(f"user-data: {key} is not understood" for key in sorted(set(map(str, user)) - known))
    hostname = str(user.get("hostname") or meta.get("local-hostname") or meta.get("hostname") or "ipshare")
    if not HOSTNAME.fullmatch(hostname):
        mistakes.append(f"hostname {hostname!r} is none")
    keys = user.get("ssh_authorized_keys") or []
    if not isinstance(keys, list) or not all(
        isinstance(key, str) and is_public_key(key.strip()) for key in keys
    ):
        mistakes.append(
            "user-data: ssh_authorized_keys is a list of public keys, whole ones (id_ed25519.pub)"
        )
        keys = []
    files = _files(user.get("write_files") or [], mistakes)
    networks: dict[str, str] = {}
    servers: list[str] = []
    if texts.get("network-config", "").strip():
        wanted = _yaml("network-config", texts["network-config"], mistakes)
        if wanted is not None:
            networks, servers = network.rendered(wanted, mistakes)
    if mistakes:
        return None, mistakes
    instance = str(meta.get("instance-id") or "none")
    return Seed(instance, hostname, tuple(k.strip() for k in keys), files, networks, tuple(servers)), []


def _files(wanted: Any, mistakes: list[str]) -> dict[str, tuple[str, int]]:
    files: dict[str, tuple[str, int]] = {}
    for entry in wanted if isinstance(wanted, list) else [None]:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            mistakes.append("user-data: write_files is a list of path, content, permissions")
            continue
        path, mode = str(entry.get("path")), str(entry.get("permissions", "0600"))
        if not is_below(path):
            mistakes.append(f"user-data: {path} is not below {BELOW}")
        elif path in files:
            mistakes.append(f"user-data: {path} is there twice")
        elif set(entry) - {"path", "content", "permissions"}:
            mistakes.append(f"user-data: of {path}, path, content and permissions are understood")
        elif not re.fullmatch(r"0?[0-7]{3}", mode):
            mistakes.append(f"user-data: permissions {mode!r} of {path} are none")
        else:
            files[path] = (entry["content"], int(mode, 8))
    for parent in {str(parent) for path in files for parent in PurePosixPath(path).parents}:
        if parent in files:
            mistakes.append(f"user-data: {parent} is a file, and a directory of another one")
    return files


def is_below(path: str) -> bool:
    """Whether it is the one name of a file below /etc/ipshare: no detours, nothing that no name has."""
    parts = path.removeprefix(BELOW).split("/")
    return path.startswith(BELOW) and all(
        part not in ("", ".", "..") and part.isprintable() and len(part.encode()) <= NAME for part in parts
    )


def _mapping(name: str, text: str, mistakes: list[str]) -> dict[str, Any]:
    found = _yaml(name, text, mistakes)
    if found is None:
        return {}
    if not isinstance(found, dict):
        mistakes.append(f"{name}: not a table of keys")
        return {}
    return found


def _yaml(name: str, text: str, mistakes: list[str]) -> Any:
    try:
        return document.read(text)
    except ValueError as error:
        mistakes.append(f"{name}: {error}")
        return None


def write_image(texts: Mapping[str, str], target: Path) -> None:
    """A FAT volume with these files, labelled for the box (a disk for a VM, or for a USB stick)."""
    tools.need(["mformat", "mcopy"])
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "seed.img"
        with made.open("wb") as file:
            file.truncate(SIZE)
        at = ["-i", str(made)]
        tools.run(["mformat", *at, "-v", LABEL, "-T", str(SIZE // 512), "-h", "16", "-s", "32", "::"])
        for name, text in texts.items():
            path = Path(place) / name
            path.write_text(text)
            tools.run(["mcopy", *at, str(path), f"::/{name}"])
        durable.put(target, made.read_bytes(), 0o600)  # it may hold keys
