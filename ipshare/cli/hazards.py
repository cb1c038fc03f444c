"""hazards: the verbs about weather and earthquakes near sites: check, watch, feeds.

They ask the feeds themselves and say what they see and what the rules make of it; nothing is moved.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import exits, output
from ipshare.cli.options import json_option, sites_option
from ipshare.errors import Refused

if TYPE_CHECKING:
    from ipshare.hazards.evacuations import State
    from ipshare.hazards.model import Look
    from ipshare.hazards.poller import Poller
    from ipshare.hazards.settings import Settings


@click.group("hazards")
def hazards_() -> None:
    """Severe weather and earthquakes near sites. These verbs look and tell; they move nothing."""


@hazards_.command("check")
@sites_option
@json_option
@click.pass_context
def check(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Ask every feed once: which site is in danger now, and what the rules say to that.

    Exit code 6 if a site is in danger; 1 if none is seen to be, but a feed could not be read.
    """
    from ipshare.hazards.evacuations import State, decide

    settings, poller = _asked(file, as_json)
    found = poller.look(settings.sites, settings.policy)
    state, _ = decide(found, settings.rules, State())
    if as_json:
        output.emit(
            {
                "at": _time(found.at),
                "sites": _sites(found, state),
                "feeds": poller.status(),
                "ignored": dict(sorted(found.ignored.items())),
            }
        )
    else:
        _show_sites(found, state)
        for feed in poller.status():
            if feed["state"] != "fresh":
                output.line(f"feed {feed['feed']}: {feed['state']}: {feed['why']}", fg="red")
    ctx.exit(exits.NO if found.findings else exits.FAILURE if found.blind else exits.OK)


@hazards_.command("feeds")
@sites_option
@json_option
@click.pass_context
def feeds(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Ask every feed once: what it has, what of it was refused, and why.

    Exit code 1 if one could not be read.
    """
    _, poller = _asked(file, as_json)
    rows = poller.status()
    if as_json:
        output.emit(rows)
    else:
        heads = ("feed", "kind", "state", "alerts", "earthquakes", "refused", "why")
        cells = [
            (r["feed"], r["kind"], r["state"], r["alerts"], r["quakes"], sum(r["refused"].values()), r["why"])
            for r in rows
        ]
        output.table(heads, cells)
        for row in rows:
            for reason, count in row["refused"].items():
                output.line(f"{row['feed']}: refused {count:,}: {reason}")
    ctx.exit(exits.OK if all(row["state"] == "fresh" for row in rows) else exits.FAILURE)


@hazards_.command("watch")
@sites_option
@json_option
def watch(file: Path, as_json: bool) -> None:
    """Ask the feeds again and again, and print what changes, until Ctrl-C.

    A line for each change of a site, and for each feed that falls silent or comes back. Waits that the
    rules want, and the rate limit, begin anew with each start of this verb.
    """
    asyncio.run(_watch(file, as_json))


async def _watch(file: Path, as_json: bool) -> None:
    from ipshare.hazards.evacuations import State, decide

    settings, poller, close = await _open(file)
    state, known = State(), {feed.name: "" for feed in settings.feeds}
    try:
        while True:
            await poller.poll()
            for feed in poller.status():
                if feed["state"] != known[feed["feed"]]:
                    known[feed["feed"]] = feed["state"]
                    about = {"feed": feed["feed"], "state": feed["state"], "text": feed["why"]}
                    _say(about, as_json, feed["state"] != "fresh")
            look = poller.look(settings.sites, settings.policy)
            state, events = decide(look, settings.rules, state)
            for event in events:
                record = asdict(event)
                del record["at"]
                _say(record, as_json, event.stage != "safe")
            await asyncio.sleep(min(max(poller.next_s(), 0.1), 60.0))
    finally:
        await close()


def _say(record: dict[str, Any], as_json: bool, is_bad: bool) -> None:
    at = _time(datetime.now(UTC).timestamp())
    if as_json:
        return output.emit({"at": at, **record}, one_line=True)
    text = record["text"] if "site" in record else f"feed {record['feed']}: {record['state']}"
    if "feed" in record and record["text"]:
        text += f": {record['text']}"
    return output.line(f"{at} {text}", **({"fg": "red"} if is_bad else {}))


def _asked(file: Path, quiet: bool) -> tuple[Settings, Poller]:
    """The settings, and feeds that were asked once."""

    async def ask() -> tuple[Settings, Poller]:
        settings, poller, close = await _open(file)
        try:
            await poller.poll()
        finally:
            await close()
        return settings, poller

    with output.working("asking the feeds", quiet=quiet):
        return asyncio.run(ask())


async def _open(file: Path) -> tuple[Settings, Poller, Any]:
    from ipshare.hazards import settings
    from ipshare.hazards.poller import Poller

    wanted = settings.load(file)
    try:
        from ipshare.hazards.fetch import Fetcher
    except ImportError as error:
        raise Refused(
            f"the Python package {error.name} is not installed", hint="pip install 'ipshare[hazards]'"
        ) from None
    fetcher = Fetcher(wanted.contact, wanted.timeout_s)
    return wanted, Poller(wanted.feeds, fetcher), fetcher.close


def _sites(found: Look, state: State) -> list[dict[str, Any]]:
    from ipshare.hazards.tell import hazards_of

    rows = []
    for site in found.sites:
        episode = state.episodes.get(site)
        stage = episode.stage if episode else None
        rows.append({"site": site, "evacuation": stage, "hazards": hazards_of(found, site)})
    return rows


def _show_sites(found: Look, state: State) -> None:
    from ipshare.hazards.evacuations import TEXT

    for site in found.sites:
        episode = state.episodes.get(site)
        if episode is None:
            output.line(f"{site}: no hazard" + (" that was seen" if found.blind else ""))
            continue
        output.line(f"{site}: {TEXT[episode.stage]}", fg="red")
        for f in found.of(site):
            head = f": {f.headline}" if f.headline else ""
            times = f"{_time(f.starts)} to {_time(f.until)}"
            output.line(f"  {f.event} ({f.severity}), {f.why}, {times}, by {', '.join(f.feeds)}{head}")


def _time(seconds: float) -> str:
    from ipshare.hazards.tell import moment

    return moment(seconds)
