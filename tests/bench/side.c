/* See side.h. */
#include "side.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/rand.h"
#include "etcd.pb-c.h"
#include "net/loop.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"

enum { FILL_AT_ONCE = 64 };

/* ---- connecting ---- */

static void open_member(struct side *s, const char *url)
{
	const char *targets[] = {url};
	struct rpc_channel_opts opts = {
		.targets = targets,
		.n_targets = 1,
		.dial.tls = s->tls,
		.reconnect = true,
		.backoff_min_ms = 50,
		.backoff_max_ms = 500,
		.metadata = client_metadata,
		.arg = &s->key,
	};

	for (unsigned i = 0; i < s->connections; i++)
		s->channel[s->members][i] = rpc_channel_new(s->loop, &opts);
	s->members++;
}

int side_open(struct side *s, struct loop *loop, const char *name, const char *urls,
	      const char *pids, const char *key_file, unsigned connections, struct err *err)
{
	char *list = mem_strdup(urls), *save;
	uint8_t random[8];
	unsigned n = 0;
	int r;

	*s = (struct side){
		.name = name, .etcd = key_file == NULL, .loop = loop, .connections = connections};
	rand_bytes(random, sizeof(random));
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(s->nonce + 2 * i, 3, "%02x", random[i]);
	r = client_tls(&s->tls, err);
	if (r >= 0 && key_file)
		r = client_key_read(&s->key, key_file, err);
	if (r >= 0) {
		for (char *url = strtok_r(list, ",", &save); url && s->members < SIDE_MEMBERS;
		     url = strtok_r(NULL, ",", &save))
			open_member(s, url);
	}
	mem_free(list);
	list = pids ? mem_strdup(pids) : NULL;
	for (char *pid = list ? strtok_r(list, ",", &save) : NULL; pid && n < SIDE_MEMBERS;
	     pid = strtok_r(NULL, ",", &save))
		s->pid[n++] = (pid_t)strtol(pid, NULL, 10);
	mem_free(list);
	return r;
}

void side_close(struct side *s)
{
	for (unsigned m = 0; m < s->members; m++) {
		for (unsigned i = 0; i < s->connections; i++)
			rpc_channel_free(s->channel[m][i]);
	}
	tls_unref(s->tls);
	mem_free(s->object);
}

/* ---- writing ---- */

static void value_of(struct side *s, uint64_t number, char *value)
{
	memset(value, 'v', SIDE_VALUE);
	value[SIDE_VALUE] = '\0';
	memcpy(value + snprintf(value, 40, "%s%016llx", s->nonce, (unsigned long long)number), "v",
	       1);
}

static void request_id(struct side *s, char *id, size_t size)
{
	snprintf(id, size, "%s-%llu", s->nonce, (unsigned long long)++s->count);
}

static void write_etcd(struct side *s, struct rpc_channel *channel, uint64_t number,
		       const struct rpc_opts *o, rpc_unary_cb cb, void *arg)
{
	Etcdserverpb__PutRequest q = ETCDSERVERPB__PUT_REQUEST__INIT;
	char key[32], value[SIDE_VALUE + 1];

	snprintf(key, sizeof(key), "bench/%08llu",
		 (unsigned long long)(number % (s->objects ? s->objects : 1)));
	value_of(s, ++s->count, value);
	q.key = (ProtobufCBinaryData){.data = (uint8_t *)key, .len = strlen(key)};
	q.value = (ProtobufCBinaryData){.data = (uint8_t *)value, .len = SIDE_VALUE};
	(void)rpc_unary(channel, "/etcdserverpb.KV/Put", &q.base,
			&etcdserverpb__put_response__descriptor, o, cb, arg);
}

static void write_skerry(struct side *s, struct rpc_channel *channel, uint64_t number,
			 const struct rpc_opts *o, rpc_unary_cb cb, void *arg)
{
	Skerry__V1__UpdateUserRequest q = SKERRY__V1__UPDATE_USER_REQUEST__INIT;
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	Skerry__V1__User user = SKERRY__V1__USER__INIT;
	char *path = (char *)"display_name";
	char id[64], value[SIDE_VALUE + 1];

	request_id(s, id, sizeof(id));
	value_of(s, s->count, value);
	mask.n_paths = 1;
	mask.paths = &path;
	user.name = s->object[number % s->objects];
	user.display_name = value;
	q.user = &user;
	q.update_mask = &mask;
	q.request_id = id;
	(void)rpc_unary(channel, "/skerry.v1.UserService/UpdateUser", &q.base,
			&skerry__v1__user__descriptor, o, cb, arg);
}

void side_write(struct side *s, unsigned member, unsigned connection, uint64_t number,
		uint64_t deadline_ms, rpc_unary_cb cb, void *arg)
{
	struct rpc_opts o = {.deadline_ms = deadline_ms};
	struct rpc_channel *channel = s->channel[member][connection];

	if (s->etcd)
		write_etcd(s, channel, number, &o, cb, arg);
	else
		write_skerry(s, channel, number, &o, cb, arg);
}

/* ---- filling ---- */

struct fill {
	struct side *side;
	unsigned n, next, open, tailnets;
	char tailnet[SIDE_TAILNETS][48];
	struct err err;
};

struct fill_call {
	struct fill *fill;
	unsigned number;
};

static void fill_next(struct fill *f);

static void filled(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct fill_call *call = arg;
	struct fill *f = call->fill;

	if (status->code && !f->err.code)
		f->err = *status;
	if (!status->code && !f->side->etcd)
		snprintf(f->side->object[call->number], sizeof(f->side->object[0]), "%s",
			 ((const Skerry__V1__User *)reply)->name);
	mem_free(call);
	f->open--;
	fill_next(f);
}

static void fill_one(struct fill *f, unsigned number)
{
	Skerry__V1__CreateUserRequest q = SKERRY__V1__CREATE_USER_REQUEST__INIT;
	Skerry__V1__User user = SKERRY__V1__USER__INIT;
	struct fill_call *call = MEM_NEW(struct fill_call);
	struct rpc_channel *channel = f->side->channel[number % f->side->members][0];
	char value[SIDE_VALUE + 1], login[64];

	call->fill = f;
	call->number = number;
	f->open++;
	if (f->side->etcd) {
		side_write(f->side, number % f->side->members, 0, number, 0, filled, call);
		return;
	}
	snprintf(login, sizeof(login), "bench-%.8s-%u", f->side->nonce, number);
	value_of(f->side, number, value);
	user.login_name = login;
	user.display_name = value;
	q.parent = f->tailnet[number % f->tailnets];
	q.user = &user;
	(void)rpc_unary(channel, "/skerry.v1.UserService/CreateUser", &q.base,
			&skerry__v1__user__descriptor, NULL, filled, call);
}

static void fill_next(struct fill *f)
{
	while (f->next < f->n && f->open < FILL_AT_ONCE && !f->err.code)
		fill_one(f, f->next++);
	if (f->open == 0)
		loop_stop(f->side->loop);
}

static int make_tailnets(struct fill *f, struct err *err)
{
	f->tailnets = f->n >= SIDE_OBJECTS ? SIDE_TAILNETS : 1;
	if (f->tailnets == 1) {
		strcpy(f->tailnet[0], "tailnets/1");
		return 0;
	}
	for (unsigned i = 0; i < SIDE_TAILNETS; i++) {
		Skerry__V1__CreateTailnetRequest q = SKERRY__V1__CREATE_TAILNET_REQUEST__INIT;
		Skerry__V1__Tailnet t = SKERRY__V1__TAILNET__INIT;
		ProtobufCMessage *reply;
		struct arena a;
		char name[64];
		int r;

		snprintf(name, sizeof(name), "bench-%.8s-%u", f->side->nonce, i);
		t.display_name = name;
		q.tailnet = &t;
		arena_init(&a, 64 << 10);
		r = rpc_unary_wait(f->side->loop, f->side->channel[0][0],
				   "/skerry.v1.TailnetService/CreateTailnet", &q.base,
				   &skerry__v1__tailnet__descriptor, NULL, &a, &reply, err);
		if (r >= 0)
			snprintf(f->tailnet[i], sizeof(f->tailnet[i]), "%s",
				 ((Skerry__V1__Tailnet *)reply)->name);
		arena_done(&a);
		if (r < 0)
			return r;
	}
	return 0;
}

int side_fill(struct side *s, unsigned n, struct err *err)
{
	struct fill *f = MEM_NEW(struct fill);
	int r = 0;

	f->side = s;
	f->n = n;
	s->objects = n;
	if (!s->etcd) {
		s->object = mem_calloc(n, sizeof(*s->object));
		r = make_tailnets(f, err);
	}
	if (r >= 0) {
		fill_next(f);
		loop_run(s->loop);
		if (f->err.code) {
			*err = f->err;
			r = f->err.code;
		}
	}
	mem_free(f);
	return r;
}

struct warm {
	struct loop *loop;
	unsigned open;
	struct err err;
};

static void warmed(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct warm *w = arg;

	(void)reply;
	if (status->code)
		w->err = *status;
	if (--w->open == 0)
		loop_stop(w->loop);
}

int side_warm(struct side *s, struct err *err)
{
	/* A lighthouse takes 20 handshakes a second of one address. */
	for (unsigned i = 0; i < s->connections; i++) {
		struct warm w = {.loop = s->loop, .open = s->members};

		for (unsigned m = 0; m < s->members; m++)
			side_write(s, m, i, m, 0, warmed, &w);
		loop_run(s->loop);
		if (w.err.code) {
			*err = w.err;
			return w.err.code;
		}
		usleep(70000);
	}
	return 0;
}

/* ---- who leads ---- */

static bool leads_etcd(struct side *s, unsigned member, struct arena *a, struct err *err)
{
	Etcdserverpb__StatusRequest q = ETCDSERVERPB__STATUS_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = 2000};
	ProtobufCMessage *reply;
	Etcdserverpb__StatusResponse *p;

	if (rpc_unary_wait(s->loop, s->channel[member][0], "/etcdserverpb.Maintenance/Status",
			   &q.base, &etcdserverpb__status_response__descriptor, &o, a, &reply,
			   err) < 0)
		return false;
	p = (Etcdserverpb__StatusResponse *)reply;
	return p->header && p->leader != 0 && p->leader == p->header->member_id;
}

static bool leads_skerry(struct side *s, unsigned member, struct arena *a, struct err *err)
{
	Skerry__V1__GetClusterRequest q = SKERRY__V1__GET_CLUSTER_REQUEST__INIT;
	struct rpc_opts o = {.deadline_ms = 2000};
	ProtobufCMessage *reply;
	Skerry__V1__Cluster *p;

	if (rpc_unary_wait(s->loop, s->channel[member][0], "/skerry.v1.ClusterService/GetCluster",
			   &q.base, &skerry__v1__cluster__descriptor, &o, a, &reply, err) < 0)
		return false;
	p = (Skerry__V1__Cluster *)reply;
	return p->leader_id != 0 && p->leader_id == p->lighthouse_id;
}

int side_leader(struct side *s, struct err *err)
{
	for (unsigned m = 0; m < s->members; m++) {
		struct arena a;
		bool leads;

		arena_init(&a, 1 << 20);
		leads = s->etcd ? leads_etcd(s, m, &a, err) : leads_skerry(s, m, &a, err);
		arena_done(&a);
		if (leads)
			return (int)m;
	}
	return err->code ? err->code : err_set(err, ERR_NO_QUORUM, "%s has no leader", s->name);
}

/* ---- CPU ---- */

double process_cpu(pid_t pid)
{
	char path[64], line[1024], *at;
	unsigned long user, system;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	if (!file)
		return -1;
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	fclose(file);
	at = strrchr(line, ')');
	if (!at || sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
			  &system) != 2)
		return -1;
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

double side_cpu(const struct side *s)
{
	double sum = 0;

	for (unsigned m = 0; m < s->members; m++) {
		double one = s->pid[m] ? process_cpu(s->pid[m]) : -1;

		if (one < 0)
			return -1;
		sum += one;
	}
	return sum;
}
