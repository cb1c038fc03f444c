"""seat: who leads, in etcd: one key that dies with its lease. Blocking; one thread.

The seat is taken, and kept, by a new lease and one transaction that fails if the seat or the term was written
meanwhile: a majority of etcd agrees on each of them. (To keep a lease alive is not agreed on: a member that
is cut off would still say yes.) The holder counts its time from before it asked, by a clock that goes on
while the machine sleeps; etcd counts from later: nobody else gets the seat while the holder counts. Who held
it and lost it while nobody else began a term may take it again, and goes on in the term that it has.
"""

from __future__ import annotations

import math
import secrets
import socket
import time
from dataclasses import dataclass

from ipshare.director.etcd import Entry, Etcd, equal, put, remove, same
from ipshare.director.store_etcd import commit_in, key, number_in, who


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen. ``until``: the seat is ours until then (seconds of ``now``); 0: it is not."""

    leader: str = ""
    """For people; "": nobody leads."""
    term: int = 0
    revision: int = 0
    until: float = 0.0
    is_lost: bool = False
    """Somebody else leads, or began a term: for good."""


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Seat:
    """For director ``name``. ``lease_s``: how long it is ours each time."""

    def __init__(self, etcd: Etcd, prefix: str, name: str, lease_s: float) -> None:
        self.mark = f"{name} {socket.gethostname()} {secrets.token_hex(8)}".encode()
        self._etcd, self._lease_s = etcd, lease_s
        self._leader, self._term = key(prefix, "leader"), key(prefix, "term")
        self._revisions = key(prefix, "revisions/")

    def look(self) -> Sight:
        """Who leads, and what counts. Raises IpshareError, as all here."""
        leader, term = self._etcd.look(self._leader, self._term)
        newest = self._etcd.newest(self._revisions, 1)
        return Sight(_said(leader), number_in(term), commit_in(newest[0])["number"] if newest else 0)

    def hold(self, term: int = 0) -> Sight:
        """Takes the seat if it is free, and keeps it if it is ours, in ``config_store.REQUESTS`` requests.
        ``term``: the one that we lead in; 0: none yet. Neither held nor lost: ask again."""
        asked = now()
        leader, last = self._etcd.look(self._leader, self._term)
        newest, is_ours = number_in(last), leader.value in (b"", self.mark)
        sight = Sight(_said(leader), newest, is_lost=not is_ours or bool(term and newest != term))
        if sight.is_lost:
            return sight
        lease = self._etcd.lease(math.ceil(self._lease_s))
        claims = [same(self._leader, leader), same(self._term, last)]
        if self._etcd.transact(claims, [put(self._leader, self.mark, lease)])[0]:
            return Sight(who(self.mark), newest, until=asked + self._lease_s)
        return sight

    def resign(self) -> None:
        """Another may take it at once."""
        self._etcd.transact([equal(self._leader, self.mark)], [remove(self._leader)])

    def close(self) -> None:
        self._etcd.close()


def _said(leader: Entry) -> str:
    return who(leader.value) if leader.value else ""
