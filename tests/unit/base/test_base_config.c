/* LIBS: base
 * base/config.h */
#include "tests/lib/test.h"

#include "base/buf.h"
#include "base/config.h"
#include "base/crypto.h"
#include "base/fileio.h"
#include "base/limits.h"

#include <errno.h>

struct listener {
	struct config_address address;
	int tls;
	struct config_strings serve;
	bool proxy;
};

struct sample {
	char *name;
	char *mode;
	int64_t workers;
	bool verbose;
	int64_t grace;
	int64_t cache;
	struct config_address peer;
	int64_t wg_port;
	char *wg_interface;
	struct config_strings tags;
	struct config_list listeners;
	struct config_map labels;
};

static int check_name(const void *value, struct err *e)
{
	const char *name = *(char *const *)value;

	if (strcmp(name, "forbidden") == 0) {
		return err_set(e, ERR_INVALID, "that name is taken");
	}
	return 0;
}

static const char *const tls_choices[] = {"file", "cluster", "none", NULL};
static const char *const serve_choices[] = {"agent", "admin", "web", NULL};
static const char *const mode_choices[] = {"fast", "safe", NULL};

static const struct config_key listener_keys[] = {
	{.path = "address",
	 .type = CONFIG_ADDRESS,
	 .offset = offsetof(struct listener, address),
	 .required = true,
	 .port = 8443},
	{.path = "tls",
	 .type = CONFIG_ENUM,
	 .offset = offsetof(struct listener, tls),
	 .def = "cluster",
	 .choices = tls_choices},
	{.path = "serve",
	 .type = CONFIG_STRINGS,
	 .offset = offsetof(struct listener, serve),
	 .def = "agent",
	 .choices = serve_choices},
	{.path = "proxy_protocol", .type = CONFIG_BOOL, .offset = offsetof(struct listener, proxy)},
};
static const struct config_schema listener_schema = {listener_keys, ARRAY_LEN(listener_keys),
						     sizeof(struct listener)};

static const struct config_key sample_keys[] = {
	{.path = "name",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct sample, name),
	 .required = true,
	 .check = check_name},
	{.path = "mode",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct sample, mode),
	 .def = "safe",
	 .choices = mode_choices},
	{.path = "workers",
	 .type = CONFIG_INT,
	 .offset = offsetof(struct sample, workers),
	 .def = "4",
	 .min = 1,
	 .max = 64},
	{.path = "verbose", .type = CONFIG_BOOL, .offset = offsetof(struct sample, verbose)},
	{.path = "grace",
	 .type = CONFIG_DURATION,
	 .offset = offsetof(struct sample, grace),
	 .def = "15s",
	 .min = 1000,
	 .max = 3600000},
	{.path = "cache", .type = CONFIG_SIZE, .offset = offsetof(struct sample, cache)},
	{.path = "peer", .type = CONFIG_ADDRESS, .offset = offsetof(struct sample, peer)},
	{.path = "wireguard.port",
	 .type = CONFIG_INT,
	 .offset = offsetof(struct sample, wg_port),
	 .def = "41641"},
	{.path = "wireguard.interface",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct sample, wg_interface),
	 .def = "skerry0"},
	{.path = "tags", .type = CONFIG_STRINGS, .offset = offsetof(struct sample, tags)},
	{.path = "listeners",
	 .type = CONFIG_LIST,
	 .offset = offsetof(struct sample, listeners),
	 .sub = &listener_schema},
	{.path = "labels", .type = CONFIG_MAP, .offset = offsetof(struct sample, labels)},
};
static const struct config_schema sample_schema = {sample_keys, ARRAY_LEN(sample_keys),
						   sizeof(struct sample)};

static int parse(const char *text, struct sample *s, struct err *e)
{
	return config_parse(text, strlen(text), "t.yaml", &sample_schema, s, e);
}

static void test_full(void **state)
{
	static const char text[] = "# a comment\n"
				   "name: lh1\n"
				   "mode: fast\n"
				   "workers: 8\n"
				   "verbose: true\n"
				   "grace: 1m30s\n"
				   "cache: 64MiB\n"
				   "peer: \"[fd00::1]:8444\"\n"
				   "wireguard:\n"
				   "  port: 0\n"
				   "  interface: wg9\n"
				   "tags: [a, 'b c', 007]\n"
				   "listeners:\n"
				   "  - address: 127.0.0.1:0\n"
				   "    tls: none\n"
				   "    serve: [agent, admin]\n"
				   "    proxy_protocol: true\n"
				   "  - address: lh1.example.net\n"
				   "labels:\n"
				   "  rack: 12\n"
				   "  room: ''\n";
	const struct listener *l;
	struct err e = {0};
	struct sample s;

	(void)state;
	if (parse(text, &s, &e) < 0) {
		TEST_FAIL("%s", e.msg);
	}
	assert_string_equal(s.name, "lh1");
	assert_string_equal(s.mode, "fast");
	assert_int_equal(s.workers, 8);
	assert_true(s.verbose);
	assert_int_equal(s.grace, 90000);
	assert_int_equal(s.cache, 64 << 20);
	assert_string_equal(s.peer.host, "fd00::1");
	assert_int_equal(s.peer.port, 8444);
	assert_int_equal(s.wg_port, 0);
	assert_string_equal(s.wg_interface, "wg9");
	assert_int_equal(s.tags.n, 3);
	assert_string_equal(s.tags.v[1], "b c");
	assert_string_equal(s.tags.v[2], "007");
	assert_int_equal(s.listeners.n, 2);
	l = s.listeners.v;
	assert_string_equal(l[0].address.host, "127.0.0.1");
	assert_int_equal(l[0].address.port, 0);
	assert_int_equal(l[0].tls, 2);
	assert_int_equal(l[0].serve.n, 2);
	assert_true(l[0].proxy);
	assert_string_equal(l[1].address.host, "lh1.example.net");
	assert_int_equal(l[1].address.port, 8443);
	assert_int_equal(l[1].tls, 1);
	assert_int_equal(l[1].serve.n, 1);
	assert_string_equal(l[1].serve.v[0], "agent");
	assert_int_equal(s.labels.n, 2);
	assert_string_equal(s.labels.keys[0], "rack");
	assert_string_equal(s.labels.values[0], "12");
	assert_string_equal(s.labels.values[1], "");
	config_done(&sample_schema, &s);
	assert_null(s.name);
	config_done(&sample_schema, &s);
}

static void test_defaults(void **state)
{
	static const char *const same[] = {
		"name: x\n",
		"name: x\nworkers:\nmode: ~\nwireguard:\nlisteners: null\n",
		"\xef\xbb\xbf"
		"name: x",
		"{\"name\": \"x\"}",
		"---\nname: x\n...\n",
	};
	struct err e = {0};
	struct sample s;

	(void)state;
	TEST_TABLE(t, same)
	{
		if (parse(*t, &s, &e) < 0) {
			TEST_FAIL("%s", e.msg);
		}
		assert_string_equal(s.name, "x");
		assert_string_equal(s.mode, "safe");
		assert_int_equal(s.workers, 4);
		assert_int_equal(s.grace, 15000);
		assert_int_equal(s.wg_port, 41641);
		assert_string_equal(s.wg_interface, "skerry0");
		assert_null(s.peer.host);
		assert_int_equal(s.listeners.n, 0);
		config_done(&sample_schema, &s);
	}
	assert_ok(config_defaults(&sample_schema, &s, &e));
	assert_null(s.name);
	assert_int_equal(s.workers, 4);
	config_done(&sample_schema, &s);
}

static void test_refusals(void **state)
{
	static const struct {
		const char *text;
		const char *place;
		const char *msg;
	} cases[] = {
		{"", "t.yaml:1", "key \"name\" is missing"},
		{"name:\n", "t.yaml:1", "key \"name\" is missing"},
		{"name: a\nnmae: b\n", "t.yaml:2",
		 "unknown key \"nmae\"; meant is perhaps \"name\""},
		{"name: a\nworker: 3\n", "t.yaml:2", "perhaps \"workers\""},
		{"name: a\nzzzzzz: 3\n", "t.yaml:2", "unknown key \"zzzzzz\""},
		{"name: a\nwireguard:\n  prot: 3\n", "t.yaml:3",
		 "unknown key \"wireguard.prot\"; meant is perhaps \"port\""},
		{"name: a\nwireguard.port: 3\n", "t.yaml:2", "unknown key \"wireguard.port\""},
		{"name: a\nwireguard: 3\n", "t.yaml:2", "must have keys below it"},
		{"name: a\nport: 3\n", "t.yaml:2", "unknown key \"port\""},
		{"name: a\nname: b\n", "t.yaml:2", "given twice, first in line 1"},
		{"name: a\nwireguard: {port: 1, port: 2}\n", "t.yaml:2", "given twice"},
		{"name: [a]\n", "t.yaml:1", "must be text"},
		{"name: {a: b}\n", "t.yaml:1", "must be text"},
		{"name: a\nworkers: many\n", "t.yaml:2", "not a whole number"},
		{"name: a\nworkers: \"3\"\n", "t.yaml:2", "must be a whole number"},
		{"name: a\nworkers: 0x3\n", "t.yaml:2", "not a whole number"},
		{"name: a\nworkers: 03\n", "t.yaml:2", "not a whole number"},
		{"name: a\nworkers: 3.0\n", "t.yaml:2", "not a whole number"},
		{"name: a\nworkers: 0\n", "t.yaml:2", "must be 1 to 64"},
		{"name: a\nworkers: 65\n", "t.yaml:2", "must be 1 to 64"},
		{"name: a\nworkers: 99999999999999999999\n", "t.yaml:2", "not a whole number"},
		{"name: a\nverbose: yes\n", "t.yaml:2", "neither true nor false"},
		{"name: a\nverbose: 'true'\n", "t.yaml:2", "must be true or false"},
		{"name: a\ngrace: 15\n", "t.yaml:2", "the unit is missing"},
		{"name: a\ngrace: 10ms\n", "t.yaml:2", "must be 1s to 1h"},
		{"name: a\ncache: lots\n", "t.yaml:2", "not a size"},
		{"name: a\npeer: host\n", "t.yaml:2", "port is missing"},
		{"name: a\nmode: slow\n", "t.yaml:2", "\"slow\" is not one of fast, safe"},
		{"name: a\ntags: {a: b}\n", "t.yaml:2", "must be a list of texts"},
		{"name: a\ntags: [a, [b]]\n", "t.yaml:2", "must be a list of texts"},
		{"name: a\ntags: [a, ]\nlabels: [x]\n", "t.yaml:3", "must be keys with texts"},
		{"name: a\nlabels: {a: {b: c}}\n", "t.yaml:2", "must be keys with texts"},
		{"name: a\nlisteners: {address: b}\n", "t.yaml:2", "list of entries"},
		{"name: a\nlisteners:\n - b\n", "t.yaml:3", "list of entries"},
		{"name: a\nlisteners:\n - tls: none\n", "t.yaml:3",
		 "key \"listeners[0].address\" is missing"},
		{"name: a\nlisteners:\n - address: a\n - address: b\n   tsl: none\n", "t.yaml:5",
		 "unknown key \"listeners[1].tsl\"; meant is perhaps \"tls\""},
		{"name: a\nlisteners:\n - address: a\n   serve: [agent, amdin]\n", "t.yaml:4",
		 "\"amdin\" is not one of agent, admin, web"},
		{"name: forbidden\n", "t.yaml:1", "key \"name\": that name is taken"},
		{"name: &x a\n", "t.yaml:1", "an anchor"},
		{"name: a\ntags: &x [a]\n", "t.yaml:2", "an anchor"},
		{"name: a\nlabels: &x {a: b}\n", "t.yaml:2", "an anchor"},
		{"name: a\nmode: *x\n", "t.yaml:2", "an alias"},
		{"name: !!str a\n", "t.yaml:1", "a tag"},
		{"name: a\ntags: !!set [a]\n", "t.yaml:2", "a tag"},
		{"name: a\n---\nname: b\n", "t.yaml:3", "second document"},
		{"- a\n- b\n", "t.yaml:1", "expected keys with values"},
		{"just text", "t.yaml:1", "expected keys with values"},
		{"name: a\n? [x]\n: y\n", "t.yaml:2", "key must be simple text"},
		{"name: \"a\n", "t.yaml:2", "not valid YAML"},
		{"name: a\n\tmode: x\n", "t.yaml:2", "not valid YAML"},
		{"name: a\nmode: \xff\n", "t.yaml:2", "not UTF-8"},
		{"name: \"a\\0b\"\n", "t.yaml:1", "NUL"},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct sample s, zero = {0};
		struct err e = {0};

		if (parse(c->text, &s, &e) != ERR_INVALID) {
			TEST_FAIL("accepted, or another code: %s", c->text);
		}
		if (strcmp(e.field, c->place) != 0) {
			TEST_FAIL("%s: %s instead of %s", c->text, e.field, c->place);
		}
		assert_contains(e.msg, c->msg);
		assert_contains(e.msg, c->place);
		/* Nothing stays behind. */
		assert_memory_equal(&s, &zero, sizeof(s));
	}
}

static void test_limits(void **state)
{
	struct buf b = BUF_INIT;
	struct err e = {0};
	struct sample s;

	(void)state;
	buf_append_str(&b, "name: a\nlabels:\n");
	while (b.len <= LIM_CONFIG_BYTES) {
		buf_printf(&b, "  k%zu: v\n", b.len);
	}
	assert_err(config_parse(buf_str(&b), b.len, "t.yaml", &sample_schema, &s, &e), ERR_LIMIT);
	assert_contains(e.msg, "larger than");

	buf_reset(&b);
	buf_append_str(&b, "name: a\ntags: ");
	for (int i = 0; i < LIM_CONFIG_DEPTH; i++) {
		buf_u8(&b, '[');
	}
	assert_err(config_parse(buf_str(&b), b.len, "t.yaml", &sample_schema, &s, &e), ERR_LIMIT);
	assert_contains(e.msg, "nested deeper");
	assert_string_equal(e.field, "t.yaml:2");

	buf_reset(&b);
	buf_append_str(&b, "name: a\ntags: [");
	for (int i = 0; i < LIM_CONFIG_NODES; i++) {
		buf_append_str(&b, "a,");
	}
	buf_append_str(&b, "]");
	assert_err(config_parse(buf_str(&b), b.len, "t.yaml", &sample_schema, &s, &e), ERR_LIMIT);
	assert_contains(e.msg, "too many entries");
	buf_done(&b);
}

static void test_load(void **state)
{
	char dir[TEST_DIR];
	char path[TEST_DIR + 16];
	struct err e = {0};
	struct sample s;

	(void)state;
	snprintf(path, sizeof(path), "%s/c.yaml", test_dir_make(dir));
	assert_err(config_load(path, &sample_schema, &s, &e), -ENOENT);
	assert_contains(e.msg, path);
	assert_ok(file_write_atomic(path, "name: z\nx", 9, 0600, &e));
	assert_err(config_load(path, &sample_schema, &s, &e), ERR_INVALID);
	assert_contains(e.field, path);
	assert_ok(file_write_atomic(path, "name: z\n", 8, 0600, &e));
	assert_ok(config_load(path, &sample_schema, &s, &e));
	assert_string_equal(s.name, "z");
	config_done(&sample_schema, &s);
	test_dir_remove(dir);
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int64_t bytes; /* -1: refused */
	} cases[] = {
		{"0", 0},
		{"4096", 4096},
		{"1k", 1024},
		{"1K", 1024},
		{"1KiB", 1024},
		{"64MiB", 64 << 20},
		{"2G", 2ll << 30},
		{"1TiB", 1ll << 40},
		{"10B", 10},
		{"", -1},
		{"k", -1},
		{"1kb", -1},
		{"1.5M", -1},
		{"-1", -1},
		{"1 M", -1},
		{"1KiBs", -1},
		{"9223372036854775807", INT64_MAX},
		{"9223372036854775808", -1},
		{"9007199254740992K", -1},
		{"8388607TiB", 8388607ll << 40},
		{"8388608TiB", -1},
	};
	struct err e = {0};

	(void)state;
	TEST_TABLE(c, cases)
	{
		int64_t v = -1;
		int rv = size_parse(c->text, &v, &e);

		if (v != c->bytes || (rv == 0) != (c->bytes >= 0)) {
			TEST_FAIL("%s: %lld", c->text, (long long)v);
		}
	}
}

static int setup(void **state)
{
	(void)state;
	crypto_init();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),     cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_limits),
		cmocka_unit_test(test_load),     cmocka_unit_test(test_sizes),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
