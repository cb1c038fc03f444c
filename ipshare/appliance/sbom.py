"""sbom: the bill of materials of an image (CycloneDX 1.5, JSON), out of dpkg's status file and the Python
packages' metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from ipshare.appliance.layout import identity


def debian(status: str) -> list[tuple[str, str, str]]:
    """(name, version, architecture) of what is installed, by name."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if fields["Package"] and "installed" in (fields["Status"] or "").split():
            found.append((fields["Package"], fields["Version"], fields["Architecture"]))
    return sorted(found)


def python(staged: Path) -> list[tuple[str, str]]:
    """(name, version) of what pip put into a directory, by name."""
    found = []
    for metadata in staged.glob("*.dist-info/METADATA"):
        fields = HeaderParser().parsestr(metadata.read_text())
        found.append((fields["Name"], fields["Version"]))
    return sorted(found)


def cyclonedx(
    name: str,
    version: str,
    stamp: str,
    debs: Iterable[tuple[str, str, str]],
    wheels: Iterable[tuple[str, str]],
    suite: str,
) -> str:
    """The document. `stamp`: the time of the sources (ISO 8601), not of the build."""
    parts: list[dict[str, Any]] = []
    for package, release, arch in debs:
        purl = f"pkg:deb/debian/{package}@{release}?arch={arch}&distro={suite}"
        parts.append({"type": "library", "name": package, "version": release, "purl": purl, "bom-ref": purl})
    for package, release in wheels:
        purl = f"pkg:pypi/{package.lower()}@{release}"
        parts.append({"type": "library", "name": package, "version": release, "purl": purl, "bom-ref": purl})
    record = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{identity(f'{name} {version} {stamp}')}",
        "version": 1,
        "metadata": {
            "timestamp": stamp,
            "component": {"type": "firmware", "name": name, "version": version, "bom-ref": "image"},
        },
        "components": parts,
    }
    return json.dumps(record, indent=1, sort_keys=True) + "\n"
