/* LIBS: net */
#include "tests/lib/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/limits.h"
#include "net/loop.h"

/* ---- Timers ---------------------------------------------------------------------------------- */

struct shot {
	struct loop_timer timer;
	struct loop *loop;
	int fired;
	int *order;
	int rank;
};

static void on_shot(void *arg)
{
	struct shot *s = arg;

	s->fired++;
	if (s->order != NULL) {
		s->rank = ++*s->order;
	}
}

static void test_timers_in_order(void **state)
{
	struct loop *loop = loop_new("t");
	struct shot shots[20] = {0};
	int order = 0;

	(void)state;
	for (int i = 0; i < 20; i++) {
		shots[i].order = &order;
		loop_timer_start(&shots[i].timer, loop, (uint64_t)((i * 7) % 20) / 2, on_shot,
				 &shots[i]);
	}
	loop_timer_stop(&shots[5].timer);
	loop_run(loop);
	assert_int_equal(order, 19);
	assert_int_equal(shots[5].fired, 0);
	for (int i = 0; i < 20; i++) {
		for (int j = 0; j < 20; j++) {
			int a = (i * 7) % 20 / 2, b = (j * 7) % 20 / 2;

			/* Earlier first; equal ones in the order of starting. */
			if (i != 5 && j != 5 && (a < b || (a == b && i < j))) {
				assert_true(shots[i].rank < shots[j].rank);
			}
		}
	}
	loop_free(loop);
}

static void on_restart(void *arg)
{
	struct shot *s = arg;

	if (++s->fired < 3) {
		loop_timer_start(&s->timer, s->loop, 0, on_restart, s);
	}
}

static void test_timer_restarts_itself_in_later_turns(void **state)
{
	struct shot s = {.loop = loop_new("t")};

	(void)state;
	loop_timer_start(&s.timer, s.loop, 0, on_restart, &s);
	loop_turn(s.loop, false);
	assert_int_equal(s.fired, 1);
	loop_run(s.loop);
	assert_int_equal(s.fired, 3);
	assert_false(loop_timer_active(&s.timer));
	loop_free(s.loop);
}

struct stopper {
	struct shot victim;
	struct loop_timer timer;
};

static void on_stopper(void *arg)
{
	struct stopper *s = arg;

	loop_timer_stop(&s->victim.timer);
	memset(&s->victim.timer, 0xff, sizeof(s->victim.timer)); /* its memory is ours at once */
}

static void test_stop_other_timer_inside_callback(void **state)
{
	struct loop *loop = loop_new("t");
	struct stopper s = {0};

	(void)state;
	loop_timer_start(&s.timer, loop, 1, on_stopper, &s);
	loop_timer_start(&s.victim.timer, loop, 1, on_shot, &s.victim);
	loop_run(loop);
	assert_int_equal(s.victim.fired, 0);
	loop_free(loop);
}

/* ---- Posts ----------------------------------------------------------------------------------- */

struct counter {
	int n;
	int last;
	bool ordered;
	struct loop *loop;
	int target;
};

struct numbered {
	struct counter *counter;
	int number;
};

static void on_post(void *arg)
{
	struct numbered *p = arg;
	struct counter *c = p->counter;

	assert_true(loop_is_here(c->loop));
	c->ordered &= p->number == c->last + 1;
	c->last = p->number;
	if (++c->n == c->target) {
		loop_stop(c->loop);
	}
}

static void test_posts_from_a_thread_in_order(void **state)
{
	enum { N = 5000 };
	static struct numbered posts[N];
	struct counter c = {.ordered = true, .target = N};

	(void)state;
	c.loop = loop_new("posts");
	assert_ok(loop_thread_start(c.loop));
	assert_false(loop_is_here(c.loop));
	for (int i = 0; i < N; i++) {
		posts[i] = (struct numbered){&c, i + 1};
		assert_ok(loop_post(c.loop, on_post, &posts[i]));
	}
	loop_thread_join(c.loop);
	assert_int_equal(c.n, N);
	assert_true(c.ordered);
	loop_free(c.loop);
}

static void nothing(void *arg)
{
	++*(int *)arg;
}

static void test_post_queue_is_bounded(void **state)
{
	struct loop *loop = loop_new("full");
	int n = 0;

	(void)state;
	for (int i = 0; i < LIM_LOOP_POSTS; i++) {
		assert_ok(loop_post(loop, nothing, &n));
	}
	assert_err(loop_post(loop, nothing, &n), ERR_LIMIT);
	loop_post_reply(loop, nothing, &n); /* what must not be lost still goes in */
	loop_turn(loop, false);
	assert_int_equal(n, LIM_LOOP_POSTS + 1);
	assert_ok(loop_post(loop, nothing, &n));
	loop_free(loop); /* runs what waits */
	assert_int_equal(n, LIM_LOOP_POSTS + 2);
}

/* ---- Flush hooks ----------------------------------------------------------------------------- */

struct flusher {
	struct flush_hook hook;
	struct loop *loop;
	int runs;
	int again;
};

static void on_flush(void *arg)
{
	struct flusher *f = arg;

	f->runs++;
	if (f->again-- > 0) {
		loop_flush_add(f->loop, &f->hook);
	}
}

static void test_flush_once_per_turn(void **state)
{
	struct flusher f = {.loop = loop_new("f"), .again = 2};

	(void)state;
	f.hook.run = on_flush;
	f.hook.arg = &f;
	loop_flush_add(f.loop, &f.hook);
	loop_flush_add(f.loop, &f.hook);
	loop_turn(f.loop, false);
	assert_int_equal(f.runs, 1);
	loop_run(f.loop); /* a waiting hook keeps the loop alive */
	assert_int_equal(f.runs, 3);
	loop_flush_add(f.loop, &f.hook);
	loop_flush_remove(&f.hook);
	loop_turn(f.loop, false);
	assert_int_equal(f.runs, 3);
	loop_free(f.loop);
}

/* ---- Jobs ------------------------------------------------------------------------------------ */

struct task {
	struct loop *loop;
	pthread_t worker;
	int done, steps, result;
};

static void work(void *arg)
{
	((struct task *)arg)->worker = pthread_self();
}

static void work_done(void *arg)
{
	struct task *t = arg;

	assert_true(loop_is_here(t->loop));
	t->done++;
}

static void test_work(void **state)
{
	struct task t = {.loop = loop_new("w")};

	(void)state;
	assert_ok(loop_work(t.loop, work, work_done, &t));
	loop_run(t.loop);
	assert_int_equal(t.done, 1);
	assert_false(pthread_equal(t.worker, pthread_self()));
	loop_free(t.loop);
}

/* ---- Jobs that are alone --------------------------------------------------------------------- */

static int nice_of_this_thread(void)
{
	return getpriority(PRIO_PROCESS, (id_t)gettid());
}

static void work_alone(void *arg)
{
	struct task *t = arg;
	int before = nice_of_this_thread();

	t->worker = pthread_self();
	usleep(20000);
	loop_work_yield(3);
	t->steps = nice_of_this_thread() - before;
}

static void test_work_alone(void **state)
{
	struct task t[2] = {{.loop = loop_new("w")}};
	int before = nice_of_this_thread();

	(void)state;
	t[1].loop = t[0].loop;
	assert_ok(loop_work_alone(t[0].loop, work_alone, work_done, &t[0]));
	assert_ok(loop_work_alone(t[0].loop, work_alone, work_done, &t[1]));
	/* Nothing else keeps it alive. */
	loop_run(t[0].loop);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(t[i].done, 1);
		assert_false(pthread_equal(t[i].worker, pthread_self()));
		assert_true(t[i].steps == 3 || before > 16);
	}
	assert_int_equal(nice_of_this_thread(), before);
	loop_free(t[0].loop);
}

static void stop_it(void *arg)
{
	work_done(arg);
	loop_stop(((struct task *)arg)->loop);
}

static void begin_alone(void *arg)
{
	struct task *t = arg;

	t->result = loop_work_alone(t->loop, work, stop_it, t);
}

/* The loop may end right after the job. */
static void test_work_alone_is_the_last(void **state)
{
	(void)state;
	for (int i = 0; i < 200; i++) {
		struct task t = {.loop = loop_new("w")};

		assert_ok(loop_thread_start(t.loop));
		loop_post_reply(t.loop, begin_alone, &t);
		loop_thread_join(t.loop);
		assert_ok(t.result);
		assert_int_equal(t.done, 1);
		loop_free(t.loop);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timers_in_order),
		cmocka_unit_test(test_timer_restarts_itself_in_later_turns),
		cmocka_unit_test(test_stop_other_timer_inside_callback),
		cmocka_unit_test(test_posts_from_a_thread_in_order),
		cmocka_unit_test(test_post_queue_is_bounded),
		cmocka_unit_test(test_flush_once_per_turn),
		cmocka_unit_test(test_work),
		cmocka_unit_test(test_work_alone),
		cmocka_unit_test(test_work_alone_is_the_last),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
