"""An image with VPP in QEMU: the agent starts VPP on cores of its own, a client's TCP connection comes in by
a card that DPDK drives and is translated; hugepages, cpusets and the card are what was asked. A VPP that is
stopped resets the box, and the card, which nobody asks for any more, is the kernel's again.

IPSHARE_APPLIANCE_VPP names the directory of such an image: `make appliance APPLIANCE="--vpp-debs DIRECTORY
--output build/appliance-vpp"`, with vpp-plugin-dpdk among the packages. The box has an IOMMU and three
processors: one for all else, two for VPP.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ipshare.appliance.overlay import SITE
from tests.appliance_net import Talk, World, run, sites, world
from tests.appliance_qemu import BOUND_S, Box, ssh_key

BUILT = os.environ.get("IPSHARE_APPLIANCE_VPP", "")
if not BUILT:
    pytest.skip(
        "VPP IN A BOX NOT TRIED: IPSHARE_APPLIANCE_VPP is not set to the directory of an image with VPP; "
        "make appliance APPLIANCE='--vpp-debs DIRECTORY --output build/appliance-vpp' builds one",
        allow_module_level=True,
    )
IPSHARE = [sys.executable, "-m", "ipshare"]
MACHINE = ("-machine", "q35", "-device", "intel-iommu,aw-bits=48", "-smp", "3", "-m", "2048")
CARD, ADDRESS = "enp0s17", "0000:00:11.0"
"""What the kernel calls the card by which the box reaches its client: an e1000e."""
PAGES, MAIN, WORKER = 96, 1, 2
VPP = f"""
[engine]
kind = "vpp"
counter_cells = 4096
[vpp]
managed = true
main_core = {MAIN}
worker_cores = [{WORKER}]
isolate_cores = true
heap_size = "256MiB"
buffers = 16384
poll_sleep = "1ms"
[[vpp.hugepages]]
count = {PAGES}
[[route]]
prefix = "10.2.0.0/24"
via = "192.0.2.12"
[[interface]]
name = "wan"
addresses = ["192.0.2.1/24"]
"""
DPDK = f'[[vpp.dpdk]]\ndevice = "{CARD}"\nname = "wan"\n'
NETWORK = f"version: 2\nethernets: {{enp0s16: {{dhcp4: true}}, {CARD}: {{}}}}\n"


@dataclass
class Metal:
    world: World
    box: Box
    without_card: Path
    """The site file with VPP over the kernel's device instead."""

    def ask(self, *words: str) -> Any:
        """What a verb says in the box."""
        return json.loads(self.box.ssh(f"ipshare {' '.join(words)} --json"))

    def answers(self) -> str:
        """Who answers a client's connection."""
        talk = Talk(self.world.space("client"), BOUND_S)
        try:
            return talk.ask()
        finally:
            talk.close()

    def driver(self) -> str:
        return self.box.ssh(f"basename $(realpath /sys/bus/pci/devices/{ADDRESS}/driver)").strip()

    def ready(self) -> None:
        """Waits for the agent."""
        self.box.ssh("until systemctl is-active -q ipshare-agent@site; do sleep 1; done")


@contextmanager
def started(place: Path) -> Iterator[Metal]:
    """The box as distribution point, end point B with its devices in a network namespace."""
    with ExitStack() as after:
        net = after.enter_context(world())
        key, files = ssh_key(place), sites(place)
        for name in ("b1", "c1"):
            text = files[name].read_text().replace('to = "A"', 'to = "B"').split("[[channel]]")[0]
            files[name].write_text(text + VPP + DPDK if name == "c1" else text)
            kernels = VPP.replace('name = "wan"', f'name = "host-{CARD}"\nhost = "{CARD}"')
            (place / "without").write_text(text + kernels)
        (place / "c1.yaml").write_text(NETWORK)
        seed = [*IPSHARE, "appliance", "seed", "--hostname", "c1", "--ssh-key", f"{key}.pub"]
        seed += ["--config", str(files["c1"]), "--network", str(place / "c1.yaml")]
        run(*seed, "-o", str(place / "c1.seed"))
        inside = ["ip", "netns", "exec", net.space("b1"), *IPSHARE]
        agent = subprocess.Popen([*inside, "agent", str(files["b1"])])
        after.callback(agent.wait)
        after.callback(subprocess.run, [*inside, "down", str(files["b1"])], check=False)
        image = next(Path(BUILT).glob("*.qcow2"))
        taps = (net.core["c1"],)
        box = Box(place, image, place / "c1.seed", key, name="c1", taps=taps, machine=MACHINE, card="e1000e")
        after.callback(box.cut_power)
        box.power_on()
        yield Metal(net, box, place / "without")


@pytest.fixture(scope="module")
def metal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metal]:
    with started(tmp_path_factory.mktemp("metal")) as metal:
        metal.box.healthy()
        metal.ready()
        yield metal


def test_the_agents_vpp_is_the_only_one(metal: Metal) -> None:
    assert metal.ask("show")["kind"] == "vpp"
    assert metal.box.ssh("systemctl is-enabled vpp.service || true").strip() == "disabled"
    assert len(metal.box.ssh("pgrep -x vpp_main").split()) == 1
    assert metal.box.ssh("systemctl --failed --no-legend").strip() == ""


def test_a_connection_is_translated_by_vpp(metal: Metal) -> None:
    assert metal.answers() == "B"
    counted = metal.ask("counters")
    assert any(row["packets"] for row in counted["bindings"]), counted


def test_hugepages_are_as_many_as_asked_and_vpp_has_some(metal: Metal) -> None:
    """As many as the site file asks, not as VPP's package would have them."""
    words = metal.box.ssh("cat /proc/meminfo").split()
    total, free = (int(words[words.index(f"HugePages_{name}:") + 1]) for name in ("Total", "Free"))
    assert total == PAGES and free < PAGES


def test_vpps_cores_are_nobody_elses(metal: Metal) -> None:
    cores = metal.box.ssh("cd /sys/fs/cgroup/ipshare.slice; cat cpuset.cpus.effective cpuset.cpus.partition")
    assert cores.split() == [f"{MAIN}-{WORKER}", "isolated"]
    # One look at all threads: forks are slow in an emulated box. Kernel threads are in no group; many are
    # bound to a processor.
    each = (
        "cd /proc; grep -sE '^(Name|Cpus_allowed_list):' [0-9]*/task/*/status; grep -s . [0-9]*/task/*/cgroup"
    )
    threads: dict[str, dict[str, str]] = {}
    for line in metal.box.ssh(f"{each}; true").splitlines():
        file, key, value = line.split(":", 2)
        threads.setdefault(file.rpartition("/")[0], {})[key] = value.strip()
    grouped = [one for one in threads.values() if len(one) == 3 and one["0"] != ":/"]
    of_vpp = {one["Name"]: one["Cpus_allowed_list"] for one in grouped if "/ipshare.slice/" in one["0"]}
    assert (of_vpp["vpp_main"], of_vpp["vpp_wk_0"]) == (str(MAIN), str(WORKER))
    others = [one for one in grouped if "/ipshare.slice/" not in one["0"]]
    assert others and {one["Cpus_allowed_list"] for one in others} == {"0"}, others


def test_the_card_is_vfios_and_hw_check_says_so(metal: Metal) -> None:
    assert metal.driver() == "vfio-pci"
    found = metal.ask("hw-check", SITE)
    said = {row["name"]: (row["text"], row["is_good"]) for row in found}
    assert said[f"card {CARD}"] == (f"{ADDRESS} is driven by vfio-pci", True)
    assert said["cores"][1] and said["hugepages of 2 MiB, NUMA node 0"][1]


def test_a_stopped_vpp_resets_the_box_and_the_card_comes_back(metal: Metal) -> None:
    """The site file asks for the card no more: after the start VPP has it over the kernel."""
    metal.box.ssh(f"cat >{SITE}", metal.without_card)
    metal.box.ssh("systemctl stop ipshare-agent@site; sync; pkill -STOP vpp_main")
    metal.box.says("of the VPP of c1 does not advance")
    metal.box.says("this machine is reset")
    metal.box.healthy()
    metal.ready()
    assert metal.driver() == "e1000e"
    assert metal.answers() == "B"
