"""nodes: whom a remap talks to. ``RemapNode`` is all that it asks of a node; today's is its agent's socket.

Verbs and their arguments are those of ipshare.agent.remap_desk. A file of nodes:

    [[node]]
    name = "a1"                          # [node].name there
    socket = "/run/ipshare/a1/agent.sock"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ipshare.agent.client import AgentClient
from ipshare.errors import ConfigError, IpshareError, Problem

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


def nodes_at(sockets: Mapping[str, Path]) -> dict[str, RemapNode]:
    """By name -> control socket, or the runtime_dir that it is in."""
    return {name: AgentNode(Path(socket)) for name, socket in sockets.items()}


def read_nodes(file: Path) -> dict[str, Path]:
    """Names and sockets of a file of nodes. Raises ConfigError with every mistake, IpshareError."""
    try:
        data = tomllib.loads(file.read_text())
    except OSError as error:
        raise IpshareError(f"cannot read {file}: {error.strerror}", hint="see docs/remap.md") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([_problem(file, "", f"not TOML: {error}")]) from None
    rows = data.get("node", [])
    found: dict[str, Path] = {}
    problems = [_problem(file, key, f"unknown key {key!r}") for key in data if key != "node"]
    if not isinstance(rows, list) or not rows:
        raise ConfigError([*problems, _problem(file, "node", "there is no [[node]]")])
    for number, row in enumerate(rows):
        key = f"node[{number}]"
        if not isinstance(row, dict) or set(row) != {"name", "socket"}:
            problems.append(_problem(file, key, "a node has name and socket, and nothing else"))
        elif not all(isinstance(value, str) and value for value in row.values()):
            problems.append(_problem(file, key, "name and socket are strings"))
        elif row["name"] in found:
            problems.append(_problem(file, key, f"the name {row['name']!r} is taken"))
        else:
            found[row["name"]] = file.parent / row["socket"]
    if problems:
        raise ConfigError(problems)
    return found


def _problem(file: Path, key: str, message: str) -> Problem:
    return Problem(str(file), 0, 0, key, message, 'write [[node]] with name = "..." and socket = "..."')
