"""Load sharing by the description in native/ips_maglev.h and ips_table.h, in plain integers.

Not shared with the C code in any way: two machines agree if both agree with this.
"""

from __future__ import annotations

from collections.abc import Sequence

MASK = (1 << 64) - 1


def fold(a: int, b: int) -> int:
    product = (a & MASK) * (b & MASK)
    return product >> 64 ^ product & MASK


def identity(
    family: int, prefix_len: int, local: bytes, tunnel_family: int = 0, tunnel_remote: bytes = b""
) -> int:
    """Of a member: its local prefix, or, without one, its tunnel address."""
    address = (local if prefix_len else tunnel_remote).ljust(16, b"\0")
    kind = family << 8 | prefix_len if prefix_len else tunnel_family << 16
    hi, lo = int.from_bytes(address[:8], "big"), int.from_bytes(address[8:], "big")
    return fold(hi ^ 0x3C79AC492BA7B653, lo ^ kind ^ 0x1C69B3F74AC4AE35)


def table(members: Sequence[tuple[int, int, int]], size: int) -> list[int]:
    """End point by slot. ``members``: (identity, weight, end point)."""
    members = sorted(m for m in members if m[1])
    total = sum(weight for _, weight, _ in members)
    slots = [size * weight // total or 1 for _, weight, _ in members]
    rest = [size * weight % total if size * weight >= total else 0 for _, weight, _ in members]
    by_rest = sorted(range(len(members)), key=lambda i: (-rest[i], i))
    at = 0
    while sum(slots) < size:
        slots[by_rest[at % len(members)]] += 1
        at += 1
    assert sum(slots) == size, "shares below one slot are not modelled"

    turns = sorted(
        ((2 * k + 1) * size // (2 * slots[i]), i) for i in range(len(members)) for k in range(slots[i])
    )
    place, skip = [], []
    for i, (name, _, _) in enumerate(members):
        twin = sum(other[0] == name for other in members[:i])
        h = fold(name ^ 0x9FB21C651E98DF25, 0xA24BAED4963EE407 + twin)
        place.append(h % size)
        skip.append(fold(h ^ 0xD6E8FEB86659FD93, 0xE7037ED1A0B428DB) % (size - 1) + 1)
    out = [-1] * size
    for _, i in turns:
        while out[place[i]] >= 0:
            place[i] = (place[i] + skip[i]) % size
        out[place[i]] = members[i][2]
    return out


def slot(seed: int, family: int, client: bytes, client_bits: int, global_ip: bytes, size: int) -> int:
    """Where in the table a client of a Global IP looks."""
    bits = 32 if family == 4 else 128
    masked = int.from_bytes(client, "big") >> (bits - client_bits) << (bits - client_bits)
    c_hi, c_lo = (masked, 0) if family == 4 else (masked >> 64, masked & MASK)
    number = int.from_bytes(global_ip, "big")
    g_hi, g_lo = (number, 0) if family == 4 else (number >> 64, number & MASK)
    c = fold(c_hi ^ seed ^ 0x2D358DCCAA6C78A5, c_lo ^ 0x8BB84B93962EACC9)
    g = fold(g_hi ^ family ^ 0x4B33A62ED433D4A3, g_lo ^ 0x4D5A2DA51DE1AA47)
    turned = (seed << 32 | seed >> 32) & MASK
    return fold(c ^ 0xA0761D6478BD642F, g ^ turned ^ 0xE7037ED1A0B428DB) * size >> 64
