"""build: makes an image, step by step. Plans come from layout, grub, packages, overlay; here they become
files.

No loop device, no mount: file systems are made from directories and streams, partitions are copied to their
place in a sparse file. Only mmdebstrap wants root, or a user namespace. Debian's root is kept in the work
directory under a digest of what it was made from, and is taken again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ipshare.appliance import archive, bundle, grub, iso, layout, overlay, packages, sbom, tools
from ipshare.errors import IpshareError, Refused

TOP = Path(__file__).parents[2]
"""The checkout: an image is made from one, not from an installed package."""
NEEDED = (
    "mmdebstrap",
    "mksquashfs",
    "sfdisk",
    "mformat",
    "mcopy",
    "mmd",
    "mke2fs",
    "qemu-img",
    "grub-mkimage",
    "xorriso",
)
ROOM = 4 << 30
UNPACKED = 3 << 29
"""What mmdebstrap's root takes, in the directory for temporary files, before it is a tar file."""
EXTENSIONS = ("raw", "qcow2", "iso", "slot", "packages", "cdx.json")


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted. `epoch`: seconds since 1970 that every file of the image is at most as old as."""

    output: Path
    work: Path
    version: str
    epoch: int
    suite: packages.Suite
    mirrors: tuple[str, ...] = ()
    apt_options: tuple[str, ...] = ()
    vpp_debs: Path | None = None
    update_key: bytes | None = None
    arguments: str = ""
    slot_mib: int = 640
    data_mib: int = 256
    level: int = 15


def judge(order: Order) -> None:
    """Raises Refused for everything that would make the build fail later."""
    if not bundle.VERSION.fullmatch(order.version):
        raise Refused(
            f"{order.version!r} cannot be part of a file's name", hint="--version: letters, digits, . + ~ _ -"
        )
    if not grub.ARGUMENTS.fullmatch(order.arguments):
        raise Refused(
            f"{order.arguments!r} has what GRUB would not hand to a kernel",
            hint="--kernel-arguments: words of letters, digits and _.,:=/@+%~!*^-",
        )
    if not 0 < order.epoch < 1 << 32:
        raise Refused(
            f"{order.epoch} is no time that a file can have", hint="SOURCE_DATE_EPOCH: seconds since 1970"
        )
    if not (TOP / "appliance" / "image").is_dir():
        raise Refused(
            "an image is built from a checkout of ipshare", hint="git clone, make setup, make appliance"
        )
    if not (TOP / "ipshare/_bin/ipshare-engine").exists() or not list(TOP.glob("ipshare/core/_native*.so")):
        raise Refused("the C core is not built", hint="make setup")
    runs([TOP / "ipshare/_bin/ipshare-engine", *TOP.glob("ipshare/core/_native*.so")], order.suite)
    if order.vpp_debs is not None:
        try:
            debs = sorted(path for path in order.vpp_debs.iterdir() if path.suffix == ".deb")
        except OSError as error:
            raise Refused(
                f"{order.vpp_debs} cannot be read: {error.strerror}", hint="--vpp-debs DIRECTORY"
            ) from error
        if not debs:
            raise Refused(f"{order.vpp_debs} has no .deb files", hint="--vpp-debs DIRECTORY")
        tools.need(["dpkg-deb"])
        controls = {deb.name: control(deb) for deb in debs}
        against = [why for deb, said in controls.items() for why in packages.foreign(deb, said, order.suite)]
        if against:
            raise Refused(
                f"these packages are not for {order.suite.name}:\n" + "\n".join(against),
                hint="take those of the image's distribution; two are never mixed",
            )
        if against := packages.apart(controls):
            raise Refused(
                f"the packages in {order.vpp_debs} make no VPP with our plugin:\n" + "\n".join(against),
                hint="all of them from one release, and the plugin built against it: docs/vpp.md",
            )
    tools.need(NEEDED, tools.GRUB)
    for where, option, octets in (
        (order.output, "--output", ROOM),
        (order.work, "--work", ROOM),
        (Path(tempfile.gettempdir()), "TMPDIR", UNPACKED),
    ):
        tools.place(where, option)
        tools.room(where, octets, option)


def control(deb: Path) -> dict[str, str]:
    """The fields of a .deb that decide where it can be installed. Raises Refused if it is none."""
    wanted = ("Package", "Version", "Architecture", "Pre-Depends", "Depends")
    try:
        tools.run(["dpkg-deb", "--contents", str(deb)])  # it is whole
        return {field: tools.run(["dpkg-deb", "-f", str(deb), field]).strip() for field in wanted}
    except IpshareError as error:
        raise Refused(f"{deb} is no Debian package: {error.message}", hint="--vpp-debs DIRECTORY") from error


def runs(programs: Iterable[Path], suite: packages.Suite) -> None:
    """Raises Refused for programs and libraries that were linked with a later glibc than the suite's: its
    Python alone does not make a machine one of that distribution."""
    late = {path.name: at for path in programs if (at := packages.libc(path.read_bytes())) > suite.libc}
    if late:
        named = ", ".join(f"{name} (glibc {at[0]}.{at[1]})" for name, at in sorted(late.items()))
        raise Refused(
            f"made for a later distribution: {named}; {suite.has_libc}",
            hint=f"build images of {suite.name} on a {suite.name}, with its python3",
        )


def build(order: Order, say: Callable[[str], None]) -> dict[str, object]:
    """Makes the image. Returns what was made: files, sizes, seconds per step."""
    judge(order)
    before = os.umask(0o022)  # modes are in the image
    try:
        with tools.alone({order.work.resolve(): "--work", order.output.resolve(): "--output"}):
            return _built(order, say)
    finally:
        os.umask(before)


def _built(order: Order, say: Callable[[str], None]) -> dict[str, object]:
    seconds: dict[str, float] = {}
    began = time.monotonic()

    def step(name: str) -> None:
        nonlocal began
        now = time.monotonic()
        seconds[name] = round(now - began, 1)
        began = now
        say(f"{name}: {seconds[name]:.1f} s")

    env = {"SOURCE_DATE_EPOCH": str(order.epoch)}
    base = _base(order, env)
    step("Debian")
    staged = _staged(order)
    step("Python packages")
    tree = order.work / "slot"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    status = _root(order, base, staged, tree)
    step("root")
    sums = order.output / "SHA256SUMS"
    sums.unlink(missing_ok=True)  # until these files are whole
    name = f"ipshare-{order.version}"
    slot = order.output / f"{name}.slot"
    pack_slot(tree, slot, order.version, order.epoch, order.suite.name)
    limit = order.slot_mib << 20
    if slot.stat().st_size > limit:
        raise IpshareError(
            f"the slot image has {slot.stat().st_size >> 20} MiB, a slot {order.slot_mib}", hint="--slot-mib"
        )
    step("slot")
    raw = order.output / f"{name}.raw"
    write_disk(order, slot, raw, env)
    step("disk")
    qcow2 = order.output / f"{name}.qcow2"
    tools.run(
        ["qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", str(raw), str(qcow2)]
    )
    step("qcow2")
    target, work = order.output / f"{name}.iso", order.work / "iso"
    about = iso.About(order.version, order.epoch, order.slot_mib, order.data_mib, order.arguments)
    iso.write(slot, raw, target, work, about)
    step("iso")
    debs = sbom.debian(status)
    (order.output / f"{name}.packages").write_text("".join(f"{p} {v} {a}\n" for p, v, a in debs))
    stamp = datetime.fromtimestamp(order.epoch, UTC).isoformat().replace("+00:00", "Z")
    wheels = [*sbom.python(staged), ("ipshare", order.version)]
    (order.output / f"{name}.cdx.json").write_text(
        sbom.cyclonedx("ipshare-appliance", order.version, stamp, debs, wheels, order.suite.name)
    )
    files = [order.output / f"{name}.{ext}" for ext in EXTENSIONS]
    sums.write_text("".join(f"{_digest(path)}  {path.name}\n" for path in files))
    step("checksums")
    return {
        "version": order.version,
        "suite": order.suite.name,
        "files": {path.name: path.stat().st_size for path in files},
        "allocated": raw.stat().st_blocks * 512,
        "seconds": seconds,
    }


def _base(order: Order, env: dict[str, str]) -> Path:
    """Debian's root as a tar file: the kept one if it was made from the same."""
    hooks = TOP / "appliance" / "image"
    kept = "{target}"
    debs = str(order.vpp_debs.resolve()) if order.vpp_debs else None
    command = packages.mmdebstrap(
        order.suite, kept, str(hooks), mirrors=order.mirrors, apt_options=order.apt_options, debs=debs
    )
    key = hashlib.sha256(json.dumps([command, order.epoch]).encode())
    for path in (
        hooks / "modules",
        *sorted(order.vpp_debs.glob("*.deb") if order.vpp_debs else ()),
    ):
        key.update(path.read_bytes())
    target = order.work / f"debian-{key.hexdigest()[:16]}.tar"
    if not target.exists():
        part = target.with_suffix(".part")
        part.unlink(missing_ok=True)  # a killed builder's mmdebstrap may still write into it
        unpacked = {"TMPDIR": tempfile.gettempdir()}  # where there is room: judge
        try:
            tools.run([str(part) if word == kept else word for word in command], env={**env, **unpacked})
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error, IpshareError) and "Failed to fetch" in error.message:
                error.hint = "--mirror names another mirror of Debian"
            raise
        part.rename(target)
    return target


def _staged(order: Order) -> Path:
    """A directory with all that goes into dist-packages: pinned wheels, and ipshare out of this checkout."""
    staged = order.work / "python"
    pins = (TOP / "appliance/requirements.txt").read_bytes()
    # Wheels of another Python are taken away: a work directory may be shared by two distributions.
    mark, made = order.work / "python.pins", hashlib.sha256(order.suite.name.encode() + pins).hexdigest()
    if not mark.exists() or mark.read_text() != made:
        shutil.rmtree(staged, ignore_errors=True)
        mark.unlink(missing_ok=True)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--no-compile",
        ]
        tools.run([*pip, "--target", str(staged), "-r", str(TOP / "appliance/requirements.txt")])
        shutil.rmtree(staged / "bin", ignore_errors=True)
        runs((path for path in staged.rglob("*.so*") if path.is_file()), order.suite)
        mark.write_text(made)
    shutil.rmtree(staged / "ipshare", ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.c", "*.o")
    shutil.copytree(TOP / "ipshare", staged / "ipshare", ignore=ignored)
    for record in staged.glob("*.dist-info/RECORD"):
        record.unlink()  # lists what was removed above, in an order of its own
    below = f"/usr/local/lib/python{order.suite.python[0]}.{order.suite.python[1]}/dist-packages"
    compiled = ["compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", str(staged), "-p", below]
    tools.run([sys.executable, "-m", *compiled, str(staged)])
    return staged


def _root(order: Order, base: Path, staged: Path, tree: Path) -> str:
    """root.squashfs, kernel and initrd in `tree`. Returns dpkg's status."""
    entries = overlay.entries(TOP / "appliance/systemd", staged, order.suite.python, order.update_key)
    command = [
        "mksquashfs",
        "-",
        str(tree / "root.squashfs"),
        "-tar",
        "-comp",
        "zstd",
        "-Xcompression-level",
        str(order.level),
    ]
    command += ["-noappend", "-no-progress", "-b", "256K", "-quiet"]
    log = order.work / "mksquashfs.log"
    # Of a stream, mksquashfs makes a root that everybody may write, which sshd refuses.
    command += ["-root-mode", "0755", "-root-uid", "0", "-root-gid", "0"]
    # Not by options: of a stream, mksquashfs 4.5 forgets -root-time.
    env = tools.surroundings() | {"SOURCE_DATE_EPOCH": str(order.epoch)}
    with base.open("rb") as source, log.open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=env)
        assert process.stdin is not None
        try:
            taken = archive.merged(source, entries, order.epoch, process.stdin)
            process.stdin.close()
        except BrokenPipeError:
            taken = {}
        except BaseException as error:
            process.kill()
            process.wait()
            if isinstance(error, tarfile.TarError):
                raise IpshareError(
                    f"{base} is damaged: {error}", hint="remove it, and build again"
                ) from error
            raise
        if process.wait():
            raise IpshareError(f"mksquashfs failed: {log.read_text()[-500:]}")
    kernels = sorted(path for path in taken if path.startswith("/boot/vmlinuz-"))
    if len(kernels) != 1:
        raise IpshareError(f"the root has {len(kernels)} kernels")
    (tree / "vmlinuz").write_bytes(taken[kernels[0]])
    script = archive.Entry("/scripts/ipshare", (TOP / "appliance/image/initrd.sh").read_bytes(), 0o755)
    debian = taken[kernels[0].replace("vmlinuz", "initrd.img")]
    (tree / "initrd.img").write_bytes(archive.cpio([archive.Entry("/scripts", mode=0o755), script]) + debian)
    return taken["/var/lib/dpkg/status"].decode()


def pack_slot(tree: Path, slot: Path, version: str, epoch: int, suite: str) -> None:
    """The slot image of a directory with vmlinuz, initrd.img and root.squashfs. Not compressed: GRUB reads no
    zstd."""
    release = {
        "product": "ipshare-appliance",
        "version": version,
        "suite": suite,
        "epoch": epoch,
        "layout": layout.NUMBER,
    }
    (tree / "release.json").write_text(json.dumps(release) + "\n")
    slot.unlink(missing_ok=True)
    plain = ["-noI", "-noD", "-noF", "-noX", "-comp", "gzip", "-no-xattrs", "-all-root", "-no-exports"]
    stamp = ["-mkfs-time", str(epoch), "-all-time", str(epoch), "-noappend", "-no-progress", "-quiet"]
    tools.run(["mksquashfs", str(tree), str(slot), *plain, *stamp])


def write_disk(order: Order, slot: Path, raw: Path, env: dict[str, str]) -> None:
    """The whole disk: table, GRUB for BIOS and UEFI, slot a, an empty slot b, an empty data partition."""
    plan = layout.disk(order.slot_mib, order.data_mib)
    work = order.work / "disk"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    (work / "early.cfg").write_text(grub.early())
    make = ["grub-mkimage", "-c", str(work / "early.cfg"), "-p", "/grub"]
    tools.run([*make, "-O", "i386-pc", "-o", str(work / "core.img"), *grub.BIOS_MODULES])
    tools.run([*make, "-O", "x86_64-efi", "-o", str(work / "BOOTX64.EFI"), *grub.EFI_MODULES])
    (work / "grub.cfg").write_text(grub.config(order.arguments))
    (work / "grubenv").write_bytes(grub.encode({"good": "a", "trial": "", "tries": "0"}))
    for path in work.iterdir():
        os.utime(path, (order.epoch, order.epoch))
    esp, sectors = work / "esp.img", plan["esp"].size // layout.SECTOR
    with esp.open("wb") as file:
        file.truncate(plan["esp"].size)
    at = ["-i", str(esp)]
    tools.run(
        [
            "mformat",
            *at,
            "-v",
            "IPSHARE",
            "-N",
            layout.FAT_SERIAL,
            "-T",
            str(sectors),
            "-h",
            "64",
            "-s",
            "32",
            "::",
        ],
        env=env,
    )
    tools.run(["mmd", *at, "::/EFI", "::/EFI/BOOT", "::/grub"], env=env)
    tools.run(["mcopy", "-m", *at, str(work / "BOOTX64.EFI"), "::/EFI/BOOT/"], env=env)
    tools.run(["mcopy", "-m", *at, str(work / "grub.cfg"), str(work / "grubenv"), "::/grub/"], env=env)
    data = work / "data.img"
    with data.open("wb") as file:
        file.truncate(plan["data"].size)
    seed = layout.identity("hash")
    make_data = [
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-U",
        layout.identity("data"),
        "-L",
        "ipshare-data",
    ]
    lazy = f"hash_seed={seed},lazy_itable_init=0,lazy_journal_init=0"
    tools.run([*make_data, "-E", lazy, str(data)], env={**env, "E2FSPROGS_FAKE_TIME": str(order.epoch)})
    raw.unlink(missing_ok=True)
    with raw.open("wb") as disk:
        disk.truncate(plan.size)
    tools.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(raw)], text=layout.sfdisk(plan))
    core_at = plan["bios"].start
    with raw.open("r+b") as disk:
        disk.write(grub.boot_sector(Path("/usr/lib/grub/i386-pc/boot.img").read_bytes(), core_at))
        disk.seek(core_at)
        disk.write(grub.core_image((work / "core.img").read_bytes(), core_at))
    for image, part in ((esp, plan["esp"]), (slot, plan["a"]), (data, plan["data"])):
        copy_sparse(image, raw, part.start)


def copy_sparse(image: Path, disk: Path, at: int, block: int = layout.MIB) -> None:
    """Copies an image into a disk at an offset, without what is zero."""
    with image.open("rb") as source, disk.open("r+b") as target:
        for number in range(-(-image.stat().st_size // block)):
            piece = source.read(block)
            if piece.strip(b"\0"):
                target.seek(at + number * block)
                target.write(piece)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
