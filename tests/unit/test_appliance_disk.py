"""The plan of an image: partitions, the boot loader's variables, which packages it takes and which it
refuses, archives."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from ipshare.appliance import archive, grub, layout, overlay, packages, sbom
from ipshare.appliance.slots import Boot
from ipshare.errors import IpshareError, Refused

BOOKWORM, TRIXIE = packages.SUITES["bookworm"], packages.SUITES["trixie"]


def test_partitions_touch_and_leave_room_for_both_tables() -> None:
    disk = layout.disk(640, 256)
    assert disk.partitions[0].start == layout.MIB
    for before, after in zip(disk.partitions, disk.partitions[1:], strict=False):
        assert before.start + before.size == after.start
    last = disk.partitions[-1]
    assert last.name == "data", "it grows with the disk"
    assert disk.size - (last.start + last.size) == layout.MIB
    text = layout.sfdisk(disk)
    assert text == layout.sfdisk(layout.disk(640, 256)), "identities are no accidents"
    assert text.count("uuid=") == 5 and len({layout.identity(part.label) for part in disk.partitions}) == 5


def test_the_boot_loaders_variables_come_back_and_fill_one_sector() -> None:
    block = grub.encode({"good": "a", "trial": "b", "tries": "2"})
    assert len(block) == grub.SIZE
    assert set(block[layout.SECTOR :]) == {ord("#")}, "what changes is in the first sector"
    assert grub.decode(block) == {"good": "a", "trial": "b", "tries": "2"}
    with pytest.raises(IpshareError):
        grub.encode({"good": "a" * 600})
    assert Boot.of(b"\xff" * grub.SIZE) == Boot("a"), "a damaged block starts slot a"
    assert Boot.of(grub.encode({"good": "z", "tries": "many"})) == Boot("a")


def test_whatever_happens_in_a_trial_it_ends_in_a_good_slot() -> None:
    """All ways through starts of which each is healthy, unhealthy, or gets nowhere (a panic, no power)."""

    def start(boot: Boot) -> tuple[str, Boot]:  # what grub.cfg does
        if boot.trial and boot.tries:
            return boot.trial, Boot(boot.good, boot.trial, boot.tries - 1)
        return boot.good, boot

    ways = [Boot("a").on_trial("b")]
    for _ in range(grub.TRIES + 2):
        following = []
        for before in ways:
            slot, boot = start(before)
            outcomes = (
                [boot] if slot == "b" and before.good == "a" else []
            )  # it got nowhere; a always gets there
            outcomes += [
                boot.judged(slot, healthy)[0] for healthy in ((True, False) if slot == "b" else (True,))
            ]
            following += outcomes
        ways = list(dict.fromkeys(following))
    assert set(ways) == {Boot("a"), Boot("b")}, "no trial is left over"


def test_grub_counts_every_number_of_tries() -> None:
    text = grub.config("quiet")
    for tries in range(1, grub.TRIES + 1):
        assert (
            f'[ "$tries" = "{tries}" ]; then set tries={tries - 1}; set slot="$trial"; save_env tries' in text
        )
    assert "ipshare.slot=$slot" in text and "quiet" in text


def test_the_first_stages_know_where_the_next_is() -> None:
    core = layout.disk()["bios"].start
    sector = grub.boot_sector(bytes(range(256)) * 2, core)
    assert len(sector) == 440, "the partition table begins at 446, the disk's signature at 440"
    assert int.from_bytes(sector[0x5C:0x64], "little") * layout.SECTOR == core
    image = grub.core_image(bytes(2048), core)
    assert int.from_bytes(image[0x1F4:0x1FC], "little") * layout.SECTOR == core + layout.SECTOR


@pytest.mark.parametrize(
    ("control", "suite", "word"),
    [
        ({"Architecture": "arm64"}, BOOKWORM, "arm64"),
        ({"Depends": "libc6 (>= 2.38)"}, BOOKWORM, "libc6 2.38"),
        ({"Depends": "libssl3t64 (>= 3.0)"}, BOOKWORM, "later distribution"),
        ({"Depends": "python3 (>= 3.13), python3 (<< 3.14)"}, BOOKWORM, "3.13"),
        ({"Depends": "python3 (<< 3.12)"}, TRIXIE, "3.12"),
        ({"Pre-Depends": "libpython3.11"}, TRIXIE, "libpython3.11"),
        ({"Depends": "???"}, BOOKWORM, "cannot be read"),
    ],
)
def test_packages_of_another_distribution_are_refused_with_the_reason(
    control: dict[str, str], suite: packages.Suite, word: str
) -> None:
    against = packages.foreign("vpp.deb", {"Architecture": "amd64", **control}, suite)
    assert against and word in against[0]


@pytest.mark.parametrize("suite", [BOOKWORM, TRIXIE])
def test_packages_of_the_same_distribution_are_taken(suite: packages.Suite) -> None:
    depends = "libc6 (>= 2.34), libssl3t64 | libssl3 (>= 3.0.0), python3:any (>= 3.9), libvppinfra (= 26.06)"
    assert packages.foreign("vpp.deb", {"Architecture": "amd64", "Depends": depends}, suite) == []


def of_one_release(**others: str) -> dict[str, dict[str, str]]:
    """Control files of VPP and the plugin; `others`: the versions of packages that have another one."""
    release = dict.fromkeys(("vpp", "libvppinfra", "vpp-plugin-ipshare"), "26.06") | others
    depends = {"vpp": "libc6, libvppinfra (= 26.06)", "vpp-plugin-ipshare": "vpp (= 26.06), libc6 (>= 2.36)"}
    return {
        f"{name}.deb": {"Package": name, "Version": version, "Depends": depends.get(name, "")}
        for name, version in release.items()
    }


def test_vpps_packages_are_of_one_release_and_the_plugin_is_there() -> None:
    assert packages.apart(of_one_release()) == []
    for name, wants_it in (("vpp", "vpp-plugin-ipshare"), ("libvppinfra", "vpp")):
        (why,) = packages.apart(of_one_release(**{name: "26.02"}))
        assert why == f"{wants_it}.deb needs {name} 26.06, given is 26.02"
    for name in ("vpp", "vpp-plugin-ipshare"):
        given = of_one_release()
        del given[f"{name}.deb"]
        (why,) = packages.apart(given)
        assert why.startswith(f"there is no {name}: ")


def test_an_image_is_of_the_builders_distribution() -> None:
    assert packages.chosen(None, (3, 11)) is BOOKWORM
    assert packages.chosen("trixie", (3, 13)) is TRIXIE
    for name, python in (("trixie", (3, 11)), ("sid", (3, 13)), (None, (3, 12))):
        with pytest.raises(Refused):
            packages.chosen(name, python)


def test_mmdebstraps_command_has_what_it_was_given() -> None:
    command = packages.mmdebstrap(
        BOOKWORM, "t.tar", "/h", mirrors=["http://m"], apt_options=["X 1"], debs="/d"
    )
    assert command[-3:] == ["bookworm", "t.tar", "http://m"]
    assert "--aptopt=X 1" in command and any("/d/*.deb" in word for word in command)
    assert not any("/debs" in word for word in packages.mmdebstrap(BOOKWORM, "t.tar", "/h"))


def test_vpps_package_changes_neither_the_builder_nor_how_a_box_starts() -> None:
    """Its installation runs sysctl, and wants vpp.service and 2 GiB of hugepages at each start."""
    command = packages.mmdebstrap(BOOKWORM, "t.tar", "/h", debs="/d")
    (install,) = (word for word in command if "apt-get install" in word)
    assert "VPP_INSTALL_SKIP_SYSCTL=1 apt-get" in install
    last = [word for word in command if word.startswith("--customize-hook=")][-1]
    assert "multi-user.target.wants/vpp.service" in last
    assert overlay.LINKS["/etc/sysctl.d/80-vpp.conf"] == "/dev/null"


def base_root() -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as root:

        def add(name: str, data: bytes | None = None, **of: object) -> None:
            member = tarfile.TarInfo(name)
            member.type = tarfile.REGTYPE if data is not None else tarfile.DIRTYPE
            member.size, member.mtime = len(data or b""), 2_000_000_000
            for key, value in of.items():
                setattr(member, key, value)
            root.addfile(member, io.BytesIO(data) if data is not None else None)

        for directory in (
            ".",
            "./etc",
            "./usr",
            "./usr/bin",
            "./boot",
            "./dev",
            "./var",
            "./var/log",
            "./var/lib/dpkg",
        ):
            add(directory)
        add("./dev/null", b"")
        add("./etc/hostname", b"builder\n")
        add("./etc/ssh/ssh_host_ed25519_key", b"secret")
        add("./usr/bin/ping", b"ping", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": "cap"})
        add("./usr/bin/ipshare", b"of Debian")
        add("./boot/vmlinuz-6.1", b"kernel")
        add("./var/log/dpkg.log", b"when it was built")
        add(
            "./var/lib/dpkg/status",
            b"Package: bird2\nStatus: install ok installed\nVersion: 2\nArchitecture: amd64\n",
        )
    out.seek(0)
    return out


def test_the_root_is_debians_and_ours_and_nobodys_secrets() -> None:
    ours = [
        archive.Entry("/usr/bin/ipshare", b"ours", 0o755),
        archive.Entry("/etc/hostname", b"ipshare\n"),
        archive.Entry("/etc/systemd/x.service", link="/dev/null"),
        archive.Entry("/data", mode=0o755),
        archive.Entry("/dev", mode=0o755),
    ]
    out = io.BytesIO()
    taken = archive.merged(base_root(), ours, 1_000_000_000, out)
    assert taken["/boot/vmlinuz-6.1"] == b"kernel" and b"bird2" in taken["/var/lib/dpkg/status"]
    out.seek(0)
    with tarfile.open(fileobj=out) as root:
        members = {member.name: member for member in root}
        names = root.getnames()
        assert len(names) == len(set(names)), "each once"
        assert not {
            "./etc/ssh/ssh_host_ed25519_key",
            "./boot/vmlinuz-6.1",
            "./dev/null",
            "./var/log/dpkg.log",
        } & set(names)
        assert {name.removeprefix("./") for name in names} >= {
            "data",
            "dev",
            "etc/systemd",
            "var/lib/dpkg/status",
        }
        found = {name: root.extractfile(member) for name, member in members.items() if member.isfile()}
        assert {name: file.read() for name, file in found.items() if file and "bin" in name} == {
            "./usr/bin/ping": b"ping",
            "./usr/bin/ipshare": b"ours",
        }
        assert members["./usr/bin/ping"].pax_headers["SCHILY.xattr.security.capability"] == "cap"
        assert max(member.mtime for member in members.values()) == 1_000_000_000


def test_the_initrds_archive_has_its_files(tmp_path: Path) -> None:
    image = archive.cpio(
        [archive.Entry("/scripts", mode=0o755), archive.Entry("/scripts/ipshare", b"mountroot", 0o755)]
    )
    assert len(image) % 512 == 0
    assert image.count(b"070701") == 3 and b"TRAILER!!!\0" in image
    at = image.index(b"scripts/ipshare\0")
    size = int(image[at - 110 + 54 : at - 110 + 62], 16)
    begin = at + len(b"scripts/ipshare\0")
    begin += -begin % 4
    assert image[begin : begin + size] == b"mountroot"


def test_the_bill_of_materials_names_debian_and_python(tmp_path: Path) -> None:
    status = "Package: bird2\nStatus: install ok installed\nVersion: 2.0\nArchitecture: amd64\n\n"
    status += "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n"
    (tmp_path / "numpy-2.dist-info").mkdir()
    (tmp_path / "numpy-2.dist-info/METADATA").write_text("Name: numpy\nVersion: 2.4\n\ntext\n")
    debs, wheels = sbom.debian(status), sbom.python(tmp_path)
    assert debs == [("bird2", "2.0", "amd64")] and wheels == [("numpy", "2.4")]
    text = sbom.cyclonedx("ipshare-appliance", "1", "2026-01-01T00:00:00Z", debs, wheels, "bookworm")
    assert text == sbom.cyclonedx("ipshare-appliance", "1", "2026-01-01T00:00:00Z", debs, wheels, "bookworm")
    record = json.loads(text)
    assert record["bomFormat"] == "CycloneDX"
    assert [part["purl"] for part in record["components"]] == [
        "pkg:deb/debian/bird2@2.0?arch=amd64&distro=bookworm",
        "pkg:pypi/numpy@2.4",
    ]
