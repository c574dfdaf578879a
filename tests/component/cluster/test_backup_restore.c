/* Backup of a running lighthouse, restore elsewhere, recovery of a survivor, replay. */
/* LIBS: cluster */
#include "tests/component/cluster/nodes.h"

#include "base/buf.h"
#include "base/fileio.h"
#include "cluster/backup.h"
#include "cluster/check.h"
#include "tailnet/keys.h"

static struct nodes t;

static int setup(void **state)
{
	(void)state;
	nodes_setup(&t);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	nodes_end(&t);
	return 0;
}

struct taken {
	bool done;
	struct err err;
	struct backup *b;
};

static void on_backup(void *arg, const struct err *err, struct backup *b)
{
	struct taken *k = arg;

	k->done = true;
	k->err = *err;
	k->b = b;
}

/* A file of node i's state; piece by piece, as a stream would. */
static char *take(size_t i, size_t piece, struct backup_facts *facts)
{
	char *path = mem_printf("%s/b%zu", t.dir, piece);
	struct taken k = {0};
	struct buf file = BUF_INIT;
	size_t n;

	assert_ok(cluster_backup(t.node[i].c, t.front, on_backup, &k, NULL));
	NODES_WAIT(&t, k.done);
	assert_int_equal(k.err.code, 0);
	backup_facts(k.b, facts);
	while ((n = backup_read(k.b, file.len, buf_reserve(&file, piece), piece)) > 0) {
		file.len += n;
	}
	assert_int_equal(file.len, facts->bytes);
	assert_ok(file_write_new(path, file.data, file.len, 0600, NULL));
	backup_free(k.b);
	buf_done(&file);
	return path;
}

static void keys_of(size_t i, struct keyfile *ret)
{
	assert_ok(keyfile_read(t.node[i].dir, ret, NULL));
}

static struct cluster_restore_options options(const char *file, const char *dir,
					      const struct keyfile *keys)
{
	return (struct cluster_restore_options){
		.file = file,
		.dir = dir,
		.cluster_key = keys->cluster_key,
		.name = "restored",
		.peer_address = "10.9.9.9:8444",
		.api_url = "https://10.9.9.9:8443",
		.version = "test",
	};
}

static struct kv_mem *state_of(const char *file, struct kv *ret)
{
	struct kv_mem *mem = kv_mem_new();
	struct buf data = BUF_INIT;

	*ret = kv_mem_kv(mem);
	assert_ok(file_read(file, 1 << 26, &data, NULL));
	assert_ok(snapshot_load(data.data + BACKUP_HEADER, data.len - BACKUP_HEADER, ret, NULL));
	buf_done(&data);
	return mem;
}

/* Primary records that are not the same in both; those of the tables that a restore changes by rule apart. */
static size_t differences(const struct kv *a, const struct kv *b)
{
	struct slice key = {"", 0}, value, other;
	size_t n = 0;

	while (kv_next(a, key, &key, &value) == 0) {
		uint8_t table = skey_table(key);

		if (!table_primary(table) || table == TABLE_MEMBER || table == TABLE_PRESENCE ||
		    table == TABLE_JOIN_TOKEN) {
			continue;
		}
		n += kv_get(b, key, &other) != 0 || other.len != value.len ||
		     memcmp(other.data, value.data, value.len) != 0;
	}
	return n;
}

static void a_restore_changes_what_its_rule_says(void **state)
{
	struct cluster_restore_facts f;
	struct backup_facts facts, again, verified;
	struct cluster_replay_facts replayed;
	struct keyfile keys = {0}, fresh = {0};
	struct kv before, after;
	struct kv_mem *before_mem, *after_mem;
	struct err err = {0};
	struct state_view v;
	char *dir = mem_printf("%s/restored", t.dir);
	char *file, *file2;
	struct cluster_restore_options ro;
	struct arena arena;
	MemberRecord *m;

	(void)state;
	nodes_start(&t, 0);
	nodes_tailnet(&t, 0, "first");
	nodes_tailnet(&t, 0, "second");
	file = take(0, 4096, &facts);
	file2 = take(0, 7, &again);
	assert_int_equal(facts.revision, again.revision);
	assert_memory_equal(facts.digest, again.digest, 32);
	assert_ok(cluster_backup_verify(file, t.dir, NULL, &verified, &err));
	assert_ok(cluster_backup_verify(file2, t.dir, NULL, &verified, &err));
	assert_memory_equal(facts.digest, verified.digest, 32);
	assert_int_equal(verified.revision, facts.revision);
	assert_int_equal(verified.tailnets, 3);
	assert_int_equal(verified.members, 1);

	keys_of(0, &keys);
	ro = options(file, dir, &keys);
	assert_ok(cluster_restore(&ro, &f, &err));
	assert_int_equal(f.backup.revision, facts.revision);
	assert_ok(keyfile_read(dir, &fresh, NULL));
	assert_int_equal(fresh.cluster_id, keys.cluster_id);
	assert_true(fresh.lighthouse_id != keys.lighthouse_id);
	assert_memory_equal(fresh.ca_pin, keys.ca_pin, 32);
	assert_string_equal(fresh.ca_cert_pem, keys.ca_cert_pem);

	/* What the log makes is what the store holds. */
	assert_ok(cluster_replay(dir, &replayed, &err));
	assert_true(replayed.has_snapshot);
	assert_int_equal(replayed.epoch, f.epoch);
	assert_true(replayed.revision == facts.revision + 1 + (1ull << 32));

	/* It runs in the place of the first one. */
	nodes_stop(&t, 0);
	snprintf(t.node[0].dir, sizeof(t.node[0].dir), "%s", dir);
	t.node[0].id = fresh.lighthouse_id;
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_leads(&t, 0));
	assert_true(nodes_has_tailnet(&t, 0, "first"));
	assert_true(nodes_has_tailnet(&t, 0, "second"));
	nodes_tailnet(&t, 0, "third");
	v = nodes_view(&t, 0);
	assert_int_equal(v.epoch, f.epoch);
	assert_true(v.revision > facts.revision + (1ull << 32));
	mem_free(file2);
	file2 = take(0, 8192, &again);
	before_mem = state_of(file, &before);
	after_mem = state_of(file2, &after);
	assert_int_equal(differences(&before, &after), 0);
	arena_init(&arena, 1 << 20);
	assert_ok(query_member(&after, keys.lighthouse_id, &arena, &m));
	assert_int_equal(m->kind, SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_REMOVED);
	assert_ok(query_member(&after, fresh.lighthouse_id, &arena, &m));
	assert_int_equal(m->kind, SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_VOTER);
	arena_done(&arena);
	kv_mem_free(before_mem);
	kv_mem_free(after_mem);

	/* Killed, and its store lost: all of it stands in the log. */
	nodes_kill(&t, 0);
	{
		char *data = mem_printf("%s/store/data.mdb", dir);

		assert_int_equal(unlink(data), 0);
		mem_free(data);
	}
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_has_tailnet(&t, 0, "third"));
	assert_int_equal(nodes_view(&t, 0).epoch, f.epoch);
	keyfile_done(&keys);
	keyfile_done(&fresh);
	mem_free(file);
	mem_free(file2);
	mem_free(dir);
}

static void refusals_touch_nothing(void **state)
{
	struct cluster_restore_facts f;
	struct cluster_recover_facts rf;
	struct backup_facts facts;
	struct keyfile keys = {0};
	struct err err = {0};
	char *dir = mem_printf("%s/none", t.dir);
	char *bad = mem_printf("%s/bad", t.dir);
	struct cluster_restore_options ro;
	struct buf data = BUF_INIT;
	uint8_t other[32] = {1};
	char *file;

	(void)state;
	nodes_start(&t, 0);
	nodes_tailnet(&t, 0, "first");
	file = take(0, 4096, &facts);
	keys_of(0, &keys);
	assert_err(cluster_recover(t.node[0].dir, "test", false, &rf, &err), ERR_EXISTS);
	assert_contains(err.msg, "stop the daemon");
	nodes_stop(&t, 0);

	ro = options(file, t.node[0].dir, &keys);
	assert_err(cluster_restore(&ro, &f, &err), ERR_EXISTS);
	assert_contains(err.msg, "overwrites nothing");
	ro.dir = dir;
	ro.cluster_key = other;
	assert_err(cluster_restore(&ro, &f, &err), ERR_DENIED);
	assert_string_equal(err.reason, "WRONG_KEY");
	assert_err(cluster_backup_verify(file, t.dir, other, &facts, &err), ERR_DENIED);
	ro.cluster_key = keys.cluster_key;
	assert_ok(file_read(file, 1 << 26, &data, NULL));
	assert_ok(file_write_new(bad, data.data, data.len - 100, 0600, NULL));
	ro.file = bad;
	assert_err(cluster_restore(&ro, &f, &err), ERR_CORRUPT);
	assert_contains(err.msg, "cut");
	data.data[data.len / 2] ^= 4;
	assert_ok(file_write_atomic(bad, data.data, data.len, 0600, NULL));
	assert_err(cluster_restore(&ro, &f, &err), ERR_CORRUPT);
	assert_err(cluster_backup_verify(bad, t.dir, NULL, &facts, &err), ERR_CORRUPT);
	ro.file = "/nonexistent";
	assert_true(cluster_restore(&ro, &f, &err) < 0);
	assert_false(file_exists(dir));

	/* Alone: there is nothing to recover from, and nothing happens. */
	assert_err(cluster_recover(t.node[0].dir, "test", false, &rf, &err), ERR_PRECONDITION);
	assert_contains(err.msg, "only one");
	nodes_start(&t, 0);
	assert_true(nodes_has_tailnet(&t, 0, "first"));
	keyfile_done(&keys);
	buf_done(&data);
	mem_free(file);
	mem_free(bad);
	mem_free(dir);
}

static void a_survivor_goes_on_alone(void **state)
{
	struct cluster_recover_facts f = {0};
	struct cluster_replay_facts replayed;
	struct state_view before, v;
	struct err err = {0};
	size_t other;
	int leader;

	(void)state;
	nodes_start(&t, 0);
	NODES_WAIT(&t, nodes_leads(&t, 0));
	other = nodes_join(&t, 0);
	nodes_join(&t, 0);
	NODES_WAIT(&t, (leader = nodes_leader_of(&t)) >= 0);
	nodes_tailnet(&t, (size_t)leader, "kept");
	NODES_WAIT(&t, nodes_has_tailnet(&t, other, "kept"));
	before = nodes_view(&t, other);
	for (size_t i = 0; i < t.n; i++) {
		nodes_kill(&t, i);
	}
	assert_ok(cluster_recover(t.node[other].dir, "test", true, &f, &err));
	assert_int_equal(f.removed, 2);
	assert_null(f.kept);
	assert_ok(cluster_recover(t.node[other].dir, "test", false, &f, &err));
	assert_true(file_exists(f.kept));
	/* The store is as it was, and belongs to the new log: it catches up at the start. */
	assert_ok(cluster_replay(t.node[other].dir, &replayed, &err));
	assert_true(replayed.has_snapshot);
	nodes_start(&t, other);
	NODES_WAIT(&t, nodes_leads(&t, other));
	assert_true(nodes_has_tailnet(&t, other, "kept"));
	nodes_tailnet(&t, other, "new");
	v = nodes_view(&t, other);
	assert_int_equal(v.epoch, f.epoch);
	assert_true(v.epoch != before.epoch);
	assert_true(v.revision > before.revision + (1ull << 32));
	/* Now it is alone, and says so. */
	nodes_stop(&t, other);
	mem_free(f.kept);
	assert_err(cluster_recover(t.node[other].dir, "test", true, &f, &err), ERR_PRECONDITION);
	assert_ok(cluster_replay(t.node[other].dir, &replayed, &err));
	assert_true(replayed.comparable);
	assert_int_equal(replayed.epoch, v.epoch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_restore_changes_what_its_rule_says, setup,
						teardown),
		cmocka_unit_test_setup_teardown(refusals_touch_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_survivor_goes_on_alone, setup, teardown),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
