"""assignment: what a director assigned to this node, and which director's word counts (SYSTEMS.md S1.9).

    assign      {"number": [term, revision, step], "digest": ..., "text": TOML, "proof": ...}: checked,
                applied, kept
    assigned    which one the node has, which is the highest it heard of, whether it announces, who drains it

A number is higher than another as tuples are. The highest that was heard is on the disk with what came with
it (state_dir/director.heard, its number in the first line) before anything is done about it; lower ones are
refused for good, over restarts: a director that was paused, cut off or restored from a backup undoes nothing.
The director's signature under its term (ipshare.certs.terms) is kept in the second line, and shown to
directors: a node's own word is not enough for them.
The same again is no change; the same number with another content is refused. When all of it is in force, the
same file gets a second name, state_dir/director.toml; ipshare.config.assigned makes that part of the
configuration. A node without a director goes on with what it has.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipshare import config as configuration
from ipshare.agent import bgp_drain
from ipshare.agent.reconcile import Done, Reconciler
from ipshare.agent.server import Asker
from ipshare.config.assigned import FILE
from ipshare.errors import IpshareError, NoPrivilege, Refused

SEEN = "director.heard"
EARLIER = "director.json"
"""Where earlier versions had the highest number: heard of still."""
LARGEST = 2**63 - 1
Number = tuple[int, int, int]
"""(term, revision, step)."""
NONE: Number = (0, 0, 0)
_FIRST = re.compile(r"# assigned: term (\d+) revision (\d+) step (\d+) sha256 ([0-9a-f]{64})\n")
MOST_PROOF = 8192
"""Characters."""
_PROOF = re.compile(r"[A-Za-z0-9+/=]+\.[A-Za-z0-9+/=]+")
_SECOND = re.compile(rf"# term signed: ({_PROOF.pattern})\n")


@dataclass(frozen=True, slots=True)
class Heard:
    """A number, and what came with it. ``proof``: that a director began the term; "": none came."""

    number: Number = NONE
    digest: str = ""
    proof: str = field(default="", compare=False)


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Assignment:
    """Of one node. ``file``: its site file. ``work`` and ``change`` as the daemon has them; ``announces``:
    whether the node announces by BGP, None: that is not known here."""

    def __init__(
        self,
        node: Reconciler,
        file: Path,
        work: Callable[..., Awaitable[Any]],
        change: Callable[[str, str, str, Callable[[], Done]], Awaitable[Done]],
        announces: Callable[[], bool | None],
    ) -> None:
        self._node, self._file, self._work, self._change = node, file, work, change
        self._announces = announces
        self.verbs = {"assign": self._assign, "assigned": self._assigned}
        self.has, self.seen, self.refused_stale = Heard(), Heard(), 0
        self._written = Heard()  # what this process wrote to the file of what was heard
        self.trouble = ""
        self._load()

    @property
    def is_there(self) -> bool:
        return self.has.number != NONE

    def term(self) -> int:
        """The highest that was heard of."""
        return self.seen.number[0]

    def report(self) -> dict[str, Any]:
        """Without a look at the engine, so that it is answered while the node is at other work."""
        config = self._node.config
        return {
            "node": config.node.name if config is not None else None,
            "endpoint": _name(config.self_endpoint) if config is not None else None,
            "distribution": _name(config.self_distribution) if config is not None else None,
            "has": list(self.has.number),
            "digest": self.has.digest,
            "seen": list(self.seen.number),
            "proof": self.seen.proof,
            "announces": self._announces(),
            "drained_by": bgp_drain.holders(self._node.store),
            "stale_refused": self.refused_stale,
            "migrates": [one.workload for one in config.migrations] if config is not None else [],
        }

    async def _assigned(self, _caller: Asker, _request: dict[str, Any]) -> dict[str, Any]:
        return self.report()

    async def _assign(self, caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        if not (caller.is_owner or getattr(caller, "may_assign", False)):
            raise NoPrivilege("only a director, or root, may assign")
        heard, text = _heard(request)
        what = "term {} revision {} step {}".format(*heard.number)
        done = await self._change("assign", what, str(caller), lambda: self.take(heard, text))
        return {"generation": done.generation, "changed": not done.is_empty, **self.report()}

    def take(self, heard: Heard, text: str) -> Done:
        """In the work thread. Raises Refused (stale; or the node cannot), ConfigError with all mistakes."""
        self._check(heard)
        if heard == self.has and self._node.config is not None:
            return Done(self._generation())
        if heard != self._written:
            first = "# assigned: term {} revision {} step {} sha256 {}\n".format(*heard.number, heard.digest)
            second = f"# term signed: {heard.proof}\n" if heard.proof else ""
            self._node.store.keep_text(SEEN, first + second + text)
            self._written = self.seen = heard
        done = self._apply(text)
        self._node.store.keep_as(SEEN, FILE)
        self.has = heard
        return done

    def _apply(self, text: str) -> Done:
        return self._node.apply(configuration.load(self._file, assigned=text), quick=True)

    def _check(self, heard: Heard) -> None:
        if self.trouble:
            raise Refused(self.trouble, hint="put it back, or remove it if there is one director only")
        if heard.number < self.seen.number:
            self.refused_stale += 1
            raise Refused(
                "stale: term {} revision {} step {} was heard of already".format(*self.seen.number),
                hint="another director has taken over, or this one lost its state",
            )
        if heard.number == self.seen.number and heard.digest != self.seen.digest:
            raise Refused(
                "another assignment came under the same number", hint="two directors run in one term"
            )

    def _generation(self) -> int:
        info = self._node.engine_info()
        return info.generation if info is not None else 0

    def _load(self) -> None:
        folder = self._node.store.dir
        self.has = _first(folder / FILE) or Heard()
        try:
            self.seen = max(self.has, newest(folder), key=lambda heard: heard.number)
        except Refused as unreadable:
            self.seen, self.trouble = self.has, unreadable.message


def newest(folder: Path) -> Heard:
    """Of all that was heard of, by what is in the node's ``state_dir``. Raises Refused where a record of it
    is not readable."""
    found = Heard()
    for name, read in ((SEEN, _first), (EARLIER, _record)):
        if (folder / name).exists():
            if (kept := read(folder / name)) is None:
                raise Refused(f"{folder / name}, which says what director was heard last, is not readable")
            found = max(found, kept, key=lambda heard: heard.number)
    return found


def _first(path: Path) -> Heard | None:
    """What an assignment's first line says; None: nothing that could be read."""
    try:
        with path.open() as file:
            match = _FIRST.fullmatch(file.readline(256))
            signed = _SECOND.fullmatch(file.readline(MOST_PROOF + 64))
    except (OSError, ValueError):
        return None
    if match is None:
        return None
    return Heard((int(match[1]), int(match[2]), int(match[3])), match[4], signed[1] if signed else "")


def _record(path: Path) -> Heard | None:
    """What a file of an earlier version says."""
    try:
        content = json.loads(path.read_text())["content"]
        term, revision, step = (int(part) for part in content["number"])
        return Heard((term, revision, step), str(content["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _heard(request: dict[str, Any]) -> tuple[Heard, str]:
    number, digest, text = (request.get(key) for key in ("number", "digest", "text"))
    good = (
        isinstance(number, list)
        and len(number) == 3
        and all(type(part) is int and 0 <= part <= LARGEST for part in number)
        and number[0] > 0
    )
    if not good or number is None:
        raise IpshareError("number is [term, revision, step], from term 1 on")
    if not isinstance(text, str) or digest != digest_of(text):
        raise IpshareError("text is TOML, digest its SHA-256")
    proof = request.get("proof", "")
    if not isinstance(proof, str) or len(proof) > MOST_PROOF or (proof and not _PROOF.fullmatch(proof)):
        raise IpshareError("proof is a director's signature under the term: two parts in base64")
    return Heard((number[0], number[1], number[2]), digest, proof), text


def _name(table: Any) -> str | None:
    return table.name if table is not None else None
