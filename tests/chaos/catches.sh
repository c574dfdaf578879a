#!/bin/bash
# The checker of histories can fail: the same short runs with builds that lack one guard each (cmake/SkerryBroken.cmake) have
# to be found not linearizable, and pass with the ordinary build.
#
#   tests/chaos/catches.sh       prints a line for each and, last, "N passed, M failed, K skipped"
set -u
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
cleanup_trap
temp_dir out
passed=0 failed=0 skipped=0

# The fault that shows it: writes and reads at a leader that is cut off from the others; repeats of what was answered.
runs=(
	"broken-ack --seconds 30 --clients 18 --faults cut_leader --lose 0"
	"broken-read --seconds 30 --clients 18 --faults cut_leader --lose 0"
	"release --seconds 30 --clients 18 --faults cut_leader --lose 0"
	"broken-request-id --seconds 5 --faults none --lose 30"
	"release --seconds 5 --faults none --lose 30"
)
lacks=$(need_network_lab) || {
	say "SKIP chaos: ${lacks//$'\n'/; }"
	say "0 passed, 0 failed, ${#runs[@]} skipped"
	exit 0
}
build release skerryd skerry-agent skerry chaos_devices || die "the build failed"

# directed NUMBER PRESET ARG...: runs it with that build's skerryd; its output and status go to $out/NUMBER.
directed()
{
	local number=$1 preset=$2 bin try
	shift 2
	bin=$(build_dir release)/bin
	if [ "$preset" != release ]; then
		# Only skerryd differs.
		bin=$out/$preset/bin
		mkdir -p "$bin" "$out/$preset/bench"
		cp "$(build_dir "$preset")/bin/skerryd" "$bin"
		cp "$(build_dir release)"/bin/{skerry,skerry-agent} "$bin"
		cp "$(build_dir release)/bench/chaos_devices" "$out/$preset/bench"
	fi
	# What a fault shows is a matter of chance: a broken build has three runs to be found.
	for ((try = 1; try <= 3; try++)); do
		SKERRY_BIN=$bin timeout -k 10 300 bash "$skerry_root/scripts/chaos" --seed "$try" --keep "$out/$number.kept" \
			"$@" >"$out/$number" 2>&1
		echo $? >"$out/$number.rv"
		[ "$preset" != release ] && grep -qa '^linearizable$' "$out/$number" || break
	done
}

for i in "${!runs[@]}"; do
	read -r preset args <<<"${runs[i]}"
	[ "$preset" = release ] || build "$preset" skerryd || die "the build of $preset failed"
done
# Two at a time.
for i in "${!runs[@]}"; do
	# shellcheck disable=SC2086
	directed "$i" ${runs[i]} &
	[ $((i % 2)) -eq 0 ] || wait
done
wait
for i in "${!runs[@]}"; do
	read -r preset args <<<"${runs[i]}"
	verdict=$(grep -aoE '^(NOT linearizable.*|linearizable|undecided|SKIP check.*|the history was not checked)$' "$out/$i" | tail -1)
	case $preset:$verdict in
	*:SKIP* | *'was not checked')
		skipped=$((skipped + 1))
		say "SKIP $preset: $(grep -a '^SKIP check' "$out/$i")"
		;;
	release:linearizable | broken-*:'NOT linearizable'*)
		passed=$((passed + 1))
		say "${c_green}PASS${c_off} $preset ($args): $verdict"
		;;
	*)
		failed=$((failed + 1))
		say "${c_red}FAIL${c_off} $preset ($args): ${verdict:-no verdict, status $(cat "$out/$i.rv")}"
		tail -40 "$out/$i" | sed 's/^/    | /'
		;;
	esac
done
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
