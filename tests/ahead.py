"""Programs that tests only wait for, run side by side on all cores.

A parametrized test that starts one program and judges its end asks ``Ahead`` for the end: ``ahead[request]``.
The first to ask makes all begin that the chosen tests of its module will ask for, in their order. Only for
what watches no clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

import pytest

T = TypeVar("T")
AHEAD_S = 1200
"""Until one of them, or a test that waits for one, counts as hung: others may be built and run before it."""


class Ahead(Generic[T]):
    """``job`` has the parameters of the test ``test``; what it raises comes where it is asked for."""

    def __init__(
        self, pool: ThreadPoolExecutor, request: pytest.FixtureRequest, test: str, job: Callable[..., T]
    ):
        self._found: dict[str, Future[T]] = {
            item.nodeid: pool.submit(job, **item.callspec.params)
            for item in request.session.items
            if isinstance(item, pytest.Function) and item.path == request.path and item.originalname == test
        }

    def __getitem__(self, request: pytest.FixtureRequest) -> T:
        return self._found[request.node.nodeid].result()


@contextmanager
def ahead(request: pytest.FixtureRequest, test: str, job: Callable[..., T]) -> Iterator[Ahead[T]]:
    """For a fixture of the module. What has not begun at the end does not begin."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        yield Ahead(pool, request, test, job)
    finally:
        pool.shutdown(cancel_futures=True)
