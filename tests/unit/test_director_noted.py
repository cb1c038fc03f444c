"""What a warden kept is read again, or its start is refused with the name of what is damaged."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from ipshare.director import noted
from ipshare.errors import IpshareError
from ipshare.exclusive.grants import Grant

GRANT = Grant(epoch=3, node="a1")


def test_what_was_kept_is_there_again() -> None:
    notes = {"warden/grant/shop": json.dumps(asdict(GRANT)), "warden/failovers": "[1.0]", "warden/later": "?"}
    found = noted.read(notes)
    assert (found.grants, found.cases, found.began) == ({"shop": GRANT}, {}, "[1.0]")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"epoch": 3, "who": "a1"}', "[" * 5000])
@pytest.mark.parametrize("kind", ["grant", "case"])
def test_a_damaged_note_is_named(kind: str, text: str) -> None:
    with pytest.raises(IpshareError) as caught:
        noted.read({f"warden/{kind}/shop": text})
    assert f"'warden/{kind}/shop' is damaged" in str(caught.value) and "copy" in caught.value.hint
