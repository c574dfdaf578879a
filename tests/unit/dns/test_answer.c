/* MagicDNS answers from a view: LIBS: dns net base */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "dns/answer.h"

static struct ipaddr ip(const char *text)
{
	struct ipaddr a;

	assert_int_equal(ipaddr_parse(text, &a, NULL), 0);
	return a;
}

static struct dns_view *view_new(void)
{
	struct ipaddr laptop[] = {ip("100.64.0.7"), ip("fd7a:115c:a1e0::7")};
	struct ipaddr server[] = {ip("100.64.0.8")};
	struct dns_host hosts[] = {
		{"laptop", laptop, 2}, {"server", server, 1}, {"laptop", server, 1}};
	struct dns_record records[] = {{"db.home.internal", ip("10.1.1.1")}};
	struct ipport split = {.addr = ip("192.0.2.1"), .port = 53};
	struct ipport rest = {.addr = ip("192.0.2.2"), .port = 53};
	struct dns_route routes[] = {
		{"", &rest, 1}, {"corp.example", &split, 1}, {"blocked.example", NULL, 0}};
	struct dns_zone zone = {.base_domain = "home.internal",
				.hosts = hosts,
				.n_hosts = 3,
				.records = records,
				.n_records = 1,
				.routes = routes,
				.n_routes = 3};
	struct dns_view *v = NULL;

	assert_int_equal(dns_view_new(&zone, &v, NULL), 0);
	return v;
}

/* A query in wire form; returns its length. */
static size_t query(uint8_t *out, const char *name, uint16_t type, bool edns)
{
	size_t n = 12;

	memset(out, 0, 12);
	out[0] = 0xab;
	out[1] = 0xcd;
	out[2] = 1; /* RD */
	out[5] = 1;
	while (*name) {
		size_t l = strcspn(name, ".");

		out[n++] = (uint8_t)l;
		memcpy(out + n, name, l);
		n += l;
		name += l + (name[l] == '.');
	}
	out[n++] = 0;
	out[n++] = (uint8_t)(type >> 8);
	out[n++] = (uint8_t)type;
	out[n++] = 0;
	out[n++] = 1;
	if (edns) {
		static const uint8_t opt[11] = {0, 0, 41, 16, 0};

		memcpy(out + n, opt, sizeof(opt));
		n += sizeof(opt);
		out[11] = 1;
	}
	return n;
}

static void test_table(void **state)
{
	static const struct {
		const char *name;
		uint16_t type;
		enum dns_verdict verdict;
		int rcode, answers;
		const char *resolver; /* for DNS_FORWARD */
	} cases[] = {
		{"laptop", DNS_A, DNS_ANSWERED, DNS_NOERROR, 1, NULL},
		{"LapTop.Home.Internal", DNS_A, DNS_ANSWERED, DNS_NOERROR, 1, NULL},
		{"laptop.home.internal", DNS_AAAA, DNS_ANSWERED, DNS_NOERROR, 1, NULL},
		{"laptop.home.internal", DNS_ANY, DNS_ANSWERED, DNS_NOERROR, 2, NULL},
		{"laptop.home.internal", 16, DNS_ANSWERED, DNS_NOERROR, 0, NULL},
		{"laptop.home.internal", DNS_NS, DNS_ANSWERED, DNS_NOTIMP, 0, NULL},
		{"server.home.internal", DNS_AAAA, DNS_ANSWERED, DNS_NOERROR, 0, NULL},
		{"db.home.internal", DNS_A, DNS_ANSWERED, DNS_NOERROR, 1, NULL},
		{"nobody.home.internal", DNS_A, DNS_ANSWERED, DNS_NXDOMAIN, 0, NULL},
		{"home.internal", DNS_A, DNS_ANSWERED, DNS_NOERROR, 0, NULL},
		{"7.0.64.100.in-addr.arpa", DNS_PTR, DNS_ANSWERED, DNS_NOERROR, 1, NULL},
		{"9.0.64.100.in-addr.arpa", DNS_PTR, DNS_ANSWERED, DNS_NXDOMAIN, 0, NULL},
		{"9.0.63.100.in-addr.arpa", DNS_PTR, DNS_FORWARD, 0, 0, "192.0.2.2:53"},
		{"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa",
		 DNS_PTR, DNS_ANSWERED, DNS_NOERROR, 1, NULL},
		{"example.org", DNS_A, DNS_FORWARD, 0, 0, "192.0.2.2:53"},
		{"a.corp.example", DNS_A, DNS_FORWARD, 0, 0, "192.0.2.1:53"},
		{"corp.example", DNS_A, DNS_FORWARD, 0, 0, "192.0.2.1:53"},
		{"xcorp.example", DNS_A, DNS_FORWARD, 0, 0, "192.0.2.2:53"},
		{"x.blocked.example", DNS_A, DNS_ANSWERED, DNS_NXDOMAIN, 0, NULL},
		{"b._dns-sd._udp.example.org", DNS_PTR, DNS_ANSWERED, DNS_NXDOMAIN, 0, NULL},
		{"secret.onion", DNS_A, DNS_ANSWERED, DNS_NXDOMAIN, 0, NULL},
		{"", DNS_NS, DNS_FORWARD, 0, 0, "192.0.2.2:53"},
	};
	struct dns_view *v = view_new();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (int edns = 0; edns < 2; edns++) {
			uint8_t q[300];
			uint8_t out[DNS_MESSAGE_MAX];
			size_t len = query(q, cases[i].name, cases[i].type, edns);
			const struct dns_route *route = NULL;
			struct dns_query parsed;
			char text[IPPORT_TEXT];
			size_t n = 0;

			if (dns_answer(v, q, len, 0, out, &n, &parsed, &route) != cases[i].verdict)
				fail_msg("%s type %u: wrong verdict", cases[i].name, cases[i].type);
			if (cases[i].verdict == DNS_FORWARD) {
				assert_string_equal(ipport_format(&route->resolvers[0], text),
						    cases[i].resolver);
				continue;
			}
			if ((out[3] & 15) != cases[i].rcode || out[7] != cases[i].answers)
				fail_msg("%s type %u: rcode %d, %d answers", cases[i].name,
					 cases[i].type, out[3] & 15, out[7]);
			assert_int_equal(out[0], 0xab);
			assert_true(out[2] & 0x84); /* QR, AA */
			assert_true(out[2] & 1);
			assert_int_equal(out[11], edns);
			assert_true(wire_same_question(q, len, out, n));
			if (cases[i].answers == 0 && cases[i].rcode != DNS_NOTIMP)
				assert_int_equal(out[9], 1); /* SOA */
		}
	}
	dns_view_unref(v);
}

static void test_address_bytes(void **state)
{
	struct dns_view *v = view_new();
	uint8_t q[300];
	uint8_t out[DNS_MESSAGE_MAX];
	size_t len = query(q, "laptop", DNS_A, false);
	const struct dns_route *route;
	struct dns_query parsed;
	static const uint8_t record[] = {0xc0, 12,      0, 1, 0,   1,  0, 0,
					 0,    DNS_TTL, 0, 4, 100, 64, 0, 7};
	size_t n;

	(void)state;
	assert_int_equal(dns_answer(v, q, len, 0, out, &n, &parsed, &route), DNS_ANSWERED);
	assert_int_equal(n, len + sizeof(record));
	assert_memory_equal(out + len, record, sizeof(record));
	dns_view_unref(v);
}

/* Every cut of a good query, and what is not a query, is refused without harm. */
static void test_malformed(void **state)
{
	struct dns_view *v = view_new();
	uint8_t q[300];
	uint8_t out[DNS_MESSAGE_MAX];
	size_t len = query(q, "laptop.home.internal", DNS_A, true);
	const struct dns_route *route;
	struct dns_query parsed;
	size_t n;

	(void)state;
	for (size_t cut = 0; cut < len; cut++) {
		uint8_t *exact = mem_memdup(q, cut); /* so that ASan sees a read past the end */
		enum dns_verdict verdict = dns_answer(v, exact, cut, 0, out, &n, &parsed, &route);

		if (cut < DNS_HEADER) {
			assert_int_equal(verdict, DNS_DROP);
		} else {
			assert_int_equal(verdict, DNS_ANSWERED);
			assert_int_equal(out[3] & 15, DNS_FORMERR);
			assert_int_equal(n, DNS_HEADER);
		}
		mem_free(exact);
	}
	q[2] |= 0x80; /* a response: never answered, or two servers could talk for ever */
	assert_int_equal(dns_answer(v, q, len, 0, out, &n, &parsed, &route), DNS_DROP);
	q[2] = 0x28; /* opcode UPDATE */
	assert_int_equal(dns_answer(v, q, len, 0, out, &n, &parsed, &route), DNS_ANSWERED);
	assert_int_equal(out[3] & 15, DNS_NOTIMP);
	dns_view_unref(v);
}

static void test_truncation(void **state)
{
	struct ipaddr many[64];
	struct dns_host host = {"many", many, ARRAY_LEN(many)};
	struct dns_zone zone = {.base_domain = "home.internal", .hosts = &host, .n_hosts = 1};
	uint8_t q[300];
	uint8_t out[DNS_MESSAGE_MAX];
	size_t len = query(q, "many", DNS_A, false);
	const struct dns_route *route;
	struct dns_query parsed;
	struct dns_view *v;
	size_t n;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(many); i++) {
		many[i] = ip("100.64.1.0");
		many[i].b[3] = (uint8_t)i;
	}
	assert_int_equal(dns_view_new(&zone, &v, NULL), 0);
	assert_int_equal(dns_answer(v, q, len, 0, out, &n, &parsed, &route), DNS_ANSWERED);
	assert_true(n <= DNS_UDP_PLAIN);
	assert_true(out[2] & 2); /* TC */
	assert_int_equal(dns_answer(v, q, len, DNS_MESSAGE_MAX, out, &n, &parsed, &route),
			 DNS_ANSWERED);
	assert_false(out[2] & 2);
	assert_int_equal(out[7], ARRAY_LEN(many));
	n = wire_truncate(out, n, 100);
	assert_true(n <= 100);
	assert_true(out[2] & 2);
	assert_int_equal(out[7], 0);
	dns_view_unref(v);
}

static void test_view_refuses(void **state)
{
	struct dns_host bad = {"not a label", NULL, 0};
	struct dns_zone zone = {.base_domain = "home.internal", .hosts = &bad, .n_hosts = 1};
	struct dns_view *v = NULL;
	struct err err = {0};

	(void)state;
	assert_int_equal(dns_view_new(&zone, &v, &err), ERR_INVALID);
	assert_null(v);
	assert_true(err.msg[0] != '\0');
	zone.n_hosts = 0;
	zone.base_domain = "a..b";
	assert_int_equal(dns_view_new(&zone, &v, &err), ERR_INVALID);
}

static void test_reverse_names(void **state)
{
	static const char *const bad[] = {
		"1.2.3.in-addr.arpa",   "256.1.1.1.in-addr.arpa", "01.1.1.1.in-addr.arpa",
		"a.1.1.1.in-addr.arpa", "1.1.1.1.1.in-addr.arpa", "in-addr.arpa",
		"0.ip6.arpa",           "1..1.1.in-addr.arpa",    ""};
	struct ipaddr a;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (wire_reverse(bad[i], &a))
			fail_msg("%s was taken", bad[i]);
	}
	assert_true(wire_reverse("4.3.2.1.in-addr.arpa", &a));
	assert_true(ipaddr_equal(&a, &(struct ipaddr){.family = 4, .b = {1, 2, 3, 4}}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),        cmocka_unit_test(test_address_bytes),
		cmocka_unit_test(test_malformed),    cmocka_unit_test(test_truncation),
		cmocka_unit_test(test_view_refuses), cmocka_unit_test(test_reverse_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
