"""Bindings whose flows are followed: what is seen of them; nothing that the table says stops a packet."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from ipshare.core import dtype, lib
from ipshare.engine.tables import Tables
from ipshare.lab.netns import inside
from tests.engine_lab import GLOBAL4, GLOBAL6, INNER, OUTER, Lab, Node, load
from tests.flows_lab import FLOWS_STATE, NatNode, flows

FAMILIES = {GLOBAL4: socket.AF_INET, GLOBAL6: socket.AF_INET6}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("track")) as lab:
        yield lab


@pytest.fixture(scope="module")
def dist(lab: Lab) -> Node:
    lab.engine("end", INNER)
    return lab.engine("dist", marked(lib.IPS_BINDING_TRACK))


def marked(flags: int) -> Tables:
    bindings = OUTER.bindings.copy()
    bindings["flags"] = flags
    return dataclasses.replace(OUTER, bindings=bindings)


def sessions(node: Node) -> np.ndarray:
    door = NatNode.__new__(NatNode)  # its questions need nothing but a control socket
    door.control = node.control
    return np.asarray(door.sessions())


def talk(lab: Lab, address: str) -> None:
    with inside(lab.names["server"], lambda: socket.socket(FAMILIES[address])) as listener:
        listener.bind((address, 0))
        listener.listen()
        client = inside(lab.names["client"], lambda: socket.socket(FAMILIES[address]))
        client.settimeout(30)
        client.connect(listener.getsockname()[:2])
        client.sendall(b"hello")
        server, _ = listener.accept()
        server.settimeout(30)
        assert server.recv(5) == b"hello"
        client.close()
        server.close()


@pytest.mark.parametrize("address", FAMILIES)
def test_a_tracked_connection_is_seen_as_the_client_sees_it(lab: Lab, dist: Node, address: str) -> None:
    dist.control._call(lib.IPS_CTL_FLOWS_SET, flows(n_pools=0, n_insides=0).tobytes())
    talk(lab, address)
    mine = [r for r in sessions(dist) if int(r["flow"]["family"]) == (4 if "." in address else 6)]
    assert len(mine) == 1 and int(mine[0]["kind"]) == lib.IPS_SESSION_TRACK
    assert int(mine[0]["flags"]) == lib.IPS_SESSION_ONE_SIDED and int(mine[0]["packets"][0]) >= 3
    told = socket.inet_pton(FAMILIES[address], address)
    assert bytes(mine[0]["flow"]["dst"])[: len(told)] == told


def test_untracked_bindings_make_no_session(lab: Lab, dist: Node) -> None:
    dist.control._call(lib.IPS_CTL_FLOWS_SET, flows(n_pools=0, n_insides=0).tobytes())
    load(dist.control, OUTER)
    before = len(sessions(dist))
    talk(lab, GLOBAL4)
    assert len(sessions(dist)) == before
    load(dist.control, marked(lib.IPS_BINDING_TRACK))


def test_a_full_table_stops_no_packet(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Lab(tmp_path_factory.mktemp("full")) as lab:
        lab.engine("end", INNER)
        dist = lab.engine("dist", marked(lib.IPS_BINDING_TRACK))
        small = flows(n_pools=0, n_insides=0, sessions=1, half_open=1)
        dist.control._call(lib.IPS_CTL_FLOWS_SET, small.tobytes())
        for _ in range(4):
            talk(lab, GLOBAL4)
        assert len(sessions(dist)) == 1
        assert dtype("struct ips_sessions_stats") == FLOWS_STATE["sessions"]
        assert int(dist.control._call(lib.IPS_CTL_FLOWS_STATE).one(FLOWS_STATE)["sessions"]["full"]) > 0
