"""Verbs over a node in memory: what they say, as text and as JSON, and what they exit with."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from ipshare import api
from ipshare.cli import exits
from ipshare.cli.app import VERBS, cli, run
from ipshare.errors import Problem
from tests.agent_world import Routes, World, site_text
from tests.pair_sites import pair_text

FOR_EVER = ("run", "guard", "console")
"""Verbs with no end, so with no record at it: what they do goes to units and terminals."""
DOCS = Path(__file__).parents[2] / "docs"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setattr(api, "Engines", lambda: world)
    monkeypatch.setattr(api, "EngineRoutes", lambda: Routes(world))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPSHARE_CONFIG", "site.toml")
    write(world)
    return world


def write(world: World, **wanted: Any) -> None:
    (world.directory / "site.toml").write_text(site_text(world.directory, **wanted))


@pytest.fixture
def ipshare(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(words)
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def running(world: World) -> World:
    api.Node("site.toml").apply(start_engine=True)
    return world


def documented_keys() -> dict[str, set[str]]:
    """Verb -> keys, from the table of docs/cli.md."""
    section = (DOCS / "cli.md").read_text().split("## JSON")[1].split("## Exit codes")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, re.MULTILINE)
    return {verb: set(re.findall(r"`(\w+)`", keys)) for verb, keys in rows}


JSON_CALLS = {
    "check": ("check",),
    "diff": ("diff",),
    "apply": ("apply",),
    "apply --dry-run": ("apply", "--dry-run"),
    "import": ("import", "new.csv"),
    "show info": ("show",),
    "show tables": ("show", "tables"),
    "show bindings": ("show", "bindings"),
    "show endpoints": ("show", "endpoints"),
    "show policies": ("show", "policies"),
    "counters": ("counters",),
    "why": ("why", "udp 198.51.100.1:1 > 203.0.113.5:2"),
    "probe mtu": ("probe", "mtu"),
    "version": ("version",),
    "completion": ("completion", "bash"),
    "lab down": ("lab", "down", "--all"),
    "lab list": ("lab", "list"),
    "pair key": ("pair", "key", "new.key"),
    "down": ("down",),
}


@pytest.mark.parametrize("verb", JSON_CALLS)
def test_json_has_the_documented_keys(running: World, ipshare: Run, verb: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("ipshare.lab.state.STATE_DIR", running.directory / "labs")
    (running.directory / "new.csv").write_text("global,to\n203.0.113.9,B\n")
    code, out, err = ipshare(*JSON_CALLS[verb], "--json")
    assert (code, err) == (0, "")
    value = json.loads(out)
    for record in value if isinstance(value, list) else [value]:
        assert set(record) == documented_keys()[verb]


@pytest.fixture
def half(world: World) -> World:
    """The node is half of a pair, active, and its peer is ready."""
    (world.directory / "site.toml").write_text(site_text(world.directory, more=pair_text(world.directory)))
    api.Node("site.toml").apply(start_engine=True)
    assert world.running is not None
    world.running.move("active", "PEER_ABSENT", peer_state="standby", paths_up=(0,), epoch=3)
    return world


@pytest.mark.parametrize(
    "words", [("status",), ("switchover",), ("force", "--yes"), ("maintenance", "on")], ids=str
)
def test_pair_json_has_the_documented_keys(half: World, ipshare: Run, words: tuple[str, ...]) -> None:
    code, out, err = ipshare("pair", *words, "--json")
    assert (code, err) == (0, "")
    assert set(json.loads(out)) == documented_keys()["pair status"]


def test_pair_status_says_where_the_node_is_and_what_is_wrong(half: World, ipshare: Run) -> None:
    code, out, _ = ipshare("pair", "status")
    assert code == 0
    assert re.search(r"state +active for 0 ms: started; the peer did not speak", out)
    assert "epoch 3" in out and "D is standby" in out and "1 of 2 up" in out
    assert "192.168.5.1 on eth1" in out
    assert "note         D is not heard on path 10.9.1.1:6081 - 10.9.1.2:6081" in out


def test_orders_to_a_pair(half: World, ipshare: Run) -> None:
    assert ipshare("pair", "switchover")[:2] == (0, "this node is standby: handed over to the peer\n")
    assert half.running is not None
    half.running.say(peer_state="active")
    code, _, err = ipshare("pair", "switchover")
    assert code == exits.REFUSED and "not ready" in err
    code, _, err = ipshare("pair", "force")
    assert code == exits.USAGE and "--yes" in err
    assert ipshare("pair", "force", "--yes")[1].startswith("this node is active")
    assert ipshare("pair", "maintenance", "on")[1] == "this node is inop: maintenance\n"
    assert ipshare("pair", "maintenance", "off")[0] == 0
    half.running.pair_command = lambda order: None  # type: ignore[method-assign]  # taken, and nothing comes of it
    code, _, err = ipshare("pair", "force", "--yes", "--timeout", "10ms")
    assert code == exits.FAILURE and "still standby after 0.01 s" in err


def test_whether_a_pair_is_ready_is_asked_and_waited_for(half: World, ipshare: Run) -> None:
    assert half.running is not None
    code, out, _ = ipshare("pair", "ready")
    assert code == exits.NO and out.startswith("not ready: this node is active, D standby\nD is not heard on")
    said = threading.Timer(0.05, lambda: half.running.say(notes=("ready",)))  # type: ignore[union-attr]
    said.start()
    assert ipshare("pair", "ready", "--wait", "1h")[:2] == (0, "ready: this node is active, D standby\n")
    code, out, _ = ipshare("pair", "ready", "--json")
    assert code == 0 and json.loads(out)["ready"] and set(json.loads(out)) == documented_keys()["pair status"]
    half.running.pair_gone()
    half.kill_engine()
    assert ipshare("pair", "ready")[0] == exits.NOT_RUNNING
    starter = threading.Timer(0.05, lambda: api.Node("site.toml").apply(start_engine=True))
    starter.start()
    assert ipshare("pair", "ready", "--wait", "1s")[:2] == (
        exits.NO,
        "not ready: this node is initial, D unknown\nD is not heard on any path\n",
    )
    starter.join()


def test_watching_a_pair_goes_on_until_nobody_would_start_its_engine(half: World, ipshare: Run) -> None:
    assert half.running is not None
    half.running.pair_gone()
    half.kill_engine()
    code, out, err = ipshare("pair", "status", "--watch", "--json")
    assert (code, out) == (exits.NOT_RUNNING, "") and "no engine running" in err


def test_a_node_of_no_pair_refuses_its_verbs(running: World, ipshare: Run) -> None:
    for words in (("status",), ("switchover",), ("force", "--yes"), ("maintenance", "off")):
        code, _, err = ipshare("pair", *words)
        assert code == exits.REFUSED and "half of no pair" in err, words


def test_a_key_is_not_made_twice(world: World, ipshare: Run) -> None:
    assert ipshare("pair", "key", "k")[0] == 0
    code, _, err = ipshare("pair", "key", "k")
    assert code == exits.REFUSED and "never overwritten" in err


def test_rollback_json(running: World, ipshare: Run) -> None:
    write(running, to="B")
    assert ipshare("apply")[0] == 0
    code, out, _ = ipshare("rollback", "--json")
    assert code == 0
    assert set(json.loads(out)) == documented_keys()["rollback"]


def leaves_of(command: click.Command) -> Iterator[click.Command]:
    """Those of groups within groups, too."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from leaves_of(each)
    else:
        yield command


def test_every_verb_is_documented_and_has_a_json_switch() -> None:
    text = (DOCS / "cli.md").read_text()
    for group in VERBS.values():
        for verb, (_module, _) in group.items():
            assert f"`{verb}" in text, verb
            command = cli.get_command(None, verb)  # type: ignore[arg-type]
            if command is None or verb in ("demo", "bench", "witness"):
                continue
            for leaf in leaves_of(command):
                options = {name for parameter in leaf.params for name in parameter.opts}
                assert "--json" in options or leaf.name in (*FOR_EVER, "exec"), leaf.name


def test_the_exit_codes_of_the_documentation_are_those_of_the_code() -> None:
    section = (DOCS / "cli.md").read_text().split("## Exit codes")[1]
    rows = {int(code): text for code, text in re.findall(r"^\| (\d+) \| (.*) \|$", section, re.MULTILINE)}
    assert rows == exits.TEXT


class TestApply:
    def test_says_what_it_did_and_then_that_nothing_is_left(self, running: World, ipshare: Run) -> None:
        write(running, to="B")
        code, out, _ = ipshare("diff")
        assert code == 0
        assert "~ binding 203.0.113.0/24: A 10.1.0.0/24 -> B 10.2.0.0/24" in out
        code, out, _ = ipshare("apply")
        assert code == 0
        assert "generation 2 is live" in out
        code, out, _ = ipshare("apply")
        assert code == 0
        assert "nothing to do" in out
        assert "nothing differs" in ipshare("diff")[1]

    def test_dry_run_changes_nothing(self, running: World, ipshare: Run) -> None:
        write(running, to="B")
        code, out, _ = ipshare("apply", "--dry-run")
        assert code == 0
        assert "nothing was changed" in out
        assert ipshare("diff", "--exit-code")[0] == exits.NO

    def test_dry_run_says_what_the_machine_has_against_it(self, running: World, ipshare: Run) -> None:
        running.against = [Problem("this machine", 0, 0, "", "no tun", "modprobe tun")]
        code, _, err = ipshare("apply", "--dry-run")
        assert code == exits.REFUSED
        assert "no tun" in err and "modprobe tun" in err

    def test_a_bad_file_changes_nothing(self, running: World, ipshare: Run) -> None:
        (running.directory / "site.toml").write_text("[node]\nname = 5\nbad = 1\n")
        code, _, err = ipshare("apply", "--json")
        assert code == exits.USAGE
        assert len(json.loads(err)["error"]["problems"]) >= 2
        assert running.running is not None and running.running.info().generation == 1

    def test_a_machine_that_is_not_ready(self, running: World, ipshare: Run) -> None:
        write(running, to="B")
        running.against = [Problem("this machine", 0, 0, "", "rp_filter is 1", "sysctl")]
        code, _, err = ipshare("apply")
        assert code == exits.REFUSED
        assert "rp_filter is 1" in err and "hint: sysctl" in err
        assert running.running is not None and running.running.info().generation == 1

    def test_policies_say_how_many_clients_they_move(self, running: World, ipshare: Run) -> None:
        write(running, weight=3)
        assert re.search(r"! policy both: \d+\.\d% of its clients move", ipshare("diff")[1])

    def test_a_trial_without_agent(self, running: World, ipshare: Run) -> None:
        write(running, to="B")
        code, _, err = ipshare("apply", "--confirm-within", "5m")
        assert code == exits.NOT_RUNNING
        assert "roll back" in err

    def test_a_time_that_is_none(self, running: World, ipshare: Run) -> None:
        code, _, err = ipshare("apply", "--confirm-within", "5")
        assert code == exits.USAGE
        assert "number with its unit" in err


@pytest.mark.parametrize(
    "words", [("show",), ("counters",), ("diff",), ("apply",), ("confirm",), ("rollback",)]
)
def test_nobody_runs(world: World, ipshare: Run, words: tuple[str, ...]) -> None:
    code, out, err = ipshare(*words)
    assert code == exits.NOT_RUNNING
    assert out == ""
    assert "hint: start it: ipshare agent FILE" in err


def test_down_twice(running: World, ipshare: Run) -> None:
    assert "engine ended" in ipshare("down")[1]
    code, out, _ = ipshare("down")
    assert code == 0
    assert "nothing to do" in out


def test_a_rollback_with_nothing_before(running: World, ipshare: Run) -> None:
    code, _, err = ipshare("rollback")
    assert code == exits.REFUSED
    assert "no previous configuration" in err


class TestWords:
    @pytest.mark.parametrize(
        ("typo", "meant"), [("chekc", "check"), ("aply", "apply"), ("count", "counters")]
    )
    def test_did_you_mean(self, ipshare: Run, typo: str, meant: str) -> None:
        code, _, err = ipshare(typo)
        assert code == exits.USAGE
        assert f"did you mean {meant!r}?" in err

    def test_nothing_near(self, ipshare: Run) -> None:
        code, _, err = ipshare("xyzzy", "--json")
        assert code == exits.USAGE
        assert json.loads(err)["error"]["hint"] == "see ipshare --help"

    def test_an_option_that_is_none(self, world: World, ipshare: Run) -> None:
        code, _, err = ipshare("apply", "--dryrun")
        assert code == exits.USAGE
        assert "--dry-run" in err

    def test_no_verb_is_a_question(self, ipshare: Run) -> None:
        code, out, _ = ipshare()
        assert code == exits.USAGE
        assert "Exit codes" in out

    def test_help_of_every_verb(self, ipshare: Run) -> None:
        for verb in cli.list_commands(None):  # type: ignore[arg-type]
            if verb not in ("demo", "bench"):
                code, out, _ = ipshare(verb, "--help")
                assert code == 0 and out.startswith("Usage: ipshare"), verb

    def test_an_unknown_topic(self, running: World, ipshare: Run) -> None:
        assert ipshare("show", "bindngs")[0] == exits.USAGE
        assert ipshare("show", "bindings", "203.0.113")[0] == exits.USAGE


class TestFiles:
    def test_a_file_that_is_not_there(self, ipshare: Run) -> None:
        code, _, err = ipshare("check", "/nowhere/site.toml")
        assert code == exits.USAGE
        assert "no such file" in err

    def test_check_counts(self, world: World, ipshare: Run) -> None:
        code, out, _ = ipshare("check")
        assert code == 0
        assert "1 network, 2 end points, 2 bindings" in out

    def test_check_of_the_machine(self, world: World, ipshare: Run) -> None:
        world.against = [Problem("this machine", 0, 0, "", "no tun", "modprobe tun")]
        assert ipshare("check")[0] == 0
        code, _, err = ipshare("check", "--machine")
        assert code == exits.REFUSED and "no tun" in err

    def test_import_shows_and_writes_only_if_told_to(self, world: World, ipshare: Run) -> None:
        (world.directory / "many.csv").write_text("global,to\n203.0.113.9,A\n203.0.113.10,A\n")
        write(world, more='[[bindings_file]]\npath = "many.csv"\nname = "many"\n')
        new = "global,to\n203.0.113.9,B\n203.0.113.11,A\n"
        (world.directory / "new.csv").write_text(new)
        code, out, _ = ipshare("import", "new.csv")
        assert code == 0
        assert "1 added, 1 removed, 1 changed" in out and "nothing was changed; --write does" in out
        assert ipshare("import", "new.csv", "--write")[0] == 0
        assert (world.directory / "many.csv").read_text() == new
        code, out, _ = ipshare("import", "new.csv", "--write", "--json")
        assert json.loads(out) == {"bindings": 2, "added": 0, "removed": 0, "changed": 0, "written": None}

    def test_import_writes_to_what_a_link_leads_to(self, world: World, ipshare: Run) -> None:
        (world.directory / "real.csv").write_text("global,to\n203.0.113.9,A\n")
        (world.directory / "many.csv").symlink_to("real.csv")
        write(world, more='[[bindings_file]]\npath = "many.csv"\nname = "many"\n')
        (world.directory / "new.csv").write_text("global,to\n203.0.113.9,B\n")
        assert ipshare("import", "new.csv", "--write")[0] == 0
        assert (world.directory / "many.csv").is_symlink()
        assert (world.directory / "real.csv").read_text() == "global,to\n203.0.113.9,B\n"

    def test_import_does_not_write_what_would_break_the_configuration(
        self, world: World, ipshare: Run
    ) -> None:
        old = "global,to\n203.0.113.9,A\n"
        (world.directory / "many.csv").write_text(old)
        write(world, more='[[bindings_file]]\npath = "many.csv"\nname = "many"\n')
        (world.directory / "new.csv").write_text("global,to\n192.0.2.9,nobody\n")
        code, _, err = ipshare("import", "new.csv", "--write")
        assert code == exits.USAGE
        assert "nobody" in err
        assert (world.directory / "many.csv").read_text() == old
        assert sorted(p.name for p in world.directory.glob("*.csv*")) == ["many.csv", "new.csv"]

    def test_import_of_nonsense(self, world: World, ipshare: Run) -> None:
        (world.directory / "new.csv").write_text("global,to\n300.0.0.1,A\n203.0.113.1,\n")
        code, _, err = ipshare("import", "new.csv", "--json")
        assert code == exits.USAGE
        assert len(json.loads(err)["error"]["problems"]) == 2

    def test_schema(self, ipshare: Run) -> None:
        assert json.loads(ipshare("schema")[1])["$schema"].startswith("https://json-schema.org/")


class TestLooking:
    def test_show_bindings_of_a_prefix(self, running: World, ipshare: Run) -> None:
        value = json.loads(ipshare("show", "bindings", "203.0.113.7", "--json")[1])
        assert [row["global"] for row in value["bindings"]] == ["203.0.113.0/24", "203.0.113.7"]

    def test_show_ends_long_lists(self, running: World, ipshare: Run) -> None:
        assert "and 1 more" in ipshare("show", "bindings", "--max", "1")[1]

    def test_policies_have_shares(self, running: World, ipshare: Run) -> None:
        assert "A 50%, B 50%" in ipshare("show", "policies")[1]

    def test_end_points_have_the_measured_path_mtu_beside_the_configured(
        self, running: World, ipshare: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert json.loads(ipshare("show", "endpoints", "--json")[1])[0]["path_mtu_measured"] is None
        found = [("A", 4, 1400, "narrow"), ("A", 6, 1280, "narrow"), ("B", 4, None, "down")]
        paths = [dict(zip(("name", "family", "measured", "state"), row, strict=True)) for row in found]
        monkeypatch.setattr(api.Node, "status", lambda _: {"paths": paths})
        rows = json.loads(ipshare("show", "endpoints", "--json")[1])
        assert [(r["path_mtu"], r["path_mtu_measured"], r["path_state"]) for r in rows] == [
            (1500, 1400, "narrow"),
            (1500, None, "down"),
        ]
        text = ipshare("show", "endpoints")[1]
        assert re.search(r"\bA .* 1,500 +1,400", text) and re.search(r"\bB .* 1,500 +down", text)

    def test_why(self, running: World, ipshare: Run) -> None:
        code, out, _ = ipshare("why", "tcp", "198.51.100.1:1", ">", "203.0.113.5:80", "syn")
        assert code == 0
        assert "verdict     OK: translated" in out and "> 10.1.0.5:80" in out
        assert ipshare("why", "tcp nonsense")[0] == exits.USAGE

    def test_why_offline_needs_no_engine(self, world: World, ipshare: Run) -> None:
        code, out, _ = ipshare("why", "--offline", "udp 198.51.100.1:1 > 203.0.113.5:80 ttl 1")
        assert code == 0
        assert "TTL_EXPIRED" in out and "answers     icmp 192.0.2.1" in out

    def test_counters_without_traffic_say_so(self, running: World, ipshare: Run) -> None:
        assert "no packet was counted yet" in ipshare("counters")[1]

    def test_capture_wants_an_engine_that_can(self, running: World, ipshare: Run) -> None:
        code, _, err = ipshare("capture", "-w", "x.pcapng")
        assert code == exits.REFUSED
        assert "does not capture" in err

    def test_probing_nobody(self, world: World, ipshare: Run) -> None:
        value = json.loads(ipshare("probe", "mtu", "--json")[1])
        assert value == {"paths": [], "not_probed": ["A", "B"]}

    def test_egress_wants_two_words(self, ipshare: Run) -> None:
        assert ipshare("probe", "egress")[0] == exits.USAGE
        assert ipshare("probe", "egress", "--to", "x", "--source", "y")[0] == exits.USAGE
