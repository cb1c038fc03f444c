"""pair: the engine's half of a pair brought in line with the configuration; key file; what stands in the way.

The engine decides who is active, with or without an agent. Here it only gets what the file says, once: a pass
that finds the pair as it should be changes nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from ipshare.agent.pair_ports import ensure, made_here
from ipshare.engine.pairing import KEY_BYTES, Pairing, PairSettings
from ipshare.engine.protocol import Engine
from ipshare.errors import IpshareError, NoPrivilege, Problem, Refused
from ipshare.model import Config, Pair

MAKE_KEY = "`ipshare pair key {}` makes one; copy it to the other node"
Told = tuple[str, PairSettings]
"""What an engine was told last: its boot id, and that."""


def settings_of(config: Config, pair: Pair) -> PairSettings:
    """What the engine gets. Raises Refused or NoPrivilege where the key file is not as it should be."""
    witness_key = read_key(pair.witness.key_file) if pair.witness is not None else b""
    return PairSettings(
        pair, read_key(pair.key_file), epoch_file(config), witness_key, is_mirrored=config.mirror is not None
    )


def epoch_file(config: Config) -> Path:
    """The counter of the highest epoch: on a disk that outlives a reboot, written by the engine."""
    return config.node.state_dir / "pair.epoch"


def align(engine: Engine, config: Config, told: Told | None) -> tuple[Told | None, bool]:
    """Sets, changes or clears the pair of ``engine``. ``told``: by this agent, at the last pass.

    Returns what it is told now, and whether that is a change."""
    if not isinstance(engine, Pairing):
        if config.pair is None:
            return None, False
        raise Refused(f"engine {engine.info().kind} cannot be half of a pair", hint="leave [pair] out")
    had = engine.pair_state() is not None
    if config.pair is None:
        if told is not None and made_here(told[1].pair):
            ensure((), config.node.state_dir)
        if had:
            engine.clear_pair()
        return None, had
    now = (engine.info().boot_id, settings_of(config, config.pair))
    if made_here(config.pair) or told is not None and made_here(told[1].pair):
        ensure(made_here(config.pair), config.node.state_dir)
    now[1].epoch_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine.set_pair(now[1])  # the same again: the engine sees it and does nothing
    return now, not had or told not in (None, now)


def preflight(pair: Pair, *, has_ports: bool = True, has_paths: bool = True) -> list[Problem]:
    """What keeps this node from being its half: key file, hook, addresses. ``has_ports`` False: VPP has the
    interfaces of VIPs; ``has_paths`` False: the ends of paths are in a network namespace that is not ours."""
    from ipshare.net.pair import pair_problems

    found = []
    for file in (pair.key_file, *([pair.witness.key_file] if pair.witness is not None else [])):
        try:
            read_key(file)
        except IpshareError as error:
            found.append(Problem("this machine", 0, 0, "", error.message, error.hint))
    if pair.hook is not None and not (pair.hook.is_file() and os.access(pair.hook, os.X_OK)):
        text = f"the pair's hook {pair.hook} is no program that can be run"
        found.append(Problem("this machine", 0, 0, "", text, "put it there, and chmod 0755 it"))
    return found + (pair_problems(pair, has_ports=has_ports) if has_paths else [])


def read_key(path: Path, whose: str = "pair's") -> bytes:
    """The key in a file of 64 hexadecimal digits of its owner alone. Raises Refused, NoPrivilege."""
    try:
        mode, text = path.stat().st_mode, path.read_text()
    except FileNotFoundError:
        raise Refused(f"the {whose} key file {path} does not exist", hint=MAKE_KEY.format(path)) from None
    except PermissionError:
        raise NoPrivilege(f"may not read the {whose} key file {path}", hint="run as root") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise Refused(
            f"cannot read the {whose} key file {path}: {reason}", hint=MAKE_KEY.format(path)
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        message = (
            f"others than its owner may read the {whose} key file {path} (mode {stat.S_IMODE(mode):04o})"
        )
        raise Refused(message, hint=f"chmod 0600 {path}; if anybody may have read it, make another key")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text.strip()):
        message = f"the {whose} key file {path} does not hold {2 * KEY_BYTES} hexadecimal digits"
        raise Refused(message, hint=MAKE_KEY.format(path))
    return bytes.fromhex(text.strip())


def make_key(path: Path) -> None:
    """A new key in a new file of mode 0600. Raises Refused if the file is there."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise Refused(f"{path} exists: a key is never overwritten", hint="name another file") from None
    except PermissionError:
        raise NoPrivilege(f"may not make {path}", hint="run as root, or name another file") from None
    except OSError as error:
        raise IpshareError(f"cannot make {path}: {error.strerror}", hint="name another file") from None
    try:
        os.fchmod(fd, 0o600)
        os.write(fd, secrets.token_hex(KEY_BYTES).encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
