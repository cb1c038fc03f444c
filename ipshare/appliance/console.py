"""console: what tty1 and the serial line show: there is no shell and no password behind them.

    live system, nothing told    a menu: install to a disk, set up, restart, power off
    no seed was ever applied     the wizard, for who presses Enter
    otherwise                    host name, addresses, state of the agent; again when they change

What the others do (a seed, SSH, the other console) is seen here within seconds, while nobody answers.
"""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ipshare.appliance import disks, firstboot, medium, room, slots, tools, volumes, wizard
from ipshare.appliance.overlay import SITE
from ipshare.appliance.wizard import Left, Terminal
from ipshare.errors import IpshareError

EVERY_S = 5.0
MENU = ["install to a disk", "set up this live system, in memory", "start again", "power off"]


@dataclass(frozen=True, slots=True)
class Box:
    """What the console sees of its machine, and does to it."""

    is_live: bool
    state: Callable[[], str] = wizard.state
    lines: Callable[[], list[str]] = lambda: lines()
    set_up: Callable[[Terminal], None] = lambda terminal: set_up(terminal)
    install: Callable[[Terminal], None] = lambda terminal: install(terminal)
    power: Callable[[str], object] = lambda verb: subprocess.run(["systemctl", verb], check=False)


def addresses(text: str) -> list[str]:
    """Of what `ip -json address` says: it leaves an empty record for what its filter took away."""
    return [
        f"{card['ifname']}  {address['local']}/{address['prefixlen']}"
        for card in json.loads(text or "[]")
        for address in card.get("addr_info", ())
        if "local" in address
    ]


def lines() -> list[str]:
    """What the box is, now."""
    found = [Path("/proc/sys/kernel/hostname").read_text().strip()]
    found += addresses(tools.run(["ip", "-json", "address", "show", "scope", "global"]))
    if len(found) == 1:
        found.append("no address")
    agent = subprocess.run(
        ["systemctl", "is-active", "ipshare-agent@site.service"], capture_output=True, text=True, check=False
    ).stdout.strip()
    has_site = Path(SITE).exists()
    found.append(f"agent  {agent}" if has_site else "agent  none: there is no site file")
    if not slots.is_live() and (why := room.degraded()):
        found.append(f"degraded: {why}")
    return found


def set_up(terminal: Terminal) -> None:
    """The wizard, to its end. Raises Left."""
    before = wizard.state()
    texts = wizard.ask(terminal, wizard.ethernets(), volumes.public_keys, Path("/"))
    wizard.apply(texts, before, terminal.say)
    firstboot.take_effect()


def install(terminal: Terminal) -> None:
    """Asks for a disk, and makes it one of the appliance. Raises Left."""
    found = medium.read()
    fit = []
    for disk in disks.look(found.disk.size):
        if disk.against:
            terminal.say(f"  not {disk.device} {disk.model}: {'; '.join(disk.against)}")
        else:
            fit.append(disk)
    if not fit:
        terminal.say("There is no disk to install to.")
        return
    names = [f"{disk.device}  {disk.size / 1e9:,.1f} GB  {disk.model}" for disk in fit]
    disk = fit[terminal.choose("Which disk? What it has is lost.", names)]
    if terminal.line(f"Type {disk.name} to write over {disk.device}: ") != disk.name:
        terminal.say("Nothing was written.")
        return
    medium.install(found, medium.PLACE, Path(disk.device), terminal.say)
    terminal.say(f"{disk.device} has ipshare {found.version}: take the medium out, and start again")


def run(terminal: Terminal, box: Box) -> None:
    """Shows, waits, shows again; ends when the terminal does."""
    shown: list[str] = []
    while True:
        is_told = bool(box.state())
        now = [
            *box.lines(),
            "" if is_told or box.is_live else "Nobody set this box up yet: press Enter to do it here.",
        ]
        if now != shown:
            terminal.say()
            for line in ["ipshare", *now]:
                terminal.say(f"  {line}" if line else "")
            if box.is_live:
                terminal.say("Live system of the installation medium: it keeps nothing.")
                for number, text in enumerate(MENU, 1):
                    terminal.say(f"  {number}  {text}")
                terminal.say("Type a number, and Enter.")
            shown = now
        if not select.select([terminal.answers], [], [], EVERY_S)[0]:
            continue
        try:
            text = terminal.line("")
        except Left:
            return
        shown = []
        try:
            if box.is_live:
                _choose(terminal, box, text)
            elif not is_told:
                box.set_up(terminal)
        except Left:
            terminal.say("\nLeft; nothing was changed.")
        except (IpshareError, OSError) as error:
            terminal.say(f"{error}")


def _choose(terminal: Terminal, box: Box, text: str) -> None:
    if text == "1":
        box.install(terminal)
    elif text == "2":
        box.set_up(terminal)
    elif text == "3":
        box.power("reboot")
    elif text == "4":
        box.power("poweroff")
