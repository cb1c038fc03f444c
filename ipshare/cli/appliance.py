"""appliance: the verbs of the image: build, key, bundle and seed at a builder's; install, rollback, status,
health, firstboot at the box."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import click

from ipshare.cli import exits, output
from ipshare.cli.appliance_first import console_, install_disk_, wizard_
from ipshare.cli.appliance_keep import backup_, clock_, factory_reset_, guard_, restore_
from ipshare.cli.options import json_option
from ipshare.errors import Refused

PATH = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group("appliance")
def appliance_() -> None:
    """A bootable image that is a node: build it, seed it, update it (docs/appliance.md)."""


for _verb in (backup_, restore_, factory_reset_, clock_, guard_, install_disk_, wizard_, console_):
    appliance_.add_command(_verb)


@appliance_.command("build")
@click.option(
    "--output",
    "place",
    type=PATH,
    default=Path("build/appliance"),
    show_default=True,
    help="Where the image goes.",
)
@click.option(
    "--work",
    type=PATH,
    default=Path("build/appliance-work"),
    show_default=True,
    help="What is kept between builds.",
)
@click.option("--version", "name", default=None, help="Of the image; default: that of ipshare.")
@click.option(
    "--suite", default=None, help="Debian's release; default, and only, that of the machine that builds."
)
@click.option(
    "--mirror", "mirrors", multiple=True, help="Of Debian, as mmdebstrap takes it; may be given again."
)
@click.option(
    "--apt-option", "apt_options", multiple=True, help="For apt, as in apt.conf; may be given again."
)
@click.option(
    "--vpp-debs",
    type=FOLDER,
    default=None,
    help="A directory with VPP's .debs (and the plugin's) to install.",
)
@click.option(
    "--update-key", type=FILE, default=None, help="Public key whose updates the image takes; without: none."
)
@click.option("--kernel-arguments", "arguments", default="", help="More words for the kernel.")
@click.option(
    "--slot-mib", type=click.IntRange(64, 65536), default=640, show_default=True, help="Size of each slot."
)
@click.option(
    "--data-mib", type=click.IntRange(16, 1 << 20), default=256, show_default=True, help="Size of /data."
)
@click.option(
    "--level", type=click.IntRange(1, 22), default=15, show_default=True, help="How hard zstd tries."
)
@json_option
def build_(
    place: Path,
    work: Path,
    name: str | None,
    suite: str | None,
    mirrors: tuple[str, ...],
    apt_options: tuple[str, ...],
    vpp_debs: Path | None,
    update_key: Path | None,
    arguments: str,
    slot_mib: int,
    data_mib: int,
    level: int,
    as_json: bool,
) -> None:
    """Build the image: raw, qcow2, ISO, slot (for updates), list of packages, bill of materials, SHA256SUMS.

    SOURCE_DATE_EPOCH is the time of all files; by default that of the last commit.
    """
    import ipshare
    from ipshare.appliance import build, bundle, packages

    key = bundle.key_text(update_key) if update_key else None
    if key is not None:
        bundle.public_key(key)
    order = build.Order(
        place,
        work,
        name or ipshare.__version__,
        _epoch(build.TOP),
        packages.chosen(suite, sys.version_info[:2]),
        mirrors,
        apt_options,
        vpp_debs,
        key,
        arguments,
        slot_mib,
        data_mib,
        level,
    )
    made = build.build(order, lambda text: None if as_json else output.line(text))
    if as_json:
        output.emit(made)
        return
    files: Any = made["files"]
    for file, size in files.items():
        output.line(f"{place / file}  {size / 1e6:,.1f} MB")


def _epoch(top: Path) -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given:
        if not (given.isascii() and given.isdigit()):
            raise output.UsageProblem(f"SOURCE_DATE_EPOCH is {given!r}", "seconds since 1970")
        return int(given)
    done = subprocess.run(
        ["git", "-C", str(top), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
    )
    if done.returncode or not done.stdout.strip().isdigit():
        raise Refused("the time of the sources is not known here", hint="set SOURCE_DATE_EPOCH")
    return int(done.stdout)


@appliance_.command("key")
@click.argument("private", type=PATH)
@json_option
def key_(private: Path, as_json: bool) -> None:
    """Make a key for signing updates in the new file PRIVATE, and PRIVATE.pub for images."""
    from ipshare.appliance import bundle

    public = private.with_name(private.name + ".pub")
    bundle.make_key(private, public)
    if as_json:
        output.emit({"private": str(private), "public": str(public)})
        return
    output.line(f"{private} signs updates, {public} goes into images (--update-key)")


@appliance_.command("bundle")
@click.argument("slot", type=FILE)
@click.option("--version", "name", required=True, help="Of the update.")
@click.option("--key", type=FILE, required=True, help="The private key.")
@click.option("-o", "--output", "target", type=PATH, required=True, help="The bundle.")
@json_option
def bundle_(slot: Path, name: str, key: Path, target: Path, as_json: bool) -> None:
    """Sign the slot image SLOT of a build: an update."""
    from ipshare.appliance import bundle

    manifest = bundle.make(slot, name, key, target)
    if as_json:
        output.emit(asdict(manifest))
    else:
        output.line(f"{target}: {manifest.version}, {manifest.size / 1e6:,.1f} MB")


@appliance_.command("seed")
@click.option("--hostname", required=True, help="Name of the box.")
@click.option("--config", type=FILE, default=None, help="Its site file, for /etc/ipshare/site.toml.")
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="NAME=FILE",
    help="Another file for /etc/ipshare (bindings, keys).",
)
@click.option("--ssh-key", "keys", type=FILE, multiple=True, help="Public keys that may log in as root.")
@click.option(
    "--network", "networks", type=FILE, default=None, help="network-config (version 2, YAML); default: DHCP."
)
@click.option("-o", "--output", "target", type=PATH, required=True, help="The volume.")
@json_option
def seed_(
    hostname: str,
    config: Path | None,
    files: tuple[str, ...],
    keys: tuple[Path, ...],
    networks: Path | None,
    target: Path,
    as_json: bool,
) -> None:
    """Write a seed: what a box is told at its first start. A volume for a VM's second disk, or for a USB
    stick."""
    from ipshare.appliance import document, firstboot, network, seed

    texts: dict[str, str] = {}
    for given in files:
        name, equals, path = given.partition("=")
        if not equals or not Path(path).is_file():
            raise output.UsageProblem(f"--file {given}: there is no such file", "--file NAME=FILE")
        if seed.BELOW + name in texts or (config is not None and name == "site.toml"):
            raise output.UsageProblem(f"--file {given}: {name} is given twice", "--file NAME=FILE")
        texts[seed.BELOW + name] = _text(Path(path))
    if config is not None:
        texts[seed.BELOW + "site.toml"] = _text(config)
    wanted: Any = None
    if networks is not None:
        mistakes = list[str]()
        try:
            wanted = document.read(_text(networks))
            if not network.rendered(wanted, mistakes)[0] and not mistakes:
                mistakes.append("there are no ethernets")
        except ValueError as error:
            mistakes.append(str(error))
        if mistakes:
            raise Refused(
                f"the box would not take {networks}:\n" + "\n".join(mistakes),
                hint="version: 2, ethernets: {enp1s0: {addresses: [...]}}",
            )
        wanted = wanted.get("network", wanted)["ethernets"]
    if problems := firstboot.site_problems({path: (text, 0o600) for path, text in texts.items()}, None):
        raise Refused("the box would not take this site file:\n" + "\n".join(problems))
    lines = [line for path in keys for line in _text(path).splitlines() if line.strip()]
    seed.write_image(seed.documents(hostname, lines, texts, wanted), target)
    if as_json:
        output.emit({"file": str(target), "hostname": hostname, "keys": len(lines), "files": sorted(texts)})
        return
    nobody = "" if lines else " (nobody can log in)"
    output.line(f"{target}: {hostname}, {len(lines)} SSH keys{nobody}, {len(texts)} files")


def _text(path: Path) -> str:
    from ipshare.appliance.document import MOST

    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST + 1)
        if len(text) > MOST:
            raise Refused(f"{path} is longer than {MOST:,} characters", hint="a seed has small files")
        return text
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is no text", hint="a seed has text: TOML, CSV, PEM, UTF-8") from error


reboot_option = click.option(
    "--reboot",
    is_flag=True,
    help="Start it at once. Half of a pair hands over before; where that cannot be, nothing is started.",
)


@appliance_.command("install")
@click.argument("file", type=click.File("rb"))
@reboot_option
@json_option
def install_(file: IO[bytes], reboot: bool, as_json: bool) -> None:
    """At the box: write the update FILE (-: what comes in) to the slot that does not run, for a trial."""
    from ipshare.appliance import bundle, health, overlay, restart, slots

    slot = slots.other(slots.running())
    pem = Path(overlay.UPDATE_KEY)
    if not pem.exists():
        raise Refused(
            "this image was built without a key: it takes no updates", hint="install the image anew"
        )
    say = (lambda text: None) if as_json else output.line
    with slots.alone(), slots.environment() as path:
        health.note(say)
        manifest = bundle.install(
            file, bundle.public_key(pem.read_bytes()), path, slot, slots.device(slot), say
        )
    if as_json:
        output.emit({"version": manifest.version, "slot": slot})
    say(f"{manifest.version} is in slot {slot}, and is tried at the next start")
    if reboot:
        restart.again(say)


@appliance_.command("rollback")
@reboot_option
@json_option
def rollback_(reboot: bool, as_json: bool) -> None:
    """At the box: go back to the version before, in the slot that does not run: it is tried at the next
    start, as an update is. Again: back again."""
    from ipshare.appliance import health, restart, slots

    say = (lambda text: None) if as_json else output.line
    running = slots.running()
    with slots.alone(), slots.environment() as path:
        health.note(say)
        version = slots.version(slots.device(slots.other(running)))
        slot = slots.back(path, running, version)
    if as_json:
        output.emit({"version": version, "slot": slot})
    say(f"{version} in slot {slot} is tried at the next start")
    if reboot:
        restart.again(say)


@appliance_.command("status")
@json_option
def status_(as_json: bool) -> None:
    """At the box: versions, slots, what the next start tries, room on /data."""
    from ipshare.appliance import room, slots

    slot = slots.running()
    with slots.environment() as path:
        boot = slots.look(path)
    why, free = room.degraded(), room.free()
    record = {
        "slot": slot,
        "release": slots.release(),
        "good": boot.good,
        "trial": boot.trial,
        "tries": boot.tries,
        "other": slots.version(slots.device(slots.other(slot))),
    }
    if as_json:
        output.emit(record | {"degraded": why, "data_free": free})
        return
    output.line(f"slot {slot} runs: {slots.release().get('version')}; {boot.good} is the good one")
    output.line(f"slot {slots.other(slot)} has {record['other'] or 'nothing that could be started'}")
    if boot.trial:
        output.line(f"slot {boot.trial} is on trial, {boot.tries} tries left")
    output.line(f"/data has {free >> 20:,} MiB left")
    if why:
        output.line(f"degraded: {why}")


@appliance_.command("health")
@click.option("--reboot", is_flag=True, help="Start again if a slot on trial is not healthy.")
@json_option
@click.pass_context
def health_(ctx: click.Context, reboot: bool, as_json: bool) -> None:
    """At the box: is the running slot fit to stay; if it was on trial, it becomes the good one."""
    from ipshare.appliance import health

    said: list[str] = []
    is_fit = health.judge(said.append if as_json else lambda text: output.line(f"ipshare: {text}"))
    if as_json:
        output.emit({"stays": is_fit, "said": said})
    if not is_fit:
        if reboot:
            health.again()
        ctx.exit(exits.NO)


@appliance_.command("firstboot")
@json_option
def firstboot_(as_json: bool) -> None:
    """At the box, before its network: keep what another version left, apply a seed that is new."""
    from ipshare.appliance import before, firstboot, slots

    slots.at_box()
    said: list[str] = []
    say = said.append if as_json else lambda text: output.line(f"ipshare: {text}")
    before.at_start(say)
    firstboot.run(say)
    if as_json:
        output.emit({"said": said})
