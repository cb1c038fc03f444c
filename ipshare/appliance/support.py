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

from ipshare import durable

REMOVED = "<removed>"
WORDS = (
    r"passw(?:or)?d|passphrase|secret|token|private|credential|authorization|psk"
    r"|(?<![a-z])(?:api)?keys?(?![a-z])"
)
SECRET = re.compile(
    # The name of a file, or an identity, is none. Names are short: no time is lost in a file of one line.
    rf"(?im)^(?P<before>[^\n]*?(?:{WORDS})[\w.\-]{{0,64}}(?<!_file)(?<!_id)[\"']?\s*[=:]\s*)"
    # A value over several lines is taken with all of them; whatever follows it in its last line, too.
    r"(?=\S)(?:\"\"\"[\s\S]*?(?:\"\"\"|\Z)|'''[\s\S]*?(?:'''|\Z)|\[[^\]]*|\{[^}]*)?.*$"
)
BEARER = re.compile(r"(?i)(?P<before>\bbearer\s+)[\w.~+/=-]{8,}")
PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
URL = re.compile(r"(?i)(?P<scheme>\b[a-z][a-z0-9+.-]{0,20}://)[^/\s@\"']+@")
MOST = 4 << 20
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
    text = BEARER.sub(rf"\g<before>{REMOVED}", text)
    return SECRET.sub(rf'\g<before>"{REMOVED}"', text)


def files(places: Iterable[Path]) -> dict[str, str]:
    """The files below these directories that are taken, cleaned: name in the archive -> text; of one that
    cannot be read, why."""
    found = {}
    for place in places:
        for pattern in TAKEN:
            for path in sorted(place.rglob(pattern)):
                if path.is_file() and not path.is_symlink():
                    found[f"files{path}"] = _text(path)
    return found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST:
            return f"left out: longer than {MOST:,} octets\n"
        return cleaned(path.read_text(errors="replace"))
    except OSError as error:  # it is another user's, or has gone meanwhile
        return f"left out: {error.strerror}\n"


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
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in sorted(texts.items()):
            data = text.encode()
            member = tarfile.TarInfo(f"ipshare-support/{name}")
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    durable.put(target, out.getvalue(), 0o600)
