# One host that asks for approval again and again is limited, and keeps no other device out
# beside
#
# lh1 on core; d1 and d2 on site1.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

asks=38 # LIM_PENDING_PER_SOURCE, what a slow machine gets back meanwhile, and some

lab_begin
cluster_of 1
device_hosts 2
url=$(lighthouse_urls 1)
agent_config d1
# shellcheck disable=SC2016
in_host d1 bash -c '
	for ((i = 0; i < $1; i++)); do
		rm -f /var/lib/skerry/agent/machine.key
		skerry-agent --config /etc/skerry/agent.yaml >/dev/null 2>&1 </dev/null &
		until skerry status >/dev/null 2>&1; do sleep 0.02; done
		timeout 5 skerry up --lighthouse "$2" --timeout 1s 2>&1 |
			grep -m 1 -oE "waiting for approval|too many devices ask"
		kill $!
		wait $!
	done' flood "$asks" "$url" >"$lab/asked"
figure "asked by one host: $asks, let wait: $(grep -c waiting "$lab/asked"), refused: $(grep -c 'too many' "$lab/asked")"
check "a host is limited" grep -q "too many" "$lab/asked"
check "not before its share" [ "$(grep -c waiting "$lab/asked")" -ge 32 ]
agent_config d2
agent_run d2
in_host d2 skerry up --lighthouse "$url" --timeout 60s >"$lab/d2/log/up.log" 2>&1 &
within 20 "another host may ask" grep -q "waiting for approval" "$lab/d2/log/up.log"
