"""answers: what a node says, looked at before anything is made of it. Pure.

A node of another version, broken, or in the hands of somebody else is then as good as silent; all other
nodes, whose leases and steps hang on the same judgement, do not feel it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ipshare.errors import IpshareError

Check = Callable[[Any], bool]
LARGEST = 2**63 - 1
MOST_EPOCH = 2**48
"""No workload changes its node so often: a greater epoch is not counted on from."""


def assigned(said: Any) -> dict[str, Any]:
    """An answer to `assign` or `assigned`. Raises IpshareError."""
    return _checked("assigned", said, _ASSIGNED)


def seen(said: Any) -> dict[str, Any]:
    """An answer to `watch`. Raises IpshareError."""
    return _checked("watch", said, _SEEN)


def news(said: Any) -> dict[str, Any]:
    """An answer to `news`. Raises IpshareError."""
    return _checked("news", said, _NEWS)


def highest(epochs: Iterable[int]) -> int:
    """Of the epochs that nodes tell of: what a new one is counted on from; 0: none."""
    return max((one for one in epochs if one <= MOST_EPOCH), default=0)


def _checked(verb: str, said: Any, wanted: Mapping[str, Check]) -> dict[str, Any]:
    found: dict[str, Any] = said if isinstance(said, dict) else {}
    for key, check in wanted.items():
        if not check(found.get(key)):
            text = f"its answer to {verb} has no {key} that can be understood"
            raise IpshareError(text, hint="is its agent of another version?")
    return {**dict.fromkeys(wanted), **found}


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _bool(value: Any) -> bool:
    return isinstance(value, bool)


def _three(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_whole, value))


def _reading(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and _text(value[0]) and _whole(value[1])


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _table(**wanted: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(check(value.get(k)) for k, check in wanted.items())


def _rows(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


_ASSIGNED: dict[str, Check] = {
    "has": _three, "seen": _three, "digest": _text, "proof": _or_none(_text), "announces": _or_none(_bool),
    "drained_by": _or_none(_rows(lambda who: who in ("director", "operator"))),
}  # fmt: skip
_WORKLOAD = _table(name=_text, epoch=_whole, released=_whole, state=_text, why=_text, can_fence=_bool)
_NEWS: dict[str, Check] = {
    "read": _reading,
    "version": _whole,
    "probes": _rows(_table(name=_text, up=_bool, age_s=_number, for_s=_number)),
}
_SEEN: dict[str, Check] = {
    "clock": _table(boot=_text, ns=_whole),
    **_NEWS,
    "workloads": _rows(_WORKLOAD),
    "paths": _rows(_table()),
    "announces": _or_none(_bool),
    "withdraw_after_s": _or_none(_number),
    "may_withdraw": _or_none(_bool),
}
