"""The libFuzzer targets of the packet functions, seeded with the packet cases, for a few seconds each.

ASan and UBSan watch; the properties are in native/fuzz. Longer: `make -C native fuzz` and run them by hand.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cases import seeds

NATIVE = Path(__file__).parents[2] / "native"
SOURCES = ["ips_parse.c", "ips_rewrite.c", "ips_error.c", "ips_verdict.c"]
SANITIZE = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"]
RUNS = 100_000  # a number, not a time: the same on every machine


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang: fuzz targets are not run")
@pytest.mark.parametrize("target", ["fuzz_parse", "fuzz_rewrite"])
def test_fuzz(target: str, tmp_path: Path) -> None:
    seeds.write(tmp_path / "seeds")
    program, corpus = tmp_path / target, tmp_path / "corpus"
    corpus.mkdir()
    files = [NATIVE / "fuzz" / f"{target}.c", *(NATIVE / name for name in SOURCES)]
    subprocess.run(
        ["clang", "-O1", "-g", "-std=gnu11", f"-I{NATIVE}", *SANITIZE, *files, "-o", program], check=True
    )
    run = subprocess.run(
        [program, f"-runs={RUNS}", "-max_len=2048", "-seed=1", corpus, tmp_path / "seeds" / target],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert f"Done {RUNS} runs" in run.stderr
