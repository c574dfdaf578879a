# A device without a key prints a URL and a code and waits; any lighthouse lets it in
#
# lh1 lh2 lh3 on core; d1 on site1, d2 on site1.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
cluster_of 3
device_hosts 2
key=$(auth_key lh1) || die "no auth key"
device_up d1 "$(lighthouse_urls 3)" "$key"
agent_config d2
agent_run d2
in_host d2 skerry up --lighthouse "https://${host_ip[lh1]}:8443" --hostname d2 --timeout 60s >"$lab/d2/log/up.log" 2>&1 &
up=$!
waiting()
{
	device_json d2 | jq -er '.approval.code'
}
within 15 "d2 waits with a code" waiting
code=$(waiting)
check "skerry up prints the code or its URL" grep -q "$code" "$lab/d2/log/up.log"
check "and a URL" grep -q "https://" "$lab/d2/log/up.log"
refuse "a wrong code is refused" "not found|no .*code|code" in_host lh2 skerry node approve XXXX-XXXX
check "nobody is let in before" test "$(in_host lh1 skerry node list -o json | jq '.nodes | length')" -eq 1
check "another lighthouse approves" in_host lh3 skerry node approve "$code"
wait $up || {
	cat "$lab/d2/log/up.log"
	die "skerry up failed after the approval"
}
within 10 "d2 sees its peer" sees_peers d2 1
check "and reaches it" on_tailnet d2 d1
# Said twice it is the same device, not a second one.
check "the same code again says the same" in_host lh1 skerry node approve "$code"
check "and makes no second device" test "$(in_host lh1 skerry node list -o json | jq '.nodes | length')" -eq 2
