#include "base/queue.h"

#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

struct queue_item {
	void *ptr;
	size_t bytes;
};

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t filled;
	struct queue_item *ring; /* grows up to max_items */
	size_t cap;
	size_t head; /* oldest */
	size_t len;
	size_t bytes;
	size_t max_items;
	size_t max_bytes;
	uint64_t refused;
	bool closed;
};

struct queue *queue_new(size_t max_items, size_t max_bytes)
{
	struct queue *q = MEM_NEW(struct queue);
	pthread_condattr_t attr;

	PRE(max_items > 0 && max_bytes > 0);
	q->max_items = max_items;
	q->max_bytes = max_bytes;
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->filled, &attr);
	pthread_condattr_destroy(&attr);
	return q;
}

void queue_free(struct queue *q)
{
	if (q != NULL) {
		pthread_cond_destroy(&q->filled);
		pthread_mutex_destroy(&q->lock);
		mem_free(q->ring);
		mem_free(q);
	}
}

static void ring_grow(struct queue *q)
{
	size_t cap = MIN(q->cap > 0 ? q->cap * 2 : (size_t)16, q->max_items);
	struct queue_item *ring = mem_calloc(cap, sizeof(*ring));

	for (size_t i = 0; i < q->len; i++) {
		ring[i] = q->ring[(q->head + i) % q->cap];
	}
	mem_free(q->ring);
	q->ring = ring;
	q->cap = cap;
	q->head = 0;
}

int queue_push(struct queue *q, void *item, size_t bytes)
{
	int rv;

	PRE(item != NULL);
	pthread_mutex_lock(&q->lock);
	if (q->closed) {
		rv = ERR_CLOSED;
	} else if (q->len >= q->max_items || bytes > q->max_bytes - q->bytes) {
		q->refused++;
		rv = ERR_LIMIT;
	} else {
		if (q->len == q->cap) {
			ring_grow(q);
		}
		q->ring[(q->head + q->len) % q->cap] = (struct queue_item){item, bytes};
		rv = q->len == 0;
		q->len++;
		q->bytes += bytes;
		pthread_cond_signal(&q->filled);
	}
	pthread_mutex_unlock(&q->lock);
	return rv;
}

static void *pop_locked(struct queue *q, size_t *ret_bytes)
{
	struct queue_item item;

	if (q->len == 0) {
		return NULL;
	}
	item = q->ring[q->head];
	q->head = (q->head + 1) % q->cap;
	q->len--;
	q->bytes -= item.bytes;
	if (ret_bytes != NULL) {
		*ret_bytes = item.bytes;
	}
	return item.ptr;
}

void *queue_pop(struct queue *q, size_t *ret_bytes)
{
	void *item;

	pthread_mutex_lock(&q->lock);
	item = pop_locked(q, ret_bytes);
	pthread_mutex_unlock(&q->lock);
	return item;
}

void *queue_pop_wait(struct queue *q, uint32_t timeout_ms, size_t *ret_bytes)
{
	struct timespec until;
	void *item;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&q->lock);
	while (q->len == 0 && !q->closed) {
		if (pthread_cond_timedwait(&q->filled, &q->lock, &until) == ETIMEDOUT) {
			break;
		}
	}
	item = pop_locked(q, ret_bytes);
	pthread_mutex_unlock(&q->lock);
	return item;
}

void queue_close(struct queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->closed = true;
	pthread_cond_broadcast(&q->filled);
	pthread_mutex_unlock(&q->lock);
}

size_t queue_len(struct queue *q)
{
	size_t n;

	pthread_mutex_lock(&q->lock);
	n = q->len;
	pthread_mutex_unlock(&q->lock);
	return n;
}

size_t queue_bytes(struct queue *q)
{
	size_t n;

	pthread_mutex_lock(&q->lock);
	n = q->bytes;
	pthread_mutex_unlock(&q->lock);
	return n;
}

uint64_t queue_refused(struct queue *q)
{
	uint64_t n;

	pthread_mutex_lock(&q->lock);
	n = q->refused;
	pthread_mutex_unlock(&q->lock);
	return n;
}
