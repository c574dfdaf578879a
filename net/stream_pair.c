#include <string.h>

#include "base/mem.h"
#include "net/stream_int.h"

/* Two ends in memory: what one writes waits in `out` and is delivered by a flush hook of the
 * writing end. */

struct pair {
	struct stream s;
	struct pair *other; /* NULL when that end is closed */
	struct buf out;
	size_t chunk;
	struct flush_hook push;
	bool closing; /* our owner closed: the end follows the data */
	bool end_sent;
};

static struct pair *pair_of(const struct stream *s)
{
	return (struct pair *)container_of(s, struct pair, s);
}

static void pair_gone(struct pair *p)
{
	if (p->other != NULL) {
		p->other->other = NULL;
		loop_flush_add(p->s.loop, &p->other->push);
		p->other = NULL;
	}
	loop_flush_remove(&p->push);
	stream_drop(&p->s);
}

static void pair_push(void *arg)
{
	struct pair *p = arg;
	struct err end = {0};

	stream_hold(&p->s);
	while (p->out.len > 0 && p->other != NULL && p->other->s.reading) {
		size_t n = p->out.len;

		if (p->other->chunk > 0 && n > p->other->chunk) {
			n = p->other->chunk;
		}
		uint8_t *copy = mem_memdup(p->out.data, n);
		struct stream *to = &p->other->s;

		buf_consume(&p->out, n);
		stream_hold(to);
		stream_emit_data(to, copy, n);
		stream_drop(to);
		mem_free(copy);
	}
	stream_emit_progress(&p->s);
	if (p->closing) {
		/* Two ends that are both being closed read no more: what they still had for each
		 * other is lost. */
		if (p->other == NULL || p->out.len == 0 || p->other->closing) {
			if (p->other != NULL) {
				err_set(&end, ERR_CLOSED, "the other side closed the connection");
				stream_emit_end(&p->other->s, &end);
			}
			pair_gone(p);
		}
	} else if (p->other == NULL && !p->end_sent) {
		p->end_sent = true;
		err_set(&end, ERR_CLOSED, "the other side closed the connection");
		stream_emit_end(&p->s, &end);
	}
	stream_drop(&p->s);
}

static void pair_write(struct stream *s, const void *data, size_t len, struct blob *blob)
{
	struct pair *p = pair_of(s);

	(void)blob;
	buf_append(&p->out, data, len);
	loop_flush_add(s->loop, &p->push);
}

static void pair_reading(struct stream *s, bool on)
{
	struct pair *p = pair_of(s);

	if (on && p->other != NULL && (p->other->out.len > 0 || p->other->closing)) {
		loop_flush_add(s->loop, &p->other->push);
	}
}

static void pair_close(struct stream *s, bool linger)
{
	struct pair *p = pair_of(s);

	if (!linger) {
		buf_reset(&p->out);
	}
	p->closing = true;
	loop_flush_add(s->loop, &p->push);
}

static size_t pair_backlog(const struct stream *s)
{
	return pair_of(s)->out.len;
}

static void pair_destroy(struct stream *s)
{
	struct pair *p = pair_of(s);

	buf_done(&p->out);
	mem_free(p);
}

static const struct stream_ops pair_ops = {
	.write = pair_write,
	.reading = pair_reading,
	.close = pair_close,
	.backlog = pair_backlog,
	.destroy = pair_destroy,
};

static struct pair *pair_new(struct loop *loop)
{
	struct pair *p = MEM_NEW(struct pair);

	stream_init(&p->s, &pair_ops, loop);
	p->push.run = pair_push;
	p->push.arg = p;
	strcpy(p->s.peer_text, "memory");
	return p;
}

void stream_pair_new(struct loop *loop, struct stream **ret_a, struct stream **ret_b)
{
	struct pair *a = pair_new(loop);
	struct pair *b = pair_new(loop);

	a->other = b;
	b->other = a;
	*ret_a = &a->s;
	*ret_b = &b->s;
}

void stream_pair_set_chunk(struct stream *s, size_t len)
{
	PRE(s->ops == &pair_ops);
	pair_of(s)->chunk = len;
}
