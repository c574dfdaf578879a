# A device without a key prints a URL and a code and waits; any lighthouse lets it in
# beside
#
# lh1 lh2 lh3 on core; d1 and d2 on site1, d3 on site2.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
cluster_of 3
device_hosts 3
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

# Said twice it is the same device, not a second one; for somebody else it is too late.
check "the same code again says the same" in_host lh1 skerry node approve "$code"
check "in small letters, without the hyphen, too" in_host lh2 skerry node approve "$(tr -d - <<<"${code,,}")"
check "there is another user" in_host lh1 skerry user create other
refuse "the code again, for another user" "decided before.*d2" in_host lh1 skerry node approve "$code" --user other
check "and there is no second device" test "$(in_host lh1 skerry node list -o json | jq '.nodes | length')" -eq 2
check "of its first user" test "$(in_host lh1 skerry node list -o json | jq -r '[.nodes[].user] | unique | length')" -eq 1

# The waiting is the agent's: Ctrl-C ends the command, and the end of its lighthouse changes nothing.
agent_config d3
agent_run d3
in_host d3 timeout -s INT 2 skerry up --lighthouse "$(lighthouse_urls 3)" --hostname d3 >"$lab/d3/log/up.log" 2>&1
waiting3()
{
	device_json d3 | jq -er '.approval.code'
}
within 10 "d3 waits after Ctrl-C" waiting3
code=$(waiting3)
leader=$(leader_of lh1)
daemon_kill "$leader" skerryd
other=lh1
[ "$leader" = lh1 ] && other=lh2
within 10 "there is a new leader" leader_other_than "$other" "$leader"
within 10 "d3 waits at another" waiting3
check "under the same code" test "$(waiting3)" = "$code"
# A new agent waits on by itself, and to be told so again is the same request.
daemon_stop d3 agent || die "the agent does not end"
agent_run d3
within 10 "d3 waits on" waiting3
check "under the same code still" test "$(waiting3)" = "$code"
in_host d3 timeout -s INT 2 skerry up --hostname d3 >"$lab/d3/log/up.log" 2>&1
check "and when it is told to" test "$(waiting3)" = "$code"
# It is approved while the agent is away.
daemon_stop d3 agent || die "the agent does not end"
check "approved for the other user" in_host "$other" skerry node approve "$code" --user other
agent_run d3
within 10 "d3 is in, of itself" sees_peers d3 2
check "and reaches d1" on_tailnet d3 d1
