"""conntrackd: the peer: keepalived (VRRP version 3) moves the VIPs, conntrackd (FTFW) tells the other
kernel the flows.

nftables translates in the kernel, to the same pools. It is snat, not masquerade: masquerade takes an
address of the node, which the other node has not. Advertisements go every 10 ms, the shortest that
VRRP's centiseconds allow. As the authors advise: no flow is picked up in the middle (tcp_loose 0), what
is unknown is dropped. `direct`: the standby's kernel has each flow at once (DisableExternalCache); else
flows wait in conntrackd's cache and go into the kernel at the takeover, as in the example that comes
with it.

A kill: conntrackd and all of keepalived get SIGKILL, and in the same moment the node's three links go
down, for a kernel that lived on would go on translating. It comes back empty, as after a restart of the
machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from ipshare.lab.netns import inside
from perf.load.program import prefer
from tests.engine_lab import run
from tests.flows_lab import POOL4, POOL6, NatNode
from tests.pair_lab import until

from .road import VIPS, Road

NICE = -15
ENOUGH_S = 20.0
LINKS = {"lan0": "fd00:1::{}/64", "up0": "2001:db8:2::{}/64"}
RULES = f"""
table inet pair {{
  chain post {{
    type nat hook postrouting priority 100;
    oifname "up0" ip saddr 10.0.1.0/24 snat ip to {POOL4}-203.0.113.3
    oifname "up0" ip6 saddr fd00:1::/64 snat ip6 to {POOL6}-2001:db8:9::3
  }}
  chain forward {{
    type filter hook forward priority 0;
    ct state invalid drop
  }}
}}
"""


def missing() -> str:
    """Why it cannot run here; "" if it can."""
    tools = [tool for tool in ("keepalived", "conntrackd", "conntrack") if not shutil.which(tool)]
    return f"no {', '.join(tools)} (Debian has packages of these names)" if tools else ""


def keepalived_conf(node: str, number: int, notify: Path) -> str:
    """Two instances, one for each side, which go together; IPv6 addresses ride along with the IPv4 ones."""
    parts = [f"""global_defs {{
  router_id {node}
  vrrp_version 3
  script_user root
  enable_script_security
  vrrp_rt_priority 50
  vrrp_garp_master_repeat 5
}}
vrrp_sync_group both {{
  group {{
    lan0
    up0
  }}
  notify_master "{notify} primary"
  notify_backup "{notify} backup"
  notify_fault "{notify} fault"
}}
"""]  # fmt: skip
    for vrid, (link, (v4, v6)) in enumerate(VIPS.items(), start=51):
        parts.append(f"""vrrp_instance {link} {{
  state BACKUP
  nopreempt
  interface {link}
  virtual_router_id {vrid}
  priority {150 - number}
  advert_int 0.01
  virtual_ipaddress {{
    {v4}/24 dev {link}
  }}
  virtual_ipaddress_excluded {{
    {v6}/64 dev {link}
  }}
}}
""")  # fmt: skip
    return "".join(parts)


def conntrackd_conf(number: int, where: Path, *, direct: bool) -> str:
    return f"""Sync {{
  Mode FTFW {{
    ResendQueueSize 131072
    DisableExternalCache {"on" if direct else "off"}
  }}
  UDP {{
    IPv4_address 10.9.0.{number}
    IPv4_Destination_Address 10.9.0.{3 - number}
    Port 3780
    Interface direct
    SndSocketBuffer 8388608
    RcvSocketBuffer 8388608
    Checksum on
  }}
}}
General {{
  HashSize 65536
  HashLimit 524288
  LogFile {where}/conntrackd.log
  LockFile {where}/conntrackd.lock
  UNIX {{
    Path {where}/conntrackd.ctl
  }}
  NetlinkBufferSize 8388608
  NetlinkBufferSizeMaxGrowth 67108864
  Filter From Userspace {{
    Protocol Accept {{
      TCP
      UDP
    }}
    Address Ignore {{
      IPv4_address 127.0.0.1
      IPv4_address 10.9.0.1
      IPv4_address 10.9.0.2
      IPv6_address ::1
    }}
  }}
}}
"""


def notify_script(where: Path, *, direct: bool) -> str:
    """What is told at which change: the order of calls is that of conntrackd's own example."""
    told = {"primary": ("-c", "-f", "-R", "-B"), "backup": ("-t", "-n"), "fault": ("-t",)}
    if direct:  # there is no cache to commit, and the backup's kernel keeps what it has
        told = {"primary": ("-R", "-B"), "backup": ("-n",), "fault": ()}
    lines = ["#!/bin/sh", f"exec >>{where}/notify.log 2>&1", "case $1 in"]
    for state, options in told.items():
        calls = [f"conntrackd -C {where}/conntrackd.conf {option}" for option in options]
        lines.append("; ".join([f"{state}) echo {state} >{where}/state", *calls]) + " ;;")
    return "\n".join([*lines, "esac"]) + "\n"


class Box:
    """One node."""

    def __init__(self, node: NatNode, directory: Path, *, direct: bool) -> None:
        self.name, self.number, self.direct = node.name, node.number, direct
        self.where = directory / f"box{node.number}"
        self.where.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []
        notify = self.where / "notify"
        notify.write_text(notify_script(self.where, direct=direct))
        notify.chmod(0o755)
        (self.where / "conntrackd.conf").write_text(conntrackd_conf(self.number, self.where, direct=direct))
        (self.where / "keepalived.conf").write_text(keepalived_conf(self.name, self.number, notify))
        for family in ("-4", "-6"):
            run(self.name, f"ip {family} rule del pref 90")  # the way into an engine
        for setting in ("tcp_loose=0", "tcp_be_liberal=1"):
            run(self.name, f"sysctl -qw net.netfilter.nf_conntrack_{setting}")
        inside(self.name, lambda: subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True))
        self._links = self._spawn(["ip", "-batch", "-"], stdin=subprocess.PIPE)  # ready, so that it is fast

    def _spawn(self, command: list[str], **values: Any) -> subprocess.Popen[bytes]:
        log = (self.where / "log").open("ab")
        return inside(
            self.name,
            lambda: subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **values),
        )

    def start(self) -> None:
        (self.where / "state").write_text("none\n")
        for left in ("conntrackd.lock", "conntrackd.ctl", "k.pid", "v.pid"):  # nothing outlives a restart
            (self.where / left).unlink(missing_ok=True)
        tracker = self._spawn(["conntrackd", "-C", f"{self.where}/conntrackd.conf"])
        until(lambda: (self.where / "conntrackd.ctl").exists() or time.sleep(0.01))
        keeper = self._spawn(
            ["keepalived", "--dont-fork", "--log-console", "--vrrp", "-f", f"{self.where}/keepalived.conf",
             "-p", f"{self.where}/k.pid", "-r", f"{self.where}/v.pid"]
        )  # fmt: skip
        self.processes = [tracker, keeper]
        for process in self.processes:
            prefer(process.pid, NICE)

    def state(self) -> str:
        return (self.where / "state").read_text().strip()

    def entries(self) -> int:
        """Flows that this node could go on with."""
        if self.direct or self.state() == "primary":
            return int(run(self.name, "conntrack -C"))
        text = run(self.name, f"conntrackd -C {self.where}/conntrackd.conf -s")
        external = text[text.index("cache external") :]
        return int(external.split("current active connections:")[1].split()[0])

    def _command(self, text: str) -> None:
        assert self._links.stdin is not None
        self._links.stdin.write(text.encode())
        self._links.stdin.flush()

    def kill(self) -> int:
        at_ns = time.monotonic_ns()
        self._command("".join(f"link set {link} down\n" for link in ("lan0", "up0", "direct")))
        self.end()
        return at_ns

    def end(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            for child in _children(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            process.wait()
        self.processes = []

    def close(self) -> None:
        self.end()
        self._links.kill()
        self._links.wait()

    def come_back(self) -> None:
        run(self.name, "conntrack -F")
        for link, prefix in LINKS.items():
            v4, _ = VIPS[link]
            delete = ["ip", "address", "del", f"{v4}/24", "dev", link]
            inside(self.name, lambda c=delete: subprocess.run(c, capture_output=True, check=False))
            run(self.name, f"ip link set {link} up")
            run(self.name, f"ip address replace {prefix.format(self.number)} dev {link} nodad")
        run(self.name, "ip link set direct up")
        self.start()


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


class Conntrackd:
    """The pair."""

    name = "keepalived, conntrackd"

    def __init__(self, road: Road, *, direct: bool) -> None:
        self.incomplete: list[tuple[int, int]] = []
        self.boxes = [Box(node, road.directory, direct=direct) for node in (road.a, road.b)]

    def start(self) -> None:
        for box in self.boxes:
            box.start()
        self.wait()

    def wait(self) -> tuple[Box, Box]:
        """(primary, backup), as soon as there are both and the backup has nearly all flows.

        If it does not get them in ENOUGH_S, the roles are enough: that is counted in `incomplete`."""
        end = time.monotonic() + ENOUGH_S

        def found() -> tuple[Box, Box] | None:
            by_state = {box.state(): box for box in self.boxes}
            if set(by_state) == {"primary", "backup"}:
                primary, backup = by_state["primary"], by_state["backup"]
                has, wanted = backup.entries(), primary.entries()
                if has >= 0.95 * wanted - 20:
                    return primary, backup
                if time.monotonic() > end:
                    self.incomplete.append((has, wanted))
                    return primary, backup
            time.sleep(0.05)
            return None

        return until(found)

    def kill(self) -> int:
        primary, backup = self.wait()
        at_ns = primary.kill()
        self._dead = primary
        until(lambda: backup.state() == "primary" or time.sleep(0.01))
        return at_ns

    def restore(self) -> None:
        self._dead.come_back()
        self.wait()

    def remark(self) -> str:
        return ""

    def pids(self) -> list[int]:
        first = [p.pid for box in self.boxes for p in box.processes]
        return first + [child for pid in first for child in _children(pid)]

    def notes(self) -> dict[str, Any]:
        return {"entries": [box.entries() for box in self.boxes], "incomplete": self.incomplete}

    def end(self) -> None:
        for box in self.boxes:
            box.close()
