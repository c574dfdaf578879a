# The disk of a lighthouse fails (EIO), on a follower and on the leader: it stops and says why, the others go on
# beside
#
# lh1 lh2 lh3, each with an ext4 of its own, which is shut down under the running daemon.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_disks.sh"

lab_spoils=1

faults_begin
for role in follower leader; do
	leader=$(leader_of lh1) || die "no leader"
	victim=$leader
	[ "$role" = leader ] || victim=$(others "$leader" | head -1)
	witness=$(others "$victim" | tail -1)
	failed=$(boot_time)
	disk_fail "$victim"
	faults_serve 30 "writes go on without the disk of the $role"
	ended "$victim" 70 "Input/output error" "check disk and file system"
	figure "longest time without an acknowledged write, EIO on the $role: $(faults_gap "$failed") ms"
	within 20 "$witness knows who leads" leader_other_than "$witness" "$([ "$role" = leader ] && echo "$victim")"
	disk_unmount "$victim"
	disk_mount "$victim"
	lh_start "$victim"
	within 30 "the $role is back" voters "$witness" 3
done
faults_check
