"""Mirrored sessions by a real redis-server (SYSTEMS.md S3.6): nothing lost, or said to be not ready."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.config.check_flows import url_fault
from ipshare.core import ffi
from ipshare.errors import IpshareError
from ipshare.mirror.follow import Follower
from ipshare.mirror.publish import Publisher
from ipshare.mirror.records import UPSERT, Encoder, Garbled, decode
from ipshare.mirror.store import Store, StoreGone
from tests.mirror_world import record, view
from tests.redis_world import Engine, Server, Table, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


class Chain:
    """Engine -> relay -> Redis -> standby. `turn` drives engine and publisher; the follower has a thread."""

    def __init__(self, server: Server, *, keep: int = 64 << 20) -> None:
        self.server, self.engine, self.table = server, Engine(), Table()
        self.keep = keep
        self.publisher = self.publish()
        self.follower = Follower(Store(server.url, "t"), "a", self.table, "same")
        self._thread = threading.Thread(target=self.follower.run)
        self._thread.start()

    def publish(self) -> Publisher:
        self.relay = self.engine.relay()
        return Publisher(self.relay, Store(self.server.url, "t"), "a", "same", keep=self.keep)

    def turn(self) -> None:
        self.engine.turn()
        self.publisher.turn()

    def settle(self) -> None:
        def is_settled() -> bool:
            self.turn()
            return self.table.is_ready and self.table.sessions == self.engine.node.store.sessions

        until(is_settled)

    def close(self) -> None:
        self.follower.stop()
        self._thread.join()
        self.relay.close()
        self.engine.close()


@pytest.fixture
def chain(server: Server) -> Iterator[Chain]:
    chain = Chain(server)
    yield chain
    chain.close()


def test_everything_arrives_and_is_equal(chain: Chain) -> None:
    node = chain.engine.node
    for i in range(500):
        node.open(i, 0, 4 if i % 3 else 6, state=1 + i % 6, kind=1 + i % 3, packets=(i, 2**63 + i))
    chain.settle()
    for i in range(300):
        node.open(i, 0, 4 if i % 3 else 6, bytes=(1 << i % 64, 0), flags=i)
        if i % 5 == 0:
            node.close(i // 2, 0, 4 if i // 2 % 3 else 6)
        if i % 50 == 0:
            chain.turn()
    chain.settle()
    assert chain.follower.state.error == "" and chain.follower.state.holes == 0
    assert len(chain.table.sessions) == len(node.store.sessions) > 400
    assert chain.publisher.state.is_complete and chain.publisher.state.snapshots >= 1


def test_committed_means_that_redis_has_it(chain: Chain) -> None:
    node = chain.engine.node
    chain.settle()
    number = node.open(1)
    chain.engine.turn()
    until(lambda: chain.engine.turn() or node.stats().peers[0].under_way > 0)
    assert node.committed(0, number) == "WAIT"
    until(lambda: chain.turn() or node.committed(0, number) == "DONE")
    store = Store(chain.server.url, "t")
    found = [r for batch in store.sessions("a", store.about("a").complete) for r in batch]
    assert len(found) == 1
    store.close()


def test_redis_gone_is_said_and_nothing_is_lost(chain: Chain) -> None:
    node = chain.engine.node
    for i in range(50):
        node.open(i)
    chain.settle()
    chain.server.kill()
    number = node.open(99)
    until(lambda: chain.turn() or chain.publisher.state.error)
    assert "Redis" in chain.publisher.state.error
    until(lambda: chain.turn() or node.committed(0, number) == "ALONE")  # nobody waits for a dead database
    until(lambda: not chain.table.is_ready)
    assert len(chain.table.sessions) == 50, "the standby keeps what it has, and is not ready"
    node.close(3)
    chain.server.start()  # empty: nothing was persisted
    chain.settle()
    assert len(chain.table.sessions) == 50 and chain.publisher.state.error == ""


def test_a_publisher_that_starts_again_begins_with_a_snapshot(chain: Chain) -> None:
    node = chain.engine.node
    for i in range(50):
        node.open(i)
    chain.settle()
    before = Store(chain.server.url, "t").about("a").complete
    chain.relay.close()
    for i in range(20):
        node.close(i)
    chain.publisher = chain.publish()
    chain.settle()
    store = Store(chain.server.url, "t")
    assert store.about("a").complete > before and len(chain.table.sessions) == 30
    assert [*store.sessions("a", before)] == [], "and what was before is gone from the database"
    store.close()


def test_a_follower_that_was_away_reads_on_or_begins_anew(server: Server) -> None:
    """keep=1: the stream is trimmed behind everything that is new."""
    chain = Chain(server, keep=1)
    node = chain.engine.node
    try:
        node.open(1)
        chain.settle()
        chain.follower.stop()
        chain._thread.join()
        for i in range(3000):
            node.open(i)
            if i % 10 == 0:
                chain.turn()
        node.close(1)
        until(lambda: chain.turn() or node.stats().peers[0].lag_events == 0)
        chain.follower = Follower(Store(server.url, "t"), "a", chain.table, "same")
        chain.follower._after, chain.follower._run_id = "0-1", "long ago"
        chain._thread = threading.Thread(target=chain.follower.run)
        chain._thread.start()
        chain.settle()
        assert chain.follower.state.holes == 1 and chain.follower.state.resyncs == 1
        assert len(chain.table.sessions) == 2999
    finally:
        chain.close()


def test_a_node_that_became_active_takes_nothing(chain: Chain) -> None:
    node = chain.engine.node
    node.open(1)
    chain.settle()
    chain.table.is_active = True
    node.open(2)
    until(lambda: chain.turn() or chain.follower.state.refused > 0)
    assert len(chain.table.sessions) == 1
    chain.table.is_active = False
    chain.settle()


def test_another_configuration_is_named_and_nothing_is_taken(chain: Chain) -> None:
    chain.engine.node.open(1)
    chain.settle()
    other = Table()
    follower = Follower(Store(chain.server.url, "t"), "a", other, "other")
    follower.turn()
    assert "other [[nat]] tables" in follower.state.error and other.begun == 0


def test_loss_between_engine_and_relay_does_not_matter(chain: Chain) -> None:
    chain.engine.lossy = True
    for i in range(1500):
        chain.engine.node.open(i)
        if i % 2:
            chain.engine.node.close(i // 2)
        if i % 25 == 0:
            chain.turn()
    chain.settle()


def test_garbage_in_the_stream_and_in_a_hash(chain: Chain) -> None:
    """It is named, nothing of it is taken, and the next snapshot mends it."""
    store = Store(chain.server.url, "t")
    chain.engine.node.open(1)
    chain.settle()
    store._redis.xadd("t:a:changes", {"what": "else"})
    until(lambda: "none of ours" in chain.follower.state.error or chain.follower.state.resyncs > 1)
    chain.engine.node.open(2)
    chain.settle()
    store.close()


def test_records_are_octets_and_back() -> None:
    encoder = Encoder()
    records = [record(i, i + 1, 4 if i % 2 else 6, packets=(i, 0)) for i in range(100)]
    blob = b"".join(encoder.encode(UPSERT, view(r)) for r in records)
    assert [row["rec"].tobytes() for row in decode([blob])] == records
    keys = {encoder.key(view(r)) for r in records}
    assert len(keys) == 100
    assert encoder.key(view(record(1, 5, flags=3))) == encoder.key(view(record(1, 9))), "of the flow alone"
    for cut in (1, 23, len(blob) - 1):
        with pytest.raises(Garbled):
            decode([blob[:cut]])
    assert len(decode([])) == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://10.0.0.5:6379/0", None),
        ("unix:///run/redis.sock", None),
        ("rediss://db.example/1", None),
        ("http://db", "redis://"),
        ("redis://:6379", "no host"),
        ("redis://:secret@db", "password_file"),
        ("redis://db:port", "ort"),
        ("unix://", "path"),
    ],
)
def test_addresses_of_a_database(url: str, said: str | None) -> None:
    found = url_fault(url)
    assert (found is None) if said is None else (found is not None and said in found)


def test_a_database_that_is_not_there_and_one_that_wants_a_password(tmp_path: Path) -> None:
    with pytest.raises(StoreGone, match="Redis"):
        Store(f"unix://{tmp_path}/none.sock", "t").about("a")
    with pytest.raises(IpshareError):
        Store("gopher://x", "t")
    server = Server(tmp_path)
    server.start("--requirepass", "open sesame")
    try:
        with pytest.raises(StoreGone, match="(?i)auth"):
            Store(server.url, "t").about("a")
        assert Store(server.url, "t", password="open sesame").about("a").complete == 0
    finally:
        server.kill()


def test_a_relay_that_is_not_asked_says_nothing() -> None:
    engine = Engine()
    relay = engine.relay()
    engine.node.open(1)
    got = []
    until(lambda: engine.turn() or relay.acknowledge() or got.extend(relay.turn(0.01)) or len(got) >= 3)
    assert [what for what, *_ in got][0] == int(ffi.cast("int", 16)) and got[1][3].version == 1
    assert not engine.node.peer("r").is_ready, "what is not acknowledged is not ready"
    until(lambda: relay.acknowledge() or engine.turn() or engine.node.peer("r").is_ready)
    relay.close()
    engine.close()
