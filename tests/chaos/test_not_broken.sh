#!/bin/bash
# No program of an ordinary build lacks a guard on purpose (cmake/SkerryBroken.cmake), and one that does is known by it.
set -u
: "${SKERRY_BIN:?}"
rv=0
case $SKERRY_BIN in
*/broken-*) wanted=1 ;;
*) wanted=0 ;;
esac
[ -x "$SKERRY_BIN/skerryd" ] || {
	echo "skipped: skerryd is not built"
	exit 77
}
for program in "$SKERRY_BIN"/*; do
	found=0
	grep -qa 'SKERRY_BREAK' "$program" && found=1
	case $program in
	*/skerryd) [ $found -eq $wanted ] ;;
	*) [ $found -eq 0 ] ;;
	esac || {
		echo "$program: broken on purpose: $found, wanted $wanted"
		rv=1
	}
done
exit $rv
