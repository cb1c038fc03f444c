"""drill: `ipshare pair drill`: the active engine is killed, stopped, or cut off; what came of it."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import output
from ipshare.cli.options import config_option, json_option, node_of
from ipshare.errors import EngineError, IpshareError, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipshare.api import Node
    from ipshare.engine.pairing import PairState
    from ipshare.model import Config

AGAIN_S, READY_S, SETTLE_S, LOOK_S = 0.05, 60.0, 5.0, 0.02


@click.command("drill")
@click.option("--kill", is_flag=True, help="Kill this node's engine.")
@click.option("--pause", is_flag=True, help="Stop it for 1.5, 3, 10 dead times in turn.")
@click.option("--cut", "cuts", type=click.IntRange(0), multiple=True, help="Cut path N (from 1); 0: all.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=1, show_default=True, help="Of each fault.")
@click.option("--watch", is_flag=True, help="At the other node: count there until Ctrl-C; makes no faults.")
@click.option("--yes", is_flag=True, help="This node serves nobody who would mind.")
@config_option
@json_option
def drill(
    kill: bool,
    pause: bool,
    cuts: tuple[int, ...],
    rounds: int,
    watch: bool,
    yes: bool,
    file: Path | None,
    node_name: str | None,
    as_json: bool,
) -> None:
    """Make faults at this node, which has to be active: how long the other takes to take over, and what is
    forwarded without the highest epoch, here and, with --watch meanwhile, at the other node.

    A takeover is the peer's first announcement of the first VIP, heard here. Between rounds this node becomes
    active again by a switchover. Everything is undone at the end, also by Ctrl-C.
    """
    faults = [name for name, asked in (("kill", kill), ("pause", pause)) if asked]
    if watch and (faults or cuts):
        raise output.UsageProblem("--watch makes no faults", "the drill itself runs at the active node")
    if not watch and not faults and not cuts:
        raise output.UsageProblem(
            "which fault?", "name --kill, --pause or --cut N, or --watch at the other node"
        )
    if not watch and not yes:
        raise output.UsageProblem("a drill interrupts what this node forwards", "say --yes")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # undone as by Ctrl-C
    with node_of(file, node_name, quiet=as_json) as node:
        config = node.store.current() or node.config
        pair = config.pair
        if pair is None or not pair.vips:
            raise Refused(
                "a drill needs a pair with a VIP", hint="takeovers are seen by a VIP's announcement"
            )
        if wrong := [number for number in cuts if number > len(pair.paths)]:
            raise output.UsageProblem(
                f"there is no path {wrong[0]}", f"the pair has {len(pair.paths)}; 0: all"
            )
        device = _device(config)
        if watch:
            return _watch(node, pair, device, as_json)
        wanted = [*faults, *(f"cut {number}" for number in cuts)]
        found: list[dict[str, Any]] = []
        for fault in wanted:
            for number in range(rounds):
                state = _ready(node, pair) if found else _first(node, pair)
                found.append(_round(node, pair, device, state, fault, number))
                if not as_json:
                    output.line(_words(found[-1]))
        summary = _summary(found)
        if as_json:
            output.emit({"rounds": found, **summary})
        else:
            for name, value in summary.items():
                output.line(f"{name:26} {value}")
    return None


def _device(config: Config) -> str:
    """The Linux device below the first VIP's interface, where VPP has it; "": the interface itself."""
    if config.pair is None or config.vpp is None:
        return ""
    name = config.pair.vips[0].interface
    return next((port.host or "" for port in config.vpp.interfaces if port.name == name), "")


def _watch(node: Node, pair: Any, device: str, as_json: bool) -> None:
    """Until Ctrl-C or SIGTERM: what this node forwards without the highest epoch."""
    from ipshare.pair.drill import Ear, Tally

    tally = Tally()
    with Ear(pair.vips, device) as ear, contextlib.suppress(KeyboardInterrupt):
        click.echo("watching; end with Ctrl-C", err=True)
        while True:
            heard = ear.wait(time.monotonic() + LOOK_S) is not None
            with contextlib.suppress(IpshareError):
                run, state = node.info().boot_id, node.pair()
                forwarded, again = _forwarded(node), node.pair()
                if again.since_ns == state.since_ns and node.info().boot_id == run:
                    tally.look(run, state.state == "active", forwarded, heard, state.since_ns)
    found = {"reigns": tally.reigns, "both_packets": tally.both, "late_packets": tally.late}
    if as_json:
        output.emit(found)
    else:
        for name, value in found.items():
            output.line(f"{name:26} {value}")


def _ready(node: Node, pair: Any) -> PairState:
    """Active, with a standby that is heard on every path; made so by a switchover where it is the standby."""
    end = time.monotonic() + READY_S
    while True:
        with contextlib.suppress(IpshareError):
            state = node.pair()
            if _is_ready(state, pair):
                return state
            if state.state == "standby":
                node.pair_switchover()
        if time.monotonic() > end:
            raise Refused(
                "this node did not become active again, with every path up",
                hint="see `ipshare pair status`",
            )
        time.sleep(AGAIN_S)


def _is_ready(state: PairState, pair: Any) -> bool:
    is_heard = state.state == "active" and state.peer_state == "standby"
    return is_heard and len(state.paths_up) == len(pair.paths)


def _first(node: Node, pair: Any) -> PairState:
    """Before the first fault: what is not ready by itself is refused, but for the roles."""
    state = node.pair()
    if _is_ready(state, pair):
        return state
    if state.state == "standby" and state.peer_state == "active":
        return _ready(node, pair)
    raise Refused(
        f"not ready: this node is {state.state}, {pair.peer} is {state.peer_state}, "
        f"{len(state.paths_up)} of {len(pair.paths)} paths are up",
        hint="see `ipshare pair status`",
    )


def _round(node: Node, pair: Any, device: str, state: PairState, fault: str, number: int) -> dict[str, Any]:
    """``number``: of the rounds of this fault."""
    from ipshare.pair.drill import Ear, cut, killed, paused

    pid, epoch = node.info().pid, state.epoch
    longest = max(pair.dead_s * (1.5, 3.0, 10.0)[number % 3], pair.dead_s)
    grant_s = 1.2 * pair.witness.ttl_s if pair.witness is not None else 0.0
    number = int(fault[4:]) if fault.startswith("cut") else 0
    paths = pair.paths[number - 1 : number] if number else pair.paths
    meter, is_idle = _in_memory(node)
    what = killed(pid) if fault == "kill" else paused(pid, is_idle) if fault == "pause" else cut(paths)
    with Ear(pair.vips, device) as ear:
        ear.forget()
        began, at = time.monotonic(), _forwarded(node)
        with what:
            if fault == "pause":
                at = meter()
            wait_s = pair.dead_s + grant_s + SETTLE_S if fault == "kill" else longest + grant_s
            took = ear.wait(began + wait_s)
            if fault.startswith("cut") and took is not None:
                at = _forwarded(node)
            if fault != "kill":
                time.sleep(max(0.0, began + longest - time.monotonic()))
        if took is None and fault == "pause":
            took = ear.wait(time.monotonic() + pair.dead_s)
    both = 0
    if fault.startswith("cut") and took is not None:  # until it hears of the higher epoch
        both, at = _until_heard(node, at)
    after = _settled(node)
    is_over = after.state != "active"  # else it has begun another reign, and may forward
    if node.info().pid != pid:  # this engine was active never
        late = _forwarded(node)
    else:
        late = (meter() if fault == "pause" else _forwarded(node)) - at
    return {
        "fault": fault,
        "takeover_s": None if took is None else took - began,
        "state": after.state,
        "epoch_before": epoch,
        "epoch": after.epoch,
        "both_packets": both,
        "late_packets": max(0, late) if is_over else 0,
    }


def _until_heard(node: Node, at: int) -> tuple[int, int]:
    """What this node forwarded after ``at`` packets until it was active no more; and all until then."""
    end, now = time.monotonic() + READY_S, at
    while time.monotonic() < end:
        with contextlib.suppress(IpshareError):
            is_active, now = node.pair().state == "active", _forwarded(node)
            if not is_active:
                break
    return now - at, now


def _settled(node: Node) -> PairState:
    """When one of the two is active, and the other standby."""
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with contextlib.suppress(IpshareError):
            state = node.pair()
            if {state.state, state.peer_state} == {"active", "standby"}:
                return state
        time.sleep(AGAIN_S)
    raise EngineError("the pair did not settle after the fault", hint="see `ipshare pair status`")


def _forwarded(node: Node) -> int:
    """Packets that this engine has let pass, in either direction; 0: it cannot be asked."""
    with contextlib.suppress(IpshareError):
        return _passed(node.engine.counters().verdicts)
    return 0


def _in_memory(node: Node) -> tuple[Callable[[], int], Callable[[], bool]]:
    """The same from the memory that this engine counts in: also of one that is stopped. And whether all its
    packet threads wait for packets; of a VPP nobody can tell."""
    from ipshare.engine.embedded import EmbeddedEngine
    from ipshare.engine.vpp import VppEngine
    from ipshare.engine.vpp.engine import CELLS

    engine = node.engine
    if isinstance(engine, VppEngine):
        segment = engine.segment()
        return (lambda: int(segment.combined(CELLS)[0].sum())), lambda: True
    if isinstance(engine, EmbeddedEngine):
        region = engine.control.counters()
        return (lambda: _passed(region.verdicts())), lambda: all(one["asleep"] for one in region.workers)
    return (lambda: _forwarded(node)), lambda: True


def _passed(verdicts: Any) -> int:
    from ipshare.core import VERDICTS

    return int(sum(verdicts[:, one.number].sum() for one in VERDICTS if one.disposition == "send"))


def _summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    from ipshare.pair.drill import percentile

    times = [one["takeover_s"] for one in found if one["takeover_s"] is not None]
    shown = {f"takeover_p{p}_s": round(percentile(times, p), 4) for p in (50, 99)} if times else {}
    return {
        "takeovers": len(times),
        **shown,
        **({"takeover_max_s": round(max(times), 4)} if times else {}),
        "both_packets": sum(one["both_packets"] for one in found),
        "late_packets": sum(one["late_packets"] for one in found),
    }


def _words(one: dict[str, Any]) -> str:
    took = one["takeover_s"]
    text = "no takeover" if took is None else f"taken over after {took * 1e3:.1f} ms"
    both = f", {one['both_packets']} packets passed by both" if one["both_packets"] else ""
    return f"{one['fault']:8} {text}{both}, {one['late_packets']} late"
