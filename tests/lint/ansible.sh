#!/bin/bash
# Ansible lint: ansible-lint over ansible/, and the syntax of the playbook with the example inventory.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../../ansible" || exit 2
if ! command -v ansible-lint >/dev/null || ! command -v ansible-playbook >/dev/null; then
	echo "ansible-lint is not installed (scripts/deps --full does)"
	exit 77
fi
# What they cache goes with them.
home=$(mktemp -d) || exit 2
trap 'rm -rf "$home"' EXIT
export HOME=$home ANSIBLE_HOME=$home/.ansible ANSIBLE_LOCAL_TEMP=$home/tmp LC_ALL=C.UTF-8 XDG_CACHE_HOME=$home/cache
# Debian's ansible-lint wants Debian's Python before any other one.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
rv=0
ansible-playbook -i inventory.example.yml --syntax-check site.yml || rv=1
ansible-lint --offline --nocolor -q --project-dir . site.yml roles inventory.example.yml || rv=1
exit $rv
