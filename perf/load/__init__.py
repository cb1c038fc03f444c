"""Shared by the loads of perf.pair and perf.remap: connections in one process (ends.c), driven by program.py.

Each load says itself what is said on a connection, and what counts as broken.
"""
