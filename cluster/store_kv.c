/* The store's transactions as the key-value interface under the state, and what LMDB's codes mean. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/enc.h"
#include "cluster/store_env_int.h"
#include "tailnet/keys.h"

enum {
	KEY_MAX = 400,
	VALUE_MAX = 4 << 20, /* above any record */
	/* Space of the file ahead of a write, so much more at a time, and how often it is looked at. */
	ROOM_LOW = 4 << 20,
	ROOM_STEP = 8 << 20,
	ROOM_PUTS = 512,
	PUT_PAGES = 2, /* that a put may take, or more with a long value */
};

static bool store_is_damage(int rc)
{
	return rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID ||
	       rc == MDB_VERSION_MISMATCH || rc == MDB_CURSOR_FULL || rc == MDB_INCOMPATIBLE ||
	       rc == MDB_PAGE_FULL;
}

int store_fail(struct err *err, int rc, const char *what)
{
	if (store_is_damage(rc)) {
		return err_set(err, ERR_CORRUPT, "store: %s: %s", what, mdb_strerror(rc));
	}
	if (rc == MDB_MAP_FULL) {
		return err_set(
			err, ERR_STORE,
			"store: %s: the map is full; raise store_size in the configuration, then "
			"start again",
			what);
	}
	if (rc == ENOSPC || rc == EDQUOT) {
		return err_set(
			err, ERR_STORE,
			"store: %s: %s; free space in the file system of the state directory, "
			"then start again",
			what, mdb_strerror(rc));
	}
	if (rc == EIO || rc == EROFS) {
		return err_set(
			err, ERR_STORE,
			"store: %s: %s; check disk and file system of the state directory, then "
			"start again",
			what, mdb_strerror(rc));
	}
	return err_set(err, ERR_STORE, "store: %s: %s", what, mdb_strerror(rc));
}

/* LMDB met a page that makes no sense: the data is not trusted any more, whatever becomes of this process. */
void store_note_damage(struct store *s, int rc)
{
	if (!store_is_damage(rc)) {
		return;
	}
	pthread_mutex_lock(&s->lock);
	if (!atomic_load(&s->damaged)) {
		snprintf(s->damage, sizeof(s->damage), "LMDB: %s", mdb_strerror(rc));
		atomic_store(&s->damaged, true);
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- the key-value interface ---- */

static int code(const struct txn *t, int rc)
{
	store_note_damage(t->store, rc);
	return rc == MDB_SUCCESS ? 0 : rc == MDB_NOTFOUND ? ERR_NOT_FOUND : ERR_STORE;
}

static MDB_val val(struct slice s)
{
	return (MDB_val){.mv_size = s.len, .mv_data = (void *)s.data};
}

/*
 * The order that LMDB has by itself, bytes first, then length, by words: a search compares some thirty keys, and most begin
 * with the same table and tailnet.
 */
int store_key_order(const MDB_val *a, const MDB_val *b)
{
	const uint8_t *p = a->mv_data, *q = b->mv_data;
	size_t n = MIN(a->mv_size, b->mv_size), i = 0;

	for (; n - i >= 8; i += 8) {
		uint64_t x = be_get64(p + i), y = be_get64(q + i);

		if (x != y) {
			return x < y ? -1 : 1;
		}
	}
	if (i < n && n >= 8) {
		/* The last eight: those of them that were looked at are equal. */
		uint64_t x = be_get64(p + n - 8), y = be_get64(q + n - 8);

		if (x != y) {
			return x < y ? -1 : 1;
		}
	} else {
		for (; i < n; i++) {
			if (p[i] != q[i]) {
				return p[i] < q[i] ? -1 : 1;
			}
		}
	}
	return (a->mv_size > b->mv_size) - (a->mv_size < b->mv_size);
}

/* What a damaged page gives for a record: nobody above shall copy it into what was made for real ones. */
static int sane(size_t key_len, const MDB_val *v)
{
	return key_len >= 1 && key_len <= KEY_MAX && v->mv_size <= VALUE_MAX ? MDB_SUCCESS
									     : MDB_CORRUPTED;
}

/* The cursor of the key's table; NULL: there is none. */
static struct got *got_find(struct txn *t, struct slice key)
{
	uint8_t table = skey_table(key);

	for (unsigned i = 0; i < ARRAY_LEN(t->got); i++) {
		if (t->got[i].cursor != NULL && t->got[i].table == table) {
			t->got_last = i;
			return &t->got[i];
		}
	}
	return NULL;
}

/* As that, or the one that was not used last. */
static int got_take(struct txn *t, struct slice key, MDB_cursor **ret)
{
	struct got *g = got_find(t, key);
	int rc = MDB_SUCCESS;

	if (g == NULL) {
		t->got_last = !t->got_last;
		g = &t->got[t->got_last];
		g->table = skey_table(key);
		if (g->cursor == NULL) {
			rc = mdb_cursor_open(t->txn, t->dbi, &g->cursor);
		}
	}
	*ret = g->cursor;
	return rc;
}

static int find(struct txn *t, struct slice key, MDB_val *k, MDB_val *v)
{
	MDB_cursor *at;
	int rc;

	if (t->read_only) {
		return mdb_get(t->txn, t->dbi, k, v);
	}
	rc = got_take(t, key, &at);
	return rc == MDB_SUCCESS ? mdb_cursor_get(at, k, v, MDB_SET) : rc;
}

static int op_get(void *impl, struct slice key, struct slice *ret)
{
	struct txn *t = impl;
	MDB_val k = val(key), v;
	int rc = GUARDED(t->env, find(t, key, &k, &v));

	if (rc == MDB_SUCCESS) {
		rc = sane(k.mv_size, &v);
	}
	if (rc == MDB_SUCCESS) {
		*ret = (struct slice){v.mv_data, v.mv_size};
	}
	return code(t, rc);
}

/*
 * LMDB writes into its map: a page without a block on a full disk would be a SIGBUS. The file gets its blocks first, for
 * what the open transaction takes at most: no page is taken twice, so never more than the tree has.
 */
int txn_room(struct txn *t)
{
	struct env *e = t->env;
	MDB_envinfo info;
	uint64_t from, to, most, page;
	MDB_stat st;
	int rc, fd;

	if (e->room == UINT64_MAX) {
		return MDB_SUCCESS;
	}
	rc = mdb_env_info(e->mdb, &info);
	if (rc == MDB_SUCCESS) {
		rc = mdb_stat(t->txn, t->dbi, &st);
	}
	if (rc == MDB_SUCCESS) {
		rc = mdb_env_get_fd(e->mdb, &fd);
	}
	if (rc != MDB_SUCCESS) {
		return rc;
	}
	page = st.ms_psize;
	from = (info.me_last_pgno + 1) * page;
	to = from + ROOM_LOW +
	     MIN(t->pages, st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages) * page;
	to = MIN(to, info.me_mapsize);
	if (to <= e->room) {
		return MDB_SUCCESS;
	}
	from = MAX(from, e->room);
	most = MIN(to + ROOM_STEP, info.me_mapsize);
	if (fallocate(fd, 0, (off_t)from, (off_t)(most - from)) == 0) {
		e->room = most;
	} else if (errno == EOPNOTSUPP) {
		e->room = UINT64_MAX;
	} else if (fallocate(fd, 0, (off_t)from, (off_t)(to - from)) == 0) {
		e->room = to;
	} else {
		return errno;
	}
	return MDB_SUCCESS;
}

static int op_put(void *impl, struct slice key, struct slice value)
{
	struct txn *t = impl;
	MDB_val k = val(key), v = val(value);
	struct got *g;

	PRE(!t->read_only && key.len >= 1 && key.len <= KEY_MAX);
	t->at = NULL;
	t->pages += PUT_PAGES + value.len / 1024;
	if (++t->puts % ROOM_PUTS == 0 || value.len > ROOM_LOW / 16) {
		int rc = txn_room(t);

		if (rc != MDB_SUCCESS) {
			return ERR_STORE;
		}
	}
	g = got_find(t, key);
	return code(t, GUARDED(t->env, g != NULL ? mdb_cursor_put(g->cursor, &k, &v, 0)
						 : mdb_put(t->txn, t->dbi, &k, &v, 0)));
}

static int op_del(void *impl, struct slice key)
{
	struct txn *t = impl;
	MDB_val k = val(key);

	PRE(!t->read_only);
	t->at = NULL;
	return code(t, GUARDED(t->env, mdb_del(t->txn, t->dbi, &k, NULL)));
}

static int cursor_open(struct txn *t)
{
	return t->cursor != NULL ? MDB_SUCCESS
				 : GUARDED(t->env, mdb_cursor_open(t->txn, t->dbi, &t->cursor));
}

static int found(struct txn *t, int rc, const MDB_val *k, const MDB_val *v, struct slice *ret_key,
		 struct slice *ret_value)
{
	if (rc == MDB_SUCCESS) {
		rc = sane(k->mv_size, v);
	}
	if (rc == MDB_SUCCESS) {
		*ret_key = (struct slice){k->mv_data, k->mv_size};
		*ret_value = (struct slice){v->mv_data, v->mv_size};
		t->at = k->mv_data;
		t->at_len = k->mv_size;
	} else {
		t->at = NULL;
	}
	return code(t, rc);
}

static int op_seek(void *impl, struct slice key, struct slice *ret_key, struct slice *ret_value)
{
	struct txn *t = impl;
	MDB_val k = val(key), v;
	int rc = cursor_open(t);

	if (rc == MDB_SUCCESS) {
		rc = GUARDED(t->env, mdb_cursor_get(t->cursor, &k, &v,
						    key.len == 0 ? MDB_FIRST : MDB_SET_RANGE));
	}
	return found(t, rc, &k, &v, ret_key, ret_value);
}

static int op_next(void *impl, struct slice key, struct slice *ret_key, struct slice *ret_value)
{
	struct txn *t = impl;
	MDB_val k = val(key), v;
	int rc = cursor_open(t);

	if (rc != MDB_SUCCESS) {
		return code(t, rc);
	}
	if (t->at != NULL && t->at == key.data && t->at_len == key.len) {
		rc = GUARDED(t->env, mdb_cursor_get(t->cursor, &k, &v, MDB_NEXT));
		return found(t, rc, &k, &v, ret_key, ret_value);
	}
	rc = GUARDED(t->env,
		     mdb_cursor_get(t->cursor, &k, &v, key.len == 0 ? MDB_FIRST : MDB_SET_RANGE));
	if (rc == MDB_SUCCESS && key.len > 0 && k.mv_size == key.len &&
	    memcmp(k.mv_data, key.data, key.len) == 0) {
		rc = GUARDED(t->env, mdb_cursor_get(t->cursor, &k, &v, MDB_NEXT));
	}
	return found(t, rc, &k, &v, ret_key, ret_value);
}

static int op_prev(void *impl, struct slice key, struct slice *ret_key, struct slice *ret_value)
{
	struct txn *t = impl;
	MDB_val k = val(key), v;
	int rc = cursor_open(t);

	if (rc != MDB_SUCCESS) {
		return code(t, rc);
	}
	if (key.len == 0) {
		return ERR_NOT_FOUND;
	}
	rc = GUARDED(t->env, mdb_cursor_get(t->cursor, &k, &v, MDB_SET_RANGE));
	if (rc == MDB_SUCCESS) {
		rc = GUARDED(t->env, mdb_cursor_get(t->cursor, &k, &v, MDB_PREV));
	} else if (rc == MDB_NOTFOUND) {
		rc = GUARDED(t->env, mdb_cursor_get(t->cursor, &k, &v, MDB_LAST));
	}
	return found(t, rc, &k, &v, ret_key, ret_value);
}

static const struct kv_ops ops = {
	.get = op_get,
	.put = op_put,
	.del = op_del,
	.seek = op_seek,
	.next = op_next,
	.prev = op_prev,
};

void txn_init(struct txn *t, struct store *s, struct env *e, MDB_txn *txn, bool read_only)
{
	*t = (struct txn){
		.store = s, .env = e, .txn = txn, .dbi = e->state, .read_only = read_only};
	t->kv = (struct kv){.ops = &ops, .impl = t};
}

void txn_forget(struct txn *t)
{
	if (t->cursor != NULL) {
		mdb_cursor_close(t->cursor);
		t->cursor = NULL;
	}
	for (size_t i = 0; i < ARRAY_LEN(t->got); i++) {
		if (t->got[i].cursor != NULL) {
			mdb_cursor_close(t->got[i].cursor);
			t->got[i].cursor = NULL;
		}
	}
}

int store_append(struct store *s, struct slice key, struct slice value, struct err *err)
{
	MDB_val k = val(key), v = val(value);
	const struct kv *kv;
	int r = store_write(s, &kv, err);

	if (r != 0) {
		return r;
	}
	PRE(key.len >= 1 && key.len <= KEY_MAX);
	s->write.at = NULL;
	r = GUARDED(s->env, mdb_put(s->write.txn, s->env->state, &k, &v, MDB_APPEND));
	return r == MDB_SUCCESS ? 0 : store_fail(err, r, "append");
}
