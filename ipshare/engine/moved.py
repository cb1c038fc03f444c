"""moved: which share of a policy's clients a plan sends to another end point, found by asking the core; and
of which share the connections go on at the old one for a time (DESIGN.md 4).

The core's own hash decides (S1.8), in two workers of this process: one with the tables as they are, one as
they are to be, cut down to one binding of each policy. Sampled: CLIENTS addresses spread evenly over the
family's space.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import numpy as np

from ipshare.core import LoadError, Worker, lib
from ipshare.engine.packet_words import Words, build
from ipshare.engine.plan import Plan
from ipshare.engine.plan_text import policy_name
from ipshare.engine.tables import Tables, binding_keys, pack
from ipshare.model import BindingKind, unpacked

CLIENTS = 2000
MAX_POLICIES = 16
_STEP4 = 0xDFFFFFFF // CLIENTS  # up to 223.x: multicast is no client
_FIRST4, _FIRST6 = 0x01000001, 0x20010DB8 << 96


def moved_shares(plan: Plan) -> dict[str, float]:
    """Policy name -> share (0..1), for policies that bindings use before or after, where it is not 0."""
    return {name: moved for name, (moved, _) in shares(plan).items()}


def shares(plan: Plan) -> dict[str, tuple[float, float]]:
    """The same, and with it the share of clients that move but whose connections go on where they were:
    packets name their earlier end point."""
    found: dict[str, tuple[float, float]] = {}
    have, want = plan.actual, plan.desired
    is_policy = want.bindings["kind"] == BindingKind.POLICY
    _, first = np.unique(want.bindings["target"][is_policy], return_index=True)
    have_keys = binding_keys(have.bindings)
    for index in np.flatnonzero(is_policy)[first[:MAX_POLICIES]]:
        record = want.bindings[index : index + 1]
        before = have.bindings[have_keys == binding_keys(record)[0]]
        if len(before):
            moved, kept = _shares(replace(have, bindings=before), replace(want, bindings=record))
            if moved > 0:
                found[policy_name(want, int(record[0]["target"]))] = moved, kept
    return found


def _shares(have: Tables, want: Tables) -> tuple[float, float]:
    (old, _), (new, says) = _choices(have), _choices(want)
    drains = want.policies["n_previous"][want.bindings["target"][0]] != 0
    moved = [a != b for a, b in zip(old, new, strict=True)]
    kept = sum(there and drains and can_say for there, can_say in zip(moved, says, strict=True))
    return sum(moved) / CLIENTS, float(kept) / CLIENTS


def _choices(tables: Tables) -> tuple[list[bytes], list[bool]]:
    """What names the end point of each client: its addresses, since indices change from table to table; and
    whether packets on their way there can name another."""
    record = tables.bindings[0]
    family = int(record["family"])
    address = unpacked(record["global"].tobytes(), family)
    names = [
        e["local"].tobytes() + e["tunnel_remote"].tobytes() + bytes([int(e["prefix_len"])])
        for e in tables.endpoints
    ]
    with Worker() as worker:
        try:
            worker.load(
                pack(replace(tables, roles=lib.IPS_ROLE_OUTER, reply_policy=0xFFFFFFFF, term=0, revision=0))
            )
        except LoadError:
            return [b""] * CLIENTS, [
                False
            ] * CLIENTS  # the whole table is what gets refused, in its own place
        chosen, says = [], []
        for number in range(CLIENTS):
            client = (
                IPv4Address(_FIRST4 + number * _STEP4)
                if family == 4
                else IPv6Address(_FIRST6 + (number << 64))
            )
            endpoint = worker.explain("outer", build(Words(17, client, address))).endpoint
            chosen.append(names[endpoint] if endpoint is not None else b"")
            says.append(endpoint is not None and tables.endpoints[endpoint]["encap"] == lib.IPS_ENCAP_GUE)
        return chosen, says
