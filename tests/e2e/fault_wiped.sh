# A state directory wiped, and one put back from an older copy: refused with the remedy, nothing acknowledged is lost
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

faults_begin
old=$(others "$(leader_of lh1)" | head -1)
witness=$(others "$old" | head -1)

# A copy of the stopped one; then it goes on, and so do the writes: what the copy lacks was acknowledged by this member.
daemon_stop "$old" skerryd || die "$old does not stop"
cp -a "$lab/$old/state/lighthouse" "$lab/copy"
lh_run "$old"
within 30 "three voters" voters "$witness" 3
faults_serve 30 "writes go on after the copy"
known()
{
	# The others write down once in 5 s what each has acknowledged.
	local id
	id=$(cluster_json "$witness" | jq -er --arg n "$old" '.members[] | select(.displayName == $n) | .id') &&
		jq -e --arg id "$id" '[.members[] | select(.id == $id and (.index | tonumber) > '"$1"')] | length == 1' \
			"$lab/$witness/state/lighthouse/acknowledged.json"
}
applied=$(metric "$old" skerry_raft_last_index)
faults_serve 30 "and further"
within 30 "the others know what it has acknowledged" known "$applied"
lh_kill "$old"
rm -rf "$lab/$old/state/lighthouse"
cp -a "$lab/copy" "$lab/$old/state/lighthouse"
lh_start "$old"
within 30 "the one with the older copy ends" daemon_gone "$old" skerryd
check "with a status that no supervisor starts again" grep -qxE "76|78" "$lab/$old/log/skerryd.code"
check "its log names the remedy" lh_log "$old" 'put back from a copy or wiped.*skerry cluster remove.*join anew'
faults_serve 15 "writes go on"

# Wiped: it is nobody any more, and says what comes first.
rm -rf "$lab/$old/state/lighthouse"
mkdir -m 700 "$lab/$old/state/lighthouse"
refuse "a wiped directory" 'skerryd (init|join)' in_host "$old" skerryd run
check "the old member is removed" in_host "$witness" skerry cluster remove "$old"
lh_join "$old" "$witness"
within 20 "it is back as a new member" voters "$witness" 3
faults_check
