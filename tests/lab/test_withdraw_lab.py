"""withdraw_after with a real BIRD at C and D, a real BIRD and a real FRR upstream, and a director over TLS:
it is killed, and of the two one withdraws and one stays, whichever may. The routers' kernels say so."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from ipshare.lab import Lab, LabSpec
from ipshare.lab.internet import global_ip
from ipshare.lab.traffic import Tcp, serve, start
from tests.bgp_lab import MISSING, BgpLab, bgp_toml
from tests.lab.test_director_lab import World
from tests.pki import Pki

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}")
LIMIT_S = 10.0
FAMILIES = (4, 6)


class Directed(BgpLab):
    """Sites have [bgp] and [remote]; all else is a director's, which lives beside C."""

    def __init__(self, lab: Lab, pki: Pki, director: str = "") -> None:
        """``director``: more of its file."""
        self.world = World(lab, pki)
        with self.world.file.open("a") as file:
            file.write(f'[health]\ninterval = "500ms"\n{director}')
        super().__init__(lab)
        self.world.direct()

    def write_site(self, node: str, *, target: str = "A", drain_time: str = "2s") -> None:
        more = f'withdraw_after = "{LIMIT_S:g}s"\ndrain_time = "{drain_time}"'
        with self.lab.site_file(node).open("a") as file:
            file.write(bgp_toml(self.lab, node, more, password=True))

    def heard(self, node: str) -> tuple[float, bool]:
        """For how long it has not heard the director, and whether it may withdraw without it."""
        file = self.lab.site_file(node).parent / "run" / "heard.json"
        _boot, since_ns, may_withdraw = json.loads(file.read_text()) if file.exists() else ("", 0, None)
        return time.clock_gettime(time.CLOCK_BOOTTIME) - since_ns / 1e9, may_withdraw

    def stays(self, stayer: str, other: str) -> None:
        """Returns when the director has said so to both."""
        self.r1.until(
            lambda: [self.heard(name)[1] for name in (stayer, other)] == [False, True],
            f"{stayer} stays, {other} may withdraw",
        )

    def kill_director(self) -> None:
        self.world.kill("director")

    def close(self) -> None:
        if "director" in self.world.processes:
            self.kill_director()
        super().close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directed]:
    with Lab(LabSpec()) as lab:
        made = Directed(lab, Pki(tmp_path_factory.mktemp("pki")))
        try:
            made.settled()
            with serve(lab, "a1"):
                yield made
        finally:
            made.close()


def passes(world: Directed, *clients: str) -> None:
    for client in clients:
        for family in FAMILIES:
            address = str(global_ip("a1", family))
            report = start(world.lab, client, Tcp(address, connections=3, expect=("a1",))).result()
            assert report.is_clean, report


def test_without_a_director_one_withdraws_and_one_stays(world: Directed) -> None:
    world.stays("C", "D")
    world.r1.read()
    world.kill_director()
    for family in FAMILIES:
        world.r2.goes_by("r1", family)
    found = world.ask("D")
    assert found["state"] == "held" and "was not heard for" in found["why"], found
    assert world.heard("C")[0] >= LIMIT_S, "it heard nothing for as long"
    passes(world, "c1", "c3")
    assert world.ask("C")["state"] == "announced"
    world.world.direct()
    world.settled()
    assert not world.r1.read(), "r1 had its way by C all the time"
    passes(world, "c1", "c3")


def test_who_does_not_announce_is_not_the_one_that_stays(world: Directed) -> None:
    """C is drained: D stays."""
    world.ask("C", "drain", on=True)
    for family in FAMILIES:
        world.r1.goes_by("r2", family)
    world.r1.until(lambda: world.heard("D")[1] is False, "D stays")
    world.r2.read()
    world.kill_director()
    world.r1.until(lambda: world.heard("D")[0] > LIMIT_S + 5, "the director was not heard for long")
    assert world.ask("D")["state"] == "announced"
    assert not world.r2.read(), "r2 had its way by D all the time"
    passes(world, "c1", "c3")
