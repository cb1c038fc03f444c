"""roa: announcements against route origin authorizations in a file (RFC 6811, RFC 9582).

The file is what a validator writes of the RPKI: JSON with a list `roas` of {asn, prefix, maxLength}
(rpki-client, Routinator, StayRTR), or CSV with columns ASN, prefix, max length. Of the hundreds of
thousands of lines only those that cover an announcement are parsed as prefixes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from ipshare.model import Prefix, contains


class Unreadable(Exception):
    """A file that says nothing about origins, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


@dataclass(frozen=True, slots=True)
class Origin:
    """``word``: valid, invalid, or unknown (nothing covers it); ``why``: of invalid ones."""

    word: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Roa:
    asn: int
    prefix: Prefix
    max_length: int


def judge(file: Path, asn: int, prefixes: Iterable[Prefix]) -> dict[Prefix, Origin]:
    """The state of each prefix announced by ``asn``. Raises Unreadable."""
    wanted = list(prefixes)
    covering: dict[Prefix, list[_Roa]] = {prefix: [] for prefix in wanted}
    heads = {_head(str(prefix)) for prefix in wanted}
    for number, row in enumerate(_rows(file)):
        text = row[1]
        if not _may_cover(text, heads):
            continue
        roa = _roa(file, number, row)
        for prefix in wanted:
            if contains(roa.prefix, prefix):
                covering[prefix].append(roa)
    return {prefix: _state(asn, prefix, roas) for prefix, roas in covering.items()}


def _state(asn: int, prefix: Prefix, roas: list[_Roa]) -> Origin:
    if not roas:
        return Origin("unknown")
    if any(roa.asn == asn and asn and prefix.prefixlen <= roa.max_length for roa in roas):
        return Origin("valid")
    allowed = dict.fromkeys(f"AS {roa.asn} up to /{roa.max_length}" for roa in roas)
    return Origin("invalid", f"allowed is {', '.join(allowed)}")


def _head(text: str) -> str:
    """First number of an address: a prefix that covers another and is at least a /8 (/16 in IPv6) long
    begins with the same one."""
    return text.partition(":")[0] if ":" in text else text.partition(".")[0]


def _may_cover(text: str, heads: set[str]) -> bool:
    """A quick no for nearly every line; shorter prefixes than those of _head are always looked at."""
    length = text.rpartition("/")[2]
    short = not length.isdigit() or int(length) < (16 if ":" in text else 8)
    return short or _head(text.strip().lower()) in heads


def _roa(file: Path, number: int, row: tuple[object, str, object]) -> _Roa:
    try:
        prefix = ip_network(row[1].strip())
        most = int(str(row[2]).strip() or prefix.prefixlen)
        return _Roa(int(str(row[0]).strip().upper().removeprefix("AS")), prefix, most)
    except ValueError as error:
        raise Unreadable(f"{file}: entry {number + 1} is no ROA: {error}", _HINT) from None


def _rows(file: Path) -> Iterator[tuple[object, str, object]]:
    """AS number, prefix, max length, as written."""
    try:
        with file.open(newline="", encoding="utf-8") as text:
            if file.suffix == ".json":
                for roa in json.load(text)["roas"]:
                    yield roa["asn"], str(roa["prefix"]), roa.get("maxLength", "")
                return
            for row in csv.reader(text):
                if row and not row[0].upper().startswith(("ASN", "#", "URI")):
                    yield row[0], row[1], row[2] if len(row) > 2 else ""
    except OSError as error:
        raise Unreadable(f"cannot read {file}: {error.strerror}", _HINT) from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Unreadable(f"{file} holds no ROAs: {error!r}", _HINT) from None


_HINT = "let the validator write it: rpki-client -j, routinator vrps --format json (or csv)"
