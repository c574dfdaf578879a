# What the scenarios of faults share: recorded writers, faults of the network, what must hold afterwards.
# To be sourced after lib.sh.
# shellcheck shell=bash
#
# A scenario begins with faults_begin, does its harm while the writers run, shows what is served meanwhile, and ends
# with faults_check: every acknowledged write is on every lighthouse exactly once, the digests are equal, all name one
# leader in one term.

faults_n=3
faults_urls=''
declare -a faults_writers=()    # "PID PREFIX" of each that runs
declare -a faults_prefixes=()   # of all that were started

# faults_begin [N]: a cluster of N (3) lighthouses, an API key in $lab/api-key, one recorded writer.
faults_begin()
{
	faults_n=${1:-3}
	lab_begin
	cluster_of "$faults_n"
	faults_urls=$(lighthouse_urls "$faults_n")
	api_key lh1 "$lab/api-key" || die "no API key"
	faults_write w
	wait_until $((10 * SKERRY_SLOW)) test -s "$lab/acks-w" || die "no write was acknowledged"
}

# faults_write PREFIX [ARG...]: a recorded writer at all lighthouses, 4 calls at a time, at most 200 writes a second.
faults_write()
{
	local prefix=$1
	shift
	: >"$lab/acks-$prefix"
	client_start router write --urls "$faults_urls" --key-file "$lab/api-key" --prefix "$prefix" \
		--out "$lab/acks-$prefix" --parallel 4 --rate 200 "$@"
	faults_writers+=("$client_pid $prefix")
	faults_prefixes+=("$prefix")
}

# faults_write_end: no writer runs any more; fails when a write was refused.
faults_write_end()
{
	local pid prefix
	for writer in "${faults_writers[@]}"; do
		read -r pid prefix <<<"$writer"
		kill -TERM "$pid" 2>/dev/null
		wait "$pid" || {
			grep REFUSED "$lab/acks-$prefix" | head -5
			die "a write was refused"
		}
	done
	faults_writers=()
}

# boot_time: seconds since boot, the clock of the recorded writes.
boot_time()
{
	local up rest
	read -r up rest </proc/uptime
	: "$rest"
	echo "$up"
}

# acked_since T [PREFIX]: how many writes that were begun at T or later are acknowledged.
acked_since()
{
	awk -v t="$1" '$1 == "ACK" && $2 >= t { n++ } END { print n + 0 }' "$lab/acks-${2:-w}"
}

acked_at_least()
{
	[ "$(acked_since "$1" "${3:-w}")" -ge "$2" ]
}

# faults_serve SECONDS TEXT: writes that begin from now on are acknowledged, twenty of them within the time.
faults_serve()
{
	within "$1" "$2" acked_at_least "$(boot_time)" 20
}

# faults_gap T: the longest time without an acknowledgement in the ten seconds from T on, in ms (a second must have passed).
faults_gap()
{
	wait_until $((15 * SKERRY_SLOW)) client next --out "$lab/acks-w" --since "$1" && client next --out "$lab/acks-w" --since "$1"
}

# at_lighthouse HOST ARG...: one call at this lighthouse from outside: at_lighthouse lh1 [--read LEVEL] [--deadline SECONDS] METHOD JSON
at_lighthouse()
{
	local host=$1
	shift
	in_client router call --urls "https://${host_ip[$host]}:8443" --key-file "$lab/api-key" "$@"
}

# serves_reads HOST: it answers from its own state.
serves_reads()
{
	at_lighthouse "$1" --read local skerry.v1.UserService/ListUsers '{"parent":"tailnets/1"}'
}

# says_no_quorum HOST: its status says so.
says_no_quorum()
{
	cluster_json "$1" | jq -e '(.quorum // false) | not'
}

# faults_no_quorum HOST: serves reads, says that it has no quorum, and refuses writes and leader-level reads with that reason.
faults_no_quorum()
{
	within 10 "$1 says that it has no quorum" says_no_quorum "$1"
	check "$1 answers local reads" serves_reads "$1"
	check "the command reads there, too" in_host "$1" timeout 10 skerry user list --local
	refuse "$1 acknowledges no write" 'quorum|leader' at_lighthouse "$1" --deadline 2 skerry.v1.UserService/CreateUser \
		"{\"parent\":\"tailnets/1\",\"user\":{\"loginName\":\"never-$1\"}}"
	refuse "$1 does not pass its state for the newest" 'quorum|leader' at_lighthouse "$1" \
		--deadline 2 --read leader skerry.v1.UserService/ListUsers '{"parent":"tailnets/1"}'
}

# metric HOST NAME: the sum of a metric's series.
metric()
{
	in_host "$1" curl -s --max-time 3 http://127.0.0.1:9443/metrics |
		awk -v name="$2" '{ split($1, part, "{") } part[1] == name { sum += $2 } END { printf "%d\n", sum }'
}

# elections: how many candidacies there were in the whole cluster, of those lighthouses that run.
elections()
{
	local i sum=0
	for ((i = 1; i <= faults_n; i++)); do
		sum=$((sum + $(metric "lh$i" skerry_raft_elections_total)))
	done
	echo "$sum"
}

# one_leader: every lighthouse names the same leader in the same term.
one_leader()
{
	local i seen=''
	for ((i = 1; i <= faults_n; i++)); do
		seen+=$(cluster_json "lh$i" | jq -er '"\(.leaderId) \(.term)"')$'\n' || return 1
	done
	[ "$(sort -u <<<"${seen%$'\n'}" | wc -l)" -eq 1 ] && [ "${seen%% *}" != 0 ]
}

# others NAME: the lighthouses but this one.
others()
{
	local i
	for ((i = 1; i <= faults_n; i++)); do
		[ "lh$i" = "$1" ] || echo "lh$i"
	done
}

# lh_kill HOST...: SIGKILL, and waits for their ends.
lh_kill()
{
	local host
	for host in "$@"; do daemon_kill "$host" skerryd KILL; done
	for host in "$@"; do wait_until $((20 * SKERRY_SLOW)) daemon_gone "$host" skerryd || die "$host lives"; done
}

# lh_start HOST...: starts them as they were started before; does not wait.
lh_start()
{
	local host
	for host in "$@"; do daemon_start "$host" skerryd "${lh_with[@]}" skerryd run; done
}

# lh_log HOST PATTERN: its log has such a line.
lh_log()
{
	grep -qE -- "$2" "$lab/$1/log/skerryd.log"
}

# --- the network --------------------------------------------------------------------------------

# The lighthouses hang on one bridge of the router; what passes between two of them is dropped there, as by a switch. A
# client on the router still reaches each.

# net_rules RULE...: these rules of nft for what passes between lighthouses, in the place of earlier ones.
net_rules()
{
	local rule
	{
		printf 'table bridge fault\ndelete table bridge fault\n'
		printf 'table bridge fault {\n\tchain between {\n\t\ttype filter hook forward priority 0;\n'
		for rule in "$@"; do printf '\t\t%s\n' "$rule"; done
		printf '\t}\n}\n'
	} >"$lab/router/tmp/rules"
	in_host router nft -f "$lab/router/tmp/rules" || die "nft on the router failed"
}

# net_cut HOST in|out|both OTHER...: drops what comes from, goes to, or both, these other hosts; heals what was cut before.
net_cut()
{
	local host=$1 way=$2 other rules=()
	shift 2
	for other in "$@"; do
		[ "$way" = out ] || rules+=("iifname v-$other oifname v-$host drop")
		[ "$way" = in ] || rules+=("iifname v-$host oifname v-$other drop")
	done
	net_rules "${rules[@]}"
}

net_heal()
{
	in_host router nft delete table bridge fault
}

# --- what must hold -----------------------------------------------------------------------------

# faults_check: ends the writers; nothing acknowledged is lost or doubled anywhere, equal digests, one leader.
faults_check()
{
	local i prefix
	faults_write_end
	within 20 "one leader, all connected" voters lh1 "$faults_n"
	within 20 "all name one leader in one term" one_leader
	within 20 "equal digests" digests_equal lh1 "$faults_n"
	for prefix in "${faults_prefixes[@]}"; do
		for ((i = 1; i <= faults_n; i++)); do
			check "every write acknowledged to $prefix is on lh$i" in_client router verify \
				--urls "https://${host_ip[lh$i]}:8443" --key-file "$lab/api-key" --prefix "$prefix" \
				--out "$lab/acks-$prefix"
			sed 's/^/  /' "$lab/check.out"
		done
	done
}
