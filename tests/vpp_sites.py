"""Configurations of one VPP node, each a few edits away from the first: for plans between any two of them."""

from __future__ import annotations

from ipshare.config import load_text
from ipshare.model import Config
from tests.cases.config_mistakes import GOOD_VPP

Edit = tuple[str, str]
TEXT = GOOD_VPP.replace('"GigabitEthernet0/8/0"', '"host-lan1"\nhost = "lan1"')
PAIR: Edit = ('linux_cp = "lan0"', "")
"""Takes the pair in Linux out, which not every machine can have."""


def site(*edits: Edit, head: str = "") -> Config:
    """The node after ``edits``: (what is replaced, by what). ``head``: more keys of [node]."""
    text = TEXT.replace("[node]\n", f"[node]\n{head}\n")
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return load_text(text)


MORE = '[[interface]]\nname = "host-lan2"\nhost = "lan2"\naddresses = ["10.7.0.1/24"]\n[probe]'
EDITS: list[list[Edit]] = [
    [],
    [('addresses = ["203.0.113.1/25"]', 'addresses = ["203.0.113.2/24", "2001:db8:1::1/64"]')],
    [("delivery_table = 1", "delivery_table = 7")],
    [('host = "up0"', 'host = "up0"\nmtu = 1400\nmac = "02:00:00:00:00:99"')],
    [("id = 10", "id = 11"), PAIR],
    [('via = "192.0.2.1"', 'via = "192.0.2.3"\n[[route]]\nprefix = "10.2.0.0/16"\nvia = "192.0.2.4"')],
    [('to = "B"\n', 'to = "B"\n' + MORE)],
    [
        ('host = "up0"', 'host = "up0"\nup = false'),
        ('bridge = "lan"', 'bridge = "w"'),
        ('= "lan"\nid', '= "w"\nid'),
    ],
    [('global = "203.0.113.9"', 'global = "203.0.113.64/26"'), ('"192.0.2.2/29", ', '"192.0.2.3/29", ')],
    [
        (
            'name = "A"\nlocal = ["10.1.0.0/24"]',
            'name = "A"\nlocal = ["10.1.0.0/24"]\nreplies = "tunnel"\ntunnel = ["10.1.0.254"]',
        ),
        ('inside = ["loop0"]', 'inside = ["loop0", "host-up0"]'),
    ],
    [
        ('table = "delivery"\n', ""),
        ('endpoint = "A"', ""),
        ('"203.0.113.1/25"', '"10.8.0.1/24"'),
        ('[[neighbor]]\ninterface = "loop0"\naddress = "203.0.113.77"\nmac = "02:00:00:00:00:01"', ""),
    ],
]
