# No secret that a run has shown is in any state, log, snapshot or backup
#
# lh1 lh2 lh3 on core; d1 on site1.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
cluster_of 3
device_hosts 1
shown=$lab/shown
key=$(auth_key lh1) || die "no auth key"
api_key lh2 "$lab/api" || die "no API key"
token=$(join_token lh3) || die "no join token"
device_up d1 "$(lighthouse_urls 3)" "$key"
# The secret part of each is what must not be found: sk-KIND-ID-SECRET[-PIN].
for secret in "$key" "$(cat "$lab/api")" "$token"; do
	cut -d- -f4 <<<"$secret"
done >"$shown"
rm "$lab/api"
in_client router call --urls "$(lighthouse_urls 1)" skerry.v1.UserService/ListUsers '{"parent":"tailnets/1"}' >/dev/null 2>&1
recovery=$(grep -oE 'sk-[a-z]+-[A-Za-z0-9_-]{20,}|[A-Z0-9]{4}(-[A-Z0-9]{4}){7,}' "$lab/lh1/log/init-command.log" | head -1)
[ -z "$recovery" ] || echo "$recovery" >>"$shown"
rm -f "$lab"/lh1/log/init-command.log "$lab"/*/log/join-command.log
for lh in lh1 lh2 lh3; do daemon_stop "$lh" skerryd || die "skerryd on $lh does not end"; done
daemon_stop d1 agent || die "the agent does not end"
[ "$(wc -l <"$shown")" -ge 3 ] || die "not all secrets were recorded"
while read -r secret; do
	[ "${#secret}" -ge 16 ] || die "a secret of ${#secret} characters"
	if grep -rlaF -- "$secret" "$lab"/*/{state,log,etc}; then
		die "a secret stands in the files above"
	fi
done <"$shown"
say "ok: $(wc -l <"$shown") secrets in none of $(find "$lab"/*/{state,log,etc} -type f | wc -l) files"

# The state is closed to others, and a daemon that finds it open does not start.
check "state directory is 0700" test "$(stat -c %a "$lab"/lh1/state/lighthouse)" = 700
check "no file of the state is open to others" test -z "$(find "$lab"/*/state -type f -perm /077)"
chmod 755 "$lab"/lh1/state/lighthouse
refuse "a state directory open to others" "0700|permission|mode" \
	in_host lh1 timeout 10 skerryd run --config /etc/skerry/lighthouse.yaml
