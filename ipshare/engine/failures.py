"""failures: how a data path in another process can fail its caller, whatever runs it.

Raised by both drivers (embedded, vpp), so that the agent and users catch one set of exceptions. Pure.
"""

from __future__ import annotations

from ipshare.errors import EngineError, NotRunning


class EngineGone(NotRunning):
    """No engine answers on the socket, or it went away during a request, whose outcome is unknown."""


class EngineRestarted(EngineGone):
    """Another engine process answers now: tables, copies and counters begin anew."""


class EngineSilent(EngineError):
    """The engine did not answer in time; the outcome of the request is unknown."""


class ImageRefused(EngineError):
    """A table image did not pass. ``load_error`` is an ``IPS_LOAD_*`` number; the first bad
    record is number ``index`` (from 0) of section ``section`` (0 header, 1 network ... 5 binding)."""

    load_error = 0
    section = 0
    index = 0
