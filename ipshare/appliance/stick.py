"""stick: what a box is told in plain files: site.toml and, each if wanted, hostname, authorized_keys,
network.yaml, and more for /etc/ipshare. On a volume labelled IPSHARE-CFG (FAT or ext), or from the console
(wizard). Pure.

Judged by the same rules as a NoCloud seed (seed, network). What there is no file for stays as the box has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ipshare.appliance import document, network
from ipshare.appliance.document import MOST
from ipshare.appliance.seed import BELOW, HOSTNAME, Seed, is_public_key

LABEL = "IPSHARE-CFG"
HOST, KEYS, NETWORK, SITE = "hostname", "authorized_keys", "network.yaml", "site.toml"
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NUMBER = 64


def read(texts: Mapping[str, str]) -> tuple[Seed | None, list[str]]:
    """What the files say, or all that is wrong with them."""
    mistakes = [
        f"{name}: a name of letters, digits, -, _ and ." for name in texts if not FILE.fullmatch(name)
    ]
    mistakes += [f"{name}: longer than {MOST:,} characters" for name in texts if len(texts[name]) > MOST]
    mistakes += [f"{name}: is no text" for name, text in texts.items() if "\ufffd" in text or "\0" in text]
    if not texts:
        mistakes.append(f"there is no file; {SITE} is one")
    elif len(texts) > NUMBER:
        mistakes.append(f"{len(texts)} files; {NUMBER} are taken")
    hostname = _hostname(texts[HOST], mistakes) if HOST in texts else None
    keys = _keys(texts[KEYS], mistakes) if KEYS in texts else None
    networks: dict[str, str] | None = None
    servers: list[str] = []
    if NETWORK in texts:
        found: list[str] = []
        networks, servers = network.rendered(_yaml(texts[NETWORK], mistakes), found)
        mistakes += [mistake.replace("network-config", NETWORK, 1) for mistake in found]
    if mistakes:
        return None, mistakes
    files = {BELOW + name: (text, 0o600) for name, text in texts.items() if name not in (HOST, KEYS, NETWORK)}
    return Seed("plain files", hostname, keys, files, networks, tuple(servers)), []


def _hostname(text: str, mistakes: list[str]) -> str:
    if not HOSTNAME.fullmatch(text.strip()):
        mistakes.append(f"{HOST}: {text.strip()[:80]!r} is none")
    return text.strip()


def _keys(text: str, mistakes: list[str]) -> tuple[str, ...]:
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    keys = [(number, line) for number, line in lines if line and not line.startswith("#")]
    mistakes += [
        f"{KEYS}:{n}: no public key, or not a whole one (id_ed25519.pub)"
        for n, key in keys
        if not is_public_key(key)
    ]
    return tuple(key for _, key in keys)


def _yaml(text: str, mistakes: list[str]) -> object:
    try:
        return document.read(text)
    except ValueError as error:
        mistakes.append(f"{NETWORK}: {error}")
        return {"version": 2}
