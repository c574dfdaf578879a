# The leader's link flaps five times a second for a minute: no election, writes go on
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

faults_begin
leader=$(leader_of lh1) || die "no leader"
mapfile -t rest < <(others "$leader")
term=$(cluster_json "$leader" | jq -r .term)
before=$(elections)
began=$(boot_time)
# 100 ms without, 100 ms with the other lighthouses.
net_cut "$leader" both "${rest[@]}"
in_host router bash -c 'for ((i = 0; i < $1; i++)); do
	sleep 0.1
	nft delete table bridge fault
	sleep 0.1
	nft -f "$2"
done' flap "${FLAPS:-300}" "$lab/router/tmp/rules"
net_heal
figure "while it flapped: $(acked_since "$began") writes, $(($(elections) - before)) elections"
check "no election" test "$(elections)" -eq "$before"
check "the same leader in the same term" test "$(leader_of "${rest[0]}") $(cluster_json "${rest[0]}" | jq -r .term)" = "$leader $term"
check "writes were acknowledged all the time" test "$(acked_since "$began")" -ge 100
faults_check
