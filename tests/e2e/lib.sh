# Common functions of the end-to-end scenarios and the demo: hosts, daemons, waiting, measuring.
# To be sourced by bash, by a script that is run as root.
# shellcheck shell=bash
#
# A host is a process that holds a network, mount, PID and UTS namespace of its own; everything that runs on the host
# is entered into them. So each host has its own /etc/skerry, /run, /var/lib/skerry and /etc/resolv.conf, programs run
# with their defaults, and when the holder ends everything on the host ends, the daemons that outlive their starter
# included. No namespace has a name, so nothing can clash and nothing is left behind.
#
#       core 10.77.0.0/24            site1 10.77.1.0/24         site2 10.77.2.0/24
#       lh1 .11  lh2 .12  lh3 .13    d1 .11  d2 .12             d3 .13  d4 .14
#          \       |       /           \     /                    \     /
#        [ bridge core  .1 ]        [ bridge site1 .1 ]         [ bridge site2 .1 ]
#                  \____________________  |  _______________________/
#                             router host (forwards between the three)

. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

: "${SKERRY_BIN:=$skerry_root/build/release/bin}"
: "${SKERRY_SLOW:=1}"
lab=''                 # the laboratory's directory: $lab/HOST/{etc,state,log}
declare -A holder=()   # host -> pid of the process that holds its namespaces
declare -A host_ip=()  # host -> address
declare -A running=()  # "host daemon" -> pid outside
declare -A net_of=([core]=10.77.0 [site1]=10.77.1 [site2]=10.77.2)

# --- the laboratory -----------------------------------------------------------------------------

# lab_begin: checks the machine, makes the directory and the router.
lab_begin()
{
	local lacks net
	lacks=$(need_network_lab) || {
		say "$lacks"
		exit 77
	}
	for program in skerryd skerry-agent skerry; do
		[ -x "$SKERRY_BIN/$program" ] || {
			say "$SKERRY_BIN/$program is not built"
			exit 77
		}
	done
	cleanup_trap
	lab=$(mktemp -d "${TMPDIR:-/tmp}/skerry-lab.XXXXXX") || die "cannot make a directory"
	chmod 755 "$lab"
	cleanup_push lab_end
	host_start router
	for net in core site1 site2; do
		in_host router ip link add "$net" type bridge
		in_host router ip addr add "${net_of[$net]}.1/24" dev "$net"
		in_host router ip link set "$net" up
	done
	in_host router sysctl -qw net.ipv4.ip_forward=1
}

# lab_end: on failure shows the daemons' logs; ends every host and removes the directory.
lab_end()
{
	local rv=$cleanup_rv host pid crashed spoilt
	# A daemon that ended in a fault fails the scenario, whatever else it showed.
	crashed=$(grep -lE 'ERROR: [A-Za-z]+Sanitizer|runtime error: |^[a-z_/]+\.[ch]:[0-9]+: (precondition|postcondition|impossible): ' "$lab"/*/log/*.log 2>/dev/null)
	if [ -n "$crashed" ] && [ "$rv" -ne 130 ] && [ "$rv" -ne 143 ]; then
		say "NOT OK: a fault in ${crashed//$'\n'/, }"
		cleanup_rv=1 rv=1
	fi
	# A store is rebuilt where a scenario spoils it, and nowhere else.
	spoilt=$(grep -lE 'the store was wrong' "$lab"/*/log/*.log 2>/dev/null)
	if [ -n "$spoilt" ] && [ -z "${lab_spoils:-}" ] && [ "$rv" -ne 130 ] && [ "$rv" -ne 143 ]; then
		say "NOT OK: a store was found wrong: ${spoilt//$'\n'/, }"
		cleanup_rv=1 rv=1
	fi
	if [ "$rv" -ne 0 ] && [ "$rv" -ne 77 ] && [ "$rv" -ne 130 ] && [ "$rv" -ne 143 ] && [ -z "${lab_quiet:-}" ]; then
		lab_logs 40
	fi
	for host in "${!holder[@]}"; do
		pid=${holder[$host]}
		kill -9 "$pid" 2>/dev/null
	done
	for host in "${!holder[@]}"; do
		wait "${holder[$host]}" 2>/dev/null
	done
	holder=()
	if [ "$rv" -ne 0 ] && [ -n "${SKERRY_KEEP:-}" ]; then
		say "kept: $lab"
	else
		rm -rf "$lab"
	fi
}

# lab_logs LINES: the last lines of every daemon's log.
lab_logs()
{
	local log
	for log in "$lab"/*/log/*.log; do
		[ -s "$log" ] || continue
		say "--- ${log#"$lab"/} (last $1 lines)"
		tail -n "$1" "$log"
	done
}

# host_start HOST: the namespaces and the private directories of a host.
host_start()
{
	local host=$1 dir=$lab/$1 pid
	mkdir -p "$dir"/{etc,state,log,run,tmp}
	chmod 700 "$dir/state"
	: >"$dir/ready"
	# setpriv: the hosts go when this script goes, however it ends. The inner shell is the host's init: it reaps
	# whatever loses its parent there.
	# shellcheck disable=SC2016
	setpriv --pdeathsig KILL unshare --net --mount --uts --ipc --pid --fork --kill-child --propagation private bash -c '
		dir=$1 host=$2
		mount -t proc proc /proc && mount -t sysfs sysfs /sys || exit 1
		hostname "$host"
		mkdir -p /run/lock
		mount -t tmpfs -o mode=755,size=64m tmpfs /run
		mkdir -p /run/wireguard /run/skerry /run/lock /run/.own/{etc,lib}.{upper,work}
		chmod 700 /run/wireguard /run/.own
		for pair in etc:/etc lib:/var/lib; do
			own=/run/.own/${pair%%:*} of=${pair#*:}
			mount -t overlay -o "lowerdir=$of,upperdir=$own.upper,workdir=$own.work" overlay "$of" || exit 1
		done
		mkdir -p /etc/skerry /var/lib/skerry
		mount --bind "$dir/state" /var/lib/skerry
		mount --bind "$dir/etc" /etc/skerry
		if [ -L /etc/resolv.conf ]; then rm /etc/resolv.conf; fi
		echo "nameserver 127.0.0.53" >/etc/resolv.conf
		ip link set lo up
		sysctl -qw net.ipv6.conf.all.disable_ipv6=0 2>/dev/null
		echo ok >"$dir/ready"
		while :; do sleep 3600; done' host "$dir" "$host" </dev/null >"$dir/log/init.log" 2>&1 7>&- 8>&- 9>&- &
	pid=$!
	disown "$pid" 2>/dev/null
	wait_until 10 test -s "$dir/ready" || {
		cat "$dir/log/init.log"
		die "host $host did not start"
	}
	# The namespaces belong to the child of unshare, the init of the host. setpriv execs, so unshare is $pid itself.
	holder[$host]=$(pgrep -P "$pid" | head -1)
	[ -n "${holder[$host]}" ] || die "host $host has no init"
}

# host_connect HOST NET NUMBER: a link to the bridge NET with the address .NUMBER and a default route.
host_connect()
{
	local host=$1 net=$2 ip=${net_of[$2]}.$3
	ip link add eth0 netns "${holder[$host]}" type veth peer name "v-$host" netns "${holder[router]}"
	in_host router ip link set "v-$host" master "$net" up
	in_host "$host" ip addr add "$ip/24" dev eth0
	in_host "$host" ip link set eth0 up
	in_host "$host" ip route add default via "${net_of[$net]}.1"
	host_ip[$host]=$ip
}

# in_host HOST COMMAND...: runs a command on a host, in the foreground.
in_host()
{
	local host=$1
	shift
	PATH=$SKERRY_BIN:$PATH nsenter -t "${holder[$host]}" -n -m -u -i -p -- "$@"
}

# enter_script: writes $lab/in, with which a person looks around: $lab/in HOST COMMAND...
enter_script()
{
	local host
	{
		printf '#!/bin/bash\n# in HOST [COMMAND...]: runs a command (a shell) on a host of the laboratory.\n'
		printf 'declare -A holder=('
		for host in "${!holder[@]}"; do printf '[%s]=%s ' "$host" "${holder[$host]}"; done
		printf ')\n'
		printf '[ -n "${holder[${1:-none}]:-}" ] || { echo "hosts: ${!holder[*]}"; exit 2; }\n'
		printf 'pid=${holder[$1]}; shift; [ $# -gt 0 ] || set -- bash\n'
		printf 'export PATH=%q:$PATH\nexec nsenter -t "$pid" -n -m -u -i -p -- "$@"\n' "$SKERRY_BIN"
	} >"$lab/in"
	chmod 755 "$lab/in"
}

# lighthouse_hosts COUNT, device_hosts COUNT: lh1.. on core; d1, d2 (and d5..) on site1, d3, d4 on site2.
lighthouse_hosts()
{
	local i
	for ((i = 1; i <= $1; i++)); do
		host_start "lh$i"
		host_connect "lh$i" core $((10 + i))
	done
}

device_hosts()
{
	local i net
	for ((i = 1; i <= $1; i++)); do
		net=site1
		case $i in 3 | 4) net=site2 ;; esac
		host_start "d$i"
		host_connect "d$i" "$net" $((10 + i))
	done
}

# --- daemons ------------------------------------------------------------------------------------

# daemon_start HOST NAME COMMAND...: starts a daemon in the background, its output appended to $lab/HOST/log/NAME.log.
daemon_start()
{
	local host=$1 name=$2
	shift 2
	rm -f "$lab/$host/log/$name.code"
	# That of an earlier start is no sign of this one.
	rm -f "/proc/${holder[$host]}/root/run/$name.pid"
	# The pid is that of a shell which lives as long as the daemon, and then writes down how it ended.
	# shellcheck disable=SC2016
	{
		PATH=$SKERRY_BIN:$PATH nsenter -t "${holder[$host]}" -n -m -u -i -p -- \
			bash -c 'echo $$ >"$1"; shift; exec "$@"' daemon "/run/$name.pid" "$@"
		echo $? >"$lab/$host/log/$name.code"
	} </dev/null >>"$lab/$host/log/$name.log" 2>&1 7>&- 8>&- 9>&- &
	running["$host $name"]=$!
	disown $!
	wait_until $((20 * SKERRY_SLOW)) in_host "$host" test -s "/run/$name.pid" || die "$name on $host did not start"
}

# daemon_kill HOST NAME [SIGNAL]: sends a signal by pid (KILL).
daemon_kill()
{
	in_host "$1" bash -c "kill -${3:-KILL} \$(cat /run/$2.pid)" || return 1
	# nsenter stops with the daemon that it waits for, and would never notice its end.
	# shellcheck disable=SC2046
	[ "${3:-}" != CONT ] || kill -CONT $(pgrep -P "${running["$1 $2"]}")
}

# daemon_alive HOST NAME
daemon_alive()
{
	[ -n "${running["$1 $2"]:-}" ] && kill -0 "${running["$1 $2"]}" 2>/dev/null
}

# daemon_code HOST NAME: the exit status of a daemon that has ended.
daemon_code()
{
	cat "$lab/$1/log/$2.code" 2>/dev/null
}

daemon_gone()
{
	! daemon_alive "$1" "$2"
}

# daemon_stop HOST NAME: an orderly end, waited for.
daemon_stop()
{
	daemon_kill "$1" "$2" TERM || return 1
	wait_until $((10 * SKERRY_SLOW)) daemon_gone "$1" "$2"
}

# --- checks -------------------------------------------------------------------------------------
#
# A check that falls short ends the script, or with lab_go_on=1 is counted in `shortfalls`.

shortfalls=0
fall_short()
{
	shortfalls=$((shortfalls + 1))
	[ -n "${lab_go_on:-}" ] || exit 1
}

# check TEXT COMMAND...: the command must succeed.
check()
{
	local text=$1
	shift
	if "$@" >"$lab/check.out" 2>&1; then
		say "ok: $text"
	else
		say "NOT OK: $text"
		say "  command: $*"
		sed 's/^/  | /' "$lab/check.out" | tail -30
		fall_short
	fi
}

# refuse TEXT PATTERN COMMAND...: the command must fail, saying something that matches PATTERN.
refuse()
{
	local text=$1 pattern=$2 rv=0
	shift 2
	"$@" >"$lab/check.out" 2>&1 || rv=$?
	if [ $rv -eq 0 ]; then
		say "NOT OK: $text: it was accepted"
	elif [ $rv -ge 128 ]; then
		say "NOT OK: $text: it crashed (status $rv)"
	elif ! grep -qiE -- "$pattern" "$lab/check.out"; then
		say "NOT OK: $text: refused, but the message does not match $pattern"
	else
		say "ok: $text: $(grep -iE -- "$pattern" "$lab/check.out" | head -1)"
		return 0
	fi
	sed 's/^/  | /' "$lab/check.out" | tail -20
	fall_short
}

# within SECONDS TEXT COMMAND...: the command must come to succeed within the time; the figure is printed.
within()
{
	local limit=$(($1 * SKERRY_SLOW)) text=$2 start
	shift 2
	start=$(now)
	if wait_until "$limit" "$@"; then
		say "ok: $text ($(seconds $(($(now) - start))) s)"
	else
		say "NOT OK: $text: not within $limit s"
		"$@" 2>&1 | tail -20 | sed 's/^/  | /'
		fall_short
	fi
}

# figure NAME VALUE: a measured figure, shown beside the scenario's result.
figure()
{
	say "figure: $*"
}

# acks_at_least FILE N: so many recorded writes are acknowledged.
acks_at_least()
{
	[ "$(grep -c ACK "$1")" -ge "$2" ]
}

# ping_start HOST TARGET [INTERVAL]: pings in the background with time stamps; ping_report stops it.
ping_start()
{
	: >"$lab/$1/log/ping-$2.log"
	daemon_start "$1" "ping-$2" ping -n -D -O -i "${3:-0.05}" "$2"
	wait_until $((20 * SKERRY_SLOW)) grep -q 'bytes from' "$lab/$1/log/ping-$2.log"
}

# pings_answered HOST TARGET N: at least N answers have come.
pings_answered()
{
	[ "$(grep -c 'bytes from' "$lab/$1/log/ping-$2.log")" -ge "$3" ]
}

# ping_report HOST TARGET: stops the ping and prints "SENT RECEIVED LOST GAP_MS": the longest time between two answers.
# On a fast machine a scenario is over before that says anything: the ping goes on until there are a few answers.
ping_report()
{
	wait_until $((10 * SKERRY_SLOW)) pings_answered "$1" "$2" 30
	daemon_kill "$1" "ping-$2" INT
	wait_until $((20 * SKERRY_SLOW)) daemon_gone "$1" "ping-$2"
	awk '
		/bytes from/ {
			t = substr($1, 2) + 0
			if (last && t - last > gap) gap = t - last
			last = t
		}
		/packets transmitted/ { sent = $1; received = $4 }
		END { printf "%d %d %d %d\n", sent, received, sent - received, gap * 1000 + 0.5 }
	' "$lab/$1/log/ping-$2.log"
}

# --- lighthouses --------------------------------------------------------------------------------

# lh_init HOST [ARG...]: makes a cluster of one and starts it.
lh_init()
{
	local host=$1
	shift
	in_host "$host" skerryd init --name "$host" --cluster-name lab \
		--api-address "${host_ip[$host]}:8443" --peer-address "${host_ip[$host]}:8444" "$@" \
		>"$lab/$host/log/init-command.log" 2>&1 || {
		cat "$lab/$host/log/init-command.log"
		die "skerryd init on $host failed"
	}
	lh_run "$host"
}

# lh_join HOST FROM [TOKEN]: joins the cluster that the host FROM belongs to, and starts.
lh_join()
{
	local host=$1 token=${3:-}
	[ -n "$token" ] || token=$(join_token "$2") || die "skerry cluster token on $2 failed"
	in_host "$host" skerryd join "$token" --name "$host" \
		--api-address "${host_ip[$host]}:8443" --peer-address "${host_ip[$host]}:8444" \
		>"$lab/$host/log/join-command.log" 2>&1 || {
		cat "$lab/$host/log/join-command.log"
		die "skerryd join on $host failed"
	}
	lh_run "$host"
}

# join_token HOST: a new join token.
join_token()
{
	in_host "$1" skerry cluster token 2>/dev/null | grep -oE 'sk-join-[A-Za-z0-9_-]+' | head -1
}

declare -a lh_with=() # what every lighthouse is started with: env NAME=VALUE ...

# lh_run HOST: starts the daemon and waits until it answers on its socket.
lh_run()
{
	daemon_start "$1" skerryd "${lh_with[@]}" skerryd run
	wait_until $((10 * SKERRY_SLOW)) cluster_json "$1" || {
		tail -30 "$lab/$1/log/skerryd.log"
		die "skerryd on $1 does not answer"
	}
}

# cluster_json HOST: the cluster as this lighthouse sees it.
cluster_json()
{
	in_host "$1" timeout 5 skerry cluster status -o json
}

# voters HOST N: the cluster has N voters that are connected, and a leader.
voters()
{
	cluster_json "$1" | jq -e --argjson n "$2" '
		([.members[] | select(.role == "MEMBER_ROLE_VOTER" and .connected)] | length) == $n
		and ([.members[] | select(.leader)] | length) == 1'
}

# leader_of HOST: the name of the leader as this lighthouse knows it.
leader_of()
{
	cluster_json "$1" | jq -er '[.members[] | select(.leader)][0].displayName // empty'
}

# leader_other_than HOST NAME: this lighthouse knows a leader, and it is another one.
leader_other_than()
{
	local name
	name=$(leader_of "$1") && [ -n "$name" ] && [ "$name" != "$2" ]
}

# digests HOST: "NAME DIGEST" of every voter at one point of the log.
digests()
{
	in_host "$1" timeout 10 skerry cluster digest -o json |
		jq -er '.members[]? // .digests[]? | "\(.displayName // .name) \(.digest)"'
}

# digests_equal HOST N: N voters reported, and all the same.
digests_equal()
{
	local list
	list=$(digests "$1") || return 1
	[ "$(wc -l <<<"$list")" -eq "$2" ] && [ "$(awk '{ print $2 }' <<<"$list" | sort -u | wc -l)" -eq 1 ]
}

# cluster_of N: N lighthouses, all voters; the first one is lh1.
cluster_of()
{
	local i
	lighthouse_hosts "$1"
	lh_init lh1
	for ((i = 2; i <= $1; i++)); do
		lh_join "lh$i" lh1
	done
	within 30 "$1 lighthouses, all voters" voters lh1 "$1"
}

# lighthouse_urls N: the URLs of the first N lighthouses, with commas.
lighthouse_urls()
{
	local i urls=''
	for ((i = 1; i <= $1; i++)); do
		urls+="${urls:+,}https://${host_ip[lh$i]}:8443"
	done
	echo "$urls"
}

# auth_key HOST [ARG...]: a new auth key's secret.
auth_key()
{
	local host=$1
	shift
	in_host "$host" skerry auth-key create -o json "$@" | jq -er .secret
}

# api_key HOST FILE: a new API key of the administrator, into a file.
api_key()
{
	in_host "$1" skerry api-key create --role admin -o json | jq -er .secret >"$2"
}

# --- devices ------------------------------------------------------------------------------------

agent_run()
{
	daemon_start "$1" agent skerry-agent --config /etc/skerry/agent.yaml
	wait_until $((10 * SKERRY_SLOW)) device_json "$1" || {
		tail -30 "$lab/$1/log/agent.log"
		die "skerry-agent on $1 does not answer"
	}
}

# agent_config HOST: the configuration file, if the scenario wrote none: defaults.
agent_config()
{
	[ -f "$lab/$1/etc/agent.yaml" ] || : >"$lab/$1/etc/agent.yaml"
}

# device_up HOST URLS KEY [ARG...]: starts the agent, if it does not run, and registers the device.
device_up()
{
	local host=$1 urls=$2 key=$3
	shift 3
	agent_config "$host"
	daemon_alive "$host" agent || agent_run "$host"
	in_host "$host" env SKERRY_AUTH_KEY="$key" skerry up --lighthouse "$urls" --hostname "$host" \
		--accept-dns=host "$@" >"$lab/$host/log/up.log" 2>&1 || {
		cat "$lab/$host/log/up.log"
		tail -20 "$lab/$host/log/agent.log"
		die "skerry up on $host failed"
	}
}

device_json()
{
	in_host "$1" timeout 5 skerry status -o json
}

# tailnet_ip HOST: the device's IPv4 address in the tailnet.
tailnet_ip()
{
	device_json "$1" | jq -er '[.self.addresses[] | select(startswith("100."))][0]'
}

# sees_peers HOST N: the device has N peers, all online, and is attached.
sees_peers()
{
	device_json "$1" | jq -e --argjson n "$2" '
		.control.attached and ([.peers[]? | select(.online)] | length) == $n'
}

# attached_to HOST: the URL of the lighthouse that the device is attached to.
attached_to()
{
	device_json "$1" | jq -er 'select(.control.attached) | .control.lighthouseUrl'
}

# attached_elsewhere HOST URL: attached, and to another one.
attached_elsewhere()
{
	local url
	url=$(attached_to "$1") && [ "$url" != "$2" ]
}

# on_tailnet FROM TO: TO answers a ping to its tailnet name.
on_tailnet()
{
	in_host "$1" skerry ping -c 1 "$2"
}

client()
{
	/usr/bin/python3 "$skerry_root/tests/e2e/client.py" "$@"
}

# in_client HOST ARG...: the API client, run in the network of a host.
in_client()
{
	local host=$1
	shift
	nsenter -t "${holder[$host]}" -n -- /usr/bin/python3 "$skerry_root/tests/e2e/client.py" "$@"
}

# client_start HOST ARG...: the same in the background; its pid is in `client_pid`, and it ends with the laboratory.
client_start()
{
	local host=$1
	shift
	# exec: the pid is the client's, so that a signal reaches it and nothing is left behind.
	(exec nsenter -t "${holder[$host]}" -n -- /usr/bin/python3 "$skerry_root/tests/e2e/client.py" "$@") &
	client_pid=$!
	cleanup_push "kill -9 $client_pid 2>/dev/null"
}
