"""Which slot grub.cfg starts, played by bash in the words that both know; and what Linux makes of a start
that took the place of another."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ipshare.appliance import grub
from ipshare.appliance.slots import Boot

PLAYED = """
set() { printf -v "${1%%=*}" %s "${1#*=}"; }
load_env() { good=$GOOD trial=$TRIAL tries=$TRIES; }
save_env() { echo "saved ${!1}"; }
linux() { [[ " $UNREADABLE " != *" $1 "* ]] && with="${*:2}"; }
initrd() { [[ " $UNREADABLE " != *" $1 "* ]] && with="$with initrd"; }
boot() { echo "$with"; exit; }
regexp() { disk=hd0; }
serial() { :; }; terminal_input() { :; }; terminal_output() { :; }; sleep() { :; }
reboot() { echo again; exit; }
root=hd0,gpt2
"""
A, B = "hd0,gpt3", "hd0,gpt4"


def started(boot: Boot, *unreadable: str) -> tuple[str, str, bool, list[str]]:
    """The slot, whether it is told that it runs instead, whether it has its initrd; what was saved."""
    script = PLAYED + grub.config().replace("($part)", "$part")
    known = {"GOOD": boot.good, "TRIAL": boot.trial, "TRIES": str(boot.tries)}
    known |= {"UNREADABLE": " ".join(unreadable)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=known)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("ipshare: ")]
    assert not done.stderr, done.stderr
    words = lines[-1].split()
    slot = next((word.removeprefix("ipshare.slot=") for word in words if "slot=" in word), "")
    return slot, "instead" if grub.INSTEAD in words else "", words[-1] == "initrd", lines[:-1]


def test_the_slot_on_trial_is_started_as_long_as_it_has_tries() -> None:
    assert started(Boot("a")) == ("a", "", True, [])
    assert started(Boot("b")) == ("b", "", True, [])
    assert started(Boot("a", "b", 2)) == ("b", "", True, ["saved 1"])
    assert started(Boot("a", "b", 1)) == ("b", "", True, ["saved 0"])
    assert started(Boot("a", "b", 0)) == ("a", "", True, [])
    assert started(Boot("", "z", 7)) == ("a", "", True, []), "variables that are damaged"


@pytest.mark.parametrize("part", ["vmlinuz", "initrd.img"])
def test_what_cannot_be_read_is_left_for_the_other_slot(part: str) -> None:
    """A kernel without its initrd panics, starts again, and panics: for ever, if its slot is the good one."""
    assert started(Boot("a"), f"{A}/{part}") == ("b", "instead", True, [])
    assert started(Boot("a", "b", 2), f"{B}/{part}") == ("a", "instead", True, ["saved 1"])
    assert started(Boot("b"), f"{A}/{part}") == ("b", "", True, [])
    assert started(Boot("a"), f"{A}/{part}", f"{B}/{part}")[0] == "", "the machine starts again"


def test_a_healthy_slot_in_the_place_of_one_that_cannot_be_read_is_the_good_one() -> None:
    """Otherwise no update could ever be written: the good slot is not overwritten."""
    assert Boot("a").judged("b", True, instead=True) == (Boot("b"), "instead")
    assert Boot("a").judged("b", False, instead=True) == (Boot("a"), "kept")
    assert Boot("a", "b", 1).judged("a", True, instead=True) == (Boot("a"), "rolled-back")
    assert Boot("a").judged("a", True, instead=True) == (Boot("a"), "kept")
    assert Boot("a", "b", 0).judged("b", True, instead=True) == (Boot("b"), "good")
    assert Boot("a").judged("b", True) == (Boot("a"), "kept"), "a way back that waits for its start"


@pytest.mark.parametrize("unreadable", ["", "slot/vmlinuz", "slot/initrd.img"])
def test_a_medium_that_cannot_be_read_says_so(unreadable: str) -> None:
    text = grub.live("2026-01-01-00-00-00-00").replace("(slot)", "slot").replace("($root)", "$root")
    script = PLAYED + "loopback() { :; }\n" + text
    known = {"UNREADABLE": unreadable}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=known)
    assert ("this medium cannot be read" in done.stdout) == bool(unreadable)
    assert done.stdout.endswith("again\n" if unreadable else " initrd\n") and not done.stderr


@pytest.mark.skipif(shutil.which("grub-script-check") is None, reason="grub-common is not installed")
@pytest.mark.parametrize("text", [grub.config("quiet"), grub.live("2026-01-01-00-00-00-00"), grub.early()])
def test_grub_takes_its_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "grub.cfg").write_text(text)
    subprocess.run(["grub-script-check", str(tmp_path / "grub.cfg")], check=True)
