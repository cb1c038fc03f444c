"""The tables against the slow oracle: random contents, changed by random deltas and complete images."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipshare.core import lib
from tests.examples import examples
from tests.oracle.tables import LEADS_ON, Oracle
from tests.table_images import (
    Image,
    Record,
    Refused,
    Tables,
    binding,
    endpoint,
    in_order,
    member,
    network,
    packed,
    policy,
)

GONE = lib.IPS_KIND_NONE
TUNNEL = {"tunnel": ("192.0.2.1", "192.0.2.2"), "encap": lib.IPS_ENCAP_IPIP}
# Small enough to be spelt out; two networks each, local prefixes equal, nested and apart.
NETWORKS = (
    network("203.0.113.0/27"),
    network("198.51.100.144/28", unmatched=1),
    network("2001:db8:100::/123"),
    network("2001:db8:200::50/124", unmatched=2),
)
LOCAL = {
    4: ("10.0.0.0/24", "10.0.0.0/26", "10.0.0.32/27", "10.0.1.0/24", "10.0.0.0/24"),
    6: ("2001:db8:a::/64", "2001:db8:a::/122", "2001:db8:a::20/123", "2001:db8:b::/64"),
}
ENDS = [prefix for family in (4, 6) for prefix in LOCAL[family]]
FAMILY = [family for family in (4, 6) for _ in LOCAL[family]]
ROLES = (
    lib.IPS_ROLE_OUTER,
    lib.IPS_ROLE_INNER,
    lib.IPS_ROLE_OUTER | lib.IPS_ROLE_REPLY_LOCAL,
    lib.IPS_ROLE_REPLY_GLOBAL,
)


@st.composite
def sites(draw: st.DrawFn) -> Image:
    """Everything but the bindings. Policy 0 is IPv4's, policy 1 is IPv6's."""
    ends = []
    for prefix in ENDS:
        fields: dict[str, Any] = {"flags": draw(st.sampled_from([0, lib.IPS_EP_SELF, lib.IPS_EP_SELF]))}
        if draw(st.integers(0, 4)) == 0:
            fields |= TUNNEL
        ends.append(endpoint(prefix, **fields))
    members, policies = [], []
    for family in (4, 6):
        mine = [i for i, end in enumerate(FAMILY) if end == family]
        chosen = draw(st.lists(st.sampled_from(mine), min_size=1, max_size=3, unique=True))
        policies.append(policy(len(members), len(chosen), table_size=307 if draw(st.booleans()) else 311))
        members += [member(end, draw(st.integers(1, 3))) for end in chosen]
    return Image(NETWORKS, ends, policies, members, header={"roles": draw(st.sampled_from(ROLES))})


@st.composite
def rows(draw: st.DrawFn, site: Image) -> Record:
    """One binding that stands on its own."""
    net = draw(st.sampled_from(NETWORKS))
    family = net["family"]
    bits = 32 if family == 4 else 128
    host = draw(st.integers(0, bits - net["prefix_len"]))
    first = int.from_bytes(bytes(net["prefix"][: bits // 8]), "big")
    first += draw(st.integers(0, (1 << (bits - net["prefix_len"])) - 1)) >> host << host
    kind = draw(st.sampled_from([*LEADS_ON, *LEADS_ON, lib.IPS_KIND_HERE, lib.IPS_KIND_DOWN]))
    target = draw(st.sampled_from([i for i, end in enumerate(FAMILY) if end == family]))
    if kind == lib.IPS_KIND_POLICY:
        target = 0 if family == 4 else 1
        rec = site.policies[target]
        ends = [m["endpoint"] for m in site.members[rec["first_member"] :][: rec["n_members"]]]
    else:
        ends = [target]
    room = min(bits - site.endpoints[end]["prefix_len"] for end in ends)
    if kind == lib.IPS_KIND_ADDRESS:
        base = int(ip_address("10.0.0.0" if family == 4 else "2001:db8:a::"))
        local = base + (draw(st.integers(0, 80)) >> host << host)
    else:
        host = min(host, room)
        first = first >> host << host
        local = draw(st.integers(0, min((1 << room) - 1, 63))) >> host << host
    prefix = f"{ip_address(first)}/{bits - host}"
    return binding(prefix, target, local, kind, flags=draw(st.integers(0, 1)))


def check(tables: Tables, oracle: Oracle) -> None:
    for family in (4, 6):
        bits = 32 if family == 4 else 128
        keys = list(oracle.addresses(family))
        raw = b"".join(bytes(packed(key, family)) for key in keys)
        for key, row in zip(keys, tables.globals(family, raw, raw), strict=True):
            answer = oracle.find_global(family, key)
            assert row["found"], (ip_address(key), answer)
            if answer.row is None:
                assert row["kind"] == GONE
                continue
            assert (row["kind"], row["flags"]) == (answer.row["kind"], answer.row["flags"])
            if answer.goes_to:
                to = int.from_bytes(bytes(row["address"][: bits // 8]), "big")
                assert (row["endpoint"], to) in answer.goes_to, ip_address(key)
        claims = oracle.find_local(family)
        base = int(ip_address("10.0.0.0" if family == 4 else "2001:db8:a::"))
        local = sorted({*claims, *range(base, base + 96)})
        raw = b"".join(bytes(packed(key, family)) for key in local)
        for key, row in zip(local, tables.locals(family, raw), strict=True):
            candidates = claims.get(key, [])
            found = (int.from_bytes(bytes(row["address"][: bits // 8]), "big"), int(row["endpoint"]))
            allowed = {(address, end) for address, end, _ in candidates}
            if row["kind"] != GONE:
                assert found in allowed, ip_address(key)
            else:  # shared by encapsulation, or nobody's
                is_shared = any(is_soft for _, _, is_soft in candidates) and oracle.is_contested(family, key)
                assert not allowed or is_shared, ip_address(key)


@settings(examples(250), suppress_health_check=list(HealthCheck))
@given(st.data())
def test_tables_equal_the_oracle_after_every_change(data: st.DataObject) -> None:
    site = data.draw(sites())
    tables, have, generation = Tables(), {}, 0
    for _ in range(data.draw(st.integers(1, 5))):
        changes = data.draw(st.lists(rows(site), max_size=12))
        change = {(row["family"], bytes(row["global"]), row["prefix_len"]): row for row in changes}
        gone = data.draw(st.lists(st.sampled_from(sorted(have)), unique=True, max_size=8)) if have else []
        after = {**have, **change}
        for key in gone:
            after.pop(key, None)
            change[key] = {**have[key], "kind": GONE}
        image = site.but(bindings=in_order(after.values()))
        oracle = Oracle(image, image.bindings)  # type: ignore[arg-type]
        use_delta = generation and data.draw(st.booleans())
        try:
            generation = tables.load(
                site.delta(generation, in_order(change.values())) if use_delta else image
            )
        except Refused as refused:
            assert refused.reason[0] == lib.IPS_LOAD_OVERLAP and oracle.overlaps()
            continue
        assert not oracle.overlaps()
        have = after
        check(tables, oracle)
        assert tables.dump() == image.pack()
