# The leader is cut off from the other lighthouses, clients still reach it: it says that it has no quorum, the others serve
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

faults_begin
leader=$(leader_of lh1) || die "no leader"
mapfile -t rest < <(others "$leader")
cut=$(boot_time)
net_cut "$leader" both "${rest[@]}"
faults_serve 15 "the others serve writes"
figure "longest time without an acknowledged write: $(faults_gap "$cut") ms"
within 15 "${rest[0]} knows the new leader" leader_other_than "${rest[0]}" "$leader"
faults_no_quorum "$leader"
net_heal
within 10 "the old leader follows the new one" leader_other_than "$leader" "$leader"
faults_check
