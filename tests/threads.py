"""Which thread something is done in: what takes long must not be done in that of the event loop."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest


def loop_thread(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[bool]:
    """For each call of that function of ``module`` from now on: whether it was in the thread of the test."""
    seen: list[bool] = []
    real = getattr(module, name)

    def watched(*words: Any, **more: Any) -> Any:
        seen.append(threading.current_thread() is threading.main_thread())
        return real(*words, **more)

    monkeypatch.setattr(module, name, watched)
    return seen
