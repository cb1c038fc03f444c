"""Programs whose children outlive them: their end is their own, and nobody halts what they left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ipshare import program

LEAVES = """
cd {folder}
(until test -e go; do sleep 0.05; done; head -c 2000000 /dev/zero {to}; : > wrote
until test -e over; do sleep 0.05; done) &
echo here {to}
exit 3
"""


@pytest.mark.parametrize("only_errors", [False, True])
def test_what_it_leaves_behind_holds_nobody_up_and_may_go_on_writing(
    tmp_path: Path, only_errors: bool
) -> None:
    async def begin() -> None:
        script = LEAVES.format(folder=tmp_path, to=">&2" if only_errors else "")
        one = await program.begin(["/bin/sh", "-c", script], 400, only_errors=only_errors)
        try:
            assert await one.wait(60) == 3, "its child has its output still"
            assert await one.said() == "here\n"
            (tmp_path / "go").touch()
            async with asyncio.timeout(60):
                while not (tmp_path / "wrote").exists():
                    await asyncio.sleep(0.02)
            assert len(await one.said()) == 400
        finally:
            for name in ("go", "over"):
                (tmp_path / name).touch()
        await asyncio.wait_for(one._output.closed, 60)

    asyncio.run(begin())
