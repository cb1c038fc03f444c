"""bundle: a signed update: three lines and a slot image. Made at the builder's, verified and written at the
box.

    ipshare-bundle 1
    {"product": ..., "version": ..., "layout": 1, "size": N, "sha256": ...}
    <Ed25519 signature of the two lines above, base64>
    <N octets: the slot image>

Nothing is written before the signature is good, and nothing boots before what was written was read back from
the disk and has the digest that was signed. Until then the boot loader's variables name the old slot alone,
so the power may go at any time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ipshare import durable
from ipshare.appliance import layout, slots
from ipshare.errors import IpshareError, Refused

MAGIC = b"ipshare-bundle 1\n"
PRODUCT = "ipshare-appliance"
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}")
LINE = 4096
KEY_MOST = 1 << 16
BLOCK = layout.MIB
BEGINNING = 4096
"""Octets of a slot that are written last."""


@dataclass(frozen=True, slots=True)
class Manifest:
    product: str
    version: str
    layout: int
    size: int
    sha256: str


def make_key(private: Path, public: Path) -> None:
    """A new key for signing updates (mode 0600), and the half of it that goes into images."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    half = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    made = list[Path]()
    try:
        for path, text, mode in ((public, half, 0o644), (private, pem, 0o600)):
            with open(os.open(path, durable.NEW, mode), "wb") as file:
                made.append(path)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
    except BaseException as error:  # never one half without the other
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise Refused(
                f"{error.filename} exists",
                hint="images with its public half take no updates of another key",
            ) from None
        raise


def key_text(path: Path) -> bytes:
    """Of a file with a key; of one that is no such, as much as shows it."""
    with path.open("rb") as file:
        return file.read(KEY_MOST)


def public_key(pem: bytes) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise Refused("that is no public key", hint="ipshare appliance key makes one") from error
    if not isinstance(key, Ed25519PublicKey):
        raise Refused("the key is not for Ed25519", hint="ipshare appliance key makes one")
    return key


def make(slot: Path, version: str, key_file: Path, target: Path) -> Manifest:
    """Signs a slot image. Raises Refused for what a box would not start from, or could not read."""
    if not VERSION.fullmatch(version):
        raise Refused(f"{version[:80]!r} is no version", hint="--version: letters, digits, . + ~ _ -")
    if any(target.exists() and target.samefile(path) for path in (slot, key_file)):
        raise Refused(f"{target} would be written over", hint="--output: a file of its own for the bundle")
    try:
        key = serialization.load_pem_private_key(key_text(key_file), None)
    except (ValueError, TypeError) as error:
        raise Refused(f"{key_file} holds no private key", hint="ipshare appliance key makes one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Refused(f"{key_file} is not for Ed25519", hint="ipshare appliance key makes one")
    with slot.open("rb") as image:
        if image.read(len(slots.SQUASHFS)) != slots.SQUASHFS:
            raise Refused(f"{slot} is no slot image", hint="ipshare-VERSION.slot of a build")
        image.seek(0)
        digest = hashlib.file_digest(image, "sha256").hexdigest()
        manifest = Manifest(PRODUCT, version, layout.NUMBER, slot.stat().st_size, digest)
        head = MAGIC + json.dumps(asdict(manifest)).encode() + b"\n"
        image.seek(0)
        is_file = not target.exists() or target.is_file()
        aside = target.with_name(f"{target.name}.part") if is_file else target  # or a pipe
        try:
            with aside.open("wb") as out:
                out.write(head + base64.b64encode(key.sign(head)) + b"\n")
                while piece := image.read(BLOCK):
                    out.write(piece)
            if is_file:
                aside.replace(target)
        except BaseException:  # the one before it stays, and no room is taken
            if is_file:
                aside.unlink(missing_ok=True)
            raise
    return manifest


def verified(file: IO[bytes], key: Ed25519PublicKey) -> Manifest:
    """The manifest of a bundle, whose payload then is next in the file. Raises Refused with the reason."""
    magic, line, signature = file.readline(LINE), file.readline(LINE), file.readline(LINE)
    if magic != MAGIC or not line.endswith(b"\n") or not signature.endswith(b"\n"):
        raise Refused("that is no update bundle", hint="ipshare appliance bundle makes one")
    try:
        key.verify(base64.b64decode(signature[:-1], validate=True), magic + line)
    except (InvalidSignature, ValueError):
        raise Refused(
            "the update is not signed with the key of this image", hint="nothing was written"
        ) from None
    try:
        manifest = Manifest(**json.loads(line))
        is_sound = isinstance(manifest.size, int) and manifest.size > 0 and len(manifest.sha256) == 64
    except (TypeError, ValueError):
        is_sound = False
    if not is_sound:
        raise Refused(
            "the update's manifest is of another format", hint="a later version of ipshare may read it"
        )
    if manifest.product != PRODUCT or manifest.layout != layout.NUMBER:
        raise Refused(
            f"the update is for {manifest.product}, layout {manifest.layout}", hint="install the image anew"
        )
    return manifest


def write(file: IO[bytes], manifest: Manifest, target: Path, say: Callable[[str], None]) -> None:
    """Writes the payload to a slot's device and reads it back. Its first octets come last, when all others
    are on the disk: a slot with a beginning is whole. Raises before or after; the slot then is not to be
    started, and, once writing began, has no beginning."""
    room = _size(target)
    if manifest.size > room:
        raise Refused(
            f"the update has {manifest.size >> 20} MiB, the slot {room >> 20}", hint="install the image anew"
        )
    with target.open("r+b", buffering=0) as disk:
        beginning = _piece(file, min(BEGINNING, manifest.size))
        _begin(disk, bytes(len(beginning)))
        left = manifest.size - len(beginning)
        while left:
            piece = _piece(file, min(BLOCK, left))
            _all(disk, piece)
            left -= len(piece)
        os.fsync(disk.fileno())
        _begin(disk, beginning)
        os.posix_fadvise(disk.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read from the disk, not from memory
        say("written; reading it back")
        disk.seek(0)
        digest, left = hashlib.sha256(), manifest.size
        while left and (piece := disk.read(min(BLOCK, left))):
            digest.update(piece)
            left -= len(piece)
        is_signed = digest.hexdigest() == manifest.sha256
        if not is_signed:
            _begin(disk, bytes(len(beginning)))
    if not is_signed:
        raise IpshareError(
            "what was written is not what was signed",
            hint="the old version stays; the disk or the bundle is bad",
        )


def _piece(file: IO[bytes], size: int) -> bytes:
    """So many octets, but for the last of a pipe's. Raises IpshareError at its end."""
    piece = file.read(size)
    if not piece:
        raise IpshareError("the update ends early", hint="the old version stays; fetch the bundle again")
    return piece


def _begin(disk: IO[bytes], beginning: bytes) -> None:
    disk.seek(0)
    _all(disk, beginning)
    os.fsync(disk.fileno())


def _all(disk: IO[bytes], piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[disk.write(view) :]


def _size(target: Path) -> int:
    if stat.S_ISBLK(target.stat().st_mode):
        with target.open("rb") as disk:
            return disk.seek(0, os.SEEK_END)
    return target.stat().st_size


def install(
    file: IO[bytes],
    key: Ed25519PublicKey,
    environment: Path,
    slot: str,
    target: Path,
    say: Callable[[str], None],
) -> Manifest:
    """Writes a bundle, read once from its beginning, to the slot that does not run, for a trial at the
    next start. `slot` and `target`: that one."""
    manifest = verified(file, key)
    boot = slots.look(environment)
    if boot.good == slot:
        raise Refused(
            f"slot {slot} is the good one, and another one runs", hint="start the machine again first"
        )
    if boot.trial:
        slots.store(environment, slots.Boot(boot.good))  # what is half written is never tried
    say(f"{manifest.version} goes to slot {slot}")
    write(file, manifest, target, say)
    slots.store(environment, slots.Boot(boot.good).on_trial(slot))
    return manifest
