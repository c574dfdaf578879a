/* A cluster's log in memory, replicas that apply it, and commands to put into it: for tests of the watch hub. */
#pragma once

#include <stdio.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/mem.h"
#include "cluster/cluster.h"
#include "cluster/watch.h"
#include "net/loop.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "tailnet/query.h"
#include "tailnet/tailnet.h"

enum { T0 = 1000000 };

/* ---- a log of commands and replicas that apply it ---- */

struct log {
	struct buf *entry;
	uint64_t *time;
	size_t n;
};

struct replica {
	struct kv_mem *mem;
	struct kv kv;
	size_t applied;
	struct watch_source source;
	struct watch_hub *hub;
};

static struct loop *loop;

static int mem_begin(void *impl, const struct kv **ret_kv, struct err *err)
{
	struct replica *r = impl;

	(void)err;
	*ret_kv = &r->kv;
	return 0;
}

static void mem_end(void *impl)
{
	(void)impl;
}

static uint64_t mem_quorum_age(void *impl)
{
	(void)impl;
	return 0;
}

static const struct watch_source_ops mem_ops = {mem_begin, mem_end, mem_quorum_age, NULL};

static void log_append(struct log *l, const Command *cmd, uint64_t time)
{
	l->entry = mem_realloc(l->entry, (l->n + 1) * sizeof(*l->entry));
	l->time = mem_realloc(l->time, (l->n + 1) * sizeof(*l->time));
	memset(&l->entry[l->n], 0, sizeof(*l->entry));
	pb_pack(cmd, &l->entry[l->n]);
	l->time[l->n++] = time;
}

static void log_done(struct log *l)
{
	for (size_t i = 0; i < l->n; i++)
		buf_done(&l->entry[i]);
	mem_free(l->entry);
	mem_free(l->time);
	memset(l, 0, sizeof(*l));
}

/* Applies the next entry and tells the hub; returns the reply's code. */
static int replica_step(struct replica *r, const struct log *l, uint64_t *ret_id)
{
	struct apply_context ctx = {.time_ms = l->time[r->applied], .raft_index = r->applied + 1};
	struct pb_opts opts = {0};
	struct cluster_changes *changes;
	struct apply_result res;
	struct arena arena;
	ProtobufCMessage *cmd;
	struct err err = {0};
	uint64_t time;
	int code;

	arena_init(&arena, 16 << 20);
	assert_int_equal(pb_decode(&skerry__internal__v1__command__descriptor,
				   l->entry[r->applied].data, l->entry[r->applied].len, &opts,
				   &arena, &cmd, &err),
			 0);
	if (tailnet_apply(&r->kv, (Command *)cmd, &ctx, &arena, &res, &err) < 0)
		fail_msg("apply: %s", err.msg);
	r->applied++;
	code = res.reply.code;
	if (ret_id)
		*ret_id = res.reply.id;
	if (r->hub && res.n_changes) {
		changes = mem_zalloc(sizeof(*changes) + res.n_changes * sizeof(changes->change[0]));
		assert_int_equal(query_revision(&r->kv, &changes->epoch, &changes->revision, &time),
				 0);
		changes->n = res.n_changes;
		for (size_t i = 0; i < res.n_changes; i++) {
			changes->change[i] =
				(struct cluster_change){.tailnet = res.changes[i].tailnet,
							.object = res.changes[i].object,
							.revision = res.changes[i].revision,
							.kind = res.changes[i].kind,
							.deleted = res.changes[i].deleted,
							.visibility = res.changes[i].visibility};
		}
		watch_hub_changes(r->hub, changes);
		mem_free(changes);
	}
	arena_done(&arena);
	return code;
}

static void replica_init(struct replica *r, const struct log *l)
{
	memset(r, 0, sizeof(*r));
	r->mem = kv_mem_new();
	r->kv = kv_mem_kv(r->mem);
	while (r->applied < l->n)
		replica_step(r, l, NULL);
	r->source = (struct watch_source){&mem_ops, r};
	r->hub = watch_hub_new(loop, &r->source);
	watch_hub_set_presence_ms(r->hub, 0);
}

static void replica_done(struct replica *r)
{
	watch_hub_free(r->hub);
	kv_mem_free(r->mem);
}

/* ---- commands ---- */

static uint64_t rng;

static uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 33) % n;
}

static void command_init(Command *cmd, Skerry__Internal__V1__Actor *actor, uint8_t random[32],
			 uint64_t tailnet)
{
	skerry__internal__v1__command__init(cmd);
	skerry__internal__v1__actor__init(actor);
	actor->kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_SYSTEM;
	cmd->actor = actor;
	for (int i = 0; i < 32; i++)
		random[i] = (uint8_t)rnd(256);
	cmd->random.data = random;
	cmd->random.len = 32;
	cmd->tailnet = tailnet;
}

static void append_bootstrap(struct log *l)
{
	Skerry__Internal__V1__Bootstrap b = SKERRY__INTERNAL__V1__BOOTSTRAP__INIT;
	Skerry__Internal__V1__Actor actor;
	MemberRecord m = SKERRY__INTERNAL__V1__MEMBER_RECORD__INIT;
	CaRecord ca = SKERRY__INTERNAL__V1__CA_RECORD__INIT;
	SealedSecret key = SKERRY__INTERNAL__V1__SEALED_SECRET__INIT;
	uint8_t bytes[32] = {1, 2, 3};
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, 0);
	m.id = 77;
	m.name = (char *)"lh1";
	m.kind = SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_VOTER;
	m.public_key.data = bytes;
	m.public_key.len = 32;
	m.peer_address = (char *)"10.0.0.1:8444";
	m.api_url = (char *)"https://10.0.0.1:8443";
	m.feature_min = m.feature_max = FEATURE_LEVEL_MAX;
	ca.generation = 1;
	ca.certificate_der.data = bytes;
	ca.certificate_der.len = 32;
	key.name = (char *)"ca-key";
	key.generation = 1;
	key.box.data = bytes;
	key.box.len = 32;
	b.cluster_id = 42;
	b.cluster_name = (char *)"test";
	b.epoch = 4711;
	b.feature_level = FEATURE_LEVEL_MAX;
	b.ca = &ca;
	b.ca_key = &key;
	b.member = &m;
	b.tailnet_name = (char *)"default";
	b.base_domain = (char *)"test.internal";
	b.user_name = (char *)"admin";
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_BOOTSTRAP;
	cmd.bootstrap = &b;
	log_append(l, &cmd, T0);
}

static void append_node(struct log *l, uint64_t tailnet, uint64_t user, const char *hostname,
			uint64_t time)
{
	Skerry__Internal__V1__NodeCreate b = SKERRY__INTERNAL__V1__NODE_CREATE__INIT;
	Skerry__Internal__V1__RegisterFacts f = SKERRY__INTERNAL__V1__REGISTER_FACTS__INIT;
	MachineKey mk = SKERRY__INTERNAL__V1__MACHINE_KEY__INIT;
	Skerry__Internal__V1__Actor actor;
	uint8_t random[32];
	uint8_t machine[32];
	uint8_t node[32];
	Command cmd;

	command_init(&cmd, &actor, random, tailnet);
	for (int i = 0; i < 32; i++) {
		machine[i] = (uint8_t)rnd(256);
		node[i] = (uint8_t)rnd(256);
	}
	mk.kind = SKERRY__INTERNAL__V1__MACHINE_KEY_KIND__MACHINE_KEY_KIND_ED25519;
	mk.key.data = machine;
	mk.key.len = 32;
	f.machine_key = &mk;
	f.node_key.data = node;
	f.node_key.len = 32;
	f.hostname = (char *)(uintptr_t)hostname;
	b.facts = &f;
	b.user = user;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_CREATE;
	cmd.node_create = &b;
	log_append(l, &cmd, time);
}

static void append_endpoints(struct log *l, uint64_t tailnet, uint64_t node, uint8_t last,
			     uint64_t time)
{
	Skerry__Internal__V1__NodeFacts b = SKERRY__INTERNAL__V1__NODE_FACTS__INIT;
	Skerry__Internal__V1__NodeFact f = SKERRY__INTERNAL__V1__NODE_FACT__INIT;
	Skerry__Internal__V1__NodeFact *facts[] = {&f};
	Skerry__V1__Endpoint e = SKERRY__V1__ENDPOINT__INIT;
	Skerry__V1__Endpoint *endpoints[] = {&e};
	Skerry__Internal__V1__Actor actor;
	uint8_t address[4] = {192, 0, 2, last};
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, 0);
	e.address.data = address;
	e.address.len = 4;
	e.port = 41641;
	e.kind = SKERRY__V1__ENDPOINT_KIND__ENDPOINT_KIND_LOCAL;
	f.node = node;
	f.tailnet = tailnet;
	f.set_endpoints = true;
	f.endpoints = endpoints;
	f.n_endpoints = 1;
	b.facts = facts;
	b.n_facts = 1;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_FACTS;
	cmd.node_facts = &b;
	log_append(l, &cmd, time);
}

static void append_session(struct log *l, uint64_t tailnet, uint64_t node, uint64_t session,
			   bool detach, uint64_t time)
{
	Skerry__Internal__V1__SessionBatch b = SKERRY__INTERNAL__V1__SESSION_BATCH__INIT;
	Skerry__Internal__V1__SessionEvent e = SKERRY__INTERNAL__V1__SESSION_EVENT__INIT;
	Skerry__Internal__V1__SessionEvent *events[] = {&e};
	Skerry__Internal__V1__Actor actor;
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, 0);
	b.lighthouse = 77;
	b.incarnation = 5;
	e.node = node;
	e.tailnet = tailnet;
	e.session = session;
	e.instance_id = (char *)"one";
	e.detach = detach;
	b.events = events;
	b.n_events = 1;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_SESSION_BATCH;
	cmd.session_batch = &b;
	log_append(l, &cmd, time);
}

static void append_start(struct log *l, uint64_t time)
{
	Skerry__Internal__V1__LighthouseStart b = SKERRY__INTERNAL__V1__LIGHTHOUSE_START__INIT;
	Skerry__Internal__V1__Actor actor;
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, 0);
	b.id = 77;
	b.incarnation = 5;
	b.feature_min = b.feature_max = FEATURE_LEVEL_MAX;
	b.version = (char *)"test";
	b.peer_address = (char *)"10.0.0.1:8444";
	b.api_url = (char *)"https://10.0.0.1:8443";
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_LIGHTHOUSE_START;
	cmd.lighthouse_start = &b;
	log_append(l, &cmd, time);
}

static void append_update(struct log *l, uint64_t tailnet, uint64_t node, int what, uint64_t time)
{
	Skerry__Internal__V1__NodeUpdate b = SKERRY__INTERNAL__V1__NODE_UPDATE__INIT;
	Skerry__Internal__V1__NodeDelete d = SKERRY__INTERNAL__V1__NODE_DELETE__INIT;
	Skerry__Internal__V1__Tick tick = SKERRY__INTERNAL__V1__TICK__INIT;
	Skerry__Internal__V1__Actor actor;
	char name[32];
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, tailnet);
	b.id = node;
	d.id = node;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_UPDATE;
	cmd.node_update = &b;
	switch (what) {
	case 0:
		snprintf(name, sizeof(name), "name%u", rnd(100000));
		b.set_given_name = true;
		b.given_name = name;
		break;
	case 1:
		b.set_approved = true;
		b.approved = rnd(2);
		break;
	case 2:
		b.set_expire = true;
		b.expire_ms = time + 1 + rnd(200);
		break;
	case 3:
		cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_NODE_DELETE;
		cmd.node_delete = &d;
		break;
	default:
		cmd.tailnet = 0;
		cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_TICK;
		cmd.tick = &tick;
		break;
	}
	log_append(l, &cmd, time);
}

static void append_dns(struct log *l, uint64_t tailnet, uint64_t time)
{
	Skerry__Internal__V1__TailnetUpdate b = SKERRY__INTERNAL__V1__TAILNET_UPDATE__INIT;
	Skerry__V1__DnsConfig dns = SKERRY__V1__DNS_CONFIG__INIT;
	Skerry__Internal__V1__Actor actor;
	char resolver[32];
	char *resolvers[] = {resolver};
	uint8_t random[32];
	Command cmd;

	command_init(&cmd, &actor, random, tailnet);
	snprintf(resolver, sizeof(resolver), "192.0.2.%u", 1 + rnd(200));
	dns.base_domain = (char *)"test.internal";
	dns.resolvers = resolvers;
	dns.n_resolvers = 1;
	b.id = tailnet;
	b.set_dns = true;
	b.dns = &dns;
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_TAILNET_UPDATE;
	cmd.tailnet_update = &b;
	log_append(l, &cmd, time);
}
