"""Without root: the same lab in a user namespace, and nothing survives it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from ipshare.lab import state, userns
from ipshare.lab.netns import NETNS_DIR

SCRIPT = """
import os, sys
from ipshare.lab import userns
from ipshare.lab.netns import LabError
try:
    userns.become_root()
except LabError as error:
    sys.exit(f"{error.message} ({error.hint})")
from ipshare.lab import Impairment, Lab, LabSpec
from ipshare.lab.traffic import Ping, Tcp, serve, start
with Lab(LabSpec(impair={"r1-r2": Impairment(delay_s=0.001)}, source_filter=("B",))) as lab, serve(lab, "A"):
    for family in (4, 6):
        address = str(lab.address("A", family))
        assert start(lab, "c1", Ping(address, count=1)).result().is_clean
        assert start(lab, "c1", Tcp(address, connections=5, expect=("A",))).result().is_clean
    fd = os.open("/dev/net/tun", os.O_RDWR)
    os.close(fd)
    print("works", flush=True)
    if sys.argv[1:]:
        print(lab.prefix, flush=True)
        sys.stdin.read()
"""


# Root in name only: it may read files (the interpreter may lie in root's home) and map itself (SETFCAP is
# what the kernel asks of uid 0 for that), nothing more.
_DROP = ["setpriv", "--bounding-set=-all,+dac_override,+dac_read_search,+setfcap", "--inh-caps=-all", "--"]


def without_root(*arguments: str) -> subprocess.Popen[str]:
    """Python on SCRIPT, without any privilege over the network."""
    environment = {k: v for k, v in os.environ.items() if k != "IPSHARE_LAB_USERNS"}
    return subprocess.Popen(
        [*_DROP, sys.executable, "-c", SCRIPT, *arguments],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def _possible() -> None:
    if os.environ.get("IPSHARE_LAB_USERNS"):
        pytest.skip("the whole suite runs in a user namespace")
    done = subprocess.run([*_DROP, *userns._UNSHARE, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no user namespace here: {done.stderr.strip()}")


@pytest.mark.usefixtures("_possible")
def test_lab_without_root():
    process = without_root()
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert out == "works\n"


@pytest.mark.usefixtures("_possible")
def test_sigkill_of_the_outer_process_ends_everything_inside():
    process = without_root("stay")
    assert process.stdout is not None
    assert process.stdout.readline() == "works\n"
    prefix = process.stdout.readline().strip()
    assert prefix
    assert not list(NETNS_DIR.glob(f"{prefix}-*")) and not state.directory(prefix).exists(), (
        "its /run is its own"
    )
    assert members(prefix), "the relay and the server are there"
    handles = [os.pidfd_open(pid) for pid in members(prefix)]
    process.kill()
    process.wait()
    for handle in handles:
        assert select.select([handle], [], [], 20)[0], "it outlived its lab"
        os.close(handle)


def test_lab_tests_that_cannot_run_say_so_loudly():
    """Root in name only, and no user namespace: not one of them runs, which must not look like success."""
    drop = ["setpriv", "--bounding-set=-all,+dac_override,+dac_read_search", "--inh-caps=-all", "--"]
    file = Path(__file__).with_name("test_lab_impair.py")
    environment = {k: v for k, v in os.environ.items() if k != "IPSHARE_LAB_USERNS"}
    words = [*drop, sys.executable, "-m", "pytest", "-q", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert "LAB TESTS NOT RUN: no root, and no user namespace" in done.stdout, done.stdout + done.stderr
    assert "run in a user namespace" not in done.stdout
    assert " passed" not in done.stdout and " skipped" in done.stdout


def members(prefix: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if prefix in path.read_text():
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


def test_why_not_is_empty_where_it_works():
    tried = subprocess.run([*userns._UNSHARE, "true"], capture_output=True, check=False)
    assert (userns.why_not() == "") == (tried.returncode == 0)
    if os.environ.get("IPSHARE_LAB_USERNS"):
        assert userns.is_root()


def test_root_stays_where_it_is(monkeypatch: pytest.MonkeyPatch):
    """No second process, no namespace."""
    monkeypatch.setattr(os, "execvpe", lambda *_: pytest.fail("it started itself again"))
    userns.become_root()
    assert userns.is_root()


def test_refused_user_namespace_is_one_sentence_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("IPSHARE_LAB_USERNS", raising=False)
    monkeypatch.setattr(userns, "is_root", lambda: False)
    monkeypatch.setattr(userns, "why_not", lambda: "unshare failed: Operation not permitted")
    with pytest.raises(userns.LabError, match="Operation not permitted") as refusal:
        userns.become_root()
    assert "run as root" in refusal.value.hint
