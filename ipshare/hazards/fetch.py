"""The door to HTTP: one URL -> Answer, never an exception, within a time and a size.

The body is read as it comes and unpacked under a limit, and the whole takes a bounded time, so that neither a
slow, an endless nor a compressed answer takes more than its share. Redirects are not followed: a feed is
where its operator says it is.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from urllib.parse import urlsplit

import httpx2

from ipshare import __version__
from ipshare.hazards.feeds import Answer
from ipshare.hazards.reading import MOST_BYTES

ACCEPT = {
    "nws": "application/geo+json",
    "usgs": "application/geo+json, application/json",
    "cap": "application/cap+xml, application/atom+xml, application/xml",
}


class Fetcher:
    """Asks for documents, within one event loop. A wait of `timeout_s` is too long, and 3 times that for all.

    `contact` stands in User-Agent: the weather service wants to know whom to write.
    """

    def __init__(self, contact: str = "", timeout_s: float = 10.0) -> None:
        agent = f"ipshare/{__version__}" + (f" ({contact})" if contact else "")
        headers = {"User-Agent": agent, "Accept-Encoding": "gzip"}
        self._timeout_s = timeout_s
        self._client = httpx2.AsyncClient(headers=headers, timeout=timeout_s, follow_redirects=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, url: str, kind: str, etag: str = "", modified: str = "") -> Answer:
        """The document if it differs from the one that `etag` and `modified` came with."""
        headers = {"Accept": ACCEPT[kind]}
        if etag:
            headers["If-None-Match"] = etag
        if modified:
            headers["If-Modified-Since"] = modified
        try:
            async with (
                asyncio.timeout(3 * self._timeout_s),
                self._client.stream("GET", url, headers=headers) as response,
            ):
                return await self._answer(response)
        except (httpx2.TimeoutException, TimeoutError):
            return Answer(error=f"no answer in time from {urlsplit(url).hostname}")
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, zlib.error, OSError) as error:
            return Answer(error=f"{type(error).__name__}: {error}"[:200])

    async def _answer(self, response: httpx2.Response) -> Answer:
        wish = response.headers.get("Retry-After", "")
        retry_s = float(wish) if re.fullmatch("[0-9]{1,6}", wish) else 0.0
        if response.status_code == 304:
            return Answer()
        if response.status_code != 200:
            return Answer(error=f"HTTP {response.status_code}", retry_after_s=retry_s)
        packing = response.headers.get("Content-Encoding", "identity").lower()
        if packing not in ("identity", "gzip"):
            return Answer(error=f"packed as {packing}"[:60])
        unpack = zlib.decompressobj(31) if packing == "gzip" else None
        body = bytearray()
        async for some in response.aiter_raw():
            body += some if unpack is None else unpack.decompress(some, MOST_BYTES + 1 - len(body))
            if len(body) > MOST_BYTES:
                return Answer(error="too long")
            if unpack is not None and unpack.eof:  # what follows would be kept, whatever its length
                break
        if unpack is not None and not unpack.eof:
            return Answer(error="cut off")
        tag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
        return Answer(bytes(body), tag[:200], modified[:100])
