"""The verbs about the machine under a VPP: vpp startup, vpp prepare, hw-check FILE; what the agent says."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ipshare.agent import vpp as agent_vpp
from ipshare.agent import vpp_preflight
from ipshare.agent.run import applied_last
from ipshare.agent.vpp import vpp_of
from ipshare.appliance import hardware, metal
from ipshare.appliance.machine import Finding
from ipshare.cli import exits
from ipshare.cli.app import run
from ipshare.config import load_text
from ipshare.engine.vpp.slice import SCOPE, SLICE, way_in
from ipshare.errors import EngineError
from ipshare.model import Metal
from tests.cases.config_mistakes import GOOD, GOOD_VPP
from tests.cases.metal_mistakes import GOOD_METAL

Run = Callable[..., tuple[int, str, str]]
PLAIN = GOOD_METAL.replace('[[vpp.dpdk]]\ndevice = "ens5"\n', "")
"""Without a card that only one machine has by that name."""


@pytest.fixture
def ipshare(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def call(text: str, *words: str) -> tuple[int, str, str]:
        file = tmp_path / "site.toml"
        file.write_text(text)
        capfd.readouterr()
        code = run([*words, str(file)])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_the_file_that_vpp_would_be_started_with(ipshare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("IPSHARE_VPP", raising=False)
    code, out, err = ipshare(PLAIN, "vpp", "startup")
    assert (code, err) == (0, "")
    assert "cpu { main-core 1 corelist-workers 2,3 }\n" in out and "  dev 0000:03:00.0 { name wan" in out
    code, text, _ = ipshare(PLAIN, "vpp", "startup", "--json")
    assert json.loads(text) == {
        "text": out,
        "is_installed": False,
        "cards": {"0000:03:00.0": "0000:03:00.0"},
    }


def test_what_has_no_such_file(ipshare: Run) -> None:
    for text in (GOOD, GOOD_VPP):
        code, _, err = ipshare(text, "vpp", "startup")
        assert code == exits.REFUSED and "starts no VPP" in err
    code, _, err = ipshare(GOOD_METAL.replace('"ens5"', '"no-such-card"'), "vpp", "startup")
    assert code == exits.REFUSED and "no-such-card is no network card on PCI here" in err
    code, _, err = ipshare(PLAIN.replace("[2, 3]", "[2, 2]"), "vpp", "startup")
    assert code == exits.USAGE and "twice" in err


@pytest.mark.parametrize(
    ("verb", "way"), [(("vpp", "prepare"), "prepare"), (("hw-check",), "ask")], ids=["prepare", "check"]
)
def test_findings_and_what_is_missing(
    ipshare: Run, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], way: str
) -> None:
    asked: list[Metal] = []
    found = [Finding("hugepages of 2 MiB, NUMA node 0", "1024 asked, 7 there: 1017 missing", False)]

    def done(what: Metal) -> list[Finding]:
        asked.append(what)
        return found

    monkeypatch.setattr(hardware, "look", list)
    monkeypatch.setattr(metal, way, done)
    code, out, _ = ipshare(GOOD_METAL, *verb)
    assert code == exits.NO and "1017 missing" in out
    assert asked[0].cores == (1, 2, 3)
    code, out, _ = ipshare(GOOD_METAL, *verb, "--json")
    assert code == exits.NO and set(json.loads(out)[0]) == {"name", "text", "is_good"}
    found.clear()
    assert ipshare(GOOD_METAL, *verb)[0] == 0
    asked.clear()
    assert ipshare(GOOD, *verb)[0] == 0 and not asked, "it has no VPP"


def test_a_start_takes_what_was_applied_last(ipshare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Metal] = []
    monkeypatch.setattr(metal, "prepare", lambda what: asked.append(what) or [])
    broken = GOOD_METAL.replace("[2, 3]", "[2, 2]")
    monkeypatch.setattr(f"{applied_last.__module__}.applied_last", lambda file: None)
    assert ipshare(broken, "vpp", "prepare", "--last-good")[0] == exits.USAGE and not asked
    monkeypatch.setattr(f"{applied_last.__module__}.applied_last", lambda file: load_text(GOOD_METAL))
    code, _, err = ipshare(broken, "vpp", "prepare", "--last-good")
    assert code == 0 and "core 2 is in worker_cores twice" in err and asked[0].worker_cores == (2, 3)


def test_the_agent_starts_no_vpp_on_cards_that_are_not_dpdks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only `vpp prepare` gives them away: it knows by which of them the machine is reached."""
    driver = tmp_path / "drivers/ixgbe"
    driver.mkdir(parents=True)
    card = tmp_path / "bus/pci/devices/0000:03:00.0"
    card.mkdir(parents=True)
    (card / "driver").symlink_to(driver)
    monkeypatch.setattr(vpp_preflight, "SYS", tmp_path)
    one, other = (problem.message for problem in vpp_preflight._cards(vpp_of(load_text(GOOD_METAL))))
    assert one == "card 0000:03:00.0 (0000:03:00.0) is driven by ixgbe, not by vfio-pci"
    assert other == "ens5 is no network card on PCI here"
    (card / "driver").unlink()
    driver.rename(tmp_path / "drivers/vfio-pci")
    (card / "driver").symlink_to(tmp_path / "drivers/vfio-pci")
    assert [p.message for p in vpp_preflight._cards(vpp_of(load_text(GOOD_METAL)))] == [other]


@pytest.mark.parametrize("has", ["1-3", "1"])
def test_vpp_is_started_in_its_slice_where_that_has_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, has: str
) -> None:
    group = tmp_path / "groups" / SLICE
    group.mkdir(parents=True)
    (group / "cpuset.cpus").write_text(has)
    started: list[tuple[str, ...]] = []

    def start(_: object, *, wrap: tuple[str, ...]) -> None:
        started.append(wrap)
        raise EngineError("no VPP here")

    monkeypatch.setattr(agent_vpp, "start", start)
    monkeypatch.setattr(agent_vpp, "way_in", partial(way_in, cgroups=tmp_path / "groups"))
    text = GOOD_METAL.replace('name = "v1"', f'name = "v1"\nruntime_dir = "{tmp_path}/run"')
    with pytest.raises(EngineError, match="no VPP here"):
        agent_vpp.VppDataPath().launch(load_text(text))
    assert started == [SCOPE if has == "1-3" else ()]
    assert ("ipshare vpp prepare was not run" in caplog.text) is (has == "1")
