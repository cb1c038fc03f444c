"""Parts of live migration alone: the steps as a value, adapters, DRBD's states, where a workload fits."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import select
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipshare.config import check_text
from ipshare.director import fit
from ipshare.director.topology import Topology
from ipshare.errors import Refused
from ipshare.migration import commands, drbd, machine
from ipshare.migration.adapter import MigrationError, NotInTime, Target, Where, adapter_of, target_of
from ipshare.migration.command import CommandAdapter
from ipshare.migration.machine import Event, Migration, Step
from ipshare.model import Migrating, Place

THERE = Target("b1", "10.0.0.31:4444")
MEMBERS = ("web", "db")
ANSWERS = {
    Step.CHECKING: [Event.DID, Event.REFUSED],
    Step.EXPECTING: [Event.DID, Event.REFUSED],
    Step.MIGRATING: [Event.THERE, Event.HERE, Event.REFUSED],
    Step.FLIPPING: [Event.DID],
    Step.SETTLING: [Event.DID, Event.REFUSED],
    Step.CLEARING: [Event.DID],
    Step.UNDOING: [Event.DID],
}


def begun(*members: str) -> Migration:
    return Migration("m", members, "a1", "b1", "tests", "", times=(machine.Moment(0.0, "asked for"),))


# ---- the machine --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(300))
def test_whatever_is_answered_it_ends_and_is_where_its_members_are(seed: int) -> None:
    """Random answers, cancellations and restarts (a state is what was kept of it) at any step."""
    dice, m, seen = random.Random(seed), begun(*MEMBERS[: 1 + seed % 2]), []
    for now in itertools.count(1):
        m = machine.decoded(machine.encoded(m))
        seen.append(m.step)
        if m.step is Step.SPLIT:
            m = machine.resumed(m, "tests", now)
            continue
        if m.is_over:
            break
        if dice.random() < 0.1:
            try:
                m = machine.cancelled(m, now)
            except Refused:
                assert m.there, m
        m = machine.advanced(m, dice.choice(ANSWERS[m.step]), now, why="so", revision=7)
    assert (m.step is Step.DONE) is (m.there == m.workloads)
    assert m.there in ((), m.workloads)
    if Step.FLIPPING in seen:
        assert m.step is Step.DONE and m.revision == 7, "after the line there is only forward"
    if Step.UNDOING in seen:
        assert Step.FLIPPING not in seen and not m.there


def test_an_event_that_does_not_belong_to_the_step_is_a_fault() -> None:
    for step, event in ((Step.FLIPPING, Event.HERE), (Step.CLEARING, Event.REFUSED), (Step.DONE, Event.DID)):
        with pytest.raises(ValueError, match=step.value):
            machine.advanced(replace(begun("web"), step=step), event, 1.0)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": 1}', machine.encoded(begun("web"))[:-9]])
def test_a_note_that_is_none_is_said(text: str) -> None:
    with pytest.raises(ValueError):
        machine.decoded(text)


# ---- commands -----------------------------------------------------------------------


def wanted(**more: Any) -> Migrating:
    given: dict[str, Any] = dict.fromkeys(("check", "start", "state", "cancel", "storage"), ())
    made = Migrating(
        workload="web", adapter="command", targets=(("b1", THERE.said),), drbd="", domain="web",
        uri="test:///default", timeout_s=30.0, answer_s=30.0, place=Place(Path("site.toml")), **given,
    )  # fmt: skip
    return replace(made, **more)


def shell(text: str, *words: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text, "sh", *words)


def run(job: Any) -> Any:
    return asyncio.run(job)


def test_commands_get_their_words_and_say_why_not() -> None:
    words = ("{workload}", "{node}", "{target}")
    adapter = CommandAdapter(wanted(check=shell('echo "no room for $1 at $2 $3"; exit 3', *words)))
    with pytest.raises(Refused, match="b1 cannot run it: no room for web at b1 10.0.0.31:4444"):
        run(adapter.check(THERE))
    adapter = CommandAdapter(wanted(storage=shell("exit 1"), check=shell("exit 0")))
    with pytest.raises(Refused, match="its storage is not in sync at b1"):
        run(adapter.check(THERE))
    run(CommandAdapter(wanted(storage=shell("exit 0"), check=shell("exit 0"))).check(THERE))


def test_a_start_that_did_not_end_well_is_no_answer() -> None:
    moved = run(CommandAdapter(wanted(start=shell("echo downtime 38.5 ms; echo bye"))).migrate(THERE))
    assert moved.downtime_ms == 38.5
    assert run(CommandAdapter(wanted(start=shell("exit 0"))).migrate(THERE)).downtime_ms is None
    with pytest.raises(MigrationError, match="ended with 1: broken"):
        run(CommandAdapter(wanted(start=shell("echo broken; exit 1"))).migrate(THERE))
    late = wanted(start=("/bin/sleep", "600"), timeout_s=0.05)
    with pytest.raises(NotInTime):
        run(CommandAdapter(late).migrate(THERE))
    with pytest.raises(MigrationError, match="does not start"):
        run(CommandAdapter(wanted(start=("/no/such/program",))).migrate(THERE))


def test_a_command_that_takes_too_long_is_killed_with_all_of_it(tmp_path: Path) -> None:
    """Its child's end is the end of a pipe that nobody else writes to."""
    os.mkfifo(pipe := tmp_path / "pipe")
    script = f"exec > {pipe}; echo begun; sleep 600 & exec > /dev/null; wait"
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as held:
        with pytest.raises(NotInTime):
            asyncio.run(commands.run(["/bin/sh", "-c", script], 1.0))
        assert held.read(6) in (b"begun\n", b"")
        assert select.select([held], [], [], 60)[0], "its child lives on"
        assert held.read(1) == b""


def test_only_three_words_say_where_it_runs() -> None:
    for word in Where:
        assert run(CommandAdapter(wanted(state=shell(f"echo {word}"))).where(THERE)) is word
    for text in ("echo gone", "true", "echo there; exit 1"):
        with pytest.raises(MigrationError, match="does not say where it runs"):
            run(CommandAdapter(wanted(state=shell(text))).where(THERE))


def test_a_node_that_is_no_target_is_refused() -> None:
    assert target_of(wanted(), "b1") == THERE
    assert target_of(replace(wanted(), targets=()), "z9") == Target("z9", "z9")
    with pytest.raises(MigrationError, match="cannot go to z9"):
        target_of(wanted(), "z9")


# ---- DRBD ---------------------------------------------------------------------------


def status(**more: str) -> str:
    """As `drbdsetup status --json` of version 9 has it."""
    said = {"disk": "UpToDate", "link": "Connected", "peer": "UpToDate", "replication": "Established"} | more
    volume = {"volume": 0, "replication-state": said["replication"], "peer-disk-state": said["peer"]}
    link = {"peer-node-id": 1, "name": "b1", "connection-state": said["link"], "peer_devices": [volume]}
    other = {"peer-node-id": 2, "name": "z9", "connection-state": "Connecting", "peer_devices": []}
    device = {"volume": 0, "minor": 1, "disk-state": said["disk"]}
    row = {"name": "shop", "node-id": 0, "role": "Primary", "devices": [device], "connections": [link, other]}
    return json.dumps([row])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (status(), []),
        (status(disk="Inconsistent"), ["volume 0 here is Inconsistent"]),
        (status(link="StandAlone"), ["b1 is StandAlone"]),
        (status(peer="Outdated"), ["volume 0 at b1 is Outdated"]),
        (status(replication="SyncSource"), ["volume 0 at b1 is SyncSource"]),
        ("[]", ["it is not configured here"]),
        ("", ["its state cannot be read"]),
        ('[{"name": "shop", "devices": 3}]', ["its state cannot be read"]),
        ('[{"name": "shop", "devices": [], "connections": []}]', ["it has no volume", "it has no peer"]),
    ],
)
def test_drbd_is_in_sync_or_says_what_is_not(text: str, why: list[str]) -> None:
    assert list(drbd.troubles(text, "shop", "b1")) == why


def test_of_several_peers_all_count_where_none_is_the_target() -> None:
    assert list(drbd.troubles(status(), "shop", "c1")) == ["z9 is Connecting"]


def test_drbd_is_asked_before_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "drbdsetup"
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    for text, is_good in ((status(), True), (status(peer="Outdated"), False)):
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        program.chmod(0o755)
        adapter = CommandAdapter(wanted(drbd="shop", check=shell("exit 0")))
        if is_good:
            run(adapter.check(THERE))
        else:
            with pytest.raises(Refused, match="is not in sync: volume 0 at b1 is Outdated"):
                run(adapter.check(THERE))


# ---- libvirt: a stand-in with its calls -----------------------------------------------


class Hosts:
    """Two libvirts, by URI; ``where`` has the domain."""

    def __init__(self) -> None:
        self.where, self.job, self.outcome, self.free = "here", 0, "there", 1 << 34
        self.silent: set[str] = set()
        module = self.module = types.ModuleType("libvirt")

        class LibvirtError(Exception):
            def __init__(self, code: int, text: str) -> None:
                super().__init__(text)
                self.code, self.text = code, text

            def get_error_code(self) -> int:
                return self.code

            def get_error_message(self) -> str:
                return self.text

        self.error = LibvirtError
        names = {
            "VIR_MIGRATE_LIVE": 1, "VIR_MIGRATE_PEER2PEER": 2, "VIR_MIGRATE_PERSIST_DEST": 8,
            "VIR_MIGRATE_UNDEFINE_SOURCE": 16, "VIR_MIGRATE_ABORT_ON_ERROR": 4096, "VIR_DOMAIN_RUNNING": 1,
            "VIR_DOMAIN_JOB_NONE": 0, "VIR_DOMAIN_JOB_BOUNDED": 1, "VIR_DOMAIN_JOB_UNBOUNDED": 2,
            "VIR_DOMAIN_JOB_STATS_COMPLETED": 1, "VIR_ERR_NO_DOMAIN": 42,
        }  # fmt: skip
        for name, value in names.items():
            setattr(module, name, value)
        module.libvirtError = LibvirtError  # type: ignore[attr-defined]
        module.open = lambda uri: Connection(self, uri)  # type: ignore[attr-defined]


class Connection:
    def __init__(self, hosts: Hosts, uri: str) -> None:
        self.hosts, self.side = hosts, "here" if uri == "test:///default" else "there"
        if self.side in hosts.silent:
            raise hosts.error(38, "unable to connect")

    def lookupByName(self, name: str) -> Connection:  # noqa: N802
        if self.hosts.where != self.side or name != "web":
            raise self.hosts.error(42, f"no domain with matching name '{name}'")
        return self

    def isActive(self) -> int:  # noqa: N802
        return 1

    def info(self) -> list[int]:
        return [1, 1 << 20, 1 << 20, 1, 0]

    def state(self) -> list[int]:
        return [1, 1]

    def getFreeMemory(self) -> int:  # noqa: N802
        return self.hosts.free

    def jobInfo(self) -> list[int]:  # noqa: N802
        return [self.hosts.job]

    def jobStats(self, _flags: int) -> dict[str, int]:  # noqa: N802
        self.lookupByName("web")  # the source has forgotten it
        return {"downtime": 41}

    def abortJob(self) -> None:  # noqa: N802
        self.hosts.job = 0

    def migrateToURI3(self, uri: str, _params: dict[str, Any], flags: int) -> None:  # noqa: N802
        assert (uri, flags & 3) == (THERE.said, 3), "live, peer to peer"
        if self.hosts.outcome == "here":
            raise self.hosts.error(1, "the other end hung up")
        self.hosts.where = "there"

    def close(self) -> int:
        return 0


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts()
    monkeypatch.setitem(sys.modules, "libvirt", made.module)
    return made


def test_libvirt_checks_migrates_and_says_where(hosts: Hosts) -> None:
    adapter = adapter_of(replace(wanted(), adapter="libvirt"))
    run(adapter.check(THERE))
    assert run(adapter.where(THERE)) is Where.HERE
    hosts.job = 2
    assert run(adapter.where(THERE)) is Where.MOVING
    run(adapter.cancel(THERE))
    assert hosts.job == 0
    hosts.outcome = "here"
    with pytest.raises(MigrationError, match="the other end hung up"):
        run(adapter.migrate(THERE))
    hosts.outcome = "there"
    assert run(adapter.migrate(THERE)).downtime_ms == 41
    assert run(adapter.where(THERE)) is Where.THERE
    with pytest.raises(Refused, match="does not run here"):
        run(adapter.check(THERE))
    hosts.where = "nowhere"
    with pytest.raises(MigrationError, match="runs neither here nor at b1"):
        run(adapter.where(THERE))


def test_libvirt_refuses_what_does_not_fit_and_who_does_not_answer(hosts: Hosts) -> None:
    adapter = adapter_of(replace(wanted(), adapter="libvirt"))
    hosts.free = 1 << 20
    with pytest.raises(Refused, match="1 MiB of memory free, web needs 1024"):
        run(adapter.check(THERE))
    hosts.silent = {"there"}
    with pytest.raises(MigrationError, match="no libvirt at 10.0.0.31:4444: unable to connect"):
        run(adapter.check(THERE))


def test_without_libvirt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(MigrationError, match="not installed") as found:
        adapter_of(replace(wanted(), adapter="libvirt"))
    assert "libvirt-python" in found.value.hint


# ---- where it fits --------------------------------------------------------------------


def topology(**more: Any) -> Topology:
    nodes = [
        {"name": "a1", "address": "10.0.0.1:1", "endpoint": "A", "site": "rome", "capacity": 4},
        {"name": "a2", "address": "10.0.0.2:1", "endpoint": "A", "site": "rome", "capacity": 4},
        {"name": "b1", "address": "10.0.0.3:1", "endpoint": "B", "site": "oslo", "capacity": 2},
        {"name": "b2", "address": "10.0.0.4:1", "endpoint": "E", "site": "oslo", "capacity": 3},
        {"name": "c1", "address": "10.0.0.5:1", "distribution": "C", "site": "oslo"},
    ]
    workloads = [
        {"name": "web", "node": "a1", "size": 2} | more,
        {"name": "db", "node": "b1", "apart": ["disks"]},
    ]
    return Topology({"node": nodes, "site": [{"name": "rome"}, {"name": "oslo"}], "workload": workloads})


@pytest.mark.parametrize(
    ("to", "more", "why"),
    [
        ("b1", {}, "b1 has room for 1 of 2"),
        ("a1", {}, "a1 is where it runs"),
        ("a2", {}, "a2 is the same end point as a1"),
        ("c1", {}, "c1 is no end point"),
        ("b2", {"allowed": ["rome"]}, "web may not run at site oslo"),
        ("b2", {"apart": ["disks"]}, "db at site oslo is kept apart by 'disks'"),
        ("oslo", {"size": 9}, "b1 has room for 1 of 9; b2 has room for 3 of 9"),
        ("paris", {}, "there is no node and no site 'paris'"),
    ],
)
def test_where_it_cannot_go_says_why(to: str, more: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused) as found:
        fit.chosen(topology(**more), ("web",), to)
    assert why in found.value.message


def test_of_a_site_the_node_with_the_most_room_is_taken() -> None:
    assert fit.chosen(topology(), ("web",), "oslo") == "b2"
    assert fit.chosen(topology(), ("web",), "b2") == "b2"
    with pytest.raises(Refused, match="there is no workload 'nobody'"):
        fit.together(topology(), "nobody")


# ---- the file -------------------------------------------------------------------------

FILE = '[node]\nname = "a1"\n[[migration]]\nworkload = "web"\n'
GOOD = 'start = ["/bin/s", "{target}"]\nstate = ["/bin/t"]\n'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (FILE + GOOD, ""),
        (FILE + 'adapter = "libvirt"\ndrbd = "shop"\n', ""),
        (FILE, 'adapter "command" needs start'),
        (FILE + GOOD + 'domain = "web"\n', "domain is for libvirt"),
        (FILE + 'adapter = "libvirt"\nstart = ["/bin/s"]\n', "start is not for libvirt"),
        (FILE + GOOD.replace("/bin/s", "s"), "'s' is no absolute path"),
        (FILE + GOOD.replace("{target}", "{traget}"), "has a placeholder that is none"),
        (FILE + GOOD.replace("{target}", "{target"), "has a brace alone"),
        (FILE + GOOD + FILE.partition("\n[[")[2].join(["[[", ""]) + GOOD, "has a [[migration]] already"),
        (FILE + GOOD + "timeout = 5\n", "a duration is a string"),
    ],
)
def test_mistakes_in_the_file_are_found(text: str, why: str) -> None:
    found = [problem.message for problem in check_text(text).problems]
    assert (not found) if not why else any(why in message for message in found), found
