/*
 * What is kept of the past, and for how long: tombstones of the change index, so that watchers who were away learn of
 * deletions; old values of records, so that the state can be read as it was.
 */
#include "tailnet/state_int.h"

#include "base/enc.h"
#include "base/limits.h"

/* ---- tombstones ---- */

size_t st_trim_tombstones(struct state *st, uint64_t tailnet, size_t budget, uint64_t *ret_next)
{
	TailnetHead *h = st_head(st, tailnet);
	struct skey prefix, key;
	size_t done = 0;
	uint64_t next = 0;

	skey_id(&prefix, TABLE_TOMBSTONE, tailnet);
	for (;;) {
		struct slice k, v;
		uint64_t at;

		if (!st_raw_seek(st, skey_slice(&prefix), &k, &v) ||
		    !skey_has_prefix(k, skey_slice(&prefix)) || k.len != 26 || v.len != 8) {
			break;
		}
		at = be_get64(v.data);
		if (h->tombstone_count <= LIM_TOMBSTONES && at + LIM_TOMBSTONE_MS > st->now) {
			next = at + LIM_TOMBSTONE_MS;
			break;
		}
		if (done == budget) {
			next = st->now;
			break;
		}
		h->change_floor = MAX(h->change_floor, be_get64((const uint8_t *)k.data + 9));
		skey_bytes(&key, TABLE_TOMBSTONE, (const uint8_t *)k.data + 1, k.len - 1);
		st_raw_del(st, skey_slice(&key));
		key.data[0] = TABLE_CHANGE;
		st_raw_del(st, skey_slice(&key));
		h->tombstone_count--;
		done++;
	}
	st_head_dirty(st, tailnet);
	*ret_next = next;
	return done;
}

/* ---- history ---- */

static struct slice history_key(struct skey *k, uint64_t tailnet, struct slice key,
				uint64_t revision)
{
	skey_id(k, TABLE_HISTORY, tailnet);
	skey_add_u16(k, (uint16_t)key.len);
	skey_add_bytes(k, key.data, key.len);
	skey_add_u64(k, revision);
	return skey_slice(k);
}

void st_history_put(struct state *st, uint64_t tailnet, struct slice key, bool existed,
		    struct slice old)
{
	struct skey hk, qk;
	HistoryRecord r;
	TailnetHead *h;
	uint8_t b[16];
	struct slice v;
	uint64_t bytes;

	history_key(&hk, tailnet, key, st->revision);
	/* A second write of one command: the value before the command stays. Of others none has this revision. */
	if (st->history_puts++ > 0 && st_has(st, skey_slice(&hk))) {
		return;
	}
	skerry__internal__v1__history_record__init(&r);
	r.existed = existed;
	r.time_ms = st->now;
	if (existed) {
		r.value.data = (uint8_t *)old.data;
		r.value.len = old.len;
	}
	v = st_pack(st, &r);
	bytes = hk.len + v.len;
	st_raw_put(st, skey_slice(&hk), v.data, v.len);

	skey_id2(&qk, TABLE_HISTORY_QUEUE, tailnet, st->revision);
	skey_add_bytes(&qk, key.data, key.len);
	be_put64(b, st->now);
	be_put64(b + 8, bytes);
	st_raw_put(st, skey_slice(&qk), b, sizeof(b));

	h = st_head(st, tailnet);
	if (h->history_bytes == 0) {
		st_raw_put(st,
			   skey_deadline(&qk, st->now + LIM_HISTORY_MS, DEADLINE_HISTORY, tailnet,
					 NULL, 0),
			   "", 0);
	} else if (h->history_bytes <= LIM_HISTORY_BYTES &&
		   h->history_bytes + bytes > LIM_HISTORY_BYTES) {
		st_raw_put(st, skey_deadline(&qk, st->now, DEADLINE_HISTORY, tailnet, NULL, 0), "",
			   0);
	}
	h->history_bytes += bytes;
	st->meta->bytes += bytes;
	st_head_dirty(st, tailnet);
}

size_t st_trim_history(struct state *st, uint64_t tailnet, size_t budget, uint64_t *ret_next)
{
	TailnetHead *h = st_head(st, tailnet);
	struct skey prefix, qk, hk;
	size_t done = 0;
	uint64_t next = 0;

	skey_id(&prefix, TABLE_HISTORY_QUEUE, tailnet);
	for (;;) {
		struct slice k, v;
		uint64_t at, bytes, revision;

		if (!st_raw_seek(st, skey_slice(&prefix), &k, &v) ||
		    !skey_has_prefix(k, skey_slice(&prefix)) || k.len < 18 || v.len != 16) {
			break;
		}
		at = be_get64(v.data);
		bytes = be_get64((const uint8_t *)v.data + 8);
		if (h->history_bytes <= LIM_HISTORY_BYTES && at + LIM_HISTORY_MS > st->now) {
			next = at + LIM_HISTORY_MS;
			break;
		}
		if (done == budget) {
			next = st->now;
			break;
		}
		revision = be_get64((const uint8_t *)k.data + 9);
		skey_bytes(&qk, TABLE_HISTORY_QUEUE, (const uint8_t *)k.data + 1, k.len - 1);
		history_key(&hk, tailnet, (struct slice){qk.data + 17, qk.len - 17u}, revision);
		st_raw_del(st, skey_slice(&qk));
		st_raw_del(st, skey_slice(&hk));
		h->history_bytes -= MIN(h->history_bytes, bytes);
		st->meta->bytes -= MIN(st->meta->bytes, bytes);
		h->history_floor = revision;
		done++;
	}
	st_head_dirty(st, tailnet);
	*ret_next = next;
	return done;
}
