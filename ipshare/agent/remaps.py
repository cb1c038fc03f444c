"""remaps: this node's halves of remaps, and the bindings that remaps moved, on disk and in the engine (S4).

state_dir/remaps.json holds both; the engine is brought in line with it at every pass, so a new engine or a
new agent has the same roles, keys and ids again. Keys are in no file: each follows from the channel's key and
the remap's id. A half keeps what it began with, whatever the configuration says meanwhile.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any

from ipshare.agent.codec import decode, encode
from ipshare.agent.pair import read_key
from ipshare.agent.store import Store, log
from ipshare.engine.protocol import Engine
from ipshare.engine.rebound import with_moves
from ipshare.engine.remapping import ChannelKind, RemapChannel, Remapping, RemapRole, RemapSettings
from ipshare.errors import IpshareError, Refused
from ipshare.model import Channel, Config, Move, Prefix, contains

FILE = "remaps.json"
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Half:
    """One half. ``settings`` without its key; ``slot``: which part of a re-addressing channel it has."""

    settings: RemapSettings
    channel: str
    slot: int
    key_file: Path

    @property
    def id(self) -> int:
        return self.settings.id

    @property
    def role(self) -> RemapRole:
        return self.settings.role

    def to_engine(self) -> RemapSettings:
        """With the key. Raises Refused, NoPrivilege."""
        return replace(self.settings, key=key_of(self.key_file, self.id))


@dataclass(frozen=True, slots=True)
class Remaps:
    """All of this node. Halves: lowest id first."""

    halves: tuple[Half, ...] = ()
    moves: tuple[Move, ...] = ()
    last: tuple[tuple[Prefix, int], ...] = ()  # who bound a prefix last: an earlier remap does not any more

    def half(self, remap: int) -> Half | None:
        return next((half for half in self.halves if half.id == remap), None)

    def with_half(self, half: Half) -> Remaps:
        others = [other for other in self.halves if other.id != half.id]
        return replace(self, halves=tuple(sorted([*others, half], key=lambda h: h.id)))

    def without(self, remap: int) -> Remaps:
        return replace(self, halves=tuple(half for half in self.halves if half.id != remap))

    def later_than(self, remap: int, prefix: Prefix) -> int | None:
        """A later remap that has bound an address of ``prefix``."""
        return next((other for at, other in self.last if other > remap and overlap(at, prefix)), None)

    def bound_by(self, remap: int, prefix: Prefix, moves: tuple[Move, ...]) -> Remaps:
        others = tuple((at, by) for at, by in self.last if at != prefix)
        return replace(self, moves=moves, last=(*others, (prefix, remap))[-MOST_REMEMBERED:])

    def of(self, prefix: Prefix) -> list[Half]:
        """Those that share an address with ``prefix``."""
        return [h for h in self.halves if overlap(h.settings.prefix, prefix)]


def overlap(one: Prefix, other: Prefix) -> bool:
    return contains(one, other) or contains(other, one)


def load(store: Store) -> Remaps:
    """What the node keeps."""
    record = store.kept(FILE)
    if record is None:
        return Remaps()
    try:
        halves = tuple(_half(half) for half in record["halves"])
        moves = tuple(_move(move) for move in record["moves"])
        return Remaps(halves, moves, tuple((ip_network(at), int(by)) for at, by in record["last"]))
    except (ValueError, TypeError, KeyError) as error:
        log.warning("%s is not readable (%s): this node knows no remaps", store.dir / FILE, error)
        return Remaps()


def save(store: Store, remaps: Remaps) -> None:
    """On the disk when this returns."""
    halves = [
        encode(half) | {"settings": encode(half.settings, skip=frozenset({"key"}))} for half in remaps.halves
    ]
    last = [[str(at), by] for at, by in remaps.last]
    store.keep(FILE, {"halves": halves, "moves": [encode(move) for move in remaps.moves], "last": last})


def _half(record: dict[str, Any]) -> Half:
    settings: RemapSettings = decode(RemapSettings, record["settings"] | {"key": b""})
    return Half(settings, record["channel"], record["slot"], Path(record["key_file"]))


def _move(record: dict[str, Any]) -> Move:
    return Move(ip_network(record["prefix"]), record["was"], record["to"])


def key_of(file: Path, remap: int) -> bytes:
    """Of one remap alone: what one of them gives away opens no other."""
    key = read_key(file, "channel's")
    return hmac.new(key, b"ipshare remap\0" + remap.to_bytes(8, "big"), hashlib.sha256).digest()


def half_of(
    config: Config, channel: Channel, prefix: Prefix, remap: int, role: RemapRole, slot: int,
    *, quic: bool, replies_by_channel: bool, unknown_here: bool,
) -> Half:  # fmt: skip
    """This node's half of a remap over ``channel``. Raises Refused where they do not fit."""
    mine = config.self_endpoint
    if mine is None:
        raise Refused(f"node {config.node.name} is no end point", hint="a remap is from one to another")
    if not channel.carries(prefix):
        raise Refused(f"channel {channel.name} cannot carry {prefix}", hint="its prefixes are too small")
    if slot >= channel.slots(prefix):
        raise Refused(f"channel {channel.name} has no part {slot} for a /{prefix.prefixlen}")
    if replies_by_channel and channel.kind == "rewrite":
        raise Refused(f"channel {channel.name} re-addresses: replies cannot go back through it")
    settings = RemapSettings(
        id=remap,
        node=mine.name,
        peer=channel.peer,
        prefix=prefix,
        role=role,
        channel=_channel(channel, prefix, slot),
        paths=channel.paths_of(slot),
        key=b"",
        quic=quic,
        replies_by_channel=replies_by_channel,
        unknown_here=unknown_here,
    )
    return Half(settings, channel.name, slot, channel.key_file)


def _channel(channel: Channel, prefix: Prefix, slot: int) -> RemapChannel:
    ends = [_at(end, prefix, slot, channel.kind) for end in (channel.local, channel.remote)]
    port = channel.gue_port if channel.kind == "gue" else 0
    return RemapChannel(ChannelKind(channel.kind), *ends[0], *ends[1], gue_port=port, mtu=channel.mtu)


def _at(
    end: tuple[IPv4Network | IPv6Network, ...], prefix: Prefix, slot: int, kind: str
) -> tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]:
    final, ask = end[0].network_address, end[-1].network_address
    step = slot * prefix.num_addresses if kind == "rewrite" else 0
    return final + step, ask + step


def effective(store: Store, config: Config) -> Config:
    """``config`` with the bindings that remaps moved."""
    return with_moves(config, load(store).moves)


def align(engine: Engine, halves: Sequence[Half]) -> bool:
    """Brings the engine's remaps in line; True: that was a change. Raises Refused, EngineError."""
    if not isinstance(engine, Remapping):
        if halves:
            raise Refused(f"engine {engine.info().kind} cannot be half of a remap")
        return False
    have = {state.id: state for state in engine.remaps()}
    wanted = {half.id for half in halves}
    changed = False
    for remap in have.keys() - wanted:
        engine.clear_remap(remap)
        changed = True
    for half in halves:
        engine.set_remap(half.to_engine())
        changed |= half.id not in have or have[half.id].role is not half.role
    return changed


def drift(engine: Engine | None, halves: Sequence[Half]) -> list[str]:
    """What of the halves the engine has not, or has beyond them."""
    found: dict[int, RemapRole] = {}
    try:
        if isinstance(engine, Remapping):
            found = {state.id: state.role for state in engine.remaps()}
    except IpshareError:
        return []  # gone or busy: said elsewhere
    wanted = {half.id: half.role for half in halves}
    return [
        f"remap {remap} is {found.get(remap, 'not')} in the engine, and should be {wanted.get(remap, 'not')}"
        for remap in sorted(found.keys() | wanted.keys())
        if found.get(remap) != wanted.get(remap)
    ]


def check_channels(store: Store, wanted: Config) -> None:
    """Raises Refused where ``wanted`` takes a channel away, or changes it, that a remap uses."""
    have = {channel.name: channel for channel in wanted.channels}
    for half in load(store).halves:
        channel, began = have.get(half.channel), half.settings
        if channel is None:
            raise Refused(f"channel {half.channel} is in use by remap {half.id}", hint="end it first")
        now = _channel(channel, began.prefix, half.slot), channel.paths_of(half.slot)
        if now != (began.channel, began.paths):
            message = f"channel {half.channel} changes, and remap {half.id} uses it"
            raise Refused(message, hint="let the remap end first (`ipshare remap list`)")
