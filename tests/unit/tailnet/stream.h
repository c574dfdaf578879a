/* Random streams of commands, the same for the same seed: most make sense, some do not. */
#pragma once

#include "tests/unit/tailnet/world.h"

/* One of the tailnets; rarely one that does not exist. */
static inline uint64_t stream_tailnet(struct world *w)
{
	uint64_t r = world_random(w) % 40;
	TailnetRecord *t;

	if (r == 0) {
		return 999;
	}
	if (r < 6 && query_tailnet_next(&w->kv[0], 3, &w->query, &t) == 0) {
		return t->id;
	}
	return r % 2 == 0 ? 1 : 3;
}

#define STREAM_PICK(w, kind, tailnet, max)                                                      \
	({                                                                                      \
		__typeof__(*(kind##_pick_type)0) *p_ = NULL;                                    \
		uint64_t from_ = world_random(w) % (max);                                       \
		if (query_##kind##_next(&(w)->kv[0], tailnet, from_, &(w)->arena, &p_) < 0) {   \
			p_ = NULL;                                                              \
			IGNORE(query_##kind##_next(&(w)->kv[0], tailnet, 0, &(w)->arena, &p_)); \
		}                                                                               \
		p_;                                                                             \
	})
typedef NodeRecord *node_pick_type;
typedef UserRecord *user_pick_type;
typedef AuthKeyRecord *auth_key_pick_type;
typedef ApiKeyRecord *api_key_pick_type;
typedef PendingRecord *pending_pick_type;

static inline uint64_t stream_user(struct world *w, uint64_t tailnet)
{
	UserRecord *u = STREAM_PICK(w, user, tailnet, 60);

	return u != NULL && world_random(w) % 20 != 0 ? u->id : world_random(w) % 10;
}

static inline RegisterFacts *stream_facts(struct world *w)
{
	static const char *const names[] = {"laptop", "Phone.local", "srv", "nas", "wpad",
					    "",       "a b"};
	RegisterFacts *f = world_facts(w, world_random(w) % 24, names[world_random(w) % 7]);

	if (world_random(w) % 4 == 0) {
		f->node_key = world_fill(w, 32, 40000 + world_random(w) % 40);
	}
	if (world_random(w) % 3 == 0) {
		f->disco_key = (ProtobufCBinaryData){0, NULL};
	}
	f->ephemeral = world_random(w) % 6 == 0;
	if (world_random(w) % 3 == 0) {
		f->n_endpoints = 1;
		f->endpoints = world_alloc(w, sizeof(*f->endpoints));
		f->endpoints[0] = world_alloc(w, sizeof(Skerry__V1__Endpoint));
		skerry__v1__endpoint__init(f->endpoints[0]);
		f->endpoints[0]->address = world_fill(w, 4, world_random(w) % 5);
		f->endpoints[0]->address.data[0] = 10;
		f->endpoints[0]->port = 41641;
	}
	return f;
}

static inline char **stream_tags(struct world *w, size_t *ret_n)
{
	static const char *const tags[] = {"tag:web", "tag:db", "tag:ci"};
	char **t = world_alloc(w, 2 * sizeof(char *));

	*ret_n = world_random(w) % 3;
	t[0] = (char *)tags[world_random(w) % 3];
	t[1] = (char *)tags[world_random(w) % 3]; /* now and then twice the same: refused */
	return t;
}

static inline Command *stream_node_update(struct world *w, uint64_t tailnet, uint64_t node)
{
	static const char *const names[] = {"alpha", "beta", "gamma", "", "srv", "BAD NAME"};
	Command *c = world_command(w, tailnet);
	Skerry__Internal__V1__NodeUpdate *u = WBODY(w, c, NODE_UPDATE, node_update, NodeUpdate);
	uint64_t bits = world_random(w);

	u->id = node;
	u->set_given_name = bits & 1;
	u->given_name = (char *)names[world_random(w) % 6];
	u->set_tags = (bits & 6) == 2;
	u->tags = stream_tags(w, &u->n_tags);
	u->set_approved = (bits & 24) == 8;
	u->approved = bits & 32;
	u->set_expire = (bits & 192) == 64;
	u->expire_ms = bits & 256 ? 0 : w->now + (world_random(w) % (20 * DAY)) - DAY;
	u->set_user = (bits & 1536) == 512;
	u->user = stream_user(w, tailnet);
	return c;
}

static inline Command *stream_session(struct world *w)
{
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__SessionBatch *b =
		WBODY(w, c, SESSION_BATCH, session_batch, SessionBatch);

	b->lighthouse = 1 + world_random(w) % 8 / 7;
	b->incarnation = b->lighthouse == 1 ? 101 : 200 + world_random(w) % 3;
	b->n_events = 1 + world_random(w) % 4;
	b->events = world_alloc(w, b->n_events * sizeof(*b->events));
	for (size_t i = 0; i < b->n_events; i++) {
		Skerry__Internal__V1__SessionEvent *e =
			WNEW(w, Skerry__Internal__V1__SessionEvent, session_event);
		NodeRecord *n;
		Presence *p;

		b->events[i] = e;
		e->tailnet = stream_tailnet(w);
		n = STREAM_PICK(w, node, e->tailnet, 120);
		e->node = n != NULL ? n->id : 5;
		p = world_presence(w, e->tailnet, e->node);
		e->session = (p != NULL ? p->session : 0) + world_random(w) % 3;
		e->detach = world_random(w) % 2 == 0;
		e->clean = world_random(w) % 2 == 0;
		e->instance_id = "x";
	}
	return c;
}

static inline Command *stream_fact(struct world *w)
{
	static const char *const names[] = {"laptop", "srv", "renamed", ""};
	Command *c = world_command(w, 0);
	Skerry__Internal__V1__NodeFacts *f = WBODY(w, c, NODE_FACTS, node_facts, NodeFacts);

	f->n_facts = 1 + world_random(w) % 3;
	f->facts = world_alloc(w, f->n_facts * sizeof(*f->facts));
	for (size_t i = 0; i < f->n_facts; i++) {
		RegisterFacts *r = stream_facts(w);
		NodeRecord *n;

		f->facts[i] = WNEW(w, Skerry__Internal__V1__NodeFact, node_fact);
		f->facts[i]->tailnet = stream_tailnet(w);
		n = STREAM_PICK(w, node, f->facts[i]->tailnet, 120);
		f->facts[i]->node = n != NULL ? n->id : 6;
		f->facts[i]->set_endpoints = world_random(w) % 2 == 0;
		f->facts[i]->endpoints = r->endpoints;
		f->facts[i]->n_endpoints = r->n_endpoints;
		f->facts[i]->disco_key = r->disco_key;
		f->facts[i]->home_relay = (uint32_t)(world_random(w) % 3);
		f->facts[i]->hostname = (char *)names[world_random(w) % 4];
	}
	return c;
}

static inline Command *stream_user_command(struct world *w, uint64_t tailnet)
{
	Command *c = world_command(w, tailnet);
	uint64_t what = world_random(w) % 6;

	if (what < 2) {
		Skerry__Internal__V1__UserCreate *u =
			WBODY(w, c, USER_CREATE, user_create, UserCreate);

		u->login_name = world_text(w, "user%llu", (unsigned long long)world_random(w) % 8);
		u->role = (uint32_t)(world_random(w) % 5);
	} else if (what < 5) {
		Skerry__Internal__V1__UserUpdate *u =
			WBODY(w, c, USER_UPDATE, user_update, UserUpdate);

		u->id = stream_user(w, tailnet);
		u->set_suspended = true;
		u->suspended = world_random(w) % 3 == 0;
	} else {
		WBODY(w, c, USER_DELETE, user_delete, UserDelete)->id = stream_user(w, tailnet);
	}
	return c;
}

static inline Command *stream_key_command(struct world *w, uint64_t tailnet)
{
	Command *c = world_command(w, tailnet);
	uint64_t what = world_random(w) % 8;

	if (what < 4) {
		struct key_form f = {
			.user = stream_user(w, tailnet),
			.reusable = world_random(w) % 2 == 0,
			.ephemeral = world_random(w) % 4 == 0,
			.unapproved = world_random(w) % 4 == 0,
			.tag = world_random(w) % 4 == 0 ? "tag:web" : NULL,
			.lifetime_ms = world_random(w) % (3 * DAY),
		};

		return world_key(w, tailnet, &f);
	}
	if (what == 4) {
		AuthKeyRecord *k = STREAM_PICK(w, auth_key, tailnet, 1200);

		WBODY(w, c, AUTH_KEY_DELETE, auth_key_delete, AuthKeyDelete)->id = k != NULL ? k->id
											     : 1;
	} else if (what < 7) {
		Skerry__Internal__V1__ApiKeyCreate *k =
			WBODY(w, c, API_KEY_CREATE, api_key_create, ApiKeyCreate);

		k->credential = WNEW(w, Skerry__Internal__V1__Credential, credential);
		k->credential->id = ++w->key_id;
		k->credential->hash_kind = SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256;
		k->credential->hash = world_fill(w, 32, 5);
		k->role = (uint32_t)(world_random(w) % 4);
		k->user = world_random(w) % 2 == 0 ? 0 : stream_user(w, tailnet);
		c->tailnet = world_random(w) % 4 == 0 ? 0 : tailnet;
	} else {
		ApiKeyRecord *k = STREAM_PICK(w, api_key, tailnet, 1200);

		WBODY(w, c, API_KEY_DELETE, api_key_delete, ApiKeyDelete)->id = k != NULL ? k->id
											  : 1;
	}
	return c;
}

static inline Command *stream_system(struct world *w)
{
	Command *c = world_command(w, 0);
	uint64_t what = world_random(w) % 8;

	if (what < 2) {
		return world_start(w, 1 + world_random(w) % 2,
				   world_random(w) % 4 == 0 ? 200 + world_random(w) % 3 : 101);
	}
	if (what == 2) {
		Skerry__Internal__V1__LighthouseLost *l =
			WBODY(w, c, LIGHTHOUSE_LOST, lighthouse_lost, LighthouseLost);

		l->id = 1;
		l->incarnation = 101;
	} else if (what == 3) {
		WBODY(w, c, DIGEST_MARKER, digest_marker, DigestMarker)->id = 9;
	} else if (what < 6) {
		static const char *const names[] = {"third", "fourth"};

		return world_tailnet(w, names[world_random(w) % 2]);
	} else {
		Skerry__Internal__V1__TailnetDelete *d =
			WBODY(w, c, TAILNET_DELETE, tailnet_delete, TailnetDelete);
		TailnetRecord *t;

		d->id = query_tailnet_next(&w->kv[0], 3, &w->arena, &t) == 0 ? t->id : 999;
		d->force = world_random(w) % 2 == 0;
	}
	return c;
}

static inline Command *stream_pending(struct world *w, uint64_t tailnet)
{
	Command *c = world_command(w, tailnet);

	if (world_random(w) % 2 == 0) {
		Skerry__Internal__V1__PendingCreate *p =
			WBODY(w, c, PENDING_CREATE, pending_create, PendingCreate);

		p->code = world_text(w, "CODE%06llu", (unsigned long long)world_random(w) % 300);
		p->facts = stream_facts(w);
	} else {
		Skerry__Internal__V1__PendingDecide *p =
			WBODY(w, c, PENDING_DECIDE, pending_decide, PendingDecide);
		PendingRecord *r = STREAM_PICK(w, pending, tailnet, 120);

		p->code = r != NULL ? r->code : "NOSUCHCODE";
		p->approve = world_random(w) % 4 != 0;
		p->user = stream_user(w, tailnet);
	}
	return c;
}

static inline Command *stream_body(struct world *w)
{
	uint64_t tailnet = stream_tailnet(w);
	uint64_t what = world_random(w) % 100;
	NodeRecord *n;
	Command *c;

	if (what < 12) {
		return stream_key_command(w, tailnet);
	}
	if (what < 34) {
		AuthKeyRecord *k = STREAM_PICK(w, auth_key, tailnet, 1200);

		return world_register(w, tailnet, k != NULL ? k->id : 1, stream_facts(w));
	}
	if (what < 52) {
		return stream_session(w);
	}
	if (what < 62) {
		return stream_fact(w);
	}
	if (what < 74) {
		n = STREAM_PICK(w, node, tailnet, 120);
		return stream_node_update(w, tailnet, n != NULL ? n->id : 1);
	}
	if (what < 79) {
		n = STREAM_PICK(w, node, tailnet, 120);
		c = world_command(w, tailnet);
		WBODY(w, c, NODE_DELETE, node_delete, NodeDelete)->id = n != NULL ? n->id : 1;
		return c;
	}
	if (what < 85) {
		return stream_user_command(w, tailnet);
	}
	if (what < 91) {
		return stream_pending(w, tailnet);
	}
	if (what < 94) {
		return stream_system(w);
	}
	return world_tick_command(w);
}

/* The clock moves a little, now and then by hours or days; some commands carry a request id or an origin. */
static inline Command *stream_next(struct world *w)
{
	uint64_t jump = world_random(w) % 30;
	Command *c;

	w->now += world_random(w) % 8000;
	w->now += jump == 0 ? world_random(w) % (2 * DAY) : jump < 3 ? HOUR / 2 : 0;
	w->leader_gap = world_random(w) % 50 == 0;
	c = stream_body(w);
	if (world_random(w) % 5 == 0) {
		c->caller = "unix:0";
		c->request_id = world_text(w, "r%llu", (unsigned long long)world_random(w) % 12);
		c->request_hash = world_fill(w, 32, world_random(w) % 2);
	}
	return c;
}
