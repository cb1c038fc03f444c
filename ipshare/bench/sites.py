"""sites: tables with any number of bindings, made as arrays; what the benchmarks load.

The Global Network is 100.64.0.0/10 (2001:db8:100::/64), bound address by address to sixteen end
points whose local prefixes are 10.0.0.0/12, 10.16.0.0/12, ... (2001:db8:a0::/64, 2001:db8:a1::/64, ...).
Neighbours lie at different end points, as after years of moves. No packet with these addresses leaves
the process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ipshare.core import lib
from ipshare.engine.tables import BINDING, ENDPOINT, NETWORK, Records, Tables

ENDPOINTS = 16
GLOBAL4, LOCAL4 = 0x64400000, 0x0A000000
GLOBAL6 = bytes.fromhex("20010db8010000000000000000000000")
LOCAL6 = bytes.fromhex("20010db800a000000000000000000000")
TUNNELS = {4: bytes([192, 0, 2, 1]), 6: bytes.fromhex("20010db8000f00000000000000000001")}


def addresses(family: int, numbers: npt.ArrayLike, *, local: bool = False) -> npt.NDArray[np.uint8]:
    """Addresses ``numbers`` (n,) of the Global Network, or where they are bound to; shape (n, 16)."""
    at = np.asarray(numbers, np.uint32)
    out = np.zeros((len(at), 16), np.uint8)
    if family == 4:
        value = at + GLOBAL4 if not local else LOCAL4 + ((at % ENDPOINTS) << np.uint32(20)) + at // ENDPOINTS
        out[:, :4] = value.astype(">u4").view(np.uint8).reshape(-1, 4)
        return out
    out[:] = np.frombuffer(LOCAL6 if local else GLOBAL6, np.uint8)
    if local:
        out[:, 5] += (at % ENDPOINTS).astype(np.uint8)
        at = at // ENDPOINTS
    out[:, 12:] = at.astype(">u4").view(np.uint8).reshape(-1, 4)
    return out


def _endpoints(family: int, **common: Any) -> Records:
    out = np.zeros(ENDPOINTS, ENDPOINT)
    out["local"] = addresses(family, np.arange(ENDPOINTS), local=True)
    out["family"], out["prefix_len"] = family, 12 if family == 4 else 64
    out["path_mtu"], out["site"] = 9000, np.arange(ENDPOINTS)
    for name, value in common.items():
        out[name] = value
    return out


def bindings(family: int, n: int) -> Records:
    """Host bindings of the first ``n`` addresses, sorted."""
    at = np.arange(n, dtype=np.uint32)
    out = np.zeros(n, BINDING)
    out["global"] = addresses(family, at)
    offsets = (at // ENDPOINTS).astype(">u4").view(np.uint8).reshape(-1, 4)
    out["local"][:, slice(0, 4) if family == 4 else slice(12, 16)] = offsets
    out["family"], out["prefix_len"] = family, 32 if family == 4 else 128
    out["kind"], out["target"] = lib.IPS_KIND_ENDPOINT, at % ENDPOINTS
    return out


def site(family: int, n: int, *, inner: bool = False) -> Tables:
    """A distribution point's tables with ``n`` bindings, or those of a node that is every end point."""
    network = np.zeros(1, NETWORK)
    network["prefix"] = addresses(family, [0])
    network["family"], network["prefix_len"] = family, 10 if family == 4 else 64
    return Tables(
        networks=network,
        endpoints=_endpoints(family, flags=lib.IPS_EP_SELF if inner else 0),
        bindings=bindings(family, n),
        roles=lib.IPS_ROLE_INNER if inner else lib.IPS_ROLE_OUTER,
    )
