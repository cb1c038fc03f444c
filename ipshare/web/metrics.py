"""metrics: the director for Prometheus, read at each scrape: nothing is counted twice, nothing kept by hand.

appliance/monitoring has a dashboard and rules for these; a test holds them to the names here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from ipshare.web.api import LOOKING
from ipshare.web.hub import Hub

OUTCOMES = ("acked", "refused", "silent", "working", "waiting")


class DirectorCollector(Collector):
    """Of ``hub``'s director. Names begin with ipshare_director_."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        yield from self._director()
        yield from self._nodes()
        yield from self._http()

    def _director(self) -> Iterator[Metric]:
        director, said = self._hub.director, self._hub.status()
        yield _gauge("term", "The term: which start of a director this is.", director.term)
        yield _gauge("leads", "1: it counts, and sends; 0: another director does.", float(said["leads"]))
        yield _gauge("revision", "The revision that counts.", director.number)
        yield _gauge("settled", "1: every node has the revision.", float(said["settled"]))
        age = 0.0
        if not said["settled"] and director.revision is not None:
            made = datetime.fromisoformat(director.revision.time)
            age = max(0.0, (datetime.now(UTC) - made).total_seconds())
        yield _gauge("rollout_age_seconds", "Since the revision came, while some node has not got it.", age)
        yield _gauge(
            "superseded",
            "1: a later director was heard of, this one sends nothing.",
            float(bool(director.superseded)),
        )
        yield _gauge("trouble", "1: its store cannot be written.", float(bool(director.trouble)))
        yield _gauge("workloads", "Workloads of the topology.", len(director.topology.rows("workload")))
        yield _gauge("bindings", "Bindings of the topology.", len(director.topology.bindings))
        yield _gauge("prefixes_under_way", "Prefixes whose change is being rolled out.", self._under_way())

    def _under_way(self) -> int:
        from ipshare.web.changing import under_way

        return len(under_way(self._hub.director))

    def _nodes(self) -> Iterator[Metric]:
        director, nodes = self._hub.director, self._hub.nodes()
        counted = Counter((one["state"], one["outcome"]) for one in nodes)
        family = GaugeMetricFamily(
            "ipshare_director_nodes", "Nodes by state and outcome.", labels=("state", "outcome")
        )
        for state, outcome in sorted({*(("alive", one) for one in OUTCOMES), *counted}):
            family.add_metric((state, outcome), counted[state, outcome])
        yield family
        heard = _by_node("node_heard_seconds", "Since the node answered last; -1: never.")
        announces = _by_node("node_announces", "1: it announces its prefixes by BGP; -1: it does not say.")
        revision = _by_node("node_revision", "The revision that it has.")
        refused = CounterMetricFamily(
            "ipshare_director_node_stale_refused",
            "Assignments of an older term that it refused.",
            labels=("node",),
        )
        now = time.monotonic()
        for one in nodes:
            name = (one["name"],)
            at = director.nodes[one["name"]].heard_s
            heard.add_metric(name, -1.0 if at is None else now - at)
            said = one["announces"]
            announces.add_metric(name, -1.0 if said is None else float(said))
            revision.add_metric(name, one["revision"])
            refused.add_metric(name, one["stale_refused"] or 0)
        yield from (heard, announces, revision, refused)

    def _http(self) -> Iterator[Metric]:
        hub = self._hub
        assert hub.gate is not None, "who scrapes came through it"
        requests = CounterMetricFamily(
            "ipshare_director_http_requests", "Answers, by method and status.", labels=("method", "status")
        )
        for (method, status), count in sorted(hub.gate.requests.items()):
            requests.add_metric((method, str(status)), count)
        refused = CounterMetricFamily(
            "ipshare_director_http_refused", "Who did not get in, by what was wrong.", labels=("why",)
        )
        for why in sorted({"token", "certificate", "nobody", "tls", "too_many", *hub.door.refused}):
            refused.add_metric((why,), hub.door.refused.get(why, 0))
        yield from (requests, refused)
        yield _gauge("http_sessions", "Sessions of the web page.", hub.door.sessions)
        yield _gauge("http_streams", "Open streams of events.", hub.watch.readers)
        yield CounterMetricFamily(
            "ipshare_director_audit_failures",
            "Lines of the audit log that could not be written.",
            hub.trail.failures,
        )


def router(hub: Hub) -> APIRouter:
    routes = APIRouter()
    registry = CollectorRegistry()
    registry.register(DirectorCollector(hub))

    @routes.get(
        "/metrics", response_class=Response,
        responses=LOOKING | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )  # fmt: skip
    async def metrics() -> Response:
        """For Prometheus. For viewers: a token in its `authorization`."""
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ipshare_director_{name}", text, value)


def _by_node(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ipshare_director_{name}", text, labels=("node",))
