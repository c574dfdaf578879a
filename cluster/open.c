/* The façade's calls that need the peer side: open and close with it, status, members; and init. */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"
#include "cluster/cluster_int.h"
#include "cluster/peer.h"
#include "cluster/pki.h"

int cluster_open(struct cluster **ret, const struct cluster_options *o, struct err *err)
{
	struct peer_options po = {.dir = o->dir,
				  .listen = o->peer_listen,
				  .version = o->version,
				  .compare_ms = o->compare_ms};
	struct cluster *c;
	int r = cluster_prepare(&c, o, err);

	if (r != 0) {
		return r;
	}
	if (strcmp(c->keys.peer_address, c->peer_address) != 0 ||
	    strcmp(c->keys.api_url, c->api_url) != 0) {
		r = keyfile_set_addresses(o->dir, &c->keys, c->peer_address, c->api_url, err);
	}
	if (r == 0) {
		po.cluster = c;
		po.incarnation = c->incarnation;
		po.keys = &c->keys;
		r = peer_new(&po, &c->peer, err);
	}
	if (r == 0) {
		r = cluster_start(c, peer_operations(), c->peer, err);
	}
	if (r != 0) {
		peer_free(c->peer);
		cluster_free(c);
		return r;
	}
	r = peer_start(c->peer, err);
	if (r != 0) {
		cluster_stop(c);
		peer_free(c->peer);
		cluster_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

static void nothing(void *arg)
{
	(void)arg;
}

void cluster_close(struct cluster *c)
{
	if (c == NULL) {
		return;
	}
	cluster_stop(c);
	if (c->peer != NULL) {
		peer_stop(c->peer);
		/* What it had asked of the raft thread before its end is answered first: onto a loop that is still there. */
		cluster_call(c, nothing, NULL);
		peer_free(c->peer);
	}
	cluster_free(c);
}

void cluster_status(struct cluster *c, struct cluster_status *ret)
{
	struct link_state state;

	cluster_status_self(c, ret);
	link_state(c, &state);
	if (c->peer != NULL) {
		peer_fill_status(c->peer, ret);
	}
	for (size_t i = 0; i < ret->n_members; i++) {
		struct cluster_member_status *m = &ret->member[i];

		m->self = m->id == c->id;
		m->leader = m->id == state.leader;
		for (size_t j = 0; j < state.n; j++) {
			if (state.server[j].id == m->id) {
				m->voter = state.server[j].role == LINK_VOTER;
			}
		}
		if (m->self) {
			m->connected = true;
			m->applied_index = ret->applied_index;
			m->revision = ret->revision;
			m->incarnation = c->incarnation;
		}
	}
}

void cluster_set_devices(struct cluster *c, uint64_t devices)
{
	if (c->peer != NULL) {
		peer_set_devices(c->peer, devices);
	}
}

int cluster_api_certificate(struct cluster *c, char **ret_chain_pem, char **ret_key_pem,
			    struct err *err)
{
	return peer_api_certificate(c->peer, ret_chain_pem, ret_key_pem, err);
}

size_t cluster_ca_pins(struct cluster *c, uint8_t ret[CLUSTER_CA_PINS][32])
{
	size_t n = 1;

	if (c->peer != NULL) {
		return peer_ca_pins(c->peer, ret);
	}
	memcpy(ret[0], c->keys.ca_pin, 32);
	if (c->keys.ca_old_pem != NULL) {
		memcpy(ret[n++], c->keys.ca_old_pin, 32);
	}
	return n;
}

unsigned cluster_certificate_count(struct cluster *c)
{
	return c->peer != NULL ? peer_certificate_count(c->peer) : 0;
}

int cluster_ca_rotate(struct cluster *c, struct loop *loop, const Skerry__Internal__V1__Command *as,
		      uint64_t deadline_ms, rotated_cb cb, void *arg, struct err *err)
{
	return peer_rotate(c->peer, loop, false, as, deadline_ms, cb, arg, err);
}

int cluster_seal_rotate(struct cluster *c, struct loop *loop,
			const Skerry__Internal__V1__Command *as, uint64_t deadline_ms,
			rotated_cb cb, void *arg, struct err *err)
{
	return peer_rotate(c->peer, loop, true, as, deadline_ms, cb, arg, err);
}

int cluster_token_create(struct cluster *c, struct loop *loop, const Actor *actor,
			 uint64_t lifetime_ms, token_cb cb, void *arg, struct err *err)
{
	return peer_token_create(c->peer, loop, actor, lifetime_ms, cb, arg, err);
}

int cluster_transfer(struct cluster *c, struct loop *loop, uint64_t id, uint64_t deadline_ms,
		     transfer_cb cb, void *arg, struct err *err)
{
	return peer_transfer(c->peer, loop, id, deadline_ms, cb, arg, err);
}

int cluster_change_members(struct cluster *c, struct loop *loop, const struct cluster_wish *w,
			   uint64_t deadline_ms, members_cb cb, void *arg, struct err *err)
{
	return peer_change_members(c->peer, loop, w, deadline_ms, cb, arg, err);
}

int cluster_ask_facts(struct cluster *c, struct loop *loop, uint64_t deadline_ms, facts_cb cb,
		      void *arg, struct err *err)
{
	return peer_ask_facts(c->peer, loop, deadline_ms, cb, arg, err);
}

int cluster_compare_digests(struct cluster *c, struct loop *loop, uint64_t deadline_ms,
			    digest_cb cb, void *arg, struct err *err)
{
	return peer_compare_digests(c->peer, loop, deadline_ms, cb, arg, err);
}
