#include "net/gather.h"

#include "base/err.h"

int gather_put(struct gather *g, struct stream *stream, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len > 0) {
		if (g->data.cap == 0) {
			(void)buf_reserve(&g->data, GATHER_RECORD);
		}
		size_t part = MIN(len, GATHER_RECORD - g->data.len);
		buf_append(&g->data, p, part);
		p += part;
		len -= part;
		if (g->data.len == GATHER_RECORD) {
			int rc = stream_write(stream, g->data.data, g->data.len);

			buf_reset(&g->data);
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
	if (g->data.len > 0) {
		int rc = stream_write(stream, g->data.data, g->data.len);

		buf_reset(&g->data);
		if (rc != 0) {
			return rc;
		}
	}
	return stream_write_blob(stream, blob, off, len);
}

int gather_flush(struct gather *g, struct stream *stream)
{
	int rc = g->data.len > 0 ? stream_write(stream, g->data.data, g->data.len) : 0;

	buf_done(&g->data);
	return rc;
}

void gather_done(struct gather *g)
{
	buf_done(&g->data);
}
