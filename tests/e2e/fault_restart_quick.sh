# A killed leader that its supervisor starts again after 0, 20, 50 and 100 ms: writes go on, nothing is lost
# beside
#
# The next one is killed as soon as the last one is back: what a lighthouse that was just started can do is needed at once.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

faults_begin
for pause in 0 0.02 0.05 0.1; do
	leader=$(leader_of lh1) || die "no leader"
	killed=$(boot_time)
	daemon_kill "$leader" skerryd KILL
	sleep "$pause"
	lh_start "$leader"
	within 10 "$leader is back and knows who leads" leader_of "$leader"
	faults_serve 15 "writes go on, the leader was back after $pause s"
	figure "longest time without an acknowledged write, restart after $pause s: $(faults_gap "$killed") ms"
	within 15 "three voters again" voters lh1 3
done
faults_check
