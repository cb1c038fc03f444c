"""Carries out single steps of a plan of ports over VPP's API: the only place that changes them.

One message a step, answered before the next; what VPP refuses is an EngineError in words. Interfaces that we
make carry a tag, so that they are known as ours should the journal be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ipshare.engine.vpp import ports as p
from ipshare.engine.vpp.client import ApiRefused, Client
from ipshare.engine.vpp.offloads import has_offloads
from ipshare.engine.vpp.ports_plan import Step
from ipshare.errors import EngineError

NONE = 0xFFFFFFFF
MODES = {"polling": 1, "interrupt": 2, "adaptive": 3}
NORMAL, BVI = 0, 1
TAP = 0
DROP = 2
"""Type of a path."""
LABELS = 16
# Rings of version 2: those of version 3 hand packets over by a timer, 4-8 ms later. Offloads: a veth's sender
# leaves checksums to the receiver, and sends super-packets, for which a frame must have room. No bypass of
# the queueing discipline: it hides from packet sockets (tcpdump) what VPP sends. The rings, here 50 MB, are
# locked memory; with 64 frames a burst of fragments overruns them.
_CKSUM_GSO, _VERSION_2 = 2, 8
_HOST_PORT = {
    "mode": 1,
    "use_random_hw_addr": True,
    "num_rx_queues": 1,
    "num_tx_queues": 1,
    "flags": _CKSUM_GSO | _VERSION_2,
    "rx_frame_size": 33 * 2048,
    "tx_frame_size": 33 * 2048,
    "rx_frames_per_block": 512,
    "tx_frames_per_block": 256,
}


class Hands:
    """Makes and removes parts of the VPP behind ``client``. ``tag``: of interfaces that are made."""

    def __init__(self, client: Client, indexes: Mapping[str, int], tag: str) -> None:
        self.client, self.tag = client, tag
        self.indexes = dict(indexes)

    def do(self, step: Step) -> None:
        """Raises EngineError: VPP refused, and said why."""
        part = step.part
        try:
            if step.verb == "add":
                self._add(part)
            elif part.can_change and step.before is not None:
                self._add(step.before)
            else:
                self._remove(part)
        except ApiRefused as error:
            raise EngineError(
                f"cannot {step.verb} {p.describe(part)}: {error.message}", hint=_hint(part) or error.hint
            ) from error

    def _add(self, part: p.Part) -> None:
        match part:
            case p.HostPort(port, host):
                wanted = _HOST_PORT if has_offloads(host) else _HOST_PORT | {"flags": _VERSION_2}
                self._made(port, self.client.call("af_packet_create_v3", host_if_name=host, **wanted))
            case p.Loopback(port):
                number = int(port[4:])
                reply = self.client.call("create_loopback_instance", is_specified=True, user_instance=number)
                self._made(port, reply)
            case p.FoundPort():
                raise AssertionError("found ports are checked by the plan")
            case p.Domain(number):
                self.client.call("bridge_domain_add_del_v2", is_add=True, **_domain(number, self.tag))
            case p.OnPort():
                self._on_port(part, is_add=True)
            case p.StaticRoute() | p.ArpRange():
                self._in_table(part, is_add=True)

    def _remove(self, part: p.Part) -> None:
        match part:
            case p.HostPort(_, host):
                self.client.call("af_packet_delete", host_if_name=host)
            case p.Loopback(port):
                self.client.call("delete_loopback", sw_if_index=self.indexes[port])
            case p.FoundPort():
                raise AssertionError("found ports are nobody's to remove")
            case p.Domain(number):
                self.client.call("bridge_domain_add_del_v2", is_add=False, **_domain(number, ""))
            case p.OnPort():
                self._on_port(part, is_add=False)
            case p.StaticRoute() | p.ArpRange():
                self._in_table(part, is_add=False)

    def _made(self, port: str, reply: Any) -> None:
        self.indexes[port] = reply.sw_if_index
        self.client.call("sw_interface_tag_add_del", is_add=True, sw_if_index=reply.sw_if_index, tag=self.tag)

    def _on_port(self, part: p.OnPort, *, is_add: bool) -> None:
        call: Callable[..., Any] = self.client.call
        index = self.indexes[part.port]
        match part:
            case p.Mac(_, mac):
                if is_add:
                    call("sw_interface_set_mac_address", sw_if_index=index, mac_address=mac)
            case p.Mtu(_, mtu):
                if is_add:
                    call("sw_interface_set_mtu", sw_if_index=index, mtu=[mtu, 0, 0, 0])
            case p.RxMode(_, mode):
                if is_add:
                    call("sw_interface_set_rx_mode", sw_if_index=index, mode=MODES[mode])
            case p.InTable(_, family, table):
                number = table if is_add else 0
                call("sw_interface_set_table", sw_if_index=index, is_ipv6=family == 6, vrf_id=number)
            case p.Member(_, domain, is_bvi):
                kind = BVI if is_bvi else NORMAL
                call(
                    "sw_interface_set_l2_bridge",
                    rx_sw_if_index=index,
                    bd_id=domain,
                    port_type=kind,
                    enable=is_add,
                )
            case p.PortAddress(_, address):
                call("sw_interface_add_del_address", sw_if_index=index, is_add=is_add, prefix=address)
            case p.Quiet():
                call("sw_interface_ip6nd_ra_config", sw_if_index=index, suppress=1, is_no=not is_add)
            case p.LinuxPair(_, device, netns):
                call(
                    "lcp_itf_pair_add_del_v3",
                    is_add=is_add,
                    sw_if_index=index,
                    host_if_name=device,
                    host_if_type=TAP,
                    netns=netns,
                )
            case p.Admin(_, is_up):
                call("sw_interface_set_flags", sw_if_index=index, flags=1 if is_up and is_add else 0)
            case p.StaticNeighbor(_, address, mac):
                neighbor = {"sw_if_index": index, "flags": 1, "mac_address": mac, "ip_address": address}
                call("ip_neighbor_add_del", is_add=is_add, neighbor=neighbor)
            case p.ArpProxy():
                call("proxy_arp_intfc_enable_disable", sw_if_index=index, enable=is_add)
            case p.NdProxy(_, address):
                call("ip6nd_proxy_add_del", sw_if_index=index, is_add=is_add, ip=address)
            case p.ReplySide(_, side):
                call("ipshare_reply_interface", sw_if_index=index, side=side, enable=is_add)
            case p.NatSide(_, realm):
                call("ipshare_nat_interface", sw_if_index=index, realm=realm, enable=is_add)

    def _in_table(self, part: p.StaticRoute | p.ArpRange, *, is_add: bool) -> None:
        if isinstance(part, p.ArpRange):
            proxy = {"table_id": part.table, "low": part.first, "hi": part.last}
            self.client.call("proxy_arp_add_del", is_add=is_add, proxy=proxy)
            return
        route = {
            "table_id": part.table,
            "stats_index": 0,
            "prefix": part.prefix,
            "n_paths": 1,
            "paths": [self._path(part)],
        }
        self.client.call("ip_route_add_del", is_add=is_add, is_multipath=False, route=route)

    def _path(self, route: p.StaticRoute) -> dict[str, Any]:
        is_ip6 = ":" in route.prefix
        address = {} if route.via is None else {"ip6" if is_ip6 else "ip4": route.via}
        return {
            "sw_if_index": NONE if route.port is None else self.indexes[route.port],
            "table_id": route.again_in if route.again_in is not None else route.table,
            "rpf_id": 0,
            "weight": 1,
            "preference": 0,
            "type": DROP if route.drops else 0,
            "flags": 0,
            "proto": 1 if is_ip6 else 0,
            "nh": {"address": address, "via_label": 0, "obj_id": 0, "classify_table_index": 0},
            "n_labels": 0,
            "label_stack": [{}] * LABELS,
        }


def make_tables(client: Client, numbers: list[int]) -> list[str]:
    """IP tables of both families that are not there yet; a line for each. They stay as long as VPP runs: the
    plugin holds them."""
    there = {(one.table.table_id, bool(one.table.is_ip6)) for one in client.dump("ip_table_dump")}
    lines = []
    for number in dict.fromkeys(numbers):
        for is_ip6 in (False, True):
            if (number, is_ip6) not in there:
                table = {"table_id": number, "is_ip6": is_ip6, "name": f"ipshare-{number}"}
                client.call("ip_table_add_del_v2", table=table, is_add=True)
                lines.append(f"table {number} of IPv{6 if is_ip6 else 4}")
    return lines


def _domain(number: int, tag: str) -> dict[str, Any]:
    return {
        "bd_id": number,
        "flood": True,
        "uu_flood": True,
        "forward": True,
        "learn": True,
        "arp_term": False,
        "arp_ufwd": False,
        "mac_age": 0,
        "bd_tag": tag,
    }


def _hint(part: p.Part) -> str:
    match part:
        case p.HostPort(_, host):
            return f"is there a device {host} in the network namespace of VPP? ip link show {host}"
        case p.LinuxPair(_, device, _):
            return (
                f"VPP needs /dev/net/tun and /dev/vhost-net for {device} (modprobe vhost_net), and the "
                "network namespace must exist"
            )
        case p.RxMode(_, mode):
            return f"not every kind of interface can do {mode}: leave rx_mode out"
        case p.PortAddress():
            return "does another interface of VPP have it, or its subnet?"
    return ""
