"""The node of tests.agent_world as half of a pair, with its key file."""

from __future__ import annotations

from pathlib import Path

PAIR = """
[pair]
key_file = "{dir}/pair.key"
interval = "{interval}"
{more}
[[pair.node]]
name = "C"
paths = ["10.9.0.1:6081", "10.9.1.1:6081"]
[[pair.node]]
name = "D"
paths = ["10.9.0.2:6081", "10.9.1.2:6081"]
[[pair.vip]]
address = "192.168.5.1"
interface = "eth1"
"""


def pair_text(directory: Path, *, interval: str = "10ms", more: str = "", key: str = "ab" * 32) -> str:
    """Text to append to the site of tests.agent_world; the key file is made."""
    file = directory / "pair.key"
    file.write_text(key + "\n")
    file.chmod(0o600)
    return PAIR.format(dir=directory, interval=interval, more=more)
