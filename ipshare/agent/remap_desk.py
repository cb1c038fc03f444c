"""remap_desk: what the agent answers about remaps: the verbs of one node's half (SYSTEMS.md S4).

    remap_look    what this node has to say about an address: binding, channels, halves, what is in the way
    remap_set     a half, or another role of it; remap_state, remap_list, remap_flows: as the engine has it
    remap_bind    an address bound to another end point, until the file says so; remap_clear: a half, gone

Each may be asked again: what is so already is no change. Everything here runs in the agent's one work thread.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from ipshare.agent import remaps
from ipshare.agent.reconcile import Reconciler
from ipshare.agent.remaps import Half, Remaps
from ipshare.engine import rebound
from ipshare.engine.remap_text import state_json
from ipshare.engine.remapping import (
    LARGEST_ID,
    MOST_REMAPS,
    Forwarding,
    Remapping,
    RemapRole,
    RemapState,
)
from ipshare.engine.session_text import rows
from ipshare.errors import IpshareError, NotRunning, Refused
from ipshare.model import Channel, Config, Prefix

IP_MTU, IPV6_MTU = 14, 24  # linux/in.h, linux/in6.h: what the kernel knows of a connected socket's path
MOST_LISTED = 10_000
Request = dict[str, Any]


class RemapDesk:
    """``verbs``: name -> (whether it changes something, what it does). ``trouble_of``: what this machine has
    against a channel."""

    def __init__(self, node: Reconciler, trouble_of: Callable[[Channel], str] | None = None) -> None:
        self.node, self._trouble_of = node, trouble_of or self._trouble
        self.verbs: dict[str, tuple[bool, Callable[[Request], dict[str, Any]]]] = {
            "remap_look": (False, self._look),
            "remap_set": (True, self._set),
            "remap_bind": (True, self._bind),
            "remap_clear": (True, self._clear),
            "remap_state": (False, self._state),
            "remap_list": (False, self._list),
            "remap_flows": (False, self._flows),
        }

    @property
    def remaps(self) -> Remaps:
        return remaps.load(self.node.store)

    def troubles(self) -> str:
        """What is wrong, for the agent's notes."""
        stale = [m for m in self.remaps.moves if self.node.config and not rebound.holds(self.node.config, m)]
        said = [f"{m.prefix} was remapped to {m.to}, the file says otherwise and holds" for m in stale]
        return "; ".join(filter(None, [self.node.remap_trouble, *said]))

    # ---- looking ------------------------------------------------------------

    def _look(self, request: Request) -> dict[str, Any]:
        config, prefix = self._config(), _prefix(request)
        now, kept = remaps.effective(self.node.store, config), self.remaps
        to = rebound.target(now, prefix)
        return {
            "node": config.node.name,
            "endpoint": config.node.endpoint,
            "distribution": config.node.distribution,
            "replies": config.self_endpoint.replies.value if config.self_endpoint is not None else None,
            "endpoints": [endpoint.name for endpoint in config.endpoints],
            "distributions": [point.name for point in config.distributions],
            "bound_to": to,
            "inside": [str(p) for p in rebound.inside(now, prefix, to)] if to is not None else [],
            "unfit": {e.name: rebound.unfit(config, prefix, e.name) for e in config.endpoints},
            "channels": [
                _channel_json(channel, prefix) | {"trouble": self._trouble_of(channel)}
                for channel in config.channels
            ],
            "halves": [_half_json(half) for half in kept.halves],
            "latest": max((by for _, by in kept.last), default=0),
            "not_ready": self._not_ready(config),
        }

    def _not_ready(self, config: Config) -> str:
        """Why this node cannot be half of a remap; "": it can."""
        engine = self.node.attached(config)
        if engine is None:
            return f"node {config.node.name} has no engine running"
        if config.node.endpoint is None:
            return ""  # a distribution point: that it runs is all
        if not isinstance(engine, Remapping):
            return f"engine {engine.info().kind} of node {config.node.name} cannot remap"
        if config.sessions is None:
            return f"node {config.node.name} tracks no connections: it has no [[channel]] and no [sessions]"
        if len(self.remaps.halves) >= MOST_REMAPS:
            return f"node {config.node.name} is half of {MOST_REMAPS} remaps already"
        return ""

    def _trouble(self, channel: Channel) -> str:
        engine = self.node.attached(self._config())
        if not isinstance(engine, Forwarding):
            return channel_trouble(channel)
        return channel_trouble(channel, lambda way: engine.way_mtu(way.remote[0].network_address))

    def _state(self, request: Request) -> dict[str, Any]:
        return {"state": _json(self._engine().remap_state(_id(request)))}

    def _list(self, request: Request) -> dict[str, Any]:
        kept, states = self.remaps, {state.id: state for state in self._engine().remaps()}
        return {
            "halves": [_half_json(half) | {"state": _json(states.get(half.id))} for half in kept.halves],
            "moves": [
                {"prefix": str(move.prefix), "was": move.was, "to": move.to, "holds": self._holds(move)}
                for move in kept.moves
            ],
        }

    def _holds(self, move: Any) -> bool:
        return rebound.holds(self._config(), move)

    def _flows(self, request: Request) -> dict[str, Any]:
        limit = request.get("limit", MOST_LISTED)
        if not isinstance(limit, int) or not 0 < limit <= MOST_LISTED:
            raise IpshareError(f"limit is a number from 1 to {MOST_LISTED}")
        dump = self._engine().remap_flows(_id(request), limit)
        return {"matched": dump.matched, "flows": list(rows(dump.records, {}))}

    # ---- changing -----------------------------------------------------------

    def _set(self, request: Request) -> dict[str, Any]:
        """With ``channel``: a half as it is wanted. Without: another role of the one that is there."""
        role, kept, engine = _role(request), self.remaps, self._engine()
        had = kept.half(_id(request))
        half = self._wanted(request, role) if "channel" in request else had
        if half is None:
            raise Refused(f"there is no remap {request['id']} at node {self._config().node.name}")
        half = replace(half, settings=replace(half.settings, role=role))
        self._check(kept, had, half, _ids(request.get("together", [])))
        remaps.save(self.node.store, kept.with_half(half))
        try:
            engine.set_remap(half.to_engine())
        except (IpshareError, KeyboardInterrupt):
            remaps.save(self.node.store, kept)
            raise
        return {"state": _json(engine.remap_state(half.id)), "changed": half != had}

    def _wanted(self, request: Request, role: RemapRole) -> Half:
        config, prefix = self._config(), _prefix(request)
        channel = next((one for one in config.channels if one.name == request["channel"]), None)
        if channel is None:
            known = ", ".join(one.name for one in config.channels) or "none"
            raise Refused(f"there is no channel {request['channel']!r} here", hint=f"known: {known}")
        words = ("quic", "replies_by_channel", "unknown_here")
        options = {word: bool(request.get(word, False)) for word in words}
        slot = request.get("slot", 0)
        if not isinstance(slot, int) or slot < 0:
            raise IpshareError("slot is a number from 0 on")
        return remaps.half_of(config, channel, prefix, _id(request), role, slot, **options)

    def _check(self, kept: Remaps, had: Half | None, half: Half, together: Sequence[int]) -> None:
        """Raises Refused where ``half`` cannot be: a remap goes one way, and one at a time is not settled, or
        those that are done together."""
        if had is not None:
            if replace(had.settings, role=half.role) != half.settings or had.role.gives != half.role.gives:
                raise Refused(f"remap {half.id} is another one here", hint="only its role can change")
            return
        prefix, mine = half.settings.prefix, self._config().node.endpoint
        if (
            half.role.gives
            and (bound := rebound.target(remaps.effective(self.node.store, self._config()), prefix)) != mine
        ):
            raise Refused(f"{prefix} is not bound to {mine} but to {bound or 'no end point'}")
        for other in kept.of(prefix):
            if other.id > half.id:
                raise Refused(f"remap {other.id} of {other.settings.prefix} is later than remap {half.id}")
            if other.role in (RemapRole.PREPARING, RemapRole.READY) and other.id not in together:
                raise Refused(f"{other.settings.prefix} is in remap {other.id}, which has not flipped yet")
        for other in kept.halves:
            if (other.channel, other.slot) == (half.channel, half.slot):
                raise Refused(f"remap {other.id} has part {half.slot} of channel {half.channel}")

    def _bind(self, request: Request) -> dict[str, Any]:
        """``to``: an end point's name, None: as the file says. ``id``: of the remap; where a later one has
        bound the address it is refused or, with ``or_leave``, nothing."""
        config, prefix, remap, kept = self._config(), _prefix(request), _id(request), self.remaps
        to = request.get("to")
        if to is not None and (not isinstance(to, str) or (why := rebound.unfit(config, prefix, to))):
            raise Refused(why if isinstance(to, str) else "to is the name of an end point")
        if (later := kept.later_than(remap, prefix)) is not None:
            if request.get("or_leave"):
                return {"changed": False, "generation": self._generation()}
            raise Refused(f"remap {later} has bound {prefix} after remap {remap}")
        after = kept.bound_by(remap, prefix, rebound.moved(config, kept.moves, prefix, to))
        if after == kept:
            return {"changed": False, "generation": self._generation()}
        remaps.save(self.node.store, after)
        try:
            done = self.node.reconcile()
        except (Exception, KeyboardInterrupt):
            remaps.save(self.node.store, kept)  # tables went back to what they were
            raise
        return {"changed": after.moves != kept.moves, "generation": done.generation}

    def _clear(self, request: Request) -> dict[str, Any]:
        kept, remap = self.remaps, _id(request)
        had = kept.half(remap)
        remaps.save(self.node.store, kept.without(remap))
        last = self._engine().clear_remap(remap)
        return {"state": _json(last), "changed": had is not None or last is not None}

    # ---- what they stand on ---------------------------------------------------

    def _config(self) -> Config:
        config = self.node.config or self.node.store.current()
        if config is None:
            raise NotRunning("nothing was applied to this node yet")
        return config

    def _engine(self) -> Remapping:
        engine = self.node.attached(self._config())
        if engine is None:
            raise NotRunning(f"node {self._config().node.name} has no engine running")
        if not isinstance(engine, Remapping):
            raise Refused(f"engine {engine.info().kind} cannot remap")
        return engine

    def _generation(self) -> int:
        info = self.node.engine_info()
        return info.generation if info is not None else 0


def _json(state: RemapState | None) -> dict[str, Any] | None:
    return state_json(state) if state is not None else None


def _half_json(half: Half) -> dict[str, Any]:
    began = half.settings
    return {
        "id": half.id,
        "prefix": str(began.prefix),
        "role": half.role.value,
        "node": began.node,
        "peer": began.peer,
        "channel": half.channel,
        "slot": half.slot,
        "replies_by_channel": began.replies_by_channel,
        "quic": began.quic,
        "unknown_here": began.unknown_here,
    }


def _channel_json(channel: Channel, prefix: Prefix) -> dict[str, Any]:
    return {
        "name": channel.name,
        "peer": channel.peer,
        "kind": channel.kind,
        "mtu": channel.mtu,
        "room": channel.room,
        "carries": channel.carries(prefix),
        "slots": channel.slots(prefix) if channel.carries(prefix) else 0,
    }


def way_mtu(channel: Channel) -> int | None:
    """Bytes that the kernel lets go towards the other end in one packet; None: no route. Sends nothing."""
    six = channel.family == 6
    try:
        with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((str(channel.remote[0].network_address), 9))
            level, option = (socket.IPPROTO_IPV6, IPV6_MTU) if six else (socket.IPPROTO_IP, IP_MTU)
            return probe.getsockopt(level, option)
    except OSError:
        return None


def channel_trouble(channel: Channel, mtu_of: Callable[[Channel], int | None] = way_mtu) -> str:
    """What this machine has against it: key, own addresses, what is known of the way; "": nothing.
    ``mtu_of`` asks who forwards."""
    try:
        key_of_nothing = remaps.key_of(channel.key_file, 0)
    except IpshareError as error:
        return error.message
    assert key_of_nothing, "a key"
    for path in channel.paths:
        family = socket.AF_INET if path.local.version == 4 else socket.AF_INET6
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((str(path.local), 0))
        except OSError:
            return f"{path.local}, an end of a path of channel {channel.name}, is no address of this machine"
    carries = mtu_of(channel)
    if carries is None:
        return (
            f"no route leads to {channel.remote[0].network_address}, the other end of channel {channel.name}"
        )
    if carries < channel.mtu:
        return f"the way to {channel.peer} carries {carries} bytes, channel {channel.name} says {channel.mtu}"
    return ""


def _prefix(request: Request) -> Prefix:
    try:
        return ip_network(request["prefix"])
    except (KeyError, ValueError, TypeError):
        raise IpshareError("prefix is an address or a prefix, as 203.0.113.7/32") from None


def _id(request: Request) -> int:
    remap = request.get("id")
    if not isinstance(remap, int) or not 0 < remap <= LARGEST_ID:
        raise IpshareError("id is the number of a remap")
    return remap


def _ids(remaps: Any) -> list[int]:
    if not isinstance(remaps, list) or not all(isinstance(remap, int) for remap in remaps):
        raise IpshareError("together is a list of the ids of remaps")
    return remaps


def _role(request: Request) -> RemapRole:
    try:
        return RemapRole(str(request.get("role")))
    except ValueError:
        raise IpshareError(f"role is one of {', '.join(role.value for role in RemapRole)}") from None
