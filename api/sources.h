/* What source addresses have failed at: a token bucket each, for a bounded number of them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/map.h"

struct ipaddr;

/* Embedded. IPv6 sources count by their /64: whoever has one address has them all. Above `max` the least recently seen goes. */
struct sources {
	struct map map;
	struct list recent; /* the latest seen last */
	size_t max;
	uint64_t burst, per_ms;
};

void sources_init(struct sources *s, size_t max, uint64_t burst, uint64_t per_ms);
void sources_done(struct sources *s);
/* Counts one failure of `addr`; false: it had too many before. */
bool sources_fail(struct sources *s, const struct ipaddr *addr, uint64_t now_ms);
/* Milliseconds until a failure of it would count as allowed again; 0: now. */
uint64_t sources_wait_ms(struct sources *s, const struct ipaddr *addr, uint64_t now_ms);
