"""heard: when this node heard its director last, and whether it may stop announcing without it (bgp.
withdraw_after).

The time is a reading of this node's own clock that the director had from it and echoes, so that the director
knows the latest time from which the node counts. It is kept in runtime_dir/heard.json, over the agent's life.
Once cut off, a node is heard again only when the director says that it has the newest revision: it must not
announce with the tables from before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ipshare.agent.reconcile import Reconciler
from ipshare.errors import IpshareError

FILE = "heard.json"


class Heard:
    """Of one node."""

    def __init__(self, node: Reconciler) -> None:
        self._node = node
        self._now: tuple[str, int, bool] | None = None  # boot, since_ns, may_withdraw
        self._is_loaded = False

    @property
    def withdraw_after_s(self) -> float | None:
        config = self._node.config
        return config.bgp.withdraw_after_s if config is not None and config.bgp is not None else None

    @property
    def may_withdraw(self) -> bool | None:
        """As this node was told and took it; None: by no director since this machine started."""
        if self._now is None and not self._is_loaded:
            self._now, self._is_loaded = self._load(), True
        return self._now[2] if self._now is not None and self._now[0] == self._node.clock.boot_id() else None

    def unheard_s(self) -> float | None:
        """None: no director was heard since this machine started, or this node is the one that stays."""
        if not self.may_withdraw or self._now is None:
            return None
        return (self._node.clock.boottime_ns() - self._now[1]) / 1e9

    def take(self, told: Any) -> None:
        """What a director says with each look; None: it does not know this node's clock yet. Raises
        IpshareError."""
        if told is None:
            return
        kinds = (("boot", str), ("since_ns", int), ("may_withdraw", bool), ("current", bool))
        if not isinstance(told, dict) or not all(isinstance(told.get(key), kind) for key, kind in kinds):
            raise IpshareError("heard has boot, since_ns, may_withdraw and current")
        limit_s, unheard_s = self.withdraw_after_s, self.unheard_s()
        is_cut_off = limit_s is not None and unheard_s is not None and unheard_s >= limit_s
        if is_cut_off and not told["current"]:
            return
        self._now = (told["boot"], told["since_ns"], told["may_withdraw"])
        path = self._path()
        if limit_s is not None and path is not None:
            aside = path.with_suffix(".new")
            aside.write_text(json.dumps(self._now))
            aside.replace(path)

    def _load(self) -> tuple[str, int, bool] | None:
        path = self._path()
        try:
            boot, since_ns, may_withdraw = json.loads(path.read_text() if path is not None else "[]")
        except (OSError, ValueError, TypeError):
            return None
        return str(boot), int(since_ns), bool(may_withdraw)

    def _path(self) -> Path | None:
        config = self._node.config
        return config.node.runtime_dir / FILE if config is not None else None
