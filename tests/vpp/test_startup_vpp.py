"""A site file's cores, stats segment and hugepages, as a VPP that was started from it reports them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ipshare.agent.vpp import settings
from ipshare.config import load_text
from ipshare.engine.vpp.client import Client
from ipshare.engine.vpp.launch import Vpp, said, start
from ipshare.engine.vpp.startup import Settings
from ipshare.lab import userns
from tests.cases.config_mistakes import GOOD_VPP

pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")
MIB = 1 << 20


def asked(directory: Path, *lines: str) -> Settings:
    """What the agent starts a VPP with for these keys in [vpp]; its files are in `directory`."""
    text = GOOD_VPP.replace('api_socket = "/run/vpp/api.sock"', "\n".join(("managed = true", *lines)))
    text = text.replace('kind = "vpp"', 'kind = "vpp"\ncounter_cells = 1024').replace('linux_cp = "lan0"', "")
    made = settings(load_text(text))
    return replace(made, directory=directory, api_socket=None, stats_socket=None, poll_sleep_us=100)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Vpp]]:
    running: list[Vpp] = []
    yield running
    for vpp in running:
        vpp.terminate()


def test_cores_and_stats_segment(tmp_path: Path, started: list[Vpp]) -> None:
    here = sorted(os.sched_getaffinity(0))
    if len(here) < 2:
        pytest.skip("CORES NOT TRIED: one processor")
    main, worker = here[-1], here[0]
    wanted = asked(tmp_path, f"main_core = {main}", f"worker_cores = [{worker}]", 'statseg_size = "48MiB"')
    started.append(start(wanted, wrap=("unshare", "--net")))
    client = Client(wanted.api)
    try:
        rows = client.cli("show threads").splitlines()
        memory = client.cli("show memory stats-segment verbose")
        buffers = client.cli("show buffers")
    finally:
        client.close()
    cores = {words[1]: words for words in map(str.split, rows) if words and words[0].isdigit()}
    assert set(cores) == {"vpp_main", "vpp_wk_0"}, rows
    for name, core in (("vpp_main", main), ("vpp_wk_0", worker)):
        pid = int(cores[name][3 if name == "vpp_wk_0" else 2])
        assert os.sched_getaffinity(pid) == {core}, rows
    assert re.search(r"total: 4[78](\.\d+)?M", memory), memory
    assert "16384" in buffers or re.search(r"default-numa-0", buffers), buffers


def test_hugepages_that_are_missing_stop_no_vpp(tmp_path: Path, started: list[Vpp]) -> None:
    """The kernel may not have given them (`vpp prepare` says so). VPP would ask it again by itself: here it
    cannot, and takes small pages."""
    free = re.search(r"HugePages_Free: +(\d+)", Path("/proc/meminfo").read_text())
    if free is None or int(free[1]):
        pytest.skip("SMALL PAGES NOT TRIED: this machine has hugepages")
    hidden = "for d in /sys/devices/system/node/node*/hugepages /sys/kernel/mm/hugepages; do "
    hidden += 'mount -t tmpfs none "$d" || exit 1; done; exec "$@"'
    wanted = asked(tmp_path, "buffers = 2048", "hugepages = [{count = 64}]")
    started.append(start(wanted, wrap=("unshare", "--net", "--mount", "sh", "-c", hidden, "sh")))
    client = Client(wanted.api)
    try:
        assert "default-numa-0" in client.cli("show buffers"), said(wanted.log, 20)
        assert "subpage-size 4K" in client.cli("show physmem")
    finally:
        client.close()
