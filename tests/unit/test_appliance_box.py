"""What a box makes of a seed and of an update: applied as a whole, refused with every reason, interrupted
anywhere."""

from __future__ import annotations

import base64
import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.appliance import bundle, document, firstboot, grub, network, overlay, seed, slots
from ipshare.errors import IpshareError, Refused
from tests.appliance_site import SITE

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL29DkcKJoNFqV7oOrBYH+9drzn1aMFXZCBcPX3PAnfo operator@example"
ETHERNETS = {
    "mgmt": {"match": {"macaddress": "52:54:00:00:00:01"}, "dhcp4": True},
    "ens4": {
        "addresses": ["192.0.2.1/24", "2001:db8::1/64"],
        "routes": [
            {"to": "default", "via": "192.0.2.254"},
            {"to": "10.1.0.0/24", "via": "192.0.2.2", "metric": 5},
        ],
        "nameservers": {"addresses": ["192.0.2.53"]},
        "mtu": 9000,
    },
}


def seeded(site: str = SITE, hostname: str = "c1") -> dict[str, str]:
    return seed.documents(hostname, [KEY], {"/etc/ipshare/site.toml": site}, ETHERNETS)


def test_a_seed_is_applied_once_and_what_changed_later_stays(tmp_path: Path) -> None:
    said: list[str] = []
    assert firstboot.apply(seeded(), said.append, tmp_path)
    assert (tmp_path / "etc/hostname").read_text() == "c1\n"
    assert (tmp_path / "etc/ssh/authorized_keys.d/root").read_text() == KEY + "\n"
    site = tmp_path / "etc/ipshare/site.toml"
    assert site.read_text() == SITE and site.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "etc/resolv.conf").read_text() == "nameserver 192.0.2.53\n"
    text = (tmp_path / "etc/systemd/network/10-seed-ens4.network").read_text()
    assert "Name=ens4" in text and "Address=192.0.2.1/24" in text and "Gateway=192.0.2.254" in text
    assert "Destination=10.1.0.0/24" in text and "MTUBytes=9000" in text
    assert (
        "MACAddress=52:54:00:00:00:01" in (tmp_path / "etc/systemd/network/10-seed-mgmt.network").read_text()
    )
    site.write_text(SITE + "# by hand\n")
    assert firstboot.apply(seeded(), said.append, tmp_path)
    assert site.read_text().endswith("# by hand\n"), "the same seed again changes nothing"
    assert firstboot.apply(seeded(hostname="c2"), said.append, tmp_path)
    assert site.read_text() == SITE and (tmp_path / "etc/hostname").read_text() == "c2\n", "another one does"


def test_a_site_with_mistakes_leaves_the_one_before_it(tmp_path: Path) -> None:
    said: list[str] = []
    site = tmp_path / "etc/ipshare/site.toml"
    broken = SITE.replace('to = "A"', 'to = "Z"')
    assert not firstboot.apply(seeded(broken), said.append, tmp_path)
    assert not site.exists() and any("no agent" in line for line in said)
    assert any("site.toml:15" in line and "Z" in line for line in said), said
    assert (tmp_path / firstboot.KEYS).exists(), "management comes up"
    assert firstboot.apply(seeded(hostname="c2"), said.append, tmp_path)
    assert not firstboot.apply(seeded("[node", hostname="c3"), said.append, tmp_path)
    assert site.read_text() == SITE and "the one before it stays" in said[-2]


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("user-data", "#cloud-config\nssh_authorized_keys: [\n", "no YAML"),
        ("user-data", "#cloud-config\nbirthday: 2026-13-45\n", "no YAML"),
        ("user-data", "#!/bin/sh\nreboot\n", "scripts are not run"),
        ("user-data", "#cloud-config\npassword: secret\nruncmd: [reboot]\n", "password is not understood"),
        (
            "user-data",
            "#cloud-config\nssh_authorized_keys: ['command=\"x\" ssh-rsa AAAA']\n",
            "list of public keys",
        ),
        ("user-data", "#cloud-config\nwrite_files: [{path: /etc/passwd, content: x}]\n", "not below"),
        (
            "user-data",
            "#cloud-config\nwrite_files: [{path: /etc/ipshare/../passwd, content: x}]\n",
            "not below",
        ),
        ("meta-data", "local-hostname: 'a b'\n", "hostname"),
        ("meta-data", "- 1\n", "not a table"),
        ("network-config", "version: 1\nconfig: []\n", "version 2"),
        ("network-config", "version: 2\nethernets: {e: {addresses: [192.0.2.1]}}\n", "no prefix length"),
        (
            "network-config",
            "version: 2\nethernets: {e: {addresses: [300.0.2.1/24], bond: x}}\n",
            "bond is not understood",
        ),
        ("network-config", "version: 2\nethernets: {'e\\n[x]': {}}\n", "not an interface"),
        ("network-config", 'version: 2\nethernets: {"../x": {}}\n', "not an interface"),
        ("network-config", "x" * (document.MOST + 1), "longer"),
    ],
)
def test_a_broken_seed_changes_nothing_and_says_why(name: str, text: str, word: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert firstboot.apply(seeded(), said.append, tmp_path)
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert not firstboot.apply({**seeded(hostname="c9"), name: text}, said.append, tmp_path)
    assert any(word in line for line in said), said
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_host_key_is_made_once_and_it_is_the_one_that_sshd_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    key = tmp_path / overlay.HOST_KEY
    key.parent.mkdir(parents=True)
    key.touch()  # as the power may have left it
    firstboot.host_key(said.append, tmp_path)
    made = key.read_text()
    assert made.startswith("-----BEGIN OPENSSH PRIVATE KEY-----") and key.stat().st_mode & 0o777 == 0o600
    assert key.with_name(key.name + ".pub").read_text().startswith("ssh-ed25519 ")
    assert f"HostKey /{overlay.HOST_KEY}\n" in overlay.PLAIN["/etc/ssh/sshd_config.d/ipshare.conf"]
    firstboot.host_key(said.append, tmp_path)
    assert key.read_text() == made and not said


def test_a_seed_cut_anywhere_is_judged_not_crashed_on() -> None:
    texts = seeded()
    for name, text in texts.items():
        for end in range(0, len(text), 7):
            found, mistakes = seed.read({**texts, name: text[:end]})
            assert (found is None) == bool(mistakes)


def test_a_seed_that_the_box_would_refuse_is_not_written() -> None:
    with pytest.raises(Refused, match="list of public keys"):
        seed.documents("c1", ["no key"], {}, None)
    mistakes: list[str] = []
    network.rendered({"version": 2, "ethernets": {"e": {"routes": [{"to": "default"}], "mtu": -1}}}, mistakes)
    assert len(mistakes) == 2


@pytest.mark.skipif(shutil.which("mformat") is None, reason="mtools is not installed")
def test_the_seed_volume_has_its_label_and_its_files(tmp_path: Path) -> None:
    seed.write_image(seeded(), tmp_path / "seed.img")
    image = str(tmp_path / "seed.img")
    assert (tmp_path / "seed.img").stat().st_mode & 0o77 == 0, "it may hold keys"
    label = subprocess.run(
        ["mlabel", "-s", "-i", image, "::"], capture_output=True, text=True, check=True
    ).stdout
    assert "CIDATA" in label
    for name, text in seeded().items():
        done = subprocess.run(
            ["mcopy", "-i", image, f"::/{name}", "-"], capture_output=True, text=True, check=True
        )
        assert done.stdout == text


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """Files in place of a box's devices: environment, slot b; a key, a slot image and its bundle."""
    (tmp_path / "env").write_bytes(slots.Boot("a").block())
    (tmp_path / "b").write_bytes(b"old" * 2_000_000)
    (tmp_path / "slot").write_bytes((slots.SQUASHFS + bytes(range(4, 256))) * 12_000)
    bundle.make_key(tmp_path / "key", tmp_path / "key.pub")
    bundle.make(tmp_path / "slot", "2.0", tmp_path / "key", tmp_path / "update")
    return tmp_path


def put(box: Path, update: str = "update", slot: str = "b") -> bundle.Manifest:
    key = bundle.public_key((box / "key.pub").read_bytes())
    with (box / update).open("rb") as file:
        return bundle.install(file, key, box / "env", slot, box / "b", lambda text: None)


def test_an_update_is_written_and_put_on_trial(box: Path) -> None:
    assert put(box).version == "2.0"
    assert (box / "b").read_bytes().startswith((box / "slot").read_bytes())
    assert slots.look(box / "env") == slots.Boot("a", "b", grub.TRIES)
    assert (box / "key").stat().st_mode & 0o77 == 0
    with pytest.raises(Refused, match="exists"):
        bundle.make_key(box / "key", box / "key.pub")


def test_an_update_that_is_not_signed_by_our_key_writes_nothing(box: Path) -> None:
    bundle.make_key(box / "theirs", box / "theirs.pub")
    bundle.make(box / "slot", "2.0", box / "theirs", box / "foreign")
    good = (box / "update").read_bytes()
    magic, line, signature, payload = good.split(b"\n", 3)
    size = line.replace(b'"size": 3072000', b'"size": 3071999')
    assert size != line
    (box / "edited").write_bytes(b"\n".join((magic, size, signature, payload)))
    (box / "unsigned").write_bytes(b"\n".join((magic, line, b"", payload)))
    (box / "short").write_bytes(b"\n".join((magic, line, base64.b64encode(b"1"), payload)))
    (box / "head").write_bytes(good[:100])
    (box / "other").write_bytes(b"\x7fELF" + good)
    before = (box / "b").read_bytes()
    for name in ("foreign", "edited", "unsigned", "short", "head", "other"):
        with pytest.raises(Refused):
            put(box, name)
    assert (box / "b").read_bytes() == before and slots.look(box / "env") == slots.Boot("a")


def test_a_cut_or_changed_payload_is_never_tried(box: Path) -> None:
    """Also not if the slot was on trial with what was there before: that is withdrawn first."""
    good = (box / "update").read_bytes()
    (box / "cut").write_bytes(good[:-1000])
    (box / "changed").write_bytes(good[:-1000] + b"x" + good[-999:])
    for name, word in (("cut", "ends early"), ("changed", "not what was signed")):
        slots.store(box / "env", slots.Boot("a").on_trial("b"))
        with pytest.raises(IpshareError, match=word):
            put(box, name)
        assert slots.look(box / "env") == slots.Boot("a")
        assert is_empty(box), "so nobody goes back to it either"


def is_empty(box: Path) -> bool:
    """The slot has no beginning."""
    return (box / "b").read_bytes().startswith(bytes(bundle.BEGINNING))


def test_the_power_may_go_at_any_write(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut before each piece of the slot, and before each store of the variables: the old slot starts, and the
    other one has its beginning only if it is whole."""
    starts = []

    class NoPower(Exception):
        pass

    for cut in range(9):
        (box / "b").write_bytes(b"old" * 2_000_000)
        slots.store(box / "env", slots.Boot("a").on_trial("b"))
        left = [cut]

        def count(left: list[int] = left) -> None:
            if not left[0]:
                raise NoPower
            left[0] -= 1

        def store(path: Path, boot: slots.Boot, *, store=slots.store, count=count) -> None:  # type: ignore
            count()
            store(path, boot)

        def all_(disk, piece, *, write=bundle._all, count=count) -> None:  # type: ignore[no-untyped-def]
            count()
            write(disk, piece)

        with monkeypatch.context() as patch:
            patch.setattr(bundle.slots, "store", store)
            patch.setattr(bundle, "_all", all_)
            try:
                put(box)
            except NoPower:
                starts.append((slots.look(box / "env"), is_empty(box)))
    on_trial = (slots.Boot("a", "b", grub.TRIES), False)
    whole, empty = (slots.Boot("a"), False), (slots.Boot("a"), True)
    assert starts == [on_trial, whole, *[empty] * 4, whole], (
        "nothing yet; three pieces, a beginning; all of it"
    )
    assert slots.look(box / "env") == slots.Boot("a", "b", grub.TRIES)


def test_the_way_back_is_a_trial_of_the_slot_before(box: Path) -> None:
    """And the way back from there, if what was gone back to turns out good, another one."""
    env = box / "env"
    slots.store(env, slots.Boot("b"))
    assert slots.back(env, "b", "1.0") == "a"
    assert slots.look(env) == slots.Boot("b", "a", grub.TRIES)
    slots.store(env, slots.look(env).judged("a", healthy=True)[0])
    assert slots.back(env, "a", "2.0") == "b" and slots.look(env) == slots.Boot("a", "b", grub.TRIES)


def test_the_way_back_from_a_trial_that_is_not_judged_yet_ends_it(box: Path) -> None:
    slots.store(box / "env", slots.Boot("a", "b", 1))
    assert slots.back(box / "env", "b", "1.0") == "a" and slots.look(box / "env") == slots.Boot("a")


def test_there_is_no_way_back_to_nothing_and_none_over_an_update_that_waits(box: Path) -> None:
    for boot, have, why in (
        (slots.Boot("a"), "", "slot b has no version that could be started"),
        (slots.Boot("a", "b", 2), "2.0", "slot b has 2.0, which waits for its trial"),
    ):
        slots.store(box / "env", boot)
        with pytest.raises(Refused, match=why):
            slots.back(box / "env", "a", have)
        assert slots.look(box / "env") == boot


def test_a_slot_without_a_beginning_has_no_version(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not even mounted; what can be mounted says its version, unless that is cut or gone."""

    @contextlib.contextmanager
    def mounted(target: Path, kind: str, options: str) -> Iterator[Path]:
        yield box

    monkeypatch.setattr(slots, "mounted", mounted)
    (box / "release.json").write_text('{"version": "1.0"}')
    (box / "b").write_bytes(bytes(10_000))
    assert slots.version(box / "b") == ""
    (box / "b").write_bytes(slots.SQUASHFS + bytes(10_000))
    assert slots.version(box / "b") == "1.0"
    for text in ('{"vers', "[]", "{}"):
        (box / "release.json").write_text(text)
        assert slots.version(box / "b") == ""


def test_updates_that_do_not_fit_are_refused(box: Path) -> None:
    (box / "b").write_bytes(b"small")
    with pytest.raises(Refused, match="the slot"):
        put(box)
    with pytest.raises(Refused, match="good one"):
        put(box, slot="a")
