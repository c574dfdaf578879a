/* Log entries and snapshots: what was written is read; what was cut or changed is refused. */
/* LIBS: cluster */
#include "tests/lib/test.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "cluster/entry.h"
#include "cluster/snapshot.h"

static uint8_t *entry_make(const char *const *commands, size_t n, uint16_t flags, size_t *ret_len)
{
	struct entry_header h = {.flags = flags,
				 .feature_level = 1,
				 .cluster_id = 77,
				 .epoch = 88,
				 .time_ms = 1700000000123};
	struct entry_writer w;
	size_t bytes = 0, len;
	uint8_t *d;

	for (size_t i = 0; i < n; i++) {
		bytes += strlen(commands[i]);
	}
	len = entry_size(n, bytes);
	d = mem_alloc(len);
	entry_begin(&w, d, len);
	for (size_t i = 0; i < n; i++) {
		entry_add(&w, commands[i], strlen(commands[i]));
	}
	entry_seal(&w, &h);
	*ret_len = len;
	return d;
}

static void entry_round_trip(void **state)
{
	static const char *const commands[] = {"one", "", "three of them"};
	struct entry_reader r;
	const uint8_t *cmd;
	size_t len, cmd_len;

	(void)state;
	for (size_t n = 0; n <= ARRAY_LEN(commands); n++) {
		uint8_t *d = entry_make(commands, n, ENTRY_LEADER_GAP, &len);

		assert_int_equal(len % 8, 0);
		assert_ok(entry_open(&r, d, len, NULL));
		assert_int_equal(r.header.flags, ENTRY_LEADER_GAP);
		assert_int_equal(r.header.count, n);
		assert_int_equal(r.header.cluster_id, 77);
		assert_int_equal(r.header.epoch, 88);
		assert_int_equal(r.header.time_ms, 1700000000123);
		for (size_t i = 0; i < n; i++) {
			assert_true(entry_next(&r, &cmd, &cmd_len));
			assert_int_equal(cmd_len, strlen(commands[i]));
			assert_memory_equal(cmd, commands[i], cmd_len);
		}
		assert_false(entry_next(&r, &cmd, &cmd_len));
		mem_free(d);
	}
}

static void entry_damage(void **state)
{
	static const char *const commands[] = {"first", "second"};
	struct entry_reader r;
	size_t len;
	uint8_t *d = entry_make(commands, 2, 0, &len);

	(void)state;
	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *copy = mem_memdup(d, cut);

		assert_true(entry_open(&r, copy, cut, NULL) < 0);
		mem_free(copy);
	}
	for (size_t bit = 0; bit < len * 8; bit++) {
		d[bit / 8] ^= (uint8_t)(1 << (bit % 8));
		assert_true(entry_open(&r, d, len, NULL) < 0);
		d[bit / 8] ^= (uint8_t)(1 << (bit % 8));
	}
	assert_ok(entry_open(&r, d, len, NULL));
	mem_free(d);
}

static void entry_newer(void **state)
{
	struct entry_reader r;
	size_t len;
	uint8_t *d = entry_make(NULL, 0, 0x8000, &len);

	(void)state;
	assert_err(entry_open(&r, d, len, NULL), ERR_UNIMPLEMENTED);
	mem_free(d);
	d = entry_make(NULL, 0, 0, &len);
	d[5] = 2; /* the format */
	assert_err(entry_open(&r, d, len, NULL), ERR_UNIMPLEMENTED);
	mem_free(d);
}

static void put(const struct kv *kv, const char *key, const void *value, size_t len)
{
	assert_ok(kv_put(kv, (struct slice){key, strlen(key)}, (struct slice){value, len}));
}

static void same(const struct kv *a, const struct kv *b)
{
	struct slice ka = {"", 0}, kb = {"", 0}, va, vb;
	int r = kv_seek(a, ka, &ka, &va);

	assert_int_equal(r, kv_seek(b, kb, &kb, &vb));
	while (r == 0) {
		assert_int_equal(ka.len, kb.len);
		assert_memory_equal(ka.data, kb.data, ka.len);
		assert_int_equal(va.len, vb.len);
		assert_memory_equal(va.data, vb.data, va.len);
		r = kv_next(a, ka, &ka, &va);
		assert_int_equal(r, kv_next(b, kb, &kb, &vb));
	}
	assert_int_equal(r, ERR_NOT_FOUND);
}

static const struct snapshot_header head = {.feature_level = 1,
					    .cluster_id = 5,
					    .epoch = 6,
					    .revision = 7,
					    .applied_index = 8,
					    .term = 9};

static void snapshot_round_trip(void **state)
{
	struct kv_mem *a = kv_mem_new(), *b = kv_mem_new();
	struct kv ka = kv_mem_kv(a), kb = kv_mem_kv(b);
	uint8_t *big = mem_zalloc(1 << 20), *d;
	struct snapshot_header h;
	struct snapshot s;
	size_t len;

	(void)state;
	for (int i = 0; i < 20; i++) { /* pieces that point into the store */
		char key[16];

		snprintf(key, sizeof(key), "key-%02d", i);
		big[0] = (uint8_t)i;
		put(&ka, key, big, 1 << 20);
	}
	put(&ka, "a", "", 0);
	assert_ok(snapshot_make(&ka, &head, NULL, &s, NULL));
	assert_true(s.n > 20);
	d = snapshot_join(&s, &len);
	assert_ok(snapshot_open(d, len, &h, NULL));
	assert_int_equal(h.count, 21);
	assert_int_equal(h.cluster_id, 5);
	assert_int_equal(h.epoch, 6);
	assert_int_equal(h.revision, 7);
	assert_int_equal(h.applied_index, 8);
	assert_int_equal(h.term, 9);
	assert_ok(snapshot_load(d, len, &kb, NULL));
	same(&ka, &kb);
	snapshot_done(&s);
	mem_free(d);
	mem_free(big);
	kv_mem_free(a);
	kv_mem_free(b);
}

static void snapshot_damage(void **state)
{
	struct kv_mem *a = kv_mem_new();
	struct kv ka = kv_mem_kv(a);
	struct snapshot_header h;
	struct snapshot s;
	uint8_t *d;
	size_t len;

	(void)state;
	put(&ka, "node/1", "value one", 9);
	put(&ka, "node/2", "value two", 9);
	assert_ok(snapshot_make(&ka, &head, NULL, &s, NULL));
	d = snapshot_join(&s, &len);
	assert_ok(snapshot_open(d, len, &h, NULL));
	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *copy = mem_memdup(d, cut);

		assert_true(snapshot_open(copy, cut, &h, NULL) < 0);
		mem_free(copy);
	}
	for (size_t bit = 0; bit < len * 8; bit++) {
		d[bit / 8] ^= (uint8_t)(1 << (bit % 8));
		assert_true(snapshot_open(d, len, &h, NULL) < 0);
		d[bit / 8] ^= (uint8_t)(1 << (bit % 8));
	}
	snapshot_done(&s);
	mem_free(d);
	kv_mem_free(a);
}

/* Records of every length around the one up to which they are copied, over several blocks, to a file and back. */
static void snapshot_pieces(void **state)
{
	struct kv_mem *a = kv_mem_new(), *b = kv_mem_new();
	struct kv ka = kv_mem_kv(a), kb = kv_mem_kv(b);
	uint8_t value[128] = {1, 2, 3}, *d, *file;
	atomic_bool cancel = false;
	struct snapshot_header h;
	char dir[TEST_DIR], path[TEST_DIR + 16];
	struct snapshot s;
	struct err err = {0};
	size_t len;
	int fd;

	(void)state;
	for (int i = 0; i < 40000; i++) {
		char key[16];

		snprintf(key, sizeof(key), "key-%05d", i);
		put(&ka, key, value, (size_t)i % sizeof(value));
	}
	assert_ok(snapshot_make(&ka, &head, &cancel, &s, NULL));
	assert_int_equal(s.records, 40000);
	d = snapshot_join(&s, &len);
	assert_int_equal(len, s.bytes);
	assert_ok(snapshot_open(d, len, &h, NULL));
	assert_ok(snapshot_load(d, len, &kb, NULL));
	same(&ka, &kb);

	test_dir_make(dir);
	snprintf(path, sizeof(path), "%s/snapshot", dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_ok(snapshot_write(&s, fd, NULL));
	file = mem_alloc(len + 1);
	assert_int_equal(pread(fd, file, len + 1, 0), len);
	assert_memory_equal(file, d, len);
	close(fd);
	/* A file that takes nothing. */
	fd = open(path, O_RDONLY);
	assert_true(snapshot_write(&s, fd, &err) < 0);
	close(fd);
	test_dir_remove(dir);
	snapshot_done(&s);

	atomic_store(&cancel, true);
	assert_int_equal(snapshot_make(&ka, &head, &cancel, &s, NULL), ERR_CANCELLED);
	mem_free(file);
	mem_free(d);
	kv_mem_free(a);
	kv_mem_free(b);
}

static void snapshot_empty(void **state)
{
	struct kv_mem *a = kv_mem_new();
	struct kv ka = kv_mem_kv(a);
	struct snapshot_header h;
	struct snapshot s;

	(void)state;
	assert_ok(snapshot_make(&ka, &head, NULL, &s, NULL));
	assert_int_equal(s.n, 1);
	assert_ok(snapshot_open(s.piece[0].data, s.piece[0].len, &h, NULL));
	assert_int_equal(h.count, 0);
	snapshot_done(&s);
	kv_mem_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entry_round_trip), cmocka_unit_test(entry_damage),
		cmocka_unit_test(entry_newer),      cmocka_unit_test(snapshot_round_trip),
		cmocka_unit_test(snapshot_damage),  cmocka_unit_test(snapshot_pieces),
		cmocka_unit_test(snapshot_empty),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
