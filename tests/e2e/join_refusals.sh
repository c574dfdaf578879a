# Who may not join is refused and disturbs nothing: tokens, foreign CA, removed member, wiped directory, wrong pin
# beside
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
expires=$(($(now) + 1000))
expired()
{
	[ "$(now)" -gt "$expires" ]
}
wait_until $((20 * SKERRY_SLOW)) expired
refuse "an expired token" "expired" join "$short"
rm -rf "$lab"/lh4/state/lighthouse "$lab"/lh4/etc/lighthouse.yaml

# The joined one, taken out again before it ever ran: its directory is worth nothing.
id4=$(cluster_json lh1 | jq -er '.members[] | select(.displayName == "lh4") | .id') || die "lh4 is no member"
check "lh4 is removed" in_host lh1 skerry cluster remove lh4
cp -a "$lab/lh4-joined" "$lab/lh4/tmp/removed"
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
	in_host lh4 bash -c 'timeout 20 openssl s_client -connect 10.77.0.11:8444 -tls1_3 -ign_eof "$@" \
		</dev/null >/run/out 2>&1; cat /run/out; ! grep -qE "SSL alert number|unexpected eof" /run/out' knock "$@"
}
no='SSL alert number|unexpected eof'
cluster=$(cluster_json lh1 | jq -r .id)
id2=$(cluster_json lh1 | jq -er '.members[] | select(.displayName == "lh2") | .id')
in_host lh4 openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=x \
	-addext "subjectAltName=URI:skerry://$cluster/lighthouse/$id2" -keyout /run/k.pem -out /run/c.pem >/dev/null 2>&1
cp "$lab/lh2/state/lighthouse/api.crt" "$lab/lh2/state/lighthouse/api.key" "$lab/lh4/tmp/"
for alpn in skerry-raft/1 skerry-peer/1; do
	refuse "$alpn with a foreign CA" "$no" knock -alpn $alpn -cert /run/c.pem -key /run/k.pem
	refuse "$alpn without a certificate" "$no" knock -alpn $alpn
	refuse "$alpn with a certificate of the cluster that is for devices" "$no" \
		knock -alpn $alpn -cert "$lab/lh4/tmp/api.crt" -key "$lab/lh4/tmp/api.key"
done
# Over the other protocol it is only told that it was removed, as seen above.
refuse "skerry-raft/1 with the certificate of the removed member" "$no" \
	knock -alpn skerry-raft/1 -cert "$lab/lh4/tmp/removed/node.crt" -key "$lab/lh4/tmp/removed/node.key"
refuse "an unknown protocol" "$no" knock -alpn nonsense/1
check "the cluster was not disturbed" undisturbed 3

# A device refuses a lighthouse with another pin, and sends it no key: what it does send, openssl writes down.
foreign=$(auth_key lh4) || die "no key of the other cluster"
agent_config d1
agent_run d1
refuse "an agent refuses a wrong pin" "pin|certificate|cluster" \
	in_host d1 env SKERRY_AUTH_KEY="$foreign" skerry up --lighthouse "$(lighthouse_urls 1)" --hostname d1 --timeout 10s
check "the lighthouse saw no registration" test "$(in_host lh1 skerry node list -o json | jq '.nodes // [] | length')" -eq 0
key=$(auth_key lh1) || die "no auth key"
# It would end with its standard input.
daemon_start lh4 impostor bash -c 'mkfifo /run/never; exec openssl s_server -accept 9555 -cert /run/c.pem -key /run/k.pem \
	-alpn h2,http/1.1 -msg <>/run/never'
within 15 "the impostor listens" in_host lh4 bash -c 'ss -Hltn | grep -q :9555'
refuse "an agent refuses an impostor" "pin|certificate" \
	in_host d1 env SKERRY_AUTH_KEY="$key" skerry up --lighthouse https://10.77.0.14:9555 --hostname d1 --timeout 5s
check "the impostor was dialled" grep -q ClientHello "$lab/lh4/log/impostor.log"
check "and was sent nothing" bash -c '! grep -qE "ApplicationData|PRI \* HTTP|sk-auth" "$0"' "$lab/lh4/log/impostor.log"
daemon_kill lh4 impostor

# A directory that is not what it was, under its old id. The others have acknowledgements of lh3 that it forgot.
state3=$lab/lh3/state/lighthouse
back=$lab/lh3/tmp/back
stop3()
{
	daemon_stop lh3 skerryd || die "lh3 does not end"
}
# not_back TEXT: lh3 does not come back with the directory that it has now; with its own it does.
not_back()
{
	local term
	term=$(cluster_json lh1 | jq -r .term)
	refuse "$1" "remove this lighthouse|join (it )?anew|skerryd join" in_host lh3 timeout 20 skerryd run
	check "the two others go on" auth_key lh1
	check "the term is as before" test "$(cluster_json lh1 | jq -r .term)" = "$term"
	rm -rf "$state3"
	cp -a "$back" "$state3"
}
stop3
cp -a "$state3" "$lab/lh3/tmp/old"
lh_run lh3
within 10 "lh3 is back" voters lh1 3
for _ in 1 2 3; do auth_key lh1 >/dev/null || die "no auth key"; done
within 10 "all three hold the same" digests_equal lh1 3
stop3
cp -a "$state3" "$back"
rm -rf "$state3/raft"
not_back "a directory without its log"
rm -rf "$state3/raft" "$state3/store"
not_back "a directory without log and store"
rm -rf "$state3"
cp -a "$lab/lh3/tmp/old" "$state3"
not_back "an older copy of the directory"
lh_run lh3
within 10 "with what it had it is back" voters lh1 3
within 10 "and all three hold the same" digests_equal lh1 3
[ "$shortfalls" -eq 0 ]
