# SIGKILL of the leader under load: writes, devices, pings and a contested one-use key go on
# main
#
# lh1 lh2 lh3 on core; d1 d2 on site1, d3 on site2; d4 (site2) and d5 (site1) fight for a one-use key at the kill.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
cluster_of 3
device_hosts 5
urls=$(lighthouse_urls 3)
key=$(auth_key lh1 --reusable) || die "no auth key"
api_key lh1 "$lab/api-key" || die "no API key"
for device in d1 d2 d3; do device_up "$device" "$urls" "$key"; done
for device in d1 d2 d3; do within 10 "$device sees two peers" sees_peers "$device" 2; done
for device in d4 d5; do
	agent_config "$device"
	agent_run "$device"
done
one_use=$(auth_key lh1) || die "no one-use key"
target=$(tailnet_ip d3) || die "d3 has no address"

leader=$(leader_of lh1) || die "no leader"
dead_url=https://${host_ip[$leader]}:8443
witness=lh1
[ "$leader" = lh1 ] && witness=lh2
living=''
for lh in lh1 lh2 lh3; do
	[ "$lh" = "$leader" ] || living+="${living:+,}https://${host_ip[$lh]}:8443"
done
say "leader: $leader; attached: d1 $(attached_to d1), d2 $(attached_to d2), d3 $(attached_to d3)"

ping_start d1 "$target" || die "no ping answer before the kill"
client_start router write --urls "$urls" --key-file "$lab/api-key" --prefix lk --out "$lab/acks" --parallel 8 --rate 400
writer=$client_pid
wait_until 10 acks_at_least "$lab/acks" 20 || die "no write was acknowledged"
client_start router online --urls "$living" --key-file "$lab/api-key" --names d1,d2,d3 \
	--seconds $((10 * SKERRY_SLOW)) >"$lab/online" 2>&1
online=$client_pid
wait_until 10 acks_at_least "$lab/acks" $(($(grep -c ACK "$lab/acks") + 200)) || die "the writes do not come along"

# The kill, and at the same moment two devices with one key.
for device in d4 d5; do
	in_host "$device" env SKERRY_AUTH_KEY="$one_use" skerry up --lighthouse "$living" --hostname "$device" \
		>"$lab/$device/log/up.log" 2>&1 &
	eval "up_$device=\$!"
done
killed=$(awk '{ print $1 }' /proc/uptime)
daemon_kill "$leader" skerryd KILL

for device in d1 d2 d3; do
	within 10 "$device attached to another lighthouse" attached_elsewhere "$device" "$dead_url"
	figure "$device reattached after $(device_json "$device" | jq -r '.control.reattachMs // 0') ms"
done
wait_until $((10 * SKERRY_SLOW)) client next --out "$lab/acks" --since "$killed" || die "no write after the kill"
next=$(client next --out "$lab/acks" --since "$killed")
figure "longest time without an acknowledged write: $next ms"
[ "$next" -le $((3000 * SKERRY_SLOW)) ] || die "the next write took longer than 3 s"

rv_d4=0 rv_d5=0
wait "$up_d4" || rv_d4=$?
wait "$up_d5" || rv_d5=$?
say "the one-use key: d4 ended with $rv_d4, d5 with $rv_d5"
if [ $((rv_d4 == 0)) -eq $((rv_d5 == 0)) ]; then
	cat "$lab/d4/log/up.log" "$lab/d5/log/up.log"
	die "exactly one of two devices must win a one-use key"
fi

wait "$online" || {
	tail -5 "$lab/online"
	die "somebody was shown offline"
}
say "ok: nobody was shown offline: $(tail -1 "$lab/online")"

kill -TERM "$writer"
wait "$writer" || {
	grep REFUSED "$lab/acks" | head -5
	die "a write was refused"
}
read -r sent received lost gap < <(ping_report d1 "$target")
figure "ping: $sent sent, $lost lost, longest gap $gap ms"
[ "$received" -gt 20 ] && [ "$lost" -le 1 ] && [ "$gap" -le $((1000 * SKERRY_SLOW)) ] || die "the ping noticed the kill"

for lh in lh1 lh2 lh3; do
	[ "$lh" = "$leader" ] && continue
	check "every acknowledged write is on $lh" in_client router verify --urls "https://${host_ip[$lh]}:8443" \
		--key-file "$lab/api-key" --prefix lk --out "$lab/acks"
done
lh_run "$leader"
within 30 "three voters again" voters "$witness" 3
within 20 "equal digests" digests_equal "$witness" 3
check "every acknowledged write is on $leader" in_client router verify --urls "$dead_url" \
	--key-file "$lab/api-key" --prefix lk --out "$lab/acks"
