"""mirror_database: sessions by way of Redis, as long as the configuration says so (SYSTEMS.md S3.6).

Two threads beside the agent's loop: one writes what this node's engine tells (it is told only while it is
active), one reads what the peer's wrote. Neither is in the way of a packet: the engine forwards on whatever
becomes of database, agent or threads, and says that it has no standby.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from dataclasses import dataclass
from typing import Any

from ipshare.agent.pair import read_key
from ipshare.engine.flows import RELAY_NAME, Fed, SessionFeed, relay_key, relay_peer_name
from ipshare.engine.protocol import Engine
from ipshare.errors import IpshareError, Refused
from ipshare.model import Config, Database
from ipshare.model_flows import nat_digest

log = logging.getLogger(__name__)
JOIN_S = 5.0


@dataclass(slots=True)
class _Running:
    """Everything that one configuration and one run of the engine made."""

    publisher: Any
    follower: Any
    relay: Any
    stores: tuple[Any, ...]
    feed: SessionFeed
    threads: tuple[threading.Thread, ...]


class DatabaseMirror:
    """Usable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of who starts and stops
        self._running: _Running | None = None
        self._what = ""
        self._problem = ""

    def follow(self, engine: Engine | None, config: Config | None, boot_id: str) -> None:
        """Runs for this engine and configuration, or not at all. Does not raise: see ``troubles``."""
        with self._lock:
            self._follow(engine, config, boot_id)

    def _follow(self, engine: Engine | None, config: Config | None, boot_id: str) -> None:
        wanted = config is not None and config.mirror is not None and config.mirror.database is not None
        if not wanted or config is None or not isinstance(engine, Fed):
            self._end()
            self._problem = ""
            return
        what = hashlib.blake2b(repr((boot_id, config.mirror, config.pair, config.nats)).encode()).hexdigest()
        if what == self._what and self._running is not None:
            return
        self._end()
        try:
            self._running = _start(engine, config)
            self._what, self._problem = what, ""
        except (IpshareError, OSError) as error:
            self._problem = str(error)

    def report(self) -> dict[str, Any] | None:
        """Numbers of both directions, for JSON; None: no database is used."""
        running = self._running
        if running is None:
            return None
        written, read = running.publisher.state, running.follower.state
        return {
            "written": {name: getattr(written, name) for name in written.__dataclass_fields__},
            "read": {name: getattr(read, name) for name in read.__dataclass_fields__},
        }

    def troubles(self, *, is_active: bool) -> str:
        """What is wrong now; "": nothing."""
        running = self._running
        if running is None:
            return self._problem
        trouble: str = running.publisher.state.error if is_active else running.follower.state.error
        return f"sessions are not mirrored: {trouble}" if trouble else ""

    def close(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        running, self._running, self._what = self._running, None, ""
        if running is None:
            return
        running.publisher.stop()
        running.follower.stop()
        for thread in running.threads:
            thread.join(JOIN_S)
            if thread.is_alive():
                log.warning("thread %s did not end", thread.name)
        running.relay.close()
        running.feed.close()
        for store in running.stores:
            store.close()


def password_of(database: Database) -> str | None:
    """Out of its file. Raises ``Refused``."""
    if database.password_file is None:
        return None
    try:
        return database.password_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the password of the database cannot be read: {error}") from None


def _start(engine: Fed, config: Config) -> _Running:
    try:
        from ipshare.mirror.follow import Follower
        from ipshare.mirror.publish import Publisher
        from ipshare.mirror.relay import Relay
        from ipshare.mirror.store import Store
    except ModuleNotFoundError as error:
        raise Refused(f"{error}", hint="pip install 'ipshare[redis]'") from None
    mirror, pair = config.mirror, config.pair
    assert mirror is not None and pair is not None and mirror.database is not None, "checked"
    database, path = mirror.database, mirror.paths[0]
    password = password_of(database)
    stores = tuple(Store(database.url, database.prefix, password) for _ in range(2))
    relay = Relay(
        (str(path.remote), path.remote_port),
        (str(path.local), path.local_port),
        relay_key(read_key(pair.key_file)),
        RELAY_NAME,
        relay_peer_name(pair),
        secrets.randbits(63) + 1,
    )
    feed = engine.feed_sessions()
    same = f"{nat_digest(config.nats):016x}"
    publisher = Publisher(relay, stores[0], pair.node, same)
    follower = Follower(stores[1], pair.peer, feed, same)
    threads = (
        threading.Thread(target=publisher.run, name="mirror-write", daemon=True),
        threading.Thread(target=follower.run, name="mirror-read", daemon=True),
    )
    for thread in threads:
        thread.start()
    return _Running(publisher, follower, relay, stores, feed, threads)
