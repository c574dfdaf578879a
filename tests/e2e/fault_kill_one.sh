# SIGKILL of one lighthouse, a follower and then the leader: writes go on, and it catches up when it is back
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

faults_begin
for role in follower leader; do
	leader=$(leader_of lh1) || die "no leader"
	victim=$leader
	[ "$role" = leader ] || victim=$(others "$leader" | head -1)
	witness=$(others "$victim" | tail -1)
	killed=$(boot_time)
	lh_kill "$victim"
	faults_serve 15 "writes go on without the $role"
	figure "longest time without an acknowledged write, the $role killed: $(faults_gap "$killed") ms"
	within 15 "$witness knows who leads" leader_other_than "$witness" "$([ "$role" = leader ] && echo "$victim")"
	lh_start "$victim"
	within 15 "the $role is back" voters "$witness" 3
done
faults_check
