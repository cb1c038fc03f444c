"""A director's store in a real etcd: writes that are interrupted anywhere, and what only several directors
can do to each other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.director import store_etcd
from ipshare.director.config_store import REQUESTS
from ipshare.director.etcd import Etcd, Unheard, after, put
from ipshare.director.store import Kept
from ipshare.director.store_etcd import EtcdStore
from ipshare.director.topology import Topology
from ipshare.errors import IpshareError, Refused
from tests.etcd_slow import Member, drips_its_head
from tests.etcd_tls import TlsFiles
from tests.etcd_world import Dead, EtcdServer, Faulty, Successor
from tests.remote_world import host
from tests.unit.test_director_store import revision

FOLDERS = itertools.count()
ONE, TWO = {"c1": Kept((0, 1), frozenset([1]))}, {"c1": Kept((1, 1), frozenset([1, 2]))}


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    server = EtcdServer(host(201))
    try:
        yield server.start()
    finally:
        server.end()


@pytest.fixture
def prefix() -> str:
    return f"/test/{next(FOLDERS)}"


def topology(seed: int, rows: int = 6) -> Topology:
    """Its text is some chunks long, whatever it is compressed by."""
    rng = random.Random(seed)
    return Topology({"site": [{"name": rng.randbytes(20).hex()} for _ in range(rows)]})


def opened(server: EtcdServer, prefix: str) -> Successor:
    return Successor(Etcd([server.url], 30.0), prefix)


def parts(here: Successor, prefix: str) -> set[str]:
    """Names of all keys that hold a text."""
    body = {"key": store_key(f"{prefix}/text/"), "range_end": store_key(after(f"{prefix}/text/"))}
    found = here.etcd._post("kv/range", body | {"keys_only": True})
    from base64 import b64decode

    return {b64decode(one["key"]).decode().removeprefix(f"{prefix}/text/") for one in found.get("kvs", [])}


def parts_of(here: Successor, prefix: str, number: int) -> set[str]:
    return {name for name in parts(here, prefix) if int(name.partition("/")[0]) == number}


def store_key(text: str) -> str:
    from base64 import b64encode

    return b64encode(text.encode()).decode()


def begun(server: EtcdServer, prefix: str) -> None:
    first = opened(server, prefix)
    first.store.begin()
    first.store.add(revision(1, topology=topology(1)), ONE)
    first.store.close()


def requests_of_add(server: EtcdServer) -> int:
    prefix = f"/count/{next(FOLDERS)}"
    begun(server, prefix)
    here = Successor(Faulty(server.url), prefix)
    here.store.begin()
    before = here.etcd.asked  # type: ignore[attr-defined]
    here.store.add(revision(2, 2, topology(2)), TWO)
    return here.etcd.asked - before  # type: ignore[attr-defined, no-any-return]


def is_whole(store: EtcdStore) -> bool:
    """Revision 2 with all that belongs to it; or revision 1 with all of that."""
    latest, facts = store.latest(), store.facts()
    assert latest is not None
    if latest.number == 1:
        assert (latest.topology, facts) == (topology(1), ONE)
    else:
        assert (latest.number, latest.topology, facts) == (2, topology(2), TWO)
    return latest.number == 2


@pytest.mark.parametrize("fault", ["lost", "answer", "late"])
def test_a_process_killed_at_any_request_leaves_a_whole_revision(etcd: EtcdServer, fault: str) -> None:
    landed = set()
    for at in range(requests_of_add(etcd)):
        prefix = f"/killed/{fault}/{at}"
        begun(etcd, prefix)
        counted = Successor(faulty := Faulty(etcd.url, fault=fault, dies=True), prefix)
        term = counted.store.begin()
        faulty._at = faulty.asked + at
        with pytest.raises(Dead):
            counted.store.add(revision(2, term, topology(2)), TWO)
        here = opened(etcd, prefix)
        landed.add(is_whole(here.store))
        term = here.store.begin()
        faulty.arrive()  # of a term that is over
        number = 3 if is_whole(here.store) else 2
        here.store.add(revision(number, term, topology(3)), ONE)
        faulty.arrive()
        assert here.store.revision(number) == revision(number, term, topology(3))
        assert here.store.facts() == ONE
        numbers = {int(name.partition("/")[0]) for name in parts(here, prefix)}
        assert numbers == set(range(1, number + 1))
        ids = {tuple(name.split("/")[:2]) for name in parts(here, prefix)}
        assert len(ids) == number, "what was interrupted is gone"
        here.store.close()
        counted.store.close()
    assert landed == ({False, True} if fault == "answer" else {False})


@pytest.mark.parametrize("fault", ["lost", "answer", "late"])
def test_a_request_that_nobody_answered_leaves_no_doubt_for_long(etcd: EtcdServer, fault: str) -> None:
    """The director lives on, in the same term: it asks again, or is told, and then writes something else."""
    for at in range(requests_of_add(etcd)):
        prefix = f"/asked/{fault}/{at}"
        begun(etcd, prefix)
        here = Successor(faulty := Faulty(etcd.url, fault=fault), prefix)
        term = here.store.begin()
        faulty._at = faulty.asked + at
        try:
            here.store.add(revision(2, term, topology(2)), TWO)
            done = True
        except Unheard:
            done = False
        assert is_whole(here.store) == done
        number = 3 if done else 2
        faulty.arrive()
        here.store.add(revision(number, term, topology(3)), ONE)
        faulty.arrive()
        fresh = opened(etcd, prefix)
        assert fresh.store.revision(number) == revision(number, term, topology(3))
        assert fresh.store.facts() == ONE
        if done:
            assert fresh.store.revision(2) == revision(2, term, topology(2))
        fresh.store.close()
        here.store.close()


def test_a_part_that_comes_late_spoils_no_other_attempt(etcd: EtcdServer) -> None:
    """It arrives before each of the requests by which the director writes something else in its place."""
    for when in range(requests_of_add(etcd)):
        prefix = f"/spoilt/{when}"
        begun(etcd, prefix)
        here = Successor(faulty := Faulty(etcd.url, fault="late"), prefix)
        term = here.store.begin()
        faulty._at = faulty.asked
        with pytest.raises(Unheard):
            here.store.add(revision(2, term, topology(2)), TWO)
        faulty.before(faulty.asked + when, faulty.arrive)
        here.store.add(revision(2, term, topology(3)), ONE)
        fresh = opened(etcd, prefix)
        assert fresh.store.latest() == revision(2, term, topology(3))
        assert len({name.split("/")[1] for name in parts_of(fresh, prefix, 2)}) == 1
        fresh.store.close()
        here.store.close()


def test_facts_that_come_late_do_not_count(etcd: EtcdServer, prefix: str) -> None:
    here = Successor(faulty := Faulty(etcd.url, fault="late"), prefix)
    here.store.begin()
    faulty._at = faulty.asked + 1  # its transaction; a look comes before
    with pytest.raises(Unheard):
        here.store.keep(1, {"c1": Kept((1, 1), frozenset([1]))}, {(1, "c1", "acked"): ""})
    here.store.keep(1, {"c1": Kept((2, 1), frozenset([1, 2]))}, {})
    faulty.arrive()
    assert here.store.facts() == {"c1": Kept((2, 1), frozenset([1, 2]))}
    here.store.close()


def test_whoever_has_not_the_seat_begins_no_term_and_whoever_lost_it_writes_nothing(
    etcd: EtcdServer, prefix: str
) -> None:
    first, second = opened(etcd, prefix), opened(etcd, prefix)
    with pytest.raises(Refused, match="d1 at .* leads"):
        first.store.begin()
    assert second.seat.look().leader.startswith("d1 at ")
    slow = Successor(counting := Faulty(etcd.url), prefix)
    counting.before(counting.asked + 1, lambda: opened(etcd, prefix))  # after it has looked who leads
    with pytest.raises(Refused, match="leads"):
        slow.store.begin()
    second = opened(etcd, prefix)
    assert second.store.begin() == 1
    second.store.add(revision(1), ONE)
    assert first.seat.hold().is_lost
    third = opened(etcd, prefix)
    second.store.keep(1, TWO, {})  # nobody began a term: it is the last who counts
    assert third.store.begin() == 2
    for write in (lambda: second.store.add(revision(2), {}), lambda: second.store.keep(1, ONE, {})):
        with pytest.raises(Refused, match="term 1 is over: a director of term 2 has begun"):
            write()
    assert third.store.facts() == TWO
    for one in (first, second, third):
        one.store.close()


def test_the_seat_is_kept_given_back_and_taken_again(etcd: EtcdServer, prefix: str) -> None:
    here = opened(etcd, prefix)
    term = here.store.begin()
    until = here.seat.hold(term).until
    assert here.seat.hold(term).until > until
    here.seat.resign()
    assert here.seat.look().leader == ""
    again = here.seat.hold(term)
    assert again.until and not again.is_lost, "nobody else began a term meanwhile"
    here.seat.resign()
    other = opened(etcd, prefix)
    other.store.begin()
    other.seat.resign()
    lost = here.seat.hold(term)
    assert lost.is_lost and not lost.until and lost.term == 2, "it is free, and the term is over"
    here.seat.resign()  # of another's seat: nothing happens
    assert other.seat.hold(2).until
    here.seat.resign()
    assert other.seat.look().leader
    here.store.close()
    other.store.close()


def put_term(server: EtcdServer, prefix: str, term: int) -> None:
    """Somebody writes the same again."""
    other = Etcd([server.url], 30.0)
    other.transact([], [put(f"{prefix}/term", str(term).encode())])
    other.close()


def test_members_are_tried_in_turn_and_an_etcd_that_is_gone_is_said_so(etcd: EtcdServer, prefix: str) -> None:
    dead = f"http://{host(250)}:2379"
    several = Etcd([dead, etcd.url], 30.0)
    here = Successor(several, prefix)
    here.store.begin()
    assert several._endpoints == [etcd.url, dead], "who answered last is asked first"
    here.store.close()
    gone = EtcdStore(Etcd([dead], 5.0), prefix, b"")
    with pytest.raises(Unheard, match="etcd does not answer: http.*250:2379: ") as found:
        gone.latest()
    assert found.value.hint
    gone.close()


def test_a_renewal_asks_as_often_as_the_check_of_its_time_counts(etcd: EtcdServer, prefix: str) -> None:
    here = Successor(counting := Faulty(etcd.url), prefix)
    term, before = here.store.begin(), counting.asked
    assert here.seat.hold(term).until
    assert counting.asked == before + REQUESTS
    counting.before(counting.asked + 1, lambda: put_term(etcd, prefix, term))  # after it has looked
    contested = here.seat.hold(term)
    assert counting.asked == before + 2 * REQUESTS, "it asks no more often than that"
    assert not contested.until and not contested.is_lost
    assert here.seat.hold(term).until
    here.store.close()


def test_a_member_that_drips_costs_nobody_the_seat(etcd: EtcdServer, prefix: str) -> None:
    with Member(drips_its_head) as slow:
        here = Successor(Etcd([slow.url, etcd.url], 4.0), prefix)
        assert here.seat.hold(here.store.begin()).until
        assert slow.accepted == 1
        here.store.close()


def test_what_is_not_a_directors_is_refused(
    etcd: EtcdServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = opened(etcd, prefix)
    here.store.begin()
    here.store.add(revision(1, topology=topology(1)), ONE)
    [name] = {name for name in parts(here, prefix) if name.endswith("000001")}
    here.etcd.transact([], [put(f"{prefix}/text/{name}", b"garbage")])
    with pytest.raises(IpshareError, match="revision 1 in etcd is not what was written"):
        opened(etcd, prefix).store.latest()
    here.etcd.transact([], [put(f"{prefix}/facts", b"garbage"), put(f"{prefix}/revisions/0000000009", b"{}")])
    for ask in (here.store.facts, here.store.latest):
        with pytest.raises(IpshareError, match="etcd"):
            ask()
    monkeypatch.setattr(store_etcd, "SCHEMA", 2)
    with pytest.raises(Refused, match="of version 1, this director knows 2"):
        opened(etcd, prefix).store.begin()
    here.etcd.transact([], [put(f"{prefix}/term", b"garbage")])
    monkeypatch.undo()
    with pytest.raises(IpshareError, match="the term in etcd"):
        here.seat.look()


def test_etcd_over_tls_knows_its_clients(tmp_path: Path, prefix: str) -> None:
    files = TlsFiles(tmp_path, host(202))
    server = EtcdServer(host(202), options=files.options())
    try:
        server.start()
        here = Successor(Etcd([server.url], 30.0, files.ca, files.client), prefix)
        assert here.store.begin() == 1
        here.store.close()
        for etcd in (Etcd([server.url], 30.0, files.ca), Etcd([server.url], 30.0, None, files.client)):
            with pytest.raises(Unheard, match="etcd does not answer"):
                etcd.look("/x")
        with pytest.raises(IpshareError, match="cannot use .* for etcd"):
            Etcd([server.url], 30.0, files.ca, tmp_path / "nothing.pem")
    finally:
        server.end()
