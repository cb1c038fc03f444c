"""The judge on a third machine: the rules of native/ips_witness.c, and what it promised in a file.

The file is written, synchronised and renamed before a grant that is another one than on disk is answered; a
grant that is only extended writes nothing. After a restart the witness waits until the last grant has ended;
without a file, as long as the longest one it gives. Who cannot write promises nothing.
"""

from __future__ import annotations

import logging
import re
import zlib
from pathlib import Path

from ipshare import durable
from ipshare.core.witness import GRANTED, UNKNOWN, Message, Rules
from ipshare.errors import IpshareError
from ipshare.pair.witness import now_ns

log = logging.getLogger(__name__)
LONGEST_S = 10.0
LINE = re.compile(r"ipshare witness 1 (\d{1,19}) ([12]) (\d{1,19}) ([0-9a-f]{8})\n")


def line_of(promise: tuple[int, int, int]) -> str:
    """A promise (counter, node, ttl_ns) as the file has it. Pure."""
    body = "ipshare witness 1 {} {} {}".format(*promise)
    return f"{body} {zlib.crc32(body.encode()):08x}\n"


def read(path: Path) -> tuple[int, int, int] | None:
    """The promise on disk; None: there is no file. Raises IpshareError: it cannot be read, or is damaged."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise IpshareError(f"cannot read {path}: {error}", hint="run as its owner") from None
    found = LINE.fullmatch(text)
    promise = (int(found[1]), int(found[2]), int(found[3])) if found else None
    if promise is None or line_of(promise) != text:
        raise IpshareError(
            f"{path} is damaged: what this witness promised is not known",
            hint=f"end the witness for {LONGEST_S:g} s, remove the file, start it again",
        )
    return promise


def write(path: Path, promise: tuple[int, int, int]) -> None:
    """Whole and durable, or not at all. Raises OSError."""
    durable.write(path, line_of(promise).encode(), 0o600)


class NodeJudge:
    """``path``: on a disk that outlives a reboot. Raises IpshareError as ``read`` does."""

    def __init__(self, path: Path, *, longest_s: float = LONGEST_S) -> None:
        self._path, found = path, read(path)
        self._on_disk = found or (0, 0, 0)
        counter, node, ttl_ns = self._on_disk
        self._rules = Rules((counter, node), ttl_ns, longest_ns=round(longest_s * 1e9), now_ns=now_ns())

    def ask(self, node: int, question: Message) -> Message:
        answer = self._rules.judge(node, question, now_ns())
        if answer == GRANTED and self._rules.promise != self._on_disk:
            try:
                write(self._path, self._rules.promise)
            except OSError as error:
                log.error("cannot write %s: %s: nothing is granted", self._path, error.strerror)
                return question.answered(UNKNOWN, (0, 0))
            self._on_disk = self._rules.promise
            log.info("granted to node %d: reign %d", node, question.counter)
        return question.answered(answer, self._on_disk[:2])

    def release(self, node: int, question: Message) -> None:
        self._rules.release(node, question, now_ns())
