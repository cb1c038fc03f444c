"""A lab comes up complete, several at once, and goes without a trace, however its process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ipshare.config import load
from ipshare.errors import IpshareError
from ipshare.lab import Impairment, Lab, LabSpec, netns, state
from ipshare.lab.internet import global_ip, host_of, internet, site_prefix
from ipshare.lab.netns import NETNS_DIR, inside, process_ids

VARIANTS = {
    "rewrite": LabSpec(),
    "ipip": LabSpec(path="ipip", replies="tunnel"),
    "gue": LabSpec(path="gue", replies="tunnel"),
    "symmetric": LabSpec(replies="rewrite"),
    "combined": LabSpec(combined=True),
    "v4": LabSpec(families=(4,)),
    "v6": LabSpec(families=(6,)),
    "small": LabSpec(mtu={"r2-A": 1400, "r1-r2": 1300}),
    "bad": LabSpec(impair={"r1-r2": Impairment()}),
    "vpp": LabSpec(engine="vpp", mtu={"r2-A": 1400}),
    "vpp symmetric": LabSpec(engine="vpp", replies="rewrite"),
    "vpp combined": LabSpec(engine="vpp", combined=True),
}


def traces(prefix: str) -> list[str]:
    """Whatever of a lab is still on this machine."""
    names = [path.name for path in NETNS_DIR.glob(f"{prefix}*")] if NETNS_DIR.exists() else []
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if prefix in line]
    processes = [p for p in Path("/proc").glob("[0-9]*/cmdline") if prefix in _read(p)]
    files = [str(state.directory(prefix))] if state.directory(prefix).exists() else []
    return names + mounts + list(map(str, processes)) + files


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """A zombie is not."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def mounts(prefix: str) -> int:
    return Path("/proc/self/mountinfo").read_text().count(f"/{prefix}-")


@pytest.mark.parametrize("name", VARIANTS)
def test_up_and_down_twice_leaves_nothing(name: str):
    for _ in range(2):
        with Lab(VARIANTS[name]) as lab:
            assert set(lab.topology.nodes) <= {
                path.name.removeprefix(f"{lab.prefix}-") for path in NETNS_DIR.glob(f"{lab.prefix}-*")
            }
            namespaces = len(list(NETNS_DIR.glob(f"{lab.prefix}-*")))
            assert mounts(lab.prefix) == namespaces, "one mount for each namespace, no copies"
        assert traces(lab.prefix) == []


@pytest.mark.parametrize("name", VARIANTS)
def test_configurations_are_accepted(name: str):
    with Lab(VARIANTS[name]) as lab:
        for node in lab.data_path():
            config = load(lab.site_file(node.name))
            assert config.node.name == node.name
            assert (config.self_endpoint is not None) == ("endpoint" in node.roles)
            assert (config.self_distribution is not None) == ("distribution" in node.roles)


@pytest.mark.parametrize("name", ["rewrite", "symmetric", "combined", "small", "bad"])
def test_every_client_reaches_every_data_path_node_and_servers_their_gateway(name: str):
    spec = VARIANTS[name]
    with Lab(spec) as lab:
        for family in spec.families:
            for client in ("c1", "c3"):
                for node in lab.data_path():
                    lab.run(client, ["ping", "-c1", "-W5", str(lab.address(node.name, family))])
            for site in "AB":
                for server in (f"{site.lower()}1", f"{site.lower()}2"):
                    lab.run(host_of(spec, site), ["ping", "-c1", "-W5", str(global_ip(server, family))])


def test_global_network_arrives_at_both_distribution_points():
    with Lab() as lab:
        for client, point in (("c1", "C"), ("c2", "C"), ("c3", "D")):
            for server, family in (("a1", 4), ("a2", 6)):
                destination = global_ip(server, family).packed
                with lab.capture(point, "r1" if point == "C" else "r2") as capture:
                    lab.run(
                        client, ["ping", "-c1", "-W1", "-t9", str(global_ip(server, family))], check=False
                    )
                assert any(destination in packet[:40] for packet in capture.packets(family)), (client, server)


def test_local_networks_arrive_at_their_end_point():
    with Lab() as lab:
        for site in "AB":
            for family in (4, 6):
                device = "r2" if site == "A" else "r1"
                target = site_prefix(site, family)[77]
                with lab.capture(site, device) as capture:
                    lab.run("c1", ["ping", "-c1", "-W1", "-t9", str(target)], check=False)
                assert any(target.packed in packet[:40] for packet in capture.packets(family))


def test_source_filter_drops_what_is_not_the_nodes_own():
    with Lab(LabSpec(source_filter=("A",))) as lab:
        client, foreign = str(lab.address("c3", 4)), str(global_ip("a1", 4))
        with lab.capture("c3", "r2") as capture:
            lab.run("a1", ["ping", "-c1", "-W1", "-I", foreign, client], check=False)
            lab.run("A", ["ping", "-c1", "-W5", client])
        sources = {packet[12:16] for packet in capture.packets(4)}
        assert lab.address("A", 4).packed in sources
        assert global_ip("a1", 4).packed not in sources


def test_small_link_is_found_by_path_mtu_discovery():
    with Lab(LabSpec(mtu={"A-r2": 1400})) as lab:
        target = str(lab.address("A", 4))
        out = lab.run("c1", ["ping", "-c1", "-W2", "-M", "do", "-s", "1400", target], check=False)
        assert "1400" in out and "100% packet loss" in out
        lab.run("c1", ["ping", "-c1", "-W5", "-M", "do", "-s", "1372", target])


def test_several_labs_at_once():
    with Lab() as one, Lab() as other:
        assert one.prefix != other.prefix
        for lab in (one, other):
            lab.run("c1", ["ping", "-c1", "-W5", str(lab.address("A", 4))])
    assert traces(one.prefix) == traces(other.prefix) == []


def test_after_sigkill_remove_takes_the_rest_away():
    script = (
        "import sys, time\nfrom ipshare.lab import Impairment, Lab, LabSpec\n"
        "lab = Lab(LabSpec(impair={'r1-r2': Impairment()})).__enter__()\n"
        "lab.popen('A', ['sleep', '3600'])\n"
        "print(lab.prefix, flush=True)\nsys.stdin.read()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    victim = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert victim.stdout is not None
    prefix = victim.stdout.readline().strip()
    found = {lab.prefix: lab for lab in state.labs()}
    assert found[prefix].is_alive and found[prefix].owner == victim.pid
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert traces(prefix)
    assert not {lab.prefix: lab for lab in state.labs()}[prefix].is_alive
    inside_it = [pid for path in NETNS_DIR.glob(f"{prefix}-*") for pid in process_ids(path.name)]
    assert len(inside_it) == 2, "the relay and the sleeper outlived their parent"
    assert len(state.remove(prefix)) == 14
    assert not [pid for pid in inside_it if Path(f"/proc/{pid}/ns/net").exists() and is_running(pid)]
    assert traces(prefix) == []
    assert state.remove(prefix) == []


def test_failure_while_coming_up_leaves_nothing():
    def start(lab: Lab, node: str, site: Path) -> None:
        raise RuntimeError(node)

    lab = Lab(start=start)
    with pytest.raises(RuntimeError, match="[ABCD]"):
        lab.__enter__()
    assert traces(lab.prefix) == []


def test_nodes_are_started_with_their_configuration_and_ended():
    started: list[str] = []

    def start(lab: Lab, node: str, site: Path) -> None:
        started.append(node)
        assert f'name = "{node}"' in site.read_text()
        lab.popen(node, ["sleep", "3600"])

    with Lab(start=start) as lab:
        assert sorted(started) == ["A", "B", "C", "D"]
    assert traces(lab.prefix) == []


def namespace_of_thread() -> str:
    return str(Path("/proc/thread-self/ns/net").readlink())


def test_inside_runs_in_the_namespace_and_comes_back():
    here = namespace_of_thread()
    with Lab() as lab:
        there = lab.inside("c1", namespace_of_thread)
        assert there != here == namespace_of_thread()
        with pytest.raises(FileNotFoundError):
            inside(lab.prefix + "-nobody", os.getpid)


def test_unknown_link_is_refused_with_the_names():
    with pytest.raises(IpshareError, match="no link r1-A") as refusal:
        internet(LabSpec(mtu={"r1-A": 1400}))
    assert "A-r2" in refusal.value.hint


def test_who_is_started_while_the_lab_goes_goes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is ended may have started its engine since one looked."""
    late: list[subprocess.Popen[bytes]] = []
    look = state.netns.process_ids

    def then_one_more(name: str) -> list[int]:
        found = look(name)
        if found and not late:
            late.append(lab.popen("c1", ["sleep", "1000"], start_new_session=True))
        return found

    with Lab() as lab:
        lab.popen("c1", ["sleep", "1000"])
        lab._processes.clear()  # as of a lab whose process was killed
        monkeypatch.setattr(state.netns, "process_ids", then_one_more)
        state.remove(lab.prefix)
        monkeypatch.undo()
        assert late[0].wait(30) == -signal.SIGKILL
        lab._processes.clear()


IP_NETNS_LATER = """
import subprocess
from pathlib import Path
from ipshare.lab import netns
subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)  # as after a boot: no /run/netns
netns.create("one")
subprocess.run(["ip", "netns", "add", "two"], check=True)
netns.delete("one")
subprocess.run(["ip", "netns", "del", "two"], check=True)
assert not list(Path("/run/netns").iterdir())
"""


def test_a_name_can_be_removed_though_ip_netns_added_its_first_one_later() -> None:
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", IP_NETNS_LATER]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_directory_of_names_is_one_mount_however_many_labs_there_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(netns, "NETNS_DIR", tmp_path / "names")
    try:
        for _ in range(3):
            netns.create("x")
            netns.delete("x")
        assert [line.split()[4] for line in mountinfo() if str(tmp_path) in line] == [str(tmp_path / "names")]
    finally:
        while any(str(tmp_path) in line for line in mountinfo()):
            subprocess.run(["umount", tmp_path / "names"], check=True)


def mountinfo() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()
