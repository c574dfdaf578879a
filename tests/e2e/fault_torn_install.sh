# SIGKILL while a snapshot is installed: as its file, as its metadata appears, and as the store takes it; it comes back
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_disks.sh"

disk_mib=0
disk_config='snapshot_after: 16KiB'

# past INDEX: the leader's log begins behind this entry.
past()
{
	local first
	first=$(find "$(state_of "$leader" raft)/" -printf '%f\n' | grep -E '^[0-9]+-[0-9]+$' | sort | head -1)
	[ $((10#${first%-*})) -gt "$1" ]
}
# kill_when PATTERN MS: starts the victim and kills it MS after a file of raft's that matches has come.
kill_when()
{
	local raft
	raft=$(state_of "$victim" raft)
	ls "$raft" >"$lab/before"
	lh_start "$victim"
	python3 - "$raft" "$lab/before" "$1" "$2" "$(in_host "$victim" cat /run/skerryd.pid)" "${holder[$victim]}" <<'PY'
import os, re, signal, subprocess, sys, time
raft, before, pattern, ms, pid, holder = sys.argv[1:]
before = set(open(before).read().split())
end = time.monotonic() + 30
while time.monotonic() < end:
    if any(re.search(pattern, name) and name not in before for name in os.listdir(raft)):
        time.sleep(int(ms) / 1000)
        subprocess.run(["nsenter", "-t", holder, "-p", "-m", "kill", "-9", pid], check=True)
        sys.exit(0)
sys.exit(1)
PY
}

faults_begin
faults_write fast --parallel 8 --rate 600
leader=$(leader_of lh1) || die "no leader"
victim=$(others "$leader" | head -1)
for points in '^(tmp-.*)?snapshot.*[0-9]$:0 snapshot.*meta$:0' 'snapshot.*meta$:15'; do
	last=$(metric "$victim" skerry_raft_last_index)
	lh_kill "$victim"
	within 60 "the leader's log begins behind it" past $((last + 20))
	for point in $points; do
		kill_when "${point%:*}" "${point##*:}" || die "no snapshot came to $victim"
		wait_until $((20 * SKERRY_SLOW)) daemon_gone "$victim" skerryd || die "$victim lives"
		say "killed at ${point%:*}, ${point##*:} ms later"
	done
	lh_start "$victim"
	within 30 "it is back" voters "$leader" 3
done
within 30 "equal digests" digests_equal "$leader" 3
faults_check
