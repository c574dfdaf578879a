/* Inside of the connection to the lighthouses. */
#pragma once

#include "agent/control.h"
#include "base/backoff.h"
#include "base/list.h"
#include "base/log.h"
#include "net/dial.h"
#include "net/loop.h"
#include "net/rpc_client.h"
#include "net/stream.h"
#include "net/tls.h"
#include "skerry/v1/agent.pb-c.h"

enum {
	CONTROL_PING_MS = 2000,         /* silence after which the lighthouse is pinged */
	CONTROL_PING_TIMEOUT_MS = 2000, /* then it is given up: four seconds in all */
	CONTROL_STAGGER_MS = 100,       /* between the starts of two dials of one race */
	CONTROL_DIAL_MS = 4000,
	CONTROL_RETRY_MIN_MS = 50,
	CONTROL_RETRY_MAX_MS = 5000,
	CONTROL_SUBSCRIBE_MS = 4000, /* for the first answer of a lighthouse to Watch */
	CONTROL_SILENT_MS = 12000,   /* without a heartbeat, although pings are answered */
	CONTROL_NO_QUORUM_MS = 5000, /* age of the quorum from which others are tried */
	CONTROL_STEADY_MS = 3000,    /* an attach that lasted so long starts the backoff anew */
	CONTROL_CALL_MS = 6000,      /* for Register; between two calls a server takes two pings */
	CONTROL_URLS = 2 * LIM_LIGHTHOUSE_URLS,
};

/*
 * One connection, from the first dial to its end:
 *
 *   dial (a race) -> TLS, pin -> [learn: dial again with the pin] -> Register (challenge, proof, [pending ...]) -> Watch
 *                                                                                                          |
 *                                                             the link becomes control->main <- open ------+
 *
 * While control->main works, a second link (control->next) may be on its way to another lighthouse: main has lost its
 * quorum or asked us to move. A link that ends is put on the graveyard and freed in a later turn, because it ends inside
 * callbacks of what it owns.
 */
struct link {
	struct list node; /* in the graveyard */
	struct control *c;
	bool dead;
	bool learning;       /* only to learn cluster and pin */
	bool registering;    /* the challenge was answered */
	uint8_t box_key[32]; /* of the challenge */
	struct dial *dial;
	struct rpc_channel *channel;
	struct rpc_request *call; /* Register */
	uint64_t call_ms;         /* loop time of its start */
	struct rpc_request *watch;
	struct loop_timer subscribe;       /* bound of the wait for the stream's head */
	const char *targets[CONTROL_URLS]; /* order of the race; borrowed from control->urls_now */
	size_t n_targets;
	char *url;
	/* Of the connection, kept: its stream may be gone while the link still is there to hear what came before. */
	struct ipport peer_addr;
	char peer_text[64];
	uint64_t cluster_id; /* from the certificate */
	uint64_t lighthouse_id;
	uint8_t exporter[32];
	uint8_t proof[64];
	bool has_proof;
	bool open;         /* the stream's head came */
	uint64_t open_ms;  /* loop time */
	uint64_t heard_ms; /* last message */
	uint64_t quorum_age_ms;
	bool beat; /* a heartbeat came */
	uint64_t session;
	struct netmap_assembly assembly;
};

struct pending_login {
	bool active; /* a registration is wanted */
	struct secret_str auth_key;
	char *tags[LIM_NODE_TAGS];
	size_t n_tags;
	char *tailnet;
	bool ephemeral;
	bool key_without_pin;
	char *code; /* of the pending approval */
	char *url;
	int64_t expire_ms;
};

struct control {
	struct loop *loop;
	struct identity *identity;
	struct netmap *netmap;
	const struct control_handler *handler;
	void *arg;
	bool wanted;
	enum control_phase phase;
	char problem[400];
	char *urls[LIM_LIGHTHOUSE_URLS]; /* given by the owner */
	size_t n_urls;
	char *urls_now[CONTROL_URLS]; /* all, as of the last dial; owned */
	size_t n_urls_now;
	char *avoid; /* URL to try last, NULL = none */
	struct ipport *endpoints;
	size_t n_endpoints;
	bool report_due;
	bool reporting;
	struct rpc_request *report;
	struct link *report_link;
	char hostname[254];
	struct link *main;
	struct link *next;
	struct list graveyard;
	struct loop_timer bury;
	struct loop_timer retry;    /* before the next dial */
	struct loop_timer watchdog; /* heartbeats and quorum */
	struct backoff backoff;
	uint64_t next_after; /* loop time before which no second link is tried */
	bool unknown; /* the last lighthouse asked does not know this device: deleted, or expired */
	bool want_full; /* ask for a full netmap at the next Watch */
	struct pending_login login;
	struct err
		answered; /* what a lighthouse said last to a registration that is tried again; code 0: nothing */
	struct tls_ctx *tls; /* for tls_cluster and tls_pin */
	uint64_t tls_cluster;
	uint8_t tls_pin[32], tls_old_pin[32];
	uint64_t attaches;
	int64_t attached_ms;
	int64_t lost_ms;
	uint64_t lost_mono_ms; /* loop time, 0 = not lost */
	uint64_t reattach_ms;
	void (*logout_cb)(void *arg, const struct err *status);
	void *logout_arg;
	struct rpc_request *logout;
	struct loop_timer logout_timer;
};

/* control.c */
void control_set_phase(struct control *c, enum control_phase phase, const char *problem);
/* A link ended before or after it was open: tries the next one. `retry_now`: without waiting. */
void control_link_ended(struct link *l, const struct err *why, bool avoid, bool retry_now);
/* The stream is open: this link is what we are attached to, or will be after its first heartbeat. */
void control_link_open(struct link *l);
/* A heartbeat or a request to move came in. */
void control_link_beat(struct link *l);
void control_seek_other(struct control *c);
void control_step(struct control *c, enum control_step step, bool waiting, const char *fmt, ...)
	PRINTF_LIKE(4, 5);

/* control_link.c */
struct link *link_new(struct control *c);
/* Starts the race; `skip` (may be NULL) is a URL not to dial. False: there is no URL. */
bool link_dial(struct link *l, const char *skip);
/* Ends it without telling anybody. NULL is fine. */
void link_kill(struct link *l);
void links_bury(void *control);
void link_watch(struct link *l);
size_t link_metadata(void *link, const char *path, struct rpc_metadata *out, size_t max);
/* "skerry://<cluster>/api/<id>" */
bool link_parse_uri(const char *uri, uint64_t *ret_cluster, uint64_t *ret_lighthouse);

/* control_register.c */
void link_register(struct link *l);
void login_done(struct pending_login *login);

/* hostinfo.c: fills the message with static and thread-local text. */
void host_info_fill(Skerry__V1__HostInfo *ret, const char *hostname);

/* Endpoints as messages, one array to free with mem_free; *ret_list borrows from it. */
Skerry__V1__Endpoint *control_endpoints(const struct control *c, Skerry__V1__Endpoint ***ret_list);
