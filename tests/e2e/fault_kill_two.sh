# SIGKILL of two of three lighthouses: the third serves reads and says that it has no quorum, until one is back
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

faults_begin
leader=$(leader_of lh1) || die "no leader"
first=$(others "$leader" | head -1)
# The leader survives, then a follower does.
for survivor in "$leader" "$first"; do
	mapfile -t dead < <(others "$survivor")
	lh_kill "${dead[@]}"
	faults_no_quorum "$survivor"
	lh_start "${dead[0]}"
	faults_serve 15 "two of three serve writes"
	lh_start "${dead[1]}"
	within 15 "three voters again" voters "$survivor" 3
done
faults_check
