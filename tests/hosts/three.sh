# Three lighthouses and two devices, made by ansible/site.yml out of empty Debian hosts; power cut, change, replacement
#
# lib.sh draws the hosts. SKERRY_HOSTS_ROOT=FILE.tar takes a Debian that was made before, SKERRY_KEEP=1 keeps the logs of a
# failed run.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
hosts_begin "${BASH_SOURCE[0]}"

hosts_root
all=(lh1 lh2 lh3 d1 d2)
host_make "${all[@]}"
check "five hosts boot" host_boot "${all[@]}"
cat >"$hosts_dir/inventory.yml" <<END
all:
  vars:
    skerry_cluster_name: three
    skerry_admins: [admin]
    skerry_operators: [admin]
    skerry_recovery_file: $hosts_dir/recovery
  children:
    lighthouses:
      hosts:
        lh1: {ansible_host: ${host_ip[lh1]}}
        lh2: {ansible_host: ${host_ip[lh2]}}
        lh3: {ansible_host: ${host_ip[lh3]}}
    devices:
      hosts:
        d1: {ansible_host: ${host_ip[d1]}}
        d2: {ansible_host: ${host_ip[d2]}}
END

# says LOG PATTERN: the run said so.
says()
{
	grep -qE -- "$2" "$hosts_dir/log/$1"
}

# as_admin HOST COMMAND...: without root.
as_admin()
{
	local host=$1
	shift
	on "$host" runuser -u admin -- "$@"
}

cluster_json()
{
	on "$1" skerry cluster status -o json --timeout 5s
}

voters()
{
	cluster_json "$1" | jq -e --argjson n "$2" '
		([.members[] | select(.role == "MEMBER_ROLE_VOTER" and .connected)] | length) == $n
		and ([.members[] | select(.leader)] | length) == 1'
}

leader_of()
{
	cluster_json "$1" | jq -er '[.members[] | select(.leader)][0].displayName'
}

running()
{
	on "$1" skerry status -o json | jq -e '.state == "STATE_RUNNING"'
}

# since HOST: when skerryd was started, and which daemon it is.
since()
{
	on "$1" systemctl show -p ExecMainStartTimestampMonotonic -p ExecMainPID --value skerryd | tr '\n' ' '
}

# --- out of nothing -----------------------------------------------------------------------------

check "a check of empty hosts fails nowhere" played check.log --check
check "and changes nothing" on lh1 test ! -e /usr/local/bin/skerryd -a ! -e /etc/skerry

# The first run falls short twice: lh3 has no port, d2 no network.
on lh3 systemd-run -q --unit=squatter python3 -m http.server 8444 >/dev/null
ip -n hub link set p-d2 down
start=$(now)
if play 1.log; then
	say "NOT OK: a run with a broken host succeeded"
	exit 1
fi
say "ok: the first run ends at the broken host ($(seconds $(($(now) - start))) s)"
check "and says what is wrong, in its words" says 1.log 'lh3 does not get ready.*8444.*in use'
check "the others are a cluster that serves" on lh1 skerry cluster status
identity=$(on lh3 sha256sum /var/lib/skerry/lighthouse/identity.json)

on lh3 systemctl stop squatter
ip -n hub link set p-d2 up
start=$(now)
check "the second run resumes" played 2.log
say "figure: run that completes $(seconds $(($(now) - start))) s"
check "three voters" voters lh1 3
check "nobody joined twice" test "$(cluster_json lh1 | jq '.members | length')" -eq 3
check "nor did the broken host" test "$(on lh3 sha256sum /var/lib/skerry/lighthouse/identity.json)" = "$identity"
start=$(now)
check "the third run succeeds" played 3.log
check "and changes nothing" unchanged 3.log
say "figure: run that changes nothing $(seconds $(($(now) - start))) s"
check "a check of it, too" played check.log --check
check "and would change nothing" unchanged check.log
check "members of skerry-admin administer without root" as_admin lh2 skerry user list
check "members of skerry change the device without root" as_admin d1 skerry set --accept-routes=off
check "units are enabled" on lh3 systemctl is-enabled skerryd
check "the recovery string was kept where it was asked for" grep -q '^skr1-' "$hosts_dir/recovery"

within 20 "d1 pings d2 by name" on d1 ping -4 -c 1 -W 2 d2
check "and with its domain, by IPv6" on d2 ping -6 -c 1 -W 5 d1.three.internal

# --- power cut ----------------------------------------------------------------------------------

change='{"skerry_lighthouse_config": {"drain": "8s", "backup": {"directory": "/var/backups/skerry", "every": "5s", "by": "each", "keep": 2}}}'
dead=$(leader_of lh1)
others=()
for host in lh1 lh2 lh3; do [ "$host" = "$dead" ] || others+=("$host"); done
start=$(now)
host_cut "$dead"
check "a new write without $dead" on "${others[0]}" skerry user create after-the-cut
say "figure: power cut of the leader to an acknowledged write $(seconds $(($(now) - start))) s, login included"
check "d1 pings d2 by name" on d1 ping -4 -c 3 -W 2 d2
within 30 "the devices are attached" running d1
within 30 "both of them" running d2
if play refused.log --limit "${others[0]}" -e "$change" -e skerry_patience=3; then
	say "NOT OK: a lighthouse was restarted that the others could not do without"
	exit 1
fi
check "no restart while it would cost the majority" says refused.log 'was not restarted, though.*of 3 voters only 2'
check "the write is on ${others[1]}" on "${others[1]}" skerry user get after-the-cut

check "$dead boots" host_boot "$dead"
within 60 "and is a voter again" voters "${others[0]}" 3
within 30 "all hold the same" on "$dead" skerry cluster digest

# --- a change of the configuration ---------------------------------------------------------------

# While it is rolled out, d1 administers over the network: no call may fail.
urls=https://${host_ip[lh1]}:8443,https://${host_ip[lh2]}:8443,https://${host_ip[lh3]}:8443
pin=$(cluster_json lh1 | jq -er .caPin)
on lh1 skerry api-key create --role admin -o json | jq -er .secret >"$hosts_dir/api-key"
nsenter --net=/run/netns/hub ssh -F "$hosts_dir/ssh_config" "${host_ip[d1]}" 'sudo tee /run/api-key >/dev/null' <"$hosts_dir/api-key"
cat >"$hosts_dir/d1/root/writer" <<END
#!/bin/bash
i=0
while [ ! -e /run/enough ]; do
	i=\$((i + 1))
	skerry user create "u\$i" --tailnet 1 --lighthouse $urls --pin $pin --api-key file:/run/api-key >/dev/null 2>/run/said ||
		echo "\$(date -u +%T.%N) u\$i: \$(cat /run/said)" >>/run/failed
	echo \$i >/run/written
	sleep 0.1 # each call is a connection of its own, and a lighthouse takes 20 a second from one address
done
END
none_failed()
{
	! on d1 cat /run/failed | grep .
}
on d1 systemd-run -q --unit=writer bash /writer >/dev/null
within 20 "a writer is at work" on d1 test -s /run/written
declare -A before=()
for host in lh1 lh2 lh3; do before[$host]=$(since "$host"); done
check "a changed configuration is rolled out" played change.log -e "$change"
on d1 touch /run/enough
for host in lh1 lh2 lh3; do
	check "$host was restarted" test "$(since "$host")" != "${before[$host]}"
done
within 60 "backups are made where the unit lets them" on lh2 bash -c 'ls /var/backups/skerry/*'
within 20 "the writer ends" on d1 bash -c '! systemctl is-active -q writer'
check "no call failed in $(on d1 cat /run/written)" none_failed

# --- a new host in the place of an old one ---------------------------------------------------------

host_cut lh3
host_disk lh3
check "an empty lh3 boots" host_boot lh3
if play replace.log -e "$change"; then
	say "NOT OK: an empty host took the place of a lighthouse unasked"
	exit 1
fi
check "an empty host is not taken for the old one" says replace.log 'has a lighthouse lh3 already.*skerry_replace=lh3'
check "it is when asked" played replace.log -e skerry_replace=lh3 -e "$change"
within 60 "three voters again" voters lh1 3
check "nothing is left of the old one" test "$(cluster_json lh1 | jq '.members | length')" -eq 3
within 30 "all hold the same" on lh3 skerry cluster digest
check "d1 pings d2 by name" on d1 ping -4 -c 1 -W 5 d2

# --- secrets --------------------------------------------------------------------------------------

# free_of PATTERN PATH...: no file below holds it; what apt has fetched is left out.
free_of()
{
	! LC_ALL=C grep -raoE -m1 --exclude-dir=apt -- "$@"
}
on d1 rm /run/api-key
for host in "${all[@]}"; do on "$host" journalctl --flush --rotate; done
disks=()
for host in "${all[@]}"; do disks+=("$hosts_dir/$host/disk/upper"); done
check "no key in the logs of the runs" free_of 'sk-(auth|join|api)-[0-9]+-[A-Za-z0-9]{16}' "$hosts_dir/log" "$hosts_dir/home"
check "nor on any disk" free_of 'sk-(auth|join|api)-[0-9]+-[A-Za-z0-9]{16}' "${disks[@]}"
check "the recovery string is in no log and on no disk" free_of "$(cat "$hosts_dir/recovery")" "$hosts_dir/log" "${disks[@]}"
say "all as it should be"
