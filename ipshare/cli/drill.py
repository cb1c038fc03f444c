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
    from ipshare.api import Node
    from ipshare.engine.pairing import PairState

AGAIN_S, READY_S, SETTLE_S = 0.05, 60.0, 5.0


@click.command("drill")
@click.option("--kill", is_flag=True, help="Kill this node's engine.")
@click.option("--pause", is_flag=True, help="Stop it for 1.5, 3, 10 dead times in turn.")
@click.option("--cut", "cuts", type=click.IntRange(0), multiple=True, help="Cut path N (from 1); 0: all.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=1, show_default=True, help="Of each fault.")
@click.option("--yes", is_flag=True, help="This node serves nobody who would mind.")
@config_option
@json_option
def drill(
    kill: bool,
    pause: bool,
    cuts: tuple[int, ...],
    rounds: int,
    yes: bool,
    file: Path | None,
    node_name: str | None,
    as_json: bool,
) -> None:
    """Make faults at this node, which has to be active, and measure how long the other takes to take over.

    A takeover is the peer's first announcement of the first VIP, heard here. Between rounds this node becomes
    active again by a switchover. Everything is undone at the end, also by Ctrl-C.
    """
    if not yes:
        raise output.UsageProblem("a drill interrupts what this node forwards", "say --yes")
    faults = [name for name, asked in (("kill", kill), ("pause", pause)) if asked]
    if not faults and not cuts:
        raise output.UsageProblem("which fault?", "name --kill, --pause or --cut N")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # undone as by Ctrl-C
    with node_of(file, node_name, quiet=as_json) as node:
        pair = (node.store.current() or node.config).pair
        if pair is None or not pair.vips:
            raise Refused(
                "a drill needs a pair with a VIP", hint="takeovers are seen by a VIP's announcement"
            )
        if wrong := [number for number in cuts if number > len(pair.paths)]:
            raise output.UsageProblem(f"there is no path {wrong[0]}", f"the pair has {len(pair.paths)}")
        wanted = [*faults, *(f"cut {number}" for number in cuts)]
        found: list[dict[str, Any]] = []
        for fault in wanted:
            for number in range(rounds):
                found.append(_round(node, pair, fault, number))
                if not as_json:
                    output.line(_words(found[-1]))
        summary = _summary(found)
        if as_json:
            output.emit({"rounds": found, **summary})
        else:
            for name, value in summary.items():
                output.line(f"{name:26} {value}")


def _ready(node: Node) -> PairState:
    """Active, with a standby that is heard on every path; made so by a switchover where it is the standby."""
    end = time.monotonic() + READY_S
    while True:
        with contextlib.suppress(IpshareError):
            state = node.pair()
            if state.state == "active" and state.peer_state == "standby":
                return state
            if state.state == "standby":
                node.pair_switchover()
        if time.monotonic() > end:
            raise Refused("this node did not become active again", hint="see `ipshare pair status`")
        time.sleep(AGAIN_S)


def _round(node: Node, pair: Any, fault: str, number: int) -> dict[str, Any]:
    from ipshare.pair.drill import Ear, cut, killed, paused

    state = node.pair() if number == 0 else _ready(node)
    heard = state.state == "active" and state.peer_state == "standby"
    if not heard or len(state.paths_up) < len(pair.paths):
        if number == 0 and state.state == "standby" and state.peer_state == "active":
            state = _ready(node)
        else:
            raise Refused(
                f"not ready: this node is {state.state}, {pair.peer} is {state.peer_state}, "
                f"{len(state.paths_up)} of {len(pair.paths)} paths are up",
                hint="see `ipshare pair status`",
            )
    pid, epoch, before = node.info().pid, state.epoch, _forwarded(node)
    longest = max(pair.dead_s * (1.5, 3.0, 10.0)[number % 3], pair.dead_s)
    grant_s = 1.2 * pair.witness.ttl_s if pair.witness is not None else 0.0
    paths = (
        pair.paths
        if fault == "cut 0"
        else pair.paths[int(fault[4:]) - 1 : int(fault[4:])]
        if " " in fault
        else ()
    )
    what = killed(pid) if fault == "kill" else paused(pid) if fault == "pause" else cut(paths)
    with Ear(pair.vips) as ear:
        ear.forget()
        began = time.monotonic()
        with what:
            wait_s = pair.dead_s + grant_s + SETTLE_S if fault == "kill" else longest + grant_s
            took = ear.wait(began + wait_s)
            at_takeover = _forwarded(node) if fault.startswith("cut") and took is not None else before
            if fault != "kill":
                time.sleep(max(0.0, began + longest - time.monotonic()))
        took = (
            took
            if took is not None
            else ear.wait(time.monotonic() + pair.dead_s)
            if fault == "pause"
            else took
        )
    after = _settled(node)
    same = after.state == "active" and after.epoch == epoch
    late = max(0, _forwarded(node) - at_takeover) if fault != "kill" and not same else 0
    return {
        "fault": fault,
        "takeover_s": None if took is None else took - began,
        "state": after.state,
        "epoch_before": epoch,
        "epoch": after.epoch,
        "late_packets": late,
    }


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
    """Packets that this engine has let pass."""
    with contextlib.suppress(IpshareError):
        return int(node.counters().raw.verdicts[0].sum())
    return 0


def _summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    from ipshare.pair.drill import percentile

    times = [one["takeover_s"] for one in found if one["takeover_s"] is not None]
    shown = {f"takeover_p{p}_s": round(percentile(times, p), 4) for p in (50, 99)} if times else {}
    return {
        "takeovers": len(times),
        **shown,
        **({"takeover_max_s": round(max(times), 4)} if times else {}),
        "late_packets": sum(one["late_packets"] for one in found),
    }


def _words(one: dict[str, Any]) -> str:
    took = one["takeover_s"]
    return f"{one['fault']:8} " + ("no takeover" if took is None else f"taken over after {took * 1e3:.1f} ms")
