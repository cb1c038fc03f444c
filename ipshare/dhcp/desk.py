"""The leases of all workloads of a node: one Client each, and one rule between them: no address twice. Pure.

Only the active node speaks: ``stand_down`` on a standby keeps what is remembered and sends nothing. An
address that a server gave to a second workload while the first one has it is declined, and said as trouble
until the server gives another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from random import Random

from ipshare.dhcp.client import Client, Lease, Send, State
from ipshare.dhcp.message import Message

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Workload:
    """Who wants an address. ``mac``: six bytes; ``device``: where its DHCP server is reached."""

    name: str
    mac: bytes
    device: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What leaves by a device."""

    device: str
    send: Send


class Desk:
    """See the module. ``giaddr``: our own address on a device; ``fits``: why an address cannot be used, or
    ""."""

    def __init__(
        self,
        giaddr: Mapping[str, IPv4Address],
        fits: Callable[[Workload, IPv4Address], str] = lambda _w, _a: "",
        random: Random | None = None,
    ) -> None:
        self._giaddr, self._fits, self._random = giaddr, fits, random or Random()
        self._clients: dict[str, Client] = {}
        self._workloads: dict[str, Workload] = {}
        self._active = False

    def want(self, workloads: Iterable[Workload], now_s: float) -> list[Outgoing]:
        """From now on these have leases, and no others: theirs are given back."""
        wanted = {workload.name: workload for workload in workloads}
        out = []
        for name in [name for name, had in self._workloads.items() if wanted.get(name) != had]:
            had, client = self._workloads.pop(name), self._clients.pop(name)
            out += self._all(had, client.release(now_s) if self._active else [])
        for name, workload in wanted.items():
            if name not in self._workloads and workload.device in self._giaddr:
                self._workloads[name] = workload
                self._clients[name] = Client(workload.mac, self._giaddr[workload.device], self._random)
        return out

    def reach(self, giaddr: Mapping[str, IPv4Address]) -> None:
        """Devices and our addresses there, for workloads that come."""
        self._giaddr = giaddr

    def remember(self, addresses: Mapping[str, IPv4Address]) -> None:
        """Addresses from before, by name."""
        for name, address in addresses.items():
            client = self._clients.get(name)
            if client is not None and client.lease is None:
                client.remembered = address

    def resume(self, leases: Mapping[str, Lease], now_s: float) -> None:
        """Leases of an earlier run of the agent that have not ended."""
        for name, lease in leases.items():
            client = self._clients.get(name)
            if client is not None and client.lease is None:
                client.resume(lease, now_s)

    def lead(self) -> None:
        """This node is active: leases are asked for and kept."""
        self._active = True

    def stand_down(self) -> None:
        """It is not any more: the other node keeps them."""
        self._active = False
        for client in self._clients.values():
            client.stand_down()

    def release_all(self, now_s: float) -> list[Outgoing]:
        """The node is taken down for good, and no other one has these."""
        return self.want([], now_s)

    def tick(self, now_s: float) -> list[Outgoing]:
        """What is due. Call it at ``wake_s``."""
        if not self._active:
            return []
        return [
            o for name, c in self._clients.items() for o in self._all(self._workloads[name], c.tick(now_s))
        ]

    def wake_s(self) -> float:
        """When ``tick`` has something to do; inf: never."""
        return min((c.wake_s for c in self._clients.values()), default=NEVER) if self._active else NEVER

    def heard(self, device: str, message: Message, now_s: float) -> list[Outgoing]:
        """A message that came in by a device."""
        for name, workload in self._workloads.items():
            if self._active and workload.device == device and workload.mac == message.mac:
                client = self._clients[name]
                had = client.lease
                out = client.heard(message, now_s)
                if client.lease is not None and client.lease != had:
                    out = [*out, *self._judge(workload, client, now_s)]
                return self._all(workload, out)
        return []

    def leases(self) -> dict[str, Lease]:
        """By name, what can be used now."""
        return {name: c.lease for name, c in self._clients.items() if c.lease is not None}

    def remembered(self) -> dict[str, IPv4Address]:
        return {name: c.remembered for name, c in self._clients.items() if c.remembered is not None}

    def states(self) -> dict[str, tuple[State, str]]:
        """By name: state, and what is wrong ("": nothing)."""
        return {name: (client.state, client.trouble) for name, client in self._clients.items()}

    def _judge(self, workload: Workload, client: Client, now_s: float) -> list[Send]:
        assert client.lease is not None
        address = client.lease.address
        for name, other in self._clients.items():
            if other is not client and other.lease is not None and other.lease.address == address:
                why = f"the DHCP server gave {address} twice: {name} has it"
                return client.decline(why, now_s)
        why = self._fits(workload, address)
        return client.decline(why, now_s) if why else []

    def _all(self, workload: Workload, sends: Iterable[Send]) -> list[Outgoing]:
        return [Outgoing(workload.device, send) for send in sends]
