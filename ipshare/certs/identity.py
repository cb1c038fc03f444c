"""identity: the role and the name that a certificate gives its holder: URI ``ipshare://ROLE/NAME``.

The URI stands alone in the subject alternative name, and nothing else of a certificate is looked at: host
names say where somebody is, and an address that moves is the product. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ipshare.errors import IpshareError, Refused

_URI = re.compile(r"ipshare://(node|director|operator)/([A-Za-z0-9][A-Za-z0-9_.-]{0,62})")


class Role(StrEnum):
    NODE = "node"
    DIRECTOR = "director"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is."""

    role: Role
    name: str

    @property
    def uri(self) -> str:
        return f"ipshare://{self.role}/{self.name}"

    def __str__(self) -> str:
        return f"{self.role} {self.name}"


def identity(role: str, name: str) -> Identity:
    """Raises IpshareError for what no certificate can say."""
    found = parse(f"ipshare://{role}/{name}")
    if found is None:
        roles = ", ".join(Role)
        raise IpshareError(
            f"{role} {name!r} cannot be in a certificate",
            hint=f"roles are {roles}; a name is 1 to 63 letters, digits, '-', '_', '.'",
        )
    return found


def parse(uri: str) -> Identity | None:
    match = _URI.fullmatch(uri)
    return Identity(Role(match[1]), match[2]) if match else None


def of_peer(certificate: Mapping[str, Any] | None) -> Identity:
    """Of ``SSLSocket.getpeercert()``. Raises Refused where it names nobody, or more than one."""
    names = [value for kind, value in (certificate or {}).get("subjectAltName", ())]
    found = parse(names[0]) if len(names) == 1 else None
    if found is None:
        raise Refused("the certificate names no node, director or operator", hint="see ipshare cert issue")
    return found
