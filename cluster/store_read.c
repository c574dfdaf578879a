/* Beside the writer: reads of one revision, how full the store is. */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cluster/store_env_int.h"

unsigned store_used_permille(struct store *s)
{
	uint64_t free_pages = atomic_load(&s->free_pages);
	struct env *e = store_env_ref(s);
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
	store_env_unref(s, e, NULL);
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

	store_former_close(s);
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
	store_note_damage(s, rc);
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
	struct env *e = store_env_ref(s);
	struct store_read *r;
	MDB_txn *txn;
	int rc = GUARDED(e, mdb_txn_begin(e->mdb, NULL, MDB_RDONLY, &txn));

	if (rc != MDB_SUCCESS) {
		store_note_damage(s, rc);
		store_env_unref(s, e, NULL);
		return rc == MDB_READERS_FULL
			       ? err_set(err, ERR_LIMIT, "store: %d read transactions are open",
					 STORE_READERS_MAX)
			       : store_fail(err, rc, "read");
	}
	r = MEM_NEW(struct store_read);
	txn_init(&r->t, s, e, txn, true);
	r->store = s;
	r->env = e;
	r->name = name;
	r->begin_ms = clock_mono_ms();
	rc = store_applied_load(e, txn, &r->applied);
	if (rc != MDB_SUCCESS) {
		store_note_damage(s, rc);
		mdb_txn_abort(txn);
		store_env_unref(s, e, NULL);
		mem_free(r);
		return store_fail(err, rc, "read");
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
	store_env_unref(r->store, r->env, &r->node);
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
