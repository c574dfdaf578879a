# What an operator gets wrong with members, keys and versions: one clear line each, from any lighthouse, and nothing changes
# beside
#
# lh1 lh2 lh3 on core are the voters, lh4 a standby.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# all_state: what must stay: the members and their roles, the revision of the state, the CA and the seal.
all_state()
{
	in_host lh1 skerry cluster status -o json |
		jq -cS '{revision, featureLevel, change, members: [.members[] | {name, displayName, role}] | sort_by(.name)}'
	in_host lh1 skerry cluster ca status -o json | jq -cS .
	for host in lh1 lh2 lh3 lh4; do
		in_host "$host" sha256sum /var/lib/skerry/lighthouse/cluster.key /var/lib/skerry/lighthouse/ca.crt
	done
}

# wrong TEXT PATTERN ARG...: `skerry cluster ARG...` is refused at every lighthouse in at most two lines that say why.
wrong()
{
	local text=$1 pattern=$2 host
	shift 2
	for host in lh1 lh2 lh3 lh4; do
		daemon_alive "$host" skerryd || continue
		refuse "$text, at $host" "$pattern" in_host "$host" timeout 30 skerry cluster "$@"
		[ "$(wc -l <"$lab/check.out")" -le 2 ] || {
			cat "$lab/check.out"
			say "NOT OK: $text: more than two lines"
			fall_short
		}
	done
}

lab_begin
cluster_of 3
host_start lh4
host_connect lh4 core 14
lh_join lh4 lh1
standby_there()
{
	cluster_json lh1 | jq -e '[.members[] | select(.role == "MEMBER_ROLE_STANDBY" and .connected)] | length == 1'
}
within 20 "a standby" standby_there
confirmed()
{
	in_host lh1 skerry cluster ca status -o json | jq -e '[.members[] | select(.caGeneration == 1)] | length == 4'
}
within 20 "all have said what keys they hold" confirmed
all_state >"$lab/before"
leader=$(leader_of lh1)

wrong "an unknown lighthouse is removed" "lh9" remove lh9
wrong "promoted" "lh9" promote lh9
wrong "demoted" "lh9" demote lh9
wrong "replaced" "lh9" replace lh9
wrong "handed over to" "lh9" transfer lh9
wrong "a voter is promoted" "voter already" promote lh2
wrong "a standby is demoted" "standby already" demote lh4
wrong "one more voter would make four" "survive no more" promote lh4
wrong "one voter less would make two" "survive no more" demote --no-fill lh2
wrong "all voters are demoted" "last voter|at least one|standby" demote --no-fill lh1 lh2 lh3
wrong "a standby is to lead" "standby|no voter|not a voter" transfer lh4
wrong "the leader is to lead" "already|leads" transfer "$leader"
wrong "a voter takes the place of a voter" "voter already" replace lh3 --with lh2
wrong "one is named twice" "twice" remove lh3 lh3
wrong "there is no change to give up" "no change|nothing|under way" cancel
wrong "there is no old CA" "none to retire|only one" ca rotate --retire
wrong "nobody is named" "usage|missing|name" remove
check "nothing has changed" diff "$lab/before" <(all_state)

# What is given up is not said to go on.
given_up()
{
	in_host lh1 skerry cluster replace lh2 >/dev/null 2>&1 && in_host lh1 skerry cluster cancel | grep -qx "given up: replace lh2"
}
check "a replacement is given up" given_up
no_change()
{
	cluster_json lh1 | jq -e '.change == null'
}
within 15 "and has ended" no_change

# With one voter away the other two must not get fewer.
away=lh3
[ "$leader" = lh3 ] && away=lh2
daemon_kill "$away" skerryd
gone()
{
	cluster_json lh1 | jq -e --arg n "$away" '.members[] | select(.displayName == $n) | .connected | not'
}
within 10 "$away is missed" gone
other=lh2
[ "$away" = lh2 ] && other=lh3
[ "$other" = "$leader" ] && other=lh1
wrong "the quorum would be lost" "would be reached|are needed|quorum" remove --no-fill "$other"
wrong "who is away is to lead" "no link to" transfer "$away"
lh_run "$away"
within 20 "$away is back" voters lh1 3
check "the members are as they were" diff <(sed 's/"revision":"[0-9]*"//' "$lab/before") <(all_state | sed 's/"revision":"[0-9]*"//')
