"""An agent that is started for somebody who gives up waiting: it does not stay behind."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from ipshare.agent import spawn as spawning


@pytest.mark.parametrize("why", [KeyboardInterrupt(), SystemExit(1)])
def test_who_is_interrupted_leaves_no_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: BaseException
) -> None:
    handles: list[int] = []

    def interrupted(_: object, pidfd: int, *__: object) -> bool:
        handles.append(os.dup(pidfd))
        raise why

    monkeypatch.setattr(spawning, "_wait_ready", interrupted)
    with pytest.raises(type(why)):
        spawning.spawn(tmp_path / "site.toml", prefix=("sh", "-c", "exec sleep 1000"), log=tmp_path / "log")
    (handle,) = handles
    try:
        assert select.select([handle], [], [], 60)[0]
    finally:
        if not select.select([handle], [], [], 0)[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
