# Bad flags, keys, names, configurations and messages: one clear error each, with its place, and nothing changes
# main
# beside
#
# lh1 on core; d1 on site1.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

lab_begin
lab_go_on=1
cluster_of 1
device_hosts 1
key=$(auth_key lh1 --reusable) || die "no auth key"
api_key lh1 "$lab/api-key" || die "no API key"
token=$(join_token lh1) || die "no join token"
device_up d1 "$(lighthouse_urls 1)" "$key"
url=https://${host_ip[lh1]}:8443
cases=0

# What must be the same afterwards: the state of the cluster, its lists, the device's settings.
all_state()
{
	cluster_json lh1 | jq -c '[.revision, .term, [.members[].id]]'
	for list in "node list" "user list" "auth-key list" "api-key list" "tailnet list"; do
		# shellcheck disable=SC2086
		in_host lh1 skerry $list -o json | jq -cS 'del(.. | .lastSeenTime?, .useTime?, .online?)'
	done
	in_host d1 skerry set -o json | jq -cS .
	in_host lh1 bash -c 'cd /var/lib/skerry/lighthouse && sha256sum cluster.key ca.crt *.json 2>/dev/null'
}
spare=$(in_host lh1 skerry api-key create -o json)
revoked=$(jq -r .secret <<<"$spare")
in_host lh1 skerry api-key revoke "$(jq -r '.name | sub(".*/"; "")' <<<"$spare")" >/dev/null || die "cannot revoke an API key"
all_state >"$lab/before"

bad()
{
	say "NOT OK: $1"
	sed 's/^/  | /' "$lab/check.out" | head -12
	fall_short
}

# fails STATUS TEXT PATTERN COMMAND...: fails with this exit status, in at most two lines of which one matches.
fails()
{
	local status=$1 text=$2 pattern=$3 rv=0
	shift 3
	cases=$((cases + 1))
	"$@" >"$lab/check.out" 2>&1 || rv=$?
	if [ $rv -ne "$status" ]; then
		bad "$text: exit status $rv, not $status"
	elif ! grep -qiE -- "$pattern" "$lab/check.out"; then
		bad "$text: the message does not match $pattern"
	elif [ "$(wc -l <"$lab/check.out")" -gt 2 ]; then
		bad "$text: more than an error and its usage"
	elif grep -qaP '[^\t\n\x20-\x7e\x80-\xff]' "$lab/check.out"; then
		bad "$text: control characters in the message"
	else
		say "ok: $text: $(head -1 "$lab/check.out")"
	fi
}
on_device()
{
	fails "$1" "$2" "$3" in_host d1 "${@:4}"
}
on_lighthouse()
{
	fails "$1" "$2" "$3" in_host lh1 "${@:4}"
}

# --- flags and arguments of the three programs
on_device 2 "an unknown command" "nonsense" skerry nonsense
on_device 2 "a command of two words" "nonsense" skerry node nonsense
on_device 2 "an unknown flag" "--nope" skerry up --nope
on_device 2 "a flag without its value" "--hostname" skerry up --hostname
on_device 2 "an argument too many" "extra" skerry status extra
on_device 2 "ping without a name" "name" skerry ping
on_device 2 "a count that is none" "count" skerry ping -c 0 d1
on_device 2 "an interval too short" "interval" skerry ping -i 1ms d1
on_device 2 "a timeout that is none" "timeout" skerry status --timeout abc
on_device 2 "a negative timeout" "timeout" skerry status --timeout -5s
on_device 2 "a form that is none" "xml" skerry status -o xml
on_device 2 "a URL that is none" "ftp" skerry up --lighthouse ftp://x
on_device 2 "a URL with port 0" "port 0" skerry up --lighthouse https://x:0
on_device 2 "a URL with a path" "path" skerry up --lighthouse https://x:1/y
on_device 2 "a way of DNS that is none" "accept-dns" skerry set --accept-dns=maybe
on_device 2 "a switch that is neither" "accept-routes" skerry set --accept-routes=maybe
on_device 2 "a name that cannot be" "a_b c" skerry set --hostname 'a_b c'
on_device 2 "a name with control characters" "name" skerry set --hostname $'a\e[31mb'
on_device 2 "a name of 64 letters" "name" skerry set --hostname "$(printf 'a%.0s' {1..64})"
on_device 2 "a name that nobody may have" "wpad" skerry set --hostname wpad
on_device 2 "a tag that is none" "tag" skerry set --tags 'a b'
on_device 2 "an operator who is nobody" "nobody-here" skerry set --operator nobody-here
on_device 6 "a peer that does not exist" "nobody" skerry ping nobody
on_device 4 "an agent's socket that is not there" "/run/none" skerry status --socket /run/none
on_lighthouse 2 "a role that is none" "king" skerry api-key create --role king
on_lighthouse 2 "an expiry that is none" "expiry" skerry auth-key create --expiry 5x
on_lighthouse 2 "an expiry of nothing" "expiry|lifetime" skerry auth-key create --expiry 0s
on_lighthouse 2 "an expiry of a hundred years" "expiry|lifetime" skerry auth-key create --expiry 36500d
on_lighthouse 2 "a key's tag that is none" "tag" skerry auth-key create --tags 'a b'
on_lighthouse 6 "a key for nobody" "nobody" skerry auth-key create --user nobody
on_lighthouse 2 "a login name with a blank" "login name|NAME" skerry user create 'a b'
on_lighthouse 7 "a user twice" "admin" skerry user create admin
on_lighthouse 2 "a tailnet's domain that is none" "domain" skerry tailnet create two --domain 'a..b'
on_lighthouse 2 "a tailnet's domain of one label" "domain" skerry tailnet create two --domain internal
on_lighthouse 7 "a tailnet twice" "default" skerry tailnet create default
on_lighthouse 6 "a tailnet that is not there" "elsewhere" skerry node list --tailnet elsewhere
on_lighthouse 2 "a node's name that cannot be" "name" skerry node rename d1 'a_b'
on_lighthouse 2 "a node's name that nobody may have" "localhost" skerry node rename d1 localhost
on_lighthouse 6 "a node that is not there" "d9" skerry node rename d9 d10
on_lighthouse 2 "a tag of a node that is none" "tag" skerry node tag d1 'a b'
on_lighthouse 6 "a code that nobody shows" "code" skerry node approve XXXX-XXXX
on_lighthouse 2 "an empty code" "code" skerry node approve ''
on_lighthouse 6 "a lighthouse that is not there" "lh9" skerry cluster remove lh9
on_lighthouse 8 "the last lighthouse" "last voter" skerry cluster remove lh1
on_lighthouse 64 "an unknown flag of skerryd" "--nope" skerryd run --nope
on_lighthouse 64 "an unknown command of skerryd" "nonsense" skerryd nonsense
on_lighthouse 64 "a flag of another command of skerryd" "--name" skerryd run --name x
on_lighthouse 64 "an argument too many of skerryd" "extra" skerryd run extra
on_lighthouse 64 "init with a bad address" "api-address" skerryd init --dir /run/new --name x --api-address 'a b:x'
on_lighthouse 64 "init with port 0" "peer-address.*port 0" skerryd init --dir /run/new --peer-address 192.0.2.1:0
on_lighthouse 64 "init with a bracket too few" "address" skerryd init --dir /run/new --peer-address '[2001:db8::1'
on_lighthouse 64 "init with a bad name" "name" skerryd init --dir /run/new --name 'a b'
on_lighthouse 64 "init with a bad domain" "domain" skerryd init --dir /run/new --base-domain 'a..b'
on_lighthouse 64 "init with a bad cluster's name" "--cluster-name" skerryd init --dir /run/new --cluster-name 'a b'
on_lighthouse 1 "init a second time" "already|exists" skerryd init --name x
on_lighthouse 69 "run before init" "skerryd init" skerryd run --dir /run/new
on_lighthouse 64 "an entry that is none" "dump-entry" skerryd check --dump-entry x
on_lighthouse 64 "a join that waits for nothing" "timeout" skerryd join "$token" --dir /run/new --timeout 1ms
check "no wrong init left a directory" in_host lh1 test ! -e /run/new
on_device 2 "an unknown flag of the agent" "--nope" skerry-agent --nope
on_device 2 "the agent's flag without its value" "--config" skerry-agent --config
on_device 2 "an argument of the agent" "extra" skerry-agent extra
on_device 78 "a configuration that is not there" "/run/none.yaml" skerry-agent --config /run/none.yaml
on_lighthouse 78 "a lighthouse's that is not there" "/run/none.yaml" skerryd run --config /run/none.yaml

# --- keys: refused before any network traffic (nothing answers at 192.0.2.1)
with_key()
{
	on_device "$1" "$2" "$3" env SKERRY_AUTH_KEY="$4" skerry up --lighthouse https://192.0.2.1:8443 --timeout 3s
}
with_key 2 "a cut key" "SKERRY_AUTH_KEY.*cut" "${key%???}"
with_key 2 "a key cut in its secret" "cut" "${key:0:30}"
with_key 2 "a key with a wrong character" "character" "$(sed 's/\(sk-auth-[0-9]*-..\)./\1u/' <<<"$key")"
with_key 2 "a key with two characters exchanged" "damaged|checksum" "$(awk -F- '{
	for (i = 1; substr($4, i, 1) == substr($4, i + 1, 1); i++);
	$4 = substr($4, 1, i - 1) substr($4, i + 1, 1) substr($4, i, 1) substr($4, i + 2)
	print $1 "-" $2 "-" $3 "-" $4 "-" $5 }' <<<"$key")"
with_key 2 "a word" "sk-auth" hello
with_key 2 "a key of another kind" "API key" "$(cat "$lab/api-key")"
with_key 2 "a join token" "join token" "$token"
on_device 2 "an auth key as API key" "auth key" env SKERRY_API_KEY="$key" skerry node list --lighthouse "$url"
on_device 2 "a cut API key" "cut" env SKERRY_API_KEY="$(head -c 40 "$lab/api-key")" skerry node list --lighthouse "$url"
on_device 1 "a key in a file that is not there" "/run/none" skerry up --lighthouse "$url" --auth-key file:/run/none
on_device 5 "an API key of another cluster's form of pin" "pin|certificate" \
	env SKERRY_API_KEY="$(cat "$lab/api-key")" skerry node list --lighthouse "$url" --pin "$(printf 'ab%.0s' {1..32})"
on_device 2 "a pin that is none" "pin" env SKERRY_API_KEY="$(cat "$lab/api-key")" skerry node list --lighthouse "$url" --pin xyz

# --- configuration, with file and line
# bad_config PROGRAM TEXT LINE PATTERN
bad_config()
{
	local program=$1 host=d1 run=()
	[ "$program" = skerryd ] && host=lh1 run=(run)
	printf '%s' "$2" >"$lab/$host/etc/bad.yaml"
	fails 78 "$program: $(tr '\n' '|' <<<"$2" | tr -cd '[:print:]')" "bad\.yaml:$3: .*($4)" \
		in_host $host timeout 10 "$program" "${run[@]}" --config /etc/skerry/bad.yaml
	[ "$(grep -o 'bad\.yaml' "$lab/check.out" | wc -l)" -eq 1 ] || bad "$2: the place is told more than once"
}
bad_config skerryd $'log_level: info\nnonsense: 1\n' 2 'nonsense'
bad_config skerryd $'log_levle: info\n' 1 'log_level'
bad_config skerryd $'log_level: loud\n' 1 'loud'
bad_config skerryd $'log_level: info\nlog_level: debug\n' 2 'twice'
bad_config skerryd $'listeners:\n  - address: 1.2.3.4:99999\n    serve: [web]\n' 2 'port'
bad_config skerryd $'listeners:\n  - address: 1.2.3.4:1\n    serve: [wab]\n' 3 'wab'
bad_config skerryd $'name: "a\n' 2 'YAML'
bad_config skerryd $'\n\npeer_address: 1.2.3.4:0\n' 3 'port 0'
bad_config skerryd $'peer_listen: 1.2.3.4\n' 1 'port'
bad_config skerryd $'api_url: http://x\n' 1 'https'
bad_config skerryd $'drain: soon\n' 1 'duration'
bad_config skerryd $'log_level: in\xff\n' 1 'UTF-8'
bad_config skerry-agent $'interface: skerry0\nnonsense: 1\n' 2 'nonsense'
bad_config skerry-agent $'listen_port: 99999\n' 1 'listen_port'
bad_config skerry-agent $'listen_port: "1"\n' 1 'whole number'
bad_config skerry-agent $'interface: a-name-that-is-too-long\n' 1 'interface'
bad_config skerry-agent $'mtu: 100\n' 1 '1280'
bad_config skerry-agent $'lighthouses: [http://x]\n' 1 'https'
bad_config skerry-agent $'resolvers:\n  - 1.1.1.1\n  - one\n' 3 'one'
bad_config skerry-agent $'accept_dns: maybe\n' 1 'maybe'
bad_config skerry-agent $'accept_routes: yes\n' 1 'true'
bad_config skerry-agent $'state_dir: here\n' 1 'absolute'
bad_config skerry-agent $'- a\n' 1 'keys'

# --- messages as JSON: HTTP status, Connect code, the place in the message
post()
{
	local body=$1 path=$2
	shift 2
	case "$*" in *Authorization:*) ;; *) set -- "$@" -H "Authorization: Bearer $(cat "$lab/api-key")" ;; esac
	in_host d1 curl -sk --max-time 5 -o /run/answer -w '%{http_code}' -H "Content-Type: application/json" "$@" \
		--data-binary "$body" "$url/$path"
}
answers()
{
	local text=$1 status=$2 code=$3 pattern=$4 got
	shift 4
	cases=$((cases + 1))
	got=$(post "$@")
	in_host d1 sh -c 'cat /run/answer; echo' >"$lab/check.out"
	if [ "$got" = "$status" ] && jq -e --arg code "$code" --arg p "$pattern" \
		'.code == $code and (.message | test($p; "i"))' "$lab/check.out" >/dev/null 2>&1; then
		say "ok: $text: $(jq -r .message "$lab/check.out")"
	else
		bad "$text: $got instead of $status $code matching $pattern"
	fi
}
invalid()
{
	answers "$1" 400 invalid_argument "$2" "$3" "skerry.v1.$4"
}
users=skerry.v1.UserService
t='"parent":"tailnets/1"'
invalid "JSON that is none" "JSON" '{' UserService/ListUsers
invalid "nothing at all" "JSON|empty" '' UserService/ListUsers
invalid "JSON that is no message" "object|expected" '[]' UserService/ListUsers
invalid "JSON with something behind" "JSON" '{} x' UserService/ListUsers
invalid "JSON that is no UTF-8" "decode byte" $'{"parent":"\xff"}' UserService/ListUsers
invalid "JSON nested a thousand times" "deep|nest|depth|JSON" "{\"a\":$(printf '[%.0s' {1..1000})" UserService/ListUsers
invalid "an unknown field" "nonsense" '{"nonsense":1}' UserService/ListUsers
invalid "a field twice" "parent" "{$t,$t}" UserService/ListUsers
invalid "a wrong type" "parent" '{"parent":1}' UserService/ListUsers
invalid "a number out of range" "pageSize|page_size" "{$t,\"pageSize\":99999999999}" UserService/ListUsers
invalid "an enum's value that is none" "role" "{$t,\"user\":{\"loginName\":\"x\",\"role\":\"ROLE_KING\"}}" UserService/CreateUser
invalid "a duration that is none" "lifetime" "{$t,\"authKey\":{},\"lifetime\":\"soon\"}" AuthKeyService/CreateAuthKey
invalid "a negative lifetime" "lifetime" "{$t,\"authKey\":{},\"lifetime\":\"-5s\"}" AuthKeyService/CreateAuthKey
invalid "a bad parent" "tailnets/<id>" '{"parent":"nonsense"}' UserService/ListUsers
invalid "a parent with a huge id" "tailnets" '{"parent":"tailnets/99999999999999999999"}' UserService/ListUsers
invalid "no parent" "parent|tailnets" '{}' UserService/ListUsers
invalid "a bad page token" "page token" "{$t,\"pageToken\":\"zzz\"}" UserService/ListUsers
invalid "a negative page size" "page" "{$t,\"pageSize\":-1}" UserService/ListUsers
invalid "a NUL in a name" "text may hold NUL" "{$t,\"user\":{\"loginName\":\"a\\u0000b\"}}" UserService/CreateUser
invalid "a control character in a name" "login name|control" "{$t,\"user\":{\"loginName\":\"a\\u001bb\"}}" UserService/CreateUser
invalid "a name of 5,000 letters" "login|long" "{$t,\"user\":{\"loginName\":\"$(printf 'a%.0s' {1..5000})\"}}" UserService/CreateUser
invalid "no login name" "login name" "{$t,\"user\":{}}" UserService/CreateUser
invalid "no user" "user" "{$t}" UserService/CreateUser
invalid "an unknown field of a mask" "nonsense" '{"user":{"name":"tailnets/1/users/1"},"updateMask":"nonsense"}' UserService/UpdateUser
invalid "a name of another kind" "users/<id>" '{"name":"tailnets/1/nodes/x"}' UserService/GetUser
invalid "a tag that is none" "tag" "{$t,\"authKey\":{\"tags\":[\"x\"]}}" AuthKeyService/CreateAuthKey
invalid "a node key that is none" "node_key|nodekey" "{$t,\"node\":{\"hostname\":\"x\",\"machineKey\":\"mkey:$(printf 'ab%.0s' {1..32})\",\"nodeKey\":\"x\"}}" NodeService/CreateNode
invalid "a node key cut" "node_key|nodekey" "{$t,\"node\":{\"hostname\":\"x\",\"machineKey\":\"mkey:$(printf 'ab%.0s' {1..32})\",\"nodeKey\":\"nodekey:abab\"}}" NodeService/CreateNode
answers "a registration without anything" 401 unauthenticated "machine key" '{}' skerry.v1.AgentService/Register
answers "something that is not there" 404 not_found "999999" '{"name":"tailnets/1/users/999999"}' $users/GetUser
answers "a tailnet that is another's" 403 permission_denied "tailnets/1 alone" '{"parent":"tailnets/77"}' $users/ListUsers
answers "a user that is there" 409 already_exists "admin" "{$t,\"user\":{\"loginName\":\"admin\"}}" $users/CreateUser
answers "a method that is not there" 404 unimplemented "Nonsense" '{}' $users/Nonsense
answers "an etag that is old" 409 aborted "etag|changed" '{"name":"tailnets/1/users/2","etag":"zzz"}' $users/DeleteUser
answers "no credential" 401 unauthenticated "credential" "{$t}" $users/ListUsers -H 'Authorization:'
answers "a credential that is none" 401 unauthenticated "authorization" "{$t}" $users/ListUsers -H 'Authorization: Bearer x'
answers "a credential of another scheme" 401 unauthenticated "Bearer" "{$t}" $users/ListUsers -H 'Authorization: Basic eDp5'
answers "a cut credential" 401 unauthenticated "authorization" "{$t}" $users/ListUsers -H "Authorization: Bearer $(head -c 60 "$lab/api-key")"
answers "a key that was revoked" 401 unauthenticated "revoked|unknown|known" "{$t}" $users/ListUsers -H "Authorization: Bearer $revoked"
answers "a timeout that is none" 400 invalid_argument "timeout" "{$t}" $users/ListUsers -H 'Connect-Timeout-Ms: soon'
answers "a version of Connect that is none" 400 invalid_argument "version" "{$t}" $users/ListUsers -H 'Connect-Protocol-Version: 9'
answers "a form of compression that is none" 501 unimplemented "encoding|compress" "{$t}" $users/ListUsers -H 'Content-Encoding: br'
head -c 5000000 /dev/zero | tr '\0' ' ' >"$lab/d1/tmp/big"
cases=$((cases + 1))
got=$(in_host d1 curl -sk --max-time 5 -o /run/answer -w '%{http_code}' -H "Content-Type: application/json" \
	-H "Authorization: Bearer $(cat "$lab/api-key")" --data-binary @"$lab/d1/tmp/big" "$url/$users/ListUsers")
check "a message of 5 MB is refused ($got)" test "$got" = 429 -o "$got" = 413

# --- what is no call at all
plain()
{
	local text=$1 status=$2 got
	shift 2
	cases=$((cases + 1))
	got=$(in_host d1 curl -sk --max-time 5 -o /run/answer -w '%{http_code}' "$@")
	check "$text ($got)" test "$got" = "$status"
}
plain "a GET of a method" 405 "$url/$users/ListUsers"
plain "a type that is none" 415 -H 'Content-Type: text/plain' -d x "$url/$users/ListUsers"
plain "a service that is not there" 404 -H 'Content-Type: application/json' -d '{}' "$url/skerry.v1.NoService/Nonsense"
plain "a path that is none" 404 "$url/etc/passwd"

# --- gRPC, frame by frame: status and message stand in the trailers
# grpc TEXT STATUS PATTERN BODY(printf) PATH [NAME=VALUE...]
grpc()
{
	local text=$1 status=$2 pattern=$3 path=$5 got
	# shellcheck disable=SC2059
	printf "$4" >"$lab/d1/tmp/body"
	shift 5
	cases=$((cases + 1))
	case "$*" in *authorization=*) ;; *) set -- "$@" "authorization=Bearer $(cat "$lab/api-key")" ;; esac
	wire grpc "${host_ip[lh1]}" 8443 "$path" "$lab/d1/tmp/body" "$@" >"$lab/check.out" 2>&1
	got=$(sed -n 's/^grpc-status: //p' "$lab/check.out")
	if [ "$got" = "$status" ] && grep -qiE "^grpc-message: .*($pattern)" "$lab/check.out"; then
		say "ok: $text: $got $(sed -n 's/^grpc-message: //p' "$lab/check.out")"
	else
		bad "$text: status ${got:-none} instead of $status matching $pattern"
	fi
}
wire()
{
	nsenter -t "${holder[d1]}" -n -- /usr/bin/python3 "$skerry_root/tests/e2e/bad_wire.py" "$@"
}
grpc "no message" 12 "message" '' $users/ListUsers
grpc "a cut prefix" 13 "message|frame|cut|prefix" '\0\0' $users/ListUsers
grpc "a message shorter than its prefix says" 13 "message|cut|end" '\0\0\0\0\5a' $users/ListUsers
grpc "two messages" 12 "message" '\0\0\0\0\0\0\0\0\0\0' $users/ListUsers
grpc "a message of 2 GiB" 8 "larger|limit|most" '\0\177\377\377\377' $users/ListUsers
grpc "an unknown flag" 13 "compressed" '\7\0\0\0\0' $users/ListUsers
grpc "a compressed one without a form" 13 "compress|encoding" '\1\0\0\0\0' $users/ListUsers
grpc "bytes that are no message" 3 "" '\0\0\0\0\3\377\377\377' $users/ListUsers
grpc "a field cut" 3 "" '\0\0\0\0\2\12\12' $users/ListUsers
grpc "a text that is no UTF-8" 3 "UTF-8" '\0\0\0\0\3\12\1\377' $users/ListUsers
grpc "a name that cannot be" 3 "tailnets/<id>" '\0\0\0\0\3\12\1x' $users/ListUsers
grpc "an unknown form of compression" 12 "compress|encoding" '\1\0\0\0\0' $users/ListUsers grpc-encoding=br
grpc "a timeout that is none" 13 "timeout" '\0\0\0\0\0' $users/ListUsers grpc-timeout=soon
grpc "an unknown method" 12 "Nonsense" '\0\0\0\0\0' $users/Nonsense
grpc "an unknown service" 12 "NoService" '\0\0\0\0\0' skerry.v1.NoService/Nonsense
grpc "no credential" 16 "credential" '\0\0\0\0\0' $users/ListUsers x-authorization=none
grpc "two credentials" 16 "twice|two|one" '\0\0\0\0\0' $users/ListUsers "authorization=Bearer x" "authorization=Bearer $(cat "$lab/api-key")"
grpc "a machine key that is none" 16 "machine" '\0\0\0\0\0' skerry.v1.AgentService/Register skerry-machine-key-bin=AAAA
grpc "a proof that is none" 16 "proof" '\0\0\0\0\0' skerry.v1.AgentService/Register \
	"skerry-machine-key-bin=$(head -c 32 /dev/zero | tr '\0' a | base64 -w0)" "skerry-device-proof-bin=$(head -c 64 /dev/zero | base64 -w0)"

# --- bytes that are no protocol, at every door
check "junk on the wire is answered or cut off at each port" wire "${host_ip[lh1]}" 8443 8444
cat "$lab/check.out"
check "junk on the lighthouse's socket" in_host lh1 /usr/bin/python3 "$skerry_root/tests/e2e/bad_wire.py" /run/skerry/skerryd.sock
check "junk on the agent's socket" in_host d1 /usr/bin/python3 "$skerry_root/tests/e2e/bad_wire.py" /run/skerry/agent.sock
check "junk to the agent's resolver" in_host d1 /usr/bin/python3 "$skerry_root/tests/e2e/bad_wire.py" dns 100.100.100.100

# --- and nothing has changed
check "lighthouse still serves" voters lh1 1
check "device still attached" attached_to d1
for log in "$lab/lh1/log/skerryd.log" "$lab/d1/log/agent.log"; do
	check "no fault in ${log##*/}" bash -c '! grep -iE "assert|abort|sanitizer|impossible|level=error" "$0"' "$log"
done
all_state >"$lab/after"
check "nothing has changed" diff "$lab/before" "$lab/after"
figure "malformed inputs refused with a clear error: $cases"
[ "$shortfalls" -eq 0 ]
