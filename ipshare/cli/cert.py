"""cert: certificates of nodes, directors and operators: init, issue, rotate, show, revoke."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import output
from ipshare.cli.options import FILE, json_option

if TYPE_CHECKING:
    from ipshare.certs.authority import Authority, Issued

FOLDER = Path("/etc/ipshare/ca")
ROLES = ("node", "director", "operator")

ca_option = click.option(
    "--ca", "folder", type=FILE, envvar="IPSHARE_CA", default=FOLDER, show_default=True,
    help="Directory of the certificate authority. Default: $IPSHARE_CA.",
)  # fmt: skip
days_option = click.option("--days", type=int, default=397, show_default=True, help="How long it is valid.")


@click.group("cert")
def cert_() -> None:
    """Certificates, by which agents, directors and operators know each other (docs/director.md)."""


@cert_.command("init")
@click.option("--name", default="ipshare authority", show_default=True, help="Name of the authority.")
@click.option("--days", type=int, default=3650, show_default=True, help="How long it is valid.")
@ca_option
@json_option
def init(folder: Path, name: str, days: int, as_json: bool) -> None:
    """Make a certificate authority. Its key stays in its directory: keep that off the nodes."""
    made = _authority(folder).init(name, days)
    _said(as_json, f"made the authority {name} in {folder}, valid until {made.ends:%Y-%m-%d}", made)


@cert_.command("issue")
@click.argument("role", type=click.Choice(ROLES))
@click.argument("name")
@click.option("-o", "--out", "target", type=FILE, help="The new file. Default: ROLE-NAME.pem, here.")
@days_option
@ca_option
@json_option
def issue(role: str, name: str, target: Path | None, days: int, folder: Path, as_json: bool) -> None:
    """Make a key and a certificate for NAME, in one new file of mode 0600."""
    from ipshare.certs.identity import identity

    who = identity(role, name)
    target = target or Path(f"{role}-{name}.pem")
    made = _authority(folder).issue(who, target, days)
    _said(as_json, f"{target}: {who}, valid until {made.ends:%Y-%m-%d}", made, target)


@cert_.command("rotate")
@click.argument("target", metavar="FILE", type=FILE)
@click.option("--revoke", "revokes", is_flag=True, help="The old certificate is revoked.")
@days_option
@ca_option
@json_option
def rotate(target: Path, revokes: bool, days: int, folder: Path, as_json: bool) -> None:
    """Put a new key and certificate of the same holder into FILE. Who reads it takes it at the next
    connection; the old one stays valid until it ends."""
    authority = _authority(folder)
    old, new = authority.rotate(target, days)
    if revokes:
        authority.revoke(serial=old.serial)
    _said(as_json, f"{target}: {new.identity}, valid until {new.ends:%Y-%m-%d}", new, target)


@cert_.command("show")
@click.argument("target", metavar="[FILE]", required=False, type=FILE)
@ca_option
@json_option
def show(target: Path | None, folder: Path, as_json: bool) -> None:
    """Show the certificate in FILE, or all that the authority gave out."""
    from ipshare.certs.authority import looked_at

    found = [looked_at(target)] if target is not None else _authority(folder).issued()
    if as_json:
        return output.emit([_json(one) for one in found])
    rows = [
        (str(one.identity or one.subject), one.state, f"{one.ends:%Y-%m-%d %H:%M}", one.serial)
        for one in found
    ]
    output.table(("holder", "state", "until", "serial number"), rows)
    return None


@cert_.command("revoke")
@click.argument("role", type=click.Choice([*ROLES, "serial"]))
@click.argument("name")
@ca_option
@json_option
def revoke(role: str, name: str, folder: Path, as_json: bool) -> None:
    """Revoke every certificate of NAME, or the one of a serial number: `revoke serial 5f3c...`.

    Copy revoked.pem of the authority's directory to wherever it shall count: each node and director reads it
    again by itself.
    """
    from ipshare.certs.identity import identity

    authority = _authority(folder)
    done = authority.revoke(serial=name) if role == "serial" else authority.revoke(who=identity(role, name))
    if as_json:
        return output.emit({"revoked": [_json(one) for one in done], "list": str(folder / "revoked.pem")})
    for one in done:
        output.line(f"revoked: {one.identity}, serial number {one.serial}")
    output.line(
        f"copy {folder / 'revoked.pem'} to the nodes" if done else "nothing to do: it was revoked before"
    )
    return None


def _authority(folder: Path) -> Authority:
    from ipshare.certs.authority import Authority

    return Authority(folder)


def _said(as_json: bool, text: str, made: Issued, target: Path | None = None) -> None:
    if as_json:
        output.emit(_json(made) | ({"file": str(target)} if target is not None else {}))
    else:
        output.line(text)


def _json(one: Issued) -> dict[str, Any]:
    who = one.identity
    return {
        "role": str(who.role) if who else None,
        "name": who.name if who else one.subject,
        "serial": one.serial,
        "begins": one.begins.isoformat(),
        "ends": one.ends.isoformat(),
        "state": one.state,
    }
