/* How a node comes to be, and how it goes: everything that hangs on a node record. */
#include "tailnet/commands_int.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/enc.h"
#include "base/limits.h"

static struct slice machine_key(struct skey *k, const MachineKey *m, uint64_t tailnet,
				uint64_t user)
{
	return skey_machine(k, (uint8_t)m->kind, m->key.data, tailnet, user);
}

static struct slice key32(struct skey *k, enum table t, ProtobufCBinaryData key)
{
	return skey_bytes(k, t, key.data, key.len);
}

uint64_t node_default_expiry(struct state *st, const TailnetRecord *t)
{
	return st->now + (t->node_expiry_ms != 0 ? t->node_expiry_ms : LIM_NODE_EXPIRY_MS);
}

void node_set_expiry(struct state *st, NodeRecord *n, uint64_t expire_ms)
{
	if (!n->expired) {
		st_deadline_del(st, n->expire_ms, DEADLINE_NODE, n->tailnet, n->id);
	}
	n->expire_ms = expire_ms;
	n->expired = expire_ms != 0 && expire_ms <= st->now;
	if (!n->expired) {
		st_deadline_put(st, expire_ms, DEADLINE_NODE, n->tailnet, n->id);
	}
}

/* ---- disco keys: one machine may use one for several of its nodes, another machine may not ---- */

static struct slice disco_key(struct skey *k, ProtobufCBinaryData key, uint64_t tailnet,
			      uint64_t node)
{
	skey_bytes(k, TABLE_BY_DISCO_KEY, key.data, key.len);
	skey_add_u64(k, tailnet);
	skey_add_u64(k, node);
	return skey_slice(k);
}

bool disco_taken(struct state *st, ProtobufCBinaryData key, const MachineKey *machine)
{
	struct slice found, v;
	struct skey prefix;
	NodeRecord *n;

	if (key.len == 0) {
		return false;
	}
	key32(&prefix, TABLE_BY_DISCO_KEY, key);
	if (!st_raw_seek(st, skey_slice(&prefix), &found, &v) ||
	    !skey_has_prefix(found, skey_slice(&prefix)) || v.len != 16) {
		return false;
	}
	/* All that have it are of one machine: the first one tells. */
	n = st_node(st, be_get64(v.data), be_get64((const uint8_t *)v.data + 8));
	return n != NULL && (n->machine_key->kind != machine->kind ||
			     !bytes_equal(n->machine_key->key, machine->key));
}

void endpoints_set_disco(struct state *st, NodeEndpoints *e, ProtobufCBinaryData key)
{
	struct skey k;

	if (key.len == 0 || bytes_equal(e->disco_key, key)) {
		return;
	}
	if (e->disco_key.len != 0) {
		st_raw_del(st, disco_key(&k, e->disco_key, e->tailnet, e->node));
	}
	e->disco_key = key;
	st_index_put(st, disco_key(&k, key, e->tailnet, e->node), e->tailnet, e->node);
}

/* ---- coming ---- */

static const char *facts_hostname(const RegisterFacts *f)
{
	if (f->hostname[0] != '\0') {
		return f->hostname;
	}
	return f->host_info != NULL ? f->host_info->hostname : "";
}

int registration_check(struct state *st, struct registration *r)
{
	const RegisterFacts *f = r->facts;
	uint64_t tailnet = st->cmd->tailnet;
	uint64_t t, id;
	struct skey k;

	r->tailnet = st_tailnet(st, tailnet);
	if (r->tailnet == NULL) {
		return refuse(st, CODE_NOT_FOUND, "TAILNET_NOT_FOUND", "",
			      "there is no such tailnet");
	}
	r->existing = NULL;
	r->never_expires = false;
	if (st_index(st, machine_key(&k, f->machine_key, tailnet, r->user), &t, &id)) {
		r->existing = st_node(st, t, id);
	}
	if (st_index(st, key32(&k, TABLE_BY_NODE_KEY, f->node_key), &t, &id) &&
	    (r->existing == NULL || r->existing->id != id)) {
		return refuse(st, CODE_EXISTS, "NODE_KEY_IN_USE", "node_key",
			      "the node key is in use: make a new one on this device");
	}
	if (disco_taken(st, f->disco_key, f->machine_key)) {
		return refuse(st, CODE_EXISTS, "DISCO_KEY_IN_USE", "disco_key",
			      "the disco key is in use: make a new one on this device");
	}
	if (r->existing != NULL) {
		const NodeRecord *n = r->existing;

		/* What an administrator set outlives a new registration, unless the key says otherwise. */
		if (r->n_tags == 0) {
			r->tags = n->tags;
			r->n_tags = n->n_tags;
		}
		r->never_expires = n->expire_ms == 0 && !n->expired;
		if (n->name_fixed || name_follows(n->given_name, facts_hostname(f))) {
			snprintf(r->name, sizeof(r->name), "%s", n->given_name);
			return ACCEPT;
		}
		return name_choose(st, tailnet, facts_hostname(f), f->machine_key, n->id, r->name);
	}
	if (st_head(st, tailnet)->node_count >= LIM_TAILNET_NODES) {
		return refuse(st, CODE_EXHAUSTED, "TOO_MANY_NODES", "",
			      "the tailnet has %d nodes, which is the limit: delete some",
			      LIM_TAILNET_NODES);
	}
	if (name_choose(st, tailnet, facts_hostname(f), f->machine_key, 0, r->name) == REFUSE) {
		return REFUSE;
	}
	return address_choose(st, r->tailnet, r->v4);
}

static NodeRecord *node_new(struct state *st, const struct registration *r)
{
	NodeRecord *n = st_alloc(st, sizeof(*n));
	struct buf b = BUF_INIT;
	uint8_t v6[16];

	skerry__internal__v1__node_record__init(n);
	n->id = st_next_id(st);
	n->tailnet = st->cmd->tailnet;
	buf_append_str(&b, "n");
	base32_append(&b, st->cmd->random.data + 8, 10);
	n->stable_id = st_printf(st, "%s", buf_str(&b));
	buf_done(&b);
	n->machine_key = r->facts->machine_key;
	n->create_ms = st->now;
	n->user = r->user;
	address_v6_of(r->v4, v6);
	n->n_addresses = 2;
	n->addresses = st_alloc(st, 2 * sizeof(*n->addresses));
	n->addresses[0] = st_bytes(st, r->v4, 4);
	n->addresses[1] = st_bytes(st, v6, 16);
	return n;
}

static void node_new_indexes(struct state *st, const NodeRecord *n)
{
	struct skey k;

	st_index_put(st, machine_key(&k, n->machine_key, n->tailnet, n->user), n->tailnet, n->id);
	for (size_t i = 0; i < n->n_addresses; i++) {
		st_index_put(st, key32(&k, TABLE_BY_ADDRESS, n->addresses[i]), n->tailnet, n->id);
	}
	if (n->user != 0) {
		st_raw_put(st, skey_id3(&k, TABLE_NODE_OF_USER, n->tailnet, n->user, n->id), "", 0);
	}
	st_head(st, n->tailnet)->node_count++;
	st_head_dirty(st, n->tailnet);
}

static void put_first_presence(struct state *st, const NodeRecord *n)
{
	Presence p;

	skerry__internal__v1__presence__init(&p);
	p.node = n->id;
	p.tailnet = n->tailnet;
	p.lost_ms = st->now;
	if (n->ephemeral) {
		p.remove_ms = st->now + LIM_EPHEMERAL_MS;
		st_deadline_put(st, p.remove_ms, DEADLINE_EPHEMERAL, n->tailnet, n->id);
	}
	st_put_presence(st, &p, true);
}

NodeRecord *registration_make(struct state *st, struct registration *r)
{
	const RegisterFacts *f = r->facts;
	bool is_new = r->existing == NULL;
	NodeRecord *n = is_new ? node_new(st, r) : r->existing;
	bool was_live = !is_new && n->approved && !n->expired && !n->suspended;
	NodeEndpoints *e = is_new ? NULL : st_endpoints(st, n->tailnet, n->id);
	bool tags_differ = n->n_tags != r->n_tags;
	struct skey k;

	for (size_t i = 0; i < r->n_tags && !tags_differ; i++) {
		tags_differ = !has_tag(n->tags, n->n_tags, r->tags[i]);
	}
	if (!is_new && !bytes_equal(n->node_key, f->node_key)) {
		st_raw_del(st, key32(&k, TABLE_BY_NODE_KEY, n->node_key));
	}
	st_index_put(st, key32(&k, TABLE_BY_NODE_KEY, f->node_key), n->tailnet, n->id);
	n->node_key = f->node_key;
	n->hostname = (char *)facts_hostname(f);
	n->host_info = f->host_info;
	n->client_version = f->host_info != NULL ? f->host_info->client_version : n->client_version;
	n->requested_tags = f->requested_tags;
	n->n_requested_tags = f->n_requested_tags;
	n->tags = r->tags;
	n->n_tags = r->n_tags;
	n->register_method = r->method;
	n->auth_key = r->key != NULL ? r->key->id : 0;
	n->ephemeral = r->ephemeral;
	n->approved = n->approved || r->approved;
	n->suspended = r->user_suspended;
	if (is_new || strcmp(n->given_name, r->name) != 0) {
		if (!is_new) {
			name_release(st, n->tailnet, n->given_name, n->machine_key);
		}
		n->given_name = st_printf(st, "%s", r->name);
		name_take(st, n->tailnet, n->given_name, n->id);
	}
	node_set_expiry(
		st, n, n->n_tags > 0 || r->never_expires ? 0 : node_default_expiry(st, r->tailnet));
	if (is_new) {
		node_new_indexes(st, n);
	}
	st_put_node(st, n, !is_new && (!was_live || tags_differ));

	if (e == NULL) {
		e = st_alloc(st, sizeof(*e));
		skerry__internal__v1__node_endpoints__init(e);
		e->node = n->id;
		e->tailnet = n->tailnet;
	}
	if (f->n_endpoints > 0) {
		e->endpoints = f->endpoints;
		e->n_endpoints = f->n_endpoints;
	}
	endpoints_set_disco(st, e, f->disco_key);
	st_put_endpoints(st, e);
	if (is_new) {
		put_first_presence(st, n);
	}
	return n;
}

/* ---- going ---- */

void node_remove(struct state *st, NodeRecord *n)
{
	struct change_of c = {.tailnet = n->tailnet, .object = n->id};
	NodeEndpoints *e = st_endpoints(st, n->tailnet, n->id);
	Presence *p = st_presence(st, n->tailnet, n->id);
	struct skey k;

	if (p != NULL) {
		presence_unlink(st, p);
		c.kind = CHANGE_PRESENCE;
		c.old_revision = p->revision;
		state_del(st, skey_id2(&k, TABLE_PRESENCE, n->tailnet, n->id), &c, false);
	}
	if (e != NULL) {
		if (e->disco_key.len != 0) {
			st_raw_del(st, disco_key(&k, e->disco_key, n->tailnet, n->id));
		}
		c.kind = CHANGE_ENDPOINTS;
		c.old_revision = e->revision;
		state_del(st, skey_id2(&k, TABLE_ENDPOINTS, n->tailnet, n->id), &c, false);
	}
	if (!n->expired) {
		st_deadline_del(st, n->expire_ms, DEADLINE_NODE, n->tailnet, n->id);
	}
	st_raw_del(st, key32(&k, TABLE_BY_NODE_KEY, n->node_key));
	st_raw_del(st, machine_key(&k, n->machine_key, n->tailnet, n->user));
	if (n->user != 0) {
		st_raw_del(st, skey_id3(&k, TABLE_NODE_OF_USER, n->tailnet, n->user, n->id));
	}
	for (size_t i = 0; i < n->n_addresses; i++) {
		address_release(st, n->addresses[i], n->machine_key);
	}
	name_release(st, n->tailnet, n->given_name, n->machine_key);
	c.kind = CHANGE_NODE;
	c.old_revision = n->revision;
	state_del(st, skey_id2(&k, TABLE_NODE, n->tailnet, n->id), &c, true);
	st_head(st, n->tailnet)->node_count--;
	st_head_dirty(st, n->tailnet);
}
