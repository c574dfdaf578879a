# Disks of their own for lighthouses, and what may befall them: full, failing, without power, altered.
# To be sourced after lib.sh and lib_faults.sh.
# shellcheck shell=bash

disk_mib=128     # size of each disk; 0: none of their own
disk_config=''   # lines of lighthouse.yaml

# lighthouse_hosts COUNT: as in lib.sh, with disk and configuration.
lighthouse_hosts()
{
	local i
	for ((i = 1; i <= $1; i++)); do
		host_start "lh$i"
		host_connect "lh$i" core $((10 + i))
		[ "$disk_mib" -eq 0 ] || disk_make "lh$i" "$disk_mib"
		[ -z "$disk_config" ] || printf '%s\n' "$disk_config" >"$lab/lh$i/etc/lighthouse.yaml"
	done
}

# disk_make HOST [MIB]: the state of the host is on an ext4 of its own (128 MiB). Before the lighthouse is made.
disk_make()
{
	local host=$1 mib=${2:-128}
	truncate -s "${mib}M" "$lab/$host/disk.img" || die "no room for a disk"
	mkfs.ext4 -q -F -b 4096 -m 0 -E lazy_itable_init=0 "$lab/$host/disk.img" || die "mkfs.ext4 failed"
	disk_mount "$host"
}

# disk_mount HOST: (re)mounts it; the loop device goes with the mount, the mount with the host.
disk_mount()
{
	in_host "$1" mount -o loop "$lab/$1/disk.img" /var/lib/skerry || die "cannot mount the disk of $1"
	in_host "$1" mkdir -p /var/lib/skerry/lighthouse
	in_host "$1" chmod 700 /var/lib/skerry/lighthouse
}

disk_unmount()
{
	wait_until 10 in_host "$1" umount /var/lib/skerry || die "the disk of $1 stays busy"
}

# disk_fail HOST: from now on every read of what is not in memory and every write fails (EIO), as after a lost cable; what
# was not written yet is gone.
disk_fail()
{
	in_host "$1" python3 -c '
import fcntl, os, struct
fd = os.open("/var/lib/skerry", os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587d, struct.pack("I", 2))' || die "the disk of $1 cannot be shut down"
}

# boot_id HOST: the kernel of this host has started anew, as far as programs can see.
boot_id()
{
	cat /proc/sys/kernel/random/uuid >"$lab/$1/boot_id"
	in_host "$1" umount /proc/sys/kernel/random/boot_id 2>/dev/null
	in_host "$1" mount --bind "$lab/$1/boot_id" /proc/sys/kernel/random/boot_id || die "no boot id for $1"
}

# power_cut HOST...: the disk stops first, so that nothing of what is in memory reaches it.
power_cut()
{
	local host
	for host in "$@"; do disk_fail "$host"; done
	for host in "$@"; do daemon_kill "$host" skerryd KILL 2>/dev/null; done
	for host in "$@"; do
		wait_until $((20 * SKERRY_SLOW)) daemon_gone "$host" skerryd || die "$host lives"
		disk_unmount "$host"
		disk_mount "$host"
	done
}

# disk_fill_to HOST MIB: so much is left of it; disk_fill HOST: nothing.
disk_fill_to()
{
	local free
	free=$(in_host "$1" df --output=avail -m /var/lib/skerry | tail -1)
	in_host "$1" fallocate -l "$((free - $2))M" /var/lib/skerry/ballast0 || die "the disk of $1 cannot be filled"
}

disk_fill()
{
	in_host "$1" bash -c 'cat /dev/zero >/var/lib/skerry/ballast' 2>/dev/null
	in_host "$1" bash -c 'cat /dev/zero >/var/lib/skerry/ballast2' 2>/dev/null
	in_host "$1" sync -f /var/lib/skerry
}

# state_of HOST FILE: a path below the state directory, from outside of the host.
state_of()
{
	echo "/proc/${holder[$1]}/root/var/lib/skerry/lighthouse/$2"
}

# flip FILE OFFSET: flips one bit.
flip()
{
	python3 -c '
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
at = int(sys.argv[2])
byte = os.pread(fd, 1, at)
os.pwrite(fd, bytes([byte[0] ^ 4]), at)
os.fsync(fd)' "$1" "$2" || die "cannot flip a bit of $1"
}

# ended HOST CODE TEXT...: the daemon ended by itself with this code, and its log says each TEXT (a pattern).
ended()
{
	local host=$1 code=$2 text
	shift 2
	within 30 "skerryd on $host ends by itself" daemon_gone "$host" skerryd
	check "with status $code" test "$(daemon_code "$host" skerryd)" -eq "$code"
	for text in "$@"; do
		check "its log says: $text" lh_log "$host" "$text"
	done
}
