# MagicDNS: names, reverse names, other names upstream, over UDP and TCP; names follow what happens to nodes
#
# lh1 on core; d1 and d2 on site1, d3 on site2; each host has a resolver of its own at 127.0.0.53.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
cluster_of 1
device_hosts 3
key=$(auth_key lh1 --reusable) || die "no auth key"
upstream=$skerry_root/tests/e2e/dns_upstream.py
daemon_start d1 upstream "$upstream" 127.0.0.53 www.example.org 192.0.2.80
for device in d1 d3; do device_up "$device" "$(lighthouse_urls 1)" "$key"; done
for device in d1 d3; do within 10 "$device sees its peer" sees_peers "$device" 1; done
target=$(tailnet_ip d3)
target6=$(device_json d3 | jq -er '[.self.addresses[] | select(startswith("fd7a:"))][0]')
domain=$(device_json d1 | jq -er .dns.baseDomain) || die "no base domain"
ask()
{
	in_host d1 dig +short +time=2 +tries=1 @100.100.100.100 "$@"
}
# is WANTED ARG...: the answer is this, and nothing else.
is()
{
	[ "$(ask "${@:2}")" = "$1" ]
}
# status CODE ARG...: the answer has this code.
status()
{
	in_host d1 dig +time=7 +tries=1 @100.100.100.100 "${@:2}" | grep -q "status: $1"
}
check "host.<base domain>" is "$target" "d3.$domain"
check "host alone" is "$target" d3
check "case does not matter" is "$target" "D3.$domain"
check "over TCP" is "$target" +tcp "d3.$domain"
check "AAAA" is "$target6" AAAA "d3.$domain"
check "itself" is "$(tailnet_ip d1)" "d1.$domain"
check "reverse" is "d3.$domain." -x "$target"
check "reverse of IPv6" is "d3.$domain." -x "$target6"
check "no such host is NXDOMAIN" status NXDOMAIN "nobody.$domain"
check "nor a name below one" status NXDOMAIN "www.d3.$domain"
check "nor an address of nobody" status NXDOMAIN -x 100.64.255.254
check "another type is an empty answer" is "" MX "d3.$domain"
check "and NOERROR" status NOERROR MX "d3.$domain"
check "the host's resolver uses it" in_host d1 getent hosts d3
check "ping by name" in_host d1 ping -c 1 -W 2 d3

# Everything else goes to the resolver that the host had.
check "another name, upstream" is 192.0.2.80 www.example.org
check "over TCP" is 192.0.2.80 +tcp www.example.org
check "for the host's programs, too" in_host d1 getent hosts www.example.org
check "what upstream does not know is NXDOMAIN" status NXDOMAIN www.example.net
daemon_kill d1 upstream
check "without upstream SERVFAIL comes in time" status SERVFAIL ftp.example.org
check "and names of the tailnet are as before" is "$target" d3

# Names follow the nodes.
check "d3 gets another name" in_host lh1 skerry node rename d3 attic
within 10 "the new name is there" is "$target" "attic.$domain"
within 10 "the old one is gone" status NXDOMAIN "d3.$domain"
check "and so is its reverse" is "attic.$domain." -x "$target"
device_up d2 "$(lighthouse_urls 1)" "$key"
within 10 "a new node's name is there" is "$(tailnet_ip d2)" "d2.$domain"
check "d2 is deleted" in_host lh1 skerry node delete d2
within 10 "its name is gone" status NXDOMAIN "d2.$domain"

stored()
{
	grep -q attic "$lab/d1/state/agent/netmap.pb"
}
within 10 "the netmap is stored" stored
# Without a lighthouse, and with a new agent.
daemon_stop lh1 skerryd || die "skerryd does not end"
check "without a lighthouse names are as before" is "$target" "attic.$domain"
daemon_kill d1 agent
within 15 "the agent is gone" daemon_gone d1 agent
agent_run d1
within 10 "a new agent answers from the stored netmap" is "$target" "attic.$domain"

# Down leaves the host as it was.
check "down" in_host d1 skerry down
check "the host has its own resolver again" grep -qx "nameserver 127.0.0.53" <(in_host d1 cat /etc/resolv.conf)
check "and nothing else" test "$(in_host d1 grep -c . /etc/resolv.conf)" -eq 1
