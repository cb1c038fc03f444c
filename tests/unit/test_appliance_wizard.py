"""The wizard and the console on a pseudo terminal: each answer is typed after its question."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipshare.appliance import console, firstboot, wizard
from ipshare.appliance.wizard import Ethernet, Left, Terminal
from ipshare.errors import Refused

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL29DkcKJoNFqV7oOrBYH+9drzn1aMFXZCBcPX3PAnfo operator@example"
CARDS = [
    Ethernet("ens3", "52:54:00:00:00:01", True),
    Ethernet("ens4", "52:54:00:00:00:02", False),
]


class Operator:
    """The other end of a terminal. Work at it runs in a thread; `result` is what came of it."""

    def __init__(self) -> None:
        self.end, inner = os.openpty()
        self.terminal = Terminal(os.fdopen(inner), os.fdopen(os.dup(inner), "w"))
        self.seen = ""
        self.result: list[object] = []

    def begin(self, work: Callable[[Terminal], object]) -> None:
        def run() -> None:
            try:
                self.result.append(work(self.terminal))
            except (Left, Refused) as error:
                self.result.append(error)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def reads(self, text: str) -> str:
        """Up to that text; pytest's own timeout ends a wait for what never comes."""
        while text not in self.seen:
            self.seen += os.read(self.end, 4096).decode()
        found, self.seen = self.seen.split(text, 1)
        return found

    def types(self, text: str) -> None:
        os.write(self.end, text.encode())

    def answers(self, *pairs: tuple[str, str]) -> None:
        for question, answer in pairs:
            self.reads(question)
            self.types(answer + "\n")

    def ended(self) -> object:
        self.thread.join()
        return self.result[0]


@pytest.fixture
def operator() -> Iterator[Operator]:
    who = Operator()
    yield who
    who.terminal.answers.close()
    who.terminal.questions.close()
    os.close(who.end)


def asked(operator: Operator, root: Path, keys: dict[str, str] | None = None) -> None:
    operator.begin(lambda terminal: wizard.ask(terminal, CARDS, lambda: keys or {}, root))


NUMBER = "Number [1]: "
BEGIN = [("[ipshare]: ", "c1"), (NUMBER, ""), (NUMBER, ""), (NUMBER, ""), ("one line: ", KEY)]


def test_answers_become_files_that_are_applied_as_a_seed(operator: Operator, tmp_path: Path) -> None:
    asked(operator, tmp_path)
    operator.answers(("[ipshare]: ", "c 1"))
    assert "hostname: 'c 1' is none" in operator.reads("[ipshare]: "), "asked again, with the reason"
    operator.types("c1\n")
    assert "ens4  52:54:00:00:00:02  no link" in operator.reads(NUMBER)
    operator.types("2\n")
    operator.answers((NUMBER, "2"), ("192.0.2.1/24: ", "192.0.2.1"))
    assert "no prefix length" in operator.reads("192.0.2.1/24: ")
    operator.types("192.0.2.1/24\n")
    operator.answers(("none): ", "203.0.113.1"))
    assert "is not in 192.0.2.0/24" in operator.reads("none): ")
    operator.types("192.0.2.254\n")
    operator.answers(("none): ", "192.0.2.53 2001:db8::53"), (NUMBER, ""), ("one line: ", "secret"))
    assert "no public key" in operator.reads("one line: ")
    operator.types(KEY + "\n")
    role = [(NUMBER, "2"), ("198.51.100.0/24: ", "198.51.100.0/24"), ("[A]: ", ""), ("/24: ", "10.1.0.0/24")]
    operator.answers(*role, ("[192.0.2.1]: ", ""), ("[C]: ", ""))
    shown = operator.reads(NUMBER)
    for line in ("--- hostname", "--- site.toml", "via: 192.0.2.254", KEY, 'distribution = "C"', "apply it"):
        assert line in shown, "all of it is shown before it is applied"
    assert not (tmp_path / "etc").exists(), "and nothing was changed before"
    operator.types("1\n")
    texts = operator.ended()
    assert isinstance(texts, dict)
    said: list[str] = []
    assert wizard.apply(texts, wizard.state(tmp_path), said.append, tmp_path)
    assert said == ["seed: plain files applied: c1, 1 SSH keys, 1 interfaces, 1 files"]
    text = (tmp_path / "etc/systemd/network/10-seed-ens4.network").read_text()
    assert "Address=192.0.2.1/24" in text and "Gateway=192.0.2.254" in text
    assert wizard.state(tmp_path)
    with pytest.raises(Refused, match="something else meanwhile"):
        wizard.apply(texts, "", said.append, tmp_path)


def test_management_only_makes_no_site_file(operator: Operator, tmp_path: Path) -> None:
    asked(operator, tmp_path)
    operator.answers(*BEGIN, (NUMBER, "1"), ("meant?", "1"))
    texts = operator.ended()
    assert isinstance(texts, dict) and set(texts) == {"hostname", "network.yaml", "authorized_keys"}
    assert firstboot.apply(texts, lambda _: None, tmp_path)
    assert "DHCP=yes" in (tmp_path / "etc/systemd/network/10-seed-ens3.network").read_text()
    assert not (tmp_path / "etc/ipshare").exists()


def test_a_site_that_check_refuses_is_asked_for_again(operator: Operator, tmp_path: Path) -> None:
    asked(operator, tmp_path)
    wrong = [("198.51.100.0/24: ", "198.51.100.0/24"), ("[A]: ", ""), ("/24: ", "10.1.0.0/28")]
    operator.answers(*BEGIN, (NUMBER, "3"), *wrong, ("come from: ", "10.1.0.1"))
    assert "site.toml:" in operator.reads("What is this box?")
    right = [("198.51.100.0/24: ", "198.51.100.0/24"), ("[A]: ", ""), ("/24: ", "10.1.0.0/24")]
    operator.answers((NUMBER, "3"), *right, ("come from: ", "10.1.0.1"), ("meant?", "1"))
    texts = operator.ended()
    assert isinstance(texts, dict) and 'endpoint = "A"' in texts["site.toml"]


def test_a_key_comes_from_a_stick(operator: Operator, tmp_path: Path) -> None:
    asked(operator, tmp_path, {"/dev/sdb1: bad.pub": "nonsense\n", "/dev/sdb1: me.pub": KEY + "\n"})
    operator.answers(*BEGIN[:3], (NUMBER, "2"), (NUMBER, "1"))
    assert "authorized_keys:1: no public key" in operator.reads("SSH key of")
    operator.answers((NUMBER, "2"), (NUMBER, "2"), (NUMBER, "1"), ("meant?", "1"))
    texts = operator.ended()
    assert isinstance(texts, dict) and texts["authorized_keys"] == KEY + "\n"


@pytest.mark.parametrize("answered", range(len(BEGIN) + 3))
def test_it_can_be_left_at_every_question(operator: Operator, tmp_path: Path, answered: int) -> None:
    asked(operator, tmp_path)
    operator.answers(*[*BEGIN, (NUMBER, "1"), (NUMBER, "3")][:answered])
    if answered < len(BEGIN) + 2:
        operator.reads([*BEGIN, (NUMBER, ""), (NUMBER, "")][answered][0])
        operator.types("\x04")
    assert isinstance(operator.ended(), Left)
    assert list(tmp_path.iterdir()) == []


def test_cards_are_read(tmp_path: Path) -> None:
    for name, kind, has_device in (("ens3", "1", True), ("lo", "772", False), ("ips-in", "1", False)):
        place = tmp_path / "sys/class/net" / name
        place.mkdir(parents=True)
        (place / "type").write_text(kind + "\n")
        (place / "address").write_text("52:54:00:00:00:01\n")
        (place / "operstate").write_text("up\n")
        if has_device:
            (place / "device").mkdir()
    assert wizard.ethernets(tmp_path) == CARDS[:1]


def at_console(operator: Operator, *, is_live: bool, told: list[str], done: list[str]) -> None:
    def set_up(terminal: Terminal) -> None:
        if terminal.line("set up? ") != "yes":
            raise Left
        told.append("digest")

    box = console.Box(
        is_live,
        lambda: "".join(told),
        lambda: ["c1", "agent  active"],
        set_up,
        lambda terminal: done.append("install"),
        done.append,
    )
    operator.begin(lambda terminal: console.run(terminal, box))


def test_the_console_of_a_box_that_nobody_told_anything_is_the_wizard(operator: Operator) -> None:
    told: list[str] = []
    at_console(operator, is_live=False, told=told, done=[])
    operator.answers(("press Enter to do it here.", ""), ("set up? ", "no"))
    operator.reads("nothing was changed")
    operator.answers(("press Enter to do it here.", ""), ("set up? ", "yes"))
    operator.reads("agent  active")
    operator.types("\n")
    assert "press Enter" not in operator.reads("agent  active"), "no shell, no wizard: what the box is"
    operator.types("\x04")
    assert operator.ended() is None


def test_the_console_of_the_live_system_is_a_menu(operator: Operator) -> None:
    done: list[str] = []
    at_console(operator, is_live=True, told=[], done=done)
    for number in "1349":
        operator.answers(("Type a number, and Enter.", number))
    operator.reads("Type a number, and Enter.")
    operator.types("\x04")
    assert operator.ended() is None
    assert done == ["install", "reboot", "poweroff"]


def test_addresses_are_read_past_the_gaps_that_ip_leaves() -> None:
    text = '[{}, {"ifname": "lo", "addr_info": [{}]}, '
    text += '{"ifname": "ens3", "addr_info": [{}, {"local": "192.0.2.1", "prefixlen": 24}]}]'
    assert console.addresses(text) == ["ens3  192.0.2.1/24"]
    assert console.addresses("") == []
