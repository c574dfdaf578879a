# A cluster of one serves a tailnet; two more hosts join later and become voters without a pause
#
# lh1, later lh2 and lh3 on core; d1 on site1, d3 on site2.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
lighthouse_hosts 3
device_hosts 3
refuse "run before init names the next step" "skerryd init" \
	in_host lh1 skerryd run
lh_init lh1
within 10 "a cluster of one has a leader" voters lh1 1
check "init names the next commands" grep -q "skerryd run" "$lab/lh1/log/init-command.log"
refuse "init twice names the next step" "already|run" in_host lh1 skerryd init --name lh1 \
	--api-address "${host_ip[lh1]}:8443" --peer-address "${host_ip[lh1]}:8444"
agent_config d1
agent_run d1
refuse "ping before up names the next step" "skerry up" in_host d1 skerry ping d3
daemon_stop d1 agent || die "the agent does not end"
key=$(auth_key lh1 --reusable) || die "no auth key"
device_up d1 "$(lighthouse_urls 1)" "$key"
device_up d3 "$(lighthouse_urls 1)" "$key"
for device in d1 d3; do within 10 "$device sees its peer" sees_peers "$device" 1; done
check "ping by name" in_host d1 ping -c 1 -W 2 d3
target=$(tailnet_ip d3)
ping_start d1 "$target" || die "no ping answer"
lh_join lh2 lh1
lh_join lh3 lh1
within 30 "three voters" voters lh3 3
within 20 "equal digests" digests_equal lh1 3

# The devices learn the other two, and so survive the loss of the only one they were told.
knows_three()
{
	device_json d1 | jq -e '.control.lighthouseUrls | length >= 3'
}
within 15 "d1 has learnt all three lighthouses" knows_three
daemon_kill lh1 skerryd KILL
within 15 "d1 is attached to another one" attached_elsewhere d1 "https://${host_ip[lh1]}:8443"
within 15 "writes go on" auth_key lh2
read -r sent received lost gap < <(ping_report d1 "$target")
figure "ping: $sent sent, $lost lost, longest gap $gap ms"
[ "$received" -gt 20 ] && [ "$lost" -le 1 ] || die "pings were lost"
