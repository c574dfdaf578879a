/* Attaches and detaches of one turn of a loop, gathered into one command and coalesced per node. */
#include "base/limits.h"
#include "base/mem.h"
#include "cluster/cluster_int.h"

enum { EVENTS_MAX = 1024 }; /* of one command; more go into a second one */

typedef Skerry__Internal__V1__SessionEvent SessionEvent;
typedef Skerry__Internal__V1__SessionBatch SessionBatch;

struct waiter {
	propose_cb done;
	void *arg;
};

struct gatherer {
	struct list node;
	struct cluster *c;
	struct loop *loop;
	struct flush_hook hook;
	struct session_event *event; /* instance_id owned */
	size_t n, cap;
	struct waiter *waiter;
	size_t n_waiters, cap_waiters;
};

struct flight {
	struct waiter *waiter;
	size_t n;
};

static void on_done(void *arg, const struct err *err, const CommandResult *r)
{
	struct flight *f = arg;

	for (size_t i = 0; i < f->n; i++) {
		f->waiter[i].done(f->waiter[i].arg, err, r);
	}
	mem_free(f->waiter);
	mem_free(f);
}

static void flush(void *arg)
{
	struct gatherer *g = arg;
	struct propose_options o = {.class = PROPOSE_PRESENCE};
	SessionBatch batch = SKERRY__INTERNAL__V1__SESSION_BATCH__INIT;
	Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	SessionEvent *events = mem_calloc(g->n, sizeof(*events));
	SessionEvent **list = mem_calloc(g->n, sizeof(*list));
	struct flight *f = MEM_NEW(struct flight);
	struct err err = {0};

	f->waiter = g->waiter;
	f->n = g->n_waiters;
	g->waiter = NULL;
	g->n_waiters = g->cap_waiters = 0;
	for (size_t i = 0; i < g->n; i++) {
		const struct session_event *e = &g->event[i];

		skerry__internal__v1__session_event__init(&events[i]);
		events[i].node = e->node;
		events[i].tailnet = e->tailnet;
		events[i].session = e->session;
		events[i].instance_id = (char *)(e->instance_id != NULL ? e->instance_id : "");
		events[i].detach = e->detach;
		events[i].clean = e->clean;
		list[i] = &events[i];
	}
	batch.lighthouse = g->c->id;
	batch.incarnation = g->c->incarnation;
	batch.events = list;
	batch.n_events = g->n;
	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE;
	actor.id = g->c->id;
	cmd.actor = &actor;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_SESSION_BATCH;
	cmd.session_batch = &batch;
	if (cluster_propose(g->c, g->loop, &cmd, &o, on_done, f, &err) != 0) {
		on_done(f, &err, NULL);
	}
	for (size_t i = 0; i < g->n; i++) {
		mem_free((char *)g->event[i].instance_id);
	}
	g->n = 0;
	mem_free(events);
	mem_free(list);
}

static struct gatherer *gatherer_of(struct cluster *c, struct loop *loop)
{
	struct gatherer *g = NULL;

	pthread_mutex_lock(&c->sessions_lock);
	LIST_FOREACH(&c->gatherers, it)
	{
		struct gatherer *x = LIST_ENTRY(it, struct gatherer, node);

		if (x->loop == loop) {
			g = x;
		}
	}
	if (g == NULL) {
		g = MEM_NEW(struct gatherer);
		g->c = c;
		g->loop = loop;
		g->hook = (struct flush_hook){.run = flush, .arg = g};
		list_push(&c->gatherers, &g->node);
	}
	pthread_mutex_unlock(&c->sessions_lock);
	return g;
}

/* An event of the same node that waits already: the later one takes its place unless it is of an older session. */
static bool coalesce(struct gatherer *g, const struct session_event *e)
{
	for (size_t i = 0; i < g->n; i++) {
		struct session_event *have = &g->event[i];

		if (have->node != e->node || have->tailnet != e->tailnet) {
			continue;
		}
		if (e->session >= have->session) {
			mem_free((char *)have->instance_id);
			*have = *e;
			have->instance_id = mem_strdup(e->instance_id);
		}
		return true;
	}
	return false;
}

int cluster_session(struct cluster *c, struct loop *loop, const struct session_event *e,
		    propose_cb done, void *arg, struct err *err)
{
	struct gatherer *g = gatherer_of(c, loop);

	(void)err;
	if (!coalesce(g, e)) {
		if (g->n == EVENTS_MAX) {
			flush(g);
		}
		if (g->n == g->cap) {
			g->cap = g->cap != 0 ? 2 * g->cap : 16;
			g->event = mem_reallocarray(g->event, g->cap, sizeof(*g->event));
		}
		g->event[g->n] = *e;
		g->event[g->n].instance_id = mem_strdup(e->instance_id);
		g->n++;
	}
	if (done != NULL) {
		if (g->n_waiters == g->cap_waiters) {
			g->cap_waiters = g->cap_waiters != 0 ? 2 * g->cap_waiters : 16;
			g->waiter = mem_reallocarray(g->waiter, g->cap_waiters, sizeof(*g->waiter));
		}
		g->waiter[g->n_waiters++] = (struct waiter){done, arg};
	}
	loop_flush_add(loop, &g->hook);
	return 0;
}

void sessions_init(struct cluster *c)
{
	pthread_mutex_init(&c->sessions_lock, NULL);
	list_init(&c->gatherers);
}

/* The loops that used it have ended. */
void sessions_done(struct cluster *c)
{
	while (!list_empty(&c->gatherers)) {
		struct gatherer *g = LIST_ENTRY(list_pop(&c->gatherers), struct gatherer, node);

		loop_flush_remove(&g->hook);
		for (size_t i = 0; i < g->n; i++) {
			mem_free((char *)g->event[i].instance_id);
		}
		mem_free(g->event);
		mem_free(g->waiter);
		mem_free(g);
	}
	pthread_mutex_destroy(&c->sessions_lock);
}
