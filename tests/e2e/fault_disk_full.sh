# The disk of a lighthouse fills up, of a follower and of the leader: seen in log, status and doctor, and writes go on
# beside
#
# lh1 lh2 lh3, each with an ext4 of its own.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_disks.sh"

status_shows_low()
{
	cluster_json "$1" | jq -e --arg n "$2" '.members[] | select(.displayName == $n) | .diskLow'
}
doctor_shows_low()
{
	in_host "$1" timeout 10 skerry cluster doctor | grep -E 'MiB are free on the disk'
}
# It goes on with the room it has, or has ended and said why.
full_or_ended()
{
	daemon_alive "$1" skerryd || {
		[ "$(daemon_code "$1" skerryd)" -eq 70 ] && lh_log "$1" 'No space left on device' &&
			lh_log "$1" 'free space in the file system'
	}
}

faults_begin
for role in follower leader; do
	leader=$(leader_of lh1) || die "no leader"
	victim=$leader
	[ "$role" = leader ] || victim=$(others "$leader" | head -1)
	witness=$(others "$victim" | tail -1)
	filled=$(boot_time)
	disk_fill_to "$victim" 40
	within 20 "its log says that the disk of the $role is nearly full" lh_log "$victim" 'free, less than 64'
	within 20 "the status on another one shows it" status_shows_low "$witness" "$victim"
	check "the doctor on another one names it" doctor_shows_low "$witness"
	[ "$role" = follower ] || within 20 "leadership is with one that has room" leader_other_than "$witness" "$victim"
	faults_serve 30 "writes go on"
	figure "longest time without an acknowledged write, disk of the $role nearly full: $(faults_gap "$filled") ms"
	disk_fill "$victim"
	faults_serve 30 "writes go on with nothing left on it"
	check "it serves, or has ended with the remedy" full_or_ended "$victim"
	in_host "$victim" bash -c 'rm -f /var/lib/skerry/ballast*'
	if daemon_alive "$victim" skerryd; then
		within 20 "there is room again" lh_log "$victim" 'enough again'
	else
		say "the $role had ended: $(grep -h 'No space left' "$lab/$victim/log/skerryd.log" | tail -1)"
		lh_start "$victim"
	fi
	within 30 "three voters" voters "$witness" 3
done
faults_check
