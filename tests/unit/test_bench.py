"""The benchmark measures what it says: valid packets, translated; names that hold; output that parses."""

from __future__ import annotations

import json
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest

from ipshare.bench import Result, command, core, flow, machine, mirror, packets, paths, plot, run, sites
from ipshare.bench.result import table
from ipshare.config import load_text
from ipshare.errors import IpshareError


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("kind", packets.KINDS)
@pytest.mark.parametrize("family", [4, 6])
def test_every_packet_is_translated_and_counted(family: int, kind: packets.Kind, inner: bool) -> None:
    n = 300
    with core.Loaded(family, n, inner=inner) as worker:
        numbers = np.arange(n, dtype=np.uint32)
        frames = packets.frames(kind, family, sites.addresses(family, numbers, local=inner))
        assert worker.passes(frames, 2) > 0
        assert worker.verdict_counts()[int(inner)].tolist() == [
            2 * n,
            *[0] * (len(worker.verdict_counts()[0]) - 1),
        ]
        assert worker.cell_counts()["packets"].sum() == 2 * n
        out = worker.process(worker.side, frames.data[7, : frames.lengths[7]].tobytes()).packets[0]
        there = sites.addresses(family, [7], local=not inner)[0].tobytes()
        assert out[16:20] == there[:4] if family == 4 else out[24:40] == there


def test_destinations_are_what_they_are_called() -> None:
    assert len(np.unique(core.destinations("few", 10_000))) == core.ACTIVE
    assert sorted(core.destinations("uniform", 1000)) == list(range(1000))
    drawn = core.destinations("zipf", 10_000)
    assert drawn.max() < 10_000
    counts = np.sort(np.bincount(drawn))[::-1]
    assert counts[0] > 5 * counts[20] > 0, "the first rank has twenty times the weight of the twentieth"


def test_command_prints_json(capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch) -> None:
    made = [Result("core.v4.outer.mixed", 1.5, "ns/packet"), Result("tables.x", 2, "s", "tables.y", 0.5)]
    monkeypatch.setattr(command, "run", lambda *_args, **_options: made)
    assert command.main(["--json", "--plot", str(tmp_path / "x.svg")]) == 0
    assert json.loads(capsys.readouterr().out) == [r.as_dict() for r in made]
    assert ElementTree.parse(tmp_path / "x.svg").getroot().tag.endswith("svg")
    assert command.main(["nonsense"]) == 2


def test_a_plot_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(command, "run", lambda *_args, **_options: pytest.fail("it measured first"))
    with pytest.raises(IpshareError, match="cannot write"):
        command.main(["--plot", str(tmp_path / "none" / "x.svg")])


def test_table_and_plot_show_every_figure() -> None:
    made = [Result("core.v4.a", 3, "ns/packet"), Result("core.v4.b", 6, "ns/packet", "core.v4.a", 2.0)]
    assert table(made).splitlines()[1].endswith("= 2.00 x core.v4.a")
    assert plot.svg(made, "<machine>").count("<rect") == 3


def test_the_mirror_is_measured_to_its_end() -> None:
    """The loop itself says whether the standby was told each change exactly once."""
    run_ = mirror.once(30_000, 0, rate=4000, loss_ppm=100_000, round_trip_ns=10_000_000)
    assert run_.resent > 50 and min(run_.sender_s, run_.receiver_s, run_.network_s) > 0
    names = [r.name for r in mirror.figures(lambda _line: None, million=5000, repeats=1)]
    assert len(names) == len(set(names)) == 6 and all(name.startswith("mirror.") for name in names)


def test_unknown_part_is_refused() -> None:
    with pytest.raises(IpshareError, match="nonsense"):
        run(["nonsense"])


def test_machine_key_is_a_file_name() -> None:
    here = machine.this()
    assert here.key and all(c.isalnum() or c == "-" for c in here.key)
    assert str(here.cores) in here.describe()


@pytest.mark.parametrize("name", ["ips", "ips2", "gue2"])
def test_configurations_of_the_paths_are_right(name: str, tmp_path) -> None:
    v = paths.VARIANTS[name]
    for node in {v.first, v.last}:
        config = load_text(paths.site(v, node, tmp_path), tmp_path / "site.toml")
        assert config.node.name == node


def test_topology_names_every_link_once() -> None:
    links = paths.topology().links
    assert len({link.name for link in links}) == len(links)
    assert all(end in paths.topology().nodes for link in links for end in (link.a, link.b))


@pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler")
def test_traffic_tool_compiles_and_explains_nothing_it_cannot_do() -> None:
    with flow.tool() as binary:
        assert subprocess.run([binary, "nonsense"], check=False).returncode == 2
