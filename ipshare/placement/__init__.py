"""Placement: where workloads go when a site is left or a node fails (SYSTEMS.md S1.12).

model (sites, nodes, workloads) -> plan (ordered moves with reasons, or why not). Pure; nothing is moved here.
"""
