"""Checks of `[sessions]`, `[mirror]` and `track`: times and sizes that fit, a pair to mirror to.

NAT has a module of its own, check_nat. What takes the machine to see (memory, devices, addresses) is found
by the agent before it starts. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from ipshare.config import check_observers, schema
from ipshare.config.checks import Check, Finding
from ipshare.config.resolve import readable
from ipshare.config.site import Site
from ipshare.model_flows import SESSION_BYTES
from ipshare.model_pair import FLOOR_S

LONGEST_COMMIT_S = 1.0
LARGE_BYTES = 4 << 30
TIMES = ("tcp_opening", "tcp_open", "tcp_closing", "udp", "icmp", "other")


def times(site: Site, sessions: schema.Sessions) -> Iterator[Finding]:
    path, found = (*sessions._path, "timeouts"), sessions.timeouts
    for key in (*TIMES, "refresh"):
        seconds = getattr(found, key)
        if seconds < 1 or seconds != int(seconds) or seconds >= 1 << 32:
            message = f"{seconds:g} s is no whole number of seconds, 1 or more"
            yield Finding((*path, key), message, 'write for example "30s"')
            return
    for key in TIMES:
        if getattr(found, key) <= found.refresh:
            message = f"{key} ({getattr(found, key):g} s) is not above refresh ({found.refresh:g} s)"
            hint = "the standby would end a session before it hears that it is active: lower refresh"
            yield Finding((*path, "refresh"), message, hint)
            return


def sizes(site: Site, sessions: schema.Sessions) -> Iterator[Finding]:
    if sessions.half_open_per_source > sessions.half_open:
        message = f"half_open_per_source ({sessions.half_open_per_source}) is above half_open"
        hint = f"{sessions.half_open} at most; a source that may have all of them can fill the table"
        yield Finding((*sessions._path, "half_open_per_source"), message, hint)
    need = (sessions.capacity + sessions.half_open) * SESSION_BYTES
    if need > LARGE_BYTES:
        message = f"the session table takes {need / (1 << 30):.1f} GiB of memory as soon as the engine has it"
        yield Finding((*sessions._path, "capacity"), message, "see that the machine has it", is_warning=True)


def used(site: Site, sessions: schema.Sessions) -> Iterator[Finding]:
    if (
        {"nat", "binding", "channel", "cluster"} & site.incomplete
        or site.nat
        or may_be_tracked(site)
        or site.channel
        or site.cluster
    ):
        return
    if not any("track" in table._broken for table in (*site.binding, *site.policy)):
        message = "no connections are tracked: there is no [[nat]], and no binding with track"
        hint = 'add one, or write track = "always" in a [[binding]]'
        yield Finding(sessions._path, message, hint, is_warning=True)


def is_tracked(site: Site) -> bool:
    """Whether connections of some binding or policy are followed; rows in files: see ``may_be_tracked``."""
    bindings = any(binding.track != "off" for binding in readable(site.binding, "track"))
    return bindings or any(policy.track != "off" for policy in readable(site.policy, "track"))


def may_be_tracked(site: Site) -> bool:
    return bool(site.bindings_file) or is_tracked(site)


def track(site: Site, table: schema.Binding | schema.Policy) -> Iterator[Finding]:
    if table.track == "off" and table.observe != "inbound":
        message = "observe goes only together with track"
        yield Finding((*table._path, "observe"), message, 'write track = "always", or leave it out')


def nothing_to_track(site: Site, binding: schema.Binding) -> Iterator[Finding]:
    if binding.track != "off" and (binding.here or binding.down):
        key = "here" if binding.here else "down"
        message = f"nothing is tracked of a binding with {key} = true: no packet of it is translated"
        yield Finding((*binding._path, "track"), message, 'write track = "off"')


def has_pair(site: Site, mirror: schema.Mirror) -> Iterator[Finding]:
    if site.pair is None:
        message = "there is no pair: sessions are mirrored to a pair's other node"
        yield Finding(mirror._path, message, "add [pair] (docs/pair.md), or leave [mirror] out")


def has_sessions(site: Site, mirror: schema.Mirror) -> Iterator[Finding]:
    if (
        site.sessions is None
        and not site.nat
        and not site.cluster
        and not may_be_tracked(site)
        and "nat" not in site.incomplete
    ):
        hint = 'add [[nat]], or track = "always" in a [[binding]]'
        yield Finding(mirror._path, "there are no sessions to mirror", hint)


def commit(site: Site, mirror: schema.Mirror) -> Iterator[Finding]:
    path, wait_s = (*mirror._path, "commit_timeout"), mirror.commit_timeout
    if not 1e-6 <= wait_s <= LONGEST_COMMIT_S:
        yield Finding(path, f"{wait_s:g} s is not between 1us and 1s", 'write for example "2ms"')
    elif site.pair is not None:
        dead_s = max(site.pair.misses * site.pair.interval, FLOOR_S)
        if wait_s >= dead_s:
            message = f"commit_timeout ({wait_s * 1e3:g} ms) is not below the pair's dead time"
            hint = (
                f"less than {dead_s * 1e3:g} ms: a standby that died must not hold first packets for longer"
            )
            yield Finding(path, message, hint)


def powers(site: Site, mirror: schema.Mirror) -> Iterator[Finding]:
    for key, least in (("ring", 4), ("window", 2)):
        value = getattr(mirror, key)
        if value and (value < least or value & (value - 1)):
            message = f"{key} = {value} is no power of two from {least} on"
            yield Finding((*mirror._path, key), message, "write 0 for the engine's own, or for example 4096")


def digest(site: Site, mirror: schema.Mirror) -> Iterator[Finding]:
    if 0 < mirror.digest < 1:
        message = f"{mirror.digest:g} s between two comparisons of all sessions is too little"
        yield Finding((*mirror._path, "digest"), message, 'write "1s" or more, or "0s" for never')


def ports(site: Site, mirror: schema.Mirror) -> Iterator[Finding]:
    """An end of a mirror path that is no end of a pair's path, and a port that exists."""
    if site.pair is None:
        return
    taken = {end for node in site.pair.node for end in node.paths}
    for node in site.pair.node:
        for address, path_port in node.paths:
            port = mirror.port or path_port + 1
            path = (*mirror._path, "port") if mirror.port else mirror._path
            if port > 65535:
                message = f"the mirror's port would be {port}: the pair has path {address} port {path_port}"
                yield Finding(path, message, "write port = ... in [mirror]")
                return
            if (address, port) in taken:
                message = f"{address} port {port} is the end of a path of the pair: the mirror needs its own"
                yield Finding(path, message, "write another port = ... in [mirror]")
                return


def database(site: Site, mirror: schema.Mirror) -> Iterator[Finding]:
    """The table and the key that go together, an address that can be one."""
    if mirror.transport == "redis" and mirror.redis is None:
        hint = '[mirror.redis] with url = "redis://HOST:6379/0"'
        yield Finding((*mirror._path, "transport"), 'transport = "redis" needs a [mirror.redis]', hint)
    if mirror.redis is None:
        return
    if mirror.transport != "redis":
        message = 'sessions do not go by way of Redis: transport is not "redis"'
        yield Finding((*mirror._path, "redis"), message, 'write transport = "redis", or leave it out')
    if wrong := url_fault(mirror.redis.url):
        message = f"url {mirror.redis.url!r}: {wrong}"
        yield Finding((*mirror._path, "redis", "url"), message, "see docs/nat.md")


def url_fault(url: str) -> str | None:
    """What is wrong with an address of a database; None: nothing."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("redis", "rediss", "unix"):
        return "it begins with redis://, rediss:// (TLS) or unix://"
    if parts.scheme == "unix" and not parts.path:
        return "unix:// is followed by the path of a socket"
    if parts.scheme != "unix" and not parts.hostname:
        return "it names no host"
    if parts.password:
        return "it holds a password: use password_file"
    return None


CHECKS: dict[str, list[Check]] = {
    "sessions": [times, sizes, used],
    "binding": [track, nothing_to_track],
    "policy": [track],
    "mirror": [has_pair, has_sessions, commit, powers, digest, ports, database, *check_observers.CHECKS],
}
