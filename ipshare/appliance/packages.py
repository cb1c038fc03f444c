"""packages: which Debian packages an image is made of, and whether what it is given belongs to the chosen
distribution.

One image, one distribution: the C core and the wheels are those of the machine that builds, so its Python has
to be the image's (decision 0059), and VPP's .debs have to be made for the same one. All of that is judged
before anything is fetched.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ipshare.errors import Refused

BASE = [
    "systemd",
    "systemd-sysv",
    "udev",
    "kmod",
    "linux-image-amd64",
    "initramfs-tools",
    "busybox",
    "zstd",
    "e2fsprogs",
    "fdisk",
    "procps",
    "less",
    "iproute2",
    "iputils-ping",
    "nftables",
    "ethtool",
    "tcpdump",
    "bird2",
    "chrony",
    "openssh-server",
    "python3",
    "libssl3",
]
RENAMED = ("libssl3", "libelf1", "libpcap0.8")
"""Libraries that VPP and its plugins are linked with, by the names they had before t64."""
VPP = {
    "vpp": "take it from FD.io's repository",
    "vpp-plugin-ipshare": "make plugin, then cpack -G DEB in build/plugin",
}
"""What a directory of VPP's packages has to have, and where each comes from."""
VPP_WANTED = "/etc/systemd/system/multi-user.target.wants/vpp.service"
DEPENDENCY = r"(?P<name>[a-z0-9.+-]+)(:\w+)?\s*(\((?P<sign><<|<=|=|>=|>>)\s*(?P<version>[^)]+)\))?"
EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True, slots=True)
class Suite:
    name: str
    python: tuple[int, int]
    libc: tuple[int, int]
    has_t64: bool
    """Libraries are called ...t64 since time_t has 64 bits everywhere."""

    @property
    def has_libc(self) -> str:
        return f"{self.name} has {self.libc[0]}.{self.libc[1]}"


SUITES = {
    suite.name: suite
    for suite in (Suite("bookworm", (3, 11), (2, 36), False), Suite("trixie", (3, 13), (2, 41), True))
}


def chosen(name: str | None, python: tuple[int, int]) -> Suite:
    """The suite of that name, or the one that the builder's Python belongs to."""
    if name is None:
        for suite in SUITES.values():
            if suite.python == python:
                return suite
        raise Refused(
            f"no Debian that an image can be made of has Python {python[0]}.{python[1]}",
            hint=f"build it with the python3 of one of {', '.join(SUITES)}",
        )
    if name not in SUITES:
        raise Refused(f"unknown distribution {name!r}", hint=f"one of {', '.join(SUITES)}")
    suite = SUITES[name]
    if suite.python != python:
        raise Refused(
            f"{name} has Python {suite.python[0]}.{suite.python[1]}, "
            f"this machine builds for {python[0]}.{python[1]}",
            hint=f"build images of {name} on a {name}: C core and wheels are taken from here",
        )
    return suite


def foreign(deb: str, control: Mapping[str, str], suite: Suite) -> list[str]:
    """What a .deb with this control file has against being installed into `suite`; empty if nothing."""
    against = []
    if control.get("Architecture", "") not in ("amd64", "all"):
        against.append(f"{deb} is for {control.get('Architecture') or 'no architecture'}, the image is amd64")
    depends = ", ".join(control.get(field, "") for field in ("Pre-Depends", "Depends"))
    for alternatives in filter(None, (part.strip() for part in depends.split(","))):
        reasons = [_against(alternative.strip(), suite) for alternative in alternatives.split("|")]
        if all(reasons):
            against.append(f"{deb} {reasons[0]}")
    return against


def apart(controls: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What .debs, by name with their control files, have against one another as the VPP of an image."""
    given = {control["Package"]: control["Version"] for control in controls.values()}
    against = [f"there is no {name}: {hint}" for name, hint in VPP.items() if name not in given]
    for deb, control in controls.items():
        for dependency in control.get("Depends", "").split(","):
            match = re.match(DEPENDENCY, dependency.strip())
            has = given.get(match["name"]) if match else None
            if match and match["sign"] == "=" and has not in (None, match["version"]):
                against.append(f"{deb} needs {match['name']} {match['version']}, given is {has}")
    return against


def _against(dependency: str, suite: Suite) -> str:
    match = re.match(DEPENDENCY, dependency)
    if match is None:
        return f"has a dependency that cannot be read: {dependency!r}"
    name, sign, version = match["name"], match["sign"], _numbers(match["version"] or "")
    if name == "libc6" and sign in (">=", ">>", "=") and version > suite.libc:
        return f"needs libc6 {match['version']}, {suite.has_libc}"
    if name.endswith("t64") and not suite.has_t64:
        return f"needs {name}, which {suite.name} has not: it is made for a later distribution"
    if name in RENAMED and suite.has_t64:
        return f"needs {name}, which is {name}t64 in {suite.name}: it is made for an earlier distribution"
    if name == "python3" and sign and not _holds(suite.python, sign, version):
        return (
            f"needs python3 {sign} {match['version']}, {suite.name} has {suite.python[0]}.{suite.python[1]}"
        )
    if (own := re.fullmatch(r"(?:lib)?python3\.(\d+)(-\w+)?", name)) and int(own[1]) != suite.python[1]:
        return f"needs {name}, {suite.name} has Python {suite.python[0]}.{suite.python[1]}"
    return ""


def libc(program: bytes) -> tuple[int, int]:
    """The latest glibc whose symbols a program or library was linked with; (0, 0) if with none."""
    return max(
        ((int(major), int(minor)) for major, minor in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", program)),
        default=(0, 0),
    )


def _numbers(version: str) -> tuple[int, int]:
    match = re.match(r"(?:\d+:)?(\d+)(?:\.(\d+))?", version)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def _holds(have: tuple[int, int], sign: str, want: tuple[int, int]) -> bool:
    return {
        "<<": have < want,
        "<=": have <= want,
        "=": have == want,
        ">=": have >= want,
        ">>": have > want or have == want,  # 3.11.2 is later than 3.11
    }[sign]


def mmdebstrap(
    suite: Suite,
    target: str,
    hooks: str,
    *,
    mirrors: Iterable[str] = (),
    apt_options: Iterable[str] = (),
    debs: str | None = None,
) -> list[str]:
    """The command that makes Debian's root as a tar file. `hooks`: a directory with the initrd's modules,
    `debs` one of .debs."""
    hooks, debs = shlex.quote(hooks), shlex.quote(debs) if debs is not None else None
    command = ["mmdebstrap", "--variant=minbase", "--format=tar", f"--include={','.join(BASE)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
    command += ["--dpkgopt=path-include=/usr/share/doc/*/copyright", '--aptopt=Acquire::Languages "none"']
    command += [f"--aptopt={option}" for option in apt_options]
    command += [
        '--essential-hook=mkdir -p "$1/etc/initramfs-tools"',
        f'--essential-hook=cp {hooks}/modules "$1/etc/initramfs-tools/modules"',
    ]
    if debs is not None:
        # Asked before anything is configured: what they need that is not there is said early, and why.
        asked = f"apt-get -q install --simulate --no-install-recommends {debs}/*.deb"
        said = '{ tail -n 6 "$1/asked" >&2; exit 1; }'
        hook = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" {asked} >"$1/asked" 2>&1 || {said}; rm "$1/asked"'
        command.append(f"--extract-hook={hook}")
        # VPP's packages would set sysctls of the machine that builds, and start a VPP beside the agent's.
        install = "VPP_INSTALL_SKIP_SYSCTL=1 apt-get install -y --no-install-recommends /debs/*.deb"
        command += [
            f'--customize-hook=mkdir "$1/debs" && cp {debs}/*.deb "$1/debs/"',
            f'--customize-hook=chroot "$1" sh -c "{install}"',
            f'--customize-hook=rm -rf "$1/debs" "$1{VPP_WANTED}"',
        ]
    return [*command, suite.name, target, *mirrors]
