"""An agent in this process that listens to a director, over a node in memory; and callers of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ipshare.agent.assignment import digest_of
from ipshare.certs.contexts import Contexts, Files
from tests.agent_world import World
from tests.pki import Pki
from tests.unit.test_agent_daemon import serve

PORT = 7443
SITE = """
[node]
name = "{name}"
runtime_dir = "{dir}/run"
state_dir = "{dir}/state"
[remote]
listen = "{host}:7443"
ca = "{pki}/ca/ca.pem"
certificate = "{pki}/node-{name}.pem"
revoked = "{pki}/ca/revoked.pem"
"""
ASSIGNED = """
[[network]]
name = "web"
prefix = "203.0.113.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/24"]
[[distribution]]
name = "C"
self = true
[[binding]]
global = "203.0.113.0/24"
to = "{to}"
"""


def host(number: int) -> str:
    """An address of this machine that no other process of the tests takes."""
    pid = int(os.environ.get("IPSHARE_TEST_HOSTS", os.getpid()))  # set: another process's
    return f"127.{1 + pid % 250}.{pid // 250 % 250}.{number}"


def assigned(to: str = "A") -> str:
    return ASSIGNED.format(to=to)


def request(number: tuple[int, int, int], text: str) -> dict[str, Any]:
    return {"verb": "assign", "number": list(number), "digest": digest_of(text), "text": text}


class RemoteWorld(World):
    """A node ``name`` whose site file has [remote] and nothing that a director assigns."""

    def __init__(self, directory: Path, pki: Pki, host: str, name: str = "c1") -> None:
        super().__init__(directory)
        self.pki, self.host, self.name = pki, host, name
        (directory / "run").mkdir(exist_ok=True)
        pki.file("node", name)
        self.write()

    def write(self, more: str = "") -> None:
        text = SITE.format(name=self.name, dir=self.directory, host=self.host, pki=self.pki.folder)
        (self.directory / "site.toml").write_text(text + more)

    def serve(self, scenario: Callable[[Any], Awaitable[None]]) -> None:
        serve(self, scenario)


class Caller:
    """One connection. ``meet`` raises what the handshake raises at this end."""

    def __init__(self, host: str, files: Files) -> None:
        self.host, self.context = host, Contexts(files, server=False).current()

    async def meet(self) -> Caller:
        self.reader, self.writer = await asyncio.open_connection(
            self.host, PORT, ssl=self.context, server_hostname="", limit=1 << 20
        )
        return self

    async def ask(self, **words: Any) -> dict[str, Any]:
        return await self.say(json.dumps(words).encode() + b"\n")

    async def say(self, line: bytes) -> dict[str, Any]:
        self.writer.write(line)
        await self.writer.drain()
        answer = await asyncio.wait_for(self.reader.readline(), 30)
        if not answer:
            raise ConnectionError("closed")
        reply: dict[str, Any] = json.loads(answer)
        return reply

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()
