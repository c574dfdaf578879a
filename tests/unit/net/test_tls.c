/* TLS over in-memory streams: trust modes, client certificates, names, ALPN, exporter. */
/* LIBS: net testcerts */
#include "tests/lib/test.h"

#include <sys/socket.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "net/loop.h"
#include "net/stream.h"
#include "net/tls.h"
#include "tests/lib/certs.h"

#define URI      "skerry://77/lighthouse/3"
#define PIN_NAME "77.skerry.invalid"

static const char *const h2[] = {"h2", NULL};
static const char *const raft[] = {"skerry-raft/1", NULL};

struct pki {
	struct test_ca ca, other;
	struct test_cert server, member, stranger;
};

static struct pki pki;

static int setup(void **state)
{
	(void)state;
	test_ca_init(&pki.ca, "cluster CA");
	test_ca_init(&pki.other, "another CA");
	test_cert_init(&pki.server, &pki.ca, X509_KEY_P256, PIN_NAME, NULL);
	test_cert_init(&pki.member, &pki.ca, X509_KEY_ED25519, NULL, URI);
	test_cert_init(&pki.stranger, &pki.other, X509_KEY_ED25519, NULL, URI);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_cert_done(&pki.server);
	test_cert_done(&pki.member);
	test_cert_done(&pki.stranger);
	test_ca_done(&pki.ca);
	test_ca_done(&pki.other);
	return 0;
}

/* ---- One handshake --------------------------------------------------------------------------- */

struct side {
	struct stream *stream;
	struct err err;
	bool done;
	struct buf in;
	bool closed;
};

static void on_handshake(void *arg, struct stream *stream, const struct err *err)
{
	struct side *s = arg;

	assert_false(s->done);
	s->done = true;
	s->stream = stream;
	if (err != NULL) {
		s->err = *err;
	}
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
	buf_append(&((struct side *)arg)->in, data, len);
}

static void on_close(void *arg, const struct err *err)
{
	struct side *s = arg;

	s->closed = true;
	s->err = *err;
	s->stream = NULL;
}

static const struct stream_handler handler = {.on_data = on_data, .on_close = on_close};

struct pair {
	struct loop *loop;
	struct side server, client;
};

static void handshake_over(struct pair *p, struct stream *a, struct stream *b,
			   struct tls_ctx *server, struct tls_ctx *client, const char *name)
{
	tls_accept(a, server, 5000, on_handshake, &p->server);
	tls_connect(b, client, name, 5000, on_handshake, &p->client);
	assert_false(p->client.done); /* never inside the call */
	while (!p->server.done || !p->client.done) {
		loop_turn(p->loop, true);
	}
}

static void handshake(struct pair *p, struct tls_ctx *server, struct tls_ctx *client,
		      const char *name)
{
	struct stream *a, *b;

	memset(p, 0, sizeof(*p));
	p->loop = loop_new("tls");
	stream_pair_new(p->loop, &a, &b);
	handshake_over(p, a, b, server, client, name);
}

static void pair_done(struct pair *p)
{
	stream_close(p->server.stream);
	stream_close(p->client.stream);
	buf_done(&p->server.in);
	buf_done(&p->client.in);
	loop_free(p->loop);
}

static struct tls_ctx *server_ctx(const struct tls_server_opts *opts)
{
	struct tls_ctx *ctx;
	struct err err = {0};

	assert_ok(tls_server_new(opts, &ctx, &err));
	return ctx;
}

static struct tls_ctx *client_ctx(const struct tls_client_opts *opts)
{
	struct tls_ctx *ctx;
	struct err err = {0};

	assert_ok(tls_client_new(opts, &ctx, &err));
	return ctx;
}

static struct tls_server_opts plain_server(void)
{
	return (struct tls_server_opts){
		.cert = {.chain_pem = pki.server.chain,
			 .key_pem = pki.server.key_pem,
			 .tag = "cluster"},
		.alpn = h2,
	};
}

/* ---- Trust ----------------------------------------------------------------------------------- */

static void test_trust_modes(void **state)
{
	static const uint8_t wrong[32] = {1};
	const struct {
		const char *what;
		enum tls_trust trust;
		const char *ca;
		const uint8_t *pin;
		const char *name;
		bool ok;
		const char *text;
	} cases[] = {
		{"CA and name", TLS_TRUST_CA, pki.ca.pem, NULL, PIN_NAME, true, NULL},
		{"CA, address in the certificate", TLS_TRUST_CA, pki.ca.pem, NULL, "127.0.0.1",
		 true, NULL},
		{"CA, another address", TLS_TRUST_CA, pki.ca.pem, NULL, "127.0.0.2", false,
		 "not for the name 127.0.0.2"},
		{"CA, wrong name", TLS_TRUST_CA, pki.ca.pem, NULL, "example.com", false,
		 "not for the name example.com"},
		{"another CA", TLS_TRUST_CA, pki.other.pem, NULL, PIN_NAME, false, "certificate"},
		{"system roots", TLS_TRUST_SYSTEM, NULL, NULL, PIN_NAME, false, "certificate"},
		{"pin", TLS_TRUST_PIN, NULL, pki.ca.pin, PIN_NAME, true, NULL},
		{"wrong pin", TLS_TRUST_PIN, NULL, wrong, PIN_NAME, false, "not of the cluster"},
		{"pin of another CA", TLS_TRUST_PIN, NULL, pki.other.pin, PIN_NAME, false,
		 "not of the cluster"},
		{"pin, wrong name", TLS_TRUST_PIN, NULL, pki.ca.pin, "78.skerry.invalid", false,
		 "not for the name"},
		{"callback alone, none given", TLS_TRUST_CALLBACK, pki.ca.pem, NULL, "whatever",
		 true, NULL},
	};

	(void)state;
	struct tls_server_opts server = plain_server();
	struct tls_ctx *s = server_ctx(&server);
	TEST_TABLE(c, cases)
	{
		struct tls_client_opts opts = {.trust = c->trust, .ca_pem = c->ca, .alpn = h2};
		struct pair p;

		if (c->pin != NULL) {
			memcpy(opts.pin, c->pin, 32);
		}
		struct tls_ctx *client = client_ctx(&opts);
		handshake(&p, s, client, c->name);
		if ((p.client.stream != NULL) != c->ok) {
			TEST_FAIL("%s: %s", c->what, p.client.err.msg);
		}
		if (!c->ok) {
			assert_contains(p.client.err.msg, c->text);
		}
		if (c->trust == TLS_TRUST_PIN && c->pin != pki.ca.pin) {
			assert_string_equal(p.client.err.reason, "PIN_MISMATCH");
		}
		pair_done(&p);
		tls_unref(client);
	}
	tls_unref(s);
}

/* A pin must be that of a CA: a leaf whose own key is pinned is not accepted as its own anchor. */
static void test_pin_is_not_the_leaf(void **state)
{
	struct tls_server_opts server = plain_server();
	struct tls_client_opts opts = {.trust = TLS_TRUST_PIN, .alpn = h2};
	struct pair p;

	(void)state;
	x509_key_spki_sha256(pki.server.key, opts.pin);
	struct tls_ctx *s = server_ctx(&server), *c = client_ctx(&opts);
	handshake(&p, s, c, PIN_NAME);
	assert_null(p.client.stream);
	pair_done(&p);
	tls_unref(s);
	tls_unref(c);
}

/* ---- Client certificates --------------------------------------------------------------------- */

struct member {
	uint8_t pub[32];
	int seen;
};

static int verify_member(void *arg, const struct tls_peer *peer, struct err *err)
{
	struct member *m = arg;

	m->seen++;
	if (!peer->trusted) {
		return err_reason(err, ERR_UNAUTHENTICATED, "NOT_OF_CLUSTER",
				  "not of this cluster");
	}
	if (!x509_facts_has_uri(&peer->facts, URI)) {
		return err_set(err, ERR_UNAUTHENTICATED, "no URI name of a lighthouse");
	}
	if (peer->facts.pub_len != 32 || memcmp(peer->facts.pub, m->pub, 32) != 0) {
		return err_set(err, ERR_UNAUTHENTICATED, "not the registered key");
	}
	return 0;
}

static void test_client_certificates(void **state)
{
	struct member m = {.seen = 0};
	struct tls_server_opts server = plain_server();
	struct test_cert *const certs[] = {&pki.member, &pki.stranger, &pki.server, NULL};
	const char *const texts[] = {NULL, "not of this cluster", "no URI name", ""};

	(void)state;
	assert_int_equal(x509_key_pub(pki.member.key, m.pub), 32);
	server.alpn = raft;
	server.tls13_only = true;
	server.client_auth = TLS_CLIENT_AUTH_REQUIRED;
	server.client_ca_pem = pki.ca.pem;
	server.verify = verify_member;
	server.verify_arg = &m;
	struct tls_ctx *s = server_ctx(&server);
	for (size_t i = 0; i < ARRAY_LEN(certs); i++) {
		struct tls_client_opts opts = {.trust = TLS_TRUST_PIN, .alpn = raft};
		struct pair p;

		memcpy(opts.pin, pki.ca.pin, 32);
		if (certs[i] != NULL) {
			opts.cert.chain_pem = certs[i]->chain;
			opts.cert.key_pem = certs[i]->key_pem;
		}
		struct tls_ctx *c = client_ctx(&opts);
		handshake(&p, s, c, PIN_NAME);
		assert_int_equal(p.server.stream != NULL, i == 0);
		if (i == 0) {
			const struct stream_tls *tls = stream_tls(p.server.stream);

			assert_string_equal(tls->alpn, "skerry-raft/1");
			assert_true(x509_facts_has_uri(&tls->peer->facts, URI));
			assert_string_equal(tls->version, "TLSv1.3");
		} else {
			assert_contains(p.server.err.msg, texts[i]);
		}
		if (i == 1) {
			assert_string_equal(p.server.err.reason, "NOT_OF_CLUSTER");
		}
		/* In TLS 1.3 the client learns of its refusal only after its own handshake. */
		if (i != 0 && p.client.stream != NULL) {
			stream_set_handler(p.client.stream, &handler, &p.client);
			while (!p.client.closed) {
				loop_turn(p.loop, true);
			}
			assert_int_equal(p.client.err.code, ERR_TLS);
		}
		pair_done(&p);
		tls_unref(c);
	}
	assert_int_equal(m.seen, 3);
	/* The registered key changed: the same certificate is refused. */
	m.pub[0] ^= 1;
	struct tls_client_opts opts = {
		.trust = TLS_TRUST_PIN,
		.alpn = raft,
		.cert = {.chain_pem = pki.member.chain, .key_pem = pki.member.key_pem},
	};
	struct pair p;
	memcpy(opts.pin, pki.ca.pin, 32);
	struct tls_ctx *c = client_ctx(&opts);
	handshake(&p, s, c, PIN_NAME);
	assert_null(p.server.stream);
	assert_contains(p.server.err.msg, "not the registered key");
	pair_done(&p);
	tls_unref(c);
	tls_unref(s);
}

/* ---- Names and ALPN -------------------------------------------------------------------------- */

static struct tls_ctx *sni_choice(void *arg, const char *name)
{
	return strcmp(name, "other.example") == 0 ? arg : NULL;
}

static void test_certificate_by_name(void **state)
{
	struct test_cert public;
	struct tls_server_opts server = plain_server();
	struct pair p;

	(void)state;
	test_cert_init(&public, &pki.other, X509_KEY_P256, "other.example", NULL);
	struct tls_server_opts other = {
		.cert = {.chain_pem = public.chain, .key_pem = public.key_pem, .tag = "public"},
		.alpn = h2,
	};
	struct tls_ctx *o = server_ctx(&other);
	server.sni = sni_choice;
	server.sni_arg = o;
	struct tls_ctx *s = server_ctx(&server);
	const struct {
		const char *name;
		const char *ca;
		const char *tag;
	} cases[] = {{"other.example", pki.other.pem, "public"}, {PIN_NAME, pki.ca.pem, "cluster"}};
	TEST_TABLE(k, cases)
	{
		struct tls_client_opts opts = {.trust = TLS_TRUST_CA, .ca_pem = k->ca, .alpn = h2};
		struct tls_ctx *c = client_ctx(&opts);

		handshake(&p, s, c, k->name);
		assert_non_null(p.client.stream);
		assert_string_equal(stream_tls(p.server.stream)->server_tag, k->tag);
		assert_string_equal(stream_tls(p.server.stream)->sni, k->name);
		assert_string_equal(stream_tls(p.server.stream)->alpn, "h2");
		pair_done(&p);
		tls_unref(c);
	}
	tls_unref(s);
	tls_unref(o);
	test_cert_done(&public);
}

static void test_alpn(void **state)
{
	struct tls_server_opts server = plain_server();
	struct pair p;

	(void)state;
	for (int optional = 0; optional < 2; optional++) {
		server.alpn_optional = optional == 1;
		struct tls_ctx *s = server_ctx(&server);
		/* A protocol that is not spoken: a fatal alert, always. */
		struct tls_client_opts opts = {
			.trust = TLS_TRUST_CA, .ca_pem = pki.ca.pem, .alpn = raft};
		struct tls_ctx *c = client_ctx(&opts);
		handshake(&p, s, c, PIN_NAME);
		assert_null(p.server.stream);
		assert_null(p.client.stream);
		assert_contains(p.client.err.msg, "no application protocol");
		pair_done(&p);
		tls_unref(c);
		/* None offered: served only where ALPN is optional. */
		opts.alpn = NULL;
		c = client_ctx(&opts);
		handshake(&p, s, c, PIN_NAME);
		assert_int_equal(p.server.stream != NULL, optional == 1);
		if (optional == 0) {
			assert_contains(p.client.err.msg, "no application protocol");
		}
		pair_done(&p);
		tls_unref(c);
		tls_unref(s);
	}
}

/* ---- Exporter and data ----------------------------------------------------------------------- */

static void test_exporter_and_data(void **state)
{
	struct tls_server_opts server = plain_server();
	struct tls_client_opts opts = {.trust = TLS_TRUST_CA, .ca_pem = pki.ca.pem, .alpn = h2};
	struct pair p;
	uint8_t a[32], b[32], c[32];

	(void)state;
	struct tls_ctx *s = server_ctx(&server), *cl = client_ctx(&opts);
	handshake(&p, s, cl, PIN_NAME);
	assert_ok(stream_export(p.client.stream, "EXPORTER-skerry-device-v1", "key", 3, a, 32));
	assert_ok(stream_export(p.server.stream, "EXPORTER-skerry-device-v1", "key", 3, b, 32));
	assert_memory_equal(a, b, 32);
	assert_ok(stream_export(p.server.stream, "EXPORTER-skerry-device-v1", "kez", 3, c, 32));
	assert_memory_not_equal(a, c, 32);
	assert_ok(stream_export(p.server.stream, "EXPORTER-other", "key", 3, c, 32));
	assert_memory_not_equal(a, c, 32);

	/* A large transfer with the reader pausing, then an orderly end. */
	size_t size = 1000000;
	uint8_t *big = mem_alloc(size);
	for (size_t i = 0; i < size; i++) {
		big[i] = (uint8_t)(i * 31 >> 3);
	}
	stream_set_handler(p.server.stream, &handler, &p.server);
	stream_set_handler(p.client.stream, &handler, &p.client);
	assert_ok(stream_write(p.client.stream, big, size));
	stream_pause_read(p.server.stream);
	for (int i = 0; i < 10; i++) {
		loop_turn(p.loop, false);
	}
	assert_int_equal(p.server.in.len, 0);
	stream_resume_read(p.server.stream);
	stream_close(p.client.stream);
	p.client.stream = NULL;
	while (!p.server.closed) {
		loop_turn(p.loop, true);
	}
	assert_int_equal(p.server.err.code, ERR_CLOSED);
	assert_int_equal(p.server.in.len, size);
	assert_memory_equal(p.server.in.data, big, size);
	mem_free(big);
	pair_done(&p);
	tls_unref(s);
	tls_unref(cl);
}

static void two_loops(struct loop *a, struct loop *b, struct side *s, size_t len)
{
	while (s->in.len < len && !s->closed) {
		loop_turn(a, false);
		loop_turn(b, false);
	}
	assert_int_equal(s->in.len, len);
}

/* A connection goes on in another loop; what had come in and what was not yet sent goes with it. */
static void test_another_loop(void **state)
{
	struct tls_server_opts server = plain_server();
	struct tls_client_opts opts = {.trust = TLS_TRUST_CA, .ca_pem = pki.ca.pem, .alpn = h2};
	struct loop *other = loop_new("other");
	struct stream_parcel *parcel;
	struct stream *a, *b;
	struct pair p = {0};
	int fd[2];

	(void)state;
	struct tls_ctx *s = server_ctx(&server), *cl = client_ctx(&opts);
	p.loop = loop_new("tls");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
	assert_ok(stream_from_fd(p.loop, fd[0], &a, NULL));
	assert_ok(stream_from_fd(p.loop, fd[1], &b, NULL));
	handshake_over(&p, a, b, s, cl, PIN_NAME);
	stream_set_handler(p.client.stream, &handler, &p.client);
	assert_ok(stream_write(p.client.stream, "before", 6));
	for (int i = 0; i < 5; i++) {
		loop_turn(p.loop, false);
	}
	assert_ok(stream_write(p.server.stream, "unsent", 6));
	parcel = stream_pack(p.server.stream);
	assert_non_null(parcel);
	assert_ok(stream_write(p.client.stream, "between", 7));
	for (int i = 0; i < 5; i++) {
		loop_turn(p.loop, false);
	}
	p.server.stream = stream_unpack(other, parcel);
	assert_non_null(p.server.stream);
	assert_ptr_equal(stream_loop(p.server.stream), other);
	assert_string_equal(stream_tls(p.server.stream)->alpn, "h2");
	stream_set_handler(p.server.stream, &handler, &p.server);
	two_loops(p.loop, other, &p.server, 13);
	assert_memory_equal(p.server.in.data, "beforebetween", 13);
	two_loops(p.loop, other, &p.client, 6);
	assert_ok(stream_write(p.server.stream, "after", 5));
	two_loops(p.loop, other, &p.client, 11);
	assert_memory_equal(p.client.in.data, "unsentafter", 11);

	/* Nobody takes it: the other side sees the end. */
	stream_close(p.server.stream);
	while (!p.client.closed) {
		loop_turn(p.loop, false);
		loop_turn(other, false);
	}
	p.server.stream = NULL;
	pair_done(&p);
	loop_free(other);

	memset(&p, 0, sizeof(p));
	p.loop = loop_new("tls");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
	assert_ok(stream_from_fd(p.loop, fd[0], &a, NULL));
	assert_ok(stream_from_fd(p.loop, fd[1], &b, NULL));
	handshake_over(&p, a, b, s, cl, PIN_NAME);
	stream_set_handler(p.client.stream, &handler, &p.client);
	parcel = stream_pack(p.server.stream);
	assert_non_null(parcel);
	stream_parcel_free(parcel);
	p.server.stream = NULL;
	while (!p.client.closed) {
		loop_turn(p.loop, true);
	}
	pair_done(&p);

	/* A stream in memory has no socket to take along. */
	handshake(&p, s, cl, PIN_NAME);
	assert_null(stream_pack(p.server.stream));
	pair_done(&p);
	tls_unref(s);
	tls_unref(cl);
}

static void test_timeout_and_cancel(void **state)
{
	struct tls_server_opts server = plain_server();
	struct tls_ctx *s = server_ctx(&server);
	struct loop *loop = loop_new("tls");
	struct stream *a, *b;
	struct side side = {0};

	(void)state;
	stream_pair_new(loop, &a, &b);
	tls_accept(a, s, 20, on_handshake, &side);
	while (!side.done) {
		loop_turn(loop, true);
	}
	assert_null(side.stream);
	assert_int_equal(side.err.code, ERR_DEADLINE);
	stream_close(b);
	stream_pair_new(loop, &a, &b);
	side.done = false;
	struct tls_handshake *h = tls_accept(a, s, 1000, on_handshake, &side);
	loop_turn(loop, false);
	tls_handshake_cancel(h);
	stream_close(b);
	loop_free(loop);
	assert_false(side.done);
	tls_unref(s);
}

/* Anything may come from a stranger. */
static void test_garbage(void **state)
{
	struct tls_server_opts server = plain_server();
	struct tls_ctx *s = server_ctx(&server);
	static const char *const inputs[] = {"GET / HTTP/1.0\r\n\r\n", "\x16\x03\x01\xff\xff\x01",
					     "\x80\x80\x01\x03", "SSH-2.0-x\r\n"};

	(void)state;
	TEST_TABLE(text, inputs)
	{
		struct loop *loop = loop_new("tls");
		struct side side = {0};
		struct stream *a, *b;

		stream_pair_new(loop, &a, &b);
		tls_accept(a, s, 300, on_handshake, &side);
		assert_ok(stream_write(b, *text, strlen(*text)));
		while (!side.done) {
			loop_turn(loop, true);
		}
		assert_null(side.stream);
		stream_close(b);
		loop_free(loop);
	}
	tls_unref(s);
}

static void test_bad_material(void **state)
{
	struct tls_server_opts server = plain_server();
	struct tls_ctx *ctx;
	struct err err = {0};

	(void)state;
	server.cert.key_pem = pki.member.key_pem;
	assert_err(tls_server_new(&server, &ctx, &err), ERR_INVALID);
	assert_contains(err.msg, "does not belong");
	server.cert.key_pem = "nonsense";
	assert_err(tls_server_new(&server, &ctx, &err), ERR_INVALID);
	assert_string_equal(err.field, "key");
	server.cert.chain_pem = "nonsense";
	assert_err(tls_server_new(&server, &ctx, &err), ERR_INVALID);
	assert_string_equal(err.field, "certificate");
	struct tls_client_opts client = {.trust = TLS_TRUST_CA, .ca_pem = "nonsense"};
	assert_err(tls_client_new(&client, &ctx, &err), ERR_INVALID);
	assert_string_equal(err.field, "ca");
}

int main(void)
{
	crypto_init();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_trust_modes),
		cmocka_unit_test(test_pin_is_not_the_leaf),
		cmocka_unit_test(test_client_certificates),
		cmocka_unit_test(test_certificate_by_name),
		cmocka_unit_test(test_alpn),
		cmocka_unit_test(test_exporter_and_data),
		cmocka_unit_test(test_another_loop),
		cmocka_unit_test(test_timeout_and_cancel),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_bad_material),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
