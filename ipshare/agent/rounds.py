"""rounds: what keeps a job of the agent going that has rounds for as long as the agent lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator

from ipshare.errors import IpshareError

log = logging.getLogger(__name__)
AGAIN_S = 1.0
"""Pause after a job that ended by a mistake."""


@contextlib.contextmanager
def going_on(what: str) -> Iterator[None]:
    """One round: what goes wrong ends this one alone."""
    try:
        yield
    except IpshareError:
        pass  # noted and audited where it happened
    except Exception:
        log.exception("%s failed; it is tried again", what)


async def for_ever(job: Callable[[], Awaitable[None]]) -> None:
    """A job that is there for as long as the agent is: where a mistake ends it, it begins again."""
    while True:
        try:
            return await job()
        except IpshareError as error:
            log.error("%s ended, and begins again: %s", job.__qualname__, error.message)
        except Exception:
            log.exception("%s ended, and begins again", job.__qualname__)
        await asyncio.sleep(AGAIN_S)
