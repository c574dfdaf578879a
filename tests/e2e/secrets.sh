# No secret that a run has shown, and no private key, is in any state, log, snapshot or configuration
# beside
#
# lh1 lh2 lh3 on core; d1 and d2 on site1.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
find_secrets=$skerry_root/tests/e2e/find_secrets.py

lab_begin
# Snapshots early, so that there are some.
lighthouse_hosts 3
for lh in lh1 lh2 lh3; do printf 'snapshot_after: 64KiB\nlog_level: debug\n' >"$lab/$lh/etc/lighthouse.yaml"; done
lh_init lh1
mkdir "$lab/kept"
shown=$lab/kept/shown
for lh in lh2 lh3; do
	token=$(join_token lh1) || die "no join token"
	echo "$token" >>"$shown"
	lh_join "$lh" lh1 "$token"
done
within 30 "3 lighthouses, all voters" voters lh1 3
device_hosts 2
printf 'log_level: debug\n' | tee "$lab/d1/etc/agent.yaml" >"$lab/d2/etc/agent.yaml"
used=$(auth_key lh1) || die "no auth key"
spare=$(auth_key lh2 --reusable) || die "no second auth key"
revoked=$(in_host lh3 skerry auth-key create -o json) || die "no third auth key"
in_host lh1 skerry auth-key revoke "$(jq -r '.name | sub(".*/"; "")' <<<"$revoked")" >/dev/null || die "no revocation"
revoked=$(jq -r .secret <<<"$revoked")
api_key lh2 "$lab/kept/api" || die "no API key"
token=$(join_token lh3) || die "no join token"
recovery=$(grep -ohE 'skr1-[0-9a-z-]+' "$lab"/lh1/log/init-command.log | head -1)
[ -n "$recovery" ] || die "init printed no recovery string"
printf '%s\n' "$used" "$spare" "$revoked" "$(cat "$lab/kept/api")" "$token" "$recovery" >>"$shown"

# Each is used where it might leave a trace: rightly, for the wrong thing, cut, over each protocol.
try_up()
{
	in_host d2 env SKERRY_AUTH_KEY="$1" timeout 20 skerry up --lighthouse "$(lighthouse_urls 1)" --timeout 3s >/dev/null 2>&1
}
device_up d1 "$(lighthouse_urls 3)" "$used"
agent_config d2
agent_run d2
for wrong in "$used" "$revoked" "${spare%???}" "$(cat "$lab/kept/api")" "$token"; do try_up "$wrong"; done
calls()
{
	local key
	while read -r key; do
		in_host d1 curl -sk --max-time 3 -o /dev/null -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
			--data-binary "$1" "https://${host_ip[lh1]}:8443/$2" >/dev/null 2>&1
		in_host d1 curl -sk --max-time 3 -o /dev/null "https://${host_ip[lh2]}:8443/$key?$key" >/dev/null 2>&1
	done <"$shown"
}
calls '{"parent":"tailnets/1"}' skerry.v1.UserService/ListUsers
calls "{\"parent\":\"$spare\"" skerry.v1.UserService/ListUsers
in_host lh1 skerry node approve "$used" >/dev/null 2>&1
in_host d1 skerry ping -c 1 --timeout 1s "$used" >/dev/null 2>&1
in_host lh1 skerryd join "$token" --dir /run/again --peer-address 10.77.0.11:9444 --timeout 2s >/dev/null 2>&1
device_up d2 "$(lighthouse_urls 3)" "$spare"
within 10 "d2 sees its peer" sees_peers d2 1
# Logout forgets the keys of the node; the next registration makes new ones.
cp "$lab"/d2/state/agent/node.key "$lab/kept/node-of-before"
in_host d2 skerry logout >/dev/null || die "logout failed"
device_up d2 "$(lighthouse_urls 3)" "$spare"
within 10 "d2 is back" sees_peers d2 1

# Enough log for a snapshot on each: more than the state is large, so most of it are users who are there already.
made()
{
	in_client router write --urls "$(lighthouse_urls 3)" --key-file "$lab/kept/api" --prefix made --out "$lab/kept/writes" \
		--count "$1" --parallel 16
}
within 30 "100 users are made" made 100
snapshots()
{
	local lh
	made 500 >/dev/null
	for lh in lh1 lh2 lh3; do
		[ -n "$(find "$lab/$lh/state/lighthouse/raft" -name 'snapshot-*' -size +8k ! -name '*.meta')" ] || return 1
	done
}
within 30 "each has a snapshot" snapshots

# What the commands themselves printed for the person is not what a daemon keeps.
rm -f "$lab"/*/log/{init,join}-command.log
for lh in lh1 lh2 lh3; do daemon_stop "$lh" skerryd || die "skerryd on $lh does not end"; done
for device in d1 d2; do daemon_stop "$device" agent || die "the agent does not end"; done
check "the look finds what is there" bash -c '! "$0" "$1" "$2"' "$find_secrets" "$shown" "$lab/kept"
check "and sees into snapshots" grep -qr made-1 "$lab"/lh{1,2,3}/state/lighthouse/raft --include='snapshot-*'
hosts=("$lab"/{lh1,lh2,lh3,d1,d2})
keys=()
for host in "${hosts[@]}"; do keys+=(--keys "$host/state"); done
check "no secret and no private key in state, logs and configuration" "$find_secrets" \
	"${keys[@]}" "$shown" "${hosts[@]}"
cat "$lab/check.out"
for host in lh1 lh2 lh3 d1 d2; do
	check "nor in what $host has in /run and /etc" in_host $host "$find_secrets" "$shown" /run /etc
done
check "the old node key is gone" bash -c '! grep -rqF "$(grep -oE "[0-9a-f]{64}" "$0")" "$@"' "$lab/kept/node-of-before" "$lab"/d{1,2}

# The state is closed to others, and a daemon that finds it open does not start.
check "state directories are 0700" test "$(stat -c %a "$lab"/{lh1,lh2,lh3}/state/lighthouse "$lab"/d1/state/agent | sort -u)" = 700
check "no file of the state is open to others" test -z "$(find "$lab"/*/state/*/ -type f -perm /077)"
# opened PATH HOST COMMAND...: with PATH open to others the daemon does not start, and names path and remedy.
opened()
{
	local path=$1 mode host=$2
	shift 2
	mode=$(stat -c %a "$path")
	chmod o+r "$path"
	refuse "${path#"$lab/"} open to others" "${path##*/}.*(chmod|0?$mode)" in_host "$host" timeout 10 "$@"
	chmod "$mode" "$path"
}
opened "$lab"/lh1/state/lighthouse lh1 skerryd run
for file in cluster.key node.key api.key identity.json raft store store/data.mdb; do
	opened "$lab/lh1/state/lighthouse/$file" lh1 skerryd run
done
opened "$lab"/d1/state/agent d1 skerry-agent --config /etc/skerry/agent.yaml
for file in machine.key node.key; do
	opened "$lab/d1/state/agent/$file" d1 skerry-agent --config /etc/skerry/agent.yaml
done
lh_run lh1
check "and closed again it starts" cluster_json lh1
