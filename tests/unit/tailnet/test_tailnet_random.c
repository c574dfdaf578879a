/* Random streams of commands against the invariants, and the resumption of watchers. LIBS: tailnet proto */
/* TIMEOUT: 240 */
#include "proto/pb_util.h"
#include "tests/unit/tailnet/stream.h"

static void test_streams(void **state UNUSED)
{
	for (uint64_t seed = 1; seed <= 80; seed++) {
		struct world w;
		size_t accepted = 0;

		world_open_two(&w, seed);
		for (int i = 0; i < 150; i++) {
			Command *c = stream_next(&w);

			/* No command of the stream is a failure; world_apply checks all the rest. */
			accepted += world_apply(&w, c) == 0;
			/* A repetition of what has a request id is answered alike. */
			if (c->request_id[0] != '\0' && world_random(&w) % 2 == 0) {
				int code = w.r.reply.code;
				uint64_t id = w.r.reply.id;

				assert_int_equal(world_apply(&w, c), code);
				assert_int_equal(w.r.reply.id, id);
			}
		}
		if (accepted < 25) {
			TEST_FAIL("seed %llu: only %zu of 150 commands were accepted",
				  (unsigned long long)seed, accepted);
		}
		/* In the end everything has expired. */
		world_pass(&w, 800 * DAY);
		world_close(&w);
	}
}

/* ---- a watcher ---- */

enum { HELD = 200 };

/* What a device holds: the bytes of peers and presence by node id. */
struct held {
	uint64_t revision;
	struct buf peer[HELD], presence[HELD];
	bool listed[HELD];
};

static void held_clear(struct held *h, uint64_t id)
{
	buf_reset(&h->peer[id]);
	buf_reset(&h->presence[id]);
	h->listed[id] = false;
}

static void held_done(struct held *h)
{
	for (size_t i = 0; i < HELD; i++) {
		buf_done(&h->peer[i]);
		buf_done(&h->presence[i]);
	}
}

static void held_put(struct world *w, struct held *h, uint64_t tailnet, uint64_t id, bool body,
		     bool presence)
{
	assert_true(id < HELD);
	if (body) {
		Skerry__V1__NetmapPeer *p;

		assert_ok(netmap_peer_id(&w->kv[0], tailnet, id, &w->query, &p));
		buf_reset(&h->peer[id]);
		pb_pack(p, &h->peer[id]);
		h->listed[id] = true;
	}
	if (presence) {
		Skerry__V1__PeerPresence *p;

		assert_ok(netmap_presence(&w->kv[0], tailnet, id, &w->query, &p));
		buf_reset(&h->presence[id]);
		pb_pack(p, &h->presence[id]);
	}
}

static void held_full(struct world *w, struct held *h, uint64_t tailnet, const NodeRecord *viewer)
{
	uint64_t after = 0;
	NodeRecord *n;

	for (uint64_t i = 0; i < HELD; i++) {
		held_clear(h, i);
	}
	while (netmap_visible_next(&w->kv[0], tailnet, viewer, after, &w->query, &n) == 0) {
		held_put(w, h, tailnet, n->id, true, true);
		after = n->id;
	}
}

/* Brings what is held from h->revision to now, as state.md has it. Returns false where a full netmap was needed. */
static bool held_resume(struct world *w, struct held *h, uint64_t tailnet, const NodeRecord *viewer)
{
	struct query_change c = {.revision = h->revision};
	uint64_t floor, visibility, after = 0;
	bool keep[HELD] = {0};
	NodeRecord *n;
	int r;

	assert_ok(query_floor(&w->kv[0], tailnet, &floor, &visibility));
	if (h->revision < floor || (viewer->revision > h->revision && visibility > h->revision)) {
		held_full(w, h, tailnet, viewer);
		return false;
	}
	while ((r = query_change_next(&w->kv[0], tailnet, &c)) == 0) {
		assert_true(c.revision > h->revision);
		if (c.kind != CHANGE_NODE && c.kind != CHANGE_ENDPOINTS &&
		    c.kind != CHANGE_PRESENCE) {
			continue;
		}
		if (c.deleted) {
			held_clear(h, c.object);
		} else if (netmap_visible_id(&w->kv[0], tailnet, viewer->id, c.object, &w->query)) {
			held_put(w, h, tailnet, c.object, c.kind != CHANGE_PRESENCE,
				 c.kind == CHANGE_PRESENCE || !h->listed[c.object] ||
					 h->presence[c.object].len == 0);
		}
	}
	assert_int_equal(r, ERR_NOT_FOUND);
	if (visibility > h->revision) {
		while (netmap_visible_next(&w->kv[0], tailnet, viewer, after, &w->query, &n) == 0) {
			keep[n->id] = true;
			after = n->id;
		}
		for (uint64_t i = 0; i < HELD; i++) {
			if (!keep[i]) {
				held_clear(h, i);
			}
		}
	}
	return true;
}

static void held_compare(uint64_t seed, int step, const struct held *a, const struct held *b)
{
	for (size_t i = 0; i < HELD; i++) {
		if (a->listed[i] != b->listed[i] || a->peer[i].len != b->peer[i].len ||
		    a->presence[i].len != b->presence[i].len ||
		    memcmp(a->peer[i].data != NULL ? a->peer[i].data : (const uint8_t *)"",
			   b->peer[i].data != NULL ? b->peer[i].data : (const uint8_t *)"",
			   a->peer[i].len) != 0 ||
		    memcmp(a->presence[i].data != NULL ? a->presence[i].data : (const uint8_t *)"",
			   b->presence[i].data != NULL ? b->presence[i].data : (const uint8_t *)"",
			   a->presence[i].len) != 0) {
			TEST_FAIL("seed %llu, step %d: node %zu differs after the resumption",
				  (unsigned long long)seed, step, i);
		}
	}
}

/* A watcher that was away at random holds the same as a fresh one, byte for byte. */
static void test_resume(void **state UNUSED)
{
	size_t merged = 0;

	for (uint64_t seed = 1; seed <= 220; seed++) {
		uint64_t tailnet = seed % 2 == 0 ? 1 : 3;
		struct held held = {0}, fresh = {0};
		struct world w;
		uint64_t viewer;

		world_open_two(&w, 5000 + seed);
		w.unchecked = true;
		viewer = world_add(&w, tailnet, 500, "viewer");
		for (int step = 0; step < 60; step++) {
			NodeRecord *n = NULL;

			IGNORE(world_apply(&w, stream_next(&w)));
			if (world_random(&w) % 6 != 0) {
				continue; /* away */
			}
			n = world_node(&w, tailnet, viewer);
			if (n == NULL) {
				break; /* the viewer itself was deleted */
			}
			merged += held_resume(&w, &held, tailnet, n);
			held.revision = world_meta(&w, 0)->revision;
			held_full(&w, &fresh, tailnet, n);
			held_compare(seed, step, &held, &fresh);
		}
		held_done(&held);
		held_done(&fresh);
		world_check(&w);
		world_close(&w);
	}
	assert_true(merged > 600); /* else the test says nothing */
}

/* ---- the same commands, the same state: a change of what apply computes shows here ---- */

static void test_golden(void **state UNUSED)
{
	static const char golden[] =
		"f2780e4390cc915f83e9f67f414a95f30de8b1f7614a6c2477cf548307727cb0";
	char text[65];
	struct world w;

	world_open_two(&w, 42);
	w.unchecked = true;
	for (int i = 0; i < 400; i++) {
		IGNORE(world_apply(&w, stream_next(&w)));
	}
	world_check(&w);
	hex_encode(text, world_meta(&w, 0)->digest.data, 32);
	/* Another digest: apply computes something else than it did. That needs a new feature level; only then may
	 * the value be replaced. */
	assert_string_equal(text, golden);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_resume),
		cmocka_unit_test(test_golden),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
