"""[health] and [failover] of a director's file: what is looked after, what follows, and what does not fit
together. Read when the director starts (docs/health.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ipshare.config import some
from ipshare.config.read import Document
from ipshare.config.some import Finding
from ipshare.config.values import Address, Duration, Name, Port, Table
from ipshare.director import limits
from ipshare.exclusive import timing

Count = Annotated[int, Field(ge=1, le=1000)]


class Probe(Table):
    """How one end point, or one workload, is looked after."""

    endpoint: Name | None = Field(default=None, description="The [[endpoint]]; or workload.")
    workload: Name | None = Field(default=None, description="The [[workload]]; or endpoint.")
    kind: Literal["tcp", "http", "icmp"] = Field(
        default="tcp", description="A connection, an answer with a status below 400, or an echo."
    )
    address: Address | None = Field(
        default=None,
        description="Where to. Default: the first of a workload's addresses, reached "
        "through the observer's own data path; the first tunnel address of an end point.",
    )
    port: Port | None = Field(default=None, description="For tcp and http.")
    path: str = Field(default="/", pattern=r"^/[!-~]*$", description="For http.")


class Health(Table):
    """What nodes look after for the director. End points with a tunnel address are probed by ICMP there, if
    no probe names them."""

    interval: Duration = Field(
        default=1.0,
        json_schema_extra={"default": "1s"},
        description="Time between two connections, or HTTP requests.",
    )
    timeout: Duration = Field(
        default=1.0, json_schema_extra={"default": "1s"}, description="One that takes longer has failed."
    )
    echo_interval: Duration = Field(
        default=0.1,
        json_schema_extra={"default": "100ms"},
        description="Time between two echo requests. 50 ms or more.",
    )
    echo_timeout: Duration = Field(
        default=0.25,
        json_schema_extra={"default": "250ms"},
        description="An echo that takes longer has failed: more than the longest way there and back.",
    )
    stale: Duration = Field(
        default=5.0,
        json_schema_extra={"default": "5s"},
        description="What was seen longer ago says nothing: unknown, never down.",
    )
    quorum: Count | None = Field(
        default=None,
        description="So many observers have to see something down. Default: more than half of those that are "
        "heard.",
    )
    observers: list[Name] = Field(
        default=[], description="Nodes that probe. Default: all that are distribution points."
    )
    flaps: Count = Field(
        default=3,
        description="What went down so often lately is suppressed: shown, and not acted on, until half of "
        "that is forgotten.",
    )
    half_life: Duration = Field(
        default=300.0,
        json_schema_extra={"default": "5m"},
        description="Half of the flaps is forgotten in so long.",
    )
    probe: list[Probe] = Field(default=[], description="Probes: `[[health.probe]]`.")


class Failover(Table):
    """What is done when an end point or a workload is down, and how exclusive workloads are kept from running
    twice. With this table nodes start and stop exclusive workloads on leases of the director."""

    mode: Literal["off", "propose", "automatic"] = Field(
        default="propose",
        description="off: leases only. propose: each failover waits for `ipshare director failover approve`.",
    )
    after: Duration = Field(
        default=10.0, json_schema_extra={"default": "10s"}, description="How long something has to be down."
    )
    shared_after: Duration = Field(
        default=0.45,
        json_schema_extra={"default": "450ms"},
        description="How long an end point that is probed by ICMP has to be down until its shared workloads "
        "go elsewhere.",
    )
    lease: Duration = Field(
        default=20.0,
        json_schema_extra={"default": "20s"},
        description="A node that does not hear the director for so long runs no exclusive workload any more.",
    )
    stop_time: Duration = Field(
        default=10.0,
        json_schema_extra={"default": "10s"},
        description="The longest stop_time of a workload at a node: a node whose workload has a longer one "
        "gets no lease for it.",
    )
    drift: float = Field(
        default=0.01, description="Bound of the rate error of every clock; 0.01 is one per cent."
    )
    limit: Count = Field(
        default=3,
        description="So many nodes in `period` at most are left by automatic failovers; others are proposed.",
    )
    period: Duration = Field(default=600.0, json_schema_extra={"default": "10m"}, description="For `limit`.")
    fence: list[str] = Field(
        default=[],
        description="Command of the director's machine that makes sure that node IPSHARE_NODE does not run "
        "workload IPSHARE_WORKLOAD; 0 when that is so. Default: the fence of the target's [[workload]].",
    )
    fence_time: Duration = Field(
        default=30.0,
        json_schema_extra={"default": "30s"},
        description="A fence that takes longer has failed.",
    )


@dataclass(frozen=True, slots=True)
class Watch:
    """Both tables; ``failover`` None: nothing is done, and nobody needs a lease."""

    health: Health
    failover: Failover | None

    @property
    def wait_s(self) -> float:
        """Until a lease of a node that is not heard is over."""
        assert self.failover is not None, "who has leases has the table"
        return timing.wait_s(self.failover.lease, self.failover.stop_time, self.failover.drift)


def watch(document: Document, interval_s: float) -> Watch | None:
    """None: neither table is there. Mistakes are added to the document's."""
    if "health" not in document.data and "failover" not in document.data:
        return None
    health = some.one(document, "health", Health) or Health()
    failover = some.one(document, "failover", Failover)
    before = len(document.problems)
    some.note(document, _probes(document, health))
    some.note(document, limits.outside("health", health, limits.HEALTH))
    if failover is not None:
        some.note(document, limits.outside("failover", failover, limits.FAILOVER))
    if failover is not None and not failover._broken and not health._broken:
        some.note(document, _times(health, failover, interval_s))
    return None if len(document.problems) > before else Watch(health, failover)


def _times(health: Health, failover: Failover, interval_s: float) -> Iterator[Finding]:
    found = timing.troubles(
        lease_s=failover.lease, stop_s=failover.stop_time, drift=failover.drift, interval_s=interval_s,
        stale_s=health.stale, after_s=failover.after, probe_interval_s=health.interval,
        probe_timeout_s=health.timeout, echo_interval_s=health.echo_interval,
        echo_timeout_s=health.echo_timeout, shared_after_s=failover.shared_after,
    )  # fmt: skip
    for key, message, hint in found:
        yield ("health" if key in ("stale", "echo_interval") else "failover", key), message, hint
    if failover.fence and not failover.fence[0].startswith("/"):
        text = f"{failover.fence[0]!r} is not an absolute path"
        yield ("failover", "fence", 0), text, "begin it with /"


def _probes(document: Document, health: Health) -> Iterator[Finding]:
    names = {
        kind: {row.get("name") for row in document.data.get(kind, []) if isinstance(row, dict)}
        for kind in ("endpoint", "workload", "node")
    }
    special = {probe.endpoint for probe in ([] if "probe" in health._broken else health.probe)}
    rows = [row for row in document.data.get("endpoint", []) if isinstance(row, dict) and row.get("tunnel")]
    count = len([row for row in rows if row.get("name") not in special])
    count += len([] if "probe" in health._broken else health.probe)
    if count > limits.MOST_PROBES:
        text = f"{count} end points and workloads would be probed, a node makes {limits.MOST_PROBES} probes"
        yield ("health",), text, "leave [health] and [failover] out, or divide the installation"
    for index, name in enumerate([] if "observers" in health._broken else health.observers):
        if name not in names["node"]:
            yield ("health", "observers", index), f"there is no node {name!r}", "name one of [[node]]"
    for index, probe in enumerate([] if "probe" in health._broken else health.probe):
        path = ("health", "probe", index)
        if (probe.endpoint is None) == (probe.workload is None):
            yield path, "what does this probe look after?", "write endpoint or workload, one of them"
            continue
        place = "endpoint" if probe.endpoint is not None else "workload"
        named = probe.endpoint or probe.workload
        if named not in names[place]:
            yield (*path, place), f"there is no {place} {named!r}", f"name one of [[{place}]]"
        if probe.kind != "icmp" and probe.port is None:
            yield path, f"a probe by {probe.kind} needs a port", "write port"
