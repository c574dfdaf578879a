/*
 * What devices report of themselves: sessions and facts. Both commands can be applied twice without harm, so they
 * have no row against repetition, no audit line and no history.
 *
 * A session is {node, number chosen by the device and rising, lighthouse, incarnation}:
 *   attach  counts with a number above the highest seen; with the same number only after the lighthouse itself was lost
 *           (it comes back and says again what it holds)
 *   detach  counts for the attached number from its own lighthouse; the node is offline at the Tick after the grace
 */
#include "tailnet/commands_int.h"

#include <string.h>

#include "base/limits.h"

#define LOST(x) SKERRY__INTERNAL__V1__LOST_CAUSE__LOST_CAUSE_##x

static bool attached(const Presence *p)
{
	return p->session != 0 && p->lost_ms == 0;
}

void presence_unlink(struct state *st, const Presence *p)
{
	struct skey k;

	if (attached(p)) {
		st_raw_del(st, skey_id3(&k, TABLE_SESSION, p->lighthouse, p->tailnet, p->node));
	}
	st_deadline_del(st, p->offline_ms, DEADLINE_PRESENCE, p->tailnet, p->node);
	st_deadline_del(st, p->remove_ms, DEADLINE_EPHEMERAL, p->tailnet, p->node);
}

static void session_lost(struct state *st, Presence *p, int cause, uint64_t grace_ms)
{
	presence_unlink(st, p);
	p->lost_ms = st->now;
	p->lost_cause = cause;
	p->grace_ms = grace_ms;
	p->last_seen_ms = st->now;
	p->remove_ms = 0;
	p->offline_ms = st->now + grace_ms;
	st_deadline_put(st, p->offline_ms, DEADLINE_PRESENCE, p->tailnet, p->node);
	st_put_presence(st, p, false);
}

static void attach(struct state *st, const Skerry__Internal__V1__SessionEvent *e, Presence *p,
		   uint64_t lighthouse, uint64_t incarnation)
{
	bool again = e->session == p->session && !attached(p) && p->lost_cause == LOST(LIGHTHOUSE);
	bool seen = !p->online;
	struct skey k;

	if (e->session <= p->session && !again) {
		return;
	}
	presence_unlink(st, p);
	p->online = true;
	p->session = e->session;
	p->lighthouse = lighthouse;
	p->incarnation = incarnation;
	p->lost_ms = 0;
	p->lost_cause = LOST(UNSPECIFIED);
	p->grace_ms = 0;
	p->offline_ms = 0;
	p->remove_ms = 0;
	p->last_seen_ms = st->now;
	p->instance_id = e->instance_id;
	st_raw_put(st, skey_id3(&k, TABLE_SESSION, lighthouse, p->tailnet, p->node), "", 0);
	st_put_presence(st, p, seen);
}

int cmd_session_batch(struct state *st)
{
	const Skerry__Internal__V1__SessionBatch *b = st->cmd->session_batch;
	MemberRecord *m = st_member(st, b->lighthouse);

	if (m == NULL || m->kind == SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED) {
		return refuse(st, CODE_DENIED, "NOT_A_MEMBER", "lighthouse",
			      "lighthouse %llu is not a member of this cluster",
			      (unsigned long long)b->lighthouse);
	}
	if (b->incarnation == 0 || m->incarnation != b->incarnation) {
		return refuse(st, CODE_PRECONDITION, "INCARNATION_ENDED", "incarnation",
			      "lighthouse %llu was declared lost or has started anew: it announces "
			      "itself, then its sessions",
			      (unsigned long long)b->lighthouse);
	}
	for (size_t i = 0; i < b->n_events; i++) {
		const Skerry__Internal__V1__SessionEvent *e = b->events[i];
		Presence *p = st_presence(st, e->tailnet, e->node);

		if (p == NULL || e->session == 0 || strlen(e->instance_id) > LIM_TEXT_BYTES) {
			continue;
		}
		if (!e->detach) {
			attach(st, e, p, b->lighthouse, b->incarnation);
		} else if (attached(p) && p->session == e->session &&
			   p->lighthouse == b->lighthouse) {
			session_lost(st, p, LOST(DETACHED),
				     e->clean ? LIM_PRESENCE_CLEAN_MS : LIM_PRESENCE_GRACE_MS);
		}
	}
	return ACCEPT;
}

void sessions_end(struct state *st, uint64_t lighthouse)
{
	struct skey prefix, at;
	struct slice k, v;

	skey_id(&prefix, TABLE_SESSION, lighthouse);
	while (st_raw_seek(st, skey_slice(&prefix), &k, &v) &&
	       skey_has_prefix(k, skey_slice(&prefix))) {
		uint64_t tailnet = 0, node = 0;
		Presence *p;

		skey_bytes(&at, TABLE_SESSION, (const uint8_t *)k.data + 1, k.len - 1);
		if (!skey_get_u64(k, 9, &tailnet) || !skey_get_u64(k, 17, &node)) {
			st_fail(st, ERR_CORRUPT, "a key of the table session is too short");
			return;
		}
		p = st_presence(st, tailnet, node);
		st_raw_del(st, skey_slice(&at));
		if (p != NULL && attached(p) && p->lighthouse == lighthouse) {
			session_lost(st, p, LOST(LIGHTHOUSE), LIM_PRESENCE_GRACE_MS);
		}
	}
}

/* ---- facts ---- */

static bool same_endpoints(const NodeEndpoints *e, const Skerry__Internal__V1__NodeFact *f)
{
	if (e->n_endpoints != f->n_endpoints) {
		return false;
	}
	for (size_t i = 0; i < f->n_endpoints; i++) {
		if (e->endpoints[i]->port != f->endpoints[i]->port ||
		    e->endpoints[i]->kind != f->endpoints[i]->kind ||
		    !bytes_equal(e->endpoints[i]->address, f->endpoints[i]->address)) {
			return false;
		}
	}
	return true;
}

static bool same_message(struct state *st, const ProtobufCMessage *a, const ProtobufCMessage *b)
{
	size_t len;
	uint8_t *pa, *pb;

	if (a == NULL || b == NULL) {
		return a == b;
	}
	len = protobuf_c_message_get_packed_size(a);
	if (len != protobuf_c_message_get_packed_size(b)) {
		return false;
	}
	pa = st_alloc(st, len);
	pb = st_alloc(st, len);
	protobuf_c_message_pack(a, pa);
	protobuf_c_message_pack(b, pb);
	return memcmp(pa, pb, len) == 0;
}

static void fact_endpoints(struct state *st, const Skerry__Internal__V1__NodeFact *f)
{
	NodeEndpoints *e = st_endpoints(st, f->tailnet, f->node);
	bool disco;

	if (e == NULL) {
		return;
	}
	disco = f->disco_key.len != 0 && !bytes_equal(e->disco_key, f->disco_key);
	if (!disco && (!f->set_endpoints || same_endpoints(e, f)) &&
	    (f->home_relay == 0 || f->home_relay == e->home_relay)) {
		return;
	}
	if (disco) {
		endpoints_set_disco(st, e, f->disco_key);
	}
	if (f->set_endpoints) {
		e->endpoints = f->endpoints;
		e->n_endpoints = f->n_endpoints;
	}
	if (f->home_relay != 0) {
		e->home_relay = f->home_relay;
	}
	st_put_endpoints(st, e);
}

static void fact_node(struct state *st, const Skerry__Internal__V1__NodeFact *f)
{
	NodeRecord *n = st_node(st, f->tailnet, f->node);
	bool host, info;
	char name[64];

	if (n == NULL) {
		return;
	}
	host = f->hostname[0] != '\0' && strcmp(n->hostname, f->hostname) != 0;
	info = f->host_info != NULL &&
	       !same_message(st, &f->host_info->base,
			     n->host_info != NULL ? &n->host_info->base : NULL);
	if (!host && !info) {
		return;
	}
	if (info) {
		n->host_info = f->host_info;
		n->client_version = f->host_info->client_version;
	}
	if (host) {
		n->hostname = f->hostname;
		if (!n->name_fixed && !name_follows(n->given_name, n->hostname) &&
		    name_find(st, n->tailnet, n->hostname, n->machine_key, n->id, name)) {
			name_release(st, n->tailnet, n->given_name, n->machine_key);
			n->given_name = st_printf(st, "%s", name);
			name_take(st, n->tailnet, n->given_name, n->id);
		}
	}
	st_put_node(st, n, false);
}

/* Refuses with the place, or accepts. */
static int fact_check(struct state *st, const Skerry__Internal__V1__NodeFact *f)
{
	NodeRecord *n;

	if (valid_endpoints(st, f->endpoints, f->n_endpoints, "endpoints") == REFUSE ||
	    valid_host_info(st, f->host_info, "host_info") == REFUSE ||
	    valid_text(st, f->hostname, LIM_DOMAIN, "hostname") == REFUSE) {
		return REFUSE;
	}
	if (f->disco_key.len != 0 && (f->disco_key.len != 32 || bytes_zero(f->disco_key))) {
		return refuse(st, CODE_INVALID, "", "disco_key",
			      "a disco key has 32 bytes that are not all zero");
	}
	n = st_node(st, f->tailnet, f->node);
	if (n == NULL) {
		return refuse(st, CODE_NOT_FOUND, "NODE_NOT_FOUND", "node",
			      "there is no node %llu in the tailnet", (unsigned long long)f->node);
	}
	if (disco_taken(st, f->disco_key, n->machine_key)) {
		return refuse(st, CODE_EXISTS, "DISCO_KEY_IN_USE", "disco_key",
			      "the disco key is in use: make a new one on this device");
	}
	if (f->session != 0) {
		Presence *p = st_presence(st, f->tailnet, f->node);

		if (p == NULL || !attached(p) || p->session != f->session) {
			return refuse(st, CODE_ABORTED, "SESSION_ENDED", "session",
				      "the session %llu is not attached",
				      (unsigned long long)f->session);
		}
	}
	return ACCEPT;
}

/*
 * A batch holds facts of many devices: a wrong one is left out and does not hold up the others. A batch of one is
 * refused, so that the device learns why.
 */
int cmd_node_facts(struct state *st)
{
	const Skerry__Internal__V1__NodeFacts *c = st->cmd->node_facts;
	bool *good = st_alloc(st, c->n_facts * sizeof(*good));

	for (size_t i = 0; i < c->n_facts; i++) {
		good[i] = fact_check(st, c->facts[i]) == ACCEPT;
		if (!good[i] && c->n_facts == 1) {
			return REFUSE;
		}
		if (!good[i]) {
			skerry__internal__v1__command_result__init(st->reply);
		}
	}
	for (size_t i = 0; i < c->n_facts; i++) {
		const Skerry__Internal__V1__NodeFact *f = c->facts[i];
		NodeRecord *n;

		if (!good[i]) {
			continue;
		}
		/* Two devices may bring the same disco key in one batch: the first one has it. */
		n = st_node(st, f->tailnet, f->node);
		if (n == NULL || disco_taken(st, f->disco_key, n->machine_key)) {
			continue;
		}
		fact_endpoints(st, f);
		fact_node(st, f);
	}
	return ACCEPT;
}
