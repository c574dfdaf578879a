/* A byte pump between two streams, with back-pressure both ways. */
#include "cluster/peer_pump.h"

#include "base/macros.h"
#include "base/mem.h"
#include "net/stream.h"

/*
 * What may wait on one side while the other keeps sending: it is paused at HIGH. A stream hands over at most some
 * 64 KiB at a time, so HARD is out of reach unless the pause does not work.
 */
enum { PUMP_HIGH = 256 << 10, PUMP_HARD = 4 << 20 };

struct side {
	struct peer_pump *pump;
	struct stream *stream;
	struct side *other;
};

struct peer_pump {
	struct side local, remote;
	peer_pump_cb cb;
	void *arg;
};

/*
 * One side is over: what it sent is flushed to the other, which is closed then. libraft reads nothing from a link that it
 * dialled and learns of its end by a write that fails. A stream that is closed goes on taking what it writes until the
 * other side closes too, which libraft never does: its votes and entries would vanish for seconds before it dials anew.
 * What the kernel holds for it is not lost by closing a socket of a pair, so only what the kernel has not taken is waited for.
 */
static void end(struct peer_pump *pump, struct side *ended, const struct err *why)
{
	bool remote = ended == &pump->remote;

	if (remote && stream_backlog(pump->local.stream) == 0) {
		stream_abort(pump->local.stream);
	} else {
		stream_close(ended->other->stream);
	}
	if (pump->cb != NULL) {
		pump->cb(pump->arg, remote, why);
	}
	mem_free(pump);
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
	struct side *side = arg, *to = side->other;
	struct err e = {0};
	int r = stream_write(to->stream, data, len);

	if (r < 0) {
		IGNORE(err_set(&e, r, "the other side of the pump takes no more"));
		stream_abort(side->stream);
		end(side->pump, side, &e);
		return;
	}
	if (stream_is_full(to->stream)) {
		stream_pause_read(side->stream);
	}
}

static void on_close(void *arg, const struct err *err)
{
	struct side *side = arg;

	end(side->pump, side, err);
}

static void on_writable(void *arg)
{
	struct side *side = arg;

	stream_resume_read(side->other->stream);
}

static const struct stream_handler handler = {
	.on_data = on_data,
	.on_close = on_close,
	.on_writable = on_writable,
};

struct peer_pump *peer_pump_new(struct stream *a, struct stream *b, peer_pump_cb cb, void *arg)
{
	struct peer_pump *p = MEM_NEW(struct peer_pump);

	p->cb = cb;
	p->arg = arg;
	p->local = (struct side){.pump = p, .stream = a, .other = &p->remote};
	p->remote = (struct side){.pump = p, .stream = b, .other = &p->local};
	stream_set_limits(a, PUMP_HIGH, PUMP_HARD);
	stream_set_limits(b, PUMP_HIGH, PUMP_HARD);
	stream_set_handler(a, &handler, &p->local);
	stream_set_handler(b, &handler, &p->remote);
	return p;
}

void peer_pump_free(struct peer_pump *pump)
{
	if (pump == NULL) {
		return;
	}
	stream_abort(pump->local.stream);
	stream_abort(pump->remote.stream);
	mem_free(pump);
}
