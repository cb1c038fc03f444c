"""`ipshare director run` with [http]: the API is there when it is ready, and goes with the process."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import httpx2

from ipshare.cli import main
from tests.director_world import ALL_A, text
from tests.pki import Pki
from tests.unit.test_director_cli import begin

HTTP = '[http]\nlisten = "127.0.0.1:{port}"\nplain = true\ntokens = "{dir}/tokens.json"\n'


def test_a_process_serves_http_beside_its_socket(tmp_path: Path, capsys: object) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file, tokens = tmp_path / "director.toml", tmp_path / "tokens.json"
    bindings = ALL_A + HTTP.format(port=port, dir=tmp_path)
    file.write_text(text(tmp_path, Pki(tmp_path), ["a1", "c1"], bindings))
    assert main(["token", "add", "me", "--role", "viewer", "--file", str(tokens)]) == 0
    secret = capsys.readouterr().out.strip()  # type: ignore[attr-defined]

    async def scenario() -> None:
        ready = asyncio.Event()

        class Notified(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: object) -> None:
                if b"READY=1" in data:
                    ready.set()

        notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notified.setblocking(False)
        notified.bind(str(tmp_path / "ready"))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Notified, sock=notified)
        process = await begin(file, ready)
        headers = {"Authorization": f"Bearer {secret}"}
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
            status = (await client.get("/api/v1/status")).json()
            assert (status["director"], status["revision"], status["leads"]) == ("d1", 1, True)
            async with client.stream("GET", "/api/v1/events") as events:
                assert events.status_code == 200
                process.send_signal(signal.SIGTERM)  # a stream that is open holds nothing up
                assert await asyncio.wait_for(process.wait(), 60) == 0
        transport.close()

    asyncio.run(scenario())
    log = (tmp_path / "log").read_text()
    assert f"HTTP at {url_of(port)}" in log and "Traceback" not in log


def url_of(port: int) -> str:
    return f"http://127.0.0.1:{port}"
