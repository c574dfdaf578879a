#include "net/gather.h"

#include <string.h>

#include "base/err.h"
#include "net/loop_int.h"

_Static_assert((int)GATHER_RECORD <= (int)LOOP_BLOCK, "a record fits into a block");

int gather_put(struct gather *g, struct stream *stream, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len > 0) {
		if (g->data == NULL) {
			g->loop = stream_loop(stream);
			g->data = loop_block_take(g->loop);
		}
		size_t part = MIN(len, GATHER_RECORD - g->len);
		memcpy(g->data + g->len, p, part);
		g->len += part;
		p += part;
		len -= part;
		if (g->len == GATHER_RECORD) {
			g->len = 0;
			int rc = stream_write(stream, g->data, GATHER_RECORD);

			if (rc != 0) {
				return rc;
			}
		}
	}
	return 0;
}

int gather_blob(struct gather *g, struct stream *stream, struct blob *blob, size_t off, size_t len)
{
	if (stream_tls(stream) != NULL || len < GATHER_BY_REFERENCE) {
		return gather_put(g, stream, blob->data + off, len);
	}
	int rc = gather_flush(g, stream);
	return rc != 0 ? rc : stream_write_blob(stream, blob, off, len);
}

int gather_flush(struct gather *g, struct stream *stream)
{
	int rc = g->len > 0 ? stream_write(stream, g->data, g->len) : 0;

	gather_done(g);
	return rc;
}

void gather_done(struct gather *g)
{
	if (g->data != NULL) {
		loop_block_give(g->loop, g->data);
	}
	g->data = NULL;
	g->len = 0;
}
