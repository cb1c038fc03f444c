"""Two boxes are a pair of NAT gateways. Each is upgraded in turn, one is taken back, and a host's TCP
connections stay through all of it: by what docs/appliance.md tells an operator to type.

On the way a 1.0 feeds a 2.0 with its sessions, and a 2.0 a 1.0. The tests follow one another.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ipshare.appliance.overlay import RELEASE
from tests.appliance_built import image, made
from tests.appliance_net import GATEWAY, GATEWAY_NETWORK, GATEWAYS, SERVER, Between, Talk, between, run
from tests.appliance_qemu import BOUND_S, Box, ssh_key
from tests.pair_nodes import IPSHARE

READY = "ipshare pair ready --wait 15m"


@dataclass
class Pair:
    net: Between
    boxes: dict[str, Box]
    update: Path
    talks: list[Talk] = field(default_factory=list)

    def opens(self) -> None:
        """One more connection of the host's, which stays."""
        self.talks.append(Talk(self.net.host, BOUND_S, SERVER))
        self.answer()

    def answer(self) -> None:
        assert [talk.ask() for talk in self.talks] == ["S"] * len(self.talks)

    def asked(self, verbs: str) -> list[list[Any]]:
        """What both boxes say at the same time: each a list of JSON values."""
        with ThreadPoolExecutor() as both:
            said = list(both.map(lambda box: box.ssh(verbs), self.boxes.values()))
        return [values(text) for text in said]

    def stands(self, active: str, versions: str) -> None:
        """Both are ready, `active` is so, all connections answer, and both nodes have them; the versions are
        those of gw1 and gw2."""
        found = self.asked(f"{READY} --json && cat {RELEASE}")
        self.answer()
        assert [pair["ready"] for pair, _ in found] == [True, True]
        assert [pair["state"] for pair, _ in found] == [
            "active" if name == active else "standby" for name in GATEWAYS
        ]
        assert [release["version"] for _, release in found] == versions.split()
        end, wanted = time.monotonic() + BOUND_S, [(len(self.talks), True)] * 2
        while (have := [(one["sessions"], one["ready"]) for (one,) in self.asked(MIRROR)]) != wanted:
            assert time.monotonic() < end, f"{have}, not {wanted}"
        self.answer()

    def restarts(self, name: str, command: str, given: Path | None = None) -> str:
        """What the command says, which has the box started again, as soon as it is healthy."""
        box = self.boxes[name]
        said = box.ssh(command, given, ends=True)
        self.answer()
        box.says("ipshare: slot ")
        assert "kept from now on" in box.healthy() + box.says("\n")
        self.answer()
        return said


MIRROR = "ipshare mirror status --json"


def values(text: str) -> list[Any]:
    """JSON values, one after the other."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    place = tmp_path_factory.mktemp("pair")
    with ExitStack() as after:
        net, key, boxes = after.enter_context(between()), ssh_key(place), {}
        run(*IPSHARE, "pair", "key", str(place / "pair.key"))
        for number, name in enumerate(GATEWAYS, 1):
            files = {kind: place / f"{name}.{kind}" for kind in ("toml", "yaml", "seed")}
            files["toml"].write_text(GATEWAY.format(n=number))
            files["yaml"].write_text(GATEWAY_NETWORK.format(n=number))
            seed = [*IPSHARE, "appliance", "seed", "--hostname", name, "--ssh-key", f"{key}.pub"]
            seed += ["--config", str(files["toml"]), "--network", str(files["yaml"])]
            run(*seed, "--file", f"pair.key={place / 'pair.key'}", "-o", str(files["seed"]))
            boxes[name] = Box(place, image(), files["seed"], key, name=name, taps=net.taps[name])
            after.callback(boxes[name].cut_power)
            boxes[name].power_on()
        for box in boxes.values():
            box.healthy()
        yield Pair(net, boxes, made("2.0", place))


def test_a_pair_of_two_boxes_carries_a_connection(pair: Pair) -> None:
    """Whoever started first is active; from then on it is gw1."""
    assert pair.boxes["gw2"].ssh(READY).startswith("ready: ")
    if json.loads(pair.boxes["gw1"].ssh("ipshare pair status --json"))["state"] != "active":
        pair.boxes["gw1"].ssh("ipshare pair switchover")
    pair.opens()
    pair.stands("gw1", "1.0 1.0")


def test_the_standby_is_upgraded_and_fed_by_the_version_before(pair: Pair) -> None:
    """What was open before it came, and what is opened then."""
    pair.restarts("gw2", "ipshare appliance install - --reboot", pair.update)
    pair.boxes["gw1"].ssh(READY)
    pair.opens()
    pair.stands("gw1", "1.0 2.0")


def test_the_new_version_takes_over_and_feeds_the_one_before(pair: Pair) -> None:
    pair.boxes["gw1"].ssh("ipshare pair switchover")
    pair.opens()
    pair.stands("gw2", "1.0 2.0")


def test_the_other_one_is_upgraded(pair: Pair) -> None:
    pair.restarts("gw1", "ipshare appliance install - --reboot", pair.update)
    pair.stands("gw2", "2.0 2.0")


def test_the_active_one_is_taken_back_and_hands_over_before(pair: Pair) -> None:
    said = pair.restarts("gw2", "ipshare appliance rollback --reboot")
    assert "1.0 in slot a is tried at the next start" in said and "gw2 handed over" in said
    pair.stands("gw1", "2.0 1.0")
    pair.boxes["gw2"].ssh("ipshare pair switchover")
    pair.stands("gw2", "2.0 1.0")
