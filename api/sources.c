#include "api/sources.h"

#include <string.h>

#include "base/bucket.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/prefix.h"

enum { KEY = 9 };

struct source {
	struct list link;
	struct bucket failures;
	uint8_t key[KEY];
};

static void key_of(const struct ipaddr *addr, uint8_t key[KEY])
{
	memset(key, 0, KEY);
	key[0] = addr->family;
	memcpy(key + 1, addr->b, addr->family == 6 ? 8 : 4);
}

static struct source *find(struct sources *s, const struct ipaddr *addr)
{
	struct source *found;
	uint8_t key[KEY];

	key_of(addr, key);
	found = map_get(&s->map, key, KEY);
	if (found) {
		list_remove(&found->link);
		list_push(&s->recent, &found->link);
	}
	return found;
}

static struct source *make(struct sources *s, const struct ipaddr *addr, uint64_t now_ms)
{
	struct source *made = MEM_NEW(struct source);

	if (map_len(&s->map) >= s->max) {
		struct source *oldest = LIST_ENTRY(list_pop(&s->recent), struct source, link);

		map_del(&s->map, oldest->key, KEY);
		mem_free(oldest);
		METRICS_COUNT("skerry_api_sources_forgotten_total",
			      "Source addresses forgotten because more than the limit had failed.",
			      1);
	}
	key_of(addr, made->key);
	bucket_init(&made->failures, s->burst, s->per_ms, now_ms);
	map_put(&s->map, made->key, KEY, made);
	list_push(&s->recent, &made->link);
	return made;
}

bool sources_fail(struct sources *s, const struct ipaddr *addr, uint64_t now_ms)
{
	struct source *src = find(s, addr);

	if (!src)
		src = make(s, addr, now_ms);
	return bucket_take(&src->failures, 1, now_ms);
}

uint64_t sources_wait_ms(struct sources *s, const struct ipaddr *addr, uint64_t now_ms)
{
	struct source *src = find(s, addr);

	return src ? bucket_wait_ms(&src->failures, 1, now_ms) : 0;
}

void sources_init(struct sources *s, size_t max, uint64_t burst, uint64_t per_ms)
{
	map_init(&s->map);
	list_init(&s->recent);
	s->max = max;
	s->burst = burst;
	s->per_ms = per_ms;
}

void sources_done(struct sources *s)
{
	while (!list_empty(&s->recent))
		mem_free(LIST_ENTRY(list_pop(&s->recent), struct source, link));
	map_done(&s->map);
}
