"""What `digest` and `settings` tell apart: together all that a node does, without the numbers it goes by."""

from __future__ import annotations

import pytest

from ipshare.core import lib
from tests.table_images import HEADER, Image, Record, Tables, binding, endpoint, member, packed, policy

GOOD = Image(
    endpoints=(endpoint("10.0.0.0/24"), endpoint("10.0.1.0/24", tunnel=("192.0.2.1", "192.0.2.2"))),
    policies=(policy(0, 1), policy(1, 1)),
    members=(member(0), member(1)),
    bindings=(binding("203.0.113.7/32", 0, 7),),
    header={"roles": lib.IPS_ROLE_OUTER},
)
SETTINGS: dict[str, Record] = {
    "flags": {"flags": lib.IPS_IMAGE_ANTISPOOF},
    "roles": {"roles": lib.IPS_ROLE_OUTER | lib.IPS_ROLE_INNER},
    "reply_policy": {"reply_policy": 1},
    "icmp_source4": {"icmp_source4": packed("192.0.2.9")},
    "icmp_source6": {"icmp_source6": packed("2001:db8::9")},
    "icmp_rate": {"icmp_rate": 7},
}
NUMBERS: dict[str, Record] = {"term": {"term": 3}, "revision": {"revision": 9}}


def told(image: Image) -> tuple[int, int]:
    tables = Tables()
    tables.load(image)
    info = tables.info()
    return info["digest"], info["settings"]


def but(header: Record) -> Image:
    return GOOD.but(header={**GOOD.header, **header})


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_is_told_by_settings_and_not_by_digest(name: str) -> None:
    (digest, settings), (other_digest, other_settings) = told(GOOD), told(but(SETTINGS[name]))
    assert digest == other_digest
    assert settings != other_settings


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_told_by_neither(name: str) -> None:
    assert told(GOOD) == told(but(NUMBERS[name]))


def test_a_delta_that_leads_there_tells_the_same() -> None:
    """Its own header says DELTA and a base; what it leaves behind does not."""
    tables = Tables()
    base = tables.load(GOOD.but(bindings=()))
    tables.load(GOOD.delta(base, list(GOOD.bindings)))
    assert (tables.info()["digest"], tables.info()["settings"]) == told(GOOD)


def test_every_header_field_is_a_setting_a_number_or_follows_from_the_records() -> None:
    follows = {"magic", "version", "header_bytes", "total_bytes", "digest", "base_generation", "reserved"}
    follows |= {name for name in HEADER.names or () if name.startswith("n_") or name.endswith("_bytes")}
    assert set(HEADER.names or ()) == follows | set(SETTINGS) | set(NUMBERS)
