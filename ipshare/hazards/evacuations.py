"""decide(look, policy, state) -> (state, events): which sites are to be left, and who has to agree. Pure.

An episode begins with a site's first finding and ends `hold_s` after its last one, but not while a feed is
blind that could still say something. Within an episode a site is evacuated once:

    dry-run   what would be done is told, nothing more (the default)
    approve   waits until somebody approves this episode
    automatic ordered at once if a finding is at least as severe as `automatic_severity`, else as approve

What is ordered waits for the rate limit. Without a finding at the time nothing is ordered. While every site
is in an episode there is nowhere safe: an alarm, and no order. State is a value, JSON through ``to_record``;
the same input again changes nothing and tells nothing, so whoever died between two steps goes on from the
state that was kept last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ipshare.hazards.model import SEVERITIES, Finding, Look

Mode = Literal["dry-run", "approve", "automatic"]
Stage = Literal["would", "approval", "limit", "alarm", "ordered", "hold", "empty"]
TEXT: dict[Stage, str] = {
    "would": "would be evacuated (dry run)",
    "approval": "waits for approval",
    "limit": "waits: enough evacuations for now",
    "alarm": "nowhere is safe: nothing is moved",
    "ordered": "evacuation ordered",
    "hold": "the hazard is over, and the site not yet safe: nothing is moved",
    "empty": "in danger, and nothing runs there",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What follows from a hazard."""

    mode: Mode = "dry-run"
    automatic_severity: str = "Extreme"
    hold_s: float = 7200.0
    at_most: int = 1
    per_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Episode:
    """A site in danger, and what was decided about it."""

    site: str
    since: float
    last: float
    """When there was a finding last."""
    stage: Stage
    severity: str
    """The worst of the episode."""
    why: str
    by: str = ""
    """Who approved, or "automatic"."""

    @property
    def id(self) -> str:
        return f"{self.site}@{self.since:.0f}"


@dataclass(frozen=True, slots=True)
class State:
    episodes: Mapping[str, Episode] = field(default_factory=dict)
    ordered: tuple[float, ...] = ()
    """When evacuations were ordered, for the rate limit."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something changed: to be logged, shown, and, if the stage is `ordered`, carried out."""

    at: float
    site: str
    stage: Stage | Literal["safe"]
    text: str
    episode: str


def decide(look: Look, rules: Rules, state: State, empty: Collection[str] = ()) -> tuple[State, list[Event]]:
    """``empty``: sites where nothing runs. They are in danger as others are, and take nobody's turn."""
    now = look.at
    episodes: dict[str, Episode] = {}
    events: list[Event] = []
    for site in look.sites:
        found, old = look.of(site), state.episodes.get(site)
        if found:
            episodes[site] = _goes_on(old, site, found, now)
        elif old is not None and (now - old.last < rules.hold_s or look.blind):
            episodes[site] = old
        elif old is not None:
            text = f"{site}: safe again, no hazard for {now - old.last:.0f} s"
            events.append(Event(now, site, "safe", text, old.id))
    ordered = tuple(at for at in state.ordered if now - at < rules.per_s)
    nowhere = len(episodes) == len(look.sites)
    for site, episode in sorted(episodes.items(), key=_worst_first):
        if episode.last < now and episode.stage != "ordered":
            stage, by = _HELD
        elif site in empty and episode.stage != "ordered":
            stage, by = "empty", ""
        else:
            stage, by = _stage(episode, rules, nowhere, len(ordered))
        if stage == "ordered" and episode.stage != "ordered":
            ordered = (*ordered, now)
        episodes[site] = replace(episode, stage=stage, by=by)
        known = state.episodes.get(site)
        if known is None or known.id != episode.id or known.stage != stage:
            text = f"{site}: {TEXT[stage]}; {episode.why}"
            events.append(Event(now, site, stage, text, episode.id))
    return State(episodes, ordered), events


_HELD: tuple[Stage, str] = ("hold", "")


def _goes_on(old: Episode | None, site: str, found: tuple[Finding, ...], now: float) -> Episode:
    worst = found[0]  # ``look`` sorts them so
    why = f"{worst.event} ({worst.severity}), {worst.why}"
    if old is None:
        return Episode(site, now, now, "would", worst.severity, why)
    if SEVERITIES.index(worst.severity) >= SEVERITIES.index(old.severity):
        return replace(old, last=now)
    return replace(old, last=now, severity=worst.severity, why=why)


def _worst_first(item: tuple[str, Episode]) -> tuple[int, float, str]:
    return SEVERITIES.index(item[1].severity), item[1].since, item[0]


def _stage(episode: Episode, rules: Rules, nowhere: bool, ordered: int) -> tuple[Stage, str]:
    """The stage that an episode is in now, and by whom."""
    if episode.stage == "ordered":
        return "ordered", episode.by
    if nowhere:
        return "alarm", _somebody(episode)
    if rules.mode == "dry-run":
        return "would", ""
    severe = SEVERITIES.index(episode.severity) <= SEVERITIES.index(rules.automatic_severity)
    by = "automatic" if rules.mode == "automatic" and severe else _somebody(episode)
    if not by:
        return "approval", ""
    return ("ordered" if ordered < rules.at_most else "limit"), by


def _somebody(episode: Episode) -> str:
    """Who approved it, if it was not this program."""
    return "" if episode.by == "automatic" else episode.by


def approve(state: State, episode: str, by: str) -> tuple[State, str]:
    """The state in which this episode is approved by `by`, and why not (then the state is as it was).

    It takes effect at the next ``decide``: rate limit and alarm still count."""
    for site, known in state.episodes.items():
        if known.id == episode:
            if known.stage in ("ordered", "limit"):
                return state, f"{site}: {TEXT[known.stage]} already"
            if known.stage in ("would", "hold", "empty"):
                return state, f"{site}: there is nothing to approve: {TEXT[known.stage]}"
            return replace(state, episodes={**state.episodes, site: replace(known, by=by)}), ""
    return state, f"there is no episode {episode!r}: it is over, or another one has begun"


def unsafe(state: State) -> frozenset[str]:
    """Sites where nothing should go: those in an episode, whatever its stage."""
    return frozenset(state.episodes)


def to_record(state: State) -> dict[str, Any]:
    """As JSON can hold it."""
    return {
        "episodes": [asdict(episode) for episode in state.episodes.values()],
        "ordered": list(state.ordered),
    }


def from_record(record: Mapping[str, Any]) -> State:
    episodes = [Episode(**one) for one in record["episodes"]]
    return State({episode.site: episode for episode in episodes}, tuple(record["ordered"]))
