"""The embedded engine: ``ipshare-engine`` seen from Python.

``launch.start`` begins a process, ``EmbeddedEngine`` is the data path that the agent
uses, ``Control`` (``AsyncControl``) every operation of its control socket. The process itself:
``native/engine/``.
"""

from __future__ import annotations

from ipshare.engine.capture import TapRule, TapState, ToCollector, ToFile, ToInterface
from ipshare.engine.embedded.aio import AsyncControl
from ipshare.engine.embedded.control import Control, Hello, Why
from ipshare.engine.embedded.counters import Region
from ipshare.engine.embedded.engine import EmbeddedEngine
from ipshare.engine.embedded.wire import ControlError, ImageRefused
from ipshare.engine.failures import EngineGone, EngineRestarted, EngineSilent

__all__ = [
    "AsyncControl",
    "Control",
    "ControlError",
    "EmbeddedEngine",
    "EngineGone",
    "EngineRestarted",
    "EngineSilent",
    "Hello",
    "ImageRefused",
    "Region",
    "TapRule",
    "TapState",
    "ToCollector",
    "ToFile",
    "ToInterface",
    "Why",
]
