"""Small worlds in which the real state machines run: hand-driven time, simulated network, disk and
witness."""
