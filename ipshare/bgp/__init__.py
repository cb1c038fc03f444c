"""Announcing Global Networks by BGP with a BIRD of our own (SYSTEMS.md S1.1, DESIGN.md 10).

render (pure: Config -> bird.conf), readiness (pure: facts -> announce or not, and why), control (BIRD's
socket), speaker (the process). BIRD is known to this package alone.
"""
