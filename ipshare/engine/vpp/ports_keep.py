"""The interfaces, addresses and routes of one node's VPP, made, watched and taken back.

    Config --ports_wanted--> parts --ports_plan (against ports_state, journal)--> steps --ports_apply--> VPP

Each call looks at VPP first, so it can be repeated after any interruption, and the second time does nothing.
A VPP that was restarted has nothing of ours: its journal is void, and everything is made again. A run that
fails takes its own steps back. Blocking; one caller at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from ipshare.engine.vpp import ports as p
from ipshare.engine.vpp.client import Client
from ipshare.engine.vpp.ports_apply import Hands, make_tables
from ipshare.engine.vpp.ports_journal import Journal
from ipshare.engine.vpp.ports_plan import Step, plan, undo
from ipshare.engine.vpp.ports_state import State, read
from ipshare.engine.vpp.ports_wanted import parts
from ipshare.errors import IpshareError
from ipshare.model import Config

log = logging.getLogger(__name__)

TAG_BYTES = 63


class Ports:
    """``file``: the journal. It is kept in memory as well: a runtime_dir may be emptied."""

    def __init__(self, client: Client, file: Path, node: str) -> None:
        self.client, self.file, self.tag = client, file, tag_of(node)
        self._journal: Journal | None = None

    def apply(self, config: Config) -> list[str]:
        """Makes VPP have what ``config`` wants; a line for each change. Raises Refused, EngineError."""
        wanted = parts(config)
        lines = make_tables(self.client, _tables(config))
        journal, state = self._look(config, wanted)
        steps = plan(state.parts, journal.made, wanted)
        self._walk(steps, state, journal)
        return [*lines, *map(str, steps)]

    def missing(self, config: Config) -> list[str]:
        """A line for each thing that is not as ``apply`` leaves it."""
        wanted = parts(config)
        journal, state = self._look(config, wanted)
        lines = [str(step) for step in plan(state.parts, journal.made, wanted)]
        return lines if self.file.exists() or not journal.made else [*lines, f"{self.file} is gone"]

    def left(self, config: Config) -> list[str]:
        """A line for each interface that carries our tag, whoever made it."""
        _, state = self._look(config, [])
        return [f"interface {name}" for name, tag in sorted(state.tags.items()) if tag == self.tag]

    def undo(self, config: Config) -> list[str]:
        """Takes everything back that was made; a line for each change."""
        journal, state = self._look(config, [])
        steps = undo(state.parts, journal.made)
        self._walk(steps, state, journal)
        for part in list(journal.made):  # what somebody else removed before
            journal.is_gone(part)
        return [str(step) for step in steps]

    def _look(self, config: Config, wanted: Sequence[p.Part]) -> tuple[Journal, State]:
        journal = self._open()
        concerned = [*wanted, *journal.made]
        tables = [*_tables(config), *(r.table for r in concerned if isinstance(r, p.StaticRoute))]
        untold = [part for part in journal.made if isinstance(part, p.NdProxy)]
        state = read(self.client, concerned, tables, untold)
        _adopt(journal, state, self.tag)
        return journal, state

    def _open(self) -> Journal:
        """The journal of the VPP that answers now."""
        self.client.call("control_ping")
        boot_id = self.client.boot_id or ""
        if self._journal is None or self._journal.vpp != boot_id:
            self._journal = Journal(self.file, boot_id)
        self._journal.rewrite()
        return self._journal

    def _walk(self, steps: Iterable[Step], state: State, journal: Journal) -> None:
        hands, done = Hands(self.client, state.indexes, self.tag), list[Step]()
        try:
            for step in steps:
                _take(step, hands, journal)
                done.append(step)
        except (Exception, KeyboardInterrupt):
            for step in reversed(done):
                try:
                    _take(_opposite(step), hands, journal)
                except IpshareError as error:
                    log.error("could not take back %s: %s", p.describe(step.part), error)
            raise


def tag_of(node: str) -> str:
    """How our interfaces are marked, in what VPP has room for: of a long name a digest tells two apart."""
    tag = f"ipshare {node}"
    return tag if len(tag) <= TAG_BYTES else f"{tag[: TAG_BYTES - 9]}-{sha256(node.encode()).hexdigest()[:8]}"


def _take(step: Step, hands: Hands, journal: Journal) -> None:
    if step.verb == "add":
        journal.will_make(step.part, step.before)
        hands.do(step)
    else:
        hands.do(step)
        journal.is_gone(step.part)


def _opposite(step: Step) -> Step:
    return Step("remove" if step.verb == "add" else "add", step.part, step.before)


def _adopt(journal: Journal, state: State, tag: str) -> None:
    """Interfaces with our tag of which nothing is written are ours all the same, with what hangs on them."""
    lost = {
        part.slot: part
        for part in state.parts - journal.made.keys()
        if isinstance(part, p.HostPort | p.Loopback) and state.tags.get(part.port) == tag
    }
    inborn = p.Admin | p.Mac | p.Mtu | p.RxMode | p.InTable | p.Quiet
    hanging = [
        part for part in state.parts if not {*part.needs}.isdisjoint(lost) and not isinstance(part, inborn)
    ]
    domains = [p.Domain(part.domain) for part in hanging if isinstance(part, p.Member)]
    for part in dict.fromkeys((*lost.values(), *domains, *hanging)):
        journal.adopt(part)


def _tables(config: Config) -> list[int]:
    assert config.vpp is not None, "a node whose engine is VPP"
    return [config.vpp.service_table, config.vpp.delivery_table]
