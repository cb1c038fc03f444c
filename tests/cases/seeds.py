"""Seed corpora for the fuzz targets, out of the packet cases: ``python -m tests.cases.seeds DIRECTORY``.

Writes DIRECTORY/fuzz_parse and DIRECTORY/fuzz_rewrite, one file for each case, in the input
format that the targets describe at their top.
"""

import sys
from pathlib import Path

from tests.cases import address, cases


def write(directory: Path) -> None:
    """One file for each case and target."""
    for number, case in enumerate(cases()):
        o = case.offload
        fields = [
            o.csum,
            o.csum_start // 2,
            o.csum_offset // 2,
            o.gso_type,
            min(o.gso_size, 255),
            0,
            number % 2,
            20,
        ]
        local = address("local", case.family).ljust(16, b"\0")
        for target, before in (("fuzz_parse", b""), ("fuzz_rewrite", local)):
            (directory / target).mkdir(parents=True, exist_ok=True)
            (directory / target / case.name.replace("/", "-")).write_bytes(
                bytes(fields) + before + case.packet
            )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
