#include "net/stream_int.h"

#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"

/*
 * What is common to all streams: the owner's callbacks and their guarantees. Bytes that arrive
 * while the owner does not take any (paused, no handler yet) wait in `unread`, with reading
 * switched off, and are delivered by the flush hook.
 */

static void stream_update_reading(struct stream *s)
{
	bool want = !s->closed && !s->ended && !s->paused && s->handler != NULL &&
		    s->unread.len == 0;

	if (want != s->reading) {
		s->reading = want;
		s->ops->reading(s, want);
	}
}

static void stream_finish(struct stream *s)
{
	struct err end = *s->end;
	const struct stream_handler *handler = s->handler;

	s->closed = true;
	s->handler = NULL;
	if (handler != NULL && handler->on_close != NULL) {
		handler->on_close(s->arg, &end);
	}
	s->ops->close(s, false);
}

static void stream_deliver(void *arg)
{
	struct stream *s = arg;

	stream_hold(s);
	if (s->writable_due && !s->closed) {
		s->writable_due = false;
		if (s->handler != NULL && s->handler->on_writable != NULL) {
			s->handler->on_writable(s->arg);
		}
	}
	while (!s->closed && !s->paused && s->handler != NULL && s->unread.len > 0) {
		struct buf data = s->unread;

		buf_init(&s->unread);
		s->handler->on_data(s->arg, data.data, data.len);
		buf_done(&data);
	}
	if (!s->closed && s->ended && s->handler != NULL && s->unread.len == 0) {
		stream_finish(s);
	}
	if (!s->closed) {
		stream_update_reading(s);
	}
	stream_drop(s);
}

void stream_init(struct stream *s, const struct stream_ops *ops, struct loop *loop)
{
	s->ops = ops;
	s->loop = loop;
	s->refs = 1;
	s->high = LIM_STREAM_HIGH_BYTES;
	s->hard = LIM_STREAM_HARD_BYTES;
	s->deliver.run = stream_deliver;
	s->deliver.arg = s;
	buf_init(&s->unread);
}

void stream_hold(struct stream *s)
{
	s->refs++;
}

void stream_drop(struct stream *s)
{
	PRE(s->refs > 0);
	if (--s->refs > 0) {
		return;
	}
	loop_flush_remove(&s->deliver);
	buf_done(&s->unread);
	mem_free(s->end);
	if (s->on_free != NULL) {
		s->on_free(s->free_arg);
	}
	s->ops->destroy(s);
}

void stream_emit_data(struct stream *s, const uint8_t *data, size_t len)
{
	s->bytes_in += len;
	if (s->closed || s->ended || len == 0) {
		return;
	}
	if (s->handler == NULL || s->paused || s->unread.len > 0) {
		buf_append(&s->unread, data, len);
		stream_update_reading(s);
		return;
	}
	s->handler->on_data(s->arg, data, len);
}

void stream_emit_end(struct stream *s, const struct err *err)
{
	if (s->closed || s->ended) {
		return;
	}
	s->ended = true;
	s->end = mem_memdup(err, sizeof(*err));
	stream_update_reading(s);
	/* Later in the turn: never inside a call of the owner, and after the data. A paused owner
	 * loses what it did not take. */
	if (s->paused) {
		buf_reset(&s->unread);
	}
	loop_flush_add(s->loop, &s->deliver);
}

void stream_emit_progress(struct stream *s)
{
	if (s->closed || !s->above || s->ops->backlog(s) > s->high / 2) {
		return;
	}
	s->above = false;
	s->writable_due = true;
	loop_flush_add(s->loop, &s->deliver);
}

void stream_describe(struct stream *s)
{
	if (s->peer.is_unix) {
		snprintf(s->peer_text, sizeof(s->peer_text), "unix:uid=%u", (unsigned)s->peer.uid);
	} else {
		char text[IPPORT_TEXT];

		snprintf(s->peer_text, sizeof(s->peer_text), "%s",
			 ipport_format(&s->peer.addr, text));
	}
}

/* ---- Public ---------------------------------------------------------------------------------- */

void stream_set_handler(struct stream *s, const struct stream_handler *handler, void *arg)
{
	PRE(!s->closed);
	s->handler = handler;
	s->arg = arg;
	if (s->unread.len > 0 || s->ended || s->writable_due) {
		loop_flush_add(s->loop, &s->deliver);
	}
	stream_update_reading(s);
}

void stream_unread(struct stream *s, const void *data, size_t len)
{
	struct buf joined = BUF_INIT;

	if (len == 0) {
		return;
	}
	buf_append(&joined, data, len);
	buf_append(&joined, s->unread.data, s->unread.len);
	buf_done(&s->unread);
	s->unread = joined;
	stream_update_reading(s);
	loop_flush_add(s->loop, &s->deliver);
}

static int stream_write_any(struct stream *s, const void *data, size_t len, struct blob *blob)
{
	if (s->closed || s->ended) {
		return ERR_CLOSED;
	}
	size_t backlog = s->ops->backlog(s);
	if (backlog > 0 && backlog + len > s->hard) {
		return ERR_LIMIT;
	}
	if (len > 0) {
		s->bytes_out += len;
		s->ops->write(s, data, len, blob);
		if (s->ops->backlog(s) >= s->high) {
			s->above = true;
		}
	}
	return 0;
}

int stream_write(struct stream *s, const void *data, size_t len)
{
	return stream_write_any(s, data, len, NULL);
}

int stream_write_blob(struct stream *s, struct blob *blob, size_t off, size_t len)
{
	PRE(off <= blob->len && len <= blob->len - off);
	return stream_write_any(s, blob->data + off, len, blob);
}

size_t stream_backlog(const struct stream *s)
{
	return s->ops->backlog(s);
}

void stream_set_limits(struct stream *s, size_t high, size_t hard)
{
	s->high = high;
	s->hard = hard;
}

bool stream_is_full(const struct stream *s)
{
	return s->ops->backlog(s) >= s->high;
}

void stream_pause_read(struct stream *s)
{
	s->paused = true;
	if (!s->closed) {
		stream_update_reading(s);
	}
}

void stream_resume_read(struct stream *s)
{
	if (s->closed || !s->paused) {
		return;
	}
	s->paused = false;
	if (s->unread.len > 0) {
		loop_flush_add(s->loop, &s->deliver);
	}
	stream_update_reading(s);
}

static void stream_end(struct stream *s, bool linger)
{
	if (s == NULL || s->closed) {
		return; /* inside its own on_close */
	}
	s->closed = true;
	s->handler = NULL;
	if (s->reading) {
		s->reading = false;
		s->ops->reading(s, false);
	}
	s->ops->close(s, linger && !s->ended);
}

void stream_close(struct stream *s)
{
	stream_end(s, true);
}

void stream_abort(struct stream *s)
{
	stream_end(s, false);
}

struct loop *stream_loop(const struct stream *s)
{
	return s->loop;
}

const struct stream_peer *stream_peer(const struct stream *s)
{
	return &s->peer;
}

const struct ipport *stream_local(const struct stream *s)
{
	return &s->local;
}

const char *stream_peer_text(const struct stream *s)
{
	return s->peer_text;
}

const struct stream_tls *stream_tls(const struct stream *s)
{
	return s->tls;
}

int stream_export(const struct stream *s, const char *label, const void *context,
		  size_t context_len, uint8_t *ret_key, size_t key_len)
{
	if (s->ops->export == NULL) {
		return ERR_PRECONDITION;
	}
	return s->ops->export(s, label, context, context_len, ret_key, key_len);
}

uint64_t stream_bytes_in(const struct stream *s)
{
	return s->bytes_in;
}

uint64_t stream_bytes_out(const struct stream *s)
{
	return s->bytes_out;
}

/* ---- Moving to another loop ------------------------------------------------------------------ */

enum { STALLED_MS = 50 };

bool stream_stalled(const struct stream *s)
{
	/* What was repeated just now may be acknowledged yet. */
	return s->ops->unanswered != NULL && s->ops->unanswered(s, STALLED_MS, true) &&
	       stream_backlog(s) <= STALLED_BYTES;
}

bool stream_unanswered(const struct stream *s, unsigned ms)
{
	return s->ops->unanswered != NULL && s->ops->unanswered(s, ms, false);
}

struct stream_parcel *stream_pack(struct stream *s)
{
	PRE(!s->closed && s->handler == NULL);
	return s->ops->pack != NULL && !s->ended ? s->ops->pack(s) : NULL;
}

struct stream *stream_unpack(struct loop *loop, struct stream_parcel *p)
{
	struct stream *s = p->over != NULL ? p->unpack(loop, p) : stream_unpack_socket(loop, p);

	p->over = s == NULL ? p->over : NULL;
	stream_parcel_free(p);
	return s;
}

void stream_parcel_free(struct stream_parcel *p)
{
	if (p == NULL) {
		return;
	}
	if (p->over != NULL) {
		stream_abort(p->over);
	}
	stream_parcel_done(p);
}
