/* LMDB as the state's store: environment, marks, the write transaction, readers. */
#include "cluster/store.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/enc.h"
#include "base/fileio.h"
#include "base/list.h"
#include "base/mem.h"
#include "cluster/store_int.h"

enum {
	KEY_MAX = 400,
	VALUE_MAX = 4 << 20, /* above any record */
	READERS_MAX = 254,
	DAMAGE_TEXT = 256,
	LOOK_BYTES = 64 << 20,
	/* Space of the file ahead of a write, so much more at a time, and how often it is looked at. */
	ROOM_LOW = 4 << 20,
	ROOM_STEP = 8 << 20,
	ROOM_PUTS = 512,
	PUT_PAGES = 2, /* that a put may take, or more with a long value */
};
#define MAP_DEFAULT (16ull << 30)

/* One transaction with its cursor; `kv.impl` points here. */
struct txn {
	struct store *store;
	struct env *env;
	MDB_txn *txn;
	MDB_cursor *cursor; /* NULL until the first seek */
	MDB_dbi dbi;
	struct kv kv;
	/* Where the cursor stands, so that a walk by next() needs no search: the key as it was handed out. */
	const void *at;
	size_t at_len;
	bool read_only;
	size_t puts, pages; /* put so far; taken by them at most */
};

/* An environment, held by the store that has it and by each read in it: the store may get another one meanwhile. */
struct env {
	MDB_env *mdb;
	MDB_dbi state, local;
	struct store_guard *guard;
	uint64_t
		room; /* of the writer: the file has its blocks up to here; UINT64_MAX: none to be had */
	unsigned refs; /* guarded by the store's lock */
};

struct store {
	struct env *env; /* other threads look at it with the lock held */
	struct env *
		former; /* after store_adopt(), until a worker comes by: closing it takes its time */
	char *dir;
	uint64_t map_bytes, look_bytes;
	bool read_only;
	struct store_found found;
	atomic_bool damaged; /* LMDB said so */
	char damage[DAMAGE_TEXT];
	atomic_uint_fast64_t free_pages; /* as of the last look */
	struct txn write;
	uint64_t applied, committed; /* the latter without the open write */
	pthread_mutex_t lock;        /* readers, damage, env */
	struct list readers;
};

struct store_read {
	struct txn t;
	struct store *store;
	struct env *env;
	struct list node;
	const char *name;
	uint64_t begin_ms;
	uint64_t applied;
};

static const char applied_key[] = "applied";

static bool is_damage(int rc)
{
	return rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID ||
	       rc == MDB_VERSION_MISMATCH || rc == MDB_CURSOR_FULL || rc == MDB_INCOMPATIBLE;
}

static int fail(struct err *err, int rc, const char *what)
{
	if (is_damage(rc)) {
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
static void note_damage(struct store *s, int rc)
{
	if (!is_damage(rc)) {
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
	note_damage(t->store, rc);
	return rc == MDB_SUCCESS ? 0 : rc == MDB_NOTFOUND ? ERR_NOT_FOUND : ERR_STORE;
}

static MDB_val val(struct slice s)
{
	return (MDB_val){.mv_size = s.len, .mv_data = (void *)s.data};
}

/* What a damaged page gives for a record: nobody above shall copy it into what was made for real ones. */
static int sane(size_t key_len, const MDB_val *v)
{
	return key_len >= 1 && key_len <= KEY_MAX && v->mv_size <= VALUE_MAX ? MDB_SUCCESS
									     : MDB_CORRUPTED;
}

static int op_get(void *impl, struct slice key, struct slice *ret)
{
	struct txn *t = impl;
	MDB_val k = val(key), v;
	int rc = GUARDED(t->env, mdb_get(t->txn, t->dbi, &k, &v));

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
static int room_make(struct txn *t)
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

	PRE(!t->read_only && key.len >= 1 && key.len <= KEY_MAX);
	t->at = NULL;
	t->pages += PUT_PAGES + value.len / 1024;
	if (++t->puts % ROOM_PUTS == 0 || value.len > ROOM_LOW / 16) {
		int rc = room_make(t);

		if (rc != MDB_SUCCESS) {
			return ERR_STORE;
		}
	}
	return code(t, GUARDED(t->env, mdb_put(t->txn, t->dbi, &k, &v, 0)));
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

static void txn_init(struct txn *t, struct store *s, struct env *e, MDB_txn *txn, bool read_only)
{
	*t = (struct txn){
		.store = s, .env = e, .txn = txn, .dbi = e->state, .read_only = read_only};
	t->kv = (struct kv){.ops = &ops, .impl = t};
}

static void txn_forget(struct txn *t)
{
	if (t->cursor != NULL) {
		mdb_cursor_close(t->cursor);
		t->cursor = NULL;
	}
}

/* ---- open and close ---- */

static struct env *env_ref(struct store *s)
{
	struct env *e;

	pthread_mutex_lock(&s->lock);
	e = s->env;
	e->refs++;
	pthread_mutex_unlock(&s->lock);
	return e;
}

/* `node` (may be NULL) leaves its list in the same step: after it the store may be closed. */
static void env_unref(struct store *s, struct env *e, struct list *node)
{
	bool last;

	pthread_mutex_lock(&s->lock);
	if (node != NULL) {
		list_remove(node);
	}
	last = --e->refs == 0;
	pthread_mutex_unlock(&s->lock);
	if (last) {
		store_guard_free(e->guard);
		mdb_env_close(e->mdb);
		mem_free(e);
	}
}

static int applied_load(struct env *e, MDB_txn *txn, uint64_t *ret)
{
	MDB_val k = {.mv_size = strlen(applied_key), .mv_data = (void *)applied_key}, v;
	int rc = GUARDED(e, mdb_get(txn, e->local, &k, &v));

	if (rc == MDB_NOTFOUND) {
		*ret = 0;
		return MDB_SUCCESS;
	}
	if (rc == MDB_SUCCESS) {
		if (v.mv_size != 8) {
			return MDB_CORRUPTED;
		}
		*ret = be_get64(v.mv_data);
	}
	return rc;
}

static void on_assert(MDB_env *mdb, const char *msg)
{
	struct env *e = mdb_env_get_userctx(mdb);

	(void)msg;
	if (e != NULL && e->guard != NULL) {
		store_guard_end(e->guard);
	}
}

static int env_open(struct store *s, struct err *err)
{
	unsigned flags = MDB_NOTLS | MDB_NOSYNC | MDB_WRITEMAP | (s->read_only ? MDB_RDONLY : 0);
	struct env *e = MEM_NEW(struct env);
	MDB_txn *txn = NULL;
	MDB_envinfo info;
	unsigned create;
	int rc, dead;

	e->refs = 1;
	s->env = e; /* closed with the store, whatever comes */
	rc = mdb_env_create(&e->mdb);
	/* After a crash all of it, so that none repeats itself; at a start in order as much as takes no time. */
	if (rc == MDB_SUCCESS) {
		int r = store_pages_check(
			s->dir, s->read_only || s->found.unclean ? 0 : s->look_bytes, err);

		if (r != 0) {
			return r;
		}
	}
	if (rc == MDB_SUCCESS) {
		rc = mdb_env_set_mapsize(e->mdb, s->map_bytes);
	}
	if (rc == MDB_SUCCESS) {
		rc = mdb_env_set_maxreaders(e->mdb, READERS_MAX);
	}
	if (rc == MDB_SUCCESS) {
		rc = mdb_env_set_maxdbs(e->mdb, 4);
	}
	if (rc == MDB_SUCCESS) {
		rc = mdb_env_open(e->mdb, s->dir, flags, 0600);
	}
	if (rc != MDB_SUCCESS) {
		return fail(err, rc, s->dir);
	}
	e->guard = s->read_only ? store_guard_look(s->dir)
				: store_guard_new(s->dir, s->found.why != NULL);
	mdb_env_set_userctx(e->mdb, e);
	mdb_env_set_assert(e->mdb, on_assert);
	IGNORE(mdb_reader_check(e->mdb, &dead));
	IGNORE(mdb_env_info(e->mdb, &info));
	create = s->read_only || info.me_last_txnid > 0 ? 0 : MDB_CREATE;
	rc = GUARDED(e, mdb_txn_begin(e->mdb, NULL, s->read_only ? MDB_RDONLY : 0, &txn));
	if (rc != MDB_SUCCESS) {
		return fail(err, rc, "begin");
	}
	rc = GUARDED(e, mdb_dbi_open(txn, "state", create, &e->state));
	if (rc == MDB_SUCCESS) {
		rc = GUARDED(e, mdb_dbi_open(txn, "local", create, &e->local));
	}
	if (rc == MDB_NOTFOUND) { /* the first transaction made both: the root is not what it was */
		rc = MDB_CORRUPTED;
	}
	if (rc == MDB_SUCCESS) {
		rc = applied_load(e, txn, &s->applied);
		s->committed = s->applied;
	}
	if (rc != MDB_SUCCESS) {
		mdb_txn_abort(txn);
		return fail(err, rc, "open");
	}
	rc = GUARDED(e, mdb_txn_commit(txn));
	return rc == MDB_SUCCESS ? 0 : fail(err, rc, "commit");
}

/* A file of some hundred megabytes without a name goes with its last user, which takes as many milliseconds. */
static void former_close(struct store *s)
{
	struct env *e;

	pthread_mutex_lock(&s->lock);
	e = s->former;
	s->former = NULL;
	pthread_mutex_unlock(&s->lock);
	if (e != NULL) {
		env_unref(s, e, NULL);
	}
}

static void env_close(struct store *s)
{
	former_close(s);
	if (s->env != NULL) {
		env_unref(s, s->env, NULL);
		s->env = NULL;
	}
}

static int marks_open(struct store *s, const struct store_options *o, struct err *err)
{
	mem_free(s->found.why);
	s->found.why = NULL;
	return store_marks_open(s->dir, o->boot_id, &s->found, err);
}

static int open_writable(struct store *s, const struct store_options *o, struct err *err)
{
	struct err why = {0};
	int r = dir_ensure(o->dir, 0700, err);

	if (r == 0) {
		r = marks_open(s, o, err);
	}
	if (r != 0) {
		return r;
	}
	r = env_open(s, &why);
	if (r == ERR_CORRUPT) {
		env_close(s);
		r = store_marks_order(s->dir, why.msg, err);
		if (r == 0) {
			r = marks_open(s, o, err);
		}
		return r == 0 ? env_open(s, err) : r;
	}
	if (r != 0 && err != NULL) {
		*err = why;
	}
	return r;
}

int store_open(struct store **ret, const struct store_options *o, bool *ret_dropped,
	       struct err *err)
{
	struct store *s = MEM_NEW(struct store);
	int r;

	s->dir = mem_strdup(o->dir);
	s->read_only = o->read_only;
	s->map_bytes = o->map_bytes != 0 ? o->map_bytes : MAP_DEFAULT;
	s->look_bytes = o->look_bytes != 0 ? o->look_bytes : LOOK_BYTES;
	list_init(&s->readers);
	pthread_mutex_init(&s->lock, NULL);
	r = o->read_only ? env_open(s, err) : open_writable(s, o, err);
	if (r != 0) {
		store_abandon(s);
		return r;
	}
	if (ret_dropped != NULL) {
		*ret_dropped = s->found.dropped;
	}
	*ret = s;
	return 0;
}

void store_abandon(struct store *s)
{
	if (s == NULL) {
		return;
	}
	store_abort(s);
	PRE(list_empty(&s->readers));
	env_close(s);
	pthread_mutex_destroy(&s->lock);
	mem_free(s->found.why);
	mem_free(s->dir);
	mem_free(s);
}

/* The file of a store that is closed is no longer than what it holds; opened again it is. */
static void shorten(struct store *s)
{
	MDB_envinfo info;
	MDB_stat st;
	int fd;

	if (!s->read_only && mdb_env_info(s->env->mdb, &info) == MDB_SUCCESS &&
	    mdb_env_stat(s->env->mdb, &st) == MDB_SUCCESS &&
	    mdb_env_get_fd(s->env->mdb, &fd) == MDB_SUCCESS) {
		IGNORE(ftruncate(fd, (off_t)((info.me_last_pgno + 1) * st.ms_psize)));
	}
}

void store_close(struct store *s)
{
	if (s == NULL) {
		return;
	}
	store_abort(s);
	shorten(s);
	if (!s->read_only && store_sync(s, NULL) == 0) {
		/* Without the mark the next start rebuilds, should the system have restarted: safe. */
		IGNORE(store_marks_clean(s->dir, NULL));
	}
	store_abandon(s);
}

/* ---- damage ---- */

bool store_unclean(const struct store *s)
{
	return s->found.unclean;
}

const char *store_rebuilt(const struct store *s)
{
	return s->found.why;
}

const char *store_damage(struct store *s)
{
	return atomic_load(&s->damaged) ? s->damage : NULL;
}

int store_order_rebuild(struct store *s, const char *why, struct err *err)
{
	return store_marks_order(s->dir, why, err);
}

int store_settle(struct store *s, struct err *err)
{
	int r = store_marks_settle(s->dir, err);

	if (r == 0) {
		store_guard_settled(s->env->guard);
	}
	return r;
}

/* ---- writer ---- */

int store_write(struct store *s, const struct kv **ret, struct err *err)
{
	PRE(!s->read_only);
	if (s->write.txn == NULL) {
		MDB_txn *txn;
		int rc = GUARDED(s->env, mdb_txn_begin(s->env->mdb, NULL, 0, &txn));

		if (rc != MDB_SUCCESS) {
			note_damage(s, rc);
			return fail(err, rc, "begin");
		}
		txn_init(&s->write, s, s->env, txn, false);
		rc = room_make(&s->write);
		if (rc != MDB_SUCCESS) {
			store_abort(s);
			return fail(err, rc, "space for the next write");
		}
	}
	*ret = &s->write.kv;
	return 0;
}

uint64_t store_applied(const struct store *s)
{
	return s->applied;
}

int store_set_applied(struct store *s, uint64_t index, struct err *err)
{
	uint8_t be[8];
	MDB_val k = {.mv_size = strlen(applied_key), .mv_data = (void *)applied_key};
	MDB_val v = {.mv_size = sizeof(be), .mv_data = be};
	const struct kv *kv;
	int r = store_write(s, &kv, err);

	if (r != 0) {
		return r;
	}
	be_put64(be, index);
	r = GUARDED(s->env, mdb_put(s->write.txn, s->env->local, &k, &v, 0));
	if (r != MDB_SUCCESS) {
		note_damage(s, r);
		return fail(err, r, "applied index");
	}
	s->applied = index;
	return 0;
}

int store_clear(struct store *s, struct err *err)
{
	const struct kv *kv;
	int r = store_write(s, &kv, err);

	if (r != 0) {
		return r;
	}
	txn_forget(&s->write);
	s->write.at = NULL;
	r = GUARDED(s->env, mdb_drop(s->write.txn, s->env->state, 0));
	return r == MDB_SUCCESS ? 0 : fail(err, r, "drop");
}

bool store_writing(const struct store *s)
{
	return s->write.txn != NULL;
}

int store_commit(struct store *s, struct err *err)
{
	MDB_txn *txn = s->write.txn;
	int rc;

	if (txn == NULL) {
		return 0;
	}
	txn_forget(&s->write);
	s->write.txn = NULL;
	s->write.at = NULL;
	rc = GUARDED(s->env, mdb_txn_commit(txn));
	if (rc != MDB_SUCCESS) {
		note_damage(s, rc);
		return fail(err, rc, "commit");
	}
	s->committed = s->applied;
	return 0;
}

void store_abort(struct store *s)
{
	if (s->write.txn != NULL) {
		txn_forget(&s->write);
		mdb_txn_abort(s->write.txn);
		s->write.txn = NULL;
		s->write.at = NULL;
		s->applied = s->committed;
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
	return r == MDB_SUCCESS ? 0 : fail(err, r, "append");
}

/* ---- another state in its place ---- */

static void fresh_remove(const char *dir)
{
	static const char *const names[] = {"data.mdb", "lock.mdb", "boot",   "clean",
					    "rebuild",  "rebuilt",  "damaged"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *path = mem_printf("%s/%s", dir, names[i]);

		IGNORE(file_remove(path, NULL));
		mem_free(path);
	}
	IGNORE(rmdir(dir));
}

int store_fresh(struct store *s, struct store **ret, struct err *err)
{
	char *dir = mem_printf("%s/fresh", s->dir);
	struct store_options o = {.dir = dir, .map_bytes = s->map_bytes};
	int r;

	fresh_remove(dir);
	r = store_open(ret, &o, NULL, err);
	mem_free(dir);
	return r;
}

void store_discard(struct store *fresh)
{
	char *dir;

	if (fresh == NULL) {
		return;
	}
	dir = mem_strdup(fresh->dir);
	store_abandon(fresh);
	fresh_remove(dir);
	mem_free(dir);
}

/*
 * LMDB keeps its files open, so that they may get other names under it, and the former ones none. The lock file goes
 * first: should the process die between the two, the next one finds a lock file that nobody holds, and makes it anew.
 */
static int fresh_move(const struct store *s, const struct store *fresh, struct err *err)
{
	static const char *const names[] = {"lock.mdb", "data.mdb"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_LEN(names); i++) {
		char *from = mem_printf("%s/%s", fresh->dir, names[i]);
		char *to = mem_printf("%s/%s", s->dir, names[i]);

		if (rename(from, to) != 0) {
			r = err_errno(err, "renaming %s to %s", from, to);
		}
		mem_free(from);
		mem_free(to);
	}
	return r;
}

int store_adopt(struct store *s, struct store *fresh, struct err *err)
{
	int r;

	PRE(s->write.txn == NULL && fresh->write.txn == NULL && list_empty(&fresh->readers));
	r = fresh_move(s, fresh, err);
	if (r != 0) {
		return r;
	}
	/* The guard tells of damage beside the data, which has moved. */
	store_guard_free(fresh->env->guard);
	fresh->env->guard = store_guard_new(s->dir, s->found.why != NULL);
	atomic_store(&s->free_pages, 0);
	former_close(s);
	pthread_mutex_lock(&s->lock);
	s->former = s->env;
	s->env = fresh->env;
	s->applied = s->committed = fresh->applied;
	pthread_mutex_unlock(&s->lock);
	fresh->env = NULL;
	store_discard(fresh);
	return 0;
}

/* ---- for the whole of it; any thread ---- */

int store_sync(struct store *s, struct err *err)
{
	struct env *e = env_ref(s);
	int rc;

	former_close(s);
	rc = mdb_env_sync(e->mdb, 1);

	env_unref(s, e, NULL);
	return rc == MDB_SUCCESS ? 0 : fail(err, rc, "sync");
}

unsigned store_used_permille(struct store *s)
{
	uint64_t free_pages = atomic_load(&s->free_pages);
	struct env *e = env_ref(s);
	unsigned permille = 1000;
	MDB_envinfo info;
	MDB_stat st;

	if (mdb_env_info(e->mdb, &info) == MDB_SUCCESS &&
	    mdb_env_stat(e->mdb, &st) == MDB_SUCCESS && info.me_mapsize != 0) {
		/* The file never shrinks: what was deleted is room again. */
		permille = (unsigned)((info.me_last_pgno -
				       MIN(free_pages, (uint64_t)info.me_last_pgno)) *
				      st.ms_psize / (info.me_mapsize / 1000 + 1));
	}
	env_unref(s, e, NULL);
	return permille;
}

int store_usage(struct store *s, struct store_usage *ret, struct err *err)
{
	struct store_read *read;
	MDB_cursor *cursor;
	MDB_envinfo info;
	MDB_val key, value;
	MDB_stat st;
	int rc, r = store_read_begin(s, "free pages", &read, err);

	former_close(s);
	if (r != 0) {
		return r;
	}
	*ret = (struct store_usage){0};
	/* Database 0 of LMDB: transaction -> count of pages, and the pages. */
	rc = GUARDED(read->env, mdb_cursor_open(read->t.txn, 0, &cursor));
	if (rc == MDB_SUCCESS) {
		while ((rc = GUARDED(read->env, mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) ==
		       MDB_SUCCESS) {
			size_t n;

			if (value.mv_size >= sizeof(n)) {
				memcpy(&n, value.mv_data, sizeof(n));
				ret->free_pages += n;
			}
		}
		mdb_cursor_close(cursor);
	}
	note_damage(s, rc);
	if (rc == MDB_NOTFOUND) { /* the end of the list */
		rc = mdb_env_info(read->env->mdb, &info);
	}
	if (rc == MDB_SUCCESS) {
		rc = mdb_env_stat(read->env->mdb, &st);
	}
	store_read_end(read);
	if (rc != MDB_SUCCESS) {
		return err_set(err, ERR_STORE, "store: %s", mdb_strerror(rc));
	}
	atomic_store(&s->free_pages, ret->free_pages);
	ret->map_bytes = info.me_mapsize;
	ret->page_bytes = st.ms_psize;
	ret->used_bytes = (info.me_last_pgno + 1) * (uint64_t)st.ms_psize;
	return 0;
}

/* ---- readers ---- */

int store_read_begin(struct store *s, const char *name, struct store_read **ret, struct err *err)
{
	struct env *e = env_ref(s);
	struct store_read *r;
	MDB_txn *txn;
	int rc = GUARDED(e, mdb_txn_begin(e->mdb, NULL, MDB_RDONLY, &txn));

	if (rc != MDB_SUCCESS) {
		note_damage(s, rc);
		env_unref(s, e, NULL);
		return rc == MDB_READERS_FULL
			       ? err_set(err, ERR_LIMIT, "store: %d read transactions are open",
					 READERS_MAX)
			       : fail(err, rc, "read");
	}
	r = MEM_NEW(struct store_read);
	txn_init(&r->t, s, e, txn, true);
	r->store = s;
	r->env = e;
	r->name = name;
	r->begin_ms = clock_mono_ms();
	rc = applied_load(e, txn, &r->applied);
	if (rc != MDB_SUCCESS) {
		note_damage(s, rc);
		mdb_txn_abort(txn);
		env_unref(s, e, NULL);
		mem_free(r);
		return fail(err, rc, "read");
	}
	pthread_mutex_lock(&s->lock);
	list_push(&s->readers, &r->node);
	pthread_mutex_unlock(&s->lock);
	*ret = r;
	return 0;
}

const struct kv *store_read_kv(const struct store_read *r)
{
	return &r->t.kv;
}

uint64_t store_read_applied(const struct store_read *r)
{
	return r->applied;
}

bool store_read_current(const struct store_read *r)
{
	struct store *s = r->store;
	MDB_envinfo info;
	bool same;

	pthread_mutex_lock(&s->lock);
	same = s->env == r->env;
	pthread_mutex_unlock(&s->lock);
	return same && GUARDED(r->env, mdb_env_info(r->env->mdb, &info)) == MDB_SUCCESS &&
	       info.me_last_txnid == mdb_txn_id(r->t.txn);
}

void store_read_end(struct store_read *r)
{
	if (r == NULL) {
		return;
	}
	txn_forget(&r->t);
	mdb_txn_abort(r->t.txn);
	env_unref(r->store, r->env, &r->node);
	mem_free(r);
}

uint64_t store_oldest_read_ms(struct store *s, const char **ret_name)
{
	uint64_t age = 0;

	pthread_mutex_lock(&s->lock);
	if (!list_empty(&s->readers)) {
		struct store_read *r = LIST_ENTRY(s->readers.next, struct store_read, node);

		age = clock_mono_ms() - r->begin_ms;
		if (ret_name != NULL) {
			*ret_name = r->name;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return age;
}
