# Two versions in one cluster: both serve; one after the other is upgraded, the feature level raised, the old one refused
# beside
#
# lh1 lh2 lh3 on core begin with the old version (a build that knows feature level 1 alone), d1 on site1 and d3 on site2.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

new=$SKERRY_BIN
old=$(build_dir old)/bin
[ -x "$old/skerryd" ] || build old skerryd || die "the old version cannot be built"

# with_old, with_new: which skerryd is started from now on; the other programs are the new ones.
with_old() { SKERRY_BIN=$old:$new; }
with_new() { SKERRY_BIN=$new; }

level() { cluster_json "$1" | jq -er .featureLevel; }
level_is() { [ "$(level "$1")" = "$2" ]; }

# user HOST NAME: a write through this lighthouse.
user() { in_host "$1" skerry user create "$2"; }

# said HOST PATTERN: the daemon's log has a line like it.
said() { grep -qE -- "$2" "$lab/$1/log/skerryd.log"; }

lab_begin
with_old
cluster_of 3
check "a cluster that the old version made is at feature level 1" level_is lh1 1
device_hosts 3
urls=$(lighthouse_urls 3)
key=$(auth_key lh1 --reusable) || die "no auth key"
api_key lh1 "$lab/api-key" || die "no API key"
for device in d1 d3; do device_up "$device" "$urls" "$key"; done
for device in d1 d3; do within 10 "$device sees its peer" sees_peers "$device" 1; done
client_start router write --urls "$urls" --key-file "$lab/api-key" --prefix up --out "$lab/acks" --parallel 4 --rate 50
writer=$client_pid
client_start router online --urls "$urls" --key-file "$lab/api-key" --names d1,d3 --seconds 600 >"$lab/online" 2>&1
online=$client_pid

# One runs the new version.
daemon_stop lh2 skerryd || die "lh2 does not stop"
with_new
lh_run lh2
within 30 "three voters, two versions" voters lh1 3
for leader in lh1 lh2; do
	within 20 "$leader leads" in_host lh1 bash -c "skerry cluster status -o json | jq -e '.members[] | select(.leader).displayName == \"$leader\"' || { skerry cluster transfer $leader; false; }"
	for lh in lh1 lh2 lh3; do check "a write on $lh, led by $leader" user "$lh" "u-$leader-$lh"; done
	refuse "what the old one does not know is refused, led by $leader" 'needs feature level 2, the cluster is at 1.*finalize-upgrade' \
		in_host lh2 skerry cluster ca rotate
done
within 20 "equal digests" digests_equal lh1 3
refuse "the level stays while the old version runs" 'stays at 1: lh[13] \(up to 1\), lh[13] \(up to 1\)' in_host lh2 skerry cluster finalize-upgrade

# The others, one after the other.
for lh in lh1 lh3; do
	daemon_stop "$lh" skerryd || die "$lh does not stop"
	lh_run "$lh"
	within 30 "three voters after the upgrade of $lh" voters lh2 3
done
# A lighthouse says with its start which levels it knows.
knows_2() { cluster_json lh1 | jq -e '[.members[] | select(.featureMax == 2)] | length == 3'; }
within 20 "all have said that they know level 2" knows_2
check "nothing was raised by itself" level_is lh1 1

# Raised while one is away that had said that it knows the level; it comes back with the old version.
daemon_stop lh3 skerryd || die "lh3 does not stop"
within 20 "the other two go on" user lh1 two-alone
check "the feature level is raised" in_host lh1 skerry cluster finalize-upgrade
for lh in lh1 lh2; do within 10 "$lh is at level 2" level_is "$lh" 2; done
check "raising again says so" in_host lh2 bash -c 'skerry cluster finalize-upgrade | grep -q "feature level 2 already"'
with_old
in_host lh3 timeout 30 skerryd run >>"$lab/lh3/log/skerryd.log" 2>&1
rv=$?
[ $rv -eq 77 ] || die "the old version ended with $rv, not 77"
check "it says what it knows and what to do" said lh3 'feature level 2, this build knows 1 to 1: install the build that the other lighthouses run'
host_start lh4
host_connect lh4 core 14
join_token lh1 >"$lab/token"
in_host lh4 timeout 60 skerryd join - <"$lab/token" >"$lab/lh4/log/join.log" 2>&1
rv=$?
[ $rv -eq 77 ] || {
	cat "$lab/lh4/log/join.log"
	die "joining with the old version ended with $rv, not 77"
}
check "the join of the old version is refused with the reason" grep -q 'supports the feature levels 1 to 1, the cluster is at 2' "$lab/lh4/log/join.log"

# With the new version it catches up; what level 2 brings works.
with_new
lh_run lh3
within 30 "three voters at level 2" voters lh1 3
check "the CA is rotated" in_host lh3 skerry cluster ca rotate
within 20 "equal digests" digests_equal lh1 3
daemon_stop lh3 skerryd || die "lh3 does not stop"
with_old
in_host lh3 timeout 30 skerryd run >>"$lab/lh3/log/skerryd.log" 2>&1
rv=$?
[ $rv -eq 77 ] || die "the old version on a state of level 2 ended with $rv, not 77"
check "it names the state" said lh3 'the state in /var/lib/skerry/lighthouse is at feature level 2, this build knows 1 to 1'
with_new
lh_run lh3
within 30 "three voters" voters lh1 3

kill -TERM "$writer"
wait "$writer" || {
	grep REFUSED "$lab/acks" | head -5
	die "a write was refused"
}
kill -TERM "$online" 2>/dev/null
if grep -q offline "$lab/online"; then
	head -5 "$lab/online"
	die "somebody was shown offline"
fi
for lh in lh1 lh2 lh3; do
	check "every acknowledged write is on $lh" in_client router verify --urls "https://${host_ip[$lh]}:8443" \
		--key-file "$lab/api-key" --prefix up --out "$lab/acks"
done
figure "writes through the upgrade: $(grep -c ACK "$lab/acks")"
within 20 "equal digests" digests_equal lh1 3
