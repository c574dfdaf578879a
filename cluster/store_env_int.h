/* Inside of the store: environment, transactions, readers. */
#pragma once

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "cluster/store.h"
#include "cluster/store_int.h"

enum { STORE_DAMAGE_TEXT = 256, STORE_READERS_MAX = 254 };

/* Of the writer: where a get of this table ended; a put of the same key begins there, not at the root. */
struct got {
	MDB_cursor *cursor; /* NULL until the first get */
	uint8_t table;
};

/* One transaction with its cursor; `kv.impl` points here. */
struct txn {
	struct store *store;
	struct env *env;
	MDB_txn *txn;
	MDB_cursor *cursor; /* NULL until the first seek */
	struct got got[2];
	unsigned got_last; /* which of the two was used last */
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
	char damage[STORE_DAMAGE_TEXT];
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

/* ---- store_kv.c ---- */

/* The error of a code of LMDB, with the remedy where there is one. Returns its code. */
int store_fail(struct err *err, int rc, const char *what);
/* If LMDB met a page that makes no sense: the data is not trusted any more, whatever becomes of this process. */
void store_note_damage(struct store *s, int rc);
void txn_init(struct txn *t, struct store *s, struct env *e, MDB_txn *txn, bool read_only);
/* Of the state's keys, for LMDB: its own order. */
int store_key_order(const MDB_val *a, const MDB_val *b);
/* Before the transaction ends. */
void txn_forget(struct txn *t);
/* Blocks of the file for what the open transaction takes. A code of LMDB. */
int txn_room(struct txn *t);

/* ---- store.c ---- */

struct env *store_env_ref(struct store *s);
/* `node` (may be NULL) leaves its list in the same step: after it the store may be closed. */
void store_env_unref(struct store *s, struct env *e, struct list *node);
/* Lets go of the environment before store_adopt(), which takes its time. */
void store_former_close(struct store *s);
/* What the transaction says of itself; a code of LMDB. */
int store_applied_load(struct env *e, MDB_txn *txn, uint64_t *ret);
