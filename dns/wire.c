#include "dns/wire.h"

#include <string.h>

#include "base/rd.h"

enum {
	FLAG_QR = 0x8000,
	FLAG_OPCODE = 0x7800,
	FLAG_AA = 0x0400,
	FLAG_TC = 0x0200,
	FLAG_RD = 0x0100,
	FLAG_RA = 0x0080,
	OPT_LEN = 11,
};

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint8_t lower(uint8_t c)
{
	return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

/*
 * Reads an uncompressed name (a query's question needs no compression; a pointer there is refused) into text. Bytes that
 * would be ambiguous in text (dots inside a label, controls) are refused: no name of ours has them.
 */
static bool read_name(struct rd *r, char *out)
{
	size_t n = 0;
	size_t total = 0;

	for (;;) {
		uint8_t label = rd_u8(r);
		const uint8_t *bytes;

		if (!rd_ok(r) || label > 63)
			return false;
		total += label + 1u;
		if (total > 255)
			return false;
		if (label == 0)
			break;
		bytes = rd_bytes(r, label);
		if (!bytes)
			return false;
		if (n > 0)
			out[n++] = '.';
		for (uint8_t i = 0; i < label; i++) {
			if (bytes[i] <= ' ' || bytes[i] == '.' || bytes[i] >= 0x7f)
				return false;
			out[n++] = (char)lower(bytes[i]);
		}
	}
	out[n] = '\0';
	return true;
}

/* Skips a name that may be compressed. */
static void skip_name(struct rd *r)
{
	for (;;) {
		uint8_t label = rd_u8(r);

		if (!rd_ok(r) || label == 0)
			return;
		if ((label & 0xc0) == 0xc0) {
			rd_skip(r, 1);
			return;
		}
		if (label > 63) {
			rd_fail(r);
			return;
		}
		rd_skip(r, label);
	}
}

int wire_parse(const uint8_t *msg, size_t len, struct dns_query *ret)
{
	struct dns_query q = {.edns_size = DNS_UDP_PLAIN};
	uint16_t flags, questions, answers, authorities, additionals;
	struct rd r;

	if (len < DNS_HEADER)
		return ERR_PROTOCOL;
	rd_init(&r, msg, len);
	q.id = rd_u16be(&r);
	flags = rd_u16be(&r);
	questions = rd_u16be(&r);
	answers = rd_u16be(&r);
	authorities = rd_u16be(&r);
	additionals = rd_u16be(&r);
	if (flags & FLAG_QR)
		return ERR_PROTOCOL;
	q.rd = flags & FLAG_RD;
	ret->id = q.id;
	if (flags & FLAG_OPCODE)
		return ERR_UNIMPLEMENTED;
	if (questions != 1 || answers || authorities || additionals > 2)
		return ERR_INVALID;
	if (!read_name(&r, q.name))
		return ERR_INVALID;
	q.type = rd_u16be(&r);
	q.class = rd_u16be(&r);
	if (!rd_ok(&r))
		return ERR_INVALID;
	q.question_len = (size_t)(r.pos - msg) - DNS_HEADER;
	for (uint16_t i = 0; i < additionals; i++) {
		uint16_t type, size, rdlen;

		skip_name(&r);
		type = rd_u16be(&r);
		size = rd_u16be(&r);
		rd_skip(&r, 4);
		rdlen = rd_u16be(&r);
		rd_skip(&r, rdlen);
		if (!rd_ok(&r))
			return ERR_INVALID;
		if (type == DNS_OPT) {
			if (q.edns)
				return ERR_INVALID;
			q.edns = true;
			q.edns_size = MIN(MAX(size, DNS_UDP_PLAIN), DNS_MESSAGE_MAX);
		}
	}
	*ret = q;
	return 0;
}

void wire_begin(struct dns_answer *a, uint8_t *memory, size_t limit, const uint8_t *msg,
		const struct dns_query *q, bool authoritative)
{
	uint16_t flags = FLAG_QR | FLAG_RA;

	if (authoritative)
		flags |= FLAG_AA;
	if (q->rd)
		flags |= FLAG_RD;
	limit = MIN(limit, (size_t)DNS_MESSAGE_MAX);
	memset(a, 0, sizeof(*a));
	a->data = memory;
	/* Room for OPT is set aside, so that it never falls victim to the records. */
	a->cap = limit - (q->edns ? OPT_LEN : 0);
	PRE(a->cap >= DNS_HEADER + q->question_len);
	memset(memory, 0, DNS_HEADER);
	put16(memory, q->id);
	put16(memory + 2, flags);
	put16(memory + 4, 1);
	memcpy(memory + DNS_HEADER, msg + DNS_HEADER, q->question_len);
	a->len = DNS_HEADER + q->question_len;
}

/* Where a record's data of n bytes goes; its owner is the question's name. NULL when it does not fit. */
static uint8_t *record(struct dns_answer *a, uint16_t type, uint32_t ttl, size_t n)
{
	uint8_t *p = a->data + a->len;

	if (a->truncated || a->len + 12 + n > a->cap) {
		a->truncated = true;
		return NULL;
	}
	put16(p, 0xc000 | DNS_HEADER);
	put16(p + 2, type);
	put16(p + 4, DNS_CLASS_IN);
	put16(p + 6, (uint16_t)(ttl >> 16));
	put16(p + 8, (uint16_t)ttl);
	put16(p + 10, (uint16_t)n);
	a->len += 12 + n;
	return p + 12;
}

void wire_address(struct dns_answer *a, const struct ipaddr *addr, uint32_t ttl)
{
	size_t n = ipaddr_len(addr);
	uint8_t *p = record(a, n == 4 ? DNS_A : DNS_AAAA, ttl, n);

	if (p) {
		memcpy(p, addr->b, n);
		a->answers++;
	}
}

/* Wire form of a valid name in text form; returns its length. */
static size_t write_name(const char *text, uint8_t out[256])
{
	size_t n = 0;

	while (*text) {
		const char *dot = strchrnul(text, '.');
		size_t label = (size_t)(dot - text);

		PRE(label > 0 && label <= 63 && n + label + 2 <= 255);
		out[n++] = (uint8_t)label;
		memcpy(out + n, text, label);
		n += label;
		text = *dot ? dot + 1 : dot;
	}
	out[n++] = 0;
	return n;
}

void wire_ptr(struct dns_answer *a, const char *target, uint32_t ttl)
{
	uint8_t name[256];
	size_t n = write_name(target, name);
	uint8_t *p = record(a, DNS_PTR, ttl, n);

	if (p) {
		memcpy(p, name, n);
		a->answers++;
	}
}

void wire_soa(struct dns_answer *a, const char *zone, uint32_t negative_ttl)
{
	uint8_t name[256];
	size_t n = write_name(zone, name);
	uint8_t *p = a->data + a->len;
	size_t rdlen = 2 + 2 + 20; /* mname and rname are pointers to the owner */

	if (a->truncated || a->len + n + 10 + rdlen > a->cap || a->len > 0x3fff)
		return; /* the answer is right without it, only not cached */
	memcpy(p, name, n);
	put16(p + n, DNS_SOA);
	put16(p + n + 2, DNS_CLASS_IN);
	put16(p + n + 4, (uint16_t)(negative_ttl >> 16));
	put16(p + n + 6, (uint16_t)negative_ttl);
	put16(p + n + 8, (uint16_t)rdlen);
	p += n + 10;
	put16(p, (uint16_t)(0xc000 | a->len));
	put16(p + 2, (uint16_t)(0xc000 | a->len));
	memset(p + 4, 0, 20);
	p[7] = 1;                                      /* serial */
	put16(p + 10, 3600);                           /* refresh */
	put16(p + 14, 600);                            /* retry */
	put16(p + 18, 3600);                           /* expire */
	put16(p + 20, (uint16_t)(negative_ttl >> 16)); /* minimum */
	put16(p + 22, (uint16_t)negative_ttl);
	a->len += n + 10 + rdlen;
	a->authorities++;
}

size_t wire_finish(struct dns_answer *a, const struct dns_query *q, enum dns_rcode rcode)
{
	uint16_t flags = get16(a->data + 2);

	flags |= (uint16_t)rcode;
	if (a->truncated)
		flags |= FLAG_TC;
	put16(a->data + 2, flags);
	put16(a->data + 6, a->answers);
	put16(a->data + 8, a->authorities);
	if (q->edns) {
		uint8_t *p = a->data + a->len;

		memset(p, 0, OPT_LEN);
		put16(p + 1, DNS_OPT);
		put16(p + 3, DNS_MESSAGE_MAX);
		a->len += OPT_LEN;
		put16(a->data + 10, 1);
	}
	return a->len;
}

size_t wire_error(const uint8_t *msg, size_t len, enum dns_rcode rcode, uint8_t out[DNS_HEADER])
{
	uint16_t flags;

	PRE(len >= DNS_HEADER);
	flags = (uint16_t)(FLAG_QR | FLAG_RA | (get16(msg + 2) & (FLAG_RD | FLAG_OPCODE)) | rcode);
	memset(out, 0, DNS_HEADER);
	memcpy(out, msg, 2);
	put16(out + 2, flags);
	return DNS_HEADER;
}

bool wire_response(const uint8_t *msg, size_t len, struct dns_response *ret)
{
	uint16_t flags;

	if (len < DNS_HEADER)
		return false;
	flags = get16(msg + 2);
	if (!(flags & FLAG_QR) || get16(msg + 4) != 1)
		return false;
	ret->id = get16(msg);
	ret->rcode = (enum dns_rcode)(flags & 0xf);
	ret->truncated = flags & FLAG_TC;
	return true;
}

/* End of the question section (type and class included), 0 when it is not whole. */
static size_t question_end(const uint8_t *msg, size_t len)
{
	struct rd r;

	if (len < DNS_HEADER || get16(msg + 4) != 1)
		return 0;
	rd_init(&r, msg, len);
	rd_skip(&r, DNS_HEADER);
	skip_name(&r);
	rd_skip(&r, 4);
	return rd_ok(&r) ? (size_t)(r.pos - msg) : 0;
}

bool wire_same_question(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
	size_t end = question_end(a, a_len);

	if (end == 0 || question_end(b, b_len) != end)
		return false;
	for (size_t i = DNS_HEADER; i < end; i++) {
		if (lower(a[i]) != lower(b[i]))
			return false;
	}
	return true;
}

size_t wire_truncate(uint8_t *msg, size_t len, size_t limit)
{
	size_t end = question_end(msg, len);

	if (len <= limit)
		return len;
	if (end == 0 || end > limit)
		end = DNS_HEADER;
	if (end == DNS_HEADER)
		put16(msg + 4, 0);
	put16(msg + 2, get16(msg + 2) | FLAG_TC);
	memset(msg + 6, 0, 6);
	return end;
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

static bool reverse4(const char *name, size_t n, struct ipaddr *ret)
{
	struct ipaddr a = {.family = 4};
	size_t pos = 0;

	for (int i = 3; i >= 0; i--) {
		unsigned v = 0;
		size_t digits = 0;

		while (pos < n && name[pos] >= '0' && name[pos] <= '9' && digits < 4) {
			v = v * 10 + (unsigned)(name[pos++] - '0');
			digits++;
		}
		if (digits == 0 || digits > 3 || v > 255 ||
		    (digits > 1 && name[pos - digits] == '0'))
			return false;
		a.b[i] = (uint8_t)v;
		if (i > 0 && (pos >= n || name[pos++] != '.'))
			return false;
	}
	if (pos != n)
		return false;
	*ret = a;
	return true;
}

bool wire_reverse(const char *name, struct ipaddr *ret)
{
	static const char v4[] = ".in-addr.arpa";
	static const char v6[] = ".ip6.arpa";
	size_t n = strlen(name);
	struct ipaddr a = {.family = 6};

	if (n > strlen(v4) && !strcmp(name + n - strlen(v4), v4))
		return reverse4(name, n - strlen(v4), ret);
	if (n != 63 + strlen(v6) || strcmp(name + 63, v6) != 0)
		return false;
	for (int i = 0; i < 32; i++) {
		int v = nibble(name[2 * i]);

		if (v < 0 || (i < 31 && name[2 * i + 1] != '.'))
			return false;
		a.b[15 - i / 2] |= (uint8_t)(i % 2 ? v << 4 : v);
	}
	*ret = a;
	return true;
}
