/* Collects the output of one turn: small pieces joined for TLS records, large ones passed on
 * without a copy. */
#pragma once

#include "base/blob.h"
#include "base/macros.h"
#include "net/stream.h"

enum {
	GATHER_RECORD = 16 << 10,      /* one full TLS record */
	GATHER_BY_REFERENCE = 2 << 10, /* on plain streams larger pieces are referenced */
};

/* Embedded; zero is empty. The memory is the loop's, and held only while something is collected. */
struct gather {
	struct loop *loop;
	uint8_t *data; /* NULL: nothing */
	size_t len;
};

/* Each returns 0 or what stream_write() said (the stream is beyond use then). */
MUST_CHECK int gather_put(struct gather *g, struct stream *stream, const void *data, size_t len);
MUST_CHECK int gather_blob(struct gather *g, struct stream *stream, struct blob *blob, size_t off,
			   size_t len);
MUST_CHECK int gather_flush(struct gather *g, struct stream *stream);
void gather_done(struct gather *g);
