# SIGKILL of all three lighthouses during 1,000 recorded writes, then restart: nothing acknowledged is lost
# main
#
# lh1 lh2 lh3 on core; d1 on site1, d3 on site2. d1's agent is killed and started again while no lighthouse lives.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
cluster_of 3
device_hosts 3
urls=$(lighthouse_urls 3)
key=$(auth_key lh1 --reusable) || die "no auth key"
api_key lh1 "$lab/api-key" || die "no API key"
for device in d1 d3; do device_up "$device" "$urls" "$key"; done
for device in d1 d3; do within 10 "$device sees its peer" sees_peers "$device" 1; done
target=$(tailnet_ip d3) || die "d3 has no address"
ping_start d1 "$target" || die "no ping answer before the kill"

client_start router write --urls "$urls" --key-file "$lab/api-key" --prefix ak --out "$lab/acks" --parallel 8 --count 1000 \
	--rate 400 # a fast machine is not done before it is noticed that it has begun
writer=$client_pid
wait_until $((60 * SKERRY_SLOW)) acks_at_least "$lab/acks" 400 || die "the writes do not come along"
for lh in lh1 lh2 lh3; do daemon_kill "$lh" skerryd KILL; done
for lh in lh1 lh2 lh3; do wait_until $((20 * SKERRY_SLOW)) daemon_gone "$lh" skerryd || die "$lh lives"; done
acked=$(grep -c ACK "$lab/acks")
say "all killed after $acked acknowledged writes"
check "while some were still to be made" test "$acked" -lt 1000

detached()
{
	device_json "$1" | jq -e '.control.attached | not'
}
within 10 "d1 notices that it is alone" detached d1
daemon_kill d1 agent KILL
wait_until $((20 * SKERRY_SLOW)) daemon_gone d1 agent || die "the agent lives"
agent_run d1
check "d1 is back from its stored netmap" in_host d1 skerry status
check "d1 still has its peer" test "$(device_json d1 | jq '.peers | length')" -eq 1
check "d1 reaches d3 by name" on_tailnet d1 d3

for lh in lh1 lh2 lh3; do daemon_start "$lh" skerryd skerryd run; done
within 20 "three voters again" voters lh1 3
for device in d1 d3; do within 20 "$device is attached again" attached_to "$device"; done
wait "$writer" || {
	grep REFUSED "$lab/acks" | head -5
	die "a write was refused"
}
[ "$(grep -c ACK "$lab/acks")" -eq 1000 ] || die "$(grep -c ACK "$lab/acks") of 1000 writes were acknowledged"
for lh in lh1 lh2 lh3; do
	check "every acknowledged write is on $lh" in_client router verify --urls "https://${host_ip[$lh]}:8443" \
		--key-file "$lab/api-key" --prefix ak --out "$lab/acks"
done
within 20 "equal digests" digests_equal lh1 3
read -r sent received lost gap < <(ping_report d1 "$target")
figure "ping: $sent sent, $lost lost, longest gap $gap ms"
[ "$received" -gt 20 ] && [ "$lost" -le 1 ] || die "pings were lost while the lighthouses were away"
