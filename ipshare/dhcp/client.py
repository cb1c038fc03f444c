"""One workload's lease as a state machine (RFC 2131 4.4). Pure: time comes in, messages go out.

INIT -> SELECTING (DISCOVER sent) -> REQUESTING (an OFFER taken) -> BOUND -> RENEWING at T1 -> REBINDING at
T2 -> INIT at the end of the lease; INIT with an address from before -> REBOOTING (it is asked for again). The
key is the workload's MAC: as `chaddr` and as client identifier, whichever node asks, so that both nodes of a
pair get the same lease. Messages carry our own address as `giaddr`: every answer comes to us as to a relay
agent, also that to a renewal (docs/decisions/0032-leases-as-a-relay-agent.md).

``tick`` is called at ``wake_s`` or later, ``heard`` with messages of this MAC; both return what is to be
sent. A change of the lease shows in ``lease`` afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address
from random import Random

from ipshare.dhcp.message import NOWHERE, Message, Option, Type

FIRST_RETRY_S, LONGEST_RETRY_S = 4.0, 64.0
"""RFC 2131 4.1: 4 s, doubled, at most 64, each within a second at random."""
REQUEST_TRIES, REBOOT_TRIES = 4, 3
LEAST_RENEWAL_S = 60.0
"""Between two renewals, and two rebindings (RFC 2131 4.4.5)."""
PAUSE_S = 10.0
"""After a NAK, or a lease that was refused."""
LEAST_LEASE_S = 30
INFINITE = 0xFFFFFFFF
_WANTED = bytes((Option.MASK, Option.ROUTER, Option.LEASE_TIME, Option.RENEWAL, Option.REBINDING))


class State(StrEnum):
    """Where a workload's lease is."""

    INIT = "init"
    SELECTING = "selecting"
    REQUESTING = "requesting"
    REBOOTING = "rebooting"
    BOUND = "bound"
    RENEWING = "renewing"
    REBINDING = "rebinding"


@dataclass(frozen=True, slots=True)
class Lease:
    """An address and until when it is ours: seconds of the clock that ``tick`` gets; inf: for ever."""

    address: IPv4Address
    server: IPv4Address
    since_s: float
    renew_s: float
    rebind_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Send:
    """A message, and to whom; None: to the configured server, or everyone."""

    message: Message
    to: IPv4Address | None = None


@dataclass
class Client:
    """Of one MAC. ``remembered``: an address from before, asked for first."""

    mac: bytes
    giaddr: IPv4Address
    random: Random = field(default_factory=Random)
    remembered: IPv4Address | None = None
    state: State = State.INIT
    lease: Lease | None = None
    trouble: str = ""
    wake_s: float = 0.0
    _xid: int = 0
    _tries: int = 0
    _began_s: float = 0.0
    _offer: Message | None = None

    def tick(self, now_s: float) -> list[Send]:
        """What is due."""
        if now_s < self.wake_s:
            return []
        if self.lease is not None:
            return self._keep(now_s, self.lease)
        if self.state is State.REQUESTING and self._tries < REQUEST_TRIES:
            return self._request(now_s)
        if self.state is State.REBOOTING and self._tries >= REBOOT_TRIES:
            self.remembered = None  # the server that knew it is gone
            self._to(State.INIT)
        if self.state in (State.SELECTING, State.REBOOTING) and not self.trouble:
            self.trouble = "no DHCP server answers" if self._tries >= REBOOT_TRIES else ""
        if self.state in (State.INIT, State.REQUESTING):
            self._to(State.REBOOTING if self.remembered else State.SELECTING)
            self._begin(now_s)
        return self._reboot(now_s) if self.state is State.REBOOTING else self._discover(now_s)

    def heard(self, message: Message, now_s: float) -> list[Send]:
        """A message of a server to this MAC; what does not belong here is passed over."""
        if not message.is_reply or message.xid != self._xid or message.mac != self.mac:
            return []
        if message.type is Type.OFFER and self.state is State.SELECTING and _is_offer(message):
            self._offer = message
            self._to(State.REQUESTING)
            return self._request(now_s)
        waits = (State.REQUESTING, State.REBOOTING, State.RENEWING, State.REBINDING)
        if self.state not in waits:
            return []
        if message.type is Type.NAK:
            self.refused(f"the DHCP server refused: {message.text or 'no reason given'}", now_s)
        elif message.type is Type.ACK:
            self._acknowledged(message, now_s)
        return []

    def refused(self, why: str, now_s: float) -> None:
        """No lease any more, and a pause before the next attempt."""
        self.lease, self.remembered, self._offer, self.trouble = None, None, None, why
        self._to(State.INIT)
        self.wake_s = now_s + PAUSE_S

    def decline(self, why: str, now_s: float) -> list[Send]:
        """The leased address cannot be used (RFC 2131 3.1, 5): the server hears of it."""
        lease = self.lease
        self.refused(why, now_s)
        if lease is None:
            return []
        options = {Option.REQUESTED: lease.address.packed, Option.SERVER: lease.server.packed}
        return [Send(self._message(Type.DECLINE, now_s, options))]

    def release(self, now_s: float) -> list[Send]:
        """Gives the lease back; the machine stays in INIT and may begin anew."""
        lease, self.lease, self.remembered = self.lease, None, None
        self._to(State.INIT)
        if lease is None:
            return []
        message = self._message(Type.RELEASE, now_s, {Option.SERVER: lease.server.packed}, lease.address)
        return [Send(message, lease.server)]

    def resume(self, lease: Lease, now_s: float) -> None:
        """Another run of the agent got it: it is ours until its end, and extended at once."""
        self.lease = replace(lease, renew_s=now_s, rebind_s=max(now_s, lease.rebind_s))
        self.remembered = lease.address
        self._to(State.BOUND)
        self.wake_s = now_s

    def stand_down(self) -> None:
        """Another node keeps the lease from now on: nothing is sent, the address is remembered."""
        if self.lease is not None:
            self.remembered = self.lease.address
        self.lease, self.trouble = None, ""
        self._to(State.INIT)
        self.wake_s = 0.0

    # ---- sending --------------------------------------------------------------

    def _keep(self, now_s: float, lease: Lease) -> list[Send]:
        if now_s >= lease.end_s:
            self.refused("the lease ended: no DHCP server extended it", now_s)
            self.wake_s = now_s
            return self.tick(now_s)
        state = State.REBINDING if now_s >= lease.rebind_s else State.RENEWING
        until = lease.end_s if state is State.REBINDING else lease.rebind_s
        if self.state is not state:
            self._to(state)
            self._begin(now_s)
        self._tries += 1
        if self._tries > 1:
            self.trouble = (
                f"{lease.server} does not extend the lease"
                if state is State.RENEWING
                else ("no DHCP server extends the lease")
            )
        self.wake_s = min(now_s + max((until - now_s) / 2, LEAST_RENEWAL_S), until)
        message = self._message(Type.REQUEST, now_s, {}, lease.address)
        return [Send(message, lease.server if state is State.RENEWING else None)]

    def _discover(self, now_s: float) -> list[Send]:
        self._retry(now_s)
        return [Send(self._message(Type.DISCOVER, now_s, {}))]

    def _reboot(self, now_s: float) -> list[Send]:
        assert self.remembered is not None
        self._retry(now_s)
        return [Send(self._message(Type.REQUEST, now_s, {Option.REQUESTED: self.remembered.packed}))]

    def _request(self, now_s: float) -> list[Send]:
        assert self._offer is not None
        self._retry(now_s)
        server = self._offer.options[Option.SERVER]
        options = {Option.REQUESTED: self._offer.yiaddr.packed, Option.SERVER: server}
        return [Send(self._message(Type.REQUEST, now_s, options))]

    def _message(
        self, kind: Type, now_s: float, given: Mapping[Option, bytes], ciaddr: IPv4Address = NOWHERE
    ) -> Message:
        options: dict[int, bytes] = {
            Option.CLIENT_ID: b"\x01" + self.mac,
            **{int(key): value for key, value in given.items()},
        }
        if kind in (Type.DISCOVER, Type.REQUEST):
            options[Option.PARAMETERS] = _WANTED
        secs = int(now_s - self._began_s)
        return Message(kind, self._xid, self.mac, False, secs, ciaddr, giaddr=self.giaddr, options=options)

    def _begin(self, now_s: float) -> None:
        self._xid, self._began_s = self.random.getrandbits(32), now_s

    def _retry(self, now_s: float) -> None:
        pause = min(FIRST_RETRY_S * 2**self._tries, LONGEST_RETRY_S) + self.random.uniform(-1, 1)
        self._tries += 1
        self.wake_s = now_s + pause

    def _to(self, state: State) -> None:
        self.state, self._tries = state, 0

    # ---- hearing ---------------------------------------------------------------

    def _acknowledged(self, message: Message, now_s: float) -> None:
        lease = _lease(message, self._began_s if self.lease is None else now_s, self.lease)
        if isinstance(lease, str):
            self.refused(lease, now_s)
            return
        if self.lease is not None and lease.address != self.lease.address:
            self.refused(f"the DHCP server renewed {self.lease.address} as {lease.address}", now_s)
            return
        if self.lease is not None:
            lease = replace(lease, since_s=self.lease.since_s)
        self.lease, self.remembered, self.trouble = lease, lease.address, ""
        self._to(State.BOUND)
        self.wake_s = lease.renew_s


def _is_offer(message: Message) -> bool:
    return message.yiaddr != NOWHERE and message.address(Option.SERVER) is not None


def _lease(message: Message, asked_s: float, had: Lease | None) -> Lease | str:
    """What an ACK grants, from when it was asked for; or what is wrong with it."""
    seconds = message.seconds(Option.LEASE_TIME)
    server = message.address(Option.SERVER) or (had.server if had is not None else None)
    address = message.yiaddr
    if seconds is None or server is None or address == NOWHERE:
        return "the DHCP server's answer names no address, server or lease time"
    if address.is_multicast or address.is_loopback or address.is_link_local or int(address) == 0xFFFFFFFF:
        return f"the DHCP server leased {address}, which is no address of a host"
    if seconds < LEAST_LEASE_S:
        return f"the DHCP server leased for {seconds} s: {LEAST_LEASE_S} is the least that can be kept"
    if seconds == INFINITE:
        forever = float("inf")
        return Lease(address, server, asked_s, forever, forever, forever)
    renew = message.seconds(Option.RENEWAL)
    rebind = message.seconds(Option.REBINDING)
    if renew is None or rebind is None or not 0 < renew < rebind < seconds:
        renew, rebind = seconds // 2, seconds * 7 // 8
    return Lease(address, server, asked_s, asked_s + renew, asked_s + rebind, asked_s + seconds)
