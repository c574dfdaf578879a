#include <string.h>

#include "base/bucket.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/listen_int.h"
#include "net/stream_int.h"

struct source {
	struct list link; /* in sources.idle while it has no connections */
	uint8_t key[9];
	uint32_t open;
	struct bucket bucket;
};

struct sources {
	unsigned refs; /* the listener, and each stream */
	uint32_t open;
	struct map map;
	struct list idle; /* least recently used first */
};

/* What on_free of a stream holds. */
struct seat {
	struct sources *sources;
	struct source *source; /* NULL: not limited */
};

struct sources *sources_new(void)
{
	struct sources *s = MEM_NEW(struct sources);

	s->refs = 1;
	map_init(&s->map);
	list_init(&s->idle);
	return s;
}

void sources_unref(struct sources *s)
{
	struct map_iter it = {0};

	if (s == NULL || --s->refs > 0) {
		return;
	}
	while (map_next(&s->map, &it)) {
		mem_free(it.value);
	}
	map_done(&s->map);
	mem_free(s);
}

static void source_forget(struct sources *s, struct source *source)
{
	list_remove(&source->link);
	map_del(&s->map, source->key, sizeof(source->key));
	mem_free(source);
}

/* IPv4 by address, IPv6 by /64: one customer. */
static struct source *source_get(struct sources *s, const struct ipaddr *addr, uint32_t per_second,
				 uint64_t now)
{
	uint8_t key[9] = {addr->family};

	memcpy(key + 1, addr->b, 8);
	struct source *source = map_get(&s->map, key, sizeof(key));
	if (source != NULL) {
		return source;
	}
	if (map_len(&s->map) >= LIM_SOURCES && !list_empty(&s->idle)) {
		source_forget(s, LIST_ENTRY(s->idle.next, struct source, link));
	}
	source = MEM_NEW(struct source);
	memcpy(source->key, key, sizeof(key));
	bucket_init(&source->bucket, per_second, 1000, now);
	map_put(&s->map, key, sizeof(key), source);
	list_push(&s->idle, &source->link);
	return source;
}

static void seat_leave(void *arg)
{
	struct seat *seat = arg;
	struct source *source = seat->source;

	seat->sources->open--;
	if (source != NULL && --source->open == 0) {
		list_push(&seat->sources->idle, &source->link);
	}
	sources_unref(seat->sources);
	mem_free(seat);
}

bool sources_enter(struct sources *s, struct stream *stream, bool limited, uint32_t per_source,
		   uint32_t per_second, uint32_t max, uint64_t now_ms)
{
	struct source *source = NULL;

	if (s->open >= max) {
		METRICS_COUNT("skerry_listen_full_total",
			      "Connections refused because the listener had its most.", 1);
		return false;
	}
	if (limited) {
		source = source_get(s, &stream->peer.addr.addr, per_second, now_ms);
		if (source->open >= per_source) {
			METRICS_COUNT("skerry_listen_source_full_total",
				      "Connections refused because the source had its most.", 1);
			return false;
		}
		if (!bucket_take(&source->bucket, 1, now_ms)) {
			METRICS_COUNT(
				"skerry_listen_source_rate_total",
				"Connections refused because the source made too many a second.",
				1);
			return false;
		}
		if (source->open++ == 0) {
			list_remove(&source->link);
		}
	}
	struct seat *seat = MEM_NEW(struct seat);
	seat->sources = s;
	seat->source = source;
	s->refs++;
	s->open++;
	stream->on_free = seat_leave;
	stream->free_arg = seat;
	return true;
}
