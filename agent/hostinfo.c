#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent/control_int.h"
#include "base/buf.h"
#include "base/fileio.h"

/* PRETTY_NAME of /etc/os-release, or the kernel's name. */
static void read_os(char *out, size_t cap, const struct utsname *uts)
{
	static const char key[] = "PRETTY_NAME=\"";
	struct buf text = BUF_INIT;
	const char *at, *end;

	snprintf(out, cap, "%s %s", uts->sysname, uts->release);
	if (file_read("/etc/os-release", 64 << 10, &text, NULL) >= 0) {
		at = strstr(buf_str(&text), key);
		end = at == NULL ? NULL : strchr(at + sizeof(key) - 1, '"');
		if (end != NULL) {
			at += sizeof(key) - 1;
			snprintf(out, cap, "%.*s", (int)(end - at), at);
		}
	}
	buf_done(&text);
}

void host_info_fill(Skerry__V1__HostInfo *ret, const char *hostname)
{
	static char os_version[128], own_name[256];
	static struct utsname uts;

	if (os_version[0] == '\0') {
		uname(&uts);
		read_os(os_version, sizeof(os_version), &uts);
	}
	if (gethostname(own_name, sizeof(own_name) - 1) < 0) {
		own_name[0] = '\0';
	}
	skerry__v1__host_info__init(ret);
	ret->os = (char *)"linux";
	ret->os_version = os_version;
	ret->hostname = hostname[0] != '\0' ? (char *)hostname : own_name;
	ret->client_version = (char *)SKERRY_VERSION;
	ret->architecture = uts.machine;
}
