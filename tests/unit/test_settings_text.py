"""What changes in pair, sessions, NAT and mirror, in words: nothing for equals, else each key."""

from __future__ import annotations

from pathlib import Path

from ipshare.config import load_text
from ipshare.engine.plan_text import Summary
from ipshare.engine.settings_text import setting_items
from ipshare.model import Config
from tests.cases.flow_mistakes import GOOD_NAT


def gateway(*change: tuple[str, str]) -> Config:
    text = GOOD_NAT
    for old, new in change:
        assert old in text
        text = text.replace(old, new)
    return load_text(text, Path("/etc/ipshare/site.toml"))


def lines(now: Config | None, wanted: Config) -> list[str]:
    return Summary(setting_items(now, wanted)).lines()


def test_equals_differ_in_nothing() -> None:
    assert lines(gateway(), gateway()) == []
    assert lines(None, load_text('[node]\nname = "n"\n')) == []


def test_a_change_says_each_key_from_and_to() -> None:
    assert lines(gateway(), gateway(("198.51.100.8/29", "198.51.100.8/30"))) == [
        "~ nat office: pools 198.51.100.8-198.51.100.15, 2001:db8:5::10-2001:db8:5::1f -> "
        "198.51.100.8-198.51.100.11, 2001:db8:5::10-2001:db8:5::1f"
    ]
    other = gateway(
        ("half_open = 4096", 'half_open = 4096\ntimeouts = {udp = "2m"}'),
        ('commit = "acked"', 'commit = "async"'),
    )
    assert lines(gateway(), other) == [
        "~ sessions timeouts.udp 300 -> 120",
        "~ mirror commit acked -> async",
    ]


def test_what_comes_and_goes_is_said_whole() -> None:
    text = GOOD_NAT[: GOOD_NAT.index("[mirror]")]
    without = load_text(text, Path("/etc/ipshare/site.toml"))
    [line] = lines(without, gateway())
    assert line.startswith("+ mirror node gw2; ")
    assert "peers 1 10.9.0.2:6082 - 10.9.0.1:6082, 10.9.1.2:6082 - 10.9.1.1:6082" in line
    assert "commit acked; commit_timeout 0.002 s" in line
    [line] = lines(gateway(), without)
    assert line.startswith("- mirror node gw2")
    assert [line.split(" ")[:2] for line in lines(None, gateway())] == [
        ["+", "pair"], ["+", "sessions"], ["+", "mirror"], ["+", "nat"], ["+", "nat"],
    ]  # fmt: skip


def test_a_nat_that_is_elsewhere_in_the_file_is_another_one() -> None:
    first, second = GOOD_NAT.index("[[nat]]"), GOOD_NAT.rindex("[[nat]]")
    end = GOOD_NAT.index("[mirror]")
    swapped = GOOD_NAT[:first] + GOOD_NAT[second:end] + GOOD_NAT[first:second] + GOOD_NAT[end:]
    found = lines(gateway(), load_text(swapped, Path("/etc/ipshare/site.toml")))
    assert found == ["~ nat guests: another place in the file", "~ nat office: another place in the file"]


def test_a_vip_is_written_as_words() -> None:
    vip = '[[pair.vip]]\naddress = "192.168.5.1"\ninterface = "eth1"\n[sessions]'
    assert lines(gateway(), gateway(("[sessions]", vip))) == ["~ pair vips none -> 192.168.5.1 eth1"]
