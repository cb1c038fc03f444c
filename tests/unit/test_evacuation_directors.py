"""An evacuation outlives the director that began it: two of them on a real etcd, the leader is killed while a
batch is under way, and the other one goes on."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from ipshare.errors import Refused
from tests.etcd_world import EtcdServer
from tests.evacuation_world import EvacuationFleet
from tests.pki import Pki
from tests.remote_world import host
from tests.unit.test_agent_daemon import until
from tests.unit.test_directors import STORE, Directors


class Evacuators(Directors):
    """Directors of three sites; what is bound is the fleet's."""

    fleet: EvacuationFleet

    def write(self, name: str, bindings: str) -> Path:
        folder = self.fleet.directory / name
        folder.mkdir(exist_ok=True)
        said = self.fleet.text(name=name, stale="5s", state=folder / "state")
        said = said.replace('name = "d1"', f'name = "{name}"', 1)
        said = said.replace(f'"{self.fleet.directory}/run"', f'"{folder}/run"')
        (folder / "director.toml").write_text(said + STORE.format(url=self.url))
        return folder / "director.toml"

    async def begun(self, name: str, verb: str, **words: Any) -> dict[str, Any]:
        """The answer of a director that leads, and may not know all of its verbs yet."""

        async def claim() -> dict[str, Any]:
            try:
                return await self.ask(name, verb, **words)
            except Refused as error:
                assert error.message == "the director has only begun"
                return {}

        found: dict[str, Any] = await self.until(claim)
        return found


def test_the_other_director_goes_on(tmp_path: Path) -> None:
    server = EtcdServer(host(204))

    async def scenario() -> None:
        fleet = EvacuationFleet(tmp_path, Pki(tmp_path), "[evacuation]\nat_once = 2\n")
        directors = Evacuators(fleet, server.url)
        try:
            async with asyncio.timeout(200):
                await fleet.start()
                await directors.begin("x")
                await directors.leads("x")
                await directors.begin("y")
                await directors.settled("x", 1)
                fleet.agents["c2"].gate.clear()
                begun = await directors.begun("x", "evacuate", site="houston", run=True, who="ann")
                await until(lambda: any(taken[1] > 1 for taken in fleet.agents["c1"].taken))
                directors.processes["x"].send_signal(signal.SIGKILL)
                await directors.processes["x"].wait()
                fleet.agents["c2"].gate.set()
                await directors.leads("y")

                async def done() -> bool:
                    one = await directors.begun("y", "evacuations", id=begun["evacuation"], timeout_s=60)
                    return bool(one["state"] == "done")

                await directors.until(done)
                await directors.settled("y", 6)
                assert fleet.serves("w3") <= {"d1", "e1"}
        finally:
            await directors.stop()
            await fleet.stop()

    try:
        server.start()
        asyncio.run(scenario())
    finally:
        server.end()
