"""Redis: what the mirror needs of it, and its failures in our words. The only module that knows it.

Keys of a node, all under PREFIX:NODE: ``:changes``, a stream of batches; ``:G:SHARD``, sessions of snapshot G
by flow; ``:about``, a hash that says which snapshot is whole and which one is being written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis

from ipshare.errors import IpshareError

SHARDS = 256
TIMEOUT_S = 2.0
SCAN = 1000


class StoreGone(IpshareError):
    """Redis cannot be reached, or refuses."""


@dataclass(frozen=True, slots=True)
class About:
    """What is in the store of a node. Snapshot 0: none."""

    complete: int = 0  # number of the snapshot that is whole
    opening: int = 0  # number of the one that is being written
    epoch: int = 0
    run: str = ""  # of the publisher
    config: str = ""  # digest of what has to be equal at both nodes


@dataclass(frozen=True, slots=True)
class Entry:
    """One batch: number counts 1, 2, ... within a run; kind: changes, begin or end."""

    id: str
    run: str
    number: int
    snapshot: int
    epoch: int
    kind: str
    is_new_origin: bool
    blob: bytes


class Store:
    """One connection. Every method raises ``StoreGone``, but ``close``."""

    def __init__(self, url: str, prefix: str, password: str | None = None) -> None:
        self._prefix = prefix
        try:
            self._redis = redis.Redis.from_url(
                url,
                password=password,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                decode_responses=False,
            )
        except (ValueError, redis.RedisError) as error:
            raise IpshareError(f"{url}: {error}") from None

    def about(self, node: str) -> About:
        with _in_our_words():
            found = cast(dict[bytes, bytes], self._redis.hgetall(self._key(node, "about")))
        text = {key.decode(): value.decode(errors="replace") for key, value in found.items()}
        return About(
            complete=_number(text.get("complete")),
            opening=_number(text.get("opening")),
            epoch=_number(text.get("epoch")),
            run=text.get("run", ""),
            config=text.get("config", ""),
        )

    # ---- the publisher ----

    def begin(self, node: str, entry: Entry, left_over: int, config: str) -> None:
        """A snapshot is written from now on; one that never became whole (0: none) goes."""
        with _in_our_words(), self._redis.pipeline(transaction=True) as pipe:
            about = {"opening": entry.snapshot, "epoch": entry.epoch, "run": entry.run}
            about["config"] = config
            pipe.hset(self._key(node, "about"), mapping=cast(Any, about))
            self._add(pipe, node, entry, 0)
            self._unlink(pipe, node, left_over)
            pipe.execute()

    def end(self, node: str, entry: Entry, before: int) -> None:
        """It is whole; the one before it (0: none) goes."""
        with _in_our_words(), self._redis.pipeline(transaction=True) as pipe:
            about = {"complete": entry.snapshot, "opening": 0}
            pipe.hset(self._key(node, "about"), mapping=cast(Any, about))
            self._add(pipe, node, entry, 0)
            self._unlink(pipe, node, before)
            pipe.execute()

    def write(
        self, node: str, entry: Entry, shards: Mapping[int, Mapping[bytes, bytes | None]], keep: int
    ) -> None:
        """Changes: sessions by shard and key (None: it ended), and the entry that tells of them.
        About `keep` entries of the stream stay."""
        with _in_our_words(), self._redis.pipeline(transaction=True) as pipe:
            for shard, sessions in shards.items():
                name = self._sessions(node, entry.snapshot, shard)
                if there := {key: value for key, value in sessions.items() if value is not None}:
                    pipe.hset(name, mapping=cast(Any, there))
                if gone := [key for key, value in sessions.items() if value is None]:
                    pipe.hdel(name, *cast(Any, gone))
            self._add(pipe, node, entry, keep)
            pipe.execute()

    # ---- the follower ----

    def last_id(self, node: str) -> str:
        """Of the stream; "0": it has no entry."""
        with _in_our_words():
            found = cast(list[Any], self._redis.xrevrange(self._key(node, "changes"), count=1))
        return found[0][0].decode() if found else "0"

    def sessions(self, node: str, snapshot: int) -> Iterator[list[bytes]]:
        """Records of a snapshot, some at a time; one may come twice."""
        for shard in range(SHARDS):
            cursor: Any = 0
            while True:
                with _in_our_words():
                    cursor, found = cast(
                        tuple[Any, dict[bytes, bytes]],
                        self._redis.hscan(self._sessions(node, snapshot, shard), cursor, count=SCAN),
                    )
                if found:
                    yield list(found.values())
                if int(cursor) == 0:
                    break

    def read(self, node: str, after: str, wait_ms: int, count: int = 64) -> list[Entry]:
        """The entries behind ``after``; waits for the first one. Raises ``IpshareError`` for one that is
        none."""
        with _in_our_words():
            found = cast(
                Any, self._redis.xread({self._key(node, "changes"): after}, count=count, block=wait_ms)
            )
        return [_entry(id, fields) for _, entries in found or [] for id, fields in entries]

    def entry(self, node: str, id: str) -> Entry | None:
        """This entry of the stream; None: it is not there (any more)."""
        with _in_our_words():
            found = cast(Any, self._redis.xrange(self._key(node, "changes"), id, id))
        return _entry(*found[0]) if found else None

    def now_ms(self) -> int:
        """The database's own clock."""
        with _in_our_words():
            seconds, micros = self._redis.time()
        return seconds * 1000 + micros // 1000

    def close(self) -> None:
        with contextlib.suppress(redis.RedisError, OSError):
            self._redis.close()

    def _key(self, node: str, what: str) -> str:
        return f"{self._prefix}:{node}:{what}"

    def _sessions(self, node: str, snapshot: int, shard: int) -> str:
        return self._key(node, f"{snapshot}:{shard}")

    def _unlink(self, pipe: Any, node: str, snapshot: int) -> None:
        if snapshot:
            pipe.unlink(*(self._sessions(node, snapshot, shard) for shard in range(SHARDS)))

    def _add(self, pipe: Any, node: str, entry: Entry, keep: int) -> None:
        fields = {
            "run": entry.run,
            "n": entry.number,
            "snapshot": entry.snapshot,
            "epoch": entry.epoch,
            "kind": entry.kind,
            "new": int(entry.is_new_origin),
            "blob": entry.blob,
        }
        pipe.xadd(self._key(node, "changes"), fields, maxlen=keep or None, approximate=True)


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise StoreGone(f"Redis: {error or type(error).__name__}") from None


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _entry(id: bytes, fields: dict[bytes, bytes]) -> Entry:
    try:
        return Entry(
            id=id.decode(),
            run=fields[b"run"].decode(),
            number=int(fields[b"n"]),
            snapshot=int(fields[b"snapshot"]),
            epoch=int(fields[b"epoch"]),
            kind=fields[b"kind"].decode(),
            is_new_origin=fields[b"new"] == b"1",
            blob=fields[b"blob"],
        )
    except (KeyError, ValueError) as error:
        raise IpshareError(f"an entry of the stream that is none of ours: {id!r}: {error}") from None
