"""A director's file: every mistake at once, with its line; and what it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipshare.agent import watcher
from ipshare.config.reference import markdown
from ipshare.director import config, limits
from ipshare.errors import ConfigError
from ipshare.hazards import settings as hazards

DOCS = Path(__file__).parents[2] / "docs"
GOOD = (DOCS / "examples" / "director" / "director.toml").read_text()


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as found:
        config.load_text(text, Path("director.toml"))
    return [f"{problem.line} {problem.key}: {problem.message}" for problem in found.value.problems]


def line_of(text: str, word: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if word in line)


def test_the_example_is_good() -> None:
    found = config.load(DOCS / "examples" / "director" / "director.toml")
    assert found.settings.interval_s == 1.0
    assert found.topology.nodes["b1"].endpoint == "B"
    assert found.topology.rows("site")[1]["zip"] == "75201"
    assert len(found.topology.bindings) == 2


ETCD = '[store]\nkind = "etcd"\nendpoints = ["http://x:1"]\n'
CASES = {
    "an unknown end point": (
        'endpoint = "B"',
        'endpoint = "X"',
        "node[2].endpoint: there is no endpoint 'X'",
    ),
    "an unknown site": ('site = "dallas"', 'site = "rome"', "node[2].site: there is no site 'rome'"),
    "a node that is nothing": ('distribution = "C"\n', "\n", "node[0]: node c1 is nothing"),
    "two of a name": ('name = "b1"', 'name = "a1"', "node[2].name: a second node 'a1'"),
    "one address for two": ("0.31:7443", "0.21:7443", "node[2].address: another node has that address"),
    "nowhere on earth": (
        "latitude = 50.11",
        "latitude = 95.0",
        "site[0].latitude: must be at most 90.0, not 95.0",
    ),
    "a binding to nobody": ('to = "B"', 'to = "Z"', "binding[1].to: "),
    "a wrong prefix": ('global = "198.51.100.7/32"', 'global = "198.51.100.7/24"', "binding[1].global: "),
    "outside of the network": (
        'global = "198.51.100.7/32"',
        'global = "192.0.2.7/32"',
        "binding[1].global: ",
    ),
    "a key that is not ours": (
        'interval = "1s"',
        'intervall = "1s"',
        "director.intervall: unknown key 'intervall'",
    ),
    "no duration": ('patience = "30s"', "patience = 30", "director.patience: a duration is a string"),
    "a table that is not ours": ("[[site]]", "[pair]\n[[site]]", "pair: unknown key 'pair'"),
    "no pause": ('interval = "1s"', 'interval = "0s"', "director.interval: 0 s is out of range"),
    "silent before it answers": (
        'stale_after = "5s"',
        'stale_after = "1s"',
        "director.stale_after: a node that answers every 1 s would be silent after 1 s",
    ),
    "forgotten at once": (
        'half_life = "5m"',
        'half_life = "0s"',
        "health.half_life: 0 s is out of range",
    ),
    "a probe that nodes refuse": (
        'timeout = "1s"',
        'timeout = "2m"',
        "health.timeout: 120 s is out of range",
    ),
    "a fence that nodes refuse": (
        'fence_time = "30s"',
        'fence_time = "1h"',
        "failover.fence_time: 3600 s is out of range",
    ),
    "a store without members": (
        "[[site]]",
        '[store]\nkind = "etcd"\n[[site]]',
        "store: a store in etcd needs ",
    ),
    "a member that is no URL": (
        "[[site]]",
        '[store]\nkind = "etcd"\nendpoints = ["http://x:1", "x:1"]\n[[site]]',
        "store.endpoints[1]: 'x:1' is no URL",
    ),
    "a login to a member": (
        "[[site]]",
        '[store]\nkind = "etcd"\nendpoints = ["http://me:secret@x:1"]\n[[site]]',
        "store.endpoints[0]: 'http://me:secret@x:1' is no URL",
    ),
    "a port that is none": (
        "[[site]]",
        '[store]\nkind = "etcd"\nendpoints = ["http://x:1", "http://127.0.0.1:65536"]\n[[site]]',
        "store.endpoints[1]: 'http://127.0.0.1:65536' is no URL",
    ),
    "members for SQLite": (
        "[[site]]",
        '[store]\nendpoints = ["http://x:1"]\n[[site]]',
        "store.endpoints: endpoints is for kind",
    ),
    "a lease of a part of a second": (
        "[[site]]",
        ETCD + 'lease = "2500ms"\n[[site]]',
        "store.lease: lease 2.5 s: ",
    ),
    "a lease that a slow renewal outlasts": (
        "[[site]]",
        ETCD + 'lease = "8s"\ntimeout = "2s"\nmargin = "401ms"\n[[site]]',
        "store.lease: lease 8 s is too short: a leader asks every 1.6 s, its 3 requests may take 2 s each",
    ),
    "no margin": ("[[site]]", ETCD + 'margin = "0s"\n[[site]]', "store.lease: timeout and margin"),
    "a prefix that is none": ("[[site]]", ETCD + 'prefix = "/x/"\n[[site]]', "store.prefix: "),
    "a workload nowhere": (
        'node = "b1"\n',
        "\n",
        "workload[0]: on which node does shop run?",
    ),
    "a workload at a distribution point": (
        'node = "b1"\n',
        'node = "c1"\n',
        "workload[0].node: there is no node 'c1' that is an end point",
    ),
    "a workload elsewhere than its address": (
        'node = "b1"\n',
        'node = "a1"\n',
        "workload[0].addresses[0]: the binding of 198.51.100.7/32 goes to B, not A",
    ),
    "an address without a binding": (
        '["198.51.100.7/32"]',
        '["198.51.100.8/32"]',
        "workload[0].addresses[0]: there is no binding of 198.51.100.8/32 alone",
    ),
    "an address twice": (
        '["198.51.100.7/32"]',
        '["198.51.100.7/32", "198.51.100.7"]',
        "workload[0].addresses[1]: 198.51.100.7/32 is shop's already",
    ),
    "a workload that may run nowhere": (
        'kind = "exclusive"',
        'allowed = ["rome"]',
        "workload[0].allowed[0]: there is no site 'rome'",
    ),
    "a feed that is nowhere": ('url = "https', 'url = "ftp', "hazards.feed[0].url: not a URL"),
    "a feed of no kind": ('kind = "usgs"', 'kind = "rss"', "hazards.feed[0].kind: "),
    "a mode that is none": ('evacuate = "approve"', 'evacuate = "maybe"', "hazards.evacuate: "),
    "a site that nobody finds": (
        "latitude = 50.11\nlongitude = 8.68\n",
        "\n",
        "site[0]: nobody knows where this site is",
    ),
    "nothing at once": ("at_once = 4", "at_once = 0", "evacuation.at_once: "),
    "less patience than a node's": (
        'patience = "2m"',
        'patience = "30s"',
        "evacuation.patience: a node may take 30 s",
    ),
    "a key of evacuation that is none": ("at_once = 4", "at_onec = 4", "evacuation.at_onec: unknown key"),
    "a copy": ('to = "B"', 'to = "B"\ncopy = "ids"', "binding[1].copy: "),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_has_its_place(case: str) -> None:
    old, new, message = CASES[case]
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    found = mistakes(text)
    assert [one for one in found if one.partition(" ")[2].startswith(message)], found
    assert all(int(one.split()[0]) > 0 for one in found), found


def test_hazards_and_evacuation_are_read() -> None:
    found = config.load_text(GOOD, Path("director.toml")).settings.evacuation
    assert (found.at_once, found.patience_s) == (4, 120.0)
    assert found.hazards is not None and found.hazards.rules.mode == "approve"
    assert [feed.kind for feed in found.hazards.feeds] == ["usgs"]
    assert found.hazards == hazards.load(DOCS / "examples/director/director.toml"), "as `ipshare hazards`"
    without = GOOD[: GOOD.index("[hazards]")] + GOOD[GOOD.index("[[site]]") :]
    found = config.load_text(without, Path("director.toml")).settings.evacuation
    assert (found.hazards, found.at_once) == (None, 4)


def test_the_example_of_several_directors_is_good() -> None:
    found = config.load(DOCS / "examples" / "director" / "two-directors.toml").settings
    assert found.etcd is not None
    assert found.etcd.certificate == Path("/etc/ipshare/etcd-d1.pem")
    assert (found.etcd.renew_s, len(found.etcd.endpoints)) == (2.0, 3)
    assert config.load_text(GOOD, Path("director.toml")).settings.etcd is None


def test_a_lease_that_is_just_long_enough_is_taken() -> None:
    text = ETCD + 'lease = "8s"\ntimeout = "2s"\nmargin = "400ms"\n'
    assert config.load_text(text + GOOD, Path("director.toml")).settings.etcd is not None


def test_all_of_them_at_once() -> None:
    text = GOOD
    names = ["an unknown site", "no duration", "a binding to nobody", "nothing at once", "a feed of no kind"]
    for old, new, _ in (CASES[name] for name in names):
        text = text.replace(old, new, 1)
    lines = [int(one.split()[0]) for one in mistakes(text)]
    assert lines == sorted(lines)
    assert {line_of(text, word) for word in ('"rome"', "patience = 30", '"Z"')} <= set(lines)


def test_without_a_director_and_without_toml() -> None:
    assert "0 : table [director] is missing" in mistakes(GOOD[GOOD.index("[[site]]") :])
    assert mistakes("x = ") == ["1 : not TOML: Invalid value"]
    with pytest.raises(ConfigError, match="no such file"):
        config.load(Path("/nonexistent/director.toml"))


def test_the_reference_is_current() -> None:
    """If not: the end of docs/director.md is markdown(File.model_json_schema(by_alias=True))."""
    assert (DOCS / "director.md").read_text().endswith(markdown(config.File.model_json_schema(by_alias=True)))


def test_a_file_that_is_not_there_is_one_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        config.settings(tmp_path / "nowhere.toml")
    assert [problem.message for problem in found.value.problems] == [f"no such file: {tmp_path}/nowhere.toml"]


def test_more_probes_than_a_node_makes() -> None:
    """It would refuse all of them, and what else the director tells it with them."""
    rows = "".join(
        f'[[endpoint]]\nname = "E{n}"\ntunnel = ["10.9.{n // 250}.{n % 250 + 1}"]\nlocal = ["10.1.0.0/24"]\n'
        for n in range(1001)
    )
    found = mistakes(GOOD + rows)
    assert any("health: 10" in text and "a node makes 1000 probes" in text for text in found), found[:3]
    assert limits.MOST_PROBES == watcher.MOST
