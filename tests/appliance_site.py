"""A small site file for a box: what it says does not matter to the box, but that it is good."""

from __future__ import annotations

SITE = """[node]
name = "c1"
distribution = "C"
icmp_source = ["192.0.2.1"]
[[network]]
name = "g"
prefix = "198.51.100.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
[[distribution]]
name = "C"
[[binding]]
global = "198.51.100.0/24"
to = "A"
"""
