"""libvirt: a domain that libvirt migrates ([[migration]] with adapter = "libvirt"); the one door to libvirt.

The connection here is `uri`, the one at the target is what `targets` says. The migration is peer to peer: the
two libvirt daemons do it between them, and an agent that dies interrupts nothing. Its end is the return of
the call, and then the domain runs at the target. Calls of libvirt block, so each is in a thread, with a time
limit; one that does not return in time is left to itself. Where the domain runs is asked of both ends.
libvirt is imported with the first call: extra `libvirt` (libvirt-python).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ipshare.errors import Refused
from ipshare.migration.adapter import MigrationError, Moved, NotInTime, Target, Where
from ipshare.migration.command import storage_in_sync
from ipshare.migration.commands import filled, must_agree
from ipshare.model import Migrating

T = TypeVar("T")
INSTALL = (
    "install libvirt-python: pip install 'ipshare[libvirt]' (needs libvirt-dev), in the agent's environment"
)


class LibvirtAdapter:
    """See ipshare.migration.adapter. Raises MigrationError where libvirt-python is not installed."""

    def __init__(self, wanted: Migrating) -> None:
        self._wanted = wanted
        try:
            import libvirt
        except ImportError:
            raise MigrationError("libvirt-python is not installed here", hint=INSTALL) from None
        self._libvirt: Any = libvirt

    async def check(self, target: Target) -> None:
        await storage_in_sync(self._wanted, target)
        await self._call(lambda: self._fits(target), self._wanted.answer_s)
        if self._wanted.check:
            words = filled(self._wanted.check, self._wanted, target)
            await must_agree(words, self._wanted.answer_s, f"{target.node} cannot run it")

    async def migrate(self, target: Target) -> Moved:
        return await self._call(lambda: self._migrate(target), self._wanted.timeout_s)

    async def where(self, target: Target) -> Where:
        return await self._call(lambda: self._where(target), self._wanted.answer_s)

    async def cancel(self, target: Target) -> None:
        await self._call(self._cancel, self._wanted.answer_s)

    # ---- blocking, in a thread ------------------------------------------------------

    def _fits(self, target: Target) -> None:
        """Both ends answer, the domain runs here and not there, and the target has memory for it."""
        name = self._wanted.domain
        with self._at(self._wanted.uri) as here, self._at(target.said) as there:
            domain = self._active(here, name)
            if domain is None:
                raise Refused(f"domain {name} does not run here", hint=f"virsh -c {self._wanted.uri} list")
            if self._active(there, name) is not None:
                raise Refused(f"a domain {name} runs at {target.node} already", hint="end that one first")
            memory_kib, free = domain.info()[1], self._free(there)
            if free is not None and free < memory_kib * 1024:
                raise Refused(
                    f"{target.node} has {free >> 20} MiB of memory free, {name} needs {memory_kib >> 10}",
                    hint="make room there, or migrate it elsewhere",
                )

    def _migrate(self, target: Target) -> Moved:
        lv = self._libvirt
        flags = lv.VIR_MIGRATE_LIVE | lv.VIR_MIGRATE_PEER2PEER | lv.VIR_MIGRATE_ABORT_ON_ERROR
        flags |= lv.VIR_MIGRATE_PERSIST_DEST | lv.VIR_MIGRATE_UNDEFINE_SOURCE
        with self._at(self._wanted.uri) as here:
            domain = self._active(here, self._wanted.domain)
            if domain is None:
                raise MigrationError(f"domain {self._wanted.domain} does not run here")
            domain.migrateToURI3(target.said, {}, flags)
        return Moved(self._downtime_ms(target))

    def _downtime_ms(self, target: Target) -> float | None:
        """As the target has it: the source has no such domain any more. No more than a number for people."""
        lv = self._libvirt
        with contextlib.suppress(lv.libvirtError, MigrationError), self._at(target.said) as there:
            domain = there.lookupByName(self._wanted.domain)
            downtime = domain.jobStats(lv.VIR_DOMAIN_JOB_STATS_COMPLETED).get("downtime")
            return float(downtime) if downtime is not None else None
        return None

    def _where(self, target: Target) -> Where:
        """Raises MigrationError where an end does not answer that would have to be known."""
        lv, name = self._libvirt, self._wanted.domain
        with self._at(self._wanted.uri) as here:
            domain = self._active(here, name)
            job = self._job(domain) if domain is not None else lv.VIR_DOMAIN_JOB_NONE
            if domain is not None and job in (lv.VIR_DOMAIN_JOB_BOUNDED, lv.VIR_DOMAIN_JOB_UNBOUNDED):
                return Where.MOVING
            if domain is not None and domain.state()[0] == lv.VIR_DOMAIN_RUNNING:
                return Where.HERE
        with self._at(target.said) as there:
            domain = self._active(there, name)
            if domain is not None and domain.state()[0] == lv.VIR_DOMAIN_RUNNING:
                return Where.THERE
        raise MigrationError(f"domain {name} runs neither here nor at {target.node}", hint="start it by hand")

    def _cancel(self) -> None:
        with self._at(self._wanted.uri) as here:
            domain = self._active(here, self._wanted.domain)
            if domain is not None and self._job(domain) != self._libvirt.VIR_DOMAIN_JOB_NONE:
                domain.abortJob()

    def _job(self, domain: Any) -> int:
        """Its kind; a driver that has no jobs has none now."""
        lv = self._libvirt
        try:
            kind: int = domain.jobInfo()[0]
        except lv.libvirtError as error:
            if error.get_error_code() == lv.VIR_ERR_NO_SUPPORT:
                return int(lv.VIR_DOMAIN_JOB_NONE)
            raise
        return kind

    @contextlib.contextmanager
    def _at(self, uri: str) -> Iterator[Any]:
        try:
            connection = self._libvirt.open(uri)
        except self._libvirt.libvirtError as error:
            raise MigrationError(f"no libvirt at {uri}: {error.get_error_message()}") from None
        try:
            yield connection
        finally:
            connection.close()

    def _active(self, connection: Any, name: str) -> Any:
        """The domain, None where it does not run."""
        lv = self._libvirt
        try:
            domain = connection.lookupByName(name)
        except lv.libvirtError as error:
            if error.get_error_code() == lv.VIR_ERR_NO_DOMAIN:
                return None
            raise
        return domain if domain.isActive() else None

    def _free(self, connection: Any) -> int | None:
        """Bytes of free memory; None: that driver does not say."""
        try:
            free: int = connection.getFreeMemory()
        except self._libvirt.libvirtError:
            return None
        return free

    async def _call(self, job: Callable[[], T], timeout_s: float) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.to_thread(job)
        except TimeoutError:
            raise NotInTime(f"libvirt did not end within {timeout_s:g} s") from None
        except self._libvirt.libvirtError as error:
            raise MigrationError(f"libvirt: {error.get_error_message()}") from None
