/* What the leader does about members: raft's configuration, lost lighthouses, clocks. */
#include "cluster/peer_int.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rand.h"

/* After a step that failed, and between two attempts to hand over for the clock's sake. */
enum {
	TRANSFER_AGAIN_MS = 3000,
	HOLD_MS = 1000,
	REFUSED_HOLD_MS = 30000,
	TRANSFER_MS = 30000,
	CLOCKS_MS = 1000
};

typedef Skerry__Internal__V1__Command command;
typedef Skerry__Internal__V1__CommandResult command_result;

static void own_command(struct peer *p, command *c, Skerry__Internal__V1__Actor *actor,
			uint8_t random[32])
{
	actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_LIGHTHOUSE;
	actor->id = p->self;
	c->actor = actor;
	rand_bytes(random, 32);
	c->random.data = random;
	c->random.len = 32;
}

/* ---- raft's configuration ---- */

static void changed(struct peer *p, const struct err *err, uint64_t hold_ms)
{
	p->changing = false;
	if (err->code != 0) {
		LOG_DEBUG("peer: membership: %s", err->msg);
		p->change_hold_ms = clock_mono_ms() + hold_ms;
		return;
	}
	member_run(p);
}

static void on_change(void *arg, const struct err *err)
{
	changed(arg, err, HOLD_MS);
}

static void on_kind(void *arg, const struct err *err, const command_result *r)
{
	struct err e = *err;

	if (e.code == 0 && r->code != 0) {
		err_set(&e, ERR_PRECONDITION, "refused: %s", r->message);
	}
	changed(arg, &e, e.code == ERR_PRECONDITION ? REFUSED_HOLD_MS : HOLD_MS);
}

static void set_kind(struct peer *p, uint64_t id, Skerry__Internal__V1__MemberKind kind)
{
	command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	Skerry__Internal__V1__MemberSetKind body = SKERRY__INTERNAL__V1__MEMBER_SET_KIND__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL};
	struct err e = {0};
	uint8_t random[32];

	own_command(p, &c, &actor, random);
	body.id = id;
	body.kind = kind;
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_MEMBER_SET_KIND;
	c.member_set_kind = &body;
	if (cluster_propose(p->cluster, p->loop, &c, &o, on_kind, p, &e) < 0) {
		changed(p, &e, HOLD_MS);
	}
}

static bool is_connected(void *arg, uint64_t id)
{
	struct peer_link *l = peer_link_find(arg, id);

	return l != NULL && peer_link_connected(l);
}

static void follow_table(struct peer *p, const struct link_state *s, uint64_t now)
{
	struct member_todo todo;
	const struct member *m;

	if (p->changing || now < p->change_hold_ms) {
		return;
	}
	member_next(&p->table, s, p->self, is_connected, p, &todo);
	if (todo.action == MEMBER_NOTHING) {
		return;
	}
	m = member_find(&p->table, todo.id);
	LOG_DEBUG("peer: membership step %d of %" PRIu64, todo.action, todo.id);
	p->changing = true;
	switch (todo.action) {
	case MEMBER_NOTHING: break;
	case MEMBER_REMOVE: link_remove(p->cluster, p->loop, todo.id, on_change, p); break;
	case MEMBER_HAND_OVER: link_transfer(p->cluster, p->loop, 0, on_change, p); break;
	case MEMBER_ADD: link_add(p->cluster, p->loop, todo.id, m->address, on_change, p); break;
	case MEMBER_PROMOTE: link_promote(p->cluster, p->loop, todo.id, on_change, p); break;
	case MEMBER_SET_VOTER:
		set_kind(p, todo.id, SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_VOTER);
		break;
	case MEMBER_SET_STANDBY:
		set_kind(p, todo.id, SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_STANDBY);
		break;
	}
}

/* ---- lost lighthouses ---- */

struct lost {
	struct peer *peer;
	uint64_t id, incarnation;
};

static void on_lost(void *arg, const struct err *err, const command_result *r)
{
	struct lost *lost = arg;
	struct peer_link *l = peer_link_find(lost->peer, lost->id);

	(void)r; /* a refusal means that it has started anew meanwhile */
	if (err->code != 0 && l != NULL && l->lost_incarnation == lost->incarnation) {
		l->lost_incarnation = 0; /* to be said again */
	}
	mem_free(lost);
}

static void say_lost(struct peer *p, struct peer_link *l, uint64_t incarnation)
{
	command c = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	Skerry__Internal__V1__LighthouseLost body = SKERRY__INTERNAL__V1__LIGHTHOUSE_LOST__INIT;
	struct propose_options o = {.class = PROPOSE_INTERNAL};
	struct lost *lost = MEM_NEW(struct lost);
	struct err e = {0};
	uint8_t random[32];

	*lost = (struct lost){.peer = p, .id = l->id, .incarnation = incarnation};
	own_command(p, &c, &actor, random);
	body.id = l->id;
	body.incarnation = incarnation;
	c.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_LIGHTHOUSE_LOST;
	c.lighthouse_lost = &body;
	l->lost_incarnation = incarnation;
	LOG_DEBUG("peer: lighthouse %" PRIu64 " is lost", l->id);
	if (cluster_propose(p->cluster, p->loop, &c, &o, on_lost, lost, &e) < 0) {
		l->lost_incarnation = 0;
		mem_free(lost);
	}
}

static void find_lost(struct peer *p, const struct link_state *s, uint64_t now)
{
	if (now - s->leader_since_ms < PEER_LOST_MS) {
		return; /* the others may just be connecting to the new leader */
	}
	LIST_FOREACH(&p->links, it)
	{
		struct peer_link *l = LIST_ENTRY(it, struct peer_link, node);
		const struct member *m = member_find(&p->table, l->id);

		if (m != NULL && m->incarnation != 0 && l->down_ms != 0 &&
		    now - l->down_ms >= PEER_LOST_MS && l->lost_incarnation != m->incarnation) {
			say_lost(p, l, m->incarnation);
		}
	}
}

/* ---- clocks ---- */

static void on_transfer(void *arg, const struct err *err)
{
	struct peer *p = arg;

	if (err->code != 0) {
		p->transfer_ms = MIN(p->transfer_ms, clock_mono_ms() + TRANSFER_AGAIN_MS);
		LOG_DEBUG("peer: hand over: %s", err->msg);
	}
}

static void judge_clocks(struct peer *p, const struct link_state *s, uint64_t now)
{
	struct member_clock c[LIM_MEMBERS];
	uint64_t ids[LIM_MEMBERS];
	int64_t skew = clock_skew_ms();
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++) {
		struct peer_link *l;

		if (s->server[i].role != LINK_VOTER || s->server[i].id == p->self) {
			continue;
		}
		l = peer_link_find(p, s->server[i].id);
		ids[n] = s->server[i].id;
		c[n] = (struct member_clock){0};
		if (l != NULL && peer_link_connected(l)) {
			c[n].known = true;
			c[n].offset_ms = l->skew_ms - skew;
		}
		n++;
	}
	link_clocks_agree(p->cluster, member_clocks_agree(c, n), skew);
	if (s->self_leads && member_clock_is_off(c, n) && now >= p->transfer_ms) {
		p->transfer_ms = now + TRANSFER_MS;
		LOG_WARN("the clock of this lighthouse is more than 10 s off the others': it hands "
			 "leadership over; set the clock");
		link_transfer(p->cluster, p->loop, ids[member_clock_best(c, n)], on_transfer, p);
	}
}

void member_run(struct peer *p)
{
	struct link_state s;
	uint64_t now = clock_mono_ms();

	if (atomic_load(&p->stopping)) {
		return;
	}
	link_state(p->cluster, &s);
	if (now >= p->clocks_ms) {
		p->clocks_ms = now + CLOCKS_MS;
		judge_clocks(p, &s, now);
	}
	if (!s.self_leads) {
		return;
	}
	follow_table(p, &s, now);
	find_lost(p, &s, now);
}
