/* Changes of each commit, handed to the loops that subscribed: shared, in order, bounded. */
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "cluster/cluster_int.h"

enum {
	/* Changes that wait for one slow loop; above it gets one `reset` in their place. */
	WAITING_MAX = 65536,
};

struct batch {
	atomic_uint refs;
	struct cluster_changes changes;
};

struct waiting {
	struct list node;
	struct batch *batch;
};

struct subscriber {
	struct list node;
	struct cluster *c;
	struct loop *loop;
	changes_cb cb;
	void *arg;
	/* under changes_lock */
	struct list queue;
	size_t waiting;
	bool posted, reset;
	uint64_t epoch, revision; /* of the last commit, for a reset */
};

static void batch_unref(struct batch *b)
{
	if (atomic_fetch_sub(&b->refs, 1) == 1) {
		mem_free(b);
	}
}

static void queue_clear(struct subscriber *s)
{
	while (!list_empty(&s->queue)) {
		struct waiting *w = LIST_ENTRY(list_pop(&s->queue), struct waiting, node);

		batch_unref(w->batch);
		mem_free(w);
	}
	s->waiting = 0;
}

/* On the subscriber's loop. */
static void deliver(void *arg)
{
	struct subscriber *s = arg;
	struct cluster_changes reset = {.reset = true};
	struct list queue;
	bool told;

	if (s->c == NULL) { /* the cluster was closed meanwhile */
		mem_free(s);
		return;
	}
	list_init(&queue);
	pthread_mutex_lock(&s->c->changes_lock);
	list_splice(&queue, &s->queue);
	s->waiting = 0;
	s->posted = false;
	told = s->reset;
	s->reset = false;
	reset.epoch = s->epoch;
	reset.revision = s->revision;
	pthread_mutex_unlock(&s->c->changes_lock);
	/* A reset covers all that was waiting: the queue was cleared when it was set. */
	if (told) {
		s->cb(s->arg, &reset);
	}
	while (!list_empty(&queue)) {
		struct waiting *w = LIST_ENTRY(list_pop(&queue), struct waiting, node);

		if (!told || w->batch->changes.revision > reset.revision) {
			s->cb(s->arg, &w->batch->changes);
		}
		batch_unref(w->batch);
		mem_free(w);
	}
}

static void wake(struct subscriber *s)
{
	if (!s->posted) {
		s->posted = true;
		loop_post_reply(s->loop, deliver, s);
	}
}

void cluster_subscribe(struct cluster *c, struct loop *loop, changes_cb cb, void *arg)
{
	struct subscriber *s = MEM_NEW(struct subscriber);

	s->c = c;
	s->loop = loop;
	s->cb = cb;
	s->arg = arg;
	list_init(&s->queue);
	pthread_mutex_lock(&c->changes_lock);
	list_push(&c->subscribers, &s->node);
	pthread_mutex_unlock(&c->changes_lock);
}

void changes_applied(struct cluster *c, const struct applied *a)
{
	struct batch *b;
	bool nobody;

	pthread_mutex_lock(&c->changes_lock);
	nobody = list_empty(&c->subscribers);
	pthread_mutex_unlock(&c->changes_lock);
	if (a->n_changes == 0 || nobody) {
		return;
	}
	b = mem_zalloc(sizeof(*b) + a->n_changes * sizeof(struct cluster_change));
	atomic_init(&b->refs, 1);
	b->changes.epoch = a->epoch;
	b->changes.revision = a->revision;
	b->changes.n = a->n_changes;
	for (size_t i = 0; i < a->n_changes; i++) {
		const struct change *x = &a->change[i];

		b->changes.change[i] = (struct cluster_change){
			.tailnet = x->tailnet,
			.object = x->object,
			.revision = x->revision,
			.kind = x->kind,
			.deleted = x->deleted,
			.visibility = x->visibility,
		};
	}
	pthread_mutex_lock(&c->changes_lock);
	LIST_FOREACH(&c->subscribers, it)
	{
		struct subscriber *s = LIST_ENTRY(it, struct subscriber, node);

		s->epoch = a->epoch;
		s->revision = a->revision;
		if (s->reset || s->waiting + a->n_changes > WAITING_MAX) {
			queue_clear(s);
			s->reset = true;
		} else {
			struct waiting *w = MEM_NEW(struct waiting);

			w->batch = b;
			atomic_fetch_add(&b->refs, 1);
			list_push(&s->queue, &w->node);
			s->waiting += a->n_changes;
		}
		wake(s);
	}
	pthread_mutex_unlock(&c->changes_lock);
	batch_unref(b);
}

void changes_reset(struct cluster *c)
{
	struct state_view v;

	pthread_mutex_lock(&c->seen_lock);
	v = c->view;
	pthread_mutex_unlock(&c->seen_lock);
	pthread_mutex_lock(&c->changes_lock);
	LIST_FOREACH(&c->subscribers, it)
	{
		struct subscriber *s = LIST_ENTRY(it, struct subscriber, node);

		queue_clear(s);
		s->reset = true;
		s->epoch = v.epoch;
		s->revision = v.revision;
		wake(s);
	}
	pthread_mutex_unlock(&c->changes_lock);
}

void changes_init(struct cluster *c)
{
	pthread_mutex_init(&c->changes_lock, NULL);
	list_init(&c->subscribers);
}

/* No subscribed loop may run meanwhile; what it runs later (loop_free) finds that the cluster is gone. */
void changes_done(struct cluster *c)
{
	while (!list_empty(&c->subscribers)) {
		struct subscriber *s =
			LIST_ENTRY(list_pop(&c->subscribers), struct subscriber, node);

		queue_clear(s);
		if (s->posted) {
			s->c = NULL; /* the post holds it */
		} else {
			mem_free(s);
		}
	}
	pthread_mutex_destroy(&c->changes_lock);
}
