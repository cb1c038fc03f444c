"""A NAT node that is a VPP with our plugin, for the labs of tests/flows_lab.py.

VPP has the devices on LAN and uplink, with their MAC addresses.

VPP is 10.0.1.1 or .2 and fd00:1::1 or ::2 on the LAN, 192.0.2.1 or .2 and 2001:db8:2::1 or ::2 on the uplink.
What goes over links of their own (pair, mirror) is the kernel's.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ipshare.core import VERDICTS, lib
from ipshare.engine.plan import diff
from ipshare.engine.tables import Tables
from ipshare.engine.vpp.engine import VppEngine
from ipshare.engine.vpp.launch import Vpp, clean, start
from ipshare.engine.vpp.startup import Settings
from tests.engine_lab import run
from tests.flows_lab import ADDRESS, CLOSED, PAIR_STATE, SESSION, Nat, NatNode, door
from tests.vpp.processors import crowded

RINGS = {"mode": 1, "num_rx_queues": 1, "num_tx_queues": 1, "flags": 10, "rx_frame_size": 2048 * 33,
         "tx_frame_size": 2048 * 33, "rx_frames_per_block": 64, "tx_frames_per_block": 64}  # fmt: skip
PORTS = (("lan0", "10.0.1", "fd00:1:"), ("up0", "192.0.2", "2001:db8:2:"))
REALM = 3


def mac(name: str, device: str) -> str:
    """Of a device in a namespace."""
    words = run(name, f"ip -o link show {device}").split()
    return words[words.index("link/ether") + 1]


class VppNatNode(NatNode):
    """``workers``: 0: packets are the main thread's."""

    owns_devices = True
    lan = "host-lan0"
    collectors = (("b", "10.9.0.2"), ("b", "10.8.0.2"))
    last_ttl = 1
    workers = 0

    def __init__(self, lab: Nat, node: str, number: int) -> None:
        super().__init__(lab, node, number)
        self.settings, self.before = crowded(
            Settings(
                Path(tempfile.mkdtemp(prefix=f"{node}-", dir=lab.directory)),
                workers=self.workers,
                counter_cells=1 << 12,
            )
        )
        self.vpp: Vpp | None = None
        self.driver = self._driver()
        self.ports: dict[str, int] = {}

    def _driver(self) -> VppEngine:
        return VppEngine(self.settings.api, self.settings.stats, counter_cells=1 << 12)

    def start(self, *, workers: int = 0) -> None:
        self.driver.close()
        self.vpp = start(self.settings, wrap=("nsenter", f"--net=/run/netns/{self.name}", *self.before))
        self.driver = self._driver()
        self.driver.configure()
        for device, net4, net6 in PORTS:
            self.ports[device] = self._port(device, f"{net4}.{self.number}/24", f"{net6}:{self.number}/64")
        call = self.driver.client.call
        call("ipshare_nat_interface", sw_if_index=self.ports["lan0"], realm=REALM, enable=True)
        for port in self.ports.values():
            call("sw_interface_set_flags", sw_if_index=port, flags=1)
        for host, (device, net4, net6) in zip(("in", "out"), PORTS, strict=True):
            self._knows(self.ports[device], mac(self.lab.names[host], device), f"{net4}.9", f"{net6}:9")

    def _knows(self, port: int, far: str, *addresses: str) -> None:
        """VPP drops the packet that makes it ask for a neighbour."""
        for address in addresses:
            neighbor = {"sw_if_index": port, "flags": 1, "mac_address": far, "ip_address": address}
            self.driver.client.call("ip_neighbor_add_del", is_add=True, neighbor=neighbor)

    def _port(self, device: str, *addresses: str) -> int:
        call = self.driver.client.call
        own = {"hw_addr": mac(self.name, device), "use_random_hw_addr": False}
        made = call("af_packet_create_v3", host_if_name=device, **own, **RINGS)
        port = int(made.sw_if_index)
        call("sw_interface_set_mtu", sw_if_index=port, mtu=[1500, 0, 0, 0])
        for prefix in addresses:
            call("sw_interface_add_del_address", sw_if_index=port, is_add=True, prefix=prefix)
        call("sw_interface_ip6nd_ra_config", sw_if_index=port, suppress=1, is_no=False)
        return port

    def load(self, content: Tables) -> None:
        self.driver.apply(diff(self.driver.read(), content))

    def set(self, op: int, record: Any) -> None:
        if op == lib.IPS_CTL_PAIR_SET:
            self.driver.pair.set(record.tobytes())
        elif op == lib.IPS_CTL_PAIR_COMMAND:
            self.driver.pair.command(int(record[0]["order"]), int(record[0]["argument"]))
        else:
            self.driver.tracked.order(op, record.tobytes())

    def clear_mirror(self) -> None:
        self.driver.clear_mirror()

    def ask(self, op: int, layout: np.dtype[Any]) -> Any:
        return np.frombuffer(self.driver.tracked.order(op), layout)[0]

    @contextlib.contextmanager
    def doors(self) -> Iterator[list[Callable[[bytes, bytes], int]]]:
        with contextlib.ExitStack() as end:
            made = []
            for node, device in (("in", "lan0"), ("out", "up0")):
                ends = mac(self.name, device), mac(self.lab.names[node], device)
                head = b"".join(bytes.fromhex(one.replace(":", "")) for one in ends)
                made.append(end.enter_context(door(self.lab.names[node], device, head)))
            yield made

    def pair_record(self) -> Any:
        raw = self.driver.pair.raw_state()
        assert raw is not None, "it is no half of a pair"
        return np.frombuffer(raw, PAIR_STATE)[0]

    def sessions(self, **values: Any) -> Any:
        payload = self._filter(values).tobytes()
        return self.driver.tracked.records(lib.IPS_CTL_SESSIONS_DUMP, SESSION, payload)[1]

    def close_sessions(self, **values: Any) -> int:
        reply = self.driver.tracked.order(lib.IPS_CTL_SESSIONS_CLOSE, self._filter(values).tobytes())
        return int(np.frombuffer(reply, CLOSED)[0]["closed"])

    def addresses(self) -> Any:
        return self.driver.tracked.records(lib.IPS_CTL_NAT_ADDRESSES, ADDRESS)[1]

    def verdicts(self) -> Any:
        return self.driver.counters().verdicts

    def why(self, packet: bytes, side: Any) -> tuple[str, list[bytes], int]:
        reply, made = self.driver.control.why(packet, side)
        return VERDICTS[reply.verdict].name, [one.data for one in made], int(reply.omitted)

    @contextlib.contextmanager
    def another(self) -> Iterator[Callable[[], object]]:
        other = self._driver()
        with contextlib.closing(other):
            yield other.flows_state

    @contextlib.contextmanager
    def narrow_uplink(self, mtu: int) -> Iterator[None]:
        for size in (mtu, 1500):
            self.driver.client.call(
                "sw_interface_set_mtu", sw_if_index=self.ports["up0"], mtu=[size, 0, 0, 0]
            )
            if size == mtu:
                yield

    def kill(self) -> None:
        assert self.vpp is not None
        self.vpp.process.kill()
        self.vpp.process.wait()
        clean(self.settings)

    def stop(self) -> None:
        if self.vpp is None:
            return
        self.driver.close()
        if self.vpp.is_alive():
            assert self.vpp.terminate() == 0
