/*
 * Everything with a deadline is in one ordered index; a Tick works through what is due, a bounded portion at a time,
 * the earliest first. A deadline that finds its record gone or moved on does nothing, so that nobody has to hunt for
 * deadlines when a record changes in a way that only makes them void. Nothing is done before its time.
 */
#include "tailnet/commands_int.h"

#include "base/limits.h"

struct due {
	uint64_t ms, tailnet, id;
	enum deadline kind;
	const uint8_t *rest;
	size_t rest_len;
};

/* After a gap without leader nobody could attach: the wait starts anew with the leader. */
static uint64_t waited_since(const struct state *st, uint64_t since_ms)
{
	return MAX(since_ms, st->meta->leader_since_ms);
}

static void due_presence(struct state *st, const struct due *d)
{
	Presence *p = st_presence(st, d->tailnet, d->id);
	uint64_t at;
	NodeRecord *n;

	if (p == NULL || p->offline_ms != d->ms || p->lost_ms == 0) {
		return;
	}
	at = waited_since(st, p->lost_ms) + p->grace_ms;
	if (at > st->now) {
		p->offline_ms = at;
		st_deadline_put(st, at, DEADLINE_PRESENCE, d->tailnet, d->id);
		st_put_presence(st, p, false);
		return;
	}
	n = st_node(st, d->tailnet, d->id);
	p->offline_ms = 0;
	p->online = false;
	if (n != NULL && n->ephemeral) {
		p->remove_ms = st->now + LIM_EPHEMERAL_MS;
		st_deadline_put(st, p->remove_ms, DEADLINE_EPHEMERAL, d->tailnet, d->id);
	}
	st_put_presence(st, p, true);
}

static void due_ephemeral(struct state *st, const struct due *d)
{
	Presence *p = st_presence(st, d->tailnet, d->id);
	NodeRecord *n = st_node(st, d->tailnet, d->id);
	uint64_t at;

	if (p == NULL || n == NULL || p->remove_ms != d->ms || p->online) {
		return;
	}
	if (!n->ephemeral) {
		p->remove_ms = 0;
		st_put_presence(st, p, false);
		return;
	}
	at = waited_since(st, p->lost_ms) + LIM_EPHEMERAL_MS;
	if (at > st->now) {
		p->remove_ms = at;
		st_deadline_put(st, at, DEADLINE_EPHEMERAL, d->tailnet, d->id);
		st_put_presence(st, p, false);
		return;
	}
	p->remove_ms = 0;
	node_remove(st, n);
	st_audit(st, d->tailnet, "node.remove_ephemeral",
		 st_name(st, RESOURCE_NODE, d->tailnet, d->id), "%s", n->given_name);
}

static void due_node(struct state *st, const struct due *d)
{
	NodeRecord *n = st_node(st, d->tailnet, d->id);

	if (n == NULL || n->expire_ms != d->ms || n->expired) {
		return;
	}
	n->expired = true;
	st_put_node(st, n, true);
	st_audit(st, d->tailnet, "node.expire", st_name(st, RESOURCE_NODE, d->tailnet, d->id), "%s",
		 n->given_name);
}

/* First it expires, which watchers of its calls learn; a month later it leaves the lists. */
static void due_auth_key(struct state *st, const struct due *d)
{
	AuthKeyRecord *k = st_auth_key(st, d->tailnet, d->id);

	if (k == NULL) {
		return;
	}
	if (!k->expired && k->expire_ms == d->ms) {
		k->expired = true;
		st_deadline_put(st, k->expire_ms + LIM_KEY_KEEP_MS, DEADLINE_AUTH_KEY, d->tailnet,
				d->id);
		st_put_auth_key(st, k);
	} else if (k->expired && k->used_by != 0 && st_node(st, d->tailnet, k->used_by) != NULL) {
		/* Its node may be set up again with it, as long as it lives. */
		st_deadline_put(st, d->ms + LIM_KEY_KEEP_MS, DEADLINE_AUTH_KEY, d->tailnet, d->id);
	} else if (k->expired) {
		auth_key_remove(st, k);
	}
}

static void due_api_key(struct state *st, const struct due *d)
{
	ApiKeyRecord *k = st_api_key(st, d->tailnet, d->id);

	if (k == NULL) {
		return;
	}
	if (!k->expired && k->expire_ms == d->ms) {
		k->expired = true;
		st_deadline_put(st, k->expire_ms + LIM_KEY_KEEP_MS, DEADLINE_API_KEY, d->tailnet,
				d->id);
		st_put_api_key(st, k);
	} else if (k->expired) {
		api_key_remove(st, k);
	}
}

static void due_rest(struct state *st, const struct due *d)
{
	Resting *r;
	struct skey k;

	skey_bytes(&k, TABLE_RESTING, d->rest + 1, d->rest_len - 1);
	r = st_get(st, skey_slice(&k), REC(resting));
	if (r != NULL && r->until_ms <= st->now) {
		state_del(st, skey_slice(&k), NULL, false);
	}
}

static void due_request(struct state *st, const struct due *d)
{
	struct skey k;

	skey_bytes(&k, TABLE_REQUEST, d->rest + 1, d->rest_len - 1);
	if (st_has(st, skey_slice(&k))) {
		st_raw_del(st, skey_slice(&k));
		st_head(st, d->tailnet)->request_id_count--;
		st_head_dirty(st, d->tailnet);
	}
}

/* Returns how many records it took. */
static size_t due_do(struct state *st, const struct due *d, size_t budget)
{
	size_t (*trim)(struct state *, uint64_t, size_t, uint64_t *) = NULL;
	PendingRecord *p;
	uint64_t next = 0;
	struct skey k;
	size_t n = 1;

	switch (d->kind) {
	case DEADLINE_PRESENCE: due_presence(st, d); break;
	case DEADLINE_EPHEMERAL: due_ephemeral(st, d); break;
	case DEADLINE_NODE: due_node(st, d); break;
	case DEADLINE_AUTH_KEY: due_auth_key(st, d); break;
	case DEADLINE_API_KEY: due_api_key(st, d); break;
	case DEADLINE_JOIN_TOKEN:
		state_del(st, skey_id(&k, TABLE_JOIN_TOKEN, d->id), NULL, false);
		break;
	case DEADLINE_PENDING:
		p = st_pending(st, d->tailnet, d->id);
		if (p != NULL && p->expire_ms == d->ms) {
			pending_remove(st, p);
		}
		break;
	case DEADLINE_REST: due_rest(st, d); break;
	case DEADLINE_REQUEST: due_request(st, d); break;
	case DEADLINE_TOMBSTONES: trim = st_trim_tombstones; break;
	case DEADLINE_HISTORY: trim = st_trim_history; break;
	case DEADLINE_PURGE:
		n = budget;
		if (!tailnet_purge(st, d->tailnet, budget)) {
			next = st->now;
		}
		break;
	default: st_fail(st, ERR_CORRUPT, "a deadline has the kind %d", (int)d->kind); break;
	}
	if (trim != NULL &&
	    (d->tailnet == 0 || st_has(st, skey_id(&k, TABLE_TAILNET, d->tailnet)))) {
		n = 1 + trim(st, d->tailnet, budget, &next);
	}
	if (next != 0) {
		st_raw_put(st, skey_deadline(&k, next, d->kind, d->tailnet, NULL, 0), "", 0);
	}
	return n;
}

int cmd_tick(struct state *st)
{
	struct skey first, key;
	size_t done = 0;

	skey_init(&first, TABLE_DEADLINE);
	while (done < LIM_TICK_ITEMS) {
		struct due d = {0};
		struct slice k, v;

		if (!st_raw_seek(st, skey_slice(&first), &k, &v) ||
		    skey_table(k) != TABLE_DEADLINE) {
			break;
		}
		if (k.len < 18) {
			st_fail(st, ERR_CORRUPT, "a key of the table deadline is too short");
			break;
		}
		skey_bytes(&key, TABLE_DEADLINE, (const uint8_t *)k.data + 1, k.len - 1);
		IGNORE(skey_get_u64(skey_slice(&key), 1, &d.ms));
		if (d.ms > st->now) {
			break;
		}
		d.kind = key.data[9];
		IGNORE(skey_get_u64(skey_slice(&key), 10, &d.tailnet));
		IGNORE(skey_get_u64(skey_slice(&key), 18, &d.id));
		d.rest = key.data + 18;
		d.rest_len = key.len - 18u;
		st_raw_del(st, skey_slice(&key));
		done += due_do(st, &d, LIM_TICK_ITEMS - done);
		if (st->fail < 0) {
			break;
		}
	}
	st->reply->id = done;
	return ACCEPT;
}
