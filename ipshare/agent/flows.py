"""flows: session table, NAT pools and mirror of the engine brought in line with the configuration.

The engine keeps sessions whatever becomes of the agent; it gets what the file says, again at every pass, and
sees itself that nothing changed. What it was told last is in runtime_dir/flows.json: an engine that has a
table keeps its sizes, also when the configuration wants none any more.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ipshare.agent.codec import decode, encode
from ipshare.agent.pair import read_key
from ipshare.engine.flows import (
    Flowing,
    FlowsSettings,
    FlowsState,
    MirrorSettings,
    encode_flows,
    encode_mirror,
)
from ipshare.engine.protocol import Engine
from ipshare.errors import Problem, Refused
from ipshare.model import Config, Sessions
from ipshare.model_flows import memory_bytes

log = logging.getLogger(__name__)
SPARE = 0.9
"""Share of the available memory that a session table may take."""


@dataclass(frozen=True, slots=True)
class ToldFlows:
    """What an engine was told last: its boot id; digests of the messages ("": none); its table's sizes."""

    boot_id: str = ""
    flows: str = ""
    mirror: str = ""
    sizes: Sessions | None = None


def wants_flows(config: Config) -> bool:
    return config.sessions is not None


def align(engine: Engine, config: Config, file: Path) -> bool:
    """Sets, changes or empties sessions, pools and mirror of ``engine``; True: that was a change.

    Raises Refused: the engine cannot, or not with these sizes; too little memory."""
    if not isinstance(engine, Flowing):
        if not wants_flows(config):
            return False
        raise Refused(
            f"engine {engine.info().kind} tracks no connections", hint="leave [[nat]] and track out"
        )
    state = engine.flows_state()
    told = _told(file, engine.info().boot_id)
    now = ToldFlows(told.boot_id)
    if state is None:  # of an earlier version: it has nothing of this, and says so if it is to have it
        if not wants_flows(config):
            return False
    elif state.has_mirror and config.mirror is None:
        engine.clear_mirror()
    settings = flows_settings(config, told.sizes if state is not None and state.has_flows else None)
    if settings is not None:
        if (state is None or not state.has_flows) and (short := memory_short(config)):
            raise Refused(short.message, hint=short.hint)
        engine.set_flows(settings)
        flows = _digest(encode_flows(settings))
        now = ToldFlows(told.boot_id, flows, sizes=settings.sessions)
    if config.mirror is not None:
        key = read_key(config.mirror.key_file)
        mirror = MirrorSettings(config.mirror, config.nats, config.sessions, key)
        engine.set_mirror(mirror)
        now = ToldFlows(now.boot_id, now.flows, _digest(encode_mirror(mirror)), now.sizes)
    if now != told:
        _remember(file, now)
    return (now.flows, now.mirror) != (told.flows, told.mirror)


def flows_settings(config: Config, had: Sessions | None) -> FlowsSettings | None:
    """What the engine shall have; None: nothing, and it has nothing. A table that nobody wants any more
    stays, with its sizes and without pools: its memory goes with the engine."""
    sessions = config.sessions or had
    return FlowsSettings(sessions, config.nats) if sessions is not None else None


def empty(engine: Flowing, file: Path) -> bool:
    """Mirror and pools go out of an engine that stays when its node does not; True: there was something. The
    session table goes with the engine."""
    state = engine.flows_state()
    if state is None or not state.has_flows:
        return False
    told = _told(file, _boot_id(engine))
    if state.has_mirror:
        engine.clear_mirror()
    if told.sizes is not None:
        engine.set_flows(FlowsSettings(told.sizes, ()))
    return state.has_mirror or bool(state.addresses)


def _boot_id(engine: Flowing) -> str:
    return engine.info().boot_id if isinstance(engine, Engine) else ""


def drift(config: Config, state: FlowsState | None) -> list[str]:
    """What is not as the last pass left it."""
    found = []
    if wants_flows(config) and not (state is not None and state.has_flows):
        found.append("the engine has no session table")
    has_mirror = state is not None and state.has_mirror
    if has_mirror != (config.mirror is not None):
        found.append("the engine mirrors sessions " + ("that it should not" if has_mirror else "no more"))
    return found


def memory_short(config: Config) -> Problem | None:
    """A session table that this machine has no memory for; all of it is taken when the engine gets it."""
    if config.sessions is None:
        return None
    need, have = memory_bytes(config.sessions, config.nats), _available_bytes()
    if have is None or need <= have * SPARE:
        return None
    text = (
        f"the session table needs about {need >> 20:,} MiB, and this machine has {have >> 20:,} MiB to give"
    )
    return Problem("this machine", 0, 0, "", text, "lower capacity in [sessions]: a session takes 158 bytes")


def _available_bytes() -> int | None:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return None


def _digest(message: bytes) -> str:
    """The mirror's message holds the key: only its digest is kept."""
    return hashlib.blake2b(message, digest_size=16).hexdigest()


def _told(file: Path, boot_id: str) -> ToldFlows:
    """What was told to this very engine."""
    try:
        record = json.loads(file.read_text())
        told: ToldFlows = decode(ToldFlows, record)
    except (OSError, ValueError, TypeError, LookupError):
        return ToldFlows(boot_id)
    return told if told.boot_id == boot_id else ToldFlows(boot_id)


def _remember(file: Path, told: ToldFlows) -> None:
    aside = file.with_suffix(".new")
    try:
        aside.write_text(json.dumps(encode(told)))
        aside.replace(file)
    except OSError as error:
        log.warning("cannot write %s: %s", file, error.strerror)
