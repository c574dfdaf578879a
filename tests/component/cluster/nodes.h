/*
 * Lighthouses in one process: real raft threads, logs and stores in directories of their own; in place of the peer side
 * a link that joins them by socketpairs. A node is killed without any farewell, and can be started again.
 */
#pragma once

#include "tests/lib/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "cluster/cluster_int.h"
#include "cluster/pki.h"
#include "tailnet/query.h"

enum { NODES_MAX = 5, NODES_WAIT_MS = 20000 };

/*
 * libuv closes descriptors by a raw system call, which ThreadSanitizer does not see: a number that is used anew here
 * seems to be shared with its former owner.
 */
const char *__tsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void)
{
	return "race:nodes_connect\n";
}

struct nodes;

struct node {
	struct nodes *all;
	char dir[TEST_DIR + 16];
	uint64_t id;
	struct cluster *c; /* NULL: down */
	unsigned start;    /* counts the starts: an answer for an earlier one is dropped */
	atomic_bool cut_off;
};

struct nodes {
	char dir[TEST_DIR];
	struct node node[NODES_MAX];
	size_t n;
	struct loop *front; /* of the test's thread */
	struct loop *net;   /* where answers between nodes are made */
	pthread_mutex_t lock;
	uint64_t snapshot_bytes, apply_turn_ns;
	unsigned election_ms;
	/* Second descriptors of the links, to end them from outside. */
	struct {
		const struct node *a, *b;
		int fd;
	} link[512];
	size_t n_links;
};

static inline struct node *nodes_find(struct nodes *t, uint64_t id)
{
	for (size_t i = 0; i < t->n; i++) {
		if (t->node[i].id == id) {
			return &t->node[i];
		}
	}
	return NULL;
}

static inline bool nodes_joined(const struct node *a, const struct node *b)
{
	return a != NULL && b != NULL && a->c != NULL && b->c != NULL && !a->cut_off && !b->cut_off;
}

/* ---- the link ---- */

static void nodes_connect(void *impl, uint64_t request, uint64_t id, const char *address)
{
	struct node *a = impl, *b;
	int fd[2];

	(void)address;
	pthread_mutex_lock(&a->all->lock);
	b = nodes_find(a->all, id);
	if (nodes_joined(a, b) &&
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) == 0) {
		if (a->all->n_links < ARRAY_LEN(a->all->link)) {
			size_t l = a->all->n_links++;

			a->all->link[l].a = a;
			a->all->link[l].b = b;
			a->all->link[l].fd = dup(fd[0]);
		}
		link_connected(a->c, request, fd[0]);
		link_accepted(b->c, a->id, a->c->peer_address, fd[1]);
	} else if (a->c != NULL) {
		link_connected(a->c, request, ERR_UNAVAILABLE);
	}
	pthread_mutex_unlock(&a->all->lock);
}

/* Ends all links of a node (NULL: of all). */
static inline void nodes_cut_links(struct nodes *t, const struct node *of)
{
	size_t kept = 0;

	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < t->n_links; i++) {
		if (of == NULL || t->link[i].a == of || t->link[i].b == of) {
			shutdown(t->link[i].fd, SHUT_RDWR);
			close(t->link[i].fd);
		} else {
			t->link[kept++] = t->link[i];
		}
	}
	t->n_links = kept;
	pthread_mutex_unlock(&t->lock);
}

struct nodes_call {
	struct node *from;
	unsigned start;
	uint64_t request;
	bool read;
};

static void nodes_answer(struct nodes_call *k, const struct err *err, ProtobufCBinaryData r,
			 struct link_place at)
{
	struct node *a = k->from;

	pthread_mutex_lock(&a->all->lock);
	if (a->c != NULL && a->start == k->start) {
		if (k->read) {
			link_read_index(a->c, k->request, err, at);
		} else {
			link_proposed(a->c, k->request, err, r, at);
		}
	}
	pthread_mutex_unlock(&a->all->lock);
	mem_free(k);
}

static void nodes_on_proposed(void *arg, const struct err *err, ProtobufCBinaryData r,
			      struct link_place at)
{
	nodes_answer(arg, err, r, at);
}

static void nodes_on_read(void *arg, const struct err *err, struct link_place at)
{
	nodes_answer(arg, err, (ProtobufCBinaryData){0}, at);
}

static void nodes_call(struct node *a, uint64_t request, uint64_t leader, const void *command,
		       size_t len, uint64_t deadline_ms)
{
	struct nodes_call *k = MEM_NEW(struct nodes_call);
	struct err err = {0};
	struct node *b;
	int r;

	pthread_mutex_lock(&a->all->lock);
	k->from = a;
	k->start = a->start;
	k->request = request;
	k->read = command == NULL;
	b = nodes_find(a->all, leader);
	if (!nodes_joined(a, b)) {
		r = err_reason(&err, ERR_UNAVAILABLE, "NOT_SENT", "no link");
	} else if (k->read) {
		r = read_local_index(b->c, a->all->net, deadline_ms, nodes_on_read, k, &err);
	} else {
		r = propose_local(b->c, a->all->net, command, len, deadline_ms, nodes_on_proposed,
				  k, &err);
	}
	pthread_mutex_unlock(&a->all->lock);
	if (r != 0) {
		nodes_answer(k, &err, (ProtobufCBinaryData){0}, (struct link_place){0});
	}
}

static void nodes_propose(void *impl, uint64_t request, uint64_t leader, const void *command,
			  size_t len, uint64_t deadline_ms)
{
	nodes_call(impl, request, leader, command, len, deadline_ms);
}

static void nodes_read_index(void *impl, uint64_t request, uint64_t leader, uint64_t deadline_ms)
{
	nodes_call(impl, request, leader, NULL, 0, deadline_ms);
}

static void nodes_nothing(void *impl)
{
	(void)impl;
}

static void nodes_cut(void *impl, uint64_t id)
{
	(void)impl;
	(void)id;
}

static void nodes_leader(void *impl, uint64_t leader, uint64_t term, bool self)
{
	(void)impl;
	(void)leader;
	(void)term;
	(void)self;
}

static const struct peer_ops nodes_ops = {
	.connect = nodes_connect,
	.cut = nodes_cut,
	.leader = nodes_leader,
	.members = nodes_nothing,
	.propose = nodes_propose,
	.read_index = nodes_read_index,
};

/* ---- waiting ---- */

static void nodes_no_more(void *arg)
{
	*(bool *)arg = true;
}

/* Runs the front loop until the condition holds. */
#define NODES_WAIT(t, condition)                                                             \
	do {                                                                                 \
		uint64_t end_ = clock_mono_ms() + NODES_WAIT_MS;                             \
		while (!(condition)) {                                                       \
			struct loop_timer timer_ = {0};                                      \
			bool fired_ = false;                                                 \
			if (clock_mono_ms() > end_) {                                        \
				TEST_FAIL("waited %d ms for %s", NODES_WAIT_MS, #condition); \
			}                                                                    \
			loop_timer_start(&timer_, (t)->front, 2, nodes_no_more, &fired_);    \
			loop_turn((t)->front, true);                                         \
			loop_timer_stop(&timer_);                                            \
		}                                                                            \
	} while (0)

/* ---- life ---- */

static inline void nodes_start(struct nodes *t, size_t i)
{
	struct node *a = &t->node[i];
	struct cluster_options o = {.dir = a->dir,
				    .version = "test",
				    .map_bytes = 256 << 20,
				    .snapshot_bytes = t->snapshot_bytes,
				    .apply_turn_ns = t->apply_turn_ns,
				    .election_ms = t->election_ms};
	struct cluster *c;
	struct err err = {0};

	if (cluster_prepare(&c, &o, &err) != 0) {
		TEST_FAIL("node %zu does not open: %s", i, err.msg);
	}
	pthread_mutex_lock(&t->lock);
	a->id = c->id;
	a->start++;
	a->c = c;
	pthread_mutex_unlock(&t->lock);
	assert_ok(cluster_start(c, &nodes_ops, a, &err));
}

static inline struct cluster *nodes_take(struct nodes *t, size_t i)
{
	struct cluster *c;

	pthread_mutex_lock(&t->lock);
	c = t->node[i].c;
	t->node[i].c = NULL;
	pthread_mutex_unlock(&t->lock);
	return c;
}

static inline void nodes_kill(struct nodes *t, size_t i)
{
	cluster_kill(nodes_take(t, i));
	nodes_cut_links(t, &t->node[i]);
}

static inline void nodes_stop(struct nodes *t, size_t i)
{
	struct cluster *c = t->node[i].c;

	cluster_stop(c); /* links stay while leadership is handed over */
	IGNORE(nodes_take(t, i) == NULL);
	cluster_free(c);
}

/* Its directory, below that of all. The copy: the compiler cannot see that the two do not overlap. */
static inline void node_place(struct node *n, size_t i)
{
	char base[TEST_DIR];

	memcpy(base, n->all->dir, sizeof(base));
	snprintf(n->dir, sizeof(n->dir), "%s/%zu", base, i);
}

static inline void nodes_setup(struct nodes *t)
{
	char *recovery;
	struct err err = {0};
	struct cluster_init_options o = {.name = "one",
					 .cluster_name = "test",
					 .peer_address = "one.test:8444",
					 .api_url = "https://one.test:8443"};

	memset(t, 0, sizeof(*t));
	test_dir_make(t->dir);
	pthread_mutex_init(&t->lock, NULL);
	t->front = loop_new("front");
	t->net = loop_new("net");
	t->election_ms = 300;
	assert_ok(loop_thread_start(t->net));
	t->node[0].all = t;
	node_place(&t->node[0], 0);
	t->node[0].all = t;
	o.dir = t->node[0].dir;
	if (cluster_init(&o, &recovery, &err) != 0) {
		TEST_FAIL("cluster_init: %s %s", err.msg, err.field);
	}
	mem_free(recovery);
	t->n = 1;
}

static inline void nodes_end(struct nodes *t)
{
	for (size_t i = t->n; i-- > 0;) {
		if (t->node[i].c != NULL) {
			nodes_stop(t, i);
		}
	}
	nodes_cut_links(t, NULL);
	loop_stop(t->net);
	loop_thread_join(t->net);
	loop_free(t->net);
	loop_free(t->front);
	pthread_mutex_destroy(&t->lock);
	test_dir_remove(t->dir);
}

static inline bool nodes_leads(const struct nodes *t, size_t i)
{
	struct link_state s;

	if (t->node[i].c == NULL) {
		return false;
	}
	link_state(t->node[i].c, &s);
	return s.self_leads;
}

static inline int nodes_leader_of(const struct nodes *t)
{
	for (size_t i = 0; i < t->n; i++) {
		if (nodes_leads(t, i)) {
			return (int)i;
		}
	}
	return -1;
}

/* ---- calls ---- */

struct nodes_result {
	bool done;
	int times;
	struct err err;
	int code;
	uint64_t revision, id;
	char reason[48], message[200];
};

static void nodes_on_result(void *arg, const struct err *err, const CommandResult *r)
{
	struct nodes_result *n = arg;

	n->done = true;
	n->times++;
	n->err = *err;
	if (r != NULL) {
		n->code = r->code;
		n->revision = r->revision;
		n->id = r->id;
		snprintf(n->reason, sizeof(n->reason), "%s", r->reason);
		snprintf(n->message, sizeof(n->message), "%s", r->message);
	}
}

static inline int nodes_tailnet_create(struct nodes *t, size_t i, const char *name,
				       struct nodes_result *result, struct err *err)
{
	Skerry__Internal__V1__TailnetCreate body = SKERRY__INTERNAL__V1__TAILNET_CREATE__INIT;
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;

	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_SYSTEM;
	cmd.actor = &actor;
	body.name = (char *)name;
	body.user_name = (char *)"admin";
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_TAILNET_CREATE;
	cmd.tailnet_create = &body;
	return cluster_propose(t->node[i].c, t->front, &cmd, NULL, nodes_on_result, result, err);
}

/* A command that changes next to nothing. */
static inline int nodes_marker(struct nodes *t, size_t i, uint64_t id, struct nodes_result *result,
			       struct err *err)
{
	Skerry__Internal__V1__DigestMarker body = SKERRY__INTERNAL__V1__DIGEST_MARKER__INIT;
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;

	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_SYSTEM;
	cmd.actor = &actor;
	body.id = id;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_DIGEST_MARKER;
	cmd.digest_marker = &body;
	return cluster_propose(t->node[i].c, t->front, &cmd, NULL, nodes_on_result, result, err);
}

/* Proposes and waits; the command must be accepted. */
static inline struct nodes_result nodes_tailnet(struct nodes *t, size_t i, const char *name)
{
	struct nodes_result r = {0};

	assert_ok(nodes_tailnet_create(t, i, name, &r, NULL));
	NODES_WAIT(t, r.done);
	if (r.err.code != 0 || r.code != 0) {
		TEST_FAIL("tailnet %s: %d %s / %d %s", name, r.err.code, r.err.msg, r.code,
			  r.message);
	}
	return r;
}

static inline bool nodes_has_tailnet(struct nodes *t, size_t i, const char *name)
{
	struct cluster_read *read;
	struct arena arena;
	TailnetRecord *rec;
	int r;

	arena_init(&arena, 1 << 20);
	assert_ok(cluster_read_begin(t->node[i].c, "test", &read, NULL));
	r = query_tailnet_named(cluster_read_kv(read), name, &arena, &rec);
	cluster_read_end(read);
	arena_done(&arena);
	return r == 0;
}

static void nodes_on_read_done(void *arg, const struct err *err)
{
	struct nodes_result *n = arg;

	n->done = true;
	n->times++;
	n->err = *err;
}

static inline struct nodes_result nodes_read(struct nodes *t, size_t i, struct read_want want)
{
	struct nodes_result r = {0};

	if (want.deadline_ms == 0) {
		want.deadline_ms = clock_mono_ms() + NODES_WAIT_MS;
	}
	assert_ok(cluster_read_wait(t->node[i].c, t->front, &want, nodes_on_read_done, &r, NULL));
	assert_false(r.done); /* never inside the call */
	NODES_WAIT(t, r.done);
	return r;
}

static inline struct state_view nodes_view(struct nodes *t, size_t i)
{
	struct cluster_read *read;
	struct state_view v;

	assert_ok(cluster_read_begin(t->node[i].c, "test", &read, NULL));
	assert_ok(fsm_view(cluster_read_kv(read), &v, NULL));
	cluster_read_end(read);
	return v;
}

/* All that are up hold the same state. */
static inline bool nodes_agree(struct nodes *t)
{
	struct state_view first = {0};
	bool have = false;

	for (size_t i = 0; i < t->n; i++) {
		struct state_view v;

		if (t->node[i].c == NULL) {
			continue;
		}
		v = nodes_view(t, i);
		if (have && (v.revision != first.revision ||
			     memcmp(v.digest, first.digest, sizeof(v.digest)) != 0)) {
			return false;
		}
		first = v;
		have = true;
	}
	return true;
}

static void nodes_on_change(void *arg, const struct err *err)
{
	struct nodes_result *n = arg;

	n->done = true;
	n->times++;
	n->err = *err;
}

/* For cluster_call. */
static inline void nodes_stats_of(void *arg)
{
	struct {
		struct cluster *c;
		struct consensus_stats s;
	} *a = arg;

	consensus_stats(a->c->cs, &a->s);
}

/* ---- a further member ---- */

/* What a join leaves behind: an identity of the same cluster, with the CA taken from the state of node 0. */
static inline void nodes_identity(struct nodes *t, struct node *b, size_t i, struct keyfile *k)
{
	struct cluster_read *read;
	struct arena arena;
	struct keyfile first = {0};
	struct pki_ca ca;
	CaRecord *rec;
	SealedSecret *secret;
	struct buf cert = BUF_INIT, api = BUF_INIT;
	uint8_t spki[PKI_SPKI_MAX];
	struct err err = {0};

	arena_init(&arena, 1 << 20);
	assert_ok(keyfile_read(t->node[0].dir, &first, &err));
	assert_ok(cluster_read_begin(t->node[0].c, "test", &read, NULL));
	assert_ok(query_ca(cluster_read_kv(read), &arena, &rec));
	assert_ok(query_secret(cluster_read_kv(read), PKI_CA_KEY_NAME, &arena, &secret));
	cluster_read_end(read);
	assert_ok(pki_ca_open(first.cluster_id, rec->certificate_der.data, rec->certificate_der.len,
			      secret->box.data, secret->box.len, secret->generation,
			      first.cluster_key, &ca, &err));
	memset(k, 0, sizeof(*k));
	k->cluster_id = first.cluster_id;
	k->lighthouse_id = b->id;
	k->name = mem_printf("node%zu", i);
	k->peer_address = mem_printf("node%zu.test:8444", i);
	k->api_url = mem_printf("https://node%zu.test:8443", i);
	k->cluster_key = secret_alloc(PKI_KEY);
	memcpy(k->cluster_key, first.cluster_key, PKI_KEY);
	assert_ok(x509_key_new(X509_KEY_P256, &k->node_key, &err));
	assert_ok(x509_key_new(X509_KEY_P256, &k->api_key, &err));
	assert_ok(pki_issue_peer(&ca, b->id, spki, pki_spki(k->node_key, spki), clock_wall_ms(),
				 &cert, &err));
	assert_ok(pki_issue_api(&ca, b->id, spki, pki_spki(k->api_key, spki), k->api_url,
				clock_wall_ms(), &api, &err));
	k->node_cert_pem = mem_strdup(buf_str(&cert));
	k->api_cert_pem = mem_strdup(buf_str(&api));
	k->ca_cert_pem = mem_strdup(first.ca_cert_pem);
	memcpy(k->ca_pin, first.ca_pin, sizeof(k->ca_pin));
	buf_done(&cert);
	buf_done(&api);
	pki_ca_done(&ca);
	keyfile_done(&first);
	arena_done(&arena);
}

static inline void nodes_command(struct nodes *t, Command *cmd)
{
	Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	struct nodes_result r = {0};

	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_SYSTEM;
	cmd->actor = &actor;
	assert_ok(cluster_propose(t->node[0].c, t->front, cmd, NULL, nodes_on_result, &r, NULL));
	NODES_WAIT(t, r.done);
	if (r.err.code != 0 || r.code != 0) {
		TEST_FAIL("%s / %d %s", r.err.msg, r.code, r.message);
	}
}

/* Registers the new member in the table: a token, and its use. */
static inline void nodes_register(struct nodes *t, const struct keyfile *k)
{
	Skerry__Internal__V1__JoinTokenCreate token = SKERRY__INTERNAL__V1__JOIN_TOKEN_CREATE__INIT;
	Skerry__Internal__V1__Credential cred = SKERRY__INTERNAL__V1__CREDENTIAL__INIT;
	Skerry__Internal__V1__MemberJoin join = SKERRY__INTERNAL__V1__MEMBER_JOIN__INIT;
	MemberRecord m = SKERRY__INTERNAL__V1__MEMBER_RECORD__INIT;
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	uint8_t hash[32] = {1}, spki[PKI_SPKI_MAX];

	cred.id = k->lighthouse_id >> 11 | 1;
	cred.hash_kind = SKERRY__INTERNAL__V1__HASH_KIND__HASH_KIND_SHA256;
	cred.hash = (ProtobufCBinaryData){.data = hash, .len = sizeof(hash)};
	token.credential = &cred;
	token.lifetime_ms = 60000;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_JOIN_TOKEN_CREATE;
	cmd.join_token_create = &token;
	nodes_command(t, &cmd);

	m.id = k->lighthouse_id;
	m.name = k->name;
	m.kind = SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_STANDBY;
	m.public_key = (ProtobufCBinaryData){.data = spki, .len = pki_spki(k->node_key, spki)};
	m.peer_address = k->peer_address;
	m.api_url = k->api_url;
	m.feature_min = FEATURE_LEVEL_MIN;
	m.feature_max = FEATURE_LEVEL_MAX;
	m.join_request_hash = (ProtobufCBinaryData){.data = hash, .len = sizeof(hash)};
	join.token_id = cred.id;
	join.token_verified = true;
	join.member = &m;
	skerry__internal__v1__command__init(&cmd);
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_MEMBER_JOIN;
	cmd.member_join = &join;
	nodes_command(t, &cmd);
}

/* Adds a node to a running cluster whose leader is `leader`: member table, raft, and makes it a voter. */
static inline size_t nodes_join(struct nodes *t, size_t leader)
{
	size_t i = t->n;
	struct node *b = &t->node[i];
	struct nodes_result r = {0};
	struct keyfile k;
	struct err err = {0};

	b->all = t;
	b->id = rand_id63();
	node_place(b, i);
	nodes_identity(t, b, i, &k);
	nodes_register(t, &k);
	assert_int_equal(mkdir(b->dir, 0700), 0);
	if (keyfile_write(b->dir, &k, &err) != 0) {
		TEST_FAIL("identity: %s", err.msg);
	}
	pthread_mutex_lock(&t->lock);
	t->n++;
	pthread_mutex_unlock(&t->lock);
	nodes_start(t, i);
	link_add(t->node[leader].c, t->front, b->id, k.peer_address, nodes_on_change, &r);
	NODES_WAIT(t, r.done);
	if (r.err.code != 0) {
		TEST_FAIL("add: %s", r.err.msg);
	}
	memset(&r, 0, sizeof(r));
	link_promote(t->node[leader].c, t->front, b->id, nodes_on_change, &r);
	NODES_WAIT(t, r.done);
	if (r.err.code != 0) {
		TEST_FAIL("promote: %s", r.err.msg);
	}
	keyfile_done(&k);
	return i;
}
