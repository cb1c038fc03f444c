"""What several nodes see becomes a verdict: rows, and rules that hold for any observations."""

from __future__ import annotations

import random

import pytest

from ipshare.director.health import Observation, Track, Verdict, suspects, track, verdicts

STALE = 5.0


def seen(*words: str, now_s: float = 100.0) -> list[Observation]:
    """ "C A up 1": C saw A up a second ago; places are named as the targets are."""
    rows = [word.split() for word in words]
    return [Observation(who, what, how == "up", now_s - float(age), what) for who, what, how, age in rows]


@pytest.mark.parametrize(
    ("words", "quorum", "word"),
    [
        ([], None, "unknown"),
        (["C A up 1"], None, "up"),
        (["C A down 1"], None, "down"),
        (["C A down 6"], None, "unknown"),
        (["C A down 1", "D A up 1"], None, "up"),
        (["C A down 1", "D A up 6"], None, "down"),
        (["C A down 1", "D A down 6"], 2, "unknown"),
        (["C A down 1", "D A down 1", "E A up 1"], None, "down"),
        (["C A down 1", "D A down 1", "E A up 1"], 3, "up"),
        (["C A down 1", "C B down 1", "D A up 1", "D B up 1"], None, "up"),
        (["C A down 1", "C B up 1"], None, "down"),
        (["C A down 1", "C B down 1"], None, "unknown"),
    ],
)
def test_rows(words: list[str], quorum: int | None, word: str) -> None:
    assert verdicts(["A"], seen(*words), 100.0, stale_s=STALE, quorum=quorum)["A"].word == word


def test_the_reason_has_the_observers_words() -> None:
    words = ["C A down 1", "D A up 7", "E A down 0", "E B down 0", "C B up 0"]
    suspected = "E: does not answer, as nothing else does: not counted"
    found = verdicts(["A"], seen(*words), 100.0, stale_s=STALE)["A"]
    assert found == Verdict("down", f"C: does not answer; D: answers, 7 s ago: stale; {suspected}", 99.0)


def test_whatever_is_seen_silence_makes_nobody_down_and_age_never_helps() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(2000):
        every = [
            Observation(who, what, rng.random() < 0.5, rng.uniform(80, 100), what)
            for who in "CDEF"
            for what in "AB"
            if rng.random() < 0.8
        ]
        fresh = [one for one in every if 100.0 - one.at_s <= STALE]
        quorum = rng.choice([None, 1, 2, 3])
        found = verdicts("AB", every, 100.0, stale_s=STALE, quorum=quorum)
        assert {t: v.word for t, v in found.items()} == {
            t: v.word for t, v in verdicts("AB", fresh, 100.0, stale_s=STALE, quorum=quorum).items()
        }
        doubted = suspects(every, 100.0, STALE)
        for target, verdict in found.items():
            counted = [one for one in fresh if one.target == target and one.observer not in doubted]
            downs = [one for one in counted if not one.up]
            needed = quorum if quorum is not None else len(counted) // 2 + 1
            assert (verdict.word == "down") == (bool(downs) and len(downs) >= needed)
            assert verdict.word != "unknown" or not any(one.up for one in counted)


def test_flaps_are_suppressed_until_half_is_forgotten() -> None:
    one, now = Track(), 0.0
    for flap in range(3):
        for word in ("up", "down"):
            now += 1.0
            one = track(one, Verdict(word), now, flaps=3, half_life_s=60.0)  # type: ignore[arg-type]
        assert one.is_suppressed == (flap == 2)
    since = one.since_s
    while one.is_suppressed:
        now += 1.0
        one = track(one, Verdict("down"), now, flaps=3, half_life_s=60.0)
    assert one.since_s == since
    assert 55 <= now <= 65, "half of three flaps was forgotten in one half-life"


def test_it_is_down_since_the_first_probe_in_vain_of_as_many_observers_as_it_takes() -> None:
    at = {"C": 99.6, "D": 99.8, "E": 99.0}
    every = [Observation(who, "A", False, 99.9, "A", since) for who, since in at.items()]
    found = verdicts(["A"], every, 100.0, stale_s=STALE)["A"]
    assert (found.word, found.since_s) == ("down", 99.6)
    assert verdicts(["A"], every, 100.0, stale_s=STALE, quorum=3)["A"].since_s == 99.8
    for up_s, since_s in ((90.0, 99.6), (99.7, 99.7)):  # not before it was up
        one = track(Track(), Verdict("up"), up_s, flaps=3, half_life_s=60.0)
        assert track(one, found, 100.0, flaps=3, half_life_s=60.0).since_s == since_s


def test_not_knowing_is_no_flap() -> None:
    one = Track()
    for now, word in enumerate(["up", "unknown", "up", "unknown", "unknown", "up"]):
        one = track(one, Verdict(word), float(now), flaps=3, half_life_s=60.0)  # type: ignore[arg-type]
    assert one.penalty == 0.0
    one = track(one, Verdict("unknown"), 7.0, flaps=3, half_life_s=60.0)
    one = track(one, Verdict("down"), 8.0, flaps=3, half_life_s=60.0)
    assert one.penalty == 1.0
    assert one.since_s == 8.0
