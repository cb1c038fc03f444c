"""A real etcd on loopback for tests, and what can go wrong between it and a director: requests that get lost,
answers that get lost, requests that arrive late."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ipshare.director.etcd import Etcd, Unheard
from ipshare.director.seat import Seat
from ipshare.director.store_etcd import EtcdStore

START_S = 60.0
Inside = Callable[[Callable[[], bool]], bool]


class EtcdServer:
    """One member, at ``address``. In a namespace of a lab with ``prefix``, a command that runs another there,
    and ``inside``, which runs a function there."""

    def __init__(
        self,
        address: str,
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
        inside: Inside | None = None,
    ) -> None:
        program = shutil.which("etcd")
        if program is None:
            pytest.skip("ETCD NOT TESTED: there is no etcd (Debian: etcd-server)")
        memory = Path("/dev/shm")
        self._scratch = tempfile.mkdtemp(prefix="ipshare-etcd-", dir=memory if memory.is_dir() else None)
        self.url = f"{'https' if options else 'http'}://{address}:2379"
        self._inside: Inside = inside or (lambda job: job())
        self._words = [
            *prefix, program, "--data-dir", f"{self._scratch}/data", "--logger", "zap",
            "--log-outputs", f"{self._scratch}/log", "--listen-client-urls", self.url,
            "--advertise-client-urls", self.url, "--listen-peer-urls", f"http://{address}:2380",
            "--initial-advertise-peer-urls", f"http://{address}:2380",
            "--initial-cluster", f"default=http://{address}:2380",
            "--listen-metrics-urls", f"http://{address}:2381", *options,
        ]  # fmt: skip
        self._health = f"http://{address}:2381/health"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> EtcdServer:
        where = os.environ | {"ETCD_UNSUPPORTED_ARCH": "arm64"}
        self.process = subprocess.Popen(self._words, env=where)
        end = time.monotonic() + START_S
        while not self._is_healthy():
            assert self.process.poll() is None and time.monotonic() < end, Path(
                self._scratch, "log"
            ).read_text()
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end(self) -> None:
        self.kill()
        shutil.rmtree(self._scratch)

    def _is_healthy(self) -> bool:
        def ask() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(self._health, timeout=5) as reply:
                return b"true" in reply.read()
            return False

        return self._inside(ask)


class Dead(Exception):
    """The process that asked is killed."""


class Faulty(Etcd):
    """At request ``at`` something goes wrong: it gets ``lost``, its ``answer`` does, or it comes ``late``: at
    ``arrive``. With ``dies`` nothing is asked after that."""

    def __init__(self, url: str, at: int = -1, fault: str = "lost", dies: bool = False) -> None:
        super().__init__([url], 10.0)
        self.asked, self._at, self._fault, self._dies = 0, at, fault, dies
        self._late: list[tuple[str, dict[str, Any]]] = []

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        if self.asked - 1 != self._at:
            if self._dies and self.asked > self._at >= 0:
                raise Dead
            return super()._post(path, body)
        if self._fault == "answer":
            super()._post(path, body)
        elif self._fault == "late":
            self._late.append((path, body))
        if self._dies:
            raise Dead
        raise Unheard("etcd does not answer: by the test's will")

    def arrive(self) -> None:
        for path, body in self._late:
            super()._post(path, body)

    def before(self, number: int, action: Callable[[], object]) -> None:
        """It is done before that request."""
        post = super()._post

        def counted(path: str, body: dict[str, Any]) -> dict[str, Any]:
            self.asked += 1
            if self.asked - 1 == number:
                action()
            return post(path, body)

        self._post = counted  # type: ignore[method-assign]


class Successor:
    """A director's process with a store below ``prefix``, as the one that leads: it takes the seat from
    whoever has it. ``etcd``: its connection."""

    def __init__(self, etcd: Etcd, prefix: str, chunk: int = 64) -> None:
        self.etcd = etcd
        self.seat = Seat(etcd, prefix, "d1", 60.0)
        etcd.transact([], [{"request_delete_range": {"key": _b64(f"{prefix}/leader")}}])
        assert self.seat.hold().until
        self.store = EtcdStore(etcd, prefix, self.seat.mark, chunk)


def _b64(text: str) -> str:
    from base64 import b64encode

    return b64encode(text.encode()).decode()
