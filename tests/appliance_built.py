"""What was built, for the tests that boot it: the oldest image in IPSHARE_APPLIANCE is what boxes begin with,
IPSHARE_APPLIANCE_NEXT the slot image of a second build (default: the same one again), IPSHARE_APPLIANCE_KEY
the key of updates."""

from __future__ import annotations

import os
from pathlib import Path

from ipshare.appliance import bundle
from ipshare.appliance import seed as seeds
from ipshare.appliance.overlay import SITE

BUILT = Path(os.environ.get("IPSHARE_APPLIANCE", "build/appliance"))
KEY = Path(os.environ.get("IPSHARE_APPLIANCE_KEY", "update.key"))


def slot() -> Path:
    found = sorted(BUILT.glob("*.slot"), key=lambda path: path.stat().st_mtime)
    assert found, f"no image in {BUILT}: make appliance"
    return found[0]


def image() -> Path:
    return slot().with_suffix(".qcow2")


def seed(place: Path, name: str, key: Path, site: str, hostname: str) -> Path:
    """A seed with that site file."""
    texts = seeds.documents(hostname, [key.with_suffix(".pub").read_text().strip()], {SITE: site}, None)
    seeds.write_image(texts, place / f"{name}.seed")
    return place / f"{name}.seed"


def made(version: str, place: Path) -> Path:
    """A signed update of that version."""
    target = place / f"update-{version}"
    bundle.make(Path(os.environ.get("IPSHARE_APPLIANCE_NEXT") or slot()), version, KEY, target)
    return target
