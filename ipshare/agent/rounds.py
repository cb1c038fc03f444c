"""rounds: what keeps a job of the agent going that has rounds for as long as the agent lives."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from ipshare.errors import IpshareError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def going_on(what: str) -> Iterator[None]:
    """One round: what goes wrong ends this one alone."""
    try:
        yield
    except IpshareError:
        pass  # noted and audited where it happened
    except Exception:
        log.exception("%s failed; it is tried again", what)
