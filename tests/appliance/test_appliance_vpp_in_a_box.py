"""An image with VPP in QEMU: the agent starts VPP on cores of its own, a client's TCP connection is translated
by it; hugepages, cpusets and a card for vfio-pci are what was asked; a VPP that is stopped resets the box.

IPSHARE_APPLIANCE_VPP names the directory of such an image (`make appliance APPLIANCE="--vpp-debs ..."`). The
box has three processors and an IOMMU: one processor for all else, two for VPP.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.appliance_net import GLOBAL, Talk, World, run, sites, world
from tests.appliance_qemu import BOUND_S, Box, ssh_key

BUILT = os.environ.get("IPSHARE_APPLIANCE_VPP")
pytestmark = pytest.mark.skipif(
    not BUILT,
    reason="VPP IN A BOX NOT TRIED: IPSHARE_APPLIANCE_VPP names no image with VPP; "
    "make appliance APPLIANCE='--vpp-debs DIRECTORY --output build/appliance-vpp' builds it",
)
IPSHARE = [sys.executable, "-m", "ipshare"]
MACHINE = ("-machine", "q35", "-device", "intel-iommu", "-smp", "3", "-m", "2048")
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

    def ask(self, *words: str) -> dict[str, object]:
        found = json.loads(self.box.ssh(f"ipshare {' '.join(words)} --json"))
        assert isinstance(found, dict)
        return found


@contextmanager
def started(place: Path) -> Iterator[Metal]:
    """The box as distribution point, end point B with its devices in a network namespace."""
    with ExitStack() as after:
        net = after.enter_context(world())
        key, files = ssh_key(place), sites(place)
        for name in ("c1", "b1"):
            text = files[name].read_text().replace('to = "A"', 'to = "B"').split("[[channel]]")[0]
            files[name].write_text(text + VPP + DPDK if name == "c1" else text)
        (place / "c1.yaml").write_text(NETWORK)
        seed = [*IPSHARE, "appliance", "seed", "--hostname", "c1", "--ssh-key", f"{key}.pub"]
        seed += ["--config", str(files["c1"]), "--network", str(place / "c1.yaml")]
        run(*seed, "-o", str(place / "c1.seed"))
        inside = ["ip", "netns", "exec", net.space("b1"), *IPSHARE]
        agent = subprocess.Popen([*inside, "agent", str(files["b1"])])
        after.callback(agent.wait)
        after.callback(subprocess.run, [*inside, "down", str(files["b1"])], check=False)
        image = next(Path(str(BUILT)).glob("*.qcow2"))
        taps = (net.core["c1"],)
        box = Box(place, image, place / "c1.seed", key, name="c1", taps=taps, machine=MACHINE, card="e1000e")
        after.callback(box.cut_power)
        box.power_on()
        yield Metal(net, box)


@pytest.fixture(scope="module")
def metal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metal]:
    with started(tmp_path_factory.mktemp("metal")) as metal:
        metal.box.healthy()
        yield metal
