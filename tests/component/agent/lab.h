/* A network namespace of the test's own, with a private directory for UAPI sockets. */
#pragma once

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"

/* Moves this process into it. NULL, or why it cannot be: a reason to skip. */
static UNUSED const char *lab_enter(void)
{
	if (geteuid() != 0) {
		return "needs root";
	}
	if (access("/dev/net/tun", R_OK | W_OK) != 0) {
		return "needs /dev/net/tun";
	}
	if (system("command -v wireguard-go >/dev/null && command -v ip >/dev/null") != 0) {
		return "needs wireguard-go and iproute2";
	}
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
		return "cannot make namespaces";
	}
	if ((mkdir("/var/run/wireguard", 0700) != 0 && errno != EEXIST) ||
	    mount("none", "/var/run/wireguard", "tmpfs", 0, "size=1m") != 0) {
		return "cannot mount over /var/run/wireguard";
	}
	return system("ip link set lo up") == 0 ? NULL : "cannot bring up a loopback interface";
}

/* Ends the wireguard-go of the interface as a crash would: found by its namespace and name. */
static UNUSED int lab_kill_wireguard(const char *ifname)
{
	char command[512];

	snprintf(command, sizeof(command),
		 "for p in $(ls /proc | grep -E '^[0-9]+$'); do"
		 " [ \"$(readlink /proc/$p/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ] &&"
		 " tr '\\0' ' ' </proc/$p/cmdline 2>/dev/null | grep -q '^wireguard-go %s ' &&"
		 " kill -9 $p; done; true",
		 ifname);
	return system(command);
}
