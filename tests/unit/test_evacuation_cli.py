"""An evacuation as people see it: a director's process, a feed over HTTP, the verbs; killed in the middle."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from ipshare.cli import main
from tests.evacuation_world import EvacuationFleet, hazards, quakes
from tests.hazard_feeds import nws, serving
from tests.pki import Pki
from tests.unit.test_agent_daemon import until
from tests.unit.test_director_cli import begin

DOCS = Path(__file__).parents[2] / "docs"


def documented(verb: str) -> set[str]:
    section = (DOCS / "cli.md").read_text().split("## JSON")[1].split("## Exit codes")[0]
    (row,) = re.findall(rf"^\| `{verb}` \| (.*) \|$", section, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


def keys_in(value: Any) -> set[str]:
    """All keys, but those that are data."""
    if isinstance(value, list):
        return {key for element in value for key in keys_in(element)}
    if not isinstance(value, dict):
        return set()
    inner = [keys_in(child) for key, child in value.items() if key not in ("refused", "ignored", "unfit")]
    return set(value) | {key for keys in inner for key in keys}


async def exported(file: Path, ask: Any, value: Any) -> None:
    """The file is behind what was evacuated; then it is not."""
    assert len((await value("diff"))["changes"]) == 12
    behind, copy = file.read_text(), file.with_name("copy.toml")
    file.write_text(f"# ours\n{behind}# the end\n")
    file.chmod(0o640)
    shown = await ask("export")
    assert shown.startswith("# ours\n") and shown.endswith("# the end\n")
    assert f"{copy}: written" in await ask("export", "--write", str(copy))
    assert copy.read_text() == shown
    found = await value("export", "--write", str(file))
    assert set(found) == documented("director export")
    assert (found["written"], found["revision"]) == ([str(file)], 6)
    assert file.read_text() == shown and file.stat().st_mode & 0o777 == 0o640
    assert file.with_name("director.toml.bak").read_text() == f"# ours\n{behind}# the end\n"
    assert (await value("diff"))["changes"] == []
    assert "revision 6: nothing had to be changed" in await ask("apply", "--wait", "60s")
    assert "nothing differs" in await ask("export", "--write", str(file))
    file.write_text(shown.replace("capacity = 10", "capacity = 11"))
    assert "has changes that no revision has" in await ask("export", "--write", str(file), code=3)
    assert "capacity = 11" in file.read_text()
    assert "written" in await ask("export", "--write", str(file), "--force")
    assert file.read_text() == shown


def test_an_evacuation_from_the_earthquake_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, pki = tmp_path / "director.toml", Pki(tmp_path)

    async def ask(*words: str, code: int = 0) -> str:
        done = await asyncio.to_thread(main, ["director", *words, "-c", str(file)])
        out = capsys.readouterr()
        assert done == code, out
        return out.out + out.err

    async def value(*words: str, code: int = 0) -> Any:
        return json.loads(await ask(*words, "--json", code=code))

    async def scenario(url: str, documents: dict[str, bytes]) -> None:
        fleet = EvacuationFleet(tmp_path, pki, hazards(url, 'evacuate = "approve"') + "[evacuation]\n")
        ready = asyncio.Event()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(str(tmp_path / "ready"))
            loop = asyncio.get_running_loop()
            loop.add_reader(notified, lambda: b"READY=1" in notified.recv(4096) and ready.set())
            await fleet.start()
            file.write_text(fleet.text(stale="10s"))
            process = await begin(file, ready)
            try:
                assert "revision 1: nothing" in await ask("apply", "--wait", "60s")
                assert "there is none" in await ask("proposals")
                plan = await value("evacuate", "houston")
                assert keys_in(plan) <= documented("director evacuate") | documented("evacuate plan")
                assert "no site 'rome'" in await ask("evacuate", "rome", code=3)
                assert "what is left?" in await ask("evacuate", code=2)
                assert "begin it, or propose it?" in await ask("evacuate", "x", "--yes", "--propose", code=2)
                shown = await ask("evacuate", "houston", "--avoid", "dallas")
                assert "dallas is avoided" in shown and "~ workload w3: node h1 -> e1" in shown
                documents["/usgs"] = quakes("houston")
                rows: list[Any] = []
                async with asyncio.timeout(60):
                    while not rows:
                        rows = await value("proposals")
                assert keys_in(rows) == documented("director evacuations")
                id_ = rows[0]["id"]
                assert f"evacuation {id_} waits for an answer" in await ask("status")
                seen = await value("hazards", code=6)
                every = documented("director hazards") | documented("hazards feeds")
                assert keys_in(seen) <= every | documented("hazards check")
                assert f"houston: approval, evacuation proposed ({id_})" in await ask("hazards", code=6)
                fleet.agents["c2"].gate.clear()
                assert f"evacuation {id_}: running" in await ask("approve", id_, "--why", "go")
                assert "cannot be answered" in await ask("approve", id_, code=3)
                await until(lambda: any(taken[1] > 1 for taken in fleet.agents["c1"].taken))
                process.send_signal(signal.SIGKILL)
                await process.wait()
                fleet.agents["c2"].gate.set()
                process = await begin(file, ready)
                assert f"evacuation {id_} of site houston: done" in await ask(
                    "evacuations", id_, "--wait", "2m"
                )
                one = await value("evacuations", id_)
                assert keys_in(one) == documented("director evacuations ID")
                assert one["answer"] == "go" and {step["state"] for step in one["steps"]} == {"done"}
                assert (await value("status"))["revision"] == 6, "one for each group, over the kill"
                assert fleet.serves("w3") <= {"d1", "e1"}
                assert "nothing runs there" in await ask("evacuate", "houston")
                assert "cannot be stopped: it is done" in await ask("stop", id_, code=3)
                await exported(file, ask, value)
                back = await ask("evacuate", "--node", "d1", "--avoid", "denver", code=6)
                assert "no other site takes anything" in back
                process.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(process.wait(), 30) == 0
            finally:
                loop.remove_reader(notified)
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                await fleet.stop()

    with serving() as server:
        server.documents = {"/nws": nws(), "/usgs": quakes()}
        asyncio.run(scenario(server.url, server.documents))
