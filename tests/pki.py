"""A certificate authority for tests, and certificates of every kind that must not get in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from ipshare.certs import authority
from ipshare.certs.authority import Authority
from ipshare.certs.contexts import Files
from ipshare.certs.identity import identity


@contextmanager
def at(now: datetime) -> Iterator[None]:
    """The authority's clock says ``now``."""
    with patch.object(authority, "_now", lambda: now.replace(microsecond=0)):
        yield


class Pki:
    """An authority in ``folder``, and a file for each holder that is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "ca")
        self.authority.init("tests")

    @property
    def ca(self) -> Path:
        return self.folder / "ca" / "ca.pem"

    @property
    def revoked(self) -> Path:
        return self.folder / "ca" / "revoked.pem"

    def file(self, role: str, name: str) -> Path:
        path = self.folder / f"{role}-{name}.pem"
        if not path.exists():
            self.authority.issue(identity(role, name), path)
        return path

    def files(self, role: str, name: str) -> Files:
        return Files(self.ca, self.file(role, name), self.revoked)

    def expired(self, role: str, name: str) -> Files:
        path = self.folder / f"expired-{role}-{name}.pem"
        with at(datetime.now(UTC) - timedelta(days=30)):
            self.authority.issue(identity(role, name), path, days=1)
        return Files(self.ca, path, self.revoked)

    def early(self, role: str, name: str) -> Files:
        path = self.folder / f"early-{role}-{name}.pem"
        with at(datetime.now(UTC) + timedelta(days=30)):
            self.authority.issue(identity(role, name), path, days=1)
        return Files(self.ca, path, self.revoked)

    def forged(self, role: str, name: str) -> Files:
        """Of an authority of the same name, whose holder knows ours."""
        other = Pki(self.folder / "other")
        return Files(self.ca, other.file(role, name), self.revoked)

    def taken_back(self, role: str, name: str) -> Files:
        path = self.folder / f"revoked-{role}-{name}.pem"
        made = self.authority.issue(identity(role, name), path)
        self.authority.revoke(serial=made.serial)
        return Files(self.ca, path, self.revoked)
