"""redirects: what this node keeps of migrations: workloads that left it, and such as it expects (SYSTEMS.md
S1.11).

state_dir/migrations.json holds both; a configuration is what it was plus what follows from them
(`effective`), at every pass, so a new engine or a new agent has the same again. At the node that is left:
from "runs at the target" on, packets of its addresses are redirected there. At the target: its tables know
the addresses before a director's revision says so. Both end with the migration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from ipshare.agent.codec import decode, encode
from ipshare.agent.store import Store, log
from ipshare.engine.rebound import target, with_moves
from ipshare.errors import IpshareError
from ipshare.model import Config, Move, Network, Place, Prefix, Redirect, Unmatched, contains

FILE = "migrations.json"


class Phase(StrEnum):
    """Of a workload at this node."""

    EXPECTED = "expected"  # it will come
    MOVING = "moving"  # it was told to leave
    THERE = "there"  # it left, and runs there
    HERE = "here"  # it was told to leave, and did not


@dataclass(frozen=True, slots=True)
class Run:
    """A workload in a migration. ``node``, ``to``: target node, and its end point; ``networks``: name and
    prefix of Global Networks that the target may not know yet; ``detail``: why it is still here. Times in
    seconds since the epoch, 0: not yet."""

    id: str
    workload: str
    node: str
    to: str
    prefixes: tuple[Prefix, ...]
    networks: tuple[tuple[str, Prefix], ...]
    phase: Phase
    detail: str = ""
    started_s: float = 0.0
    there_s: float = 0.0
    redirected_s: float = 0.0
    downtime_ms: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.id, self.workload

    @property
    def is_settled(self) -> bool:
        """Nothing more is about to happen to it here by itself."""
        return self.phase is not Phase.MOVING and (self.phase is not Phase.THERE or self.redirected_s > 0)

    def report(self) -> dict[str, Any]:
        """For the director."""
        return {
            "phase": self.phase.value,
            "detail": self.detail,
            "started_s": self.started_s,
            "there_s": self.there_s,
            "redirected_s": self.redirected_s,
            "downtime_ms": self.downtime_ms,
        }


def load(store: Store) -> tuple[Run, ...]:
    """All of this node. Raises IpshareError where the file cannot be read: nothing is guessed."""
    try:
        return tuple(decode(Run, record) for record in store.kept(FILE) or [])
    except (ValueError, TypeError, KeyError) as error:
        raise IpshareError(
            f"{store.dir / FILE} is not readable: {error}",
            hint="it says which workloads left this node: remove it only if none is in a migration",
        ) from None


def save(store: Store, runs: Sequence[Run]) -> None:
    """On the disk when this returns."""
    store.keep(FILE, [encode(run) for run in runs])


def effective(store: Store, config: Config) -> Config:
    """``config`` with what the node's migrations add to it."""
    try:
        runs = load(store)
    except IpshareError as error:
        log.error("%s", error.message)
        return config
    return with_runs(config, runs) if runs else config


def with_runs(config: Config, runs: Sequence[Run]) -> Config:
    """Pure."""
    mine = config.self_endpoint
    for run in runs:
        if run.phase is Phase.EXPECTED and mine is not None:
            config = _expecting(config, run, mine.name)
    left = [run for run in runs if run.phase is Phase.THERE]
    redirects = tuple(Redirect(prefix, run.to) for run in left for prefix in run.prefixes)
    return replace(config, redirects=redirects) if redirects else config


def _expecting(config: Config, run: Run, mine: str) -> Config:
    place = Place(config.files[0]) if config.files else config.endpoints[0].place
    for name, prefix in run.networks:
        if not any(contains(network.prefix, prefix) for network in config.networks):
            network = Network(name, prefix, Unmatched.UNREACHABLE, place)
            config = replace(config, networks=(*config.networks, network))
    moves = [Move(prefix, target(config, prefix) or "", mine) for prefix in run.prefixes]
    return with_moves(config, [move for move in moves if move.was != mine])
