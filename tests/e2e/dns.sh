# MagicDNS: names, reverse names, other names upstream, over UDP and TCP
#
# lh1 on core; d1 on site1, d3 on site2; the router answers as upstream resolver (none: SERVFAIL, in time).
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
cluster_of 1
device_hosts 3
key=$(auth_key lh1 --reusable) || die "no auth key"
for device in d1 d3; do device_up "$device" "$(lighthouse_urls 1)" "$key"; done
for device in d1 d3; do within 10 "$device sees its peer" sees_peers "$device" 1; done
target=$(tailnet_ip d3)
domain=$(device_json d1 | jq -er .dns.baseDomain) || die "no base domain"
ask()
{
	in_host d1 dig +short +time=2 +tries=1 @100.100.100.100 "$@"
}
check "host.<base domain>" test "$(ask "d3.$domain")" = "$target"
check "host alone" test "$(ask d3)" = "$target"
check "case does not matter" test "$(ask "D3.$domain")" = "$target"
check "over TCP" test "$(ask +tcp "d3.$domain")" = "$target"
check "AAAA" grep -q '^fd7a:115c:a1e0:' <(ask AAAA "d3.$domain")
check "reverse" test "$(ask -x "$target")" = "d3.$domain."
check "no such host is NXDOMAIN" grep -q NXDOMAIN <(in_host d1 dig +time=2 +tries=1 @100.100.100.100 "nobody.$domain")
check "the host's resolver uses it" in_host d1 getent hosts d3
check "ping by name" in_host d1 ping -c 1 -W 2 d3
