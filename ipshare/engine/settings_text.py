"""settings_text: how two configurations differ in what is no table: pair, sessions, NAT, clusters, mirror. As
plan_text's items.

An engine gives tables back, but not what it was told of these; they are compared with what was applied last.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from ipshare.engine.plan_text import Item
from ipshare.model import Config

UNSAID = {"name", "realm", "node_id", "place"}


def setting_items(now: Config | None, wanted: Config) -> tuple[Item, ...]:
    """From ``now`` (None: nothing was applied yet) to ``wanted``."""
    return tuple(_items(now, wanted))


def _items(now: Config | None, wanted: Config) -> Iterator[Item]:
    for section in ("pair", "sessions", "mirror"):
        yield from _one(section, "", getattr(now, section, None), getattr(wanted, section))
    for section, key in (("nat", "nats"), ("cluster", "clusters")):
        have = {each.name: each for each in getattr(now, key)} if now is not None else {}
        want = {each.name: each for each in getattr(wanted, key)}
        for name in {**want, **have}:
            yield from _one(section, name, have.get(name), want.get(name))


def _one(section: str, name: str, have: Any, want: Any) -> Iterator[Item]:
    if have == want:
        return
    if have is None or want is None:
        said = "; ".join(f"{key} {text}" for key, text in _parts(want if have is None else have))
        yield Item("add" if have is None else "remove", section, 1, (f"{name}: {said}".lstrip(": "),))
        return
    before, after = dict(_parts(have)), dict(_parts(want))
    said = "; ".join(f"{key} {before[key]} -> {after[key]}" for key in after if before[key] != after[key])
    yield Item("change", section, 1, (f"{name}: {said or 'another place in the file'}".lstrip(": "),))


def _parts(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for field in fields(value):
        inner = getattr(value, field.name)
        if field.name in UNSAID and not prefix:
            continue
        if _is_plain(inner):
            yield from _parts(inner, f"{field.name}.")
        else:
            unit = " s" if field.name.endswith("_s") else ""
            yield f"{prefix}{field.name.removesuffix('_s')}", _text(inner) + unit


def _is_plain(value: Any) -> bool:
    """A dataclass that has no words of its own."""
    return is_dataclass(value) and not isinstance(value, type) and type(value).__str__ is object.__str__


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "none"
    if _is_plain(value):
        return " ".join(text for _, text in _parts(value))
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
