"""leases: the agent's DHCP: sockets and timer of the event loop around ipshare.dhcp.desk (SYSTEMS.md S3.5).

Leases are kept in state_dir/leases.json, in Unix time: they go on over the agent's death and a reboot until
they end, and `ipshare plan` knows them. Who is no half of a pair, or the active half, asks and renews; a
standby is silent, and its file keeps what it had. ``changed`` is told when an address came or went.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from ipshare.dhcp.client import Lease
from ipshare.dhcp.desk import Desk, Outgoing, Workload
from ipshare.dhcp.relay import Relay
from ipshare.engine.leased import unfit
from ipshare.engine.pairing import PairState
from ipshare.errors import IpshareError
from ipshare.model import Config

log = logging.getLogger(__name__)
FILE = "leases.json"
_TIMES = ("since_s", "renew_s", "rebind_s", "end_s")


def addresses_in(state_dir: Path) -> dict[str, IPv4Address]:
    """By name of the workload: what is leased now, as the file says."""
    now = time.time()
    return {name: lease.address for name, lease in _read(state_dir / FILE).items() if lease.end_s > now}


class Leases:
    """Of one node. Everything in the event loop. ``clock``: monotonic seconds."""

    def __init__(
        self, state_dir: Path, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.file, self.changed, self._clock = state_dir / FILE, changed, clock
        self.trouble = ""
        self._config: Config | None = None
        self._desk: Desk | None = None
        self._relays: dict[str, Relay] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._told: dict[str, IPv4Address] = {}
        self._is_active = False

    def follow(self, config: Config, pair: PairState | None) -> None:
        """From now on the leases of ``config``, whose half of the pair is in this state. Repeatable."""
        alone = config.pair is None and not config.is_observer
        is_active = alone or (pair is not None and pair.state == "active")
        now = self._clock()
        if self._config is None or self._config.leases != config.leases or self.trouble:
            self._config = config
            self._open(config, now)
        self._config = config
        if self._desk is None:
            return
        if is_active and not self._is_active:
            self._desk.lead()
        elif self._is_active and not is_active:
            self._desk.stand_down()
        self._is_active = is_active
        self._go_on()

    def close(self) -> None:
        """Nothing is sent or heard any more; leases stay until they end."""
        if self._timer is not None:
            self._timer.cancel()
        for relay in self._relays.values():
            asyncio.get_running_loop().remove_reader(relay.socket)
            relay.close()
        self._relays, self._timer = {}, None

    def give_back(self) -> None:
        """The node is taken down: nobody else has its leases, unless it is half of a pair."""
        if self._desk is not None and self._is_active and self._config is not None and not self._config.pair:
            self._send(self._desk.release_all(self._clock()))
            self.file.unlink(missing_ok=True)

    def report(self) -> list[dict[str, Any]]:
        """A row for each workload, for people and JSON."""
        desk, config = self._desk, self._config
        if config is None:
            return []
        found, states, now = desk.leases() if desk else {}, desk.states() if desk else {}, self._clock()
        rows = []
        for lease in config.leases:
            have, (state, trouble) = found.get(lease.name), states.get(lease.name, ("init", self.trouble))
            forever = have is None or have.end_s == float("inf")
            rows.append(
                {
                    "name": lease.name,
                    "mac": lease.mac,
                    "local": str(lease.local),
                    "interface": lease.interface,
                    "address": str(have.address) if have is not None else None,
                    "server": str(have.server) if have is not None else None,
                    "state": str(state) if self._is_active else "standby",
                    "ends_in_s": None if forever or have is None else round(have.end_s - now),
                    "trouble": trouble,
                }
            )
        return rows

    def summary(self) -> str:
        """Who has what, for the audit."""
        rows = [row for row in self.report() if row["address"]]
        return ", ".join(f"{row['name']} {row['address']}" for row in rows) or "none"

    def troubles(self) -> str:
        """What is wrong now, in one line; "": nothing."""
        rows = self.report() if self._is_active else []
        return "; ".join(f"{row['name']}: {row['trouble']}" for row in rows if row["trouble"])

    # ---- inside ---------------------------------------------------------------

    def _open(self, config: Config, now: float) -> None:
        workloads = [
            Workload(w.name, bytes.fromhex(w.mac.replace(":", "")), w.interface) for w in config.leases
        ]
        devices = {lease.interface: lease.server for lease in config.leases}
        self.trouble = ""
        loop = asyncio.get_running_loop()
        for device in [device for device in self._relays if device not in devices]:
            relay = self._relays.pop(device)
            loop.remove_reader(relay.socket)
            relay.close()
        for device, server in devices.items():
            if device not in self._relays:
                try:
                    relay = self._relays[device] = Relay(device, server)
                except IpshareError as error:
                    self.trouble = error.message
                    continue
                loop.add_reader(relay.socket, self._readable, relay)
        if self._desk is None:
            self._desk = Desk(self._giaddr(), self._fits)
        self._desk.reach(self._giaddr())
        self._send(self._desk.want(workloads, now))
        kept = _moved(_read(self.file), now - time.time())
        self._desk.resume({name: lease for name, lease in kept.items() if lease.end_s > now}, now)

    def _giaddr(self) -> dict[str, IPv4Address]:
        return {device: relay.address for device, relay in self._relays.items()}

    def _fits(self, _workload: Workload, address: IPv4Address) -> str:
        return unfit(self._config, address) if self._config is not None else ""

    def _readable(self, relay: Relay) -> None:
        for message in relay.received():
            if self._desk is not None:
                self._send(self._desk.heard(relay.device, message, self._clock()))
        self._go_on()

    def _go_on(self) -> None:
        """What is due, and the timer for what comes next; a change is kept, then told."""
        assert self._desk is not None
        now = self._clock()
        self._send(self._desk.tick(now))
        if self._timer is not None:
            self._timer.cancel()
        wake = self._desk.wake_s()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.01, wake - now), self._go_on) if wake != float("inf") else None
        if not self._is_active:
            return
        leases = self._desk.leases()
        _write(self.file, _moved(leases, time.time() - now))
        addresses = {name: lease.address for name, lease in leases.items()}
        if addresses != self._told:
            self._told = addresses
            self.changed()

    def _send(self, out: Iterable[Outgoing]) -> None:
        for one in out:
            relay = self._relays.get(one.device)
            if relay is not None:
                relay.send(one)


def _moved(leases: Mapping[str, Lease], by_s: float) -> dict[str, Lease]:
    """With times of another clock."""
    return {
        name: Lease(lease.address, lease.server, *(getattr(lease, key) + by_s for key in _TIMES))
        for name, lease in leases.items()
    }


def _read(file: Path) -> dict[str, Lease]:
    """What cannot be read is no lease: the server knows it, and is asked again."""
    try:
        rows = json.loads(file.read_text())
        return {
            name: Lease(
                IPv4Address(row["address"]), IPv4Address(row["server"]), *(float(row[key]) for key in _TIMES)
            )
            for name, row in rows.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(file: Path, leases: Mapping[str, Lease]) -> None:
    rows = {
        name: {"address": str(lease.address), "server": str(lease.server)}
        | {key: getattr(lease, key) for key in _TIMES}
        for name, lease in leases.items()
    }
    with suppress(OSError):
        if not rows and not file.exists():
            return
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps(rows))
        aside.replace(file)
