"""The limit on automatic failovers goes by a clock that nobody sets, also over a restart."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from ipshare.director import pace, warden


def test_what_began_counts_for_a_period() -> None:
    assert pace.lately([10.0, 50.0, 99.0], 110.0, 60.0) == [99.0]
    assert pace.lately([10.0, 50.1, 99.0], 110.0, 60.0) == [50.1, 99.0]


@pytest.mark.parametrize("now_s", [100.0, 5.0])
def test_what_is_kept_counts_as_of_now_in_another_boot(now_s: float) -> None:
    kept = pace.to_text([10.0, 50.0], "one")
    assert pace.of_text(kept, "one", 100.0) == [10.0, 50.0]
    assert pace.of_text(kept, "one", 20.0) == [10.0, 20.0], "never later than now"
    assert pace.of_text(kept, "other", now_s) == [now_s, now_s]
    assert pace.of_text("[1764000000.0, 1764000100.5]", "one", now_s) == [now_s, now_s], "an earlier version"
    assert pace.to_text([], "one") == "", "what is over leaves the store"


@pytest.mark.parametrize("text", ["", "{", "7", '{"boot": "one"}', '{"boot": "one", "began": ["x"]}', "null"])
def test_what_cannot_be_read_counts_as_one_now(text: str) -> None:
    assert pace.of_text(text, "one", 7.0) == [7.0]


def test_a_clock_that_is_set_makes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock jumps by a year while the limit is used up."""
    now_s, at = warden.boottime_s(), time.time()
    monkeypatch.setattr("time.time", lambda: at + 365 * 86400)
    director: Any = SimpleNamespace(
        topology=SimpleNamespace(by_name={"workload": {}}), settings=SimpleNamespace(files=None)
    )
    monkeypatch.setattr(warden.elsewhere, "units", lambda _topology: {})
    monkeypatch.setattr(warden, "Contexts", lambda *_a, **_k: None)
    one = warden.Warden(director, SimpleNamespace(failover=None, health=None))  # type: ignore[arg-type]
    one._began = [now_s - 5.0]
    settings: Any = SimpleNamespace(period=600.0, limit=1, mode="automatic", after=1.0)
    notes: dict[str, str] = {}
    one._cases(now_s, settings, notes)
    assert one._began == [now_s - 5.0] and not notes
    one._cases(now_s + 600.0, settings, notes)
    assert one._began == [] and notes == {warden.BEGAN: ""}
    assert json.loads(pace.to_text([1.0], "x"))["boot"] == "x"
