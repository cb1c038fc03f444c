"""An engine that answers nothing is found by the socket that it listens on, and ended."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.agent import ending

LISTEN = """
import signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == "stubborn" else signal.SIG_DFL)
at = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
at.bind(sys.argv[1]); at.listen(0); print("ready", flush=True); signal.pause()
"""
PROGRAM = Path(sys.executable).resolve().name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sock"


@pytest.fixture(params=["stubborn", "obedient"])
def listener(path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", LISTEN, str(path), request.param]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as made:
        assert made.stdout is not None
        made.stdout.readline()
        yield made
        made.kill()


def test_who_listens_and_answers_nothing_is_found_and_ended(
    path: Path, listener: subprocess.Popen[str], request: pytest.FixtureRequest
) -> None:
    listener.send_signal(signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as one:
        one.connect(str(path))  # it takes no more than that
        assert ending.silent(path, "vpp") is None, "not that program"
        assert ending.silent(path, PROGRAM) == listener.pid
    listener.send_signal(signal.SIGCONT)
    said = ending.end(listener.pid, "engine", ending.terminate, 1.0)
    stubborn = "stubborn" in request.node.name
    assert said == (f"engine {listener.pid} did not end in 1 s: killed" if stubborn else "engine ended")
    assert ending.silent(path, PROGRAM) is None
    assert ending.end(listener.pid, "engine", ending.terminate, 1.0) == "engine ended", "it is gone already"
