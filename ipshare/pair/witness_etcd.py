"""The judge that asks etcd (3.4 or newer, its JSON gateway): the grant is a key that dies with its lease.

    PREFIX/grant    "counter node", attached to the holder's lease; absent: nobody holds it
    PREFIX/highest  "counter node" of the newest grant, for good

Both nodes' processes ask the same cluster; each holds nothing itself, so one that was killed is replaced
without a word. A grant is taken, and extended, by a new lease and one transaction that fails if either key
was changed meanwhile: the cluster agrees on each of them. (To keep a lease alive is not agreed on: a leader
that is cut off would still say yes.) etcd counts a lease from later than the node counts its grant: nobody
else gets the key while the node may use it. Without etcd nothing is granted; the pair goes on while its nodes
hear each other.
"""

from __future__ import annotations

import base64
import json
import logging
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ipshare.core.witness import GRANTED, REFUSED, UNKNOWN, Message

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """What a key says; counter 0: there is no such key."""

    counter: int = 0
    node: int = 0
    revision: int = 0
    lease: int = 0


class EtcdJudge:
    """``endpoints``: URLs of one cluster, tried in order, the one that answered last first. ``prefix``: of
    the pair's keys. ``timeout_s``: of one request."""

    def __init__(
        self, endpoints: Sequence[str], prefix: str, *, timeout_s: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self._endpoints, self._timeout_s, self._tls = list(endpoints), timeout_s, tls
        self._grant, self._highest = f"{prefix}/grant", f"{prefix}/highest"
        self._is_heard = True

    def ask(self, node: int, question: Message) -> Message:
        try:
            answer, highest = self._judge(node, question)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if self._is_heard:
                log.warning("etcd does not answer: %s", error)
            self._is_heard = False
            return question.answered(UNKNOWN, (0, 0))
        self._is_heard = True
        return question.answered(answer, highest)

    def release(self, node: int, question: Message) -> None:
        try:
            held, _ = self._look()
            if (held.counter, held.node) == (question.counter, node):
                self._post("lease/revoke", {"ID": str(held.lease)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("a grant was not given back, and ends by itself: %s", error)

    def _judge(self, node: int, question: Message) -> tuple[int, tuple[int, int]]:
        held, highest = self._look()
        known = (highest.counter, highest.node)
        follows = question.counter > highest.counter or (question.counter, node) == known
        if not question.counter or not follows or held.node not in (0, node):
            return REFUSED, known
        if self._take(node, question, held, highest):
            if known != (question.counter, node):
                log.info("granted to node %d: reign %d", node, question.counter)
            return GRANTED, (question.counter, node)
        return REFUSED, known

    def _look(self) -> tuple[Held, Held]:
        """Both keys at one moment."""
        answer = self._post(
            "kv/txn",
            {"success": [{"request_range": {"key": _b64(key)}} for key in (self._grant, self._highest)]},
        )
        grant, highest = (_held(response["response_range"]) for response in answer["responses"])
        return grant, highest

    def _take(self, node: int, question: Message, held: Held, highest: Held) -> bool:
        seconds = -(-question.ttl_ns // 10**9)
        lease = self._post("lease/grant", {"TTL": str(seconds)})
        if int(lease["TTL"]) * 10**9 < question.ttl_ns:
            raise ValueError(f"etcd grants {lease['TTL']} s, not {seconds} s")
        value = _b64(f"{question.counter} {node}")
        compare = [
            {"key": _b64(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(seen.revision)}
            for key, seen in ((self._grant, held), (self._highest, highest))
        ]
        puts = [
            {"request_put": {"key": _b64(self._grant), "value": value, "lease": lease["ID"]}},
            {"request_put": {"key": _b64(self._highest), "value": value}},
        ]
        done: bool = self._post("kv/txn", {"compare": compare, "success": puts}).get("succeeded", False)
        if not done:
            self._post("lease/revoke", {"ID": lease["ID"]})
        return done

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        failed: OSError = OSError("no endpoint")
        for endpoint in list(self._endpoints):
            request = urllib.request.Request(
                f"{endpoint}/v3/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=self._timeout_s, context=self._tls) as reply:
                    answer = json.load(reply)
            except OSError as error:
                failed = error
                continue
            self._endpoints.remove(endpoint)
            self._endpoints.insert(0, endpoint)
            return answer
        raise failed


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _held(found: dict[str, Any]) -> Held:
    """Of a range's answer. Raises ValueError where somebody else wrote the key."""
    if not found.get("kvs"):
        return Held()
    [pair] = found["kvs"]
    counter, node = base64.b64decode(pair["value"]).decode().split()
    return Held(int(counter), int(node), int(pair["mod_revision"]), int(pair.get("lease", 0)))
