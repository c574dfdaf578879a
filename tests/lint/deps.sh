#!/bin/bash
# scripts/deps derives the backports entry from the mirror that apt already uses, in both formats of source lists.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
rv=0

# expect TEXT: derives in $dir and compares what it wrote.
expect()
{
	local got
	SKERRY_APT_DIR=$dir scripts/deps --backports-only bookworm >/dev/null 2>&1
	got=$(cat "$dir"/sources.list.d/skerry-backports.* 2>/dev/null)
	if [ "$got" != "$1" ]; then
		printf 'expected:\n%s\ngot:\n%s\n' "$1" "$got"
		rv=1
	fi
	rm -rf "$dir"/sources.list*
	mkdir -p "$dir/sources.list.d"
}

mkdir -p "$dir/sources.list.d"
cat >"$dir/sources.list" <<'END'
# deb http://no.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian bookworm main contrib
deb http://one.example/security bookworm-security main
END
expect 'deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian bookworm-backports main'

echo 'deb http://one.example/debian bookworm main' >"$dir/sources.list.d/x.list"
expect 'deb http://one.example/debian bookworm-backports main'

cat >"$dir/sources.list.d/debian.sources" <<'END'
Types: deb deb-src
URIs: http://two.example/security
Suites: bookworm-security
Components: main

Types: deb
# a comment
URIs: http://two.example/debian
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/k.gpg
END
expect 'Types: deb
URIs: http://two.example/debian
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/k.gpg'

# A backports suite that is already there is left alone.
printf 'Types: deb\nURIs: http://two.example/debian\nSuites: bookworm bookworm-backports\nComponents: main\n' \
	>"$dir/sources.list.d/debian.sources"
expect ''

# Without a source of the release there is nothing to derive from.
echo 'deb http://one.example/other stable main' >"$dir/sources.list"
expect ''

[ $rv -eq 0 ] && echo "deps: 5 cases"
exit $rv
