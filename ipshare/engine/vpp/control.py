"""control: one method per message of our plugin's API (plugins/ipshare/ipshare.api.in), in Python's types.

Bulk goes through files on tmpfs, readable by their owner alone, whose names the messages carry: VPP reads a
socket 4,096 bytes at a time. A refusal becomes an exception that names the first bad record, and nothing was
changed then. Thread-safe, blocking.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipshare.core import LoadError, dtype, lib
from ipshare.engine.failures import ImageRefused
from ipshare.engine.protocol import Side
from ipshare.engine.vpp.client import ApiRefused, Client
from ipshare.engine.vpp.retval import Retval
from ipshare.errors import EngineError, NoPrivilege

BINDING = dtype("struct ips_binding_rec")
DROP = dtype("struct ips_drop_cell")
SIDES: dict[Side, int] = {"outer": 0, "inner": 1}
PREPARE_TIMEOUT_S = 120.0
"""A million bindings take a second or two; a machine under pressure, longer."""
BUSY_S = 0.005
NO_INFO = ("_0", "_vl_msg_id", "context", "retval")
TMPFS = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Hello:
    """Who answers. ``threads``: of VPP that carry packets, the main thread included; ``stats_*``: bytes."""

    version: str
    boot_id: str
    pid: int
    threads: int
    is_configured: bool
    service_table: int
    delivery_table: int
    counter_cells: int
    stats_free: int
    stats_size: int


class Control:
    """The plugin behind ``client``. ``scratch``: directory for bulk files; None: on tmpfs."""

    def __init__(self, client: Client, *, scratch: Path | None = None) -> None:
        self.client = client
        self._scratch = scratch or (TMPFS if os.access(TMPFS, os.W_OK) else None)

    def hello(self) -> Hello:
        reply = self.client.call("ipshare_hello")
        return Hello(
            version=reply.version,
            boot_id=reply.boot_id.hex(),
            pid=reply.pid,
            threads=reply.n_workers,
            is_configured=bool(reply.configured),
            service_table=reply.service_table,
            delivery_table=reply.delivery_table,
            counter_cells=reply.counter_cells,
            stats_free=reply.stats_free,
            stats_size=reply.stats_size,
        )

    def configure(self, service_table: int, delivery_table: int, counter_cells: int) -> None:
        """Once for each run of VPP; the same again is fine. Raises ``EngineError`` with the remedy."""
        try:
            self.client.call(
                "ipshare_configure",
                service_table=service_table,
                delivery_table=delivery_table,
                counter_cells=counter_cells,
            )
        except ApiRefused as error:
            raise self._unconfigurable(error, counter_cells) from error

    def _unconfigurable(self, error: ApiRefused, cells: int) -> EngineError:
        if error.retval == Retval.NO_SUCH_FIB:
            table = error.reply.bad_table
            return EngineError(
                f"VPP has no table {table} for both IPv4 and IPv6",
                hint=f"make it first: ip table add {table}; ip6 table add {table}",
            )
        if error.retval == Retval.LIMIT_EXCEEDED:
            megabytes = -(-error.reply.stats_needed // (1 << 20))
            return EngineError(
                f"VPP's stats segment is too small for {cells} counter cells",
                hint=f"startup.conf: statseg {{ size {megabytes}M }}, or fewer counter_cells; restart VPP",
            )
        if error.retval == Retval.INVALID_VALUE_2:
            has = self.hello()
            return EngineError(
                f"VPP runs with service table {has.service_table}, delivery table {has.delivery_table} and"
                f" {has.counter_cells} counter cells",
                hint="they are set once: restart VPP to change them",
            )
        return error

    # ---- tables ------------------------------------------------------------

    def info(self) -> dict[str, int]:
        """The fields of ``struct ips_tables_info``, and ``counter_cells_used``."""
        reply = self.client.call("ipshare_info")
        return {name: int(getattr(reply, name)) for name in reply._fields if name not in NO_INFO}

    def prepare(self, image: bytes | bytearray | memoryview) -> tuple[int, int]:
        """Builds a generation beside the live one: (its number, nanoseconds that it took).

        Raises ``ImageRefused`` with the first bad record.
        """
        with self._bulk() as directory:
            path = _written(directory / "image", image)
            try:
                reply = self._patient("ipshare_prepare", self._bulk_timeout_s, path=str(path))
            except ApiRefused as error:
                raise _unprepared(error) from error
        return int(reply.generation), int(reply.took_ns)

    def commit(self, generation: int) -> tuple[int, int]:
        """Makes a prepared generation live: (its number, nanoseconds). Raises ``ApiRefused``: none such."""
        reply = self._patient("ipshare_commit", self.client.timeout_s, generation=generation)
        return int(reply.generation), int(reply.took_ns)

    def abort(self) -> None:
        """Drops what is prepared."""
        self.client.call("ipshare_abort")

    def rollback(self) -> int:
        """The previous content becomes live under a new number. Raises ``ApiRefused``: there is none."""
        return int(self._patient("ipshare_rollback", self.client.timeout_s).generation)

    def dump(self) -> tuple[int, bytes]:
        """(generation, complete image). Raises ``ApiRefused``: nothing is loaded."""
        with self._bulk() as directory:
            path = directory / "dump"
            reply = self._filed("ipshare_read", path=str(path))
            return int(reply.generation), _contents(path)

    def set_path_mtu(self, endpoint: int, mtu: int, seconds: int) -> None:
        """The path to end point record ``endpoint`` carries ``mtu`` bytes for ``seconds``; 0 forgets it."""
        self.client.call("ipshare_path_mtu", endpoint=endpoint, mtu=mtu, seconds=seconds)

    # ---- counters and questions ---------------------------------------------

    def cells(self, bindings: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """(first cell, number of cells) of each binding record, shapes (n,); first cell 2**32-1: none."""
        records = np.ascontiguousarray(bindings, BINDING)
        if len(records) == 0:
            return np.zeros(0, np.uint32), np.zeros(0, np.uint32)
        with self._bulk() as directory:
            path, out = _written(directory / "records", records.view(np.uint8).data), directory / "cells"
            reply = self._filed("ipshare_counter_index", records=str(path), out=str(out))
            both = np.frombuffer(_contents(out), np.uint32)
        if reply.n != len(records) or len(both) != 2 * len(records):
            raise EngineError(f"VPP answered for {reply.n} records where {len(records)} were asked about")
        return both[: len(records)], both[len(records) :]

    def counters(self) -> Any:
        """The fields of ``ipshare_counters_reply``; ``verdicts`` as array of shape (2, IPS_MAX_VERDICTS)."""
        reply = self.client.call("ipshare_counters")
        return reply._replace(verdicts=np.array(reply.verdicts, np.uint64).reshape(2, -1))

    def drops(self) -> npt.NDArray[Any]:
        """Who lost what: records (counter, verdict, packets), summed over threads, by cell and verdict."""
        total: dict[tuple[int, int], int] = {}
        for row in self.client.dump("ipshare_drops_dump"):
            total[row.cell, row.verdict] = total.get((row.cell, row.verdict), 0) + row.packets
        rows = [(cell, verdict, packets) for (cell, verdict), packets in sorted(total.items()) if packets]
        return np.array(rows, DROP)

    def why(
        self, packet: bytes, side: Side, *, gso_size: int = 0, gso_type: int = 0
    ) -> tuple[Any, list[Made]]:
        """(the reply's fields, what would be sent) for an IP packet that enters on ``side``."""
        reply = self.client.call(
            "ipshare_why",
            side=SIDES[side],
            gso_size=gso_size,
            gso_type=gso_type,
            bytes=len(packet),
            packet=packet,
        )
        return reply, made(bytes(reply.data), reply.n_packets)

    # ---- interfaces and next hops ---------------------------------------------

    def reply_interfaces(self) -> dict[int, int]:
        """sw_if_index -> side of the interfaces whose sources are translated (S1.5)."""
        return {row.sw_if_index: row.side for row in self.client.dump("ipshare_reply_interface_dump")}

    def set_reply_interface(self, sw_if_index: int, side: Side, enable: bool) -> None:
        self.client.call("ipshare_reply_interface", sw_if_index=sw_if_index, side=SIDES[side], enable=enable)

    def add_next_hop(self, address: IPv4Address | IPv6Address, table: int) -> int:
        """The id of this next hop; the same one again has the same id."""
        return int(self.client.call("ipshare_next_hop_add", address=address, table_id=table).id)

    def remove_next_hop(self, number: int) -> None:
        self.client.call("ipshare_next_hop_del", id=number)

    # ---- files ---------------------------------------------------------------

    @contextmanager
    def _bulk(self) -> Iterator[Path]:
        """A directory for the files of one message, that nobody else may enter; gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="ipshare-", dir=self._scratch) as name:
            yield Path(name)

    @property
    def _bulk_timeout_s(self) -> float:
        return max(self.client.timeout_s, PREPARE_TIMEOUT_S)

    def _filed(self, message: str, **fields: str) -> Any:
        try:
            return self._patient(message, self._bulk_timeout_s, **fields)
        except ApiRefused as error:
            if error.retval == Retval.SYSCALL_ERROR_1:
                raise _unreadable(error) from error
            raise

    def _patient(self, message: str, timeout_s: float, **fields: Any) -> Any:
        """A call that VPP may be too busy for: it does one thing with tables at a time, whoever asked."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.client.call(message, timeout_s=timeout_s, **fields)
            except ApiRefused as error:
                if error.retval != Retval.BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(BUSY_S)  # VPP tells nobody that it is done


@dataclass(frozen=True, slots=True)
class Made:
    """A packet that the core would send. ``kind``: enum ips_emit."""

    kind: int
    data: bytes


def made(data: bytes, count: int) -> list[Made]:
    """The packets of an ``ipshare_why_reply``. Raises ``EngineError`` if it is cut short."""
    packets, at = [], 0
    for _ in range(count):
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if at + 4 + size > len(data):
            raise EngineError("VPP's answer is cut short")
        packets.append(Made(data[at], data[at + 4 : at + 4 + size]))
        at += 4 + size
    return packets


def _written(path: Path, content: bytes | bytearray | memoryview) -> Path:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb", buffering=0) as file:
            view = memoryview(content).cast("B")
            at = 0
            while at < len(view):
                at += file.write(view[at:]) or 0
    except OSError as error:
        raise EngineError(
            f"cannot write the tables to {path.parent}: {error.strerror}", hint="make room there"
        ) from error
    return path


def _contents(path: Path) -> bytes:
    """What VPP wrote. Raises ``NoPrivilege`` where the file is another user's."""
    try:
        return path.read_bytes()
    except PermissionError:
        raise NoPrivilege(
            "may not read what VPP wrote", hint="run as the user that VPP runs as (root)"
        ) from None


def _unprepared(error: ApiRefused) -> EngineError:
    reply = error.reply
    if error.retval == Retval.SYSCALL_ERROR_1:
        return _unreadable(error)
    if error.retval != Retval.INVALID_VALUE or reply.error == lib.IPS_LOAD_OK:
        return error
    words = LoadError(reply.error, reply.section, reply.index).message
    refused = ImageRefused(words, hint="the live generation goes on unchanged")
    refused.load_error, refused.section, refused.index = reply.error, reply.section, reply.index
    return refused


def _unreadable(error: ApiRefused) -> EngineError:
    return EngineError(
        f"VPP cannot use the file it was given: {os.strerror(error.reply.error)}",
        hint="VPP has to see the same files as this process, and may open them",
    )
