"""migration: a workload goes to another node while it runs, and packets follow it (SYSTEMS.md S1.11).

machine: the steps of one migration, pure; adapters (command, libvirt) behind one protocol; drbd: whether the
storage is in sync. The agent (ipshare.agent.migrations) has the adapters, the director
(ipshare.director.migrations) the machine. Nothing here knows tables or packets.
"""
