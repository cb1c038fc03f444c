"""Mirrored sessions by way of a database (SYSTEMS.md S3.6); the mirror itself is native/ips_mirror.c.

``records``: changes as octets, as they are on the mirror's wire. ``store``: Redis, the only module that knows
it. ``relay``: the engine's changes, out of its mirror. ``publish``: relay -> store. ``follow``: store -> the
engine of a standby. Redis carries sessions, never ownership: who is active is the pair's business.
"""
