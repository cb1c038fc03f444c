"""The last four bytes of an end point record: ``site``, which desired() fills in, and ``via``, the host's."""

from __future__ import annotations

import sys
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import numpy as np
import pytest

from ipshare.config import load_text
from ipshare.core import Worker
from ipshare.engine.desired import MOST_ENDPOINTS, desired
from ipshare.engine.tables import ENDPOINT, pack
from ipshare.errors import IpshareError
from ipshare.model import Config
from tests.sites import SHARED, toml
from tests.table_images import Image, Tables, binding, endpoint, text

PLACE = (20, 1)  # of the 65,535 local prefixes below: 20.1.0.0/28, 20.1.0.16/28, ...


def config(node: str = "C", path: str = "rewrite") -> Config:
    return load_text(toml(node, SHARED, path=path), Path(f"{node}.toml"))


def crowded(n: int) -> Config:
    """``n`` end points with a local prefix each, nothing bound."""
    whole = config()
    first = int(IPv4Network(f"{PLACE[0]}.{PLACE[1]}.0.0/28").network_address)
    local = ((IPv4Network((first + 16 * i, 28)),) for i in range(n))
    ends = tuple(replace(whole.endpoints[0], name=f"E{i}", local=prefix) for i, prefix in enumerate(local))
    return replace(whole, endpoints=ends, distributions=(), policies=(), bindings=())


def test_two_halves_of_the_last_word() -> None:
    fields = ENDPOINT.fields
    assert fields is not None and ENDPOINT.itemsize == 64
    assert [(fields[name][1], fields[name][0]) for name in ("path_mtu", "site", "via")] == [
        (56, np.dtype("u4")),
        (60, np.dtype("u2")),
        (62, np.dtype("u2")),
    ]


def test_a_look_up_returns_the_site_and_nothing_of_via() -> None:
    tables = Tables()
    ends = [endpoint("10.0.0.0/24", site=7, via=0xFFFF), endpoint("10.0.1.0/24", site=0xFFFF, via=1)]
    tables.load(Image(endpoints=ends, bindings=[binding("203.0.113.1/32", 0), binding("203.0.113.2/32", 1)]))
    rows = tables.find_global(["203.0.113.1", "203.0.113.2"])
    assert rows["site"].tolist() == [7, 0xFFFF]
    assert [text(row) for row in rows] == ["10.0.0.0", "10.0.1.0"]


@pytest.mark.parametrize("path", ["rewrite", "gue"])
@pytest.mark.parametrize("node", ["C", "A"])
def test_records_of_one_name_share_a_site_and_via_is_left_to_the_host(node: str, path: str) -> None:
    tables = desired(config(node, path))
    names = tables.endpoint_names
    assert not tables.endpoints["via"].any()
    pairs = set(zip(names, tables.endpoints["site"].tolist(), strict=True))
    assert len(names) > len(pairs) == len(set(names)) == len({site for _, site in pairs})


def test_as_many_sites_as_sixteen_bits_tell_apart() -> None:
    tables = desired(crowded(MOST_ENDPOINTS))
    assert tables.endpoints["site"].tolist() == list(range(MOST_ENDPOINTS))
    assert not tables.endpoints["via"].any()
    with Worker() as worker:
        worker.load(pack(tables))
        assert worker.info()["n_endpoints"] == MOST_ENDPOINTS


def test_one_more_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[desired.__module__], "MOST_ENDPOINTS", 1_000)
    desired(crowded(1_000))
    with pytest.raises(IpshareError, match="more than 1,000") as refused:
        desired(crowded(1_001))
    assert refused.value.hint
