"""The control socket against messages that are no requests: it says what is wrong or hangs up, and lives on.

The engine under the sanitizers passes the same tests (IPSHARE_ENGINE=native/build/address,undefined/...).
"""

from __future__ import annotations

import array
import contextlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipshare.core import dtype, ffi, lib
from ipshare.engine.embedded import Control, ControlError, ImageRefused, launch
from ipshare.engine.embedded.wire import ERROR, REPLY, REQUEST, sealed_memfd
from ipshare.engine.tables import pack
from ipshare.lab.netns import inside
from tests.engine_lab import OUTER, empty_namespace
from tests.pair_lab import until

IMAGE = bytes(pack(OUTER))
VERSION = lib.IPS_CTL_VERSION


def record(name: str, **values: Any) -> bytes:
    made = np.zeros(1, dtype(f"struct {name}"))
    for key, value in values.items():
        made[0][key] = value
    return made.tobytes()


PACKET = bytes.fromhex("4500001c000000004011000001010101cb0071090001000900080000")
TAP = record(
    "ips_ctl_tap",
    target=lib.IPS_TAP_COLLECTOR,
    flags=lib.IPS_TAP_BEFORE | lib.IPS_TAP_OWNED,
    sides=3,
    sample=1,
    collector_family=4,
    collector=[127, 0, 0, 1] + [0] * 12,
)
BAD_TAPS = (
    ("target", 0),
    ("target", 4),
    ("flags", 0),
    ("flags", 1 << 20),
    ("flags", lib.IPS_TAP_MARKED | lib.IPS_TAP_BEFORE),
    ("sides", 0),
    ("sides", 4),
    ("sample", 0),
    ("vni", 1 << 24),
    ("collector_family", 5),
)
PAYLOADS = {
    lib.IPS_CTL_HELLO: b"",
    lib.IPS_CTL_INFO: b"",
    lib.IPS_CTL_PREPARE: b"",
    lib.IPS_CTL_COMMIT: record("ips_ctl_generation", generation=99),
    lib.IPS_CTL_ABORT: b"",
    lib.IPS_CTL_ROLLBACK: b"",
    lib.IPS_CTL_DUMP: b"",
    lib.IPS_CTL_COUNTERS: b"",
    lib.IPS_CTL_CELLS: b"",
    lib.IPS_CTL_WHY: record("ips_ctl_packet", bytes=len(PACKET)) + PACKET,
    lib.IPS_CTL_TAP_START: TAP,
    lib.IPS_CTL_TAP_STOP: record("ips_ctl_tap_id", id=77),
    lib.IPS_CTL_TAP_WAIT: record("ips_ctl_tap_id", id=77),
    lib.IPS_CTL_TAP_LIST: b"",
    lib.IPS_CTL_PATH_MTU: record("ips_ctl_path_mtu", endpoint=0, mtu=1400, seconds=1),
    lib.IPS_CTL_PAIR_SET: record("ips_ctl_pair", interval_ns=10_000_000, misses=3, n_paths=2),
    lib.IPS_CTL_PAIR_CLEAR: b"",
    lib.IPS_CTL_PAIR_STATE: b"",
    lib.IPS_CTL_PAIR_WAIT: record("ips_ctl_pair_seen", changes=1),
    lib.IPS_CTL_PAIR_COMMAND: record("ips_ctl_pair_command", order=1),
    lib.IPS_CTL_FLOWS_SET: record("ips_ctl_flows", sessions=1000, half_open=100, half_open_per_source=50),
    lib.IPS_CTL_FLOWS_STATE: b"",
    lib.IPS_CTL_SESSIONS_DUMP: record("ips_ctl_session_filter", family=4),
    lib.IPS_CTL_SESSIONS_CLOSE: record("ips_ctl_session_filter", family=4),
    lib.IPS_CTL_NAT_ADDRESSES: b"",
    lib.IPS_CTL_MIRROR_SET: record("ips_ctl_mirror", n_peers=1),
    lib.IPS_CTL_MIRROR_CLEAR: b"",
    lib.IPS_CTL_SESSIONS_FEED: record("ips_ctl_feed", flags=1),
    lib.IPS_CTL_NATLOG_SET: record("ips_ctl_natlog", what=7, template_s=600),
    lib.IPS_CTL_NATLOG_STATE: b"",
    lib.IPS_CTL_REMAP_SET: record("ips_ctl_remap", id=1, role=lib.IPS_REMAP_READY, family=4, prefix_len=32),
    lib.IPS_CTL_REMAP_CLEAR: record("ips_ctl_remap_id", id=1),
    lib.IPS_CTL_REMAP_LIST: b"",
    lib.IPS_CTL_REMAP_STATE: record("ips_ctl_remap_id", id=1),
    lib.IPS_CTL_REMAP_FLOWS: record("ips_ctl_remap_wanted", id=1),
    lib.IPS_CTL_DISPATCH_SET: record("ips_ctl_dispatch", n_clusters=1),
    lib.IPS_CTL_DISPATCH_STATE: b"",
}
BEYOND = max(ffi.typeof("enum ips_ctl_op").elements) + 1


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with empty_namespace() as where:
        path = tmp_path_factory.mktemp("messages") / "s"
        engine = inside(where, lambda: launch.start(path, workers=1, counter_cells=4096))
        yield path
        assert engine.is_alive(), "the engine died of a message"
        assert engine.terminate() == 0


@pytest.fixture
def peer(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.settimeout(20)
        peer.connect(str(path))
        assert ask(peer, request(lib.IPS_CTL_HELLO)) == (0, "")
        yield peer


def request(op: int, payload: bytes = b"", **other: int) -> bytes:
    fields = {
        "magic": lib.IPS_CTL_MAGIC,
        "version": VERSION,
        "op": op,
        "seq": 5,
        "bytes": len(payload),
    } | other
    head = np.zeros(1, REQUEST)
    for key, value in fields.items():
        head[0][key] = value
    return head.tobytes() + payload


def ask(peer: socket.socket, message: bytes, fds: tuple[int, ...] = ()) -> tuple[int, str]:
    """(status, sentence) of the reply."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    peer.sendmsg([message], rights)
    reply, ancillary, _, _ = peer.recvmsg(1 << 20, 1024)
    for _, _, data in ancillary:
        for fd in array.array("i", data):
            os.close(fd)
    head = np.frombuffer(reply, REPLY, count=1)[0]
    assert head["magic"] == lib.IPS_CTL_MAGIC and head["version"] == VERSION
    assert int(head["bytes"]) == len(reply) - REPLY.itemsize
    if head["status"] == lib.IPS_CTL_OK:
        return 0, ""
    error = np.frombuffer(reply, ERROR, offset=REPLY.itemsize)[0]
    sentence = error["text"].tobytes().split(b"\0")[0].decode()
    assert sentence, "a refusal without a sentence"
    return int(head["status"]), sentence


def test_every_operation_is_here() -> None:
    assert set(ffi.typeof("enum ips_ctl_op").elements) == set(PAYLOADS) | {lib.IPS_CTL_SHUTDOWN}


@pytest.mark.parametrize("op", PAYLOADS)
def test_cut_at_every_length(peer: socket.socket, op: int) -> None:
    """With the true length in the header, and with a lying one."""
    whole = request(op, PAYLOADS[op])
    for length in range(1, len(whole)):
        status, _ = ask(peer, whole[:length])
        assert status == (lib.IPS_CTL_MALFORMED if length < REQUEST.itemsize else lib.IPS_CTL_BAD_LENGTH)
    for length in range(len(PAYLOADS[op])):
        assert ask(peer, request(op, PAYLOADS[op][:length]))[0] == lib.IPS_CTL_BAD_LENGTH
    assert ask(peer, request(op, PAYLOADS[op] + b"x"))[0] == lib.IPS_CTL_BAD_LENGTH
    assert ask(peer, request(op, PAYLOADS[op], bytes=0xFFFFFFFF))[0] == lib.IPS_CTL_BAD_LENGTH
    assert ask(peer, request(lib.IPS_CTL_HELLO)) == (0, "")


def test_foreign_frames(peer: socket.socket) -> None:
    assert ask(peer, request(lib.IPS_CTL_HELLO, magic=1))[0] == lib.IPS_CTL_MALFORMED
    status, sentence = ask(peer, request(lib.IPS_CTL_HELLO, version=VERSION + 1))
    assert status == lib.IPS_CTL_FOREIGN_VERSION and f"version {VERSION}" in sentence
    for op in (0, BEYOND, 0xFFFF):
        assert ask(peer, request(op))[0] == lib.IPS_CTL_UNKNOWN_OP
    assert ask(peer, request(lib.IPS_CTL_HELLO) + bytes(lib.IPS_CTL_MAX_MESSAGE))[0] == lib.IPS_CTL_MALFORMED


def test_an_empty_message_ends_the_connection(peer: socket.socket) -> None:
    peer.send(b"")
    assert peer.recv(100) == b""


def open_files(path: Path) -> list[str]:
    with Control(path) as control:
        pid = control.hello().pid
        return sorted(str(fd.readlink()).split(":")[0] for fd in Path(f"/proc/{pid}/fd").iterdir())


def test_unwanted_descriptors_are_refused_and_closed(path: Path, peer: socket.socket) -> None:
    before = open_files(path)
    with open(os.devnull) as null:
        for op, payload in PAYLOADS.items():
            if op not in (lib.IPS_CTL_PREPARE, lib.IPS_CTL_CELLS, lib.IPS_CTL_TAP_START):
                assert ask(peer, request(op, payload), (null.fileno(),))[0] == lib.IPS_CTL_BAD_FD
        assert ask(peer, request(lib.IPS_CTL_INFO), (null.fileno(),) * 20)[0] == lib.IPS_CTL_BAD_FD
        assert ask(peer, request(lib.IPS_CTL_TAP_START, TAP), (null.fileno(),))[0] == lib.IPS_CTL_BAD_FD
        assert ask(peer, b"x", (null.fileno(),))[0] == lib.IPS_CTL_MALFORMED
    assert open_files(path) == before, "the engine keeps descriptors that it refused"


@pytest.mark.parametrize("op", [lib.IPS_CTL_PREPARE, lib.IPS_CTL_CELLS])
def test_only_sealed_memfds_are_mapped(peer: socket.socket, op: int, tmp_path: Path) -> None:
    assert ask(peer, request(op))[0] == lib.IPS_CTL_BAD_FD
    (tmp_path / "file").write_bytes(IMAGE)
    with open(tmp_path / "file", "rb") as file:
        status, sentence = ask(peer, request(op), (file.fileno(),))
        assert status == lib.IPS_CTL_BAD_FD and "no memfd" in sentence
    unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(unsealed, IMAGE)
    status, sentence = ask(peer, request(op), (unsealed,))
    os.close(unsealed)
    assert status == lib.IPS_CTL_BAD_FD and "seals" in sentence
    empty = sealed_memfd(b"")
    assert ask(peer, request(op), (empty,))[0] == lib.IPS_CTL_BAD_FD
    os.close(empty)


def test_images_cut_and_damaged_are_refused(path: Path) -> None:
    with Control(path) as control:
        for length in {1, 8, 100, len(IMAGE) // 2, len(IMAGE) - 1}:
            with pytest.raises(ImageRefused) as refused:
                control.prepare(IMAGE[:length])
            assert refused.value.load_error == lib.IPS_LOAD_TRUNCATED
        damaged = bytearray(IMAGE)
        damaged[-1] ^= 1
        with pytest.raises(ImageRefused) as refused:
            control.prepare(damaged)
        assert refused.value.load_error == lib.IPS_LOAD_BAD_DIGEST
        assert control.info()["prepared"] == 0 and control.info()["generation"] == 0


def test_bad_taps(peer: socket.socket) -> None:
    good = np.frombuffer(TAP, dtype("struct ips_ctl_tap"))[0]
    for field, value in BAD_TAPS:
        bad = good.copy()
        bad[field] = value
        assert ask(peer, request(lib.IPS_CTL_TAP_START, bad.tobytes()))[0] == lib.IPS_CTL_BAD_ARGUMENT, field
    bad = good.copy()
    bad["target"] = lib.IPS_TAP_FILE
    assert ask(peer, request(lib.IPS_CTL_TAP_START, bad.tobytes()))[0] == lib.IPS_CTL_BAD_ARGUMENT
    with open(os.devnull) as read_only:
        status, _ = ask(peer, request(lib.IPS_CTL_TAP_START, bad.tobytes()), (read_only.fileno(),))
        assert status == lib.IPS_CTL_BAD_FD
    bad["target"] = lib.IPS_TAP_INTERFACE
    assert ask(peer, request(lib.IPS_CTL_TAP_START, bad.tobytes()))[0] == lib.IPS_CTL_SYSTEM
    bad["interface"] = np.frombuffer(b"x" * 16, bad["interface"].dtype)
    assert ask(peer, request(lib.IPS_CTL_TAP_START, bad.tobytes()))[0] == lib.IPS_CTL_BAD_ARGUMENT
    for op in (lib.IPS_CTL_TAP_STOP, lib.IPS_CTL_TAP_WAIT):
        assert ask(peer, request(op, record("ips_ctl_tap_id", id=0)))[0] == lib.IPS_CTL_NO_SUCH_TAP


def test_why_with_lies(peer: socket.socket) -> None:
    for fields in ({"bytes": 27}, {"bytes": 29}, {"bytes": 0xFFFFFFFF}):
        assert ask(peer, request(lib.IPS_CTL_WHY, record("ips_ctl_packet", **fields) + PACKET))[0] == (
            lib.IPS_CTL_BAD_LENGTH
        )
    for fields in ({"side": 2}, {"csum": 2}, {"gso_type": 3}):
        lie = record("ips_ctl_packet", bytes=len(PACKET), **fields) + PACKET
        assert ask(peer, request(lib.IPS_CTL_WHY, lie))[0] == lib.IPS_CTL_BAD_ARGUMENT
    lie = (
        record("ips_ctl_packet", bytes=len(PACKET), csum=1, csum_start=60000, csum_offset=60000, gso_type=1)
        + PACKET
    )
    assert ask(peer, request(lib.IPS_CTL_WHY, lie)) == (0, "")


def test_noise(path: Path) -> None:
    """Random operations with random payloads and mutated good ones, for as long as it takes to try 3,000."""
    seed = int(os.environ.get("SEED", "20"))
    dice = random.Random(seed)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.settimeout(20)
        peer.connect(str(path))
        for _ in range(3000):
            op = dice.choice(list(PAYLOADS))
            payload = bytearray(PAYLOADS[op])
            for _ in range(dice.randrange(4)):
                if payload:
                    payload[dice.randrange(len(payload))] = dice.choice(
                        (0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256))
                    )
            if op == lib.IPS_CTL_TAP_START:
                payload[4] |= lib.IPS_TAP_OWNED
            ask(peer, request(op, bytes(payload)))
    with Control(path) as control:
        assert control.hello().workers == 1, f"seed {seed}"
        assert control.taps() == [] or all(not tap.is_active for tap in control.taps())


def answer_of(peer: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # refused before it asked
        peer.send(request(lib.IPS_CTL_HELLO))
    try:
        return peer.recv(4096)
    except ConnectionResetError:
        return peer.recv(4096)


def test_clients_beyond_the_limit_are_told(path: Path) -> None:
    peers = []
    try:
        while len(peers) < 80:
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            peers.append(peer)
            peer.settimeout(20)
            peer.connect(str(path))
            reply = np.frombuffer(answer_of(peer), REPLY, count=1)[0]
            if reply["status"] == lib.IPS_CTL_TOO_MANY:
                break
        assert 60 <= len(peers) <= 65
        with Control(path) as late, pytest.raises(ControlError, match="too many clients"):
            late.hello()
    finally:
        for peer in peers:
            peer.close()

    def is_let_in() -> bool:
        """The engine has seen at least one of them go."""
        with contextlib.suppress(ControlError), Control(path) as control:
            return int(control.info()["clients"]) <= 65
        return False

    until(is_let_in)


def test_a_client_that_does_not_read_is_dropped_and_delays_nobody(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf, Control(path) as other:
        deaf.connect(str(path))
        deaf.settimeout(20)
        message = request(lib.IPS_CTL_WHY, PAYLOADS[lib.IPS_CTL_WHY])
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(100_000):
                deaf.send(message)
        assert other.hello().workers == 1
