/* Messages as JSON and back.
 * LIBS: net */
#include "tests/lib/test.h"

#include "base/limits.h"
#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "google/protobuf/empty.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "net/json_pb.h"
#include "proto/json_map.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"
#include "skerry/v1/agent.pb-c.h"

static int parse(const ProtobufCMessageDescriptor *desc, const char *text, unsigned flags,
		 struct arena *arena, ProtobufCMessage **ret, struct err *e)
{
	/* without NUL behind it */
	char *copy = malloc(strlen(text) + 1);
	int rv;

	memcpy(copy, text, strlen(text));
	rv = json_pb_read(desc, copy, strlen(text), flags, arena, ret, e);
	free(copy);
	return rv;
}

/* Reads `in`, writes it, and compares with `out` (NULL: the same). */
static void check_round(const ProtobufCMessageDescriptor *desc, const char *in, const char *out,
			unsigned flags)
{
	ProtobufCMessage *msg = NULL;
	struct buf b = BUF_INIT;
	struct arena arena;
	struct err e = {0};

	arena_init(&arena, json_pb_budget(strlen(in)));
	if (parse(desc, in, 0, &arena, &msg, &e) < 0)
		TEST_FAIL("%s: %s", in, e.msg);
	json_pb_write(msg, flags, &b);
	if (strcmp(buf_str(&b), out ? out : in))
		TEST_FAIL("%s\nbecame   %s\nexpected %s", in, buf_str(&b), out ? out : in);
	buf_done(&b);
	arena_done(&arena);
}

static void test_forms(void **state UNUSED)
{
	static const ProtobufCMessageDescriptor *const node = &skerry__v1__node__descriptor;
	static const ProtobufCMessageDescriptor *const peer = &skerry__v1__netmap_peer__descriptor;
	static const ProtobufCMessageDescriptor *const tailnet = &skerry__v1__tailnet__descriptor;
	static const ProtobufCMessageDescriptor *const update =
		&skerry__v1__update_tailnet_request__descriptor;
	const struct {
		const ProtobufCMessageDescriptor *desc;
		const char *in;
		const char *out;
	} cases[] = {
		{node, "{}", NULL},
		{node,
		 "{\"name\":\"tailnets/1/nodes/"
		 "2\",\"stableId\":\"n1\",\"tags\":[\"tag:a\",\"tag:b\"],\"online\":true}",
		 NULL},
		{node, " { \"stable_id\" : \"n\\u00e9\\ud83d\\ude00\" } ",
		 "{\"stableId\":\"n\xc3\xa9\xf0\x9f\x98\x80\"}"},
		{node, "{\"name\":null,\"tags\":null,\"hostInfo\":null}", "{}"},
		{node, "{\"online\":false,\"name\":\"\",\"tags\":[]}", "{}"},
		{node, "{\"hostInfo\":{}}", NULL},
		/* 64 bits as strings, both ways in */
		{peer, "{\"nodeId\":\"18446744073709551615\"}", NULL},
		{peer, "{\"nodeId\":9007199254740993}", "{\"nodeId\":\"9007199254740993\"}"},
		{peer, "{\"nodeId\":1e3}", "{\"nodeId\":\"1000\"}"},
		{peer, "{\"homeRelay\":4294967295}", NULL},
		{peer, "{\"homeRelay\":\"7\"}", "{\"homeRelay\":7}"},
		{peer, "{\"homeRelay\":7.0}", "{\"homeRelay\":7}"},
		/* bytes: all four spellings */
		{peer, "{\"nodeKey\":\"+/8=\"}", NULL},
		{peer, "{\"nodeKey\":\"+/8\"}", "{\"nodeKey\":\"+/8=\"}"},
		{peer, "{\"nodeKey\":\"-_8=\"}", "{\"nodeKey\":\"+/8=\"}"},
		{peer, "{\"nodeKey\":\"-_8\"}", "{\"nodeKey\":\"+/8=\"}"},
		{peer, "{\"addresses\":[\"AQID\",\"\"]}", NULL},
		/* enums */
		{peer, "{\"endpoints\":[{\"port\":1,\"kind\":\"ENDPOINT_KIND_STUN\"},{}]}", NULL},
		{peer, "{\"endpoints\":[{\"kind\":2}]}",
		 "{\"endpoints\":[{\"kind\":\"ENDPOINT_KIND_STUN\"}]}"},
		{peer, "{\"endpoints\":[{\"kind\":99}]}", NULL},
		{peer, "{\"endpoints\":[{\"kind\":-1}]}", NULL},
		/* times */
		{tailnet, "{\"createTime\":\"2026-11-22T13:30:00Z\"}", NULL},
		{tailnet, "{\"createTime\":\"2026-11-22T13:30:00.1Z\"}",
		 "{\"createTime\":\"2026-11-22T13:30:00.100Z\"}"},
		{tailnet, "{\"createTime\":\"2026-11-22T13:30:00.123456Z\"}", NULL},
		{tailnet, "{\"createTime\":\"2026-11-22T13:30:00.123456789Z\"}", NULL},
		{tailnet, "{\"createTime\":\"2026-11-22T14:30:00.5+01:00\"}",
		 "{\"createTime\":\"2026-11-22T13:30:00.500Z\"}"},
		{tailnet, "{\"createTime\":\"1969-12-31T23:59:59.250Z\"}", NULL},
		{tailnet, "{\"createTime\":\"0001-01-01T00:00:00Z\"}", NULL},
		{tailnet, "{\"createTime\":\"9999-12-31T23:59:59.999999999Z\"}", NULL},
		{tailnet, "{\"nodeExpiry\":\"15552000s\"}", NULL},
		{tailnet, "{\"nodeExpiry\":\"0s\"}", NULL},
		{tailnet, "{\"nodeExpiry\":\"1.5s\"}", "{\"nodeExpiry\":\"1.500s\"}"},
		{tailnet, "{\"nodeExpiry\":\"-0.000001s\"}", NULL},
		{tailnet, "{\"nodeExpiry\":\"-1.000000001s\"}", NULL},
		{tailnet, "{\"nodeExpiry\":\"315576000000s\"}", NULL},
		/* field masks */
		{update, "{\"updateMask\":\"displayName,dns.baseDomain\"}", NULL},
		{update, "{\"updateMask\":\"display_name\"}", "{\"updateMask\":\"displayName\"}"},
		{update, "{\"updateMask\":\"\"}", NULL},
		{update, "{\"updateMask\":\"*\"}", NULL},
		/* oneof: also with its default value */
		{&skerry__v1__watch_response__descriptor, "{\"heartbeat\":{}}", NULL},
		{&skerry__v1__watch_response__descriptor,
		 "{\"heartbeat\":{\"quorumAgeMs\":\"5\"},\"move\":null}",
		 "{\"heartbeat\":{\"quorumAgeMs\":\"5\"}}"},
		/* map */
		{&google__rpc__error_info__descriptor,
		 "{\"reason\":\"R\",\"metadata\":{\"a\":\"1\",\"b\":\"\"}}", NULL},
		{&google__rpc__error_info__descriptor, "{\"metadata\":{}}", "{}"},
		/* Any */
		{&google__rpc__status__descriptor,
		 "{\"code\":5,\"details\":[{\"@type\":\"type.googleapis.com/"
		 "google.rpc.ErrorInfo\",\"reason\":\"R\"},"
		 "{\"@type\":\"type.googleapis.com/google.protobuf.Duration\",\"value\":\"3s\"},"
		 "{\"@type\":\"type.googleapis.com/google.protobuf.Empty\"}]}",
		 NULL},
		{&google__protobuf__any__descriptor,
		 "{\"@type\":\"x/google.protobuf.Any\",\"value\":{\"@type\":\"y/"
		 "google.protobuf.Timestamp\",\"value\":"
		 "\"2026-01-02T03:04:05Z\"}}",
		 NULL},
		{&google__protobuf__empty__descriptor, "{}", NULL},
		/* proto2: presence and floats */
		{&google__protobuf__uninterpreted_option__descriptor,
		 "{\"doubleValue\":1.5,\"positiveIntValue\":\"0\"}",
		 "{\"positiveIntValue\":\"0\",\"doubleValue\":1.5}"},
		{&google__protobuf__uninterpreted_option__descriptor,
		 "{\"doubleValue\":\"-Infinity\"}", NULL},
		{&google__protobuf__uninterpreted_option__descriptor, "{\"doubleValue\":\"NaN\"}",
		 NULL},
		{&google__protobuf__uninterpreted_option__descriptor, "{\"doubleValue\":\"2.5\"}",
		 "{\"doubleValue\":2.5}"},
		{&google__protobuf__uninterpreted_option__descriptor,
		 "{\"negativeIntValue\":\"-9223372036854775808\"}", NULL},
	};

	TEST_TABLE(c, cases)
	check_round(c->desc, c->in, c->out, 0);
}

static void test_flags(void **state UNUSED)
{
	check_round(&skerry__v1__endpoint__descriptor, "{}",
		    "{\"address\":\"\",\"port\":0,\"kind\":\"ENDPOINT_KIND_UNSPECIFIED\"}",
		    JSON_PB_DEFAULTS);
	check_round(&skerry__v1__list_nodes_response__descriptor, "{}",
		    "{\"nodes\":[],\"next_page_token\":\"\"}",
		    JSON_PB_DEFAULTS | JSON_PB_PROTO_NAMES);
	check_round(&skerry__v1__watch_response__descriptor, "{}", "{}", JSON_PB_DEFAULTS);
	check_round(&skerry__v1__list_nodes_response__descriptor, "{\"nextPageToken\":\"x\"}",
		    "{\n  \"nextPageToken\": \"x\"\n}", JSON_PB_PRETTY);
}

static void test_refused(void **state UNUSED)
{
	static const ProtobufCMessageDescriptor *const node = &skerry__v1__node__descriptor;
	static const ProtobufCMessageDescriptor *const list =
		&skerry__v1__list_nodes_response__descriptor;
	static const ProtobufCMessageDescriptor *const peer = &skerry__v1__netmap_peer__descriptor;
	static const ProtobufCMessageDescriptor *const tailnet = &skerry__v1__tailnet__descriptor;
	static const ProtobufCMessageDescriptor *const option =
		&google__protobuf__uninterpreted_option__descriptor;
	static const ProtobufCMessageDescriptor *const any = &google__protobuf__any__descriptor;
	const struct {
		const ProtobufCMessageDescriptor *desc;
		const char *in;
		const char *field;
		const char *text;
	} cases[] = {
		{node, "", "json:1:", ""},
		{node, "{\"name\":\n \"x\",}", "json:2:", ""},
		{node, "{} {}", "json:1:", ""},
		{node, "{\"name\":\"a\",\"name\":\"b\"}", "json:1:", ""},
		{node, "{\"name\":\"\xff\"}", "json:1:", ""},
		{node, "{\"name\":\"a\\u0000b\"}", "", "NUL"},
		{node, "[]", "", "expected an object"},
		{node, "3", "", ""},
		{node, "{\"nodeName\":\"x\"}", "nodeName", "no such field"},
		{node, "{\"Name\":\"x\"}", "Name", "no such field"},
		{node, "{\"stableId\":\"a\",\"stable_id\":\"b\"}", "stable_id", "given twice"},
		{node, "{\"name\":1}", "name", "expected string"},
		{node, "{\"tags\":\"x\"}", "tags", "expected a list"},
		{node, "{\"tags\":[\"x\",null]}", "tags[1]", "null"},
		{node, "{\"online\":\"true\"}", "online", "true or false"},
		{node, "{\"online\":1}", "online", "true or false"},
		{node, "{\"hostInfo\":[]}", "hostInfo", "expected an object"},
		{list, "{\"nodes\":[{},{},{},{\"tags\":[7]}]}", "nodes[3].tags[0]",
		 "nodes[3].tags[0]: expected string"},
		{list, "{\"nodes\":[{\"hostInfo\":{\"os\":{}}}]}", "nodes[0].hostInfo.os",
		 "expected string"},
		{peer, "{\"nodeId\":\"18446744073709551616\"}", "nodeId", "integer"},
		{peer, "{\"nodeId\":-1}", "nodeId", "negative"},
		{peer, "{\"nodeId\":1.5}", "nodeId", "integer"},
		{peer, "{\"nodeId\":1e30}", "nodeId", "integer"},
		{peer, "{\"nodeId\":\"\"}", "nodeId", ""},
		{peer, "{\"nodeId\":\" 1\"}", "nodeId", ""},
		{peer, "{\"nodeId\":\"0x1\"}", "nodeId", ""},
		{peer, "{\"nodeId\":true}", "nodeId", ""},
		{peer, "{\"homeRelay\":4294967296}", "homeRelay", "range"},
		{peer, "{\"nodeKey\":\"a\"}", "nodeKey", "base64"},
		{peer, "{\"nodeKey\":\"****\"}", "nodeKey", "base64"},
		{peer, "{\"nodeKey\":\"+_8=\"}", "nodeKey", "base64"},
		{peer, "{\"nodeKey\":[1]}", "nodeKey", "base64"},
		{peer, "{\"endpoints\":[{\"kind\":\"STUN\"}]}", "endpoints[0].kind",
		 "EndpointKind has no value \"STUN\""},
		{peer, "{\"endpoints\":[{\"kind\":1.5}]}", "endpoints[0].kind", "enum"},
		{peer, "{\"endpoints\":[{\"kind\":3000000000}]}", "endpoints[0].kind", "enum"},
		{tailnet, "{\"createTime\":\"yesterday\"}", "createTime", "expected a time"},
		{tailnet, "{\"createTime\":\"2026-11-22T13:30:00.Z\"}", "createTime",
		 "expected a time"},
		{tailnet, "{\"createTime\":\"2026-11-22T13:30:00.1234567890Z\"}", "createTime",
		 "expected a time"},
		{tailnet, "{\"createTime\":\"2026-02-30T13:30:00Z\"}", "createTime",
		 "expected a time"},
		{tailnet, "{\"createTime\":\"0000-12-31T23:59:59Z\"}", "createTime",
		 "years 1 and 9999"},
		{tailnet, "{\"createTime\":5}", "createTime", "as string"},
		{tailnet, "{\"nodeExpiry\":\"1\"}", "nodeExpiry", "duration"},
		{tailnet, "{\"nodeExpiry\":\"1h\"}", "nodeExpiry", "duration"},
		{tailnet, "{\"nodeExpiry\":\"--1s\"}", "nodeExpiry", "duration"},
		{tailnet, "{\"nodeExpiry\":\"1.s\"}", "nodeExpiry", "duration"},
		{tailnet, "{\"nodeExpiry\":\"315576000001s\"}", "nodeExpiry", "10,000 years"},
		{tailnet, "{\"nodeExpiry\":\"99999999999999999999s\"}", "nodeExpiry", "duration"},
		{&skerry__v1__update_tailnet_request__descriptor, "{\"updateMask\":\"a,,b\"}",
		 "updateMask", "empty name"},
		{&skerry__v1__update_tailnet_request__descriptor, "{\"updateMask\":[]}",
		 "updateMask", "one string"},
		{&skerry__v1__watch_response__descriptor, "{\"heartbeat\":{},\"move\":{}}", "move",
		 "only one"},
		{&google__rpc__error_info__descriptor, "{\"metadata\":[]}", "metadata",
		 "expected an object"},
		{&google__rpc__error_info__descriptor, "{\"metadata\":{\"a\":null}}", "metadata.a",
		 "expected string"},
		{any, "{\"value\":\"x\"}", "", "@type"},
		{any, "{\"@type\":\"type.googleapis.com/no.Such\"}", "", "not known"},
		{any, "{\"@type\":\"google.rpc.ErrorInfo\"}", "", "not known"},
		{any, "{\"@type\":\"x/google.rpc.ErrorInfo\",\"nothing\":1}", "nothing",
		 "no such field"},
		{any, "{\"@type\":\"x/google.protobuf.Duration\",\"value\":\"1\"}", "value",
		 "duration"},
		{any, "{\"@type\":\"x/google.protobuf.Duration\"}", "", "\"value\""},
		{option, "{\"doubleValue\":\"1x\"}", "doubleValue", "number"},
		{option, "{\"doubleValue\":\"0x10\"}", "doubleValue", "number"},
		{option, "{\"doubleValue\":\"inf\"}", "doubleValue", "number"},
		{option, "{\"doubleValue\":\"1e999\"}", "doubleValue", "number"},
	};

	TEST_TABLE(c, cases)
	{
		ProtobufCMessage *msg = NULL;
		struct arena arena;
		struct err e = {0};
		int rv;

		arena_init(&arena, json_pb_budget(strlen(c->in)));
		rv = parse(c->desc, c->in, 0, &arena, &msg, &e);
		if (rv != ERR_INVALID || strncmp(e.field, c->field, strlen(c->field)) ||
		    (strncmp(c->field, "json", 4) && strlen(e.field) != strlen(c->field) &&
		     strcmp(c->text, "NUL")))
			TEST_FAIL("%s: %s, field \"%s\", %s", c->in, err_name(rv), e.field, e.msg);
		if (strcmp(c->text, "NUL"))
			assert_contains(e.msg, c->text);
		assert_null(msg);
		assert_err(parse(c->desc, c->in, 0, &arena, &msg, NULL), ERR_INVALID);
		arena_done(&arena);
	}
}

static void test_ignore_unknown(void **state UNUSED)
{
	ProtobufCMessage *msg = NULL;
	struct arena arena;
	struct buf b = BUF_INIT;
	struct err e = {0};

	arena_init(&arena, 1 << 16);
	assert_ok(parse(&skerry__v1__endpoint__descriptor,
			"{\"new\":{\"x\":[1]},\"port\":5,\"kind\":\"NEW\"}", JSON_PB_IGNORE_UNKNOWN,
			&arena, &msg, &e));
	json_pb_write(msg, 0, &b);
	assert_string_equal(buf_str(&b), "{\"port\":5}");
	buf_done(&b);
	arena_done(&arena);
}

static void test_limits(void **state UNUSED)
{
	ProtobufCMessage *msg = NULL;
	struct buf b = BUF_INIT;
	struct arena arena;
	struct err e = {0};

	arena_init(&arena, SIZE_MAX / 2);
	/* depth: recursive type, far under and far over */
	for (int n = 10; n <= 10000; n *= 1000) {
		buf_reset(&b);
		for (int i = 0; i < n; i++)
			buf_append_str(&b, "{\"nestedType\":[");
		for (int i = 0; i < n; i++)
			buf_append_str(&b, "]}");
		if (n == 10)
			assert_ok(json_pb_read(&google__protobuf__descriptor_proto__descriptor,
					       buf_str(&b), b.len, 0, &arena, &msg, &e));
		else
			assert_true(json_pb_read(&google__protobuf__descriptor_proto__descriptor,
						 buf_str(&b), b.len, 0, &arena, &msg, &e) < 0);
	}
	/* elements */
	buf_reset(&b);
	buf_append_str(&b, "{\"removed\":[0");
	for (unsigned i = 2; i < LIM_PB_FIELDS + 10; i++)
		buf_append_str(&b, ",0");
	buf_append_str(&b, "]}");
	assert_err(json_pb_read(&skerry__v1__netmap_delta__descriptor, buf_str(&b), b.len, 0,
				&arena, &msg, &e),
		   ERR_LIMIT);
	assert_contains(e.msg, "too many fields");
	arena_done(&arena);
	/* memory */
	buf_reset(&b);
	buf_append_str(&b, "{\"nodes\":[{}");
	for (unsigned i = 2; i < 20000; i++)
		buf_append_str(&b, ",{}");
	buf_append_str(&b, "]}");
	arena_init(&arena, json_pb_budget(b.len));
	assert_err(json_pb_read(&skerry__v1__list_nodes_response__descriptor, buf_str(&b), b.len, 0,
				&arena, &msg, &e),
		   ERR_LIMIT);
	assert_contains(e.msg, "too much memory");
	arena_done(&arena);
	/* text */
	buf_reset(&b);
	while (b.len <= LIM_JSON_BYTES)
		buf_append_str(&b, "          ");
	arena_init(&arena, 1000);
	assert_err(json_pb_read(&skerry__v1__node__descriptor, buf_str(&b), b.len, 0, &arena, &msg,
				&e),
		   ERR_LIMIT);
	arena_done(&arena);
	buf_done(&b);
}

/* The arena gives out less each time: every allocation fails once, cleanly. */
static void test_every_allocation_fails(void **state UNUSED)
{
	static const char text[] =
		"{\"nodes\":[{\"name\":\"a\",\"tags\":[\"x\",\"y\"],\"hostInfo\":{\"os\":\"linux\"}"
		",\"createTime\":"
		"\"2026-11-22T13:30:00Z\"},{\"endpoints\":[\"e\"]}],\"nextPageToken\":\"p\"}";
	static const char any[] = "{\"code\":1,\"details\":[{\"@type\":\"x/"
				  "google.rpc.ErrorInfo\",\"metadata\":{\"a\":\"b\"}},"
				  "{\"@type\":\"x/google.protobuf.FieldMask\",\"value\":\"a,b\"}]}";
	const struct {
		const ProtobufCMessageDescriptor *desc;
		const char *text;
	} cases[] = {{&skerry__v1__list_nodes_response__descriptor, text},
		     {&google__rpc__status__descriptor, any}};

	TEST_TABLE(c, cases)
	{
		ProtobufCMessage *msg = NULL;
		struct arena arena;
		struct err e = {0};
		size_t used;

		arena_init(&arena, 1 << 20);
		assert_ok(parse(c->desc, c->text, 0, &arena, &msg, &e));
		used = arena.used;
		arena_done(&arena);
		assert_true(used > 300);
		for (size_t budget = 0; budget < used; budget += 16) {
			msg = NULL;
			arena_init(&arena, budget);
			assert_err(parse(c->desc, c->text, 0, &arena, &msg, &e), ERR_LIMIT);
			assert_contains(e.msg, "memory");
			assert_null(msg);
			arena_done(&arena);
		}
	}
}

/* What came from the wire and fits no JSON form is still written. */
static void test_odd_messages(void **state UNUSED)
{
	Google__Protobuf__Timestamp ts = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
	Google__Protobuf__Duration d = GOOGLE__PROTOBUF__DURATION__INIT;
	Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
	Google__Rpc__ErrorInfo__MetadataEntry one = GOOGLE__RPC__ERROR_INFO__METADATA_ENTRY__INIT,
					      two = one;
	Google__Rpc__ErrorInfo__MetadataEntry *entries[] = {&one, &two};
	Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
	char url[] = "x/no.Such", known[] = "x/google.rpc.ErrorInfo", key[] = "k", a[] = "a",
	     z[] = "z";
	struct buf b = BUF_INIT;

	ts.seconds = INT64_MAX;
	ts.nanos = -1;
	json_pb_write(&ts, 0, &b);
	assert_string_equal(buf_str(&b), "\"9999-12-31T23:59:59Z\"");
	buf_reset(&b);
	d.seconds = INT64_MIN;
	json_pb_write(&d, 0, &b);
	assert_string_equal(buf_str(&b), "\"-315576000000s\"");
	buf_reset(&b);
	any.type_url = url;
	any.value = (ProtobufCBinaryData){2, (uint8_t *)"\x01\x02"};
	json_pb_write(&any, 0, &b);
	assert_string_equal(buf_str(&b), "{\"@type\":\"x/no.Such\",\"value\":\"AQI=\"}");
	buf_reset(&b);
	any.type_url = known; /* but the bytes are not one */
	json_pb_write(&any, 0, &b);
	assert_string_equal(buf_str(&b),
			    "{\"@type\":\"x/google.rpc.ErrorInfo\",\"value\":\"AQI=\"}");
	buf_reset(&b);
	/* of two entries with one key the last counts */
	one.key = two.key = key;
	one.value = a;
	two.value = z;
	info.n_metadata = 2;
	info.metadata = entries;
	json_pb_write(&info, 0, &b);
	assert_string_equal(buf_str(&b), "{\"metadata\":{\"k\":\"z\"}}");
	buf_done(&b);
}

/* Any in Any in Any …, made on the wire: the writer's depth is bounded. */
static void test_deep_any(void **state UNUSED)
{
	struct buf inner = BUF_INIT, b = BUF_INIT;
	char url[] = "x/google.protobuf.Any";

	for (int i = 0; i < 90; i++) {
		Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;

		any.type_url = url;
		any.value = (ProtobufCBinaryData){inner.len, inner.data};
		buf_reset(&b);
		pb_pack(&any, &b);
		buf_reset(&inner);
		buf_append(&inner, b.data, b.len);
	}
	ProtobufCMessage *msg;

	assert_ok(pb_decode_heap(&google__protobuf__any__descriptor, inner.data, inner.len, NULL,
				 &msg, NULL));
	buf_reset(&b);
	json_pb_write(msg, 0, &b);
	assert_in_range(b.len, 1000, 20000);
	pb_free(msg);
	buf_done(&inner);
	buf_done(&b);
}

/* For every message type of the tree: an empty one, and one with every field set, survive the way there and back. */
static void fill(ProtobufCMessage *msg, struct arena *arena, int depth)
{
	const ProtobufCMessageDescriptor *desc = msg->descriptor;

	for (unsigned i = 0; i < desc->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &desc->fields[i];
		bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
		char *at = (char *)msg + field->offset,
		     *quantifier = (char *)msg + field->quantifier_offset;
		const struct proto_message_info *info;
		ProtobufCMessage *sub;

		if (field->type == PROTOBUF_C_TYPE_MESSAGE && !depth)
			continue;
		if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
			if (*(uint32_t *)quantifier)
				continue;
			*(uint32_t *)quantifier = field->id;
		} else if (repeated) {
			*(size_t *)quantifier = 1;
			*(void **)at = arena_zalloc(arena, 16);
			at = *(void **)at;
		} else if (field->label == PROTOBUF_C_LABEL_OPTIONAL &&
			   field->type != PROTOBUF_C_TYPE_MESSAGE &&
			   field->type != PROTOBUF_C_TYPE_STRING) {
			*(protobuf_c_boolean *)quantifier = true;
		}
		switch (field->type) {
		case PROTOBUF_C_TYPE_STRING: *(char **)at = arena_strdup(arena, "text"); break;
		case PROTOBUF_C_TYPE_BYTES:
			*(ProtobufCBinaryData *)at =
				(ProtobufCBinaryData){4, arena_memdup(arena, "\0\1\2\3", 4)};
			break;
		case PROTOBUF_C_TYPE_MESSAGE:
			info = proto_message_info(field->descriptor);
			assert_non_null(info);
			sub = arena_zalloc(arena, info->desc->sizeof_message);
			info->desc->message_init(sub);
			if (info->kind == PROTO_JSON_TIMESTAMP || info->kind == PROTO_JSON_DURATION)
				((Google__Protobuf__Timestamp *)sub)->seconds = 77;
			else if (info->kind != PROTO_JSON_ANY)
				fill(sub, arena, depth - 1);
			*(ProtobufCMessage **)at = sub;
			break;
		case PROTOBUF_C_TYPE_BOOL: *(protobuf_c_boolean *)at = true; break;
		case PROTOBUF_C_TYPE_ENUM:
			*(int *)at = ((const ProtobufCEnumDescriptor *)field->descriptor)
					     ->values[0]
					     .value;
			break;
		case PROTOBUF_C_TYPE_DOUBLE: *(double *)at = 0.1; break;
		case PROTOBUF_C_TYPE_FLOAT: *(float *)at = 0.5f; break;
		case PROTOBUF_C_TYPE_INT64:
		case PROTOBUF_C_TYPE_UINT64:
		case PROTOBUF_C_TYPE_SINT64:
		case PROTOBUF_C_TYPE_FIXED64:
		case PROTOBUF_C_TYPE_SFIXED64: *(int64_t *)at = INT64_MAX; break;
		default: *(int32_t *)at = 12345;
		}
	}
}

static void test_every_type(void **state UNUSED)
{
	const struct proto_message_info *info;

	for (size_t i = 0; (info = proto_message_at(i)); i++) {
		ProtobufCMessage *back = NULL, *decoded = NULL;
		struct buf json = BUF_INIT, wire = BUF_INIT;
		struct arena arena;
		struct err e = {0};

		if (info->kind != PROTO_JSON_PLAIN)
			continue;
		arena_init(&arena, 1 << 22);
		ProtobufCMessage *msg = arena_zalloc(&arena, info->desc->sizeof_message);

		info->desc->message_init(msg);
		fill(msg, &arena, 5);
		json_pb_write(msg, JSON_PB_PRETTY, &json);
		if (json_pb_read(info->desc, buf_str(&json), json.len, 0, &arena, &back, &e) < 0)
			TEST_FAIL("%s: %s\n%s", info->name, e.msg, buf_str(&json));
		if (!pb_equal(msg, back))
			TEST_FAIL("%s: %s", info->name, buf_str(&json));
		/* and its wire form passes the check, strictly */
		struct pb_opts strict = {.flags = PB_STRICT_KNOWN};

		pb_pack(msg, &wire);
		if (pb_decode(info->desc, wire.data, wire.len, &strict, &arena, &decoded, &e) < 0)
			TEST_FAIL("%s: %s", info->name, e.msg);
		assert_true(pb_equal(msg, decoded));
		buf_done(&json);
		buf_done(&wire);
		arena_done(&arena);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),        cmocka_unit_test(test_flags),
		cmocka_unit_test(test_refused),      cmocka_unit_test(test_ignore_unknown),
		cmocka_unit_test(test_limits),       cmocka_unit_test(test_every_allocation_fails),
		cmocka_unit_test(test_odd_messages), cmocka_unit_test(test_deep_any),
		cmocka_unit_test(test_every_type),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
