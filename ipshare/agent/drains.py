"""drains: what policies had before they changed, on disk until its time is over (ipshare.engine.drained).

state_dir/drains.json is written before the change itself, so that an agent's end in between loses nothing;
what a later pass makes of it depends on file and clock alone. A deadline of another boot says nothing:
connections may have outlived it by way of other distribution points, so the whole time begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ipshare.agent.codec import decode, encode
from ipshare.agent.confirm import Clock
from ipshare.agent.store import Store, log
from ipshare.engine.drained import Drain, begun
from ipshare.model import Config

FILE = "drains.json"


def load(store: Store) -> tuple[Drain, ...]:
    """All that is kept, also what is over."""
    try:
        return tuple(decode(Drain, record) for record in store.kept(FILE) or [])
    except (ValueError, TypeError, KeyError) as error:
        log.warning("%s is not readable (%s): nothing drains", store.dir / FILE, error)
        return ()


def save(store: Store, drains: Sequence[Drain]) -> None:
    """On the disk when this returns; no file is made for nothing."""
    if tuple(drains) != load(store):
        store.keep(FILE, [encode(drain) for drain in drains])


def after(store: Store, config: Config, clock: Clock) -> tuple[Drain, ...]:
    """What drains once ``config`` has taken the place of the node's current one. Changes nothing."""
    kept, now = alive(load(store), clock), store.current()
    return kept if now is None else begun(kept, now, config, clock.boottime_ns(), clock.boot_id())


def alive(drains: Sequence[Drain], clock: Clock) -> tuple[Drain, ...]:
    """Those whose time is not over."""
    now_ns, boot_id = clock.boottime_ns(), clock.boot_id()
    return tuple(drain for drain in drains if drain.boot_id != boot_id or drain.deadline_ns > now_ns)


def settle(store: Store, config: Config, clock: Clock) -> tuple[Drain, ...]:
    """Forgets what is over, and gives what is of another boot its whole time; returns the rest."""
    boot_id, times = clock.boot_id(), {policy.name: policy.drain_s for policy in config.policies}
    left = []
    for drain in alive(load(store), clock):
        if drain.boot_id != boot_id:
            until = clock.boottime_ns() + int(times.get(drain.policy, 0.0) * 1e9)
            drain = replace(drain, deadline_ns=until, boot_id=boot_id)
        left.append(drain)
    save(store, left)
    return tuple(left)
