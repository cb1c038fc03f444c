"""Who gets in over HTTP, who may what, and what is written down about it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from ipshare import durable
from ipshare.cli import main
from ipshare.errors import IpshareError, NoPrivilege, Refused
from ipshare.web import tokens, who
from ipshare.web.audit import Trail, entry
from ipshare.web.server_peer import NOBODY
from ipshare.web.who import MOST_FAILURES, Doorkeeper, Limiter
from tests.web_world import WebWorld, serving

MOVE = {"change": {"do": "move", "moves": {"shop": "a1"}}}
MATCH = {"If-Match": '"1"'}


def audit(world: WebWorld) -> list[dict[str, Any]]:
    return world.server.hub.trail.newest(100)


# ---- tokens ---------------------------------------------------------------------


def test_a_token_is_shown_once_and_kept_as_a_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tokens.json"
    ask = ["--file", str(file)]
    assert main(["token", "add", "alice", "--role", "operator", *ask]) == 0
    secret = capsys.readouterr().out.strip()
    assert secret.startswith("ips_") and len(secret) == 47
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert main(["token", "add", "alice", "--role", "viewer", *ask]) == 3
    assert main(["token", "add", "a/b", "--role", "viewer", *ask]) == 3
    assert main(["token", "add", "old", "--role", "viewer", "--days", "0", *ask]) == 3
    capsys.readouterr()
    assert main(["token", "list", "--json", *ask]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["role"], found["state"]) == ("alice", "operator", "valid")
    assert main(["token", "revoke", "alice", *ask]) == 0
    assert main(["token", "revoke", "alice", *ask]) == 3
    assert tokens.read(file) == []


def test_a_file_of_tokens_that_others_may_read_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    secret, _ = tokens.add(file, "alice", "admin", 1)
    kept = tokens.TokenFile(file)
    assert kept.holder(secret) is not None
    file.chmod(0o640)
    with pytest.raises(Refused):
        tokens.read(file)
    assert kept.holder(secret) is None
    assert "others than its owner" in kept.trouble
    file.chmod(0o600)
    assert kept.holder(secret) is not None
    for text in ("", "[]", "{}", '{"tokens": 3}', '{"tokens": [{"name": "x"}]}', "[" * 100_000):
        file.write_text(text)
        with pytest.raises(IpshareError):
            tokens.read(file)
    row = json.dumps(
        {"tokens": [{"name": "x", "role": "god", "sha256": "0" * 64, "created": "", "expires": ""}]}
    )
    file.write_text(row)
    with pytest.raises(IpshareError):
        tokens.read(file)
    if os.geteuid() != 0:
        file.chmod(0)
        with pytest.raises(NoPrivilege):
            tokens.read(file)


def test_a_file_of_tokens_that_could_not_be_read_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "AGAIN_S", 0.0)
    secret, _ = tokens.add(tmp_path / "t", "alice", "admin", 1)
    kept = tokens.TokenFile(tmp_path / "t")

    def fails(_path: Path) -> list[tokens.Token]:
        raise NoPrivilege("cannot read it: too many open files")

    with monkeypatch.context() as moment:
        moment.setattr(tokens, "read", fails)
        assert kept.holder(secret) is None
    assert kept.holder(secret) is not None, "the file is as it was"


def test_an_expired_token_is_none(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    secret, made = tokens.add(file, "alice", "admin", 1)
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    file.write_text(file.read_text().replace(made.expires, past))
    assert tokens.TokenFile(file).holder(secret) is None


def test_failures_are_counted_by_address_and_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = Limiter()
    for _ in range(MOST_FAILURES):
        assert limiter.failed("198.51.100.1", 0.0) == 0
    assert limiter.failed("198.51.100.1", 1.0) == who.PER_S - 1
    assert limiter.failed("198.51.100.2", 1.0) == 0
    assert limiter.failed("198.51.100.1", who.PER_S) == 0
    for number in range(MOST_FAILURES):
        assert limiter.failed(f"2001:db8::{number:x}", 0.0) == 0
    assert limiter.failed("2001:db8::ffff", 0.0) > 0, "a /64 is one caller"
    monkeypatch.setattr(who, "MOST_ADDRESSES", 10)
    for number in range(20):
        limiter.failed(f"192.0.2.{number}", 0.0)
    assert len(limiter._failures) == 10


def test_a_good_token_is_not_held_up_by_bad_ones(tmp_path: Path) -> None:
    secret, _ = tokens.add(tmp_path / "t", "alice", "viewer", 1)
    door = Doorkeeper(tokens.TokenFile(tmp_path / "t"))
    found = []
    for _ in range(MOST_FAILURES + 2):
        with pytest.raises(who.Failure) as refused:
            door.caller({"authorization": "Bearer ips_guess"}, NOBODY, "198.51.100.1")
        found.append(refused.value.status)
    assert (found[0], found[-1]) == (401, 429)
    assert door.refused == {"token": MOST_FAILURES + 2, "too_many": 2}
    good = door.caller({"authorization": f"Bearer {secret}"}, NOBODY, "198.51.100.1")
    assert str(good) == "token alice"


# ---- over the network -----------------------------------------------------------


def test_nobody_changes_anything_without_the_right_role(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: WebWorld) -> None:
        nobody, viewer = world.client(), world.client("viewer")
        for path in ("/api/v1/status", "/api/v1/openapi.json", "/metrics", "/api/v1/audit", "/api"):
            refused = await nobody.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
            assert refused.headers["content-type"] == "application/problem+json"
        for token in (b"ips_wrong", b"x", "\N{SNOWMAN}".encode()):
            headers = {b"Authorization": b"Bearer " + token}
            assert (await nobody.get("/api/v1/status", headers=headers)).status_code == 401
        assert (
            await nobody.get("/api/v1/status", headers={"Authorization": "Basic eDp5"})
        ).status_code == 401
        assert (await viewer.get("/api/v1/status")).status_code == 200
        assert (await viewer.post("/api/v1/plan", json=MOVE)).status_code == 200
        refused = await viewer.post("/api/v1/changes", json=MOVE, headers=MATCH)
        assert refused.status_code == 403
        assert "for operators" in refused.json()["detail"]
        assert (await viewer.get("/api/v1/audit")).status_code == 403
        assert (await nobody.post("/api/v1/changes", json=MOVE, headers=MATCH)).status_code == 401
        lines = audit(world)
        assert [one["outcome"] for one in lines] == ["refused 401", "refused 403"]
        assert lines[0]["who"] == "nobody at 127.0.0.1"
        assert lines[1]["who"] == "token viewer-1"
        assert world.director.number == 1

    serving(tmp_path, scenario, nodes=False)


def test_certificates_get_in_by_their_role(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "ipshare.web.server")

    async def scenario(world: WebWorld) -> None:
        pki = world.pki
        operator = world.client(files=pki.files("operator", "alice"))
        done = await operator.post("/api/v1/changes", json=MOVE, headers=MATCH)
        assert done.status_code == 202
        assert (await operator.get("/api/v1/operations/2")).json()["who"] == "operator alice"
        tables = (await operator.get("/api/v1/topology")).json()
        two = {"If-Match": '"2"'}
        assert (await operator.put("/api/v1/topology", json=tables, headers=two)).status_code == 403
        director = world.client(files=pki.files("director", "d2"))
        assert (await director.put("/api/v1/topology", json=tables, headers=two)).status_code == 200
        node = world.client(files=pki.files("node", "c1"))
        refused = await node.get("/api/v1/status")
        assert refused.status_code == 403
        assert "node" in refused.json()["detail"]
        for files in (
            pki.expired("operator", "alice"),
            pki.forged("operator", "alice"),
            pki.early("operator", "alice"),
            pki.taken_back("operator", "mallory"),
        ):
            stranger = world.client(files=files)
            with pytest.raises(httpx2.TransportError):
                await stranger.get("/api/v1/status")
        assert world.server.hub.door.refused["tls"] == 4
        pki.authority.revoke(who=who_is("operator", "alice"))
        with pytest.raises(httpx2.TransportError):
            for _ in range(2):  # the connection from before ends, another one is not let in
                await operator.get("/api/v1/status")

    serving(tmp_path, scenario, nodes=False)
    assert "certificate not accepted" in caplog.text


def who_is(role: str, name: str) -> Any:
    from ipshare.certs.identity import identity

    return identity(role, name)


def test_a_revoked_token_ends_streams_and_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipshare.web.watch.BEAT_S", 0.05)

    async def scenario(world: WebWorld) -> None:
        viewer = world.client("viewer")
        async with viewer.stream("GET", "/api/v1/events") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "retry: 2000"
            tokens.revoke(tmp_path / "tokens.json", "viewer-1")
            async for _ in lines:
                pass  # it ends
        assert (await viewer.get("/api/v1/status")).status_code == 401

    serving(tmp_path, scenario, nodes=False)


@pytest.mark.parametrize("by", ["certificate", "token", "session"])
def test_a_stream_ends_when_the_credential_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr("ipshare.web.watch.STILL_S", 0.05)

    async def scenario(world: WebWorld) -> None:
        files = world.pki.files("operator", "alice") if by == "certificate" else None
        client = await login(world, "viewer") if by == "session" else world.client(
            None if files else "viewer", files
        )  # fmt: skip
        async with client.stream("GET", "/api/v1/events") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "retry: 2000"
            if by == "certificate":
                later = time.time() + 400 * 86400
                monkeypatch.setattr(
                    "ipshare.web.who.time", SimpleNamespace(time=lambda: later, monotonic=time.monotonic)
                )
            else:
                file = tmp_path / "tokens.json"
                rows = json.loads(file.read_text())
                for row in rows["tokens"]:
                    row["expires"] = "2026-01-01T00:00:00+00:00"
                durable.write(file, json.dumps(rows).encode(), 0o600)
            async with asyncio.timeout(60):
                async for _ in lines:
                    pass  # it ends

    serving(tmp_path, scenario, nodes=False)


def test_plain_http_is_for_this_machine_alone(tmp_path: Path) -> None:
    world = WebWorld(tmp_path, plain=True)
    text = world.more("")
    assert world.fleet.wanted(text).settings.http is not None
    with pytest.raises(IpshareError) as refused:
        world.fleet.wanted(text.replace("127.0.0.1", "192.0.2.1"))
    assert "whoever listens" in str(refused.value)
    with pytest.raises(IpshareError):
        world.fleet.wanted(text + 'certificate = "x.pem"\n')


# ---- the page's session ---------------------------------------------------------


async def login(world: WebWorld, role: str) -> httpx2.AsyncClient:
    client = world.client()
    done = await client.post("/login", data={"token": world.tokens[role]})
    assert (done.status_code, done.headers["location"]) == (303, "/")
    cookie = done.headers["set-cookie"]
    for word in ("HttpOnly", "SameSite=strict", "Secure", "Path=/"):
        assert word.lower() in cookie.lower()
    return client


def test_a_session_changes_nothing_without_its_own_word(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        client = await login(world, "operator")
        assert (await client.get("/api/v1/status")).status_code == 200
        refused = await client.post("/api/v1/changes", json=MOVE, headers=MATCH)
        assert refused.status_code == 403
        form = {"item": "workload shop", "to": "a1", "revision": "1", "csrf": "0" * 64}
        assert (await client.post("/move/confirm", data=form)).status_code == 403
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            assert (await client.post("/move/confirm", data=form, headers=headers)).status_code == 403
        assert world.director.number == 1
        (session,) = world.server.hub.door._sessions
        caller = world.server.hub.door._by_session_key(session)
        assert caller is not None
        done = await client.post("/api/v1/changes", json=MOVE, headers={**MATCH, "X-CSRF-Token": caller.csrf})
        assert done.status_code == 202
        tokens.revoke(tmp_path / "tokens.json", "operator-1")
        assert (await client.get("/")).headers["location"] == "/login", "the token was its ground"

    serving(tmp_path, scenario, nodes=False)


def test_the_login_page_takes_tokens_alone(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        client = world.client()
        assert (await client.get("/")).headers["location"] == "/login"
        page = await client.get("/login")
        assert page.status_code == 200 and "<form" in page.text
        refused = await client.post("/login", data={"token": "ips_guess"})
        assert refused.status_code == 401 and "set-cookie" not in refused.headers
        assert "unknown" in refused.text
        foreign = await client.post(
            "/login", data={"token": world.tokens["admin"]}, headers={"Sec-Fetch-Site": "cross-site"}
        )
        assert foreign.status_code == 403
        client = await login(world, "viewer")
        (session,) = world.server.hub.door._sessions
        caller = world.server.hub.door._by_session_key(session)
        assert caller is not None
        assert (await client.post("/logout", data={"csrf": "x"})).status_code == 403
        assert (await client.post("/logout", data={"csrf": caller.csrf})).status_code == 303
        assert (await client.get("/")).headers["location"] == "/login"
        assert not world.server.hub.door._sessions

    serving(tmp_path, scenario, nodes=False)


# ---- the audit log --------------------------------------------------------------


def test_each_change_leaves_lines_before_and_after(tmp_path: Path) -> None:
    async def scenario(world: WebWorld) -> None:
        operator = world.client("operator")
        done = await operator.post("/api/v1/changes", json={**MOVE, "why": "try"}, headers=MATCH)
        assert done.status_code == 202
        assert (await operator.post("/api/v1/changes", json=MOVE, headers=MATCH)).status_code == 412
        lines = [json.loads(line) for line in world.server.hub.trail.path.read_text().splitlines()]
        assert [(one["outcome"], one["revision"]) for one in lines] == [
            ("begun", 1),
            ("done", 2),
            ("refused 412", 2),
        ]
        assert lines[0]["id"] == lines[1]["id"] == done.headers["x-request-id"]
        assert lines[1]["what"] == "move shop to a1: try"
        assert stat.S_IMODE(world.server.hub.trail.path.stat().st_mode) == 0o600
        found = (await operator.get("/api/v1/audit?limit=2")).json()["items"]
        assert [one["outcome"] for one in found] == ["refused 412", "done"]
        assert "not 1" in found[0]["detail"]

    serving(tmp_path, scenario, nodes=False)


def test_what_cannot_be_written_down_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: WebWorld) -> None:
        operator = world.client("operator")

        def full(_path: Path, _entry: dict[str, Any], *, sync: bool) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("ipshare.web.audit.append", full)
        refused = await operator.post("/api/v1/changes", json=MOVE, headers=MATCH)
        assert refused.status_code == 503
        assert "No space left" in refused.json()["detail"]
        assert world.director.number == 1
        assert world.server.hub.trail.failures == 2

    serving(tmp_path, scenario, nodes=False)


def test_people_who_do_not_get_in_do_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipshare.web.gate.REFUSALS", 3)

    async def scenario(world: WebWorld) -> None:
        nobody = world.client()
        await asyncio.gather(*(nobody.post("/api/v1/changes", json=MOVE) for _ in range(8)))
        assert len(audit(world)) == 3

    serving(tmp_path, scenario, nodes=False)


def test_the_trail_goes_on_in_a_new_file_and_reads_past_half_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipshare.web.audit.MAX_BYTES", 2000)
    trail = Trail(tmp_path)
    assert trail.newest(10) == []
    for number in range(40):
        trail.record(entry(str(number), "me", "change", "x", number, "done", ""))
    files = sorted(tmp_path.glob("http-audit.*.log"))
    assert files and sum(len(f.read_text().splitlines()) for f in [*files, trail.path]) == 40
    with trail.path.open("ab") as file:
        file.write(b'{"time": "half')
    newest = trail.newest(2)
    assert [one["id"] for one in newest] == ["39", "38"]


def test_a_line_of_the_trail_is_there_as_a_whole_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full in the middle of a line: the next line is one of its own."""
    trail, real = Trail(tmp_path), os.write
    trail.record(entry("1", "a", "v", "w", 1, "done", ""))
    with monkeypatch.context() as moment:
        moment.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
        with pytest.raises(OSError, match="No space"):
            trail.record(entry("2", "a", "v", "w", 1, "done", ""))
    trail.record(entry("3", "a", "v", "w", 1, "done", ""))
    assert [one["id"] for one in trail.newest(10)] == ["3", "1"]
