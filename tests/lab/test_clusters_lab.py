"""A cluster behind a pair as its operator has it: real connections, v4 and v6, to three servers (S2.4,
S2.5, S2.7).

One lab for each story; every wait is for an event, bounded by the lab's patience.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster_lab import FILL, Clients, cluster_lab
from tests.engine_lab import run
from tests.pair_lab import Half, until

BULK = 4 << 20


@pytest.fixture
def kind() -> type[Half]:
    """Of the pair's halves."""
    return Half


def test_s2_5_connections_outlive_a_dead_server_and_a_dead_node(tmp_path: Path, kind: type[Half]) -> None:
    with cluster_lab(tmp_path, kind) as nodes:
        for node in (nodes.a, nodes.b):
            node.start()
        active, standby = nodes.active()
        until(lambda: all(s["mac"] for f in (4, 6) for s in active.servers(f).values()))
        clients = Clients(nodes.lab)
        went = clients.connect(1500) + clients.connect(500, 6)
        assert sum(went.values()) == 2000 and set(went) == {"s1", "s2", "s3"}
        assert min(went.values()) > 500, "a third each, of ports that the client's kernel chose"
        assert not clients.lost(), "both ways work"
        seen = sum(int(s["connections_at_most"]) for f in (4, 6) for s in active.servers(f).values())
        assert seen == 2000
        until(lambda: active.status()["mirror"]["ready"])

        active.kill_engine()
        until(lambda: standby.pair()["state"] == "active")
        assert not clients.lost(), "the standby knows whose they are"
        nodes.active()
        before = {name: s["opened"] for name, s in standby.servers().items()}
        run(nodes.lab.names["lan"], "ip link set to-s2 down")
        until(
            lambda: (
                standby.servers()["s2"]["state"] == "failed" and standby.servers(6)["s2"]["state"] == "failed"
            )
        )
        assert set(clients.try_once(100) + clients.try_once(50, 6)) == {"s1", "s3"}
        assert standby.servers()["s2"]["opened"] == before["s2"]
        shown = json.loads(standby.cli("show", "clusters", "--json").stdout)
        assert {s["state"] for row in shown for s in row["servers"] if s["name"] == "s2"} == {"failed"}
        dead = [one for one in clients.open if one[1] == "s2"]
        clients.open = [one for one in clients.open if one[1] != "s2"]
        assert not clients.lost(), "none but the dead server's is lost"
        run(nodes.lab.names["lan"], "ip link set to-s2 up")
        until(lambda: standby.servers()["s2"]["state"] == "up")
        until(lambda: "s2" in clients.try_once(10))
        clients.open += dead
        assert not clients.lost(), "and its own go on when it is back in time"
        clients.close()


def test_s2_5_a_drained_server_runs_empty_and_a_slow_one_gets_less(tmp_path: Path, kind: type[Half]) -> None:
    with cluster_lab(tmp_path, kind) as nodes:
        node = nodes.a
        node.by = ("response",)
        node.file.write_text(node.site(1))
        nodes.lab.services["s3"].delay_s = 0.5
        node.start()
        assert node.cli("pair", "force", "--yes").returncode == 0
        until(lambda: node.pair()["state"] == "active")
        until(lambda: all(s["mac"] for s in node.servers().values()))
        until(lambda: node.servers()["s3"]["factors"].get("response", 1) < 0.5)
        clients = Clients(nodes.lab)
        went = clients.connect(300)
        plug, name = clients.open[0]
        service, before = nodes.lab.services[name], node.servers()[name]
        plug.sendall(FILL * BULK)
        until(lambda: service.received >= BULK)
        after = node.servers()[name]
        packets, size = (int(after[key]) - int(before[key]) for key in ("packets", "bytes"))  # type: ignore[call-overload]
        assert size / packets > 3000, "super-packets pass whole"
        assert 0 < went["s3"] < min(went["s1"], went["s2"]), "slower, so less; never nothing"
        nodes.lab.services["s3"].delay_s = 0.0
        until(lambda: node.servers()["s3"]["factors"].get("response", 1) > 0.5)

        node.drained = (1,)
        node.apply()
        until(lambda: node.servers()["s1"]["state"] == "draining")
        assert "s1" not in clients.try_once(60)
        assert not clients.lost()
        assert node.servers()["s1"]["open_at_most"] == went["s1"]
        clients.close(["s1"])
        until(lambda: node.servers()["s1"]["open_at_most"] == 0)

        node.drained = ()
        text = node.site(1)
        cut = text.index('name = "s2"')
        start, end = text.rindex("[[cluster.server]]", 0, cut), text.index("[[cluster.server]]", cut)
        node.apply(text[:start] + text[end:])
        assert not clients.lost(), "a server that is taken out of the file keeps its connections"
        until(
            lambda: any(s["state"] == "removed" for row in node.status()["clusters"] for s in row["servers"])
        )
        clients.close(["s2"])
