/* init, join and check: what is done while the daemon does not run. */
#include <errno.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/enc.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/name.h"
#include "base/prefix.h"
#include "cluster/check.h"
#include "cluster/cluster.h"
#include "lighthouse/commands.h"
#include "lighthouse/config.h"

enum { API_PORT = 8443, PEER_PORT = 8444, JOIN_MS = 30000 };

int command_fail(const struct err *err)
{
	fprintf(stderr, "skerryd: %s", err_msg(err, err->code));
	/* A mistake in the file has its place in both. */
	if (err->field[0] && !strstr(err_msg(err, err->code), err->field))
		fprintf(stderr, " (%s)", err->field);
	fputc('\n', stderr);
	switch (err->code) {
	case ERR_CORRUPT:
	case ERR_DATA_LOSS: return EXIT_DATA;
	case ERR_UNAVAILABLE:
	case ERR_DEADLINE:
	case ERR_NO_QUORUM: return EXIT_NOT_READY;
	case ERR_INVALID:
		return err->field[0] && strchr(err->field, ':') ? EXIT_CONFIG : EXIT_USAGE_ERROR;
	case ERR_FEATURE_LEVEL: return EXIT_OLD_BUILD;
	case ERR_PRECONDITION:
		if (!strcmp(err->reason, "FEATURE_LEVEL"))
			return EXIT_OLD_BUILD;
		if (!strcmp(err->reason, "NOT_INITIALISED"))
			return EXIT_NOT_READY;
		return !strcmp(err->reason, "MEMBER_REMOVED") ? EXIT_REMOVED : EXIT_CONFIG;
	default: return EXIT_FAILED;
	}
}

/* The first address of this host that others could reach; false: there is none. */
static bool host_address(struct ipaddr *ret)
{
	struct ifaddrs *list;
	bool found = false;

	if (getifaddrs(&list))
		return false;
	for (int family = 4; family <= 6 && !found; family += 2) {
		for (struct ifaddrs *i = list; i && !found; i = i->ifa_next) {
			struct ipport p;

			if (i->ifa_addr && ipport_from_sockaddr(i->ifa_addr, &p) &&
			    p.addr.family == family && ipaddr_is_unicast(&p.addr) &&
			    !ipaddr_is_cgnat(&p.addr)) {
				*ret = p.addr;
				found = true;
			}
		}
	}
	freeifaddrs(list);
	return found;
}

/*
 * The address that others shall use: as given on the command line or in the file, else this host's with the port.
 * Returns malloc'd "host:port".
 */
static int choose_address(const char *given, const char *configured, uint16_t port,
			  const char *flag, char **ret, struct err *err)
{
	const char *text = given ? given : configured;
	struct ipport own = {.port = port};
	char out[IPPORT_TEXT];
	char host[256];
	uint16_t p;
	int rc;

	if (text && !strncmp(text, "https://", 8)) {
		text += 8;
		port = 443; /* as everybody reads such a URL */
	}
	if (text) {
		rc = hostport_parse(text, port, host, sizeof(host), &p, err);
		if (rc >= 0 && p == 0)
			rc = err_set(err, ERR_INVALID, "nobody can reach port 0");
		if (rc < 0) {
			err_prefix(err, "%s %s", flag, text);
			return rc;
		}
		*ret = mem_printf(strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, p);
		return 0;
	}
	if (!host_address(&own.addr))
		return err_set(err, ERR_INVALID,
			       "this host has no address that others could reach; give one with %s "
			       "HOST:%u",
			       flag, port);
	*ret = mem_strdup(ipport_format(&own, out));
	return 0;
}

void place_done(struct place *p)
{
	lighthouse_config_done(&p->config);
	mem_free(p->api_url);
	mem_free(p->peer_address);
}

int place_init(const struct lighthouse_args *a, struct place *p, struct err *err)
{
	char host[256] = "lighthouse";
	char *api = NULL;
	int rc;

	memset(p, 0, sizeof(*p));
	rc = lighthouse_config_load(a->config, &p->config, err);
	if (rc < 0)
		return rc;
	p->dir = a->dir ? a->dir : p->config.state_dir;
	(void)gethostname(host, sizeof(host) - 1);
	if (a->name)
		rc = name_valid_label(a->name, strlen(a->name), err);
	if (rc < 0)
		err_prefix(err, "--name %s", a->name);
	else if (a->name)
		snprintf(p->name, sizeof(p->name), "%s", a->name);
	else
		name_sanitize(host, p->name);
	if (rc >= 0)
		rc = choose_address(a->api_address, p->config.api_url, API_PORT, "--api-address",
				    &api, err);
	if (rc >= 0) {
		p->api_url = mem_printf("https://%s", api);
		rc = choose_address(a->peer_address, p->config.peer_address, PEER_PORT,
				    "--peer-address", &p->peer_address, err);
	}
	mem_free(api);
	if (rc < 0)
		place_done(p);
	return rc;
}

void place_print_run(const struct lighthouse_args *a)
{
	printf("skerryd run%s%s%s%s\n", a->config ? " --config " : "", a->config ? a->config : "",
	       a->dir ? " --dir " : "", a->dir ? a->dir : "");
}

int command_init(const struct lighthouse_args *a)
{
	struct cluster_init_options o = {0};
	char *recovery = NULL;
	struct err err = {0};
	struct place p;
	int rc = place_init(a, &p, &err);

	if (rc < 0)
		return command_fail(&err);
	/* It is the first label of the names, if no domain is given. */
	if (a->cluster_name)
		rc = name_valid_label(a->cluster_name, strlen(a->cluster_name), &err);
	if (rc < 0) {
		err_prefix(&err, "--cluster-name %s", a->cluster_name);
		place_done(&p);
		return command_fail(&err);
	}
	o.dir = p.dir;
	o.name = p.name;
	o.cluster_name = a->cluster_name ? a->cluster_name : "skerry";
	o.base_domain = a->base_domain;
	o.peer_address = p.peer_address;
	o.api_url = p.api_url;
	rc = cluster_init(&o, &recovery, &err);
	if (rc < 0) {
		place_done(&p);
		return command_fail(&err);
	}
	printf("Cluster \"%s\" is made: lighthouse \"%s\", tailnet \"default\" (names end in "
	       ".%s%s), user \"admin\".\n"
	       "Devices will reach it at %s, other lighthouses at %s.\n\n"
	       "Recovery string of the cluster's key. Write it down: it is shown only now, and a "
	       "backup without it (or\n"
	       "cluster.key) cannot be restored.\n\n  %s\n\nNext:\n",
	       o.cluster_name, p.name, a->base_domain ? a->base_domain : o.cluster_name,
	       a->base_domain ? "" : ".internal", p.api_url, p.peer_address, recovery);
	printf("  1. start it:            ");
	place_print_run(a);
	printf("  2. make an auth key:    skerry auth-key create\n"
	       "  3. on a device:         skerry up --lighthouse %s --auth-key KEY\n"
	       "\nFor two more lighthouses: skerry cluster token, and on each host skerryd join "
	       "TOKEN.\n",
	       p.api_url);
	mem_free(recovery);
	place_done(&p);
	return EXIT_OK;
}

int command_join(const struct lighthouse_args *a)
{
	struct cluster_join_options o = {.timeout_ms = JOIN_MS, .version = SKERRY_VERSION};
	struct secret_str token = {0};
	struct err err = {0};
	struct place p;
	bool literal = false;
	int64_t timeout;
	int rc = place_init(a, &p, &err);

	if (rc < 0)
		return command_fail(&err);
	if (a->timeout) {
		rc = duration_parse(a->timeout, &timeout, &err);
		if (rc >= 0 && (timeout < 1000 || timeout > 3600000))
			rc = err_set(&err, ERR_INVALID, "--timeout %s: between 1s and 1h",
				     a->timeout);
		o.timeout_ms = rc < 0 ? 0 : (unsigned)timeout;
	}
	if (rc >= 0)
		rc = secret_read(a->argument, &token, &literal, &err);
	if (rc >= 0) {
		/* It works once, and is spent when this returns: no warning about the argument list. */
		o.dir = p.dir;
		o.token = secret_str_reveal(&token);
		o.name = p.name;
		o.peer_address = p.peer_address;
		o.api_url = p.api_url;
		printf("Joining as \"%s\" (devices: %s, lighthouses: %s) ...\n", p.name, p.api_url,
		       p.peer_address);
		fflush(stdout);
		rc = cluster_join(&o, &err);
	}
	secret_str_done(&token);
	if (rc < 0) {
		place_done(&p);
		return command_fail(&err);
	}
	printf("Joined. Next:\n  1. start it:            ");
	place_print_run(a);
	printf("  2. watch it catch up:   skerry cluster status\n");
	place_done(&p);
	return EXIT_OK;
}

static int replay(const char *dir, struct err *err)
{
	struct cluster_replay_facts f;
	char digest[65];
	int rc = cluster_replay(dir, &f, err);

	if (rc < 0)
		return rc;
	if (f.has_snapshot)
		printf("replay: snapshot at entry %" PRIu64 ", then the entries up to %" PRIu64
		       "\n",
		       f.snapshot_index, f.last_index);
	else
		printf("replay: entries 1 to %" PRIu64 "\n", f.last_index);
	printf("epoch %" PRIu64 ", revision %" PRIu64 "\ndigest %s\n%s\n", f.epoch, f.revision,
	       hex_encode(digest, f.digest, sizeof(f.digest)),
	       f.comparable ? "equal to the store's" : "the store holds no state to compare with");
	return 0;
}

int command_check(const struct lighthouse_args *a)
{
	struct lighthouse_config config;
	struct cluster_check_facts facts;
	struct err err = {0};
	uint64_t entry = 0;
	int rc = lighthouse_config_load(a->config, &config, &err);

	if (rc < 0)
		return command_fail(&err);
	if (a->replay && a->dump_entry) {
		rc = err_set(&err, ERR_INVALID, "--replay and --dump-entry exclude each other");
	} else if (a->replay) {
		rc = replay(a->dir ? a->dir : config.state_dir, &err);
	} else if (a->dump_entry) {
		char *end;

		errno = 0;
		entry = strtoull(a->dump_entry, &end, 10);
		if (errno || *end || end == a->dump_entry || entry == 0)
			rc = err_set(&err, ERR_INVALID,
				     "--dump-entry %s: the number of an entry, from 1",
				     a->dump_entry);
		if (rc >= 0)
			rc = cluster_dump_entry(a->dir ? a->dir : config.state_dir, entry, stdout,
						&err);
	} else {
		rc = cluster_check_dir(a->dir ? a->dir : config.state_dir, &facts, &err);
		if (rc >= 0) {
			printf("cluster %" PRIu64 ", lighthouse %" PRIu64 "\nlog: entries %" PRIu64
			       " to %" PRIu64 "\nstore: applied %" PRIu64 ", revision %" PRIu64
			       ", %" PRIu64 " records\ndigest ",
			       facts.cluster_id, facts.lighthouse_id, facts.first_index,
			       facts.last_index, facts.applied_index, facts.revision,
			       facts.records);
			for (size_t i = 0; i < sizeof(facts.digest); i++)
				printf("%02x", facts.digest[i]);
			printf("\neverything is in order\n");
		}
	}
	lighthouse_config_done(&config);
	return rc < 0 ? command_fail(&err) : EXIT_OK;
}
