#include "tailnet/netmap.h"

#include <string.h>

#include "base/err.h"
#include "tailnet/query.h"

/* In the arena and initialised, or NULL. */
#define NEW(a, type, init)                                 \
	({                                                 \
		type *new_ = arena_alloc(a, sizeof(type)); \
		if (new_ != NULL) {                        \
			init(new_);                        \
		}                                          \
		new_;                                      \
	})

static int set_time(struct arena *a, uint64_t ms, Google__Protobuf__Timestamp **ret)
{
	Google__Protobuf__Timestamp *t;

	if (ms == 0) {
		*ret = NULL;
		return 0;
	}
	t = NEW(a, Google__Protobuf__Timestamp, google__protobuf__timestamp__init);
	if (t == NULL) {
		return ERR_LIMIT;
	}
	t->seconds = (int64_t)(ms / 1000);
	t->nanos = (int32_t)(ms % 1000) * 1000000;
	*ret = t;
	return 0;
}

static int login_of(const struct kv *kv, const NodeRecord *n, struct arena *a, char **ret)
{
	UserRecord *u;
	int r;

	if (n->user == 0) {
		return 0;
	}
	r = query_user(kv, n->tailnet, n->user, a, &u);
	if (r == 0) {
		*ret = u->login_name;
	}
	return r == ERR_NOT_FOUND ? 0 : r;
}

static int add_prefix(struct arena *a, const uint8_t *address, size_t len, uint32_t bits,
		      Skerry__V1__Prefix **ret)
{
	Skerry__V1__Prefix *p = NEW(a, Skerry__V1__Prefix, skerry__v1__prefix__init);

	if (p == NULL) {
		return ERR_LIMIT;
	}
	p->address.data = arena_memdup(a, address, len);
	p->address.len = len;
	p->length = bits;
	*ret = p;
	return p->address.data == NULL ? ERR_LIMIT : 0;
}

static int self_prefixes(const TailnetRecord *t, struct arena *a, Skerry__V1__NetmapSelf *s)
{
	static const uint8_t all4[4] = {100, 64};
	static const uint8_t ula[16] = {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0};
	size_t n = t->n_prefixes > 0 ? t->n_prefixes : 1;
	int r;

	s->prefixes = arena_alloc(a, (n + 1) * sizeof(*s->prefixes));
	if (s->prefixes == NULL) {
		return ERR_LIMIT;
	}
	for (size_t i = 0; i < t->n_prefixes; i++) {
		s->prefixes[s->n_prefixes++] = t->prefixes[i];
	}
	if (t->n_prefixes == 0) {
		r = add_prefix(a, all4, 4, 10, &s->prefixes[s->n_prefixes++]);
		if (r < 0) {
			return r;
		}
	}
	return add_prefix(a, ula, 16, 48, &s->prefixes[s->n_prefixes++]);
}

static int self_lighthouses(const struct kv *kv, struct arena *a, Skerry__V1__NetmapSelf *s)
{
	size_t cap = 0;
	uint64_t after = 0;

	for (;;) {
		Skerry__V1__LighthouseAddress *l;
		MemberRecord *m;
		int r = query_member_next(kv, after, a, &m);

		if (r == ERR_NOT_FOUND) {
			return 0;
		}
		if (r < 0) {
			return r;
		}
		after = m->id;
		if (m->kind == SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED ||
		    m->api_url[0] == '\0') {
			continue;
		}
		if (s->n_lighthouses == cap) {
			Skerry__V1__LighthouseAddress **bigger;

			cap = cap > 0 ? 2 * cap : 8;
			bigger = arena_alloc(a, cap * sizeof(Skerry__V1__LighthouseAddress *));
			if (bigger == NULL) {
				return ERR_LIMIT;
			}
			for (size_t i = 0; i < s->n_lighthouses; i++) {
				bigger[i] = s->lighthouses[i];
			}
			s->lighthouses = bigger;
		}
		l = NEW(a, Skerry__V1__LighthouseAddress, skerry__v1__lighthouse_address__init);
		if (l == NULL) {
			return ERR_LIMIT;
		}
		l->id = m->id;
		l->name = m->name;
		l->url = m->api_url;
		s->lighthouses[s->n_lighthouses++] = l;
	}
}

int netmap_self(const struct kv *kv, uint64_t tailnet, uint64_t node, struct arena *a,
		Skerry__V1__NetmapSelf **ret)
{
	Skerry__V1__NetmapSelf *s;
	TailnetRecord *t;
	NodeRecord *n;
	Meta *meta;
	int r;

	if ((r = query_node(kv, tailnet, node, a, &n)) < 0 ||
	    (r = query_tailnet(kv, tailnet, a, &t)) < 0 || (r = query_meta(kv, a, &meta)) < 0) {
		return r;
	}
	s = NEW(a, Skerry__V1__NetmapSelf, skerry__v1__netmap_self__init);
	if (s == NULL) {
		return ERR_LIMIT;
	}
	s->tailnet_id = tailnet;
	s->node_id = node;
	s->stable_id = n->stable_id;
	s->given_name = n->given_name;
	s->n_addresses = n->n_addresses;
	s->addresses = n->addresses;
	s->n_tags = n->n_tags;
	s->tags = n->tags;
	s->node_key = n->node_key;
	s->approved = n->approved;
	s->tailnet_name = t->name;
	s->cluster_id = meta->cluster_id;
	s->dns = t->dns;
	if ((r = login_of(kv, n, a, &s->user)) < 0 ||
	    (r = set_time(a, n->expire_ms, &s->expire_time)) < 0 ||
	    (r = self_prefixes(t, a, s)) < 0 || (r = self_lighthouses(kv, a, s)) < 0) {
		return r;
	}
	*ret = s;
	return 0;
}

int netmap_peer(const struct kv *kv, const NodeRecord *n, struct arena *a,
		Skerry__V1__NetmapPeer **ret)
{
	Skerry__V1__NetmapPeer *p = NEW(a, Skerry__V1__NetmapPeer, skerry__v1__netmap_peer__init);
	NodeEndpoints *e;
	int r;

	if (p == NULL) {
		return ERR_LIMIT;
	}
	p->node_id = n->id;
	p->stable_id = n->stable_id;
	p->given_name = n->given_name;
	p->n_addresses = n->n_addresses;
	p->addresses = n->addresses;
	p->node_key = n->node_key;
	p->n_tags = n->n_tags;
	p->tags = n->tags;
	r = query_endpoints(kv, n->tailnet, n->id, a, &e);
	if (r < 0 && r != ERR_NOT_FOUND) {
		return r;
	}
	if (r == 0) {
		p->n_endpoints = e->n_endpoints;
		p->endpoints = e->endpoints;
		p->disco_key = e->disco_key;
		p->home_relay = e->home_relay;
	}
	if ((r = login_of(kv, n, a, &p->user)) < 0 ||
	    (r = set_time(a, n->expire_ms, &p->expire_time)) < 0) {
		return r;
	}
	*ret = p;
	return 0;
}

int netmap_peer_id(const struct kv *kv, uint64_t tailnet, uint64_t node, struct arena *a,
		   Skerry__V1__NetmapPeer **ret)
{
	NodeRecord *n;
	int r = query_node(kv, tailnet, node, a, &n);

	return r < 0 ? r : netmap_peer(kv, n, a, ret);
}

int netmap_presence(const struct kv *kv, uint64_t tailnet, uint64_t node, struct arena *a,
		    Skerry__V1__PeerPresence **ret)
{
	Skerry__V1__PeerPresence *p;
	Presence *rec;
	int r = query_presence(kv, tailnet, node, a, &rec);

	if (r < 0) {
		return r;
	}
	p = NEW(a, Skerry__V1__PeerPresence, skerry__v1__peer_presence__init);
	if (p == NULL) {
		return ERR_LIMIT;
	}
	p->node_id = node;
	p->online = rec->online;
	/* While it is online the time moves without a change that peers would hear of. */
	r = set_time(a, rec->online ? 0 : rec->last_seen_ms, &p->last_seen_time);
	if (r == 0) {
		*ret = p;
	}
	return r;
}

bool netmap_live(const NodeRecord *n)
{
	return n->approved && !n->expired && !n->suspended;
}

bool netmap_visible(const struct kv *kv UNUSED, uint64_t tailnet, const NodeRecord *viewer,
		    const NodeRecord *peer)
{
	return viewer->tailnet == tailnet && peer->tailnet == tailnet && viewer->id != peer->id &&
	       netmap_live(viewer) && netmap_live(peer);
}

bool netmap_visible_id(const struct kv *kv, uint64_t tailnet, uint64_t viewer, uint64_t peer,
		       struct arena *a)
{
	NodeRecord *v, *p;

	return query_node(kv, tailnet, viewer, a, &v) == 0 &&
	       query_node(kv, tailnet, peer, a, &p) == 0 && netmap_visible(kv, tailnet, v, p);
}

int netmap_visible_next(const struct kv *kv, uint64_t tailnet, const NodeRecord *viewer,
			uint64_t after, struct arena *a, NodeRecord **ret)
{
	NodeRecord *n;
	int r;

	if (!netmap_live(viewer)) {
		return ERR_NOT_FOUND;
	}
	while ((r = query_node_next(kv, tailnet, after, a, &n)) == 0) {
		if (netmap_visible(kv, tailnet, viewer, n)) {
			*ret = n;
			return 0;
		}
		after = n->id;
	}
	return r;
}
