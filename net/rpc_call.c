#include <string.h>

#include "base/enc.h"
#include "base/limits.h"
#include "net/rpc_int.h"
#include "net/stream.h"

/* What handlers and transports ask of a call: metadata, the other end, deadlines, data; nothing here ends a call. */

/* ---- Pairs ----------------------------------------------------------------------------------- */

bool rpc_pairs_add(struct arena *arena, struct rpc_pairs *pairs, const char *name,
		   const void *value, size_t len)
{
	struct rpc_pair *pair = arena_zalloc(arena, sizeof(*pair));
	char *copy = arena_alloc(arena, len + 1);

	if (pair == NULL || copy == NULL || pairs->bytes + len + 32 > LIM_RPC_METADATA_BYTES) {
		return false;
	}
	memcpy(copy, value, len);
	copy[len] = '\0';
	pair->name = arena_strdup(arena, name);
	if (pair->name == NULL) {
		return false;
	}
	pair->value = copy;
	pair->len = len;
	pairs->bytes += strlen(name) + len + 32;
	if (pairs->last != NULL) {
		pairs->last->next = pair;
	} else {
		pairs->first = pair;
	}
	pairs->last = pair;
	return true;
}

const struct rpc_pair *rpc_pairs_find(const struct rpc_pairs *pairs, const char *name)
{
	for (const struct rpc_pair *p = pairs->first; p != NULL; p = p->next) {
		if (strcmp(p->name, name) == 0) {
			return p;
		}
	}
	return NULL;
}

bool rpc_name_valid(const char *name)
{
	if (name[0] == '\0' || strncmp(name, "grpc-", 5) == 0) {
		return false;
	}
	for (const char *c = name; *c != '\0'; c++) {
		bool ok = (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '_' ||
			  *c == '.' || *c == '-';

		if (!ok) {
			return false;
		}
	}
	return true;
}

bool rpc_value_valid(const void *value, size_t len)
{
	const uint8_t *b = value;

	for (size_t i = 0; i < len; i++) {
		if (b[i] < 0x20 || b[i] > 0x7e) {
			return false;
		}
	}
	return true;
}

/* ---- For handlers ---------------------------------------------------------------------------- */

struct rpc_ref rpc_call_ref(const struct rpc_call *call)
{
	return (struct rpc_ref){call->id};
}

struct rpc_call *rpc_call_find(struct rpc_server *server, struct rpc_ref ref)
{
	struct rpc_call *call = rpc_call_by_id(server, ref.id);

	return call != NULL && call->state != RPC_CALL_DONE ? call : NULL;
}

const struct proto_method *rpc_call_method(const struct rpc_call *call)
{
	return call->entry->method;
}

struct rpc_server *rpc_call_server(const struct rpc_call *call)
{
	return call->server;
}

const char *rpc_call_metadata(const struct rpc_call *call, const char *name)
{
	const struct rpc_pair *pair = rpc_pairs_find(&call->metadata, name);

	return pair != NULL ? pair->value : NULL;
}

const uint8_t *rpc_call_metadata_bin(struct rpc_call *call, const char *name, size_t *ret_len)
{
	struct rpc_pair *pair = (struct rpc_pair *)rpc_pairs_find(&call->metadata, name);

	if (pair == NULL) {
		return NULL;
	}
	if (pair->bin == NULL) {
		size_t len = strcspn(pair->value, ","); /* joined values: the first */
		uint8_t *out = arena_alloc(&call->arena, len + 1);
		int n = out != NULL ? base64_decode(pair->value, len, out, len + 1) : -1;

		if (n < 0) {
			return NULL;
		}
		pair->bin = out;
		pair->bin_len = (size_t)n;
	}
	*ret_len = pair->bin_len;
	return pair->bin;
}

const char *rpc_call_metadata_at(const struct rpc_call *call, size_t i, const char **ret_value)
{
	const struct rpc_pair *p = call->metadata.first;

	while (p != NULL && i-- > 0) {
		p = p->next;
	}
	if (p == NULL) {
		return NULL;
	}
	*ret_value = p->value;
	return p->name;
}

const struct stream_peer *rpc_call_peer(const struct rpc_call *call)
{
	static const struct stream_peer nobody;

	return call->conn != NULL && call->conn->stream != NULL ? stream_peer(call->conn->stream)
								: &nobody;
}

const char *rpc_call_peer_text(const struct rpc_call *call)
{
	return call->conn != NULL && call->conn->stream != NULL
		       ? stream_peer_text(call->conn->stream)
		       : "closed";
}

const struct stream_tls *rpc_call_tls(const struct rpc_call *call)
{
	return call->conn != NULL && call->conn->stream != NULL ? stream_tls(call->conn->stream)
								: NULL;
}

struct stream *rpc_call_stream(const struct rpc_call *call)
{
	return call->conn != NULL ? call->conn->stream : NULL;
}

const char *rpc_call_protocol(const struct rpc_call *call)
{
	return call->ops->protocol;
}

const uint8_t *rpc_call_request_bytes(const struct rpc_call *call, size_t *ret_len)
{
	*ret_len = call->raw_len;
	return call->raw;
}

bool rpc_call_was_compressed(const struct rpc_call *call)
{
	return call->compressed;
}

uint64_t rpc_call_deadline(const struct rpc_call *call)
{
	return call->deadline;
}

uint64_t rpc_call_remaining_ms(const struct rpc_call *call)
{
	uint64_t now = loop_now(call->server->loop);

	if (call->deadline == UINT64_MAX) {
		return UINT64_MAX;
	}
	return call->deadline > now ? call->deadline - now : 0;
}

void rpc_call_set_conn_data(struct rpc_call *call, const void *kind, void *data,
			    void (*data_free)(void *data))
{
	http_conn_set_user(call->conn, kind, data, data_free);
}

void *rpc_call_conn_data(const struct rpc_call *call, const void *kind)
{
	return call->conn != NULL ? http_conn_user(call->conn, kind) : NULL;
}

uint64_t rpc_call_conn_id(const struct rpc_call *call)
{
	return call->conn != NULL ? call->conn->id : 0;
}

void rpc_call_set_data(struct rpc_call *call, const void *kind, void *data,
		       void (*data_free)(void *data))
{
	if (call->data != NULL && call->data_free != NULL) {
		call->data_free(call->data);
	}
	call->data_kind = kind;
	call->data = data;
	call->data_free = data_free;
}

void *rpc_call_data(const struct rpc_call *call, const void *kind)
{
	return call->data_kind == kind ? call->data : NULL;
}

void *rpc_call_alloc(struct rpc_call *call, size_t len)
{
	return arena_zalloc(&call->arena, len);
}

void rpc_call_set_cancel_cb(struct rpc_call *call,
			    void (*cb)(void *arg, struct rpc_call *call, const struct err *why),
			    void *arg)
{
	call->cancel_cb = cb;
	call->cancel_arg = arg;
}

static void add_response_pair(struct rpc_call *call, struct rpc_pairs *pairs, const char *name,
			      const void *value, size_t len)
{
	PRE(rpc_name_valid(name));
	if (call->state == RPC_CALL_DONE ||
	    (!rpc_name_is_bin(name) && !rpc_value_valid(value, len))) {
		return;
	}
	(void)rpc_pairs_add(&call->arena, pairs, name, value, len);
}

void rpc_call_add_header(struct rpc_call *call, const char *name, const void *value, size_t len)
{
	add_response_pair(call, &call->headers, name, value, len);
}

void rpc_call_add_trailer(struct rpc_call *call, const char *name, const void *value, size_t len)
{
	add_response_pair(call, &call->trailers, name, value, len);
}

void rpc_call_add_error_info(struct rpc_call *call, const char *key, const char *value)
{
	if (call->state != RPC_CALL_DONE) {
		(void)rpc_pairs_add(&call->arena, &call->error_info, key, value, strlen(value));
	}
}

void rpc_call_set_retry(struct rpc_call *call, uint32_t delay_ms)
{
	call->retry_ms = delay_ms;
}

void rpc_call_set_compress(struct rpc_call *call, bool on)
{
	call->compress = on;
}
