/* Tables, times, sizes, enum names, fields, QR codes.
 * LIBS: cli */
#include "tests/lib/test.h"

#include "base/mem.h"
#include "cli/cli_int.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"

struct text {
	char *data;
	size_t len;
	FILE *file;
};

static void text_open(struct text *t)
{
	t->file = open_memstream(&t->data, &t->len);
}

static void text_is(struct text *t, const char *want)
{
	fclose(t->file);
	assert_string_equal(t->data, want);
	free(t->data);
}

static void table(void **state)
{
	struct text text;
	struct table t;

	(void)state;
	text_open(&text);
	table_init(&t, "NAME", "N", "TEXT", NULL);
	table_cell(&t, "%s", "a");
	table_cell(&t, "%d", 12345);
	table_cell(&t, "%s", "");
	table_cell(&t, "%s",
		   "gr\xc3\xbc\xc3\x9f"
		   "e");
	table_cell(&t, "%d", 1);
	table_cell(&t, "%s", "x\033[31m\ny");
	table_print(&t, "", text.file);
	table_done(&t);
	text_is(&text, "NAME   N      TEXT\n"
		       "a      12345\n"
		       "gr\xc3\xbc\xc3\x9f"
		       "e  1      x?[31m?y\n");
}

static void sorted_table(void **state)
{
	static const char *const names[] = {"lh10", "lh2 (this)", "lh1", "berlin"};
	struct text text;
	struct table t;

	(void)state;
	text_open(&text);
	table_init(&t, "LIGHTHOUSE", "N", NULL);
	table_sort(&t);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		table_cell(&t, "%s", names[i]);
		table_cell(&t, "%zu", i);
	}
	table_sort(&t);
	table_print(&t, "", text.file);
	table_done(&t);
	text_is(&text, "LIGHTHOUSE  N\n"
		       "berlin      3\n"
		       "lh1         2\n"
		       "lh2 (this)  1\n"
		       "lh10        0\n");
}

static void times(void **state)
{
	static const struct {
		int64_t ms;
		const char *ago, *left;
	} cases[] = {
		{999, "now", "in 1s"},
		{5000, "5s ago", "in 5s"},
		{59999, "59s ago", "in 1m"},
		{60000, "1m ago", "in 1m"},
		{3600000 - 1, "59m ago", "in 60m"},
		{2 * 3600000, "2h ago", "in 2h"},
		{86399999, "23h ago", "in 24h"},
		{90 * 86400000LL, "90d ago", "in 90d"},
		{47 * 3600000LL, "47h ago", "in 2d"},
	};
	char out[TIME_TEXT];
	int64_t now = 1700000000000;
	Google__Protobuf__Timestamp ts;

	(void)state;
	TEST_TABLE(c, cases)
	{
		assert_string_equal(print_ago(now - c->ms, now, out), c->ago);
		assert_string_equal(print_left(pb_timestamp_set(&ts, now + c->ms), now, out),
				    c->left);
	}
	assert_string_equal(print_ago(0, now, out), "never");
	assert_string_equal(print_ago(now + 5000, now, out), "now");
	assert_string_equal(print_left(NULL, now, out), "never");
	assert_string_equal(print_left(pb_timestamp_set(&ts, now - 120000), now, out), "2m ago");
	assert_string_equal(print_left(pb_timestamp_set(&ts, now), now, out), "now");
}

static void sizes(void **state)
{
	char out[TIME_TEXT];

	(void)state;
	assert_string_equal(print_bytes(0, out), "0 B");
	assert_string_equal(print_bytes(1023, out), "1023 B");
	assert_string_equal(print_bytes(1536, out), "1.5 KiB");
	assert_string_equal(print_bytes(500u << 20, out), "500 MiB");
	assert_string_equal(print_bytes(UINT64_MAX, out), "16.0 EiB");
}

static void enums(void **state)
{
	char out[64];

	(void)state;
	assert_string_equal(print_enum(&skerry__v1__member_role__descriptor, 1, out), "voter");
	assert_string_equal(print_enum(&skerry__v1__role__descriptor, 3, out), "admin");
	assert_string_equal(print_enum(&skerry__v1__endpoint_kind__descriptor, 1, out), "local");
	assert_string_equal(print_enum(&skerry__v1__role__descriptor, 99, out), "99");
}

static void fields(void **state)
{
	struct cli *cx = MEM_NEW(struct cli);
	Skerry__V1__Tailnet tailnet = SKERRY__V1__TAILNET__INIT;
	Skerry__V1__DnsConfig dns = SKERRY__V1__DNS_CONFIG__INIT;
	Google__Protobuf__Duration expiry;
	char *resolvers[] = {(char[]){"192.0.2.1"}, (char[]){"192.0.2.2"}};
	struct cli_io io = {0};
	struct text text;

	(void)state;
	text_open(&text);
	io.out = text.file;
	cx->io = &io;
	arena_init(&cx->arena, 1 << 20);
	tailnet.name = (char[]){"tailnets/7"};
	tailnet.display_name = (char[]){"x\ny"};
	tailnet.etag = (char[]){"5"};
	tailnet.node_count = 3;
	tailnet.node_expiry = pb_duration_set(&expiry, 86400000);
	dns.base_domain = (char[]){"home.internal"};
	dns.resolvers = resolvers;
	dns.n_resolvers = 2;
	dns.disabled = true;
	tailnet.dns = &dns;
	print_fields(cx, &tailnet);
	text_is(&text, "name             tailnets/7\n"
		       "display name     x?y\n"
		       "dns base domain  home.internal\n"
		       "dns resolvers    192.0.2.1, 192.0.2.2\n"
		       "dns disabled     yes\n"
		       "node count       3\n"
		       "node expiry      1d\n");
	arena_done(&cx->arena);
	mem_free(cx);
}

static void qr(void **state)
{
	char *data, *big = mem_zalloc(8001);
	size_t len, lines = 0;
	FILE *f = open_memstream(&data, &len);

	(void)state;
	assert_true(print_qr(f, "https://lh1.example:8443/approve/ABCD-EFGH"));
	fclose(f);
	for (size_t i = 0; i < len; i++) {
		lines += data[i] == '\n';
	}
	/* Version 3: 29 modules and 4 of margin, two to a line. */
	assert_int_equal(lines, 17);
	free(data);
	memset(big, 'x', 8000);
	f = open_memstream(&data, &len);
	assert_false(print_qr(f, big));
	fclose(f);
	free(data);
	mem_free(big);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table), cmocka_unit_test(sorted_table), cmocka_unit_test(times),
		cmocka_unit_test(sizes), cmocka_unit_test(enums),        cmocka_unit_test(fields),
		cmocka_unit_test(qr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
