"""The director: one source of truth for many nodes, and every node's tables kept in step (SYSTEMS.md S1.9).

config (director.toml -> Settings and Topology, all mistakes at once) -> store (each change a revision, on
disk) -> rollout (facts in, who shall have what now: pure, make before break) -> link (one node over TLS) ->
the agent's one way of changing a node. render: a topology as the tables of one node. daemon ties it together,
desk answers operators. docs/director.md.
"""
