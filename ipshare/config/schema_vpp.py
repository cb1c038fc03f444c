"""The tables of a configuration with `[engine] kind = "vpp"`: where VPP is, its interfaces, bridges, routes.

As in schema: one model per table, judged alone; what ties them together is in ipshare.config.check_vpp.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ipshare.config.values import (
    Address,
    Card,
    Device,
    Duration,
    InterfaceAddress,
    Mac,
    Name,
    PageSize,
    PortName,
    Prefix,
    Size,
    Table,
)

VppTable = Annotated[int, Field(ge=0, le=0xFFFFFFFE)]
Lookup = Literal["service", "delivery"]


Core = Annotated[int, Field(ge=0, le=1023)]
Queues = Annotated[int, Field(ge=1, le=256)]
Descriptors = Annotated[int, Field(ge=32, le=32768)]


class Hugepages(Table):
    """Hugepages of one size on one NUMA node; `ipshare vpp prepare` allocates them, at boot by its unit."""

    size: PageSize = Field(
        default=2 << 20,
        json_schema_extra={"default": "2MiB"},
        description="Size of a page: what the processor has, on x86 2MiB and 1GiB.",
    )
    count: int = Field(ge=1, le=1 << 24, description="How many.")
    numa: int = Field(default=0, ge=0, le=1023, description="NUMA node.")


class Dpdk(Table):
    """A network card that a managed VPP drives by DPDK; `ipshare vpp prepare` gives it to vfio-pci."""

    device: Card = Field(
        description="PCI address, as lspci -D shows it, or the name that the card has in Linux at boot."
    )
    name: PortName | None = Field(
        default=None,
        description="VPP's name of the interface. Default: by speed and place, as TenGigabitEthernet3/0/0.",
    )
    rx_queues: Queues | None = Field(
        default=None, description="Queues for receiving. Default: as VPP has it, 1."
    )
    tx_queues: Queues | None = Field(
        default=None, description="Queues for sending. Default: as VPP has it, one for each thread."
    )
    rx_descriptors: Descriptors | None = Field(
        default=None, description="Packets that a receive queue holds. Default: as VPP has it for this card."
    )
    tx_descriptors: Descriptors | None = Field(
        default=None, description="Packets that a send queue holds. Default: as VPP has it for this card."
    )


class Vpp(Table):
    """The VPP that translates (with `kind = "vpp"` in [engine])."""

    api_socket: str | None = Field(
        default=None,
        min_length=1,
        description="Binary API socket of a VPP that somebody else starts. Default: /run/vpp/api.sock.",
    )
    stats_socket: str | None = Field(
        default=None,
        min_length=1,
        description="Its stats segment's socket. Default: /run/vpp/stats.sock.",
    )
    managed: bool = Field(
        default=False,
        description="The agent starts a VPP of its own, with sockets and startup.conf in runtime_dir, and "
        "`ipshare down` ends it.",
    )
    binary: str | None = Field(
        default=None,
        min_length=1,
        description="Where managed: program to start. Default: IPSHARE_VPP in the environment, else `vpp` on "
        "the PATH.",
    )
    plugin_path: str | None = Field(
        default=None,
        min_length=1,
        description="Where managed: directory of the ipshare plugin. Default: beside VPP's own plugins.",
    )
    service_table: VppTable = Field(
        default=0,
        description="IP table in which packets from outside are looked up; Global Networks, own local "
        "networks and tunnel addresses are entered there.",
    )
    delivery_table: VppTable = Field(
        default=0,
        description="IP table in which translated packets are looked up. Another one than service_table "
        "where this node is both end point and distribution point.",
    )
    heap_size: Size = Field(
        default=1 << 30,
        json_schema_extra={"default": "1GiB"},
        description="Where managed: VPP's main heap; memory is taken as it is used.",
    )
    statseg_size: Size | None = Field(
        default=None,
        description="Where managed: VPP's stats segment. Default: what counter_cells need.",
    )
    buffers: int = Field(
        default=16384,
        ge=2048,
        le=1 << 22,
        description="Where managed: packet buffers on each NUMA node. In hugepages where some are asked for "
        "and there.",
    )
    poll_sleep: Duration = Field(
        default=0.0,
        json_schema_extra={"default": "0s"},
        description="Where managed: pause between two turns of the main thread, for labs; it costs latency. "
        "0s: poll.",
    )
    main_core: Core | None = Field(
        default=None,
        description="Where managed: processor of the main thread. Default: any.",
    )
    worker_cores: list[Core] = Field(
        default=[],
        description="Where managed: processors of the worker threads, one each, instead of `workers` in "
        "[engine].",
    )
    isolate_cores: bool = Field(
        default=False,
        description="Where managed: `ipshare vpp prepare` keeps everything but VPP off main_core and "
        "worker_cores, by cpusets.",
    )
    hugepages: list[Hugepages] = Field(default=[], description="Hugepages that this machine shall have.")
    dpdk: list[Dpdk] = Field(default=[], description="Where managed: network cards that DPDK drives.")


class Interface(Table):
    """An interface of VPP: made (`host`, or a loopback) or found there, and brought into this state."""

    name: PortName = Field(
        description="VPP's name: host-DEVICE for a Linux device, loopN for a loopback (made if missing), "
        "else one that VPP has."
    )
    host: Device | None = Field(
        default=None, description="Linux device that is opened (af_packet); the interface is host-DEVICE."
    )
    table: Lookup = Field(
        default="service",
        description="Where packets that come in are looked up: service (towards the outside), or delivery "
        "(devices with Global IPs).",
    )
    addresses: list[InterfaceAddress] = Field(
        default=[], description="Addresses with the length of their subnet."
    )
    mtu: int | None = Field(
        default=None, ge=68, le=65535, description="Largest IP packet, in bytes. Default: as VPP has it."
    )
    bridge: Name | None = Field(default=None, description="Bridge that it is a port of; it has no addresses.")
    up: bool = Field(default=True, description="Administratively up.")
    mac: Mac | None = Field(
        default=None, description="MAC address. Default: the device's own; a loopback's is made up by VPP."
    )
    linux_cp: Device | None = Field(
        default=None,
        description="Linux device to make as its pair (linux-cp), for BIRD and other daemons. Needs VPP's "
        "tap and linux_cp plugins and /dev/vhost-net.",
    )
    linux_cp_netns: Name | None = Field(
        default=None,
        description="Network namespace of that device, which must exist. Default: that of VPP.",
    )
    rx_mode: Literal["polling", "interrupt", "adaptive"] | None = Field(
        default=None,
        description="How packets are awaited. Default: interrupt with `host`, else as VPP has it.",
    )


class Bridge(Table):
    """A bridge domain of VPP: a LAN of devices with Global IPs on several interfaces."""

    name: Name = Field(description="Name that interfaces refer to.")
    id: int = Field(ge=1, le=(1 << 24) - 1, description="Number of the bridge domain, unique in this VPP.")
    bvi: PortName | None = Field(
        default=None,
        description="Loopback through which VPP itself is in this LAN; it has the addresses.",
    )


class Route(Table):
    """A static route in one of the two tables: via a next hop, an interface, or both."""

    prefix: Prefix = Field(description="Destination; 0.0.0.0/0 or ::/0 for the default route.")
    via: Address | None = Field(default=None, description="Next hop.")
    interface: PortName | None = Field(
        default=None, description="Interface. Without `via` the destinations are on its link."
    )
    table: Lookup = Field(default="service", description="Table that the route is in.")


class Neighbor(Table):
    """A neighbour whose MAC address is given instead of asked for."""

    interface: PortName = Field(description="Interface that it is behind.")
    address: Address = Field(description="Its IP address.")
    mac: Mac = Field(description="Its MAC address.")
