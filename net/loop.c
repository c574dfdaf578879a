#include "net/loop.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/loop_int.h"

/*
 * One turn: posts and timers and I/O callbacks run in uv's order; what they marked dirty is flushed
 * by the prepare handle, right before the loop looks for events again. The prepare handle keeps the
 * loop alive while hooks wait.
 */

struct job {
	uv_work_t req;
	struct loop *loop;
	void (*work)(void *arg);
	void (*done)(void *arg);
	void *arg;
};

struct loop {
	uv_loop_t uv;
	uv_async_t async; /* posts and stop requests; unreferenced unless a thread keeps the loop */
	uv_prepare_t prepare; /* runs the flush hooks */
	uv_timer_t tick;      /* armed for the earliest timer */
	char *name;

	pthread_mutex_t mutex; /* guards posts, n_posts */
	struct list posts;
	size_t n_posts;
	atomic_bool stop;

	struct loop_timer **heap;
	size_t heap_len, heap_cap;
	uint64_t seq;
	bool firing;

	struct list hooks;
	bool turning; /* inside loop_turn() */
	size_t jobs;
	size_t keeps; /* a thread and jobs that are alone: `async` keeps the loop alive */
	atomic_uint alone_threads;

	pthread_t owner;
	pthread_t thread;
	bool has_thread;

	atomic_uint_fast64_t turns; /* see loop_pulse() */
	atomic_int cpu_clock;       /* a clockid_t: of the thread in loop_run(), if there is one */
	atomic_bool running;

	uint8_t *scratch_read;
	uint8_t *scratch_plain;
	void *block[LOOP_BLOCKS];
	size_t blocks;
};

uint8_t *loop_scratch_read(struct loop *loop)
{
	if (loop->scratch_read == NULL) {
		loop->scratch_read = mem_alloc(LOOP_SCRATCH_READ);
	}
	return loop->scratch_read;
}

uint8_t *loop_scratch_plain(struct loop *loop)
{
	if (loop->scratch_plain == NULL) {
		loop->scratch_plain = mem_alloc(LOOP_SCRATCH_PLAIN);
	}
	return loop->scratch_plain;
}

void *loop_block_take(struct loop *loop)
{
	return loop->blocks > 0 ? loop->block[--loop->blocks] : mem_alloc(LOOP_BLOCK);
}

void loop_block_give(struct loop *loop, void *block)
{
	if (block != NULL && loop->blocks < LOOP_BLOCKS) {
		loop->block[loop->blocks++] = block;
	} else {
		mem_free(block);
	}
}

/* ---- Posts ----------------------------------------------------------------------------------- */

static void loop_run_posts(struct loop *loop)
{
	struct list batch;

	list_init(&batch);
	pthread_mutex_lock(&loop->mutex);
	list_splice(&batch, &loop->posts);
	pthread_mutex_unlock(&loop->mutex);

	struct list *l;
	while ((l = list_pop(&batch)) != NULL) {
		struct loop_post *post = LIST_ENTRY(l, struct loop_post, link);
		void (*fn)(void *) = post->fn;
		void *arg = post->arg;

		if (post->counted) {
			pthread_mutex_lock(&loop->mutex);
			loop->n_posts--;
			pthread_mutex_unlock(&loop->mutex);
		}
		if (!post->own) {
			mem_free(post);
		}
		fn(arg);
	}
}

static void loop_on_async(uv_async_t *async)
{
	struct loop *loop = async->data;

	loop_run_posts(loop);
	if (atomic_load(&loop->stop)) {
		uv_stop(&loop->uv);
	}
}

static void loop_post_locked(struct loop *loop, struct loop_post *post)
{
	bool wake = list_empty(&loop->posts);

	list_push(&loop->posts, &post->link);
	loop->n_posts += post->counted;
	if (wake) {
		uv_async_send(&loop->async);
	}
}

static int loop_post_any(struct loop *loop, void (*fn)(void *), void *arg, bool counted)
{
	struct loop_post *post = mem_alloc(sizeof(*post));

	*post = (struct loop_post){.fn = fn, .arg = arg, .counted = counted};
	pthread_mutex_lock(&loop->mutex);
	if (counted && loop->n_posts >= LIM_LOOP_POSTS) {
		pthread_mutex_unlock(&loop->mutex);
		mem_free(post);
		METRICS_COUNT("skerry_loop_posts_refused_total",
			      "Posts refused because a loop's queue was full.", 1);
		return ERR_LIMIT;
	}
	loop_post_locked(loop, post);
	pthread_mutex_unlock(&loop->mutex);
	return 0;
}

int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	return loop_post_any(loop, fn, arg, true);
}

void loop_post_reply(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	IGNORE(loop_post_any(loop, fn, arg, false));
}

void loop_post_own(struct loop *loop, struct loop_post *post, void (*fn)(void *arg), void *arg)
{
	*post = (struct loop_post){.fn = fn, .arg = arg, .own = true};
	pthread_mutex_lock(&loop->mutex);
	loop_post_locked(loop, post);
	pthread_mutex_unlock(&loop->mutex);
}

/* ---- Timers: a binary heap ordered by (due, seq) --------------------------------------------- */

static bool timer_before(const struct loop_timer *a, const struct loop_timer *b)
{
	return a->due != b->due ? a->due < b->due : a->seq < b->seq;
}

static void heap_set(struct loop *loop, size_t pos, struct loop_timer *timer)
{
	loop->heap[pos] = timer;
	timer->pos = pos;
}

static void heap_up(struct loop *loop, size_t pos)
{
	struct loop_timer *timer = loop->heap[pos];

	while (pos > 0 && timer_before(timer, loop->heap[(pos - 1) / 2])) {
		heap_set(loop, pos, loop->heap[(pos - 1) / 2]);
		pos = (pos - 1) / 2;
	}
	heap_set(loop, pos, timer);
}

static void heap_down(struct loop *loop, size_t pos)
{
	struct loop_timer *timer = loop->heap[pos];

	for (;;) {
		size_t child = 2 * pos + 1;

		if (child >= loop->heap_len) {
			break;
		}
		if (child + 1 < loop->heap_len &&
		    timer_before(loop->heap[child + 1], loop->heap[child])) {
			child++;
		}
		if (!timer_before(loop->heap[child], timer)) {
			break;
		}
		heap_set(loop, pos, loop->heap[child]);
		pos = child;
	}
	heap_set(loop, pos, timer);
}

static void loop_on_tick(uv_timer_t *handle);

/* `least`: 1 after a firing, or uv would run a timer that restarts itself for ever before it looks
 * at anything else. */
static void loop_arm(struct loop *loop, uint64_t least)
{
	if (loop->firing) {
		return;
	}
	if (loop->heap_len == 0) {
		uv_timer_stop(&loop->tick);
		return;
	}
	uint64_t now = uv_now(&loop->uv);
	uint64_t due = loop->heap[0]->due;
	uv_timer_start(&loop->tick, loop_on_tick, due > now ? due - now : least, 0);
}

static void loop_on_tick(uv_timer_t *handle)
{
	struct loop *loop = handle->data;
	uint64_t now = uv_now(&loop->uv);
	uint64_t limit = loop->seq; /* timers started by these callbacks wait for the next turn */

	loop->firing = true;
	while (loop->heap_len > 0 && loop->heap[0]->due <= now && loop->heap[0]->seq < limit) {
		struct loop_timer *timer = loop->heap[0];

		loop_timer_stop(timer);
		timer->cb(timer->arg);
	}
	loop->firing = false;
	if (loop->turning) {
		uv_async_send(
			&loop->async); /* this turn must not sleep now: see loop_on_prepare() */
	}
	loop_arm(loop, 1);
}

void loop_timer_start(struct loop_timer *timer, struct loop *loop, uint64_t ms,
		      void (*cb)(void *arg), void *arg)
{
	loop_timer_stop(timer);
	uv_update_time(&loop->uv);
	uint64_t now = uv_now(&loop->uv);
	timer->loop = loop;
	timer->due = ms > UINT64_MAX - now ? UINT64_MAX : now + ms;
	timer->seq = loop->seq++;
	timer->cb = cb;
	timer->arg = arg;
	if (loop->heap_len == loop->heap_cap) {
		loop->heap_cap = loop->heap_cap == 0 ? 64 : loop->heap_cap * 2;
		loop->heap = mem_reallocarray(loop->heap, loop->heap_cap, sizeof(*loop->heap));
	}
	heap_set(loop, loop->heap_len++, timer);
	heap_up(loop, timer->pos);
	if (timer->pos == 0) {
		loop_arm(loop, 0);
	}
}

void loop_timer_stop(struct loop_timer *timer)
{
	struct loop *loop = timer->loop;

	if (loop == NULL) {
		return;
	}
	size_t pos = timer->pos;
	struct loop_timer *last = loop->heap[--loop->heap_len];
	if (last != timer) {
		heap_set(loop, pos, last);
		heap_up(loop, pos);
		heap_down(loop, last->pos);
	}
	timer->loop = NULL;
	/* What is armed may be early now: then it looks, and is armed anew. Calls that end long before their deadline, one
	 * after the other, cost no more than that. */
	if (loop->heap_len == 0) {
		loop_arm(loop, 0);
	}
}

/* ---- Flush hooks ----------------------------------------------------------------------------- */

static void loop_on_prepare(uv_prepare_t *handle)
{
	struct loop *loop = handle->data;
	struct list batch;

	atomic_fetch_add_explicit(&loop->turns, 1, memory_order_relaxed);
	list_init(&batch);
	list_splice(&batch, &loop->hooks);
	bool ran = !list_empty(&batch);
	struct list *l;
	while ((l = list_pop(&batch)) != NULL) {
		struct flush_hook *hook = LIST_ENTRY(l, struct flush_hook, link);

		hook->loop = NULL;
		hook->run(hook->arg);
	}
	if (list_empty(&loop->hooks)) {
		uv_unref((uv_handle_t *)&loop->prepare);
	}
	if (!list_empty(&loop->hooks) || (ran && loop->turning)) {
		/* The loop must not sleep before the next turn; nor may loop_turn(), whose caller
		 * may have got what he awaits. */
		uv_async_send(&loop->async);
	}
}

void loop_flush_add(struct loop *loop, struct flush_hook *hook)
{
	if (hook->loop != NULL) {
		return;
	}
	hook->loop = loop;
	list_push(&loop->hooks, &hook->link);
	uv_ref((uv_handle_t *)&loop->prepare);
}

void loop_flush_remove(struct flush_hook *hook)
{
	if (hook->loop == NULL) {
		return;
	}
	hook->loop = NULL;
	list_remove(&hook->link);
}

/* ---- Jobs ------------------------------------------------------------------------------------ */

static void job_work(uv_work_t *req)
{
	struct job *job = req->data;

	job->work(job->arg);
}

static void job_done(uv_work_t *req, int status)
{
	struct job *job = req->data;

	(void)status;
	job->loop->jobs--;
	job->done(job->arg);
	mem_free(job);
}

int loop_work(struct loop *loop, void (*work)(void *arg), void (*done)(void *arg), void *arg)
{
	if (loop->jobs >= LIM_LOOP_WORK) {
		return ERR_LIMIT;
	}
	struct job *job = MEM_NEW(struct job);
	job->loop = loop;
	job->work = work;
	job->done = done;
	job->arg = arg;
	job->req.data = job;
	loop->jobs++;
	if (uv_queue_work(&loop->uv, &job->req, job_work, job_done) != 0) {
		IMPOSSIBLE("uv_queue_work with a work function");
	}
	return 0;
}

/* What is posted keeps no loop alive. */
static void keep(struct loop *loop)
{
	if (loop->keeps++ == 0) {
		uv_ref((uv_handle_t *)&loop->async);
	}
}

static void keep_end(struct loop *loop)
{
	if (--loop->keeps == 0) {
		uv_unref((uv_handle_t *)&loop->async);
	}
}

/* Jobs that are alone: the thread touches the loop last where it counts itself out, and loop_free() waits for that. */
static void alone_done(void *arg)
{
	struct job *job = arg;
	struct loop *loop = job->loop;

	loop->jobs--;
	keep_end(loop);
	job->done(job->arg);
	mem_free(job);
}

static void *alone_main(void *arg)
{
	struct job *job = arg;
	struct loop *loop = job->loop;

	pthread_setname_np(pthread_self(), "alone");
	job->work(job->arg);
	loop_post_reply(loop, alone_done, job);
	atomic_fetch_sub(&loop->alone_threads, 1);
	return NULL;
}

int loop_work_alone(struct loop *loop, void (*work)(void *arg), void (*done)(void *arg), void *arg)
{
	sigset_t all, old;
	pthread_t thread;
	struct job *job;
	int rc;

	if (loop->jobs >= LIM_LOOP_WORK) {
		return ERR_LIMIT;
	}
	job = MEM_NEW(struct job);
	job->loop = loop;
	job->work = work;
	job->done = done;
	job->arg = arg;
	atomic_fetch_add(&loop->alone_threads, 1);
	/* Signals are the main thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&thread, NULL, alone_main, job);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0) {
		atomic_fetch_sub(&loop->alone_threads, 1);
		mem_free(job);
		return ERR_LIMIT;
	}
	pthread_detach(thread);
	loop->jobs++;
	keep(loop);
	return 0;
}

void loop_work_yield(int steps)
{
	struct sched_param none = {0};

	/* Without the wish to be quick after a sleep; either may be forbidden, and the job is done all the same. */
	IGNORE(pthread_setschedparam(pthread_self(), SCHED_BATCH, &none) != 0);
	errno = 0;
	IGNORE(nice(steps) == -1 && errno != 0);
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* A write to a connection that the other side has reset is an error of that write, not the end of
 * the process. */
static void ignore_sigpipe(void)
{
	struct sigaction old;

	if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
		signal(SIGPIPE, SIG_IGN);
	}
}

struct loop *loop_new(const char *name)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, ignore_sigpipe);
	struct loop *loop = MEM_NEW(struct loop);

	if (uv_loop_init(&loop->uv) != 0 ||
	    uv_async_init(&loop->uv, &loop->async, loop_on_async) != 0 ||
	    uv_prepare_init(&loop->uv, &loop->prepare) != 0 ||
	    uv_timer_init(&loop->uv, &loop->tick) != 0) {
		IMPOSSIBLE("no file descriptors or memory for an event loop");
	}
	loop->async.data = loop;
	loop->prepare.data = loop;
	loop->tick.data = loop;
	uv_prepare_start(&loop->prepare, loop_on_prepare);
	uv_unref((uv_handle_t *)&loop->prepare);
	uv_unref((uv_handle_t *)&loop->async);
	pthread_mutex_init(&loop->mutex, NULL);
	list_init(&loop->posts);
	list_init(&loop->hooks);
	loop->name = mem_strdup(name);
	loop->owner = pthread_self();
	return loop;
}

/* Handles that are not the loop's own: streams that still send their last bytes. */
static void loop_count_foreign(uv_handle_t *handle, void *arg)
{
	struct loop *loop = handle->loop->data;

	if (handle != (uv_handle_t *)&loop->async && handle != (uv_handle_t *)&loop->prepare &&
	    handle != (uv_handle_t *)&loop->tick) {
		++*(size_t *)arg;
	}
}

static bool loop_has_foreign(struct loop *loop)
{
	size_t n = 0;

	loop->uv.data = loop;
	uv_walk(&loop->uv, loop_count_foreign, &n);
	return n > 0;
}

void loop_free(struct loop *loop)
{
	if (loop == NULL) {
		return;
	}
	PRE(!loop->has_thread);
	loop->owner = pthread_self();
	while (atomic_load(&loop->alone_threads) > 0) {
		usleep(100);
	}
	/* What was posted or marked before the end still runs: it may hold the last reference to
	 * something. */
	for (int i = 0; i < 8; i++) {
		loop_run_posts(loop);
		uv_run(&loop->uv, UV_RUN_NOWAIT);
	}
	/* Closed streams linger by a timer, so timers go on until they are gone. */
	while (loop->heap_len > 0 && loop_has_foreign(loop)) {
		loop_run_posts(loop);
		uv_run(&loop->uv, UV_RUN_ONCE);
	}
	uv_close((uv_handle_t *)&loop->async, NULL);
	uv_close((uv_handle_t *)&loop->prepare, NULL);
	uv_close((uv_handle_t *)&loop->tick, NULL);
	for (size_t i = 0; i < loop->heap_len; i++) {
		loop->heap[i]->loop = NULL; /* stopping it later is harmless */
	}
	loop->heap_len = 0;
	uv_run(&loop->uv, UV_RUN_DEFAULT);
	if (uv_loop_close(&loop->uv) != 0) {
		uv_print_all_handles(&loop->uv, stderr);
		IMPOSSIBLE("a loop was freed with open handles");
	}
	pthread_mutex_destroy(&loop->mutex);
	mem_free(loop->heap);
	mem_free(loop->scratch_read);
	mem_free(loop->scratch_plain);
	while (loop->blocks > 0) {
		mem_free(loop->block[--loop->blocks]);
	}
	mem_free(loop->name);
	mem_free(loop);
}

static void loop_own(struct loop *loop)
{
	if (!loop_is_here(loop)) {
		loop->owner = pthread_self();
	}
}

bool loop_pulse(const struct loop *loop, struct loop_pulse *ret)
{
	struct timespec t;

	/* A thread that has ended meanwhile has no clock any more. */
	if (!atomic_load(&loop->running) || clock_gettime(atomic_load(&loop->cpu_clock), &t) != 0) {
		return false;
	}
	ret->turns = atomic_load_explicit(&loop->turns, memory_order_relaxed);
	ret->cpu_ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
	return true;
}

void loop_signal_thread(const struct loop *loop, int sig)
{
	if (atomic_load(&loop->running)) {
		pthread_kill(loop->owner, sig);
	}
}

void loop_run(struct loop *loop)
{
	clockid_t clock;

	loop_own(loop);
	if (pthread_getcpuclockid(pthread_self(), &clock) == 0) {
		atomic_store(&loop->cpu_clock, clock);
		atomic_store(&loop->running, true);
	}
	loop_run_posts(
		loop); /* posts do not keep a loop alive, but they are not lost on an idle one */
	if (!atomic_load(&loop->stop)) {
		uv_run(&loop->uv, UV_RUN_DEFAULT);
	}
	atomic_store(&loop->running, false);
	atomic_store(&loop->stop, false);
}

void loop_turn(struct loop *loop, bool wait)
{
	loop_own(loop);
	loop_run_posts(loop);
	loop->turning = true;
	uv_run(&loop->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
	loop->turning = false;
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stop, true);
	uv_async_send(&loop->async);
}

uv_loop_t *loop_uv(struct loop *loop)
{
	return &loop->uv;
}

uint64_t loop_now(struct loop *loop)
{
	return uv_now(&loop->uv);
}

void loop_update_time(struct loop *loop)
{
	uv_update_time(&loop->uv);
}

bool loop_is_here(const struct loop *loop)
{
	return pthread_equal(loop->owner, pthread_self()) != 0;
}

const char *loop_name(const struct loop *loop)
{
	return loop->name;
}

static void *loop_main(void *arg)
{
	struct loop *loop = arg;
	char name[16];

	/* Until the starter has written down whose the loop is. */
	pthread_mutex_lock(&loop->mutex);
	pthread_mutex_unlock(&loop->mutex);
	strncpy(name, loop->name, sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	pthread_setname_np(pthread_self(), name);
	loop_run(loop);
	return NULL;
}

int loop_thread_start(struct loop *loop)
{
	sigset_t all, old;

	PRE(!loop->has_thread);
	keep(loop);
	/* Signals are the main thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_mutex_lock(&loop->mutex);
	int rc = pthread_create(&loop->thread, NULL, loop_main, loop);
	if (rc == 0) {
		loop->owner = loop->thread;
	}
	pthread_mutex_unlock(&loop->mutex);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0) {
		keep_end(loop);
		return -rc;
	}
	loop->has_thread = true;
	return 0;
}

void loop_thread_join(struct loop *loop)
{
	if (!loop->has_thread) {
		return;
	}
	pthread_join(loop->thread, NULL);
	loop->has_thread = false;
	loop->owner = pthread_self();
	keep_end(loop);
}
