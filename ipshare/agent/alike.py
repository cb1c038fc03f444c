"""alike: what two configurations of a node have in common, for what need not be done again. Pure."""

from __future__ import annotations

from dataclasses import replace

from ipshare.model import BindingKind, Config, Prefix


def process(config: Config) -> tuple[object, ...]:
    """What an engine is started with, or told once."""
    vpp = config.vpp
    if vpp is not None:
        vpp = replace(vpp, interfaces=(), bridges=(), routes=(), neighbors=())
    return config.engine, config.node.runtime_dir, vpp


def same_network(had: Config | None, wanted: Config) -> bool:
    """Only where addresses go is different: a kernel that was told ``had`` has all that ``wanted`` needs."""
    if had is None or wanted.vpp is not None or _held(had) != _held(wanted):
        return False
    return replace(had, bindings=()) == replace(wanted, bindings=())


def _held(config: Config) -> list[Prefix]:
    """What is served at this very node: its routes depend on it."""
    return [binding.prefix for binding in config.bindings if binding.kind is BindingKind.HERE]
