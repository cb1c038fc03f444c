"""wizard: asks at a console what a box is to be told, shows all of it, and gives it to firstboot as plain
files (stick): the same judge, the same refusals. Lines in, lines out: no cursor, no colour, any terminal.

It can be left at every question (Ctrl-D, Ctrl-C); nothing is changed before the last answer. No password is
made: who logs in has an SSH key.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import yaml

from ipshare.appliance import firstboot, stick
from ipshare.appliance.overlay import SITE
from ipshare.errors import Refused

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
Judge = Callable[[str], Sequence[str]]


class Left(Exception):
    """Whoever answered has gone: end of input, Ctrl-C, `leave`."""


class Terminal:
    """Questions to one stream, answers from another, line by line."""

    def __init__(self, answers: IO[str], questions: IO[str]) -> None:
        self.answers, self.questions = answers, questions

    def say(self, text: str = "") -> None:
        self.questions.write(text + "\n")
        self.questions.flush()

    def line(self, prompt: str) -> str:
        """One answer, without blanks around it. Raises Left at the end of input."""
        self.questions.write(prompt)
        self.questions.flush()
        try:
            text = self.answers.readline()
        except KeyboardInterrupt:
            raise Left from None
        if not text:
            raise Left
        return text.encode("utf-8", "replace").decode().strip()  # a terminal may send anything

    def ask(self, what: str, judge: Judge, default: str | None = None) -> str:
        """Asks until the answer is good. An empty line is the default, if there is one."""
        while True:
            text = self.line(f"{what}{f' [{default}]' if default else ''}: ")
            text = text or default or ""
            if not (against := judge(text)):
                return text
            for line in against:
                self.say(f"  {line}")

    def choose(self, what: str, among: Sequence[str]) -> int:
        """The number, from 0, of the one that was chosen; the first by default."""
        self.say(what)
        for number, text in enumerate(among, 1):
            self.say(f"  {number}  {text}")
        numbers = [str(number) for number in range(1, len(among) + 1)]
        chosen = self.ask("Number", lambda text: [] if text in numbers else [f"1 to {len(among)}"], "1")
        return int(chosen) - 1


@dataclass(frozen=True, slots=True)
class Ethernet:
    name: str
    mac: str
    has_carrier: bool

    def __str__(self) -> str:
        return f"{self.name}  {self.mac}  {'link' if self.has_carrier else 'no link'}"


def ethernets(root: Path = Path("/")) -> list[Ethernet]:
    """The cards of this machine."""
    found = []
    for place in sorted((root / "sys/class/net").iterdir()):
        if (place / "device").exists() and _text(place / "type") == "1":
            found.append(Ethernet(place.name, _text(place / "address"), _text(place / "operstate") == "up"))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def answers(
    terminal: Terminal, cards: Sequence[Ethernet], keys_of_sticks: Callable[[], Mapping[str, str]], root: Path
) -> dict[str, str]:
    """Asks everything; the plain files that it makes. Raises Left."""
    terminal.say("This box is set up here. Ctrl-D leaves; nothing is changed before the last question.")
    name = terminal.ask("Host name", lambda text: stick.read({stick.HOST: text})[1], "ipshare")
    texts = {stick.HOST: name + "\n"}
    address = None
    if cards:
        card = cards[terminal.choose("Which Ethernet is for management?", [str(card) for card in cards])].name
        settings, address = _address(terminal, card)
        wanted = {"version": 2, "ethernets": {card: settings}}
        texts[stick.NETWORK] = yaml.safe_dump(wanted, sort_keys=False)
    else:
        terminal.say("There is no Ethernet: its address is left as it is.")
    texts[stick.KEYS] = _keys(terminal, keys_of_sticks)
    while (site := _site(terminal, name, address)) is not None:
        problems = firstboot.site_problems({SITE: (site, 0o600)}, root)
        if not problems:
            texts[stick.SITE] = site
            break
        for problem in problems:
            terminal.say(f"  {problem}")
    return texts


def _address(terminal: Terminal, card: str) -> tuple[dict[str, object], str | None]:
    """The settings of a card, as in a network-config; and its address, if it has one of its own."""
    if terminal.choose(f"Address of {card}?", ["by DHCP", "a static one"]) == 0:
        return {"dhcp4": True, "dhcp6": True}, None

    def judge(text: str) -> list[str]:
        wanted = {"version": 2, "ethernets": {card: {"addresses": [text]}}}
        return stick.read({stick.NETWORK: yaml.safe_dump(wanted)})[1]

    address = ipaddress.ip_interface(terminal.ask("Address with prefix length, as 192.0.2.1/24", judge))
    settings: dict[str, object] = {"addresses": [str(address)]}

    def judge_gateway(text: str) -> list[str]:
        if not text:
            return []
        against = _addresses(text, most=1)
        if not against and ipaddress.ip_address(text) not in address.network:
            return [f"{text} is not in {address.network}"]
        return against

    gateway = terminal.ask("Gateway (an empty line: none)", judge_gateway)
    if gateway:
        settings["routes"] = [{"to": "default", "via": gateway}]
    servers = terminal.ask("DNS servers, with blanks between them (an empty line: none)", _addresses).split()
    if servers:
        settings["nameservers"] = {"addresses": servers}
    return settings, str(address.ip)


def _addresses(text: str, most: int = 8) -> list[str]:
    against = [] if len(text.split()) <= most else [f"{most} at most"]
    for word in text.split():
        try:
            ipaddress.ip_address(word)
        except ValueError:
            against.append(f"{word} is no address")
    return against


def _keys(terminal: Terminal, keys_of_sticks: Callable[[], Mapping[str, str]]) -> str:
    """The text of authorized_keys."""
    ways = ["paste one", "read a file from a stick", "none: nobody can log in"]
    while True:
        way = terminal.choose("SSH key of whoever administers this box?", ways)
        if way == 2:
            return ""
        if way == 0:
            key = terminal.ask(
                "Public key, one line", lambda t: stick.read({stick.KEYS: t})[1] if t else ["no key"]
            )
            return key + "\n"
        found = dict(keys_of_sticks())
        if not found:
            terminal.say("  no stick has a file NAME.pub, or authorized_keys")
            continue
        names = list(found)
        text = found[names[terminal.choose("Which file?", names)]]
        against = stick.read({stick.KEYS: text})[1]
        if not against:
            return text
        for line in against:
            terminal.say(f"  {line}")


def _site(terminal: Terminal, host: str, address: str | None) -> str | None:
    """A small site file of what was answered, or None for a box without an agent."""
    roles = ["management only: the site file comes later", "a distribution point", "an end point"]
    role = terminal.choose("What is this box?", roles)
    if role == 0:
        return None
    prefix = terminal.ask("Global Network, as 198.51.100.0/24", _prefix)
    point = terminal.ask("Name of the end point", _name, "A")
    local = terminal.ask(f"Its local network, as large, for {prefix}", _prefix)
    at = terminal.ask(
        "Address of this node that ICMP errors come from",
        lambda t: _addresses(t, 1) if t else ["one"],
        address,
    )
    node = NAME.match(host.replace(".", "-"))
    lines = ["[node]", f'name = "{node[0] if node else "node"}"']
    more = []
    if role == 1:
        name = terminal.ask("Name of this distribution point", _name, "C")
        lines.append(f'distribution = "{name}"')
        more = ["", "[[distribution]]", f'name = "{name}"']
    else:
        lines.append(f'endpoint = "{point}"')
    lines += [f'icmp_source = ["{at}"]', "", "[[network]]", 'name = "global"', f'prefix = "{prefix}"']
    lines += ["", "[[endpoint]]", f'name = "{point}"', f'local = ["{local}"]', *more]
    return "\n".join([*lines, "", "[[binding]]", f'global = "{prefix}"', f'to = "{point}"']) + "\n"


def _prefix(text: str) -> list[str]:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        return [str(error)]
    return []


def _name(text: str) -> list[str]:
    return [] if NAME.fullmatch(text) else ["letters, digits, -, _ and ."]


def ask(
    terminal: Terminal, cards: Sequence[Ethernet], keys_of_sticks: Callable[[], Mapping[str, str]], root: Path
) -> dict[str, str]:
    """Asks, shows what comes of it, asks whether that is meant. Raises Left."""
    while True:
        texts = answers(terminal, cards, keys_of_sticks, root)
        for name, text in texts.items():
            terminal.say(f"--- {name}")
            terminal.say(text.rstrip("\n") if text.strip() else "(empty: nobody can log in)")
        terminal.say("---")
        what = terminal.choose("Is that meant?", ["apply it", "ask again", "leave; change nothing"])
        if what == 2:
            raise Left
        if what == 0:
            return texts


def state(root: Path = Path("/")) -> str:
    """Which seed the box took; empty: none ever."""
    return firstboot.told(root)


def apply(texts: Mapping[str, str], before: str, say: Callable[[str], None], root: Path = Path("/")) -> bool:
    """Applies them, if the box has still the settings that it had when `before` was its state."""
    with firstboot.alone(root):
        if state(root) != before:
            raise Refused("this box was told something else meanwhile", hint="ipshare appliance wizard, anew")
        return firstboot.apply(texts, say, root)
