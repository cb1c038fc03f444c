"""How long a flip takes over many nodes: from `apply` to the last node's acknowledgement.

    python -m perf.director [--nodes 100] [--rounds 30] [--full]

The nodes are simulated: PROCESSES processes and one disk for all of them, but a connection with TLS for each,
the agent's own code for the protocol, for what counts and for what is written, and its real writes (three
fsyncs for each assignment). What each would do on a machine of its own they do one after the other on this
one's cores; without --full they leave out to check and apply the assignment, and WRITERS threads of a process
write for all of its nodes, not one thread each. The result says how much processor time a flip took at either
side. Two nodes are end points, the others distribution points. A round moves one address there and back.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ipshare.agent.assignment import Assignment
from ipshare.agent.reconcile import Done
from ipshare.bench import machine
from ipshare.director.rollout import FINAL
from tests.director_world import ALL_A, SEVEN_B, Fleet, SimAgent
from tests.pki import Pki

TARGET_MS = 200.0
WRITERS = 8
PROCESSES = 2


class Keeping(Assignment):
    """Judges and keeps what is assigned, and applies nothing."""

    def _apply(self, text: str) -> Done:
        return Done(0)


def names(count: int) -> list[str]:
    return ["a1", "b1", *(f"c{number}" for number in range(1, count - 1))]


async def simulate(folder: Path, count: int, share: int, full: bool) -> None:
    """The nodes that are one process' share, until standard input ends."""
    ours = list(enumerate(names(count), 1))[share::PROCESSES]
    agents = [SimAgent(folder, Existing(folder), name, n) for n, name in ours]
    pool = ThreadPoolExecutor(WRITERS)
    for agent in agents:
        await agent.start()
        if not full:
            agent.assignment.__class__ = Keeping
            agent.worker = pool  # one assignment of a node at a time still: a connection asks one by one
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for agent in agents:
        await agent.stop()


class Existing(Pki):
    """The authority that the other process made."""

    def __init__(self, folder: Path) -> None:
        from ipshare.certs.authority import Authority

        self.folder, self.authority = folder, Authority(folder / "ca")


def busy_ms(*pids: int) -> float:
    """Processor time that processes have had."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(of[11]) + int(of[12]) for of in fields) * 1e3 / os.sysconf("SC_CLK_TCK")


async def measure(folder: Path, count: int, rounds: int, nodes: list[int]) -> tuple[list[float], list[float]]:
    """ms of each whole change, and of its flip: from the first distribution point's turn to the last ack.
    ``nodes``: their processes."""
    fleet = Fleet.__new__(Fleet)  # its nodes are in other processes
    fleet.directory, fleet.pki, fleet.names = folder, Existing(folder), names(count)
    director = await fleet.direct(ALL_A, interval="1s", patience="60s")
    assert await director.settled(1, 120), director.outcomes()
    there, back = (fleet.wanted(text, interval="1s").topology for text in (ALL_A + SEVEN_B, ALL_A))
    whole, flips = [], []
    busy, parts = busy_ms(os.getpid()), {"director": [0.0], "nodes": [0.0]}
    for number in range(rounds):
        turn: list[float] = []
        judge = director._judge_now

        def watched(judge: Callable[[], None] = judge, turn: list[float] = turn) -> None:
            judge()
            marks = len(turn)
            points = [node for node in director.nodes.values() if node.row.distribution]
            if not turn and any(director._due(node) == FINAL for node in points):
                turn.append(time.monotonic())
            if len(turn) == 1 and all(node.kept.has[0] == director.number for node in points):
                turn.append(time.monotonic())
            for sign in (-1, 1)[marks : len(turn)]:
                parts["director"].append(sign * busy_ms(os.getpid()))
                parts["nodes"].append(sign * busy_ms(*nodes))

        director._judge_now = watched  # type: ignore[method-assign]
        began = time.monotonic()
        await director.change(there if number % 2 == 0 else back, "perf", "")
        assert await director.settled(director.number, 300), director.outcomes()
        whole.append((time.monotonic() - began) * 1e3)
        director._judge_now = judge  # type: ignore[method-assign]
        flips.append((turn[1] - turn[0]) * 1e3)
    each = (busy_ms(os.getpid()) - busy) / rounds
    print(f"the director's processor time for a change: {each:.0f} ms")
    print(", ".join(f"{who} {sum(ms) / rounds:.0f} ms" for who, ms in parts.items()), "for a flip")
    await director.close()
    return whole, flips


def line(name: str, values: list[float]) -> str:
    values = sorted(values)
    p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
    return f"{name:28} p50 {statistics.median(values):7.1f} ms   p99 {p99:7.1f} ms   max {values[-1]:7.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--simulate", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.simulate is not None:
        return asyncio.run(simulate(options.simulate, options.nodes, options.share, options.full))
    with tempfile.TemporaryDirectory(prefix="ipshare-") as scratch:
        pki = Pki(Path(scratch))
        for name in names(options.nodes):
            pki.file("node", name)
        pki.file("director", "d1")
        command = [
            sys.executable,
            "-m",
            "perf.director",
            "--simulate",
            scratch,
            "--nodes",
            str(options.nodes),
        ]
        command += ["--full"] if options.full else []
        settings = os.environ | {"IPSHARE_TEST_HOSTS": str(os.getpid())}
        nodes = [
            subprocess.Popen(
                [*command, "--share", str(share)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=settings
            )
            for share in range(PROCESSES)
        ]
        try:
            for one in nodes:
                assert one.stdout is not None and one.stdout.readline() == b"ready\n"
            pids = [one.pid for one in nodes]
            whole, flips = asyncio.run(measure(Path(scratch), options.nodes, options.rounds, pids))
        finally:
            for one in nodes:
                one.kill()
                one.wait()
    how = "applied" if options.full else "kept"
    print(f"{options.nodes} nodes, {options.rounds} rounds, {how}; {machine.this().describe()}")
    print(line("flip, first to last", flips))
    print(line("change, make to break", whole))
    print(f"target: a flip acknowledged by all in {TARGET_MS:g} ms (p99)")
    return None


if __name__ == "__main__":
    main()
