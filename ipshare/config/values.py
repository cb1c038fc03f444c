"""The values that a configuration file may hold, as pydantic types, and the base of all its tables.

Types wrap the parsers of ipshare.config.units; ipshare.config.schema and schema_vpp put them together.
`Table._broken` names keys whose value was refused; reading one raises Unreadable, so that
a check that needs it is skipped while all the others still run (every mistake is reported at once).
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, PrivateAttr, WithJsonSchema
from pydantic_core import PydanticCustomError

from ipshare.config import units
from ipshare.model import Address as AnyAddress
from ipshare.model import AddressRange, PathMtu
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
Pool = Annotated[AddressRange, _validator(units.pool), _text("192.0.2.8-192.0.2.15")]
Collector = Annotated[tuple[AnyAddress, int], _validator(units.collector), _text("192.0.2.9:4789")]
PathEnd = Annotated[tuple[AnyAddress, int], _validator(units.collector), _text("10.9.0.1:6081")]
Device = Annotated[str, _validator(units.device), _text("eth0", r"^[^\s/:]{1,15}$")]
Card = Annotated[str, _validator(units.card), _text("0000:03:00.0", r"^\S+$")]
PageSize = Annotated[int, _validator(units.page_size), _text("2MiB", units.SIZE_PATTERN)]
PortName = Annotated[str, _validator(units.port_name), _text("host-eth0", r"^[^\s]{1,63}$")]
InterfaceAddress = Annotated[
    IPv4Interface | IPv6Interface, _validator(units.interface_address), _text("10.0.1.2/29")
]
Community = Annotated[tuple[int, ...], _validator(units.community), _text("65000:100")]
Mac = Annotated[str, _validator(units.mac), _text("02:00:00:00:00:01", units.MAC_PATTERN)]
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
