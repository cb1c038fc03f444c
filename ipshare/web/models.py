"""models: what requests and answers of the API look like: the OpenAPI description is made of these.

Requests are strict: a field that is not known here, or of another type, is refused. Rows of a topology are
as in the director's file (docs/director.md); they are judged by ipshare.director.config, with every mistake
at once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME, max_length=63)]
Prefix = Annotated[str, Field(max_length=64, examples=["198.51.100.7/32"])]
Number = Annotated[int, Field(ge=1, le=2**53)]
Row = dict[str, Any]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Tables(Strict):
    """A topology: the tables of a director's file."""

    site: list[Row] = Field(default=[], max_length=100_000)
    node: list[Row] = Field(default=[], max_length=100_000)
    network: list[Row] = Field(default=[], max_length=100_000)
    endpoint: list[Row] = Field(default=[], max_length=100_000)
    distribution: list[Row] = Field(default=[], max_length=100_000)
    policy: list[Row] = Field(default=[], max_length=100_000)
    binding: list[Row] = Field(default=[], max_length=1_000_000)
    workload: list[Row] = Field(default=[], max_length=100_000)


class Target(Strict):
    """What a binding has beside its `global`."""

    to: Name | None = Field(default=None, description="The end point.")
    policy: Name | None = Field(default=None, description="The policy, in place of an end point.")
    local: str | None = Field(default=None, max_length=64, description="The local address or prefix there.")


class Move(Strict):
    """Workloads go to other nodes, and their bindings with them. A group goes as a whole."""

    do: Literal["move"]
    moves: dict[Name, Name] = Field(min_length=1, max_length=10_000, description="Workload -> node.")


class Bind(Strict):
    """Some bindings are replaced, made or taken away; all others stay."""

    do: Literal["bind"]
    set: dict[Prefix, Target] = Field(default={}, max_length=10_000, description="Prefix -> binding.")
    remove: list[Prefix] = Field(default=[], max_length=10_000)


class Restore(Strict):
    """An earlier revision again, as a new one. For admins."""

    do: Literal["restore"]
    revision: Number


class Replace(Strict):
    """All of it. For admins."""

    do: Literal["replace"]
    topology: Tables


class Drain(Strict):
    """A distribution point goes out of service, or announces again."""

    do: Literal["drain"]
    node: Name
    drained: bool = Field(default=True, description="false: it announces again.")
    force: bool = Field(default=False, description="Also the last one that announces; `why` says why.")


Change = Annotated[Move | Bind | Drain | Restore | Replace, Field(discriminator="do")]
Why = Annotated[str, Field(max_length=500, description="The reason, for the history.")]
Overlap = Annotated[
    bool,
    Field(description="Also where it changes what an earlier revision is still being rolled out for."),
]


class PlanRequest(Strict):
    change: Change


class ChangeRequest(Strict):
    change: Change
    why: Why = ""
    overlap: Overlap = False


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = Field(description="What to do.")
    problems: list[dict[str, Any]] | None = None


class Plan(BaseModel):
    """What a change would do. `order`: the steps; `notes`: what cannot be done without a gap."""

    revision: int = Field(description="The revision that it was made from: If-Match of the change.")
    changes: list[str]
    order: list[str]
    notes: list[str]
    conflicts: list[str] = Field(description="What is still being rolled out and would be changed again.")


class NodeState(BaseModel):
    name: str
    site: str | None
    endpoint: str | None
    distribution: str | None
    address: str
    state: Literal["alive", "unknown"]
    heard_s: float | None
    outcome: Literal["acked", "refused", "silent", "working", "waiting"]
    why: str
    revision: int
    final: bool
    announces: bool | None
    drained: bool = Field(description="The topology says that it is drained.")
    drained_by: list[str] = Field(description="Who drains it, as it says: director, operator.")
    stale_refused: int | None


class NodeTables(NodeState):
    make: str = Field(description="What it has until every distribution point has flipped, as TOML.")
    final_text: str = Field(description="What it has in the end, as TOML.")


class Status(BaseModel):
    director: str
    leader: str | None = Field(description="The director that counts, of several; None: nobody knows.")
    leads: bool = Field(description="This one counts: it can change something.")
    term: int
    revision: int
    who: str | None
    why: str | None
    time: str | None
    settled: bool
    troubles: list[str]
    notes: list[str]
    nodes: int
    outcomes: dict[str, int] = Field(description="How many nodes by outcome.")


class RevisionLine(BaseModel):
    revision: int
    term: int
    time: str
    who: str
    why: str
    changes: int


class Outcome(BaseModel):
    node: str
    time: str
    outcome: str
    detail: str


class RevisionDetail(BaseModel):
    revision: int
    time: str
    who: str
    why: str
    outcomes: list[Outcome]


class Diff(BaseModel):
    revision: int
    changes: list[str]


class NodeOutcome(BaseModel):
    name: str
    outcome: str
    why: str


class OperationEvent(BaseModel):
    time: str
    kind: str
    node: str | None
    outcome: str | None
    why: str


class Operation(BaseModel):
    """The roll-out of a revision; its id is the revision's number, so that it outlives the process."""

    id: str
    state: Literal["running", "settled", "superseded"]
    revision: int
    who: str
    why: str
    time: str
    nodes: list[NodeOutcome] = Field(description="Of the revision that counts; empty for earlier ones.")
    events: list[OperationEvent]


class WorkloadState(BaseModel):
    name: str
    kind: str
    node: str
    site: str | None
    group: str | None
    size: float
    addresses: list[str]


class SiteState(BaseModel):
    name: str
    latitude: float | None
    longitude: float | None
    zip: str | None
    nodes: list[str]
    prefixes: list[str] = Field(description="Global prefixes that are bound to end points there.")


class AuditEntry(BaseModel):
    time: str
    id: str
    who: str
    verb: str
    what: str
    revision: int
    outcome: str
    detail: str


class Binding(BaseModel):
    model_config = ConfigDict(extra="allow")


def listing(of: Any, name: str) -> Any:
    """{"items": [...]}: lists are objects, so that they can say more one day."""
    return type(name, (BaseModel,), {"__annotations__": {"items": list[of]}, "__module__": __name__})


Nodes = listing(NodeState, "Nodes")
Revisions = listing(RevisionLine, "Revisions")
Operations = listing(Operation, "Operations")
Workloads = listing(WorkloadState, "Workloads")
Sites = listing(SiteState, "Sites")
Bindings = listing(Binding, "Bindings")
AuditEntries = listing(AuditEntry, "AuditEntries")
