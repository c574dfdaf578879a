/* The agent's configuration file: what the host's administrator sets and a command line does not. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "base/macros.h"
#include "base/prefix.h"

#define AGENT_CONFIG_DEFAULT "/etc/skerry/agent.yaml"

struct agent_config {
	char *state_dir;
	char *socket;
	char *socket_group; /* beside root and the operator; need not exist */
	char *interface;
	int64_t listen_port; /* first UDP port tried */
	int64_t mtu;
	char *wireguard_go;
	char *uapi_dir;
	struct config_strings lighthouses; /* beside those of `skerry up` */
	int accept_dns; /* enum accept_dns - 1: index of off, serve, host, all; the default until `skerry set` says else */
	bool accept_routes;              /* likewise */
	struct config_strings resolvers; /* for other names; empty: those of resolv_conf */
	char *resolv_conf;
	char *machine_id; /* file that names the host */
	char *log_level;
};

/*
 * Reads the file. A missing file is fine if it is the default one: all defaults then. Errors have file:line in `field`.
 * agent_config_done() on success.
 */
MUST_CHECK int agent_config_load(const char *path, bool must_exist, struct agent_config *ret,
				 struct err *e);
MUST_CHECK int agent_config_parse(const char *text, size_t len, const char *name,
				  struct agent_config *ret, struct err *e);
void agent_config_done(struct agent_config *config);
