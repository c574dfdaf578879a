# The leader's link flaps five times a second for a minute: no election, writes go on
#
# Alone: on a busy machine the link is down for longer than it says. A round with an election is printed and repeated once.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

: "${FLAPS:=300}"
faults_begin

# flap_round: sets happened (elections meanwhile).
flap_round()
{
	local leader term before began took longest rest
	leader=$(leader_of lh1) || die "no leader"
	mapfile -t rest < <(others "$leader")
	term=$(cluster_json "$leader" | jq -r .term)
	before=$(elections)
	began=$(boot_time)
	# 100 ms without, 100 ms with the other lighthouses.
	net_cut "$leader" both "${rest[@]}"
	longest=$(in_host router nice -n -20 bash -c 'longest=0
	for ((i = 0; i < $1; i++)); do
		cut=${EPOCHREALTIME/./}
		sleep 0.1
		nft delete table bridge fault
		cut=$((${EPOCHREALTIME/./} - cut))
		[ $cut -le $longest ] || longest=$cut
		sleep 0.1
		nft -f "$2"
	done
	echo $((longest / 1000))' flap "$FLAPS" "$lab/router/tmp/rules") || die "no link flaps"
	net_heal
	took=$(awk -v a="$began" -v b="$(boot_time)" 'BEGIN { printf "%d", b - a }')
	happened=$(($(elections) - before))
	figure "while it flapped for $took s: $(acked_since "$began") writes, $happened elections; longest time down $longest ms"
	# On a machine that is so busy they are down for longer than it says above: then it is another scenario.
	[ "$took" -le $((FLAPS * 3 / 10)) ] && [ "$longest" -le 500 ] || {
		say "this machine lacks: time; $FLAPS flaps took $took s, the longest time down was $longest ms"
		exit 77
	}
	check "writes were acknowledged all the time" test "$(acked_since "$began")" -ge 100
	[ "$happened" -ne 0 ] ||
		check "the same leader in the same term" test "$(leader_of "${rest[0]}") $(cluster_json "${rest[0]}" | jq -r .term)" = "$leader $term"
}

flap_round
if [ "$happened" -ne 0 ]; then
	for lh in lh1 lh2 lh3; do within 10 "$lh knows a leader" leader_of "$lh"; done
	flap_round
fi
check "no election" test "$happened" -eq 0
faults_check
