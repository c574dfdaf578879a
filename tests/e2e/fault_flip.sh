# A flipped bit in the log (closed and open segment), in a snapshot, in the store: noticed, with the remedy, or repaired
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_disks.sh"

lab_spoils=1

disk_mib=0
disk_config=$'snapshot_after: 64KiB\nscrub_every: 1s\ncompare_every: 1s'

raft_file()
{
	# The newest: the names count up.
	find "$(state_of "$victim" raft)/" -printf '%f\n' | grep -E "$1" | sort -V | tail -1
}
has_snapshot()
{
	[ -n "$(raft_file '^snapshot-[0-9]+-[0-9]+-[0-9]+$')" ]
}
# refused_with PATTERN: it does not start on this, and the message names the remedy.
refused_with()
{
	lh_start "$victim"
	ended "$victim" 65 "$1" 'skerry cluster remove.*join it'
}

faults_begin
leader=$(leader_of lh1) || die "no leader"
victim=$(others "$leader" | head -1)
within 30 "there is a snapshot" has_snapshot

# The store, while it is in use: a user's record, in the page in use and in those that were before it.
python3 - "$(state_of "$victim" store/data.mdb)" <<'PY'
import os, re, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for at in [m.start() for m in re.finditer(rb"w-1[0-9]\b", os.pread(fd, os.fstat(fd).st_size, 0))]:
    os.pwrite(fd, b"W", at)
PY
# Found by the scrub; or by whoever used the page, should LMDB have put it to another use meanwhile.
ended "$victim" 70 'state of this lighthouse is wrong|this lighthouse cannot go on|a page of the store' \
	'rebuilt from the log at the next start'
lh_start "$victim"
within 30 "it is back" voters "$leader" 3
check "it says that it rebuilt its store" lh_log "$victim" 'the store was wrong .*rebuilt from the log'
within 30 "equal digests" digests_equal "$leader" 3
within 20 "the repair is found right" lh_log "$victim" 'rebuilt store was found right'

# The log: the open segment of a killed one, then a closed one of one that was stopped.
lh_kill "$victim"
file=$(python3 - "$(state_of "$victim" raft)" <<'PY'
import os, sys
for name in sorted(os.listdir(sys.argv[1])):
    path = os.path.join(sys.argv[1], name)
    if name.startswith("open-") and any(open(path, "rb").read(4096)[8:]):
        print(path)
        break
PY
)
[ -n "$file" ] || die "no open segment is in use"
cp -a "$(state_of "$victim" raft)" "$lab/raft"
flip "$file" 200
# What follows the bit looks like a write that was torn; the store knows better.
refused_with 'the log in .* ends at'
rm -rf "$(state_of "$victim" raft)"
cp -a "$lab/raft" "$(state_of "$victim" raft)"
lh_start "$victim"
within 30 "with the bit as it was it is back" voters "$leader" 3
daemon_stop "$victim" skerryd || die "it does not stop"
file=$(state_of "$victim" raft)/$(raft_file '^[0-9]+-[0-9]+$')
flip "$file" $(($(stat -c %s "$file") / 2))
refused_with "${file##*/}"
refuse "skerryd check" "${file##*/}" in_host "$victim" skerryd check
flip "$file" $(($(stat -c %s "$file") / 2))

# The newest snapshot: not needed as long as the store is there; without it, refused.
snapshot=$(state_of "$victim" raft)/$(raft_file '^snapshot-[0-9]+-[0-9]+-[0-9]+$')
flip "$snapshot" $(($(stat -c %s "$snapshot") / 2))
mv "$(state_of "$victim" store)" "$lab/store"
refused_with 'snapshot'
rm -rf "$(state_of "$victim" store)"
mv "$lab/store" "$(state_of "$victim" store)"
lh_start "$victim"
within 30 "with its store it needs no snapshot" voters "$leader" 3
faults_check
