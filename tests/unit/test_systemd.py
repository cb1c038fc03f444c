"""The service unit: systemd takes every line of it, and what it starts can be typed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from ipshare.cli.app import cli

UNIT = Path(__file__).parents[2] / "appliance/systemd/ipshare-agent@.service"
DIRECTOR = UNIT.with_name("ipshare-director.service")
WITNESSES = [UNIT.with_name(name) for name in ("ipshare-witness@.service", "ipshare-witness-etcd@.service")]
TYPES_OF_252 = {"simple", "exec", "forking", "oneshot", "dbus", "notify", "idle"}
"""systemd.service(5) of Debian 12."""


def setting(name: str, unit: Path = UNIT) -> str:
    found = re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)
    assert len(found) == 1, name
    return str(found[0])


def test_readiness_and_reload_work_with_debian_12() -> None:
    assert setting("Type") in TYPES_OF_252
    assert setting("Type") == "notify", "the agent says READY=1"
    assert setting("ExecReload").endswith("-HUP $MAINPID")


def test_a_node_that_was_taken_down_stays_down() -> None:
    """The agent ends with 0 then (tests/lab/test_agent_node.py); every other end is a failure."""
    assert setting("Restart") == "on-failure"
    assert setting("KillMode") == "process", "the engine survives its agent"


def test_bird_may_listen_on_its_port() -> None:
    """And inherits what it needs besides: TCP MD5, BFD by interface."""
    needed = {"CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN", "CAP_NET_RAW"}
    assert needed <= set(setting("CapabilityBoundingSet").split())


@pytest.mark.parametrize("unit", [UNIT, DIRECTOR, *WITNESSES], ids=lambda unit: unit.name)
def test_the_command_can_be_typed(unit: Path) -> None:
    program, *words = setting("ExecStart", unit).split()
    command: click.Command = cli
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None
        command = found
    options = {name for parameter in command.params for name in parameter.opts}
    assert Path(program).name == "ipshare"
    assert {word for word in words if word.startswith("-")} <= options


def test_a_witness_is_always_there() -> None:
    assert {setting("Restart", unit) for unit in (*WITNESSES, DIRECTOR)} == {"always"}
    assert {setting("Type", unit) for unit in (*WITNESSES, DIRECTOR)} == {"notify"}


@pytest.mark.parametrize("unit", [UNIT, DIRECTOR, *WITNESSES], ids=lambda unit: unit.name)
def test_systemd_takes_every_line(tmp_path: Path, unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("UNIT NOT VERIFIED: no systemd-analyze (Debian: systemd)")
    copy = tmp_path / unit.name.replace("@", "@site")
    copy.write_text(unit.read_text().replace("/usr/bin/ipshare", "/bin/true"))  # which is there everywhere
    done = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=60, check=False
    )
    ours = [line for line in done.stderr.splitlines() if copy.name in line]
    assert (done.returncode, ours) == (0, [])
