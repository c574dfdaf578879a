#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/mem.h"
#include "net/loop_int.h"
#include "net/tls_int.h"

/*
 * TLS over any stream. OpenSSL reads from the bytes that the lower stream just delivered and writes
 * straight into the lower stream's queue (a BIO of our own): no copies of ciphertext are kept here.
 *
 *   HANDSHAKE --ok--> OPEN --close/error--> ENDED
 *       \--error, timeout, cancel--> freed
 */

struct tls_stream {
	struct stream s;
	struct stream *lower; /* NULL when ended */
	SSL *ssl;
	struct tls_conn conn;
	struct stream_tls facts;
	char alpn[256];
	const uint8_t *in; /* ciphertext during a feed */
	size_t in_len;
	bool handshaking;
	bool feeding;
	bool dead; /* TLS is at its end: nothing more is written */
	tls_handshake_cb cb;
	void *cb_arg;
	struct loop_timer timer;
	struct err fail; /* of the handshake */
};

/* OpenSSL frees two strings of each of sixteen errors, whether there are any or not. */
static void tls_errors_clear(void)
{
	if (ERR_peek_error() != 0) {
		ERR_clear_error();
	}
}

static struct tls_stream *tls_of(const struct stream *s)
{
	return (struct tls_stream *)container_of(s, struct tls_stream, s);
}

/* ---- BIO ------------------------------------------------------------------------------------- */

static int tls_bio_read(BIO *bio, char *out, int len)
{
	struct tls_stream *t = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (t->in_len == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	size_t n = MIN((size_t)len, t->in_len);
	memcpy(out, t->in, n);
	t->in += n;
	t->in_len -= n;
	return (int)n;
}

static int tls_bio_write(BIO *bio, const char *data, int len)
{
	struct tls_stream *t = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (t->lower == NULL || stream_write(t->lower, data, (size_t)len) != 0) {
		return -1;
	}
	return len;
}

static long tls_bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	(void)bio;
	(void)num;
	(void)ptr;
	return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP;
}

static BIO_METHOD *tls_bio_method;

__attribute__((constructor)) static void tls_bio_make(void)
{
	tls_bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "skerry stream");
	BIO_meth_set_read(tls_bio_method, tls_bio_read);
	BIO_meth_set_write(tls_bio_method, tls_bio_write);
	BIO_meth_set_ctrl(tls_bio_method, tls_bio_ctrl);
}

/* ---- Ends ------------------------------------------------------------------------------------ */

static void tls_release_lower(struct tls_stream *t, bool linger)
{
	struct stream *lower = t->lower;

	t->lower = NULL;
	if (lower == NULL) {
		return;
	}
	if (linger) {
		stream_close(lower);
	} else {
		stream_abort(lower);
	}
}

/* The handshake is over: tells its caller, once. */
static void tls_handshake_end(struct tls_stream *t, const struct err *err)
{
	tls_handshake_cb cb = t->cb;

	loop_timer_stop(&t->timer);
	t->handshaking = false;
	t->cb = NULL;
	if (err == NULL) {
		cb(t->cb_arg, &t->s, NULL);
		return;
	}
	struct err copy = *err;
	void *arg = t->cb_arg;
	t->s.closed = true;
	t->dead = true;
	tls_release_lower(t, true); /* the alert is still sent */
	stream_drop(&t->s);
	cb(arg, NULL, &copy);
}

static void tls_on_timeout(void *arg)
{
	struct tls_stream *t = arg;
	struct err err = t->fail;

	if (err.code == 0) {
		err_set(&err, ERR_DEADLINE, "TLS handshake with %s: no answer in time",
			t->s.peer_text);
	}
	tls_handshake_end(t, &err);
}

/* ---- In -------------------------------------------------------------------------------------- */

static void tls_fill_facts(struct tls_stream *t)
{
	const unsigned char *alpn;
	unsigned len;
	const char *sni = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);

	SSL_get0_alpn_selected(t->ssl, &alpn, &len);
	memcpy(t->alpn, alpn != NULL ? (const char *)alpn : "", alpn != NULL ? len : 0);
	t->facts.alpn = t->alpn;
	t->facts.sni = sni != NULL ? sni : "";
	t->facts.version = SSL_get_version(t->ssl);
	t->facts.cipher = SSL_get_cipher_name(t->ssl);
	t->facts.peer = t->conn.peer;
	t->facts.server_tag = t->conn.tag != NULL ? t->conn.tag : "";
	t->s.tls = &t->facts;
}

static void tls_handshake_error(struct tls_stream *t, struct err *err)
{
	if (t->conn.err.code != 0) {
		*err = t->conn.err;
		tls_errors_clear();
	} else {
		tls_error(err, ERR_TLS, "handshake");
	}
	err_prefix(err, "TLS with %s", t->s.peer_text);
}

/* Returns false when the handshake is not (or never will be) complete. */
static bool tls_step_handshake(struct tls_stream *t)
{
	struct err err = {0};

	tls_errors_clear();
	int rc = SSL_do_handshake(t->ssl);
	if (rc == 1) {
		if (!t->conn.ctx->server && t->conn.ctx->alpn != NULL) {
			const unsigned char *alpn;
			unsigned len;

			SSL_get0_alpn_selected(t->ssl, &alpn, &len);
			if (len == 0) {
				err_set(&err, ERR_UNIMPLEMENTED,
					"%s speaks TLS but none of the asked protocols (ALPN): not "
					"a Skerry port?",
					t->s.peer_text);
				tls_handshake_end(t, &err);
				return false;
			}
		}
		tls_fill_facts(t);
		tls_handshake_end(t, NULL);
		return true;
	}
	int why = SSL_get_error(t->ssl, rc);
	if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
		return false;
	}
	tls_handshake_error(t, &err);
	tls_handshake_end(t, &err);
	return false;
}

static void tls_read_all(struct tls_stream *t)
{
	uint8_t *plain = loop_scratch_plain(t->s.loop);
	struct err err = {0};

	while (!t->dead && t->lower != NULL) {
		tls_errors_clear();
		int n = SSL_read(t->ssl, plain, LOOP_SCRATCH_PLAIN);
		if (n > 0) {
			stream_emit_data(&t->s, plain, (size_t)n);
			continue;
		}
		int why = SSL_get_error(t->ssl, n);
		if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
			return;
		}
		t->dead = true;
		if (why == SSL_ERROR_ZERO_RETURN) {
			err_set(&err, ERR_CLOSED, "the other side closed the connection");
		} else {
			tls_handshake_error(
				t, &err); /* a client certificate may be refused only now */
		}
		stream_emit_end(&t->s, &err);
	}
}

static void tls_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct tls_stream *t = arg;

	stream_hold(&t->s);
	t->in = data;
	t->in_len = len;
	if (!t->handshaking || tls_step_handshake(t)) {
		if (!t->handshaking && !t->s.closed) {
			tls_read_all(t);
		}
	}
	t->in = NULL;
	t->in_len = 0;
	stream_drop(&t->s);
}

static void tls_on_lower_close(void *arg, const struct err *why)
{
	struct tls_stream *t = arg;
	struct err err = *why;

	t->lower = NULL;
	t->dead = true;
	if (t->handshaking) {
		err_prefix(&err, "TLS handshake with %s", t->s.peer_text);
		tls_handshake_end(t, &err);
		return;
	}
	stream_emit_end(&t->s, &err);
}

static void tls_on_lower_writable(void *arg)
{
	struct tls_stream *t = arg;

	stream_hold(&t->s);
	stream_emit_progress(&t->s);
	stream_drop(&t->s);
}

static const struct stream_handler tls_lower_handler = {
	.on_data = tls_on_data,
	.on_close = tls_on_lower_close,
	.on_writable = tls_on_lower_writable,
};

/* ---- Stream interface ------------------------------------------------------------------------ */

static void tls_write(struct stream *s, const void *data, size_t len, struct blob *blob)
{
	struct tls_stream *t = tls_of(s);
	size_t done = 0;

	(void)blob;
	while (done < len && !t->dead && t->lower != NULL) {
		tls_errors_clear();
		int n = SSL_write(t->ssl, (const uint8_t *)data + done,
				  (int)MIN(len - done, (size_t)1 << 30));
		if (n <= 0) {
			struct err err = {0};

			t->dead = true;
			tls_error(&err, ERR_TLS, "write");
			stream_emit_end(s, &err);
			return;
		}
		done += (size_t)n;
	}
}

static void tls_reading(struct stream *s, bool on)
{
	struct tls_stream *t = tls_of(s);

	if (t->lower == NULL) {
		return;
	}
	if (on) {
		stream_resume_read(t->lower);
	} else {
		stream_pause_read(t->lower);
	}
}

static void tls_close(struct stream *s, bool linger)
{
	struct tls_stream *t = tls_of(s);

	if (linger && !t->dead && t->lower != NULL) {
		tls_errors_clear();
		SSL_shutdown(t->ssl);
	}
	t->dead = true;
	tls_release_lower(t, linger);
	stream_drop(s);
}

static size_t tls_backlog(const struct stream *s)
{
	const struct tls_stream *t = tls_of(s);

	return t->lower != NULL ? stream_backlog(t->lower) : 0;
}

static int tls_export(const struct stream *s, const char *label, const void *context,
		      size_t context_len, uint8_t *ret_key, size_t key_len)
{
	const struct tls_stream *t = tls_of(s);

	if (SSL_version(t->ssl) != TLS1_3_VERSION) {
		return ERR_PRECONDITION;
	}
	tls_errors_clear();
	return SSL_export_keying_material(t->ssl, ret_key, key_len, label, strlen(label), context,
					  context_len, 1) == 1
		       ? 0
		       : ERR_INTERNAL;
}

static void tls_destroy(struct stream *s)
{
	struct tls_stream *t = tls_of(s);

	loop_timer_stop(&t->timer);
	SSL_free(t->ssl);
	tls_peer_free(t->conn.peer);
	tls_unref(t->conn.ctx);
	mem_free(t->conn.server_name);
	mem_free(t->conn.tag);
	mem_free(t);
}

/* ---- Moving to another loop ------------------------------------------------------------------ */

static struct stream *tls_unpack(struct loop *loop, struct stream_parcel *p)
{
	struct tls_stream *t = tls_of(p->over);
	struct stream *lower = stream_unpack_socket(loop, p);

	if (lower == NULL) {
		return NULL;
	}
	t->s.loop = loop;
	t->lower = lower;
	stream_set_limits(lower, t->s.high, SIZE_MAX);
	stream_set_handler(lower, &tls_lower_handler, t);
	return &t->s;
}

static struct stream_parcel *tls_pack(struct stream *s)
{
	struct tls_stream *t = tls_of(s);
	struct stream_parcel *p;

	if (t->handshaking || t->dead || t->lower == NULL || s->refs > 1 ||
	    t->lower->ops->pack == NULL || (p = t->lower->ops->pack(t->lower)) == NULL) {
		return NULL;
	}
	t->lower = NULL;
	loop_flush_remove(&s->deliver);
	/* Whoever counts streams is of the old loop. */
	if (s->on_free != NULL) {
		s->on_free(s->free_arg);
		s->on_free = NULL;
	}
	p->over = s;
	p->unpack = tls_unpack;
	return p;
}

static bool tls_unanswered(const struct stream *s, unsigned ms, bool repeated)
{
	const struct tls_stream *t = tls_of((struct stream *)s);

	return t->lower != NULL && t->lower->ops->unanswered != NULL &&
	       t->lower->ops->unanswered(t->lower, ms, repeated);
}

static const struct stream_ops tls_ops = {
	.write = tls_write,
	.reading = tls_reading,
	.close = tls_close,
	.backlog = tls_backlog,
	.export = tls_export,
	.destroy = tls_destroy,
	.pack = tls_pack,
	.unanswered = tls_unanswered,
};

/* ---- Handshakes ------------------------------------------------------------------------------ */

static struct tls_stream *tls_stream_new(struct stream *lower, struct tls_ctx *ctx,
					 uint64_t timeout_ms, tls_handshake_cb cb, void *arg)
{
	struct tls_stream *t = MEM_NEW(struct tls_stream);
	BIO *bio = BIO_new(tls_bio_method);

	stream_init(&t->s, &tls_ops, stream_loop(lower));
	t->lower = lower;
	t->s.peer = *stream_peer(lower);
	t->s.local = *stream_local(lower);
	strcpy(t->s.peer_text, stream_peer_text(lower));
	t->conn.ctx = tls_ref(ctx);
	t->conn.tag = mem_strdup(ctx->tag);
	t->handshaking = true;
	t->cb = cb;
	t->cb_arg = arg;
	t->ssl = SSL_new(ctx->ssl);
	PRE(t->ssl != NULL && bio != NULL);
	tls_conn_attach(t->ssl, &t->conn);
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	SSL_set_bio(t->ssl, bio, bio);
	/* The limits are judged above TLS; below it everything is taken. */
	stream_set_limits(lower, t->s.high, SIZE_MAX);
	loop_timer_start(&t->timer, t->s.loop, timeout_ms, tls_on_timeout, t);
	return t;
}

struct tls_handshake *tls_accept(struct stream *lower, struct tls_ctx *ctx, uint64_t timeout_ms,
				 tls_handshake_cb cb, void *arg)
{
	struct tls_stream *t = tls_stream_new(lower, ctx, timeout_ms, cb, arg);

	PRE(ctx->server);
	SSL_set_accept_state(t->ssl);
	stream_set_handler(lower, &tls_lower_handler, t);
	return (struct tls_handshake *)t;
}

struct tls_handshake *tls_connect(struct stream *lower, struct tls_ctx *ctx,
				  const char *server_name, uint64_t timeout_ms, tls_handshake_cb cb,
				  void *arg)
{
	struct tls_stream *t = tls_stream_new(lower, ctx, timeout_ms, cb, arg);
	struct ipaddr ip;

	PRE(!ctx->server);
	t->conn.server_name = mem_strdup(server_name != NULL ? server_name : "");
	SSL_set_connect_state(t->ssl);
	if (server_name != NULL && ipaddr_parse(server_name, &ip, NULL) != 0) {
		SSL_set_tlsext_host_name(t->ssl, server_name);
	}
	stream_set_handler(lower, &tls_lower_handler, t);
	tls_errors_clear();
	int rc = SSL_do_handshake(t->ssl); /* the client's hello */
	if (rc <= 0 && SSL_get_error(t->ssl, rc) != SSL_ERROR_WANT_READ) {
		/* Told in a later turn, as any other failure. */
		tls_handshake_error(t, &t->fail);
		loop_timer_start(&t->timer, t->s.loop, 0, tls_on_timeout, t);
	}
	return (struct tls_handshake *)t;
}

void tls_handshake_cancel(struct tls_handshake *handshake)
{
	struct tls_stream *t = (struct tls_stream *)handshake;

	if (t == NULL) {
		return;
	}
	PRE(t->handshaking);
	t->handshaking = false;
	t->s.closed = true;
	t->dead = true;
	loop_timer_stop(&t->timer);
	tls_release_lower(t, false);
	stream_drop(&t->s);
}
