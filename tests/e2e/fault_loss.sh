# One packet in five between the lighthouses is lost for ten seconds: writes go on, nothing is lost
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

faults_begin
before=$(elections)
net_rules "numgen random mod 100 < 20 drop"
began=$(boot_time)
ten_passed()
{
	awk -v a="$began" -v b="$(boot_time)" 'BEGIN { exit !(b - a >= 10) }'
}
faults_serve 15 "writes go on with loss"
wait_until 12 ten_passed
figure "with 20 % loss: $(acked_since "$began") writes in 10 s, longest time without one $(faults_gap "$began") ms, $(($(elections) - before)) elections"
net_heal
faults_serve 15 "writes go on without loss"
faults_check
