"""The libvirt adapter with two real libvirt daemons: a guest of QEMU is migrated alive by them, peer to peer,
and the TCP connection to it stays. What a daemon or domain that is not there gives, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipshare.errors import Refused
from ipshare.lab import Lab, LabSpec
from ipshare.migration.adapter import MigrationError, Target, Where
from ipshare.migration.libvirt import LibvirtAdapter
from ipshare.model import Migrating, Place
from tests import guest_vm
from tests.lab.test_migration_lab import ADDRESS, Talk
from tests.libvirt_world import Daemon, domain_xml, wait_said, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
DOMAIN = "shop"


def adapter(uri: str, domain: str = DOMAIN) -> LibvirtAdapter:
    return LibvirtAdapter(
        Migrating(
            workload=DOMAIN, adapter="libvirt", targets=(), drbd="", domain=domain, uri=uri, timeout_s=90.0,
            answer_s=60.0, place=Place(Path("site.toml")), check=(), start=(), state=(), cancel=(),
            storage=(),
        )  # fmt: skip
    )


def run(job: Any) -> Any:
    return asyncio.run(job)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Lab, Daemon, Daemon]]:
    with Lab(LabSpec(families=(4,))) as lab:
        daemons = []
        try:
            for node in "AB":
                guest_vm.plug(lab, node, ADDRESS)
                daemons.append(Daemon(lab, node, tmp_path / node))
            yield lab, daemons[0], daemons[1]
        finally:
            for daemon in daemons:
                daemon.close()


def towards(lab: Lab, node: str) -> None:
    """The two routers have the guest's address at that end point."""
    own, other = ("r2", "r1") if node == "A" else ("r1", "r2")
    lab.run(own, ["ip", "route", "replace", f"{ADDRESS}/32", "via", str(lab.address(node, 4)), "dev", node])
    far = lab.run(own, ["ip", "-4", "-o", "addr", "show", "dev", other, "scope", "global"]).split()[3]
    words = ["ip", "route", "replace", f"{ADDRESS}/32", "via", far.partition("/")[0], "dev", own]
    lab.run(other, words)


def test_a_guest_moves_between_two_daemons_and_its_connection_stays(
    hosts: tuple[Lab, Daemon, Daemon], tmp_path: Path
) -> None:
    lab, a, b = hosts
    image = guest_vm.unpacked(tmp_path), guest_vm.initrd(tmp_path)
    here, there = a.open(), b.open()
    console = tmp_path / "console"
    here.defineXML(domain_xml(DOMAIN, ADDRESS, image, console)).create()
    wait_said(console, "guest: ready")
    towards(lab, "A")
    talk = Talk(lab, "c1")
    try:
        talk.goes_on()
        mover, target = adapter(a.uri), Target("b1", b.uri)
        nowhere = Target("b1", f"{b.uri}-not")
        with pytest.raises(MigrationError, match="no libvirt at"):
            run(mover.check(nowhere))
        with pytest.raises(MigrationError):
            run(mover.migrate(nowhere))
        assert run(mover.where(target)) is Where.HERE
        talk.goes_on()

        run(mover.check(target))
        moved = run(mover.migrate(target))
        towards(lab, "B")
        assert run(mover.where(target)) is Where.THERE
        talk.goes_on(20)
        assert moved.downtime_ms is not None and moved.downtime_ms > 0
        assert not here.listAllDomains(), "it is defined at one place"
        assert there.lookupByName(DOMAIN).isPersistent()
        with pytest.raises(Refused, match="does not run here"):
            run(mover.check(target))
        with pytest.raises(Refused, match="runs at b1 already"):
            run(adapter(b.uri).check(target))
        run(mover.cancel(target))  # there is nothing to cancel
    finally:
        talk.close()
    assert not talk.failure


def test_drivers_that_cannot_are_said() -> None:
    """libvirt's own test driver: it has a domain "test" and cannot migrate."""
    uri = "test:///default"
    with pytest.raises(Refused, match="runs at b1 already"):
        run(adapter(uri, "test").check(Target("b1", uri)))
    with pytest.raises(Refused, match="does not run here"):
        run(adapter(uri, "none").check(Target("b1", uri)))
    with pytest.raises(MigrationError, match="libvirt: "):
        run(adapter(uri, "test").migrate(Target("b1", uri)))
    assert run(adapter(uri, "test").where(Target("b1", uri))) is Where.HERE
    with pytest.raises(MigrationError, match="runs neither here nor at b1"):
        run(adapter(uri, "none").where(Target("b1", uri)))
    run(adapter(uri, "test").cancel(Target("b1", uri)))
