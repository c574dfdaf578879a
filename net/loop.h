/* A uv loop with its thread, a bounded queue of posts from other threads, cheap timers and a flush
 * point per turn. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/list.h"
#include "base/macros.h"

/*
 * Everything in net/ belongs to one loop and is used on that loop's thread only. The exceptions are
 * said at the declaration: loop_post*, loop_stop, loop_thread_*. What crosses threads is an id in a
 * message, never a pointer to a live object.
 */
struct loop;

/* Makes a loop that runs on whichever thread calls loop_run(). `name` (copied) is for metrics and
 * thread names. The first one sets SIGPIPE to be ignored in the process, unless something else was
 * set. */
struct loop *loop_new(const char *name);

/* Frees a stopped loop. All handles made on it must be closed; uv handles still closing, and streams
 * that send their rest (at most LIM_STREAM_LINGER_MS), are run to their end. NULL ok. */
void loop_free(struct loop *loop);

/* Runs until loop_stop(), or until nothing is left that keeps the loop alive (posts alone do not).
 */
void loop_run(struct loop *loop);

/* Runs one turn; `wait` says whether it may block for events. For tests and for shutdown sequences.
 */
void loop_turn(struct loop *loop, bool wait);

/* Ends loop_run() after the current turn. Any thread. */
void loop_stop(struct loop *loop);

/* The uv loop, to make own handles on. */
uv_loop_t *loop_uv(struct loop *loop);

/* The loop's clock: milliseconds, monotonic, fixed during a turn until loop_update_time(). */
uint64_t loop_now(struct loop *loop);
void loop_update_time(struct loop *loop);

/* True on the thread that runs (or, before the first run, made) the loop. */
bool loop_is_here(const struct loop *loop);

const char *loop_name(const struct loop *loop);

/* What the thread in loop_run() does: turns that it began, and the processor time that it has used since it exists. */
struct loop_pulse {
	uint64_t turns, cpu_ns;
};

/* Any thread, while the loop is there. False: no thread is in loop_run(). */
bool loop_pulse(const struct loop *loop, struct loop_pulse *ret);
/* Sends the signal to the thread in loop_run(), if there is one. Any thread, while the loop is there. */
void loop_signal_thread(const struct loop *loop, int sig);

/*
 * Runs fn(arg) on the loop's thread in a later turn, in the order of posting. Any thread.
 * Returns 0, or ERR_LIMIT when LIM_LOOP_POSTS are waiting (nothing is queued then: the caller
 * answers with that).
 */
MUST_CHECK int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* The same for what must not be lost (replies, releases): always queues. Use it only where each
 * post answers a request. */
void loop_post_reply(struct loop *loop, void (*fn)(void *arg), void *arg);
/* The same in memory of the caller's, which is his again when fn runs: for what travels to a loop and is freed there. */
struct loop_post {
	struct list link;
	void (*fn)(void *arg);
	void *arg;
	bool counted, own; /* private */
};
void loop_post_own(struct loop *loop, struct loop_post *post, void (*fn)(void *arg), void *arg);

/*
 * Starts a thread that runs the loop until loop_stop(); loop_thread_join() waits for its end. The
 * loop stays alive while the thread is wanted even when idle. Returns 0 or -errno.
 */
MUST_CHECK int loop_thread_start(struct loop *loop);
void loop_thread_join(struct loop *loop);

/*
 * Timers: embedded, one shot, no asynchronous close. A stopped or fired timer's memory may be freed
 * at once. Zeroed memory is a stopped timer. Pending timers keep the loop alive.
 */
struct loop_timer {
	struct loop *loop; /* non-NULL while running */
	uint64_t due;      /* loop_now() time */
	uint64_t seq;      /* order among equals */
	size_t pos;        /* place in the heap */
	void (*cb)(void *arg);
	void *arg;
};

/* (Re)starts the timer: cb(arg) once, on the loop, not before `ms` from now (never inside this
 * call). */
void loop_timer_start(struct loop_timer *timer, struct loop *loop, uint64_t ms,
		      void (*cb)(void *arg), void *arg);
void loop_timer_stop(struct loop_timer *timer);

static inline bool loop_timer_active(const struct loop_timer *timer)
{
	return timer->loop != NULL;
}

/*
 * Flush hooks: a hook that was added is run once, at the end of the current loop turn, before the
 * loop sleeps; it may be added again from its own run (it then runs in the next turn). Adding it
 * twice in a turn is harmless.
 */
struct flush_hook {
	struct list link;
	struct loop *loop; /* non-NULL while on the list */
	void (*run)(void *arg);
	void *arg;
};

void loop_flush_add(struct loop *loop, struct flush_hook *hook);
void loop_flush_remove(struct flush_hook *hook);

/*
 * Runs work(arg) on a thread of the uv pool, then done(arg) on the loop. Returns 0 or ERR_LIMIT
 * when LIM_LOOP_WORK jobs wait. `arg` belongs to the job until done().
 */
MUST_CHECK int loop_work(struct loop *loop, void (*work)(void *arg), void (*done)(void *arg),
			 void *arg);
/*
 * The same on a thread that is there for this job alone, and may call loop_work_yield(). For long ones. ERR_LIMIT also
 * when there is no thread to be had.
 */
MUST_CHECK int loop_work_alone(struct loop *loop, void (*work)(void *arg), void (*done)(void *arg),
			       void *arg);
/* From inside of such a job: from here on others come first, by so many steps of nice(2). There is no way back. */
void loop_work_yield(int steps);
