"""A director with its HTTP server and simulated nodes in one loop, and callers of it over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from ipshare.certs.contexts import Contexts, Files
from ipshare.director import config
from ipshare.director.desk import Desk
from ipshare.web import tokens
from ipshare.web.server import WebServer
from tests.director_world import ALL_A, SEVEN_B, Fleet, text
from tests.pki import Pki

SITES = {
    "a": ("frankfurt", 50.11, 8.68),
    "b": ("dallas", 32.78, -96.8),
    "c": ("ashburn", 39.04, -77.49),
    "d": ("tokyo", 35.68, 139.69),
}
"""Where nodes are, by the first letter of their names."""
SHOP = '[[workload]]\nname = "shop"\nnode = "b1"\naddresses = ["203.0.113.7/32"]\n'
HTTP = '[http]\nlisten = "127.0.0.1:8470"\ntokens = "{dir}/tokens.json"\n'
NAMES = ["a1", "b1", "c1"]


class PlacedFleet(Fleet):
    """Its nodes are at sites of the Earth, each kind at its own; more tables may follow."""

    def wanted(self, bindings: str, **more: Any) -> config.Wanted:
        said = text(self.directory, self.pki, self.names, bindings, **more)
        rows = [f'[[site]]\nname = "{n}"\nlatitude = {y}\nlongitude = {x}\n' for n, y, x in SITES.values()]
        said = said.replace('[[site]]\nname = "here"\n', "".join(rows))
        for node in self.names:
            site, _, _ = SITES[node[0]]
            start = said.index(f'[[node]]\nname = "{node}"')
            said = said[:start] + said[start:].replace('site = "here"', f'site = "{site}"', 1)
        return config.load_text(said, self.directory / "director.toml")


class WebWorld:
    """``names``: nodes, as in director_world; those in ``silent`` are never there."""

    def __init__(self, folder: Path, names: list[str] = NAMES, *, plain: bool = False) -> None:
        self.folder, self.fleet = folder, PlacedFleet(folder, Pki(folder), names)
        self.plain = plain
        self.tokens: dict[str, str] = {}
        for role in ("viewer", "operator", "admin"):
            self.tokens[role], _ = tokens.add(folder / "tokens.json", f"{role}-1", role, 1)
        self.clients: list[httpx2.AsyncClient] = []

    @property
    def pki(self) -> Pki:
        return self.fleet.pki

    def more(self, bindings: str) -> str:
        return bindings + HTTP.format(dir=self.folder) + ("plain = true\n" if self.plain else "")

    async def start(self, bindings: str = ALL_A + SEVEN_B + SHOP, *, nodes: bool = True, **more: Any) -> None:
        if nodes:
            await self.fleet.start()
        self.director = await self.fleet.direct(self.more(bindings), **more)
        desk = Desk(self.director, self.folder / "director.toml")
        await self.beside(desk)
        assert self.director.settings.http is not None
        settings = replace(self.director.settings.http, port=0)  # any that is free
        self.server = WebServer(self.director, desk, settings)
        await self.server.start()

    async def beside(self, desk: Desk) -> None:
        """What else is in the director's process."""

    async def stop(self) -> None:
        for client in self.clients:
            await client.aclose()
        if hasattr(self, "server"):
            await self.server.stop()
        await self.fleet.stop()

    def client(self, role: str | None = None, files: Files | None = None, **more: Any) -> httpx2.AsyncClient:
        """With a token of that role, or the certificate in ``files``; the server's is not looked at."""
        context: Any = False
        if not self.plain:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if files is not None:
                context = Contexts(files, server=False).current()
        headers = {"Authorization": f"Bearer {self.tokens[role]}"} if role else {}
        made = httpx2.AsyncClient(
            base_url=self.server.url, headers=headers, verify=context, timeout=60, trust_env=False, **more
        )
        self.clients.append(made)
        return made

    async def settle(self) -> None:
        assert await self.director.settled(self.director.number, 60), self.director.outcomes()


def serving(
    folder: Path, scenario: Callable[[Any], Awaitable[None]], *, plain: bool = False,
    most_s: float = 120, kind: type[WebWorld] = WebWorld, **more: Any,
) -> None:  # fmt: skip
    async def all_of_it() -> None:
        world = kind(folder, plain=plain)
        try:
            async with asyncio.timeout(most_s):
                await world.start(**more)
                await scenario(world)
        finally:
            await world.stop()

    asyncio.run(all_of_it())
