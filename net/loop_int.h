/* Inside of the loop: scratch memory that the streams of one loop share. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "net/loop.h"

enum {
	LOOP_SCRATCH_READ = 64 << 10,  /* what one read from a socket brings */
	LOOP_SCRATCH_PLAIN = 16 << 10, /* one decrypted record */
};

/* Borrowed for the duration of one callback; never used by two callbacks at once, since callbacks
 * do not nest. */
uint8_t *loop_scratch_read(struct loop *loop);
uint8_t *loop_scratch_plain(struct loop *loop);
