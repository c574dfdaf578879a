/* Decoding within a budget: round trips, amplification, every allocation over the budget.
 * LIBS: proto */
#include "tests/lib/test.h"

#include "base/buf.h"
#include "base/limits.h"
#include "base/metrics.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "skerry/v1/agent.pb-c.h"

#define DELTA (&skerry__v1__netmap_delta__descriptor)
#define CHUNK (&skerry__v1__netmap_chunk__descriptor)

/* A chunk as a lighthouse sends it: `n` peers with all that a peer has. */
static void pack_chunk(struct buf *out, unsigned n)
{
	Skerry__V1__NetmapChunk chunk = SKERRY__V1__NETMAP_CHUNK__INIT;
	Skerry__V1__NetmapPeer *peers = calloc(n, sizeof(*peers)),
			       **list = calloc(n, sizeof(*list));
	Skerry__V1__PeerPresence *presence = calloc(n, sizeof(*presence)),
				 **seen = calloc(n, sizeof(*seen));
	Skerry__V1__Endpoint endpoint = SKERRY__V1__ENDPOINT__INIT,
			     *endpoints[] = {&endpoint, &endpoint, &endpoint};
	Google__Protobuf__Timestamp time;
	static uint8_t key[32] = {7};
	ProtobufCBinaryData addresses[] = {{4, key}, {16, key}};
	char name[] = "host-12345", *tags[] = {name};

	pb_timestamp_set(&time, 1700000000123);
	endpoint.address = addresses[0];
	endpoint.port = 41641;
	endpoint.kind = SKERRY__V1__ENDPOINT_KIND__ENDPOINT_KIND_STUN;
	for (unsigned i = 0; i < n; i++) {
		skerry__v1__netmap_peer__init(&peers[i]);
		peers[i].node_id = i + 1;
		peers[i].stable_id = name;
		peers[i].given_name = name;
		peers[i].n_addresses = 2;
		peers[i].addresses = addresses;
		peers[i].node_key = (ProtobufCBinaryData){32, key};
		peers[i].disco_key = (ProtobufCBinaryData){32, key};
		peers[i].n_endpoints = 3;
		peers[i].endpoints = endpoints;
		peers[i].n_tags = 1;
		peers[i].tags = tags;
		peers[i].expire_time = &time;
		list[i] = &peers[i];
		skerry__v1__peer_presence__init(&presence[i]);
		presence[i].node_id = i + 1;
		presence[i].online = true;
		seen[i] = &presence[i];
	}
	chunk.n_peers = n;
	chunk.peers = list;
	chunk.n_presence = n;
	chunk.presence = seen;
	pb_pack(&chunk, out);
	free(peers);
	free(list);
	free(presence);
	free(seen);
}

static void test_round_trip(void **state UNUSED)
{
	struct buf b = BUF_INIT, again = BUF_INIT;
	const Skerry__V1__NetmapChunk *chunk;
	ProtobufCMessage *msg = NULL;
	struct arena arena;
	struct err e = {0};

	pack_chunk(&b, 1300);
	/* about the size that one chunk may have: the budget is enough for real messages */
	assert_in_range(b.len, 200000, LIM_NETMAP_CHUNK_BYTES);
	arena_init(&arena, pb_arena_budget(b.len));
	assert_ok(pb_decode(CHUNK, b.data, b.len, NULL, &arena, &msg, &e));
	chunk = (const Skerry__V1__NetmapChunk *)msg;
	assert_int_equal(chunk->n_peers, 1300);
	assert_int_equal(chunk->peers[1299]->node_id, 1300);
	assert_int_equal(pb_timestamp_ms(chunk->peers[3]->expire_time), 1700000000123);
	pb_pack(msg, &again);
	assert_int_equal(again.len, b.len);
	assert_memory_equal(again.data, b.data, b.len);
	arena_done(&arena);

	assert_ok(pb_decode_heap(CHUNK, b.data, b.len, NULL, &msg, &e));
	assert_int_equal(((const Skerry__V1__NetmapChunk *)msg)->n_presence, 1300);
	pb_free(msg);
	pb_free(NULL);
	buf_done(&b);
	buf_done(&again);
}

/* Only presence: the smallest elements that a chunk is made of. */
static void test_small_elements_fit(void **state UNUSED)
{
	struct buf b = BUF_INIT;
	ProtobufCMessage *msg;
	struct err e = {0};

	while (b.len + 6 < LIM_NETMAP_CHUNK_BYTES)
		buf_append(&b, "\x32\x04\x08\x05\x10\x01", 6);
	assert_ok(pb_decode_heap(CHUNK, b.data, b.len, NULL, &msg, &e));
	pb_free(msg);
	buf_done(&b);
}

static void test_amplification(void **state UNUSED)
{
	ProtobufCMessage *msg = NULL;
	struct buf b = BUF_INIT;
	struct err e = {0};
	struct arena arena;

	/* as many empty peers as the limit of elements lets through: what they would take is over the budget */
	for (unsigned i = 0; i < LIM_PB_FIELDS; i++)
		buf_append(&b, "\x1a\x00", 2);
	arena_init(&arena, SIZE_MAX / 2);
	assert_err(pb_decode(DELTA, b.data, b.len, NULL, &arena, &msg, &e), ERR_LIMIT);
	assert_contains(e.msg, "too much memory");
	assert_null(msg);
	/* and before it was refused, no more than the budget was used (each allocation is rounded up to 16) */
	assert_in_range(arena.used, 1, 2 * pb_decode_budget(b.len, LIM_PB_FIELDS));
	arena_done(&arena);
	assert_err(pb_decode_heap(DELTA, b.data, b.len, NULL, &msg, &e), ERR_LIMIT);
	assert_null(msg);
	buf_done(&b);

	/* unknown fields are kept, with 40 bytes for each: the check bounds them */
	for (unsigned i = 0; i < 2 * LIM_PB_UNKNOWN; i++)
		buf_append(&b, "\x98\x03\x01", 3);
	assert_err(pb_decode_heap(DELTA, b.data, b.len, NULL, &msg, &e), ERR_LIMIT);
	assert_null(msg);
	buf_done(&b);
}

/* The arena gives out k bytes less each time: every allocation of the unpack fails once. */
static void test_every_allocation_fails(void **state UNUSED)
{
	ProtobufCMessage *msg = NULL;
	struct buf b = BUF_INIT;
	struct err e = {0};
	unsigned failures = 0;
	struct arena arena;
	size_t used;

	pack_chunk(&b, 5);
	arena_init(&arena, SIZE_MAX / 2);
	assert_ok(pb_decode(CHUNK, b.data, b.len, NULL, &arena, &msg, &e));
	used = arena.used;
	arena_done(&arena);
	for (size_t budget = 0; budget < used; budget += 16) {
		msg = NULL;
		arena_init(&arena, budget);
		assert_err(pb_decode(CHUNK, b.data, b.len, NULL, &arena, &msg, &e), ERR_LIMIT);
		assert_null(msg);
		arena_done(&arena);
		failures++;
	}
	assert_true(failures > 50);
	arena_init(&arena, used);
	assert_ok(pb_decode(CHUNK, b.data, b.len, NULL, &arena, &msg, &e));
	arena_done(&arena);
	buf_done(&b);
}

static void test_refused_before_decoding(void **state UNUSED)
{
	struct pb_opts strict = {.flags = PB_STRICT_KNOWN};
	ProtobufCMessage *msg = NULL;
	struct err e = {0};
	struct arena arena;
	double counted;

	arena_init(&arena, 1 << 20);
	assert_err(pb_decode(DELTA, "\x1a\x02\x12\x01", 4, NULL, &arena, &msg, &e), ERR_INVALID);
	assert_string_equal(e.field, "peers[0].stable_id");
	assert_err(pb_decode(DELTA, "\x98\x03\x01", 3, &strict, &arena, &msg, &e), ERR_INVALID);
	counted = metrics_value("skerry_messages_refused_total", NULL);
	assert_true(counted >= 2);
	assert_err(pb_decode(DELTA, "\x98\x03\x01", 3, &strict, &arena, &msg, &e), ERR_INVALID);
	assert_true(metrics_value("skerry_messages_refused_total", NULL) == counted + 1);
	assert_int_equal(arena.used, 0);
	assert_null(msg);
	assert_ok(pb_decode(DELTA, "\x98\x03\x01", 3, NULL, &arena, &msg, &e));
	arena_done(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_small_elements_fit),
		cmocka_unit_test(test_amplification),
		cmocka_unit_test(test_every_allocation_fails),
		cmocka_unit_test(test_refused_before_decoding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
