"""The machine under a VPP, on a made tree with a kernel that answers in it: hugepages, cards, cores."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ipshare.appliance import cores, devices, hugepages, metal, overlay
from ipshare.appliance.machine import Finding, Machine
from ipshare.engine.vpp import cards as on_pci
from ipshare.engine.vpp.slice import SCOPE, SLICE, cpus, way_in
from ipshare.errors import Refused
from ipshare.model import Card, Hugepages, Metal
from ipshare.net.facts import reached_by

MIB = 1 << 20
WAN, LAN, MLX, OTHER = "0000:03:00.0", "0000:03:00.1", "0000:04:00.0", "0000:05:00.0"
METAL = Metal(
    1,
    (2, 3),
    True,
    (Hugepages(2 * MIB, 64, 0), Hugepages(2 * MIB, 64, 1)),
    (Card(WAN, "wan", 2, 0, 0, 0), Card("ens5", "", 0, 0, 0, 0)),
)


@dataclass(frozen=True, slots=True)
class Kernel(Machine):
    """Answers in the files, as Linux does. `most`: hugepages that a node gives. `partition`: what it makes of
    a wish for isolation. `takes`: whether vfio-pci takes a card."""

    most: int = 1000
    partition: str = "isolated"
    takes: bool = True
    fails: str = ""
    commands: list[tuple[str, ...]] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    def write(self, path: Path, text: str) -> str:
        self.written.append(str(path.relative_to(self.root)))
        if path.name == "nr_hugepages":
            text = str(min(int(text), self.most))
        if path.name == "cpuset.cpus.partition":
            text = self.partition if text == "isolated" else text
        if path.name == "unbind":
            self._unbind(text)
            return ""
        if path.name == "drivers_probe":
            self._probe(text)
            return ""
        return Machine.write(self, path, text)

    def run(self, words: Sequence[str]) -> str:
        self.commands.append(tuple(words))
        if self.fails and self.fails in words:
            return "no such unit"
        match words:
            case ["modprobe", name]:
                (self.sys / "bus/pci/drivers" / name).mkdir(parents=True)
            case ["systemctl", "set-property", "--runtime", unit, cores]:
                group = self.sys / "fs/cgroup" / unit
                group.mkdir(exist_ok=True)
                (group / "cpuset.cpus").write_text(cores.removeprefix("AllowedCPUs="))
                (group / "cpuset.cpus.partition").touch()
        return ""

    def _unbind(self, address: str) -> None:
        card = self.sys / "bus/pci/devices" / address
        (card / "driver").unlink()
        for path in list(card.glob("net/*")):
            shutil.rmtree(self.sys / "class/net" / path.name)
            shutil.rmtree(path)

    def _probe(self, address: str) -> None:
        card = self.sys / "bus/pci/devices" / address
        wanted = (card / "driver_override").read_text().strip() or "ixgbe"
        if self.takes or wanted != "vfio-pci":
            (card / "driver").symlink_to(self.sys / "bus/pci/drivers" / wanted)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """Eight processors, two NUMA nodes, three cards: ens4 and ens5 of ixgbe, one of mlx5_core."""
    made = Kernel(tmp_path)
    sys = tmp_path / "sys"
    for path, text in {
        "sys/devices/system/cpu/online": "0-7\n",
        "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory\n",
        "proc/sys/vm/compact_memory": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for node in (0, 1):
        for size in (2048, 1048576):
            pages = sys / f"devices/system/node/node{node}/hugepages/hugepages-{size}kB"
            pages.mkdir(parents=True)
            (pages / "nr_hugepages").write_text("0\n")
        (pages.parent.parent / "meminfo").write_text(f"Node {node} MemFree:     262144 kB\n")
    for number, (address, driver, name) in enumerate(
        [(WAN, "ixgbe", "ens4"), (LAN, "ixgbe", "ens5"), (MLX, "mlx5_core", "ens6")]
    ):
        card = sys / "bus/pci/devices" / address
        (card / "net" / name).mkdir(parents=True)
        (sys / "bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (card / "driver").symlink_to(sys / "bus/pci/drivers" / driver)
        group = sys / f"kernel/iommu_groups/{number}"
        (group / "devices" / address).mkdir(parents=True)
        (card / "iommu_group").symlink_to(group)
        (sys / "class/net" / name).mkdir(parents=True)
        (sys / "class/net" / name / "device").symlink_to(card)
    (tmp_path / "run").mkdir()
    return made


def said(found: list[Finding]) -> str:
    return "\n".join(f"{finding.is_good} {finding.name}: {finding.text}" for finding in found)


def test_all_of_it_once_and_again(kernel: Kernel) -> None:
    assert all(f.is_good for f in metal.ask(METAL, kernel, {})), said(metal.ask(METAL, kernel, {}))
    assert not kernel.commands and not kernel.written, "asking changes nothing"
    first = metal.prepare(METAL, kernel, {})
    assert [finding.is_good for finding in first] == [True] * 5, said(first)
    nodes = kernel.sys / "devices/system/node"
    assert (nodes / "node1/hugepages/hugepages-2048kB/nr_hugepages").read_text() == "64"
    assert on_pci.driver(WAN, kernel.sys) == on_pci.driver(LAN, kernel.sys) == "vfio-pci"
    assert (kernel.sys / "fs/cgroup" / SLICE / "cpuset.cpus").read_text() == "1-3"
    assert (kernel.sys / "fs/cgroup/system.slice/cpuset.cpus").read_text() == "0,4-7"
    kernel.written.clear()
    again = metal.prepare(METAL, kernel, {})
    assert [finding.is_good for finding in again] == [True] * 5, said(again)
    assert [path for path in kernel.written if "fs/cgroup" not in path] == []
    assert all(finding.is_good for finding in metal.ask(METAL, kernel, {}))


# ---- hugepages ------------------------------------------------------------------


def test_what_the_kernel_does_not_give_is_said_and_memory_compacted(kernel: Kernel) -> None:
    short = replace(kernel, most=40)
    (one, two) = metal.prepare(Metal(hugepages=METAL.hugepages), short, {})
    assert (one.is_good, two.is_good) == (False, False)
    assert two.name == "hugepages of 2 MiB, NUMA node 1"
    assert two.text.startswith("64 asked, 40 there: 24 missing (")
    assert (short.root / "proc/sys/vm/compact_memory").read_text() == "1"


def test_more_than_asked_stay(kernel: Kernel) -> None:
    file = kernel.sys / "devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
    file.write_text("100\n")
    (found,) = hugepages.allocate(kernel, (Hugepages(2 * MIB, 64, 0),))
    assert found == Finding(
        "hugepages of 2 MiB, NUMA node 0", "100 there, more than asked: left as they are", True
    )
    assert file.read_text() == "100\n"


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Hugepages(2 * MIB, 1, 2), "1 asked, and there is no NUMA node 2"),
        (Hugepages(16 * MIB, 1, 0), "no pages of that size (it has: 2,048 KiB, 1,048,576 KiB)"),
    ],
)
def test_what_this_machine_cannot_have(kernel: Kernel, wanted: Hugepages, text: str) -> None:
    for look in (hugepages.allocate, hugepages.ask):
        (found,) = look(kernel, (wanted,))
        assert found.is_good is False and text in found.text


def test_whether_there_is_memory_for_them(kernel: Kernel) -> None:
    (fits, does_not) = hugepages.ask(kernel, (Hugepages(2 * MIB, 128, 0), Hugepages(2 * MIB, 129, 1)))
    assert fits.is_good and "memory for the others is free now" in fits.text
    assert does_not.is_good is False and "memory for 128 is free" in does_not.text


def test_a_kernel_without_numa(tmp_path: Path) -> None:
    pages = tmp_path / "sys/kernel/mm/hugepages/hugepages-2048kB"
    pages.mkdir(parents=True)
    (pages / "nr_hugepages").write_text("0\n")
    (found,) = hugepages.allocate(Kernel(tmp_path), (Hugepages(2 * MIB, 8, 0),))
    assert found.is_good and (pages / "nr_hugepages").read_text() == "8"


def test_this_machines_own_kernel() -> None:
    """A few pages more than there are, and as many as before afterwards."""
    machine = Machine()
    file = hugepages.place(machine, Hugepages(2 * MIB, 1, 0)) / "nr_hugepages"
    before = machine.read(file)
    if not before or machine.write(file, before):
        pytest.skip("HUGEPAGES NOT ALLOCATED: the kernel's nr_hugepages cannot be written here")
    wanted = Hugepages(2 * MIB, int(before) + 3, 0)
    try:
        (found,) = hugepages.allocate(machine, (wanted,))
        here = int(machine.read(file))
    finally:
        file.write_text(before)
    assert found.is_good is (here == wanted.count), found
    assert f"{here} there" in found.text
    assert machine.read(file) == before


# ---- cards ----------------------------------------------------------------------


def given(kernel: Kernel, *names: str, used: dict[str, str] | None = None) -> list[Finding]:
    return list(devices.give(kernel, tuple(Card(name, "", 0, 0, 0, 0) for name in names), used or {}))


@pytest.mark.parametrize("device", [WAN, "ens4"])
def test_the_card_by_which_the_machine_is_reached_stays(kernel: Kernel, device: str) -> None:
    (found,) = given(kernel, device, used={"ens4": "has 192.0.2.1/24"})
    assert found.is_good is False and not kernel.written
    assert f"{WAN} stays with the kernel: this machine is reached by it (ens4 has 192.0.2.1/24)" in found.text


def test_so_does_one_below_a_bond_and_a_vlan(kernel: Kernel) -> None:
    net = kernel.sys / "class/net"
    for above, below in (("bond0", "ens5"), ("bond0.7", "bond0")):
        (net / above).mkdir()
        (net / below / f"upper_{above}").symlink_to(net / above)
    (found,) = given(kernel, "ens5", used={"bond0.7": "has the default route"})
    assert found.is_good is False and "(bond0.7 has the default route)" in found.text


def test_a_name_that_is_gone_is_remembered(kernel: Kernel) -> None:
    assert given(kernel, "ens5")[0].text == f"{LAN} was driven by ixgbe, now by vfio-pci"
    card, record = Card("ens5", "", 0, 0, 0, 0), kernel.root / "run/ipshare-cards.json"
    assert on_pci.addresses([card], kernel.sys, record) == {"ens5": LAN}
    (kernel.sys / "class/net/ens5").mkdir()
    (kernel.sys / "class/net/ens5/device").symlink_to(kernel.sys / "bus/pci/devices" / WAN)
    assert on_pci.address_of(card, kernel.sys, record) == LAN, "another card has got the name since"
    record.unlink()
    assert on_pci.address_of(card, kernel.sys, record) == WAN
    with pytest.raises(Refused, match="ens9 is no network card"):
        on_pci.addresses([replace(card, device="ens9")], kernel.sys, record)


def test_a_card_of_virtio_is_above_its_device(kernel: Kernel) -> None:
    below = kernel.sys / "bus/pci/devices" / OTHER / "virtio3"
    (below / "net/eth0").mkdir(parents=True)
    (kernel.sys / "class/net/eth0").mkdir()
    (kernel.sys / "class/net/eth0/device").symlink_to(below)
    assert on_pci.address_of(Card("eth0", "", 0, 0, 0, 0), kernel.sys, kernel.root / "none") == OTHER
    (found,) = given(kernel, OTHER, used={"eth0": "has 192.0.2.1/24"})
    assert found.is_good is False and "reached by it" in found.text


def test_cards_that_cannot_be_given_away(kernel: Kernel) -> None:
    (none, twice) = given(kernel, "0000:99:00.0", "ens9")
    assert none.text == twice.text == "there is no such card on PCI"
    (_, twice) = given(kernel, MLX, "ens6")
    assert twice.is_good is False and f"{MLX} is {MLX} too" in twice.text
    (kernel.sys / f"kernel/iommu_groups/0/devices/{LAN}").mkdir()
    assert f"{LAN} is in the same IOMMU group and driven by ixgbe" in given(kernel, WAN)[0].text
    (kernel.sys / "bus/pci/devices" / LAN / "iommu_group").unlink()
    assert "no IOMMU" in given(kernel, LAN)[0].text
    assert not kernel.written
    unsafe = kernel.sys / "module/vfio/parameters/enable_unsafe_noiommu_mode"
    unsafe.parent.mkdir(parents=True)
    unsafe.write_text("Y\n")
    assert given(kernel, LAN)[0].is_good, "somebody has said that it may be unsafe"


def test_a_driver_that_stays_and_one_that_refuses(kernel: Kernel) -> None:
    (stays,) = given(kernel, MLX)
    assert stays.is_good and stays.text == f"{MLX} is driven by mlx5_core" and not kernel.written
    refuses = replace(kernel, takes=False)
    (found,) = given(refuses, WAN)
    assert found.is_good is False and "vfio-pci did not take it" in found.text
    assert on_pci.driver(WAN, kernel.sys) == "ixgbe", "it is the kernel's again"
    assert (kernel.sys / "bus/pci/devices" / WAN / "driver_override").read_text() == "\n"
    shutil.rmtree(kernel.sys / "bus/pci/drivers/vfio-pci")
    (found,) = given(replace(kernel, fails="modprobe"), WAN)
    assert found.text == f"{WAN} stays: no such unit"


# ---- cores ----------------------------------------------------------------------


def test_isolated_and_given_back(kernel: Kernel) -> None:
    wanted = replace(METAL, hugepages=(), cards=())
    groups = kernel.sys / "fs/cgroup"
    assert way_in(wanted, groups) == ()
    (found,) = cores.separate(kernel, wanted)
    assert found == Finding("cores", "1-3 are VPP's, 0,4-7 everything else's: isolated", True)
    assert kernel.commands[0] == ("systemctl", "start", SLICE)
    assert way_in(wanted, groups) == SCOPE
    assert way_in(replace(wanted, worker_cores=(5,)), groups) == ()
    assert way_in(replace(wanted, is_isolated=False), groups) == ()
    found = list(cores.separate(kernel, replace(wanted, is_isolated=False)))[-1]
    assert found == Finding("cores", "isolated no more: every core is everybody's", None)
    assert {path.read_text() for path in groups.glob("*/cpuset.cpus")} == {""}
    assert (groups / SLICE / "cpuset.cpus.partition").read_text() == "member"
    assert list(cores.separate(kernel, Metal())) == []


@pytest.mark.parametrize(
    ("partition", "text"),
    [
        ("isolated invalid (Cpu list in cpuset.cpus not exclusive)", "not exclusive"),
        ("member", "the kernel says member"),
    ],
)
def test_a_kernel_that_refuses_to_isolate(kernel: Kernel, partition: str, text: str) -> None:
    (found,) = cores.separate(replace(kernel, partition=partition), METAL)
    assert found.is_good and "separated, not isolated" in found.text and text in found.text
    assert (kernel.sys / "fs/cgroup" / SLICE / "cpuset.cpus.partition").read_text() == "member"
    assert (kernel.sys / "fs/cgroup/user.slice/cpuset.cpus").read_text() == "0,4-7"


def test_cores_that_are_not_there(kernel: Kernel) -> None:
    (found,) = cores.separate(kernel, replace(METAL, worker_cores=(2, 8, 9)))
    assert found == Finding("cores", "8-9 asked, and there are 0-7", False)
    assert not kernel.commands
    (found,) = cores.separate(kernel, replace(METAL, main_core=0, worker_cores=tuple(range(1, 8))))
    assert found.is_good is False and "none is left for everything else" in found.text
    (found,) = metal.ask(Metal(worker_cores=(9,)), kernel, {})
    assert found.text == "9 asked, and there are 0-7"


def test_half_a_separation_is_undone(kernel: Kernel) -> None:
    (found,) = cores.separate(replace(kernel, fails="machine.slice"), METAL)
    assert found.is_good is False and found.text.endswith("AllowedCPUs=0,4-7: no such unit")
    assert {path.read_text() for path in (kernel.sys / "fs/cgroup").glob("*/cpuset.cpus")} == {""}


def test_control_groups_of_version_1(kernel: Kernel) -> None:
    (kernel.sys / "fs/cgroup/cgroup.controllers").unlink()
    (found,) = cores.separate(kernel, METAL)
    assert found.is_good is False and "no cpusets of version 2" in found.text and not kernel.commands


@pytest.mark.parametrize(("text", "numbers"), [("", set()), ("3", {3}), ("0,2-4,7", {0, 2, 3, 4, 7})])
def test_lists_of_the_kernel(text: str, numbers: set[int]) -> None:
    assert cpus(text) == numbers
    assert cores.listed(numbers) == text


# ---- the unit -------------------------------------------------------------------


def test_the_unit_comes_before_the_agent_and_never_stops_a_start() -> None:
    text = overlay.PLAIN[f"{overlay.UNITS}/ipshare-hugepages.service"]
    assert "Before=ipshare-agent@site.service" in text
    assert "ExecStart=-/usr/bin/ipshare vpp prepare --last-good /etc/ipshare/site.toml" in text
    assert f"{overlay.WANTED}/ipshare-hugepages.service" in overlay.LINKS
    assert "Requires" not in text and "Requires=ipshare-hugepages" not in overlay.AGENT


def test_systemd_takes_every_line_of_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("UNIT NOT VERIFIED: no systemd-analyze (Debian: systemd)")
    copy = tmp_path / "ipshare-hugepages.service"
    text = overlay.PLAIN[f"{overlay.UNITS}/{copy.name}"]
    copy.write_text(text.replace("/usr/bin/ipshare", "/bin/true"))
    command = ["systemd-analyze", "verify", copy]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if copy.name in line]) == (0, [])


# ---- how the machine is reached -------------------------------------------------


class Netlink:
    """Five devices: loopback, one with an address, one with a link-local one, one that is the way out."""

    def links(self) -> dict[str, dict[str, int]]:
        return {name: {"index": number} for number, name in enumerate(["lo", "ens4", "ens5", "ens6", "ens7"])}

    def addresses(self) -> list[tuple[int, str]]:
        return [(0, "127.0.0.1/8"), (0, "::1/128"), (1, "192.0.2.1/24"), (2, "fe80::1/64"), (9, "10.0.0.1/8")]

    def routes(self, family: int, table: int) -> list[dict[str, object]]:
        assert table == 254
        found = {4: ("10.0.0.0/8", 4), 6: ("::/0", 3)}[family]
        return [{"prefix": found[0], "oif": found[1]}]


def test_by_which_cards_the_machine_is_reached() -> None:
    found = reached_by(Netlink())  # type: ignore[arg-type]
    assert found == {"ens4": "has 192.0.2.1/24", "ens6": "has the default route"}
