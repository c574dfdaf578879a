/* The connection to the lighthouses: finds one, proves who this device is, registers, watches, and moves on when one dies. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/identity.h"
#include "agent/netmap.h"
#include "base/err.h"
#include "base/prefix.h"

struct loop;
struct control;

enum control_phase {
	CONTROL_OFF, /* not wanted, or nothing to do before `skerry up` */
	CONTROL_DIALLING,
	CONTROL_REGISTERING,
	CONTROL_PENDING, /* a person has to approve */
	CONTROL_SUBSCRIBING,
	CONTROL_ATTACHED,
	CONTROL_WAITING, /* before the next round of dialling */
};

/* Steps of coming up, for who waits; the values of skerry.local.v1.UpStep. */
enum control_step {
	CONTROL_STEP_DIALLED = 2,
	CONTROL_STEP_TLS = 3,
	CONTROL_STEP_REGISTERED = 4,
	CONTROL_STEP_APPROVAL = 5,
	CONTROL_STEP_PEERS = 6,
};

/* All on the loop. None may free the control. */
struct control_handler {
	/* May this full netmap be taken? Refused (with the reason) it costs the lighthouse its place. */
	bool (*admit)(void *arg, const struct netmap *candidate, struct err *e);
	/* The held netmap changed (enum netmap_change; all bits for a full one). */
	void (*on_netmap)(void *arg, unsigned changes);
	/* Phase or problem changed: look at control_info(). */
	void (*on_change)(void *arg);
	/* A step of coming up is done, or (`waiting`) what is waited for. */
	void (*on_step)(void *arg, enum control_step step, bool waiting, const char *text);
	/* Registering failed for good: nothing is tried again before the next control_login(). */
	void (*on_refused)(void *arg, const struct err *why);
};

struct control_opts {
	struct loop *loop;
	struct identity *identity; /* borrowed */
	struct netmap *netmap;     /* borrowed: what is held; changed here alone */
	const struct control_handler *handler;
	void *arg;
};

struct control *control_new(const struct control_opts *opts);
void control_free(struct control *c);

/* The URLs that the owner gave (copied); those learnt from the netmap are tried beside them. */
void control_set_urls(struct control *c, const char *const *urls, size_t n);
/* What this device reports: endpoints and the name asked for (copied). Only a change is sent. */
void control_set_endpoints(struct control *c, const struct ipport *endpoints, size_t n);
bool endpoints_equal(const struct ipport *a, size_t na, const struct ipport *b, size_t nb);
void control_set_hostname(struct control *c, const char *hostname);

/*
 * Stay attached from now on; harmless when it is so already. A registered device watches; one that a person was asked to let
 * in, before a restart, waits on; another one waits for a login.
 */
void control_start(struct control *c);
/* Give everything up. The netmap stays. */
void control_stop(struct control *c);

struct control_login {
	const char *
		auth_key; /* "" or NULL: a person approves; kept in memory until registered, never written */
	const char *const *tags;
	size_t n_tags;
	const char *tailnet;
	bool ephemeral;
	bool force; /* register even if registered */
};
/*
 * Starts a registration. ERR_INVALID: the key is none; ERR_PRECONDITION with WRONG_CLUSTER or NO_LIGHTHOUSE. Everything
 * later is told by the handler. A device that is registered already (and not forced) just starts.
 */
MUST_CHECK int control_login(struct control *c, const struct control_login *login, struct err *e);

/* Tells the lighthouse, if one is attached, that this registration ends. cb once, in a later turn: told, or why not. */
void control_logout(struct control *c, void (*cb)(void *arg, const struct err *status), void *arg);

/* The host's network changed: dial now instead of waiting. */
void control_network_changed(struct control *c);

/* What is known, for status. Pointers live until the next turn. */
struct control_info {
	enum control_phase phase;
	const char *url;         /* "" when not connected */
	const char *peer_text;   /* address of the lighthouse, "" when not connected */
	struct ipport peer_addr; /* family 0 when not connected */
	bool unknown; /* the lighthouse does not know this device (deleted, expired): log in again */
	bool registering; /* a login is under way */
	bool netmap_due;  /* a full netmap has still to come */
	uint64_t lighthouse_id;
	uint64_t session;
	int64_t attached_ms;  /* unix ms, 0 = not attached */
	int64_t lost_ms;      /* unix ms of the last loss, 0 = none */
	uint64_t reattach_ms; /* how long the last loss lasted */
	uint64_t quorum_age_ms;
	uint64_t heartbeat_age_ms;
	uint64_t attaches;
	const char *problem; /* "" = none */
	const struct err
		*answered; /* a lighthouse refused the registration for now; NULL = none did */
	const char *pending_code; /* "" = none */
	const char *pending_url;
	int64_t pending_expire_ms;
	const char *urls[2 * LIM_LIGHTHOUSE_URLS];
	size_t n_urls;
};
void control_info(const struct control *c, struct control_info *ret);
