"""codec: frozen values of ipshare.model as JSON and back, by their type annotations.

What was applied has to outlive the files that it was read from (they are edited in place), and a restart of
the agent. ``decode(T, encode(x)) == x`` for every type of the model but a bulk array, which the store
keeps beside. Pure. A missing field has its default, if it has one: an earlier version did not know it. An
unknown field raises, so that a file of a later version is never half understood.
"""

from __future__ import annotations

import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from pathlib import Path
from typing import Any

ADDRESSES = (IPv4Address, IPv6Address)
NETWORKS = (IPv4Network, IPv6Network)
INTERFACES = (IPv4Interface, IPv6Interface)


def encode(value: Any, *, skip: frozenset[str] = frozenset()) -> Any:
    """JSON values. ``skip``: fields of the outermost dataclass that become null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: None if f.name in skip else encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (*ADDRESSES, *NETWORKS, Path)):
        return str(value)
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def decode(kind: Any, data: Any) -> Any:
    """A value of type ``kind``. Raises ValueError, TypeError or KeyError where ``data`` is no encoding of
    one."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _union(typing.get_args(kind), data)
    if origin is tuple:
        return _tuple(typing.get_args(kind), data)
    if is_dataclass(kind):
        return _dataclass(kind, data)
    if kind in ADDRESSES or kind in NETWORKS or kind is Path:
        if not isinstance(data, str):
            raise TypeError(f"{data!r} is no {kind.__name__}")
        return kind(data)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    if not isinstance(data, (int, float) if kind is float else kind):
        raise TypeError(f"{data!r} is no {kind}")
    return data


def _union(kinds: tuple[Any, ...], data: Any) -> Any:
    if data is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    if len(rest) == 1:
        return decode(rest[0], data)
    if rest[0] in INTERFACES:
        return ip_interface(data)
    return ip_address(data) if rest[0] in ADDRESSES else ip_network(data)


def _tuple(kinds: tuple[Any, ...], data: Any) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise TypeError(f"{data!r} is no list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(decode(kinds[0], item) for item in data)
    return tuple(decode(kind, item) for kind, item in zip(kinds, data, strict=True))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _dataclass(kind: Any, data: Any) -> Any:
    names = {f.name for f in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    if not isinstance(data, dict) or not needed <= set(data) <= names:
        raise ValueError(f"not the fields of {kind.__name__}")
    return kind(**{name: decode(_hints(kind)[name], value) for name, value in data.items()})
