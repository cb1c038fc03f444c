"""The verbs hazards and evacuate, over a real server, and their files' mistakes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipshare.cli import exits
from ipshare.cli.app import run
from ipshare.config.schema_hazards import HazardFeed, HazardQuake, Hazards, SiteTable
from ipshare.config.schema_placement import PlaceNode, Workload
from ipshare.errors import ConfigError
from ipshare.hazards import settings
from ipshare.hazards.zips import NoSuchZip, locate
from ipshare.placement import settings as placement
from tests import hazard_feeds as made
from tests.hazard_feeds import Server, serving

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples/hazards"
Run = Callable[..., tuple[int, str, str]]
FILE = """
[hazards]
timeout = "2m"
{more}
[[hazards.feed]]
name = "weather"
kind = "nws"
url = "{url}/nws"
interval = "1s"
max_age = "1h"
[[hazards.feed]]
name = "quakes"
kind = "usgs"
url = "{url}/usgs"
[[hazards.earthquake]]
magnitude = 5
within_km = 50
[[site]]
name = "houston"
zip = "77002"
[[site]]
name = "denver"
zip = "60313"
latitude = 39.74
longitude = -104.99
[unknown]
to = "us"
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        now = time.time()
        server.documents = {"/nws": made.nws(now=now), "/usgs": made.usgs(now=now)}
        yield server


@pytest.fixture
def ipshare(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(words)
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def file(server: Server, tmp_path: Path) -> Path:
    path = tmp_path / "sites.toml"
    path.write_text(FILE.format(url=server.url, more=""))
    return path


def documented(verb: str) -> set[str]:
    section = (DOCS / "cli.md").read_text().split("## JSON")[1].split("## Exit codes")[0]
    (row,) = re.findall(rf"^\| `{verb}` \| (.*) \|$", section, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


def keys_in(value: Any) -> set[str]:
    """All keys, but those that are data (reasons)."""
    if isinstance(value, list):
        return {key for element in value for key in keys_in(element)}
    if not isinstance(value, dict):
        return set()
    inner = [keys_in(child) for key, child in value.items() if key not in ("refused", "ignored")]
    return set(value) | {key for keys in inner for key in keys}


def test_check_without_and_with_a_hazard(server: Server, file: Path, ipshare: Run) -> None:
    code, out, err = ipshare("hazards", "check", "-c", str(file))
    assert (code, out, err) == (exits.OK, "houston: no hazard\ndenver: no hazard\n", "")
    now = time.time()
    server.documents["/nws"] = made.nws(made.nws_feature(now=now))
    code, out, _ = ipshare("hazards", "check", "-c", str(file))
    assert code == exits.NO
    assert "houston: would be evacuated (dry run)\n  Tornado Warning (Extreme), inside its polygon, " in out
    code, out, err = ipshare("hazards", "check", "-c", str(file), "--json")
    assert code == exits.NO and err == ""
    record = json.loads(out)
    assert keys_in(record) == documented("hazards check") | documented("hazards feeds")
    assert [site["evacuation"] for site in record["sites"]] == ["would", None]
    assert [hazard["feeds"] for hazard in record["sites"][0]["hazards"]] == [["weather"]]


def test_check_does_not_call_a_site_safe_that_it_knows_nothing_of(
    server: Server, file: Path, ipshare: Run
) -> None:
    server.status["/nws"] = 503
    code, out, _ = ipshare("hazards", "check", "-c", str(file))
    assert code == exits.FAILURE
    assert "houston: no hazard that was seen" in out and "feed weather: never: HTTP 503" in out


def test_feeds_shows_what_was_refused(server: Server, file: Path, ipshare: Run) -> None:
    server.documents["/nws"] = made.nws(made.nws_feature(sent="?"), {"type": "Feature"})
    code, out, _ = ipshare("hazards", "feeds", "-c", str(file))
    assert code == exits.OK and "weather: refused 1: no properties" in out
    server.documents["/usgs"] = b"<html>"
    code, out, _ = ipshare("hazards", "feeds", "-c", str(file), "--json")
    assert code == exits.FAILURE
    rows = json.loads(out)
    assert keys_in(rows) == documented("hazards feeds")
    assert [row["state"] for row in rows] == ["fresh", "never"]


def test_watch_tells_what_changes_until_it_is_ended(server: Server, file: Path) -> None:
    command = [sys.executable, "-m", "ipshare", "hazards", "watch", "-c", str(file), "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    try:
        first = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [(line["feed"], line["state"]) for line in first] == [
            ("weather", "fresh"),
            ("quakes", "fresh"),
        ]
        server.documents["/nws"] = made.nws(made.nws_feature(now=time.time()))
        event = json.loads(process.stdout.readline())
        assert (event["site"], event["stage"]) == ("houston", "would")
        assert set(event) | set(first[0]) == documented("hazards watch")
        process.send_signal(signal.SIGINT)
        assert process.wait(200) == exits.INTERRUPTED
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_evacuate_plan(ipshare: Run) -> None:
    file = str(EXAMPLES / "placement.toml")
    code, out, _ = ipshare("evacuate", "plan", "houston", "-c", file, "--json")
    record = json.loads(out)
    assert code == exits.OK and record["possible"] and not record["alarm"]
    assert [move["unit"] for move in record["moves"]] == ["shop", "records", "dns-1"]
    code, out, _ = ipshare("evacuate", "plan", "dallas", "--avoid", "denver", "-c", file, "--json")
    failed = json.loads(out)
    assert code == exits.NO and failed["alarm"]
    assert keys_in(record) | keys_in(failed) == documented("evacuate plan")
    code, out, _ = ipshare("evacuate", "plan", "--node", "dallas-1", "-c", file)
    assert code == exits.OK and "dallas-1 failed; same site" in out
    code, out, _ = ipshare("evacuate", "plan", "dallas", "--avoid", "denver", "-c", file)
    assert "dns-2 (dns-2) cannot go:" in out and "nowhere is safe" in out


@pytest.mark.parametrize(
    "words",
    [(), ("houston", "--node", "dallas-1"), ("nowhere",), ("--node", "x"), ("houston", "--avoid", "x")],
)
def test_plans_that_nobody_can_mean(ipshare: Run, words: tuple[str, ...]) -> None:
    assert ipshare("evacuate", "plan", *words, "-c", str(EXAMPLES / "placement.toml"))[0] == exits.USAGE


def problems(load: Callable[[Path], Any], tmp_path: Path, text: str) -> list[tuple[int, str]]:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert all(problem.hint for problem in caught.value.problems), "what to write instead"
    return [(problem.line, problem.message) for problem in caught.value.problems]


def test_every_mistake_about_hazards_at_once_with_its_line(tmp_path: Path) -> None:
    text = """[hazards]
severity = "Bad"
hold = 5
[[hazards.feed]]
name = "w"
kind = "rss"
url = "ftp://x"
[[hazards.earthquake]]
magnitude = 50
within_km = 10
[[site]]
name = "a"
zip = "00000"
[[site]]
name = "a"
latitude = 91.0
longitude = 5.0
[[site]]
name = "b"
latitude = 5.0
[[site]]
name = "c"
[[site]]
name = "d"
ugc = ["048201", "TXZ213"]
same = ["TXC201"]
colour = "red"
"""
    assert problems(settings.load, tmp_path, text) == [
        (2, "'Bad' is not one of Extreme, Severe, Moderate, Minor"),
        (3, "a duration is a string with a unit, not 5"),
        (6, "'rss' is not one of nws, cap, usgs"),
        (9, "must be at most 10.0, not 50"),
        (13, "no place is known for ZIP code 00000"),
        (15, "two sites have the name 'a'"),
        (16, "must be at most 90.0, not 91.0"),
        (18, "latitude and longitude go together"),
        (21, "nobody knows where this site is"),
        (25, "not a code: '048201'"),
        (26, "not a code: 'TXC201'"),
        (27, "unknown key 'colour'"),
    ]


def test_mistakes_of_feeds(tmp_path: Path) -> None:
    feed = '[[hazards.feed]]\nname = "w"\nkind = "nws"\nurl = "{}"\ninterval = "10ms"\nmax_age = "10ms"\n'
    text = '[hazards]\ntimeout = "0s"\n' + feed.format("http://") + feed.format("http://a:99999/")
    site = '[[site]]\nname = "a"\nzip = "no place"\n'
    assert [message for _, message in problems(settings.load, tmp_path, text + site)] == [
        "must be above 0",
        "not a URL: 'http://'",
        "asks too often",
        "the feed would be stale between two questions",
        "two feeds have the name 'w'",
        "not a URL: 'http://a:99999/'",
        "asks too often",
        "the feed would be stale between two questions",
        "not a ZIP code: 'no place'",
    ]
    assert [message for _, message in problems(settings.load, tmp_path, "")] == [
        "there is no site",
        "table [hazards] is missing",
    ]
    assert [message[:8] for _, message in problems(settings.load, tmp_path, "[hazards")] == ["not TOML"]
    assert problems(settings.load, tmp_path, "hazards = 5\nsite = 6")[0] == (1, "hazards must be a table")


def test_every_mistake_about_placement(tmp_path: Path) -> None:
    text = """[[site]]
name = "a"
capacity = 5
[[site]]
name = "b"
[[node]]
name = "b1"
site = "b"
capacity = 5
other = "keys are others'"
[[workload]]
name = "w"
[[workload]]
name = "w"
site = "b"
[[workload]]
name = "v"
node = "zz"
allowed = ["a", "zz"]
[[workload]]
name = "x"
site = "a"
group = "g"
apart = ["l"]
[[workload]]
name = "y"
node = "b1"
group = "g"
apart = ["l"]
"""
    assert problems(placement.load, tmp_path, text) == [(14, "two workloads have the name 'w'")]
    assert problems(
        placement.load,
        tmp_path,
        text.replace('[[workload]]\nname = "w"\nsite', '[[workload]]\nname = "u"\nsite'),
    ) == [
        (11, "where does w run?"),
        (15, "b has nodes: which one is it?"),
        (18, "there is no node 'zz' with a capacity"),
        (19, "there is no site 'zz'"),
        (28, "group g: x runs on a, not b1"),
        (29, "group g: x and y are kept apart by 'l'"),
    ]
    bad = '[[site]]\nname = "a"\n[[node]]\nname = "n"\nsite = "zz"\n[[site]]\nname = "c"\ncapacity = -5\n'
    assert problems(placement.load, tmp_path, bad) == [(8, "must be above 0.0, not -5")]
    bad = bad.replace("-5", "5")
    assert problems(placement.load, tmp_path, bad) == [
        (1, "nobody knows how much fits into a"),
        (5, "there is no site 'zz'"),
    ]


def test_zip_codes() -> None:
    assert locate("77002") == pytest.approx((-95.36, 29.76), abs=0.05)
    for nowhere in ("7700", "77002-1234", "abcde", "²²²²²", "99999"):
        with pytest.raises(NoSuchZip):
            locate(nowhere)


def test_the_examples_load_and_show_every_key() -> None:
    wanted = settings.load(EXAMPLES / "hazards.toml")
    assert wanted.rules.mode == "approve" and len(wanted.feeds) == 3 and len(wanted.policy.quakes) == 2
    assert [site.longitude for site in wanted.sites] == pytest.approx([-95.36, -104.99], abs=0.05)
    assert len(placement.load(EXAMPLES / "placement.toml").workloads) == 5
    text = "".join(path.read_text() for path in EXAMPLES.glob("*.toml"))
    for table in (Hazards, HazardFeed, HazardQuake, SiteTable, PlaceNode, Workload):
        for key in table.model_fields:
            assert re.search(rf"^(\[\[hazards\.)?{key}( =|\]\])", text, re.MULTILINE), key


@pytest.mark.parametrize(
    ("page", "tables"),
    [
        ("hazards.md", (Hazards, HazardFeed, HazardQuake, SiteTable)),
        ("placement.md", (SiteTable, PlaceNode, Workload)),
    ],
)
def test_the_pages_name_every_key(page: str, tables: tuple[Any, ...]) -> None:
    text = (DOCS / page).read_text()
    for table in tables:
        keys = set(table.model_fields) - ({"capacity", "weight"} if page == "hazards.md" else set())
        keys -= {"zip", "latitude", "longitude", "ugc", "same"} if page == "placement.md" else set()
        assert {key for key in keys if f"`{key}`" not in text and f"[[hazards.{key}]]" not in text} == set()
