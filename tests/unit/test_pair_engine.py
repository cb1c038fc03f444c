"""What goes over the control socket about a pair: records there and back, refusals, waits that end."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipshare.core import lib
from ipshare.core.pair import PAIR_LATE, PAIR_NOTES, PAIR_REASONS, PAIR_STATES
from ipshare.engine import pairing
from ipshare.engine.embedded import (
    AsyncControl,
    Control,
    ControlError,
    EmbeddedEngine,
    EngineGone,
    EngineSilent,
)
from ipshare.engine.embedded.wire import REQUEST
from ipshare.engine.pair_text import lines as pair_text_lines
from ipshare.engine.pair_text import report as pair_report
from ipshare.engine.pairing import ORDERS, PairSettings, PairState
from ipshare.errors import EngineError, Refused
from ipshare.model import Pair, PairMode, PairPath, Vip
from tests.agent_world import site
from tests.pair_sites import pair_text
from tests.paired_memory import PairedMemory
from tests.unit.test_control import FakeEngine, hello, refusal, reply

PATH = PairPath(ip_address("10.9.0.1"), 6081, ip_address("10.9.0.2"), 6082)
PATH6 = PairPath(ip_address("fd00::1"), 1, ip_address("fd00::2"), 65535)
PAIR = Pair(
    node="n1",
    peer="n2",
    node_id=1,
    key_file=Path("/etc/ipshare/pair.key"),
    interval_s=0.0001,
    misses=3,
    mode=PairMode.QUERY,
    preempt=True,
    hook=None,
    paths=(PATH, PATH6),
    vips=(Vip(ip_address("192.168.5.1"), "eth1"), Vip(ip_address("fe80::5"), "access12345678x")),
)
SETTINGS = PairSettings(PAIR, bytes(range(32)), Path("/var/lib/ipshare/n1/pair.epoch"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def fake(path: Path) -> Iterator[FakeEngine]:
    fake = FakeEngine(path)
    yield fake
    fake.close()


def record(**values: int) -> bytes:
    made = np.zeros(1, pairing.PAIR_STATE)
    for name, value in values.items():
        made[0][name] = value
    return made.tobytes()


def test_every_field_of_the_settings_arrives() -> None:
    [made] = np.frombuffer(pairing.encode(SETTINGS), pairing.PAIR)
    assert made["key"].tobytes() == bytes(range(32))
    assert (int(made["interval_ns"]), int(made["misses"])) == (100_000, 3)
    assert int(made["flags"]) == (
        lib.IPS_CTL_PAIR_QUERY | lib.IPS_CTL_PAIR_PREEMPT | lib.IPS_CTL_PAIR_PREFERRED
    )
    assert (made["node_id"], made["peer_id"], made["n_paths"], made["n_vips"]) == (1, 2, 2, 2)
    assert int(made["config_digest"]) == PAIR.digest
    texts = {name: made[name].tobytes().rstrip(b"\0") for name in ("node", "peer", "epoch_file")}
    assert texts == {"node": b"n1", "peer": b"n2", "epoch_file": b"/var/lib/ipshare/n1/pair.epoch"}
    first, second = made["paths"][:2]
    assert first["local"].tobytes() == ip_address("10.9.0.1").packed + bytes(12)
    assert (first["local_port"], first["remote_port"], first["family"]) == (6081, 6082, 4)
    assert second["remote"].tobytes() == ip_address("fd00::2").packed
    assert (second["local_port"], second["remote_port"], second["family"]) == (1, 65535, 6)
    assert not made["paths"][2:].tobytes().strip(b"\0")
    assert made["vips"][1]["interface"].tobytes().rstrip(b"\0") == b"access12345678x"
    assert made["vips"][1]["family"] == 6


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"key": b"short"}, "32 bytes, not 5"),
        ({"epoch_file": Path("/" + "x" * 256)}, "257 bytes"),
        ({"pair": replace(PAIR, paths=(PATH,) * 5)}, "at most 4 paths, not 5"),
        ({"pair": replace(PAIR, vips=PAIR.vips * 9)}, "at most 16 vips, not 18"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_before_it_is_sent(change: dict[str, Any], text: str) -> None:
    with pytest.raises(EngineError, match=text):
        pairing.encode(replace(SETTINGS, **change))


def test_a_key_is_in_no_text() -> None:
    assert "00" not in repr(SETTINGS) and "\\x" not in repr(SETTINGS)


def test_every_field_of_the_state_is_read() -> None:
    names = [name for name in pairing.PAIR_STATE.names or () if name not in ("flags", "reserved")]
    made = np.zeros(1, pairing.PAIR_STATE)
    for number, name in enumerate(names, 1):
        made[0][name] = number
    made[0]["state"], made[0]["old_state"], made[0]["peer_state"] = 2, 3, 4
    made[0]["reason"], made[0]["paths_up"], made[0]["links_down"] = 11, 0b1010, 0b1
    made[0]["criteria_failed"], made[0]["publics_down"] = 0b10110, 0b100
    made[0]["ports_wrong"] = 1 << 63
    made[0]["late"], made[0]["longest_late_ns"] = (1, 0, 2, 0, 3), (10, 0, 20, 0, 30)
    made[0]["last_late"] = lib.IPS_CTL_PAIR_LATE_LOCK
    made[0]["flags"] = lib.IPS_CTL_PAIR_REALTIME | lib.IPS_CTL_PAIR_NO_EPOCH_FILE
    state = pairing.decode(made[0])
    assert (state.state, state.old_state, state.peer_state) == ("active", "standby", "inop")
    assert (state.reason, state.reason_text) == (PAIR_REASONS[11].name, PAIR_REASONS[11].text)
    assert state.ports_wrong == (63,)
    assert (state.late, state.longest_late_ns) == ((1, 0, 2, 0, 3), (10, 0, 20, 0, 30))
    assert state.last_late == "lock"
    assert (state.criteria_failed, state.publics_down) == ((1, 2, 4), (2,))
    assert (state.paths_up, state.links_down) == ((1, 3), (0,))
    assert set(state.notes) == {"realtime", "no_epoch_file"}
    special = {"state", "old_state", "peer_state", "reason", "reason_text", "paths_up", "links_down", "notes"}
    special |= {"criteria_failed", "publics_down", "ports_wrong", "late", "longest_late_ns", "last_late"}
    special.add("differs")
    for field in fields(PairState):
        if field.name not in special:
            assert getattr(state, field.name) == names.index(field.name) + 1, field.name


def test_lateness_is_said_with_its_cause(tmp_path: Path) -> None:
    pair = site(tmp_path, more=pair_text(tmp_path)).pair
    assert pair is not None
    made = np.frombuffer(record(state=2, now_ns=9 * 10**9), pairing.PAIR_STATE).copy()
    quiet = pairing.decode(made[0])
    assert not [line for line in pair_text_lines(quiet, pair) if line.startswith("late")]
    assert pair_report(quiet, pair)["last_late"] is None
    made[0]["late"], made[0]["longest_late_ns"] = (2, 0, 0, 1, 0), (19_400_000, 0, 0, 7_000_000, 0)
    made[0]["last_late"], made[0]["last_late_ns"] = lib.IPS_CTL_PAIR_LATE_LOCK, 7_000_000
    made[0]["last_late_at_ns"], made[0]["pauses"] = 5 * 10**9, 1
    late = pairing.decode(made[0])
    assert pair_text_lines(late, pair)[-1].split(maxsplit=1)[1] == (
        "2 x the machine stood still, 19.4 ms at worst; 1 x waited in its work, 7.0 ms at worst; "
        "1 pauses; last 4 s ago"
    )
    said = pair_report(late, pair)
    assert said["late"]["machine"] == {"times": 2, "longest_us": 19_400}
    assert said["last_late"] == {"why": "lock", "us": 7_000, "ago_s": 4} and said["pauses"] == 1


def test_names_are_the_cores_own() -> None:
    assert PAIR_STATES == {1: "initial", 2: "active", 3: "standby", 4: "inop"}
    assert PAIR_REASONS[0].name == "NONE" and all(reason.text for reason in PAIR_REASONS)
    assert set(PAIR_NOTES.values()) == {
        "realtime", "wrong_key", "mismatch", "no_epoch_file", "no_witness", "same_node",
        "other_version", "ready",
    }  # fmt: skip
    assert tuple(PAIR_LATE.values()) == ("machine", "processor", "work", "lock", "worker")
    newer = np.frombuffer(record(state=9, reason=250), pairing.PAIR_STATE)[0]
    state = pairing.decode(newer)
    assert (state.state, state.peer_state, state.reason) == ("state 9", "unknown", "REASON_250")


@pytest.mark.parametrize(
    ("now_ns", "until_ns", "forwards"),
    [(5, 0, False), (5, 5, False), (5, 6, True)],
    ids=["none", "over", "runs"],
)
def test_the_lease(now_ns: int, until_ns: int, forwards: bool) -> None:
    data = record(now_ns=now_ns, forward_until_ns=until_ns)
    assert pairing.decode(np.frombuffer(data, pairing.PAIR_STATE)[0]).forwards is forwards


class Served:
    """The pair's operations over a real socket, answered by ``half``; one thread for each connection."""

    def __init__(self, path: Path) -> None:
        self.half = PairedMemory()
        self.taken: list[tuple[int, bytes]] = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            while message := peer.recv(1 << 17):
                request = np.frombuffer(message, REQUEST, count=1)[0]
                op, payload = int(request["op"]), message[REQUEST.itemsize :]
                self.taken.append((op, payload))
                try:
                    reply(peer, request, self._answer(op, payload)) if op != lib.IPS_CTL_HELLO else hello(
                        peer, request
                    )
                except Refused:
                    refusal(lib.IPS_CTL_REFUSED)(peer, request)
                except (EngineGone, OSError):
                    return
                except EngineError:
                    refusal(lib.IPS_CTL_NO_PAIR)(peer, request)

    def _answer(self, op: int, payload: bytes) -> bytes:
        half = self.half
        if op == lib.IPS_CTL_PAIR_SET:
            half.set_pair(SETTINGS)
        elif op == lib.IPS_CTL_PAIR_CLEAR:
            half.clear_pair()
        elif op == lib.IPS_CTL_PAIR_COMMAND:
            words = tuple(int(word) for word in np.frombuffer(payload, "u4"))
            half.pair_command(next(order for order, numbers in ORDERS.items() if numbers == words))
        elif op == lib.IPS_CTL_PAIR_WAIT:
            return said(half.watch_pair().wait(int(np.frombuffer(payload, "u8")[0])))
        elif (state := half.pair_state()) is None:
            raise EngineError("no pair is set")
        else:
            return said(state)
        return b""

    def close(self) -> None:
        self.half.pair_gone()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def said(state: PairState) -> bytes:
    numbers = {name: number for number, name in PAIR_STATES.items()}
    reasons = {reason.name: reason.number for reason in PAIR_REASONS}
    return record(state=numbers[state.state], changes=state.changes, reason=reasons[state.reason])


@pytest.fixture
def served(path: Path) -> Iterator[Served]:
    served = Served(path)
    yield served
    served.close()


def test_each_call_is_its_operation(served: Served, path: Path) -> None:
    with Control(path) as control:
        with pytest.raises(ControlError) as caught:
            control.pair_state()
        assert caught.value.status == lib.IPS_CTL_NO_PAIR
        control.set_pair(SETTINGS)
        served.half.move("standby", "PEER_HEARD")
        assert (control.pair_state().state, control.pair_state().changes) == ("standby", 2)
        for order in ORDERS:
            served.half.say(peer_state="standby")
            control.pair_command(order)
        control.clear_pair()
    sent = [(op, payload) for op, payload in served.taken if payload]
    assert sent[0] == (lib.IPS_CTL_PAIR_SET, pairing.encode(SETTINGS))
    words = [tuple(np.frombuffer(payload, "u4").tolist()) for _, payload in sent[1:]]
    assert words == [(1, 0), (2, 0), (3, 1), (3, 0)]
    assert served.half.settings is None


def test_a_wait_returns_what_was_missed_at_once_and_the_next_change_when_it_comes(
    served: Served, path: Path
) -> None:
    with Control(path) as control:
        control.set_pair(SETTINGS)
        served.half.move("standby", "PEER_HEARD")
        assert control.wait_pair(1).state == "standby"
        with pytest.raises(EngineSilent):
            control.wait_pair(2, timeout_s=0.01)
        heard: list[str] = []
        waiting = threading.Thread(target=lambda: heard.append(control.wait_pair(2).state))
        waiting.start()
        assert control.pair_state().changes == 2, "a wait keeps nobody else out"
        served.half.move("active", "PEER_SILENT")
        waiting.join(60)
        assert heard == ["active"]


def test_a_wait_is_ended_by_another_thread(served: Served, path: Path) -> None:
    with Control(path) as control:
        control.set_pair(SETTINGS)
        ended: list[EngineGone] = []
        with control.watch_pair() as waiter:

            def wait() -> None:
                try:
                    waiter.wait(1)
                except EngineGone as error:
                    ended.append(error)

            thread = threading.Thread(target=wait)
            thread.start()
            waiter.interrupt()
            thread.join(10)
            assert len(ended) == 1
            with pytest.raises(EngineGone):
                waiter.wait(0)


def test_a_wait_ends_with_the_pair(served: Served, path: Path) -> None:
    with Control(path) as control:
        control.set_pair(SETTINGS)
        control.clear_pair()
        with pytest.raises(ControlError) as caught:
            control.wait_pair(0)
        assert caught.value.status == lib.IPS_CTL_NO_PAIR


def test_the_engine_says_no_in_words_that_its_callers_know(served: Served, path: Path) -> None:
    engine = EmbeddedEngine(path)
    assert engine.pair_state() is None
    with pytest.raises(Refused):
        engine.pair_command("force")
    engine.set_pair(SETTINGS)
    with pytest.raises(Refused, match="sorry") as caught:
        engine.pair_command("switchover")
    assert "pair status" in caught.value.hint
    engine.close()


def test_an_engine_that_knows_no_pairs(fake: FakeEngine, path: Path) -> None:
    for op in (lib.IPS_CTL_PAIR_SET, lib.IPS_CTL_PAIR_STATE):
        fake.answers[op] = refusal(lib.IPS_CTL_UNKNOWN_OP)
    engine = EmbeddedEngine(path)
    assert engine.pair_state() is None
    with pytest.raises(Refused, match="knows no pairs") as caught:
        engine.set_pair(SETTINGS)
    assert "ipshare down" in caught.value.hint
    engine.close()


def test_asyncio_waits_and_hangs_up_when_cancelled(served: Served, path: Path) -> None:
    async def scenario() -> None:
        async with AsyncControl(path) as control:
            await control.set_pair(SETTINGS)
            waiting = asyncio.create_task(control.wait_pair(1))
            served.half.move("active", "ORDERED")
            assert (await asyncio.wait_for(waiting, 60)).state == "active"
            await control.pair_command("maintenance")
            assert (await control.pair_state()).state == "inop"
            cancelled = asyncio.create_task(control.wait_pair(3))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            await control.clear_pair()

    asyncio.run(asyncio.wait_for(scenario(), 120))
