# The doctor: one voter, three, a backup, one lighthouse away, two away; each told with what to do and its exit status
# beside
#
# lh1 lh2 lh3 on core.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# doctor HOST STATUS: asks, and the exit status must be this one; the answer is in $said.
doctor()
{
	in_host "$1" timeout 30 skerry cluster doctor >"$lab/$1/log/doctor.log" 2>&1
	rv=$?
	said=$(<"$lab/$1/log/doctor.log")
	[ $rv -eq "$2" ] || say "    status $rv, wanted $2: $said"
	[ $rv -eq "$2" ]
}

# codes HOST SEVERITY: the codes of the findings of this severity, in one line.
codes()
{
	in_host "$1" timeout 30 skerry cluster doctor -o json |
		jq -r --arg s "SEVERITY_$2" '[.findings[]? | select(.severity == $s) | .code] | unique | join(" ")'
}

finds()
{
	[ "$(codes "$1" "$2")" = "$3" ]
}

lab_begin
lighthouse_hosts 3
lh_init lh1
check "one voter: a warning" doctor lh1 1
check "that it is one, and how to get three" grep -q "skerry cluster token" <<<"$said"
lh_join lh2 lh1
lh_join lh3 lh1
within 30 "three voters" voters lh1 3
check "three voters: all is well" doctor lh2 0
check "with the note that there is no backup" grep -qi "backup" <<<"$said"
check "a backup" in_host lh3 skerry backup create /var/lib/skerry/b1
check "and the note is gone, asked anywhere" finds lh1 NOTE ""

leader=$(leader_of lh1)
others=()
for host in lh1 lh2 lh3; do
	[ "$host" = "$leader" ] || others+=("$host")
done
daemon_kill "${others[0]}" skerryd
within 10 "the one that was killed is missed" finds "$leader" ERROR NOT_CONNECTED
check "errors end with 2" doctor "${others[1]}" 2
check "it is named" grep -q "${others[0]}" <<<"$said"
check "and that no other one may fail" grep -qi "if one more fails" <<<"$said"
daemon_kill "$leader" skerryd
within 15 "two away: no quorum" finds "${others[1]}" ERROR "NOT_CONNECTED QUORUM_LOST"
check "the last one still tells, with 2" doctor "${others[1]}" 2
check "how many are needed" grep -q "1 of 3 voters are reached, 2 are needed" <<<"$said"
lh_run "$leader"
lh_run "${others[0]}"
within 20 "all back: all is well again" doctor "${others[0]}" 0
