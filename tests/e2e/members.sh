# Members come and go with devices attached: 1 to 3 to 5, the leader leaves, a killed host is replaced, IPv6 alone, addresses change
# beside
#
# lh1.. on core, reached by the other lighthouses and by devices over IPv6 alone (fd77::/64, routed to site1); d1, d2 on site1.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin

# v6 HOST NET NUMBER: an IPv6 address beside the other one, and the route to the other net.
declare -A v6_of=([core]=fd77:0 [site1]=fd77:1)
v6()
{
	in_host "$1" ip addr add "${v6_of[$2]}::$3/64" dev eth0 nodad
	in_host "$1" ip -6 route add default via "${v6_of[$2]}::1"
	host_ip[$1]="[${v6_of[$2]}::$3]"
	# What is left of IPv4: nothing that reaches another host.
	in_host "$1" ip -4 addr flush dev eth0
}
for net in core site1; do in_host router ip addr add "${v6_of[$net]}::1/64" dev "$net" nodad; done
in_host router sysctl -qw net.ipv6.conf.all.forwarding=1
# lighthouse_v6 HOST NUMBER
lighthouse_v6()
{
	host_start "$1"
	host_connect "$1" core "$2"
	v6 "$1" core "$2"
}
for i in 1 2 3 4 5; do lighthouse_v6 "lh$i" $((10 + i)); done
for i in 1 2; do
	host_start "d$i"
	host_connect "d$i" site1 $((10 + i))
	v6 "d$i" site1 $((10 + i))
done

lh_init lh1
check "an address of the cluster is IPv6" bash -c 'grep -q "\[fd77" "$0"' "$lab/lh1/log/init-command.log"
key=$(auth_key lh1 --reusable) || die "no auth key"
for d in d1 d2; do device_up "$d" "https://[fd77:0::11]:8443" "$key"; done
for d in d1 d2; do within 15 "$d sees the other" sees_peers "$d" 1; done
api_key lh1 "$lab/api-key" || die "no API key"

lh_join lh2 lh1
within 20 "of two lighthouses one has a vote" voters lh2 1
why()
{
	in_host lh2 skerry cluster status | grep -q "two lighthouses: one vote; a third makes three voters"
}
within 10 "and status says why" why
lh_join lh3 lh1
within 30 "three voters" voters lh3 3
lh_join lh4 lh1
lh_join lh5 lh2
within 40 "five voters" voters lh5 5

# From here on nobody is shown offline: asked at lighthouses that stay.
client_start router online --urls "https://[fd77:0::13]:8443" --key-file "$lab/api-key" --names d1,d2 --seconds 3600 \
	>"$lab/online" 2>&1
online=$client_pid

# done_on HOST: nothing is under way.
done_on()
{
	cluster_json "$1" | jq -e '.change == null'
}
# ended HOST: the daemon ended by itself, as one that was removed.
ended()
{
	daemon_gone "$1" skerryd && grep -q "was removed from the cluster" "$lab/$1/log/skerryd.log"
}

refuse "four voters are refused" "EVEN_VOTERS|survive no more losses" in_host lh3 skerry cluster demote lh5
check "two lose their votes" in_host lh3 skerry cluster demote lh4 lh5
within 30 "three voters are left" voters lh3 3
check "and have them again" in_host lh4 skerry cluster promote lh4 lh5
within 30 "five voters again" voters lh3 5

# The leader leaves, asked at another one; lh3 stays, for who is asked about the devices.
leads()
{
	[ "$(leader_of "$1")" = "$2" ]
}
leads lh3 lh1 || check "leadership is handed over" in_host lh3 skerry cluster transfer lh1
within 20 "lh1 leads" leads lh3 lh1
first=$(leader_of lh3)
[ "$first" != lh3 ] || die "lh3 leads: it cannot be removed here"
check "the leader, $first, is removed" in_host lh3 skerry cluster remove "$first"
within 20 "it was told and stopped" ended "$first"
within 20 "four go on" voters lh3 4
for d in d1 d2; do within 20 "$d is attached" sees_peers "$d" 1; done

# A host dies and is set up anew: one command, and the join.
dead=lh5
[ "$(leader_of lh3)" = lh5 ] && dead=lh4
daemon_kill "$dead" skerryd KILL
away()
{
	cluster_json lh3 | jq -e --arg n "$1" '[.members[] | select(.displayName == $n and .connected)] | length == 0'
}
within 20 "$dead is away" away "$dead"
token=$(in_host lh3 skerry cluster replace "$dead" 2>/dev/null | grep -oE 'sk-join-[A-Za-z0-9_-]+' | head -1)
[ -n "$token" ] || die "skerry cluster replace prints no token"
refuse "nothing else meanwhile" "replace $dead" in_host lh3 skerry cluster remove "$dead"
waits()
{
	in_host lh3 skerry cluster status | grep -q "replace $dead.*waits for the new host to join"
}
within 10 "status says what it waits for" waits
rm -rf "$lab/$dead/state/lighthouse" "$lab/$dead"/etc/lighthouse.yaml
lh_join "$dead" lh3 "$token"
within 40 "four voters again" voters lh3 4
within 20 "the replacement is done" done_on lh3
within 20 "equal digests" digests_equal lh3 4

# An address changes, of the peer port and of the API, while another one is away.
stays=$(leader_of lh3)
moves='' sleeps=''
for lh in lh1 lh2 lh3 lh4 lh5; do
	[ "$lh" = "$first" ] || [ "$lh" = "$stays" ] || [ "$lh" = lh3 ] && continue
	if [ -z "$moves" ]; then moves=$lh; elif [ -z "$sleeps" ]; then sleeps=$lh; fi
done
daemon_stop "$moves" skerryd || die "$moves does not end"
in_host "$moves" ip addr add fd77:0::99/64 dev eth0 nodad
in_host "$moves" ip addr del "${v6_of[core]}::1${moves#lh}/64" dev eth0
printf 'peer_address: "[fd77:0::99]:8444"\napi_url: "https://[fd77:0::99]:8443"\n' >>"$lab/$moves/etc/lighthouse.yaml"
host_ip[$moves]='[fd77:0::99]'
lh_run "$moves"
moved()
{
	cluster_json lh3 | jq -e --arg n "$1" '.members[] | select(.displayName == $n) |
		.connected and .peerAddress == "[fd77:0::99]:8444" and .apiUrl == "https://[fd77:0::99]:8443"'
}
within 30 "$moves is dialled where it is now" moved "$moves"
within 30 "four voters" voters lh3 4
within 20 "equal digests at last" digests_equal lh3 4
check "d1 reaches d2 by name" on_tailnet d1 d2

kill -TERM "$online"
wait "$online" || {
	tail -5 "$lab/online"
	die "somebody was shown offline"
}
say "ok: nobody was shown offline: $(tail -1 "$lab/online")"
