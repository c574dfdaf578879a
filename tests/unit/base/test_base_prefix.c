/* LIBS: base
 * base/prefix.h */
#include "tests/lib/test.h"

#include "base/prefix.h"

#include <netinet/in.h>

static struct ipaddr addr(const char *text)
{
	struct ipaddr a;

	assert_ok(ipaddr_parse(text, &a, NULL));
	return a;
}

static struct prefix pfx(const char *text)
{
	struct prefix p;

	assert_ok(prefix_parse_host(text, &p, NULL));
	return p;
}

static void test_addr_text(void **state)
{
	static const struct {
		const char *text;
		const char *back; /* NULL: the same */
	} good[] = {
		{"0.0.0.0", NULL},           {"100.64.0.1", NULL},
		{"255.255.255.255", NULL},   {"::", NULL},
		{"fd7a:115c:a1e0::1", NULL}, {"2001:DB8:0:0:0:0:0:1", "2001:db8::1"},
		{"::ffff:1.2.3.4", NULL},
	};
	static const char *const bad[] = {
		"",         "1.2.3",        "1.2.3.4.5",  "256.1.1.1",     "01.2.3.4", "1.2.3.04",
		"1.2.3.4 ", " 1.2.3.4",     "0x1.2.3.4",  "1.2.3.-4",      "1::2::3",  ":::",
		"12345::",  "fe80::1%eth0", "1.2.3.4/32", "1:2:3:4:5:6:7", "[::1]",    "localhost",
	};
	char out[IPADDR_TEXT];
	struct err e = {0};
	struct ipaddr a;

	(void)state;
	TEST_TABLE(c, good)
	{
		assert_ok(ipaddr_parse(c->text, &a, &e));
		assert_string_equal(ipaddr_format(&a, out), c->back != NULL ? c->back : c->text);
	}
	TEST_TABLE(t, bad)
	{
		memset(&a, 0x55, sizeof(a));
		assert_err(ipaddr_parse(*t, &a, &e), ERR_INVALID);
		assert_int_equal(a.family, 0x55);
	}
	assert_err(ipaddr_parse("fe80::1%eth0", &a, &e), ERR_INVALID);
	assert_contains(e.msg, "zone");
	memset(&a, 0, sizeof(a));
	assert_string_equal(ipaddr_format(&a, out), "none");
	assert_false(ipaddr_from_bytes("abc", 3, &a));
	assert_true(ipaddr_from_bytes("\x01\x02\x03\x04", 4, &a));
	assert_string_equal(ipaddr_format(&a, out), "1.2.3.4");
	assert_int_equal(ipaddr_len(&a), 4);
}

enum { UNSPEC = 1, LOOP = 2, LINK = 4, MCAST = 8, CGNAT = 16, ULA = 32, PRIV = 64, UNI = 128 };

static void test_classes(void **state)
{
	static const struct {
		const char *text;
		unsigned classes;
	} cases[] = {
		{"0.0.0.0", UNSPEC},
		{"0.1.2.3", 0},
		{"127.0.0.1", LOOP},
		{"127.255.0.9", LOOP},
		{"169.254.1.1", LINK},
		{"224.0.0.1", MCAST},
		{"239.255.255.255", MCAST},
		{"255.255.255.255", MCAST},
		{"240.0.0.1", 0},
		{"100.63.255.255", UNI},
		{"100.64.0.0", CGNAT | UNI},
		{"100.127.255.255", CGNAT | UNI},
		{"100.128.0.0", UNI},
		{"10.0.0.1", PRIV | UNI},
		{"172.15.0.1", UNI},
		{"172.16.0.1", PRIV | UNI},
		{"172.31.0.1", PRIV | UNI},
		{"172.32.0.1", UNI},
		{"192.168.0.1", PRIV | UNI},
		{"8.8.8.8", UNI},
		{"::", UNSPEC},
		{"::1", LOOP},
		{"fe80::1", LINK},
		{"febf::1", LINK},
		{"fec0::1", UNI},
		{"ff02::1", MCAST},
		{"fd7a:115c:a1e0::1", ULA | UNI},
		{"fc00::1", ULA | UNI},
		{"2001:db8::1", UNI},
		{"::ffff:127.0.0.1", 0},
		{"::ffff:8.8.8.8", UNI},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct ipaddr a = addr(c->text);
		unsigned got = 0;

		got |= ipaddr_is_unspecified(&a) ? UNSPEC : 0;
		got |= ipaddr_is_loopback(&a) ? LOOP : 0;
		got |= ipaddr_is_link_local(&a) ? LINK : 0;
		got |= ipaddr_is_multicast(&a) ? MCAST : 0;
		got |= ipaddr_is_cgnat(&a) ? CGNAT : 0;
		got |= ipaddr_is_ula(&a) ? ULA : 0;
		got |= ipaddr_is_private(&a) ? PRIV : 0;
		got |= ipaddr_is_unicast(&a) ? UNI : 0;
		if (got != c->classes) {
			TEST_FAIL("%s: %u instead of %u", c->text, got, c->classes);
		}
	}
	{
		struct ipaddr none = {0};

		assert_false(ipaddr_is_unspecified(&none));
		assert_false(ipaddr_is_unicast(&none));
	}
}

static void test_prefix_text(void **state)
{
	static const struct {
		const char *text;
		const char *back;
	} good[] = {
		{"10.0.0.0/8", "10.0.0.0/8"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"1.2.3.4", "1.2.3.4/32"},
		{"1.2.3.4/32", "1.2.3.4/32"},
		{"::/0", "::/0"},
		{"fd7a:115c:a1e0::/48", "fd7a:115c:a1e0::/48"},
		{"2001:db8::1", "2001:db8::1/128"},
	};
	static const struct {
		const char *text;
		const char *msg;
	} bad[] = {
		{"10.0.0.0/33", "0 to 32"},
		{"::/129", "0 to 128"},
		{"10.0.0.0/", "0 to 32"},
		{"10.0.0.0/08", "0 to 32"},
		{"10.0.0.0/-1", "0 to 32"},
		{"10.0.0.0/8/8", "0 to 32"},
		{"10.0.0.0/ 8", "0 to 32"},
		{"10.0.0.0/+8", "0 to 32"},
		{"/8", "not an IP"},
		{"10.0/8", "not an IP"},
		{"10.1.2.3/8", "perhaps 10.0.0.0/8"},
		{"fd7a::1/64", "perhaps fd7a::/64"},
		{"1.2.3.4/0", "perhaps 0.0.0.0/0"},
		{"1111111111111111111111111111111111111111111111111111/8", "not a prefix"},
	};
	char out[PREFIX_TEXT];
	struct err e = {0};
	struct prefix p;

	(void)state;
	TEST_TABLE(c, good)
	{
		assert_ok(prefix_parse(c->text, &p, &e));
		assert_string_equal(prefix_format(&p, out), c->back);
		assert_true(prefix_valid(&p));
	}
	TEST_TABLE(c, bad)
	{
		assert_err(prefix_parse(c->text, &p, &e), ERR_INVALID);
		assert_contains(e.msg, c->msg);
	}
	assert_ok(prefix_parse_host("192.168.1.5/24", &p, &e));
	assert_string_equal(prefix_format(&p, out), "192.168.1.5/24");
	assert_false(prefix_valid(&p));
	p.len = 33;
	assert_false(prefix_valid(&p));
	p.addr.family = 0;
	assert_false(prefix_valid(&p));
}

static void test_prefix_relations(void **state)
{
	static const struct {
		const char *a;
		const char *b;
		bool covers;
		bool overlaps;
	} cases[] = {
		{"10.0.0.0/8", "10.1.0.0/16", true, true},
		{"10.1.0.0/16", "10.0.0.0/8", false, true},
		{"10.0.0.0/8", "10.0.0.0/8", true, true},
		{"10.0.0.0/8", "11.0.0.0/8", false, false},
		{"0.0.0.0/0", "255.0.0.0/8", true, true},
		{"0.0.0.0/0", "::/0", false, false},
		{"::/0", "fd00::/8", true, true},
		{"100.64.0.0/10", "100.127.255.255/32", true, true},
		{"100.64.0.0/10", "100.128.0.0/32", false, false},
		{"fd7a:115c:a1e0::/48", "fd7a:115c:a1e0:ffff::/64", true, true},
		{"fd7a:115c:a1e0::/48", "fd7a:115c:a1e1::/64", false, false},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct prefix a = pfx(c->a);
		struct prefix b = pfx(c->b);

		assert_int_equal(prefix_covers(&a, &b), c->covers);
		assert_int_equal(prefix_overlaps(&a, &b), c->overlaps);
		assert_int_equal(prefix_overlaps(&b, &a), c->overlaps);
	}
	{
		struct prefix a = pfx("0.0.0.0/0");
		struct prefix b = pfx("0.0.0.0/1");
		struct prefix none = {0};
		struct ipaddr v4 = addr("1.2.3.4");

		assert_true(prefix_is_default(&a));
		assert_false(prefix_is_default(&b));
		assert_false(prefix_is_default(&none));
		assert_false(prefix_contains(&none, &v4));
		assert_true(prefix_cmp(&a, &b) < 0);
		assert_true(prefix_cmp(&b, &a) > 0);
	}
}

/* contains against one bit at a time. */
static void test_contains_random(void **state)
{
	struct test_rand r = {3};

	(void)state;
	for (int i = 0; i < 20000; i++) {
		unsigned bits = test_rand_next(&r) % 2 ? 32 : 128;
		struct prefix p = {.len = (uint8_t)(test_rand_next(&r) % (bits + 1))};
		struct ipaddr a = {.family = bits == 32 ? 4 : 6};
		bool same = true;

		p.addr.family = a.family;
		test_rand_fill_(&r, p.addr.b, bits / 8);
		memcpy(a.b, p.addr.b, 16);
		/* One bit changed, often near the length. */
		if (test_rand_next(&r) % 4 != 0) {
			unsigned at = (unsigned)(test_rand_next(&r) % bits);

			a.b[at / 8] ^= (uint8_t)(0x80 >> at % 8);
			same = at >= p.len;
		}
		assert_int_equal(prefix_contains(&p, &a), same);
		p = prefix_masked(&p);
		assert_true(prefix_valid(&p));
		assert_int_equal(prefix_contains(&p, &a), same);
	}
}

static void test_nth(void **state)
{
	static const struct {
		const char *prefix;
		uint64_t n;
		const char *addr; /* NULL: beyond */
	} cases[] = {
		{"100.64.0.0/10", 0, "100.64.0.0"},
		{"100.64.0.0/10", 256, "100.64.1.0"},
		{"100.64.0.0/10", (1u << 22) - 1, "100.127.255.255"},
		{"100.64.0.0/10", 1u << 22, NULL},
		{"1.2.3.4/32", 0, "1.2.3.4"},
		{"1.2.3.4/32", 1, NULL},
		{"0.0.0.0/0", 0xffffffff, "255.255.255.255"},
		{"0.0.0.0/0", 1ull << 32, NULL},
		{"fd7a:115c:a1e0::/48", 0xffffffffffffffff, "fd7a:115c:a1e0:0:ffff:ffff:ffff:ffff"},
		{"fd7a::/64", 0xffffffffffffffff, "fd7a::ffff:ffff:ffff:ffff"},
		{"fd7a::/65", 1ull << 63, NULL},
	};
	char out[IPADDR_TEXT];

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct prefix p = pfx(c->prefix);
		struct ipaddr a;

		assert_int_equal(prefix_nth(&p, c->n, &a), c->addr != NULL);
		if (c->addr != NULL) {
			assert_string_equal(ipaddr_format(&a, out), c->addr);
			assert_true(prefix_index(&p, &a) == c->n);
		}
	}
	{
		struct prefix p = pfx("fd7a::/32");
		struct ipaddr a = addr("fd7a:0:1::");

		assert_true(prefix_index(&p, &a) == UINT64_MAX);
		assert_true(prefix_size(&p) == UINT64_MAX);
		p = pfx("10.0.0.0/8");
		assert_true(prefix_size(&p) == 1u << 24);
		p = pfx("0.0.0.0/0");
		assert_true(prefix_size(&p) == 1ull << 32);
	}
}

static void test_ipport(void **state)
{
	static const char *const good[] = {"1.2.3.4:80", "[2001:db8::1]:65535", "0.0.0.0:0"};
	static const struct {
		const char *text;
		const char *msg;
	} bad[] = {
		{"1.2.3.4", "port is missing"},   {"1.2.3.4:", "0 to 65535"},
		{"1.2.3.4:65536", "0 to 65535"},  {"1.2.3.4:080", "0 to 65535"},
		{"1.2.3.4:8x", "0 to 65535"},     {"::1:80", "brackets"},
		{"[::1]", "port is missing"},     {"[::1", "[address]:port"},
		{"[::1]80", "[address]:port"},    {"[1.2.3.4]:80", "IPv6 only"},
		{":80", "host is missing"},       {"host:80", "not an IP"},
		{"1.2.3.4:123456", "0 to 65535"},
	};
	char out[IPPORT_TEXT];
	struct err e = {0};
	struct ipport p;

	(void)state;
	TEST_TABLE(t, good)
	{
		struct sockaddr_storage ss;
		struct ipport back;

		assert_ok(ipport_parse(*t, &p, &e));
		assert_string_equal(ipport_format(&p, out), *t);
		assert_true(ipport_to_sockaddr(&p, &ss) > 0);
		assert_true(ipport_from_sockaddr((struct sockaddr *)&ss, &back));
		assert_true(ipport_equal(&p, &back));
	}
	TEST_TABLE(c, bad)
	{
		assert_err(ipport_parse(c->text, &p, &e), ERR_INVALID);
		assert_contains(e.msg, c->msg);
	}
}

static void test_sockaddr(void **state)
{
	struct sockaddr_storage ss;
	struct sockaddr unix_sa = {.sa_family = AF_UNIX};
	char out[IPPORT_TEXT];
	struct ipport p, none = {0};

	(void)state;
	assert_ok(ipport_parse("[::ffff:10.0.0.1]:99", &p, NULL));
	assert_int_equal(ipport_to_sockaddr(&p, &ss), sizeof(struct sockaddr_in6));
	assert_true(ipport_from_sockaddr((struct sockaddr *)&ss, &p));
	assert_string_equal(ipport_format(&p, out), "10.0.0.1:99");
	assert_int_equal(ipport_to_sockaddr(&none, &ss), 0);
	assert_false(ipport_from_sockaddr(&unix_sa, &p));
}

static void test_hostport(void **state)
{
	static const struct {
		const char *text;
		uint16_t def;
		const char *host;
		uint16_t port;
	} good[] = {
		{"lh1.example.net:8443", 0, "lh1.example.net", 8443},
		{"lh1", 8443, "lh1", 8443},
		{"lh1:1", 8443, "lh1", 1},
		{"127.0.0.1:0", 8443, "127.0.0.1", 0},
		{"[::1]:99", 0, "::1", 99},
		{"[::1]", 99, "::1", 99},
		{"::1", 99, "::1", 99},
	};
	static const struct {
		const char *text;
		uint16_t def;
		const char *msg;
	} bad[] = {
		{"lh1", 0, "port is missing"},
		{"", 80, "host is missing"},
		{":80", 0, "host is missing"},
		{"lh1:99999", 0, "0 to 65535"},
		{"https://lh1:8443", 0, "brackets"},
		{"lh 1:80", 0, "character"},
		{"[lh1]:80", 0, "IPv6 only"},
		{"user@lh1:80", 0, "character"},
		{"::1", 0, "brackets"},
		{"lh1:", 80, "0 to 65535"},
	};
	char host[254];
	struct err e = {0};
	uint16_t port;

	(void)state;
	TEST_TABLE(c, good)
	{
		assert_ok(hostport_parse(c->text, c->def, host, sizeof(host), &port, &e));
		assert_string_equal(host, c->host);
		assert_int_equal(port, c->port);
	}
	TEST_TABLE(c, bad)
	{
		assert_err(hostport_parse(c->text, c->def, host, sizeof(host), &port, &e),
			   ERR_INVALID);
		assert_contains(e.msg, c->msg);
	}
	assert_err(hostport_parse("abcdef:80", 0, host, 6, &port, &e), ERR_INVALID);
	assert_ok(hostport_parse("abcde:80", 0, host, 6, &port, &e));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addr_text),       cmocka_unit_test(test_classes),
		cmocka_unit_test(test_prefix_text),     cmocka_unit_test(test_prefix_relations),
		cmocka_unit_test(test_contains_random), cmocka_unit_test(test_nth),
		cmocka_unit_test(test_ipport),          cmocka_unit_test(test_sockaddr),
		cmocka_unit_test(test_hostport),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
