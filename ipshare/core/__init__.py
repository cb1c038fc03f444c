"""The door to the C core: the one place that imports the cffi module.

Constants, record layouts and texts come out of ``native/ips_api.h`` and
``native/ips_verdict.def`` at import time; nothing is listed here a second time.
Arrays cross as NumPy buffers (``ffi.from_buffer``), so no record becomes a
Python object on the way.
"""

from __future__ import annotations

from ipshare.core._native import ffi, lib
from ipshare.core.layout import dtype, text
from ipshare.core.verdicts import VERDICTS, Verdict
from ipshare.core.worker import LoadError, Outcome, Worker

__all__ = ["VERDICTS", "LoadError", "Outcome", "Verdict", "Worker", "dtype", "ffi", "lib", "text"]
