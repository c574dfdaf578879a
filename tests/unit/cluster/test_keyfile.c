/* The identity of a lighthouse on disk. LIBS: cluster */
#include "tests/lib/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/fileio.h"
#include "base/mem.h"
#include "cluster/keyfile.h"

struct fixture {
	char dir[64];
	struct keyfile k;
	struct pki_ca ca;
};

static int set_up(void **state)
{
	struct fixture *f = MEM_NEW(struct fixture);

	crypto_init();
	snprintf(f->dir, sizeof(f->dir), "/tmp/skerry-keyfile-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_ok(keyfile_new("one", "127.0.0.1:1", "https://127.0.0.1:2", clock_wall_ms(), &f->k,
			      &f->ca, NULL));
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	static const char *const files[] = {"identity.json",    "cluster.key",    "node.key",
					    "node.crt",         "api.key",        "api.crt",
					    "ca.crt",           "ca-old.crt",     "ca-cross.crt",
					    "cluster.key.next", "cluster.key.old"};
	struct fixture *f = *state;

	TEST_TABLE(name, files)
	{
		char path[128];

		snprintf(path, sizeof(path), "%s/%s", f->dir, *name);
		unlink(path);
	}
	rmdir(f->dir);
	keyfile_done(&f->k);
	pki_ca_done(&f->ca);
	mem_free(f);
	return 0;
}

static void test_round_trip(void **state)
{
	struct fixture *f = *state;
	struct keyfile k = {0};
	struct err e = {0};
	uint8_t a[32], b[32];

	assert_false(keyfile_exists(f->dir));
	assert_err(keyfile_read(f->dir, &k, &e), ERR_PRECONDITION);
	assert_string_equal(e.reason, "NOT_INITIALISED");
	assert_contains(e.msg, "skerryd init");
	assert_ok(keyfile_write(f->dir, &f->k, NULL));
	assert_true(keyfile_exists(f->dir));
	assert_ok(keyfile_read(f->dir, &k, &e));
	assert_int_equal(k.cluster_id, f->k.cluster_id);
	assert_int_equal(k.lighthouse_id, f->k.lighthouse_id);
	assert_string_equal(k.name, "one");
	assert_string_equal(k.peer_address, "127.0.0.1:1");
	assert_string_equal(k.api_url, "https://127.0.0.1:2");
	assert_memory_equal(k.cluster_key, f->k.cluster_key, PKI_KEY);
	assert_memory_equal(k.ca_pin, f->k.ca_pin, 32);
	x509_key_spki_sha256(k.node_key, a);
	x509_key_spki_sha256(f->k.node_key, b);
	assert_memory_equal(a, b, 32);
	/* New addresses stay. */
	assert_ok(keyfile_set_addresses(f->dir, &k, "h:3", "https://h:4", NULL));
	keyfile_done(&k);
	assert_ok(keyfile_read(f->dir, &k, NULL));
	assert_string_equal(k.peer_address, "h:3");
	keyfile_done(&k);
}

static void test_no_overwrite(void **state)
{
	struct fixture *f = *state;
	struct keyfile other = {0};
	struct pki_ca ca = {0};
	struct err e = {0};

	assert_ok(keyfile_write(f->dir, &f->k, NULL));
	assert_ok(keyfile_write(f->dir, &f->k, NULL));
	assert_ok(keyfile_new("two", "h:1", "https://h", clock_wall_ms(), &other, &ca, NULL));
	assert_err(keyfile_write(f->dir, &other, &e), ERR_EXISTS);
	assert_string_equal(e.reason, "ALREADY_INITIALISED");
	keyfile_done(&other);
	pki_ca_done(&ca);
}

static void spoil(const char *dir, const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	assert_ok(file_write_atomic(path, text, strlen(text), 0600, NULL));
}

static void test_damage(void **state)
{
	static const char *const files[] = {"cluster.key", "node.key", "node.crt",
					    "api.key",     "api.crt",  "ca.crt"};
	struct fixture *f = *state;
	struct keyfile k = {0};
	char path[128];

	TEST_TABLE(file, files)
	{
		struct err e = {0};

		assert_ok(keyfile_write(f->dir, &f->k, NULL));
		spoil(f->dir, *file, "junk\n");
		assert_err(keyfile_read(f->dir, &k, &e), ERR_CORRUPT);
		assert_contains(e.msg, *file);
	}
	/* The certificate of another key. */
	assert_ok(keyfile_write(f->dir, &f->k, NULL));
	spoil(f->dir, "node.crt", f->k.api_cert_pem);
	assert_err(keyfile_read(f->dir, &k, NULL), ERR_CORRUPT);
	/* A key that others may read. */
	assert_ok(keyfile_write(f->dir, &f->k, NULL));
	snprintf(path, sizeof(path), "%s/cluster.key", f->dir);
	assert_int_equal(chmod(path, 0644), 0);
	assert_err(keyfile_read(f->dir, &k, NULL), ERR_PRECONDITION);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(chmod(f->dir, 0755), 0);
	assert_err(keyfile_read(f->dir, &k, NULL), ERR_PRECONDITION);
	assert_int_equal(chmod(f->dir, 0700), 0);
	assert_ok(keyfile_read(f->dir, &k, NULL));
	keyfile_done(&k);
}

static void test_recovery(void **state)
{
	uint8_t key[PKI_KEY], back[PKI_KEY];
	struct err e = {0};
	char *text, *copy;
	size_t n;

	(void)state;
	for (size_t i = 0; i < sizeof(key); i++) {
		key[i] = (uint8_t)(i * 7 + 1);
	}
	text = keyfile_recovery(key);
	assert_ok(keyfile_recovery_parse(text, back, NULL));
	assert_memory_equal(key, back, PKI_KEY);
	n = strlen(text);
	/* Upper case, and without the hyphens. */
	copy = mem_strdup(text);
	for (size_t i = 0, j = 0; i <= n; i++) {
		if (text[i] != '-') {
			copy[j++] =
				(char)(text[i] >= 'a' && text[i] <= 'z' ? text[i] - 32 : text[i]);
		}
	}
	assert_ok(keyfile_recovery_parse(copy, back, NULL));
	assert_memory_equal(key, back, PKI_KEY);
	/* Cut anywhere, and any one character changed. */
	for (size_t cut = 0; cut < n; cut++) {
		snprintf(copy, n + 1, "%.*s", (int)cut, text);
		assert_err(keyfile_recovery_parse(copy, back, &e), ERR_INVALID);
	}
	for (size_t i = 0; i < n; i++) {
		memcpy(copy, text, n + 1);
		if (copy[i] != '-') {
			copy[i] = copy[i] == '7' ? '8' : '7';
			assert_err(keyfile_recovery_parse(copy, back, &e), ERR_INVALID);
		}
	}
	mem_free(copy);
	mem_free(text);
}

/* What is there only while something is rotated lasts, and goes again. */
static void test_rotation(void **state)
{
	struct fixture *f = *state;
	struct buf cross = BUF_INIT;
	struct pki_ca next = {0};
	struct keyfile k = {0};
	uint8_t before[PKI_KEY], one[PKI_KEY], two[PKI_KEY];
	struct err e = {0};

	assert_ok(keyfile_write(f->dir, &f->k, NULL));
	assert_ok(pki_ca_next(&f->ca, clock_wall_ms(), &next, &cross, NULL));
	assert_err(keyfile_set_ca(f->dir, &f->k, next.cert_pem, next.cert_pem, buf_str(&cross), &e),
		   ERR_INVALID);
	assert_err(keyfile_set_ca(f->dir, &f->k, next.cert_pem, f->ca.cert_pem, NULL, &e),
		   ERR_INVALID);
	assert_ok(
		keyfile_set_ca(f->dir, &f->k, next.cert_pem, f->ca.cert_pem, buf_str(&cross), &e));
	assert_ok(keyfile_read(f->dir, &k, &e));
	assert_string_equal(k.ca_cert_pem, next.cert_pem);
	assert_string_equal(k.ca_old_pem, f->ca.cert_pem);
	assert_memory_equal(k.ca_pin, f->k.ca_pin, 32);
	assert_memory_equal(k.ca_old_pin, f->k.ca_old_pin, 32);
	keyfile_done(&k);
	assert_ok(keyfile_set_ca(f->dir, &f->k, next.cert_pem, NULL, NULL, &e));
	assert_ok(keyfile_read(f->dir, &k, &e));
	assert_null(k.ca_old_pem);
	keyfile_done(&k);

	memcpy(before, f->k.cluster_key, PKI_KEY);
	memset(one, 1, sizeof(one));
	memset(two, 2, sizeof(two));
	assert_ok(keyfile_add_next(f->dir, &f->k, before, &e)); /* known: nothing */
	assert_int_equal(f->k.n_next, 0);
	assert_ok(keyfile_add_next(f->dir, &f->k, one, &e));
	assert_ok(keyfile_add_next(f->dir, &f->k, two, &e));
	assert_ok(keyfile_add_next(f->dir, &f->k, one, &e));
	assert_ok(keyfile_read(f->dir, &k, &e));
	assert_int_equal(k.n_next, 2);
	assert_memory_equal(k.next_keys + PKI_KEY, two, PKI_KEY);
	keyfile_done(&k);
	for (uint8_t i = 3; i < 3 + KEYFILE_NEXT_MAX - 2; i++) {
		uint8_t more[PKI_KEY];

		memset(more, i, sizeof(more));
		assert_ok(keyfile_add_next(f->dir, &f->k, more, &e));
	}
	memset(two, 99, sizeof(two));
	assert_err(keyfile_add_next(f->dir, &f->k, two, &e), ERR_LIMIT);
	assert_ok(keyfile_promote(f->dir, &f->k, 0, &e));
	assert_ok(keyfile_read(f->dir, &k, &e));
	assert_memory_equal(k.cluster_key, one, PKI_KEY);
	assert_memory_equal(k.old_key, before, PKI_KEY);
	assert_int_equal(k.n_next, 0);
	keyfile_done(&k);
	assert_ok(keyfile_drop_old(f->dir, &f->k, &e));
	assert_ok(keyfile_read(f->dir, &k, &e));
	assert_null(k.old_key);
	keyfile_done(&k);
	pki_ca_done(&next);
	buf_done(&cross);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_overwrite, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damage, set_up, tear_down),
		cmocka_unit_test(test_recovery),
		cmocka_unit_test_setup_teardown(test_rotation, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
