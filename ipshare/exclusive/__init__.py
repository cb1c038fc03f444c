"""Exclusive workloads: what never runs at two nodes at once (SYSTEMS.md S1.10, DESIGN.md 10). Pure.

holder (one node: may it run, has it to be stopped) <- leases -> grants (the director: whose it is, when the
next one may have it). timing: how long is long enough, whatever the clocks do.
"""
