/* gzip of single messages, both ways, bounded. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/macros.h"

/* Appends the inflated bytes. ERR_LIMIT when they are more than `max`; ERR_INVALID when it is not
 * one whole gzip stream. */
MUST_CHECK int gzip_inflate(const void *data, size_t len, size_t max, struct buf *out,
			    struct err *err);
/* Appends a gzip stream. */
void gzip_deflate(const void *data, size_t len, struct buf *out);
