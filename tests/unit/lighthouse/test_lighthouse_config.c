/* lighthouse.yaml: each wrong value is refused with its place; the defaults serve. LIBS: lighthouse */
#include "tests/lib/test.h"

#include "base/fileio.h"
#include "base/mem.h"
#include "lighthouse/config.h"

static char dir[TEST_DIR];

/* Loads the text as a file; `wrong` is what the message says (NULL: it is right), at that line. */
static void load(const char *text, int line, const char *wrong)
{
	char *path = mem_printf("%s/bad.yaml", dir), *place = mem_printf("bad.yaml:%d", line);
	struct lighthouse_config c;
	struct err e = {0};
	int r;

	assert_ok(file_write_atomic(path, text, strlen(text), 0600, &e));
	r = lighthouse_config_load(path, &c, &e);
	if (wrong == NULL) {
		if (r < 0) {
			TEST_FAIL("%s: %s", text, e.msg);
		}
		lighthouse_config_done(&c);
	} else {
		if (r >= 0) {
			TEST_FAIL("taken: %s", text);
		}
		assert_contains(e.msg, wrong);
		if (line > 0) {
			assert_contains(e.field, place);
		}
	}
	mem_free(path);
	mem_free(place);
}

static void wrong_values_have_their_place(void **state)
{
	static const struct {
		const char *text;
		int line;
		const char *wrong;
	} cases[] = {
		{"log_level: info\nnonsense: 1\n", 2, "unknown key"},
		{"log_levle: info\n", 1, "log_level"},
		{"log_level: loud\n", 1, "loud"},
		{"log_level: info\nlog_level: info\n", 2, "twice"},
		{"state_dir: here\n", 1, "absolute"},
		{"socket: run/x.sock\n", 1, "absolute"},
		{"\npeer_address: 192.0.2.1:0\n", 2, "port 0"},
		{"peer_address: 192.0.2.1\n", 1, "port is missing"},
		{"peer_address: 192.0.2.1:70000\n", 1, "port"},
		{"peer_address: 2001:db8::1:8444\n", 1, "brackets"},
		{"api_url: http://x\n", 1, "https://"},
		{"api_url: https://x:0\n", 1, "port 0"},
		{"api_url: https://x/path\n", 1, "path"},
		{"api_url: https://\n", 1, "host"},
		{"peer_listen: nowhere\n", 1, "port is missing"},
		{"drain: 1\n", 1, "drain"},
		{"drain: 700s\n", 1, "drain"},
		{"snapshot_after: 1KiB\n", 1, "snapshot_after"},
		{"snapshot_after: much\n", 1, "size"},
		{"reflection_public: maybe\n", 1, "true"},
		{"backup:\n  directory: here\n", 2, "absolute"},
		{"backup:\n  every: 10ms\n", 2, "every"},
		{"backup:\n  keep: 0\n", 2, "keep"},
		{"backup:\n  by: all\n", 2, "all"},
		{"listeners:\n  - address: 1.2.3.4:99999\n    serve: [web]\n", 2, "port"},
		{"listeners:\n  - address: 1.2.3.4:1\n    serve: [wab]\n", 3, "wab"},
		{"listeners:\n  - address: 1.2.3.4:1\n", 2, "serve"},
		{"listeners:\n  - serve: [web]\n", 2, "address"},
		{"listeners:\n  - address: :1\n    serve: [web]\n    allow_from: [10.1.2.3/8]\n", 4,
		 "10.0.0.0/8"},
		{"listeners:\n  - address: :1\n    serve: [web]\n    tls: file\n", 0, "cert"},
		{"listeners:\n  - address: :1\n    serve: [web]\n    allow_from:\n"
		 "      - 10.0.0.0/8\n      - 10.1.2.3/8\n",
		 6, "10.0.0.0/8"},
		{"listeners: yes\n", 1, "list"},
		{"- a\n", 1, "keys"},
		{"log_level: \"a\n", 2, "YAML"},
		{"log_level: in\xff\n", 1, "UTF-8"},
		{"a: &x 1\n", 1, "anchor"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		load(cases[i].text, cases[i].line, cases[i].wrong);
	}
}

static void missing_file_is_named(void **state)
{
	struct lighthouse_config c;
	struct err e = {0};

	(void)state;
	assert_err(lighthouse_config_load("/run/none.yaml", &c, &e), ERR_PRECONDITION);
	assert_contains(e.msg, "/run/none.yaml");
}

static void right_values_are_taken(void **state)
{
	(void)state;
	load("", 0, NULL);
	load("peer_address: 192.0.2.1:8444\napi_url: https://lh.example\n", 0, NULL);
	load("peer_address: '[2001:db8::1]:8444'\napi_url: https://[2001:db8::1]:8443\n", 0, NULL);
	load("listeners:\n  - address: :8443\n    serve: [agent, admin]\n", 0, NULL);
	load("backup:\n  directory: /backup\n  every: 12h\n  keep: 5\n  by: each\n", 0, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wrong_values_have_their_place),
		cmocka_unit_test(missing_file_is_named),
		cmocka_unit_test(right_values_are_taken),
	};
	int failed;

	test_dir_make(dir);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	test_dir_remove(dir);
	return failed;
}
