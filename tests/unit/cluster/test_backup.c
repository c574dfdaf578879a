/* The file of a backup: what was cut or changed anywhere is refused. LIBS: cluster */
#include "tests/unit/tailnet/world.h"

#include "base/mem.h"
#include "cluster/backup.h"
#include "cluster/fsm.h"

static struct world w;
static uint8_t *file;
static size_t length;

static int setup(void **state)
{
	struct backup_header h = {.time_ms = 1700000000000, .lighthouse_id = 7};
	struct snapshot s;
	struct state_view v;
	uint8_t *d;
	size_t len;

	(void)state;
	world_open_two(&w, 1);
	world_add(&w, 1, 1, "a");
	assert_ok(fsm_snapshot(&w.kv[0], 42, 3, NULL, &s, NULL));
	assert_ok(fsm_view(&w.kv[0], &v, NULL));
	memcpy(h.digest, v.digest, 32);
	h.length = s.bytes;
	length = BACKUP_HEADER + s.bytes;
	file = mem_alloc(length);
	backup_header_put(&h, s.header, file);
	d = snapshot_join(&s, &len);
	memcpy(file + BACKUP_HEADER, d, len);
	mem_free(d);
	snapshot_done(&s);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	mem_free(file);
	world_close(&w);
	return 0;
}

static int open_file(const void *data, size_t len, struct err *err)
{
	struct backup_header h;
	struct snapshot_header s;

	return backup_open(data, len, &h, &s, err);
}

static void test_round_trip(void **state)
{
	struct backup_header h;
	struct snapshot_header s;
	struct kv_mem *mem = kv_mem_new();
	struct kv kv = kv_mem_kv(mem);
	struct state_view a, b;

	(void)state;
	assert_ok(backup_open(file, length, &h, &s, NULL));
	assert_int_equal(h.time_ms, 1700000000000);
	assert_int_equal(h.lighthouse_id, 7);
	assert_int_equal(h.length, length - BACKUP_HEADER);
	assert_int_equal(s.applied_index, 42);
	assert_int_equal(s.term, 3);
	assert_ok(snapshot_load(file + BACKUP_HEADER, length - BACKUP_HEADER, &kv, NULL));
	assert_ok(tailnet_check(&kv, NULL));
	assert_ok(fsm_view(&w.kv[0], &a, NULL));
	assert_ok(fsm_view(&kv, &b, NULL));
	assert_memory_equal(a.digest, b.digest, 32);
	assert_memory_equal(h.digest, b.digest, 32);
	kv_mem_free(mem);
}

static void test_cut(void **state)
{
	struct err err = {0};

	(void)state;
	assert_true(length > (size_t)64 * 10);
	for (size_t n = 0; n < length; n += 64) {
		/* Of its own size, so that a read past the end is noticed. */
		uint8_t *part = mem_alloc(n + 1);

		memcpy(part, file, n);
		assert_err(open_file(part, n, &err), ERR_CORRUPT);
		mem_free(part);
	}
	assert_err(open_file(file, length - 1, &err), ERR_CORRUPT);
	assert_contains(err.msg, "cut");
}

static void test_longer(void **state)
{
	uint8_t *more = mem_zalloc(length + 64);
	struct err err = {0};

	(void)state;
	memcpy(more, file, length);
	assert_err(open_file(more, length + 1, &err), ERR_CORRUPT);
	assert_err(open_file(more, length + 64, &err), ERR_CORRUPT);
	mem_free(more);
}

/* Any bit: in the headers, which the magic, the format and two hashes guard, and in the records. */
static void test_flipped(void **state)
{
	struct err err = {0};

	(void)state;
	for (size_t i = 0; i < length; i++) {
		int r;

		file[i] ^= (uint8_t)(1u << (i % 8));
		r = open_file(file, length, &err);
		if (r != ERR_CORRUPT && r != ERR_UNIMPLEMENTED) {
			TEST_FAIL("byte %zu changed: %d", i, r);
		}
		file[i] ^= (uint8_t)(1u << (i % 8));
	}
	assert_ok(open_file(file, length, &err));
}

/* A good snapshot of another state below a good header. */
static void test_exchanged(void **state)
{
	struct snapshot s;
	struct err err = {0};
	uint8_t *other, *d;
	size_t len;

	(void)state;
	assert_ok(fsm_snapshot(&w.kv[0], 43, 3, NULL, &s, NULL));
	d = snapshot_join(&s, &len);
	assert_int_equal(s.bytes, length - BACKUP_HEADER);
	other = mem_alloc(length);
	memcpy(other, file, BACKUP_HEADER);
	memcpy(other + BACKUP_HEADER, d, len);
	mem_free(d);
	assert_err(open_file(other, length, &err), ERR_CORRUPT);
	assert_contains(err.msg, "header");
	mem_free(other);
	snapshot_done(&s);
}

static void test_newer(void **state)
{
	struct err err = {0};

	(void)state;
	file[11]++;
	assert_err(open_file(file, length, &err), ERR_UNIMPLEMENTED);
	assert_contains(err.msg, "format 2");
	file[11]--;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_cut),
		cmocka_unit_test(test_longer),     cmocka_unit_test(test_flipped),
		cmocka_unit_test(test_exchanged),  cmocka_unit_test(test_newer),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
