#include "net/gzip.h"

#include <stdbool.h>
#include <string.h>
#include <zlib.h>

enum { GZIP_WINDOW = 15 + 16 }; /* 16: gzip framing */

int gzip_inflate(const void *data, size_t len, size_t max, struct buf *out, struct err *err)
{
	z_stream z;
	size_t start = out->len;
	int rc;

	memset(&z, 0, sizeof(z));
	if (inflateInit2(&z, GZIP_WINDOW) != Z_OK) {
		return err_set(err, ERR_INTERNAL, "gzip cannot be set up");
	}
	z.next_in = (Bytef *)data;
	z.avail_in = (uInt)len;
	do {
		size_t room = MIN((size_t)16384, max - (out->len - start) + 1);

		z.next_out = buf_reserve(out, room);
		z.avail_out = (uInt)room;
		rc = inflate(&z, Z_NO_FLUSH);
		out->len += room - z.avail_out;
		if (out->len - start > max) {
			inflateEnd(&z);
			return err_set(err, ERR_LIMIT,
				       "the inflated message is larger than %zu bytes", max);
		}
	} while (rc == Z_OK && (z.avail_in > 0 || z.avail_out == 0));
	bool whole = rc == Z_STREAM_END && z.avail_in == 0;
	inflateEnd(&z);
	return whole ? 0 : err_set(err, ERR_INVALID, "the message is not valid gzip");
}

void gzip_deflate(const void *data, size_t len, struct buf *out)
{
	z_stream z;

	memset(&z, 0, sizeof(z));
	if (deflateInit2(&z, 5, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
		IMPOSSIBLE("deflateInit2");
	}
	size_t bound = deflateBound(&z, len);
	z.next_in = (Bytef *)data;
	z.avail_in = (uInt)len;
	z.next_out = buf_reserve(out, bound);
	z.avail_out = (uInt)bound;
	int rc = deflate(&z, Z_FINISH);
	POST(rc == Z_STREAM_END);
	out->len += bound - z.avail_out;
	deflateEnd(&z);
}
