/* What the load clients have in common: TLS without a look at who answers, and the API key of a file. */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "net/rpc_client.h"
#include "net/tls.h"

struct client_key {
	char authorization[1100]; /* empty: none is sent */
};

static int client_accept(void *arg, const struct tls_peer *peer, struct err *err)
{
	(void)arg;
	(void)peer;
	(void)err;
	return 0;
}

static inline int client_tls(struct tls_ctx **ret, struct err *err)
{
	static const char *const alpn[] = {"h2", NULL};
	struct tls_client_opts opts = {
		.trust = TLS_TRUST_CALLBACK, .alpn = alpn, .verify = client_accept};

	return tls_client_new(&opts, ret, err);
}

/* For rpc_channel_opts.metadata; arg: the struct client_key. */
static inline size_t client_metadata(void *arg, const char *path, struct rpc_metadata *out,
				     size_t max)
{
	struct client_key *k = arg;

	(void)path;
	if (max == 0 || k->authorization[0] == '\0')
		return 0;
	out[0] = (struct rpc_metadata){.name = "authorization", .value = k->authorization};
	return 1;
}

static inline int client_key_read(struct client_key *k, const char *path, struct err *err)
{
	FILE *file = fopen(path, "r");
	char key[1024];

	if (!file || !fgets(key, sizeof(key), file)) {
		if (file)
			fclose(file);
		return err_set(err, ERR_NOT_FOUND, "no API key in %s", path);
	}
	fclose(file);
	key[strcspn(key, "\r\n")] = '\0';
	snprintf(k->authorization, sizeof(k->authorization), "Bearer %s", key);
	return 0;
}
