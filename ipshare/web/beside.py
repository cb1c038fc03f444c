"""beside: the HTTP server in a director's process, where its file has [http]; nothing where it has not.

Only then are the libraries wanted that it needs (`pip install 'ipshare[web]'`).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from ipshare.director.daemon import Director
from ipshare.director.desk import Desk
from ipshare.errors import IpshareError


@contextlib.asynccontextmanager
async def beside(director: Director, desk: Desk) -> AsyncIterator[None]:
    """Serves inside the block. Raises IpshareError where it cannot listen, or a library is missing."""
    settings = director.settings.http
    if settings is None:
        yield
        return
    try:
        from ipshare.web.server import WebServer
    except ModuleNotFoundError as error:
        hint = "pip install 'ipshare[web]', or take [http] out of the file"
        raise IpshareError(f"[http] needs the library {error.name}", hint=hint) from None
    server = WebServer(director, desk, settings)
    await server.start()
    try:
        yield
    finally:
        await server.stop()
