"""The pure parts of the VPP driver: where files are found, startup.conf, retval texts, what answers hold."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from ipshare import __version__
from ipshare.agent.vpp import VppDataPath, settings
from ipshare.config import load_text
from ipshare.core import lib
from ipshare.engine.failures import ImageRefused
from ipshare.engine.vpp import Install, Settings, VppEngine
from ipshare.engine.vpp import find as finding
from ipshare.engine.vpp.client import ApiRefused, Client
from ipshare.engine.vpp.control import Control, made
from ipshare.engine.vpp.find import PLUGIN, api_files, find
from ipshare.engine.vpp.launch import said
from ipshare.engine.vpp.retval import Retval, text
from ipshare.engine.vpp.startup import STATS_OWN, startup_conf, statseg_bytes
from ipshare.errors import EngineError, NoPrivilege, NotRunning
from ipshare.model import Metal
from tests.cases.metal_mistakes import GOOD_METAL
from tests.vpp_sites import site

MB = 1 << 20


def touched(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o755)


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed VPP without our plugin, the only one there is."""
    root = tmp_path / "usr"
    touched(root / "bin" / "vpp", root / "lib" / "some-linux" / "vpp_plugins" / "ping_plugin.so")
    touched(root / "share/vpp/api/core/vpe.api.json", root / "share/vpp/api/plugins/lcp.api.json")
    monkeypatch.setenv("PATH", str(root / "bin"))
    monkeypatch.delenv("IPSHARE_VPP", raising=False)
    monkeypatch.delenv("IPSHARE_VPP_PLUGINS", raising=False)
    monkeypatch.setattr(finding.ipshare, "__file__", str(tmp_path / "checkout" / "ipshare" / "__init__.py"))
    return root


def test_a_vpp_is_found_by_path_and_the_rest_by_its_prefix(prefix: Path) -> None:
    found = find()
    assert found.binary == prefix / "bin" / "vpp"
    assert found.plugin_dirs == (prefix / "lib" / "some-linux" / "vpp_plugins",)
    assert found.plugin is None and found.api_dirs == (prefix / "share" / "vpp" / "api",)
    assert {file.name for file in api_files()} == {"vpe.api.json", "lcp.api.json"}


def test_a_vpp_that_is_named_comes_first(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, third = tmp_path / "other" / "bin" / "vpp", tmp_path / "third" / "bin" / "vpp"
    touched(other, third)
    monkeypatch.setenv("IPSHARE_VPP", str(other))
    assert find().binary == other
    assert find(third).binary == third
    monkeypatch.setenv("IPSHARE_VPP", str(tmp_path / "gone"))
    with pytest.raises(NotRunning, match="gone does not exist"):
        find()


def test_no_vpp(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotRunning, match="no vpp on PATH") as missing:
        find()
    assert "IPSHARE_VPP" in missing.value.hint
    with pytest.raises(NotRunning, match=r"no \.api\.json files"):
        api_files([prefix / "bin"])


def test_our_plugin_installed_beside_vpps(prefix: Path) -> None:
    touched(prefix / "lib" / "some-linux" / "vpp_plugins" / PLUGIN)
    found = find()
    assert found.plugin == prefix / "lib" / "some-linux" / "vpp_plugins" / PLUGIN
    assert len(found.plugin_dirs) == 1


@pytest.mark.parametrize("tree", ["build", "build/vpp"])
def test_our_plugin_in_the_build_tree_brings_its_api(prefix: Path, tmp_path: Path, tree: str) -> None:
    built = tmp_path / "checkout" / tree
    touched(built / "lib" / "vpp_plugins" / PLUGIN, built / "out" / "ipshare" / "ipshare.api.json")
    found = find()
    assert found.plugin == built / "lib" / "vpp_plugins" / PLUGIN
    assert found.plugin_dirs[-1] == built / "lib" / "vpp_plugins"
    assert "ipshare.api.json" in {file.name for file in api_files()}


def test_a_plugin_that_is_named_comes_first(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = prefix / "lib" / "some-linux" / "vpp_plugins"
    touched(installed / PLUGIN, tmp_path / "mine" / PLUGIN, tmp_path / "configured" / PLUGIN)
    monkeypatch.setenv("IPSHARE_VPP_PLUGINS", str(tmp_path / "mine"))
    assert find().plugin == tmp_path / "mine" / PLUGIN
    assert find(plugin_path=tmp_path / "configured").plugin == tmp_path / "configured" / PLUGIN


def test_the_api_of_the_plugin_that_runs_counts(prefix: Path, tmp_path: Path) -> None:
    """Two files of one name, one of an older plugin that is installed: the later directory's."""
    older, newer = prefix / "share/vpp/api/plugins/ipshare.api.json", tmp_path / "new" / "ipshare.api.json"
    touched(older, newer)
    assert newer in api_files([prefix / "share/vpp/api", tmp_path / "new"])
    assert older not in api_files([prefix / "share/vpp/api", tmp_path / "new"])


# ---- startup.conf --------------------------------------------------------------

HERE = Install(Path("/v/bin/vpp"), (Path("/v/plugins"), Path("/ours")), Path("/ours") / PLUGIN, ())


def test_startup_conf() -> None:
    conf = startup_conf(
        Settings(Path("/run/node"), workers=2, counter_cells=1000, extra="cpu { main-core 0 }"), HERE, {}
    )
    lines = conf.splitlines()
    assert "socksvr { socket-name /run/node/api.sock }" in lines
    assert "cpu { workers 2 }" in lines and lines[-1] == "cpu { main-core 0 }"
    assert "  path /v/plugins:/ours" in lines and "  plugin default { disable }" in lines
    assert f"  plugin {PLUGIN} {{ enable }}" in lines
    assert "dpdk" not in conf and "nodaemon" in conf and "poll-sleep-usec 100" in conf
    assert conf.count("{") == conf.count("}")


def test_startup_conf_of_a_machine_of_ones_own() -> None:
    """Cores, hugepages and cards of a site file; without them nothing of it, as before."""
    config = load_text(GOOD_METAL)
    assert config.engine.workers == 2
    conf = startup_conf(settings(config), HERE, {"0000:03:00.0": "0000:03:00.0", "ens5": "0000:04:00.0"})
    lines = conf.splitlines()
    assert "cpu { main-core 1 corelist-workers 2,3 }" in lines
    assert "buffers { buffers-per-numa 16384 }" in lines, "VPP takes hugepages, or small ones"
    assert any(line.startswith("statseg { size 128M ") for line in lines)
    at = lines.index("dpdk {")
    assert lines[at + 1 : at + 4] == [
        "  dev 0000:03:00.0 { name wan num-rx-queues 2 }",
        "  dev 0000:04:00.0",
        "}",
    ]
    assert "  plugin dpdk_plugin.so { enable }" in lines and conf.count("{") == conf.count("}")
    bare = startup_conf(Settings(Path("/n")), HERE, {})
    assert "dpdk" not in bare and "cpu" not in bare and "buffers { page-size default " in bare


def test_the_stats_segment_has_room_for_workers_that_are_given_by_core() -> None:
    by_core = Settings(Path("/n"), metal=Metal(worker_cores=(2, 3, 4)))
    assert startup_conf(by_core, HERE, {}) == startup_conf(Settings(Path("/n"), workers=3), HERE, {}).replace(
        "cpu { workers 3 }", "cpu { corelist-workers 2,3,4 }"
    )
    assert not by_core.floats and not Settings(Path("/n"), metal=Metal(main_core=0)).floats
    assert Settings(Path("/n")).floats and not Settings(Path("/n"), workers=1).floats


def test_sockets_may_lie_elsewhere() -> None:
    settings = Settings(Path("/run/node"), api_socket=Path("/a/api.sock"), stats_socket=Path("/b/stats.sock"))
    conf = startup_conf(settings, HERE, {})
    assert "socket-name /a/api.sock" in conf and "socket-name /b/stats.sock" in conf
    assert "cpu" not in conf


def test_vpps_do_not_share_memory() -> None:
    first, second = Settings(Path("/run/a")), Settings(Path("/run/b"))
    assert first.prefix != second.prefix == Settings(Path("/run/b"), workers=3).prefix


@pytest.mark.parametrize(("cells", "workers"), [(0, 0), (1 << 16, 0), (1 << 20, 2), (3_000_000, 7)])
def test_the_stats_segment_holds_all_cells_of_all_threads(cells: int, workers: int) -> None:
    assert statseg_bytes(cells, workers) - STATS_OWN >= cells * 16 * (workers + 1)
    settings = Settings(Path("/n"), counter_cells=cells, workers=workers)
    assert f"size {-(-statseg_bytes(cells, workers) // MB)}M" in startup_conf(settings, HERE, {})
    settings = Settings(Path("/n"), counter_cells=cells, statseg_bytes=7 * MB)
    assert "size 7M" in startup_conf(settings, HERE, {})


def test_without_our_plugin() -> None:
    assert PLUGIN not in startup_conf(Settings(Path("/n"), is_ours_enabled=False), HERE, {})


def test_what_vpp_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert said(log) == ""
    log.write_text("vat-plug/load  [error ]: x\n\nfirst\nunknown   input `x'\nreceived signal SIGTERM\n")
    assert said(log) == "first; unknown input `x'"
    assert said(log, 1) == "unknown input `x'"


# ---- answers ---------------------------------------------------------------------


def test_numbers_have_names() -> None:
    assert text(Retval.NO_SUCH_ENTRY) == "no such entry (-6)"
    assert text(-9999) == "error -9999"


def test_packets_of_an_answer() -> None:
    data = bytes([0, 0, 0, 2]) + b"ab" + bytes([1, 0, 1, 0]) + b"x" * 256 + bytes([0, 0, 0, 0])
    found = made(data, 3)
    assert [(one.kind, one.data) for one in found] == [(0, b"ab"), (1, b"x" * 256), (0, b"")]
    assert made(b"", 0) == []


@pytest.mark.parametrize(("data", "count"), [(b"", 1), (b"\0\0\0", 1), (b"\0\0\0\2a", 1), (b"\0\0\0\1a", 2)])
def test_packets_cut_short(data: bytes, count: int) -> None:
    with pytest.raises(EngineError, match="cut short"):
        made(data, count)


class Answering:
    """A client that refuses with what it is given, again and again; ``calls`` counts."""

    timeout_s = 0.05

    def __init__(self, *refusals: tuple[int, dict[str, int]], then: object = None) -> None:
        self.refusals, self.then, self.calls = list(refusals), then, 0

    def call(self, name: str, **fields: object) -> object:
        self.calls += 1
        if not self.refusals:
            return self.then
        retval, reply = self.refusals.pop(0) if len(self.refusals) > 1 or self.then else self.refusals[0]
        raise ApiRefused(f"VPP refused {name}: {text(retval)}", retval=retval, reply=SimpleNamespace(**reply))


@pytest.mark.parametrize(
    ("retval", "reply", "kind", "words"),
    [
        (-7, {"error": lib.IPS_LOAD_OUTSIDE, "section": 5, "index": 17}, ImageRefused, "binding 17: "),
        (-7, {"error": lib.IPS_LOAD_BAD_DIGEST, "section": 0, "index": 0}, ImageRefused, "digest"),
        (-7, {"error": lib.IPS_LOAD_NO_MEMORY, "section": 0, "index": 0}, ImageRefused, "memory"),
        (-11, {"error": 13, "section": 0, "index": 0}, EngineError, "Permission denied"),
        (-144, {"error": 0, "section": 0, "index": 0}, ApiRefused, "init failed"),
    ],
)
def test_why_an_image_was_refused(
    tmp_path: Path, retval: int, reply: dict[str, int], kind: type[Exception], words: str
) -> None:
    control = Control(Answering((retval, reply)), scratch=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(kind, match=words):
        control.prepare(b"image")
    assert list(tmp_path.iterdir()) == []


def test_what_another_user_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member of VPP's group may send messages, and finds files of root's."""
    wrote = namedtuple("wrote", "generation")(3)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(NoPrivilege, match="may not read"):
        Control(Answering(then=wrote), scratch=tmp_path).dump()  # type: ignore[arg-type]


def test_a_busy_vpp_is_asked_again(tmp_path: Path) -> None:
    prepared = namedtuple("prepared", "generation took_ns")(7, 9)
    client = Answering(*[(int(Retval.BUSY), {})] * 3, then=prepared)
    assert Control(client, scratch=tmp_path).prepare(b"image") == (7, 9)  # type: ignore[arg-type]
    assert client.calls == 4


def test_a_vpp_that_stays_busy_is_said_to_be() -> None:
    with pytest.raises(ApiRefused, match="busy"):
        Control(Answering((int(Retval.BUSY), {}))).commit(7)  # type: ignore[arg-type]


# ---- who answers -------------------------------------------------------------------


class Papi:
    """What the client uses of vpp_papi: a message table, the messages of the files, and the calls."""

    def __init__(self, table: dict[str, str], files: dict[str, str], version: str = __version__) -> None:
        self.transport = SimpleNamespace(message_table={f"{name}_{crc}": 1 for name, crc in table.items()})
        self.messages = {name: SimpleNamespace(crc=f"0x{crc}") for name, crc in files.items()}
        hello = SimpleNamespace(retval=0, version=version, boot_id=b"\1" * 16)
        shown = SimpleNamespace(retval=0, version="26.06-release")
        calls = {"ipshare_hello": lambda **_: hello, "show_version": lambda **_: shown}
        self.api = SimpleNamespace(**{name: calls[name] for name in table if name in calls})


def client_of(papi: Papi) -> Client:
    client = Client("/nowhere", api_dirs=[])
    client._papi = papi
    return client


TABLE = {"ipshare_hello": "11111111", "show_version": "22222222", "a": "33333333", "b": "44444444"}


def test_messages_that_differ_are_counted_and_named() -> None:
    client_of(Papi(TABLE, TABLE | {"not_loaded": "1"}))._check_crcs()
    files = dict.fromkeys(TABLE, "99999999")
    with pytest.raises(EngineError) as refused:
        client_of(Papi(TABLE, files))._check_crcs()
    assert "a (VPP has 33333333, the files have 99999999)" in refused.value.message
    assert refused.value.message.startswith("VPP 26.06-release") and "and 1 more" in refused.value.message


def test_another_version_of_the_plugin() -> None:
    assert client_of(Papi(TABLE, TABLE))._identity() == "01" * 16
    with pytest.raises(EngineError, match=r"version 9\.9 of the ipshare plugin, this is ipshare"):
        client_of(Papi(TABLE, TABLE, "9.9"))._identity()


def test_no_plugin() -> None:
    without = {name: crc for name, crc in TABLE.items() if name != "ipshare_hello"}
    with pytest.raises(EngineError, match=r"VPP 26\.06-release runs without the ipshare plugin"):
        client_of(Papi(without, TABLE))._identity()


def test_more_next_hops_than_vpp_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' packets are looked up: no reason to refuse a configuration."""
    config = site(
        ('name = "A"\n', 'name = "A"\nnext_hop = ["192.0.2.9"]\n'),
        ('name = "B"\n', 'name = "B"\nnext_hop = ["192.0.2.1"]\n'),
    )
    engine = VppEngine("/nowhere/api", "/nowhere/stats")

    def full(hop: object, table: int) -> int:
        if str(hop) == "192.0.2.1":
            raise ApiRefused("", retval=Retval.LIMIT_EXCEEDED)
        return 7

    monkeypatch.setattr(engine.control, "add_next_hop", full)
    tables = VppDataPath().tables(engine, config)
    vias = dict(zip(tables.endpoint_names, tables.endpoints["via"].tolist(), strict=True))
    assert vias["A"] == 7 and vias["B"] == 0
