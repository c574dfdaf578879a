# No secret that a run has shown is in any state, log, snapshot or configuration
#
# lh1 lh2 lh3 on core; d1 and d2 on site1.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
cluster_of 3
device_hosts 2
shown=$lab/shown
used=$(auth_key lh1) || die "no auth key"
spare=$(auth_key lh2 --reusable) || die "no second auth key"
api_key lh2 "$lab/api" || die "no API key"
token=$(join_token lh3) || die "no join token"
recovery=$(grep -ohE 'skr1-[0-9a-z-]+' "$lab"/lh1/log/init-command.log | head -1)
[ -n "$recovery" ] || die "init printed no recovery string"
printf '%s\n' "$used" "$spare" "$(cat "$lab/api")" "$token" "$recovery" >"$shown"

# Each is used where it might leave a trace: rightly, for the wrong thing, cut.
device_up d1 "$(lighthouse_urls 3)" "$used"
agent_config d2
agent_run d2
in_host d2 env SKERRY_AUTH_KEY="$used" timeout 20 skerry up --lighthouse "$(lighthouse_urls 1)" --timeout 5s >/dev/null 2>&1
in_host d2 env SKERRY_AUTH_KEY="${spare%???}" timeout 20 skerry up --lighthouse "$(lighthouse_urls 1)" --timeout 5s >/dev/null 2>&1
in_host d2 env SKERRY_AUTH_KEY="$(cat "$lab/api")" timeout 20 skerry up --lighthouse "$(lighthouse_urls 1)" --timeout 5s >/dev/null 2>&1
in_client router call --urls "$(lighthouse_urls 1)" --key-file "$lab/api" \
	skerry.v1.UserService/ListUsers '{"parent":"tailnets/1"}' >/dev/null 2>&1
in_client router call --urls "$(lighthouse_urls 1)" --key-file "$shown" skerry.v1.NoService/No '{}' >/dev/null 2>&1
device_up d2 "$(lighthouse_urls 3)" "$spare"
within 10 "d2 sees its peer" sees_peers d2 1

# What the commands themselves printed for the person is not what a daemon keeps.
rm -f "$lab"/*/log/{init,join}-command.log "$lab/api"
mkdir "$lab/kept" && mv "$shown" "$lab/kept/"
for lh in lh1 lh2 lh3; do daemon_stop "$lh" skerryd || die "skerryd on $lh does not end"; done
for device in d1 d2; do daemon_stop "$device" agent || die "the agent does not end"; done
check "the look finds what is there" bash -c '! "$0" "$1" "$2"' "$skerry_root/tests/e2e/find_secrets.py" \
	"$lab/kept/shown" "$lab/kept"
check "no secret in state, logs and configuration" "$skerry_root/tests/e2e/find_secrets.py" "$lab/kept/shown" \
	"$lab"/lh1 "$lab"/lh2 "$lab"/lh3 "$lab"/d1 "$lab"/d2
cat "$lab/check.out"

# The state is closed to others, and a daemon that finds it open does not start.
check "state directories are 0700" test "$(stat -c %a "$lab"/{lh1,lh2,lh3}/state/lighthouse "$lab"/d1/state/agent | sort -u)" = 700
check "no file of the state is open to others" test -z "$(find "$lab"/*/state/*/ -type f -perm /077)"
chmod 755 "$lab"/lh1/state/lighthouse
refuse "a lighthouse's directory open to others" "0?700|permission|mode" \
	in_host lh1 timeout 10 skerryd run
chmod 755 "$lab"/d1/state/agent
refuse "an agent's directory open to others" "0?700|permission|mode" \
	in_host d1 timeout 10 skerry-agent --config /etc/skerry/agent.yaml
