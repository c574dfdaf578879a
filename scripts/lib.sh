# Common functions of the scripts: output, time, clean-up, checks of the machine. To be sourced by bash.
# shellcheck shell=bash

skerry_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LC_ALL=C.UTF-8

# --- output -------------------------------------------------------------------------------------

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	c_bold=$'\e[1m' c_red=$'\e[31m' c_green=$'\e[32m' c_yellow=$'\e[33m' c_dim=$'\e[2m' c_off=$'\e[0m'
else
	c_bold='' c_red='' c_green='' c_yellow='' c_dim='' c_off=''
fi
export c_bold c_red c_green c_yellow c_dim c_off

# script_help FILE: the comment at the head of a script is its help.
script_help()
{
	sed -n '2,/^set/s/^# \{0,1\}//p' "$1" | sed '/^set/d'
}

# now: the monotonic clock in milliseconds.
now()
{
	local up rest
	read -r up rest </proc/uptime
	: "$rest"
	up=${up/./}
	echo $((10#$up * 10))
}

# seconds MS: "12.3" of 12345.
seconds()
{
	printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100))
}

say()
{
	printf '%s\n' "$*"
}

warn()
{
	printf '%s%s%s\n' "$c_yellow" "$*" "$c_off" >&2
}

die()
{
	printf '%s%s: %s%s\n' "$c_red" "${0##*/}" "$*" "$c_off" >&2
	exit 1
}

# step TEXT: announces a step; step_done [RESULT] ends its line with the time it took.
step_start=0
step()
{
	step_start=$(now)
	printf '%s==>%s %s\n' "$c_bold" "$c_off" "$*"
}

step_done()
{
	printf '    %s%s%s %s(%s s)%s\n' "$c_green" "${*:-done}" "$c_off" "$c_dim" \
		"$(seconds $(($(now) - step_start)))" "$c_off"
}

# --- clean-up -----------------------------------------------------------------------------------

# cleanup_push COMMAND: runs it at the end of the script, the last one pushed first, however the script ends.
cleanup_stack=()
cleanup_rv=0
cleanup_push()
{
	cleanup_stack+=("$1")
}

cleanup_run()
{
	cleanup_rv=$?
	local i
	trap '' INT TERM
	trap - EXIT
	for ((i = ${#cleanup_stack[@]} - 1; i >= 0; i--)); do
		eval "${cleanup_stack[i]}" || true
	done
	cleanup_stack=()
	exit "$cleanup_rv"
}

cleanup_trap()
{
	trap cleanup_run EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

# temp_dir VAR: a temporary directory that goes with the script.
temp_dir()
{
	local dir
	dir=$(mktemp -d "${TMPDIR:-/tmp}/skerry.XXXXXX") || die "cannot make a temporary directory"
	cleanup_push "rm -rf '$dir'"
	printf -v "$1" '%s' "$dir"
}

# --- waiting ------------------------------------------------------------------------------------

# wait_until SECONDS COMMAND...: tries the command every 50 ms until it succeeds; fails at the deadline.
wait_until()
{
	local deadline=$(($(now) + $1 * 1000))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(now)" -lt "$deadline" ] || return 1
		sleep 0.05
	done
}

# --- the machine --------------------------------------------------------------------------------

have()
{
	command -v "$1" >/dev/null 2>&1
}

# The need_* checks say in one line what the machine lacks, and fail.
need_root()
{
	[ "$(id -u)" -eq 0 ] && return 0
	say "this machine lacks: root (network namespaces and tun devices need it; run as root or with sudo)"
	return 1
}

need_tun()
{
	[ -c /dev/net/tun ] && (: <>/dev/net/tun) 2>/dev/null && return 0
	say "this machine lacks: /dev/net/tun (modprobe tun; in a container: --device /dev/net/tun)"
	return 1
}

need_netns()
{
	have ip && unshare -n true 2>/dev/null && unshare -m true 2>/dev/null && return 0
	say "this machine lacks: network and mount namespaces (in a container: CAP_NET_ADMIN and CAP_SYS_ADMIN)"
	return 1
}

need_network_lab()
{
	local rv=0
	need_root || rv=1
	need_tun || rv=1
	need_netns || rv=1
	return $rv
}

# --- building -----------------------------------------------------------------------------------

jobs_wanted()
{
	echo "${SKERRY_JOBS:-$(nproc)}"
}

# build_dir PRESET: where the scripts build; SKERRY_BUILD moves it.
build_dir()
{
	echo "${SKERRY_BUILD:-$skerry_root/build}/$1"
}

# build PRESET [TARGET...]: configures and builds; prints the compiler's output only on failure.
# A lock keeps two scripts from building in one directory at the same time.
build()
{
	local preset=$1 dir log rv=0
	shift
	dir=$(build_dir "$preset")
	mkdir -p "$dir" || return 1
	# What one clone has compiled another one need not compile again.
	export CCACHE_BASEDIR=$skerry_root CCACHE_NOHASHDIR=1
	log=$dir/build.log
	(
		flock 9
		cmake --preset "$preset" -S "$skerry_root" -B "$dir" >"$log" 2>&1 &&
			ninja -C "$dir" -j "$(jobs_wanted)" "$@" >>"$log" 2>&1
	) 9>"$dir/.lock" || rv=$?
	if [ $rv -ne 0 ]; then
		grep -E -A12 'FAILED|error|Error' "$log" | head -80 >&2
		warn "build of $preset failed; the whole output is in $log"
	fi
	return $rv
}
