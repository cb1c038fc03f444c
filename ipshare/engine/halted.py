"""halted: a configuration in which some Global IPs of this end point are not delivered. Pure.

An end point without a lease for an exclusive workload stops delivering to it: the inner translation of its
addresses is taken away, as if the binding said `down`. Everything else stays.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ipshare.model import Binding, BindingKind, Config, Prefix


def with_halted(config: Config, halted: Collection[Prefix]) -> Config:
    """``config`` with those bindings to its own end point down."""
    own = config.self_endpoint
    if not halted or own is None:
        return config
    return replace(config, bindings=tuple(_halted(b, own.name, halted) for b in config.bindings))


def _halted(binding: Binding, own: str, halted: Collection[Prefix]) -> Binding:
    if binding.target != own or binding.prefix not in halted:
        return binding
    return replace(binding, kind=BindingKind.DOWN, target=None, local=None)
