"""A binding's counters begin at zero, also where its cell counted for another binding before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ipshare.core import lib
from ipshare.engine.embedded import Control
from tests.cases.build import build
from tests.engine_lab import load, tables
from tests.tun_wire import wire

PAIRS = ((4, "203.0.113.0", 24, "10.20.0.0"), (6, "2001:db8:60b:a1::", 64, "2001:db8:10ca:1::"))
BOTH = tables(lib.IPS_ROLE_OUTER, self_flag=0, pairs=PAIRS)
HOSTS, ROUNDS = 1500, 20000  # more than the core gives out before it looks for cells that are free again


def hosts(first: int) -> np.ndarray:
    """Bindings of ``HOSTS`` single IPv6 addresses from number ``first`` on."""
    made = np.repeat(BOTH.bindings[1:], HOSTS)
    for name in ("global", "local"):
        made[name][:, 12:16] = np.arange(first, first + HOSTS, dtype=">u4").view(np.uint8).reshape(-1, 4)
    made["local"][:, :8] = 0
    made["prefix_len"] = 128
    return made


def test_a_cell_that_is_used_again_begins_at_zero(tmp_path: Path) -> None:
    sentinel = build(["ip4", {"udp": {"csum": 0}}, {"data": 8}])
    with wire(tmp_path, BOTH, "outer", sentinel) as outer, Control(tmp_path / "outer.sock") as control:

        def bind(number: int) -> np.ndarray:
            """Binds these and no other addresses; their cells."""
            wanted = hosts(number * HOSTS)
            load(control, replace(BOTH, bindings=np.concatenate([BOTH.bindings[:1], wanted])))
            return control.cells(wanted)[0]

        cell = bind(0)[7]
        packet = bytearray(build([{"ip6": {"dst": "global"}}, {"udp": {"csum": 0}}, {"data": 8}]))
        packet[36:40] = (7).to_bytes(4)
        assert outer.pass_(bytes(packet))[0] == "OK"
        assert control.counters().cell_totals()[0][cell] == 1
        for number in range(1, ROUNDS):
            again = bind(number)
            if cell in again:
                assert control.counters().cell_totals()[0][cell] == 0
                return
        raise AssertionError("the cell was never used again: the test shows nothing")
