"""bird.conf for a configuration: word by word, and as BIRD reads it, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ipshare.bgp.render import held, is_announcing, protocol_name, render
from ipshare.config import load
from ipshare.errors import Refused

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/bgp.toml"
GOLDEN = ROOT / "tests/cases/bird.conf"
SECRET = {"192.0.2.1": "secret word"}
BIRD = shutil.which("bird", path="/usr/sbin:/usr/local/sbin:/usr/bin")


def test_the_example_word_by_word() -> None:
    text = render(load(EXAMPLE), announces=True, is_draining=True, passwords=SECRET)
    assert text == GOLDEN.read_text()


@pytest.mark.skipif(BIRD is None, reason="no bird on this machine (apt-get install bird2)")
@pytest.mark.parametrize("announces", [True, False])
@pytest.mark.parametrize("is_draining", [True, False])
def test_bird_takes_it(tmp_path: Path, announces: bool, is_draining: bool) -> None:
    text = render(load(EXAMPLE), announces=announces, is_draining=is_draining, passwords=SECRET)
    file = tmp_path / "bird.conf"
    for written in (text, held(text)):
        file.write_text(written)
        done = subprocess.run(
            [BIRD or "", "-p", "-c", str(file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_what_is_held_announces_nothing_and_keeps_its_sessions() -> None:
    config = load(EXAMPLE)
    text = render(config, announces=True, passwords=SECRET)
    assert is_announcing(text) and not is_announcing(held(text))
    assert held(text) == render(config, announces=False, passwords=SECRET)


def test_a_drain_is_told_by_attributes_alone() -> None:
    config = load(EXAMPLE)
    lines = render(config, announces=True).splitlines()
    more = render(config, announces=True, is_draining=True).splitlines()
    for line in lines:
        more.remove(line)
    assert {line.strip() for line in more} == {"bgp_community.add((65535, 0));", "bgp_local_pref = 0;"}


def test_a_neighbours_name_is_its_address() -> None:
    names = [protocol_name(neighbor.address) for neighbor in load(EXAMPLE).bgp.neighbors]  # type: ignore[union-attr]
    assert names == ["to_192_0_2_1", "to_2001_db8_ffff__1"]


@pytest.mark.parametrize("password", ["", 'say "x"', "line\nbreak", "x" * 81])
def test_a_password_that_bird_cannot_be_told_is_refused(password: str) -> None:
    with pytest.raises(Refused, match=r"password of neighbour 192\.0\.2\.1"):
        render(load(EXAMPLE), announces=True, passwords={"192.0.2.1": password})
