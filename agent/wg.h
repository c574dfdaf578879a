/* WireGuard behind a struct of functions: the UAPI socket of wireguard-go, and a fake for tests. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/mesh.h"
#include "base/buf.h"
#include "base/err.h"

struct wg {
	const struct wg_ops *ops;
};

struct wg_ops {
	const char *name; /* "uapi", "fake" */
	/* Fills the WireGuard part of *ret (key, port, peers, sorted; the rest is untouched). ERR_UNAVAILABLE: no answer. */
	int (*get)(struct wg *wg, struct mesh *ret, struct err *e);
	/*
	 * Does the operations up to MESH_PEER_ADD of the list, the others are skipped. Not atomic: after an error get() tells
	 * what holds. ERR_EXISTS: the listen port is taken.
	 */
	int (*set)(struct wg *wg, const struct mesh *wanted, const struct mesh_ops *ops,
		   struct err *e);
	void (*free)(struct wg *wg);
};

struct wg_uapi_opts {
	const char *ifname;
	const char *program;  /* wireguard-go */
	const char *uapi_dir; /* directory of the sockets, "/var/run/wireguard" */
	unsigned timeout_ms;  /* for an answer; 0 = 2,000 */
};

/*
 * Takes over a running wireguard-go whose socket answers, or starts one that outlives us (own session, no descriptors of
 * ours). *ret_adopted tells which. A socket file that nobody answers is left for wireguard-go to replace. Blocks for at
 * most the timeout. Errors name the remedy: ERR_NOT_FOUND no program, ERR_UNAVAILABLE it did not come up,
 * ERR_PRECONDITION it serves the interface in another directory than uapi_dir.
 */
MUST_CHECK int wg_uapi_new(const struct wg_uapi_opts *opts, struct wg **ret_wg, bool *ret_adopted,
			   struct err *e);
/* Whether the socket is there and answers. */
bool wg_uapi_alive(const char *uapi_dir, const char *ifname);

/* Text of the set and get protocols, apart from sockets for tests. wg_uapi_parse judges an answer of get=1. */
void wg_uapi_format(const struct mesh *wanted, const struct mesh_op *ops, size_t n,
		    struct buf *out);
MUST_CHECK int wg_uapi_parse(const char *text, size_t len, struct mesh *ret, struct err *e);

/* The fake: keeps what was set. */
struct wg_fake {
	struct wg wg;
	struct mesh mesh;
	uint16_t taken_port; /* setting this one fails with ERR_EXISTS */
	int fail;            /* the next set fails with this code */
	size_t sets;
	size_t ops;
};
void wg_fake_init(struct wg_fake *fake);
void wg_fake_done(struct wg_fake *fake);

static inline void wg_free(struct wg *wg)
{
	if (wg != NULL) {
		wg->ops->free(wg);
	}
}
