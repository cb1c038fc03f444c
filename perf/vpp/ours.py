"""ours: a VPP with the ipshare plugin, its tables loaded through the binary API from packed images.

Sites are those of ipshare.bench.sites: 16 end points, their routes by pg0 (vpp.cases). A variant is a way of
translating: outer with the next hop stacked (the end points' records name it) or looked up a second time,
inner always looked up. Loading goes by the files and messages that the driver uses, without the driver.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from ipshare.bench import core, sites
from ipshare.bench.packets import Kind
from ipshare.engine.tables import Tables, pack
from vpp import flows
from vpp.cases import GATEWAY
from vpp.process import Vpp

PLUGIN = "ipshare"
STATSEG = "768M"
CELLS = 1 << 22  # an IPv4 /10 has a counter cell for each address
SIZES = {"1": 1, "250": 250, "1k": 1000, "64k": 64_000, "1m": 1_000_000}


@dataclass(frozen=True, slots=True)
class Variant:
    family: int
    name: str  # stacked, looked-up, inner

    @property
    def inner(self) -> bool:
        return self.name == "inner"

    @property
    def node(self) -> str:
        return f"ipshare-{'inner' if self.inner else 'outer'}-ip{self.family}"


VARIANTS = tuple(Variant(f, name) for f in (4, 6) for name in ("stacked", "looked-up", "inner"))


@dataclass(frozen=True, slots=True)
class Loaded:
    """Seconds that a load took: as Python saw it, and in the plugin."""

    prepare_s: float
    prepare_in_plugin_s: float
    commit_s: float
    commit_in_plugin_s: float


class Loader:
    """Loads tables into one VPP; knows what is loaded."""

    def __init__(self, vpp: Vpp, *, cells: int = CELLS) -> None:
        self.vpp = vpp
        vpp.client.call("ipshare_configure", service_table=0, delivery_table=0, counter_cells=cells)
        self.next_hops = {f: self._next_hop(f) for f in (4, 6)}
        self.live: object = None
        self._serial = itertools.count()
        self._images: dict[tuple[Variant, int], bytearray] = {}

    def _next_hop(self, family: int) -> int:
        address = ip_address(GATEWAY[family])
        return int(self.vpp.client.call("ipshare_next_hop_add", address=address, table_id=0).id)

    def tables(self, variant: Variant, n: int) -> Tables:
        tables = sites.site(variant.family, n, inner=variant.inner)
        if variant.name == "stacked":
            ends = tables.endpoints.copy()
            ends["via"] = self.next_hops[variant.family]
            tables = replace(tables, endpoints=ends)
        return tables

    def of(self, variant: Variant, n: int) -> Callable[[], None]:
        """What loads the variant with n bindings, unless it is live."""

        def load() -> None:
            key = (variant, n)
            if self.live != key:
                if key not in self._images:
                    self._images[key] = pack(self.tables(variant, n))
                self.load(self._images[key])
                self.live = key

        return load

    def load(self, image: bytes | bytearray) -> Loaded:
        """Raises ApiRefused where the plugin refuses."""
        file = self.vpp.dir / f"image.{next(self._serial)}"
        file.write_bytes(image)
        call: Any = self.vpp.client.call
        begin = time.perf_counter()
        prepared = call("ipshare_prepare", path=str(file))
        middle = time.perf_counter()
        committed = call("ipshare_commit", generation=prepared.generation)
        end = time.perf_counter()
        file.unlink()
        self.live = None
        return Loaded(middle - begin, prepared.took_ns / 1e9, end - middle, committed.took_ns / 1e9)


def packets_of(variant: Variant, kind: Kind, numbers: core.Numbers) -> flows.Frames:
    """Packets to the addresses with these numbers: global ones, or the local ones for inner translation."""
    return flows.of(kind, variant.family, sites.addresses(variant.family, numbers, local=variant.inner))
