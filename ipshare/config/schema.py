"""The shape of a configuration file: one pydantic model per table, strict, unknown keys refused.

A model describes one table alone; what ties tables together is in ipshare.config.checks. The texts
here are the reference: they are exported as a JSON Schema for editors and checked against docs/.
`Table._broken` names keys whose value was refused; reading one raises Unreadable, so that
a check that needs it is skipped while all the others still run (every mistake is reported at once).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, PrivateAttr, WithJsonSchema
from pydantic_core import PydanticCustomError

from ipshare.config import units
from ipshare.model import Address as AnyAddress
from ipshare.model import PathMtu
from ipshare.model import Prefix as AnyPrefix


class Unreadable(Exception):
    """A key whose value was refused has been read."""


def _validator(parse: Callable[[object], Any]) -> PlainValidator:
    def validate(value: object) -> Any:
        try:
            return parse(value)
        except units.Invalid as error:
            text = {"text": error.message, "hint": error.hint}
            raise PydanticCustomError("ipshare", "{text}", text) from None

    return PlainValidator(validate)


def _text(example: str, pattern: str | None = None) -> WithJsonSchema:
    schema: dict[str, Any] = {"type": "string", "examples": [example]}
    return WithJsonSchema(schema | ({"pattern": pattern} if pattern else {}))


def _mtu(value: object) -> PathMtu:
    """PathMtu from bytes, or from {v4 = bytes, v6 = bytes}; all that is wrong with it in one message."""
    hint = "write bytes, or {v4 = 1400, v6 = 1500}"
    if not isinstance(value, dict):
        if isinstance(value, int) and 68 <= value < 1280:
            hint = f"for IPv4 alone write path_mtu = {{v4 = {value}}}"
        given: dict[str, object] = {"v4": value, "v6": value}
    else:
        given = {"v4": 1500, "v6": 1500, **value}
    wrong = dict.fromkeys(text for family, bytes_ in given.items() if (text := _mtu_wrong(family, bytes_)))
    if wrong:
        raise units.Invalid("; ".join(wrong), hint)
    return PathMtu(**given)  # type: ignore[arg-type]  # numbers: checked above


def _mtu_wrong(family: str, value: object) -> str | None:
    if family not in ("v4", "v6"):
        return f"unknown key {family!r} in a path MTU"
    if not isinstance(value, int) or isinstance(value, bool) or value > 65535:
        return f"not a path MTU: {value!r}"
    if value < 68:
        return f"path MTU {value} is below 68, the least that IPv4 allows (RFC 791)"
    if family == "v6" and value < 1280:
        return f"path MTU {value} is below 1280, the least that IPv6 allows (RFC 8200)"
    return None


Duration = Annotated[float, _validator(units.duration), _text("10s", units.DURATION_PATTERN)]
Size = Annotated[
    int,
    _validator(units.size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": units.SIZE_PATTERN}]}
    ),
]
Sample = Annotated[int, _validator(units.sample), _text("1/100", units.SAMPLE_PATTERN)]
Address = Annotated[AnyAddress, _validator(units.address), _text("192.0.2.1")]
Prefix = Annotated[AnyPrefix, _validator(units.prefix), _text("198.51.100.0/24")]
Collector = Annotated[tuple[AnyAddress, int], _validator(units.collector), _text("192.0.2.9:4789")]
Device = Annotated[str, _validator(units.device), _text("eth0", r"^[^\s/:]{1,15}$")]
Name = Annotated[str, _validator(units.name), _text("A", r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
_MTU_JSON: dict[str, Any] = {"type": "integer", "minimum": 68, "maximum": 65535}
Mtu = Annotated[
    PathMtu,
    _validator(_mtu),
    WithJsonSchema(
        {
            "anyOf": [
                _MTU_JSON | {"minimum": 1280},
                {
                    "type": "object",
                    "properties": {"v4": _MTU_JSON, "v6": _MTU_JSON | {"minimum": 1280}},
                    "additionalProperties": False,
                },
            ],
        }
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Weight = Annotated[int, Field(ge=0, le=65535)]
RoutingTable = Annotated[int, Field(ge=1, le=0xFFFFFFFF)]


class Table(BaseModel):
    """A table of the file. See the head of this module for `_broken`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    _broken: frozenset[str] = PrivateAttr(default=frozenset())
    _path: tuple[str | int, ...] = PrivateAttr(default=())

    if not TYPE_CHECKING:

        def __getattr__(self, key: str) -> Any:
            if not key.startswith("_") and key in self._broken:
                raise Unreadable(key)
            return super().__getattr__(key)


class Node(Table):
    """This node."""

    name: Name = Field(description="Name of this node, unique among all nodes of the installation.")
    runtime_dir: str | None = Field(
        default=None,
        min_length=1,
        description="Directory for sockets and shared memory, lost at a reboot. Default: /run/ipshare/NAME.",
    )
    state_dir: str | None = Field(
        default=None,
        min_length=1,
        description="Directory for what outlives a reboot. Default: /var/lib/ipshare/NAME.",
    )
    endpoint: Name | None = Field(
        default=None, description="The end point that this node is; the same as `self = true` in its table."
    )
    distribution: Name | None = Field(
        default=None,
        description="The distribution point that this node is; the same as `self = true` in its table.",
    )
    icmp_source: list[Address] = Field(
        default=[],
        description="Sources of the ICMP errors that this node makes, at most one per family. Without one, "
        "none are sent in that family and clients see silence where a router would have spoken.",
    )
    icmp_rate: int = Field(
        default=1000, ge=0, le=1_000_000, description="ICMP errors per second and worker, at most. 0: none."
    )
    outside: list[Device] = Field(
        default=[],
        description="Interfaces towards the Internet, where an own Global IP as a source is spoofed "
        "and dropped. Empty: not checked.",
    )
    inside: list[Device] = Field(
        default=[],
        description="Interfaces that may bring packets for inner translation, besides tunnels. "
        "Empty: every interface may.",
    )


class Engine(Table):
    """The data path's process and what it occupies in the kernel."""

    kind: Literal["embedded"] = Field(
        default="embedded", description="Which data path: embedded (ipshare-engine)."
    )
    workers: int = Field(default=2, ge=1, le=64, description="Packet threads, and queues of each device.")
    outer_device: Device = Field(
        default="ips-out", description="TUN device that Global Networks are routed into."
    )
    inner_device: Device = Field(
        default="ips-in", description="TUN device that local networks are routed into."
    )
    counter_cells: int = Field(
        default=1 << 20,
        ge=1024,
        le=1 << 26,
        description="Bindings that can have counters of their own; 16 bytes each for every worker.",
    )
    service_table: RoutingTable = Field(
        default=4900,
        description="Routing table (number) that holds our routes and nothing else; it is asked before the "
        "node's own. Must be free.",
    )
    reply_table: RoutingTable = Field(
        default=4901,
        description="Routing table (number) that brings replies of devices into our devices. Must be free.",
    )
    rule_priority: int = Field(
        default=4900,
        ge=1,
        le=32756,
        description="Priority of our first `ip rule`; ten numbers from here on must be free, all of them "
        "below 32766, that of table main.",
    )


class Network(Table):
    """A Global Network: announced to the Internet, served anywhere."""

    name: Name = Field(description="Name, for people and counters.")
    prefix: Prefix = Field(description="The Global Network, IPv4 or IPv6.")
    unmatched: Literal["drop", "unreachable", "pass"] = Field(
        default="unreachable",
        description="What a packet gets where no binding covers its destination: dropped silently, "
        "answered with "
        "host unreachable, or passed on unchanged (refused at a distribution point, where it would loop).",
    )


class Endpoint(Table):
    """An end point: a place where devices with Global IPs run."""

    name: Name = Field(description="Name that bindings and policies refer to.")
    local: list[Prefix] = Field(
        default=[],
        description="Local networks, routable from the distribution points. Needed where packets "
        "are rewritten, "
        "and for tunnel addresses.",
    )
    path: Literal["rewrite", "ipip", "gue"] = Field(
        default="rewrite",
        description="How packets come here: destination rewritten to the local address, or "
        "encapsulated unchanged "
        "in IP-in-IP or GUE (UDP).",
    )
    tunnel: list[Address] = Field(
        default=[],
        description="Tunnel addresses, at most one per family: inside a local network, "
        "configured on no interface.",
    )
    gue_port: Port = Field(default=6080, description="UDP port of GUE at this end point.")
    path_mtu: Mtu = Field(
        default=PathMtu(1500, 1500),
        description="Bytes of the largest IP packet on the way to this end point (encapsulated: of the outer "
        "packet), for both families or as {v4 = ..., v6 = ...}.",
    )
    replies: Literal["direct", "tunnel", "rewrite"] = Field(
        default="direct",
        description="How replies leave: untranslated straight to the client, encapsulated to a "
        "distribution point, "
        "or with the source rewritten where the distribution point is the default gateway.",
    )
    mss_clamp: bool = Field(
        default=True,
        description="Lower the MSS option of TCP SYNs to what path_mtu carries through the encapsulation.",
    )
    is_self: bool = Field(default=False, alias="self", description="This node is that end point.")


class Distribution(Table):
    """A distribution point: announces Global Networks and sends their traffic on."""

    name: Name = Field(description="Name, for people and [node].distribution.")
    tunnel: list[Address] = Field(
        default=[],
        description="Tunnel addresses, at most one per family: source of what it encapsulates, "
        "and where tunnelled replies go. Configured on no interface.",
    )
    weight: Weight = Field(default=1, description="Share of the tunnelled replies that it takes; 0: none.")
    path: Literal["ipip", "gue"] = Field(
        default="ipip", description="How replies are encapsulated on their way to it."
    )
    gue_port: Port = Field(default=6080, description="UDP port of GUE at this distribution point.")
    path_mtu: Mtu = Field(
        default=PathMtu(1500, 1500),
        description="Bytes of the largest IP packet (the outer one) on the way from end points to "
        "it, for both "
        "families or as {v4 = ..., v6 = ...}.",
    )
    is_self: bool = Field(default=False, alias="self", description="This node is that distribution point.")


class Member(Table):
    """A member of a policy."""

    endpoint: Name = Field(description="Name of the end point.")
    weight: Weight = Field(
        default=1, description="Share of the clients that it takes, relative to the others; 0: none."
    )


class ClientBits(Table):
    """Leading bits of a client's address that are hashed: clients alike in them reach the same end point."""

    v4: int = Field(default=32, ge=1, le=32, description="Of IPv4 addresses.")
    v6: int = Field(default=64, ge=1, le=128, description="Of IPv6 addresses.")


class Policy(Table):
    """Several end points behind one Global IP, chosen by the client's address (consistent hashing)."""

    name: Name = Field(description="Name that bindings refer to.")
    members: list[Member] = Field(description="End points and their weights.")
    client_bits: ClientBits = Field(
        default=ClientBits(), description="How much of a client's address is hashed, per family."
    )


class Binding(Table):
    """A global prefix or address, and what stands behind it: exactly one of to, policy, here, down."""

    prefix: Prefix = Field(
        alias="global", description="Global prefix or address. Bindings may nest: the longest wins."
    )
    to: Name | None = Field(default=None, description="End point that serves it.")
    local: Prefix | None = Field(
        default=None,
        description="Local prefix of the same length at that end point. Default: as far into the "
        "end point's first "
        "local network of the family as `global` is into its Global Network; encapsulated: none.",
    )
    policy: Name | None = Field(default=None, description="Policy that chooses among several end points.")
    here: bool = Field(default=False, description="Served on this node itself, untranslated.")
    down: bool = Field(default=False, description="Known to be down: clients get host unreachable.")
    copy_to: Name | None = Field(
        default=None, alias="copy", description="Copy that gets its traffic from before translation."
    )


class BindingsFile(Table):
    """Bindings in bulk, from a CSV or JSON file."""

    path: str = Field(min_length=1, description="File name, relative to this file. Ends in .csv or .json.")
    name: Name = Field(description="Name of the set, for people.")


class Copy(Table):
    """A copy of traffic from before translation: exactly one of interface, collector, file."""

    name: Name = Field(description="Name that bindings refer to.")
    interface: Device | None = Field(default=None, description="Interface that gets the packets as they are.")
    collector: Collector | None = Field(
        default=None, description="Address and UDP port that get them encapsulated."
    )
    file: str | None = Field(default=None, min_length=1, description="pcapng file that they are written to.")
    sample: Sample = Field(
        default=1,
        json_schema_extra={"default": "1/1"},
        description="Which share is copied: one packet of N, as 1/N. Default: 1/1, all.",
    )
    snaplen: Size = Field(default=65535, description="Bytes that are kept of each packet.")


class Probe(Table):
    """Probing of the paths to the end points."""

    interval: Duration = Field(
        default=60.0, json_schema_extra={"default": "60s"}, description="Time between two probes of a path."
    )
    timeout: Duration = Field(
        default=1.0,
        json_schema_extra={"default": "1s"},
        description="Time after which a probe counts as lost.",
    )
    attempts: int = Field(
        default=3, ge=1, le=100, description="Lost probes in a row after which a path counts as down."
    )
    mtu: bool = Field(
        default=True, description="Probe path_mtu with DF in both directions, and alarm when it is not met."
    )


class File(Table):
    """A configuration of ipshare (site.toml)."""

    include: list[str] = Field(
        default=[],
        description="More files, relative to this one; globs (*, ?, [...], **) are sorted by name.",
    )
    node: Node
    engine: Engine = Engine()
    network: list[Network] = []
    endpoint: list[Endpoint] = []
    distribution: list[Distribution] = []
    policy: list[Policy] = []
    binding: list[Binding] = []
    bindings_file: list[BindingsFile] = []
    copy_: list[Copy] = Field(default=[], alias="copy")
    probe: Probe = Probe()


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a configuration file, for editors (taplo, Even Better TOML)."""
    schema = File.model_json_schema(by_alias=True)
    schema["title"] = "ipshare configuration"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
