/* Life of consensus: set-up in the order libraft needs, what it is told of and what it tells. */
#include "cluster/consensus.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/consensus_int.h"
#include "cluster/raft_aio.h"
#include "cluster/raft_blocks.h"
#include "cluster/raft_log.h"
#include "cluster/raft_metrics.h"
#include "cluster/snapshot_look.h"

enum {
	ELECTION_MS = 1000,
	/* Several within the 200 ms after which TCP repeats what was lost: the next one makes it do so at once. */
	HEARTBEAT_MS = 40,
	INSTALL_MS = 3600 * 1000, /* the shim sees to it, by size and by what the peer says */
	CATCH_UP_MS = 20000,      /* of a round, for a newcomer on a slow disk */
	APPLY_TURN_NS = 20 * 1000 * 1000,
	TURN_SHORT_NS = 1000 * 1000,
	TURN_ASK_NS = 20 * 1000 * 1000,
	DISK_RETRY_MS = 3600 * 1000
};

int consensus_error(struct err *err, int rv, const char *what, const char *detail)
{
	int code = rv == RAFT_CORRUPT || rv == RAFT_MALFORMED ? ERR_CORRUPT
		   : rv == RAFT_CANTBOOTSTRAP                 ? ERR_EXISTS
							      : ERR_STORE;

	return err_set(err, code, "raft log: %s: %s%s%s%s", what, raft_strerror(rv),
		       detail != NULL && detail[0] != '\0' ? ": " : "",
		       detail != NULL ? detail : "",
		       code == ERR_CORRUPT ? "; " RAFT_LOG_REMEDY : "");
}

/* ---- the state machine as libraft sees it ---- */

static int fsm_op_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
	struct consensus *cs = fsm->data;

	*result = NULL;
	return group_apply(cs, buf->base, buf->len, cs->raft.last_applied + 1);
}

/* ---- turns of the loop ---- */

static void on_step(struct raft *r)
{
	struct consensus *cs = r->data;

	cs->stepped = true; /* no raft_* call is allowed here */
}

/* Why an election began or was won, for the metrics. A lone voter leads at once. */
static void election_count(struct consensus *cs)
{
	const struct raft_metrics *m = raft_metrics();
	const struct raft *r = &cs->raft;
	enum election_cause cause = ELECTION_TIMEOUT;

	if (r->state == cs->seen_state) {
		return;
	}
	if (r->state == RAFT_CANDIDATE) {
		if (cs->shim.lost_leader != 0) {
			cause = ELECTION_LEADER_LOST;
		} else if (r->candidate_state.disrupt_leader) {
			cause = ELECTION_TRANSFER;
		}
		counter_inc(m->elections[cause]);
	} else if (r->state == RAFT_LEADER) {
		if (cs->seen_state != RAFT_CANDIDATE) {
			counter_inc(m->elections[ELECTION_ALONE]);
		}
		counter_inc(m->leaderships);
	}
	cs->seen_state = r->state;
}

static void state_tell(struct consensus *cs)
{
	struct raft *r = &cs->raft;
	raft_id leader;
	const char *address;

	if (!cs->stepped) {
		return;
	}
	cs->stepped = false;
	election_count(cs);
	raft_leader(r, &leader, &address);
	if (r->state == cs->told_state && r->current_term == cs->told_term &&
	    leader == cs->told_leader && r->configuration_committed_index == cs->told_conf &&
	    r->configuration_uncommitted_index == cs->told_uncommitted) {
		return;
	}
	if ((r->state == RAFT_LEADER) != (cs->told_state == RAFT_LEADER) ||
	    (r->state == RAFT_LEADER && r->current_term != cs->told_term)) {
		cs->told_state = r->state;
		group_leadership(cs, r->state == RAFT_LEADER);
	}
	cs->told_state = r->state;
	cs->told_term = r->current_term;
	cs->told_leader = leader;
	cs->told_conf = r->configuration_committed_index;
	cs->told_uncommitted = r->configuration_uncommitted_index;
	cs->events->state(cs->arg);
}

static void turn(struct consensus *cs)
{
	raft_shim_flush(&cs->shim);
	if (!group_held(cs) && !group_lazy(cs)) {
		group_commit(cs);
	}
	if (!cs->closing) {
		state_tell(cs);
		snapshot_judge(cs);
		if (timing_silent(&cs->shim) && cs->events->silent != NULL) {
			cs->events->silent(cs->arg);
		}
	}
}

static void on_commit_check(uv_check_t *h)
{
	turn(h->data);
}

static void on_pump_check(uv_check_t *h)
{
	group_pump(h->data);
	group_push(h->data);
}

/* What this thread has had of a processor. */
static uint64_t cpu_ns(void)
{
	struct timespec t;

	return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0
		       ? (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec
		       : 0;
}

/*
 * What the turn that was busy for so long has had of one. To ask the kernel costs more than many a turn: the short ones are
 * taken together, for a heartbeat or so, and what is asked then counts without what they took at most.
 */
static uint64_t turn_cpu(struct consensus *cs, uint64_t now, uint64_t busy)
{
	uint64_t cpu, own;

	if (busy < TURN_SHORT_NS && now < cs->turn_asked_ns + TURN_ASK_NS) {
		cs->turn_short_ns += busy;
		return 0;
	}
	cpu = cpu_ns();
	own = cs->turn_asked_ns != 0 ? cpu - cs->turn_cpu_ns : 0;
	own -= MIN(own, cs->turn_short_ns);
	cs->turn_cpu_ns = cpu;
	cs->turn_asked_ns = now;
	cs->turn_short_ns = 0;
	return MIN(own, busy);
}

/*
 * How long the loop was away from its events: the time since the last look less what it slept. What comes in late by
 * that much includes heartbeats, both ways. What it had of a processor meanwhile is its own doing; the rest is waiting
 * for one, or for the disk.
 */
static void turn_measure(struct consensus *cs)
{
	uint64_t now = uv_hrtime();
	uint64_t idle = uv_metrics_idle_time(loop_uv(cs->loop));
	uint64_t slept = idle - cs->turn_idle_ns;

	if (cs->turn_ns != 0) {
		uint64_t busy = now - cs->turn_ns - MIN(slept, now - cs->turn_ns);
		uint64_t own = turn_cpu(cs, now, busy);

		histogram_observe(raft_metrics()->turn, (double)busy / 1e9);
		if (busy > cs->turn_max_ns) {
			cs->turn_max_ns = busy;
			gauge_set(raft_metrics()->turn_max, (double)busy / 1e9);
		}
		if (own > cs->turn_max_cpu_ns) {
			cs->turn_max_cpu_ns = own;
			gauge_set(raft_metrics()->turn_max_cpu, (double)own / 1e9);
		}
		if (busy / 1000000 > cs->raft.election_timeout / 2) {
			LOG_WARN("the consensus loop was held up for %" PRIu64 " ms, %" PRIu64
				 " of them at work",
				 busy / 1000000, own / 1000000);
		}
	}
	cs->turn_ns = now;
	cs->turn_idle_ns = idle;
}

static void on_prepare(uv_prepare_t *h)
{
	struct consensus *cs = h->data;

	turn_measure(cs);
	group_drain(cs);
	turn(cs);
	group_pump(cs);
	group_push(cs);
	raft_net_flush(&cs->net);
}

static void on_wake(void *arg)
{
	struct consensus *cs = arg;

	turn(cs);
	group_pump(cs);
}

/* ---- open ---- */

static void on_connect(void *arg, uint64_t request, uint64_t id, const char *address)
{
	struct consensus *cs = arg;

	cs->events->connect(cs->arg, request, id, address);
}

static void on_link_ended(void *arg, uint64_t way, bool remote)
{
	struct consensus *cs = arg;

	cs->events->ended(cs->arg, way, remote);
}

static int view_load(struct consensus *cs, struct err *err)
{
	struct store_read *read;
	int r = store_read_begin(cs->store, "open", &read, err);

	if (r != 0) {
		return r;
	}
	r = fsm_view(store_read_kv(read), &cs->view, err);
	store_read_end(read);
	cs->view_index = store_applied(cs->store);
	return r;
}

static void handle_closed(uv_handle_t *h)
{
	struct consensus *cs = h->data;

	if (--cs->open_handles == 0) {
		void (*cb)(void *arg) = cs->close_cb;
		void *arg = cs->close_arg;

		mem_free(cs);
		cb(arg);
	}
}

static void handles_close(struct consensus *cs)
{
	cs->open_handles = 4;
	uv_close((uv_handle_t *)&cs->drain, handle_closed);
	uv_close((uv_handle_t *)&cs->commit, handle_closed);
	uv_close((uv_handle_t *)&cs->pump, handle_closed);
	uv_close((uv_handle_t *)&cs->before_poll, handle_closed);
}

void snapshot_closed(struct consensus *cs)
{
	if (!cs->raft_closed || cs->receiving != NULL) {
		return;
	}
	snapshot_forget(cs);
	group_end(cs);
	group_fail_all(cs, ERR_CLOSED, "this lighthouse stops");
	raft_shim_done(&cs->shim);
	raft_uv_close(&cs->shim.io);
	loop_flush_remove(&cs->wake);
	loop_timer_stop(&cs->race);
	loop_timer_stop(&cs->push);
	loop_timer_stop(&cs->settle);
	loop_timer_stop(&cs->wait_timer);
	mem_free(cs->dir);
	handles_close(cs);
}

static void on_raft_closed(struct raft *r)
{
	struct consensus *cs = r->data;

	/* A worker may still be at a snapshot that came in. */
	cs->raft_closed = true;
	snapshot_closed(cs);
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static void transport_closed(struct raft_uv_transport *t)
{
	(void)t;
}

int consensus_open(struct consensus **ret, const struct consensus_options *o, struct err *err)
{
	struct consensus *cs = MEM_NEW(struct consensus);
	uv_loop_t *uv = loop_uv(o->loop);
	struct snapshot_file newest;
	bool closed = false;
	int rv, r;

	raft_aio_init();
	raft_blocks_init();
	cs->loop = o->loop;
	cs->dir = mem_strdup(o->dir);
	cs->store = o->store;
	cs->cluster_id = o->cluster_id;
	cs->id = o->id;
	cs->snapshot_bytes = o->snapshot_bytes != 0 ? o->snapshot_bytes : SNAPSHOT_BYTES;
	cs->apply_turn_ns = o->apply_turn_ns != 0 ? o->apply_turn_ns : APPLY_TURN_NS;
	cs->events = o->events;
	cs->arg = o->arg;
	cs->stamp_mono_ms = clock_mono_ms();
	cs->wake = (struct flush_hook){.run = on_wake, .arg = cs};
	list_init(&cs->queue);
	list_init(&cs->markers);
	list_init(&cs->refused);
	list_init(&cs->group.commands);
	list_init(&cs->group.markers);
	list_init(&cs->applied);
	list_init(&cs->backlog);
	list_init(&cs->done_commands);
	r = view_load(cs, err);
	if (r != 0) {
		mem_free(cs->dir);
		mem_free(cs);
		return r;
	}
	IGNORE(uv_loop_configure(uv, UV_METRICS_IDLE_TIME));

	uv_check_init(uv, &cs->commit);
	uv_check_init(uv, &cs->pump);
	uv_prepare_init(uv, &cs->before_poll);
	uv_idle_init(uv, &cs->drain);
	cs->drain.data = cs;
	cs->commit.data = cs->pump.data = cs->before_poll.data = cs;
	cs->net = (struct raft_net){
		.loop = o->loop, .connect = on_connect, .ended = on_link_ended, .arg = cs};
	raft_net_init(&cs->net);
	raft_transport_init(&cs->transport, uv);
	rv = raft_uv_init(&cs->shim.io, uv, o->dir, &cs->transport.t);
	if (rv != 0) {
		r = consensus_error(err, rv, o->dir, cs->shim.io.errmsg);
		cs->transport.t.close(&cs->transport.t, transport_closed);
		goto fail_handles;
	}
	raft_uv_set_auto_recovery(&cs->shim.io, false);
	raft_uv_set_disk_retry(&cs->shim.io, DISK_RETRY_MS);
	raft_uv_set_tracer(&cs->shim.io, NULL);
	raft_shim_install(&cs->shim, &cs->raft, TICK_MS);
	cs->shim.net = &cs->net;
	cs->shim.prepare = snapshot_prepare;
	cs->shim.receive = snapshot_receive;
	cs->shim.arg = cs;
	cs->fsm = (struct raft_fsm){
		.version = 2,
		.data = cs,
		.apply = fsm_op_apply,
		.snapshot = snapshot_op_take,
		.restore = snapshot_op_restore,
		.snapshot_finalize = snapshot_op_finalize,
	};
	rv = raft_init(&cs->raft, &cs->shim.io, &cs->fsm, o->id, o->address);
	if (rv != 0) {
		r = consensus_error(err, rv, o->dir, cs->shim.io.errmsg);
		raft_uv_close(&cs->shim.io);
		cs->transport.t.close(&cs->transport.t, transport_closed);
		goto fail_handles;
	}
	cs->raft.data = cs;
	cs->raft.tracer = NULL;
	cs->raft.legacy.step_cb = on_step;
	raft_set_election_timeout(&cs->raft, o->election_ms != 0 ? o->election_ms : ELECTION_MS);
	raft_set_heartbeat_timeout(&cs->raft,
				   o->heartbeat_ms != 0 ? o->heartbeat_ms : HEARTBEAT_MS);
	raft_set_install_snapshot_timeout(&cs->raft, INSTALL_MS);
	raft_set_pre_vote(&cs->raft, true);
	raft_set_max_catch_up_round_duration(&cs->raft, CATCH_UP_MS);
	raft_set_snapshot_threshold(&cs->raft, UINT32_MAX);
	raft_set_snapshot_trailing(&cs->raft, SNAPSHOT_TRAILING);

	uv_check_start(&cs->pump, on_pump_check);
	uv_prepare_start(&cs->before_poll, on_prepare);
	rv = raft_start(&cs->raft);
	if (rv != 0) {
		r = consensus_error(err, rv, o->dir,
				    cs->raft.errmsg[0] != '\0' ? cs->raft.errmsg
							       : cs->shim.io.errmsg);
		if (cs->open_code != 0) { /* of the state machine's: not for its files */
			r = err_set(err, cs->open_code, "%s", cs->raft.errmsg);
		}
		goto fail_raft;
	}
	if (store_applied(cs->store) > raft_last_index(&cs->raft)) {
		r = err_set(err, ERR_CORRUPT,
			    "the store holds entry %llu, the log in %s ends at %llu: it is an "
			    "older copy or damaged; " RAFT_LOG_REMEDY,
			    (unsigned long long)store_applied(cs->store), o->dir,
			    (unsigned long long)raft_last_index(&cs->raft));
		goto fail_raft;
	}
	/* LMDB ends a write on the thread that began it, and the loop may run on another one than this. */
	r = store_commit(cs->store, err);
	if (r != 0) {
		goto fail_raft;
	}
	uv_check_start(&cs->commit, on_commit_check);
	if (snapshot_newest(o->dir, &newest)) {
		cs->made_bytes = newest.bytes;
		cs->made_wall_ms = newest.wall_ms;
	}
	cs->started = true;
	cs->stepped = true;
	*ret = cs;
	return 0;

fail_raft:
	consensus_close(cs, set_flag, &closed);
	while (!closed) {
		loop_turn(o->loop, true);
	}
	return r;
fail_handles:
	mem_free(cs->dir);
	cs->close_cb = set_flag;
	cs->close_arg = &closed;
	handles_close(cs);
	while (!closed) {
		loop_turn(o->loop, true);
	}
	return r;
}

void consensus_close(struct consensus *cs, void (*cb)(void *arg), void *arg)
{
	PRE(!cs->closing);
	group_end(cs);
	cs->closing = true;
	snapshot_cancel(cs);
	cs->close_cb = cb;
	cs->close_arg = arg;
	group_fail_all(cs, ERR_CLOSED, "this lighthouse stops");
	raft_close(&cs->raft, on_raft_closed);
}

int consensus_bootstrap(const char *dir, uint64_t id, const char *address, struct err *err)
{
	struct loop *loop = loop_new("bootstrap");
	struct raft_configuration conf;
	struct raft_transport t;
	struct raft_io io = {0};
	struct raft raft = {0};
	struct raft_fsm fsm = {.version = 2};
	int rv, r = 0;

	raft_transport_init(&t, loop_uv(loop));
	raft_configuration_init(&conf);
	rv = raft_uv_init(&io, loop_uv(loop), dir, &t.t);
	if (rv == 0) {
		raft_uv_set_tracer(&io, NULL);
		rv = raft_init(&raft, &io, &fsm, id, address);
		if (rv != 0) {
			raft_uv_close(&io);
		}
	}
	if (rv != 0) {
		r = consensus_error(err, rv, dir, io.errmsg);
		t.t.close(&t.t, transport_closed);
		goto out;
	}
	raft.tracer = NULL;
	rv = raft_configuration_add(&conf, id, address, RAFT_VOTER);
	if (rv == 0) {
		rv = raft_bootstrap(&raft, &conf);
	}
	if (rv != 0) {
		r = consensus_error(err, rv, dir, raft.errmsg);
	}
	raft_close(&raft, NULL);
	while (uv_loop_alive(loop_uv(loop))) {
		loop_turn(loop, true);
	}
	raft_uv_close(&io);
out:
	raft_configuration_close(&conf);
	loop_free(loop);
	return r;
}

/* ---- what others ask and tell ---- */

void consensus_committed(struct consensus *cs, uint64_t term, uint64_t index)
{
	if (term != 0 && !cs->closing) {
		told_commit(&cs->shim, term, index);
	}
}

bool consensus_leads(const struct consensus *cs)
{
	return cs->told_state == RAFT_LEADER && !cs->closing;
}

uint64_t consensus_leader(const struct consensus *cs)
{
	return cs->told_leader;
}

uint64_t consensus_term(const struct consensus *cs)
{
	return cs->raft.current_term;
}

uint64_t consensus_heard_ms(const struct consensus *cs)
{
	return cs->raft.state == RAFT_LEADER ? clock_mono_ms() : cs->shim.heard_ms;
}

uint64_t consensus_applied(const struct consensus *cs)
{
	return cs->view_index;
}

uint64_t consensus_state_bytes(const struct consensus *cs)
{
	return cs->view.bytes;
}

uint32_t consensus_feature_level(const struct consensus *cs)
{
	return cs->view.feature_level;
}

unsigned consensus_map_permille(const struct consensus *cs)
{
	return store_used_permille(cs->store);
}

static const char *role_text(const struct consensus *cs)
{
	const struct raft *r = &cs->raft;

	switch (r->state) {
	case RAFT_LEADER: return "leader";
	case RAFT_CANDIDATE: return "candidate";
	case RAFT_FOLLOWER: break;
	default: return "none";
	}
	for (unsigned i = 0; i < r->configuration.n; i++) {
		if (r->configuration.servers[i].id == cs->id) {
			return r->configuration.servers[i].role == RAFT_VOTER     ? "follower"
			       : r->configuration.servers[i].role == RAFT_STANDBY ? "standby"
										  : "spare";
		}
	}
	return "none";
}

void consensus_stats(const struct consensus *cs, struct consensus_stats *ret)
{
	*ret = cs->stats;
	ret->votes_repeated = cs->shim.votes_repeated;
	ret->installs_dropped = cs->shim.installs_dropped;
	ret->messages_dropped = cs->shim.messages_dropped;
	ret->role = role_text(cs);
	ret->queued = cs->queued;
	ret->log_bytes = cs->log_bytes;
	ret->snapshot_bytes = cs->made_bytes;
	ret->snapshot_wall_ms = cs->made_wall_ms;
}

uint64_t consensus_append_open_ms(const struct consensus *cs)
{
	return raft_shim_append_open_ms(&cs->shim);
}

uint64_t consensus_append_p99_us(const struct consensus *cs, size_t *ret_n)
{
	return append_times_p99(&cs->shim.append_times, clock_mono_ms(), ret_n);
}

void consensus_state(const struct consensus *cs, struct link_state *ret)
{
	struct raft *r = (struct raft *)&cs->raft; /* libraft's getters are not const */

	*ret = (struct link_state){
		.term = r->current_term,
		.leader = cs->told_leader,
		.self_leads = consensus_leads(cs),
		.changing = cs->change != NULL || r->transfer != NULL,
		.commit_index = r->commit_index,
		.applied_index = cs->view_index,
		.last_index = raft_last_index(r),
		.leader_since_ms = cs->leader_since_ms,
		.election_ms = r->election_timeout,
	};
	for (unsigned i = 0; i < r->configuration.n && ret->n < ARRAY_LEN(ret->server); i++) {
		const struct raft_server *s = &r->configuration.servers[i];
		struct link_server *l = &ret->server[ret->n++];
		raft_index match = 0;

		l->id = s->id;
		l->role = s->role == RAFT_VOTER     ? LINK_VOTER
			  : s->role == RAFT_STANDBY ? LINK_STANDBY
						    : LINK_SPARE;
		strncpy(l->address, s->address, sizeof(l->address) - 1);
		if (r->state == RAFT_LEADER && raft_match_index(r, s->id, &match) == 0) {
			l->match_index = match;
			l->acked_ms = timing_acked((struct raft_shim *)&cs->shim, s->id);
		}
	}
}

void consensus_clocks_agree(struct consensus *cs, bool agree, int64_t skew_ms)
{
	cs->clocks_agree = agree;
	cs->agreed_skew_ms = skew_ms;
}

void consensus_leader_vouched(struct consensus *cs, uint64_t id, uint64_t term, uint64_t asked_ms)
{
	if (!cs->closing) {
		timing_vouched(&cs->shim, id, term, asked_ms);
	}
}

void consensus_leader_asked(struct consensus *cs, uint64_t id, uint64_t term)
{
	if (!cs->closing) {
		timing_asked(&cs->shim, id, term);
	}
}

void consensus_connected(struct consensus *cs, uint64_t request, uint64_t way,
			 struct stream *stream)
{
	raft_net_connected(&cs->net, request, way, stream);
}

void consensus_accepted(struct consensus *cs, uint64_t id, const char *address, uint64_t way,
			struct stream *stream)
{
	raft_net_accepted(&cs->net, id, address, way, stream);
}

void consensus_cut(struct consensus *cs, uint64_t way)
{
	raft_net_cut(&cs->net, way);
}

void consensus_links_renew(struct consensus *cs)
{
	raft_net_renew(&cs->net);
}

/* Nobody leads since the leader was lost. */
static bool race_open(const struct consensus *cs)
{
	raft_id leader = cs->raft.state == RAFT_FOLLOWER ? cs->raft.follower_state.current_leader.id
							 : 0;

	return !cs->closing && cs->shim.lost_leader != 0 && cs->raft.state != RAFT_LEADER &&
	       (leader == 0 || leader == cs->shim.lost_leader);
}

/*
 * Two survivors that both passed the pre-vote before either saw the other's vote split it, and the next election timeout
 * is one to two seconds away: they try again, each at its own time.
 */
static void on_race(void *arg)
{
	struct consensus *cs = arg;
	unsigned wait = timing_race_wait(&cs->shim, cs->raced_term);

	if (!race_open(cs)) {
		return;
	}
	if (wait > 0) {
		loop_timer_start(&cs->race, cs->loop, wait, on_race, cs);
		return;
	}
	cs->stats.races += cs->race_tries == 0;
	raft_shim_force_election(&cs->shim);
	if (++cs->race_tries < RACE_TRIES && !cs->closing) {
		loop_timer_start(&cs->race, cs->loop,
				 RACE_AGAIN_MS + (2 * cs->race_rank + 1) * RACE_RANK_MS, on_race,
				 cs);
	}
}

void consensus_leader_lost(struct consensus *cs, uint64_t id)
{
	struct raft *r = &cs->raft;
	uint64_t now = clock_mono_ms();
	bool voter = false;

	if (cs->closing || r->state != RAFT_FOLLOWER || r->follower_state.current_leader.id != id ||
	    (cs->raced_term == r->current_term && now < cs->race_ms + RACE_PAUSE_MS)) {
		return;
	}
	cs->raced_term = r->current_term;
	cs->race_ms = now;
	raft_shim_leader_lost(&cs->shim, id);
	for (unsigned i = 0; i < r->configuration.n; i++) {
		voter |= r->configuration.servers[i].id == cs->id &&
			 r->configuration.servers[i].role == RAFT_VOTER;
	}
	if (voter) {
		unsigned rank = timing_rank(r, id);

		cs->race_rank = rank;
		cs->race_tries = 0;
		loop_timer_start(&cs->race, cs->loop, rank * RACE_RANK_MS, on_race, cs);
	}
}
