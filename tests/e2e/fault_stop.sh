# SIGSTOP of the leader for 10 s, then SIGCONT: another one leads, the stopped one acknowledges nothing of its own and follows
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

faults_begin
leader=$(leader_of lh1) || die "no leader"
witness=$(others "$leader" | head -1)
stopped=$(boot_time)
daemon_kill "$leader" skerryd STOP
faults_serve 15 "writes go on at another leader"
within 15 "$witness knows the new leader" leader_other_than "$witness" "$leader"
figure "longest time without an acknowledged write: $(faults_gap "$stopped") ms"
ten_passed()
{
	awk -v a="$stopped" -v b="$(boot_time)" 'BEGIN { exit !(b - a >= 10) }'
}
wait_until 12 ten_passed
elections=$(metric "$witness" skerry_raft_leaderships_total)
daemon_kill "$leader" skerryd CONT
faults_serve 15 "writes go on when it is back"
within 10 "it follows the new leader" leader_other_than "$leader" "$leader"
check "its return costs no election" test "$(metric "$witness" skerry_raft_leaderships_total)" -eq "$elections"
faults_check
