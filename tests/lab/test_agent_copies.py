"""Copies for intrusion detection through the agent (S1.16): each gets its bindings' packets as they came,
no others."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from scapy.layers.inet import IP
from scapy.utils import PcapNgReader

from ipshare.lab import Lab, LabSpec
from ipshare.lab.internet import global_ip
from tests.lab.test_agent_node import Nodes, wait_for

ONE, TWO = str(global_ip("a1", 4)), str(global_ip("a2", 4))
COPIES = """
[[copy]]
name = "one"
file = "one.pcapng"
[[copy]]
name = "two"
file = "two.pcapng"
snaplen = 64
[[binding]]
global = "{one}/32"
to = "A"
copy = "one"
[[binding]]
global = "{two}/32"
to = "A"
copy = "two"
"""


def seen(file: Path) -> list[tuple[str, int]]:
    """(destination, bytes kept) of each packet of a copy."""
    return [(IP(bytes(packet)).dst, len(bytes(packet))) for packet in PcapNgReader(str(file))]


def test_each_copy_gets_its_own_and_ends_with_its_configuration() -> None:
    with Lab(LabSpec(families=(4,))) as lab:
        nodes = Nodes(lab)
        try:
            file = lab.site_file("C")
            plain = file.read_text()
            file.write_text(plain + COPIES.format(one=ONE, two=TWO))
            nodes.cli("C", "apply", str(file))
            lab.run("c1", ["ping", "-c", "3", "-i", "0.01", "-s", "200", ONE])
            lab.run("c1", ["ping", "-c", "2", "-i", "0.01", "-s", "200", TWO])
            rows = json.loads(nodes.cli("C", "copy", "status", "-c", str(file), "--json"))
            assert [(row["name"], row["runs"], row["lost"]) for row in rows] == [
                ("one", True, 0),
                ("two", True, 0),
            ]
            nodes.kill("C")  # copies are the engine's: they go on without an agent, and are known to the next
            lab.run("c1", ["ping", "-c", "1", ONE])
            nodes.start("C")
            assert nodes.cli("C", "copy", "status", "-c", str(file)).count(" yes ") == 2
            file.write_text(plain)
            nodes.agents["C"].send_signal(signal.SIGHUP)
            wait_for(nodes, "C", lambda status: status["generation"] == 3)
            assert "no copies" in nodes.cli("C", "copy", "status", "-c", str(file))
            assert seen(file.parent / "one.pcapng") == [(ONE, 228)] * 3 + [(ONE, 84)]
            assert seen(file.parent / "two.pcapng") == [(TWO, 64)] * 2
        finally:
            nodes.stop()
