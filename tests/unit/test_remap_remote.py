"""A remap over the network: nodes by address and certificate, real TLS, agents' desks in memory behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from ipshare.agent.remote import RemoteServer
from ipshare.agent.server import Asker
from ipshare.certs.contexts import Contexts, Files
from ipshare.errors import IpshareError, NoPrivilege, NotRunning, Refused
from ipshare.model import Place, Remote
from ipshare.remap import executor, remap
from ipshare.remap.machine import Step
from ipshare.remap.nodes import RemoteNode, read_nodes
from tests.pair_lab import until
from tests.pki import Pki
from tests.remap_world import ADDRESS, RemapNodes


@contextmanager
def doors(nodes: RemapNodes, pki: Pki) -> Iterator[dict[str, RemoteServer]]:
    """Each node of them listens, in a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers = {name: RemoteServer(_handle(nodes, name), lambda topic, text: None) for name in nodes}

    def wait(job: Any) -> None:
        asyncio.run_coroutine_threadsafe(job, loop).result(30)

    try:
        for name, server in servers.items():
            files = pki.files("node", name)
            roles, place = ("director", "operator"), Place(Path("site.toml"))
            listen = (ip_address("127.0.0.1"), 0)
            wait(server.follow(Remote(listen, files.ca, files.certificate, files.revoked, roles, place)))
            assert server.port
        yield servers
    finally:
        for server in servers.values():
            wait(server.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _handle(nodes: RemapNodes, name: str) -> Any:
    async def handle(caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        return nodes[name].ask(request.pop("verb"), **request)

    return handle


def written(pki: Pki, servers: dict[str, RemoteServer], role: str = "director") -> Path:
    pki.file(role, "ops")
    tls = f'[tls]\nca = "ca/ca.pem"\ncertificate = "{role}-ops.pem"\nrevoked = "ca/revoked.pem"\n'
    rows = [f'[[node]]\nname = "{n}"\naddress = "127.0.0.1:{s.port}"\n' for n, s in servers.items()]
    (pki.folder / "nodes.toml").write_text(tls + "".join(rows))
    return pki.folder / "nodes.toml"


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemapNodes:
    monkeypatch.setattr(executor, "SLOW_S", 0.001)
    monkeypatch.setattr(executor, "QUICK_S", 0.001)
    return RemapNodes(tmp_path / "world")


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


def move(nodes: RemapNodes, asked: Any) -> Any:
    journal = nodes.directory / "journal"
    return remap(ADDRESS, origin="A", to="B", nodes=asked, silence_s=0.0, patience_s=20.0, journal=journal)


def test_there_by_director_and_an_operator_may_only_look(nodes: RemapNodes, pki: Pki) -> None:
    with doors(nodes, pki) as servers:
        looks = read_nodes(written(pki, servers, "operator"))
        assert looks["a1"].ask("remap_look", prefix=ADDRESS)["bound_to"] == "A"
        with pytest.raises(NoPrivilege, match="role operator does not allow that"):
            looks["a1"].ask("remap_clear", id=1)
        done = move(nodes, read_nodes(written(pki, servers)))
    assert done.step is Step.DONE, done
    assert {nodes.serves(name) for name in ("c1", "d1")} == {"B"}


def test_who_is_not_who_he_should_be(nodes: RemapNodes, pki: Pki) -> None:
    with doors(nodes, pki) as servers:

        def ask(name: str, at: str, files: Files) -> Any:
            contexts = Contexts(files, server=False)
            address = f"127.0.0.1:{servers[at].port}"
            return RemoteNode(name, address, contexts, answer_s=30).ask("remap_look", prefix=ADDRESS)

        good = pki.files("director", "ops")
        assert ask("a1", "a1", good)["bound_to"] == "A"
        with pytest.raises(NotRunning, match="node b1 answers there"):
            ask("a1", "b1", good)
        for files in (pki.taken_back("director", "ops"), pki.forged("director", "ops")):
            with pytest.raises(NotRunning, match="the agent of node a1 at .* went away") as caught:
                ask("a1", "a1", files)
            assert "certificate" in f"{caught.value} {caught.value.hint}" or "authority" in str(caught.value)
        until(lambda: servers["a1"].counters["refused_tls"] == 2)
        port = servers["a1"].port
    with pytest.raises(NotRunning, match="connection refused"):
        RemoteNode("a1", f"127.0.0.1:{port}", Contexts(good, server=False)).ask("remap_look", prefix=ADDRESS)


def test_certificates_that_cannot_be_used_are_said_at_once(nodes: RemapNodes, pki: Pki) -> None:
    with doors(nodes, pki) as servers:
        file = written(pki, servers)
    key = pki.folder / "director-ops.pem"
    key.chmod(0o644)
    with pytest.raises(Refused, match="others than its owner may read"):
        read_nodes(file)
    key.unlink()
    with pytest.raises(IpshareError, match="cannot read .*director-ops.pem"):
        read_nodes(file)
