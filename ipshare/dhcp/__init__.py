"""dhcp: public addresses leased by DHCP for workloads (SYSTEMS.md S3.5).

message.py: packet bytes <-> values; client.py: one workload's state machine, pure; desk.py: many of them, and
who has which address; relay.py: the socket. The agent drives it and turns leases into bindings.
"""
