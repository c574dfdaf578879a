/*
 * LMDB trusts what its pages say of themselves: a page whose bounds are wrong has it write beyond the page, into others or
 * into our heap. So all pages are looked at before LMDB opens a file that may be wrong: each tree from its root, each
 * page once, each entry inside of its page, and no page both in a tree and free. Contents are for the scrub.
 *
 * The format (data version 1, a machine word of 8 bytes, little-endian):
 *   page   number 8, pad 2, flags 2, then lower 2 and upper 2 (overflow: count of pages 4), offsets of its nodes 2 each
 *   node   size or page, low and high 2 each, flags or top of the page 2, size of the key 2, key, data
 *   tree   pad 4, flags 2, depth 2, branch, leaf, overflow pages 8 each, entries 8, root 8
 *   meta   (pages 0 and 1) magic 4, version 4, address 8, size of the map 8, trees of free pages and of names, last page 8,
 *          transaction 8; the pad of the first tree is the size of a page
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "cluster/store_int.h"

enum {
	PAGE_HEAD = 16,
	NODE_HEAD = 8,
	TREE_SIZE = 48,
	META_SIZE = 24 + 2 * TREE_SIZE + 16,
	PAGE_MIN = 512,
	PAGE_MAX = 32768,
	DEPTH_MAX = 32,
	VERSION = 1,

	BRANCH = 1,
	LEAF = 2,
	OVERFLOW = 4,
	META = 8,
	PASSING = 0x8010, /* of a writer; may stay behind */

	NODE_BIG = 1,
	NODE_TREE = 2,
	FIXED_ADDRESS = 1,
	TREE_FLAGS = 0x7fff,
};
#define MAGIC   0xBEEFC0DEu
#define NO_ROOT UINT64_MAX

struct tree {
	uint16_t flags, depth;
	uint64_t branches, leaves, overflows, entries, root;
};

struct pages {
	int fd;
	size_t size; /* of a page */
	uint64_t last;
	uint8_t *seen; /* a bit per page */
	struct err *err;
};

enum kind { TREE_FREE, TREE_NAMES, TREE_DATA };

static uint64_t get(const uint8_t *at, size_t n)
{
	uint64_t v = 0;

	memcpy(&v, at, n);
	return v;
}

static int wrong(const struct pages *p, uint64_t page, const char *what)
{
	return err_set(p->err, ERR_CORRUPT, "page %" PRIu64 " of the store makes no sense: %s",
		       page, what);
}

static int page_read(const struct pages *p, uint64_t page, uint8_t *out, size_t len)
{
	ssize_t n;

	do {
		n = pread(p->fd, out, len, (off_t)(page * p->size));
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		return err_set(p->err, ERR_CORRUPT,
			       "page %" PRIu64 " of the store cannot be read: %s", page,
			       strerror(errno));
	}
	return (size_t)n == len ? 0 : wrong(p, page, "the file ends before it");
}

/* Marks the pages as used. */
static int take(struct pages *p, uint64_t page, uint64_t n)
{
	if (page < 2 || page > p->last || n > p->last - page + 1) {
		return wrong(p, page, "it is none");
	}
	for (uint64_t i = page; i < page + n; i++) {
		if ((p->seen[i / 8] & 1 << i % 8) != 0) {
			return wrong(p, i, "it is used twice");
		}
		p->seen[i / 8] |= (uint8_t)(1 << i % 8);
	}
	return 0;
}

static struct tree tree_get(const uint8_t *at)
{
	return (struct tree){
		.flags = (uint16_t)get(at + 4, 2),
		.depth = (uint16_t)get(at + 6, 2),
		.branches = get(at + 8, 8),
		.leaves = get(at + 16, 8),
		.overflows = get(at + 24, 8),
		.entries = get(at + 32, 8),
		.root = get(at + 40, 8),
	};
}

static int tree_check(struct pages *p, enum kind kind, const uint8_t *at);

/* Pages that are free, with their count before them: looked at when all trees were. */
static int free_check(const struct pages *p, uint64_t page, const uint8_t *list, size_t len)
{
	uint64_t n = len >= 8 ? get(list, 8) : 0;

	if (len < 8 || n > len / 8 - 1) {
		return wrong(p, page, "a list of free pages ends too early");
	}
	for (uint64_t i = 1; i <= n; i++) {
		uint64_t one = get(list + 8 * i, 8);

		if (one < 2 || one > p->last || (p->seen[one / 8] & 1 << one % 8) != 0) {
			return wrong(p, page, "a free page is in use, or none");
		}
	}
	return 0;
}

/* A value on pages of its own: as many as it needs, or more when a longer one was there in the same transaction. */
static int big_check(struct pages *p, enum kind kind, uint64_t page, size_t len, uint64_t *ret_n)
{
	uint64_t n, least = (PAGE_HEAD + (uint64_t)len + p->size - 1) / p->size;
	uint8_t head[PAGE_HEAD];
	uint8_t *all;
	int r = take(p, page, 1);

	if (r == 0) {
		r = page_read(p, page, head, sizeof(head));
	}
	if (r != 0) {
		return r;
	}
	n = get(head + 12, 4);
	if (get(head, 8) != page || (get(head + 10, 2) & ~(uint64_t)PASSING) != OVERFLOW ||
	    n < least) {
		return wrong(p, page, "it does not begin a long value");
	}
	r = n > 1 ? take(p, page + 1, n - 1) : 0;
	*ret_n = n;
	if (r != 0 || kind != TREE_FREE) {
		return r;
	}
	all = mem_alloc(PAGE_HEAD + len);
	r = page_read(p, page, all, PAGE_HEAD + len);
	if (r == 0) {
		r = free_check(p, page, all + PAGE_HEAD, len);
	}
	mem_free(all);
	return r;
}

static int leaf_node(struct pages *p, enum kind kind, uint64_t page, const uint8_t *node,
		     size_t room, struct tree *sum, size_t *ret_len)
{
	size_t data_len = get(node, 4), flags = get(node + 4, 2), key = get(node + 6, 2);
	bool big = (flags & NODE_BIG) != 0, tree = (flags & NODE_TREE) != 0;
	size_t len = NODE_HEAD + key + (big ? 8 : data_len);
	const uint8_t *data = node + NODE_HEAD + key;
	uint64_t n = 0;
	int r = 0;

	if (len > room || (flags & ~(size_t)(NODE_BIG | NODE_TREE)) != 0 ||
	    tree != (kind == TREE_NAMES) || (tree && (big || data_len != TREE_SIZE))) {
		return wrong(p, page, "an entry does not fit");
	}
	*ret_len = len;
	sum->entries++;
	if (big) {
		r = big_check(p, kind, get(data, 8), data_len, &n);
		if (r == 0) {
			sum->overflows += n;
		}
	} else if (tree) {
		r = tree_check(p, TREE_DATA, data);
	} else if (kind == TREE_FREE) {
		r = free_check(p, page, data, data_len);
	}
	return r;
}

/* The page and what is below it; adds it up. */
static int page_check(struct pages *p, enum kind kind, uint64_t page, unsigned depth,
		      struct tree *sum)
{
	uint8_t *b = NULL;
	size_t lower, upper, used = 0, least = depth > 1 ? 2 : 1;
	int r = take(p, page, 1);

	if (r != 0) {
		return r;
	}
	b = mem_alloc(p->size);
	r = page_read(p, page, b, p->size);
	if (r != 0) {
		goto out;
	}
	lower = get(b + 12, 2);
	upper = get(b + 14, 2);
	if (get(b, 8) != page ||
	    (get(b + 10, 2) & ~(uint64_t)PASSING) != (depth > 1 ? BRANCH : LEAF)) {
		r = wrong(p, page, "it is not of this tree");
	} else if (lower < PAGE_HEAD + 2 * least || lower > upper || upper > p->size ||
		   lower % 2 != 0) {
		r = wrong(p, page, "its bounds");
	}
	sum->branches += depth > 1;
	sum->leaves += depth == 1;
	for (size_t i = PAGE_HEAD; r == 0 && i < lower; i += 2) {
		size_t at = get(b + i, 2), len = 0;

		if (at < upper || at + NODE_HEAD > p->size || at % 2 != 0) {
			r = wrong(p, page, "an entry is outside of it");
		} else if (depth > 1) {
			len = NODE_HEAD + get(b + at + 6, 2);
			r = at + len > p->size
				    ? wrong(p, page, "an entry does not fit")
				    : page_check(p, kind, get(b + at, 6), depth - 1, sum);
		} else {
			r = leaf_node(p, kind, page, b + at, p->size - at, sum, &len);
		}
		used += r == 0 ? len + len % 2 : 0;
	}
	if (r == 0 && used > p->size - upper) {
		r = wrong(p, page, "its entries overlap");
	}
out:
	mem_free(b);
	return r;
}

static int tree_check(struct pages *p, enum kind kind, const uint8_t *at)
{
	struct tree t = tree_get(at), sum = {0};
	int r = 0;

	if (t.depth > DEPTH_MAX || (t.depth == 0) != (t.root == NO_ROOT) ||
	    (kind != TREE_FREE && (t.flags & TREE_FLAGS) != 0)) {
		return err_set(p->err, ERR_CORRUPT,
			       "the root of a tree of the store makes no sense");
	}
	if (t.depth > 0) {
		r = page_check(p, kind, t.root, t.depth, &sum);
	}
	if (r == 0 && (sum.branches != t.branches || sum.leaves != t.leaves ||
		       sum.overflows != t.overflows || sum.entries != t.entries)) {
		r = err_set(p->err, ERR_CORRUPT,
			    "a tree of the store does not have the pages that its root says");
	}
	return r;
}

/* The newer one of both, as LMDB takes it. *ret_newer NULL: not a format of ours to judge. */
static int meta_read(struct pages *p, uint8_t meta[2][PAGE_HEAD + META_SIZE],
		     const uint8_t **ret_newer)
{
	uint64_t txn[2];

	*ret_newer = NULL;
	for (size_t i = 0; i < 2; i++) {
		const uint8_t *m = meta[i] + PAGE_HEAD;
		int r = page_read(p, i, meta[i], sizeof(meta[i]));

		if (r != 0) {
			return r;
		}
		if (i == 0) {
			/* Where the second one is. */
			p->size = get(m + 24, 4);
			if (get(m, 4) != MAGIC || get(m + 4, 4) != VERSION) {
				return 0; /* LMDB says so itself */
			}
			if (p->size < PAGE_MIN || p->size > PAGE_MAX ||
			    (p->size & (p->size - 1)) != 0) {
				return wrong(p, 0, "the size of a page");
			}
		}
		if ((get(meta[i] + 10, 2) & META) == 0 || get(m, 4) != MAGIC ||
		    get(m + 4, 4) != VERSION || get(m + 24, 4) != p->size) {
			return wrong(p, i, "it is not a meta page");
		}
		txn[i] = get(m + META_SIZE - 8, 8);
	}
	*ret_newer = meta[txn[0] < txn[1]] + PAGE_HEAD;
	return 0;
}

int store_pages_check(const char *dir, uint64_t max_bytes, struct err *err)
{
	uint8_t meta[2][PAGE_HEAD + META_SIZE];
	struct pages p = {.size = PAGE_MIN, .err = err};
	char *path = mem_printf("%s/data.mdb", dir);
	const uint8_t *m;
	struct stat st;
	int r;

	if (sizeof(size_t) != 8 || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__) {
		mem_free(path);
		return 0;
	}
	p.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (p.fd < 0 || fstat(p.fd, &st) != 0 || st.st_size == 0) {
		r = p.fd >= 0 || errno == ENOENT ? 0 : err_errno(err, "opening %s", path);
		goto out;
	}
	/* No reading ahead: env_open() says why, and our portions are large. */
	(void)posix_fadvise(p.fd, 0, 0, POSIX_FADV_RANDOM);
	r = meta_read(&p, meta, &m);
	if (r != 0 || m == NULL) {
		goto out;
	}
	p.last = get(m + META_SIZE - 16, 8);
	if (p.last < 1 || p.last >= (uint64_t)st.st_size / p.size ||
	    (get(m + 24 + 4, 2) & FIXED_ADDRESS) != 0) {
		r = err_set(err, ERR_CORRUPT, "the store's pages do not end where they should");
	} else if (max_bytes == 0 || (p.last + 1) * p.size <= max_bytes) {
		p.seen = mem_calloc(p.last / 8 + 1, 1);
		r = tree_check(&p, TREE_NAMES, m + 24 + TREE_SIZE);
		/* Last: its pages have no place in the lists, and all others are known. */
		r = r == 0 ? tree_check(&p, TREE_FREE, m + 24) : r;
		mem_free(p.seen);
	}
out:
	if (p.fd >= 0) {
		close(p.fd);
	}
	mem_free(path);
	return r;
}
