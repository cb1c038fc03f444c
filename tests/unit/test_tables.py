"""Tables of the C core: generations, nesting, counters, sharing, reading back (DESIGN.md section 4)."""

from __future__ import annotations

import numpy as np
import pytest

from ipshare.core import ffi, lib
from tests.table_images import (
    BINDING,
    HEADER,
    NONE,
    Image,
    Refused,
    Tables,
    binding,
    endpoint,
    in_order,
    member,
    network,
    packed,
    policy,
    text,
)

A, B = 0, 1
SELF, DELTA = lib.IPS_EP_SELF, lib.IPS_IMAGE_DELTA
GONE = lib.IPS_KIND_NONE
CLIENT = "198.51.100.9"
WHOLE = binding("203.0.113.0/24", A)
MOVED = binding("203.0.113.7/32", B, 7)
ROLES_INNER = {"roles": lib.IPS_ROLE_INNER}
SITE_A = (endpoint("10.0.0.0/24", flags=SELF), endpoint("10.0.1.0/24"))
SITE6 = (endpoint("2001:db8:a::/64", flags=SELF), endpoint("2001:db8:b::/64"))
GLOBAL6 = (network("2001:db8:100::/64"),)


def addresses(tables: Tables, *keys: str) -> list[str | None]:
    return [text(row) for row in tables.find_global(keys, CLIENT if ":" not in keys[0] else "2001:db8:c::1")]


def test_an_address_is_its_end_points_prefix_and_the_offset() -> None:
    tables = Tables()
    tables.load(Image(bindings=[WHOLE, MOVED]))
    assert addresses(tables, "203.0.113.0", "203.0.113.6", "203.0.113.7", "203.0.113.8", "203.0.113.255") == [
        "10.0.0.0",
        "10.0.0.6",
        "10.0.1.7",
        "10.0.0.8",
        "10.0.0.255",
    ]


def test_a_removed_exception_uncovers_what_is_around_it() -> None:
    tables = Tables()
    generation = tables.load(Image(bindings=[WHOLE, binding("203.0.113.0/28", B), MOVED]))
    generation = tables.load(Image().delta(generation, [binding("203.0.113.7/32", kind=GONE)]))
    assert addresses(tables, "203.0.113.7", "203.0.113.16") == ["10.0.1.7", "10.0.0.16"]
    generation = tables.load(Image().delta(generation, [binding("203.0.113.0/28", kind=GONE)]))
    assert addresses(tables, "203.0.113.7") == ["10.0.0.7"]
    tables.load(Image().delta(generation, [binding("203.0.113.0/24", kind=GONE)]))
    assert tables.find_global(["203.0.113.7"])[0]["kind"] == GONE


def test_removing_what_is_not_there_changes_nothing() -> None:
    tables = Tables()
    generation = tables.load(Image(bindings=[WHOLE]))
    before = tables.dump()
    tables.load(Image().delta(generation, [binding("203.0.113.7/32", kind=GONE)]))
    assert tables.dump() == before


def test_what_is_said_where_nothing_is_bound() -> None:
    tables = Tables()
    nets = [
        network("203.0.113.0/24", unmatched=lib.IPS_UNMATCHED_UNREACHABLE),
        network("198.51.100.0/30", unmatched=lib.IPS_UNMATCHED_PASS),
        network("2001:db8:100::/48", unmatched=lib.IPS_UNMATCHED_PASS),
    ]
    tables.load(Image(networks=nets))
    for key, unmatched in (
        ("203.0.113.9", lib.IPS_UNMATCHED_UNREACHABLE),
        ("198.51.100.3", lib.IPS_UNMATCHED_PASS),
        ("2001:db8:100:ffff::", lib.IPS_UNMATCHED_PASS),
    ):
        row = tables.find_global([key])[0]
        assert (row["found"], row["kind"], row["unmatched"], row["endpoint"]) == (1, GONE, unmatched, NONE)
    for key in ("198.51.100.4", "203.0.112.255", "0.0.0.0", "2001:db8:101::", "::"):
        assert not tables.find_global([key])[0]["found"]


@pytest.mark.parametrize("kind", [lib.IPS_KIND_HERE, lib.IPS_KIND_DOWN])
@pytest.mark.parametrize("prefix", ["203.0.113.4/31", "2001:db8:100::4/127"])
def test_served_here_and_device_down(kind: int, prefix: str) -> None:
    tables = Tables()
    rows = [binding(prefix, kind=kind, flags=lib.IPS_BINDING_COPY)]
    tables.load(Image(networks=[network("203.0.113.0/24"), *GLOBAL6], bindings=rows))
    for row in tables.find_global([prefix.split("/")[0], prefix.replace("4/", "5/").split("/")[0]]):
        assert (row["kind"], row["endpoint"], row["flags"]) == (kind, NONE, lib.IPS_BINDING_COPY)
        assert text(row) is None


@pytest.mark.parametrize(
    ("one", "other"), [("203.0.113.64/28", "192.0.2.16/28"), ("2001:db8:100::40/124", "2001:db8:f::70/124")]
)
def test_an_unrelated_local_address(one: str, other: str) -> None:
    """Kind ADDRESS: not in the end point's prefix; found both ways, host bits kept."""
    tables = Tables()
    ends = [*SITE_A, *SITE6]
    target = 0 if "." in one else 2
    first, last = other.split("/")[0], other.split("/")[0][:-1]
    rows = [binding(one, target, first, lib.IPS_KIND_ADDRESS)]
    nets = [network("203.0.113.0/24"), *GLOBAL6]
    tables.load(Image(networks=nets, endpoints=ends, bindings=rows, header=ROLES_INNER))
    key = one.split("/")[0][:-1]
    key, expected = (f"{key[:-1]}69", "192.0.2.21") if target == 0 else (f"{key}5", f"{last}5")
    row = tables.find_global([key])[0]
    assert (text(row), row["endpoint"], row["kind"]) == (expected, target, lib.IPS_KIND_ADDRESS)
    back = tables.find_local([expected])[0]
    assert (text(back), back["endpoint"], back["counter"]) == (key, target, row["counter"])


@pytest.mark.parametrize(
    ("prefix", "exception", "key", "local"),
    [
        ("203.0.113.0/24", "203.0.113.7/32", "203.0.113.7", "10.0.0.7"),
        ("2001:db8:100::/64", "2001:db8:100::7/128", "2001:db8:100::7", "2001:db8:a::7"),
    ],
)
def test_a_host_taken_elsewhere_leaves_no_claim_behind(
    prefix: str, exception: str, key: str, local: str
) -> None:
    """S1.3: A's address of the moved host is nobody's, unless something else takes it."""
    a, b = (0, 1) if "." in prefix else (2, 3)
    nets = [network("203.0.113.0/24"), network("198.51.100.0/24"), *GLOBAL6, network("2001:db8:200::/64")]
    site = Image(networks=nets, endpoints=[*SITE_A, *SITE6], header=ROLES_INNER)
    tables = Tables()
    generation = tables.load(site.but(bindings=[binding(prefix, a)]))
    assert text(tables.find_local([local])[0]) == key
    generation = tables.load(site.delta(generation, [binding(exception, b, 7)]))
    gone = tables.find_local([local])[0]
    assert (gone["found"], gone["kind"], text(gone)) == (1, GONE, None)
    assert text(tables.find_local([local[:-1] + "8"])[0]) == key[:-1] + "8"
    other = "198.51.100.99" if a == 0 else "2001:db8:200::99"
    reuse = binding(f"{other}/{exception.split('/')[1]}", a, 7)
    generation = tables.load(site.delta(generation, [reuse]))
    assert text(tables.find_local([local])[0]) == other
    with pytest.raises(Refused) as refused:  # the exception goes: two Global IPs for one local address
        tables.prepare(site.delta(generation, [binding(exception, kind=GONE)]))
    assert refused.value.reason[0] == lib.IPS_LOAD_OVERLAP


def test_only_own_end_points_are_mapped_back_unless_the_role_asks_for_all() -> None:
    for roles, own, others in (
        (lib.IPS_ROLE_OUTER, False, False),
        (lib.IPS_ROLE_INNER, True, False),
        (lib.IPS_ROLE_REPLY_LOCAL, True, False),
        (lib.IPS_ROLE_REPLY_GLOBAL, True, True),
    ):
        tables = Tables()
        tables.load(Image(endpoints=SITE_A, bindings=[WHOLE, MOVED], header={"roles": roles}))
        found = [bool(row["found"]) for row in tables.find_local(["10.0.0.9", "10.0.1.7"])]
        assert found == [own, others]


def test_a_change_of_roles_or_of_the_local_network_moves_the_claims() -> None:
    tables = Tables()
    image = Image(endpoints=SITE_A, bindings=[WHOLE])
    generation = tables.load(image)
    generation = tables.load(image.but(header=ROLES_INNER).delta(generation, []))
    assert text(tables.find_local(["10.0.0.9"])[0]) == "203.0.113.9"
    moved = image.but(header=ROLES_INNER, endpoints=[endpoint("172.16.5.0/24", flags=SELF), SITE_A[1]])
    tables.load(moved.delta(generation, []))
    assert not tables.find_local(["10.0.0.9"])[0]["found"]
    assert text(tables.find_local(["172.16.5.9"])[0]) == "203.0.113.9"
    assert addresses(tables, "203.0.113.9") == ["172.16.5.9"]


def test_many_global_ips_share_an_encapsulated_local_address() -> None:
    """S1.6: no error, and when one leaves, another is found."""
    tunnel = {"tunnel": ("192.0.2.1", "192.0.2.2"), "encap": lib.IPS_ENCAP_IPIP}
    site = Image(endpoints=[endpoint("10.0.0.0/24", flags=SELF, **tunnel)], header=ROLES_INNER)
    tables = Tables()
    generation = tables.load(site.but(bindings=[binding(f"203.0.113.{i}/32", A, 1) for i in (3, 4, 5)]))
    assert text(tables.find_local(["10.0.0.1"])[0]) == "203.0.113.3"
    generation = tables.load(site.delta(generation, [binding("203.0.113.3/32", kind=GONE)]))
    assert text(tables.find_local(["10.0.0.1"])[0]) == "203.0.113.4"
    rewriting = site.but(endpoints=[endpoint("10.0.0.0/24", flags=SELF)])
    with pytest.raises(Refused):
        tables.prepare(rewriting.delta(generation, []))


def test_an_end_point_without_a_local_prefix() -> None:
    """Any number of Global IPs, encapsulated; nothing maps back to the unspecified address."""
    tunnel = {"tunnel": ("192.0.2.1", "192.0.2.2"), "encap": lib.IPS_ENCAP_GUE, "gue_port": 6080}
    rows = [binding("203.0.113.0/25", A), binding("203.0.113.9/32", A)]
    for roles in (lib.IPS_ROLE_INNER, lib.IPS_ROLE_OUTER, lib.IPS_ROLE_REPLY_GLOBAL):
        tables = Tables()
        tables.load(
            Image(endpoints=[endpoint("", flags=SELF, **tunnel)], bindings=rows, header={"roles": roles})
        )
        assert tables.find_global(["203.0.113.9"])[0]["endpoint"] == A
        assert not tables.find_local(["0.0.0.9"])[0]["found"]


def test_a_network_grows_around_its_bindings() -> None:
    tables = Tables()
    generation = tables.load(Image(bindings=[WHOLE, MOVED]))
    wider = Image(networks=[network("203.0.112.0/23")])
    generation = tables.load(wider.delta(generation, []))
    assert addresses(tables, "203.0.113.6", "203.0.113.7", "203.0.112.7") == ["10.0.0.6", "10.0.1.7", None]
    tables.load(Image(networks=[network("203.0.113.0/24", unmatched=1)]).delta(generation, []))
    assert addresses(tables, "203.0.113.7") == ["10.0.1.7"]
    assert not tables.find_global(["203.0.112.7"])[0]["found"]


def test_a_policys_own_member() -> None:
    ends = [endpoint("10.0.0.0/24"), endpoint("10.0.1.0/24", flags=SELF)]
    tables = Tables()
    tables.load(
        Image(
            endpoints=ends,
            policies=[policy(0, 2)],
            members=[member(0, 5), member(1, 0)],
            bindings=[binding("203.0.113.0/24", 0, kind=lib.IPS_KIND_POLICY)],
            header=ROLES_INNER,
        )
    )
    back = tables.find_local(["10.0.1.77", "10.0.0.77"])
    assert (text(back[0]), back[0]["endpoint"], back[1]["found"]) == ("203.0.113.77", 1, 0)
    row = tables.find_global(["203.0.113.77"], CLIENT)[0]
    assert (row["endpoint"], text(row)) == (0, "10.0.0.77")
    unchosen = tables.find_global(["203.0.113.77"])[0]
    assert (unchosen["kind"], unchosen["endpoint"]) == (lib.IPS_KIND_POLICY, NONE)


# ---- generations -------------------------------------------------------------


def test_nothing_is_seen_before_the_commit() -> None:
    tables = Tables()
    assert tables.find_global(["203.0.113.9"])[0]["found"] == 0
    first = tables.prepare(Image(bindings=[WHOLE]))
    assert tables.info()["generation"] == 0 and tables.info()["prepared"] == first
    assert lib.ips_tables_commit(tables.c, first + 1) == -1
    assert lib.ips_tables_commit(tables.c, first) == 0
    assert lib.ips_tables_commit(tables.c, first) == 0  # already live
    assert addresses(tables, "203.0.113.9") == ["10.0.0.9"]
    second = tables.prepare(Image(bindings=[MOVED]))
    third = tables.prepare(Image())
    assert second < third and lib.ips_tables_commit(tables.c, second) == -1
    lib.ips_tables_abort(tables.c)
    assert lib.ips_tables_commit(tables.c, third) == -1
    assert tables.info() == tables.info() | {"generation": first, "previous": 0, "prepared": 0}


def test_rollback_goes_back_and_forth() -> None:
    tables = Tables()
    assert lib.ips_tables_rollback(tables.c) == 0
    tables.load(Image(bindings=[WHOLE], header={"term": 1, "revision": 5}))
    assert lib.ips_tables_rollback(tables.c) == 0
    old = tables.info()
    tables.load(Image(bindings=[WHOLE, MOVED], header={"term": 2, "revision": 1}))
    new = tables.info()
    back = lib.ips_tables_rollback(tables.c)
    lib.ips_tables_reclaim(tables.c)
    assert addresses(tables, "203.0.113.7") == ["10.0.0.7"]
    info = tables.info()
    assert (info["generation"], info["digest"], info["previous"]) == (back, old["digest"], new["generation"])
    assert (info["term"], info["revision"]) == (2, 1)  # never lower than before
    assert lib.ips_tables_rollback(tables.c) == back + 1
    lib.ips_tables_reclaim(tables.c)
    assert addresses(tables, "203.0.113.7") == ["10.0.1.7"]
    assert tables.info()["digest"] == new["digest"]


def test_fencing_outlives_a_rollback() -> None:
    tables = Tables()
    for term, revision in ((1, 5), (1, 5), (2, 1)):
        tables.load(Image(bindings=[WHOLE], header={"term": term, "revision": revision}))
    lib.ips_tables_rollback(tables.c)
    for term, revision in ((1, 9), (2, 0), (0, 99)):
        with pytest.raises(Refused) as refused:
            tables.prepare(Image(header={"term": term, "revision": revision}))
        assert refused.value.reason[0] == lib.IPS_LOAD_STALE_TERM
    tables.load(Image(header={"term": 2, "revision": 1}))


def test_an_aborted_or_refused_image_does_not_raise_the_fence() -> None:
    tables = Tables()
    tables.prepare(Image(header={"term": 9}))
    lib.ips_tables_abort(tables.c)
    tables.load(Image(header={"term": 1}))


def test_a_delta_stands_on_the_live_generation_only() -> None:
    tables = Tables()
    with pytest.raises(Refused) as refused:
        tables.prepare(Image().delta(0, []))
    assert refused.value.reason == (lib.IPS_LOAD_STALE_BASE, 0, 0)
    generation = tables.load(Image(bindings=[WHOLE]))
    tables.load(Image().delta(generation, [MOVED]))
    with pytest.raises(Refused):
        tables.prepare(Image().delta(generation, [MOVED]))
    assert addresses(tables, "203.0.113.7") == ["10.0.1.7"]


def test_the_same_content_reads_back_the_same_whatever_its_history() -> None:
    rows = in_order([WHOLE, MOVED, *(binding(f"203.0.113.{i}/32", B, i) for i in range(100, 120))])
    image = Image(bindings=rows)
    at_once, bit_by_bit = Tables(), Tables()
    at_once.load(image)
    generation = bit_by_bit.load(image.but(bindings=[binding("203.0.113.99/32", A)]))
    for row in reversed(rows):
        generation = bit_by_bit.load(image.delta(generation, [row]))
    bit_by_bit.load(image.delta(generation, [binding("203.0.113.99/32", kind=GONE)]))
    assert at_once.dump() == bit_by_bit.dump() == image.pack()
    assert at_once.info()["digest"] == bit_by_bit.info()["digest"]
    again = Tables()
    again.load(bit_by_bit.dump())
    assert again.dump() == image.pack()
    other_roles = Tables()
    other_roles.load(image.but(header=ROLES_INNER))
    assert other_roles.info()["digest"] == again.info()["digest"]
    assert other_roles.info()["settings"] != again.info()["settings"]


def test_dump_writes_nothing_where_there_is_no_room() -> None:
    tables = Tables()
    tables.load(Image(bindings=[WHOLE]))
    out = ffi.new("uint8_t[]", b"x" * 400)
    size = lib.ips_tables_dump(tables.c, out, 10)
    assert size == len(Image(bindings=[WHOLE]).pack()) and bytes(out[0:400]) == b"x" * 400


def test_an_image_may_lie_at_any_address() -> None:
    raw = Image(bindings=[WHOLE, MOVED]).pack()
    room = ffi.new("uint8_t[]", len(raw) + 8)
    for shift in range(8):
        ffi.memmove(room + shift, raw, len(raw))
        tables, status = Tables(), ffi.new("struct ips_load_status *")
        assert lib.ips_tables_prepare(tables.c, room + shift, len(raw), status)


# ---- bulk ----------------------------------------------------------------------


def many(n: int) -> Image:
    rows = np.zeros(n, BINDING)
    rows["global"][:, :4] = (0x64400000 + np.arange(n)).astype(">u4").view("u1").reshape(-1, 4)
    rows["local"][:, :4] = np.arange(n).astype(">u4").view("u1").reshape(-1, 4)
    rows["family"], rows["prefix_len"], rows["kind"] = 4, 32, lib.IPS_KIND_ENDPOINT
    return Image(
        networks=[network("100.64.0.0/10")],
        endpoints=[endpoint("10.0.0.0/8"), endpoint("11.0.0.0/8")],
        bindings=rows,
    )


def test_a_delta_copies_a_page_and_not_the_table() -> None:
    tables = Tables()
    image = many(200_000)
    generation = tables.load(image)
    before = tables.info()["bytes"]
    tables.load(image.delta(generation, [binding("100.65.0.1/32", B, 1)]))
    assert tables.info()["bytes"] - before < 5 * 32768 + 30_000  # pages of slots and records, directories
    assert before < 60 * 200_000 + 2_000_000


def test_a_complete_image_that_says_nearly_the_same_shares_its_pages() -> None:
    tables = Tables()
    image = many(200_000)
    tables.load(image)
    before = tables.info()["bytes"]
    image.bindings["target"][77] = 1  # type: ignore[call-overload]
    tables.load(image)
    assert tables.info()["bytes"] - before < 5 * 32768 + 30_000
    assert addresses(tables, "100.64.0.77", "100.64.0.78") == ["11.0.0.77", "10.0.0.78"]


def test_a_complete_image_that_changes_much_still_shares_what_came_out_the_same() -> None:
    tables = Tables()
    image = many(200_000)
    tables.load(image)
    before = tables.info()["bytes"]
    image.bindings["target"][:60_000] = 1  # type: ignore[call-overload]
    tables.load(image)
    page, records, slots = 32_768 + 64, 200_000 * 48 // 32_736 + 1, 60_000 // 4096 + 1
    assert tables.info()["bytes"] - before < (records + slots + 2) * page


def test_memory_returns_when_generations_go() -> None:
    tables = Tables()
    image = many(50_000)
    tables.load(image)
    floor = tables.info()["bytes"]
    for i in range(20):
        image.bindings["target"] = i % 2  # type: ignore[call-overload]
        tables.load(image)
    assert tables.info()["bytes"] < 2.2 * floor  # live and previous
    for _ in range(2):
        tables.load(Image())
    assert tables.info()["bytes"] < floor / 3  # what is left is the map of cells that were once in use


def test_thousands_come_and_go_by_deltas() -> None:
    """Chunks of records are cut and joined, hash pages fill and empty."""
    tables = Tables()
    image = Image(networks=GLOBAL6, endpoints=SITE6, header=ROLES_INNER)
    generation = tables.load(image)
    rows = [binding(f"2001:db8:100::{i:x}/128", A, i) for i in range(1, 4001)]
    for part in range(0, 4000, 500):
        generation = tables.load(image.delta(generation, rows[part : part + 500]))
    assert tables.dump() == image.but(bindings=rows).pack()
    assert addresses(tables, "2001:db8:100::fa0") == ["2001:db8:a::fa0"]
    for part in range(0, 4000, 1000):
        gone = [{**row, "kind": GONE} for row in rows[part : part + 990]]
        generation = tables.load(image.delta(generation, gone))
    left = [row for i, row in enumerate(rows) if i % 1000 >= 990]
    assert tables.dump() == image.but(bindings=left).pack()
    found = tables.find_local([f"2001:db8:a::{i:x}" for i in range(1, 4001)])["kind"] != GONE
    assert [i for i, is_found in enumerate(found) if is_found] == [i for i in range(4000) if i % 1000 >= 990]


def test_a_crowded_hash_finds_all_that_is_left_after_any_removal() -> None:
    """Buckets overflow; removal must close the gaps that later keys were displaced across."""
    tables = Tables()
    image = Image(networks=GLOBAL6, endpoints=SITE6, header=ROLES_INNER)
    there = set(range(1, 4300))
    keys = {i: f"2001:db8:100::{i:x}" for i in there}
    outer, inner = (
        b"".join(bytes(packed(f"{base}{i:x}")) for i in keys) for base in ("2001:db8:100::", "2001:db8:a::")
    )
    generation = tables.load(image.but(bindings=[binding(f"{keys[i]}/128", A, i) for i in sorted(there)]))
    rng = np.random.default_rng(3)
    while there:
        few = len(there) // 10 + 1  # more would be built anew
        gone = rng.choice(sorted(there), few, replace=False).tolist()
        rows = [binding(f"{keys[i]}/128", kind=GONE) for i in sorted(gone)]
        generation = tables.load(image.delta(generation, rows))
        there -= set(gone)
        expected = np.array([i in there for i in keys])
        assert ((tables.globals(6, outer, None)["kind"] != GONE) == expected).all()
        assert ((tables.locals(6, inner)["kind"] != GONE) == expected).all()


def test_chunks_that_hold_little_are_put_together() -> None:
    tables = Tables()
    image = many(100_000)
    generation = tables.load(image)
    gone = image.bindings.copy()  # type: ignore[union-attr]
    gone["kind"] = GONE
    keep = np.arange(len(gone)) % 500 == 0
    tables.load(image.delta(generation, gone[~keep]))  # type: ignore[arg-type]
    assert tables.dump() == image.but(bindings=image.bindings[keep]).pack()  # type: ignore[call-overload]
    tables.load(tables.dump())  # the previous generation, with all its chunks, goes
    pages_of_slots = 100_000 // 4096 + 1
    assert tables.info()["bytes"] < (pages_of_slots + 20) * 32_832 + 850_000  # and the map of 4 M cells


def test_the_longest_binding_is_named() -> None:
    tables = Tables()
    rows = in_order([WHOLE, MOVED, binding("203.0.113.0/30", B), binding("203.0.113.2/31", A, 2)])
    tables.load(Image(bindings=rows))
    out = ffi.new("struct ips_binding_rec *")
    for key, length in (("203.0.113.1", 30), ("203.0.113.3", 31), ("203.0.113.7", 32), ("203.0.113.8", 24)):
        assert lib.ips_lookup_binding(tables.c, 4, bytes(map(int, key.split("."))), out) == 1
        assert out.prefix_len == length
    assert lib.ips_lookup_binding(tables.c, 4, bytes([203, 0, 114, 0]), out) == 0


def test_header_is_what_python_thinks_it_is() -> None:
    assert HEADER.itemsize % 8 == 0 and BINDING.itemsize == 48
    assert np.dtype(HEADER).fields["digest"][1] % 8 == 0  # type: ignore[index]
