/* Messages of any content in the wire form of protobuf-c. LIBS: proto */
#include "tests/lib/test.h"

#include "base/arena.h"
#include "google/rpc/error_details.pb-c.h"
#include "proto/pb_encode.h"
#include "proto/pb_util.h"
#include "skerry/internal/v1/command.pb-c.h"
#include "skerry/internal/v1/peer.pb-c.h"
#include "skerry/internal/v1/state.pb-c.h"
#include "skerry/v1/admin.pb-c.h"

enum { ROUNDS = 300, DEEP = 5 };

static struct arena arena;
static struct test_rand rng;

static void *take(size_t size)
{
	void *p = arena_zalloc(&arena, size);

	assert_non_null(p);
	return p;
}

static size_t below(size_t n)
{
	return (size_t)(test_rand_next(&rng) % n);
}

static char *some_bytes(size_t len)
{
	char *p = take(len + 1);

	for (size_t i = 0; i < len; i++)
		p[i] = (char)('a' + below(26));
	return p;
}

static ProtobufCMessage *some_message(const ProtobufCMessageDescriptor *desc, unsigned depth);

static void fill_value(const ProtobufCFieldDescriptor *f, void *value, unsigned depth)
{
	static const size_t lengths[] = {0, 0, 1, 7, 40, 127, 128, 300};
	size_t len = lengths[below(ARRAY_LEN(lengths))];
	uint64_t number = below(4) == 0 ? 0 : test_rand_next(&rng) >> below(64);
	ProtobufCBinaryData b = {len, NULL};

	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		*(char **)value = below(8) == 0 ? (char *)f->default_value : some_bytes(len);
		break;
	case PROTOBUF_C_TYPE_BYTES:
		b.data = (uint8_t *)some_bytes(len);
		memcpy(value, &b, sizeof(b));
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		*(ProtobufCMessage **)value = some_message(f->descriptor, depth + 1);
		break;
	case PROTOBUF_C_TYPE_BOOL: *(protobuf_c_boolean *)value = number & 1; break;
	default: memcpy(value, &number, pb_element_size(f->type));
	}
}

static void fill_repeated(const ProtobufCFieldDescriptor *f, uint8_t *base, unsigned depth)
{
	size_t n = below(4), size = pb_element_size(f->type);
	uint8_t *elements = take((n + 1) * size);

	for (size_t i = 0; i < n; i++)
		fill_value(f, elements + i * size, depth);
	memcpy(base + f->quantifier_offset, &n, sizeof(n));
	memcpy(base + f->offset, &elements, sizeof(elements));
}

static ProtobufCMessage *some_message(const ProtobufCMessageDescriptor *desc, unsigned depth)
{
	uint8_t *base = take(desc->sizeof_message);
	ProtobufCMessage *m = (ProtobufCMessage *)base;

	desc->message_init(m);
	for (unsigned i = 0; i < desc->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &desc->fields[i];

		if (below(3) == 0 || (f->type == PROTOBUF_C_TYPE_MESSAGE && depth >= DEEP))
			continue;
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			fill_repeated(f, base, depth);
			continue;
		}
		if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
			if (*(uint32_t *)(base + f->quantifier_offset) != 0 && below(4) != 0)
				continue;
			*(uint32_t *)(base + f->quantifier_offset) = f->id;
		} else if (f->label == PROTOBUF_C_LABEL_OPTIONAL &&
			   f->type != PROTOBUF_C_TYPE_STRING &&
			   f->type != PROTOBUF_C_TYPE_MESSAGE) {
			*(protobuf_c_boolean *)(base + f->quantifier_offset) = 1;
		}
		fill_value(f, base + f->offset, depth);
	}
	if (below(6) == 0) {
		m->n_unknown_fields = 1;
		m->unknown_fields = take(sizeof(*m->unknown_fields));
		m->unknown_fields[0] = (ProtobufCMessageUnknownField){
			.tag = 90000,
			.wire_type = PROTOBUF_C_WIRE_TYPE_32BIT,
			.len = 4,
			.data = (uint8_t *)some_bytes(4),
		};
	}
	return m;
}

static void same(const ProtobufCMessage *m)
{
	size_t len = protobuf_c_message_get_packed_size(m), n;
	uint8_t *want = take(len), *got = take(len + 3);

	assert_int_equal(protobuf_c_message_pack(m, want), len);
	assert_int_equal(pb_encode(m, got, len), len);
	assert_memory_equal(got, want, len);
	assert_int_equal(pb_encode(m, got, len + 3), len);
	assert_memory_equal(got + 3, want, len);
	/* Less room is noticed, wherever it ends. */
	n = len > 0 ? below(len) : 0;
	if (len > 0) {
		assert_true(pb_encode(m, got, n) == PB_ENCODE_FULL);
		assert_true(pb_encode(m, got, len - 1) == PB_ENCODE_FULL);
	}
}

static void test_as_protobuf_c(void **state UNUSED)
{
	static const ProtobufCMessageDescriptor *const all[] = {
		&skerry__internal__v1__command__descriptor,
		&skerry__internal__v1__command_result__descriptor,
		&skerry__internal__v1__meta__descriptor,
		&skerry__internal__v1__member_record__descriptor,
		&skerry__internal__v1__tailnet_record__descriptor,
		&skerry__internal__v1__user_record__descriptor,
		&skerry__internal__v1__node_record__descriptor,
		&skerry__internal__v1__node_endpoints__descriptor,
		&skerry__internal__v1__presence__descriptor,
		&skerry__internal__v1__audit_record__descriptor,
		&skerry__internal__v1__dedupe_record__descriptor,
		&skerry__internal__v1__history_record__descriptor,
		&skerry__internal__v1__membership_change__descriptor,
		&skerry__v1__node__descriptor,
		&google__rpc__bad_request__descriptor,
	};

	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		rng = (struct test_rand){seed};
		for (size_t i = 0; i < ARRAY_LEN(all); i++)
			same(some_message(all[i], 1));
		arena_reset(&arena);
	}
}

/* Types that none of our messages has, by altered descriptors. */
static void test_other_types(void **state UNUSED)
{
	static const struct {
		ProtobufCType type;
		uint64_t value;
	} cases[] = {
		{PROTOBUF_C_TYPE_SINT64, (uint64_t)-1},
		{PROTOBUF_C_TYPE_SINT64, 1ull << 63},
		{PROTOBUF_C_TYPE_SINT32, 1u << 31},
		{PROTOBUF_C_TYPE_SINT32, (uint32_t)-2},
		{PROTOBUF_C_TYPE_INT32, (uint32_t)-2},
		{PROTOBUF_C_TYPE_INT64, (uint64_t)-2},
		{PROTOBUF_C_TYPE_FIXED64, 77},
		{PROTOBUF_C_TYPE_SFIXED32, 77},
		{PROTOBUF_C_TYPE_DOUBLE, 0x4000000000000000},
		{PROTOBUF_C_TYPE_DOUBLE, 0x8000000000000000},
		{PROTOBUF_C_TYPE_FLOAT, 0x40000000},
		{PROTOBUF_C_TYPE_FLOAT, 0x80000000},
	};

	TEST_TABLE(c, cases)
	{
		ProtobufCMessageDescriptor desc = skerry__internal__v1__history_record__descriptor;
		Skerry__Internal__V1__HistoryRecord r = SKERRY__INTERNAL__V1__HISTORY_RECORD__INIT;
		ProtobufCFieldDescriptor f = desc.fields[2];

		f.type = c->type;
		desc.fields = &f;
		desc.n_fields = 1;
		r.base.descriptor = &desc;
		r.time_ms = c->value;
		same(&r.base);
	}
}

static int setup(void **state UNUSED)
{
	arena_init(&arena, 64 << 20);
	return 0;
}

static int teardown(void **state UNUSED)
{
	arena_done(&arena);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_protobuf_c),
		cmocka_unit_test(test_other_types),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
