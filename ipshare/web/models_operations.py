"""models_operations: requests and answers of what takes long: migrations, evacuations, failovers.

Answers are those of the director's desk, as `--json` of the command line has them; the fields that programs
need are described, more may come.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ipshare.web.models import Name, Strict, Why, listing

Digest = Annotated[str, Field(pattern="^[0-9a-f]{16}$", description="Of the plan that is confirmed.")]


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class MigrationWish(Strict):
    workload: Name
    to: Name = Field(description="A node, or a site: there the node with the most room.")


class MigrationRequest(MigrationWish):
    why: Why = ""


class MigrationPlan(BaseModel):
    """What a migration would do. `against`: why a node has to refuse it; "": nothing is in its way."""

    workloads: list[str]
    source: str
    target: str
    resumes: str | None = Field(description="The split migration that would go on.")
    revision: int = Field(description="The revision that it was made from: If-Match.")
    changes: list[str]
    against: str
    notes: list[str]


class Moment(BaseModel):
    at: float = Field(description="Seconds since 1970.")
    what: str


class Migration(Open):
    """As `ipshare migrate --list --json` has it."""

    id: str
    workloads: list[str]
    source: str
    target: str
    step: str
    over: bool
    times: list[Moment] = []


class EvacuationWish(Strict):
    """Either a site or a node is left."""

    site: Name | None = None
    node: Name | None = None
    avoid: list[Name] = Field(default=[], max_length=1000, description="Sites where nothing goes.")


class EvacuationRequest(EvacuationWish):
    digest: Digest
    propose: bool = Field(default=False, description="Kept until somebody approves or refuses it.")
    why: Why = ""


class EvacuationPlan(Open):
    """As `ipshare director evacuate --json` has it."""

    possible: bool
    alarm: bool
    moves: list[dict[str, Any]]
    stays: list[dict[str, Any]]
    changes: list[str]
    digest: str
    revision: int = Field(description="The revision that it was made from: If-Match.")


class Evacuation(Open):
    """As `ipshare director evacuations --json` has it."""

    id: str
    state: str
    time: str


class Answer(Strict):
    why: Why = ""


class Fenced(Strict):
    """The word of who asks: that node does not run that workload in that epoch, and will not."""

    workload: Name
    node: Name
    epoch: int = Field(ge=1, le=2**53)


class FencedDone(BaseModel):
    workload: str
    node: str
    epoch: int


class Case(Open):
    """A failover that is proposed, or under way."""

    unit: str
    workloads: list[str]
    source: str
    target: str
    phase: str


class CaseTagged(Case):
    etag: str = Field(description="What If-Match of its approval wants.")


class Failover(Open):
    """As `ipshare director failover show --json` has it."""

    mode: str | None
    workloads: list[dict[str, Any]]
    cases: list[CaseTagged]


Evacuations = listing(Evacuation, "Evacuations")
Migrations = listing(Migration, "Migrations")
