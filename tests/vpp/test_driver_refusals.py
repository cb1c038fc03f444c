"""What bad input gets from a real VPP: a sentence that says which record, and nothing changed."""

from __future__ import annotations

import json
import re
import resource
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipshare.core import lib
from ipshare.engine.failures import EngineGone, ImageRefused
from ipshare.engine.plan import diff
from ipshare.engine.tables import BINDING, Tables, pack
from ipshare.engine.vpp import Client, Control, VppEngine
from ipshare.engine.vpp import control as control_module
from ipshare.engine.vpp.find import find
from ipshare.errors import EngineError
from tests.engine_lab import OUTER
from tests.table_images import Image, binding, endpoint, in_order, network, policy
from tests.vpp.vpp_process import Running, vpp

MB = 1 << 20
GOOD = Image(bindings=in_order(binding(f"203.0.113.{i}/32", 0, i) for i in range(5)))
SMALL = endpoint("10.1.0.0/25")
HEADER, NETWORK, ENDPOINT, POLICY, MEMBER, BINDING_SECTION = range(6)


@pytest.fixture(scope="module")
def node() -> Iterator[Running]:
    with vpp() as running:
        running.engine.apply(diff(Tables(), OUTER))
        yield running


@pytest.fixture
def control(node: Running) -> Control:
    return node.engine.control


def bad(i: int, row: dict[str, object]) -> Image:
    """GOOD with binding ``i`` replaced."""
    rows = list(GOOD.bindings)
    rows[i] = row
    return GOOD.but(bindings=in_order(rows))


REFUSED = {
    "unknown network": (bad(4, binding("203.0.114.1/32")), lib.IPS_LOAD_OUTSIDE, BINDING_SECTION, 4),
    "prefix that does not fit": (
        GOOD.but(bindings=[binding("203.0.113.0/24", 1)], endpoints=[endpoint("10.0.0.0/24"), SMALL]),
        lib.IPS_LOAD_BAD_OFFSET, BINDING_SECTION, 0,
    ),
    "unknown end point": (bad(2, binding("203.0.113.2/32", 9)), lib.IPS_LOAD_BAD_TARGET, BINDING_SECTION, 2),
    "unknown kind": (bad(3, binding("203.0.113.3/32", kind=77)), lib.IPS_LOAD_BAD_KIND, BINDING_SECTION, 3),
    "twice": (bad(1, binding("203.0.113.0/32")), lib.IPS_LOAD_DUPLICATE, BINDING_SECTION, 1),
    "overlapping networks": (
        GOOD.but(networks=[network("203.0.113.0/24"), network("203.0.0.0/16")]),
        lib.IPS_LOAD_BAD_NETWORK, NETWORK, None,
    ),
    "empty policy": (GOOD.but(policies=[policy(0, 0)]), lib.IPS_LOAD_BAD_POLICY, POLICY, 0),
    "bad MTU": (
        GOOD.but(endpoints=[endpoint("10.0.0.0/24"), endpoint("10.0.1.0/24", path_mtu=3)]),
        lib.IPS_LOAD_BAD_ENDPOINT, ENDPOINT, 1,
    ),
    "record size": (GOOD.but(header={"binding_bytes": 40}), lib.IPS_LOAD_BAD_RECORD_SIZE, HEADER, None),
    "version": (GOOD.but(header={"version": 9}), lib.IPS_LOAD_BAD_VERSION, HEADER, None),
    "magic": (GOOD.but(header={"magic": 9}), lib.IPS_LOAD_BAD_MAGIC, HEADER, None),
    "digest": (GOOD.but(header={"digest": 9}), lib.IPS_LOAD_BAD_DIGEST, HEADER, None),
    "stale base": (GOOD.delta(99, []), lib.IPS_LOAD_STALE_BASE, HEADER, None),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_an_image_is_refused_by_its_first_bad_record(node: Running, control: Control, what: str) -> None:
    image, error, section, index = REFUSED[what]
    before = control.info()
    with pytest.raises(ImageRefused) as refused:
        control.prepare(image.pack())
    assert (refused.value.load_error, refused.value.section) == (error, section), refused.value
    if index is not None:
        assert refused.value.index == index
        assert re.match(r"(binding|end point|policy) \d+: ", refused.value.message)
    assert control.info() == before
    assert node.new_engine().read() == OUTER


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_a_file_cut_short(control: Control, keep: int) -> None:
    before = control.info()
    with pytest.raises(ImageRefused) as refused:
        control.prepare(GOOD.pack()[:keep])
    assert refused.value.load_error == lib.IPS_LOAD_TRUNCATED
    assert control.info() == before


def test_a_lower_revision(node: Running) -> None:
    """S1.9: a stale director cannot undo a newer decision."""
    with vpp() as other:
        engine = other.engine
        engine.apply(diff(Tables(), OUTER.numbered(5, 5)))
        with pytest.raises(ImageRefused) as refused:
            engine.apply(diff(Tables(), replace(OUTER, flags=lib.IPS_IMAGE_ANTISPOOF).numbered(5, 4)))
        assert refused.value.load_error == lib.IPS_LOAD_STALE_TERM
        assert engine.read() == OUTER and engine.info().revision == 5


def test_no_such_generation(control: Control) -> None:
    generation, _ = control.prepare(GOOD.pack())
    control.abort()
    with pytest.raises(EngineError, match="no such entry"):
        control.commit(generation)
    assert control.info()["prepared"] == 0


@pytest.mark.parametrize(("service", "delivery", "named"), [(7, 0, 7), (0, 8, 8)])
def test_an_unknown_table_is_named(service: int, delivery: int, named: int) -> None:
    with vpp(tables=(service, delivery)) as node:
        with pytest.raises(EngineError, match=f"no table {named}") as refused:
            node.engine.apply(diff(Tables(), OUTER))
        assert f"ip table add {named}" in refused.value.hint
        for family in ("ip", "ip6"):
            node.cli(f"{family} table add {named}")
        node.engine.apply(diff(Tables(), OUTER))
        assert node.engine.read() == OUTER


def test_other_tables_than_it_runs_with(node: Running) -> None:
    other = VppEngine(node.settings.api, node.settings.stats, service_table=0, counter_cells=5)
    with pytest.raises(EngineError, match="4096 counter cells") as refused:
        other.apply(diff(Tables(), OUTER))
    assert "restart VPP" in refused.value.hint
    other.close()


def test_a_stats_segment_too_small_says_what_would_do() -> None:
    cells, small = 3_000_000, 40 * MB
    with vpp(counter_cells=cells, statseg_bytes=small) as node:
        with pytest.raises(EngineError, match="too small for 3000000") as refused:
            node.engine.apply(diff(Tables(), OUTER))
        assert node.engine.info().generation == 0
        assert node.engine.control.hello().is_configured is False
    needed = int(re.search(r"size (\d+)M", refused.value.hint)[1])  # type: ignore[index]
    assert cells * 16 < needed * MB < cells * 16 * 2
    with vpp(counter_cells=cells, statseg_bytes=needed * MB) as node:
        node.engine.apply(diff(Tables(), OUTER))
        assert len(node.engine.cell_totals()[0]) == cells


def test_out_of_memory_leaves_what_was_live(node: Running) -> None:
    """VPP may not map more than it has: a large image does not fit, a small one goes on to."""
    pid = node.process.pid
    large = np.zeros(1 << 20, BINDING)
    large["global"][:, 12:] = np.arange(len(large), dtype=">u4").view(np.uint8).reshape(-1, 4)
    large["global"][:, :2] = (0x20, 0x01)
    large["family"], large["prefix_len"], large["kind"], large["target"] = 6, 128, lib.IPS_KIND_ENDPOINT, 1
    large["local"][:, 12:] = large["global"][:, 12:]
    networks = OUTER.networks.copy()
    networks[1]["prefix"], networks[1]["prefix_len"] = [0x20, 0x01, *bytes(14)], 64
    info = node.engine.info()
    wanted = replace(OUTER, bindings=large, networks=networks).numbered(info.term, info.revision)
    status = Path(f"/proc/{pid}/status").read_text()
    now = int(re.search(r"VmSize:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]
    image = pack(wanted)
    before = resource.prlimit(pid, resource.RLIMIT_AS, (now + len(image) + 20 * MB, resource.RLIM_INFINITY))
    try:
        with pytest.raises(EngineError, match=r"memory") as refused:
            node.engine.control.prepare(image)
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)
    assert "VPP went away" not in refused.value.message
    assert node.engine.info() == info and node.engine.read() == OUTER
    assert node.engine.control.prepare(image)[0] > info.generation
    node.engine.control.abort()


def test_a_file_that_vpp_does_not_see(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "_written", lambda path, content: path)
    with pytest.raises(EngineError, match="No such file or directory"):
        control.prepare(GOOD.pack())
    with pytest.raises(EngineError, match="No such file or directory"):
        control.cells(OUTER.bindings)


def test_nothing_is_left_on_tmpfs(node: Running, tmp_path: Path) -> None:
    control = Control(node.client, scratch=tmp_path)
    control.prepare(GOOD.pack())
    control.abort()
    control.cells(OUTER.bindings)
    control.dump()
    with pytest.raises(ImageRefused):
        control.prepare(b"")
    assert list(tmp_path.iterdir()) == []


# ---- who answers -------------------------------------------------------------


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(EngineGone, match="no VPP answers"):
        Client(tmp_path / "none").call("show_version")


def test_somebody_else_there(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(EngineError, match="VPP does not answer"):
            Client(tmp_path / "s", timeout_s=0.2).call("show_version")


def test_a_message_of_another_version_is_named(node: Running, tmp_path: Path) -> None:
    files = {file.name: file for place in find().api_dirs for file in place.rglob("*.api.json")}
    for name, file in files.items():
        shutil.copy(file, tmp_path / name)
    changed = tmp_path / "ipshare.api.json"
    api = json.loads(changed.read_text())
    message = next(m for m in api["messages"] if m[0] == "ipshare_commit")
    message[-1]["crc"] = "0x12345678"
    changed.write_text(json.dumps(api))
    client = Client(node.settings.api, api_dirs=[tmp_path])
    with pytest.raises(
        EngineError, match=r"VPP 26\.\S+ and .* ipshare_commit \(VPP has \w+, .* 12345678\)"
    ) as refused:
        client.call("ipshare_hello")
    assert "restart VPP" in refused.value.hint
    assert "ipshare_info" not in refused.value.message


def test_vpp_without_our_plugin() -> None:
    with vpp(needs_plugin=False, is_ours_enabled=False) as node:
        assert node.client.call("show_version").version.startswith("26.")
        with pytest.raises(EngineError, match="without the ipshare plugin") as refused:
            node.engine.info()
        assert "restart VPP" in refused.value.hint


def test_a_message_that_is_not_there(node: Running) -> None:
    with pytest.raises(EngineError, match="knows no message nat44_ed_enable"):
        node.client.call("nat44_ed_enable")
    with pytest.raises(EngineError, match="cannot be sent"):
        node.client.call("sw_interface_set_flags", nonsense=1)
    assert node.client.call("show_version").retval == 0, "the connection lives"
