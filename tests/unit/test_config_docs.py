"""docs/ and the schema say the same: examples show every key, reference and JSON Schema are current."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ipshare.config import check, json_schema, load
from ipshare.config.keys import scan
from ipshare.config.reference import markdown
from ipshare.model import BindingKind

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted(path for path in (DOCS / "examples").glob("*.toml") if path.name != "policy.toml")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_loads(path: Path) -> None:
    report = check(path)
    assert not report.problems
    assert [w.message for w in report.warnings if "lives in a network namespace" not in w.hint] == [
        w.message for w in report.warnings if w.key == "binding[2].here"
    ]


def keys_of(schema: dict[str, Any], spec: dict[str, Any], at: str = "") -> set[str]:
    """All keys of the schema, as ``endpoint.path_mtu``."""
    spec = spec.get("items", spec)
    if "$ref" in spec:
        spec = schema["$defs"][spec["$ref"].rsplit("/", 1)[1]]
    found = set()
    for key, inner in spec.get("properties", {}).items():
        found |= {f"{at}{key}"} | keys_of(schema, inner, f"{at}{key}.")
    return found


def test_the_examples_show_every_key() -> None:
    shown = set()
    for path in (DOCS / "examples").glob("*.toml"):
        shown |= {".".join(p for p in key if isinstance(p, str)) for key in scan(path.read_text())}
    assert keys_of(json_schema(), json_schema()) <= shown


def test_the_reference_is_current() -> None:
    """If not: the tables at the end of docs/configuration.md are ipshare.config.reference.markdown()."""
    assert (DOCS / "configuration.md").read_text().endswith(markdown())


def test_the_json_schema_is_current() -> None:
    """If not: docs/site.schema.json is json.dumps(json_schema(), indent=1, sort_keys=True) and a newline."""
    assert json.loads((DOCS / "site.schema.json").read_text()) == json_schema()


def test_every_key_has_a_description() -> None:
    schema = json_schema()
    for name, table in schema["$defs"].items():
        assert table["description"], name
        for key, spec in table["properties"].items():
            assert spec.get("description", "").endswith("."), f"{name}.{key}"


def test_what_an_example_becomes() -> None:
    config = load(DOCS / "examples/distribution.toml")
    by_prefix = {str(binding.prefix): binding for binding in config.bindings}
    whole, moved = by_prefix["198.51.100.0/24"], by_prefix["198.51.100.7/32"]
    assert (whole.kind, whole.target, str(whole.local)) == (BindingKind.ENDPOINT, "A", "10.1.0.0/24")
    assert (moved.target, moved.local) == ("B", None)  # encapsulated: nothing is rewritten
    assert str(by_prefix["198.51.100.9/32"].local) == "10.1.0.77" + "/32"
    assert by_prefix["198.51.100.77/32"].kind is BindingKind.DOWN
    shared = by_prefix["198.51.100.80/32"]
    assert (shared.kind, shared.target, shared.offset) == (BindingKind.POLICY, "spread", 80)
    assert config.self_distribution is not None
    assert config.self_endpoint is None
    assert config.probe.interval_s == 60.0
    assert config.endpoints[1].path_mtu.of(4) == 1480


def test_bulk_of_an_example() -> None:
    config = load(DOCS / "examples/ids.toml")
    assert config.bulk is not None
    assert [path.name for path in config.files] == ["ids.toml", "bindings.csv"]
    first = config.bulk.rows[0]
    assert bytes(first["local"][:4]) == bytes([10, 1, 0, 32])
    assert config.copies[1].file == Path("/var/log/ipshare/everything.pcapng")


def test_no_heavy_imports_before_they_are_needed() -> None:
    """The CLI has 0.3 s to start."""
    code = "import sys, ipshare.config, ipshare.model; print({'pydantic', 'numpy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"
    code = "import sys, ipshare.config as c; c.check_text('x = 1'); print('numpy' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"
