"""From findings to evacuations: who agrees, how many, when a site is safe again."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ipshare.hazards.evacuations import Rules, State, approve, decide, from_record, to_record, unsafe
from ipshare.hazards.model import Finding, Look
from tests.examples import examples

SITES = ("a", "b", "c")
DRY, ASK, AUTO = Rules("dry-run"), Rules("approve"), Rules("automatic")


def picture(now: float, blind: bool = False, **severities: str) -> Look:
    """Each named site has a finding of that severity."""
    found = tuple(
        Finding(site, "alert", "x", "Storm", severity, now, now + 60, "inside its polygon", ("f",))
        for site, severity in sorted(severities.items())
    )
    return Look(now, SITES, found, ("f",) if blind else (), Counter())


def stages(state: State) -> dict[str, str]:
    return {site: episode.stage for site, episode in state.episodes.items()}


def told(*looks: Look, rules: Rules, state: State | None = None) -> tuple[State, list[tuple[str, str]]]:
    state, events = state or State(), []
    for look in looks:
        state, more = decide(look, rules, state)
        events += [(event.site, event.stage) for event in more]
    return state, events


def test_a_dry_run_tells_once_and_orders_nothing() -> None:
    state, events = told(picture(0, a="Extreme"), picture(60, a="Extreme"), rules=DRY)
    assert events == [("a", "would")] and state.ordered == ()
    _, (event,) = decide(picture(0, a="Extreme"), DRY, State())
    assert event.text == "a: would be evacuated (dry run); Storm (Extreme), inside its polygon"


def test_approval_is_waited_for_and_counts_for_this_episode_only() -> None:
    state, events = told(picture(0, a="Extreme"), rules=ASK)
    assert events == [("a", "approval")]
    state, refused = approve(state, "a@0", "ann")
    assert refused == ""
    state, events = told(picture(60, a="Extreme"), rules=ASK, state=state)
    assert events == [("a", "ordered")] and state.episodes["a"].by == "ann"
    assert approve(state, "a@0", "bob")[1] == "a: evacuation ordered already"
    later, events = told(picture(7300), picture(9000, a="Extreme"), rules=ASK, state=state)
    assert events == [("a", "safe"), ("a", "approval")]
    assert "there is no episode" in approve(later, "a@0", "ann")[1]


def test_what_cannot_be_approved() -> None:
    state, _ = told(picture(0, a="Extreme"), rules=DRY)
    assert "nothing to approve" in approve(state, "a@0", "ann")[1]
    state, _ = told(picture(0, a="Extreme"), picture(60), rules=ASK)
    assert "the hazard is over" in approve(state, "a@0", "ann")[1]


def test_automatic_from_a_severity_on() -> None:
    state, events = told(picture(0, a="Severe"), picture(60, a="Extreme"), rules=AUTO)
    assert events == [("a", "approval"), ("a", "ordered")] and state.episodes["a"].by == "automatic"
    state, events = told(picture(0, a="Severe"), rules=Rules("automatic", automatic_severity="Severe"))
    assert events == [("a", "ordered")]


def test_a_lower_severity_later_in_an_episode_does_not_make_it_less() -> None:
    state, _ = told(picture(0, a="Extreme"), picture(60, a="Severe"), rules=ASK)
    assert state.episodes["a"].severity == "Extreme"


def test_the_rate_limit_prefers_the_worst_and_lets_the_next_follow() -> None:
    rules = Rules("automatic", automatic_severity="Severe", at_most=1, per_s=100)
    state, events = told(picture(0, a="Severe", b="Extreme"), rules=rules)
    assert events == [("b", "ordered"), ("a", "limit")]
    assert approve(state, "a@0", "ann")[1] == "a: waits: enough evacuations for now already"
    _, events = told(*(picture(t, a="Severe", b="Extreme") for t in (99, 100)), rules=rules, state=state)
    assert events == [("a", "ordered")]


def test_an_order_that_waits_falls_back_when_nobody_stands_for_it_any_more() -> None:
    rules = Rules("automatic", automatic_severity="Severe")
    state, _ = told(picture(0, a="Severe", b="Extreme"), rules=rules)
    state, events = told(picture(60, a="Severe", b="Extreme"), rules=ASK, state=state)
    assert events == [("a", "approval")]


def test_nowhere_is_safe() -> None:
    everywhere = dict.fromkeys(SITES, "Extreme")
    state, events = told(picture(0, **everywhere), rules=AUTO)
    assert [stage for _, stage in events] == ["alarm"] * 3 and state.ordered == ()
    held = picture(60, a="Extreme", b="Extreme")  # c is held: it is not safe yet
    state, events = told(held, rules=AUTO, state=state)
    assert events == [("c", "hold")] and stages(state)["a"] == "alarm"
    state, events = told(picture(8000, a="Extreme"), rules=AUTO, state=state)
    assert events == [("a", "ordered"), ("c", "safe"), ("b", "hold")] or ("a", "ordered") in events


def test_what_was_approved_in_an_alarm_is_ordered_when_a_place_is_safe() -> None:
    state, _ = told(picture(0, **dict.fromkeys(SITES, "Extreme")), rules=ASK)
    state, refused = approve(state, "a@0", "ann")
    assert refused == ""
    state, events = told(picture(60, **dict.fromkeys(SITES, "Extreme")), rules=ASK, state=state)
    assert events == []
    state, _ = told(picture(8000, a="Extreme", b="Extreme"), rules=ASK, state=state)
    assert stages(state) == {"a": "ordered", "b": "approval"}


def test_a_site_is_held_and_nothing_is_ordered_for_a_hazard_that_is_over() -> None:
    state, events = told(picture(0, a="Extreme"), picture(60), rules=ASK)
    assert events == [("a", "approval"), ("a", "hold")] and unsafe(state) == {"a"}
    state, _ = approve(state, "a@0", "ann")
    state, events = told(picture(7199), picture(7200), rules=ASK, state=state)
    assert events == [("a", "safe")] and not state.episodes


def test_a_site_is_not_safe_while_a_feed_is_silent() -> None:
    state, _ = told(picture(0, a="Extreme"), rules=DRY)
    state, events = told(picture(9000, blind=True), rules=DRY, state=state)
    assert events == [("a", "hold")]
    state, events = told(picture(9060), rules=DRY, state=state)
    assert events == [("a", "safe")]


def test_an_evacuation_is_ordered_once_in_an_episode() -> None:
    looks = [picture(t, a="Extreme") if t % 120 == 0 else picture(t) for t in range(0, 6000, 60)]
    _, events = told(*looks, rules=AUTO)
    assert events == [("a", "ordered")]


def test_a_site_where_nothing_runs_takes_nobodys_turn() -> None:
    look = picture(0, a="Extreme", b="Extreme")
    state, events = decide(look, AUTO, State(), {"a"})
    assert [(event.site, event.stage) for event in events] == [("a", "empty"), ("b", "ordered")]
    assert unsafe(state) == {"a", "b"}
    assert "nothing to approve" in approve(state, "a@0", "ann")[1]
    state, events = decide(picture(60, a="Extreme", b="Extreme"), AUTO, state, {"b"})
    assert stages(state) == {"a": "limit", "b": "ordered"}


moments = st.lists(
    st.tuples(
        st.integers(1, 4000),
        st.booleans(),
        st.dictionaries(st.sampled_from(SITES), st.sampled_from(["Extreme", "Severe"])),
        st.sampled_from([None, *SITES]),
    ),
    max_size=12,
)


@given(moments, st.sampled_from(["dry-run", "approve", "automatic"]), st.integers(1, 2))
@examples(100)
def test_whatever_happens(story: list[Any], mode: Any, at_most: int) -> None:
    """Limits hold in every story; a state that was kept as JSON goes on the same; nothing is told twice."""
    rules = Rules(mode, hold_s=3000, at_most=at_most, per_s=2000)
    state, now, orders = State(), 0.0, []
    agreed: set[str] = set()
    for later, blind, severities, site in story:
        now += later
        look = picture(now, blind, **severities)
        state, events = decide(look, rules, from_record(json.loads(json.dumps(to_record(state)))))
        assert decide(look, rules, state) == (state, [])
        for event in events:
            if event.stage == "ordered":
                assert event.site in severities, "no finding"
                assert mode != "dry-run" and len(state.episodes) < len(SITES)
                extreme = state.episodes[event.site].severity == "Extreme"
                assert event.episode in agreed or (mode == "automatic" and extreme)
                assert event.episode not in [one for one, _ in orders]
                orders.append((event.episode, now))
            if event.stage == "safe":
                assert event.site not in severities and not blind
        assert sum(now - at < 2000 for _, at in orders) <= at_most
        assert set(severities) <= set(state.episodes)
        if site in state.episodes:
            state, refused = approve(state, state.episodes[site].id, "ann")
            agreed |= set() if refused else {state.episodes[site].id}
