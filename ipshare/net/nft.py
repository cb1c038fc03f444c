"""nftables through the `nft` command: our own table, and FORWARD chains of others that drop.

Every change is one transaction (one `nft -f -`). The table's comment carries a digest of its text, so
that a re-apply sees without parsing whether it is current. Reading others' rules is JSON in, sentences out;
`dropping_chains` and `passes_devices` are pure.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from ipshare.net.actions import NetError


def is_available() -> bool:
    """Whether the nft command is installed."""
    return shutil.which("nft") is not None


def _nft(*arguments: str, text: str | None = None) -> str:
    try:
        done = subprocess.run(["nft", *arguments], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NetError("the nft command is missing", hint="apt install nftables") from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"status {done.returncode}"
        raise NetError(f"nft refused: {reason}", hint="nftables support and CAP_NET_ADMIN are needed")
    return done.stdout


def _digest(body: str) -> str:
    return "ipshare " + hashlib.sha256(body.encode()).hexdigest()[:24]


def _tables() -> list[dict[str, Any]]:
    return [item["table"] for item in json.loads(_nft("-j", "list", "tables"))["nftables"] if "table" in item]


def is_loaded(name: str, body: str) -> bool:
    """Whether our table is there with exactly this text."""
    ours = any(t["name"] == name and t["family"] == "inet" for t in _tables())
    return ours and f'comment "{_digest(body)}"' in _nft("list", "table", "inet", name)


def replace(name: str, body: str) -> None:
    """Puts the table in place of an earlier one of the name, in one transaction."""
    head = f"table inet {name} {{}}\ndelete table inet {name}\n"
    _nft("-f", "-", text=f'{head}table inet {name} {{\n  comment "{_digest(body)}"\n{body}\n}}\n')


def remove(name: str) -> None:
    """Removes the table; no error where it is not there."""
    _nft("-f", "-", text=f"table inet {name} {{}}\ndelete table inet {name}\n")


def ruleset() -> list[dict[str, Any]]:
    """All tables, chains and rules, as nft's JSON has them."""
    items: list[dict[str, Any]] = json.loads(_nft("-j", "list", "ruleset"))["nftables"]
    return items


def dropping_chains(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Base chains on the forward hook whose policy drops."""
    for item in items:
        chain = item.get("chain", {})
        if chain.get("hook") == "forward" and chain.get("policy") == "drop":
            yield chain


def passes_devices(items: list[dict[str, Any]], table: dict[str, Any], devices: tuple[str, ...]) -> bool:
    """Whether rules of the chain's table accept what comes from *and* what goes to each of the devices.

    A hint, not a proof: any accepting rule of the table that names the device counts.
    """
    accepted: set[tuple[str, str]] = set()
    for item in items:
        rule = item.get("rule", {})
        if (rule.get("family"), rule.get("table")) != (table["family"], table["table"]):
            continue
        expressions = rule.get("expr", [])
        if any("accept" in e for e in expressions):
            accepted |= {pair for e in expressions for pair in _named_devices(e, devices)}
    return all((key, device) in accepted for device in devices for key in ("iifname", "oifname"))


def _named_devices(expression: dict[str, Any], devices: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    match expression:
        case {
            "match": {"op": "==", "left": {"meta": {"key": ("iifname" | "oifname") as key}}, "right": right}
        }:
            names = right["set"] if isinstance(right, dict) and "set" in right else [right]
            for device in devices:
                if any(
                    isinstance(n, str) and (n == device or (n.endswith("*") and device.startswith(n[:-1])))
                    for n in names
                ):
                    yield key, device
