# scripts/ipshare of the initrd (boot=ipshare): the root of the slot that GRUB chose, and what lies over it.
#   /run/ipshare-slot   the slot's squashfs: kernel, initrd, root.squashfs, release.json
#   /run/ipshare-medium the ISO, where the live system runs from its slot; /data is memory there
#   /                   root.squashfs, read-only
#   /data               the data partition; if it cannot be mounted, memory, and /run/ipshare-degraded says so
#   /etc                what is in the image, changes in /data/overlay/etc; where /data is full, more of them in memory (/run/ipshare-etc)
#   /var                what is in the image, changes in memory, but for what /data keeps: logs, state of ipshare and chrony
# A factory reset is done here, before anything of /data is in use: the order for it is /data/appliance/reset.
mount_top() { :; }
mount_premount() { :; }
mount_bottom() { :; }

part() {
	n=0
	while [ ! -e "/dev/disk/by-partlabel/ipshare-$1" ]; do
		n=$((n + 1))
		[ "$n" -gt 300 ] && return 1
		sleep 0.1
	done
	readlink -f "/dev/disk/by-partlabel/ipshare-$1"
}

# The installation medium whose UUID GRUB named: a CD or a stick, found by what is on it, since udev here knows no CDs.
medium() {
	n=0
	mkdir -p /run/ipshare-medium
	while [ "$n" -lt 120 ]; do
		for device in /dev/sr[0-9]* /dev/sd* /dev/vd* /dev/nvme*n* /dev/mmcblk* /dev/hd*; do
			[ -b "$device" ] && mount -t iso9660 -o ro "$device" /run/ipshare-medium 2>/dev/null || continue
			[ -e "/run/ipshare-medium/ipshare/$1" ] && return 0
			umount /run/ipshare-medium
		done
		n=$((n + 1))
		sleep 0.5
	done
	return 1
}

data() {
	device=$(part data) || { echo "there is no data partition"; return 1; }
	mount -o bind /dev "${rootmnt}/dev" # the root's e2fsck is taken, with the libraries that it has there
	chroot "${rootmnt}" /sbin/e2fsck -p "$device" >/run/ipshare-fsck 2>&1
	result=$?
	umount "${rootmnt}/dev"
	[ "$result" -lt 4 ] || { echo "the data partition is damaged: $(tail -n 1 /run/ipshare-fsck)"; return 1; }
	mount -t ext4 -o noatime "$device" "$1" 2>/run/ipshare-fsck || { echo "the data partition cannot be mounted"; return 1; }
	mkdir -p "$1/overlay/etc" "$1/overlay/etc.work" || { echo "the data partition cannot be written"; umount "$1"; return 1; }
}

# KiB that are left there.
left() {
	df -kP "$1" | awk 'NR == 2 { print $4 }'
}

# Changes of /etc: a box that cannot write them could not be told anything, nor be logged in to.
etc() {
	below=$2/etc upper=$1/etc work=$1/etc.work
	if [ "$(left "$1")" -lt 2048 ]; then
		echo "ipshare: degraded: /data is full: changes of /etc are in memory" >/dev/console
		below=$1/etc:$below upper=/run/ipshare-etc/upper work=/run/ipshare-etc/work
		mkdir -p "$upper" "$work"
	fi
	mount -t overlay -o "lowerdir=$below,upperdir=$upper,workdir=$work" overlay "$2/etc"
}

# Instead of the data partition.
memory() {
	mount -t tmpfs -o size=64m,mode=0755 tmpfs "${rootmnt}/data"
	mkdir -p "${rootmnt}/data/overlay/etc" "${rootmnt}/data/overlay/etc.work"
}

# Removes what the order says; itself last, so that a reset that loses power is done again.
reset() {
	[ -e "$1/appliance/reset" ] || return 0
	if grep -q everything "$1/appliance/reset"; then
		echo "ipshare: factory reset: everything on /data goes" >/dev/console
		find "$1" -mindepth 1 -maxdepth 1 ! -name appliance ! -name lost+found -exec rm -rf {} +
	else
		echo "ipshare: factory reset: epochs of pairs and workloads, terms of witnesses and directors stay" >/dev/console
		rm -rf "$1/overlay" "$1/var/log" "$1/var/lib/chrony"
		find "$1/var/lib/ipshare" -type f ! -name '*.epoch' ! -name director.heard ! -name director.json ! -name released.json -exec rm -f {} +
	fi
	find "$1/appliance" -mindepth 1 ! -name reset ! -name clock -exec rm -rf {} +
	sync
	rm -f "$1/appliance/reset"
	sync
	mkdir -p "$1/overlay/etc" "$1/overlay/etc.work"
}

mountroot() {
	slot=a live=""
	for word in $(cat /proc/cmdline); do
		case "$word" in
		ipshare.slot=*) slot=${word#ipshare.slot=} ;;
		ipshare.live=*) live=${word#ipshare.live=} ;;
		esac
	done
	modprobe -q squashfs; modprobe -q overlay; modprobe -q loop; modprobe -q ext4
	mkdir -p /run/ipshare-slot
	if [ -n "$live" ]; then
		modprobe -q isofs; modprobe -q sr_mod
		medium "$live" || panic "ipshare: the medium $live is not found"
		mount -t squashfs -o ro,loop /run/ipshare-medium/ipshare/ipshare.slot /run/ipshare-slot || panic "ipshare: the medium's slot cannot be mounted"
		slot=live
	else
		device=$(part "$slot") || panic "ipshare: slot $slot is on no disk"
		mount -t squashfs -o ro "$device" /run/ipshare-slot || panic "ipshare: slot $slot cannot be mounted"
	fi
	mount -t squashfs -o ro,loop /run/ipshare-slot/root.squashfs "${rootmnt}" || panic "ipshare: no root in slot $slot"
	if [ -n "$live" ]; then
		memory
	elif ! why=$(data "${rootmnt}/data"); then
		echo "ipshare: degraded: $why" >/dev/console
		echo "$why" >/run/ipshare-degraded
		memory
	fi
	reset "${rootmnt}/data"
	etc "${rootmnt}/data/overlay" "${rootmnt}" || panic "ipshare: /etc cannot be laid over"
	mkdir -p /run/ipshare-var
	mount -t tmpfs -o size=25%,mode=0755 tmpfs /run/ipshare-var
	mkdir -p /run/ipshare-var/upper /run/ipshare-var/work
	mount -t overlay -o "lowerdir=${rootmnt}/var,upperdir=/run/ipshare-var/upper,workdir=/run/ipshare-var/work" overlay "${rootmnt}/var" ||
		panic "ipshare: /var cannot be laid over"
	for kept in lib/ipshare lib/ipshare-director lib/ipshare-witness lib/chrony log/journal; do
		mkdir -p "${rootmnt}/data/var/$kept" "${rootmnt}/var/$kept"
		mount --bind "${rootmnt}/data/var/$kept" "${rootmnt}/var/$kept" || mount -o bind "${rootmnt}/data/var/$kept" "${rootmnt}/var/$kept"
	done
}
