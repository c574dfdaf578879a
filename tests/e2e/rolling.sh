# Rolling restart, rotation of the CA and of cluster.key, a dead member replaced, all under load: no call fails, nobody is offline
#
# lh1 lh2 lh3 on core; d1 on site1, d3 on site2. Stock gRPC clients with nothing but a retry policy: some take any lighthouse,
# some stay with the one they have. A list of who is online ten times a second at every lighthouse.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
/usr/bin/python3 -c 'import grpc' 2>/dev/null || {
	say "this machine lacks: python3-grpcio"
	exit 77
}
cluster_of 3
device_hosts 3
urls=$(lighthouse_urls 3)
key=$(auth_key lh1 --reusable) || die "no auth key"
api_key lh1 "$lab/api-key" || die "no API key"
for device in d1 d3; do device_up "$device" "$urls" "$key"; done
for device in d1 d3; do within 10 "$device sees its peer" sees_peers "$device" 1; done
cluster=$(cluster_json lh1 | jq -r .id)
in_host lh1 cat /var/lib/skerry/lighthouse/ca.crt >"$lab/ca.crt"

# load NAME ARG...: stock clients in the background; their pid is in `client_pid`.
load()
{
	local name=$1
	shift
	(exec nsenter -t "${holder[router]}" -n -- /usr/bin/python3 "$skerry_root/tests/e2e/grpc_load.py" \
		--targets "${host_ip[lh1]}:8443,${host_ip[lh2]}:8443,${host_ip[lh3]}:8443" --server-name "$cluster.skerry.invalid" \
		--ca "$lab/ca.crt" --key-file "$lab/api-key" --prefix "$name" --out "$lab/acks" "$@" >"$lab/$name" 2>&1) &
	client_pid=$!
	cleanup_push "kill -9 $client_pid 2>/dev/null"
}
load any --threads 4
any=$client_pid
load fixed --threads 3 --fixed
fixed=$client_pid
client_start router online --urls "$urls" --key-file "$lab/api-key" --names d1,d3 --seconds 600 >"$lab/online" 2>&1
online=$client_pid
wait_until $((20 * SKERRY_SLOW)) grep -q ACK "$lab/acks" || die "no write was acknowledged"
target=$(tailnet_ip d3) || die "d3 has no address"
ping_start d1 "$target" || die "no ping answer"

# still_good WHAT: nothing failed and nobody was shown offline so far.
still_good()
{
	for device in d1 d3; do daemon_alive "$device" agent || die "the agent on $device has ended"; done
	if grep -h FAILED "$lab/acks" | head -5 | grep . || grep -h offline: "$lab/online" | head -5 | grep .; then
		die "$1 was noticed"
	fi
	say "ok: $1 went unnoticed ($(grep -c ACK "$lab/acks") writes so far)"
}

# restart HOST: drained, stopped, started, caught up.
restart()
{
	local start
	start=$(now)
	daemon_kill "$1" skerryd TERM
	wait_until $((20 * SKERRY_SLOW)) daemon_gone "$1" skerryd || die "$1 does not stop"
	figure "$1 stopped after $(($(now) - start)) ms"
	lh_run "$1"
	within 30 "three voters after the restart of $1" voters "$1" 3
	within 20 "$1 is ready" in_host "$1" skerry node list
}
for lh in lh1 lh2 lh3; do
	restart "$lh"
	within 10 "writes go on" acks_at_least "$lab/acks" $(($(grep -c ACK "$lab/acks") + 100))
	for device in d1 d3; do within 10 "$device is attached" attached_to "$device"; done
	still_good "the restart of $lh"
done
restart "$(leader_of lh1)"
still_good "the restart of the leader"

# all_have FIELD N: every lighthouse has confirmed generation N.
all_have() { in_host lh1 skerry cluster ca status -o json | jq -e --arg f "$1" --argjson n "$2" '[.members[] | select(.[$f] == $n)] | length == 3'; }
check "the CA is rotated" in_host lh2 skerry cluster ca rotate
within 20 "every lighthouse has the new CA" all_have caGeneration 2
pins() { in_host "$1" jq -e '.pin != null and .oldPin != null and .pin != .oldPin' /var/lib/skerry/agent/cluster.json; }
for device in d1 d3; do within 15 "$device keeps both pins" pins "$device"; done
still_good "the rotation of the CA"
for lh in lh3 lh2 lh1; do restart "$lh"; done
still_good "a rolling restart with the new CA"
unseen() { in_host lh1 skerry cluster ca status -o json | jq -e '(.devicesUnseen // "0") == "0"'; }
within 15 "no device is unseen" unseen
in_host lh1 cat /var/lib/skerry/lighthouse/cluster.key >"$lab/key-before"
check "cluster.key is rotated" in_host lh3 bash -c 'skerry cluster seal rotate 2>/dev/null | grep -q "^skr1-"'
within 20 "every lighthouse has the new cluster.key" all_have sealGeneration 2
in_host lh1 cmp -s /var/lib/skerry/lighthouse/cluster.key - <"$lab/key-before" && die "cluster.key is the old one"
still_good "the rotation of cluster.key"

# end_load PID: the clients' own verdict.
end_load()
{
	kill -TERM "$1"
	wait "$1" || {
		cat "$lab/any" "$lab/fixed"
		die "a call failed"
	}
}

# One is gone for good: those that stay with one lighthouse could not go on. The leader, so that there is an election, too.
end_load "$fixed"
dead=$(leader_of lh1) || die "no leader"
alive=lh1
[ "$dead" != lh1 ] || alive=lh2
daemon_kill "$dead" skerryd KILL
within 20 "another leader than $dead" leader_other_than "$alive" "$dead"
check "$dead is to be replaced" in_host "$alive" bash -c "skerry cluster replace $dead >/run/token 2>/run/replace.log"
host_start lh4
host_connect lh4 core 14
lh_join lh4 "$alive" "$(in_host "$alive" grep -oE 'sk-join-[A-Za-z0-9_-]+' /run/token)"
replaced()
{
	cluster_json "$alive" | jq -e --arg dead "$dead" '([.members[].displayName] | index($dead)) == null and
		([.members[] | select(.role == "MEMBER_ROLE_VOTER" and .connected)] | length) == 3'
}
within 60 "lh4 votes in the place of $dead" replaced
still_good "the replacement of $dead"
all_have() { in_host "$alive" skerry cluster ca status -o json | jq -e --arg f "$1" --argjson n "$2" '[.members[] | select(.[$f] == $n)] | length == 3'; }
within 20 "lh4 has the new CA" all_have caGeneration 2
within 20 "lh4 has the new cluster.key" all_have sealGeneration 2

# The clients know the old CA alone; they end before it does.
end_load "$any"
figure "calls that any lighthouse took: $(tail -1 "$lab/any"); that stayed with one: $(tail -1 "$lab/fixed")"
retire() { in_host "$alive" skerry cluster ca rotate --retire; }
within 30 "the old CA is retired" retire
pin_alone() { in_host "$1" jq -e '.pin != null and .oldPin == null' /var/lib/skerry/agent/cluster.json; }
for device in d1 d3; do within 15 "$device keeps the new pin alone" pin_alone "$device"; done
for lh in lh1 lh2 lh3 lh4; do
	[ "$lh" = "$dead" ] || restart "$lh"
done
for device in d1 d3; do check "$device is attached, its peer online" sees_peers "$device" 1; done
kill -TERM "$online" 2>/dev/null
if grep -h offline: "$lab/online" | head -5 | grep .; then die "somebody was shown offline"; fi
read -r sent received lost gap < <(ping_report d1 "$target")
figure "ping through all of it: $sent sent, $received received, $lost lost, longest gap $gap ms"
for prefix in any fixed; do
	grep " $prefix-" "$lab/acks" >"$lab/acks-$prefix"
	check "every write that was acknowledged to $prefix is there" in_client router verify --urls "https://${host_ip[lh4]}:8443" \
		--key-file "$lab/api-key" --prefix "$prefix" --out "$lab/acks-$prefix"
done
within 20 "equal digests" digests_equal lh4 3
