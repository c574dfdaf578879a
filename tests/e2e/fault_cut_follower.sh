# A follower is cut off from the other lighthouses for longer than the election timeout: it says so, and disturbs nobody
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

faults_begin
leader=$(leader_of lh1) || die "no leader"
follower=$(others "$leader" | head -1)
mapfile -t rest < <(others "$follower")
term=$(cluster_json "$leader" | jq -r .term)
cut=$(boot_time)
net_cut "$follower" both "${rest[@]}"
faults_serve 15 "writes go on without it"
figure "longest time without an acknowledged write: $(faults_gap "$cut") ms"
faults_no_quorum "$follower"
net_heal
within 10 "its reads are the newest again" at_lighthouse "$follower" --read leader skerry.v1.UserService/ListUsers '{"parent":"tailnets/1"}'
faults_check
check "the same leader in the same term" test "$(leader_of lh1) $(cluster_json lh1 | jq -r .term)" = "$leader $term"
