"""A running lab: `with Lab(LabSpec(path="ipip")) as lab: lab.run("c1", ["ping", ...])`.

Entering builds the network (under two seconds), starts the relay where links are impaired, writes a
configuration for each data path node and starts each with the `start` function that was given. Leaving
removes everything exactly; after a SIGKILL `state.remove(prefix)` does. Several labs run side by side.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ipshare.agent.pair import make_key
from ipshare.lab import build, netns, relay_client, sites, state
from ipshare.lab.capture import Capture
from ipshare.lab.greet import greet
from ipshare.lab.impair import Impairment
from ipshare.lab.internet import LabSpec, internet, uplink_address
from ipshare.lab.topology import Node, Topology
from ipshare.model import Address

Result = TypeVar("Result")
Start = Callable[["Lab", str, Path], "subprocess.Popen[bytes] | None"]


class Lab:
    """See the module. start(lab, node, site.toml) starts a data path node and returns when it forwards; None:
    nodes are left bare. Its process is ended with the lab."""

    def __init__(self, spec: LabSpec | None = None, *, start: Start | None = None, target: str = "A") -> None:
        self.spec = spec or LabSpec()
        self.topology: Topology = internet(self.spec)
        self.prefix = state.new_prefix()
        self.directory = state.directory(self.prefix)
        self._start, self._target = start, target
        self._processes: list[subprocess.Popen[Any]] = []

    # -- life ----------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def _up(self) -> None:
        relayed = build.relay_devices(self.topology.links)
        names = [*self.topology.nodes, *([build.RELAY] if relayed else [])]
        state.write(self.prefix, [self.namespace(name) for name in names])
        build.build(self.prefix, self.topology)
        if relayed:
            self._start_relay(relayed)
        if self.spec.channel:
            make_key(self.directory / sites.KEY)
        for node in self.data_path():
            self.write_site(node.name, target=self._target)
        if self._start is not None:
            self._start_nodes(self._start)
            if self.spec.engine == "vpp":
                greet(self)

    def _start_nodes(self, start: Start) -> None:
        """All at once; the first that fails is raised when the others have started or failed as well."""
        with ThreadPoolExecutor() as pool:
            waiting = [
                pool.submit(start, self, node.name, self.site_file(node.name)) for node in self.data_path()
            ]
        failed = [error for each in waiting if (error := each.exception()) is not None]
        started = [each.result() for each in waiting if each.exception() is None]
        self._processes += [process for process in started if process is not None]
        if failed:
            raise failed[0]

    def _start_relay(self, relayed: dict[str, tuple[str, str]]) -> None:
        links = {
            name: (*devices, asdict(self.topology.link(name).impair or Impairment()))
            for name, devices in relayed.items()
        }
        command = [sys.executable, "-m", "ipshare.lab.relay", str(self._control), json.dumps(links)]
        process = self.popen(build.RELAY, command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise netns.LabError("the relay did not start", hint=f"run it by hand: {' '.join(command)}")

    def down(self) -> None:
        """Ends the processes of the lab and removes all it made; no error if it is down already."""
        for process in self._processes:
            process.terminate()
        for process in list(self._processes):
            self.end(process)
        state.remove(self.prefix)

    def end(self, process: subprocess.Popen[Any], timeout_s: float = 5) -> int:
        """Ends a process of the lab, by force after timeout_s. Returns its status."""
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        if process in self._processes:
            self._processes.remove(process)
        return process.returncode

    # -- nodes ---------------------------------------------------------------

    def node(self, name: str) -> Node:
        """The node's description. Raises KeyError."""
        return self.topology.nodes[name]

    def data_path(self) -> list[Node]:
        """Distribution and end points."""
        return [n for n in self.topology.nodes.values() if {"distribution", "endpoint"} & set(n.roles)]

    def namespace(self, node: str) -> str:
        """Its name for `ip netns`."""
        return f"{self.prefix}-{node}"

    def address(self, node: str, family: int) -> Address:
        """The node's own address towards the Internet (clients, C, D, A, B)."""
        return uplink_address(self.spec, node, family)

    def inside(self, node: str, function: Callable[[], Result]) -> Result:
        """Calls a function of this process in the node's namespace: sockets that it makes belong there."""
        return netns.inside(self.namespace(node), function)

    def command(self, node: str, arguments: Sequence[str]) -> list[str]:
        """The command line that runs `arguments` in the node; no process stays between."""
        return ["nsenter", f"--net={netns.NETNS_DIR / self.namespace(node)}", "--", *arguments]

    def popen(self, node: str, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a command in the node; ended with the lab. options: those of subprocess.Popen."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("env", os.environ | {"PYTHONPATH": _search_path()})
        process = subprocess.Popen(self.command(node, arguments), **options)
        self._processes.append(process)
        return process

    def run(self, node: str, arguments: Sequence[str], *, timeout_s: float = 60, check: bool = True) -> str:
        """Runs a command in the node to its end and returns what it printed. Raises CalledProcessError."""
        environment = os.environ | {"PYTHONPATH": _search_path()}
        done = subprocess.run(
            self.command(node, arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            check=False,
        )
        if check and done.returncode:
            raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
        return done.stdout

    @contextlib.contextmanager
    def capture(self, node: str, device: str, file: Path | None = None) -> Iterator[Capture]:
        """Frames of a device, both directions, while the block runs; then to a pcapng file if given."""
        capture = self.inside(node, partial(Capture, device))
        try:
            yield capture
        finally:
            capture.stop()
            if file is not None:
                capture.save(file)

    # -- configuration and faults ------------------------------------------------

    def site_file(self, node: str) -> Path:
        """The node's configuration."""
        return self.directory / node / "site.toml"

    def write_site(self, node: str, *, target: str) -> Path:
        """(Re)writes it, with the Global Networks at end point `target`; the caller tells the agent."""
        self._target = target
        path = self.site_file(node)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(sites.site_toml(self.spec, node, self.directory / node, target=target))
        temporary.rename(path)
        return path

    def set_mtu(self, link: str, mtu: int) -> None:
        """Changes a link's MTU (bytes) at both ends, and that of a bridge it is a port of. What is VPP's is
        changed by the node's agent, which must run. Raises KeyError."""
        changed = self.topology.link(link)
        others = {name: size for name, size in self.spec.mtu.items() if self.topology.link(name) != changed}
        self.spec = replace(self.spec, mtu=others | {changed.name: mtu})
        self.topology = internet(self.spec)
        for name, device in ((changed.a, changed.b), (changed.b, changed.a)):
            node = self.node(name)
            bridges = [bridge.device for bridge in node.bridges if device in bridge.ports]
            self.inside(name, partial(build.set_mtu, [device, *bridges], mtu))
            if node.vpp is not None:
                from ipshare.api import Node as AgentOf

                with AgentOf(self.write_site(name, target=self._target)) as agent:
                    agent.apply()

    @property
    def _control(self) -> Path:
        return self.directory / "relay.sock"

    def impair(self, link: str, **settings: Any) -> dict[str, Any]:
        """Changes what the relay does on a link (fields of Impairment; none: just asks). Returns settings and
        counts. The link must have an `impair` in the LabSpec, a clean Impairment() for instance."""
        return relay_client.ask(self._control, self.topology.link(link).name, **settings)


def _search_path() -> str:
    """The package as this process sees it, for the children."""
    return os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
