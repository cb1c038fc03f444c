"""The ISO: a live system with a menu, an installation to an empty disk, the wizard on that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.appliance_built import slot
from tests.appliance_qemu import Box, ssh_key


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    place = tmp_path_factory.mktemp("iso")
    iso = slot().with_suffix(".iso")
    machine = Box(place, None, None, ssh_key(place), name="iso", size="3G", iso=iso)
    machine.power_on()
    yield machine
    machine.cut_power()


def answers(box: Box, *pairs: tuple[str, str]) -> None:
    for question, answer in pairs:
        box.says(question)
        box.types(answer)


def test_the_menu_leads_to_an_installed_disk(box: Box) -> None:
    said = box.says("Type a number, and Enter.")
    assert "Live system of the installation medium" in said, said
    box.types("1")
    said = box.says("Number [1]: ")
    assert "/dev/vda" in said and "3.2 GB" in said, said
    box.types("1")
    answers(box, ("write over /dev/vda: ", "vda"), ("take the medium out", ""))
    box.says("Type a number, and Enter.")
    box.types("3")
    assert "slot a" in box.says(": healthy")


def test_the_wizard_sets_up_what_was_installed(box: Box) -> None:
    box.types("")
    answers(
        box,
        ("Host name [ipshare]: ", "c1"),
        ("Number [1]: ", "1"),  # the Ethernet
        ("Number [1]: ", "1"),  # DHCP
        ("Number [1]: ", "1"),  # a key is pasted
        ("one line: ", box.key.with_suffix(".pub").read_text().strip()),
        ("Number [1]: ", "2"),  # a distribution point
        ("198.51.100.0/24: ", "198.51.100.0/24"),
        ("end point [A]: ", ""),
        ("for 198.51.100.0/24: ", "10.1.0.0/24"),
        ("come from: ", "192.0.2.1"),
        ("distribution point [C]: ", ""),
        ("Is that meant?", "1"),
    )
    box.says("applied: c1, 1 SSH keys, 1 interfaces, 1 files")
    box.says("agent  active")
    assert box.ssh("hostname; cat /run/ipshare-slot/release.json").startswith("c1\n")
    assert box.ssh("systemctl is-active ipshare-agent@site").strip() == "active"
