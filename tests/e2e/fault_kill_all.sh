# SIGKILL of all lighthouses at once, twice in a row: nothing acknowledged is lost and writes go on
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

faults_begin
for round in first second; do
	lh_kill lh1 lh2 lh3
	lh_start lh1 lh2 lh3
	faults_serve 15 "writes go on after the $round time"
done
faults_check
