/* The MagicDNS server on loopback, with resolvers that answer, fail, truncate or stay silent. LIBS: dns net base */
#include "tests/lib/test.h"

#include <string.h>

#include "base/mem.h"
#include "dns/server.h"
#include "dns/view.h"
#include "dns/wire.h"
#include "net/dial.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/stream.h"
#include "net/udp.h"

enum { ANSWER_A, ANSWER_SERVFAIL, ANSWER_TRUNCATED, ANSWER_WRONG_ID, ANSWER_NOTHING };

static struct loop *loop;

/* A resolver: UDP as its mode says; TCP always answers whole. */
struct resolver {
	struct udp *udp;
	struct listener *listener;
	struct stream *stream;
	struct ipport addr;
	int mode;
	unsigned asked, asked_tcp;
	struct buf in;
};

static size_t make_answer(const uint8_t *q, size_t len, int mode, uint8_t *out)
{
	static const uint8_t record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 7};

	memcpy(out, q, len);
	out[2] |= 0x80;
	out[3] = mode == ANSWER_SERVFAIL ? 0x82 : 0x80;
	if (mode == ANSWER_TRUNCATED)
		out[2] |= 2;
	if (mode == ANSWER_WRONG_ID)
		out[0] ^= 1;
	if (mode == ANSWER_SERVFAIL || mode == ANSWER_TRUNCATED)
		return len;
	out[7] = 1;
	memcpy(out + len, record, sizeof(record));
	return len + sizeof(record);
}

static void resolver_udp(void *arg, const struct ipport *from, const uint8_t *data, size_t len)
{
	struct resolver *r = arg;
	uint8_t out[600];

	r->asked++;
	if (r->mode != ANSWER_NOTHING && len < 512)
		IGNORE(udp_send(r->udp, from, out, make_answer(data, len, r->mode, out)));
}

static void resolver_data(void *arg, const uint8_t *data, size_t len)
{
	struct resolver *r = arg;
	uint8_t out[600];
	size_t n;

	buf_append(&r->in, data, len);
	if (r->in.len < 2 || r->in.len < 2u + r->in.data[1])
		return;
	r->asked_tcp++;
	n = make_answer(r->in.data + 2, r->in.len - 2, ANSWER_A, out + 2);
	out[0] = 0;
	out[1] = (uint8_t)n;
	assert_int_equal(stream_write(r->stream, out, n + 2), 0);
}

static void resolver_closed(void *arg, const struct err *err)
{
	struct resolver *r = arg;

	(void)err;
	r->stream = NULL;
}

static void resolver_accept(void *arg, struct stream *stream)
{
	static const struct stream_handler handler = {.on_data = resolver_data,
						      .on_close = resolver_closed};
	struct resolver *r = arg;

	r->stream = stream;
	stream_set_handler(stream, &handler, r);
}

static void resolver_open(struct resolver *r, int mode)
{
	struct ipport any = {.addr = {.family = 4, .b = {127, 0, 0, 1}}};
	struct listener_opts o = {.exempt_limits = true};
	char text[IPPORT_TEXT];
	int rv = -1;

	memset(r, 0, sizeof(*r));
	r->mode = mode;
	/* The number that is free for UDP may be taken for TCP by whatever runs beside this. */
	for (int i = 0; i < 50 && rv < 0; i++) {
		udp_close(r->udp);
		assert_int_equal(udp_open(loop, &any, resolver_udp, r, &r->udp, NULL), 0);
		udp_local(r->udp, &r->addr);
		o.address = ipport_format(&r->addr, text);
		rv = listener_new(loop, &o, resolver_accept, r, &r->listener, NULL);
	}
	assert_int_equal(rv, 0);
}

static void resolver_close(struct resolver *r)
{
	udp_close(r->udp);
	stream_abort(r->stream);
	listener_free(r->listener);
	buf_done(&r->in);
}

static struct dns_server *server_open(const struct ipport *resolvers, size_t n,
				      struct ipport *ret_addr)
{
	struct ipport local = {.addr = {.family = 4, .b = {127, 0, 0, 1}}};
	struct ipaddr host = {.family = 4, .b = {100, 64, 0, 7}};
	struct dns_host hosts = {"laptop", &host, 1};
	struct dns_route route = {"", resolvers, n};
	struct dns_zone zone = {.base_domain = "home.internal",
				.hosts = &hosts,
				.n_hosts = 1,
				.routes = &route,
				.n_routes = 1};
	struct dns_server_opts o = {.listen = &local, .n_listen = 1};
	struct dns_server *s;
	struct dns_view *v;
	int rv;

	assert_int_equal(dns_view_new(&zone, &v, NULL), 0);
	rv = -1;
	for (int i = 0; i < 50 && rv < 0; i++)
		rv = dns_server_new(loop, &o, v, &s, NULL);
	assert_int_equal(rv, 0);
	dns_view_unref(v);
	dns_server_local(s, 0, ret_addr);
	return s;
}

/* ---- a client ---- */

struct client {
	struct udp *udp;
	struct stream *stream;
	uint8_t answer[1024];
	size_t len;
	bool done;
};

static void client_udp(void *arg, const struct ipport *from, const uint8_t *data, size_t len)
{
	struct client *c = arg;

	(void)from;
	assert_true(len <= sizeof(c->answer));
	memcpy(c->answer, data, len);
	c->len = len;
	c->done = true;
}

static void client_data(void *arg, const uint8_t *data, size_t len)
{
	struct client *c = arg;

	assert_true(c->len + len <= sizeof(c->answer));
	memcpy(c->answer + c->len, data, len);
	c->len += len;
	if (c->len >= 2 && c->len >= 2u + (c->answer[0] << 8 | c->answer[1])) {
		c->len -= 2;
		memmove(c->answer, c->answer + 2, c->len);
		c->done = true;
	}
}

static void client_closed(void *arg, const struct err *err)
{
	struct client *c = arg;

	(void)err;
	c->stream = NULL;
	c->done = true;
}

static void client_dialled(void *arg, struct stream *stream, size_t which, const struct err *err)
{
	static const struct stream_handler handler = {.on_data = client_data,
						      .on_close = client_closed};
	struct client *c = arg;

	(void)which;
	if (!stream)
		fail_msg("dial: %s", err->msg);
	c->stream = stream;
	stream_set_handler(stream, &handler, c);
}

static void expired(void *arg)
{
	(void)arg;
	fail_msg("no answer in 20 s");
}

static void run_until(const bool *flag)
{
	struct loop_timer t = {0};

	loop_timer_start(&t, loop, 20000, expired, NULL);
	while (!*flag)
		loop_turn(loop, true);
	loop_timer_stop(&t);
}

static size_t query(const char *name, uint8_t *out)
{
	static const uint8_t head[12] = {0x12, 0x34, 1, 0, 0, 1};
	size_t n = 12;

	memcpy(out, head, 12);
	while (*name) {
		size_t l = strcspn(name, ".");

		out[n++] = (uint8_t)l;
		memcpy(out + n, name, l);
		n += l;
		name += l + (name[l] == '.');
	}
	memcpy(out + n, "\0\0\1\0\1", 5);
	return n + 5;
}

static void ask_udp(struct client *c, const struct ipport *server, const char *name)
{
	struct ipport any = {.addr = {.family = 4, .b = {127, 0, 0, 1}}};
	uint8_t q[300];
	size_t n = query(name, q);

	memset(c, 0, sizeof(*c));
	assert_int_equal(udp_open(loop, &any, client_udp, c, &c->udp, NULL), 0);
	assert_int_equal(udp_send(c->udp, server, q, n), 0);
	run_until(&c->done);
	udp_close(c->udp);
	assert_int_equal(c->answer[0], 0x12);
	assert_int_equal(c->answer[1], 0x34);
}

static void ask_tcp(struct client *c, const struct ipport *server, const char *name)
{
	struct dial_opts o = {0};
	char text[IPPORT_TEXT];
	uint8_t q[302];
	size_t n = query(name, q + 2);

	memset(c, 0, sizeof(*c));
	q[0] = 0;
	q[1] = (uint8_t)n;
	dial_start(loop, ipport_format(server, text), &o, client_dialled, c);
	while (!c->stream)
		loop_turn(loop, true);
	/* In two pieces: the length prefix is no message boundary of TCP. */
	assert_int_equal(stream_write(c->stream, q, 1), 0);
	assert_int_equal(stream_write(c->stream, q + 1, n + 1), 0);
	run_until(&c->done);
	assert_true(c->len > 0);
	stream_abort(c->stream);
}

static void test_local(void **state)
{
	struct ipport addr;
	struct dns_server *s = server_open(NULL, 0, &addr);
	struct client c;

	(void)state;
	ask_udp(&c, &addr, "laptop.home.internal");
	assert_int_equal(c.answer[3] & 15, DNS_NOERROR);
	assert_int_equal(c.answer[7], 1);
	ask_tcp(&c, &addr, "laptop");
	assert_int_equal(c.answer[7], 1);
	assert_memory_equal(c.answer + c.len - 4, "\x64\x40\0\7", 4);
	dns_server_free(s);
}

/* One good resolver beside a failing and a lying one: the client gets the good answer, with its own id. */
static void test_forward_best(void **state)
{
	struct resolver r[3];
	struct ipport addrs[3];
	struct ipport addr;
	struct dns_server *s;
	struct client c;

	(void)state;
	resolver_open(&r[0], ANSWER_SERVFAIL);
	resolver_open(&r[1], ANSWER_WRONG_ID);
	resolver_open(&r[2], ANSWER_A);
	for (int i = 0; i < 3; i++)
		addrs[i] = r[i].addr;
	s = server_open(addrs, 3, &addr);
	ask_udp(&c, &addr, "example.org");
	assert_int_equal(c.answer[3] & 15, DNS_NOERROR);
	assert_memory_equal(c.answer + c.len - 4, "\xcb\0\x71\7", 4);
	dns_server_free(s);
	for (int i = 0; i < 3; i++)
		resolver_close(&r[i]);
}

static void test_forward_servfail(void **state)
{
	struct resolver r;
	struct ipport addr;
	struct dns_server *s;
	struct client c;

	(void)state;
	resolver_open(&r, ANSWER_SERVFAIL);
	s = server_open(&r.addr, 1, &addr);
	ask_udp(&c, &addr, "example.org");
	assert_int_equal(c.answer[3] & 15, DNS_SERVFAIL);
	dns_server_free(s);
	resolver_close(&r);
}

/* A TCP client has no use for a truncated answer: the resolver is asked by TCP. */
static void test_truncated(void **state)
{
	struct resolver r;
	struct ipport addr;
	struct dns_server *s;
	struct client c;

	(void)state;
	resolver_open(&r, ANSWER_TRUNCATED);
	s = server_open(&r.addr, 1, &addr);
	ask_udp(&c, &addr, "example.org");
	assert_true(c.answer[2] & 2);
	assert_int_equal(r.asked_tcp, 0);
	ask_tcp(&c, &addr, "example.org");
	assert_false(c.answer[2] & 2);
	assert_int_equal(c.answer[7], 1);
	assert_int_equal(r.asked_tcp, 1);
	dns_server_free(s);
	resolver_close(&r);
}

/* UDP is dropped on the way: after two seconds TCP brings the answer. */
static void test_udp_lost(void **state)
{
	struct resolver r;
	struct ipport addr;
	struct dns_server *s;
	struct client c;

	(void)state;
	resolver_open(&r, ANSWER_NOTHING);
	s = server_open(&r.addr, 1, &addr);
	ask_udp(&c, &addr, "example.org");
	assert_int_equal(c.answer[7], 1);
	assert_int_equal(r.asked, 1);
	assert_int_equal(r.asked_tcp, 1);
	dns_server_free(s);
	resolver_close(&r);
}

static int setup(void **state)
{
	(void)state;
	loop = loop_new("test");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_local),
		cmocka_unit_test(test_forward_best),
		cmocka_unit_test(test_forward_servfail),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_udp_lost),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
