/*
 * The real state machine under simulated consensus: three replicas of libraft with a network and disks of virtual time,
 * random latencies, random loss of servers and links, random commands in groups that are proposed again when their fate is
 * unknown. All replicas compute the same at every index, every command counts once, one leader per term, and in the end all
 * hold the same records.
 *
 * SKERRY_SIM_SEEDS=n runs n seeds (200), SKERRY_SIM_SEED=s that one alone.
 */
/* LIBS: cluster */
/* EXTERNAL: raft */
/* TIMEOUT: 900 */
#include "tests/unit/tailnet/stream.h"

#include <raft.h>
#include <raft/fixture.h>

#include "base/mem.h"
#include "cluster/entry.h"
#include "cluster/fsm.h"
#include "cluster/snapshot.h"

enum {
	SERVERS = 3,
	ROUNDS = 120,
	OPEN_MAX = 64, /* commands of the client on their way */
	INDEX_MAX = 4096,
	SEQUENCE_MAX = 2048,
	TERMS_MAX = 1024,
	GROUP_MAX = 4,
	LIGHTHOUSE = 3, /* the client's origin: no command of the generator touches it */
	INCARNATION = 300,
};

struct sim;

struct server {
	struct sim *sim;
	unsigned i;
	struct raft_fsm fsm;
	struct kv_mem *mem;
	struct kv kv;
	uint64_t applied;
	uint64_t told_term; /* of which it has proposed as leader */
	int64_t skew_ms;
};

struct sim {
	uint64_t seed;
	struct world w; /* for its generator of commands */
	struct raft_fixture f;
	struct server server[SERVERS];
	bool dead[SERVERS];
	bool with_snapshots;
	/* what was seen first at each index; others must see the same */
	struct {
		bool seen;
		uint64_t revision;
		uint8_t digest[32];
	} at[INDEX_MAX];
	/* the client */
	struct {
		uint8_t *data;
		size_t len;
		bool answered, flying, unique;
		bool has_result;
		int code;
		uint64_t revision;
	} cmd[SEQUENCE_MAX];
	uint64_t next, lowest;
	uint64_t lighthouse, incarnation;
	raft_id leader_of[TERMS_MAX];
	size_t accepted, refused, repeated, snapshots, restores;
};

static uint64_t draw(struct sim *s, uint64_t below)
{
	return world_random(&s->w) % below;
}

#define SIM_FAIL(s, ...)                                                              \
	do {                                                                          \
		print_error("SKERRY_SIM_SEED=%llu\n", (unsigned long long)(s)->seed); \
		TEST_FAIL(__VA_ARGS__);                                               \
	} while (0)

/* ---- a replica ---- */

/* The first answer to a command stands: on every replica, and for every copy of it. */
static void judge_answer(struct sim *s, const struct applied_command *c)
{
	uint64_t seq = c->sequence;

	if (seq == 0) {
		return;
	}
	if (s->cmd[seq].has_result) {
		if (strcmp(c->result->reason, "ALREADY_ANSWERED") == 0 && s->cmd[seq].answered) {
			return;
		}
		s->repeated++;
		if (s->cmd[seq].unique && (c->result->code != s->cmd[seq].code ||
					   c->result->revision != s->cmd[seq].revision)) {
			SIM_FAIL(s,
				 "command %llu was answered %d at revision %llu, then %d at %llu: "
				 "%s",
				 (unsigned long long)seq, s->cmd[seq].code,
				 (unsigned long long)s->cmd[seq].revision, c->result->code,
				 (unsigned long long)c->result->revision, c->result->message);
		}
	} else {
		s->cmd[seq].has_result = true;
		s->cmd[seq].code = c->result->code;
		s->cmd[seq].revision = c->result->revision;
		*(c->result->code == 0 ? &s->accepted : &s->refused) += 1;
	}
	s->cmd[seq].answered = true;
	while (s->lowest < s->next && s->cmd[s->lowest].answered) {
		s->lowest++;
	}
}

static int fsm_op_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
	struct server *v = fsm->data;
	struct sim *s = v->sim;
	uint64_t index = raft_last_applied(raft_fixture_get(&s->f, v->i)) + 1;
	struct applied *a;
	struct err err = {0};

	*result = NULL;
	if (index <= v->applied) {
		SIM_FAIL(s, "server %u applies %llu twice", v->i, (unsigned long long)index);
	}
	if (fsm_apply(&v->kv, 77, buf->base, buf->len, index, &a, &err) != 0) {
		SIM_FAIL(s, "server %u, entry %llu: %s", v->i, (unsigned long long)index, err.msg);
	}
	v->applied = index;
	if (index >= INDEX_MAX) {
		SIM_FAIL(s, "more entries than thought");
	}
	if (!s->at[index].seen) {
		s->at[index].seen = true;
		s->at[index].revision = a->revision;
		memcpy(s->at[index].digest, a->digest, 32);
	} else if (s->at[index].revision != a->revision ||
		   memcmp(s->at[index].digest, a->digest, 32) != 0) {
		SIM_FAIL(s, "server %u differs at entry %llu", v->i, (unsigned long long)index);
	}
	for (size_t i = 0; i < a->n; i++) {
		judge_answer(s, &a->command[i]);
	}
	applied_free(a);
	return 0;
}

static int fsm_op_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
	struct server *v = fsm->data;
	struct snapshot snap;
	uint8_t *d;

	assert_ok(fsm_snapshot(&v->kv, v->applied, 1, NULL, &snap, NULL));
	/* Version 1 of the interface: libraft takes the buffers. */
	*bufs = raft_calloc(1, sizeof(**bufs));
	d = snapshot_join(&snap, &(*bufs)->len);
	(*bufs)->base = raft_malloc((*bufs)->len);
	memcpy((*bufs)->base, d, (*bufs)->len);
	*n_bufs = 1;
	mem_free(d);
	snapshot_done(&snap);
	v->sim->snapshots++;
	return 0;
}

static int fsm_op_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	struct server *v = fsm->data;
	struct snapshot_header h;
	struct err err = {0};

	if (snapshot_open(buf->base, buf->len, &h, &err) != 0) {
		SIM_FAIL(v->sim, "snapshot: %s", err.msg);
	}
	kv_mem_free(v->mem);
	v->mem = kv_mem_new();
	v->kv = kv_mem_kv(v->mem);
	assert_ok(snapshot_load(buf->base, buf->len, &v->kv, NULL));
	if (tailnet_check(&v->kv, &err) != 0) {
		SIM_FAIL(v->sim, "restored state: %s", err.msg);
	}
	v->applied = h.applied_index;
	v->sim->restores++;
	raft_free(buf->base);
	return 0;
}

/* ---- proposing ---- */

struct flight {
	struct raft_apply req;
	struct sim *sim;
	uint64_t sequence[GROUP_MAX];
	size_t n;
};

static void on_flown(struct raft_apply *req, int status, void *result)
{
	struct flight *f = container_of(req, struct flight, req);

	(void)status;
	(void)result;
	/* Whatever became of it: what is not answered is proposed again. */
	for (size_t i = 0; i < f->n; i++) {
		f->sim->cmd[f->sequence[i]].flying = false;
	}
	raft_free(f);
}

static uint64_t command_new(struct sim *s, Command *c)
{
	uint64_t seq = s->next++;
	if (s->next >= SEQUENCE_MAX) {
		SIM_FAIL(s, "more commands than thought");
	}
	c->lighthouse = s->lighthouse;
	c->incarnation = s->incarnation;
	c->sequence = seq;
	c->lowest_unanswered = s->lowest;
	/* Kinds that may be carried out twice keep no answer: only the others are judged. */
	s->cmd[seq].unique = c->body_case != SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_FACTS &&
			     c->body_case != SKERRY__INTERNAL__V1__COMMAND__BODY_SESSION_BATCH &&
			     c->body_case != SKERRY__INTERNAL__V1__COMMAND__BODY_TICK &&
			     c->body_case != SKERRY__INTERNAL__V1__COMMAND__BODY_DIGEST_MARKER &&
			     c->body_case != SKERRY__INTERNAL__V1__COMMAND__BODY_LIGHTHOUSE_START &&
			     c->body_case != SKERRY__INTERNAL__V1__COMMAND__BODY_LIGHTHOUSE_LOST &&
			     c->body_case != SKERRY__INTERNAL__V1__COMMAND__BODY_MEMBER_JOIN &&
			     c->body_case != SKERRY__INTERNAL__V1__COMMAND__BODY_BOOTSTRAP;
	s->cmd[seq].len = skerry__internal__v1__command__get_packed_size(c);
	s->cmd[seq].data = mem_alloc(s->cmd[seq].len);
	skerry__internal__v1__command__pack(c, s->cmd[seq].data);
	return seq;
}

static Command *command_draw(struct sim *s, struct server *leader)
{
	s->w.kv[0] = leader->kv;
	arena_reset(&s->w.arena);
	arena_reset(&s->w.query);
	return stream_next(&s->w);
}

/* Sends one entry with these commands through a server that leads. */
static void propose(struct sim *s, struct server *v, const uint64_t *seq, size_t n)
{
	struct raft *r = raft_fixture_get(&s->f, v->i);
	struct flight *fl = raft_calloc(1, sizeof(*fl));
	struct state_view view;
	struct entry_writer w;
	struct raft_buffer buf;
	size_t bytes = 0;
	int rv;

	assert_ok(fsm_view(&v->kv, &view, NULL));
	for (size_t i = 0; i < n; i++) {
		bytes += s->cmd[seq[i]].len;
	}
	buf.len = entry_size(n, bytes);
	buf.base = raft_malloc(buf.len);
	entry_begin(&w, buf.base, buf.len);
	for (size_t i = 0; i < n; i++) {
		entry_add(&w, s->cmd[seq[i]].data, s->cmd[seq[i]].len);
		fl->sequence[i] = seq[i];
		s->cmd[seq[i]].flying = true;
	}
	fl->n = n;
	fl->sim = s;
	/* Each leader stamps by its own clock, never backwards. */
	entry_seal(&w, &(struct entry_header){
			       .flags = v->told_term != r->current_term ? ENTRY_LEADER_GAP : 0,
			       .feature_level = 1,
			       .cluster_id = 77,
			       .epoch = view.epoch,
			       .time_ms = MAX(view.time_ms, s->w.now + (uint64_t)v->skew_ms),
		       });
	v->told_term = r->current_term;
	rv = raft_apply(r, &fl->req, &buf, 1, on_flown);
	if (rv != 0) {
		on_flown(&fl->req, rv, NULL);
		raft_free(buf.base);
	}
}

/* A server that believes it leads and has applied all that it holds, as the real leader waits for. */
static struct server *leader_any(struct sim *s)
{
	unsigned from = (unsigned)draw(s, SERVERS);

	for (unsigned k = 0; k < SERVERS; k++) {
		unsigned i = (from + k) % SERVERS;
		struct raft *r = raft_fixture_get(&s->f, i);

		if (!s->dead[i] && raft_state(r) == RAFT_LEADER &&
		    raft_last_applied(r) == raft_last_index(r)) {
			return &s->server[i];
		}
	}
	return NULL;
}

static void client(struct sim *s)
{
	struct server *v = leader_any(s);
	uint64_t seq[GROUP_MAX];
	size_t n = 0, want = 1 + draw(s, GROUP_MAX);

	if (v == NULL) {
		return;
	}
	/* What is open from before goes first, now and then again although it is still flying. */
	for (uint64_t q = s->lowest; q < s->next && n < want; q++) {
		if (!s->cmd[q].answered && (!s->cmd[q].flying || draw(s, 8) == 0)) {
			seq[n++] = q;
		}
	}
	while (n < want && s->next - s->lowest < OPEN_MAX) {
		seq[n++] = command_new(s, command_draw(s, v));
	}
	if (n > 0) {
		propose(s, v, seq, n);
	}
}

/* ---- faults ---- */

static void heal(struct sim *s)
{
	for (unsigned i = 0; i < SERVERS; i++) {
		if (s->dead[i]) {
			raft_fixture_revive(&s->f, i);
			s->dead[i] = false;
		}
		for (unsigned j = 0; j < SERVERS; j++) {
			if (i != j) {
				raft_fixture_reconnect(&s->f, i, j);
				raft_fixture_desaturate(&s->f, i, j);
			}
		}
	}
}

/* With snapshots: a follower that is away for long, so that it needs one. */
static void fault_of_follower(struct sim *s)
{
	unsigned i = (unsigned)draw(s, SERVERS);

	if (draw(s, 6) == 0) {
		heal(s);
	} else if (draw(s, 2) == 0) {
		raft_fixture_set_network_latency(&s->f, i, 1 + (unsigned)draw(s, 80));
	} else if (raft_state(raft_fixture_get(&s->f, i)) == RAFT_FOLLOWER) {
		heal(s); /* one at a time: the leader keeps its majority */
		for (unsigned j = 0; j < SERVERS; j++) {
			if (j != i) {
				raft_fixture_disconnect(&s->f, i, j);
				raft_fixture_disconnect(&s->f, j, i);
			}
		}
	}
}

static void fault(struct sim *s)
{
	unsigned i = (unsigned)draw(s, SERVERS),
		 j = (i + 1 + (unsigned)draw(s, SERVERS - 1)) % SERVERS;

	switch (draw(s, 14)) {
	case 0:
		if (!s->dead[i]) {
			raft_fixture_kill(&s->f, i);
			s->dead[i] = true;
		}
		break;
	case 1: raft_fixture_disconnect(&s->f, i, j); break;
	case 2:
		raft_fixture_disconnect(&s->f, i, j);
		raft_fixture_disconnect(&s->f, j, i);
		break;
	case 3: raft_fixture_saturate(&s->f, i, j); break;
	case 4:
	case 5: raft_fixture_set_network_latency(&s->f, i, 1 + (unsigned)draw(s, 80)); break;
	case 6: raft_fixture_set_disk_latency(&s->f, i, 1 + (unsigned)draw(s, 60)); break;
	case 7: s->server[i].skew_ms = (int64_t)draw(s, 8000); break;
	case 8:
	case 9:
	case 10: heal(s); break;
	default: break;
	}
}

/* Called after every event. */
static struct sim *current;

static void on_event(struct raft_fixture *f, struct raft_fixture_event *event)
{
	struct sim *s = current;

	if (raft_fixture_event_type(event) == RAFT_FIXTURE_TICK) {
		raft_fixture_set_randomized_election_timeout(
			f, raft_fixture_event_server_index(event), 1000 + (unsigned)draw(s, 1000));
	}
	for (unsigned i = 0; i < SERVERS; i++) {
		struct raft *r = raft_fixture_get(f, i);
		raft_term term = raft_current_term(r);

		if (raft_state(r) != RAFT_LEADER) {
			continue;
		}
		if (term >= TERMS_MAX) {
			SIM_FAIL(s, "more terms than thought");
		}
		if (s->leader_of[term] == 0) {
			s->leader_of[term] = r->id;
		} else if (s->leader_of[term] != r->id) {
			SIM_FAIL(s, "two leaders in term %llu", term);
		}
	}
}

/* ---- a run ---- */

static bool all_applied(struct raft_fixture *f, void *arg)
{
	raft_index last = raft_last_applied(raft_fixture_get(f, 0));

	(void)arg;
	for (unsigned i = 0; i < SERVERS; i++) {
		struct raft *r = raft_fixture_get(f, i);

		if (raft_last_applied(r) != last || raft_last_index(r) != last) {
			return false;
		}
	}
	return true;
}

/* Proposes one command and steps until it is answered: for the beginning and the end. */
static void settle(struct sim *s, Command *c)
{
	struct server *v;
	uint64_t seq = 0;

	for (int tries = 0; tries < 400; tries++) {
		v = leader_any(s);
		if (v != NULL && seq == 0) {
			seq = command_new(s, c);
		}
		if (v != NULL && !s->cmd[seq].flying) {
			propose(s, v, &seq, 1);
		}
		raft_fixture_step_until_elapsed(&s->f, 100);
		if (seq != 0 && s->cmd[seq].answered) {
			if (s->cmd[seq].code != 0) {
				SIM_FAIL(s, "command %llu was refused: %d", (unsigned long long)seq,
					 s->cmd[seq].code);
			}
			return;
		}
	}
	SIM_FAIL(s, "command %llu is not answered", (unsigned long long)seq);
}

static void begin_state(struct sim *s)
{
	struct world *w = &s->w;
	Command *c;
	Skerry__Internal__V1__JoinTokenCreate *t;
	Skerry__Internal__V1__MemberJoin *j;

	s->lighthouse = 1;
	s->incarnation = 101;
	settle(s, world_bootstrap(w));
	settle(s, world_start(w, 1, 101));
	/* The client's origin must be a member. */
	c = world_command(w, 0);
	t = WBODY(w, c, JOIN_TOKEN_CREATE, join_token_create, JoinTokenCreate);
	t->credential = WNEW(w, Skerry__Internal__V1__Credential, credential);
	t->credential->id = 4711;
	t->credential->hash_kind = SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256;
	t->credential->hash = world_fill(w, 32, 9);
	t->lifetime_ms = HOUR;
	settle(s, c);
	c = world_command(w, 0);
	j = WBODY(w, c, MEMBER_JOIN, member_join, MemberJoin);
	j->token_id = 4711;
	j->token_verified = true;
	j->member = world_member(w, LIGHTHOUSE);
	j->member->kind = SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_STANDBY;
	j->member->join_request_hash = world_fill(w, 32, 8);
	settle(s, c);
	s->lighthouse = LIGHTHOUSE;
	s->incarnation = INCARNATION;
	settle(s, world_tailnet(w, "second"));
}

static void same_records(struct sim *s, const struct kv *a, const struct kv *b)
{
	struct slice ka = {"", 0}, kb = {"", 0}, va, vb;
	int ra = kv_seek(a, ka, &ka, &va), rb = kv_seek(b, kb, &kb, &vb);

	while (ra == 0 && rb == 0) {
		if (ka.len != kb.len || va.len != vb.len || memcmp(ka.data, kb.data, ka.len) != 0 ||
		    memcmp(va.data, vb.data, va.len) != 0) {
			SIM_FAIL(s, "records differ in table 0x%02x",
				 ((const uint8_t *)ka.data)[0]);
		}
		ra = kv_next(a, ka, &ka, &va);
		rb = kv_next(b, kb, &kb, &vb);
	}
	if (ra != rb) {
		SIM_FAIL(s, "one replica has more records");
	}
}

static void run(uint64_t seed, struct sim *sum)
{
	struct sim *s = MEM_NEW(struct sim);
	struct raft_configuration conf;
	struct err err = {0};

	current = s;
	s->seed = seed;
	s->with_snapshots = seed % 4 == 0;
	s->next = s->lowest = 1;
	world_open(&s->w, seed);
	assert_int_equal(raft_fixture_initialize(&s->f), 0);
	for (unsigned i = 0; i < SERVERS; i++) {
		struct server *v = &s->server[i];

		v->sim = s;
		v->i = i;
		v->mem = kv_mem_new();
		v->kv = kv_mem_kv(v->mem);
		v->fsm = (struct raft_fsm){.version = 1,
					   .data = v,
					   .apply = fsm_op_apply,
					   .snapshot = fsm_op_snapshot,
					   .restore = fsm_op_restore};
		assert_int_equal(raft_fixture_grow(&s->f, &v->fsm), 0);
		raft_fixture_get(&s->f, i)->tracer = NULL;
		raft_set_pre_vote(raft_fixture_get(&s->f, i), true);
		/* The fixture's disk cannot cut off a log's end once it has a snapshot, as a new leader
		 * demands: so either snapshots, or changes of leader. */
		raft_set_snapshot_threshold(raft_fixture_get(&s->f, i),
					    s->with_snapshots ? 12 : UINT32_MAX);
		raft_set_snapshot_trailing(raft_fixture_get(&s->f, i), 3);
	}
	assert_int_equal(raft_fixture_configuration(&s->f, SERVERS, &conf), 0);
	assert_int_equal(raft_fixture_bootstrap(&s->f, &conf), 0);
	raft_configuration_close(&conf);
	assert_int_equal(raft_fixture_start(&s->f), 0);
	raft_fixture_hook(&s->f, on_event);

	begin_state(s);
	for (int round = 0; round < ROUNDS; round++) {
		if (draw(s, s->with_snapshots ? 12 : 3) == 0) {
			(s->with_snapshots ? fault_of_follower : fault)(s);
		}
		client(s);
		raft_fixture_step_until_elapsed(&s->f, 10 + (unsigned)draw(s, 200));
	}
	heal(s);
	arena_reset(&s->w.arena);
	settle(s, world_tick_command(&s->w));
	if (!raft_fixture_step_until(&s->f, all_applied, NULL, 60000)) {
		SIM_FAIL(s, "the replicas do not come together");
	}
	for (unsigned i = 0; i < SERVERS; i++) {
		if (tailnet_check(&s->server[i].kv, &err) != 0) {
			SIM_FAIL(s, "server %u: %s", i, err.msg);
		}
		same_records(s, &s->server[0].kv, &s->server[i].kv);
	}
	sum->accepted += s->accepted;
	sum->refused += s->refused;
	sum->repeated += s->repeated;
	sum->snapshots += s->snapshots;
	sum->restores += s->restores;

	raft_fixture_close(&s->f);
	for (unsigned i = 0; i < SERVERS; i++) {
		kv_mem_free(s->server[i].mem);
	}
	for (uint64_t q = 0; q < s->next; q++) {
		mem_free(s->cmd[q].data);
	}
	world_close(&s->w);
	mem_free(s);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text != NULL && text[0] != '\0' ? strtoull(text, NULL, 10) : otherwise;
}

static void simulation(void **state)
{
	uint64_t seeds = number("SKERRY_SIM_SEEDS", 200), one = number("SKERRY_SIM_SEED", 0);
	struct sim *sum = MEM_NEW(struct sim);

	(void)state;
	if (one != 0) {
		run(one, sum);
	} else {
		for (uint64_t seed = 1; seed <= seeds; seed++) {
			run(seed, sum);
		}
	}
	print_message("%llu seeds: %zu commands accepted, %zu refused, %zu answers repeated, %zu "
		      "snapshots, %zu restores\n",
		      (unsigned long long)(one != 0 ? 1 : seeds), sum->accepted, sum->refused,
		      sum->repeated, sum->snapshots, sum->restores);
	/* The faults did happen. */
	if (one == 0 && seeds >= 50) {
		assert_true(sum->accepted > 20 * seeds);
		assert_true(sum->snapshots > seeds / 4);
		assert_true(sum->restores > 0);
	}
	mem_free(sum);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(simulation),
	};

	crypto_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
