#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "google/protobuf/any.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "net/rpc_int.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"

/* The rich error model: struct err <-> google.rpc.Status with ErrorInfo, BadRequest and RetryInfo.
 */

enum { DETAILS_MAX = 3, INFO_MAX = 16 };

static const char type_error_info[] = "type.googleapis.com/google.rpc.ErrorInfo";
static const char type_bad_request[] = "type.googleapis.com/google.rpc.BadRequest";
static const char type_retry_info[] = "type.googleapis.com/google.rpc.RetryInfo";

static void detail(Google__Protobuf__Any *any, struct buf *store, const char *type, const void *msg)
{
	google__protobuf__any__init(any);
	pb_pack(msg, store);
	any->type_url = (char *)type;
	any->value.data = store->data;
	any->value.len = store->len;
}

void rpc_status_encode(const struct rpc_call *call, const struct err *err, struct buf *out)
{
	Google__Protobuf__Any any[DETAILS_MAX], *list[DETAILS_MAX];
	struct buf store[DETAILS_MAX] = {BUF_INIT, BUF_INIT, BUF_INIT};
	Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
	size_t n = 0;

	if (err->reason[0] != '\0') {
		Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
		Google__Rpc__ErrorInfo__MetadataEntry entries[INFO_MAX], *entry_list[INFO_MAX];

		info.reason = (char *)err->reason;
		info.domain = (char *)"skerry";
		for (const struct rpc_pair *p = call != NULL ? call->error_info.first : NULL;
		     p != NULL && info.n_metadata < INFO_MAX; p = p->next) {
			Google__Rpc__ErrorInfo__MetadataEntry *e = &entries[info.n_metadata];

			google__rpc__error_info__metadata_entry__init(e);
			e->key = (char *)p->name;
			e->value = (char *)p->value;
			entry_list[info.n_metadata++] = e;
		}
		info.metadata = entry_list;
		detail(&any[n], &store[n], type_error_info, &info);
		n++;
	}
	if (err->field[0] != '\0') {
		Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
		Google__Rpc__BadRequest__FieldViolation violation =
			GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
		Google__Rpc__BadRequest__FieldViolation *violations[] = {&violation};

		violation.field = (char *)err->field;
		violation.description = (char *)err->msg;
		bad.n_field_violations = 1;
		bad.field_violations = violations;
		detail(&any[n], &store[n], type_bad_request, &bad);
		n++;
	}
	if (call != NULL && call->retry_ms > 0) {
		Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
		Google__Protobuf__Duration delay;

		retry.retry_delay = pb_duration_set(&delay, call->retry_ms);
		detail(&any[n], &store[n], type_retry_info, &retry);
		n++;
	}
	if (n > 0) {
		for (size_t i = 0; i < n; i++) {
			list[i] = &any[i];
		}
		status.code = err_grpc(err->code);
		status.message = (char *)err->msg;
		status.n_details = n;
		status.details = list;
		pb_pack(&status, out);
	}
	for (size_t i = 0; i < DETAILS_MAX; i++) {
		buf_done(&store[i]);
	}
}

static void copy_text(char *to, size_t cap, const char *from)
{
	snprintf(to, cap, "%s", from);
}

void rpc_status_decode(const void *data, size_t len, struct err *err, uint32_t *ret_retry_ms)
{
	struct arena arena;
	ProtobufCMessage *msg;

	arena_init(&arena, pb_arena_budget(len) * 4);
	if (pb_decode(&google__rpc__status__descriptor, data, len, NULL, &arena, &msg, NULL) != 0) {
		arena_done(&arena);
		return;
	}
	const Google__Rpc__Status *status = (const Google__Rpc__Status *)msg;
	for (size_t i = 0; i < status->n_details && i < 16; i++) {
		const Google__Protobuf__Any *any = status->details[i];
		ProtobufCMessage *inner;
		const ProtobufCMessageDescriptor *desc =
			strcmp(any->type_url, type_error_info) == 0
				? &google__rpc__error_info__descriptor
			: strcmp(any->type_url, type_bad_request) == 0
				? &google__rpc__bad_request__descriptor
			: strcmp(any->type_url, type_retry_info) == 0
				? &google__rpc__retry_info__descriptor
				: NULL;

		if (desc == NULL || pb_decode(desc, any->value.data, any->value.len, NULL, &arena,
					      &inner, NULL) != 0) {
			continue;
		}
		if (desc == &google__rpc__error_info__descriptor) {
			copy_text(err->reason, sizeof(err->reason),
				  ((Google__Rpc__ErrorInfo *)inner)->reason);
		} else if (desc == &google__rpc__bad_request__descriptor) {
			const Google__Rpc__BadRequest *bad = (const Google__Rpc__BadRequest *)inner;

			if (bad->n_field_violations > 0) {
				copy_text(err->field, sizeof(err->field),
					  bad->field_violations[0]->field);
			}
		} else if (ret_retry_ms != NULL) {
			int64_t ms = pb_duration_ms(((Google__Rpc__RetryInfo *)inner)->retry_delay);

			*ret_retry_ms = (uint32_t)MAX((int64_t)0, MIN(ms, (int64_t)3600 * 1000));
		}
	}
	arena_done(&arena);
}

int rpc_timeout_parse(const char *text, uint64_t *ret_ms)
{
	uint64_t value = 0;
	size_t digits = 0;

	for (; text[digits] >= '0' && text[digits] <= '9'; digits++) {
		if (digits == 8) {
			return ERR_INVALID;
		}
		value = value * 10 + (uint64_t)(text[digits] - '0');
	}
	if (digits == 0 || text[digits] == '\0' || text[digits + 1] != '\0') {
		return ERR_INVALID;
	}
	switch (text[digits]) {
	case 'H': *ret_ms = value * 3600 * 1000; return 0;
	case 'M': *ret_ms = value * 60 * 1000; return 0;
	case 'S': *ret_ms = value * 1000; return 0;
	case 'm': *ret_ms = value; return 0;
	case 'u': *ret_ms = (value + 999) / 1000; return 0;
	case 'n': *ret_ms = (value + 999999) / 1000000; return 0;
	default: return ERR_INVALID;
	}
}

void rpc_timeout_format(uint64_t ms, char ret_text[16])
{
	if (ms <= 99999999) {
		snprintf(ret_text, 16, "%um", (unsigned)ms);
	} else if (ms / 1000 <= 99999999) {
		snprintf(ret_text, 16, "%uS", (unsigned)(ms / 1000));
	} else {
		snprintf(ret_text, 16, "%uH", (unsigned)MIN(ms / 3600000, (uint64_t)99999999));
	}
}
