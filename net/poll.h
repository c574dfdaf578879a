/* Readiness of foreign descriptors, and signals, on a loop: for programs that have no uv of their own. */
#pragma once

#include "base/macros.h"

struct loop;
struct loop_poll;
struct loop_signal;

/*
 * Calls cb(arg) whenever the descriptor (borrowed; it must stay open until loop_poll_free) can be read. cb may free the
 * poll. Returns NULL when the descriptor cannot be watched (a regular file). Thread: the loop's.
 */
struct loop_poll *loop_poll_new(struct loop *loop, int fd, void (*cb)(void *arg), void *arg);
/* No callback comes any more; the descriptor may be closed. NULL ok. */
void loop_poll_free(struct loop_poll *poll);

/* Calls cb(arg, signum) on the loop for each delivery. Keeps the loop alive. Never NULL. */
struct loop_signal *loop_signal_new(struct loop *loop, int signum,
				    void (*cb)(void *arg, int signum), void *arg);
/* NULL ok. */
void loop_signal_free(struct loop_signal *signal);
