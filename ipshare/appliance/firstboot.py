"""firstboot: runs at every start of a box, before its network: applies a seed that is new, and nothing that
is wrong.

A seed is three files of NoCloud (seed), plain files (stick), or answers at the console (wizard).
It is applied as a whole or not at all, once: its digest is kept on /data, and what an operator changes later
stays. Its site file is judged before it takes the place of the one that is there: with mistakes, the
previous one stays, or none, and the box comes up for management either way. Paths are relative to `root`, so
that tests run it in a directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ipshare import durable
from ipshare.appliance import grow, slots, stick, volumes
from ipshare.appliance import seed as seeds
from ipshare.appliance.overlay import HOST_KEY, SITE
from ipshare.errors import IpshareError

NAMES = ("meta-data", "user-data", "network-config")
APPLIED = "data/appliance/seed.applied"
APPLIED_NOW = "run/ipshare-seed.applied"
"""In its place where /data takes nothing more: the seed is applied anew at the next start."""
LOCK = "run/ipshare-told.lock"
KEYS = "etc/ssh/authorized_keys.d/root"
NETWORKS = "etc/systemd/network"


def judged(texts: Mapping[str, str]) -> tuple[str, seeds.Seed | None, list[str]]:
    """A digest of what a volume has, and what that says, or all that is wrong with it: NoCloud's files, or
    plain ones."""
    if any(name in texts for name in NAMES):
        digest = _digest({name: texts.get(name, "") for name in NAMES})
        return digest, *seeds.read(texts)
    return _digest(dict(sorted(texts.items()))), *stick.read(texts)


def _digest(texts: Mapping[str, str]) -> str:
    return hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in texts.items()).encode()).hexdigest()


def told(root: Path = Path("/")) -> str:
    """The digest of what was applied last; empty: nothing ever."""
    for path in (root / APPLIED_NOW, root / APPLIED):
        try:
            return path.read_text().strip()
        except OSError:
            continue
    return ""


@contextlib.contextmanager
def alone(root: Path = Path("/")) -> Iterator[None]:
    """Waits until nobody else (another console, a restore) tells this box something."""
    (root / LOCK).parent.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def apply(texts: Mapping[str, str], say: Callable[[str], None], root: Path = Path("/")) -> bool:
    """Applies a seed that differs from the last one. Says what it did, or all that is wrong; true if the seed
    was taken."""
    digest, found, mistakes = judged(texts)
    if told(root) == digest:
        return True
    if found is None:
        for mistake in mistakes:
            say(f"seed: {mistake}")
        say("seed: not applied; the settings before it stay")
        return False
    if taken := [path for path in found.files if not has_place(root / path.lstrip("/"))]:
        say(f"seed: {', '.join(taken)}: a directory, or below a file, of this box")
        say("seed: not applied; the settings before it stay")
        return False
    files = dict(found.files)
    good = _judge_site(files, say, root)
    if found.hostname is not None:
        hosts = f"127.0.0.1 localhost\n127.0.1.1 {found.hostname}\n::1 localhost\n"
        write(root / "etc/hostname", found.hostname + "\n", 0o644)
        write(root / "etc/hosts", hosts, 0o644)
    if found.keys is not None:
        write(root / KEYS, "".join(key + "\n" for key in found.keys), 0o644)
    if found.networks is not None:
        _networks(found.networks, root / NETWORKS)
    if found.servers:
        write(root / "etc/resolv.conf", "".join(f"nameserver {server}\n" for server in found.servers), 0o644)
    for path, (text, mode) in files.items():
        write(root / path.lstrip("/"), text, mode)
    _remember(digest, say, root)
    what = [
        found.hostname or "no host name",
        f"{len(found.keys or ())} SSH keys",
        f"{len(found.networks or ())} interfaces",
        f"{len(files)} files",
    ]
    say(f"seed: {found.instance} applied: {', '.join(what)}")
    return good


def _remember(digest: str, say: Callable[[str], None], root: Path) -> None:
    try:
        write(root / APPLIED, digest + "\n", 0o600)
        (root / APPLIED_NOW).unlink(missing_ok=True)
    except OSError as error:
        say(f"seed: /data does not take that it was applied: {error.strerror}")
        write(root / APPLIED_NOW, digest + "\n", 0o600)


def has_place(path: Path) -> bool:
    """Whether a file may be written there: nothing but files in its place, or directories above it."""
    return not path.is_dir() and not any(up.exists() and not up.is_dir() for up in path.parents)


def _networks(wanted: Mapping[str, str], place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob("10-seed-*.network"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        write(place / name, text, 0o644)


def _judge_site(files: dict[str, tuple[str, int]], say: Callable[[str], None], root: Path) -> bool:
    """Takes a site file with mistakes out of `files`, after saying them."""
    problems = site_problems(files, root)
    if not problems:
        return True
    for problem in problems:
        say(f"site.toml: {problem}")
    kept = (
        "the one before it stays"
        if (root / SITE.lstrip("/")).exists()
        else "there is none before it: no agent"
    )
    say(f"site.toml: not taken, {kept}")
    del files[SITE]
    return False


def site_problems(files: Mapping[str, tuple[str | bytes, int]], root: Path | None) -> list[str]:
    """What is wrong with the site file among `files`. It is judged beside the others, and those that are
    there: it may include them. Without `root`: of a box that has none yet."""
    if SITE not in files:
        return []
    from ipshare import config

    with tempfile.TemporaryDirectory() as place:
        there = root / "etc/ipshare" if root is not None else Path(place)
        for old in sorted(there.rglob("*")):
            if old.is_file():
                write(Path(place) / old.relative_to(there), old.read_bytes(), 0o600)
        for path, (text, mode) in files.items():
            if not path.startswith(seeds.BELOW):
                continue
            write(Path(place) / path.removeprefix(seeds.BELOW), text, mode)
        try:
            problems = [str(problem) for problem in config.check(Path(place) / "site.toml").problems]
        except (IpshareError, OSError) as error:
            problems = [str(error)]
    return [problem.replace(place + "/", "") for problem in problems]


def write(path: Path, content: str | bytes, mode: int) -> None:
    """The whole file or the one before it, also if the power goes; with ``mode`` whatever the umask is, and
    never more. Raises OSError, and leaves nothing of it on a disk that is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write(path, content.encode() if isinstance(content, str) else content, mode)


def host_key(say: Callable[[str], None], root: Path = Path("/")) -> None:
    """Makes SSH's host key, if there is none: Ed25519 alone. Every client that this box wants knows it, and
    an RSA key would have to be searched for."""
    target = root / HOST_KEY
    if target.exists() and target.stat().st_size:
        return
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "key"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            say(f"SSH has no host key: {done.stderr.strip()}")
            return
        write(target.with_name(target.name + ".pub"), made.with_suffix(".pub").read_text(), 0o644)
        write(target, made.read_text(), 0o600)


def run(say: Callable[[str], None]) -> None:
    """All that the unit does. What is wrong with a step is said, whatever it is, and the next one is taken:
    nobody could reach a box without a host key, to mend it."""
    steps = (("/data", room_on_data), ("seed", take_seed), ("host name", name_machine), ("SSH", host_key))
    for name, step in steps:
        try:
            step(say)
        except Exception as error:
            say(f"{name}: {str(error) or type(error).__name__}; the settings before it stay")


def room_on_data(say: Callable[[str], None]) -> None:
    """/data takes what the disk has, or why it does not."""
    degraded = Path("/run/ipshare-degraded")
    if degraded.exists():
        say(f"degraded: {degraded.read_text().strip()}; nothing is kept until this is mended")
    elif slots.is_live():
        say("live system: what it is told is kept in memory, until it ends")
    else:
        try:
            grow.grow(say)
        except (IpshareError, OSError, ValueError) as error:
            say(f"/data stays as large as it is: {error}")


def take_seed(say: Callable[[str], None]) -> None:
    """Looks for a seed, and applies it if it is new."""
    volumes.await_sticks()
    device, second = volumes.find()
    for line in second:
        say(f"seed: {line}")
    if device is None:
        say(f"no seed (a volume labelled {seeds.LABEL} or {stick.LABEL})")
        return
    of_cloud = Path(device).name.upper() == seeds.LABEL
    apply(volumes.read(device, lambda name: not of_cloud or name in NAMES), say)


def name_machine(say: Callable[[str], None] = lambda text: None) -> None:
    Path("/proc/sys/kernel/hostname").write_text(Path("/etc/hostname").read_text().strip())


def take_effect() -> None:
    """What was applied to a box that runs: name, addresses, agent."""
    name_machine()
    subprocess.run(["systemctl", "restart", "systemd-networkd.service"], check=False)
    subprocess.run(["systemctl", "restart", "--no-block", "ipshare-agent@site.service"], check=False)
