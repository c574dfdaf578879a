/* IP addresses, prefixes and endpoints: strict text forms, comparison, classification. */
#pragma once

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct err;

/* Plain values; all zero (family 0) is "none". IPv4 uses b[0..3], the rest is zero, so that two
 * equal addresses are equal bytes. An IPv4-mapped IPv6 address is kept as IPv6. */
struct ipaddr {
	uint8_t family; /* 0, 4 or 6 */
	uint8_t b[16];  /* network order */
};

struct prefix {
	struct ipaddr addr;
	uint8_t len; /* bits */
};

struct ipport {
	struct ipaddr addr;
	uint16_t port; /* host order */
};

#define IPADDR_TEXT 46
#define PREFIX_TEXT 50
#define IPPORT_TEXT 54

/* Strict: no leading zeros, no zone, no spaces. ERR_INVALID says what is wrong; *ret is untouched
 * then. */
int ipaddr_parse(const char *text, struct ipaddr *ret, struct err *e) MUST_CHECK;
/* RFC 5952; "none" for family 0. Returns out. */
const char *ipaddr_format(const struct ipaddr *a, char out[IPADDR_TEXT]);
/* Family first, then bytes. */
int ipaddr_cmp(const struct ipaddr *a, const struct ipaddr *b);
bool ipaddr_equal(const struct ipaddr *a, const struct ipaddr *b);
/* From 4 or 16 bytes in network order; false for another length. */
bool ipaddr_from_bytes(const void *data, size_t len, struct ipaddr *ret);
/* 4, 16 or 0. */
size_t ipaddr_len(const struct ipaddr *a);
/* ::ffff:a.b.c.d becomes a.b.c.d, others stay. */
struct ipaddr ipaddr_unmap(const struct ipaddr *a);

bool ipaddr_is_unspecified(const struct ipaddr *a);
bool ipaddr_is_loopback(const struct ipaddr *a);
bool ipaddr_is_link_local(const struct ipaddr *a);
/* IPv4 limited broadcast included. */
bool ipaddr_is_multicast(const struct ipaddr *a);
/* 100.64.0.0/10 */
bool ipaddr_is_cgnat(const struct ipaddr *a);
/* fc00::/7 */
bool ipaddr_is_ula(const struct ipaddr *a);
/* RFC 1918 */
bool ipaddr_is_private(const struct ipaddr *a);
/* One host could really be reached there: none of unspecified, loopback, link-local, multicast,
 * 0.0.0.0/8, 240.0.0.0/4. */
bool ipaddr_is_unicast(const struct ipaddr *a);

/* "a.b.c.d/n"; an address alone is its /32 or /128. Host bits are ERR_INVALID, the message names
 * the prefix that was probably meant. */
int prefix_parse(const char *text, struct prefix *ret, struct err *e) MUST_CHECK;
/* As prefix_parse, but host bits stay in addr ("192.168.1.5/24" of an interface). */
int prefix_parse_host(const char *text, struct prefix *ret, struct err *e) MUST_CHECK;
const char *prefix_format(const struct prefix *p, char out[PREFIX_TEXT]);
/* Family, address, then length. */
int prefix_cmp(const struct prefix *a, const struct prefix *b);
bool prefix_equal(const struct prefix *a, const struct prefix *b);
/* Family, length in range, no host bits. */
bool prefix_valid(const struct prefix *p);
/* Clears the host bits. */
struct prefix prefix_masked(const struct prefix *p);
/* The /32 or /128. */
struct prefix prefix_of(const struct ipaddr *a);
bool prefix_contains(const struct prefix *p, const struct ipaddr *a);
/* inner lies in outer (or is equal). */
bool prefix_covers(const struct prefix *outer, const struct prefix *inner);
bool prefix_overlaps(const struct prefix *a, const struct prefix *b);
/* 0.0.0.0/0 or ::/0 */
bool prefix_is_default(const struct prefix *p);
/* Address number n of the prefix; false past its end. */
bool prefix_nth(const struct prefix *p, uint64_t n, struct ipaddr *ret);
/* Number of a in p, saturating at UINT64_MAX; a must be contained. */
uint64_t prefix_index(const struct prefix *p, const struct ipaddr *a);
/* Number of addresses, saturating at UINT64_MAX. */
uint64_t prefix_size(const struct prefix *p);

/* "1.2.3.4:80", "[2001:db8::1]:80". Port 0 is accepted (a listener's "any"). */
int ipport_parse(const char *text, struct ipport *ret, struct err *e) MUST_CHECK;
const char *ipport_format(const struct ipport *p, char out[IPPORT_TEXT]);
int ipport_cmp(const struct ipport *a, const struct ipport *b);
bool ipport_equal(const struct ipport *a, const struct ipport *b);
/* Fills ss and returns its length; 0 for family 0. */
socklen_t ipport_to_sockaddr(const struct ipport *p, struct sockaddr_storage *ss);
/* IPv4-mapped becomes IPv4. False for another family. */
bool ipport_from_sockaddr(const struct sockaddr *sa, struct ipport *ret);

/* Splits "host:port" or "[v6]:port" (host may be a name): host into out (cap bytes, NUL added),
 * port 0..65535 (0 is a listener's "any"; who dials refuses it); without ":port" the default, if
 * that is not 0. */
int hostport_parse(const char *text, uint16_t default_port, char *out, size_t cap,
		   uint16_t *ret_port, struct err *e) MUST_CHECK;
