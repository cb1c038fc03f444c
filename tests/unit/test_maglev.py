"""Load sharing (S1.8): same answer everywhere, shares by weight, little moved when the set changes."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import numpy as np
import pytest

from ipshare.core import dtype, ffi, lib
from tests.oracle import maglev
from tests.table_images import NONE, Image, Tables, binding, endpoint, member, network, packed, policy

SEED = 0x0123456789ABCDEF
NET = network("203.0.113.0/24")
RNG = np.random.default_rng(7)
CLIENTS4 = RNG.integers(0x01000000, 0xDF000000, 200_000, "u4").astype(">u4").view("u1").reshape(-1, 4)


def ends(n: int) -> list[dict[str, object]]:
    return [endpoint(f"10.{i // 250}.{i % 250}.0/24") for i in range(n)]


def shared(weights: dict[int, int], n_ends: int = 700, **fields: int) -> Image:
    """A policy over end points (index -> weight) for the whole network."""
    return Image(
        networks=[NET],
        endpoints=ends(n_ends),
        policies=[policy(0, len(weights), **{"seed": SEED, **fields})],
        members=[member(end, weight) for end, weight in weights.items()],
        bindings=[binding("203.0.113.0/24", 0, kind=lib.IPS_KIND_POLICY)],
    )


def chosen(image: Image, clients: np.ndarray = CLIENTS4, key: str = "203.0.113.7") -> np.ndarray:
    tables = Tables()
    tables.load(image)
    wide = np.zeros((len(clients), 16), "u1")
    wide[:, : clients.shape[1]] = clients
    keys = bytes(packed(key)) * len(clients)
    return tables.globals(ip_address(key).version, keys, wide.tobytes())["endpoint"]


@pytest.mark.parametrize(
    "weights", [{0: 1}, {0: 1, 1: 1, 2: 1}, {5: 10, 3: 1, 9: 4, 1: 0}, {i: i % 7 for i in range(1, 60)}]
)
@pytest.mark.parametrize("size", [0, 10007])
def test_agrees_with_the_description(weights: dict[int, int], size: int) -> None:
    picks = chosen(shared(weights, table_size=size), CLIENTS4[:3000])
    members = [
        (maglev.identity(4, 24, bytes([10, end // 250, end % 250, 0])), weight, end)
        for end, weight in weights.items()
    ]
    table = maglev.table(members, size or 65537)
    for client, pick in zip(CLIENTS4[:3000], picks, strict=True):
        at = maglev.slot(SEED, 4, bytes(client), 32, bytes([203, 0, 113, 7]), len(table))
        assert table[at] == pick


def test_ipv6_hashes_the_leading_bits() -> None:
    networks, ends6 = [network("2001:db8:100::/64")], [endpoint(f"2001:db8:{i:x}::/64") for i in (10, 11, 12)]
    image = Image(
        networks,
        ends6,
        [policy(0, 3, seed=SEED, v6_bits=56)],
        [member(0), member(1, 2), member(2, 3)],
        [binding("2001:db8:100::/64", 0, kind=lib.IPS_KIND_POLICY)],
    )
    clients = RNG.integers(0, 256, (2000, 16), "u1")
    picks = chosen(image, clients, "2001:db8:100::7")
    global_ip = ip_address("2001:db8:100::7").packed
    identities = [maglev.identity(6, 64, ip_address(f"2001:db8:{i:x}::").packed) for i in (10, 11, 12)]
    table = maglev.table([(name, i + 1, i) for i, name in enumerate(identities)], 65537)
    for client, pick in zip(clients, picks, strict=True):
        assert table[maglev.slot(SEED, 6, bytes(client), 56, global_ip, 65537)] == pick
    clients[:, 7:] = 0
    assert (chosen(image, clients, "2001:db8:100::7") == picks).all()


def test_members_are_known_by_their_prefix_not_by_their_place() -> None:
    """Machines may list end points in different orders."""
    here = chosen(shared({0: 3, 1: 1, 2: 1}))
    order = {0: 2, 1: 0, 2: 1}
    site = shared({order[i]: w for i, w in ((2, 1), (0, 3), (1, 1))})
    mixed = [site.endpoints[old] for old in (1, 2, 0)]
    there = chosen(site.but(endpoints=[*mixed, *site.endpoints[3:]]))
    assert (np.vectorize(order.get)(here) == there).all()


def test_distribution_points_are_known_by_their_tunnel_address() -> None:
    def replies(order: tuple[int, ...]) -> list[int]:
        points = [
            endpoint("", flags=lib.IPS_EP_DISTRIBUTION, encap=1, tunnel=(f"192.0.2.{i}", "192.0.2.99"))
            for i in order
        ]
        tables = Tables()
        tables.load(
            Image(
                [NET],
                points,
                [policy(0, 3, seed=1)],
                [member(i) for i in range(3)],
                header={"reply_policy": 0},
            )
        )
        key = bytes([203, 0, 113, 7])
        return [order[lib.ips_lookup_policy(tables.c, 0, 4, bytes(c), key)] for c in CLIENTS4[:500]]

    assert replies((1, 2, 3)) == replies((3, 1, 2))
    assert len(set(replies((1, 2, 3)))) == 3


def test_each_global_ip_has_its_own_permutation() -> None:
    one, other = (
        chosen(shared(dict.fromkeys(range(10), 1)), key=key) for key in ("203.0.113.7", "203.0.113.8")
    )
    assert 0.08 < (one == other).mean() < 0.12  # as if drawn anew


@pytest.mark.parametrize("n", [2, 3, 10, 100, 600])
@pytest.mark.parametrize("shape", ["equal", "mixed"])
def test_shares_are_exact_within_one_percent(n: int, shape: str) -> None:
    """Counted over the table's slots, of which a client is an even sample."""
    weights = {i: 1 if shape == "equal" else 1 + i % 6 for i in range(n)}
    counts = slots(weights)
    total = sum(weights.values())
    for end, weight in weights.items():
        assert counts[end] == pytest.approx(65537 * weight / total, rel=0.01)


def slots(weights: dict[int, int], size: int = 0) -> Counter[int]:
    return Counter(table(weights, size).tolist())


def table(weights: dict[int, int], size: int = 0) -> np.ndarray:
    out = np.zeros(size or 65537, "u2")
    recs = np.zeros(len(weights), dtype("struct ips_endpoint_rec"))
    for i, end in enumerate(weights):
        recs["local"][i] = packed(f"10.{end // 250}.{end % 250}.0")
        recs["family"][i], recs["prefix_len"][i] = 4, 24
    shares = np.array(list(weights.values()), "u4")
    taken = lib.ips_maglev_table(
        ffi.from_buffer("struct ips_endpoint_rec *", recs),
        ffi.from_buffer("uint32_t *", shares),
        len(recs),
        len(out),
        ffi.from_buffer("uint16_t *", out),
    )
    assert taken == 0
    return np.array(list(weights))[out]


def test_clients_spread_as_the_weights_say() -> None:
    weights = {0: 1, 1: 2, 2: 5}
    counts = Counter(chosen(shared(weights)).tolist())
    for end, weight in weights.items():
        assert counts[end] == pytest.approx(len(CLIENTS4) * weight / 8, rel=0.02)


def test_neighbouring_clients_spread_too() -> None:
    """A /16 of consecutive addresses, as behind one provider."""
    clients = (0x62000000 + np.arange(65536)).astype(">u4").view("u1").reshape(-1, 4)
    counts = Counter(chosen(shared(dict.fromkeys(range(8), 1)), clients).tolist())
    assert all(count == pytest.approx(8192, rel=0.05) for count in counts.values())


def test_weight_zero_takes_nothing() -> None:
    assert set(chosen(shared({0: 1, 1: 0, 2: 1})).tolist()) == {0, 2}


def test_no_client_bits_pin_a_global_ip_to_one_end_point() -> None:
    image = shared(dict.fromkeys(range(10), 1), v4_bits=0)
    assert len(set(chosen(image).tolist())) == 1
    picks = {int(chosen(image, CLIENTS4[:1], f"203.0.113.{i}")[0]) for i in range(100)}
    assert len(picks) == 10


@pytest.mark.parametrize("n", [3, 10, 50, 109])
def test_removing_or_adding_a_member_moves_little_else(n: int) -> None:
    """Ideal: only the member's own share moves. Bound: twice that in all."""
    before, after = (table(dict.fromkeys(range(count), 1)) for count in (n, n - 1))
    moved = (before != after).mean()
    assert 1 / n <= moved * 1.01 and moved < 2 / n
    kept = before != n - 1
    assert (before[kept] != after[kept]).mean() < 1 / n


def test_draining_by_weight_moves_little_else() -> None:
    full = dict.fromkeys(range(10), 100)
    for weight in (50, 1, 0):
        before, after = table(full), table({**full, 9: weight})
        gone = (before == 9).mean() - (after == 9).mean()
        assert (before != after).mean() < 2 * gone


def test_policies_that_ask_for_the_same_share_a_table() -> None:
    tables = Tables()
    image = shared({0: 1, 1: 1}, 2)
    tables.load(image)
    one = tables.info()["bytes"]
    twice = image.but(policies=[policy(0, 2, seed=i) for i in range(50)])
    tables.load(twice)
    assert tables.info()["bytes"] - one < 65537 * 2
    generation = tables.load(twice)
    tables.load(twice.delta(generation, [binding("203.0.113.1/32", 0)]))
    assert tables.info()["bytes"] - one < 65537 * 2 + 200_000


def test_no_policy_no_end_point() -> None:
    tables = Tables()
    assert lib.ips_lookup_policy(tables.c, 0, 4, bytes(4), bytes(4)) == NONE
    tables.load(shared({0: 1}))
    assert lib.ips_lookup_policy(tables.c, 1, 4, bytes(4), bytes(4)) == NONE
