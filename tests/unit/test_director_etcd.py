"""A request to etcd has one deadline, whatever its members do: each of these would hold it for longer, or for
ever."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipshare.director import etcd_wire
from ipshare.director.etcd import Etcd, Unheard, put
from ipshare.errors import IpshareError
from tests.etcd_slow import (
    PATIENCE_S,
    WAIT_S,
    Manner,
    Member,
    closes,
    deaf,
    drips_its_body,
    drips_its_head,
    good,
    half,
    long,
    over_tls,
    says,
    silent,
)
from tests.etcd_tls import TlsFiles

SOON_S = 0.3
LARGE = put("/x", b"x" * 2**24)
"""More than what two sockets hold."""
GIVEN_UP = r"no whole answer in [0-9.e-]+ s \([a-zA-Z ]+\)"


@pytest.mark.parametrize(
    ("manner", "scheme"),
    [
        (silent, "http"),
        (silent, "https"),
        (deaf, "http"),
        (drips_its_head, "http"),
        (drips_its_body, "http"),
    ],
)
def test_a_member_that_hangs_or_drips_holds_a_request_no_longer_than_it_may(
    manner: Manner, scheme: str
) -> None:
    with Member(manner, scheme=scheme) as member:
        door = Etcd([member.url], SOON_S)
        with pytest.raises(Unheard, match=f"^etcd does not answer: {member.url}: {GIVEN_UP}$"):
            door.transact([], [LARGE] if manner is deaf else [])
        assert member.is_left(), "nothing is left open"
        door.close()


def test_a_connection_that_is_not_made_holds_it_no_longer() -> None:
    """As of a member whose machine is gone: there is no room for one more, until its patience ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        room = threading.Timer(PATIENCE_S / 2, full.listen, [100])
        room.start()
        door = Etcd([f"http://127.0.0.1:{full.getsockname()[1]}"], SOON_S)
        with pytest.raises(Unheard, match=r" s \(connecting\)$"):
            door.look("/x")
        room.cancel()
        door.close()


def test_over_tls_it_is_the_same(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path, "127.0.0.1")
    for manner in (drips_its_head, drips_its_body):
        with Member(over_tls(files, good), over_tls(files, manner), scheme="https") as member:
            door = Etcd([member.url], 2.0, files.ca, files.client)
            for _ in range(2):
                assert door.transact([], []) == (False, [])
            assert member.accepted == 1
            member.hang_up()
            with pytest.raises(Unheard, match=f"^etcd does not answer: {member.url}: {GIVEN_UP}$"):
                door.look("/x")
            assert member.accepted == 2
            door.close()


def test_a_name_that_is_not_found_out_holds_it_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found too late is good for the next request."""
    go, asked, look_up = threading.Event(), [], socket.getaddrinfo

    def slowly(host: str, port: int | None, *more: Any, **words: Any) -> Any:
        if host != "etcd.test" or words.get("flags"):
            return look_up(host, port, *more, **words)
        asked.append(host)
        go.wait(WAIT_S)
        return look_up("127.0.0.2", port, **words) + look_up("127.0.0.1", port, **words)

    with Member(good) as member:
        before = set(threading.enumerate())
        door = Etcd([member.url.replace("127.0.0.1", "etcd.test")], SOON_S)
        monkeypatch.setattr(socket, "getaddrinfo", slowly)
        for _ in range(3):
            with pytest.raises(Unheard, match=f"//etcd.test:[0-9]+: {GIVEN_UP}$"):
                door.look("/x")
        assert asked == ["etcd.test"]
        go.set()
        door._timeout_s = WAIT_S
        assert door.transact([], []) == (False, []), "by the second address"
        assert asked == ["etcd.test"]
        door.close()
        assert set(threading.enumerate()) <= before | member.threads()


def test_members_share_the_time_of_a_request_and_are_all_named() -> None:
    with Member(drips_its_head) as first, Member(drips_its_body) as second:
        door = Etcd([first.url, second.url], SOON_S)
        said = f"^etcd does not answer: {first.url}: {GIVEN_UP}; {second.url}: {GIVEN_UP}$"
        with pytest.raises(Unheard, match=said):
            door.look("/x")
        door.close()


def test_each_member_gets_an_equal_share_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, shares = [100.0], list[float]()

    class HandWire:
        def post(self, url: str, content: bytes, share_s: float) -> tuple[int, bytes]:
            clock[0] += next(spent)
            shares.append(share_s)
            raise TimeoutError("waiting for its answer")

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    door = Etcd(["http://a:1", "http://b:1", "http://c:1"], 6.0)
    monkeypatch.setattr(door, "_wire", HandWire())
    for takes, wanted in (((0.0, 3.0, 3.0), [2.0, 3.0, 3.0]), ((2.0, 9.0, 0.0), [2.0, 2.0, 0.0])):
        spent = iter(takes)
        shares.clear()
        with pytest.raises(Unheard, match="http://a:1: .* in 2 s .*http://b:1: .*http://c:1: "):
            door.look("/x")
        assert shares == wanted


def test_another_member_answers_while_one_drips_and_is_asked_first_from_then_on() -> None:
    with Member(drips_its_body) as first, Member(good) as second:
        door = Etcd([first.url, second.url], 2.0)
        assert door.transact([], []) == (False, [])
        assert (first.accepted, second.accepted) == (1, 1)
        assert door.transact([], []) == (False, [])
        assert (first.accepted, second.accepted) == (1, 1), "its connection is used again"
        door.close()


def test_no_connection_is_used_again_in_the_middle_of_an_answer() -> None:
    with Member(half, good) as member:
        door = Etcd([member.url], 1.0)
        with pytest.raises(Unheard, match=GIVEN_UP):
            door.look("/x")
        assert member.is_left()
        assert door.transact([], []) == (False, [])
        assert member.accepted == 2
        door.close()


def test_an_answer_that_is_too_long_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_wire, "MOST_BYTES", 100_000)
    with Member(long) as member:
        door = Etcd([member.url], WAIT_S)
        with pytest.raises(Unheard, match=f"{member.url}: its answer is longer than 100000 bytes"):
            door.look("/x")
        assert member.is_left()
        door.close()


@pytest.mark.parametrize(
    ("manner", "said"),
    [
        (closes, "Server disconnected without sending a response"),
        (says("200 OK", "no"), "it answers something that is no answer"),
        (says("200 OK", "[" * 10**6), "it answers something that is no answer"),
        (says("200 OK", "[]"), "it answers something that is no answer"),
        (says("503 Service Unavailable", '{"message": "no leader"}'), "no leader"),
        (says("400 Bad Request", '{"code": 14, "error": "no leader"}'), "no leader"),
    ],
)
def test_a_member_that_answers_nothing_useful_is_named_and_another_one_is_asked(
    manner: Manner, said: str
) -> None:
    with Member(manner) as first, Member(good) as second:
        door = Etcd([first.url], WAIT_S)
        with pytest.raises(Unheard, match=f"{first.url}: {said}"):
            door.look("/x")
        door.close()
        door = Etcd([first.url, second.url], WAIT_S)
        assert door.transact([], []) == (False, [])
        door.close()


def test_nobody_else_is_asked_what_etcd_refuses_or_does_not_know() -> None:
    for manner, said in (
        (says("400 Bad Request", '{"code": 8, "message": "database space exceeded"}'), "etcd refuses: datab"),
        (says("404 Not Found", "404 page not found"), "knows no /v3/kv/txn"),
    ):
        with Member(manner) as first, Member(good) as second:
            door = Etcd([first.url, second.url], WAIT_S)
            with pytest.raises(IpshareError, match=said) as found:
                door.look("/x")
            assert found.value.hint and not isinstance(found.value, Unheard)
            assert second.accepted == 0
            door.close()


def test_what_refuses_a_connection_is_said() -> None:
    with Member(good) as member:
        url = member.url
    door = Etcd([url], WAIT_S)
    with pytest.raises(Unheard, match=rf"{url}: \[Errno 111\] Connection refused"):
        door.look("/x")
    door.close()


@pytest.mark.parametrize(
    "said",
    [
        "{}",
        '{"responses": 7, "kvs": 7, "ID": null, "TTL": {}}',
        '{"responses": [{"response_range": {"kvs": [{}]}}], "kvs": [{}], "TTL": "x"}',
        '{"responses": ["x"], "kvs": ["x"], "TTL": "9"}',
        '{"responses": [{"response_range": {"kvs": [{"mod_revision": "1", "value": "a"}]}}],'
        ' "kvs": [{"key": "/w==", "mod_revision": "1"}], "TTL": []}',
    ],
)
def test_an_answer_in_the_words_of_somebody_else_is_an_error(said: str) -> None:
    with Member(says("200 OK", said)) as member:
        door = Etcd([member.url], WAIT_S)
        asks: list[Callable[[], object]] = [lambda: door.look("/x"), lambda: door.lease(5)]
        if said != "{}":  # so says etcd of a folder without keys
            asks.append(lambda: door.below("/x"))
        for ask in asks:
            with pytest.raises(IpshareError, match="answer of etcd's cannot be understood"):
                ask()
        door.close()
