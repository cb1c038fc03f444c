"""Plans, answers and counters in words: names instead of numbers, lists that end, shares that are true."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import numpy as np
import pytest

from ipshare.engine.asking import ask
from ipshare.engine.desired import desired
from ipshare.engine.memory import MemoryEngine
from ipshare.engine.moved import moved_shares
from ipshare.engine.packet_words import packet
from ipshare.engine.plan import diff
from ipshare.engine.plan_text import named, summarize
from ipshare.engine.tables import Tables
from ipshare.engine.totals import count
from ipshare.engine.within import within
from tests.agent_world import site


def loaded(tables: Tables) -> MemoryEngine:
    engine = MemoryEngine()
    engine.apply(diff(Tables(), tables))
    return engine


def test_a_first_plan_names_everything(tmp_path: Path) -> None:
    lines = summarize(diff(Tables(), desired(site(tmp_path)))).lines()
    assert "+ binding 203.0.113.0/24: A 10.1.0.0/24" in lines
    assert "+ binding 203.0.113.7: policy both" in lines
    assert "+ endpoint B: 10.2.0.0/24 rewrite path-mtu 1500 mss-clamp" in lines
    assert "~ option roles: none -> outer" in lines


def test_a_change_says_from_and_to_and_the_name_once(tmp_path: Path) -> None:
    plan = diff(desired(site(tmp_path)), desired(site(tmp_path, to="B")))
    assert summarize(plan).lines() == ["~ binding 203.0.113.0/24: A 10.1.0.0/24 -> B 10.2.0.0/24"]


def test_names_are_lent_to_what_an_engine_read(tmp_path: Path) -> None:
    tables = desired(site(tmp_path))
    actual = loaded(tables).read()
    assert actual.endpoint_name(0) == "#0"
    plan = diff(named(actual, tables), desired(site(tmp_path, to="B")))
    assert "A 10.1.0.0/24 -> B" in summarize(plan).lines()[0]


def test_equal_tables_have_no_summary(tmp_path: Path) -> None:
    summary = summarize(diff(desired(site(tmp_path)), desired(site(tmp_path))))
    assert (summary.count, summary.lines()) == (0, [])
    assert summary.to_json() == {
        "changes": [],
        "count": 0,
        "moved_share": {},
        "kept_share": {},
        "drain_s": {},
    }


def test_long_lists_end_and_are_counted(tmp_path: Path) -> None:
    more = "".join(f'[[binding]]\nglobal = "203.0.113.{n}"\nto = "B"\n' for n in range(100, 150))
    summary = summarize(diff(desired(site(tmp_path)), desired(site(tmp_path, more=more))), max_items=5)
    assert summary.count == 50
    assert len(summary.lines()) == 6
    assert summary.lines()[-1] == "+ ... and 45 more bindings"
    assert summary.lines()[0] == "+ binding 203.0.113.100: B 10.2.0.100"
    assert summary.to_json()["changes"][0]["count"] == 50


def test_the_share_of_moved_clients_is_near_the_least_possible(tmp_path: Path) -> None:
    """Weights 1:1 -> 3:1 move a quarter of all clients at least; Maglev little more."""
    plan = diff(desired(site(tmp_path)), desired(site(tmp_path, weight=3)))
    assert moved_shares(plan)["both"] == pytest.approx(0.25, abs=0.04)
    assert any("its clients move" in line for line in summarize(plan, moved=moved_shares(plan)).lines())


def test_nothing_moves_where_the_policy_stays(tmp_path: Path) -> None:
    assert moved_shares(diff(desired(site(tmp_path)), desired(site(tmp_path, to="B")))) == {}


def test_renumbered_end_points_move_nobody(tmp_path: Path) -> None:
    """Another end point before A and B gives them other indices; their clients stay."""
    from ipshare import config
    from tests.agent_world import site_text

    first = '[[endpoint]]\nname = "Z"\nlocal = ["10.3.0.0/24"]\n'
    other = config.load_text(first + site_text(tmp_path), tmp_path / "site.toml")
    assert moved_shares(diff(desired(site(tmp_path)), desired(other))) == {}


def test_an_answer_names_binding_end_point_and_result(tmp_path: Path) -> None:
    tables = desired(site(tmp_path))
    answer = ask(loaded(tables), tables, packet("tcp 198.51.100.7:9 > 203.0.113.5:80 syn"))
    assert (answer.verdict, answer.binding, answer.target, answer.endpoint) == (
        "OK",
        "203.0.113.0/24",
        "A 10.1.0.0/24",
        "A",
    )
    assert answer.packets[0]["text"] == "tcp 198.51.100.7:9 > 10.1.0.5:80 syn ttl 64 len 40"


def test_of_nested_bindings_the_narrowest_answers(tmp_path: Path) -> None:
    tables = desired(site(tmp_path))
    answer = ask(loaded(tables), tables, packet("udp 198.51.100.7:9 > 203.0.113.7:80"))
    assert (answer.binding, answer.target) == ("203.0.113.7", "policy both")


def test_a_refusal_shows_the_error_that_is_sent(tmp_path: Path) -> None:
    tables = desired(site(tmp_path))
    answer = ask(loaded(tables), tables, packet("udp 198.51.100.7:9 > 203.0.113.5:80 ttl 1"))
    assert (answer.verdict, answer.disposition, answer.packets) == ("TTL_EXPIRED", "drop", ())
    assert "type 11" in answer.errors[0]["text"] and "quoting" in answer.errors[0]["text"]


def test_asking_counts_nothing(tmp_path: Path) -> None:
    tables = desired(site(tmp_path))
    engine = loaded(tables)
    ask(engine, tables, packet("udp 198.51.100.7:9 > 203.0.113.5:80"))
    ask(engine, tables, packet("udp 198.51.100.7:9 > 203.0.113.5:80 ttl 1"))
    totals = count(engine, tables)
    assert totals.verdicts() == [] and totals.bindings() == [] and totals.drops() == []


def test_counters_by_binding_address_and_reason(tmp_path: Path) -> None:
    tables = desired(site(tmp_path))
    engine = loaded(tables)
    worker = engine._worker
    assert worker is not None
    for _ in range(3):
        worker.process("outer", packet("udp 198.51.100.7:9 > 203.0.113.5:80 len 100"))
    worker.process("outer", packet("udp 198.51.100.7:9 > 203.0.113.7:80 len 100"))
    worker.process("outer", packet("udp 198.51.100.7:9 > 203.0.113.5:80 ttl 1"))
    before = count(engine, tables)
    assert [(b["binding"], b["packets"], b["bytes"]) for b in before.bindings()] == [
        ("203.0.113.0/24", 4, 400),
        ("203.0.113.7", 1, 100),
    ]
    assert before.talkers()[0] == {"address": "203.0.113.5", "packets": 3, "bytes": 300}
    assert [(d["binding"], d["verdict"], d["packets"]) for d in before.drops()] == [
        ("203.0.113.0/24", "TTL_EXPIRED", 1)
    ]
    worker.process("outer", packet("udp 198.51.100.7:9 > 203.0.113.5:80 ttl 1"))
    delta = count(engine, tables).since(before)
    assert delta.bindings() == []
    assert [(d["verdict"], d["packets"]) for d in delta.drops()] == [("TTL_EXPIRED", 1)]
    assert [(v["verdict"], v["packets"]) for v in delta.verdicts()] == [("TTL_EXPIRED", 1)]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("203.0.113.7", ["203.0.113.0/24", "203.0.113.7/32"]),
        ("203.0.113.128/25", ["203.0.113.0/24"]),
        ("203.0.0.0/16", ["203.0.113.0/24", "203.0.113.7/32"]),
        ("203.0.112.0/24", []),
        ("2001:db8::/32", []),
    ],
)
def test_bindings_within_a_prefix(tmp_path: Path, prefix: str, expected: list[str]) -> None:
    found = within(desired(site(tmp_path)).bindings, ip_network(prefix))
    texts = [f"{'.'.join(map(str, record['global'][:4]))}/{record['prefix_len']}" for record in found]
    assert texts == expected


def test_a_rollback_in_memory_is_the_previous_content(tmp_path: Path) -> None:
    first, second = desired(site(tmp_path)), desired(site(tmp_path, to="B"))
    engine = loaded(first)
    engine.apply(diff(engine.read(), second))
    assert engine.read() == second
    engine.rollback()
    assert engine.read() == first
    assert np.array_equal(engine.read().bindings, replace(first).bindings)
