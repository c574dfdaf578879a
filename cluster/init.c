/* A new cluster of one: identity, raft's first configuration, the bootstrap command as the first entry. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/fileio.h"
#include "base/mem.h"
#include "base/rand.h"
#include "cluster/cluster_int.h"
#include "cluster/pki.h"

enum { BOOTSTRAP_MS = 30000 };

/* ---- the bootstrap command, proposed by consensus alone ---- */

struct boot {
	struct consensus *cs;
	struct consensus_command cmd;
	struct loop *loop;
	struct loop_timer timer;
	bool submitted, done, closed;
	struct err err;
};

static void boot_done(struct consensus_command *cmd, const struct err *err, uint64_t index,
		      const CommandResult *r)
{
	struct boot *b = container_of(cmd, struct boot, cmd);

	(void)index;
	if (!b->done) {
		b->done = true;
		b->err = *err;
		if (err->code == 0 && r->code != 0) {
			err_reason(&b->err, err_from_grpc(r->code), r->reason, "bootstrap: %s",
				   r->message);
			strncpy(b->err.field, r->field, sizeof(b->err.field) - 1);
		}
	}
}

static void boot_state(void *arg)
{
	struct boot *b = arg;

	if (b->cs != NULL && consensus_leads(b->cs) && !b->submitted) {
		b->submitted = true;
		consensus_submit(b->cs, &b->cmd);
	}
}

static void boot_applied(void *arg, const struct applied *a)
{
	(void)arg;
	(void)a;
}

static void boot_restored(void *arg)
{
	(void)arg;
}

static void boot_connect(void *arg, uint64_t request, uint64_t id, const char *address)
{
	struct boot *b = arg;

	(void)id;
	(void)address;
	consensus_connected(b->cs, request, 0, NULL);
}

static void boot_late(void *arg)
{
	struct boot *b = arg;

	b->done = true;
	err_set(&b->err, ERR_DEADLINE, "the first entry of the log was not written within %d s",
		BOOTSTRAP_MS / 1000);
}

static void boot_closed(void *arg)
{
	struct boot *b = arg;

	b->closed = true;
}

static const struct consensus_events boot_events = {
	.state = boot_state,
	.applied = boot_applied,
	.restored = boot_restored,
	.connect = boot_connect,
};

static int boot_run(const char *raft_dir, const char *store_dir, const struct keyfile *k,
		    const void *data, size_t len, struct err *err)
{
	struct store_options so = {.dir = store_dir};
	struct boot b = {.cmd = {.data = data, .len = len, .done = boot_done}};
	struct consensus_options co = {
		.dir = raft_dir,
		.id = k->lighthouse_id,
		.address = k->peer_address,
		.cluster_id = k->cluster_id,
		.events = &boot_events,
		.arg = &b,
	};
	int r = store_open(&co.store, &so, NULL, err);

	if (r != 0) {
		return r;
	}
	b.loop = co.loop = loop_new("init");
	r = consensus_open(&b.cs, &co, err);
	if (r == 0) {
		loop_timer_start(&b.timer, b.loop, BOOTSTRAP_MS, boot_late, &b);
		while (!b.done) {
			boot_state(&b);
			loop_turn(b.loop, true);
		}
		loop_timer_stop(&b.timer);
		consensus_close(b.cs, boot_closed, &b);
		while (!b.closed) {
			loop_turn(b.loop, true);
		}
		if (b.err.code != 0) {
			r = b.err.code;
			if (err != NULL) {
				*err = b.err;
			}
		}
	}
	loop_free(b.loop);
	store_close(co.store);
	return r;
}

/* Packs the Bootstrap command; appends. */
static int boot_pack(const struct cluster_init_options *o, const struct keyfile *k,
		     const struct pki_ca *ca, struct buf *out, struct err *err)
{
	Skerry__Internal__V1__Bootstrap body = SKERRY__INTERNAL__V1__BOOTSTRAP__INIT;
	MemberRecord member = SKERRY__INTERNAL__V1__MEMBER_RECORD__INIT;
	SealedSecret sealed = SKERRY__INTERNAL__V1__SEALED_SECRET__INIT;
	CaRecord record = SKERRY__INTERNAL__V1__CA_RECORD__INIT;
	Command cmd = SKERRY__INTERNAL__V1__COMMAND__INIT;
	Actor actor = SKERRY__INTERNAL__V1__ACTOR__INIT;
	struct buf der = BUF_INIT, box = BUF_INIT;
	uint8_t random[32], spki[PKI_SPKI_MAX];
	char *domain = o->base_domain != NULL ? mem_strdup(o->base_domain)
					      : mem_printf("%s.internal", o->cluster_name);
	uint64_t now = (uint64_t)clock_wall_ms();
	int r = pki_cert_der(k->ca_cert_pem, &der, err);

	if (r == 0) {
		r = pki_ca_seal(ca, k->cluster_key, 1, &box, err);
	}
	if (r != 0) {
		goto out;
	}
	rand_bytes(random, sizeof(random));
	record.generation = 1;
	record.certificate_der = (ProtobufCBinaryData){.data = der.data, .len = der.len};
	record.create_ms = now;
	sealed.name = (char *)PKI_CA_KEY_NAME;
	sealed.box = (ProtobufCBinaryData){.data = box.data, .len = box.len};
	sealed.generation = 1;
	member.id = k->lighthouse_id;
	member.name = k->name;
	member.kind = SKERRY__INTERNAL__V1__MEMBER_KIND__MEMBER_KIND_VOTER;
	member.public_key = (ProtobufCBinaryData){.data = spki, .len = pki_spki(k->node_key, spki)};
	member.peer_address = k->peer_address;
	member.api_url = k->api_url;
	member.feature_min = FEATURE_LEVEL_MIN;
	member.feature_max = FEATURE_LEVEL_MAX;
	member.create_ms = now;
	body.cluster_id = k->cluster_id;
	body.cluster_name = (char *)o->cluster_name;
	body.epoch = rand_id63();
	body.feature_level = FEATURE_LEVEL_MAX;
	body.ca = &record;
	body.ca_key = &sealed;
	body.member = &member;
	body.tailnet_name = (char *)"default";
	body.base_domain = domain;
	body.user_name = (char *)"admin";
	actor.kind = SKERRY__INTERNAL__V1__ACTOR_KIND__ACTOR_KIND_SYSTEM;
	cmd.actor = &actor;
	cmd.random = (ProtobufCBinaryData){.data = random, .len = sizeof(random)};
	cmd.body_case = SKERRY__INTERNAL__V1__COMMAND__BODY_BOOTSTRAP;
	cmd.bootstrap = &body;
	skerry__internal__v1__command__pack(
		&cmd, buf_reserve(out, skerry__internal__v1__command__get_packed_size(&cmd)));
	out->len += skerry__internal__v1__command__get_packed_size(&cmd);
out:
	mem_free(domain);
	buf_done(&der);
	buf_done(&box);
	return r;
}

int cluster_init(const struct cluster_init_options *o, char **ret_recovery, struct err *err)
{
	char *raft = mem_printf("%s/raft", o->dir);
	char *store = mem_printf("%s/store", o->dir);
	char *lock = mem_printf("%s/lock", o->dir);
	struct keyfile k = {0};
	struct pki_ca ca = {0};
	struct buf cmd = BUF_INIT;
	bool there = file_exists(o->dir), ours = false;
	int fd = -1, r;

	r = dir_ensure(o->dir, 0700, err);
	if (r == 0) {
		r = dir_check_private(o->dir, err);
	}
	if (r == 0 && (keyfile_exists(o->dir) || file_exists(raft) || file_exists(store))) {
		r = err_reason(
			err, ERR_EXISTS, "ALREADY_INITIALISED",
			"%s already holds a lighthouse: start it with `skerryd run`, or make "
			"another one with another --dir",
			o->dir);
	}
	if (r == 0) {
		fd = file_lock(lock, err);
		r = MIN(fd, 0);
		ours = r == 0;
	}
	if (r == 0) {
		r = keyfile_new(o->name, o->peer_address, o->api_url, clock_wall_ms(), &k, &ca,
				err);
	}
	if (r == 0) {
		r = boot_pack(o, &k, &ca, &cmd, err);
	}
	if (r == 0) {
		r = dir_ensure(raft, 0700, err);
	}
	if (r == 0) {
		r = consensus_bootstrap(raft, k.lighthouse_id, k.peer_address, err);
	}
	if (r == 0) {
		r = boot_run(raft, store, &k, cmd.data, cmd.len, err);
	}
	/* Last: without the identity the directory counts as not initialised. */
	if (r == 0) {
		r = keyfile_write(o->dir, &k, err);
	}
	if (r == 0) {
		*ret_recovery = keyfile_recovery(k.cluster_key);
	}
	/* A refused one leaves nothing that the next one would take for a lighthouse. */
	if (r != 0 && ours) {
		dir_remove(raft);
		dir_remove(store);
		IGNORE(unlink(lock) < 0);
	}
	if (r != 0 && !there) {
		IGNORE(rmdir(o->dir) < 0);
	}
	if (fd >= 0) {
		file_unlock(fd);
	}
	buf_done(&cmd);
	pki_ca_done(&ca);
	keyfile_done(&k);
	mem_free(raft);
	mem_free(store);
	mem_free(lock);
	return r;
}
