"""A VPP of our own that does not come up: nothing of it is left, whoever gave up waiting. Without VPP."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from ipshare.engine.vpp import Settings, launch
from ipshare.errors import EngineError


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Says its number to a pipe, and does nothing more."""
    os.mkfifo(tmp_path / "pid")
    made = tmp_path / "vpp"
    made.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
    made.chmod(0o755)
    return made


def ends(pid: int) -> bool:
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], 60)[0])
    finally:
        os.close(watched)


@pytest.mark.parametrize("why", [KeyboardInterrupt(), SystemExit(1), OSError("no more descriptors")])
def test_who_is_interrupted_leaves_no_vpp(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: BaseException
) -> None:
    pids: list[int] = []

    def interrupted(*_: object) -> bool:
        pids.append(int((tmp_path / "pid").read_text()))
        raise why

    monkeypatch.setattr(launch, "_wait_ready", interrupted)
    directory = tmp_path / "d"
    directory.mkdir()
    with pytest.raises(type(why)):
        launch.start(Settings(directory, binary=program), needs_plugin=False)
    assert ends(pids[0])
    assert {file.name for file in directory.iterdir()} == {"startup.conf", "vpp.log"}


def test_one_that_does_not_become_ready(program: Path, tmp_path: Path) -> None:
    reader = os.open(tmp_path / "pid", os.O_RDWR)  # nobody reads the number: it must not wait for us
    try:
        with pytest.raises(EngineError, match="did not become ready in time"):
            launch.start(Settings(tmp_path, binary=program), needs_plugin=False, timeout_s=0.3)
        (pid,) = os.read(reader, 100).split()
        assert ends(int(pid))
    finally:
        os.close(reader)


def test_a_directory_too_deep_for_sockets(program: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    with pytest.raises(EngineError, match=r"too long for a socket") as refused:
        launch.start(Settings(deep, binary=program), needs_plugin=False)
    assert refused.value.hint == "use a shorter directory"
    assert not list(deep.iterdir())
