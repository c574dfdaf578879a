/* Inside of the loop: scratch memory that the streams of one loop share. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "net/loop.h"

enum {
	LOOP_SCRATCH_READ = 64 << 10,  /* what one read from a socket brings */
	LOOP_SCRATCH_PLAIN = 16 << 10, /* one decrypted record */
	LOOP_BLOCK = 17 << 10,         /* one encrypted record, and what is noted beside it */
	LOOP_BLOCKS = 16,              /* that wait for their next use */
};

/* Borrowed for the duration of one callback; never used by two callbacks at once, since callbacks
 * do not nest. */
uint8_t *loop_scratch_read(struct loop *loop);
uint8_t *loop_scratch_plain(struct loop *loop);

/* LOOP_BLOCK bytes for what is collected and sent within a turn, to be given back to the same loop: malloc would merge and
 * split its heap for each. */
void *loop_block_take(struct loop *loop);
/* NULL is fine. */
void loop_block_give(struct loop *loop, void *block);
