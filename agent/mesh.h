/* The mesh as it should be and as it is, and the pure step between them: (wanted, actual) -> operations. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "base/prefix.h"

struct mesh_peer {
	uint8_t key[32];
	struct prefix *allowed; /* owned */
	size_t n_allowed;
	struct ipport
		endpoint; /* family 0: none. Wanted: set if the peer has none, or if move_endpoint */
	bool move_endpoint; /* wanted only: replace what WireGuard has */
	uint16_t keepalive_s;
	/* Actual only. */
	int64_t handshake_ms; /* unix ms of the last one, 0 = never */
	uint64_t rx_bytes;
	uint64_t tx_bytes;
};

struct mesh_route {
	struct prefix prefix;
	struct ipaddr
		src; /* address that packets of this device leave with; family 0: the kernel's choice */
};

/* Embedded; all zero is an interface with nothing on it, down. */
struct mesh {
	uint8_t private_key[32]; /* zero: leave as it is (wanted), none (actual) */
	uint16_t listen_port;    /* 0: leave as it is (wanted) */
	struct mesh_peer *peers; /* owned, rising key */
	size_t n_peers;
	size_t cap_peers;
	bool up;
	uint32_t mtu;         /* 0: leave as it is */
	struct prefix *addrs; /* owned, rising; the interface's addresses with their length */
	size_t n_addrs;
	struct mesh_route *routes; /* owned, rising prefix; through the interface */
	size_t n_routes;
};

/* Frees the content and the private key's copy; zeroed afterwards. NULL is fine. */
void mesh_done(struct mesh *m);
/* A new peer at the end, zeroed but for the key; valid until the next call. mesh_sort() before use. */
struct mesh_peer *mesh_add_peer(struct mesh *m, const uint8_t key[32]);
void mesh_peer_allow(struct mesh_peer *p, const struct prefix *prefix);
void mesh_add_addr(struct mesh *m, const struct prefix *prefix);
void mesh_add_route(struct mesh *m, const struct prefix *prefix, const struct ipaddr *src);
/* Sorts everything and drops duplicates. */
void mesh_sort(struct mesh *m);
struct mesh_peer *mesh_find_peer(const struct mesh *m, const uint8_t key[32]);

enum mesh_op_kind {
	MESH_SET_KEY,
	MESH_SET_PORT,
	MESH_PEER_REMOVE,
	MESH_PEER_UPDATE,
	MESH_PEER_ADD,
	MESH_SET_MTU,
	MESH_ADDR_ADD,
	MESH_LINK_UP,
	MESH_ROUTE_ADD,
	MESH_ROUTE_DEL,
	MESH_ADDR_DEL,
	MESH_LINK_DOWN,
};

/* What a MESH_PEER_UPDATE touches. */
enum {
	MESH_TOUCH_ENDPOINT = 1,
	MESH_TOUCH_KEEPALIVE = 2,
	MESH_TOUCH_ALLOW_MORE = 4,    /* peer->allowed holds prefixes that are not there yet */
	MESH_TOUCH_ALLOW_REPLACE = 8, /* some must go: the whole list is set */
};

struct mesh_op {
	enum mesh_op_kind kind;
	unsigned touch;
	const struct mesh_peer *peer; /* wanted's; for REMOVE actual's */
	struct prefix prefix;         /* addresses and routes */
	uint32_t mtu;                 /* MESH_SET_MTU */
	struct ipaddr src;            /* MESH_ROUTE_ADD, which replaces one with another source */
};

struct mesh_ops {
	struct mesh_op *v; /* owned; borrows from wanted and actual */
	size_t n;
	size_t cap;
};

/*
 * Appends the operations that turn `actual` into `wanted`, in an order in which a prefix never belongs to nobody longer
 * than needed and no packet leaves by a wrong peer: removals, changed peers, new peers, then MTU, addresses, link,
 * routes; routes and addresses that go come last. Both must be sorted. Pure. Equal meshes give no operation.
 */
void mesh_reconcile(const struct mesh *wanted, const struct mesh *actual, struct mesh_ops *ret_ops);
void mesh_ops_done(struct mesh_ops *ops);
/* "peer-add" and the like, for logs. */
const char *mesh_op_text(enum mesh_op_kind kind);
