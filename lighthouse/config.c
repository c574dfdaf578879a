#include "lighthouse/config.h"

#include <errno.h>
#include <string.h>

#include "api/api.h"
#include "base/fileio.h"
#include "base/mem.h"
#include "base/prefix.h"
#include "net/dial.h"

static const char *const tls_choices[] = {"cluster", "file", "none", NULL};
static const char *const serve_choices[] = {"agent", "admin",   "web", "relay",
					    "dns",   "metrics", NULL};
static const char *const backup_choices[] = {"leader", "each", NULL}; /* enum schedule_by */
static const char *const level_choices[] = {"error", "warn", "info", "debug", NULL};

static int check_prefixes(const void *value, struct err *e)
{
	const struct config_strings *s = value;
	struct prefix p;

	for (size_t i = 0; i < s->n; i++) {
		int rc = prefix_parse(s->v[i], &p, e);

		if (rc < 0)
			return rc;
	}
	return 0;
}

/* What a listener can be given: host:port, [v6]:port, :port, unix:/path. */
static int check_listen(const void *value, struct err *e)
{
	const char *text = *(char *const *)value;
	char host[256];
	uint16_t port;

	if (!text || !strncmp(text, "unix:/", 6))
		return 0;
	if (*text == ':') {
		char *any = mem_printf("0.0.0.0%s", text);
		int rc = hostport_parse(any, 0, host, sizeof(host), &port, e);

		mem_free(any);
		return rc;
	}
	return hostport_parse(text, 0, host, sizeof(host), &port, e);
}

/* Where others dial us: host:port, and a port that is one. */
static int check_peer_address(const void *value, struct err *e)
{
	const char *text = *(char *const *)value;
	char host[256];
	uint16_t port;
	int rc = hostport_parse(text, 0, host, sizeof(host), &port, e);

	if (rc >= 0 && port == 0)
		return err_set(e, ERR_INVALID, "\"%s\": nobody can reach port 0", text);
	return rc;
}

static int check_url(const void *value, struct err *e)
{
	const char *url = *(char *const *)value;

	if (strncmp(url, "https://", 8) != 0)
		return err_set(e, ERR_INVALID, "\"%s\" is not an https:// URL", url);
	return dial_parse(url, NULL, NULL, NULL, e);
}

static int check_path(const void *value, struct err *e)
{
	const char *path = *(char *const *)value;

	if (*path != '/')
		return err_set(e, ERR_INVALID, "must be an absolute path, not \"%s\"", path);
	return 0;
}

#define L(member) offsetof(struct lighthouse_listener, member)
static const struct config_key listener_keys[] = {
	{.path = "address",
	 .type = CONFIG_STRING,
	 .offset = L(address),
	 .required = true,
	 .check = check_listen},
	{.path = "tls",
	 .type = CONFIG_ENUM,
	 .offset = L(tls),
	 .def = "cluster",
	 .choices = tls_choices},
	{.path = "cert", .type = CONFIG_STRING, .offset = L(cert)},
	{.path = "key", .type = CONFIG_STRING, .offset = L(key)},
	{.path = "serve",
	 .type = CONFIG_STRINGS,
	 .offset = L(serve),
	 .required = true,
	 .choices = serve_choices},
	{.path = "proxy_protocol",
	 .type = CONFIG_STRINGS,
	 .offset = L(proxy_protocol),
	 .check = check_prefixes},
	{.path = "allow_from",
	 .type = CONFIG_STRINGS,
	 .offset = L(allow_from),
	 .check = check_prefixes},
};
#undef L

static const struct config_schema listener_schema = {
	.keys = listener_keys,
	.nkeys = ARRAY_LEN(listener_keys),
	.size = sizeof(struct lighthouse_listener),
};

#define C(member) offsetof(struct lighthouse_config, member)
static const struct config_key keys[] = {
	{.path = "state_dir",
	 .type = CONFIG_STRING,
	 .offset = C(state_dir),
	 .def = "/var/lib/skerry/lighthouse",
	 .check = check_path},
	{.path = "socket",
	 .type = CONFIG_STRING,
	 .offset = C(socket),
	 .def = "/run/skerry/skerryd.sock",
	 .check = check_path},
	{.path = "socket_group", .type = CONFIG_STRING, .offset = C(socket_group)},
	{.path = "peer_listen",
	 .type = CONFIG_STRING,
	 .offset = C(peer_listen),
	 .def = ":8444",
	 .check = check_listen},
	{.path = "peer_address",
	 .type = CONFIG_STRING,
	 .offset = C(peer_address),
	 .check = check_peer_address},
	{.path = "api_url", .type = CONFIG_STRING, .offset = C(api_url), .check = check_url},
	{.path = "log_level",
	 .type = CONFIG_STRING,
	 .offset = C(log_level),
	 .def = "info",
	 .choices = level_choices},
	{.path = "reflection_public",
	 .type = CONFIG_BOOL,
	 .offset = C(reflection_public),
	 .def = "false"},
	{.path = "drain",
	 .type = CONFIG_DURATION,
	 .offset = C(drain_ms),
	 .def = "10s",
	 .min = 0,
	 .max = 600000},
	{.path = "snapshot_after",
	 .type = CONFIG_SIZE,
	 .offset = C(snapshot_bytes),
	 .def = "16MiB",
	 .min = 16 << 10,
	 .max = 1 << 30},
	{.path = "store_size",
	 .type = CONFIG_SIZE,
	 .offset = C(store_bytes),
	 .def = "16GiB",
	 .min = 4 << 20,
	 .max = INT64_C(1) << 40},
	{.path = "compare_every",
	 .type = CONFIG_DURATION,
	 .offset = C(compare_ms),
	 .def = "10m",
	 .min = 100,
	 .max = INT64_C(86400000)},
	{.path = "scrub_every",
	 .type = CONFIG_DURATION,
	 .offset = C(scrub_ms),
	 .def = "6h",
	 .min = 100,
	 .max = INT64_C(86400000) * 30},
	{.path = "backup.directory",
	 .type = CONFIG_STRING,
	 .offset = C(backup.directory),
	 .check = check_path},
	{.path = "backup.every",
	 .type = CONFIG_DURATION,
	 .offset = C(backup.every_ms),
	 .def = "24h",
	 .min = 1000,
	 .max = 366ll * 86400 * 1000},
	{.path = "backup.keep",
	 .type = CONFIG_INT,
	 .offset = C(backup.keep),
	 .def = "14",
	 .min = 1,
	 .max = 5000},
	{.path = "backup.by",
	 .type = CONFIG_ENUM,
	 .offset = C(backup.by),
	 .def = "leader",
	 .choices = backup_choices},
	{.path = "listeners", .type = CONFIG_LIST, .offset = C(listeners), .sub = &listener_schema},
};
#undef C

static const struct config_schema schema = {
	.keys = keys,
	.nkeys = ARRAY_LEN(keys),
	.size = sizeof(struct lighthouse_config),
};

static const char default_listeners[] = "listeners:\n"
					"  - address: \":8443\"\n"
					"    serve: [agent, admin, web]\n"
					"  - address: 127.0.0.1:9443\n"
					"    tls: none\n"
					"    serve: [metrics]\n";

/* An absent list means the defaults; an empty one would leave a lighthouse that nobody can use. */
static int add_default_listeners(struct lighthouse_config *c, struct err *err)
{
	struct lighthouse_config d;
	int rc = config_parse(default_listeners, strlen(default_listeners), "defaults", &schema, &d,
			      err);

	if (rc < 0)
		return rc;
	c->listeners = d.listeners;
	memset(&d.listeners, 0, sizeof(d.listeners));
	config_done(&schema, &d);
	return 0;
}

static int check_listeners(const struct lighthouse_config *c, const char *path, struct err *err)
{
	const struct lighthouse_listener *l = c->listeners.v;

	for (size_t i = 0; i < c->listeners.n; i++) {
		bool file = l[i].tls == LIGHTHOUSE_TLS_FILE;

		if (file != (l[i].cert && l[i].key))
			return err_field(
				err, ERR_INVALID, path, "listener %s: %s", l[i].address,
				file ? "tls: file needs cert and key, the paths of two PEM files"
				     : "cert and key go with tls: file");
	}
	return 0;
}

int lighthouse_config_load(const char *path, struct lighthouse_config *ret, struct err *err)
{
	int rc;

	if (!path && !file_exists(LIGHTHOUSE_CONFIG_PATH))
		rc = config_defaults(&schema, ret, err);
	else
		rc = config_load(path ? path : LIGHTHOUSE_CONFIG_PATH, &schema, ret, err);
	/* A file that is named and cannot be read is as wrong as what could stand in it. */
	if (rc < 0 && rc != ERR_INVALID && rc != ERR_LIMIT)
		rc = err_field(err, ERR_PRECONDITION, path ? path : LIGHTHOUSE_CONFIG_PATH, "%s",
			       err_msg(err, rc));
	if (rc < 0)
		return rc;
	if (ret->listeners.n == 0)
		rc = add_default_listeners(ret, err);
	if (rc >= 0)
		rc = check_listeners(ret, path ? path : LIGHTHOUSE_CONFIG_PATH, err);
	if (rc < 0)
		lighthouse_config_done(ret);
	return rc;
}

void lighthouse_config_done(struct lighthouse_config *c)
{
	config_done(&schema, c);
}

int lighthouse_serve_mask(const struct lighthouse_listener *l, unsigned *ret_mask, struct err *err)
{
	static const unsigned bits[] = {API_SERVE_AGENT, API_SERVE_ADMIN, API_SERVE_WEB,
					API_SERVE_RELAY, API_SERVE_DNS,   API_SERVE_METRICS};
	unsigned mask = 0;

	for (size_t i = 0; i < l->serve.n; i++) {
		size_t k = 0;

		while (serve_choices[k] && strcmp(serve_choices[k], l->serve.v[i]) != 0)
			k++;
		if (!serve_choices[k])
			return err_set(err, ERR_INVALID, "listener %s: cannot serve \"%s\"",
				       l->address, l->serve.v[i]);
		mask |= bits[k];
	}
	*ret_mask = mask;
	return 0;
}
