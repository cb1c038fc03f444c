"""Every link of the documentation, and every file of ours that it names, is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "plugins").glob("*.md")),
]
FOLDERS = "ipshare|native|tests|perf|docs|appliance|plugins"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    links = [page.parent / link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)]
    named = [ROOT / name.rstrip(".") for name in re.findall(rf"`((?:{FOLDERS})/[\w./@-]+)[`:]", text)]
    assert [str(path) for path in links + named if not path.exists() and "KEY" not in path.name] == []
