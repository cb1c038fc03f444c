"""Everything about this machine that would keep a node from working, found before anything is changed.

Each finding is one sentence with its remedy. preflight() only reads; it is called before the engine is
started (devices_exist=False) or while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from ipshare.errors import Problem
from ipshare.model import Prefix, contains, host_prefix
from ipshare.net import facts, legacy, nft
from ipshare.net.actions import PROTOCOL, NetError
from ipshare.net.kernel import Kernel
from ipshare.net.recipe import RULES, NodeNet, families, recipe

_LOCAL, _MAIN = 255, 254
_ALLOW = "accept what comes from and goes to our devices"


def preflight(spec: NodeNet, *, devices_exist: bool = False, kernel: Kernel | None = None) -> list[Problem]:
    """All obstacles at once; an empty list: go ahead. Raises NetError only where netlink is closed to us."""
    try:
        recipe(spec)
    except NetError as error:
        return [_problem(error.message, error.hint)]
    with kernel or Kernel() as door:
        return [
            *_privileges(spec),
            *_devices(spec, door, devices_exist),
            *_reverse_path(spec, door),
            *_occupied(spec, door),
            *_local_traps(spec, door),
            *_firewalls(spec),
        ]


def _problem(message: str, hint: str) -> Problem:
    return Problem("this machine", 0, 0, "", message, hint)


def _privileges(spec: NodeNet) -> Iterator[Problem]:
    if not facts.has_net_admin():
        yield _problem("this process may not change the network", "run as root, or with CAP_NET_ADMIN")
    if not facts.sysctls_writable():
        yield _problem(
            "/proc/sys/net is read-only", "in a container: run it privileged, or mount /proc/sys writable"
        )
    if reason := facts.tun_error():
        yield _problem(
            f"/dev/net/tun cannot be opened: {reason}",
            "modprobe tun, and let this user open it (chmod 0666 /dev/net/tun is what udev does); "
            "in a container pass the device in (--device /dev/net/tun)",
        )
    if spec.notrack and not nft.is_available():
        yield _problem("conntrack is in use and the nft command is missing", "apt install nftables")


def _devices(spec: NodeNet, kernel: Kernel, devices_exist: bool) -> Iterator[Problem]:
    links = kernel.links()
    for name in spec.devices:
        link = links.get(name)
        if len(name.encode()) > 15:
            yield _problem(f"device name {name} is longer than 15 bytes", "configure a shorter one")
        elif devices_exist and link is None:
            yield _problem(f"there is no device {name}", "start ipshare-engine: it makes the device")
        elif link is not None and (link["kind"] != "tun" or not devices_exist):
            yield _problem(
                f"device name {name} is taken",
                f"another engine runs here, or remove it (ip link del {name}), or configure another name",
            )
    for name in {reply.device for reply in spec.replies} - links.keys():
        yield _problem(
            f"there is no device {name} for replies to come in by", "correct its name in the configuration"
        )
    for name in sorted({inside.device for inside in spec.insides} - links.keys()):
        yield _problem(
            f"there is no device {name} for what NAT translates to come in by",
            "correct `interfaces` in [[nat]], or make the device before the agent starts",
        )


def _reverse_path(spec: NodeNet, kernel: Kernel) -> Iterator[Problem]:
    """rp_filter is the larger of `all` and the device's; 1 drops what comes back another way than it went."""
    if 4 not in families(spec):
        return
    if (value := kernel.sysctl("net/ipv4/conf/all/rp_filter")) not in ("0", "2"):
        yield _problem(
            f"net.ipv4.conf.all.rp_filter is {value}: the kernel would drop translated packets",
            "sysctl -w net.ipv4.conf.all.rp_filter=2, and the same in /etc/sysctl.d",
        )
    names = {link["index"]: name for name, link in kernel.links().items()}
    served = [n.prefix for n in spec.networks if n.prefix.version == 4]
    strict = {reply.device for reply in spec.replies if reply.source.version == 4}
    for route in kernel.routes(4, _MAIN) if served else ():
        if route["oif"] in names and any(
            contains(network, ip_network(route["prefix"])) for network in served
        ):
            strict.add(names[route["oif"]])  # devices with Global IPs behind it: their way back is our device
    for name in sorted(strict & set(names.values()) - {"lo"}):
        if kernel.sysctl(f"net/ipv4/conf/{name}/rp_filter") == "1":
            yield _problem(
                f"net.ipv4.conf.{name}.rp_filter is 1: replies that come in there would be dropped",
                f"sysctl -w net.ipv4.conf.{name}.rp_filter=2, and the same in /etc/sysctl.d",
            )


def _occupied(spec: NodeNet, kernel: Kernel) -> Iterator[Problem]:
    for family in families(spec):
        for table, word in (
            (spec.service_table, "service"),
            (spec.reply_table, "reply"),
            (spec.nat_table, "nat"),
            (spec.group_table, "group"),
        ):
            foreign = [r["prefix"] for r in kernel.routes(family, table) if r["protocol"] != PROTOCOL]
            if foreign:
                yield _problem(
                    f"routing table {table} ({word} table) has IPv{family} routes of others: {foreign[0]}",
                    "configure another table number",
                )
        ours = range(spec.rule_priority, spec.rule_priority + RULES)
        taken = [
            r.priority for r, protocol in kernel.rules(family) if r.priority in ours and protocol != PROTOCOL
        ]
        if taken:
            yield _problem(
                f"IPv{family} rule priority {taken[0]} is taken (we use {ours.start} to {ours.stop - 1})",
                "configure another rule_priority: ten free numbers below 32766",
            )


def _local_traps(spec: NodeNet, kernel: Kernel) -> Iterator[Problem]:
    """The local table is asked before every rule: an address of the node itself never reaches the engine."""
    guarded: list[tuple[Prefix, str]] = [
        *((network.prefix, "Global Network") for network in spec.networks),
        *((prefix, "local network") for prefix in spec.local_networks),
        *((host_prefix(address), "tunnel address") for address in spec.tunnels),
        *((prefix, "NAT pool") for prefix in spec.pools),
    ]
    seen: set[str] = set()
    for family in families(spec):
        for route in kernel.routes(family, _LOCAL):
            entry = ip_network(route["prefix"])
            trap = next((g for g in guarded if contains(g[0], entry)), None)
            if trap is not None and str(entry) not in seen:
                seen.add(str(entry))
                yield _problem(
                    f"{entry.network_address} in the {trap[1]} {trap[0]} belongs to this node itself: "
                    "packets to it would never reach the engine",
                    "take the address (or, for a subnet's broadcast address, the subnet) off its device; "
                    "a Global IP served by a distribution point itself lives in a network namespace",
                )
    for address in spec.held:
        if any(contains(network.prefix, host_prefix(address)) for network in spec.networks):
            yield _problem(
                f"{address} cannot be held by the node itself where that is also its distribution point",
                "run the device in a network namespace of this node, with its own subnet",
            )


def _firewalls(spec: NodeNet) -> Iterator[Problem]:
    names = " ".join(spec.devices)
    for family in families(spec):
        if legacy.forward_drops(family, spec.devices):
            command = "iptables-legacy" if family == 4 else "ip6tables-legacy"
            yield _problem(
                f"{command}: FORWARD drops by default, and with it what {names} carry",
                f"{_ALLOW}: for d in {names}; do {command} -I FORWARD -i $d -j ACCEPT; "
                f"{command} -I FORWARD -o $d -j ACCEPT; done",
            )
    if not nft.is_available():
        return
    try:
        items = nft.ruleset()
    except NetError:
        return  # without the privilege, which is reported already
    words = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}
    for chain in nft.dropping_chains(items):
        concerned = set(words.get(chain["family"], ())) & set(families(spec))
        if concerned and not nft.passes_devices(items, chain, spec.devices):
            where = f"{chain['family']} {chain['table']} {chain['name']}"
            yield _problem(
                f"nftables: chain {where} (Docker sets this) drops forwarded packets by default, "
                f"and with them what {names} carry",
                f"{_ALLOW}: for d in {names}; do nft insert rule {where} iifname $d accept; "
                f"nft insert rule {where} oifname $d accept; done",
            )
