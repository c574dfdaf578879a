# Ten thousand nodes in 50 tailnets: snapshot, install, restart, backup, restore; nothing of it makes an election
# beside
#
# lh1 lh2 lh3 on core, lh4 joins later, lh9 is a new host at the address of lh1; d1 on site1. SKERRY_BIG=1: a hundred thousand nodes; SKERRY_NODES=N.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

nodes=${SKERRY_NODES:-10000}
[ -z "${SKERRY_BIG:-}" ] || nodes=100000
# Limits of waiting, with room for a state ten times as big on a busy machine.
patience=$((60 + nodes / 500))
load=$SKERRY_BIN/../bench/bench_load
[ -x "$load" ] || build "$(basename "$(dirname "$SKERRY_BIN")")" bench_load >/dev/null 2>&1
[ -x "$load" ] || {
	say "this tree lacks: bench_load beside the programs (ninja bench_load)"
	exit 77
}

# series HOST NAME: the value of one series.
series()
{
	in_host "$1" curl -s http://127.0.0.1:9443/metrics | awk -v name="$2" '$1 == name { print $2 }'
}

series_at_least()
{
	in_host "$1" curl -s http://127.0.0.1:9443/metrics |
		awk -v name="$2" -v n="$3" '$1 == name && $2 + 0 >= n + 0 { found = 1 } END { exit !found }'
}

# resident HOST: "TOTAL ANON" of skerryd, in MiB: the rest are pages of the store, which the system may take back.
resident()
{
	in_host "$1" bash -c 'awk "/^VmRSS/ { r = \$2 } /^RssAnon/ { a = \$2 } END { printf \"%d MiB resident, %d of them its own\", r / 1024, a / 1024 }" \
		/proc/$(cat /run/skerryd.pid)/status'
}

# make_nodes N PREFIX
make_nodes()
{
	nsenter -t "${holder[router]}" -n -- "$load" --url "$(lighthouse_urls 3)" --key "$lab/system-key" \
		--nodes "$1" --prefix "$2" --quiet
}

# follows HOST: it has applied what the leader has by now.
follows()
{
	series_at_least "$1" skerry_raft_applied_index "$(series "$leader" skerry_raft_applied_index)"
}

lab_begin
for i in 1 2 3 4; do
	host_start "lh$i"
	host_connect "lh$i" core $((10 + i))
	echo "snapshot_after: $([ "$nodes" -gt 50000 ] && echo 1MiB || echo 64KiB)" >"$lab/lh$i/etc/lighthouse.yaml"
done
lh_init lh1
lh_join lh2 lh1
lh_join lh3 lh1
within 30 "three lighthouses, all voters" voters lh1 3
in_host lh1 skerry api-key create --system --role admin -o json | jq -er .secret >"$lab/system-key"
api_key lh1 "$lab/api-key"
device_hosts 1
device_up d1 "$(lighthouse_urls 3)" "$(auth_key lh1 --reusable)"
figure "skerryd with an empty state: $(resident lh1)"

check "the nodes are made through the API" make_nodes "$nodes" load
figure "$(cat "$lab/check.out")"
for lh in lh1 lh2 lh3; do
	within "$patience" "$lh made a snapshot, by the bytes of its log" series_at_least "$lh" skerry_raft_snapshots_total 1
done
figure "state of $nodes nodes: $(($(series lh1 skerry_state_bytes) >> 20)) MiB of records, snapshot $(($(series lh1 skerry_raft_snapshot_bytes) >> 20)) MiB, store $(($(series lh1 skerry_store_used_bytes) >> 20)) MiB, log in memory $(($(series lh1 skerry_raft_log_since_snapshot_bytes) >> 20)) MiB"
figure "skerryd: $(resident lh1)"

# From here on one leader in one term, whatever is done, with a recorded writer beside it.
leader=$(leader_of lh1)
term=$(series "$leader" skerry_raft_term)
faults_urls=$(lighthouse_urls 3)
faults_write w --parallel 2 --rate 50
wait_until $((10 * SKERRY_SLOW)) test -s "$lab/acks-w" || die "no write was acknowledged"
began=$(boot_time)

start=$(now)
check "a backup" in_host lh2 skerry backup create /var/lib/skerry/b.skerry
figure "backup: $(seconds $(($(now) - start))) s, $(($(stat -c %s "$lab/lh2/state/b.skerry") >> 20)) MiB; skerryd: $(resident lh2)"

# A newcomer has nothing of the log that the snapshots have replaced.
start=$(now)
lh_join lh4 lh1
within "$patience" "lh4 took the snapshot" series_at_least lh4 skerry_raft_restores_total 1
within "$patience" "lh4 follows" follows lh4
figure "install to a new member: $(seconds $(($(now) - start))) s; leader: $(resident "$leader"), lh4: $(resident lh4)"

# A voter that was away for so long that it needs a snapshot, too.
away=lh3
[ "$leader" = lh3 ] && away=lh2
daemon_kill "$away" skerryd KILL
wait_until 10 daemon_gone "$away" skerryd
made=$(series "$leader" skerry_raft_snapshots_total)
for ((i = 0; i < 8; i++)); do
	[ "$(series "$leader" skerry_raft_snapshots_total)" -lt $((made + 2)) ] || break
	check "more nodes while $away is away" make_nodes $((nodes / 3)) more
done
within "$patience" "two more snapshots" series_at_least "$leader" skerry_raft_snapshots_total $((made + 2))
start=$(now)
lh_run "$away"
within "$patience" "$away follows again" follows "$away"
figure "a voter back after $((i * (nodes / 3))) nodes: $(seconds $(($(now) - start))) s, snapshots taken in: $(series "$away" skerry_raft_restores_total)"

# An orderly restart: the store is there.
again=lh2
[ "$leader" = lh2 ] && again=lh3
daemon_stop "$again" skerryd || die "$again does not end"
start=$(now)
lh_run "$again"
figure "restart: $(seconds $(($(now) - start))) s to the first answer; $(resident "$again")"
within "$patience" "$again follows" follows "$again"

faults_write_end
check "$leader still leads" test "$(leader_of lh1)" = "$leader"
check "in the same term" test "$(series "$leader" skerry_raft_term)" = "$term"
say "elections begun and snapshots made, by lighthouse:"
for lh in lh1 lh2 lh3 lh4; do
	say "  $lh: timeouts $(series "$lh" 'skerry_raft_elections_total{cause="timeout"}'), snapshots $(series "$lh" skerry_raft_snapshots_total) in $(series "$lh" skerry_raft_snapshot_seconds_sum) s, longest turn $(series "$lh" skerry_raft_loop_turn_max_seconds) s ($(series "$lh" skerry_raft_loop_turn_max_cpu_seconds) s at work), $(resident "$lh")"
done
figure "longest turn of the consensus loop: $(for lh in lh1 lh2 lh3 lh4; do series "$lh" skerry_raft_loop_turn_max_seconds; done | sort -n | tail -1 | awk '{ printf "%.0f ms", $1 * 1000 }'), of processor time: $(for lh in lh1 lh2 lh3 lh4; do series "$lh" skerry_raft_loop_turn_max_cpu_seconds; done | sort -n | tail -1 | awk '{ printf "%.0f ms", $1 * 1000 }')"
figure "longest time without an acknowledged write meanwhile: $(awk -v t="$began" '$1 == "ACK" { if (last && $3 >= t && $3 - last > gap) gap = $3 - last; last = $3 > last ? $3 : last } END { printf "%.0f ms", gap * 1000 }' "$lab/acks-w")"
within 60 "equal digests" digests_equal lh1 4
check "every acknowledged write is there" in_client router verify --urls "$faults_urls" --key-file "$lab/api-key" --prefix w --out "$lab/acks-w"

# All of it burns down; the backup becomes a lighthouse at the address of lh1, and the device finds it.
for lh in lh1 lh2 lh3 lh4; do
	kill -9 "${holder[$lh]}"
	wait_until $((20 * SKERRY_SLOW)) bash -c "! kill -0 ${holder[$lh]} 2>/dev/null" || die "$lh does not go"
	unset "holder[$lh]"
done
grep -oE 'skr1-[a-z0-9-]+' "$lab/lh1/log/init-command.log" >"$lab/recovery"
start=$(now)
check "the backup verifies: the digest of what it restores is the one of the cluster" "$SKERRY_BIN/skerryd" backup verify \
	"$lab/lh2/state/b.skerry" --recovery-string "file:$lab/recovery"
figure "backup verify: $(seconds $(($(now) - start))) s"
host_start lh9
host_connect lh9 core 11
mv "$lab/lh2/state/b.skerry" "$lab/recovery" "$lab/lh9/state/"
start=$(now)
check "the restore" in_host lh9 skerryd restore /var/lib/skerry/b.skerry --recovery-string file:/var/lib/skerry/recovery \
	--name lh9 --api-address 10.77.0.11:8443 --peer-address 10.77.0.11:8444
figure "restore: $(seconds $(($(now) - start))) s"
start=$(now)
daemon_start lh9 skerryd skerryd run
within "$patience" "it answers" cluster_json lh9
figure "first start after the restore: $(seconds $(($(now) - start))) s; $(resident lh9)"
attached()
{
	device_json "$1" | jq -e .control.attached
}
within 60 "the device is back by itself" attached d1
rows()
{
	in_host lh9 skerry tailnet list -o json | jq -e --argjson n "$nodes" '([.. | .nodeCount? // empty | tonumber] | add) >= $n'
}
check "all nodes are there" rows
