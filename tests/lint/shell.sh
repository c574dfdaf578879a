#!/bin/bash
# Shell lint: bash -n on every shell script of the tree, shellcheck where it is installed, and the help of the commands.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
mapfile -t scripts < <(git -c safe.directory='*' ls-files --cached --others --exclude-standard |
	while read -r name; do
		[ -f "$name" ] || continue
		case $name in
		*.sh) echo "$name" ;;
		*.*) ;;
		*) head -c 20 "$name" | grep -qaE '^#!/bin/(ba)?sh' && echo "$name" ;;
		esac
	done)
rv=0
for script in "${scripts[@]}"; do
	bash -n "$script" || rv=1
done
if command -v shellcheck >/dev/null; then
	# 1090/1091: sourced files; 2034, 2154: variables that cross sourced files; 2317: functions called by name.
	shellcheck -s bash -S warning -e SC1090,SC1091,SC2034,SC2154,SC2317 "${scripts[@]}" || rv=1
else
	echo "note: shellcheck is not installed; only the syntax was looked at"
fi
for script in scripts/*; do
	case $script in *.sh | *.py) continue ;; esac
	# To a command that took it for something else it might be a long run.
	text=$(timeout 10 "$script" --help </dev/null) && [ -n "$text" ] || {
		echo "$script --help says nothing, or fails"
		rv=1
	}
done
echo "shell: ${#scripts[@]} scripts"
exit $rv
