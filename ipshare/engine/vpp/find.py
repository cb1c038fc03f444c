"""find: where VPP, its plugins, our plugin and their .api.json files are on this machine.

VPP: ``IPSHARE_VPP`` (its binary), else ``vpp`` on PATH; the rest belongs to its prefix. Our plugin:
``IPSHARE_VPP_PLUGINS`` (a directory), else beside VPP's own plugins, else the build tree of this checkout.
Reads names of files only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ipshare
from ipshare.errors import NotRunning

PLUGIN = "ipshare_plugin.so"
API = "ipshare.api.json"
INSTALL = "install VPP from FD.io's packages (docs/vpp.md), or set IPSHARE_VPP to its binary"


@dataclass(frozen=True, slots=True)
class Install:
    """One installed VPP. ``plugin_dirs``: VPP's own first; ``plugin``: ours, None if it is nowhere."""

    binary: Path
    plugin_dirs: tuple[Path, ...]
    plugin: Path | None
    api_dirs: tuple[Path, ...]


def find(binary: Path | str | None = None, plugin_path: Path | str | None = None) -> Install:
    """``binary``, ``plugin_path`` (a directory): from a configuration, before everything else.

    Raises ``NotRunning``: no VPP here.
    """
    where = vpp_binary(binary)
    prefix = where.resolve().parent.parent
    own = tuple(_plugin_dirs(prefix))
    plugin = next((d / PLUGIN for d in _our_dirs(plugin_path, own) if (d / PLUGIN).is_file()), None)
    dirs = own if plugin is None or plugin.parent in own else (*own, plugin.parent)
    api = [prefix / "share" / "vpp" / "api"]
    if plugin is not None and plugin.parent not in own:
        api += _build_api_dirs(plugin.parent)
    return Install(where, dirs, plugin, tuple(d for d in api if d.is_dir()))


def vpp_binary(binary: Path | str | None = None) -> Path:
    """Raises ``NotRunning`` if there is none."""
    named = binary or os.environ.get("IPSHARE_VPP")
    if named:
        if not Path(named).is_file():
            raise NotRunning(f"{named} does not exist", hint=INSTALL)
        return Path(named)
    found = shutil.which("vpp")
    if not found:
        raise NotRunning("there is no vpp on PATH", hint=INSTALL)
    return Path(found)


def api_files(dirs: Sequence[Path] | None = None) -> list[Path]:
    """Every .api.json below ``dirs`` (None: of the VPP that ``find`` finds), each name once: where a name is
    in several directories, the last one's counts.

    Raises ``NotRunning``: there are none.
    """
    places = find().api_dirs if dirs is None else tuple(dirs)
    files = {file.name: file for place in places for file in sorted(place.rglob("*.api.json"))}
    if not files:
        looked = ", ".join(str(place) for place in places) or "VPP's prefix"
        raise NotRunning(f"there are no .api.json files of VPP below {looked}", hint=INSTALL)
    return list(files.values())


def _plugin_dirs(prefix: Path) -> Iterator[Path]:
    for library in ("lib", "lib64"):
        yield from sorted((prefix / library).glob("vpp_plugins"))
        yield from sorted((prefix / library).glob("*/vpp_plugins"))


def _our_dirs(configured: Path | str | None, own: Sequence[Path]) -> Iterator[Path]:
    for named in (configured, os.environ.get("IPSHARE_VPP_PLUGINS")):
        if named:
            yield Path(named)
    yield from own
    checkout = Path(ipshare.__file__).resolve().parent.parent
    for lib in ("build/lib", "build/*/lib"):
        yield from sorted(checkout.glob(f"{lib}/**/vpp_plugins"))


def _build_api_dirs(plugins: Path) -> list[Path]:
    """Directories with our .api.json, for a plugin in a build tree or another prefix."""
    for parent in list(plugins.resolve().parents)[:3]:
        found = sorted(parent.rglob(API))
        if found:
            return [found[0].parent]
    return []
