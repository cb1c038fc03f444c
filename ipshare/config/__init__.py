"""TOML -> Config: every mistake at once, with file, line and key.

keys, read (files, includes, places) -> schema (one table alone) -> checks (tables together) -> build (Config).
Bulk bindings come from bulk; only that brings NumPy in.
"""
