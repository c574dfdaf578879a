/* The held netmap: chunks, deltas, the canonical form and the file; a map brought on by deltas equals a fresh one. It also
 * writes the seeds of fuzz_netmap_admit when asked (SEEDS=DIR). LIBS: agent_fake agent */
#include "tests/lib/test.h"

#include "agent/netmap.h"
#include "base/crypto.h"
#include "base/fileio.h"
#include "base/limits.h"
#include "base/mem.h"
#include "proto/pb_util.h"
#include "tests/component/agent/lies.h"

static const uint8_t own_key[32] = {0xaa};

static int take(struct netmap_assembly *a, const Skerry__V1__NetmapChunk *chunk)
{
	return netmap_take_chunk(a, chunk, NULL);
}

static void hold(struct netmap *nm, const Skerry__V1__NetmapChunk *chunk)
{
	struct netmap_assembly a = {0};

	assert_int_equal(take(&a, chunk), 1);
	netmap_move(nm, &a.map);
}

static bool same(const struct netmap *a, const struct netmap *b)
{
	struct buf x = BUF_INIT, y = BUF_INIT;
	bool equal;

	netmap_encode(a, true, &x);
	netmap_encode(b, true, &y);
	equal = x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
	buf_done(&x);
	buf_done(&y);
	return equal;
}

static void chunks_in_order(void **state)
{
	struct netmap_assembly a = {0};
	struct netmap whole = {0};
	struct fake_map m;
	Skerry__V1__NetmapChunk part = SKERRY__V1__NETMAP_CHUNK__INIT;

	(void)state;
	fake_map_init(&m, own_key, 9);
	hold(&whole, &m.chunk);
	part.revision = &m.revision;
	part.self = &m.self;
	part.view = &m.view;
	part.peers = m.peers;
	part.n_peers = 4;
	assert_int_equal(take(&a, &part), 0);
	part.self = NULL;
	part.view = NULL;
	part.index = 1;
	part.peers = m.peers + 4;
	part.n_peers = 5;
	part.last = true;
	assert_int_equal(take(&a, &part), 1);
	assert_true(same(&a.map, &whole));
	/* A new one may begin at any time. */
	part.last = false;
	part.index = 0;
	part.self = &m.self;
	assert_int_equal(take(&a, &part), 0);
	assert_int_equal(a.map.n_peers, 5);
	netmap_assembly_done(&a);
	netmap_done(&whole);
}

static void bad_chunks(void **state)
{
	struct netmap_assembly a = {0};
	struct fake_map m;
	Skerry__V1__Revision other = SKERRY__V1__REVISION__INIT;

	(void)state;
	fake_map_init(&m, own_key, 2);
	m.chunk.self = NULL;
	assert_err(take(&a, &m.chunk), ERR_PROTOCOL);
	m.chunk.self = &m.self;
	m.chunk.revision = NULL;
	assert_err(take(&a, &m.chunk), ERR_PROTOCOL);
	m.chunk.revision = &m.revision;
	m.chunk.index = 1;
	assert_err(take(&a, &m.chunk), ERR_PROTOCOL);
	m.chunk.index = 0;
	m.chunk.last = false;
	assert_int_equal(take(&a, &m.chunk), 0);
	m.chunk.index = 1; /* the same peers again */
	assert_err(take(&a, &m.chunk), ERR_PROTOCOL);
	m.chunk.index = 0;
	assert_int_equal(take(&a, &m.chunk), 0);
	other.epoch = FAKE_EPOCH;
	other.revision = 101;
	m.chunk.revision = &other;
	m.chunk.index = 1;
	m.chunk.n_peers = 0;
	assert_err(take(&a, &m.chunk), ERR_PROTOCOL);
	m.chunk.index = 0;
	m.chunk.n_peers = 1;
	m.peer[0].node_id = 0;
	assert_err(take(&a, &m.chunk), ERR_PROTOCOL);
	netmap_assembly_done(&a);
}

static void limits_are_reached(void **state)
{
	struct netmap_assembly a = {0};
	Skerry__V1__NetmapPeer *peers = mem_calloc(LIM_NETMAP_PEERS + 1, sizeof(*peers));
	Skerry__V1__NetmapPeer **list = mem_calloc(LIM_NETMAP_PEERS + 1, sizeof(*list));
	struct fake_map m;

	(void)state;
	fake_map_init(&m, own_key, 0);
	for (size_t i = 0; i <= LIM_NETMAP_PEERS; i++) {
		skerry__v1__netmap_peer__init(&peers[i]);
		peers[i].node_id = i + 2;
		list[i] = &peers[i];
	}
	m.chunk.peers = list;
	m.chunk.n_peers = LIM_NETMAP_PEERS + 1;
	assert_err(take(&a, &m.chunk), ERR_LIMIT);
	m.chunk.n_peers = LIM_NETMAP_PEERS;
	assert_int_equal(take(&a, &m.chunk), 1);
	netmap_assembly_done(&a);
	m.chunk.n_peers = 0;
	m.chunk.last = false;
	for (uint32_t i = 0; i < LIM_NETMAP_CHUNKS; i++) {
		m.chunk.index = i;
		assert_int_equal(take(&a, &m.chunk), 0);
	}
	m.chunk.index = LIM_NETMAP_CHUNKS;
	assert_err(take(&a, &m.chunk), ERR_LIMIT);
	netmap_assembly_done(&a);
	mem_free(peers);
	mem_free(list);
}

static void bad_deltas_change_nothing(void **state)
{
	Skerry__V1__NetmapDelta delta = SKERRY__V1__NETMAP_DELTA__INIT;
	Skerry__V1__Revision at = SKERRY__V1__REVISION__INIT;
	struct netmap nm = {0}, before = {0};
	struct fake_map m;
	unsigned changes = 77;

	(void)state;
	assert_err(netmap_apply_delta(&nm, &delta, &changes, NULL), ERR_PROTOCOL);
	fake_map_init(&m, own_key, 3);
	hold(&nm, &m.chunk);
	hold(&before, &m.chunk);
	assert_err(netmap_apply_delta(&nm, &delta, &changes, NULL), ERR_PROTOCOL);
	delta.revision = &at;
	at.epoch = FAKE_EPOCH + 1;
	at.revision = 200;
	assert_err(netmap_apply_delta(&nm, &delta, &changes, NULL), ERR_STALE);
	at.epoch = FAKE_EPOCH;
	at.revision = 99;
	assert_err(netmap_apply_delta(&nm, &delta, &changes, NULL), ERR_STALE);
	at.revision = 101;
	m.peer[0].node_id = 0;
	delta.peers = m.peers;
	delta.n_peers = 1;
	assert_err(netmap_apply_delta(&nm, &delta, &changes, NULL), ERR_PROTOCOL);
	assert_true(same(&nm, &before));
	assert_int_equal(changes, 77);
	netmap_done(&nm);
	netmap_done(&before);
}

/* Random changes, told as deltas to one map and as a whole to another: byte for byte the same, over many seeds. */
static void deltas_equal_a_fresh_map(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct test_rand r = {seed};
		struct netmap nm = {0}, fresh = {0};
		struct fake_map m;
		bool here[FAKE_PEERS];
		uint64_t revision = 100;

		fake_map_init(&m, own_key, 20);
		hold(&nm, &m.chunk);
		for (size_t i = 0; i < FAKE_PEERS; i++) {
			here[i] = i < 20;
		}
		fake_map_init(&m, own_key, FAKE_PEERS);
		for (int step = 0; step < 30; step++) {
			Skerry__V1__NetmapDelta delta = SKERRY__V1__NETMAP_DELTA__INIT;
			Skerry__V1__Revision at = SKERRY__V1__REVISION__INIT;
			Skerry__V1__NetmapPeer *changed[FAKE_PEERS], *all[FAKE_PEERS];
			uint64_t removed[FAKE_PEERS], visible[FAKE_PEERS];
			size_t n_all = 0;
			unsigned changes;

			delta.visible_complete = test_rand_next(&r) % 3 == 0;
			for (size_t i = 0; i < FAKE_PEERS; i++) {
				switch (test_rand_next(&r) % 12) {
				case 0: /* new or changed */
					m.endpoint[i].port =
						(uint32_t)(test_rand_next(&r) % 60000 + 1);
					here[i] = true;
					changed[delta.n_peers++] = &m.peer[i];
					break;
				case 1: /* goes, told by name or by the list of those that stay */
					if (here[i] && !delta.visible_complete) {
						removed[delta.n_removed++] = i + 2;
					}
					here[i] = false;
					break;
				default: break;
				}
				if (here[i]) {
					visible[delta.n_visible++] = i + 2;
					all[n_all++] = &m.peer[i];
				}
			}
			if (!delta.visible_complete) {
				delta.n_visible = 0;
			}
			at.epoch = FAKE_EPOCH;
			at.revision = ++revision;
			delta.revision = &at;
			delta.peers = changed;
			delta.removed = removed;
			delta.visible = visible;
			assert_ok(netmap_apply_delta(&nm, &delta, &changes, NULL));
			m.revision.revision = revision;
			m.chunk.peers = all;
			m.chunk.n_peers = n_all;
			hold(&fresh, &m.chunk);
			if (!same(&nm, &fresh)) {
				TEST_FAIL("seed %d step %d: the maps differ", (int)seed, step);
			}
		}
		netmap_done(&nm);
		netmap_done(&fresh);
	}
}

static void presence_is_beside(void **state)
{
	Skerry__V1__NetmapDelta delta = SKERRY__V1__NETMAP_DELTA__INIT;
	Skerry__V1__Revision at = SKERRY__V1__REVISION__INIT;
	Skerry__V1__PeerPresence presence[2], *list[] = {&presence[0], &presence[1]};
	struct netmap nm = {0};
	struct fake_map m;
	unsigned changes;

	(void)state;
	fake_map_init(&m, own_key, 3);
	hold(&nm, &m.chunk);
	at.epoch = FAKE_EPOCH;
	at.revision = 100;
	delta.revision = &at;
	for (size_t i = 0; i < 2; i++) {
		skerry__v1__peer_presence__init(&presence[i]);
		presence[i].node_id = i == 0 ? 2 : 4711; /* nobody */
		presence[i].online = true;
	}
	delta.presence = list;
	delta.n_presence = 2;
	assert_ok(netmap_apply_delta(&nm, &delta, &changes, NULL));
	assert_int_equal(changes, NETMAP_CHANGE_PRESENCE);
	assert_true(netmap_find(&nm, 2)->online);
	assert_false(netmap_find(&nm, 3)->online);
	assert_int_equal(nm.n_peers, 3);
	/* A new body keeps it. */
	skerry__v1__netmap_delta__init(&delta);
	delta.revision = &at;
	delta.peers = m.peers;
	delta.n_peers = 1;
	assert_ok(netmap_apply_delta(&nm, &delta, &changes, NULL));
	assert_int_equal(changes, NETMAP_CHANGE_PEERS);
	assert_true(netmap_find(&nm, 2)->online);
	netmap_done(&nm);
}

static void file_round_trip_and_damage(void **state)
{
	struct buf file = BUF_INIT;
	struct netmap nm = {0}, back = {0};
	struct fake_map m;

	(void)state;
	fake_map_init(&m, own_key, 12);
	hold(&nm, &m.chunk);
	netmap_file_encode(&nm, &file);
	assert_ok(netmap_file_decode(file.data, file.len, &back, NULL));
	assert_true(same(&nm, &back));
	/* Cut anywhere, or any bit turned: refused, never taken. */
	for (size_t i = 0; i < file.len; i++) {
		assert_true(netmap_file_decode(file.data, i, &back, NULL) < 0);
	}
	for (size_t i = 0; i < file.len; i++) {
		file.data[i] ^= (uint8_t)(1 << i % 8);
		assert_true(netmap_file_decode(file.data, file.len, &back, NULL) < 0);
		file.data[i] ^= (uint8_t)(1 << i % 8);
	}
	assert_true(same(&nm, &back));
	buf_done(&file);
	netmap_done(&nm);
	netmap_done(&back);
}

static void write_seeds(const char *dir)
{
	for (size_t i = 0; i <= n_lies; i++) {
		struct fake_map m;
		struct netmap nm = {0};
		struct netmap_assembly a = {0};
		struct buf out = BUF_INIT;
		char path[512];

		fake_map_init(&m, own_key, 4);
		if (i < n_lies) {
			lies[i].tell(&m);
		}
		if (netmap_take_chunk(&a, &m.chunk, NULL) == 1) {
			netmap_move(&nm, &a.map);
			buf_u8(&out, (uint8_t)(i * 3));
			netmap_encode(&nm, false, &out);
			snprintf(path, sizeof(path), "%s/%s", dir,
				 i < n_lies ? lies[i].name : "good");
			IGNORE(file_write_atomic(path, out.data, out.len, 0644, NULL));
		}
		netmap_assembly_done(&a);
		netmap_done(&nm);
		buf_done(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chunks_in_order),
		cmocka_unit_test(bad_chunks),
		cmocka_unit_test(limits_are_reached),
		cmocka_unit_test(bad_deltas_change_nothing),
		cmocka_unit_test(deltas_equal_a_fresh_map),
		cmocka_unit_test(presence_is_beside),
		cmocka_unit_test(file_round_trip_and_damage),
	};

	crypto_init();
	if (getenv("SEEDS") != NULL) {
		write_seeds(getenv("SEEDS"));
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
