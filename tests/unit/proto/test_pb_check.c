/* The check before decoding: what it lets through, what it refuses and where it says the fault is.
 * LIBS: proto */
#include "tests/lib/test.h"

#include "base/buf.h"
#include "base/limits.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "proto/pb_check.h"
#include "proto/pb_util.h"
#include "skerry/v1/agent.pb-c.h"

#define PEER     (&skerry__v1__netmap_peer__descriptor)
#define ENDPOINT (&skerry__v1__endpoint__descriptor)
#define DELTA    (&skerry__v1__netmap_delta__descriptor)
#define TYPE     (&google__protobuf__descriptor_proto__descriptor)

static void put_varint(struct buf *b, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		buf_u8(b, (uint8_t)(v | 0x80));
	buf_u8(b, (uint8_t)v);
}

static void put_tag(struct buf *b, uint32_t field, unsigned wire)
{
	put_varint(b, (uint64_t)field << 3 | wire);
}

static void put_bytes(struct buf *b, uint32_t field, const void *data, size_t len)
{
	put_tag(b, field, 2);
	put_varint(b, len);
	buf_append(b, data, len);
}

/* Wraps the content in one more message of field `field`. */
static void wrap(struct buf *b, uint32_t field)
{
	struct buf out = BUF_INIT;

	put_bytes(&out, field, b->data, b->len);
	buf_done(b);
	*b = out;
}

static int check(const ProtobufCMessageDescriptor *desc, const struct buf *b,
		 const struct pb_opts *opts, struct err *e)
{
	/* exactly as many bytes, so that a sanitizer sees a read past the end */
	uint8_t *copy = malloc(b->len ? b->len : 1);
	int rv;

	memcpy(copy, b->len ? b->data : (const uint8_t *)"", b->len);
	rv = pb_check(desc, copy, b->len, opts, NULL, e);
	free(copy);
	return rv;
}

static void test_wire_faults(void **state UNUSED)
{
	static const struct {
		const char *what;
		const ProtobufCMessageDescriptor *desc;
		const char *bytes;
		size_t len;
		int code;
		const char *field;
		const char *text;
	} cases[] = {
		{"empty", PEER, "", 0, 0, "", ""},
		{"a number", PEER, "\x08\x01", 2, 0, "", ""},
		{"longest number", PEER, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, 0, "",
		 ""},
		{"too long number", PEER, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12,
		 ERR_INVALID, "node_id", "cut short"},
		{"number cut", PEER, "\x08\x80", 2, ERR_INVALID, "node_id", "cut short"},
		{"value missing", PEER, "\x08", 1, ERR_INVALID, "node_id", "cut short"},
		{"field 0", PEER, "\x00\x01", 2, ERR_INVALID, "", "bad field number"},
		{"tag cut", PEER, "\x80", 1, ERR_INVALID, "", "bad field number"},
		{"tag of six bytes", PEER, "\x88\x80\x80\x80\x80\x00\x01", 7, ERR_INVALID, "",
		 "bad field number"},
		{"tag over 32 bits", PEER, "\x88\x80\x80\x80\x10\x01", 6, ERR_INVALID, "",
		 "bad field number"},
		{"group", PEER, "\x0b\x0c", 2, ERR_INVALID, "", "wire type"},
		{"end of group", PEER, "\x0c", 1, ERR_INVALID, "", "wire type"},
		{"wire type 6", PEER, "\x0e", 1, ERR_INVALID, "", "wire type"},
		{"wire type 7", PEER, "\x0f", 1, ERR_INVALID, "", "wire type"},
		{"text as number", PEER, "\x10\x01", 2, ERR_INVALID, "stable_id", "another type"},
		{"number as text", PEER, "\x0a\x01x", 3, ERR_INVALID, "node_id", "another type"},
		{"number as fixed32", PEER, "\x0d\x01\x02\x03\x04", 5, ERR_INVALID, "node_id",
		 "another type"},
		{"text", PEER, "\x12\x02hi", 4, 0, "", ""},
		{"text cut", PEER, "\x12\x03hi", 4, ERR_INVALID, "stable_id", "cut short"},
		{"length over everything", PEER, "\x12\xff\xff\xff\xff\x0f", 6, ERR_INVALID,
		 "stable_id", "cut short"},
		{"length of six bytes", PEER, "\x12\x80\x80\x80\x80\x80\x00", 7, ERR_INVALID,
		 "stable_id", "cut short"},
		{"NUL in text", PEER,
		 "\x12\x03"
		 "a\0b",
		 5, ERR_INVALID, "stable_id", "NUL"},
		{"bad UTF-8", PEER, "\x12\x02\xc3\x28", 4, ERR_INVALID, "stable_id", "UTF-8"},
		{"overlong UTF-8", PEER, "\x12\x02\xc0\x80", 4, ERR_INVALID, "stable_id", "UTF-8"},
		{"surrogate", PEER, "\x12\x03\xed\xa0\x80", 5, ERR_INVALID, "stable_id", "UTF-8"},
		{"bytes may be anything", PEER, "\x2a\x03\x00\xff\xfe", 5, 0, "", ""},
		{"second of two texts", PEER, "\x4a\x01x\x4a\x01\xff", 6, ERR_INVALID, "tags[1]",
		 "UTF-8"},
		{"unknown field", PEER, "\xa0\x06\x01", 3, 0, "", ""},
		{"unknown field cut", PEER, "\xa2\x06\x05x", 4, ERR_INVALID, "", "cut short"},
		{"unknown enum value", ENDPOINT, "\x18\x63", 2, 0, "", ""},
		{"packed", DELTA, "\x22\x03\x01\x02\x03", 5, 0, "", ""},
		{"unpacked", DELTA, "\x20\x01\x20\x02", 4, 0, "", ""},
		{"packed cut", DELTA, "\x22\x02\x01\x80", 4, ERR_INVALID, "removed[0]",
		 "cut short"},
		{"singular message twice", DELTA, "\x0a\x00\x0a\x00", 4, ERR_INVALID, "revision",
		 "twice"},
		{"repeated message twice", DELTA, "\x1a\x00\x1a\x00", 4, 0, "", ""},
		{"the third of a list", DELTA, "\x1a\x00\x1a\x00\x1a\x02\x12\x01", 8, ERR_INVALID,
		 "peers[2].stable_id", "cut"},
	};

	TEST_TABLE(c, cases)
	{
		struct buf b = BUF_INIT;
		struct err e = {0};
		int rv;

		buf_append(&b, c->bytes, c->len);
		rv = check(c->desc, &b, NULL, &e);
		if (rv != c->code)
			TEST_FAIL("%s: %s, expected %s (%s)", c->what, err_name(rv),
				  err_name(c->code), e.msg);
		if (rv < 0) {
			assert_string_equal(e.field, c->field);
			assert_contains(e.msg, c->text);
			assert_contains(e.msg, c->desc == DELTA && strchr(c->field, '.')
						       ? PEER->name
						       : c->desc->name);
			/* details are optional */
			assert_err(check(c->desc, &b, NULL, NULL), c->code);
		}
		buf_done(&b);
	}
}

/* Each prefix of a message with all kinds of content is either valid or refused, and never read past. */
static void test_every_cut(void **state UNUSED)
{
	Skerry__V1__NetmapPeer peer = SKERRY__V1__NETMAP_PEER__INIT, *peers[] = {&peer, &peer};
	Skerry__V1__NetmapDelta delta = SKERRY__V1__NETMAP_DELTA__INIT;
	Skerry__V1__Endpoint endpoint = SKERRY__V1__ENDPOINT__INIT, *endpoints[] = {&endpoint};
	char name[] = "caf\xc3\xa9", *tags[] = {name};
	uint64_t removed[] = {1, 300, UINT64_MAX};
	struct buf b = BUF_INIT, cut = BUF_INIT;
	struct pb_stats stats;
	unsigned refused = 0;

	endpoint.port = 41641;
	endpoint.address.data = (uint8_t *)"\x01\x02\x03\x04";
	endpoint.address.len = 4;
	peer.node_id = 5;
	peer.given_name = name;
	peer.n_tags = 1;
	peer.tags = tags;
	peer.n_endpoints = 1;
	peer.endpoints = endpoints;
	delta.n_peers = 2;
	delta.peers = peers;
	delta.n_removed = 3;
	delta.removed = removed;
	pb_pack(&delta, &b);
	assert_ok(pb_check(DELTA, b.data, b.len, NULL, &stats, NULL));
	assert_int_equal(stats.depth, 3);
	/* 2 peers, in each: id, name, tag, endpoint with 2 fields; the list of removed and its 3 */
	assert_int_equal(stats.elements, 2 * (1 + 6) + 1 + 3);
	for (size_t i = 0; i < b.len; i++) {
		buf_reset(&cut);
		buf_append(&cut, b.data, i);
		if (check(DELTA, &cut, NULL, NULL) < 0)
			refused++;
	}
	/* valid are only the cuts between the fields of the outermost message: 0, and after each peer */
	assert_int_equal(refused, b.len - 3);
	buf_done(&b);
	buf_done(&cut);
}

static void test_depth(void **state UNUSED)
{
	struct buf b = BUF_INIT;
	struct pb_opts shallow = {.max_depth = 3};
	struct err e = {0};

	/* the outermost message is level 1 */
	for (int i = 1; i < LIM_PB_DEPTH; i++)
		wrap(&b, 3 /* nested_type */);
	assert_ok(check(TYPE, &b, NULL, &e));
	wrap(&b, 3);
	assert_err(check(TYPE, &b, NULL, &e), ERR_LIMIT);
	assert_contains(e.msg, "too deep");
	assert_contains(e.field, "nested_type[0].nested_type[0]");
	for (int i = 0; i < 10000; i++)
		wrap(&b, 3);
	assert_err(check(TYPE, &b, NULL, &e), ERR_LIMIT);
	buf_done(&b);

	for (int i = 1; i < 3; i++)
		wrap(&b, 3);
	assert_ok(check(TYPE, &b, &shallow, &e));
	wrap(&b, 3);
	assert_err(check(TYPE, &b, &shallow, &e), ERR_LIMIT);
	/* an option cannot raise the limit */
	shallow.max_depth = 1000000;
	for (int i = 0; i < LIM_PB_DEPTH; i++)
		wrap(&b, 3);
	assert_err(check(TYPE, &b, &shallow, &e), ERR_LIMIT);
	buf_done(&b);
}

static void test_elements(void **state UNUSED)
{
	struct pb_opts few = {.max_elements = 10};
	struct buf b = BUF_INIT, packed = BUF_INIT;
	struct err e = {0};

	for (int i = 0; i < 10; i++)
		put_bytes(&b, 3, "", 0);
	assert_ok(check(DELTA, &b, &few, &e));
	put_bytes(&b, 3, "", 0);
	assert_err(check(DELTA, &b, &few, &e), ERR_LIMIT);
	assert_string_equal(e.field, "peers[10]");
	buf_reset(&b);

	/* the field itself and nine elements */
	for (int i = 0; i < 9; i++)
		buf_u8(&packed, 1);
	put_bytes(&b, 4, packed.data, packed.len);
	assert_ok(check(DELTA, &b, &few, &e));
	buf_u8(&packed, 1);
	buf_reset(&b);
	put_bytes(&b, 4, packed.data, packed.len);
	assert_err(check(DELTA, &b, &few, &e), ERR_LIMIT);

	/* 4 MiB of empty messages: 2 million */
	buf_reset(&b);
	while (b.len < 4u << 20)
		put_bytes(&b, 3, "", 0);
	assert_err(check(DELTA, &b, NULL, &e), ERR_LIMIT);
	buf_done(&b);
	buf_done(&packed);
}

static void test_unknown(void **state UNUSED)
{
	struct pb_opts strict = {.flags = PB_STRICT_KNOWN};
	struct buf b = BUF_INIT;
	struct err e = {0};

	for (int i = 0; i < LIM_PB_UNKNOWN; i++) {
		put_tag(&b, 1000, 0);
		put_varint(&b, 1);
	}
	assert_ok(check(PEER, &b, NULL, &e));
	assert_err(check(PEER, &b, &strict, &e), ERR_INVALID);
	assert_contains(e.msg, "unknown field");
	put_tag(&b, 1000, 0);
	put_varint(&b, 1);
	assert_err(check(PEER, &b, NULL, &e), ERR_LIMIT);
	/* each message has its own count: two peers may have as many each */
	b.len -= 3;
	wrap(&b, 3);
	assert_ok(check(DELTA, &b, NULL, &e));
	assert_err(check(DELTA, &b, &strict, &e), ERR_INVALID);
	assert_string_equal(e.field, "peers[0]");
	buf_done(&b);

	put_tag(&b, 3, 0);
	put_varint(&b, SKERRY__V1__ENDPOINT_KIND__ENDPOINT_KIND_STUN);
	assert_ok(check(ENDPOINT, &b, &strict, &e));
	put_tag(&b, 3, 0);
	put_varint(&b, 99);
	assert_ok(check(ENDPOINT, &b, NULL, &e));
	assert_err(check(ENDPOINT, &b, &strict, &e), ERR_INVALID);
	assert_string_equal(e.field, "kind");
	buf_done(&b);
	/* -1 as ten bytes is not one of them either */
	put_tag(&b, 3, 0);
	put_varint(&b, UINT64_MAX);
	assert_err(check(ENDPOINT, &b, &strict, &e), ERR_INVALID);
	buf_done(&b);
}

/* A path longer than the room for it is cut, not overrun. */
static void test_long_path(void **state UNUSED)
{
	struct buf b = BUF_INIT;
	struct err e = {0};

	put_bytes(&b, 1, "\xff", 1);
	for (int i = 0; i < 50; i++)
		wrap(&b, 3);
	assert_err(check(TYPE, &b, NULL, &e), ERR_INVALID);
	assert_int_equal(strlen(e.field), sizeof(e.field) - 1);
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wire_faults), cmocka_unit_test(test_every_cut),
		cmocka_unit_test(test_depth),       cmocka_unit_test(test_elements),
		cmocka_unit_test(test_unknown),     cmocka_unit_test(test_long_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
