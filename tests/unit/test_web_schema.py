"""schemathesis on the running API: the description is true, and nothing, fitting or not, breaks the director.

A process of its own asks over a real socket, with a fixed seed and bounded examples. Streams have no end, so
they are left to test_web_api. A topology that fits the description may still be wrong in itself (422), of
an old revision (412), or without If-Match (428): such answers are good ones here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from ipshare.web.server import WebServer
from tests.operations_world import OperationsWorld
from tests.web_world import WebWorld, serving

EXAMPLES = 5
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 400, 404, 409, 412, 422, 428]
missing_required_header.expected-statuses = [401, 422, 428]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 428]
"""


def described(server: WebServer) -> dict[str, object]:
    assert server.hub.gate is not None
    found: dict[str, object] = server.hub.gate._app.openapi()  # type: ignore[attr-defined]
    return found


@pytest.mark.timeout(900)  # a minute where nothing else runs
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        schema, config = tmp_path / "openapi.json", tmp_path / "schemathesis.toml"
        schema.write_text(json.dumps(described(world.server)))
        config.write_text(CONFIG)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", str(schema),
            "--url", world.server.url, "--seed", "1", "--max-examples", str(EXAMPLES), "--checks", "all",
            "--exclude-path-regex", "events$", "--phases", "examples,coverage,fuzzing", "--no-shrink",
            "--suppress-health-check", "all", "--warnings", "off", "--request-timeout", "60",
            "--header", f"Authorization: Bearer {world.tokens['admin']}",
            cwd=tmp_path, stdout=(tmp_path / "said").open("wb"), stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {"NO_COLOR": "1"},
        )  # fmt: skip
        await process.wait()
        text = (tmp_path / "said").read_text(errors="replace")
        assert process.returncode == 0, text[-12000:]
        assert "generated" in text, text[-3000:]

    serving(tmp_path, scenario, plain=True, nodes=False, most_s=840, kind=OperationsWorld, stale="1s")
