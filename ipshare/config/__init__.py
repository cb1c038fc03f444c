"""TOML -> Config: every mistake at once, with file, line and key.

read (files, includes, merging; keys finds the places) -> site (each table alone, by schema) -> checks (tables
together) -> build (Config). Bulk bindings take the same way in bulk_*; only those modules bring NumPy in.
Use ``load`` (raises ConfigError) or ``check`` (a Report); ``import_bindings`` for a bindings file alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipshare.config.bulk import BindingsDiff as BindingsDiff
    from ipshare.config.bulk import diff_bindings as diff_bindings
    from ipshare.config.bulk import import_bindings as import_bindings
    from ipshare.config.report import Report as Report
    from ipshare.config.report import check as check
    from ipshare.config.report import check_text as check_text
    from ipshare.config.report import load as load
    from ipshare.config.report import load_text as load_text
    from ipshare.config.schema import json_schema as json_schema

_HOME = {
    **dict.fromkeys(("Report", "check", "check_text", "load", "load_text"), "ipshare.config.report"),
    **dict.fromkeys(("BindingsDiff", "diff_bindings", "import_bindings"), "ipshare.config.bulk"),
    "json_schema": "ipshare.config.schema",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: pydantic and NumPy cost more than the CLI may take to start."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
