"""replace: puts a new bindings file in the place of the configured one, if the whole configuration stays
good."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ipshare import config
from ipshare.errors import ConfigError, IpshareError, NoPrivilege


def replace_checked(new: Path, target: Path, site: Path) -> None:
    """One rename; the old file comes back if ``site`` then has mistakes. Raises ConfigError with all of
    them."""
    target = Path(os.path.realpath(target))  # where it is a link, what it leads to is replaced
    aside, old = target.with_name(target.name + ".new"), target.with_name(target.name + ".old")
    try:
        shutil.copyfile(new, aside)
        shutil.copystat(target, aside)
        old.unlink(missing_ok=True)
        os.link(target, old)
        aside.replace(target)
    except PermissionError as error:
        raise NoPrivilege(f"may not replace {target}", hint="run as its owner") from error
    except OSError as error:
        raise IpshareError(f"cannot replace {target}: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)
    report = config.check(site)
    if report.config is None:
        old.replace(target)
        raise ConfigError(report.problems, report.warnings)
    old.unlink()
