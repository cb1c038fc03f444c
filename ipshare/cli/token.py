"""token: who may use a director's HTTP API and web page: add, list, revoke."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from ipshare.cli import output
from ipshare.cli.options import FILE, json_option

DEFAULT = Path("/etc/ipshare/tokens.json")
ROLES = ("viewer", "operator", "admin")

file_option = click.option(
    "--file", "file", type=FILE, envvar="IPSHARE_TOKENS", default=DEFAULT, show_default=True,
    help="The file of tokens, as [http] names it. Default: $IPSHARE_TOKENS.",
)  # fmt: skip


@click.group("token")
def token_() -> None:
    """Tokens for a director's HTTP API and web page (docs/web.md)."""


@token_.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What its holder may do.")
@click.option("--days", type=int, default=90, show_default=True, help="How long it is valid.")
@file_option
@json_option
def add(name: str, role: str, days: int, file: Path, as_json: bool) -> None:
    """Make a token for NAME. It is shown once: the file has its hash alone."""
    from ipshare.web import tokens

    secret, made = tokens.add(file, name, role, days)
    if as_json:
        return output.emit({"name": name, "role": role, "expires": made.expires, "token": secret})
    click.echo(f"{name}, {role}, valid until {made.expires[:16]}; it is not shown again:", err=True)
    return output.line(secret)


@token_.command("list")
@file_option
@json_option
def list_(file: Path, as_json: bool) -> None:
    """List tokens: whose, what they may, until when. The tokens themselves are nowhere."""
    from ipshare.web import tokens

    now = datetime.now(UTC)
    found = [
        {
            "name": one.name,
            "role": one.role,
            "created": one.created,
            "expires": one.expires,
            "state": "expired" if one.is_over(now) else "valid",
        }
        for one in tokens.read(file)
    ]
    if as_json:
        return output.emit(found)
    rows = [(one["name"], one["role"], one["state"], one["expires"][:16]) for one in found]
    return output.table(("name", "role", "state", "until"), rows)


@token_.command("revoke")
@click.argument("name")
@file_option
@json_option
def revoke(name: str, file: Path, as_json: bool) -> None:
    """Revoke the token of NAME. A director that runs refuses it from the next request on, and ends its
    sessions."""
    from ipshare.web import tokens

    gone = tokens.revoke(file, name)
    if as_json:
        return output.emit({"name": gone.name, "role": gone.role, "state": "revoked"})
    return output.line(f"revoked: {gone.name}, {gone.role}")
