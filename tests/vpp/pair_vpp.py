"""A half of a pair that is a VPP with our plugin: VPP has the device on the LAN, with its MAC address.

VPP is 10.0.0.1 or .2 and fd00::1 or ::2 there. The ends of the pair's paths are addresses of the kernel in
VPP's network namespace, on links of their own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ipshare.core import VERDICTS
from ipshare.engine.plan import diff
from ipshare.engine.tables import Tables
from ipshare.engine.vpp.client import Client
from ipshare.engine.vpp.engine import VppEngine
from ipshare.engine.vpp.launch import Vpp, clean, start
from ipshare.engine.vpp.startup import Settings
from tests.engine_lab import INNER, run
from tests.pair_lab import LAN, PATIENCE_S, STATE, WORKLOAD, Half, PairLab
from tests.vpp.processors import crowded

AF_PACKET = {"mode": 1, "num_rx_queues": 1, "num_tx_queues": 1, "flags": 6, "rx_frame_size": 2048 * 33,
             "tx_frame_size": 2048 * 33, "rx_frames_per_block": 32, "tx_frames_per_block": 32}  # fmt: skip


def _over(client: Client, device: str, mac: str) -> int:
    made = client.call(
        "af_packet_create_v3", host_if_name=device, hw_addr=mac, use_random_hw_addr=False, **AF_PACKET
    )
    return int(made.sw_if_index)


class VppHalf(Half):
    """``workers``: 0: packets are the main thread's."""

    owns_lan = True
    interface = "host-lan0"
    port = "host-web1"
    worker = "vpp_main"
    workers = 0

    def __init__(self, lab: PairLab, name: str, number: int) -> None:
        super().__init__(lab, name, number)
        self.lab, self.node = lab, name
        self.settings, self.crowd = crowded(
            Settings(
                Path(tempfile.mkdtemp(prefix=f"{name}-", dir=lab.directory)),
                workers=self.workers,
                counter_cells=1 << 12,
            )
        )
        self.vpp: Vpp | None = None
        self.has_port = False

    def start(self) -> None:
        wrap = ("nsenter", f"--net=/run/netns/{self.name}", *self.crowd, *self.before)
        self.vpp = start(self.settings, wrap=wrap)
        self.vppd = VppEngine(self.settings.api, self.settings.stats, counter_cells=1 << 12)
        self._wire(self.vppd.client)
        self.vppd.configure()

    def _wire(self, client: Client) -> None:
        self.lan = _over(client, "lan0", self.lab.mac(self.node))
        if self.has_port:
            self.web = _over(client, "web1", WORKLOAD)
        self.link(True)
        for address in (f"10.0.0.{self.number}/24", f"fd00::{self.number}/64"):
            client.call("sw_interface_add_del_address", sw_if_index=self.lan, is_add=True, prefix=address)

    def attach(self, runtime: Path) -> None:
        self.vppd = VppEngine(runtime / "vpp/api.sock", runtime / "vpp/stats.sock", counter_cells=1 << 12)

    def deliver(self) -> None:
        self.vppd.client.cli(f"ip route add 203.0.113.0/24 via {LAN} {self.interface}")

    def again(self) -> None:
        self.vppd.close()
        self.start()

    def set(self, record: Any) -> None:
        self.vppd.pair.set(record.tobytes())

    def load(self) -> None:
        self.vppd.apply(diff(Tables(), INNER))

    def clear(self) -> None:
        self.vppd.clear_pair()

    def state(self) -> Any:
        raw = self.vppd.pair.raw_state()
        assert raw is not None, "it is no half of a pair"
        return np.frombuffer(raw, STATE)[0]

    def verdict(self, words: bytes) -> str:
        return VERDICTS[self.vppd.why(words, "inner").verdict].name

    def wait(self, seen: int) -> str:
        with self.vppd.watch_pair() as waiting:
            return waiting.wait(seen, PATIENCE_S).state

    @property
    def pid(self) -> int:
        assert self.vpp is not None
        return self.vpp.pid

    def link(self, up: bool) -> None:
        self.vppd.client.call("sw_interface_set_flags", sw_if_index=self.lan, flags=int(up))

    def make_port(self, lab: PairLab) -> str:
        """A card of its own, at a port of its own of the switch."""
        switch = f"web-{self.node}"
        run(
            self.name,
            f"ip link add web1 address {WORKLOAD} type veth peer name {switch} netns {lab.names['lan']}",
        )
        run(lab.names["lan"], f"ip link set {switch} master br0 up")
        run(self.name, "sysctl -qw net.ipv6.conf.web1.disable_ipv6=1")
        run(self.name, "ip link set web1 arp off")
        self.has_port = True
        return switch

    def port_is_up(self) -> bool:
        found = self.vppd.client.dump("sw_interface_dump", sw_if_index=self.web)
        return bool(int(found[0].flags) & 1)

    def meddle(self, up: bool) -> None:
        self.vppd.client.call("sw_interface_set_flags", sw_if_index=self.web, flags=int(up))

    def order(self, order: int, argument: int = 0) -> None:
        self.vppd.pair.command(order, argument)

    def kill(self) -> None:
        assert self.vpp is not None
        self.vpp.process.kill()
        self.vpp.process.wait()
        clean(self.settings)

    def stop(self) -> None:
        if self.vpp is None:
            return
        self.vppd.close()
        if self.vpp.is_alive():
            assert self.vpp.terminate() == 0
