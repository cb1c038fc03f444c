"""Simulation: years of failures of sites and links in seconds, on a virtual clock.

world (sites, workloads, a million bindings) -> run (failures, detection, placement, roll-out) -> report. The
placement is ipshare.placement, the same code that plans evacuations; latencies are assumptions, all of them
named in the report. Pure: the clock is a number, chance comes from a seed.
"""
