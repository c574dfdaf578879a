/* A byte pump between two streams, with back-pressure both ways: TLS on one side, libraft's socketpair on the other. */
#pragma once

#include <stdbool.h>

#include "base/err.h"

struct peer_pump;
struct stream;

/*
 * Once, from the loop: the pump ended because one of its sides did; it is gone when this returns. `remote`: it was
 * stream b. What a side had sent before its end is still delivered to the other.
 */
typedef void (*peer_pump_cb)(void *arg, bool remote, const struct err *why);

/*
 * Joins the streams and takes both. `a`: the local one, over one end of a socketpair: who has its other end may write and
 * never read. `b`: the remote one. Never NULL.
 */
struct peer_pump *peer_pump_new(struct stream *a, struct stream *b, peer_pump_cb cb, void *arg);

/* Cuts both sides at once; no callback comes. NULL is fine. */
void peer_pump_free(struct peer_pump *pump);
