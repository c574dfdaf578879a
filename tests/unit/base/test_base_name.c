/* LIBS: base
 * base/name.h */
#include "tests/lib/test.h"

#include "base/name.h"

#define A10 "aaaaaaaaaa"
#define A63 A10 A10 A10 A10 A10 A10 "aaa"

static void test_labels(void **state)
{
	static const char *const good[] = {"a", "0", "web-1", "a--b", "xn--caf-dma", A63, "123"};
	static const struct {
		const char *text;
		const char *msg;
	} bad[] = {
		{"", "empty"},
		{A63 "a", "64 characters"},
		{"-a", "begin or end"},
		{"a-", "begin or end"},
		{"-", "begin or end"},
		{"Web", "capital letter at position 1"},
		{"a_b", "'_' at position 2"},
		{"_a", "'_' at position 1"},
		{"a.b", "'.' at position 2"},
		{"a b", "byte 0x20 at position 2"},
		{"caf\xc3\xa9", "byte 0xc3 at position 4"},
	};
	struct err e = {0};

	(void)state;
	TEST_TABLE(t, good)
	{
		assert_ok(name_valid_label(*t, strlen(*t), &e));
	}
	TEST_TABLE(c, bad)
	{
		assert_err(name_valid_label(c->text, strlen(c->text), &e), ERR_INVALID);
		assert_contains(e.msg, c->msg);
	}
	/* Only len characters count. */
	assert_ok(name_valid_label("abc.def", 3, &e));
	assert_err(name_valid_label("a\0b", 3, &e), ERR_INVALID);
}

static void test_domains(void **state)
{
	static const struct {
		const char *text;
		bool domain;
		bool record;
	} cases[] = {
		{"example", true, true},
		{"mesh.example.net", true, true},
		{A63 "." A63 "." A63 "." A10 A10 A10 A10 A10 A10 "a", true, true},    /* 253 */
		{A63 "." A63 "." A63 "." A10 A10 A10 A10 A10 A10 "aa", false, false}, /* 254 */
		{"", false, false},
		{".", false, false},
		{"a.", false, false},
		{".a", false, false},
		{"a..b", false, false},
		{"1.2.3.4", false, false},
		{"1.2.3.x4", true, true},
		{"_sip._tcp.example.net", false, true},
		{"_.example", false, false},
		{"_-a.example", false, false},
		{"a_b.example", false, false},
		{"A.example", false, false},
	};
	struct err e = {0};

	(void)state;
	TEST_TABLE(c, cases)
	{
		if ((name_valid_domain(c->text, &e) == 0) != c->domain ||
		    (name_valid_record(c->text, &e) == 0) != c->record) {
			TEST_FAIL("%s: %s", c->text, e.msg);
		}
	}
}

static void test_refused(void **state)
{
	static const char *const refused[] = {"wpad", "WPAD",         "isatap",    "localhost",
					      "_x",   "autodiscover", "AutoConfig"};
	static const char *const fine[] = {"", "wpad1", "local", "localhosts", "a_", "auto"};

	(void)state;
	TEST_TABLE(t, refused)
	{
		assert_true(name_refused_label(*t));
	}
	TEST_TABLE(t, fine)
	{
		assert_false(name_refused_label(*t));
	}
	assert_true(name_has_refused_label("a.wpad.net"));
	assert_true(name_has_refused_label("wpad"));
	assert_true(name_has_refused_label("a._b"));
	assert_false(name_has_refused_label("a.wpads.net"));
	assert_false(name_has_refused_label(""));
}

static void test_sanitize(void **state)
{
	static const struct {
		const char *in;
		const char *out;
	} cases[] = {
		{"web1", "web1"},
		{"Web1.Example.NET", "web1"},
		{"Anna's MacBook Pro", "anna-s-macbook-pro"},
		{"--a__b--", "a-b"},
		{"", "node"},
		{".local", "node"},
		{"\xc3\xa9\xc3\xa9", "node"},
		{"caf\xc3\xa9", "caf"},
		{"a\nb", "a-b"},
		{"WPAD", "node"},
		{"localhost", "node"},
		{"_tcp", "tcp"},
		{A63 "bbb", A63},
		{A10 A10 A10 A10 A10 A10 "aa-b", A10 A10 A10 A10 A10 A10 "aa"},
	};
	char out[NAME_LABEL_MAX + 1];

	(void)state;
	TEST_TABLE(c, cases)
	{
		assert_string_equal(name_sanitize(c->in, out), c->out);
		assert_ok(name_valid_label(out, strlen(out), NULL));
	}
	/* Whatever comes in, a valid label that is not refused comes out. */
	for (unsigned seed = 0; seed < 5000; seed++) {
		struct test_rand r = {seed};
		char in[100];
		size_t len = test_rand_next(&r) % sizeof(in);

		test_rand_fill_(&r, in, len);
		in[len] = '\0';
		name_sanitize(in, out);
		assert_ok(name_valid_label(out, strlen(out), NULL));
		assert_false(name_refused_label(out));
	}
}

static void test_numbered(void **state)
{
	char out[NAME_LABEL_MAX + 1];

	(void)state;
	assert_string_equal(name_numbered("web", 0, out), "web");
	assert_string_equal(name_numbered("web", 1, out), "web-1");
	assert_string_equal(name_numbered("web", UINT32_MAX, out), "web-4294967295");
	assert_string_equal(name_numbered(A63, 12, out), A10 A10 A10 A10 A10 A10 "-12");
	/* No double hyphen where the cut falls behind one. */
	assert_string_equal(name_numbered(A10 A10 A10 A10 A10 "aaaaaaaaa-bbb", 12, out),
			    A10 A10 A10 A10 A10 "aaaaaaaaa-12");
	assert_ok(name_valid_label(out, strlen(out), NULL));
}

static void test_domain_helpers(void **state)
{
	char long_name[300];
	char out[NAME_DOMAIN_MAX + 1];
	struct err e = {0};

	(void)state;
	assert_ok(name_normalise("Web.Example.NET.", out, &e));
	assert_string_equal(out, "web.example.net");
	assert_err(name_normalise(".", out, &e), ERR_INVALID);
	assert_err(name_normalise("a..", out, &e), ERR_INVALID);
	assert_string_equal(out, "web.example.net");
	memset(long_name, 'a', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	assert_err(name_normalise(long_name, out, &e), ERR_INVALID);

	assert_true(name_within("a.b.c", "b.c"));
	assert_true(name_within("b.c", "b.c"));
	assert_true(name_within("b.c", ""));
	assert_false(name_within("ab.c", "b.c"));
	assert_false(name_within("c", "b.c"));
	assert_false(name_within("b.cd", "b.c"));
	assert_int_equal(name_labels(""), 0);
	assert_int_equal(name_labels("a"), 1);
	assert_int_equal(name_labels("a.b.c"), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_labels),   cmocka_unit_test(test_domains),
		cmocka_unit_test(test_refused),  cmocka_unit_test(test_sanitize),
		cmocka_unit_test(test_numbered), cmocka_unit_test(test_domain_helpers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
