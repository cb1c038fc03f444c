"""Two nodes of a group in memory: ``P`` next to the application, ``B`` next to the database, which moved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ipshare.config import load_text
from ipshare.core import Worker
from ipshare.engine.desired import desired
from ipshare.engine.tables import pack
from ipshare.model import Config

SITES = """
[node]
name = "{node}"
endpoint = "{node}"
icmp_source = ["192.0.2.1", "2001:db8:f::1"]
[[endpoint]]
name = "P"
local = ["10.101.0.0/24", "fd00:aa::/64"]
[[endpoint]]
name = "B"
local = ["10.102.0.0/24", "fd00:bb::/64"]
[[endpoint]]
name = "C"
local = ["10.103.0.0/24"]
"""
DB, DB_NOW = ("10.1.0.9", "fd00:1::9"), ("10.2.0.9", "fd00:2::9")
APP, APP_NOW = ("10.1.0.5", "fd00:1::5"), ("10.3.0.5", "fd00:3::5")
STRANGER = ("10.7.0.1", "fd00:7::1")


def member(
    name: str, at: str, address: tuple[str, ...], now: tuple[str, ...] = (), also: tuple[str, ...] = ()
) -> str:
    told = "".join(f"{key} = {list(value)}\n" for key, value in (("now", now), ("also", also)) if value)
    return f'[[group.member]]\nname = "{name}"\nat = "{at}"\naddress = {list(address)}\n{told}'


def group(*members: str, name: str = "shop") -> str:
    return f'[[group]]\nname = "{name}"\n' + "".join(members)


MOVED = group(member("app", "P", APP), member("db", "B", DB, DB_NOW))
BOTH_MOVED = group(member("app", "P", APP, APP_NOW), member("db", "B", DB, DB_NOW))


def configured(node: str, groups: str) -> Config:
    return load_text(SITES.format(node=node) + groups.replace("'", '"'), Path(f"{node}.toml"))


@dataclass
class Sites:
    """Workers of the core, and what packets bear on their way."""

    P: Worker
    B: Worker

    def one(self, node: str, packet: bytes, verdict: str = "PEER", **offload: int) -> bytes:
        """What the node makes of a packet."""
        made = getattr(self, node).process("inner", packet, **offload)
        assert made.verdict.name == verdict
        (out,) = made.packets
        return bytes(out)

    def through(self, packet: bytes, first: str = "P") -> bytes:
        """From behind one node to behind the other."""
        return self.one("B" if first == "P" else "P", self.one(first, packet))


@contextmanager
def sites(groups: str = MOVED) -> Iterator[Sites]:
    with Worker(cells=64) as p, Worker(cells=64) as b:
        for worker, node in ((p, "P"), (b, "B")):
            worker.load(pack(desired(configured(node, groups))))
        yield Sites(p, b)
