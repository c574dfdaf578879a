/* The peer thread: port 8444, links to the other lighthouses, forwarding, joins, the watch over the leader. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "cluster/cluster.h"
#include "cluster/keyfile.h"

struct cluster;
struct loop;
struct peer;
struct peer_ops; /* cluster/link_int.h */

/* Exit codes for the supervisor when this directory may not go on (sysexits: EX_PROTOCOL, EX_CONFIG). */
enum { PEER_EXIT_REMOVED = 76, PEER_EXIT_REFUSED = 78 };

struct peer_options {
	struct cluster *cluster; /* whose link_* calls and reads it uses; outlives the peer */
	const char *dir;
	const char *listen; /* address:port; port 0 for tests */
	const char *version;
	uint64_t compare_ms;
	/* between two comparisons of the states; 0: 10 min */ /* of this build */
	uint64_t incarnation;
	struct keyfile *keys; /* lent for the peer's life: it renews the certificates in it */
	/*
	 * This lighthouse was removed, or refused as a copy put back or wiped: it may not go on. Called at most once, on
	 * the peer thread, with the message that says what and what to do. NULL: it is logged and the process ends with that code.
	 */
	void (*refused)(void *arg, int exit_code, const char *message);
	void *refused_arg;
};

/*
 * Binds the port and prepares the thread; nothing is served before peer_start. Strings are copied. Errors:
 * listener_new's; ERR_CORRUPT for its own files (members.json, acknowledged.json).
 */
MUST_CHECK int peer_new(const struct peer_options *o, struct peer **ret, struct err *err);
/* Starts the thread; the cluster must answer reads and link_* calls from here on. */
MUST_CHECK int peer_start(struct peer *p, struct err *err);
/* Cuts all links, ends the thread; requests of the raft side that wait are answered ERR_CLOSED before it returns. */
void peer_stop(struct peer *p);
/* After peer_stop, or before peer_start. NULL is fine. */
void peer_free(struct peer *p);

/* What the raft side calls, with the peer as `impl`. */
const struct peer_ops *peer_operations(void);
struct loop *peer_loop(const struct peer *p);
/* The bound port. Any thread. */
uint16_t peer_port(const struct peer *p);

/* ---- bodies of the façade's calls of the same names; any thread ---- */

/*
 * Fills what peers tell into the rows of s->member, one per member of the table (connected, applied_index,
 * revision, devices, incarnation, clock_offset_ms, rtt_us), and n_members. Leaves the row of self to the caller, except
 * for its id.
 */
void peer_fill_status(struct peer *p, struct cluster_status *s);
void peer_set_devices(struct peer *p, uint64_t devices);
/* Chain and key of the API listener (malloc'd PEM; the caller wipes the key). */
MUST_CHECK int peer_api_certificate(struct peer *p, char **ret_chain_pem, char **ret_key_pem,
				    struct err *err);
size_t peer_ca_pins(struct peer *p, uint8_t ret[CLUSTER_CA_PINS][32]);
unsigned peer_certificate_count(struct peer *p);
MUST_CHECK int peer_rotate(struct peer *p, struct loop *loop, bool seal,
			   const Skerry__Internal__V1__Command *as, uint64_t deadline_ms,
			   rotated_cb cb, void *arg, struct err *err);
MUST_CHECK int peer_token_create(struct peer *p, struct loop *loop,
				 const Skerry__Internal__V1__Actor *actor, uint64_t lifetime_ms,
				 token_cb cb, void *arg, struct err *err);
MUST_CHECK int peer_compare_digests(struct peer *p, struct loop *loop, uint64_t deadline_ms,
				    digest_cb cb, void *arg, struct err *err);
MUST_CHECK int peer_transfer(struct peer *p, struct loop *loop, uint64_t id, uint64_t deadline_ms,
			     transfer_cb cb, void *arg, struct err *err);
MUST_CHECK int peer_change_members(struct peer *p, struct loop *loop, const struct cluster_wish *w,
				   uint64_t deadline_ms, members_cb cb, void *arg, struct err *err);
MUST_CHECK int peer_ask_facts(struct peer *p, struct loop *loop, uint64_t deadline_ms, facts_cb cb,
			      void *arg, struct err *err);
