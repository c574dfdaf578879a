/*
 * A state that goes on with one lighthouse: restored from a backup, or taken over by a survivor.
 *
 *   backup  -- checked --+
 *                        +-- state in memory -- EpochBegin -- snapshot -- a log that begins with it, one server
 *   own log -- replayed -+
 *
 * What changes by rule is changed by apply. The snapshot is of the state afterwards: a lighthouse that joins later must
 * know from it whom to follow. The store is a cache and is filled at the first start. Nothing of what exists is touched
 * before everything was checked.
 */
#include "cluster/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fileio.h"
#include "base/mem.h"
#include "base/rand.h"
#include "cluster/cluster_int.h"
#include "cluster/raft_log.h"
#include "tailnet/keys.h"
#include "tailnet/query.h"

enum { CA_BUDGET = 256 << 10 };
#define REVISION_STEP (1ull << 32)
#define BACKUP_MAX    (4ull << 30)
#define REMOVED       SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED

/* ---- small things ---- */

static char *below(const char *dir, const char *name)
{
	return mem_printf("%s/%s", dir, name);
}

static size_t count_table(const struct kv *kv, enum table t)
{
	struct slice key, value;
	struct skey k;
	size_t n = 0;
	int r;

	skey_init(&k, t);
	for (r = kv_seek(kv, skey_slice(&k), &key, &value); r == 0 && skey_table(key) == t;
	     r = kv_next(kv, key, &key, &value)) {
		n++;
	}
	return n;
}

static size_t count_members(const struct kv *kv, uint64_t except)
{
	struct arena a;
	uint64_t at = 0;
	MemberRecord *m;
	size_t n = 0;

	arena_init(&a, CA_BUDGET);
	while (query_member_next(kv, at, &a, &m) == 0) {
		at = m->id;
		n += m->kind != REMOVED && m->id != except;
		arena_reset(&a);
	}
	arena_done(&a);
	return n;
}

/* ---- the file ---- */

static int file_open(const char *file, struct buf *data, struct backup_header *h,
		     struct snapshot_header *s, struct err *err)
{
	int r = file_read(file, BACKUP_MAX, data, err);

	if (r == 0) {
		r = backup_open(data->data, data->len, h, s, err);
		if (r != 0) {
			err_prefix(err, "%s", file);
		}
	}
	if (r == 0 &&
	    (s->feature_level < FEATURE_LEVEL_MIN || s->feature_level > FEATURE_LEVEL_MAX)) {
		r = err_set(err, ERR_FEATURE_LEVEL,
			    "%s has feature level %u, this build knows %d to %d: use a build that "
			    "knows it",
			    file, s->feature_level, FEATURE_LEVEL_MIN, FEATURE_LEVEL_MAX);
	}
	if (r == 0 && (s->epoch == 0 || s->applied_index == 0 || s->cluster_id == 0)) {
		r = err_set(err, ERR_CORRUPT, "%s holds no state of a cluster", file);
	}
	return r;
}

/* The CA with its key, as this cluster.key opens it. */
static int ca_open(const struct kv *kv, const uint8_t *cluster_key, struct pki_ca *ret,
		   struct err *err)
{
	SealedSecret *key;
	struct arena a;
	CaRecord *ca;
	Meta *meta;
	int r;

	arena_init(&a, CA_BUDGET);
	r = query_meta(kv, &a, &meta);
	if (r == 0) {
		r = query_ca(kv, &a, &ca);
	}
	if (r == 0) {
		r = query_secret(kv, PKI_CA_KEY_NAME, &a, &key);
	}
	if (r != 0) {
		r = err_set(err, ERR_CORRUPT, "the state has no certificate authority: %s",
			    err_text(r));
	} else if (pki_ca_open(meta->cluster_id, ca->certificate_der.data, ca->certificate_der.len,
			       key->box.data, key->box.len, key->generation, cluster_key, ret,
			       NULL) != 0) {
		r = err_reason(err, ERR_DENIED, "WRONG_KEY",
			       "this key does not open the secrets of cluster %" PRIu64
			       ": it is of another cluster, or was changed since",
			       meta->cluster_id);
	}
	arena_done(&a);
	return r;
}

static void facts_fill(const struct backup_header *h, const struct snapshot_header *s,
		       const struct kv *kv, struct backup_facts *ret)
{
	*ret = (struct backup_facts){
		.time_ms = h->time_ms,
		.lighthouse_id = h->lighthouse_id,
		.cluster_id = s->cluster_id,
		.epoch = s->epoch,
		.revision = s->revision,
		.feature_level = s->feature_level,
		.records = s->count,
		.bytes = BACKUP_HEADER + h->length,
		.members = count_members(kv, 0),
		.tailnets = count_table(kv, TABLE_TAILNET),
		.users = count_table(kv, TABLE_USER),
		.nodes = count_table(kv, TABLE_NODE),
	};
	memcpy(ret->digest, h->digest, sizeof(ret->digest));
}

/* What the records say must be what both headers say. */
static int state_check(const struct kv *kv, const struct backup_header *h,
		       const struct snapshot_header *s, struct err *err)
{
	struct state_view v;
	int r = tailnet_check(kv, err);

	if (r == 0) {
		r = fsm_view(kv, &v, err);
	}
	if (r == 0 &&
	    (memcmp(v.digest, h->digest, sizeof(v.digest)) != 0 || v.revision != s->revision ||
	     v.epoch != s->epoch || v.cluster_id != s->cluster_id)) {
		r = err_set(err, ERR_CORRUPT,
			    "the state in the backup is not the one that its header names");
	}
	return r;
}

/* ---- verify ---- */

static int verify_in(const char *dir, const struct buf *data, const struct backup_header *h,
		     const struct snapshot_header *s, const uint8_t *cluster_key,
		     struct backup_facts *ret, struct err *err)
{
	struct store_options so = {.dir = dir};
	struct store_read *read = NULL;
	struct store *store = NULL;
	const struct kv *kv;
	struct pki_ca ca = {0};
	int r = store_open(&store, &so, NULL, err);

	if (r == 0) {
		r = snapshot_fill(data->data + BACKUP_HEADER, data->len - BACKUP_HEADER, store,
				  err);
	}
	if (r == 0) {
		r = store_read_begin(store, "verify", &read, err);
	}
	if (r == 0) {
		kv = store_read_kv(read);
		r = state_check(kv, h, s, err);
		if (r == 0 && cluster_key != NULL) {
			r = ca_open(kv, cluster_key, &ca, err);
			pki_ca_done(&ca);
		}
		if (r == 0) {
			facts_fill(h, s, kv, ret);
		}
		store_read_end(read);
	}
	store_close(store);
	return r;
}

int cluster_backup_verify(const char *file, const char *tmp, const uint8_t *cluster_key,
			  struct backup_facts *ret, struct err *err)
{
	char *dir = mem_printf("%s/skerry-verify.XXXXXX", tmp);
	struct buf data = BUF_INIT;
	struct backup_header h;
	struct snapshot_header s;
	char *store;
	int r = file_open(file, &data, &h, &s, err);

	if (r == 0 && mkdtemp(dir) == NULL) {
		r = err_errno(err, "a scratch directory below %s", tmp);
	} else if (r == 0) {
		store = below(dir, "store");
		r = verify_in(store, &data, &h, &s, cluster_key, ret, err);
		dir_remove(store);
		dir_remove(dir);
		mem_free(store);
	}
	buf_done(&data);
	mem_free(dir);
	return r;
}

/* ---- a new epoch ---- */

/* Changes the state as the entry after `index` would; kv may be changed after a refusal. */
static int epoch_apply(const struct kv *kv, const struct keyfile *k, const char *version,
		       uint64_t epoch, bool restored, uint64_t index, struct err *err)
{
	/* State time stands still until a leader stamps: a clock that is wrong here expires nothing. */
	struct apply_context ctx = {.raft_index = index + 1, .offline = true};
	struct apply_result result;
	struct arena arena;
	Skerry__Internal__V1__EpochBegin body = SKERRY__INTERNAL__V1__EPOCH_BEGIN__INIT;
	MemberRecord member = SKERRY__INTERNAL__V1__MEMBER_RECORD__INIT;
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	uint8_t random[32], spki[PKI_SPKI_MAX];
	int r;

	rand_bytes(random, sizeof(random));
	member.id = k->lighthouse_id;
	member.name = k->name;
	member.kind = SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_VOTER;
	member.public_key = (ProtobufCBinaryData){.data = spki, .len = pki_spki(k->node_key, spki)};
	member.peer_address = k->peer_address;
	member.api_url = k->api_url;
	member.feature_min = FEATURE_LEVEL_MIN;
	member.feature_max = FEATURE_LEVEL_MAX;
	member.version = (char *)(uintptr_t)version;
	body.epoch = epoch;
	body.revision_step = REVISION_STEP;
	body.member = &member;
	body.restored = restored;
	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_SYSTEM;
	cmd.actor = &actor;
	cmd.random = (ProtobufCBinaryData){.data = random, .len = sizeof(random)};
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_EPOCH_BEGIN;
	cmd.epoch_begin = &body;
	arena_init(&arena, TAILNET_ARENA_BYTES);
	r = tailnet_apply(kv, &cmd, &ctx, &arena, &result, err);
	if (r == 0 && result.reply.code != 0) {
		r = err_reason(err, err_from_grpc(result.reply.code), result.reply.reason, "%s",
			       result.reply.message);
	}
	if (r == 0) {
		r = tailnet_check(kv, err);
	}
	arena_done(&arena);
	return r;
}

/* Makes <dir>/raft of the state, as of entry `index`. Leaves nothing after an error. */
static int log_begin(const char *dir, const struct keyfile *k, const struct kv *kv, uint64_t index,
		     uint64_t term, struct err *err)
{
	char *raft = below(dir, "raft");
	struct snapshot s = {0};
	int r = fsm_snapshot(kv, index, term, NULL, &s, err);

	if (r == 0) {
		r = dir_ensure(raft, 0700, err);
	}
	if (r == 0) {
		r = raft_log_begin(raft, k->lighthouse_id, k->peer_address, index, term, &s, err);
		if (r != 0) {
			dir_remove(raft);
		}
	}
	snapshot_done(&s);
	mem_free(raft);
	return r;
}

/* ---- restore ---- */

/* Only a directory that holds nothing of a lighthouse is taken. */
static int dir_check_unused(const char *dir, struct err *err)
{
	static const char *const ours[] = {KEYFILE_IDENTITY, "raft", "store", "join.json",
					   "cluster.key"};

	for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
		char *path = below(dir, ours[i]);
		bool there = file_exists(path);

		mem_free(path);
		if (there) {
			return err_reason(err, ERR_EXISTS, "ALREADY_INITIALISED",
					  "%s already holds a lighthouse (%s): a restore "
					  "overwrites nothing; move it away, or "
					  "name an empty directory with --dir",
					  dir, ours[i]);
		}
	}
	return 0;
}

static int restore_into(const struct cluster_restore_options *o, const struct pki_ca *ca,
			const struct kv *kv, const struct snapshot_header *s,
			struct cluster_restore_facts *ret, struct err *err)
{
	char *lock = below(o->dir, "lock");
	struct keyfile k = {0};
	uint64_t epoch = rand_id63();
	int fd = -1;
	int r = keyfile_issue(ca, o->cluster_key, o->name, o->peer_address, o->api_url,
			      clock_wall_ms(), &k, err);

	if (r == 0) {
		r = epoch_apply(kv, &k, o->version, epoch, true, s->applied_index, err);
	}
	if (r == 0) {
		r = dir_ensure(o->dir, 0700, err);
	}
	if (r == 0) {
		r = dir_check_private(o->dir, err);
	}
	if (r == 0) {
		fd = file_lock(lock, err);
		r = MIN(fd, 0);
	}
	if (r == 0) {
		r = dir_check_unused(o->dir, err);
	}
	if (r == 0) {
		r = log_begin(o->dir, &k, kv, s->applied_index + 1, MAX(s->term, 1u), err);
	}
	/* Last: without the identity the directory counts as not initialised. */
	if (r == 0) {
		r = keyfile_write(o->dir, &k, err);
	}
	if (r == 0) {
		ret->lighthouse_id = k.lighthouse_id;
		ret->epoch = epoch;
	}
	if (fd >= 0) {
		file_unlock(fd);
	}
	keyfile_done(&k);
	mem_free(lock);
	return r;
}

int cluster_restore(const struct cluster_restore_options *o, struct cluster_restore_facts *ret,
		    struct err *err)
{
	struct kv_mem *mem = kv_mem_new();
	struct kv kv = kv_mem_kv(mem);
	struct cluster_restore_facts f = {0};
	struct buf data = BUF_INIT;
	struct backup_header h;
	struct snapshot_header s;
	struct pki_ca ca = {0};
	int r = dir_check_unused(o->dir, err);

	if (r == 0) {
		r = file_open(o->file, &data, &h, &s, err);
	}
	if (r == 0) {
		r = snapshot_load(data.data + BACKUP_HEADER, data.len - BACKUP_HEADER, &kv, err);
	}
	if (r == 0) {
		r = state_check(&kv, &h, &s, err);
	}
	if (r == 0) {
		r = ca_open(&kv, o->cluster_key, &ca, err);
	}
	if (r == 0) {
		facts_fill(&h, &s, &kv, &f.backup);
	}
	buf_done(&data);
	if (r == 0) {
		r = restore_into(o, &ca, &kv, &s, &f, err);
	}
	kv_mem_free(mem);
	pki_ca_done(&ca);
	if (r == 0) {
		*ret = f;
	}
	return r;
}

/* ---- recover ---- */

struct survivor {
	struct keyfile keys;
	struct kv_mem *mem;
	struct kv kv; /* the state as all of the log makes it */
	uint64_t last, term, revision;
	size_t others;
};

static int survivor_read(const char *dir, struct survivor *s, struct err *err)
{
	struct raft_log *log = NULL;
	struct state_view v = {0};
	MemberRecord *self;
	struct arena a;
	int r = raft_log_load(dir, &log, err);

	arena_init(&a, CA_BUDGET);
	if (r == 0) {
		s->term = raft_log_term(log) + 1;
		r = raft_log_replay(log, s->keys.cluster_id, UINT64_MAX, &s->kv, &s->last, err);
	}
	raft_log_free(log);
	if (r == 0) {
		r = fsm_view(&s->kv, &v, err);
	}
	if (r == 0 && v.epoch == 0) {
		r = err_set(err, ERR_PRECONDITION,
			    "this lighthouse never received the state of its cluster: there is "
			    "nothing to recover from; restore a backup");
	}
	if (r == 0) {
		r = tailnet_check(&s->kv, err);
	}
	if (r == 0 && (query_member(&s->kv, s->keys.lighthouse_id, &a, &self) != 0 ||
		       self->kind == REMOVED)) {
		r = err_reason(err, ERR_PRECONDITION, "MEMBER_REMOVED",
			       "this lighthouse was removed from its cluster: it cannot speak for "
			       "it");
	}
	s->revision = v.revision;
	s->others = r == 0 ? count_members(&s->kv, s->keys.lighthouse_id) : 0;
	if (r == 0 && s->others == 0) {
		r = err_set(err, ERR_PRECONDITION,
			    "this lighthouse is the only one of its cluster: there is no lost "
			    "majority; start it with `skerryd run`");
	}
	arena_done(&a);
	return r;
}

/* The new log takes the place of the old one in one step. */
static int survivor_write(const char *dir, const struct survivor *s, uint64_t epoch,
			  char **ret_kept, struct err *err)
{
	char *fresh = below(dir, "recover.new");
	char *fresh_raft = below(fresh, "raft");
	char *raft = below(dir, "raft");
	char *kept = mem_printf("%s/before-recover-%" PRIu64, dir, epoch);
	int r;

	/* Of an attempt that was interrupted. */
	dir_remove(fresh_raft);
	dir_remove(fresh);
	r = dir_ensure(fresh, 0700, err);
	if (r == 0) {
		r = log_begin(fresh, &s->keys, &s->kv, s->last + 1, s->term, err);
	}
	if (r == 0) {
		r = dir_sync(fresh, err);
	}
	if (r == 0 && renameat2(AT_FDCWD, raft, AT_FDCWD, fresh_raft, RENAME_EXCHANGE) != 0) {
		r = err_errno(err, "exchanging %s and %s", raft, fresh_raft);
	}
	if (r != 0) {
		dir_remove(fresh_raft);
		dir_remove(fresh);
	} else {
		*ret_kept = mem_strdup(rename(fresh, kept) == 0 ? kept : fresh);
		r = dir_sync(dir, err);
	}
	mem_free(fresh);
	mem_free(fresh_raft);
	mem_free(raft);
	mem_free(kept);
	return r;
}

int cluster_recover(const char *dir, const char *version, bool dry,
		    struct cluster_recover_facts *ret, struct err *err)
{
	struct cluster_recover_facts f = {.epoch = rand_id63()};
	char *lock = below(dir, "lock");
	struct survivor s = {.mem = kv_mem_new()};
	int fd = -1;
	int r = keyfile_read(dir, &s.keys, err);

	s.kv = kv_mem_kv(s.mem);
	if (r == 0) {
		fd = file_lock(lock, err);
		r = MIN(fd, 0);
		if (r < 0) {
			err_prefix(err, "stop the daemon first");
		}
	}
	if (r == 0) {
		r = survivor_read(dir, &s, err);
	}
	if (r == 0) {
		f.lighthouse_id = s.keys.lighthouse_id;
		f.revision = s.revision;
		f.last_index = s.last;
		f.removed = s.others;
	}
	if (r == 0 && !dry) {
		r = epoch_apply(&s.kv, &s.keys, version, f.epoch, false, s.last, err);
	}
	if (r == 0 && !dry) {
		r = survivor_write(dir, &s, f.epoch, &f.kept, err);
	}
	if (fd >= 0) {
		file_unlock(fd);
	}
	kv_mem_free(s.mem);
	keyfile_done(&s.keys);
	mem_free(lock);
	if (r == 0) {
		*ret = f;
	} else {
		mem_free(f.kept);
	}
	return r;
}
