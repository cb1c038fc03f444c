"""`ipshare director`: a process of its own, asked by the verbs, with agents in this one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from ipshare.cli import main
from tests.director_world import ALL_A, SEVEN_B, Fleet, text
from tests.pki import Pki


async def begin(file: Path, ready: asyncio.Event, *options: str) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "ipshare", "director", "run", "-c", str(file), *options]
    root = str(Path(__file__).parents[2])
    where = os.environ | {"NOTIFY_SOCKET": str(file.with_name("ready")), "PYTHONPATH": root}
    log = file.with_name("log").open("ab")
    process = await asyncio.create_subprocess_exec(*command, env=where, stdout=log, stderr=log)
    await asyncio.wait_for(ready.wait(), 60)
    ready.clear()
    return process


def test_a_director_from_start_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, file = ["a1", "b1", "c1"], tmp_path / "director.toml"
    pki = Pki(tmp_path)

    async def ask(*words: str, code: int = 0) -> str:
        done = await asyncio.to_thread(main, ["director", *words, "-c", str(file)])
        out = capsys.readouterr()
        assert done == code, out
        return out.out + out.err

    async def scenario() -> None:
        fleet = Fleet(tmp_path, pki, names)
        ready = asyncio.Event()

        class Notified(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: object) -> None:
                if b"READY=1" in data:
                    ready.set()

        loop = asyncio.get_running_loop()
        import socket

        notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notified.setblocking(False)
        notified.bind(str(tmp_path / "ready"))
        transport, _ = await loop.create_datagram_endpoint(Notified, sock=notified)
        await fleet.start()
        file.write_text(text(tmp_path, pki, names, ALL_A))
        assert "no director runs at" in await ask("status", code=4)
        process = await begin(file, ready)
        try:
            assert "revision 1: nothing had to be changed" in await ask("apply", "--wait", "60s")
            file.write_text(text(tmp_path, pki, names, ALL_A + SEVEN_B))
            shown = await ask("diff", "--exit-code", code=6)
            assert "+ binding 203.0.113.7/32: to B" in shown
            assert "1. a1, b1: what is new" in shown
            assert "+ binding" in await ask("apply", "--dry-run")
            assert "is 1, not 7" in await ask("apply", "--expect", "7", code=3)
            done = json.loads(await ask("apply", "--why", "a test", "--wait", "60s", "--json"))
            assert (done["changed"], done["revision"], done["settled"]) == (True, 2, True)
            assert {node["outcome"] for node in done["nodes"]} == {"acked"}
            assert fleet.agents["c1"].sends("203.0.113.7") == "10.2.0.7"
            assert "nothing differs" in await ask("diff", "--exit-code")
            assert "end point A" in await ask("status")
            assert "a test" in await ask("history")
            assert "+ binding 203.0.113.7/32" in await ask("show", "2")
            assert 'to = "B"' in await ask("show", "c1")
            assert "no node 'zz'" in await ask("show", "zz", code=3)
            file.write_text(text(tmp_path, pki, names, SEVEN_B.replace('"B"', '"Q"')))
            assert "director.toml:" in await ask("apply", code=2)
            file.write_text(text(tmp_path, pki, names, ALL_A + SEVEN_B))
            second = await asyncio.to_thread(main, ["director", "run", "-c", str(file)])
            assert second == 3
            assert "a director runs" in capsys.readouterr().err
            process.send_signal(signal.SIGKILL)
            await process.wait()
            process = await begin(file, ready, "--least-term", "5")
            again = json.loads(await ask("status", "--json"))
            assert (again["term"], again["revision"]) == (5, 2)
            assert "revision 3" in await ask("apply", "--revision", "1", "--wait", "60s")
            assert fleet.agents["c1"].sends("203.0.113.7") == "10.1.0.7"
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 30) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            transport.close()
            await fleet.stop()
        with sqlite3.connect(tmp_path / "state" / "director.db") as db:
            assert db.execute("SELECT max(number) FROM revisions").fetchone() == (3,)

    asyncio.run(scenario())
