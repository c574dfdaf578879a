/* libraft's messages as bytes: each type, split anywhere, of older lines, and whatever else may come. LIBS: cluster */
#include "tests/unit/cluster/wire_messages.h"

#include "base/limits.h"
#include "base/mem.h"

static struct wire_reader reader;

static int setup(void **state)
{
	(void)state;
	memset(&reader, 0, sizeof(reader));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	wire_reader_done(&reader);
	return 0;
}

static void round_trip(void **state)
{
	(void)state;
	for (unsigned n = 0; n < WIRE_MESSAGES; n++) {
		struct raft_message m = wire_message(n), got;
		struct buf b = BUF_INIT;
		size_t used;

		wire_bytes(&b, &m);
		assert_int_equal(wire_read(&reader, b.data, b.len, &used, &got, NULL), 1);
		assert_int_equal(used, b.len);
		wire_same(&m, &got);
		wire_message_free(&got);
		wire_message_free(&m);
		buf_done(&b);
	}
}

/* All of them one after the other, in pieces of every size up to that of two messages. */
static void split(void **state)
{
	struct buf all = BUF_INIT;

	(void)state;
	for (unsigned n = 0; n < WIRE_MESSAGES; n++) {
		struct raft_message m = wire_message(n);

		wire_bytes(&all, &m);
		wire_message_free(&m);
	}
	for (size_t piece = 1; piece < 100; piece += piece < 20 ? 1 : 13) {
		unsigned n = 0;

		for (size_t at = 0; at < all.len;) {
			size_t len = MIN(piece, all.len - at), used;
			/* A block of its own, so that reading beyond it is seen. */
			uint8_t *copy = mem_memdup(all.data + at, len);
			struct raft_message got, m;
			int r = wire_read(&reader, copy, len, &used, &got, NULL);

			mem_free(copy);
			assert_true(r >= 0 && used <= len && (r == 1 || used == len));
			at += used;
			if (r == 1) {
				m = wire_message(n++);
				wire_same(&m, &got);
				wire_message_free(&m);
				wire_message_free(&got);
			}
		}
		assert_int_equal(n, WIRE_MESSAGES);
	}
	buf_done(&all);
}

/* The form itself: what an older build would read. */
static void bytes(void **state)
{
	static const uint8_t vote[] = {
		3, 0, 2, 0, 0, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, /* type, version, length */
		5, 1, 0, 0, 0, 0, 0, 0,                          /* term */
		9, 0, 0, 0, 0, 0, 0, 0,                          /* candidate */
		2, 0, 0, 0, 0, 0, 0, 0,                          /* last index */
		4, 0, 0, 0, 0, 0, 0, 0,                          /* last term */
		3, 0, 0, 0, 0, 0, 0, 0,                          /* flags */
	};
	static const uint8_t entries[] = {
		1, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, /* */
		7, 0, 0, 0, 0, 0, 0, 0, 1,  0, 0, 0, 0, 0, 0, 0, /* term, previous */
		6, 0, 0, 0, 0, 0, 0, 0, 1,  0, 0, 0, 0, 0, 0, 0, /* its term, commit */
		1, 0, 0, 0, 0, 0, 0, 0,                          /* one entry */
		7, 0, 0, 0, 0, 0, 0, 0, 2,  0, 0, 0, 8, 0, 0, 0, /* its head */
		0, 0, 0, 0, 0, 0, 0, 0,                          /* unused */
	};
	struct raft_message m = {.type = RAFT_REQUEST_VOTE};
	struct raft_entry e = {.term = 7, .type = RAFT_BARRIER, .buf = {.len = 8}};
	struct buf b = BUF_INIT;

	(void)state;
	m.request_vote = (struct raft_request_vote){2, 0x105, 9, 2, 4, true, true};
	assert_int_equal(wire_put(&b, &m), 0);
	assert_int_equal(b.len, sizeof(vote));
	assert_memory_equal(b.data, vote, sizeof(vote));
	buf_reset(&b);
	m.type = RAFT_APPEND_ENTRIES;
	m.append_entries = (struct raft_append_entries){0, 7, 1, 6, 1, &e, 1};
	assert_int_equal(wire_put(&b, &m), 0);
	assert_int_equal(b.len, sizeof(entries));
	assert_memory_equal(b.data, entries, sizeof(entries));
	m.type = 99;
	assert_int_equal(wire_put(&b, &m), RAFT_MALFORMED);
	assert_int_equal(b.len, sizeof(entries));
	buf_done(&b);
}

static void put(struct buf *b, uint64_t v)
{
	for (int i = 0; i < 8; i++) {
		buf_u8(b, (uint8_t)(v >> (8 * i)));
	}
}

/* Without version, without the last word. */
static void older_lines(void **state)
{
	static const struct {
		unsigned type, version, words, got;
	} cases[] = {
		{RAFT_REQUEST_VOTE, 0, 4, 1},          {RAFT_REQUEST_VOTE, 0, 5, 2},
		{RAFT_REQUEST_VOTE, 1, 4, 1},          {RAFT_REQUEST_VOTE_RESULT, 0, 2, 1},
		{RAFT_REQUEST_VOTE_RESULT, 0, 3, 2},   {RAFT_REQUEST_VOTE_RESULT, 1, 3, 1},
		{RAFT_REQUEST_VOTE_RESULT, 2, 2, 1},   {RAFT_APPEND_ENTRIES_RESULT, 0, 3, 0},
		{RAFT_APPEND_ENTRIES_RESULT, 0, 4, 2}, {RAFT_APPEND_ENTRIES_RESULT, 1, 4, 1},
		{RAFT_APPEND_ENTRIES_RESULT, 2, 3, 0}, {RAFT_APPEND_ENTRIES_RESULT, 2, 6, 2},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct raft_message got;
		struct buf b = BUF_INIT;
		size_t used;
		unsigned version = 99, features = 99;

		put(&b, c->type | c->version << 16);
		put(&b, c->words * 8);
		for (unsigned i = 1; i <= c->words; i++) {
			put(&b, i == c->words ? 0x0003000200010001 : i);
		}
		assert_int_equal(wire_read(&reader, b.data, b.len, &used, &got, NULL), 1);
		assert_int_equal(used, b.len);
		switch (c->type) {
		case RAFT_REQUEST_VOTE:
			version = got.request_vote.version;
			features = 0;
			assert_int_equal(got.request_vote.disrupt_leader, c->words == 5);
			break;
		case RAFT_REQUEST_VOTE_RESULT:
			version = got.request_vote_result.version;
			features = got.request_vote_result.features;
			break;
		default:
			version = got.append_entries_result.version;
			features = got.append_entries_result.features;
		}
		assert_int_equal(version, c->got);
		if (c->got < (c->type == RAFT_APPEND_ENTRIES_RESULT ? 1u : 2u)) {
			assert_int_equal(features, 0);
		}
		buf_done(&b);
	}
}

/* ---- what makes no sense ---- */

static void refused(const struct buf *b, int code, const char *what)
{
	/* A block of its own, so that reading beyond it is seen. */
	uint8_t *copy = mem_memdup(b->data, b->len);
	struct raft_message got = {.server_id = 77};
	struct err e = {0};
	size_t used;
	int r = wire_read(&reader, copy, b->len, &used, &got, &e);

	if (r != code) {
		TEST_FAIL("%s: %d (%s)", what, r, e.msg);
	}
	assert_contains(e.msg, what);
	assert_int_equal(got.server_id, 77);
	wire_reader_done(&reader);
	mem_free(copy);
}

static void begin(struct buf *b, unsigned type, uint64_t len)
{
	buf_reset(b);
	put(b, type);
	put(b, len);
}

static void bad_preambles(void **state)
{
	static const struct {
		unsigned type;
		uint64_t len;
		int code;
		const char *what;
	} cases[] = {
		{0, 40, ERR_PROTOCOL, "unknown type 0"},
		{7, 40, ERR_PROTOCOL, "unknown type 7"},
		{255, 40, ERR_PROTOCOL, "unknown type 255"},
		{RAFT_APPEND_ENTRIES, 0, ERR_PROTOCOL, "a head of 0 bytes"},
		{RAFT_APPEND_ENTRIES, 39, ERR_PROTOCOL, "a head of 39 bytes"},
		{RAFT_APPEND_ENTRIES, LIM_RAFT_HEAD_BYTES + 1, ERR_LIMIT, "type 1"},
		{RAFT_INSTALL_SNAPSHOT, 39, ERR_PROTOCOL, "a head of 39 bytes"},
		{RAFT_INSTALL_SNAPSHOT, LIM_RAFT_HEAD_BYTES + 1, ERR_LIMIT, "type 5"},
		{RAFT_REQUEST_VOTE, 31, ERR_PROTOCOL, "a head of 31 bytes"},
		{RAFT_REQUEST_VOTE, 257, ERR_LIMIT, "type 3"},
		{RAFT_REQUEST_VOTE_RESULT, 15, ERR_PROTOCOL, "a head of 15 bytes"},
		{RAFT_APPEND_ENTRIES_RESULT, 23, ERR_PROTOCOL, "a head of 23 bytes"},
		{RAFT_TIMEOUT_NOW, 23, ERR_PROTOCOL, "a head of 23 bytes"},
		{RAFT_TIMEOUT_NOW, UINT64_MAX, ERR_LIMIT, "type 6"},
	};
	struct buf b = BUF_INIT;

	(void)state;
	TEST_TABLE(c, cases)
	{
		begin(&b, c->type, c->len);
		refused(&b, c->code, c->what);
	}
	buf_done(&b);
}

static void append_head(struct buf *b, uint64_t n, size_t heads, unsigned type, uint32_t len)
{
	begin(b, RAFT_APPEND_ENTRIES, 48 + heads * 16);
	for (uint64_t i = 0; i < 4; i++) {
		put(b, i);
	}
	put(b, n);
	for (size_t i = 0; i < heads; i++) {
		put(b, 1);
		put(b, type | (uint64_t)len << 32);
	}
	put(b, 0);
}

static void bad_entries(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	append_head(&b, 3, 2, RAFT_COMMAND, 8);
	refused(&b, ERR_PROTOCOL, "3 entries in a head of 80 bytes");
	append_head(&b, UINT64_MAX, 0, RAFT_COMMAND, 8);
	refused(&b, ERR_LIMIT, "entries in one message");
	append_head(&b, LIM_RAFT_ENTRIES + 1, LIM_RAFT_ENTRIES + 1, RAFT_COMMAND, 8);
	refused(&b, ERR_LIMIT, "entries in one message");
	append_head(&b, 1, 1, 0, 8);
	refused(&b, ERR_PROTOCOL, "unknown type 0");
	append_head(&b, 1, 1, 4, 8);
	refused(&b, ERR_PROTOCOL, "unknown type 4");
	append_head(&b, 1, 1, RAFT_COMMAND, 12);
	refused(&b, ERR_PROTOCOL, "no multiple of 8");
	append_head(&b, 1, 1, RAFT_COMMAND, LIM_RAFT_MESSAGE_BYTES + 8);
	refused(&b, ERR_LIMIT, "bytes of entries");
	append_head(&b, 32, 32, RAFT_COMMAND, UINT32_MAX - 7);
	refused(&b, ERR_LIMIT, "bytes of entries");
	/* The most that is taken is taken. */
	append_head(&b, LIM_RAFT_ENTRIES, LIM_RAFT_ENTRIES, RAFT_COMMAND, 0);
	{
		struct raft_message got;
		size_t used;

		assert_int_equal(wire_read(&reader, b.data, b.len, &used, &got, NULL), 1);
		assert_int_equal(got.append_entries.n_entries, LIM_RAFT_ENTRIES);
		wire_message_free(&got);
	}
	buf_done(&b);
}

/* A configuration of `n` servers that says it has `claim`. */
static void conf(struct buf *b, unsigned format, uint64_t claim, unsigned n, bool twins)
{
	buf_u8(b, (uint8_t)format);
	put(b, claim);
	for (unsigned i = 1; i <= n; i++) {
		put(b, twins ? 1 : i);
		buf_printf(b, "host:%u", i);
		buf_u8(b, 0);
		buf_u8(b, RAFT_VOTER);
	}
	while (b->len % 8 != 0) {
		buf_u8(b, 0);
	}
}

static void bad_configurations(void **state)
{
	static const struct {
		unsigned format, n;
		uint64_t claim;
		bool twins;
		size_t cut;
		int code;
		const char *what;
	} cases[] = {
		{1, 3, 3, false, 0, 1, ""},
		{2, 3, 3, false, 0, ERR_PROTOCOL, "unknown form"},
		{1, 3, 4, false, 0, ERR_PROTOCOL, "that is none"},
		{1, 3, LIM_RAFT_SERVERS + 1, false, 0, ERR_LIMIT, "at most 64"},
		{1, 3, UINT64_MAX, false, 0, ERR_LIMIT, "at most 64"},
		{1, 3, 3, true, 0, ERR_PROTOCOL, "that is none"},
		{1, 3, 3, false, 16, ERR_PROTOCOL, "that is none"},
		{1, 0, 0, false, 8, ERR_PROTOCOL, "unknown form"},
		{1, 0, 0, false, 16, ERR_PROTOCOL, "unknown form"},
	};
	struct buf b = BUF_INIT, c = BUF_INIT;

	(void)state;
	TEST_TABLE(k, cases)
	{
		for (int entry = 0; entry < 2; entry++) {
			buf_reset(&c);
			conf(&c, k->format, k->claim, k->n, k->twins);
			c.len -= k->cut;
			if (entry) {
				append_head(&b, 1, 1, RAFT_CHANGE, (uint32_t)c.len);
				buf_append(&b, c.data, c.len);
			} else {
				begin(&b, RAFT_INSTALL_SNAPSHOT, 56 + c.len);
				for (uint64_t i = 0; i < 4; i++) {
					put(&b, i);
				}
				put(&b, c.len);
				buf_append(&b, c.data, c.len);
				put(&b, 0);
				put(&b, 0);
			}
			if (k->code == 1) {
				struct raft_message got;
				size_t used;

				assert_int_equal(
					wire_read(&reader, b.data, b.len, &used, &got, NULL), 1);
				wire_message_free(&got);
			} else {
				refused(&b, k->code, k->what);
			}
		}
	}
	/* Lengths that do not fit the head. */
	for (uint64_t len = 8; len != 0; len = len == 8         ? 1 << 20
					       : len == 1 << 20 ? UINT64_MAX
								: 0) {
		begin(&b, RAFT_INSTALL_SNAPSHOT, 48);
		for (uint64_t i = 0; i < 4; i++) {
			put(&b, i);
		}
		put(&b, len);
		put(&b, 0);
		refused(&b, ERR_PROTOCOL, "in a head of 48");
	}
	begin(&b, RAFT_INSTALL_SNAPSHOT, 40);
	for (uint64_t i = 0; i < 5; i++) {
		put(&b, 0);
	}
	refused(&b, ERR_PROTOCOL, "in a head of 40");
	/* More data than any state has. */
	buf_reset(&c);
	conf(&c, 1, 1, 1, false);
	begin(&b, RAFT_INSTALL_SNAPSHOT, 56 + c.len);
	for (uint64_t i = 0; i < 4; i++) {
		put(&b, i);
	}
	put(&b, c.len);
	buf_append(&b, c.data, c.len);
	put(&b, LIM_RAFT_SNAPSHOT_BYTES + 1);
	put(&b, 0);
	refused(&b, ERR_LIMIT, "a snapshot of");
	buf_done(&c);
	buf_done(&b);
}

/* What is cut off anywhere is waited for, and freed. */
static void cut_off(void **state)
{
	(void)state;
	for (unsigned n = 0; n < WIRE_MESSAGES; n++) {
		struct raft_message m = wire_message(n), got;
		struct buf b = BUF_INIT;

		wire_bytes(&b, &m);
		for (size_t len = 1; len < b.len; len += len < 300 ? 1 : 997) {
			uint8_t *copy = mem_memdup(b.data, len);
			size_t used;

			assert_int_equal(wire_read(&reader, copy, len, &used, &got, NULL), 0);
			assert_int_equal(used, len);
			wire_reader_done(&reader);
			mem_free(copy);
		}
		wire_message_free(&m);
		buf_done(&b);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(round_trip),         T(split),         T(bytes),
		T(older_lines),        T(bad_preambles), T(bad_entries),
		T(bad_configurations), T(cut_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
