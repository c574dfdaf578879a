/* LMDB as the state's store: environment, marks, the write transaction. */
#include "cluster/store.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/enc.h"
#include "base/fileio.h"
#include "base/mem.h"
#include "cluster/store_env_int.h"

#define MAP_DEFAULT (16ull << 30)

static const char applied_key[] = "applied";

/* ---- open and close ---- */

struct env *store_env_ref(struct store *s)
{
	struct env *e;

	pthread_mutex_lock(&s->lock);
	e = s->env;
	e->refs++;
	pthread_mutex_unlock(&s->lock);
	return e;
}

/* `node` (may be NULL) leaves its list in the same step: after it the store may be closed. */
void store_env_unref(struct store *s, struct env *e, struct list *node)
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

int store_applied_load(struct env *e, MDB_txn *txn, uint64_t *ret)
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
	/*
	 * Pages that the kernel reads ahead come in folios of up to some MiB, where it has them, and one page that we alter
	 * makes it write all of its folio: two GB a second for a state of 300 MB were seen, and no append came through.
	 */
	unsigned flags = MDB_NOTLS | MDB_NOSYNC | MDB_WRITEMAP | MDB_NORDAHEAD |
			 (s->read_only ? MDB_RDONLY : 0);
	struct env *e = MEM_NEW(struct env);
	MDB_txn *txn = NULL;
	MDB_envinfo info;
	unsigned create;
	int rc, dead;

	e->refs = 1;
	s->env = e; /* closed with the store, whatever comes */
	rc = mdb_env_create(&e->mdb);
	/* All of it: 0.2 s for 700 MiB, and raft reads as much. What is wrong leads LMDB into our heap, or in circles. */
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
		rc = mdb_env_set_maxreaders(e->mdb, STORE_READERS_MAX);
	}
	if (rc == MDB_SUCCESS) {
		rc = mdb_env_set_maxdbs(e->mdb, 4);
	}
	if (rc == MDB_SUCCESS) {
		rc = mdb_env_open(e->mdb, s->dir, flags, 0600);
	}
	if (rc != MDB_SUCCESS) {
		return store_fail(err, rc, s->dir);
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
		return store_fail(err, rc, "begin");
	}
	rc = GUARDED(e, mdb_dbi_open(txn, "state", create, &e->state));
	if (rc == MDB_SUCCESS) {
		rc = mdb_set_compare(txn, e->state, store_key_order);
	}
	if (rc == MDB_SUCCESS) {
		rc = GUARDED(e, mdb_dbi_open(txn, "local", create, &e->local));
	}
	if (rc == MDB_NOTFOUND) { /* the first transaction made both: the root is not what it was */
		rc = MDB_CORRUPTED;
	}
	if (rc == MDB_SUCCESS) {
		rc = store_applied_load(e, txn, &s->applied);
		s->committed = s->applied;
	}
	if (rc != MDB_SUCCESS) {
		mdb_txn_abort(txn);
		return store_fail(err, rc, "open");
	}
	rc = GUARDED(e, mdb_txn_commit(txn));
	return rc == MDB_SUCCESS ? 0 : store_fail(err, rc, "commit");
}

/* A file of some hundred megabytes without a name goes with its last user, which takes as many milliseconds. */
void store_former_close(struct store *s)
{
	struct env *e;

	pthread_mutex_lock(&s->lock);
	e = s->former;
	s->former = NULL;
	pthread_mutex_unlock(&s->lock);
	if (e != NULL) {
		store_env_unref(s, e, NULL);
	}
}

static void env_close(struct store *s)
{
	store_former_close(s);
	if (s->env != NULL) {
		store_env_unref(s, s->env, NULL);
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
	s->look_bytes = o->look_bytes;
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
			store_note_damage(s, rc);
			return store_fail(err, rc, "begin");
		}
		txn_init(&s->write, s, s->env, txn, false);
		rc = txn_room(&s->write);
		if (rc != MDB_SUCCESS) {
			store_abort(s);
			return store_fail(err, rc, "space for the next write");
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
		store_note_damage(s, r);
		return store_fail(err, r, "applied index");
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
	return r == MDB_SUCCESS ? 0 : store_fail(err, r, "drop");
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
		store_note_damage(s, rc);
		return store_fail(err, rc, "commit");
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
	store_former_close(s);
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
	struct env *e = store_env_ref(s);
	int rc;

	store_former_close(s);
	rc = mdb_env_sync(e->mdb, 1);

	store_env_unref(s, e, NULL);
	return rc == MDB_SUCCESS ? 0 : store_fail(err, rc, "sync");
}
