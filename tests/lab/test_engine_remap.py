"""Remaps through two engines: connections stay where they were opened, by every kind of channel, there and
back."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from ipshare.engine.remapping import ChannelKind, RemapRole
from ipshare.engine.session_filter import SessionFilter
from ipshare.errors import Refused
from tests.engine_lab import GLOBAL4, GLOBAL6, run
from tests.pair_lab import until
from tests.remap_lab import FAMILIES, Remaps, begin, giver, half, leave, remap_lab, taker


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remaps]:
    with remap_lab(tmp_path_factory.mktemp("remap")) as made:
        yield made


@pytest.fixture(autouse=True)
def none_is_left(lab: Remaps) -> Iterator[None]:
    """Remaps and flows of a test are no other one's."""
    yield
    for engine in lab.engines.values():
        for state in engine.remaps():
            engine.clear_remap(state.id)
    for node in "ab":
        lab.engines[node].close_sessions(SessionFilter())


def some(lab: Remaps, n: int) -> list:  # type: ignore[type-arg]
    return [lab.open(address, tcp=tcp) for address in FAMILIES for tcp in (True, False) for _ in range(n)]


KINDS = [
    (1, ChannelKind.IPIP, (4, 6)),
    (3, ChannelKind.GUE, (6, 4)),  # the other family outside
    (5, ChannelKind.REWRITE, (4, 6)),
]


@pytest.mark.parametrize(("number", "kind", "outside"), KINDS, ids=[kind.value for _, kind, _ in KINDS])
def test_there_and_back(lab: Remaps, number: int, kind: ChannelKind, outside: tuple[int, int]) -> None:
    lab.flip("a")
    halves = [half(number + i, address, kind, outside[i]) for i, address in enumerate((GLOBAL4, GLOBAL6))]
    idle = [lab.open(address) for address in FAMILIES]  # nothing is ever tracked of them before they speak
    before = some(lab, 2)
    assert {lab.speak(talk) for talk in before} == {"a"}
    begin(lab, halves)
    assert {lab.speak(talk) for talk in before} == {"a"}
    leave(lab, halves)
    opened = [lab.state("a", both["a"].id).counters["opened"] for both in halves]
    asked = some(lab, 1)
    assert {lab.speak(talk) for talk in asked} == {"b"}, "opened at who leaves"
    assert {lab.speak(talk) for talk in before + idle} == {"a"}
    for both in halves:
        lab.role(taker(both), RemapRole.TAKING)
    lab.flip("b")
    after = some(lab, 2)
    assert {lab.speak(talk) for talk in after + asked} == {"b"}
    assert {lab.speak(talk) for talk in before + idle} == {"a"}
    assert {lab.speak(talk, bytes(200_000)) for talk in before + idle if talk.tcp} == {"a"}
    assert {lab.speak(talk, bytes(3000)) for talk in before if not talk.tcp} == {"a"}, "fragments follow"
    assert {lab.speak(talk, bytes(3000)) for talk in after if not talk.tcp} == {"b"}
    lab.flip("a")  # a distribution point that is late
    late = some(lab, 1)
    assert {lab.speak(talk) for talk in [*late, *after, *asked]} == {"b"}
    assert {lab.speak(talk) for talk in before + idle} == {"a"}
    lab.flip("b")
    for both, opened_before in zip(halves, opened, strict=True):
        until(lambda both=both: lab.state("a", both["a"].id).flows >= 5)  # counted twice a second
        given, taken = (lab.state(side(both).node, side(both).id) for side in (giver, taker))
        assert not given.is_exact and given.counters["opened"] == opened_before
        assert (
            taken.counters["followed"] > 0
            and taken.counters["opened"] > 0
            and taken.counters["opened_asked"] > 0
        )
        assert given.counters["final_in"] >= taken.counters["followed"] > 0
        assert len(lab.engines["a"].remap_flows(given.id).records) >= 5
        until(lambda given=given: len(lab.engines["b"].remap_flows(given.id).records) >= 5)
    lab.close(before + idle)
    lab.end_udp("a")
    for both in halves:
        until(lambda both=both: lab.state("a", both["a"].id).flows == 0)
        assert lab.engines["b"].clear_remap(both["b"].id) is not None
        last = lab.engines["a"].clear_remap(both["a"].id)
        assert last is not None and last.role is RemapRole.LEAVING
    assert {lab.speak(talk) for talk in [*late, *after, *asked]} == {"b"}
    lab.close([*late, *after, *asked])


def test_back_while_it_drains(lab: Remaps) -> None:
    lab.flip("a")
    there, back = (
        half(7, GLOBAL4, ChannelKind.GUE, 4),
        half(8, GLOBAL4, ChannelKind.GUE, 4, giver="b", unknown_here=True),
    )
    old = [lab.open(GLOBAL4, tcp=tcp) for tcp in (True, False)]
    begin(lab, [there])
    assert {lab.speak(talk) for talk in old} == {"a"}
    leave(lab, [there])
    lab.role(there["b"], RemapRole.TAKING)
    lab.flip("b")
    middle = [lab.open(GLOBAL4, tcp=tcp) for tcp in (True, False)]
    assert {lab.speak(talk) for talk in middle} == {"b"}
    begin(lab, [back])
    leave(lab, [back])
    between = [lab.open(GLOBAL4, tcp=tcp) for tcp in (True, False)]
    assert {lab.speak(talk) for talk in between} == {"a"}, "b leaves: a opens"
    lab.role(back["a"], RemapRole.TAKING)
    for point in ("a", "b", "a"):
        lab.flip(point)
        new = [lab.open(GLOBAL4, tcp=tcp) for tcp in (True, False)]
        assert {lab.speak(talk) for talk in [*old, *between, *new]} == {"a"}
        assert {lab.speak(talk) for talk in middle} == {"b"}
        lab.close(new)
    for remap in (7, 8):
        for node in "ab":
            assert lab.engines[node].clear_remap(remap) is not None
    lab.close([*old, *middle, *between])


def test_what_is_odd_is_refused_and_changes_nothing(lab: Remaps) -> None:
    both = half(9, GLOBAL4, ChannelKind.IPIP, 4)
    lab.engines["a"].set_remap(both["a"])
    lab.engines["a"].set_remap(both["a"])  # again: nothing
    with pytest.raises(Refused, match="only the role"):
        lab.role(both["a"], RemapRole.TAKING)
    assert [state.id for state in lab.engines["a"].remaps()] == [9]
    assert not lab.state("a", 9).is_ready and lab.state("a", 9).notes == ()
    assert lab.engines["a"].clear_remap(9) is not None
    assert lab.engines["a"].remap_state(9) is None and lab.engines["a"].clear_remap(9) is None
    with pytest.raises(Refused, match="no remap 9"):
        lab.engines["a"].remap_flows(9)


def test_a_channel_that_is_too_narrow_tells_the_sender(lab: Remaps) -> None:
    """Path MTU discovery works through the channel: what does not fit comes in smaller pieces."""
    lab.flip("a")
    run(lab.names["client"], "ip route flush cache")
    both = half(10, GLOBAL4, ChannelKind.IPIP, 4)
    begin(lab, [both])
    talk = lab.open(GLOBAL4)
    assert lab.speak(talk) == "a"
    leave(lab, [both])
    lab.role(both["b"], RemapRole.TAKING)
    lab.flip("b")
    assert lab.speak(talk, bytes(300_000)) == "a"
    until(lambda: lab.state("b", 10).counters["drop_too_long"] > 0)  # told some milliseconds later
    assert "mtu 1480" in run(lab.names["client"], f"ip route get {GLOBAL4}")
    for node in "ab":
        lab.engines[node].clear_remap(10)
    lab.close([talk])
    assert isinstance(talk.client, socket.socket)
