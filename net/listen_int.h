/* Inside of listeners: counting connections per source, and the PROXY header. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/prefix.h"

struct stream;

/* Counts of open connections and a token bucket per source; outlives its listener as long as
 * streams are tied to it. */
struct sources;
struct sources *sources_new(void);
void sources_unref(struct sources *sources);

/*
 * Counts the stream until it is freed. False, and nothing is counted, when the source has
 * `per_source` connections or made more than `per_second` lately (both only if `limited`), or when
 * `max` are open in all.
 */
bool sources_enter(struct sources *sources, struct stream *stream, bool limited,
		   uint32_t per_source, uint32_t per_second, uint32_t max, uint64_t now_ms);

/*
 * PROXY protocol, version 1 and 2. Returns the header's length, 0 when more bytes are needed,
 * negative when it is wrong. *ret_local: the proxy speaks for itself (health check): the
 * connection's own address stands.
 */
int proxy_parse(const uint8_t *data, size_t len, struct ipport *ret_from, bool *ret_local);
