"""The driver on a real VPP: tables in and out, the shortest way there, what was counted, questions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from ipshare.core import VERDICTS, lib
from ipshare.engine.aio import AsyncEngine
from ipshare.engine.plan import Plan, diff
from ipshare.engine.protocol import Engine
from ipshare.engine.tables import Tables
from ipshare.engine.vpp import VppEngine
from ipshare.errors import Refused
from tests.engine_lab import INNER, OUTER, tables
from tests.packets_of import udp4
from tests.table_images import binding, in_order, records
from tests.vpp.vpp_process import Running, vpp

HALF = tables(lib.IPS_ROLE_OUTER, self_flag=0, drop_half=True)
CLIENT, GLOBAL = "192.0.2.77", "203.0.113.9"


@pytest.fixture(scope="module")
def node() -> Iterator[Running]:
    with vpp() as running:
        yield running


@pytest.fixture
def engine(node: Running) -> Iterator[VppEngine]:
    fresh = node.new_engine()
    yield fresh
    fresh.close()


def hosts(count: int, target: int = 0) -> Tables:
    """So many bindings of single addresses."""
    rows = [binding(f"203.0.113.{i}/32", target, i) for i in range(count)]
    return replace(OUTER, bindings=records("binding", in_order(rows)))


def test_it_is_an_engine(engine: VppEngine, node: Running) -> None:
    assert isinstance(engine, Engine)
    info = engine.info()
    assert (info.kind, info.pid, info.workers) == ("vpp", node.process.pid, 1)
    assert len(info.boot_id) == 32 and int(info.boot_id, 16)


@pytest.mark.parametrize(
    "wanted", [OUTER, INNER, HALF, hosts(200), Tables()], ids=["outer", "inner", "half", "hosts", "nothing"]
)
def test_what_is_applied_is_read(engine: VppEngine, node: Running, wanted: Tables) -> None:
    generation = engine.apply(diff(engine.read(), numbered(engine, wanted)))
    assert engine.info().generation == generation
    assert engine.read() == wanted
    stranger = node.new_engine()
    assert stranger.read() == wanted, "who did not load it, dumps it"
    assert not diff(stranger.read(), wanted)


def test_an_empty_plan_changes_nothing(engine: VppEngine) -> None:
    generation = engine.apply(diff(engine.read(), numbered(engine, OUTER)))
    assert engine.apply(diff(engine.read(), OUTER)) == generation == engine.info().generation


def test_term_and_revision_come_back(engine: VppEngine) -> None:
    info = engine.info()
    later = HALF.numbered(info.term + 1, 7)
    engine.apply(diff(engine.read(), numbered(engine, OUTER)))
    engine.apply(diff(engine.read(), later))
    assert (engine.read().term, engine.read().revision) == (later.term, 7)


def spied(engine: VppEngine, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """(sizes of the images that are sent, dumps) from now on."""
    images: list[int] = []
    dumps: list[int] = []
    prepare, dump = engine.control.prepare, engine.control.dump

    def sent(image: bytearray) -> tuple[int, int]:
        images.append(len(image))
        return prepare(image)

    def read() -> tuple[int, bytes]:
        dumps.append(1)
        return dump()

    monkeypatch.setattr(engine.control, "prepare", sent)
    monkeypatch.setattr(engine.control, "dump", read)
    return images, dumps


def numbered(engine: VppEngine, wanted: Tables) -> Tables:
    info = engine.info()
    return wanted.numbered(info.term, info.revision)


def test_a_small_change_travels_alone_and_nothing_is_dumped(
    engine: VppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = numbered(engine, hosts(250))
    engine.apply(diff(Tables(), many))
    changed = many.bindings.copy()
    changed[17]["local"][3] = 251
    images, dumps = spied(engine, monkeypatch)
    wanted = replace(many, bindings=changed)
    engine.apply(diff(engine.read(), wanted))
    assert engine.read() == wanted
    assert images[0] < many.bindings.nbytes / 10 and dumps == []


def test_a_delta_to_what_others_changed_is_not_sent(
    engine: VppEngine, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan made before somebody else loaded other tables: what it wants becomes live all the same."""
    many = numbered(engine, hosts(250))
    engine.apply(diff(Tables(), many))
    moved = many.bindings.copy()
    moved[17]["local"][3] = 251
    plan = diff(engine.read(), replace(many, bindings=moved))
    other = node.new_engine()
    other.apply(diff(other.read(), numbered(engine, HALF)))
    images, _ = spied(engine, monkeypatch)
    engine.apply(plan)
    assert node.new_engine().read() == plan.desired
    assert images[0] > many.bindings.nbytes


def test_a_delta_that_comes_too_late_is_sent_whole(
    engine: VppEngine, node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else commits between our look and our prepare: VPP refuses the delta, the whole image goes."""
    many = numbered(engine, hosts(250))
    engine.apply(diff(Tables(), many))
    moved = many.bindings.copy()
    moved[17]["local"][3] = 251
    plan = diff(engine.read(), replace(many, bindings=moved))
    other, image = node.new_engine(), Plan.image
    meant = numbered(engine, HALF)

    def late(self: Plan, live: int) -> bytearray:
        if self is plan and live:
            other.apply(diff(Tables(), meant))
        return image(self, live)

    monkeypatch.setattr(Plan, "image", late)
    images, _ = spied(engine, monkeypatch)
    engine.apply(plan)
    assert node.new_engine().read() == plan.desired
    assert len(images) == 2 and images[0] < images[1]


def test_rollback() -> None:
    with vpp() as node:
        with pytest.raises(Refused, match="no previous generation"):
            node.engine.rollback()
        assert node.engine.counters().verdicts.sum() == 0
        assert node.engine.counter_cells(OUTER.bindings)[1].tolist() == [0, 0]
        assert VERDICTS[node.engine.why(udp4(CLIENT, GLOBAL, b""), "outer").verdict].name == "NO_TABLES"
        node.engine.apply(diff(node.engine.read(), OUTER))
        with pytest.raises(Refused, match="no previous generation"):
            node.engine.rollback()
        second = node.engine.apply(diff(node.engine.read(), HALF))
        assert node.engine.rollback() > second
        assert node.engine.read() == OUTER
        assert node.engine.counters().packets.shape == (257,)


def test_a_rollback_of_a_flag_is_seen(engine: VppEngine, node: Running) -> None:
    """Both generations have the same digest of records."""
    first = numbered(engine, HALF)
    flagged = replace(first, flags=lib.IPS_IMAGE_ANTISPOOF)
    engine.apply(diff(engine.read(), first))
    engine.apply(diff(engine.read(), flagged))
    node.new_engine().rollback()
    assert engine.read() == HALF != flagged


def test_who_was_faster_is_not_overlooked(engine: VppEngine, node: Running) -> None:
    """Others become live between our commit and our look at it: they are what is read."""
    other, commit = node.new_engine(), engine.control.commit
    meant = replace(numbered(engine, OUTER), flags=lib.IPS_IMAGE_ANTISPOOF)

    def overtaken(generation: int) -> tuple[int, int]:
        done = commit(generation)
        other.apply(diff(Tables(), meant))
        return done

    engine.control.commit = overtaken  # type: ignore[method-assign]
    engine.apply(diff(engine.read(), numbered(engine, OUTER)))
    assert engine.read() == meant


def test_what_we_think_is_there_is_compared_with_what_is(engine: VppEngine) -> None:
    """After a delta the digest of what we meant has to be that of what VPP made of it."""
    many = numbered(engine, hosts(250))
    engine.apply(diff(engine.read(), many))
    changed = many.bindings.copy()
    changed[17]["local"][3] = 251
    engine.apply(diff(engine.read(), replace(many, bindings=changed)))
    assert engine._known is not None and engine._known.expected is None
    engine._known.tables = many
    assert engine.read() == replace(many, bindings=changed)


def test_counted_packets_are_read_from_shared_memory() -> None:
    """S1.2 packets of VPP's generator: 10 to one Global IP, 5 to one without binding."""
    with vpp() as node:
        engine = node.engine
        engine.apply(diff(Tables(), HALF))
        for line in (
            "create packet-generator interface pg0",
            "set interface state pg0 up",
            "set interface ip address pg0 10.9.9.1/24",
            f"packet-generator new {{ name a limit 10 node ip4-input size 60-60 interface pg0"
            f" data {{ UDP: {CLIENT} -> {GLOBAL} UDP: 1 -> 2 length 40 incrementing 8 }} }}",
            f"packet-generator new {{ name b limit 5 node ip4-input size 60-60 interface pg0"
            f" data {{ UDP: {CLIENT} -> 203.0.113.200 UDP: 1 -> 2 length 40 incrementing 8 }} }}",
            "packet-generator enable",
        ):
            said = node.cli(line)
            assert "unknown" not in said and "error" not in said, said
        first, span = engine.counter_cells(HALF.bindings)
        assert span.tolist() == [128, 1]
        ok, none = (next(v.number for v in VERDICTS if v.name == name) for name in ("OK", "NO_BINDING"))
        counted = engine.counters()
        for _ in range(200):  # the generator runs beside us; a question to VPP is a turn of its main loop
            if counted.verdicts[0].sum() == 15:
                break
            counted = engine.counters()
        assert counted.verdicts[0, ok] == 10 and counted.verdicts[0].sum() == 15
        assert counted.packets[first[0] + 9] == 10 and counted.packets.sum() == 10
        assert counted.bytes[first[0] + 9] > 0
        assert counted.verdicts[0, none] == counted.drops["packets"].sum() == 5
        assert set(counted.drops["verdict"]) == {none}
        assert node.stats.combined("/ipshare/cells")[0].sum() == 10


def test_why(engine: VppEngine) -> None:
    engine.apply(diff(engine.read(), numbered(engine, OUTER)))
    before = engine.counters()
    answer = engine.why(udp4(CLIENT, GLOBAL, b"x"), "outer")
    assert VERDICTS[answer.verdict].name == "OK"
    assert answer.packets == (udp4(CLIENT, "198.18.1.9", b"x"),)
    assert answer.generation == engine.info().generation
    expired = engine.why(udp4(CLIENT, GLOBAL, b"x", ttl=1), "outer")
    assert VERDICTS[expired.verdict].name == "TTL_EXPIRED"
    assert expired.packets == () and expired.errors[0][20] == 11, "time exceeded"
    assert (engine.counters().verdicts == before.verdicts).all(), "a question counts nothing"


def test_the_asyncio_form(node: Running) -> None:
    async def run() -> tuple[Tables, int]:
        async with AsyncEngine(node.new_engine()) as engine:
            info = await engine.info()
            wanted = INNER.numbered(info.term, info.revision)
            generation = await engine.apply(diff(await engine.read(), wanted))
            cells, _ = await engine.counter_cells(INNER.bindings)
            await engine.counters()
            await engine.why(udp4(CLIENT, "198.18.1.9", b""), "inner")
            assert len(cells) == 2 and (await engine.info()).generation == generation
            return await engine.read(), generation

    found, _ = asyncio.run(run())
    assert found == INNER


def test_threads_share_an_engine(engine: VppEngine) -> None:
    failures: list[Exception] = []

    def ask() -> None:
        try:
            for _ in range(50):
                assert engine.info().kind == "vpp"
                engine.counters()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for wanted in (OUTER, HALF, OUTER, HALF):
        engine.apply(diff(engine.read(), numbered(engine, wanted)))
    for thread in threads:
        thread.join()
    assert failures == []


def test_path_mtu_is_learned(engine: VppEngine) -> None:
    engine.apply(diff(engine.read(), numbered(engine, OUTER)))
    long = udp4(CLIENT, GLOBAL, bytes(1300), dont_fragment=True)
    assert VERDICTS[engine.why(long, "outer").verdict].name == "OK"
    engine.set_path_mtu(0, 1200, 60)
    assert VERDICTS[engine.why(long, "outer").verdict].name == "TOO_BIG"
    engine.set_path_mtu(0, 0, 60)
    assert VERDICTS[engine.why(long, "outer").verdict].name == "OK"


def test_no_cells_at_all() -> None:
    with vpp(counter_cells=0) as node:
        node.engine.apply(diff(Tables(), OUTER))
        counted = node.engine.counters()
        assert np.array_equal(counted.packets, np.zeros(0, np.uint64))
