/* Bounded queue of pointers between threads, with byte accounting. */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Many producers, one consumer (several work as well). A mutex inside: nothing here is hot enough
 * for more. */
struct queue;

/* Limits of what waits: items and bytes, both > 0. */
struct queue *queue_new(size_t max_items, size_t max_bytes) MUST_CHECK;
/* Takes the queue; it must be empty or its items belong to someone else. NULL is fine. */
void queue_free(struct queue *q);

/* Takes item on success. Returns 1 if the queue was empty before (the consumer needs a wake-up), 0
 * if not, ERR_LIMIT if full, ERR_CLOSED after queue_close; item stays the caller's then. A single
 * item larger than max_bytes is ERR_LIMIT always. */
int queue_push(struct queue *q, void *item, size_t bytes) MUST_CHECK;
/* The oldest item, now the caller's, or NULL if there is none. ret_bytes may be NULL. */
void *queue_pop(struct queue *q, size_t *ret_bytes);
/* As queue_pop, waiting up to timeout_ms for one; NULL also when closed and empty. */
void *queue_pop_wait(struct queue *q, uint32_t timeout_ms, size_t *ret_bytes);
/* No more pushes; what is there can still be popped; waiters wake. */
void queue_close(struct queue *q);
size_t queue_len(struct queue *q);
size_t queue_bytes(struct queue *q);
/* How many pushes were refused because it was full. */
uint64_t queue_refused(struct queue *q);
