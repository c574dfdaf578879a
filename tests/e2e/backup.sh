# Backup of three, all hosts gone, restore on a new one: devices come back by themselves; recovery of a survivor
# main
# beside
#
# lh1 lh2 lh3 on core; d1 on site1, d3 on site2. lh9 is a new host at the address of lh1, lh8 one with the disk of lh2.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# host_lost HOST: the machine burns down: every process, the network, the link.
host_lost()
{
	kill -9 "${holder[$1]}"
	wait_until $((20 * SKERRY_SLOW)) bash -c "! kill -0 ${holder[$1]} 2>/dev/null" || die "$1 does not go"
	unset "holder[$1]"
}

one_member()
{
	cluster_json "$1" | jq -e --arg name "$1" '(.members | length) == 1 and .members[0].displayName == $name and .quorum'
}

no_quorum()
{
	cluster_json "$1" | jq -e '.quorum | not'
}

lab_begin
cluster_of 3
device_hosts 3
urls=$(lighthouse_urls 3)
key=$(auth_key lh1 --reusable) || die "no auth key"
for device in d1 d3; do device_up "$device" "$urls" "$key"; done
for device in d1 d3; do within 10 "$device sees its peer" sees_peers "$device" 1; done
cluster=$(cluster_json lh1 | jq -r .id)
before=$(cluster_json lh1 | jq -r .revision)

check "a backup from a lighthouse that need not lead" in_host lh2 skerry backup create /var/lib/skerry/b.skerry
refuse "a second one does not replace it" "force" in_host lh2 skerry backup create /var/lib/skerry/b.skerry
check "unless told to" in_host lh2 skerry backup create --force /var/lib/skerry/b.skerry
file=$lab/lh2/state/b.skerry
check "only its owner can read it" test "$(stat -c %a "$file")" = 600
check "nothing is left beside it" test ! -e "$file.tmp"
figure "backup: $(stat -c %s "$file") bytes"
grep -oE 'skr1-[a-z0-9-]+' "$lab/lh1/log/init-command.log" >"$lab/recovery"
check "it verifies, and the recovery string opens it" "$SKERRY_BIN/skerryd" backup verify "$file" \
	--recovery-string "file:$lab/recovery"

for lh in lh1 lh2 lh3; do host_lost "$lh"; done
detached()
{
	device_json "$1" | jq -e '.control.attached | not'
}
for device in d1 d3; do within 15 "$device is alone" detached "$device"; done

host_start lh9
host_connect lh9 core 11
cp "$file" "$lab/lh9/state/b.skerry"
cp "$lab/recovery" "$lab/lh9/state/recovery"
restore()
{
	in_host lh9 skerryd restore "$@" --name lh9 --api-address 10.77.0.11:8443 --peer-address 10.77.0.11:8444
}
untouched()
{
	[ ! -e "$lab/lh9/state/lighthouse" ]
}
head -c 3000 "$file" >"$lab/lh9/state/cut"
refuse "a cut file" "is cut" restore /var/lib/skerry/cut --recovery-string file:/var/lib/skerry/recovery
{ head -c 2000 "$file"; printf '\377\377\377\377'; tail -c +2005 "$file"; } >"$lab/lh9/state/altered"
refuse "an altered file" "was changed" restore /var/lib/skerry/altered --recovery-string file:/var/lib/skerry/recovery
refuse "something else" "no backup" restore /etc/passwd --recovery-string file:/var/lib/skerry/recovery
refuse "no key" "--cluster-key" restore /var/lib/skerry/b.skerry
sed 's/.$/7/;s/skr1-./skr1-z/' "$lab/recovery" >"$lab/lh9/state/mistyped"
refuse "a mistyped recovery string" "mistyped|character" restore /var/lib/skerry/b.skerry \
	--recovery-string file:/var/lib/skerry/mistyped
printf '%064d\n' 7 >"$lab/lh9/state/other.key"
refuse "the key of another cluster" "does not open" restore /var/lib/skerry/b.skerry \
	--cluster-key /var/lib/skerry/other.key
check "none of them touched anything" untouched
start=$(now)
check "the restore" restore /var/lib/skerry/b.skerry --recovery-string file:/var/lib/skerry/recovery
figure "restore: $(seconds $(($(now) - start))) s"
check "what it made is in order" in_host lh9 skerryd check
refuse "a second one" "already holds a lighthouse" restore /var/lib/skerry/b.skerry \
	--recovery-string file:/var/lib/skerry/recovery
lh_run lh9
check "one member, which leads" one_member lh9
check "the same cluster" test "$(cluster_json lh9 | jq -r .id)" = "$cluster"
check "revisions go on 2^32 above" test "$(cluster_json lh9 | jq -r .revision)" -gt $((before + 4294967295))
for device in d1 d3; do within 40 "$device is back by itself" sees_peers "$device" 1; done
check "d1 reaches d3 by name" on_tailnet d1 d3

# The disk of lh2 in another machine: it knows the cluster's key and CA, and is refused all the same.
host_start lh8
host_connect lh8 core 12
cp -a "$lab/lh2/state/lighthouse" "$lab/lh8/state/lighthouse"
# Its certificate is good, and it is refused all the same: the restored one counts it.
# Its standard input never ends: it is the other side that hangs up.
daemon_start lh8 knock bash -c 'mkfifo /run/never; exec openssl s_client -connect 10.77.0.11:8444 -tls1_3 -alpn skerry-raft/1 \
	-cert /var/lib/skerry/lighthouse/node.crt -key /var/lib/skerry/lighthouse/node.key <>/run/never'
refused_peers()
{
	in_host lh9 curl -s http://127.0.0.1:9443/metrics | awk '$1 == "skerry_peer_refused_total" { n = $2 } END { print n + 0 }'
}
refused_at_least()
{
	[ "$(refused_peers)" -ge "$1" ]
}
within 15 "a lighthouse of before is refused" refused_at_least 1
within 15 "and hung up on" daemon_gone lh8 knock
daemon_start lh8 skerryd skerryd run
within 30 "the lighthouse of before is told to stop" daemon_gone lh8 skerryd
check "with the status of one that is no member" test "$(daemon_code lh8 skerryd)" = 76
check "and the reason" grep -q 'the cluster goes on in a newer epoch' "$lab/lh8/log/skerryd.log"
check "it never led" bash -c '! grep -q "this lighthouse leads" "$0"' "$lab/lh8/log/skerryd.log"
check "the cluster has one member" one_member lh9
host_lost lh8

# Two new ones, then two of three are gone for good: the survivor goes on alone.
host_ip[lh9]=10.77.0.11
for i in 2 3; do
	host_start "lhn$i"
	host_connect "lhn$i" core $((10 + i))
	lh_join "lhn$i" lh9
done
within 30 "three voters again" voters lh9 3
within 20 "equal digests" digests_equal lh9 3
host_lost lh9
host_lost lhn2
within 20 "no quorum" no_quorum lhn3
refuse "recover beside a running daemon" "stop the daemon" in_host lhn3 skerryd recover --yes
daemon_stop lhn3 skerryd || die "lhn3 does not end"
refuse "recover asks first" "--yes" in_host lhn3 skerryd recover
start=$(now)
check "recover" in_host lhn3 skerryd recover --yes
figure "recover: $(seconds $(($(now) - start))) s"
check "log and store belong together" in_host lhn3 skerryd check --replay
lh_run lhn3
within 10 "it leads alone" one_member lhn3
for device in d1 d3; do within 40 "$device is back again" sees_peers "$device" 1; done
check "d1 still reaches d3 by name" on_tailnet d1 d3
