"""The reference of all keys as Markdown, from the models' own texts; docs/configuration.md holds it."""

from __future__ import annotations

from typing import Any

from ipshare.config.schema import json_schema


def markdown(schema: dict[str, Any] | None = None) -> str:
    """A heading, a sentence and a table of keys for each table of the file, in the order of the file."""
    schema = schema or json_schema()
    parts = []
    for key, spec in schema["properties"].items():
        items = spec.get("items", spec)
        if "$ref" in items:
            parts.append(_section(schema, f"[[{key}]]" if "items" in spec else f"[{key}]", items["$ref"]))
    return "\n".join(parts)


def _section(schema: dict[str, Any], title: str, ref: str) -> str:
    table = _at(schema, ref)
    lines = [
        f"### `{title}`",
        "",
        table["description"],
        "",
        "| key | value | default | |",
        "|---|---|---|---|",
    ]
    inner = []
    for key, spec in table["properties"].items():
        need = "needed" if key in table.get("required", []) else _code(spec.get("default"))
        lines.append(f"| `{key}` | {_kind(schema, spec)} | {need} | {_cell(spec.get('description', ''))} |")
        item = spec.get("items", spec)
        if "$ref" in item:
            inner.append(_section(schema, f"{title.strip('[]')}.{key}", item["$ref"]))
    return "\n".join([*lines, "", *inner])


def _at(schema: dict[str, Any], ref: str) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][ref.rsplit("/", 1)[1]]
    return found


def _code(default: Any) -> str:
    if default in (None, [], {}):
        return ""
    if isinstance(default, dict):
        inside = ", ".join(f"{key} = {value}" for key, value in default.items())
        return f"`{{{inside}}}`"
    text = f'"{default}"' if isinstance(default, str) else str(default).lower()
    return f"`{text}`"


def _kind(schema: dict[str, Any], spec: dict[str, Any]) -> str:
    if "enum" in spec or "const" in spec:
        return ", ".join(f'`"{choice}"`' for choice in spec.get("enum", [spec.get("const")]))
    if "anyOf" in spec:
        kinds = [_kind(schema, one) for one in spec["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in spec:
        return "table"
    if spec.get("type") == "array":
        return f"array of {_kind(schema, spec['items'])}"
    if spec.get("type") == "string" and "examples" in spec:
        return f'string, as `"{spec["examples"][0]}"`'
    if spec.get("type") == "integer" and "minimum" in spec:
        top = spec.get("maximum")
        return f"number, {spec['minimum']} to {top}" if top else f"number from {spec['minimum']}"
    kind: str = spec["type"]
    return {"boolean": "true, false", "object": "table", "integer": "number"}.get(kind, kind)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
