"""A director's drain, from its command and its HTTP API to the upstreams' kernels: agents over TLS, a real
BIRD at C and D, a real BIRD and a real FRR upstream. Connections that are open stay, there and back.

C has a long `drain_time`: it asks to be avoided (RFC 8326). D has none: it withdraws at once.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipshare.lab import Lab, LabSpec
from ipshare.lab.traffic import serve
from ipshare.web import tokens
from tests.bgp_lab import LONG, MISSING, Watch
from tests.faults_lab import Client
from tests.lab.test_withdraw_lab import FAMILIES, Directed, passes
from tests.pki import Pki

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}")
HTTP = '[http]\nlisten = "127.0.0.1:8470"\nplain = true\ntokens = "{file}"\n'
CONNECTIONS = 8
PERIOD_S = 0.2


class Drains(Directed):
    """With an HTTP API, and two ways to drain."""

    def __init__(self, lab: Lab, pki: Pki) -> None:
        file = lab.directory / "tokens.json"
        self.token, _ = tokens.add(file, "tests", "operator", 1)
        super().__init__(lab, pki, HTTP.format(file=file))

    def write_site(self, node: str, *, target: str = "A", drain_time: str = "") -> None:
        super().write_site(node, target=target, drain_time="0s" if node == "D" else LONG)

    def by_command(self, node: str, on: bool) -> None:
        found = self.world.ask("drain" if on else "undrain", node, "--why", "new kernel")
        assert (found["node"], found["drained"], found["changed"]) == (node, on, True)

    def by_http(self, node: str, on: bool) -> None:
        revision = self.world.ask("status")["revision"]
        said = {"change": {"do": "drain", "node": node, "drained": on}, "why": "new kernel"}
        headers = {"Authorization": f"Bearer {self.token}", "If-Match": f'"{revision}"'}
        request = urllib.request.Request(
            "http://127.0.0.1:8470/api/v1/changes",
            json.dumps(said).encode(),
            headers | {"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        found = json.loads(self.lab.inside("C", lambda: opener.open(request, timeout=60).read()))
        assert found["revision"] == revision + 1, found

    def told(self, node: str) -> dict[str, Any]:
        """What the director knows of it."""
        return next(row for row in self.world.ask("status")["nodes"] if row["name"] == node)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drains]:
    with Lab(LabSpec()) as lab:
        made = Drains(lab, Pki(tmp_path_factory.mktemp("pki")))
        try:
            made.settled()
            with serve(lab, "a1", "a2"):
                yield made
        finally:
            made.close()


def talking(world: Drains, node: str) -> Client:
    client = Client(world.lab, node, CONNECTIONS, PERIOD_S, shop=False)
    assert client.line() == "ready\n"
    return client


def kept(client: Client) -> None:
    """Each of its connections speaks twice more."""
    found = client.end()
    assert sum(row["kept"] for row in found.values()) == CONNECTIONS, found


def there_and_back(
    world: Drains, watch: Watch, node: str, other: str, client: str, drain: Callable[[str, bool], None],
    while_drained: Callable[[], None],
) -> None:  # fmt: skip
    watch.until(lambda: all(world.told(name)["announces"] for name in "CD"), "the director sees both")
    first, second = talking(world, client), talking(world, client)
    drain(node, True)
    for family in FAMILIES:
        watch.goes_by(other, family)
    watch.until(lambda: world.told(node)["drained_by"] == ["director"], "the node says who")
    while_drained()
    kept(first)
    passes(world, "c1", "c3")
    drain(node, False)
    for family in FAMILIES:
        watch.goes_by(node, family)
    watch.until(lambda: world.told(node)["drained_by"] == [], "nobody drains it")
    kept(second)
    passes(world, "c1", "c3")


def test_by_command_it_asks_to_be_avoided_and_open_connections_stay(world: Drains) -> None:
    def asked() -> None:
        assert world.ask("C")["state"] == "draining"
        for family in FAMILIES:
            assert "(65535,0)" in world.routers.heard(family)

    there_and_back(world, world.r1, "C", "r2", "c1", world.by_command, asked)
    assert all("(65535,0)" not in world.routers.heard(family) for family in FAMILIES)


def test_by_http_it_withdraws_and_open_connections_stay(world: Drains) -> None:
    def withdrawn() -> None:
        world.r2.until(lambda: world.ask("D")["state"] == "drained", "it is drained")
        assert not any(row["announced"] for row in world.ask("D")["neighbors"])

    there_and_back(world, world.r2, "D", "r1", "c3", world.by_http, withdrawn)
