/*
 * Sending a snapshot apart from everything else: connect, write, close.
 *
 *   CONNECTING --stream--> WRITING --all written--> CLOSING --> freed
 *        \------ fails ------------- fails -----------/
 */
#include "cluster/raft_install.h"

#include <string.h>

#include "base/mem.h"

enum { PREAMBLE = 16, FIXED = 7 * 8 };

struct raft_install {
	struct raft_uv_connect connect;
	uv_stream_t *stream; /* raft_free'd after its close */
	uv_write_t write;
	uv_buf_t bufs[2];                  /* header (ours), data (borrowed) */
	void (*cb)(void *arg, int status); /* NULL: was told, or cancelled */
	void *arg;
	bool connecting, starting, failed;
};

static void le_put64(uint8_t **at, uint64_t v)
{
	for (int i = 0; i < 8; i++) {
		*(*at)++ = (uint8_t)(v >> (8 * i));
	}
}

/* What libraft's decoder reads: little-endian words. */
static int header_make(struct raft_install *i, const struct raft_message *m)
{
	const struct raft_install_snapshot *s = &m->install_snapshot;
	struct raft_buffer conf;
	uint8_t *at;
	int rv = raft_configuration_encode(&s->conf, &conf);

	if (rv != 0) {
		return rv;
	}
	i->bufs[0].len = PREAMBLE + FIXED + conf.len;
	i->bufs[0].base = mem_zalloc(i->bufs[0].len);
	at = (uint8_t *)i->bufs[0].base;
	le_put64(&at, (uint64_t)m->type | (uint64_t)s->version << 16);
	le_put64(&at, i->bufs[0].len - PREAMBLE);
	le_put64(&at, s->term);
	le_put64(&at, s->last_index);
	le_put64(&at, s->last_term);
	le_put64(&at, s->conf_index);
	le_put64(&at, conf.len);
	memcpy(at, conf.base, conf.len);
	at += conf.len;
	le_put64(&at, s->data.len);
	le_put64(&at, 0);
	raft_free(conf.base);
	i->bufs[1] = uv_buf_init(s->data.base, (unsigned)s->data.len);
	return 0;
}

static void on_closed(uv_handle_t *h)
{
	struct raft_install *i = h->data;

	raft_free(i->stream);
	mem_free(i->bufs[0].base);
	mem_free(i);
}

static void end(struct raft_install *i, int status)
{
	void (*cb)(void *arg, int status) = i->cb;
	void *arg = i->arg;

	i->cb = NULL;
	if (i->starting) {
		i->failed = true;
		return;
	}
	if (i->stream != NULL) {
		if (!uv_is_closing((uv_handle_t *)i->stream)) {
			uv_close((uv_handle_t *)i->stream, on_closed);
		}
	} else if (!i->connecting) {
		mem_free(i->bufs[0].base);
		mem_free(i);
	}
	if (cb != NULL) {
		cb(arg, status);
	}
}

static void on_written(uv_write_t *req, int status)
{
	struct raft_install *i = req->data;

	/* On its own closing the write is cancelled: that was told already. */
	if (!uv_is_closing((uv_handle_t *)i->stream)) {
		end(i, status == 0 ? 0 : RAFT_IOERR);
	}
}

static void on_connected(struct raft_uv_connect *req, struct uv_stream_s *stream, int status)
{
	struct raft_install *i = req->data;

	i->connecting = false;
	i->stream = stream;
	if (stream != NULL) {
		stream->data = i;
	}
	if (status != 0 || i->cb == NULL) {
		end(i, RAFT_NOCONNECTION);
		return;
	}
	i->write.data = i;
	if (uv_write(&i->write, stream, i->bufs, ARRAY_LEN(i->bufs), on_written) != 0) {
		end(i, RAFT_IOERR);
	}
}

int raft_install_start(struct raft_install **ret, struct raft_uv_transport *t,
		       const struct raft_message *m, void (*cb)(void *arg, int status), void *arg)
{
	struct raft_install *i = MEM_NEW(struct raft_install);
	int rv = header_make(i, m);

	if (rv == 0) {
		i->cb = cb;
		i->arg = arg;
		i->connect.data = i;
		i->connecting = i->starting = true;
		rv = t->connect(t, &i->connect, m->server_id, m->server_address, on_connected);
		i->starting = false;
		if (rv == 0 && i->failed) {
			rv = RAFT_NOCONNECTION;
		}
	}
	if (rv != 0) {
		mem_free(i->bufs[0].base);
		mem_free(i);
		return rv;
	}
	*ret = i;
	return 0;
}

void raft_install_cancel(struct raft_install *i)
{
	if (i != NULL) {
		i->cb = NULL;
		end(i, RAFT_CANCELED);
	}
}
