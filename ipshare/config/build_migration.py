"""Site without mistakes -> how its workloads are migrated. Pure."""

from __future__ import annotations

from ipshare import model
from ipshare.config.site import Site


def migrations(site: Site) -> tuple[model.Migrating, ...]:
    return tuple(
        model.Migrating(
            workload=table.workload,
            adapter=table.adapter,
            targets=tuple(table.targets.items()),
            check=tuple(table.check),
            start=tuple(table.start),
            state=tuple(table.state),
            cancel=tuple(table.cancel),
            storage=tuple(table.storage),
            drbd=table.drbd or "",
            domain=table.domain or table.workload,
            uri=table.uri,
            timeout_s=table.timeout,
            answer_s=table.answer,
            place=site.document.place(table._path),
        )
        for table in site.migration
    )
