"""What is no seed: refused before anything of it is on the box, and no start ends by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipshare.appliance import before, firstboot, network, seed, stick
from ipshare.cli.app import run
from tests.appliance_site import SITE
from tests.unit.test_appliance_box import KEY, seeded

HEAD = "#cloud-config\n"
FILE = "write_files: [{{path: {}, content: x}}]\n"
BOMB = HEAD + "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
BOMB += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)) + "hostname: *a8\n"


def ethernet(settings: str) -> str:
    return f"version: 2\nethernets: {{e: {{{settings}}}}}\n"


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("user-data", BOMB, "aliases are not taken, line 3"),
        ("user-data", HEAD + "hostname: a\nhostname: b\n", "a key is there twice, line 3"),
        ("user-data", HEAD + "1: x\n", "a key is no text, line 2"),
        ("network-config", "version: 2\nethernets: {}\n1: y\nfoo: x\n", "a key is no text"),
        ("user-data", HEAD + 'write_files: [{path: /etc/ipshare/a, content: "\\ud800"}]\n', "no YAML"),
        ("user-data", HEAD + FILE.format('"/etc/ipshare/a\\0b"'), "not below"),
        ("user-data", HEAD + FILE.format("/etc/ipshare/" + "a" * 300), "not below"),
        ("user-data", HEAD + FILE.format("/etc/ipshare/./site.toml"), "not below"),
        ("user-data", HEAD + FILE.format("/etc/ipshare//site.toml"), "not below"),
        ("user-data", HEAD + FILE.format("/etc/ipshare"), "not below"),
        (
            "user-data",
            HEAD
            + "write_files: [{path: /etc/ipshare/a/b, content: x}, {path: /etc/ipshare/a, content: x}]\n",
            "/etc/ipshare/a is a file, and a directory",
        ),
        (
            "user-data",
            HEAD + "write_files: [{path: /etc/ipshare/a, content: x}, {path: /etc/ipshare/a, content: y}]\n",
            "there twice",
        ),
        ("meta-data", f"local-hostname: {'a.' * 40}a\n", "hostname"),
        ("meta-data", "local-hostname: a.-b\n", "hostname"),
        ("network-config", ethernet('dhcp4: "false"'), "dhcp4 is true or false"),
        ("network-config", ethernet("nameservers: {addresses: [5]}"), "name server 5 is none"),
        ("network-config", ethernet("nameservers: {search: [example.com]}"), "nameservers has addresses"),
        ("network-config", ethernet("nameservers: 192.0.2.53"), "nameservers has addresses"),
        ("network-config", ethernet('gateway6: "fe80::1%x\\nDNS=192.0.2.1"'), "is none"),
    ],
)
def test_a_hostile_seed_changes_nothing_and_says_why(name: str, text: str, word: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert not firstboot.apply({**seeded(), name: text}, said.append, tmp_path)
    assert any(word in line for line in said), said
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_mistake_shows_no_line_of_the_seed() -> None:
    """Console and journal have it, and a support bundle."""
    broken = HEAD + 'write_files: [{path: /etc/ipshare/k, content: "hunter2}]\n'
    for _, mistakes in (seed.read({"user-data": broken}), stick.read({stick.NETWORK: broken})):
        assert mistakes and "hunter2" not in "".join(mistakes)


def test_a_file_that_has_no_place_on_this_box_is_seen_before_anything_is_written(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "etc/ipshare/certs").mkdir(parents=True)
    (tmp_path / "etc/ipshare/file").write_text("x")
    for path in ("/etc/ipshare/certs", "/etc/ipshare/file/below"):
        texts = seed.documents("c9", [KEY], {path: "x"}, None)
        assert not firstboot.apply(texts, said.append, tmp_path)
        assert not (tmp_path / "etc/hostname").exists() and path in said[-2]


def test_a_site_file_is_judged_beside_files_in_directories(tmp_path: Path) -> None:
    files = {firstboot.SITE: (SITE + '[[bindings_file]]\nname = "more"\npath = "more/bindings.csv"\n', 0o600)}
    assert any("bindings.csv" in line for line in firstboot.site_problems(files, tmp_path))
    firstboot.write(tmp_path / "etc/ipshare/more/bindings.csv", "global,to\n", 0o600)
    assert firstboot.site_problems(files, tmp_path) == []


def test_whatever_is_wrong_with_a_seed_the_box_has_a_name_and_a_host_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done, said = [], list[str]()

    def breaks(*_: object) -> None:
        raise TypeError("'<' not supported")

    monkeypatch.setattr(firstboot, "room_on_data", breaks)
    monkeypatch.setattr(firstboot, "take_seed", breaks)
    monkeypatch.setattr(firstboot, "name_machine", lambda say: done.append("name"))
    monkeypatch.setattr(firstboot, "host_key", lambda say: done.append("key"))
    firstboot.run(said.append)
    assert done == ["name", "key"]
    assert said == [f"{what}: '<' not supported; the settings before it stay" for what in ("/data", "seed")]


def test_a_damaged_record_of_the_version_before_does_not_end_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def breaks(*_: object) -> None:
        raise TypeError("'>' not supported")

    monkeypatch.setattr(before.slots, "release", lambda: {"version": "2.0"})
    monkeypatch.setattr(before, "follow", breaks)
    before.at_start(said.append)
    assert len(said) == 1 and "not supported" in said[0]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (
            "version: 2\nethernets: {e: {dhcp4: true}}\nbonds: {b: {interfaces: [e]}}\n",
            "bonds is not understood",
        ),
        ("version: 1\nethernets: {e: {dhcp4: true}}\n", "version 2 is understood"),
        ("network: 5\n", "version 2 is understood"),
        ("version: 2\n", "there are no ethernets"),
        ("a: 2026-13-45\n", "no YAML"),
        ("a: " + "[" * 20000, "no YAML"),
        (b"\xff\xfe", "is no text"),
    ],
)
def test_the_whole_network_config_is_judged_where_a_seed_is_written(
    text: str | bytes, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bonds, and an earlier version, were left out without a word: a box that nobody reaches."""
    (tmp_path / "network.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    target = tmp_path / "seed.img"
    words = ["appliance", "seed", "--hostname", "c1", "--network", str(tmp_path / "network.yaml")]
    assert run([*words, "-o", str(target)]) == 3
    assert word in capsys.readouterr().err and not target.exists()


def test_files_of_a_seed_are_text_and_each_is_given_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "der").write_bytes(b"\x30\x82\xff")
    words = ["appliance", "seed", "--hostname", "c1", "--json", "-o", str(tmp_path / "seed.img")]
    for option in (["--config"], ["--ssh-key"], ["--file", "k="]):
        given = (
            [*option[:-1], option[-1] + str(tmp_path / "der")]
            if option[-1] == "k="
            else [*option, str(tmp_path / "der")]
        )
        assert run([*words, *given]) == 3
        assert json.loads(capsys.readouterr().err)["error"]["message"].endswith("is no text")
    (tmp_path / "a").write_text("a")
    with (tmp_path / "image").open("wb") as file:
        file.truncate(64 << 20)
    assert run([*words, "--config", str(tmp_path / "image")]) == 3
    assert "longer than" in json.loads(capsys.readouterr().err)["error"]["message"]
    twice = ["--file", f"a={tmp_path}/a", "--file", f"a={tmp_path}/a"]
    assert run([*words, *twice]) == 2 and not (tmp_path / "seed.img").exists()


def test_aliases_of_who_calls_are_written_out() -> None:
    shared = {"dhcp4": True}
    texts = seed.documents("c1", [], {}, {"a": shared, "b": shared})
    found, mistakes = seed.read(texts)
    assert found is not None and not mistakes and len(found.networks or ()) == 2
    assert network.rendered({"version": 2, "ethernets": {"a": shared}}, mistakes) and not mistakes
