/* Listeners and dials over real sockets of the loopback. LIBS: net testcerts */
#include "tests/lib/test.h"

#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/dial.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/stream.h"
#include "net/tls.h"
#include "tests/lib/certs.h"

struct accepted {
	struct stream *streams[128];
	size_t n;
};

static void on_accept(void *arg, struct stream *stream)
{
	struct accepted *a = arg;

	assert_true(a->n < ARRAY_LEN(a->streams));
	a->streams[a->n++] = stream;
}

static void accepted_done(struct accepted *a)
{
	for (size_t i = 0; i < a->n; i++) {
		stream_abort(a->streams[i]);
	}
}

static int raw_connect(uint16_t port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	return fd;
}

/* Turns the loop until the other side has closed this socket. */
static void until_closed(struct loop *loop, int fd)
{
	char c;

	for (;;) {
		loop_turn(loop, false);
		ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			return;
		}
	}
}

static struct listener *listen_on(struct loop *loop, const struct listener_opts *opts,
				  struct accepted *a)
{
	struct listener *l;
	struct err err = {0};

	if (listener_new(loop, opts, on_accept, a, &l, &err) != 0) {
		TEST_FAIL("%s", err.msg);
	}
	return l;
}

/* ---- Limits ---------------------------------------------------------------------------------- */

static void test_connections_per_source(void **state)
{
	struct loop *loop = loop_new("l");
	struct accepted a = {.n = 0};
	const struct listener_opts opts = {
		.address = "127.0.0.1:0", .per_address = 5, .handshakes_per_s = 1000};
	struct listener *l = listen_on(loop, &opts, &a);
	int fds[5];

	(void)state;
	for (int i = 0; i < 5; i++) {
		fds[i] = raw_connect(listener_port(l));
	}
	while (a.n < 5) {
		loop_turn(loop, true);
	}
	int sixth = raw_connect(listener_port(l));
	until_closed(loop, sixth);
	assert_int_equal(a.n, 5);
	close(sixth);
	assert_true(metrics_value("skerry_listen_source_full_total", NULL) >= 1);
	/* A place that was given up is free again. */
	stream_abort(a.streams[0]);
	a.streams[0] = a.streams[--a.n];
	loop_turn(loop, false);
	int again = raw_connect(listener_port(l));
	while (a.n < 5) {
		loop_turn(loop, true);
	}
	close(again);
	for (int i = 0; i < 5; i++) {
		close(fds[i]);
	}
	accepted_done(&a);
	listener_free(l);
	loop_free(loop);
}

static void test_rate_per_source(void **state)
{
	struct loop *loop = loop_new("l");
	struct accepted a = {.n = 0};
	const struct listener_opts opts = {
		.address = "127.0.0.1:0", .per_address = 100, .handshakes_per_s = 3};
	struct listener *l = listen_on(loop, &opts, &a);
	int fds[3];

	(void)state;
	for (int i = 0; i < 3; i++) {
		fds[i] = raw_connect(listener_port(l));
	}
	while (a.n < 3) {
		loop_turn(loop, true);
	}
	int fourth = raw_connect(listener_port(l));
	until_closed(loop, fourth);
	assert_int_equal(a.n, 3);
	close(fourth);
	for (int i = 0; i < 3; i++) {
		close(fds[i]);
	}
	accepted_done(&a);
	listener_free(l);
	loop_free(loop);
}

static void test_allow_from(void **state)
{
	struct loop *loop = loop_new("l");
	struct accepted a = {.n = 0};
	struct prefix allowed;
	struct listener_opts opts = {
		.address = "127.0.0.1:0", .allow_from = &allowed, .n_allow_from = 1};

	(void)state;
	assert_ok(prefix_parse("10.0.0.0/8", &allowed, NULL));
	struct listener *l = listen_on(loop, &opts, &a);
	int fd = raw_connect(listener_port(l));
	until_closed(loop, fd);
	assert_int_equal(a.n, 0);
	close(fd);
	listener_free(l);
	assert_ok(prefix_parse("127.0.0.0/8", &allowed, NULL));
	l = listen_on(loop, &opts, &a);
	fd = raw_connect(listener_port(l));
	while (a.n == 0) {
		loop_turn(loop, true);
	}
	close(fd);
	accepted_done(&a);
	listener_free(l);
	loop_free(loop);
}

/* ---- PROXY ----------------------------------------------------------------------------------- */

struct sink {
	struct buf in;
};

static void on_data(void *arg, const uint8_t *data, size_t len)
{
	buf_append(&((struct sink *)arg)->in, data, len);
}

static void on_close(void *arg, const struct err *err)
{
	(void)arg;
	(void)err;
}

static const struct stream_handler sink_handler = {.on_data = on_data, .on_close = on_close};

#define TEXT(text) (text), sizeof(text) - 1

static void test_proxy_header(void **state)
{
	static const uint8_t v2[] =
		"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\x7f\0\0\1\x12\x34\x01\xbbhello";
	static const uint8_t v2_local[] = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0hello";
	const struct {
		const void *data;
		size_t len;
		const char *peer; /* NULL: refused */
	} cases[] = {
		{TEXT("PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\nhello"), "203.0.113.9:4711"},
		{TEXT("PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\nhello"),
		 "[2001:db8::7]:4711"},
		{TEXT("PROXY UNKNOWN\r\nhello"), "127.0.0.1:"},
		{v2, sizeof(v2) - 1, "198.51.100.7:4660"},
		{v2_local, sizeof(v2_local) - 1, "127.0.0.1:"},
		{TEXT("PROXY TCP4 203.0.113.9 192.0.2.1 4711\r\nhello"), NULL},
		{TEXT("PROXY TCP4 2001:db8::7 192.0.2.1 4711 443\r\n"), NULL},
		{TEXT("PROXY TCP4 203.0.113.9 192.0.2.1 99999 443\r\n"), NULL},
		{TEXT("GET / HTTP/1.1\r\n\r\n"), NULL},
		{TEXT("hello"), NULL},
	};
	struct loop *loop = loop_new("l");
	struct prefix proxies;

	(void)state;
	assert_ok(prefix_parse("127.0.0.1", &proxies, NULL));
	const struct listener_opts opts = {
		.address = "127.0.0.1:0", .proxy_from = &proxies, .n_proxy_from = 1};
	TEST_TABLE(c, cases)
	{
		/* Whole, and a byte at a time. */
		for (int split = 0; split < 2; split++) {
			struct accepted a = {.n = 0};
			struct sink sink = {BUF_INIT};
			struct listener *l = listen_on(loop, &opts, &a);
			int fd = raw_connect(listener_port(l));

			for (size_t i = 0; i < c->len; i += split ? 1 : c->len) {
				size_t n = split ? 1 : c->len;

				if (send(fd, (const char *)c->data + i, n, MSG_NOSIGNAL) !=
				    (ssize_t)n) {
					break; /* refused already */
				}
				loop_turn(loop, false);
			}
			if (c->peer == NULL) {
				until_closed(loop, fd);
				assert_int_equal(a.n, 0);
			} else {
				while (a.n == 0) {
					loop_turn(loop, true);
				}
				assert_contains(stream_peer_text(a.streams[0]), c->peer);
				stream_set_handler(a.streams[0], &sink_handler, &sink);
				while (sink.in.len < 5) {
					loop_turn(loop, true);
				}
				assert_memory_equal(sink.in.data, "hello", 5);
			}
			close(fd);
			accepted_done(&a);
			buf_done(&sink.in);
			listener_free(l);
		}
	}
	loop_free(loop);
}

static void test_proxied_source_is_judged(void **state)
{
	struct loop *loop = loop_new("l");
	struct accepted a = {.n = 0};
	struct prefix proxies, allowed;

	(void)state;
	assert_ok(prefix_parse("127.0.0.1", &proxies, NULL));
	assert_ok(prefix_parse("203.0.113.0/24", &allowed, NULL));
	const struct listener_opts opts = {
		.address = "127.0.0.1:0",
		.proxy_from = &proxies,
		.n_proxy_from = 1,
		.allow_from = &allowed,
		.n_allow_from = 1,
	};
	struct listener *l = listen_on(loop, &opts, &a);
	static const char bad[] = "PROXY TCP4 198.51.100.1 192.0.2.1 1 443\r\n";
	static const char good[] = "PROXY TCP4 203.0.113.1 192.0.2.1 1 443\r\n";
	int fd = raw_connect(listener_port(l));
	assert_int_equal(send(fd, bad, sizeof(bad) - 1, 0), sizeof(bad) - 1);
	until_closed(loop, fd);
	close(fd);
	assert_int_equal(a.n, 0);
	fd = raw_connect(listener_port(l));
	assert_int_equal(send(fd, good, sizeof(good) - 1, 0), sizeof(good) - 1);
	while (a.n == 0) {
		loop_turn(loop, true);
	}
	assert_true(stream_peer(a.streams[0])->proxied);
	close(fd);
	accepted_done(&a);
	listener_free(l);
	loop_free(loop);
}

/* ---- Binding --------------------------------------------------------------------------------- */

static void test_bind_errors(void **state)
{
	struct loop *loop = loop_new("l");
	struct accepted a = {.n = 0};
	struct listener_opts opts = {.address = "127.0.0.1:0"};
	struct listener *l = listen_on(loop, &opts, &a), *second;
	struct err err = {0};
	char address[64];

	(void)state;
	snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)listener_port(l));
	opts.address = address;
	assert_err(listener_new(loop, &opts, on_accept, &a, &second, &err), ERR_EXISTS);
	assert_contains(err.msg, address);
	assert_contains(err.msg, "in use");
	opts.address = "203.0.113.77:0";
	assert_err(listener_new(loop, &opts, on_accept, &a, &second, &err), ERR_INVALID);
	assert_contains(err.msg, "no such address");
	opts.address = "localhost:x";
	assert_err(listener_new(loop, &opts, on_accept, &a, &second, &err), ERR_INVALID);
	opts.address = "unix:relative";
	assert_err(listener_new(loop, &opts, on_accept, &a, &second, &err), ERR_INVALID);
	opts.address = "unix:/nonexistent/dir/s";
	assert_err(listener_new(loop, &opts, on_accept, &a, &second, &err), ERR_NOT_FOUND);
	listener_free(l);
	loop_free(loop);
}

/* Without descriptors accepting pauses, and goes on when there are some. */
static void test_out_of_descriptors(void **state)
{
	enum { CLIENTS = 12 };
	struct loop *loop = loop_new("l");
	struct accepted a = {.n = 0};
	const struct listener_opts opts = {.address = "127.0.0.1:0"};
	struct listener *l = listen_on(loop, &opts, &a);
	struct rlimit old, few;
	int fds[CLIENTS], lowest;

	(void)state;
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = raw_connect(listener_port(l)); /* they wait in the backlog */
	}
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	lowest = dup(0);
	close(lowest);
	few = old;
	few.rlim_cur = (rlim_t)lowest + 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (!(metrics_value("skerry_listen_no_descriptors_total", NULL) >= 1)) {
		loop_turn(loop, true);
	}
	assert_true(a.n <= 3);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	/* Those that the spare descriptor did not have to drop are served. */
	while (a.n < CLIENTS - 4) {
		loop_turn(loop, true);
	}
	for (int i = 0; i < CLIENTS; i++) {
		close(fds[i]);
	}
	accepted_done(&a);
	listener_free(l);
	loop_free(loop);
}

static void test_unix_socket(void **state)
{
	struct loop *loop = loop_new("l");
	struct accepted a = {.n = 0};
	char dir[] = "/tmp/listen-XXXXXX", path[64], address[80];
	struct listener_opts opts = {.address = address, .unix_mode = 0600};
	struct listener *l, *second;
	struct stat st;
	struct err err = {0};

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(address, sizeof(address), "unix:%s", path);
	/* A socket file left over from a crash is replaced. */
	int left = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	strcpy(un.sun_path, path);
	assert_int_equal(bind(left, (struct sockaddr *)&un, sizeof(un)), 0);
	close(left);
	l = listen_on(loop, &opts, &a);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* A live one is not. */
	assert_err(listener_new(loop, &opts, on_accept, &a, &second, &err), ERR_EXISTS);
	opts.unix_group = "no-such-group-here";
	listener_free(l);
	assert_int_equal(stat(path, &st), -1);
	assert_err(listener_new(loop, &opts, on_accept, &a, &second, &err), ERR_NOT_FOUND);
	assert_contains(err.msg, "no-such-group-here");
	unlink(path);
	rmdir(dir);
	loop_free(loop);
}

/* ---- Dialling -------------------------------------------------------------------------------- */

struct dialled {
	bool done;
	struct stream *stream;
	size_t which;
	struct err err;
};

static void on_dial(void *arg, struct stream *stream, size_t which, const struct err *err)
{
	struct dialled *d = arg;

	assert_false(d->done);
	d->done = true;
	d->stream = stream;
	d->which = which;
	if (err != NULL) {
		d->err = *err;
	}
}

static void dial_all(struct loop *loop, const char *const *targets, size_t n,
		     const struct dial_opts *opts, struct dialled *d)
{
	memset(d, 0, sizeof(*d));
	dial_race(loop, targets, n, opts, on_dial, d);
	assert_false(d->done);
	while (!d->done) {
		loop_turn(loop, true);
	}
}

/* A port where connections are neither refused nor accepted: the backlog is full. */
static int silent_port(uint16_t *ret_port, int *ret_fill)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	*ret_port = ntohs(sin.sin_port);
	*ret_fill = raw_connect(*ret_port);
	return fd;
}

static void test_race(void **state)
{
	struct loop *loop = loop_new("d");
	struct accepted a = {.n = 0};
	const struct listener_opts listen = {.address = "127.0.0.1:0"};
	struct listener *l = listen_on(loop, &listen, &a);
	char good[64], silent[64], refused[64];
	uint16_t port;
	int fill, holder = silent_port(&port, &fill);
	const struct dial_opts opts = {.stagger_ms = 50, .timeout_ms = 5000};
	struct dialled d;

	(void)state;
	snprintf(good, sizeof(good), "http://127.0.0.1:%u", (unsigned)listener_port(l));
	snprintf(silent, sizeof(silent), "127.0.0.1:%u", (unsigned)port);
	strcpy(refused, "http://127.0.0.1:1");
	/* The first answers: the second is not tried. */
	const char *first[] = {good, silent};
	dial_all(loop, first, 2, &opts, &d);
	assert_non_null(d.stream);
	assert_int_equal(d.which, 0);
	stream_close(d.stream);
	/* A silent one is overtaken after the stagger. */
	const char *second[] = {silent, silent, good};
	uint64_t start = loop_now(loop);
	dial_all(loop, second, 3, &opts, &d);
	assert_non_null(d.stream);
	assert_int_equal(d.which, 2);
	uint64_t took = loop_now(loop) - start;
	assert_true(took >= 95 && took < 5000);
	stream_close(d.stream);
	/* A refused one is left at once. */
	const struct dial_opts patient = {.stagger_ms = 3000};
	const char *third[] = {refused, refused, good};
	start = loop_now(loop);
	dial_all(loop, third, 3, &patient, &d);
	assert_int_equal(d.which, 2);
	assert_true(loop_now(loop) - start < 2900);
	stream_close(d.stream);
	/* All fail: each cause is told. */
	const char *none[] = {refused, "http://[::1]:1", "ftp://x", "https://127.0.0.1:5",
			      "unix:/nonexistent/s"};
	dial_all(loop, none, 5, &opts, &d);
	assert_null(d.stream);
	assert_contains(d.err.msg, "http://127.0.0.1:1");
	assert_contains(d.err.msg, "ftp://x");
	assert_contains(d.err.msg, "/nonexistent/s");
	/* A deadline for all of it. */
	const struct dial_opts hasty = {.timeout_ms = 60};
	const char *slow[] = {silent};
	dial_all(loop, slow, 1, &hasty, &d);
	assert_int_equal(d.err.code, ERR_DEADLINE);
	/* Cancelling leaves nothing behind (the leak check tells). */
	memset(&d, 0, sizeof(d));
	struct dial *dial = dial_race(loop, second, 3, &opts, on_dial, &d);
	loop_turn(loop, false);
	loop_turn(loop, false);
	dial_cancel(dial);
	close(holder);
	close(fill);
	accepted_done(&a);
	listener_free(l);
	loop_free(loop);
	assert_false(d.done);
}

static void test_names_resolve(void **state)
{
	struct loop *loop = loop_new("d");
	struct accepted a = {.n = 0};
	const struct listener_opts listen = {.address = "127.0.0.1:0"};
	struct listener *l = listen_on(loop, &listen, &a);
	char good[64];
	struct dialled d;

	(void)state;
	snprintf(good, sizeof(good), "http://localhost:%u", (unsigned)listener_port(l));
	const char *targets[] = {good};
	dial_all(loop, targets, 1, NULL, &d);
	assert_non_null(d.stream);
	stream_close(d.stream);
	const char *bad[] = {"http://no-such-host.invalid:80"};
	dial_all(loop, bad, 1, NULL, &d);
	assert_int_equal(d.err.code, ERR_RESOLVE);
	assert_contains(d.err.msg, "no-such-host.invalid");
	accepted_done(&a);
	listener_free(l);
	loop_free(loop);
}

static void test_tls_renewal(void **state)
{
	static const char *const alpn[] = {"h2", NULL};
	struct test_ca ca;
	struct test_cert certs[2];
	struct tls_ctx *server[2], *client;
	struct loop *loop = loop_new("d");
	struct accepted a = {.n = 0};
	struct err err = {0};
	struct dialled d;
	char target[64];

	(void)state;
	test_ca_init(&ca, "CA");
	for (int i = 0; i < 2; i++) {
		test_cert_init(&certs[i], &ca, X509_KEY_P256, "localhost",
			       i == 0 ? "skerry://old" : "skerry://new");
		const struct tls_server_opts opts = {
			.cert = {.chain_pem = certs[i].chain, .key_pem = certs[i].key_pem},
			.alpn = alpn,
		};
		assert_ok(tls_server_new(&opts, &server[i], &err));
	}
	const struct tls_client_opts copts = {
		.trust = TLS_TRUST_CA, .ca_pem = ca.pem, .alpn = alpn};
	assert_ok(tls_client_new(&copts, &client, &err));
	struct tls_slot *slot = tls_slot_new(server[0]);
	const struct listener_opts lopts = {.address = "127.0.0.1:0", .tls = slot};
	struct listener *l = listen_on(loop, &lopts, &a);
	snprintf(target, sizeof(target), "https://localhost:%u", (unsigned)listener_port(l));
	const char *targets[] = {target};
	const struct dial_opts opts = {.tls = client};
	for (int i = 0; i < 2; i++) {
		if (i == 1) {
			tls_slot_set(slot, server[1]);
		}
		dial_all(loop, targets, 1, &opts, &d);
		assert_non_null(d.stream);
		assert_true(x509_facts_has_uri(&stream_tls(d.stream)->peer->facts,
					       i == 0 ? "skerry://old" : "skerry://new"));
		stream_close(d.stream);
	}
	accepted_done(&a);
	listener_free(l);
	tls_slot_free(slot);
	tls_unref(client);
	for (int i = 0; i < 2; i++) {
		tls_unref(server[i]);
		test_cert_done(&certs[i]);
	}
	test_ca_done(&ca);
	loop_free(loop);
}

static void test_targets(void **state)
{
	const struct {
		const char *text;
		const char *host; /* NULL: refused */
		uint16_t port;
		bool tls;
	} cases[] = {
		{"https://example.com", "example.com", 443, true},
		{"https://example.com/", "example.com", 443, true},
		{"https://example.com:8443", "example.com", 8443, true},
		{"https://[2001:db8::1]:8443", "2001:db8::1", 8443, true},
		{"http://10.0.0.1", "10.0.0.1", 80, false},
		{"10.0.0.1:99", "10.0.0.1", 99, false},
		{"unix:/run/x", "/run/x", 0, false},
		{"https://example.com/path", NULL, 0, false},
		{"https://user@example.com", NULL, 0, false},
		{"ftp://example.com", NULL, 0, false},
		{"example.com", NULL, 0, false},
		{"https://", NULL, 0, false},
		{"https://a:0", NULL, 0, false},
		{"https://a:70000", NULL, 0, false},
		{"unix:x", NULL, 0, false},
		{"", NULL, 0, false},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		char host[256];
		uint16_t port = 0;
		bool tls = false;
		struct err err = {0};
		int rc = dial_parse(c->text, host, &port, &tls, &err);

		if ((rc == 0) != (c->host != NULL)) {
			TEST_FAIL("%s: %d %s", c->text, rc, err.msg);
		}
		if (rc == 0) {
			assert_string_equal(host, c->host);
			assert_int_equal(port, c->port);
			assert_int_equal(tls, c->tls);
		}
	}
}

int main(void)
{
	crypto_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connections_per_source),
		cmocka_unit_test(test_rate_per_source),
		cmocka_unit_test(test_allow_from),
		cmocka_unit_test(test_proxy_header),
		cmocka_unit_test(test_proxied_source_is_judged),
		cmocka_unit_test(test_bind_errors),
		cmocka_unit_test(test_unix_socket),
		cmocka_unit_test(test_out_of_descriptors),
		cmocka_unit_test(test_race),
		cmocka_unit_test(test_names_resolve),
		cmocka_unit_test(test_tls_renewal),
		cmocka_unit_test(test_targets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
