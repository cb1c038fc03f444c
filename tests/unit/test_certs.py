"""The certificate authority, its verbs, and who gets through a handshake."""

from __future__ import annotations

import json
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ipshare.certs import contexts as contexts_module
from ipshare.certs.authority import Authority, looked_at
from ipshare.certs.contexts import Contexts, Files
from ipshare.certs.identity import Identity, Role, identity, of_peer, parse
from ipshare.cli import main
from ipshare.errors import IpshareError, Refused
from tests.pki import Pki, at


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def meet(server: ssl.SSLContext, client: ssl.SSLContext) -> Identity:
    """A handshake in memory; who the client is for the server. Raises ssl.SSLError of either end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(to_server, to_client, server_side=True)
    other = client.wrap_bio(to_client, to_server)
    waiting = [other, one]
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return of_peer(one.getpeercert())
    raise AssertionError("the handshake does not end")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_private_and_never_made_twice(pki: Pki) -> None:
    node = pki.file("node", "a1")
    assert (mode(pki.folder / "ca"), mode(pki.folder / "ca/ca.key"), mode(node)) == (0o700, 0o600, 0o600)
    before = node.read_bytes()
    with pytest.raises(Refused, match="is there already"):
        pki.authority.issue(identity("node", "a1"), node)
    with pytest.raises(Refused, match="is there already"):
        pki.authority.init("again")
    assert node.read_bytes() == before
    assert not list(pki.folder.rglob("*.new"))


def test_a_rotated_certificate_is_another_of_the_same_holder(pki: Pki) -> None:
    node = pki.file("node", "a1")
    before = node.read_bytes()
    old, new = pki.authority.rotate(node)
    assert old.identity == new.identity == Identity(Role.NODE, "a1")
    assert old.serial != new.serial
    assert before.split(b"-----")[2] != node.read_bytes().split(b"-----")[2], "another key, too"
    assert mode(node) == 0o600


def test_only_what_the_authority_gave_out_is_rotated(pki: Pki) -> None:
    with pytest.raises(Refused, match="not issued by"):
        pki.authority.rotate(pki.forged("node", "a1").certificate)
    with pytest.raises(Refused, match="was revoked"):
        pki.authority.rotate(pki.taken_back("node", "a1").certificate)


def test_revoking_is_by_holder_or_by_serial_number_and_once(pki: Pki) -> None:
    pki.file("node", "a1"), pki.file("node", "a2")
    assert len(pki.authority.revoke(who=identity("node", "a1"))) == 1
    assert pki.authority.revoke(who=identity("node", "a1")) == []
    states = {str(one.identity): one.state for one in pki.authority.issued()}
    assert states == {"node a1": "revoked", "node a2": "valid"}
    with pytest.raises(Refused, match="nothing was issued"):
        pki.authority.revoke(who=identity("node", "a3"))


def test_what_is_out_of_its_time_says_so(pki: Pki) -> None:
    assert looked_at(pki.expired("node", "a1").certificate).state == "expired"
    assert looked_at(pki.early("node", "a1").certificate).state == "early"


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    ends = authority.init("short", days=10).ends
    assert authority.issue(identity("node", "a"), tmp_path / "a.pem", days=400).ends == ends


@pytest.mark.parametrize(("role", "name"), [("root", "a"), ("node", ""), ("node", "a/b"), ("node", "a" * 64)])
def test_no_certificate_says_that(role: str, name: str) -> None:
    with pytest.raises(IpshareError, match="cannot be in a certificate"):
        identity(role, name)


def test_a_certificate_that_names_two_names_nobody() -> None:
    two = {"subjectAltName": (("URI", "ipshare://node/a"), ("URI", "ipshare://director/d"))}
    for certificate in (two, None, {}, {"subjectAltName": (("DNS", "ipshare://node/a\n"),)}):
        with pytest.raises(Refused):
            of_peer(certificate)
    assert parse("ipshare://node/a\n") is None


def test_good_certificates_meet(pki: Pki) -> None:
    server = Contexts(pki.files("node", "a1"), server=True)
    client = Contexts(pki.files("director", "d1"), server=False)
    assert meet(server.current(), client.current()) == Identity(Role.DIRECTOR, "d1")


@pytest.mark.parametrize("kind", ["expired", "early", "forged", "taken_back"])
@pytest.mark.parametrize("whose", ["client", "server"])
def test_bad_certificates_do_not(pki: Pki, kind: str, whose: str) -> None:
    good, bad = (pki.files, getattr(pki, kind))
    server = Contexts((bad if whose == "server" else good)("node", "a1"), server=True)
    client = Contexts((bad if whose == "client" else good)("director", "d1"), server=False)
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(server.current(), client.current())


def test_neither_none_nor_old_tls_gets_in(pki: Pki) -> None:
    server = Contexts(pki.files("node", "a1"), server=True)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        meet(server.current(), bare)
    bare.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL|ALERT_PROTOCOL_VERSION"):
        meet(server.current(), bare)


def test_files_are_read_again_when_they_change(pki: Pki) -> None:
    server = Contexts(pki.files("node", "a1"), server=True)
    client = Contexts(pki.files("director", "d1"), server=False)
    first = server.current()
    assert server.current() is first
    pki.authority.revoke(who=identity("director", "d1"))
    assert server.current() is not first
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        meet(server.current(), client.current())


def test_a_broken_file_leaves_what_was_and_is_told(pki: Pki) -> None:
    contexts = Contexts(pki.files("node", "a1"), server=True)
    first = contexts.current()
    pki.revoked.write_text("nonsense")
    assert contexts.current() is first
    assert "revoked.pem" in contexts.trouble
    with pytest.raises(IpshareError, match="revoked.pem"):
        Contexts(pki.files("node", "a1"), server=True).current()


def test_a_key_that_others_may_read_is_not_used(pki: Pki) -> None:
    files = pki.files("node", "a1")
    files.certificate.chmod(0o640)
    with pytest.raises(Refused, match="0640"):
        Contexts(files, server=True).current()
    with pytest.raises(IpshareError, match="No such file"):
        Contexts(Files(files.ca, pki.folder / "none.pem"), server=True).current()


def test_the_verbs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPSHARE_CA", str(tmp_path / "ca"))

    def said(*words: str, code: int = 0) -> str:
        assert main(["cert", *words]) == code
        out = capsys.readouterr()
        return out.out + out.err

    assert "hint: make it: ipshare cert init" in said("issue", "node", "a1", code=3)
    assert "made the authority" in said("init")
    assert "is there already" in said("init", code=3)
    assert "node-a1.pem: node a1, valid until" in said("issue", "node", "a1")
    assert "ipshare cert rotate" in said("issue", "node", "a1", code=3)
    old = json.loads(said("show", "--json"))[0]
    assert (old["role"], old["name"], old["state"]) == ("node", "a1", "valid")
    new = json.loads(said("rotate", "node-a1.pem", "--revoke", "--json"))
    assert new["serial"] == json.loads(said("show", "node-a1.pem", "--json"))[0]["serial"] != old["serial"]
    states = {one["serial"]: one["state"] for one in json.loads(said("show", "--json"))}
    assert states == {old["serial"]: "revoked", new["serial"]: "valid"}
    assert "copy" in said("revoke", "serial", new["serial"])
    assert "it was revoked before" in said("revoke", "node", "a1")
    assert "1 to 36500" in said("issue", "node", "a2", "--days", "0", code=3)
    (tmp_path / "ca/ca.key").write_text("gone")
    assert "is no private key" in said("issue", "node", "a2", code=1)
    assert not (tmp_path / "node-a2.pem").exists()


def test_a_clock_that_is_behind_takes_new_certificates(pki: Pki) -> None:
    made = looked_at(pki.file("node", "a1"))
    with at(datetime.now(UTC) - timedelta(minutes=50)):
        assert looked_at(pki.file("node", "a1")).state == "valid"
    assert made.begins < datetime.now(UTC)


def test_a_file_that_could_not_be_read_for_a_moment_is_read_again(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of revocations changed while the process had no descriptor left: it counts all the same."""
    monkeypatch.setattr(contexts_module, "AGAIN_S", 0.0)
    server = Contexts(pki.files("node", "a1"), server=True)
    client = Contexts(pki.files("director", "d1"), server=False)
    first = server.current()
    pki.authority.revoke(who=identity("director", "d1"))
    with monkeypatch.context() as moment:
        moment.setattr(contexts_module, "_context", _too_many_open_files)
        assert server.current() is first and "descriptors" in server.trouble
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        meet(server.current(), client.current())
    assert server.trouble == ""


def _too_many_open_files(*_: object, **__: object) -> ssl.SSLContext:
    raise IpshareError("no descriptors are left")


def test_nothing_is_written_through_a_link_or_in_its_place(tmp_path: Path) -> None:
    pki, outside = Pki(tmp_path), tmp_path / "outside"
    outside.write_text("as it was")
    file = pki.file("node", "a1")
    before, link, dangling = file.read_bytes(), tmp_path / "link.pem", tmp_path / "dangling.pem"
    link.symlink_to(file)
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(Refused, match="is a symbolic link"):
        pki.authority.rotate(link)
    for name in (link, dangling):
        with pytest.raises(Refused, match="is a symbolic link"):
            pki.authority.issue(identity("node", "b1"), name)
    assert file.read_bytes() == before and link.is_symlink() and not (tmp_path / "nowhere").exists()
    assert len(pki.authority.issued()) == 1, "nothing was given out"
    planted = file.with_name(f".{file.name}.new")  # where the new text is written first
    planted.symlink_to(outside)
    pki.authority.rotate(file)
    assert outside.read_text() == "as it was" and not planted.is_symlink()
    assert file.read_bytes() != before and file.stat().st_mode & 0o7777 == 0o600
