"""Routing recipes of a node: pure configuration -> actions, applied and undone exactly.

Importing this package costs nothing; netlink is loaded with the first call that needs it.
"""

from ipshare.net.actions import Action, NetError, describe
from ipshare.net.nat import Inside
from ipshare.net.peers import PeerRoutes, peer_routes
from ipshare.net.recipe import GlobalNetwork, NodeNet, Reply, recipe

__all__ = [
    "Action",
    "GlobalNetwork",
    "Inside",
    "NetError",
    "NodeNet",
    "PeerRoutes",
    "Reply",
    "describe",
    "peer_routes",
    "recipe",
]
