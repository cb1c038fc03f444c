"""config_http: [http] of a director's file: where its HTTP API and web page listen (docs/web.md).

Over TLS, with the director's certificate or one that browsers know, or plain on this machine alone: a token
that crosses a network in the clear is everybody's. Who may do what is in a file of tokens, which
`ipshare token` writes, and in certificates of the installation's authority.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ipshare.config.some import Finding
from ipshare.config.values import PathEnd, Table

TOKENS = "/etc/ipshare/tokens.json"


class Http(Table):
    """The HTTP API and the web page ([web.md](web.md)). Without this table there is none."""

    listen: PathEnd = Field(description="Address and port.")
    plain: bool = Field(
        default=False, description="HTTP without TLS. Only on an address of this machine itself (127.0.0.1)."
    )
    certificate: str | None = Field(
        default=None, min_length=1,
        description="Private key and certificate chain that browsers know, mode 0600. Default: the "
        "director's own.",
    )  # fmt: skip
    tokens: str = Field(default=TOKENS, min_length=1, description="What `ipshare token` writes, mode 0600.")


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """``certificate``: None: plain."""

    host: str
    port: int
    certificate: Path | None
    tokens: Path


def findings(table: Http) -> Iterator[Finding]:
    if table._broken:
        return
    address, _ = table.listen
    if table.plain and not address.is_loopback:
        text = f"plain HTTP on {address}: whoever listens on the way has the tokens"
        yield ("http", "plain"), text, "take `plain` away, or listen on 127.0.0.1 or ::1"
    if table.plain and table.certificate is not None:
        yield ("http", "certificate"), "plain HTTP shows no certificate", "take one of the two away"


def made(table: Http, folder: Path, own: Path) -> HttpSettings:
    """``folder``: of the file; ``own``: the director's certificate."""
    address, port = table.listen
    certificate = folder / table.certificate if table.certificate is not None else own
    return HttpSettings(str(address), port, None if table.plain else certificate, folder / table.tokens)
