"""overlay: every file of the image that is not Debian's: ipshare, its units, and how the box is set up before
it is told anything.

Without a seed: addresses by DHCP on every Ethernet, SSH without a key to log in with, no agent. No password
exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ipshare.appliance.archive import Entry

UPDATE_KEY = "/usr/share/ipshare/update.pub"
RELEASE = "/run/ipshare-slot/release.json"
SITE = "/etc/ipshare/site.toml"
HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
"""Below the root. The only one: sshd is told so."""
UNITS = "/usr/lib/systemd/system"
WANTED = "/etc/systemd/system/multi-user.target.wants"

FIRSTBOOT = """# What the seed says, before network, SSH and agent begin. It never fails the boot: mistakes go
# to console and journal.
[Unit]
Description=ipshare: settings from the seed
DefaultDependencies=no
After=local-fs.target systemd-udev-settle.service systemd-journald.socket
Wants=systemd-udev-settle.service
Before=network-pre.target systemd-networkd.service sysinit.target
Wants=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-/usr/bin/ipshare appliance firstboot
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=300
"""

HUGEPAGES = """# What the site file asks of the machine under a VPP: hugepages, cards, cores. It never
# fails the boot: what is missing goes to console and journal. After the network: the card by which the
# box is reached is known by its address.
[Unit]
Description=ipshare: hugepages, cards and cores for VPP
After=ipshare-firstboot.service network-online.target
Wants=network-online.target
Before=ipshare-agent@site.service
ConditionPathExists=/etc/ipshare/site.toml

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-/usr/bin/ipshare vpp prepare --last-good /etc/ipshare/site.toml
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=120
"""

HEALTH = """# A slot on trial becomes the good one here, or the machine starts again. Says on the console what
# the box is.
[Unit]
Description=ipshare: is this slot healthy
After=ssh.service ipshare-agent@site.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ipshare appliance health --reboot
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=600
"""

CLOCK = """# A clock that is empty begins with the last known time, before certificates are made or judged.
[Unit]
Description=ipshare: the clock does not begin before the last known time
DefaultDependencies=no
After=local-fs.target systemd-journald.socket
Before=ipshare-firstboot.service chrony.service sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-/usr/bin/ipshare appliance clock
ExecStop=-/usr/bin/ipshare appliance clock --keep
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=300
"""

CLOCK_KEPT = """[Unit]
Description=ipshare: keeps the time of now for the next start

[Service]
Type=oneshot
ExecStart=/usr/bin/ipshare appliance clock --keep
"""

CLOCK_TIMER = """[Unit]
Description=ipshare: keeps the time every now and then

[Timer]
OnBootSec=10min
OnUnitActiveSec=30min
"""

GUARD = """# Resets a machine whose data path hangs. If it hangs itself, systemd ends it (SIGABRT) and
# resets the machine; if it fails otherwise, it is started again: a mistake in it must not be a box that is
# reset for ever.
[Unit]
Description=ipshare: resets the machine if its data path hangs
After=ipshare-agent@site.service
FailureAction=reboot-immediate
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/usr/bin/ipshare appliance guard
Restart=always
RestartSec=5
RestartPreventExitStatus=SIGABRT
TimeoutStartSec=300
TimeoutAbortSec=10
WatchdogSec=60
Nice=-15
OOMScoreAdjust=-900
StandardOutput=journal+console
StandardError=journal+console
"""

CONSOLE = """# In the place of a login, which needs a password: menu of the live system, wizard, what the box
# is.
[Unit]
Description=ipshare: console on %I
After=ipshare-firstboot.service systemd-user-sessions.service
ConditionPathExists=/dev/%I

[Service]
ExecStart=/usr/bin/ipshare appliance console
Restart=always
RestartSec=2
RestartPreventExitStatus=3
StandardInput=tty-force
StandardOutput=tty
StandardError=journal
TTYPath=/dev/%I
TTYReset=yes
TTYVHangup=yes
"""

AGENT = """[Unit]
After=ipshare-firstboot.service network-online.target
Wants=network-online.target
ConditionPathExists=/etc/ipshare/site.toml

[Service]
TimeoutStartSec=300
"""

ONLINE = """[Service]
ExecStart=
ExecStart=/lib/systemd/systemd-networkd-wait-online --any --timeout=15
"""

SSHD = f"""HostKey /{HOST_KEY}
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AuthorizedKeysFile /etc/ssh/authorized_keys.d/%u
"""

DHCP = """[Match]
Type=ether
Kind=!*

[Network]
DHCP=yes
"""

CHRONY = """# Without -s, which could put the clock back: ipshare-clock.service has the last known time.
DAEMON_OPTS="-F 1"
"""

JOURNAL = """[Journal]
Storage=persistent
SystemMaxUse=64M
SystemKeepFree=32M
"""

PLAIN = {
    "/etc/machine-id": "",
    "/etc/hostname": "ipshare\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/fstab": "",
    "/etc/resolv.conf": "",
    "/etc/default/chrony": CHRONY,
    "/etc/ssh/sshd_config.d/ipshare.conf": SSHD,
    "/etc/systemd/network/80-dhcp.network": DHCP,
    "/etc/systemd/journald.conf.d/ipshare.conf": JOURNAL,
    "/etc/systemd/system.conf.d/ipshare.conf": "[Manager]\nRuntimeWatchdogSec=60\nRebootWatchdogSec=120\n",
    "/etc/systemd/system/ipshare-agent@.service.d/appliance.conf": AGENT,
    "/etc/systemd/system/systemd-networkd-wait-online.service.d/any.conf": ONLINE,
    "/etc/sysctl.d/ipshare.conf": "net.ipv4.ip_forward=1\nnet.ipv6.conf.all.forwarding=1\n",
    "/etc/modprobe.d/ipshare.conf": "blacklist floppy\n",
    "/etc/modules-load.d/ipshare.conf": "tun\nnf_tables\n",
    f"{UNITS}/ipshare-firstboot.service": FIRSTBOOT,
    f"{UNITS}/ipshare-hugepages.service": HUGEPAGES,
    f"{UNITS}/ipshare-health.service": HEALTH,
    f"{UNITS}/ipshare-guard.service": GUARD,
    f"{UNITS}/ipshare-clock.service": CLOCK,
    f"{UNITS}/ipshare-clock-kept.service": CLOCK_KEPT,
    f"{UNITS}/ipshare-clock-kept.timer": CLOCK_TIMER,
    f"{UNITS}/ipshare-console@.service": CONSOLE,
}

DEBIAN = "/lib/systemd/system"
ETC = "/etc/systemd/system"
LINKS = {
    f"{WANTED}/ipshare-hugepages.service": f"{UNITS}/ipshare-hugepages.service",
    f"{WANTED}/ipshare-health.service": f"{UNITS}/ipshare-health.service",
    f"{WANTED}/ipshare-guard.service": f"{UNITS}/ipshare-guard.service",
    f"{WANTED}/ipshare-agent@site.service": f"{UNITS}/ipshare-agent@.service",
    f"{WANTED}/ipshare-console@tty1.service": f"{UNITS}/ipshare-console@.service",
    f"{WANTED}/ipshare-console@ttyS0.service": f"{UNITS}/ipshare-console@.service",
    f"{ETC}/getty@.service": "/dev/null",
    f"{ETC}/serial-getty@.service": "/dev/null",
    f"{ETC}/getty-static.service": "/dev/null",
    f"{WANTED}/systemd-networkd.service": f"{DEBIAN}/systemd-networkd.service",
    f"{ETC}/sysinit.target.wants/ipshare-clock.service": f"{UNITS}/ipshare-clock.service",
    f"{ETC}/timers.target.wants/ipshare-clock-kept.timer": f"{UNITS}/ipshare-clock-kept.timer",
    f"{ETC}/sysinit.target.wants/ipshare-firstboot.service": f"{UNITS}/ipshare-firstboot.service",
    f"{ETC}/sockets.target.wants/systemd-networkd.socket": f"{DEBIAN}/systemd-networkd.socket",
    f"{ETC}/network-online.target.wants/systemd-networkd-wait-online.service": (
        f"{DEBIAN}/systemd-networkd-wait-online.service"
    ),
    # What Debian starts and this box has no use for: ipshare has a BIRD of its own, the root is read-only.
    f"{ETC}/bird.service": "/dev/null",
    f"{ETC}/apt-daily.timer": "/dev/null",
    f"{ETC}/apt-daily-upgrade.timer": "/dev/null",
    f"{ETC}/dpkg-db-backup.timer": "/dev/null",
    f"{ETC}/e2scrub_all.timer": "/dev/null",
    f"{ETC}/e2scrub_reap.service": "/dev/null",
    # VPP's package would have 2 GiB of hugepages at each start; here the site file says how many.
    "/etc/sysctl.d/80-vpp.conf": "/dev/null",
}

PROGRAM = "#!/usr/bin/python3 -I\nimport sys\n\nfrom ipshare.cli import main\n\nsys.exit(main())\n"


def entries(units: Path, staged: Path, python: tuple[int, int], update_key: bytes | None) -> list[Entry]:
    """All of them. `units`: our systemd units; `staged`: what goes into the image's dist-packages."""
    found = [Entry(path, text.encode()) for path, text in PLAIN.items()]
    found += [Entry(path, link=target) for path, target in LINKS.items()]
    found += [Entry(path, mode=0o755) for path in ("/data", "/dev", "/var/log")]
    found += [Entry("/etc/ipshare", mode=0o700), Entry("/boot", mode=0o755)]
    found.append(Entry("/usr/bin/ipshare", PROGRAM.encode(), 0o755))
    found += [Entry(f"{UNITS}/{unit.name}", unit.read_bytes()) for unit in sorted(units.glob("*.service"))]
    if update_key is not None:
        found.append(Entry(UPDATE_KEY, update_key))
    return [*found, *_packages(staged, f"/usr/local/lib/python{python[0]}.{python[1]}/dist-packages")]


def _packages(staged: Path, below: str) -> Iterable[Entry]:
    for path in sorted(staged.rglob("*")):
        if path.is_file() and "/tests/" not in str(path.relative_to(staged)):
            runs = 0o755 if path.stat().st_mode & 0o100 else 0o644
            yield Entry(f"{below}/{path.relative_to(staged)}", path.read_bytes(), runs)
