# A clock that is off by a day, both ways, of a follower and of the leader: nothing expires early, the leader hands over
# beside
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"

library=$(find /usr/lib -name libfaketime.so.1 2>/dev/null | head -1)
[ -n "$library" ] || {
	say "this machine lacks: libfaketime (package faketime)"
	exit 77
}
# Each host has a file of its own there; what it says is read anew once a second at most.
lh_with=(env LD_PRELOAD="$library" FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_TIMESTAMP_FILE=/run/clock
	FAKETIME_CACHE_DURATION=1)
clock_set()
{
	echo "$2" | in_host "$1" tee /run/clock >"$lab/$1/tmp/clock"
}
eval "$(declare -f host_start | sed '1s/host_start/host_start_plain/')"
host_start()
{
	host_start_plain "$1"
	clock_set "$1" +0
}

# state_time: the state's clock less the true one, in seconds, by the time of a new object's creation.
state_time()
{
	local made
	made=$(at_lighthouse "$1" skerry.v1.UserService/CreateUser "{\"parent\":\"tailnets/1\",
		\"user\":{\"loginName\":\"at-$(now)\"}}" | jq -er .createTime) || return 1
	echo $(($(date -d "$made" +%s) - $(date +%s)))
}

# time_is_right: the state's clock is within 30 s of the true one.
time_is_right()
{
	local off
	off=$(state_time "$1") && [ "$off" -ge -30 ] && [ "$off" -le 30 ]
}

# clocks_agree HOST, clocks_differ HOST: what the doctor there says.
clock_findings()
{
	in_host "$1" skerry cluster doctor -o json | jq -e '[.findings[].code | select(startswith("CLOCK"))] | length'
}
clocks_agree()
{
	[ "$(clock_findings "$1")" = 0 ]
}
clocks_differ()
{
	[ "$(clock_findings "$1")" -gt 0 ]
}

faults_begin
key=$(auth_key lh1 --expiry 1h) || die "no auth key"
device_hosts 1
check "the state has the true time" time_is_right lh1
for off in +1d -1d; do
	leader=$(leader_of lh1) || die "no leader"
	follower=$(others "$leader" | head -1)
	clock_set "$follower" "$off"
	faults_serve 15 "writes go on, a follower's clock is off by $off"
	check "the state has the true time" time_is_right "$follower"
	within 10 "the doctor sees it" clocks_differ "$leader"
	check "the same one leads" test "$(leader_of "$leader")" = "$leader"
	clock_set "$follower" +0
	within 10 "its clock is right again" clocks_agree "$leader"
done
for off in +1d -1d; do
	leader=$(leader_of lh1) || die "no leader"
	witness=$(others "$leader" | head -1)
	clock_set "$leader" "$off"
	within 12 "the leader whose clock is off by $off hands over" leader_other_than "$witness" "$leader"
	faults_serve 15 "writes go on"
	check "the state has the true time" time_is_right "$witness"
	check "its log says why" lh_log "$leader" 'clock of this lighthouse'
	clock_set "$leader" +0
	within 10 "its clock is right again" clocks_agree "$witness"
done
device_up d1 "$faults_urls" "$key"
say "ok: a key that is good for an hour has not expired"
faults_check
