# Bad flags, keys, names, configurations and messages: one clear error each, with its place, and nothing changes
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
device_up d1 "$(lighthouse_urls 1)" "$key"
url=https://${host_ip[lh1]}:8443
revision=$(cluster_json lh1 | jq -r .revision)

# fails STATUS TEXT PATTERN COMMAND...: as refuse, with this exit status, and in a few lines.
fails()
{
	local status=$1 text=$2 rv=0
	shift 2
	"${@:2}" >/dev/null 2>&1 || rv=$?
	refuse "$text" "$@"
	if [ "$status" != any ] && [ $rv -ne "$status" ]; then
		say "NOT OK: $text: exit status $rv, not $status"
		fall_short
	fi
	if [ "$(wc -l <"$lab/check.out")" -gt 6 ]; then
		say "NOT OK: $text: more than a few lines"
		fall_short
	fi
}

# --- flags
fails 2 "an unknown command" "nonsense" in_host d1 skerry nonsense
fails 2 "an unknown flag" "--nope" in_host d1 skerry up --nope
fails 2 "ping without a name" "name" in_host d1 skerry ping
fails 2 "a timeout that is none" "timeout" in_host d1 skerry status --timeout abc
fails 2 "a URL that is none" "ftp" in_host d1 skerry up --lighthouse ftp://x
fails any "an unknown flag of skerryd" "--nope" in_host lh1 skerryd run --nope
fails any "an unknown command of skerryd" "nonsense" in_host lh1 skerryd nonsense
fails any "an unknown flag of the agent" "--nope" in_host d1 skerry-agent --nope
fails any "init with a bad address" "address" in_host lh1 skerryd init --name x --api-address 'a b:x' --peer-address 1:1
fails any "a peer that does not exist" "nobody" in_host d1 skerry ping nobody
fails any "a name that cannot be" "name|hostname" in_host d1 skerry set --hostname 'a_b c'

# --- keys
fails any "a cut key" "cut|checksum|shorter|incomplete" in_host d1 env SKERRY_AUTH_KEY="${key%???}" skerry up --lighthouse "$url" --timeout 5s
fails any "a key of another kind" "sk-api|auth key|kind" \
	in_host d1 env SKERRY_AUTH_KEY="$(cat "$lab/api-key")" skerry up --lighthouse "$url" --timeout 5s
fails any "an auth key as API key" "auth|kind|API key" in_host d1 env SKERRY_API_KEY="$key" skerry node list --lighthouse "$url"

# --- configuration, with file and line
bad_config()
{
	local program=$1 file=$2 text=$3 line=$4 pattern=$5
	printf '%s' "$text" >"$lab/$6/etc/bad.yaml"
	fails any "$file: $pattern" "bad.yaml:$line.*($pattern)|($pattern).*bad.yaml:$line" in_host "$6" timeout 10 "$program" "${@:7}" --config /etc/skerry/bad.yaml
}
bad_config skerryd lighthouse $'log_level: info\nnonsense: 1\n' 2 nonsense lh1 run
bad_config skerryd lighthouse $'listeners:\n  - address: 1.2.3.4:99999\n    serve: [web]\n' 2 'port|address' lh1 run
bad_config skerryd lighthouse $'log_level: info\nlog_level: debug\n' 2 'twice|duplicate|again' lh1 run
bad_config skerryd lighthouse $'name: "a\n' '[0-9]' 'quote|scalar|end|YAML|parse' lh1 run
bad_config skerry-agent agent $'interface: skerry0\nnonsense: 1\n' 2 nonsense d1
bad_config skerry-agent agent $'listen_port: 99999\n' 1 'listen_port' d1
bad_config skerry-agent agent $'interface: a-name-that-is-too-long\n' 1 'interface' d1

# --- messages: status and Connect code
post()
{
	local body=$1 path=$2
	shift 2
	in_host d1 curl -sk --max-time 5 -o /run/answer -w '%{http_code}' -H "Content-Type: application/json" \
		-H "${1:-Authorization: Bearer $(cat "$lab/api-key")}" --data-binary "$body" "$url/$path"
}
answers()
{
	local text=$1 status=$2 code=$3 got
	shift 3
	got=$(post "$@")
	if [ "$got" = "$status" ] && in_host d1 jq -e --arg code "$code" '.code == $code and (.message | length > 0)' /run/answer >/dev/null 2>&1; then
		say "ok: $text: $(in_host d1 jq -r .message /run/answer)"
	else
		say "NOT OK: $text: $got instead of $status $code: $(in_host d1 head -c 300 /run/answer)"
		fall_short
	fi
}
users=skerry.v1.UserService
answers "JSON that is none" 400 invalid_argument '{' $users/ListUsers
answers "an unknown field" 400 invalid_argument '{"nonsense":1}' $users/ListUsers
answers "a wrong type" 400 invalid_argument '{"parent":1}' $users/ListUsers
answers "a bad parent" 400 invalid_argument '{"parent":"nonsense"}' $users/ListUsers
answers "a bad page token" 400 invalid_argument '{"parent":"tailnets/1","pageToken":"zzz"}' $users/ListUsers
answers "a negative page size" 400 invalid_argument '{"parent":"tailnets/1","pageSize":-1}' $users/ListUsers
answers "a bad login name" 400 invalid_argument '{"parent":"tailnets/1","user":{"loginName":"a\u0000b"}}' $users/CreateUser
answers "no login name" 400 invalid_argument '{"parent":"tailnets/1","user":{}}' $users/CreateUser
answers "a name of another kind" 400 invalid_argument '{"name":"tailnets/1/nodes/x"}' $users/GetUser
answers "something that is not there" 404 not_found '{"name":"tailnets/1/users/999999"}' $users/GetUser
answers "a method that is not there" 404 unimplemented '{}' $users/Nonsense
answers "no credential" 401 unauthenticated '{"parent":"tailnets/1"}' $users/ListUsers 'Authorization:'
answers "a credential that is none" 401 unauthenticated '{"parent":"tailnets/1"}' $users/ListUsers 'Authorization: Bearer x'
check "lighthouse still serves" voters lh1 1
check "device still attached" attached_to d1
check "nothing has changed" test "$(cluster_json lh1 | jq -r .revision)" = "$revision"
[ "$shortfalls" -eq 0 ]
