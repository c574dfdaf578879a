# The leader's packets are lost one way, first what it sends, then what it gets: another one leads, nothing is lost
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

faults_begin
for way in out in; do
	leader=$(leader_of lh1) || die "no leader"
	mapfile -t rest < <(others "$leader")
	cut=$(boot_time)
	net_cut "$leader" "$way" "${rest[@]}"
	faults_serve 15 "writes go on, the leader's way $way is cut"
	figure "longest time without an acknowledged write, way $way: $(faults_gap "$cut") ms"
	within 15 "${rest[0]} knows the new leader" leader_other_than "${rest[0]}" "$leader"
	within 15 "$leader says that it has no quorum" says_no_quorum "$leader"
	net_heal
	within 10 "the old leader follows" leader_other_than "$leader" "$leader"
	within 10 "three voters" voters lh1 3
done
faults_check
