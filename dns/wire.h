/* DNS messages (RFC 1035, EDNS by RFC 6891): parsing of queries and building of answers, in place. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/prefix.h"

enum {
	DNS_HEADER = 12,
	DNS_NAME_TEXT = 256, /* text of a name with its NUL */
	DNS_UDP_PLAIN = 512, /* without EDNS */
	DNS_MESSAGE_MAX = 4095,
};

enum dns_type {
	DNS_A = 1,
	DNS_NS = 2,
	DNS_SOA = 6,
	DNS_PTR = 12,
	DNS_HINFO = 13,
	DNS_AAAA = 28,
	DNS_OPT = 41,
	DNS_AXFR = 252,
	DNS_ANY = 255,
};

enum { DNS_CLASS_IN = 1, DNS_CLASS_ANY = 255 };

enum dns_rcode {
	DNS_NOERROR = 0,
	DNS_FORMERR = 1,
	DNS_SERVFAIL = 2,
	DNS_NXDOMAIN = 3,
	DNS_NOTIMP = 4,
	DNS_REFUSED = 5,
};

/* A parsed query. `name` is lower case without the final dot ("" is the root). */
struct dns_query {
	uint16_t id;
	bool rd;
	char name[DNS_NAME_TEXT];
	uint16_t type, class;
	size_t question_len; /* bytes of the question section after the header */
	bool edns;
	uint16_t edns_size; /* what the client takes by UDP; DNS_UDP_PLAIN without EDNS */
};

/*
 * Parses a query. Returns 0; ERR_INVALID when an answer with FORMERR is due (id is set then); ERR_UNIMPLEMENTED when
 * NOTIMP is (opcode); ERR_PROTOCOL when nothing may be answered (a response, or no header). The bytes may be anything.
 */
MUST_CHECK int wire_parse(const uint8_t *msg, size_t len, struct dns_query *ret);

/* An answer that grows in the caller's memory. Sticky: after an overflow `truncated` is set and records are ignored. */
struct dns_answer {
	uint8_t *data;
	size_t cap, len;
	uint16_t answers, authorities;
	bool truncated;
};

/*
 * Begins the answer to `msg` (whose question is copied): QR, AA as told, RA, RD as asked. `limit` is the most bytes that
 * the transport takes, EDNS included; the memory must hold DNS_MESSAGE_MAX bytes.
 */
void wire_begin(struct dns_answer *a, uint8_t *memory, size_t limit, const uint8_t *msg,
		const struct dns_query *q, bool authoritative);
/* Appends an address record for the question's name. */
void wire_address(struct dns_answer *a, const struct ipaddr *addr, uint32_t ttl);
/* Appends a PTR record for the question's name; `target` is a name in text form. */
void wire_ptr(struct dns_answer *a, const char *target, uint32_t ttl);
/* Appends the SOA of `zone` to the authority section, with the negative TTL (RFC 2308). Only after all answers. */
void wire_soa(struct dns_answer *a, const char *zone, uint32_t negative_ttl);
/* Sets the rcode and the counts, adds OPT if the query had it. Returns the length. */
size_t wire_finish(struct dns_answer *a, const struct dns_query *q, enum dns_rcode rcode);

/* The shortest answer that can be made of a query that was not understood: header with the rcode. Returns the length. */
size_t wire_error(const uint8_t *msg, size_t len, enum dns_rcode rcode, uint8_t out[DNS_HEADER]);

/* Facts of a response of an upstream, for matching: false when it is not a response with one question. */
struct dns_response {
	uint16_t id;
	enum dns_rcode rcode;
	bool truncated;
};
bool wire_response(const uint8_t *msg, size_t len, struct dns_response *ret);
/* The question sections (name without regard to case, type, class) are equal. */
bool wire_same_question(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len);
/* Cuts a response to header and question with TC set, for a client that takes less. Returns the new length. */
size_t wire_truncate(uint8_t *msg, size_t len, size_t limit);

/* "d.c.b.a.in-addr.arpa" or 32 nibbles under ip6.arpa -> the address; false for anything else. */
bool wire_reverse(const char *name, struct ipaddr *ret);
