"""The sealed channel: opened by two fresh nonces, authentic, new, never fooled by a recording.

Contract: native/ips_seal_api.h; every refusal is a line of native/ips_seal.def.
"""

from __future__ import annotations

import itertools
import random
import struct
from dataclasses import replace
from typing import Any

import pytest

from ipshare.core import ffi, lib
from tests.mirror_world import KEY, MS, RESULTS, S, Settings, seal_config

A, B, C = b"a", b"b", b"c"
USER = lib.IPS_SEAL_PAIR
HELLO, ACK, CONFIRM = lib.IPS_SEAL_HELLO, lib.IPS_SEAL_HELLO_ACK, lib.IPS_SEAL_CONFIRM


class End:
    """One end of a channel, with a random source of its own."""

    def __init__(
        self, own: bytes, peer: bytes, boot: int = 1, settings: Settings | None = None, **more: Any
    ) -> None:
        rng = random.Random(f"{own!r}{boot}")
        self._random = ffi.callback(
            "void(void *, uint8_t *, size_t)", lambda _a, out, n: ffi.memmove(out, rng.randbytes(n), n)
        )
        config = seal_config(own, peer, boot, settings or Settings())
        for key, value in more.items():
            setattr(config, key, value)
        self.made = lib.ips_seal_new(config, self._random, ffi.NULL)
        self.s = ffi.gc(self.made, lib.ips_seal_free) if self.made != ffi.NULL else None
        self.heard: list[bytes] = []

    def tick(self, now: int) -> list[bytes]:
        out, sent = ffi.new("uint8_t[1400]"), []
        while n := lib.ips_seal_tick(self.s, now, out):
            sent.append(bytes(ffi.buffer(out, n)))
        return sent

    def open(self, data: bytes, now: int = S) -> str:
        plain, n, kind = ffi.new("uint8_t[]", max(len(data), 1)), ffi.new("size_t *"), ffi.new("uint8_t *")
        # An allocation of exactly that size: a sanitizer sees what is read beyond it.
        exact = ffi.new("uint8_t[]", max(len(data), 1))
        ffi.memmove(exact, data, len(data))
        result = RESULTS[lib.ips_seal_open(self.s, exact, len(data), now, kind, plain, n)]
        if result == "OK":
            self.heard.append(bytes(ffi.buffer(plain, n[0])))
        return result

    def wrap(self, plain: bytes, now: int = S, kind: int = USER) -> bytes:
        out = ffi.new("uint8_t[]", len(plain) + 32)
        return bytes(ffi.buffer(out, lib.ips_seal_wrap(self.s, kind, plain, len(plain), now, out)))

    def info(self, now: int = S) -> Any:
        out = ffi.new("struct ips_seal_info *")
        lib.ips_seal_info(self.s, now, out)
        return out

    def count(self, result: str) -> int:
        return int(lib.ips_seal_counter(self.s, RESULTS.index(result)))


def talk(a: End, b: End, now: int = S, rounds: int = 6) -> int:
    """Both tick and hear each other, without loss. Returns the time after it."""
    for _ in range(rounds):
        for data in a.tick(now):
            b.open(data, now)
        for data in b.tick(now):
            a.open(data, now)
        now += MS
    return now


def ends(settings_a: Settings | None = None, settings_b: Settings | None = None) -> tuple[End, End]:
    return End(A, B, 1, settings_a), End(B, A, 2, settings_b)


def channel(settings_a: Settings | None = None, settings_b: Settings | None = None) -> tuple[End, End]:
    a, b = ends(settings_a, settings_b)
    talk(a, b)
    assert a.info().open and b.info().open
    return a, b


def test_both_ways() -> None:
    a, b = channel()
    for content in (b"", b"x", bytes(1368)):
        assert b.open(a.wrap(content)) == "OK"
        assert a.open(b.wrap(content)) == "OK"
    assert a.heard == b.heard == [b"", b"x", bytes(1368)]
    assert a.wrap(bytes(1369)) == b""
    assert a.wrap(b"x", kind=lib.IPS_SEAL_ALIVE) == b"", "types below 16 are the channel's own"
    assert (a.info().peer_boot, b.info().peer_boot) == (2, 1)


def test_the_content_is_not_readable_and_no_two_are_alike() -> None:
    a, _ = channel()
    one, two = a.wrap(b"session" * 20), a.wrap(b"session" * 20)
    assert b"session" not in one and one[16:] != two[16:]


def test_a_hello_changes_nothing() -> None:
    a, b = ends()
    hello = a.tick(S)[0]
    assert b.open(hello) == "ANSWERED"
    assert not b.info().open and b.info().peer_boot == 0


def test_three_messages_open_it() -> None:
    a, b = ends()
    (hello,) = a.tick(S)
    b.open(hello)
    ack = b.tick(S)[0]
    assert (hello[1], ack[1]) == (HELLO, ACK)
    assert a.open(ack) == "OPENED" and not b.info().open
    confirm = a.tick(S)[0]
    assert confirm[1] == CONFIRM and b.open(confirm) == "OPENED"
    assert b.open(a.wrap(b"1")) == "OK" and a.open(b.wrap(b"2")) == "OK"


def test_a_lost_confirm_is_repeated_until_the_peer_speaks() -> None:
    a, b = ends()
    b.open(a.tick(S)[0])
    a.open(b.tick(S)[0])
    a.tick(S)  # lost
    assert b.open(a.wrap(b"early")) == "NO_STREAM"
    again = [d for d in a.tick(S + 10 * MS) if d[1] == CONFIRM]
    assert len(again) == 1 and b.open(again[0]) == "OPENED"
    assert a.open(b.tick(S + 10 * MS)[0]) == "KEEPALIVE"
    assert not [d for d in a.tick(S + 20 * MS) if d[1] == CONFIRM]


def test_every_order_and_loss_of_the_first_datagrams_ends_open() -> None:
    """Both sides greet; each of the first eight datagrams arrives, is lost, or comes after the next one."""
    for fates in itertools.product("+-~", repeat=8):
        a, b = ends()
        fate, late, now = iter(fates), [], S
        for _ in range(60):
            for source, to in ((a, b), (b, a)):
                for data in source.tick(now):
                    what = next(fate, "+")
                    if what == "~":
                        late.append((to, data))
                        continue
                    if what == "+":
                        to.open(data, now)
                    for end, old in late:
                        end.open(old, now)
                    late.clear()
            now += 5 * MS
        assert a.info(now).alive and b.info(now).alive, fates
        assert b.open(a.wrap(b"x", now), now) == "OK", fates
        assert a.open(b.wrap(b"y", now), now) == "OK", fates


def test_a_fresh_receiver_is_not_fooled_by_a_recording() -> None:
    """Everything that an earlier process got, played to a new one, in order and in every rotation."""
    a, b = ends()
    recorded: list[bytes] = []
    for step in range(6):
        for data in a.tick(S + step * MS):
            recorded.append(data)
            b.open(data)
        for data in b.tick(S + step * MS):
            a.open(data)
    recorded += [a.wrap(b"delete everything") for _ in range(3)]
    for shift in range(len(recorded)):
        fresh = End(B, A, 3)
        fresh.tick(S)
        results = {fresh.open(data) for data in recorded[shift:] + recorded[:shift]}
        assert results <= {"ANSWERED", "STALE", "NO_STREAM"}, results
        assert not fresh.info().open and fresh.heard == []


def test_a_recording_does_not_disturb_an_open_stream() -> None:
    a, b = ends()
    recorded = []
    for step in range(6):
        for data in a.tick(S + step * MS):
            recorded.append(data)
            b.open(data)
        for data in b.tick(S + step * MS):
            a.open(data)
    opened = b.info().opened
    for data in recorded * 3:
        assert b.open(data) in {"ANSWERED", "STALE", "CONFIRMED", "REPLAYED", "LIMITED", "OTHER_STREAM"}
    assert b.info().opened == opened and b.open(a.wrap(b"x")) == "OK"


def test_own_messages_reflected_are_refused() -> None:
    a, b = channel()
    assert a.open(End(A, B, 1).tick(S)[0]) == "NOT_PEER"
    assert a.open(a.wrap(b"x")) == "FORGED", "a direction has a key of its own"


def test_a_hello_for_another_node_is_refused() -> None:
    for_b = End(A, B).tick(S)[0]
    assert End(C, A).open(for_b) == "NOT_FOR_US"
    assert End(C, B).open(for_b) == "NOT_PEER"


def test_truncated_at_each_byte() -> None:
    a, b = ends()
    hello = a.tick(S)[0]
    for n in range(len(hello)):
        assert b.open(hello[:n]) in {"SHORT", "BAD_MAC"}, n
    a, b = channel()
    data = a.wrap(b"content")
    for n in range(len(data)):
        assert b.open(data[:n]) in {"SHORT", "FORGED"}, n
    assert b.heard == [] and b.open(data) == "OK"


def test_every_flipped_bit() -> None:
    a, b = ends(Settings(items=(("realms", 5),)))
    hello = a.tick(S)[0]
    refusals = {"BAD_MAC", "UNKNOWN_KEY", "WRONG_KEY", "FORM", "TYPE", "NO_STREAM"}
    for bit in range(8 * len(hello)):
        assert b.open(flipped(hello, bit)) in refusals, bit
    assert b.tick(S + MS)[0][1] == HELLO, "none of them was answered"
    a, b = channel()
    data = a.wrap(b"content")
    for bit in range(8 * len(data)):
        result = b.open(flipped(data, bit))
        assert result in {"FORGED", "OTHER_STREAM", "FORM", "TYPE", "SHORT", "TOO_OLD"}, (bit, result)
    assert b.heard == [] and b.open(data) == "OK"


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def test_replay_window() -> None:
    a, b = channel()
    sent = [a.wrap(bytes([i % 256])) for i in range(9000)]
    assert [b.open(sent[i]) for i in (5, 4, 5, 4)] == ["OK", "OK", "REPLAYED", "REPLAYED"]
    assert b.open(sent[4000]) == "OK"
    assert b.open(sent[100]) == "OK", "63 words of 64 behind the newest are still told apart"
    assert b.open(sent[8999]) == "OK"
    assert b.open(sent[4000]) == "TOO_OLD"
    assert b.open(sent[4001]) == "TOO_OLD"
    assert [b.open(sent[8998]), b.open(sent[8998])] == ["OK", "REPLAYED"]


def test_replay_window_against_a_set() -> None:
    """Random order with duplicates and jumps: at most once, and within the window exactly once."""
    rng = random.Random(7)
    a, b = channel()
    top, seen = 0, set()
    sent = [a.wrap(struct.pack(">I", i)) for i in range(12000)]
    base = int.from_bytes(sent[0][8:16], "big")
    at = 0
    for _ in range(20000):
        at = min(at + rng.choice((0, 1, 1, 2, 70)), len(sent) - 1)
        i = max(0, at - rng.choice((0, 1, 5, 63, 64, 65, 3900, 4100)))
        result, seq = b.open(sent[i]), base + i
        old = top and seq // 64 + 64 <= top // 64
        assert result == ("TOO_OLD" if old else "REPLAYED" if seq in seen else "OK"), (i, at)
        if result == "OK":
            seen.add(seq)
            top = max(top, seq)


def test_a_flood_of_recorded_hellos_is_answered_in_measure() -> None:
    a, b = ends()
    hello = a.tick(S)[0]
    results = [b.open(hello) for _ in range(1000)]
    assert results.count("ANSWERED") == 32 and results.count("LIMITED") == 968
    assert len([d for d in b.tick(S) if d[1] == ACK]) == 1
    assert [b.open(hello, S + 10 * MS) for _ in range(100)].count("ANSWERED") <= 17
    talk(a, b, S + 20 * MS, 20)
    assert a.info().open and b.info().open, "our own hello opens it all the same"


def test_restarted_peer_has_another_boot_id() -> None:
    a, b = channel()
    now = S + 50 * MS
    b = End(B, A, 9)
    now = talk(a, b, now, 20)
    assert a.info(now).peer_boot == 9 and b.open(a.wrap(b"x", now), now) == "OK"


def test_a_silent_peer_is_greeted_again_and_the_old_stream_still_works() -> None:
    a, b = channel()
    assert a.info(S + 99 * MS).alive
    later = S + 250 * MS
    assert not a.info(later).alive and a.info(later).open
    assert b.open(a.wrap(b"x", later), later) == "OK"
    assert HELLO in [d[1] for d in a.tick(later)]


def test_what_was_under_way_when_a_new_stream_was_opened_still_arrives() -> None:
    a, b = channel()
    late = [a.wrap(b"late1"), a.wrap(b"late2")]
    now = talk(a, b, S + 200 * MS)
    assert a.info(now).opened == 2
    assert b.open(late[0], now) == "OK"
    assert b.open(late[1], now + 200 * MS) == "OK"
    b.open(a.wrap(b"new", now + 200 * MS), now + 200 * MS)
    assert b.open(late[1], now + 200 * MS) == "OTHER_STREAM", "not for ever"


def test_signs_of_life_keep_it_alive() -> None:
    a, b = channel()
    now = talk(a, b, S + 6 * MS, 500)
    assert a.info(now).alive and a.info(now).opened == 1 and a.count("KEEPALIVE") > 10


@pytest.mark.parametrize("after", (5, 64))
def test_a_new_key_after_so_many_datagrams(after: int) -> None:
    a, b = End(A, B, 1, rekey_after=after), End(B, A, 2)
    now = talk(a, b)
    for i in range(4 * after):
        assert b.open(a.wrap(bytes([i]), now), now) == "OK"
        now = talk(a, b, now, 1)
        now += 30 * MS
        now = talk(a, b, now, 1)
    assert a.info(now).opened > 2
    assert len(b.heard) == 4 * after, "and none was lost by it"


OTHER = bytes(range(1, 33))


def test_key_rotation_without_a_gap() -> None:
    """Both nodes accept two keys and use one: new key second, then first, then alone; a node at a time."""
    one, two = (1, KEY), (2, OTHER)
    a, b = channel(Settings(keys=(one,)), Settings(keys=(one,)))
    now = S + 10 * MS

    def step(end: End, *keys: tuple[int, bytes]) -> None:
        nonlocal now
        made = ffi.new("uint8_t[2][32]")
        for i, (_, key) in enumerate(keys):
            ffi.memmove(made[i], key, 32)
        assert lib.ips_seal_set_keys(end.s, made, bytes(n for n, _ in keys), len(keys)) == 0
        for _ in range(30):
            assert b.open(a.wrap(b"x", now), now) == "OK"
            assert a.open(b.wrap(b"y", now), now) == "OK"
            now = talk(a, b, now + 10 * MS, 2)

    for end, *keys in (
        (a, one, two),
        (b, one, two),
        (a, two, one),
        (b, two, one),
        (a, two),
        (b, two),
    ):
        step(end, *keys)
    assert a.info(now).key_number == b.info(now).key_number == 2
    assert a.count("UNKNOWN_KEY") == b.count("UNKNOWN_KEY") == 0


def test_a_wrong_key_is_told_as_such() -> None:
    a, b = ends(Settings(keys=((1, KEY),)), Settings(keys=((1, OTHER),)))
    talk(a, b, rounds=30)
    assert a.count("WRONG_KEY") > 0 and b.count("WRONG_KEY") > 0 and not a.info().open
    a, b = ends(Settings(keys=((1, KEY),)), Settings(keys=((2, KEY),)))
    talk(a, b, rounds=30)
    assert a.count("UNKNOWN_KEY") > 0 and b.count("UNKNOWN_KEY") > 0 and not a.info().open


def test_the_item_that_differs_is_known_on_both_sides() -> None:
    mine = Settings(items=(("realms", 1), ("pools", 2), ("ports", 3)))
    theirs = Settings(items=(("ports", 3), ("realms", 1), ("pools", 9), ("more", 1)))
    a, b = channel(mine, theirs)
    assert (a.info().mismatch, a.info().unknown_items) == (0b010, 1)
    assert (b.info().mismatch, b.info().unknown_items) == (0b1100, 0)
    a, b = channel(mine, mine)
    assert a.info().mismatch == b.info().mismatch == a.info().unknown_items == 0


@pytest.mark.parametrize(
    ("a", "b", "agreed"),
    [((2, 1), (1, 1), 1), ((2, 1), (2, 1), 2), ((3, 2), (2, 1), 2), ((3, 2), (1, 1), 0), ((2, 2), (1, 1), 0)],
)
def test_versions_next_to_each_other_understand_each_other(
    a: tuple[int, int], b: tuple[int, int], agreed: int
) -> None:
    left, right = ends(
        replace(Settings(), version=a[0], oldest=a[1]), replace(Settings(), version=b[0], oldest=b[1])
    )
    talk(left, right, rounds=20)
    assert (left.info().version, right.info().version) == (agreed, agreed)
    assert bool(left.info().open) is bool(agreed)
    assert (left.info().other_version or right.info().other_version) is not bool(agreed)
    if not agreed:
        assert left.count("VERSION") + right.count("VERSION") > 0


def test_another_version_is_told_until_one_is_agreed_on() -> None:
    """Who was upgraded by two versions, and taken back by one."""
    left, right = ends(replace(Settings(), version=3, oldest=3), Settings())
    talk(left, right, rounds=20)
    assert left.info().other_version and right.info().other_version and not right.info().open
    back = End(A, B, 2, replace(Settings(), version=2, oldest=1))
    talk(back, right, 2 * S, rounds=20)
    assert right.info(2 * S).open and not right.info(2 * S).other_version


def test_configurations_that_are_refused() -> None:
    assert End(A, A).s is None
    assert End(A, B, n_keys=0).s is None
    assert End(A, B, n_items=17).s is None
    assert End(A, B, hello_ns=0).s is None
    assert End(A, B, silence_ns=10 * MS).s is None
    assert End(A, B, version=1, oldest=2).s is None
    assert End(A, B, 1, Settings(keys=((1, KEY), (1, OTHER)))).s is None


def test_every_result_has_a_text_and_was_seen_here() -> None:
    texts = [ffi.string(lib.ips_seal_text(i)).decode() for i in range(len(RESULTS))]
    assert len(set(texts)) == len(texts) and lib.ips_seal_name(len(RESULTS)) == ffi.NULL
