/* The configuration of skerryd: lighthouse.yaml. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "base/macros.h"

enum lighthouse_tls {
	LIGHTHOUSE_TLS_CLUSTER, /* the certificate of the cluster's own CA */
	LIGHTHOUSE_TLS_FILE, /* cert and key from files for other names; the cluster's for its own name */
	LIGHTHOUSE_TLS_NONE,
};

struct lighthouse_listener {
	char *address;
	int tls; /* enum lighthouse_tls */
	char *cert, *key;
	struct config_strings serve;
	struct config_strings proxy_protocol; /* prefixes that may send a PROXY header */
	struct config_strings allow_from;
};

struct lighthouse_config {
	char *state_dir;
	char *socket;
	char *socket_group;
	char *peer_listen;
	char *peer_address;
	char *api_url;
	char *log_level;
	bool reflection_public;
	int64_t drain_ms;
	int64_t snapshot_bytes;       /* of log between two snapshots */
	int64_t store_bytes;          /* of the store's map: its limit */
	int64_t compare_ms, scrub_ms; /* between two of each */
	struct {
		char *directory; /* NULL: no schedule */
		int64_t every_ms, keep;
		int by; /* enum schedule_by */
	} backup;
	struct config_list listeners; /* of struct lighthouse_listener */
};

/* The default path. */
#define LIGHTHOUSE_CONFIG_PATH "/etc/skerry/lighthouse.yaml"

/*
 * Reads the file; a missing file at the default path is an empty one. Fills in what follows from other values
 * (listeners, if there are none: the API on :8443 of IPv4 and IPv6, metrics on 127.0.0.1:9443). Errors carry file:line.
 * The caller calls lighthouse_config_done on success.
 */
MUST_CHECK int lighthouse_config_load(const char *path, struct lighthouse_config *ret,
				      struct err *err);
void lighthouse_config_done(struct lighthouse_config *c);

/* The serve list as a mask of enum api_serve; ERR_INVALID names the choices. */
MUST_CHECK int lighthouse_serve_mask(const struct lighthouse_listener *l, unsigned *ret_mask,
				     struct err *err);
