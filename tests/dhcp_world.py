"""DHCP without a network: a naive server, and a desk that talks to it through a wire that may lose messages.

The server knows workloads by their client identifier alone and gives each the same address for ever, as the
text of RFC 2131 4.3 has it; what it leases can be set by hand. Time is moved by hand.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

from ipshare.dhcp.desk import Desk, Outgoing, Workload
from ipshare.dhcp.message import NOWHERE, Message, Option, Type, decode, encode

SERVER, GIADDR, DEVICE = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2"), "eth0"
POOL = IPv4Address("198.51.100.100")
LEASE_S = 600


def mac(number: int) -> bytes:
    return bytes((2, 0, 0, 0, 0, number))


def workload(number: int) -> Workload:
    return Workload(f"w{number}", mac(number), DEVICE)


class Server:
    """What a DHCP server answers. ``given``: client identifier -> address."""

    def __init__(self, lease_s: int = LEASE_S) -> None:
        self.lease_s = lease_s
        self.given: dict[bytes, IPv4Address] = {}
        self.declined: list[IPv4Address] = []
        self.heard: list[Message] = []
        self.deaf = False

    def answer(self, data: bytes) -> bytes | None:
        message = decode(data)
        self.heard.append(message)
        assert not message.is_reply and message.giaddr == GIADDR
        key = message.options[Option.CLIENT_ID]
        assert key == b"\x01" + message.mac
        if self.deaf:
            return None
        if message.type is Type.RELEASE:
            assert self.given.pop(key) == message.ciaddr
        elif message.type is Type.DECLINE:
            self.declined.append(IPv4Address(message.options[Option.REQUESTED]))
            self.given.pop(key)
        if message.type not in (Type.DISCOVER, Type.REQUEST):
            return None
        address = self.given.setdefault(key, self._free())
        asked = message.address(Option.REQUESTED) or message.ciaddr
        right = message.type is Type.DISCOVER or asked == address
        kind = Type.OFFER if message.type is Type.DISCOVER else Type.ACK if right else Type.NAK
        options = {Option.SERVER: SERVER.packed, Option.LEASE_TIME: self.lease_s.to_bytes(4, "big")}
        reply = replace(
            message, type=kind, is_reply=True, yiaddr=address if right else NOWHERE, options=options
        )
        return encode(reply)

    def _free(self) -> IPv4Address:
        taken = {*self.given.values(), *self.declined}
        return next(POOL + i for i in range(100) if POOL + i not in taken)


class World:
    """A desk, its server, and the time."""

    def __init__(self, server: Server, *, fits: str = "") -> None:
        self.server, self.now = server, 1000.0
        self.desk = Desk({DEVICE: GIADDR}, lambda _w, _a: fits, Random(1))

    def carry(self, out: list[Outgoing]) -> None:
        """Until nobody has anything to say."""
        while out:
            one = out.pop(0)
            assert one.device == DEVICE
            answer = self.server.answer(encode(one.send.message))
            if answer is not None:
                out += self.desk.heard(DEVICE, decode(answer), self.now)

    def run(self, seconds: float = 0.0) -> None:
        """Everything that is due up to then, in time."""
        end = self.now + seconds
        while self.desk.wake_s() <= end:
            self.now = max(self.now, self.desk.wake_s())
            self.carry(self.desk.tick(self.now))
        self.now = end

    def addresses(self) -> dict[str, str]:
        return {name: str(lease.address) for name, lease in self.desk.leases().items()}

    def trouble(self, name: str) -> str:
        return self.desk.states()[name][1]


def started(server: Server, *numbers: int, **options: str) -> World:
    world = World(server, **options)
    world.desk.want([workload(number) for number in numbers], world.now)
    world.desk.lead()
    world.run()
    return world
