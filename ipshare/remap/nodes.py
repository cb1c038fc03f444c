"""nodes: whom a remap talks to. ``RemapNode`` is all that it asks of a node; an agent answers, by its control
socket or over TLS.

Verbs and their arguments are those of ipshare.agent.remap_desk. A file of nodes; paths are relative to it:

    [tls]                                # needed where a node has an address
    ca = "ca.pem"
    certificate = "director-ops.pem"     # of a director: others may only look
    revoked = "revoked.pem"              # may be missing

    [[node]]
    name = "a1"                          # [node].name there
    address = "10.0.0.11:7443"           # [remote].listen there

    [[node]]
    name = "c1"
    socket = "/run/ipshare/c1/agent.sock"
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from ipshare.agent.client import AgentClient, RemoteClient
from ipshare.certs.contexts import Contexts, Files
from ipshare.config import some
from ipshare.config.read import Document
from ipshare.config.some import Finding
from ipshare.config.values import Name, PathEnd, Table

HINT = 'write [[node]] with name = "..." and socket = "..." or address = "..."'
ANSWER_S = 15.0
"""An agent that is at other work answers when that is done."""


class RemapNode(Protocol):
    """One node, as an orchestrator sees it."""

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """The result. Raises Refused (understood, and not done), NotRunning or AgentSilent (it may have been
        done), or another IpshareError."""


class AgentNode:
    """A node by its agent's control socket, on this machine."""

    def __init__(self, socket: Path, *, answer_s: float = ANSWER_S) -> None:
        self._runtime_dir = socket.parent if socket.name == "agent.sock" else socket
        self._answer_s = answer_s

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        with AgentClient(self._runtime_dir, timeout_s=self._answer_s) as agent:
            return agent.call(verb, **arguments)


class RemoteNode:
    """Node ``name`` by its agent's door to the network ([remote] there). ``contexts``: certificates of a
    director."""

    def __init__(self, name: str, address: str, contexts: Contexts, *, answer_s: float = ANSWER_S) -> None:
        self._name, self._address, self._contexts, self._answer_s = name, address, contexts, answer_s

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        with RemoteClient(self._name, self._address, self._contexts, timeout_s=self._answer_s) as agent:
            return agent.call(verb, **arguments)


class _Tls(Table):
    ca: str = Field(min_length=1)
    certificate: str = Field(min_length=1)
    revoked: str | None = Field(default=None, min_length=1)


class _Node(Table):
    name: Name
    socket: str | None = Field(default=None, min_length=1)
    address: PathEnd | None = None


def read_nodes(file: Path) -> dict[str, RemapNode]:
    """The nodes of a file of nodes. Raises ConfigError with every mistake, IpshareError for certificates."""
    document = some.document_of(file)
    tls, rows = some.one(document, "tls", _Tls), some.every(document, "node", _Node)
    some.note(document, some.twice(rows, "nodes"))
    some.note(document, _findings(document, rows))
    some.done(document)
    contexts = None
    if tls is not None:
        revoked = file.parent / tls.revoked if tls.revoked is not None else None
        contexts = Contexts(Files(file.parent / tls.ca, file.parent / tls.certificate, revoked), server=False)
        contexts.current()
    return {row.name: _node(file, row, contexts) for row in rows}


def _findings(document: Document, rows: list[_Node]) -> Iterator[Finding]:
    for key in document.data:
        if key not in ("tls", "node", "include"):
            yield (key,), f"unknown key {key!r}", "known here: tls, node"
    if "node" not in document.data:
        yield (), "there is no [[node]]", HINT
    for row in rows:
        if row._broken:
            continue
        if (row.socket is None) == (row.address is None):
            yield row._path, f"where is {row.name}?", "write socket or address, one of them"
        elif row.address is not None and "tls" not in document.data:
            hint = "write [tls] with ca and certificate, those of a director"
            yield (*row._path, "address"), "an address needs [tls]", hint


def _node(file: Path, row: _Node, contexts: Contexts | None) -> RemapNode:
    if row.address is None or contexts is None:
        return AgentNode(file.parent / str(row.socket))
    host, port = row.address
    return RemoteNode(row.name, f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}", contexts)
