# Power cut of one lighthouse, of all three, and of a disk alone (no new boot): nothing acknowledged is lost
# beside
#
# lh1 lh2 lh3, each with an ext4 of its own: it stops (what is in memory only is gone), the daemon is killed, and the disk comes
# back with another boot id of the kernel; the last time with the same.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_disks.sh"

lab_spoils=1

faults_begin
leader=$(leader_of lh1) || die "no leader"
cut=$(boot_time)
power_cut "$leader"
boot_id "$leader"
faults_serve 30 "writes go on without the leader's host"
figure "longest time without an acknowledged write, power cut of the leader: $(faults_gap "$cut") ms"
lh_start "$leader"
within 30 "it is back" voters "$(others "$leader" | head -1)" 3
check "it says that it rebuilt its store" lh_log "$leader" 'rebuilt from the log'

power_cut lh1 lh2 lh3
for lh in lh1 lh2 lh3; do boot_id "$lh"; done
lh_start lh1 lh2 lh3
faults_serve 30 "writes go on after the power cut of all"

# The disk went and came, the kernel did not: the store may be torn, which its checks find.
victim=$(others "$(leader_of lh1)" | head -1)
power_cut "$victim"
lh_start "$victim"
back()
{
	# Its supervisor starts it again when it ended to be rebuilt.
	daemon_alive "$victim" skerryd || lh_start "$victim"
	voters "$(others "$victim" | head -1)" 3 && digests_equal "$(others "$victim" | head -1)" 3
}
within 30 "the one whose disk went and came is back" back
faults_check
