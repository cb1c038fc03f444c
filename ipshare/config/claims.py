"""Which local addresses bindings claim, and whether two claim one.

Bindings nest and the longest wins, so a binding claims local addresses only for those global addresses that
no longer binding takes out of it: the sweep of `effective` cuts them out. What rewriting end points serve
must then be disjoint for each end point, or the inner translation could not tell the Global IPs apart (S1.3).
Pure Python on integers, for bindings of the TOML; ipshare.config.bulk_claims does the same for bulk rows and
is held equal to this by a property test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """Addresses first..last of one family, and the binding that they belong to."""

    first: int
    last: int
    owner: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Local addresses first..last at one end point, for the binding `owner`."""

    endpoint: str
    family: int
    first: int
    last: int
    owner: int


def effective(spans: Iterable[Span]) -> Iterator[Span]:
    """What is left of each span when longer ones are cut out. Spans nest or are disjoint; none is given
    twice.
    """
    stack: list[Span] = []
    at = 0  # everything below is given out
    for span in sorted(spans, key=lambda s: (s.first, -s.last)):
        while stack and stack[-1].last < span.first:
            done = stack.pop()
            if at <= done.last:
                yield Span(at, done.last, done.owner)
                at = done.last + 1
        if stack and at < span.first:
            yield Span(at, span.first - 1, stack[-1].owner)
        at = span.first
        stack.append(span)
    while stack:
        done = stack.pop()
        if at <= done.last:
            yield Span(at, done.last, done.owner)
            at = done.last + 1


def conflicts(claims: Iterable[Claim]) -> Iterator[tuple[Claim, Claim]]:
    """Pairs of claims that share an address: each claim with the furthest-reaching one before it."""
    before: Claim | None = None
    for claim in sorted(claims, key=lambda c: (c.endpoint, c.family, c.first, c.last, c.owner)):
        if before and (before.endpoint, before.family) == (claim.endpoint, claim.family):
            if claim.first <= before.last:
                yield before, claim
            if claim.last <= before.last:
                continue
        before = claim
