/* A lighthouse's cluster/ in a child process, driven by lines of text. */
#include "node.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/lib/test.h"

#include "base/crypto.h"
#include "base/enc.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "cluster/check.h"
#include "cluster/cluster_int.h"
#include "cluster/keyfile.h"
#include "cluster/peer_int.h"
#include "cluster/store_env_int.h"
#include "proto/pb_util.h"
#include "tailnet/keys.h"
#include "net/loop.h"
#include "tailnet/query.h"

unsigned node_election_ms;
uint64_t node_compare_ms, node_scrub_ms, node_snapshot_bytes, node_look_bytes, node_turn_ms;

struct child {
	struct node *node;
	FILE *in, *out;
	struct cluster *cluster;
	struct loop *loop; /* where callbacks come */
	uint64_t tailnet;

	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	struct err err;
	char text[NODE_LINE];
	uint64_t number;

	/* load */
	char prefix[32];
	bool loading;
	unsigned chains; /* proposals under way */
	uint64_t next, acked, failed;
};

static void answered(struct child *c)
{
	pthread_mutex_lock(&c->lock);
	c->done = true;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

static void wait_answer(struct child *c)
{
	pthread_mutex_lock(&c->lock);
	while (!c->done) {
		pthread_cond_wait(&c->cond, &c->lock);
	}
	c->done = false;
	pthread_mutex_unlock(&c->lock);
}

__attribute__((format(printf, 2, 3))) static void say(struct child *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(c->out, fmt, ap);
	va_end(ap);
	fputc('\n', c->out);
	fflush(c->out);
}

static void say_error(struct child *c, const struct err *e)
{
	say(c, "error %s %s", e->reason[0] != '\0' ? e->reason : err_name(e->code), e->msg);
}

/* What a command that has ended comes to: "ok", with `text` behind it, or the error in c. */
static void say_end(struct child *c, const char *text)
{
	if (c->err.code != 0) {
		say_error(c, &c->err);
	} else {
		say(c, "ok%s%s", text[0] != '\0' ? " " : "", text);
	}
}

/* The same of a call whose callback says so and fills c->text; negative `r`: it was not even begun. */
static void say_call(struct child *c, int r, const struct err *e)
{
	if (r < 0) {
		say_error(c, e);
		return;
	}
	wait_answer(c);
	say_end(c, c->text);
}

static void on_result(void *arg, const struct err *err,
		      const Skerry__Internal__V1__CommandResult *r)
{
	struct child *c = arg;

	c->err = *err;
	c->text[0] = '\0';
	if (err->code == 0 && r->code != 0) {
		err_reason(&c->err, err_from_grpc(r->code), r->reason, "%s", r->message);
	}
	answered(c);
}

static void user_command(struct child *c, const char *name, Skerry__Internal__V1__Command *cmd,
			 Skerry__Internal__V1__Actor *actor, Skerry__Internal__V1__UserCreate *body,
			 uint8_t random[32])
{
	skerry__internal__v1__command__init(cmd);
	skerry__internal__v1__actor__init(actor);
	skerry__internal__v1__user_create__init(body);
	actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_SYSTEM;
	rand_bytes(random, 32);
	body->login_name = (char *)name;
	cmd->actor = actor;
	cmd->random.data = random;
	cmd->random.len = 32;
	cmd->tailnet = c->tailnet;
	cmd->body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_USER_CREATE;
	cmd->user_create = body;
}

static int propose_user(struct child *c, const char *name, propose_cb cb, struct err *err)
{
	Skerry__Internal__V1__Command cmd;
	Skerry__Internal__V1__Actor actor;
	Skerry__Internal__V1__UserCreate body;
	struct propose_options o = {.class = PROPOSE_CLIENT};
	uint8_t random[32];

	user_command(c, name, &cmd, &actor, &body, random);
	return cluster_propose(c->cluster, c->loop, &cmd, &o, cb, c, err);
}

/* A peer certificate whose time was over an hour ago. */
static int issue_expired(const struct pki_ca *ca, uint64_t id, const void *spki, size_t len,
			 int64_t now, struct buf *out, struct err *e)
{
	char uri[PKI_URI_MAX];
	const char *uris[] = {pki_uri_peer(ca->cluster, id, uri), NULL};
	struct x509_spec spec = {
		.subject = "expired",
		.uris = uris,
		.not_before_ms = now - PKI_BACKDATE_MS,
		.not_after_ms = now - 3600000,
		.server = true,
		.client = true,
	};
	uint8_t pub[X509_PUB_MAX];
	enum x509_key_type type;
	size_t n;
	int r = pki_spki_parse(spki, len, &type, pub, &n, e);

	return r < 0 ? r : x509_issue(ca->key, ca->cert_pem, type, pub, n, &spec, out, e);
}

/*
 * "DIR expired": a certificate for the same key that has expired. "DIR": a thief's, of the cluster's own CA and with the
 * right name, but for another key, which goes with it into the directory.
 */
static int forge(struct child *c, char *dir, struct err *e)
{
	char *expired = strchr(dir, ' ');
	int64_t now = clock_wall_ms();
	struct keyfile mine = {0}, k = {0};
	struct cluster_read *read = NULL;
	struct buf pem = BUF_INIT;
	struct pki_ca ca = {0};
	uint8_t spki[PKI_SPKI_MAX];
	SealedSecret *box;
	CaRecord *record;
	struct arena a;
	int r = keyfile_read(c->node->dir, &mine, e);

	if (expired != NULL) {
		*expired = '\0';
	}

	arena_init(&a, 1 << 16);
	if (r >= 0) {
		r = keyfile_read(dir, &k, e);
	}
	if (r >= 0) {
		r = cluster_read_begin(c->cluster, "test", &read, e);
	}
	if (r >= 0) {
		r = query_ca(cluster_read_kv(read), &a, &record);
	}
	if (r >= 0) {
		r = query_secret(cluster_read_kv(read), PKI_CA_KEY_NAME, &a, &box);
	}
	if (r >= 0) {
		r = pki_ca_open(mine.cluster_id, record->certificate_der.data,
				record->certificate_der.len, box->box.data, box->box.len,
				box->generation, mine.cluster_key, &ca, e);
	}
	if (r >= 0 && expired == NULL) {
		x509_key_free(k.node_key);
		k.node_key = NULL;
		r = x509_key_new(X509_KEY_P256, &k.node_key, e);
	}
	if (r >= 0) {
		size_t n = pki_spki(k.node_key, spki);

		r = expired != NULL ? issue_expired(&ca, k.lighthouse_id, spki, n, now, &pem, e)
				    : pki_issue_peer(&ca, k.lighthouse_id, spki, n, now, &pem, e);
	}
	if (r >= 0) {
		mem_free(k.node_cert_pem);
		k.node_cert_pem = buf_take(&pem, NULL);
		r = keyfile_write(dir, &k, e);
	}
	if (read != NULL) {
		cluster_read_end(read);
	}
	arena_done(&a);
	pki_ca_done(&ca);
	keyfile_done(&mine);
	keyfile_done(&k);
	return r;
}

/* The tailnet that init made; 0 while there is no state. */
static bool find_tailnet(struct child *c)
{
	struct cluster_read *read;
	TailnetRecord *t;
	struct arena a;

	if (c->tailnet != 0) {
		return true;
	}
	if (cluster_read_begin(c->cluster, "test", &read, NULL) < 0) {
		return false;
	}
	arena_init(&a, 1 << 16);
	if (query_tailnet_named(cluster_read_kv(read), "default", &a, &t) >= 0) {
		c->tailnet = t->id;
	}
	arena_done(&a);
	cluster_read_end(read);
	return c->tailnet != 0;
}

static void do_user(struct child *c, const char *name)
{
	struct err e = {0};

	if (!find_tailnet(c)) {
		say(c, "error NO_STATE no state yet");
	} else {
		say_call(c, propose_user(c, name, on_result, &e), &e);
	}
}

static void do_has(struct child *c, const char *name)
{
	struct cluster_read *read;
	UserRecord *u;
	struct arena a;
	int r = ERR_NOT_FOUND;

	if (find_tailnet(c) && cluster_read_begin(c->cluster, "test", &read, NULL) >= 0) {
		arena_init(&a, 1 << 16);
		r = query_user_login(cluster_read_kv(read), c->tailnet, name, &a, &u);
		arena_done(&a);
		cluster_read_end(read);
	}
	say(c, "ok %d", r >= 0);
}

static void load_next(void *arg);

static void on_load(void *arg, const struct err *err, const Skerry__Internal__V1__CommandResult *r)
{
	struct child *c = arg;

	if (err->code == 0 && r->code == 0) {
		c->acked++;
	} else {
		fprintf(stderr, "%s: load: %s %s\n", c->node->name, err_name(err->code),
			err->code != 0 ? err->msg : r->message);
		c->failed++;
	}
	load_next(c);
}

/* On the loop. */
static void load_next(void *arg)
{
	struct child *c = arg;
	struct err e = {0};
	char name[64];

	if (!c->loading) {
		if (--c->chains == 0) {
			answered(c);
		}
		return;
	}
	snprintf(name, sizeof(name), "%s%" PRIu64, c->prefix, ++c->next);
	if (propose_user(c, name, on_load, &e) < 0) {
		c->failed++;
		loop_post_reply(c->loop, load_next, c);
	}
}

static void load_end(void *arg)
{
	((struct child *)arg)->loading = false;
}

static void do_load(struct child *c, char *arg)
{
	char *width = strchr(arg, ' ');

	if (width != NULL) {
		*width++ = '\0';
	}
	snprintf(c->prefix, sizeof(c->prefix), "%s", arg);
	c->loading = find_tailnet(c);
	c->next = c->acked = c->failed = 0;
	c->chains = width != NULL ? (unsigned)atoi(width) : 1;
	for (unsigned i = 0; i < c->chains; i++) {
		loop_post_reply(c->loop, load_next, c);
	}
	say(c, "ok");
}

static void on_token(void *arg, const struct err *err, const char *token, uint64_t id,
		     uint64_t expire_ms)
{
	struct child *c = arg;

	(void)id;
	(void)expire_ms;
	c->err = *err;
	snprintf(c->text, sizeof(c->text), "%s", token != NULL ? token : "");
	answered(c);
}

static void do_token(struct child *c, uint64_t lifetime_ms)
{
	Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	struct err e = {0};

	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_SYSTEM;
	say_call(c, cluster_token_create(c->cluster, c->loop, &actor, lifetime_ms, on_token, c, &e),
		 &e);
}

static void on_members(void *arg, const struct err *err, uint64_t change)
{
	struct child *c = arg;

	c->err = *err;
	snprintf(c->text, sizeof(c->text), "%" PRIu64, change);
	answered(c);
}

/* "KIND ID[,ID...] [with=ID] [nofill]" */
static void do_change(struct child *c, char *line)
{
	static const char *const kinds[] = {[CLUSTER_PROMOTE] = "promote",
					    [CLUSTER_DEMOTE] = "demote",
					    [CLUSTER_REMOVE] = "remove",
					    [CLUSTER_REPLACE] = "replace",
					    [CLUSTER_CANCEL] = "cancel"};
	Skerry__Internal__V1__Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	struct cluster_wish w = {.kind = CLUSTER_CANCEL, .actor = &actor};
	char *save, *word = strtok_r(line, " ", &save);
	struct err e = {0};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (strcmp(word, kinds[i]) == 0) {
			w.kind = (enum cluster_members_kind)i;
		}
	}
	while ((word = strtok_r(NULL, " ,", &save)) != NULL) {
		if (strcmp(word, "nofill") == 0) {
			w.no_fill = true;
		} else if (strncmp(word, "with=", 5) == 0) {
			w.with = strtoull(word + 5, NULL, 10);
		} else {
			w.id[w.n++] = strtoull(word, NULL, 10);
		}
	}
	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_SYSTEM;
	say_call(c,
		 cluster_change_members(c->cluster, c->loop, &w, clock_mono_ms() + 15000,
					on_members, c, &e),
		 &e);
}

/* Dies by SIGKILL at the n-th event of the leader's steps: before one, or right after it was begun. */
static atomic_int steps_left;

static void on_step(void *arg, int action, bool begun)
{
	(void)arg;
	(void)action;
	(void)begun;
	if (atomic_fetch_sub(&steps_left, 1) == 1) {
		kill(getpid(), SIGKILL);
		pause();
	}
}

static void change_facts(struct child *c, uint64_t *ret_id, uint64_t *ret_last, int *ret_step,
			 int *ret_outcome)
{
	struct cluster_read *read;
	MembershipChange *m;
	struct arena a;

	*ret_id = *ret_last = 0;
	*ret_step = *ret_outcome = 0;
	if (cluster_read_begin(c->cluster, "test", &read, NULL) < 0) {
		return;
	}
	arena_init(&a, 1 << 16);
	if (query_membership(cluster_read_kv(read), false, &a, &m) >= 0) {
		*ret_id = m->id;
		*ret_step = (int)m->step;
	}
	if (query_membership(cluster_read_kv(read), true, &a, &m) >= 0) {
		*ret_last = m->id;
		*ret_outcome = (int)m->outcome;
	}
	arena_done(&a);
	cluster_read_end(read);
}

static void on_digests(void *arg, const struct err *err, uint64_t revision, size_t n,
		       const struct cluster_digest *d)
{
	struct child *c = arg;
	char hex[65];
	size_t len = 0;

	(void)revision;
	c->err = *err;
	c->text[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		len += (size_t)snprintf(
			c->text + len, sizeof(c->text) - len, "%s%s", i > 0 ? " " : "",
			d[i].error[0] != '\0' ? "-" : hex_encode(hex, d[i].digest, 32));
	}
	answered(c);
}

static void do_digests(struct child *c)
{
	struct err e = {0};

	say_call(c,
		 cluster_compare_digests(c->cluster, c->loop, clock_mono_ms() + 5000, on_digests, c,
					 &e),
		 &e);
}

struct stats_of {
	struct cluster *c;
	struct consensus_stats *s;
};

static void stats_get(void *arg)
{
	struct stats_of *a = arg;

	consensus_stats(a->c->cs, a->s);
}

static void do_status(struct child *c)
{
	struct consensus_stats stats;
	struct cluster_facts facts;
	struct cluster_status s;
	size_t voters = 0, linked = 0, lost = 0;
	double damaged = metrics_value("skerry_snapshot_damage_total", NULL);
	double races = metrics_value("skerry_peer_probe_lost_total", NULL);
	double wishes = metrics_value("skerry_peer_raft_wishes_total", NULL);
	double odd = metrics_value("skerry_scrub_contradictions_total", NULL);
	double alarms = metrics_value("skerry_peer_probe_false_alarms_total", NULL);
	struct link_state link;
	uint64_t change, last;
	char raft[160] = "";
	size_t at = 0;
	int step, outcome;

	cluster_status(c->cluster, &s);
	cluster_facts_self(c->cluster, &facts);
	for (size_t i = 0; i < s.n_members; i++) {
		voters += s.member[i].voter;
		linked += s.member[i].connected && !s.member[i].self;
		lost += s.member[i].incarnation == 0;
	}
	change_facts(c, &change, &last, &step, &outcome);
	link_state(c->cluster, &link);
	cluster_call(c->cluster, stats_get, &(struct stats_of){c->cluster, &stats});
	for (size_t i = 0; i < link.n && at + 24 < sizeof(raft); i++) {
		at += (size_t)snprintf(raft + at, sizeof(raft) - at, " %" PRIu64 ":%c",
				       link.server[i].id % 10000, "-SV"[link.server[i].role]);
	}
	say(c,
	    "ok id=%" PRIu64 " leader=%" PRIu64 " term=%" PRIu64
	    " members=%zu voters=%zu linked=%zu "
	    "applied=%" PRIu64 " revision=%" PRIu64
	    " quorum=%d lost=%zu races=%.0f alarms=%.0f change=%" PRIu64 " step=%d ended=%" PRIu64
	    " outcome=%d last=%" PRIu64 " commit=%" PRIu64 " role=%s repeated=%" PRIu64
	    " dropped=%" PRIu64 " scrubbed=%d damaged=%.0f wishes=%.0f odd=%.0f raft:%s",
	    s.lighthouse_id, s.leader_id, s.term, s.n_members, voters, linked, s.applied_index,
	    s.revision, s.quorum, lost, races == races ? races : 0, alarms == alarms ? alarms : 0,
	    change, step, last, outcome, link.last_index, link.commit_index, stats.role,
	    stats.votes_repeated, stats.messages_dropped, facts.scrubbed_ms != 0,
	    damaged == damaged ? damaged : 0, wishes == wishes ? wishes : 0, odd == odd ? odd : 0,
	    raft);
}

/* On the peer thread. */
static void acked_get(void *arg)
{
	struct child *c = arg;
	struct peer_link *l = peer_link_find(c->cluster->peer, c->number);

	c->number = l != NULL ? l->ack : 0;
	answered(c);
}

static void do_acked(struct child *c, uint64_t id)
{
	c->number = id;
	loop_post_reply(c->cluster->peer->loop, acked_get, c);
	wait_answer(c);
	say(c, "ok acked=%" PRIu64, c->number);
}

/* Behind the back of everything that keeps the digest, on the raft thread. */
static void corrupt(void *arg)
{
	struct child *c = arg;
	struct buf packed = BUF_INIT;
	const struct kv *kv;
	struct slice key, value;
	struct arena a;
	struct skey k;
	Meta *meta;

	arena_init(&a, 1 << 16);
	c->err = (struct err){0};
	c->err.code = store_write(c->cluster->store, &kv, &c->err);
	if (c->err.code == 0 && strcmp(c->text, "digest") == 0) {
		c->err.code = query_meta(kv, &a, &meta);
		if (c->err.code == 0) {
			meta->digest.data[5] ^= 1;
			pb_pack(meta, &packed);
			skey_init(&k, TABLE_META);
			c->err.code =
				kv_put(kv, skey_slice(&k), (struct slice){packed.data, packed.len});
		}
	} else if (c->err.code == 0 && strcmp(c->text, "record") != 0) {
		/* "index" loses an entry, "forged" gets one more. */
		skey_init(&k, TABLE_BY_LOGIN);
		c->err.code = kv_next(kv, skey_slice(&k), &key, &value);
		if (c->err.code == 0) {
			uint8_t copy[16];

			skey_bytes(&k, TABLE_BY_LOGIN, (const uint8_t *)key.data + 1, key.len - 1);
			memcpy(copy, value.data, sizeof(copy));
			k.data[k.len - 1] ^= strcmp(c->text, "forged") == 0;
			c->err.code = strcmp(c->text, "forged") == 0
					      ? kv_put(kv, skey_slice(&k), (struct slice){copy, 16})
					      : kv_del(kv, skey_slice(&k));
		}
	} else if (c->err.code == 0) {
		skey_init(&k, TABLE_USER);
		c->err.code = kv_next(kv, skey_slice(&k), &key, &value);
		if (c->err.code == 0) {
			uint8_t *copy = mem_memdup(value.data, value.len);

			copy[value.len / 2] ^= 1;
			c->err.code = kv_put(kv, key, (struct slice){copy, value.len});
			mem_free(copy);
		}
	}
	if (c->err.code == 0) {
		c->err.code = store_commit(c->cluster->store, &c->err);
	}
	buf_done(&packed);
	arena_done(&a);
}

static void do_corrupt(struct child *c, const char *what)
{
	snprintf(c->text, sizeof(c->text), "%s", what);
	cluster_call(c->cluster, corrupt, c);
	say_end(c, "");
}

/* ---- a thread that is busy, or stands still ---- */

static void spin(void *arg)
{
	for (volatile int *on = arg; *on != 0;) {
	}
}

/* As LMDB does when a page leads it in circles. */
static void spin_store(void *arg)
{
	struct child *c = arg;
	int on = 1;

	IGNORE(GUARDED(c->cluster->store->env, (spin(&on), 0)));
}

/* Until the other threads had twenty looks at this one. */
static void stand(void *arg)
{
	struct child *c = arg;
	uint64_t until = atomic_load(&c->cluster->watch_raft.looks) + 20;

	while (atomic_load(&c->cluster->watch_raft.looks) < until) {
		usleep(1000);
	}
	answered(c);
}

/* One turn: half of what is allowed. */
static void work(void *arg)
{
	struct child *c = arg;
	struct timespec t;
	uint64_t now, end = 0;

	do {
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
		now = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
		end = end != 0 ? end : now + node_turn_ms / 2;
	} while (now < end);
	if (--c->number == 0) {
		answered(c);
	} else {
		loop_post_reply(c->cluster->loop, work, c);
	}
}

static void do_busy(struct child *c, const char *how)
{
	static int on = 1;

	if (strcmp(how, "spin") == 0) {
		loop_post_reply(c->cluster->loop, spin, &on);
		say(c, "ok");
	} else if (strcmp(how, "spin store") == 0) {
		loop_post_reply(c->cluster->loop, spin_store, c);
		say(c, "ok");
	} else if (strcmp(how, "spin peer") == 0) {
		loop_post_reply(c->cluster->peer->loop, spin, &on);
		say(c, "ok");
	} else {
		c->number = 10;
		c->err = (struct err){0};
		c->text[0] = '\0';
		loop_post_reply(c->cluster->loop, strcmp(how, "stand") == 0 ? stand : work, c);
		say_call(c, 0, NULL);
	}
}

static int child_open(struct child *c, struct err *e)
{
	char listen[32], peer[32], url[64];
	struct cluster_options o = {
		.dir = c->node->dir,
		.peer_listen = listen,
		.peer_address = peer,
		.api_url = url,
		.version = "test",
		.election_ms = node_election_ms,
		.compare_ms = node_compare_ms,
		.scrub_ms = node_scrub_ms,
		.snapshot_bytes = node_snapshot_bytes,
		.look_bytes = node_look_bytes,
		.turn_cpu_ms = node_turn_ms,
	};

	snprintf(listen, sizeof(listen), "127.0.0.1:%u", c->node->port);
	snprintf(peer, sizeof(peer), "127.0.0.1:%u", c->node->port);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u", c->node->port + 1u);
	return cluster_open(&c->cluster, &o, e);
}

static int child_init(struct child *c, struct err *e)
{
	char peer[32], url[64], *recovery;
	struct cluster_init_options o = {
		.dir = c->node->dir,
		.name = c->node->name,
		.cluster_name = "test",
		.peer_address = peer,
		.api_url = url,
	};
	int r;

	snprintf(peer, sizeof(peer), "127.0.0.1:%u", c->node->port);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u", c->node->port + 1u);
	r = cluster_init(&o, &recovery, e);
	if (r >= 0) {
		mem_free(recovery);
	}
	return r;
}

static int child_join(struct child *c, const char *token, struct err *e)
{
	char peer[32], url[64];
	struct cluster_join_options o = {
		.dir = c->node->dir,
		.token = token,
		.name = c->node->name,
		.peer_address = peer,
		.api_url = url,
		.version = "test",
		.timeout_ms = 10000,
	};

	snprintf(peer, sizeof(peer), "127.0.0.1:%u", c->node->port);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u", c->node->port + 1u);
	return cluster_join(&o, e);
}

static bool child_line(struct child *c, char *line)
{
	char *arg = strchr(line, ' '), text[64];
	struct err e = {0};
	int r = 1;

	if (arg != NULL) {
		*arg++ = '\0';
	}
	if (strcmp(line, "init") == 0) {
		r = child_init(c, &e);
	} else if (strcmp(line, "join") == 0) {
		r = child_join(c, arg, &e);
	} else if (strcmp(line, "open") == 0) {
		r = child_open(c, &e);
	} else if (strcmp(line, "check") == 0) {
		struct cluster_check_facts facts;

		r = cluster_check_dir(c->node->dir, &facts, &e);
	} else if (strcmp(line, "forge") == 0) {
		r = forge(c, arg, &e);
	} else if (strcmp(line, "token") == 0) {
		do_token(c, arg != NULL ? strtoull(arg, NULL, 10) : 0);
	} else if (strcmp(line, "remove") == 0) {
		snprintf(text, sizeof(text), "remove %s", arg);
		do_change(c, text);
	} else if (strcmp(line, "change") == 0) {
		do_change(c, arg);
	} else if (strcmp(line, "die") == 0) {
		atomic_store(&steps_left, atoi(arg));
		member_step_hook(on_step, NULL);
		say(c, "ok");
	} else if (strcmp(line, "acked") == 0) {
		do_acked(c, strtoull(arg, NULL, 10));
	} else if (strcmp(line, "digests") == 0) {
		do_digests(c);
	} else if (strcmp(line, "user") == 0) {
		do_user(c, arg);
	} else if (strcmp(line, "has") == 0) {
		do_has(c, arg);
	} else if (strcmp(line, "corrupt") == 0) {
		do_corrupt(c, arg);
	} else if (strcmp(line, "busy") == 0) {
		do_busy(c, arg);
	} else if (strcmp(line, "load") == 0) {
		do_load(c, arg);
	} else if (strcmp(line, "stop") == 0) {
		loop_post_reply(c->loop, load_end, c);
		wait_answer(c);
		say(c, "ok %" PRIu64 " %" PRIu64, c->acked, c->failed);
	} else if (strcmp(line, "status") == 0) {
		do_status(c);
	} else if (strcmp(line, "quit") == 0) {
		return false;
	} else {
		say(c, "error UNKNOWN %s", line);
	}
	if (r < 0) {
		e.code = r;
		say_error(c, &e);
	} else if (r == 0) {
		say(c, "ok");
	}
	return true;
}

void node_child(struct node *n, int fd)
{
	struct child c = {.node = n, .lock = PTHREAD_MUTEX_INITIALIZER};
	char line[NODE_LINE];
	bool on = true;

	static const int cmocka_handles[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGSYS};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	TEST_TABLE(sig, cmocka_handles)
	{
		signal(*sig, SIG_DFL);
	}
	crypto_init();
	if (getenv("NODE_DEBUG") != NULL) {
		log_set_level(LOG_LEVEL_DEBUG);
	} else {
		log_set_level(LOG_LEVEL_ERROR);
	}
	pthread_cond_init(&c.cond, NULL);
	c.in = fdopen(dup(fd), "r");
	c.out = fdopen(fd, "w");
	c.loop = loop_new(n->name);
	if (loop_thread_start(c.loop) < 0) {
		_exit(3);
	}
	while (on && fgets(line, sizeof(line), c.in) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		on = child_line(&c, line);
	}
	cluster_close(c.cluster);
	loop_stop(c.loop);
	loop_thread_join(c.loop);
	loop_free(c.loop);
	fclose(c.in);
	fclose(c.out);
	pthread_cond_destroy(&c.cond);
	pthread_mutex_destroy(&c.lock);
	exit(0);
}
