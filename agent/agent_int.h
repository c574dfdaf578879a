/* Inside of the daemon. */
#pragma once

#include "agent/admit.h"
#include "agent/agent.h"
#include "agent/control.h"
#include "agent/host.h"
#include "agent/identity.h"
#include "agent/mesh.h"
#include "agent/netmap.h"
#include "agent/path.h"
#include "agent/settings.h"
#include "agent/wg.h"
#include "base/list.h"
#include "net/loop.h"

enum {
	AGENT_APPLY_MS = 5,        /* changes of one burst are applied together */
	AGENT_POLL_MS = 2000,      /* WireGuard is asked how its peers do */
	AGENT_POLL_MANY_MS = 5000, /* with more than AGENT_MANY peers */
	AGENT_MANY = 200,
	AGENT_SAVE_MS = 500,    /* the netmap is written so long after a change */
	AGENT_REPAIR_MS = 2000, /* between attempts to get a working WireGuard */
	AGENT_PORTS = 64,       /* tried from the configured one on */
	AGENT_REFUSALS = 256,   /* kept for status */
	AGENT_RESOLVERS = 8,
};

/* A refusal as status shows it. */
struct refusal_line {
	enum refuse_kind kind;
	uint64_t node_id;
	uint64_t count;
	bool current;     /* in the last judgement */
	bool was_current; /* in the one before */
	char text[ADMIT_TEXT];
};

struct local;
struct dns_glue;

struct agent {
	struct loop *loop;
	const struct agent_config *config;
	struct identity identity;
	struct settings settings;
	struct netmap netmap;
	struct admitted admitted; /* of the netmap, empty before there is one */
	bool has_admitted;
	struct refusal_line *refusals;
	size_t n_refusals;
	struct control *control;

	/* mesh (apply.c) */
	bool use_fakes; /* wg and host are the test's */
	struct wg *wg;  /* NULL: WireGuard is not there now */
	struct host *host;
	struct paths *paths;
	bool adopted;
	bool wg_wanted; /* applied at least once, or up */
	uint16_t listen_port;
	char wg_problem[400];
	char host_problem[400];
	uint64_t operations;
	uint64_t failed_operations;
	struct mesh actual; /* as of the last look */
	struct loop_timer apply_timer;
	struct loop_timer poll_timer;
	bool applied; /* the last apply brought everything in line */

	/* the host (endpoints.c) */
	struct host_net net;
	struct ipport *endpoints; /* as reported */
	size_t n_endpoints;

	/* names (dns_glue.c) */
	struct dns_glue *dns;

	/* stored netmap (store.c) */
	struct loop_timer save_timer;
	bool save_due;
	bool saving;

	struct local *local;
};

/* ---- agent.c ---- */
/* The netmap, settings or host changed: judge again and apply soon. */
void agent_readmit(struct agent *a);
bool agent_is_up(const struct agent *a);
/* Own key expired (judged by the local clock). */
bool agent_is_expired(const struct agent *a);
/* Settings changed: writes them and brings everything in line. */
MUST_CHECK int agent_settings_changed(struct agent *a, struct err *e);
void agent_consent(struct agent *a, struct consent *ret, struct in_use **ret_in_use,
		   const char ***ret_hosts, struct prefix **ret_connected);
/* After logout: keys, netmap and mesh are gone. */
void agent_forget(struct agent *a);
char *agent_path(const struct agent *a, const char *file);

/* ---- apply.c ---- */
void agent_apply_soon(struct agent *a);
void agent_apply_now(struct agent *a);
/* Finds or starts WireGuard if it should be there; false: not there (wg_problem says why). */
bool agent_wg_ensure(struct agent *a);
void agent_poll_start(struct agent *a);

/* ---- endpoints.c ---- */
/* Reads the host's addresses, reports endpoints if they differ. */
void agent_endpoints_update(struct agent *a);
/* Pure: which addresses are endpoints. Returns their number; at most `max`. */
size_t endpoints_gather(const struct host_net *net, const struct prefix *tailnet, size_t n_tailnet,
			uint16_t port, struct ipport *ret, size_t max);

/* ---- store.c ---- */
void agent_save_soon(struct agent *a);
/* Waits for a write under way and writes what is due. */
void agent_save_flush(struct agent *a);

/* ---- dns_glue.c ---- */
struct dns_glue *dns_glue_new(struct agent *a);
void dns_glue_free(struct dns_glue *d);
/* Names or settings changed. */
void dns_glue_update(struct dns_glue *d);
bool dns_glue_serving(const struct dns_glue *d);
/* One line for status; lives until the next turn. */
const char *dns_glue_text(struct dns_glue *d);
size_t dns_glue_upstreams(const struct dns_glue *d, struct ipport *ret, size_t max);

/* ---- local.c ---- */
MUST_CHECK int local_new(struct agent *a, struct local **ret_local, struct err *e);
void local_free(struct local *local);
/* For everybody who waits in Up. */
void local_step(struct local *local, int step, bool waiting, const char *text);
void local_refused(struct local *local, const struct err *why);
/* The mesh was applied, or something else that Up waits for changed. */
void local_progress(struct local *local);
