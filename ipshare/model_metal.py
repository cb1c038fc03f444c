"""What a node asks of the machine under its VPP: processors, hugepages, network cards for DPDK. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hugepages:
    """``count`` pages of ``size`` bytes on one NUMA node."""

    size: int
    count: int
    numa: int


@dataclass(frozen=True, slots=True)
class Card:
    """A network card that VPP drives by DPDK. ``device``: PCI address, or Linux's name of it. Zero, or an
    empty name: as VPP chooses."""

    device: str
    name: str
    rx_queues: int
    tx_queues: int
    rx_descriptors: int
    tx_descriptors: int

    @property
    def is_address(self) -> bool:
        """Whether ``device`` is a PCI address; names of Linux have no colon."""
        return ":" in self.device


@dataclass(frozen=True, slots=True)
class Metal:
    """All of it. ``is_isolated``: nothing else runs on the cores of VPP's threads."""

    main_core: int | None = None
    worker_cores: tuple[int, ...] = ()
    is_isolated: bool = False
    hugepages: tuple[Hugepages, ...] = ()
    cards: tuple[Card, ...] = ()

    @property
    def cores(self) -> tuple[int, ...]:
        """Of all of VPP's threads that have one, ascending."""
        return tuple(sorted({*self.worker_cores, *(() if self.main_core is None else (self.main_core,))}))
