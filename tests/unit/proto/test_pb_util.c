/* Packing, copies, times and field masks.
 * LIBS: proto */
#include "tests/lib/test.h"

#include "google/rpc/error_details.pb-c.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"
#include "skerry/v1/agent.pb-c.h"

static void test_timestamp(void **state UNUSED)
{
	static const struct {
		int64_t ms;
		int64_t seconds;
		int32_t nanos;
	} cases[] = {
		{0, 0, 0},
		{1, 0, 1000000},
		{-1, -1, 999000000},
		{-1000, -1, 0},
		{-1001, -2, 999000000},
		{1700000000123, 1700000000, 123000000},
		{253402300799999, 253402300799, 999000000},
		{-62135596800000, -62135596800, 0},
	};
	Google__Protobuf__Timestamp ts;

	TEST_TABLE(c, cases)
	{
		assert_ptr_equal(pb_timestamp_set(&ts, c->ms), &ts);
		assert_int_equal(ts.seconds, c->seconds);
		assert_int_equal(ts.nanos, c->nanos);
		assert_int_equal(pb_timestamp_ms(&ts), c->ms);
		assert_ok(pb_timestamp_check(&ts, "t", NULL));
	}
	assert_int_equal(pb_timestamp_ms(NULL), 0);
	assert_int_equal(pb_timestamp_ms(pb_timestamp_set(&ts, INT64_MAX)), 253402300799999);
	assert_int_equal(pb_timestamp_ms(pb_timestamp_set(&ts, INT64_MIN)), -62135596800000);
	ts.seconds = INT64_MAX;
	ts.nanos = INT32_MIN;
	assert_int_equal(pb_timestamp_ms(&ts), 253402300799999);
	assert_err(pb_timestamp_check(&ts, "t", NULL), ERR_INVALID);
	ts.seconds = 0;
	ts.nanos = 1000000000;
	assert_err(pb_timestamp_check(&ts, "t", NULL), ERR_INVALID);
	ts.nanos = -1;
	assert_err(pb_timestamp_check(&ts, "t", NULL), ERR_INVALID);
	assert_ok(pb_timestamp_check(NULL, "t", NULL));
}

static void test_duration(void **state UNUSED)
{
	static const int64_t cases[] = {
		0, 1, -1, 999, -999, 1000, -1500, 86400000, 315576000000000};
	Google__Protobuf__Duration d;
	struct err e = {0};

	TEST_TABLE(c, cases)
	{
		assert_int_equal(pb_duration_ms(pb_duration_set(&d, *c)), *c);
		assert_ok(pb_duration_check(&d, "d", NULL));
	}
	assert_int_equal(pb_duration_ms(pb_duration_set(&d, INT64_MAX)), 315576000000000);
	assert_int_equal(pb_duration_ms(pb_duration_set(&d, INT64_MIN)), -315576000000000);
	d.seconds = INT64_MIN;
	assert_int_equal(pb_duration_ms(&d), -315576000000000);
	assert_err(pb_duration_check(&d, "lifetime", &e), ERR_INVALID);
	assert_string_equal(e.field, "lifetime");
	d.seconds = 1;
	d.nanos = -1;
	assert_err(pb_duration_check(&d, "d", NULL), ERR_INVALID);
	assert_int_equal(pb_duration_ms(NULL), 0);
}

static void test_mask(void **state UNUSED)
{
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	char a[] = "display_name", b[] = "dns", c[] = "*", bad[] = "dns.nothing",
	     deep[] = "dns.base_domain";
	char list[] = "dns.resolvers.x", empty[] = "", dot[] = "dns.", scalar[] = "etag.x";
	char *paths[] = {a, b};
	struct err e = {0};

	mask.n_paths = 2;
	mask.paths = paths;
	assert_true(pb_mask_contains(&mask, "display_name"));
	assert_true(pb_mask_contains(&mask, "dns"));
	assert_true(pb_mask_contains(&mask, "dns.base_domain"));
	assert_false(pb_mask_contains(&mask, "dnsx"));
	assert_false(pb_mask_contains(&mask, "display"));
	assert_false(pb_mask_contains(NULL, "dns"));
	assert_ok(pb_mask_check(&mask, &skerry__v1__tailnet__descriptor, &e));
	paths[1] = c;
	assert_true(pb_mask_contains(&mask, "anything"));
	assert_ok(pb_mask_check(&mask, &skerry__v1__tailnet__descriptor, &e));
	paths[1] = deep;
	assert_false(pb_mask_contains(&mask, "dns"));
	assert_ok(pb_mask_check(&mask, &skerry__v1__tailnet__descriptor, &e));
	char *wrong[] = {bad, list, empty, dot, scalar};

	TEST_TABLE(w, wrong)
	{
		paths[1] = *w;
		assert_err(pb_mask_check(&mask, &skerry__v1__tailnet__descriptor, &e), ERR_INVALID);
		assert_string_equal(e.field, "update_mask");
	}
	assert_ok(pb_mask_check(NULL, &skerry__v1__tailnet__descriptor, &e));
}

static void test_copy(void **state UNUSED)
{
	Google__Rpc__BadRequest__FieldViolation violation =
		GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
	Google__Rpc__BadRequest__FieldViolation *violations[] = {&violation};
	Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT, *copy;
	char text[] = "name";
	struct blob *blob;

	violation.field = text;
	bad.n_field_violations = 1;
	bad.field_violations = violations;
	copy = pb_copy(&bad);
	assert_true(pb_equal(copy, &bad));
	text[0] = 'N';
	assert_string_equal(copy->field_violations[0]->field, "name");
	assert_false(pb_equal(copy, &bad));
	assert_false(pb_equal(copy, &violation));
	blob = pb_pack_blob(copy);
	assert_int_equal(blob->len, 8);
	assert_memory_equal(blob->data, "\x0a\x06\x0a\x04name", 8);
	blob_unref(blob);
	pb_free(copy);
	/* Without a wire form between: texts are copied, empty ones are the default. */
	{
		Google__Rpc__BadRequest__FieldViolation *flat;
		char empty[] = "";

		violation.description = empty;
		flat = pb_copy(&violation);
		assert_true(pb_equal(flat, &violation));
		assert_ptr_not_equal(flat->field, text);
		assert_ptr_not_equal(flat->description, empty);
		text[0] = 'n';
		assert_string_equal(flat->field, "Name");
		pb_free(flat);
	}
}

/* Records joined at the wire level are what packing them together gives. */
static void test_joined_fields(void **state UNUSED)
{
	Skerry__V1__NetmapPeer one = SKERRY__V1__NETMAP_PEER__INIT,
			       two = SKERRY__V1__NETMAP_PEER__INIT;
	Skerry__V1__NetmapPeer *peers[] = {&one, &two};
	Skerry__V1__NetmapDelta delta = SKERRY__V1__NETMAP_DELTA__INIT;
	struct buf joined = BUF_INIT, whole = BUF_INIT;
	char name[300];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	one.node_id = 1;
	two.given_name = name; /* a length of two bytes */
	delta.n_peers = 2;
	delta.peers = peers;
	pb_pack(&delta, &whole);
	pb_pack_field(3, &one, &joined);
	pb_pack_prefix(3, protobuf_c_message_get_packed_size(&two.base), &joined);
	pb_pack(&two, &joined);
	assert_int_equal(joined.len, whole.len);
	assert_memory_equal(joined.data, whole.data, whole.len);
	buf_done(&joined);
	buf_done(&whole);
}

/* A newer agent's fields and enum values, two levels deep, are gone after the strip; what is known stays. */
static void test_strip(void **state UNUSED)
{
	static const uint8_t wire[] = {
		0x12, 12, /* endpoints: address, port, an unknown kind, field 15 */
		0x0a, 4,    192, 0,    2, 1,    0x10,
		9,    0x18, 99,  0x78, 1, 0x22, 3, /* host_info: field 31 */
		0xf8, 1,    0,
	};
	Skerry__V1__ReportRequest *m;
	struct pb_opts opts = {0};
	struct arena arena;
	ProtobufCMessage *base;
	struct buf out = BUF_INIT;

	arena_init(&arena, 1 << 20);
	assert_ok(pb_decode(&skerry__v1__report_request__descriptor, wire, sizeof(wire), &opts,
			    &arena, &base, NULL));
	m = (Skerry__V1__ReportRequest *)base;
	assert_int_equal(m->n_endpoints, 1);
	assert_int_equal(m->endpoints[0]->base.n_unknown_fields, 1);
	assert_int_equal(m->endpoints[0]->kind, 99);
	assert_int_equal(m->host_info->base.n_unknown_fields, 1);
	pb_strip_unknown(m);
	assert_int_equal(m->endpoints[0]->base.n_unknown_fields, 0);
	assert_int_equal(m->endpoints[0]->kind, 0);
	assert_int_equal(m->endpoints[0]->port, 9);
	assert_int_equal(m->host_info->base.n_unknown_fields, 0);
	pb_pack(m, &out);
	assert_int_equal(out.len, 12); /* what is left: address and port, an empty host_info */
	buf_done(&out);
	arena_done(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timestamp),     cmocka_unit_test(test_duration),
		cmocka_unit_test(test_mask),          cmocka_unit_test(test_copy),
		cmocka_unit_test(test_joined_fields), cmocka_unit_test(test_strip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
