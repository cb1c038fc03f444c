"""Verdicts by name, number and text, read from the C core."""

from __future__ import annotations

from dataclasses import dataclass

from ipshare.core._native import ffi, lib

DISPOSITIONS = ("send", "consumed", "drop")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happened to a packet. ``disposition`` is one of ``DISPOSITIONS``."""

    number: int
    name: str
    text: str
    disposition: str

    @property
    def is_drop(self) -> bool:
        return self.disposition == "drop"


def _verdict(number: int) -> Verdict:
    return Verdict(
        number=number,
        name=ffi.string(lib.ips_verdict_name(number)).decode(),
        text=ffi.string(lib.ips_verdict_text(number)).decode(),
        disposition=DISPOSITIONS[lib.ips_verdict_disposition(number)],
    )


VERDICTS: tuple[Verdict, ...] = tuple(_verdict(number) for number in range(lib.ips_verdict_count()))
"""Every verdict, indexed by its number."""
