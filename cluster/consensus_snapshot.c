/*
 * Snapshots, made and installed, without the raft thread ever waiting for one.
 *
 * An own one: libraft asks for it on the loop, at a point of the log. There a read transaction is begun, which pins the
 * state and costs nothing; what goes into the file is gathered from it on a thread of its own, while the shim keeps
 * libraft's request, and written by libraft on a worker. Entries are appended and applied meanwhile.
 *
 *   judge -> take: read transaction -> [alone] gather, seal -> raft_shim_prepared -> [worker] file -> finalize
 *
 * As long as the transaction lasts, no page that is given up meanwhile can be used again, and the store grows. So the
 * records are copied in one go, unless they are too many, and the transaction ends. Hashes are computed from the copy, by a
 * thread that comes after all others.
 *
 * One that comes in: the shim hands the message over before libraft sees it. A worker checks it and fills a store of its
 * own beside ours; then libraft gets the message, stores the file, and asks to restore: the stores change places.
 *
 *   receive -> [worker] snapshot_open, snapshot_fill -> raft_shim_received -> [worker] file -> restore: store_adopt
 */
#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/consensus_int.h"
#include "cluster/raft_metrics.h"
#include "cluster/snapshot_due.h"
#include "tailnet/tailnet.h"

enum {
	ROOM_LOOK_MS = 1000,
	/* Steps of nice(2), while the transaction is held and when it is not. */
	YIELD_HELD = 5,
	YIELD_FREE = 10,
};
/* A snapshot up to this size is made of a copy: so much more memory for a moment. */
#define COPY_BYTES (512ull << 20)

/* ---- one of our own ---- */

struct making {
	struct consensus *cs;
	struct store_read *read; /* NULL: the records were copied, and it has ended */
	bool copy;
	uint64_t term, begin_ns;
	atomic_bool cancel;
	struct snapshot snapshot;
	struct err err;
};

_Static_assert(sizeof(struct raft_buffer) == sizeof(struct snapshot_piece) &&
		       offsetof(struct raft_buffer, base) ==
			       offsetof(struct snapshot_piece, data) &&
		       offsetof(struct raft_buffer, len) == offsetof(struct snapshot_piece, len),
	       "pieces are handed to libraft as they are");

int snapshot_op_take(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
	struct consensus *cs = fsm->data;
	struct making *m;
	struct err err = {0};
	int r;

	/*
	 * The store may not get ahead of our own log (group_held), nor stay behind what libraft names the snapshot after: it
	 * asks again with the next event.
	 */
	if (group_held(cs) || cs->making != NULL || !list_empty(&cs->backlog)) {
		return RAFT_BUSY;
	}
	m = MEM_NEW(struct making);
	r = store_commit(cs->store, &err);
	if (r == 0) {
		r = store_read_begin(cs->store, "snapshot", &m->read, &err);
	}
	if (r != 0) {
		mem_free(m);
		err_prefix(&err, "snapshot cannot be made");
		damage_fail(cs->store, r, &err);
		return RAFT_IOERR;
	}
	m->cs = cs;
	/* Of the first one the size is unknown: records, their indexes, and what is kept about them. */
	m->copy = (cs->made_bytes != 0 ? cs->made_bytes : 2 * cs->view.bytes) <= COPY_BYTES;
	m->term = cs->raft.current_term;
	m->begin_ns = clock_mono_ns();
	cs->making = m;
	/* Filled by snapshot_prepare, which the shim calls next. */
	*bufs = NULL;
	*n_bufs = 0;
	return 0;
}

/*
 * From a snapshot and the log behind it a store is made anew, and what lies before it is gone: a state whose records are
 * not what its digest says must not become one. So the digest is computed from what goes into the file.
 */
static int make(struct making *m)
{
	struct tailnet_scrub walk = {0};
	struct snapshot_options o = {.copy = m->copy, .cancel = &m->cancel, .walk = &walk};
	struct state_view v;
	int r;

	if (!m->copy) {
		loop_work_yield(YIELD_HELD);
	}
	r = fsm_snapshot_gather(store_read_kv(m->read), store_read_applied(m->read), m->term, &o,
				&m->snapshot, &v, &m->err);
	if (r == 0 && m->copy) {
		store_read_end(m->read);
		m->read = NULL;
		loop_work_yield(YIELD_FREE);
	}
	if (r == 0) {
		r = snapshot_seal(&m->snapshot, &o, &m->err);
	}
	if (r == 0) {
		r = tailnet_scrub_compare(&walk, v.digest, &m->err);
	}
	if (r != 0) {
		snapshot_done(&m->snapshot);
	}
	return r;
}

static void make_work(void *arg)
{
	struct making *m = arg;
	int r = make(m);

	if (r != 0 && m->err.code == 0) {
		IGNORE(err_set(&m->err, r, "%s", err_text(r)));
	}
}

static void make_done(void *arg)
{
	struct making *m = arg;
	struct consensus *cs = m->cs;

	if (m->err.code != 0) {
		if (m->err.code != ERR_CANCELLED) {
			err_prefix(&m->err, "snapshot cannot be made");
			damage_fail(cs->store, m->err.code, &m->err);
		}
		raft_shim_prepared(&cs->shim, RAFT_CANCELED, NULL, 0);
		return;
	}
	cs->stats.snapshots++;
	counter_inc(raft_metrics()->snapshots);
	raft_shim_prepared(&cs->shim, 0,
			   (struct raft_buffer *)(uintptr_t)(const void *)m->snapshot.piece,
			   (unsigned)m->snapshot.n);
}

int snapshot_prepare(void *arg)
{
	struct consensus *cs = arg;

	return loop_work_alone(cs->loop, make_work, make_done, cs->making) < 0 ? RAFT_BUSY : 0;
}

void snapshot_cancel(struct consensus *cs)
{
	if (cs->making != NULL) {
		atomic_store(&cs->making->cancel, true);
	}
}

static void making_free(void *arg)
{
	struct making *m = arg;

	/* The pieces may point into what the transaction pins. */
	snapshot_done(&m->snapshot);
	store_read_end(m->read);
	m->read = NULL;
}

static void making_freed(void *arg)
{
	mem_free(arg);
}

int snapshot_op_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
	struct consensus *cs = fsm->data;
	struct making *m = cs->making;

	*bufs = NULL;
	*n_bufs = 0;
	raft_set_snapshot_threshold(&cs->raft, UINT32_MAX);
	if (m == NULL) {
		return 0;
	}
	if (m->snapshot.bytes > 0) {
		cs->made_bytes = m->snapshot.bytes;
		cs->made_wall_ms = clock_wall_ms();
		cs->log_bytes = 0;
		cs->wanted = false;
		histogram_observe(raft_metrics()->snapshot_time,
				  (double)(clock_mono_ns() - m->begin_ns) / 1e9);
	}
	cs->making = NULL;
	/* To give back a hundred megabytes takes some ms: a worker's, unless the store has to be there for it. */
	if (m->read != NULL || loop_work(cs->loop, making_free, making_freed, m) < 0) {
		making_free(m);
		making_freed(m);
	}
	return 0;
}

/* Running out of space with a file that is a cache of the log would end the process for nothing. */
static bool room(struct consensus *cs)
{
	uint64_t now = clock_mono_ms();
	struct statvfs v;

	if (now < cs->no_room_ms + ROOM_LOOK_MS) {
		return false;
	}
	if (statvfs(cs->dir, &v) != 0 ||
	    (uint64_t)v.f_bavail * v.f_frsize >
		    MAX(cs->made_bytes, 3 * cs->view.bytes) + LIM_DISK_FREE_BYTES) {
		return true;
	}
	if (cs->no_room_ms == 0) {
		LOG_WARN("no room for a snapshot in %s: the log grows until there is", cs->dir);
	}
	cs->no_room_ms = now;
	return false;
}

/* Our place among the voters, by id, the leader last; others are the first. */
static unsigned place(const struct consensus *cs, unsigned *ret_voters)
{
	const struct raft_configuration *c = &cs->raft.configuration;
	uint64_t leader = cs->told_leader;
	unsigned before = 0;
	bool voter = false;

	*ret_voters = 0;
	for (unsigned i = 0; i < c->n; i++) {
		const struct raft_server *s = &c->servers[i];

		if (s->role == RAFT_VOTER) {
			++*ret_voters;
			voter |= s->id == cs->id;
			before += s->id != leader && (s->id < cs->id || cs->id == leader);
		}
	}
	return voter ? before : 0;
}

/* 1 makes libraft take one after the next entry. */
void snapshot_judge(struct consensus *cs)
{
	uint64_t bytes;
	unsigned voters, at;

	if ((cs->log_bytes <= cs->snapshot_bytes && !cs->wanted) || cs->making != NULL) {
		return;
	}
	at = place(cs, &voters);
	bytes = snapshot_due_bytes(cs->snapshot_bytes, cs->view.bytes, at, voters);
	if ((cs->log_bytes > bytes || cs->wanted) && cs->change == NULL &&
	    !cs->raft.legacy.snapshot_install && !cs->shim.putting && cs->receiving == NULL &&
	    cs->fresh == NULL && room(cs)) {
		uint64_t entries = cs->raft.last_applied > cs->raft.trail.snapshot.index
					   ? cs->raft.last_applied - cs->raft.trail.snapshot.index
					   : 1;
		uint64_t keep = entries * cs->snapshot_bytes / (cs->log_bytes + 1);

		/* What is kept for slow followers: no more than about as many bytes as lie between snapshots. */
		raft_set_snapshot_trailing(
			&cs->raft, (unsigned)MIN(MAX(keep, 64u), (uint64_t)SNAPSHOT_TRAILING));
		raft_set_snapshot_threshold(&cs->raft, 1);
	}
}

void consensus_snapshot_now(struct consensus *cs)
{
	cs->wanted = true;
	snapshot_judge(cs);
}

/* ---- one that comes in ---- */

struct receiving {
	struct consensus *cs;
	struct raft_message message; /* with its data and configuration; the address is ours */
	struct store *fresh;
	struct err err;
};

static int header_check(const struct consensus *cs, const struct snapshot_header *h,
			struct err *err)
{
	if (cs->cluster_id != 0 && h->cluster_id != cs->cluster_id && h->cluster_id != 0) {
		return err_set(err, ERR_CORRUPT,
			       "snapshot is of cluster %llu, this lighthouse belongs to %llu",
			       (unsigned long long)h->cluster_id,
			       (unsigned long long)cs->cluster_id);
	}
	/* None: of no state yet. */
	return h->feature_level == 0 ? 0
				     : feature_level_known(h->feature_level, "snapshot has", err);
}

/* A store beside ours that holds the snapshot. Any thread. */
static int build(struct consensus *cs, const void *data, size_t len, struct store **ret,
		 struct err *err)
{
	struct snapshot_header h;
	struct store *fresh = NULL;
	int r = snapshot_open(data, len, &h, err);

	if (r == 0) {
		r = header_check(cs, &h, err);
	}
	if (r == 0) {
		r = store_fresh(cs->store, &fresh, err);
	}
	if (r == 0) {
		r = snapshot_fill(data, len, fresh, err);
	}
	if (r != 0) {
		store_discard(fresh);
		return r;
	}
	*ret = fresh;
	return 0;
}

static void receive_work(void *arg)
{
	struct receiving *rc = arg;
	const struct raft_buffer *data = &rc->message.install_snapshot.data;
	int r = build(rc->cs, data->base, data->len, &rc->fresh, &rc->err);

	if (r != 0 && rc->err.code == 0) {
		IGNORE(err_set(&rc->err, r, "%s", err_text(r)));
	}
}

static void message_drop(struct raft_message *m)
{
	raft_free(m->install_snapshot.data.base);
	raft_configuration_close(&m->install_snapshot.conf);
}

static void restore_fail(int code, const struct err *err)
{
	cluster_fail_as(code == ERR_FEATURE_LEVEL ? CLUSTER_EXIT_OLD_BUILD : CLUSTER_EXIT_FAIL_STOP,
			"snapshot cannot be restored: %s", err_msg(err, code));
}

static void receive_done(void *arg)
{
	struct receiving *rc = arg;
	struct consensus *cs = rc->cs;

	cs->receiving = NULL;
	if (cs->closing) {
		store_discard(rc->fresh);
		message_drop(&rc->message);
		snapshot_closed(cs);
	} else if (rc->err.code == ERR_CORRUPT) {
		/* What was spoilt on the way, or at the sender, comes again. */
		LOG_ERROR("a snapshot from lighthouse %llu is refused: %s",
			  (unsigned long long)rc->message.server_id, rc->err.msg);
		cs->shim.installs_dropped++;
		message_drop(&rc->message);
		raft_shim_received(&cs->shim, NULL);
	} else if (rc->err.code != 0) {
		message_drop(&rc->message);
		raft_shim_received(&cs->shim, NULL);
		restore_fail(rc->err.code, &rc->err);
	} else {
		cs->fresh = rc->fresh;
		raft_shim_received(&cs->shim, &rc->message);
		if (!cs->shim.putting) {
			/* libraft has no use for it: another leader, or it caught up otherwise. */
			snapshot_forget(cs);
		}
	}
	mem_free((char *)(uintptr_t)rc->message.server_address);
	mem_free(rc);
}

void snapshot_forget(struct consensus *cs)
{
	store_discard(cs->fresh);
	cs->fresh = NULL;
}

bool snapshot_receive(void *arg, const struct raft_message *m)
{
	struct consensus *cs = arg;
	const struct raft_install_snapshot *i = &m->install_snapshot;
	struct snapshot_header h;
	struct receiving *rc;

	if (cs->closing || cs->receiving != NULL) {
		return false;
	}
	/* What will not be restored needs no store; libraft says so to the sender. What makes no sense is refused below. */
	if (i->term < cs->raft.current_term || i->last_index <= cs->raft.trail.snapshot.index ||
	    (snapshot_peek(i->data.base, i->data.len, &h, NULL) == 0 &&
	     h.applied_index <= store_applied(cs->store))) {
		return false;
	}
	snapshot_forget(cs);
	rc = MEM_NEW(struct receiving);
	rc->cs = cs;
	rc->message = *m;
	rc->message.server_address = mem_strdup(m->server_address);
	if (loop_work(cs->loop, receive_work, receive_done, rc) < 0) {
		mem_free((char *)(uintptr_t)rc->message.server_address);
		mem_free(rc);
		return false;
	}
	cs->receiving = rc;
	return true;
}

/* ---- restoring ---- */

static int restore(struct consensus *cs, const struct raft_buffer *buf, struct err *err)
{
	struct snapshot_header h;
	struct store_read *read;
	int r = snapshot_peek(buf->base, buf->len, &h, err);

	if (r == 0) {
		r = header_check(cs, &h, err);
	}
	if (r != 0 || h.applied_index <= store_applied(cs->store)) {
		return r;
	}
	if (cs->fresh != NULL && store_applied(cs->fresh) != h.applied_index) {
		snapshot_forget(cs);
	}
	/* At a start nobody waits for this thread. */
	if (cs->fresh == NULL) {
		r = build(cs, buf->base, buf->len, &cs->fresh, err);
		if (r != 0) {
			return r;
		}
	}
	/* An open write is of entries that the snapshot holds, too: they are told of in the next turn, as applied. */
	group_drop_waiting(cs);
	store_abort(cs->store);
	r = store_adopt(cs->store, cs->fresh, err);
	cs->fresh = NULL;
	if (r == 0) {
		r = store_read_begin(cs->store, "restore", &read, err);
	}
	if (r == 0) {
		r = fsm_view(store_read_kv(read), &cs->view, err);
		store_read_end(read);
	}
	if (r != 0) {
		return r;
	}
	cs->stats.restores++;
	if (cs->started) {
		counter_inc(raft_metrics()->restores);
		cs->made_bytes = buf->len;
		cs->made_wall_ms = clock_wall_ms();
	}
	cs->restored = true;
	cs->stepped = true;
	return 0;
}

int snapshot_op_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	struct consensus *cs = fsm->data;
	struct err err = {0};
	int r = restore(cs, buf, &err);

	if (r != 0) {
		if (cs->started) {
			restore_fail(r, &err);
		}
		cs->open_code = r != ERR_CORRUPT ? r : 0;
		memcpy(cs->raft.errmsg, err.msg, MIN(sizeof(cs->raft.errmsg), sizeof(err.msg)) - 1);
		return RAFT_CORRUPT;
	}
	cs->log_bytes = 0;
	raft_free(buf->base);
	return 0;
}
