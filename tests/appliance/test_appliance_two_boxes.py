"""Two images in QEMU as distribution point and end point, a seed each: a client's TCP connection goes through
both, and stays while its address is remapped to an end point of this machine. Then the distribution point is
updated, and still knows what was remapped; its next remap goes back.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.appliance_built import image, made
from tests.appliance_net import GLOBAL, NETWORKS, Talk, World, run, sites, world
from tests.appliance_qemu import BOUND_S, Box, ssh_key

IPSHARE = [sys.executable, "-m", "ipshare"]


@dataclass
class Pair:
    world: World
    c1: Box
    a1: Box
    nodes: list[str]
    """Options of `ipshare remap`: whom it talks to."""
    journal: Path

    def remap(self, *words: str) -> subprocess.Popen[str]:
        words = ("remap", *words, *self.nodes, "--journal", str(self.journal), "--json")
        return subprocess.Popen([*IPSHARE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def talk(self) -> Talk:
        return Talk(self.world.space("client"), BOUND_S)

    def once(self) -> str:
        """Who answers a new connection."""
        talk = self.talk()
        try:
            return talk.ask()
        finally:
            talk.close()


def forwarded(box: Box, place: Path, after: ExitStack) -> None:
    """The box's agent's control socket at `place`, through SSH."""
    there = f"/run/ipshare/{box.name}/agent.sock"
    place.parent.mkdir()
    ssh = box.command()
    forward = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"{place}:{there}"]
    tunnel = subprocess.Popen([*ssh[:-1], *forward, ssh[-1]])
    after.callback(tunnel.wait)
    after.callback(tunnel.kill)
    end = time.monotonic() + BOUND_S
    while not place.exists():
        assert tunnel.poll() is None and time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    place = tmp_path_factory.mktemp("pair")
    with ExitStack() as after:
        net = after.enter_context(world())
        key, files = ssh_key(place), sites(place)
        run(*IPSHARE, "pair", "key", str(place / "channel.key"))
        boxes = []
        for name, taps in (("c1", (net.core["c1"],)), ("a1", (net.core["a1"], net.devices))):
            (place / f"{name}.yaml").write_text(NETWORKS[name])
            seed = [*IPSHARE, "appliance", "seed", "--hostname", name, "--ssh-key", f"{key}.pub"]
            seed += ["--config", str(files[name]), "--network", str(place / f"{name}.yaml")]
            seed += ["--file", f"channel.key={place / 'channel.key'}"]
            run(*seed, "-o", str(place / f"{name}.seed"))
            box = Box(place, image(), place / f"{name}.seed", key, name=name, taps=taps)
            after.callback(box.cut_power)
            box.power_on()
            boxes.append(box)
        (files["b1"].parent / "channel.key").write_bytes((place / "channel.key").read_bytes())
        (files["b1"].parent / "channel.key").chmod(0o600)
        agent = subprocess.Popen(
            ["ip", "netns", "exec", net.space("b1"), *IPSHARE, "agent", str(files["b1"])]
        )
        after.callback(agent.wait)
        after.callback(
            subprocess.run,
            ["ip", "netns", "exec", net.space("b1"), *IPSHARE, "down", str(files["b1"])],
            check=False,
        )
        nodes = ["--node", f"b1={place}/b1-run"]
        for box in boxes:
            box.healthy()
            forwarded(box, place / f"{box.name}-run/agent.sock", after)
            nodes += ["--node", f"{box.name}={place}/{box.name}-run"]
        yield Pair(net, boxes[0], boxes[1], nodes, place / "remaps")


def test_a_connection_goes_through_both_and_stays_while_its_address_is_remapped(pair: Pair) -> None:
    held = pair.talk()
    assert held.ask() == "A"
    assert "192.0.2.7" in pair.a1.ssh("ipshare sessions")
    moving = pair.remap(GLOBAL, "--from", "A", "--to", "B", "--patience", "300s")
    end = time.monotonic() + BOUND_S
    while pair.once() != "B":  # the flip
        assert held.ask() == "A" and moving.poll() is None and time.monotonic() < end
    for _ in range(20):
        assert held.ask() == "A", "who was here before stays"
        assert pair.once() == "B", "who is new is there"
    assert moving.poll() is None, "it drains as long as the connection is open"
    held.close()
    # A sees one direction only, and keeps what one side closed for minutes: nobody waits for that here.
    # Not SIGINT: what runs in a shell's background ignores it, and then drains for as long as silence takes.
    moving.terminate()
    moving.communicate(timeout=BOUND_S)
    ending = pair.remap("resume", "--deadline", "0s")
    out, err = ending.communicate(timeout=BOUND_S)
    assert ending.returncode == 0, out + err
    assert pair.once() == "B"


def test_an_update_of_the_distribution_point_forgets_nothing(pair: Pair, tmp_path: Path) -> None:
    """Its files on /data, what was remapped among them, are there in the new version; clients go on to B."""
    c1 = pair.c1
    listed = "find /var/lib/ipshare /etc/ipshare -name remaps.json -o -name '*.toml' -o -name audit.log"
    before = c1.ssh(f"({listed}) | sort | xargs sha256sum").replace("audit.log", "")
    audit = c1.ssh("wc -l </var/lib/ipshare/c1/audit.log")
    c1.ssh("ipshare appliance install - && systemctl reboot", made("2.0", tmp_path), ends=True)
    c1.says("slot b")
    assert "kept from now on" in c1.healthy() + c1.says("\n")
    after = c1.ssh(f"({listed}) | sort | xargs sha256sum").replace("audit.log", "")
    kept = {line for line in before.splitlines() if "remaps.json" in line or "/etc/" in line}
    assert kept and kept <= set(after.splitlines())
    assert int(c1.ssh("wc -l </var/lib/ipshare/c1/audit.log")) >= int(audit)
    assert pair.once() == "B"
