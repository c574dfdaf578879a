# The faults of a chaos run: each is done, lasts a while and is undone. To be sourced after tests/e2e/lib.sh.
# shellcheck shell=bash
#
# RANDOM, set to the seed by the caller, makes every choice: never in a subshell, which has a RANDOM of its own. A fault
# that the machine cannot do is left out and named.

declare -A fault_text=(
	[kill]='SIGKILL of one lighthouse, restarted after 0 to 2 s'
	[kill_leader]='SIGKILL of the leader, restarted after 0 to 100 ms or 2 s'
	[kill_two]='SIGKILL of two, restarted one after the other'
	[kill_all]='SIGKILL of all three, restarted'
	[stop]='SIGSTOP of one for 0.2 to 5 s, then SIGCONT'
	[stop_leader]='SIGSTOP of the leader for 1 to 6 s, then SIGCONT'
	[cut_leader]='the leader reaches no lighthouse, clients reach it, for 1.5 to 5 s'
	[cut_follower]='the same of a follower'
	[one_way]='one lighthouse hears the others, but they do not hear it, or the reverse'
	[split_all]='no lighthouse reaches another one for 1 to 4 s'
	[loss]='20 % of the packets between the lighthouses are lost for 5 s'
	[flap]='the link of one goes five times a second for 3 s'
	[transfer]='leadership is handed over by an operator'
	[rolling]='SIGTERM and restart of all three, one after the other'
	[clock]='one lighthouse is restarted with a clock a day off, and later with the right one'
	[power]='power cut of one: what its disk had not confirmed is gone'
	[power_all]='power cut of all three'
	[disk_full]='no byte is free on the disk of one for 1 to 5 s'
	[disk_error]='every write to the disk of one fails: it has to end by itself, and is restarted'
)
faults_known=(kill kill_leader kill_two kill_all stop stop_leader cut_leader cut_follower one_way split_all loss flap transfer
	rolling clock power power_all disk_full disk_error)
lighthouses=(lh1 lh2 lh3)
declare -A faults_done=()
own_disks='' # each lighthouse's state is on a file system of its own

# The library with threads in mind; other places than Debian's are not looked for.
faketime_library()
{
	local library
	for library in /usr/lib/*/faketime/libfaketimeMT.so.1; do
		[ -e "$library" ] && echo "$library" && return 0
	done
	return 1
}

# fault_possible FAULT: prints what is missing and fails.
fault_possible()
{
	case $1 in
	clock) faketime_library >/dev/null || {
		echo "needs the package libfaketime"
		return 1
	} ;;
	power* | disk_*) [ -n "$own_disks" ] || {
		echo "needs loop devices and mkfs.ext4"
		return 1
	} ;;
	loss | flap | cut_* | one_way | split_all) have nft || {
		echo "needs nft"
		return 1
	} ;;
	esac
}

# --- disks --------------------------------------------------------------------------------------

# disks_make: an ext4 of its own under the state directory of each lighthouse, before anything is in it.
disks_make()
{
	local lh
	have mkfs.ext4 || return 1
	for lh in "${lighthouses[@]}"; do
		truncate -s 1G "$lab/$lh/disk" && mkfs.ext4 -q -F -m 0 "$lab/$lh/disk" && disk_mount "$lh" || return 1
		in_host "$lh" chmod 700 /var/lib/skerry
	done
	own_disks=1
}

disk_mount()
{
	in_host "$1" mount -o loop,errors=continue "$lab/$1/disk" /var/lib/skerry
}

# disk_dies HOST: the file system takes nothing from now on, and what was not written out is lost.
disk_dies()
{
	in_host "$1" /usr/bin/python3 -c '
import fcntl, os, struct, sys
EXT4_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587D, 2
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))' /var/lib/skerry
}

power_cut()
{
	disk_dies "$1"
	daemon_kill "$1" skerryd KILL 2>/dev/null # it may have noticed and ended
}

# power_return HOST: the file system is mounted anew, and the start sees another boot.
power_return()
{
	local boot=$lab/$1/boot_id
	wait_until 10 daemon_gone "$1" skerryd || return 1
	wait_until 10 in_host "$1" umount /var/lib/skerry || {
		in_host "$1" umount /var/lib/skerry
		return 1
	}
	disk_mount "$1" || return 1
	in_host "$1" umount /proc/sys/kernel/random/boot_id 2>/dev/null
	cat /proc/sys/kernel/random/uuid >"$boot"
	in_host "$1" mount --bind "$boot" /proc/sys/kernel/random/boot_id
	start_again "$1"
}

# --- processes ----------------------------------------------------------------------------------

start_again()
{
	wait_until 10 daemon_gone "$1" skerryd || return 1
	daemon_start "$1" skerryd "${@:2}" skerryd run
}

# pause MIN MAX: a random time in milliseconds.
pause()
{
	local ms=$(($1 + RANDOM % ($2 - $1 + 1)))
	sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
}

# The target of a fault goes into `lh`.
pick_any()
{
	lh=${lighthouses[RANDOM % 3]}
}

# pick_leader: who leads, as the first lighthouse says that answers; fails if none does.
pick_leader()
{
	local asked
	for asked in "${lighthouses[@]}"; do
		daemon_alive "$asked" skerryd || continue
		lh=$(in_host "$asked" timeout 2 skerry cluster status -o json 2>/dev/null |
			jq -er '[.members[] | select(.leader)][0].displayName // empty' 2>/dev/null)
		[ -z "$lh" ] || return 0
	done
	return 1
}

pick_follower()
{
	local leader
	pick_leader
	leader=$lh
	pick_any
	while [ "$lh" = "$leader" ]; do pick_any; done
}

# pick_half: half of the time the leader, else any.
pick_half()
{
	if [ $((RANDOM % 2)) -eq 0 ]; then pick_leader || pick_any; else pick_any; fi
}

# --- the network between lighthouses -------------------------------------------------------------
# Clients reach every lighthouse all the time: they call from the router's addresses.

net_rules()
{
	in_host "$1" nft -f - <<-RULES
		table inet chaos
		delete table inet chaos
		table inet chaos {
			set peers {
				type ipv4_addr
				elements = { ${host_ip[lh1]}, ${host_ip[lh2]}, ${host_ip[lh3]} }
			}
			chain in {
				type filter hook input priority 0;
				iifname lo accept
				$2
			}
			chain out {
				type filter hook output priority 0;
				oifname lo accept
				$3
			}
		}
	RULES
}

net_cut()
{
	net_rules "$1" 'ip saddr @peers drop' 'ip daddr @peers drop'
}

net_heal()
{
	in_host "$1" nft delete table inet chaos 2>/dev/null
	return 0
}

# --- faults -------------------------------------------------------------------------------------

fault_kill()
{
	local lh
	pick_any
	daemon_kill "$lh" skerryd KILL
	pause 0 2000
	start_again "$lh"
}

fault_kill_leader()
{
	local lh
	pick_leader || return 0
	daemon_kill "$lh" skerryd KILL
	if [ $((RANDOM % 2)) -eq 0 ]; then pause 0 100; else pause 500 2000; fi
	start_again "$lh"
}

fault_kill_two()
{
	local spared lh
	pick_any
	spared=$lh
	for lh in "${lighthouses[@]}"; do [ "$lh" = "$spared" ] || daemon_kill "$lh" skerryd KILL; done
	for lh in "${lighthouses[@]}"; do
		[ "$lh" = "$spared" ] && continue
		pause 0 2000
		start_again "$lh"
	done
}

fault_kill_all()
{
	local lh
	for lh in "${lighthouses[@]}"; do daemon_kill "$lh" skerryd KILL; done
	for lh in "${lighthouses[@]}"; do
		pause 0 1000
		start_again "$lh"
	done
}

hold()
{
	daemon_kill "$1" skerryd STOP
	pause "$2" "$3"
	daemon_kill "$1" skerryd CONT
}

fault_stop()
{
	local lh
	pick_any
	hold "$lh" 200 5000
}

fault_stop_leader()
{
	local lh
	pick_leader || return 0
	hold "$lh" 1000 6000
}

cut()
{
	net_cut "$1"
	pause 1500 5000
	net_heal "$1"
}

fault_cut_leader()
{
	local lh
	pick_leader || return 0
	cut "$lh"
}

fault_cut_follower()
{
	local lh
	pick_follower
	cut "$lh"
}

fault_one_way()
{
	local lh
	pick_half
	if [ $((RANDOM % 2)) -eq 0 ]; then
		net_rules "$lh" 'ip saddr @peers drop' ''
	else
		net_rules "$lh" '' 'ip daddr @peers drop'
	fi
	pause 2000 6000
	net_heal "$lh"
}

fault_split_all()
{
	local lh
	for lh in "${lighthouses[@]}"; do net_cut "$lh"; done
	pause 1000 4000
	for lh in "${lighthouses[@]}"; do
		net_heal "$lh"
		pause 0 500
	done
}

fault_loss()
{
	local lh
	for lh in "${lighthouses[@]}"; do net_rules "$lh" 'ip saddr @peers numgen random mod 100 < 20 drop' ''; done
	pause 5000 5000
	for lh in "${lighthouses[@]}"; do net_heal "$lh"; done
}

fault_flap()
{
	local lh i
	pick_any
	for ((i = 0; i < 15; i++)); do
		net_cut "$lh"
		sleep 0.1
		net_heal "$lh"
		sleep 0.1
	done
}

fault_transfer()
{
	local lh
	pick_follower
	# Refused or late on a busy machine: what counts is what clients see.
	in_host "$lh" timeout 10 skerry cluster transfer "$lh" >>"$lab/transfer.log" 2>&1
	return 0
}

fault_rolling()
{
	local lh
	for lh in "${lighthouses[@]}"; do
		daemon_kill "$lh" skerryd TERM
		wait_until 30 daemon_gone "$lh" skerryd || return 1
		start_again "$lh" || return 1
		wait_until 20 cluster_json "$lh" || return 1
	done
}

fault_clock()
{
	local lh off=+1d
	pick_any
	[ $((RANDOM % 2)) -eq 0 ] || off=-1d
	daemon_kill "$lh" skerryd KILL
	start_again "$lh" env LD_PRELOAD="$(faketime_library)" FAKETIME="$off" FAKETIME_DONT_FAKE_MONOTONIC=1 \
		DONT_FAKE_MONOTONIC=1
	pause 3000 8000
	daemon_kill "$lh" skerryd KILL
	start_again "$lh"
}

fault_power()
{
	local lh
	pick_half
	power_cut "$lh"
	pause 0 2000
	power_return "$lh"
}

fault_power_all()
{
	local lh
	for lh in "${lighthouses[@]}"; do power_cut "$lh"; done
	pause 0 1000
	for lh in "${lighthouses[@]}"; do power_return "$lh" || return 1; done
}

fault_disk_full()
{
	local lh
	pick_half
	in_host "$lh" bash -c '
		cd /var/lib/skerry && fallocate -l "$(df --output=avail -B1 . | tail -1)" fill
		dd if=/dev/zero of=fill bs=4k oflag=append conv=notrunc' 2>/dev/null
	pause 1000 5000
	in_host "$lh" rm -f /var/lib/skerry/fill
	# To end is one of the answers to a full disk.
	daemon_alive "$lh" skerryd || start_again "$lh"
}

fault_disk_error()
{
	local lh
	pick_half
	disk_dies "$lh"
	wait_until 20 daemon_gone "$lh" skerryd || {
		say "NOT OK: skerryd on $lh goes on with a disk that refuses every write"
		return 1
	}
	power_return "$lh"
}

# --- the run ------------------------------------------------------------------------------------

# survivors: every lighthouse runs that ought to; one that ended by itself is a finding. It is started again.
survivors()
{
	local lh rv=0
	for lh in "${lighthouses[@]}"; do
		daemon_alive "$lh" skerryd && continue
		say "NOT OK: skerryd on $lh has ended by itself:"
		tail -8 "$lab/$lh/log/skerryd.log" | sed 's/^/  | /'
		# As it is now: the next start may change it.
		in_host "$lh" cp -r --sparse=always /var/lib/skerry/lighthouse "$lab/$lh/log/state"
		daemon_start "$lh" skerryd skerryd run
		rv=1
	done
	return $rv
}

# nemesis SECONDS FAULT...: does faults, one after the other, with pauses; fails if one could not be undone or a lighthouse
# ended by itself. Each is a line of $lab/faults: begun, ended (monotonic ms), name.
nemesis()
{
	local end=$(($(now) + $1 * 1000)) fault begun rv=0
	shift
	while [ "$(now)" -lt "$end" ]; do
		pause 300 2500
		[ $# -gt 0 ] || continue
		fault=${*:RANDOM % $# + 1:1}
		begun=$(now)
		"fault_$fault" || {
			say "NOT OK: fault $fault could not be undone"
			rv=1
		}
		echo "$begun $(now) $fault" >>"$lab/faults"
		faults_done[$fault]=$((${faults_done[$fault]:-0} + 1))
		survivors || rv=1
		[ $rv -eq 0 ] || return 1
	done
	return $rv
}
