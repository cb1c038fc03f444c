"""The bad link as a machine: repeatable from its seed, each phenomenon alone and as often as asked."""

from __future__ import annotations

from collections import Counter

import pytest

from ipshare.lab.impair import Channel, Impairment

FRAMES = [bytes(12) + b"\x08\x00" + number.to_bytes(4) + bytes(80) for number in range(2000)]


def through(settings: Impairment, direction: int = 0, step_s: float = 0.001) -> tuple[list[bytes], Channel]:
    channel, out, now = Channel(settings, direction), [], 0.0
    for frame in FRAMES:
        channel.push(now, frame)
        out += channel.pop(now)
        now += step_s
    while (due := channel.next_due()) is not None:
        out += channel.pop(due)
    return out, channel


def numbers(frames: list[bytes]) -> list[int]:
    return [int.from_bytes(frame[14:18]) for frame in frames]


def test_clean_link_changes_nothing():
    assert through(Impairment())[0] == FRAMES


EVERYTHING = Impairment(loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1, delay_s=0.01, jitter_s=0.01)


def test_same_seed_same_run():
    assert through(EVERYTHING)[0] == through(EVERYTHING)[0]


@pytest.mark.parametrize("change", ["seed", "direction"])
def test_other_seed_or_direction_other_run(change: str):
    if change == "seed":
        other = through(
            Impairment(**{**{f: getattr(EVERYTHING, f) for f in EVERYTHING.__slots__}, "seed": 2})
        )[0]
    else:
        other = through(EVERYTHING, direction=1)[0]
    assert other != through(EVERYTHING)[0]


def test_which_frames_are_lost_does_not_depend_on_the_other_settings():
    """So that a run with one thing switched off is comparable."""
    alone = set(numbers(through(Impairment(loss=0.1))[0]))
    together = set(numbers(through(Impairment(loss=0.1, duplicate=0.3, delay_s=0.05, jitter_s=0.01))[0]))
    assert alone == together


def test_loss():
    out, channel = through(Impairment(loss=0.2))
    assert len(out) == 2000 - channel.counts["lost"] and 300 < channel.counts["lost"] < 500
    assert numbers(out) == sorted(numbers(out))


def test_duplication():
    out, channel = through(Impairment(duplicate=0.2))
    twice = [n for n, times in Counter(numbers(out)).items() if times == 2]
    assert len(twice) == channel.counts["duplicated"] and 300 < len(twice) < 500
    assert len(out) == 2000 + len(twice)


def test_reordering_is_overtaken_by_as_many_as_asked():
    out, channel = through(Impairment(reorder=0.02, reorder_by=5))
    order = numbers(out)
    assert sorted(order) == list(range(2000)), "nothing lost"
    late = {n for position, n in enumerate(order) if any(m > n for m in order[:position])}
    assert len(late) == channel.counts["reordered"] and 10 < len(late) < 100
    for n in (n for n in late if n < 1990):
        overtakers = {m for m in order[: order.index(n)] if m > n}
        assert overtakers == set(range(n + 1, n + 6)) - late, "the next five, but for those held themselves"


def test_reordered_frame_does_not_wait_for_ever():
    channel = Channel(Impairment(reorder=1.0, reorder_by=3, reorder_s=0.05), 0)
    channel.push(1.0, FRAMES[0])
    assert channel.pop(1.0) == []
    assert channel.next_due() == pytest.approx(1.05)
    assert channel.pop(1.05) == [FRAMES[0]]
    assert channel.next_due() is None


def test_corruption_flips_one_bit_behind_the_ethernet_header():
    out, channel = through(Impairment(corrupt=0.3))
    broken = [(a, b) for a, b in zip(FRAMES, out, strict=True) if a != b]
    assert len(broken) == channel.counts["corrupted"] and 500 < len(broken) < 700
    for a, b in broken:
        assert a[:14] == b[:14]
        assert (int.from_bytes(a) ^ int.from_bytes(b)).bit_count() == 1


def test_delay_and_jitter_keep_the_order():
    channel = Channel(Impairment(delay_s=0.5, jitter_s=0.2), 0)
    for number, frame in enumerate(FRAMES):
        channel.push(number * 0.001, frame)
    assert channel.pop(0.499) == []
    times, out = [], []
    while (due := channel.next_due()) is not None:
        times.append(due)
        out += channel.pop(due)
    assert numbers(out) == list(range(2000))
    assert times[0] >= 0.5 and times[-1] <= 1.999 + 0.7


def test_settings_change_between_two_frames():
    channel = Channel(Impairment(), 0)
    channel.push(0.0, FRAMES[0])
    channel.configure(Impairment(loss=1.0))
    channel.push(0.0, FRAMES[1])
    channel.configure(Impairment())
    channel.push(0.0, FRAMES[2])
    assert channel.pop(0.0) == [FRAMES[0], FRAMES[2]]


@pytest.mark.parametrize("bad", [{"loss": 1.1}, {"corrupt": -0.1}, {"delay_s": -1.0}])
def test_nonsense_is_refused(bad: dict[str, float]):
    with pytest.raises(ValueError):
        Impairment(**bad)
