"""cards: PCI addresses of the network cards that DPDK drives, also of those whose name in Linux is gone.

A card that was given to vfio-pci is no device of the kernel's network any longer: the name that it had at
boot is kept in a record below /run by whoever gave it away (ipshare.appliance.devices).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ipshare.config.units import CARD_PATTERN
from ipshare.errors import Refused
from ipshare.model import Card

SYS = Path("/sys")
RECORD = Path("/run/ipshare-cards.json")
VFIO = "vfio-pci"
BESIDE_THE_KERNEL = frozenset({"mlx4_core", "mlx5_core"})
"""Drivers that a card keeps while DPDK uses it, through libibverbs."""


def addresses(cards: Iterable[Card], sys: Path = SYS, record: Path = RECORD) -> dict[str, str]:
    """PCI address by what the configuration calls a card. Raises Refused: there is no card of that name."""
    found: dict[str, str] = {}
    for card in cards:
        address = address_of(card, sys, record)
        if address is None:
            raise Refused(
                f"{card.device} is no network card on PCI here",
                hint="lspci -D and ip -br link show what there is; name it by its PCI address",
            )
        found[card.device] = address
    return found


def address_of(card: Card, sys: Path = SYS, record: Path = RECORD) -> str | None:
    """None: there is no card of that name. An address is taken as it is. What is recorded comes first:
    another card may have got the name since."""
    if card.is_address:
        return card.device
    kept = recorded(record).get(card.device)
    if kept is not None and driver(kept, sys) == VFIO:
        return kept
    place = (sys / "class/net" / card.device / "device").resolve()
    for path in (place, place.parent):  # virtio has a bus of its own, below the card
        if re.fullmatch(CARD_PATTERN, path.name):
            return path.name
    return None


def recorded(record: Path = RECORD) -> Mapping[str, str]:
    """Addresses by the names that Linux had for cards before they were given away."""
    try:
        found = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def driver(address: str, sys: Path = SYS) -> str | None:
    """Name of the kernel driver that has the card; None: none has it."""
    link = sys / "bus/pci/devices" / address / "driver"
    return link.resolve().name if link.exists() else None
