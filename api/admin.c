/*
 * How a method of administration goes.
 *
 *   request -> name and scope
 *     Get, List:  read level awaited -> transaction -> get | next… -> answer
 *     write:      transaction: command -> pre-check --accepted--> propose -> own apply -> transaction: get -> answer
 *                        ^                   | refused here
 *                        +-- leader's word --+ (once: this lighthouse may lag behind)
 *     others:     run
 */
#include "api/admin.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bucket.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "google/protobuf/empty.pb-c.h"
#include "proto/pb_util.h"
#include "tailnet/query.h"
#include "tailnet/tailnet.h"

enum {
	PAGE_DEFAULT = 100,
	READ_MS = 5000, /* the longest waits, if the client names no deadline */
	WRITE_MS = 10000,
	QUEUE_RETRY_MS = 100,
};

struct binding {
	struct list link;
	struct api *api;
	const struct admin_method *method;
};

/* ---- life ---- */

/* Few calls have one, and there is much of it to wipe. */
static void key_forget(struct admin_call *c)
{
	if (c->key.kind)
		key_done(&c->key);
}

static void admin_free(struct admin_call *c)
{
	struct api *api = c->pending.api; /* NULL: gone */

	if (c->pending.api)
		api_pending_end(&c->pending);
	if (c->secret_text)
		secret_wipe(c->secret_text, strlen(c->secret_text));
	key_forget(c);
	arena_done(&c->records);
	arena_done(&c->arena);
	if (api && api->spare_calls < API_SPARE_CALLS && !SANITIZED)
		api->spare_call[api->spare_calls++] = c;
	else
		mem_free(c);
}

static struct rpc_call *find(struct admin_call *c)
{
	return api_call_find(c->pending.api, c->server, c->ref);
}

struct rpc_call *admin_back(struct admin_call *c)
{
	struct rpc_call *call = find(c);

	if (!call)
		admin_free(c);
	return call;
}

void admin_reply(struct admin_call *c, const ProtobufCMessage *msg)
{
	struct rpc_call *call = find(c);

	if (call && c->repeated)
		rpc_call_add_header(call, "skerry-repeated", "true", 4);
	if (call && c->secret_lost)
		rpc_call_add_header(call, "skerry-note", "SECRET_NOT_RETAINED", 19);
	if (call)
		rpc_call_reply(call, msg);
	admin_free(c);
}

/* The path of a field in the request: apply names fields of the object, "login_name", the request has "user.login_name". */
static void qualify(const ProtobufCMessageDescriptor *d, struct err *err)
{
	char head[sizeof(err->field)], path[sizeof(err->field)];

	snprintf(head, sizeof(head), "%s", err->field);
	head[strcspn(head, ".[")] = '\0';
	if (!*head || protobuf_c_message_descriptor_get_field_by_name(d, head))
		return;
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];

		if (f->type != PROTOBUF_C_TYPE_MESSAGE || f->label == PROTOBUF_C_LABEL_REPEATED ||
		    !protobuf_c_message_descriptor_get_field_by_name(f->descriptor, head))
			continue;
		if ((size_t)snprintf(path, sizeof(path), "%s.%s", f->name, err->field) <
		    sizeof(path))
			memcpy(err->field, path, sizeof(path));
		return;
	}
}

void admin_fail(struct admin_call *c, const struct err *err)
{
	struct rpc_call *call = find(c);
	struct err e = *err;

	if (call) {
		qualify(c->req->descriptor, &e);
		if (e.code == ERR_LIMIT && !strcmp(e.reason, "QUEUE_FULL"))
			rpc_call_set_retry(call, QUEUE_RETRY_MS);
		if (c->repeated)
			rpc_call_add_header(call, "skerry-repeated", "true", 4);
		rpc_call_finish(call, &e);
	}
	admin_free(c);
}

/* ---- fields of requests, by name ---- */

static const ProtobufCFieldDescriptor *field(const ProtobufCMessage *m, const char *name, int type)
{
	const ProtobufCFieldDescriptor *f =
		protobuf_c_message_descriptor_get_field_by_name(m->descriptor, name);

	return f && (int)f->type == type ? f : NULL;
}

static const char *field_string(const ProtobufCMessage *m, const char *name)
{
	const ProtobufCFieldDescriptor *f = field(m, name, PROTOBUF_C_TYPE_STRING);

	return f ? *(char *const *)((const uint8_t *)m + f->offset) : "";
}

/* "name" or "user.name"; NULL: the message before the dot is not there. */
static const char *target_text(const ProtobufCMessage *req, const char *path)
{
	const char *dot = strchr(path, '.');
	char head[32];
	const ProtobufCFieldDescriptor *f;
	const ProtobufCMessage *sub;

	if (!dot)
		return field_string(req, path);
	PRE((size_t)(dot - path) < sizeof(head));
	memcpy(head, path, (size_t)(dot - path));
	head[dot - path] = '\0';
	f = field(req, head, PROTOBUF_C_TYPE_MESSAGE);
	PRE(f);
	sub = *(ProtobufCMessage *const *)((const uint8_t *)req + f->offset);
	return sub ? field_string(sub, dot + 1) : NULL;
}

static int find_target(struct admin_call *c, struct err *err)
{
	const struct admin_method *m = c->method;
	enum resource_kind kind;
	const char *text;
	int rc;

	if (!m->target)
		return 0;
	kind = !strcmp(m->target, "parent") ? RESOURCE_TAILNET : m->kind;
	text = target_text(c->req, m->target);
	if (!text)
		return err_field(err, ERR_INVALID, m->target, "%s is missing", m->target);
	rc = resource_parse(text, kind, m->target, &c->target, err);
	if (rc < 0)
		return rc;
	rc = caller_in_scope(&c->caller, c->target.tailnet, err);
	if (rc < 0)
		return rc;
	if (c->target.tailnet == 0 && kind != RESOURCE_MEMBER && !m->system_too)
		return err_field(err, ERR_INVALID, m->target,
				 "tailnets/0 is the system, which has none of these");
	return 0;
}

/* ---- transactions ---- */

static int view_begin(struct admin_call *c, struct cluster_read **ret, struct err *err)
{
	int rc = view_take(&c->api->view, ret, err);

	if (rc < 0)
		return rc;
	c->kv = cluster_read_kv(*ret);
	rc = view_revision(&c->api->view, &c->epoch, &c->revision, &c->now_ms);
	if (rc < 0) {
		view_give(&c->api->view);
		c->kv = NULL;
		if (rc == ERR_NOT_FOUND)
			return err_reason(
				err, ERR_UNAVAILABLE, "NO_STATE",
				"this lighthouse has joined and has no state yet: try again, or "
				"call another one");
		return err_set(err, rc, "the state cannot be read: %s", err_text(rc));
	}
	return 0;
}

static void view_end(struct admin_call *c)
{
	c->kv = NULL;
	view_give(&c->api->view);
}

/* Fills in what a function left out. */
static int explain(int rc, struct admin_call *c, enum resource_kind kind, uint64_t tailnet,
		   uint64_t id, struct err *err)
{
	char name[RESOURCE_TEXT];

	if (rc >= 0 || err->code)
		return rc;
	if (rc == ERR_NOT_FOUND)
		return err_reason(err, rc, "NOT_FOUND", "there is no %s",
				  resource_format(kind, tailnet, id, name));
	if (rc == ERR_LIMIT)
		return err_reason(err, rc, "TOO_LARGE", "the answer does not fit into memory");
	(void)c;
	return err_set(err, rc, "the state cannot be read: %s", err_text(rc));
}

static int get_object(struct admin_call *c, uint64_t tailnet, uint64_t id, ProtobufCMessage **ret,
		      struct err *err)
{
	void *msg = NULL;
	int rc = c->method->get(c, tailnet, id, &msg, err);

	if (rc < 0)
		return explain(rc, c, c->method->kind, tailnet, id, err);
	*ret = msg;
	return 0;
}

/* ---- pages ---- */

static const char token_version = 1;

static void token_sum(const char *path, uint64_t cluster, uint64_t tailnet, uint64_t pos,
		      uint8_t out[32])
{
	uint8_t numbers[25];
	struct crypto_iov iov[2] = {{path, strlen(path) + 1}, {numbers, sizeof(numbers)}};

	numbers[0] = (uint8_t)token_version;
	be_put64(numbers + 1, cluster);
	be_put64(numbers + 9, tailnet);
	be_put64(numbers + 17, pos);
	crypto_blake2bv(out, iov, 2);
}

/* version, position, 12 bytes of the sum over everything it is for */
enum { TOKEN_BYTES = 1 + 8 + 12 };

void page_token_format(const char *path, uint64_t cluster, uint64_t tailnet, uint64_t pos,
		       char out[PAGE_TOKEN_TEXT])
{
	struct buf b = BUF_INIT;
	uint8_t raw[TOKEN_BYTES], sum[32];

	token_sum(path, cluster, tailnet, pos, sum);
	raw[0] = (uint8_t)token_version;
	be_put64(raw + 1, pos);
	memcpy(raw + 9, sum, 12);
	base64url_append(&b, raw, sizeof(raw));
	snprintf(out, PAGE_TOKEN_TEXT, "%s", buf_str(&b));
	buf_done(&b);
}

int page_token_parse(const char *text, const char *path, uint64_t cluster, uint64_t tailnet,
		     uint64_t *ret_pos, struct err *err)
{
	uint8_t raw[PAGE_TOKEN_TEXT], sum[32];
	size_t len = strlen(text);

	if (len < PAGE_TOKEN_TEXT && base64url_decode(text, len, raw, sizeof(raw)) == TOKEN_BYTES &&
	    raw[0] == (uint8_t)token_version) {
		token_sum(path, cluster, tailnet, be_get64(raw + 1), sum);
		if (!memcmp(sum, raw + 9, 12)) {
			*ret_pos = be_get64(raw + 1);
			return 0;
		}
	}
	return err_reason(err, ERR_INVALID, "PAGE_TOKEN_INVALID",
			  "the page token is not one of this list: begin without one");
}

static int page_of(struct admin_call *c, size_t *ret_size, uint64_t *ret_pos, struct err *err)
{
	const ProtobufCFieldDescriptor *f = field(c->req, "page_size", PROTOBUF_C_TYPE_INT32);
	const char *token = field_string(c->req, "page_token");
	int32_t size = f ? *(const int32_t *)((const uint8_t *)c->req + f->offset) : 0;
	int rc = 0;

	if (size < 0)
		return err_field(err, ERR_INVALID, "page_size",
				 "a page has from 1 to %d entries (0: %d), not %d", LIM_PAGE_SIZE,
				 PAGE_DEFAULT, size);
	*ret_pos = 0;
	if (*token)
		rc = page_token_parse(token, c->method->path, cluster_id(c->api->cluster),
				      c->target.tailnet, ret_pos, err);
	if (rc < 0)
		snprintf(err->field, sizeof(err->field), "page_token");
	*ret_size = size == 0 ? PAGE_DEFAULT : (size_t)MIN(size, LIM_PAGE_SIZE);
	return rc;
}

static int list_objects(struct admin_call *c, ProtobufCMessage **ret, struct err *err)
{
	const ProtobufCMessageDescriptor *d = proto_method_find(c->method->path)->output;
	uint64_t tailnet = c->target.tailnet, pos = 0, peek;
	const ProtobufCFieldDescriptor *f;
	size_t size = 0, n = 0, bytes = 0;
	uint8_t *out;
	void **items;
	void *msg;
	int rc = page_of(c, &size, &pos, err);

	if (rc < 0)
		return rc;
	if (tailnet != 0 && !query_tailnet_exists(c->kv, tailnet))
		return err_reason(err, ERR_NOT_FOUND, "TAILNET_NOT_FOUND",
				  "there is no tailnet %" PRIu64, tailnet);
	out = admin_alloc(c, d->sizeof_message);
	protobuf_c_message_init(d, out);
	items = admin_alloc(c, size * sizeof(*items));
	while (n < size && bytes < LIM_PAGE_BYTES && c->records.used < LIM_PAGE_RECORDS_BYTES) {
		rc = c->method->next(c, tailnet, &pos, &msg);
		if (rc < 0)
			break;
		items[n++] = msg;
		bytes += protobuf_c_message_get_packed_size(msg);
	}
	peek = pos;
	if (rc >= 0)
		rc = c->method->next(c, tailnet, &peek, &msg);
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return explain(rc, c, RESOURCE_TAILNET, tailnet, tailnet, err);
	if (rc >= 0) {
		char *token = admin_alloc(c, PAGE_TOKEN_TEXT);

		page_token_format(c->method->path, cluster_id(c->api->cluster), tailnet, pos,
				  token);
		f = protobuf_c_message_descriptor_get_field_by_name(d, "next_page_token");
		*(char **)(out + f->offset) = token;
	}
	f = &d->fields[0]; /* the list itself, in each of the messages */
	*(size_t *)(out + f->quantifier_offset) = n;
	*(void ***)(out + f->offset) = items;
	f = protobuf_c_message_descriptor_get_field_by_name(d, "revision");
	if (f)
		*(void **)(out + f->offset) = admin_revision(c, c->revision);
	*ret = (ProtobufCMessage *)out;
	return 0;
}

/* ---- reads ---- */

int read_level_parse(const char *text, struct read_want *ret, struct err *err)
{
	struct read_want w = {.level = READ_LEADER};
	char tail;

	if (!text || !strcmp(text, "leader"))
		w.level = READ_LEADER;
	else if (!strcmp(text, "local"))
		w.level = READ_LOCAL;
	else if (strspn(text, "revision=0123456789.") == strlen(text) &&
		 sscanf(text, "revision=%" SCNu64 ".%" SCNu64 "%c", &w.epoch, &w.revision, &tail) ==
			 2)
		w.level = READ_REVISION;
	else
		return err_field(err, ERR_INVALID, "skerry-read",
				 "skerry-read is \"%.40s\"; it is local, leader or "
				 "revision=<epoch>.<revision>",
				 text);
	*ret = w;
	return 0;
}

static void read_now(struct admin_call *c)
{
	ProtobufCMessage *msg = NULL;
	struct cluster_read *read;
	struct err err = {0};
	int rc = view_begin(c, &read, &err);

	if (rc >= 0) {
		rc = c->read_fn(c, &msg, &err);
		view_end(c);
	}
	if (rc < 0) {
		if (!err.code)
			err_set(&err, rc, "%s", err_text(rc));
		admin_fail(c, &err);
	} else {
		admin_reply(c, msg);
	}
}

static void on_read(void *arg, const struct err *why)
{
	struct admin_call *c = arg;
	struct err err = *why;

	if (!admin_back(c))
		return;
	if (!err.code) {
		read_now(c);
		return;
	}
	if (err_grpc(err.code) == 14 && strlen(err.msg) < 200)
		strcat(err.msg, "; local reads (skerry-read: local) are answered");
	admin_fail(c, &err);
}

void admin_read(struct admin_call *c, admin_read_fn fn)
{
	struct rpc_call *call = admin_back(c);
	struct read_want want;
	struct err err = {0};
	const char *level;
	int rc;

	if (!call)
		return;
	c->read_fn = fn;
	level = rpc_call_metadata(call, "skerry-read");
	rc = read_level_parse(level || !c->method->read_local ? level : "local", &want, &err);
	if (rc >= 0) {
		want.deadline_ms = api_call_deadline(call, READ_MS);
		rc = cluster_read_wait(c->api->cluster, c->api->loop, &want, on_read, c, &err);
	}
	if (rc < 0)
		admin_fail(c, &err);
}

static int read_one(struct admin_call *c, ProtobufCMessage **ret, struct err *err)
{
	return get_object(c, c->target.tailnet, c->target.id, ret, err);
}

/* ---- writes ---- */

static void write_try(struct admin_call *c);

static void write_answer(struct admin_call *c, const Skerry__Internal__V1__CommandResult *r)
{
	Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;
	ProtobufCMessage *msg = NULL;
	struct cluster_read *read;
	struct resource object;
	struct err err = {0};
	int rc;

	if (!c->method->get) {
		admin_reply(c, &empty.base);
		return;
	}
	rc = resource_parse(r->object, c->method->kind, "object", &object, &err);
	if (rc >= 0)
		rc = view_begin(c, &read, &err);
	if (rc >= 0) {
		rc = get_object(c, object.tailnet, object.id, &msg, &err);
		view_end(c);
	}
	if (rc < 0) {
		err_prefix(&err, "the change was made, but its object cannot be shown");
		admin_fail(c, &err);
		return;
	}
	if (c->method->secret && c->key.kind && !c->repeated) {
		struct buf text = BUF_INIT;

		buf_reserve(&text, LIM_KEY_TEXT + 1);
		key_format(&c->key, &text);
		c->secret_text = admin_strdup(c, buf_str(&text));
		buf_wipe(&text);
		c->method->secret(c, msg, c->secret_text);
	}
	admin_reply(c, msg);
}

static void on_proposed(void *arg, const struct err *why,
			const Skerry__Internal__V1__CommandResult *r)
{
	struct admin_call *c = arg;
	struct err err = *why;

	if (!admin_back(c))
		return;
	if (err.code) {
		/* With a request id a repeat is safe, and stock clients repeat what is UNAVAILABLE. */
		if (!strcmp(err.reason, "FATE_UNKNOWN"))
			err.code = *c->cmd.request_id ? ERR_UNAVAILABLE : ERR_FATE_UNKNOWN;
		admin_fail(c, &err);
		return;
	}
	c->repeated = r->repeated_request;
	c->secret_lost = r->secret_not_retained;
	if (r->code) {
		err_reason(&err, err_from_grpc(r->code), r->reason, "%s", r->message);
		snprintf(err.field, sizeof(err.field), "%s", r->field);
		admin_fail(c, &err);
		return;
	}
	write_answer(c, r);
}

static void write_propose(struct admin_call *c, struct rpc_call *call)
{
	struct propose_options o = {.class = PROPOSE_CLIENT,
				    .deadline_ms = api_call_deadline(call, WRITE_MS)};
	struct err err = {0};

	if (cluster_propose(c->api->cluster, c->api->loop, &c->cmd, &o, on_proposed, c, &err) < 0) {
		admin_fail(c, &err);
		return;
	}
	/* What the command was made of waits for nothing: other calls have its memory while this one waits. */
	arena_done(&c->records);
	arena_done(&c->arena);
}

static void on_confirmed(void *arg, const struct err *why)
{
	struct admin_call *c = arg;

	if (!admin_back(c))
		return;
	c->confirmed = true;
	if (why->code)
		admin_fail(c, why);
	else
		write_try(c);
}

/*
 * A refused command costs a look at the state and the leader's word: a tailnet has a share of both. Tailnets above the
 * limit of a cluster do not exist, and share one bucket.
 */
static int take_refusal(struct admin_call *c, struct rpc_call *call, struct err *err)
{
	uint64_t now = clock_mono_ms(), tailnet = c->target.tailnet;
	struct bucket *b = map_get_u64(&c->api->refusals, tailnet);

	if (!b && map_len(&c->api->refusals) > LIM_TAILNETS)
		b = map_get_u64(&c->api->refusals, tailnet = 0);
	if (!b) {
		b = MEM_NEW(struct bucket);
		bucket_init(b, LIM_TAILNET_REFUSED_PER_MIN, 60000, now);
		map_put_u64(&c->api->refusals, tailnet, b);
	}
	if (bucket_take(b, 1, now))
		return 0;
	METRICS_COUNT("skerry_api_refused_limited_total",
		      "Commands refused because their tailnet had too many refused ones.", 1);
	rpc_call_set_retry(call, (uint32_t)bucket_wait_ms(b, 1, now));
	return err_reason(
		err, ERR_LIMIT, "TOO_MANY_REFUSED",
		"more than %d commands of this tailnet were refused within a minute: wait",
		LIM_TAILNET_REFUSED_PER_MIN);
}

/* What is refused by this lighthouse's own view is asked again after the leader's word: it may lag behind. */
static void write_refused(struct admin_call *c, struct rpc_call *call, const struct err *err)
{
	struct read_want want = {.level = READ_LEADER};
	struct err e = {0};

	if (!c->confirmed && take_refusal(c, call, &e) < 0) {
		admin_fail(c, &e);
		return;
	}
	if (c->confirmed || err->code == ERR_INVALID || err->code == ERR_DENIED) {
		admin_fail(c, err);
		return;
	}
	want.deadline_ms = api_call_deadline(call, READ_MS);
	if (cluster_read_wait(c->api->cluster, c->api->loop, &want, on_confirmed, c, &e) < 0)
		admin_fail(c, &e);
}

/* The bytes of many commands are fetched at once; each is used for one, and not kept. */
static void random_take(struct api *api, uint8_t out[ADMIN_RANDOM])
{
	if (api->random_left == 0) {
		rand_bytes(api->random, sizeof(api->random));
		api->random_left = ADMIN_RANDOMS;
	}
	uint8_t *one = api->random[--api->random_left];
	memcpy(out, one, ADMIN_RANDOM);
	secret_wipe(one, ADMIN_RANDOM);
}

int admin_request_id(struct admin_call *c, struct err *err)
{
	struct crypto_iov iov[2] = {{c->method->path, strlen(c->method->path) + 1}};
	struct buf packed = BUF_INIT;

	c->if_refused = NULL;
	c->cmd.request_id = (char *)field_string(c->req, "request_id");
	if (!*c->cmd.request_id)
		return 0;
	if (strlen(c->cmd.request_id) > LIM_REQUEST_ID_BYTES)
		return err_field(err, ERR_INVALID, "request_id",
				 "a request id has at most %d bytes", LIM_REQUEST_ID_BYTES);
	pb_pack(c->req, &packed);
	iov[1] = (struct crypto_iov){packed.data, packed.len};
	crypto_sha256v(c->request_hash, iov, 2);
	buf_done(&packed);
	c->cmd.request_hash = (ProtobufCBinaryData){.data = c->request_hash, .len = 32};
	return 0;
}

/* Makes the command and has it judged: 0, what apply would answer, or a negative code. */
static int write_command(struct admin_call *c, struct rpc_call *call, struct err *err)
{
	const char *reason = rpc_call_metadata(call, "skerry-reason");
	struct cluster_read *read;
	int rc;

	key_forget(c);
	arena_reset(&c->records);
	skerry__internal__v1__command__init(&c->cmd);
	caller_fill_command(&c->caller, &c->cmd, &c->actor, c->caller_name);
	random_take(c->api, c->random);
	c->cmd.random = (ProtobufCBinaryData){.data = c->random, .len = sizeof(c->random)};
	c->cmd.tailnet = c->target.tailnet;
	if (reason && strlen(reason) > LIM_TEXT_BYTES)
		return err_field(err, ERR_INVALID, "skerry-reason",
				 "the reason has %zu bytes, at most %d "
				 "are allowed",
				 strlen(reason), LIM_TEXT_BYTES);
	if (reason)
		c->cmd.reason = (char *)reason;
	rc = admin_request_id(c, err);
	if (rc < 0)
		return rc;
	rc = view_begin(c, &read, err);
	if (rc < 0)
		return rc;
	rc = c->method->command(c, err);
	if (rc >= 0) {
		struct arena scratch;

		arena_init(&scratch, TAILNET_ARENA_BYTES);
		rc = cluster_precheck_in(read, &c->cmd, &scratch, err);
		arena_done(&scratch);
	}
	if (rc != 0 && c->if_refused) {
		struct err first = {0};
		int why = c->if_refused(c, &first);

		if (why < 0) {
			rc = why;
			*err = first;
		}
	}
	view_end(c);
	/* What a newer client adds would end lighthouses that do not know it. */
	if (rc == ERR_UNIMPLEMENTED)
		err->code = rc = ERR_INVALID;
	return rc < 0 ? explain(rc, c, c->method->kind, c->target.tailnet, c->target.id, err) : rc;
}

static void write_try(struct admin_call *c)
{
	struct rpc_call *call = admin_back(c);
	struct err err = {0};
	int rc;

	if (!call)
		return;
	rc = write_command(c, call, &err);
	if (rc == 0)
		write_propose(c, call);
	else
		write_refused(c, call, &err);
}

/* ---- entrance ---- */

static void on_call(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	struct binding *b = arg;
	struct api *api = b->api;
	struct admin_call *c = api->spare_calls > 0 ? api->spare_call[--api->spare_calls]
						    : mem_alloc(sizeof(*c));
	const struct admin_method *m = b->method;
	struct err err = {0};

	/* Without the inside of the key, which is nine tenths of it. */
	memset(c, 0, offsetof(struct admin_call, key) + sizeof(c->key.kind));
	api_pending_begin(b->api, &c->pending);
	c->api = b->api;
	c->method = m;
	c->server = rpc_call_server(call);
	c->ref = rpc_call_ref(call);
	c->caller = *caller_of(call);
	c->req = req;
	arena_init(&c->records, LIM_CALL_RECORDS_BYTES);
	arena_init(&c->arena, SIZE_MAX);
	if (find_target(c, &err) < 0)
		admin_fail(c, &err);
	else if (m->run)
		m->run(c);
	else if (m->command)
		write_try(c);
	else
		admin_read(c, m->next ? list_objects : read_one);
}

static const struct rpc_handler handler = {.on_call = on_call};

void admin_register(struct api *api, struct rpc_server *server, const struct admin_method *methods,
		    size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct binding *b = MEM_NEW(struct binding);

		b->api = api;
		b->method = &methods[i];
		list_push(&api->bindings, &b->link);
		rpc_server_add(server, methods[i].path, &handler, b);
	}
}

void admin_done(struct api *api)
{
	struct map_iter it = {0};

	while (api->spare_calls > 0)
		mem_free(api->spare_call[--api->spare_calls]);
	while (map_next(&api->refusals, &it))
		mem_free(it.value);
	map_done(&api->refusals);
	while (!list_empty(&api->bindings))
		mem_free(LIST_ENTRY(list_pop(&api->bindings), struct binding, link));
}
