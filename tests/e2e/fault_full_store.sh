# A full store: what makes the state grow is refused with the reason, deletes still work, and make room
# beside
#
# One lighthouse with a store of 4 MiB; it holds no more than 80 % of it.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_faults.sh"
. "$(dirname "${BASH_SOURCE[0]}")/lib_disks.sh"

disk_mib=0
disk_config='store_size: 4MiB'
lab_begin
cluster_of 1
api_key lh1 "$lab/api-key" || die "no API key"
url=https://${host_ip[lh1]}:8443
faults_n=1

# 16 at a time, until one is refused: a writer for which a full store is no reason to try again.
client_start router write --urls "$url" --key-file "$lab/api-key" --prefix full --out "$lab/acks-full" --parallel 16
writer=$client_pid
refused()
{
	at_lighthouse lh1 skerry.v1.UserService/CreateUser \
		"{\"parent\":\"tailnets/1\",\"user\":{\"loginName\":\"probe-$RANDOM-$RANDOM\"}}" 2>&1 | grep -E 'store of the leader is .* full'
}
within 60 "creating is refused with the reason" refused
kill -9 "$writer"
check "the daemon lives" daemon_alive lh1 skerryd
check "it answers reads" serves_reads lh1
check "every acknowledged write is there" in_client router verify --urls "$url" --key-file "$lab/api-key" \
	--prefix full --out "$lab/acks-full"
# It says what was looked at last, at most a second ago.
doctor_tells()
{
	in_host lh1 skerry cluster doctor | grep "store.s map are used"
}
within 15 "the doctor tells" doctor_tells

some_deleted()
{
	local name
	in_client router call --urls "$url" --key-file "$lab/api-key" skerry.v1.UserService/ListUsers \
		'{"parent":"tailnets/1","pageSize":500}' | jq -r '.users[] | select(.loginName | startswith("full-")) | .name' >"$lab/names"
	[ "$(wc -l <"$lab/names")" -ge 15 ] || return 1
	head -15 "$lab/names" | while read -r name; do
		at_lighthouse lh1 skerry.v1.UserService/DeleteUser "{\"name\":\"$name\"}" || exit 1
	done
}
check "deletes are accepted" some_deleted
check "the daemon lives" daemon_alive lh1 skerryd
daemon_stop lh1 skerryd || die "it does not stop"
printf 'store_size: 64MiB\n' >"$lab/lh1/etc/lighthouse.yaml"
lh_run lh1
grows()
{
	at_lighthouse lh1 skerry.v1.UserService/CreateUser '{"parent":"tailnets/1","user":{"loginName":"after"}}'
}
within 10 "with a larger store it grows again" grows
check "the state is whole" in_host lh1 bash -c 'kill $(cat /run/skerryd.pid); while kill -0 $(cat /run/skerryd.pid) 2>/dev/null; do sleep 0.05; done; skerryd check'
