#include "agent/config.h"

#include <errno.h>
#include <string.h>

#include "base/limits.h"
#include "base/log.h"
#include "net/dial.h"

static int check_path(const void *value, struct err *e)
{
	const char *path = *(char *const *)value;

	return path[0] == '/'
		       ? 0
		       : err_set(e, ERR_INVALID, "must be an absolute path, not \"%s\"", path);
}

static int check_interface(const void *value, struct err *e)
{
	const char *name = *(char *const *)value;

	/* What the kernel takes; a leading hyphen would be an option of wireguard-go. */
	if (name[0] == '\0' || strlen(name) > 15 || name[0] == '-' ||
	    strpbrk(name, "/: \t%") != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		return err_set(
			e, ERR_INVALID,
			"\"%s\" is no interface name: 1 to 15 characters without / : %% and blanks",
			name);
	}
	return 0;
}

static int check_lighthouses(const void *value, struct err *e)
{
	const struct config_strings *urls = value;

	if (urls->n > LIM_LIGHTHOUSE_URLS) {
		return err_set(e, ERR_LIMIT, "%zu lighthouses, at most %d are taken", urls->n,
			       LIM_LIGHTHOUSE_URLS);
	}
	for (size_t i = 0; i < urls->n; i++) {
		bool tls;

		if (dial_parse(urls->v[i], NULL, NULL, &tls, e) < 0 ||
		    strncmp(urls->v[i], "https://", 8) != 0) {
			return err_set(e, ERR_INVALID, "\"%s\" is no https://host:port",
				       urls->v[i]);
		}
	}
	return 0;
}

static int check_resolvers(const void *value, struct err *e)
{
	const struct config_strings *list = value;

	for (size_t i = 0; i < list->n; i++) {
		struct ipport port;
		struct ipaddr addr;

		if (ipaddr_parse(list->v[i], &addr, NULL) < 0 &&
		    ipport_parse(list->v[i], &port, NULL) < 0) {
			return err_set(e, ERR_INVALID, "\"%s\" is no address or address:port",
				       list->v[i]);
		}
	}
	return 0;
}

static int check_log_level(const void *value, struct err *e)
{
	enum log_level level;

	return log_level_parse(*(char *const *)value, &level, e);
}

static const char *const dns_choices[] = {"off", "serve", "host", "all", NULL};

#define AT(field) offsetof(struct agent_config, field)
static const struct config_key keys[] = {
	{.path = "state_dir",
	 .type = CONFIG_STRING,
	 .offset = AT(state_dir),
	 .def = "/var/lib/skerry/agent",
	 .check = check_path},
	{.path = "socket",
	 .type = CONFIG_STRING,
	 .offset = AT(socket),
	 .def = "/run/skerry/agent.sock",
	 .check = check_path},
	{.path = "socket_group",
	 .type = CONFIG_STRING,
	 .offset = AT(socket_group),
	 .def = "skerry"},
	{.path = "interface",
	 .type = CONFIG_STRING,
	 .offset = AT(interface),
	 .def = "skerry0",
	 .check = check_interface},
	{.path = "listen_port",
	 .type = CONFIG_INT,
	 .offset = AT(listen_port),
	 .def = "41641",
	 .min = 1,
	 .max = 65535},
	{.path = "mtu",
	 .type = CONFIG_INT,
	 .offset = AT(mtu),
	 .def = "1280",
	 .min = 1280,
	 .max = 9000},
	{.path = "wireguard_go",
	 .type = CONFIG_STRING,
	 .offset = AT(wireguard_go),
	 .def = "wireguard-go"},
	{.path = "uapi_dir",
	 .type = CONFIG_STRING,
	 .offset = AT(uapi_dir),
	 .def = "/var/run/wireguard",
	 .check = check_path},
	{.path = "lighthouses",
	 .type = CONFIG_STRINGS,
	 .offset = AT(lighthouses),
	 .check = check_lighthouses},
	{.path = "accept_dns",
	 .type = CONFIG_ENUM,
	 .offset = AT(accept_dns),
	 .def = "serve",
	 .choices = dns_choices},
	{.path = "accept_routes", .type = CONFIG_BOOL, .offset = AT(accept_routes), .def = "false"},
	{.path = "resolvers",
	 .type = CONFIG_STRINGS,
	 .offset = AT(resolvers),
	 .check = check_resolvers},
	{.path = "resolv_conf",
	 .type = CONFIG_STRING,
	 .offset = AT(resolv_conf),
	 .def = "/etc/resolv.conf",
	 .check = check_path},
	{.path = "machine_id",
	 .type = CONFIG_STRING,
	 .offset = AT(machine_id),
	 .def = "/etc/machine-id",
	 .check = check_path},
	{.path = "log_level",
	 .type = CONFIG_STRING,
	 .offset = AT(log_level),
	 .def = "info",
	 .check = check_log_level},
};

static const struct config_schema schema = {keys, ARRAY_LEN(keys), sizeof(struct agent_config)};

int agent_config_parse(const char *text, size_t len, const char *name, struct agent_config *ret,
		       struct err *e)
{
	return config_parse(text, len, name, &schema, ret, e);
}

int agent_config_load(const char *path, bool must_exist, struct agent_config *ret, struct err *e)
{
	int r = config_load(path, &schema, ret, e);

	if (r == -ENOENT && !must_exist) {
		return config_defaults(&schema, ret, e);
	}
	return r;
}

void agent_config_done(struct agent_config *config)
{
	config_done(&schema, config);
}
