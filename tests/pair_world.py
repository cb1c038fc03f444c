"""A node that is half of a pair, with an engine in memory, from Python."""

from __future__ import annotations

from pathlib import Path

from ipshare import api
from tests.agent_world import Routes, World, site
from tests.pair_sites import pair_text


def half(directory: Path) -> World:
    """One whose engine runs, and has its configuration."""
    world = World(directory)
    node_of(world).apply(start_engine=True)
    return world


def node_of(world: World) -> api.Node:
    config = site(world.directory, more=pair_text(world.directory))
    return api.Node(config, data_path=world, routes=Routes(world), clock=world)
