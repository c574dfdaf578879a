/* Records of the state, with their revision set and their change noted. */
#include "tailnet/state_int.h"

#include "base/limits.h"

uint64_t st_next_id(struct state *st)
{
	/* 2^53 ids at a million a second last 285 years. */
	PRE(st->meta->last_id < LIM_ID_MAX);
	return ++st->meta->last_id;
}

/* The six kinds of records differ in table and kind only. */
#define PUT_RECORD(st, table, kind_, tailnet_, object_, rec, visible_)            \
	do {                                                                      \
		struct skey k_;                                                   \
		struct change_of c_ = {                                           \
			.tailnet = (tailnet_),                                    \
			.object = (object_),                                      \
			.old_revision = (rec)->revision,                          \
			.kind = (kind_),                                          \
			.visibility = (visible_),                                 \
		};                                                                \
		(rec)->revision = (st)->revision;                                 \
		state_put(st, skey_id2(&k_, table, tailnet_, object_), rec, &c_); \
	} while (0)

void st_put_member(struct state *st, MemberRecord *m)
{
	struct change_of c = {.object = m->id, .old_revision = m->revision, .kind = CHANGE_MEMBER};
	struct skey k;

	m->revision = st->revision;
	state_put(st, skey_id(&k, TABLE_MEMBER, m->id), m, &c);
}

void st_put_tailnet(struct state *st, TailnetRecord *t, bool visibility)
{
	struct change_of c = {
		.tailnet = t->id,
		.object = t->id,
		.old_revision = t->revision,
		.kind = CHANGE_TAILNET,
		.visibility = visibility,
	};
	struct skey k;

	t->revision = st->revision;
	state_put(st, skey_id(&k, TABLE_TAILNET, t->id), t, &c);
}

void st_put_user(struct state *st, UserRecord *u, bool visibility)
{
	PUT_RECORD(st, TABLE_USER, CHANGE_USER, u->tailnet, u->id, u, visibility);
}

void st_put_node(struct state *st, NodeRecord *n, bool visibility)
{
	PUT_RECORD(st, TABLE_NODE, CHANGE_NODE, n->tailnet, n->id, n, visibility);
}

void st_put_endpoints(struct state *st, NodeEndpoints *e)
{
	PUT_RECORD(st, TABLE_ENDPOINTS, CHANGE_ENDPOINTS, e->tailnet, e->node, e, false);
}

void st_put_presence(struct state *st, Presence *p, bool seen)
{
	struct skey k;

	if (seen) {
		PUT_RECORD(st, TABLE_PRESENCE, CHANGE_PRESENCE, p->tailnet, p->node, p, false);
	} else {
		state_put(st, skey_id2(&k, TABLE_PRESENCE, p->tailnet, p->node), p, NULL);
	}
}

void st_put_auth_key(struct state *st, AuthKeyRecord *key)
{
	PUT_RECORD(st, TABLE_AUTH_KEY, CHANGE_AUTH_KEY, key->tailnet, key->id, key, false);
}

void st_put_api_key(struct state *st, ApiKeyRecord *key)
{
	PUT_RECORD(st, TABLE_API_KEY, CHANGE_API_KEY, key->tailnet, key->id, key, false);
}

void st_put_pending(struct state *st, PendingRecord *p)
{
	PUT_RECORD(st, TABLE_PENDING, CHANGE_PENDING, p->tailnet, p->id, p, false);
}
