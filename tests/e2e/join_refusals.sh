# Who may not join is refused and disturbs nothing: tokens, foreign CA, removed member, wiped directory, wrong pin
#
# lh1 lh2 lh3 on core are the cluster; lh4 is the one who tries; d1 on site1.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
cluster_of 3
lab_go_on=1
host_start lh4
host_connect lh4 core 14
device_hosts 2

term_before=$(cluster_json lh1 | jq -r .term)
join()
{
	in_host lh4 timeout 20 skerryd join "$@" --name lh4 --api-address 10.77.0.14:8443 --peer-address 10.77.0.14:8444
}
undisturbed()
{
	[ "$(cluster_json lh1 | jq -r .term)" = "$term_before" ] && voters lh1 "$1" >/dev/null
}

refuse "no token" "token" join
refuse "nonsense as a token" "sk-join" join nonsense
token=$(join_token lh1) || die "no token"
refuse "a cut token" "a character is missing|cut" join "${token%????}"
refuse "a token with a wrong character" "wrong" join "$(sed 's/\(.*\)[0-9]/\1z/' <<<"$token")"
refuse "an auth key as a token" "not a join token" join "$(auth_key lh1)"
check "none of them left a state behind" test -z "$(ls "$lab/lh4/state/lighthouse" 2>/dev/null)"

# A used one: a good join on lh4, then the same token elsewhere.
check "the whole token is good" join "$token"
mv "$lab/lh4/state/lighthouse" "$lab/lh4-joined"
mv "$lab/lh4/etc/lighthouse.yaml" "$lab/lh4-joined.yaml" 2>/dev/null
refuse "a used token" "used|spent" join "$token"
rm -rf "$lab"/lh4/state/lighthouse "$lab"/lh4/etc/lighthouse.yaml
short=$(in_host lh1 skerry cluster token --expiry 1s | grep -oE 'sk-join-[0-9a-z-]+' | head -1)
[ -n "$short" ] || die "no short token"
sleep 1.5
refuse "an expired token" "expired" join "$short"
rm -rf "$lab"/lh4/state/lighthouse "$lab"/lh4/etc/lighthouse.yaml

# The joined one, taken out again before it ever ran: its directory is worth nothing.
id4=$(cluster_json lh1 | jq -er '.members[] | select(.displayName == "lh4") | .id') || die "lh4 is no member"
check "lh4 is removed" in_host lh1 skerry cluster remove lh4
mv "$lab/lh4-joined" "$lab/lh4/state/lighthouse"
mv "$lab/lh4-joined.yaml" "$lab/lh4/etc/lighthouse.yaml" 2>/dev/null
refuse "a removed member with its old directory ($id4)" "removed" \
	in_host lh4 timeout 20 skerryd run
check "the cluster was not disturbed" undisturbed 3
rm -rf "$lab"/lh4/state/lighthouse "$lab"/lh4/etc/lighthouse.yaml

# Another cluster's lighthouse, whose certificate has another CA, knocks at every door of the peer port.
lh_init lh4
# knock ARG...: fails, as openssl does, if the other side says no or closes.
knock()
{
	in_host lh4 bash -c '(sleep 1) | timeout 5 openssl s_client -connect 10.77.0.11:8444 -tls1_3 -ign_eof "$@" \
		>/run/out 2>&1; cat /run/out; ! grep -qE "SSL alert number|unexpected eof" /run/out' knock "$@"
}
in_host lh4 openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=x \
	-addext 'subjectAltName=URI:skerry://lab/lighthouse/1' -keyout /run/k.pem -out /run/c.pem >/dev/null 2>&1
for alpn in skerry-raft/1 skerry-peer/1; do
	refuse "$alpn with a foreign CA" "SSL alert number|unexpected eof" knock -alpn $alpn -cert /run/c.pem -key /run/k.pem
	refuse "$alpn without a certificate" "SSL alert number|unexpected eof" knock -alpn $alpn
done

# A device refuses a lighthouse with another pin, and sends it no key.
foreign=$(auth_key lh4) || die "no key of the other cluster"
agent_config d1
agent_run d1
refuse "an agent refuses a wrong pin" "pin|certificate|cluster" \
	in_host d1 env SKERRY_AUTH_KEY="$foreign" skerry up --lighthouse "$(lighthouse_urls 1)" --hostname d1 --timeout 10s
check "the lighthouse saw no registration" test "$(in_host lh1 skerry node list -o json | jq '.nodes // [] | length')" -eq 0

# A wiped directory under an old id: lh3 keeps who it is but loses its log and state.
daemon_stop lh3 skerryd || die "lh3 does not end"
state3=$lab/lh3/state/lighthouse
rm -rf "$state3"/raft* "$state3"/*.mdb "$state3"/lmdb* "$state3"/data*
refuse "a wiped directory under an old id" "behind|wiped|older|missing|restored|acknowledged|empty" \
	in_host lh3 timeout 20 skerryd run
check "the two others go on" auth_key lh1
check "the term is as before" test "$(cluster_json lh1 | jq -r .term)" = "$term_before"
[ "$shortfalls" -eq 0 ]
