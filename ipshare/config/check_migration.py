"""What the keys of `[[migration]]` have to do with each other. Pure."""

from __future__ import annotations

import string
from collections.abc import Iterator

from ipshare.config import schema
from ipshare.config.checks import Check, Finding
from ipshare.config.resolve import readable
from ipshare.config.site import Site

COMMANDS = ("check", "start", "state", "cancel", "storage")
PLACEHOLDERS = ("workload", "node", "target")
OF_LIBVIRT = ("start", "state", "cancel")


def _once(site: Site, table: schema.Migration) -> Iterator[Finding]:
    for other in readable(site.migration, "workload"):
        if other is table:
            return
        if other.workload == table.workload:
            message = f"workload {table.workload!r} has a [[migration]] already, at {site.where(other)}"
            yield Finding((*table._path, "workload"), message, "write one for each workload")


def _adapter(_site: Site, table: schema.Migration) -> Iterator[Finding]:
    if table.adapter == "libvirt":
        for key in OF_LIBVIRT:
            if getattr(table, key):
                hint = "libvirt does that: leave it out"
                yield Finding((*table._path, key), f"{key} is not for libvirt", hint)
        return
    for key in ("start", "state"):
        if not getattr(table, key):
            hint = f'write {key} = ["/usr/local/bin/program", "{{workload}}", "{{target}}"]'
            yield Finding(table._path, f'adapter "command" needs {key}', hint)
    if table.domain is not None:
        yield Finding((*table._path, "domain"), "domain is for libvirt", 'write adapter = "libvirt"')


def _commands(_site: Site, table: schema.Migration) -> Iterator[Finding]:
    for key in COMMANDS:
        words = getattr(table, key)
        if words and not words[0].startswith("/"):
            hint = "write its whole path: no shell looks for it"
            yield Finding((*table._path, key, 0), f"{words[0]!r} is no absolute path", hint)
        for index, word in enumerate(words):
            if (wrong := _wrong(word)) is not None:
                known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                yield Finding((*table._path, key, index), wrong, f"known: {known}; a brace itself is {{{{")


def _wrong(word: str) -> str | None:
    try:
        for _, name, spec, conversion in string.Formatter().parse(word):
            if name is not None and (name not in PLACEHOLDERS or spec or conversion):
                return f"{word!r} has a placeholder that is none"
    except ValueError:
        return f"{word!r} has a brace alone"
    return None


CHECKS: dict[str, list[Check]] = {"migration": [_once, _adapter, _commands]}
