# Real hosts: Debian with systemd, booted by systemd-nspawn, each with a disk, a network namespace and an address of its
# own. To be sourced by bash, by a script that is run as root.
# shellcheck shell=bash
#
#   lh1 .11  lh2 .12  lh3 .13    d1 .21  d2 .22        10.88.0.0/24
#      \       |        |         |       /
#      [ bridge .1 in the namespace hub ]   Ansible and ssh run there; apt goes through proxy.py at .1
#
# hosts_begin starts the script again in mount and process namespaces of its own: when it ends, however it ends, the
# kernel ends every host and takes every mount and namespace away. Only a temporary directory and empty cgroups are left
# to the outer script.

. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

: "${SKERRY_BIN:=$skerry_root/build/release/bin}"
hosts_dir=''           # everything of this run: root/, HOST/{upper,work,root,console.log}, ssh keys, logs
declare -A nspawn=()   # host -> pid of its systemd-nspawn
declare -A host_ip=([lh1]=10.88.0.11 [lh2]=10.88.0.12 [lh3]=10.88.0.13 [d1]=10.88.0.21 [d2]=10.88.0.22)
cgroup_roots=(/sys/fs/cgroup /sys/fs/cgroup/{systemd,unified,memory,pids,cpu,cpuacct,devices})

# need_hosts: says what the machine lacks for this, and fails.
need_hosts()
{
	local program rv=0 lacks=()
	need_network_lab || rv=1
	for program in systemd-nspawn mmdebstrap ansible-playbook ssh-keygen ssh jq; do
		have "$program" || lacks+=("$program")
	done
	if [ ${#lacks[@]} -gt 0 ]; then
		say "this machine lacks: ${lacks[*]} (scripts/deps --full installs them)"
		rv=1
	fi
	return $rv
}

# hosts_begin SCRIPT [ARG...]: in the outer script does all of it and exits; in the inner one returns.
hosts_begin()
{
	local lacks pid program rv
	if [ -n "${SKERRY_HOSTS_DIR:-}" ]; then
		hosts_dir=$SKERRY_HOSTS_DIR
		trap 'exit 143' TERM
		hosts_network
		return
	fi
	lacks=$(need_hosts) || {
		say "${lacks//$'\n'/; }"
		exit 77
	}
	for program in skerryd skerry-agent skerry; do
		[ -x "$SKERRY_BIN/$program" ] || {
			say "$SKERRY_BIN/$program is not built"
			exit 77
		}
	done
	cleanup_trap
	temp_dir hosts_dir
	chmod 755 "$hosts_dir"
	cleanup_push hosts_cgroups_remove
	SKERRY_HOSTS_DIR=$hosts_dir SKERRY_BIN=$SKERRY_BIN unshare --mount --pid --fork --kill-child --propagation private \
		--mount-proc bash "$@" </dev/null &
	pid=$!
	cleanup_push "kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null"
	wait "$pid"
	rv=$?
	if [ $rv -ne 0 ] && [ -n "${SKERRY_KEEP:-}" ]; then
		cp -r "$hosts_dir/log" "${TMPDIR:-/tmp}/skerry-hosts-log.$$" && say "kept: ${TMPDIR:-/tmp}/skerry-hosts-log.$$"
	fi
	exit $rv
}

hosts_cgroups_remove()
{
	local root
	for root in "${cgroup_roots[@]}"; do
		[ -d "$root/${hosts_dir##*/}" ] || continue
		# The kernel empties them a moment after the processes have gone.
		wait_until 10 cgroup_remove "$root/${hosts_dir##*/}"
	done
}

cgroup_remove()
{
	find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
	! [ -d "$1" ]
}

# hosts_root: the Debian that all hosts are made of, from the mirror that apt uses; SKERRY_HOSTS_ROOT is a tar of one
# that was made before.
hosts_root()
{
	local codename mirror start root=$hosts_dir/root
	start=$(now)
	if [ -n "${SKERRY_HOSTS_ROOT:-}" ]; then
		mkdir "$root" && tar -x -C "$root" -f "$SKERRY_HOSTS_ROOT" || die "cannot unpack $SKERRY_HOSTS_ROOT"
	else
		# shellcheck disable=SC1091
		codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
		mirror=$(apt-get indextargets --format '$(SITE)' "Created-By: Packages" "Codename: $codename" 2>/dev/null | head -1)
		mmdebstrap --variant=minbase \
			--include=systemd,systemd-sysv,dbus,python3,python3-apt,iproute2,iputils-ping,openssh-server,procps,sudo,ca-certificates \
			--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
			--dpkgopt='path-exclude=/usr/share/man/*' \
			"$codename" "$root" ${mirror:+"$mirror"} >"$hosts_dir/log/root.log" 2>&1 || {
			tail -5 "$hosts_dir/log/root.log"
			die "mmdebstrap failed"
		}
	fi
	# Who administers the hosts: a user with a key and sudo.
	ssh-keygen -q -t ed25519 -N '' -f "$hosts_dir/key"
	chroot "$root" useradd -m -d /srv/admin -s /bin/bash admin
	install -d -m 700 "$root/srv/admin/.ssh"
	install -m 600 "$hosts_dir/key.pub" "$root/srv/admin/.ssh/authorized_keys"
	chroot "$root" chown -R admin: /srv/admin/.ssh
	echo 'admin ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/admin"
	rm -f "$root/etc/apt/apt.conf.d/"*proxy*
	printf 'Acquire::http::Proxy "http://10.88.0.1:3142";\nAcquire::https::Proxy "http://10.88.0.1:3142";\nAcquire::Languages "none";\n' \
		>"$root/etc/apt/apt.conf.d/90test"
	rm -f "$root/etc/resolv.conf"
	echo 'nameserver 10.88.0.1' >"$root/etc/resolv.conf"
	mkdir -p "$root/var/log/journal" # so that it outlasts a power cut
	say "ok: a Debian for the hosts ($(seconds $(($(now) - start))) s)"
}

hosts_network()
{
	mkdir -p "$hosts_dir/log" /run/netns
	mount -t tmpfs -o size=1m tmpfs /run/netns
	ip netns add hub
	ip -n hub link set lo up
	ip -n hub link add bridge type bridge
	ip -n hub addr add 10.88.0.1/24 dev bridge
	ip -n hub link set bridge up
	cat >"$hosts_dir/ssh_config" <<-END
		User admin
		IdentityFile $hosts_dir/key
		IdentitiesOnly yes
		StrictHostKeyChecking no
		UserKnownHostsFile /dev/null
		LogLevel ERROR
		ConnectTimeout 5
		ServerAliveInterval 5
		ServerAliveCountMax 3
		ControlMaster auto
		ControlPath $hosts_dir/cm-%h
		ControlPersist 30
	END
	/usr/bin/python3 "$skerry_root/tests/hosts/proxy.py" /run/netns/hub 10.88.0.1 3142 "$hosts_dir/cache" \
		>"$hosts_dir/log/proxy.log" 2>&1 &
	wait_until 20 grep -q ready "$hosts_dir/log/proxy.log" || die "the proxy does not start"
}

# host_make HOST...: an empty disk on top of the common Debian, and a plug in the bridge.
host_make()
{
	local host dir
	for host in "$@"; do
		dir=$hosts_dir/$host
		mkdir -p "$dir"/{disk,root}
		host_disk "$host"
		ip netns add "$host"
		ip link add eth0 netns "$host" type veth peer name "p-$host" netns hub
		ip -n hub link set "p-$host" master bridge up
		ip -n "$host" link set lo up
		ip -n "$host" addr add "${host_ip[$host]}/24" dev eth0
		ip -n "$host" link set eth0 up
		ip -n "$host" route add default via 10.88.0.1
	done
}

# host_disk HOST: a new disk.
host_disk()
{
	local host=$1 dir=$hosts_dir/$1
	mountpoint -q "$dir/root" && umount "$dir/root"
	rm -rf "$dir/disk"
	mkdir -p "$dir"/disk/{upper,work}
	mount -t overlay overlay -o "lowerdir=$hosts_dir/root,upperdir=$dir/disk/upper,workdir=$dir/disk/work" "$dir/root" || {
		# Where this is an overlay already, the disk is memory.
		mount -t tmpfs -o size=1g tmpfs "$dir/disk" && mkdir -p "$dir"/disk/{upper,work} &&
			mount -t overlay overlay -o "lowerdir=$hosts_dir/root,upperdir=$dir/disk/upper,workdir=$dir/disk/work" "$dir/root"
	} || die "no overlay file system for $host"
	echo "$host" >"$dir/root/etc/hostname"
	printf '127.0.0.1\tlocalhost\n%s\t%s\n' "${host_ip[$host]}" "$host" >"$dir/root/etc/hosts"
	tr -d - </proc/sys/kernel/random/uuid >"$dir/root/etc/machine-id"
}

# host_boot HOST...: switches hosts on and waits until they can be logged in to.
host_boot()
{
	local host
	for host in "$@"; do
		(
			# Each host in cgroups of its own; nspawn makes the rest below.
			for root in "${cgroup_roots[@]}"; do
				[ -f "$root/cgroup.procs" ] || continue
				[ "$root" != /sys/fs/cgroup ] || [ -f "$root/cgroup.controllers" ] || continue
				mkdir -p "$root/${hosts_dir##*/}/$host" && echo "$BASHPID" >"$root/${hosts_dir##*/}/$host/cgroup.procs"
			done
			# The network goes by a path, and then systemd-nspawn does not add these capabilities by itself.
			exec env SYSTEMD_NSPAWN_API_VFS_WRITABLE=network systemd-nspawn -q -D "$hosts_dir/$host/root" --machine="$host" \
				--boot --register=no --keep-unit --capability=CAP_NET_ADMIN,CAP_NET_RAW --kill-signal=SIGRTMIN+3 \
				--network-namespace-path="/run/netns/$host" --console=pipe --link-journal=no --resolv-conf=off \
				--timezone=off
		) </dev/null >>"$hosts_dir/log/console-$host.log" 2>&1 &
		nspawn[$host]=$!
	done
	for host in "$@"; do
		rm -f "$hosts_dir/cm-${host_ip[$host]}"
		wait_until 120 on "$host" true || {
			tail -20 "$hosts_dir/log/console-$host.log"
			die "$host does not boot"
		}
	done
}

# host_cut HOST: power cut. The host's init dies and everything with it; nspawn itself must not be killed, its host would
# go on.
host_cut()
{
	local init
	init=$(pgrep -P "${nspawn[$1]}") || die "$1 has no init"
	# shellcheck disable=SC2086
	kill -9 $init
	wait "${nspawn[$1]}" 2>/dev/null
	unset "nspawn[$1]"
}

# on HOST COMMAND...: runs a command as root on a host, by ssh.
on()
{
	local host=$1
	shift
	nsenter --net=/run/netns/hub ssh -F "$hosts_dir/ssh_config" "${host_ip[$host]}" "sudo $(printf '%q ' "$@")" </dev/null
}

# play LOG [ARG...]: runs site.yml; its output goes to log/LOG.
play()
{
	local log=$hosts_dir/log/$1
	shift
	mkdir -p "$hosts_dir/home"
	nsenter --net=/run/netns/hub env -u ANSIBLE_CONFIG HOME="$hosts_dir/home" ANSIBLE_HOME="$hosts_dir/home/.ansible" \
		ANSIBLE_LOCAL_TEMP="$hosts_dir/home/tmp" ANSIBLE_SSH_ARGS="-F $hosts_dir/ssh_config" ANSIBLE_NOCOLOR=1 \
		ANSIBLE_RETRY_FILES_ENABLED=0 ANSIBLE_HOST_KEY_CHECKING=0 LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		ansible-playbook -v -i "$hosts_dir/inventory.yml" -e "skerry_programs_from=$SKERRY_BIN" "$@" \
		"$skerry_root/ansible/site.yml" >"$log" 2>&1
}

# --- checks -------------------------------------------------------------------------------------

check()
{
	local text=$1 start
	shift
	start=$(now)
	if "$@" >"$hosts_dir/log/check.out" 2>&1; then
		say "ok: $text ($(seconds $(($(now) - start))) s)"
	else
		say "NOT OK: $text"
		say "  command: $*"
		tail -30 "$hosts_dir/log/check.out" | sed 's/^/  | /'
		hosts_tell
		exit 1
	fi
}

# within SECONDS TEXT COMMAND...
within()
{
	local limit=$1 text=$2 start
	shift 2
	start=$(now)
	if wait_until "$limit" "$@"; then
		say "ok: $text ($(seconds $(($(now) - start))) s)"
	else
		say "NOT OK: $text: not within $limit s"
		"$@" 2>&1 | tail -20 | sed 's/^/  | /'
		hosts_tell
		exit 1
	fi
}

# hosts_tell: what a person looks at first after a failure.
hosts_tell()
{
	local host
	for host in "${!nspawn[@]}"; do
		say "--- $host"
		timeout 10 nsenter --net=/run/netns/hub ssh -F "$hosts_dir/ssh_config" "${host_ip[$host]}" \
			"sudo journalctl -u skerryd -u skerry-agent -n 25 --no-pager -o short-monotonic" </dev/null 2>&1 | tail -25
	done
}

# played: the last run of site.yml was good; on failure shows where it went wrong.
played()
{
	local log=$1
	shift
	play "$log" "$@" && return 0
	grep -E -B2 -A8 'fatal:|UNREACHABLE|ERROR' "$hosts_dir/log/$log" | tail -40
	tail -12 "$hosts_dir/log/$log"
	return 1
}

# unchanged LOG: no host has changed.
unchanged()
{
	local changed
	changed=$(sed -n '/PLAY RECAP/,$p' "$hosts_dir/log/$1" | grep -cE 'changed=[1-9]')
	[ "$changed" -eq 0 ] && grep -q 'changed=0' "$hosts_dir/log/$1" || {
		grep -B1 -E '^changed:' "$hosts_dir/log/$1" | head -20
		return 1
	}
}
