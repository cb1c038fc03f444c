"""support: what somebody who helps wants to see of a node, in one archive, without what must stay here.

Files of keys are left out by name and by content; values of keys that sound like a secret are replaced in
every text, TOML, JSON and INI alike. What is not known to be harmless is not taken at all: the list of files
is a list of what is.
"""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

REMOVED = "<removed>"
WORDS = r"password|passwd|secret|token|private|credential|\bkey\b|psk"
SECRET = re.compile(
    rf"(?im)^(?P<before>[^\n#]*?[\"']?[\w.\-]*(?:{WORDS})[\w.\-]*[\"']?\s*[=:]\s*)(?P<value>\S.*)$"
)
HARMLESS = re.compile(r"(?i)(?:key_file|password_file|token_file|secret_file|_id)[\"']?\s*[=:]\s*$")
PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/\s:@]*:[^/\s@]*@")
TAKEN = ("*.toml", "*.csv", "*.json")
COMMANDS = {
    "ip-address": ["ip", "address"],
    "ip-route": ["ip", "route", "show", "table", "all"],
    "ip-rule": ["ip", "rule"],
    "uname": ["uname", "-a"],
    "df": ["df", "-h"],
    "dmesg": ["dmesg"],
    "units": ["systemctl", "list-units", "--no-pager", "--all", "ipshare*"],
    "journal": ["journalctl", "--no-pager", "-b", "-n", "5000", "-u", "ipshare*"],
    "version": ["ipshare", "version"],
    "status": ["ipshare", "show", "info"],
    "counters": ["ipshare", "counters"],
}


def cleaned(text: str) -> str:
    """The text without secrets."""
    text = PEM.sub(REMOVED, text)
    text = URL.sub(rf"\g<scheme>{REMOVED}@", text)
    return SECRET.sub(lambda m: m[0] if HARMLESS.search(m["before"]) else f'{m["before"]}"{REMOVED}"', text)


def files(places: Iterable[Path]) -> dict[str, str]:
    """The files below these directories that are taken, cleaned: name in the archive -> text."""
    found = {}
    for place in places:
        for pattern in TAKEN:
            for path in sorted(place.rglob(pattern)):
                if path.is_file() and not path.is_symlink() and path.stat().st_size < 4 << 20:
                    found[f"files{path}"] = cleaned(path.read_text(errors="replace"))
    return found


def outputs() -> dict[str, str]:
    """What the commands say, cleaned; of one that is not there or fails, that."""
    found = {}
    for name, command in COMMANDS.items():
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=20, check=False
            )
            found[f"{name}.txt"] = cleaned(done.stdout + done.stderr)
        except (OSError, subprocess.TimeoutExpired) as error:
            found[f"{name}.txt"] = f"{error}\n"
    return found


def write(target: Path, texts: dict[str, str]) -> None:
    """A tar.gz with mode 0600."""
    target.touch(mode=0o600)
    with tarfile.open(target, "w:gz") as archive:
        for name, text in sorted(texts.items()):
            data = text.encode()
            member = tarfile.TarInfo(f"ipshare-support/{name}")
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
