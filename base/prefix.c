#include "base/prefix.h"

#include "base/enc.h"
#include "base/err.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* Bits of the family, 0 for none. */
static unsigned family_bits(const struct ipaddr *a)
{
	return a->family == 4 ? 32 : a->family == 6 ? 128 : 0;
}

size_t ipaddr_len(const struct ipaddr *a)
{
	return family_bits(a) / 8;
}

/* inet_pton of glibc is strict already: no leading zeros, no hex, no zone, no short forms. */
int ipaddr_parse(const char *text, struct ipaddr *ret, struct err *e)
{
	struct ipaddr a = {0};

	if (inet_pton(AF_INET, text, a.b) == 1) {
		a.family = 4;
	} else if (inet_pton(AF_INET6, text, a.b) == 1) {
		a.family = 6;
	} else if (strchr(text, '%') != NULL) {
		return err_set(e, ERR_INVALID, "\"%.60s\": an address may not carry a zone", text);
	} else {
		return err_set(e, ERR_INVALID,
			       "\"%.60s\" is not an IP address; expected such as 100.64.0.1 or "
			       "fd7a:115c:a1e0::1",
			       text);
	}
	*ret = a;
	return 0;
}

const char *ipaddr_format(const struct ipaddr *a, char out[IPADDR_TEXT])
{
	if (a->family != 4 && a->family != 6) {
		memcpy(out, "none", 5);
	} else if (inet_ntop(a->family == 4 ? AF_INET : AF_INET6, a->b, out, IPADDR_TEXT) == NULL) {
		IMPOSSIBLE("an address that has no text");
	}
	return out;
}

int ipaddr_cmp(const struct ipaddr *a, const struct ipaddr *b)
{
	if (a->family != b->family) {
		return a->family < b->family ? -1 : 1;
	}
	return memcmp(a->b, b->b, sizeof(a->b));
}

bool ipaddr_equal(const struct ipaddr *a, const struct ipaddr *b)
{
	return ipaddr_cmp(a, b) == 0;
}

bool ipaddr_from_bytes(const void *data, size_t len, struct ipaddr *ret)
{
	struct ipaddr a = {0};

	if (len != 4 && len != 16) {
		return false;
	}
	a.family = len == 4 ? 4 : 6;
	memcpy(a.b, data, len);
	*ret = a;
	return true;
}

struct ipaddr ipaddr_unmap(const struct ipaddr *a)
{
	struct ipaddr v4 = {.family = 4};

	if (a->family != 6 || memcmp(a->b, mapped, sizeof(mapped)) != 0) {
		return *a;
	}
	memcpy(v4.b, a->b + 12, 4);
	return v4;
}

bool ipaddr_is_unspecified(const struct ipaddr *a)
{
	static const uint8_t zero[16];

	return a->family != 0 && memcmp(a->b, zero, sizeof(zero)) == 0;
}

bool ipaddr_is_loopback(const struct ipaddr *a)
{
	static const uint8_t one[16] = {[15] = 1};

	return a->family == 4 ? a->b[0] == 127
			      : a->family == 6 && memcmp(a->b, one, sizeof(one)) == 0;
}

bool ipaddr_is_link_local(const struct ipaddr *a)
{
	return a->family == 4 ? a->b[0] == 169 && a->b[1] == 254
			      : a->family == 6 && a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80;
}

bool ipaddr_is_multicast(const struct ipaddr *a)
{
	static const uint8_t broadcast[4] = {255, 255, 255, 255};

	return a->family == 4 ? (a->b[0] & 0xf0) == 0xe0 || memcmp(a->b, broadcast, 4) == 0
			      : a->family == 6 && a->b[0] == 0xff;
}

bool ipaddr_is_cgnat(const struct ipaddr *a)
{
	return a->family == 4 && a->b[0] == 100 && (a->b[1] & 0xc0) == 64;
}

bool ipaddr_is_ula(const struct ipaddr *a)
{
	return a->family == 6 && (a->b[0] & 0xfe) == 0xfc;
}

bool ipaddr_is_private(const struct ipaddr *a)
{
	return a->family == 4 && (a->b[0] == 10 || (a->b[0] == 172 && (a->b[1] & 0xf0) == 16) ||
				  (a->b[0] == 192 && a->b[1] == 168));
}

bool ipaddr_is_unicast(const struct ipaddr *a)
{
	struct ipaddr u = ipaddr_unmap(a);

	if (u.family == 0 || ipaddr_is_unspecified(&u) || ipaddr_is_loopback(&u) ||
	    ipaddr_is_link_local(&u) || ipaddr_is_multicast(&u)) {
		return false;
	}
	return u.family == 6 || (u.b[0] != 0 && u.b[0] < 240);
}

/* 1..5 digits without leading zero, at most max; -1 otherwise. */
static long number_parse(const char *text, long max)
{
	size_t len = strspn(text, "0123456789");
	long v;

	if (len == 0 || len > 5 || text[len] != '\0' || (len > 1 && text[0] == '0')) {
		return -1;
	}
	v = strtol(text, NULL, 10);
	return v <= max ? v : -1;
}

int prefix_parse_host(const char *text, struct prefix *ret, struct err *e)
{
	const char *slash = strchr(text, '/');
	char addr[IPADDR_TEXT];
	struct prefix p;
	long len;
	int rv;

	if (slash == NULL) {
		rv = ipaddr_parse(text, &p.addr, e);
		if (rv == 0) {
			*ret = prefix_of(&p.addr);
		}
		return rv;
	}
	if ((size_t)(slash - text) >= sizeof(addr)) {
		return err_set(e, ERR_INVALID, "\"%.60s\" is not a prefix", text);
	}
	memcpy(addr, text, (size_t)(slash - text));
	addr[slash - text] = '\0';
	rv = ipaddr_parse(addr, &p.addr, e);
	if (rv < 0) {
		return rv;
	}
	len = number_parse(slash + 1, family_bits(&p.addr));
	if (len < 0) {
		return err_set(e, ERR_INVALID,
			       "\"%.60s\": the length after the slash must be 0 to %u", text,
			       family_bits(&p.addr));
	}
	p.len = (uint8_t)len;
	*ret = p;
	return 0;
}

int prefix_parse(const char *text, struct prefix *ret, struct err *e)
{
	char meant[PREFIX_TEXT];
	struct prefix masked;
	struct prefix p;
	int rv = prefix_parse_host(text, &p, e);

	if (rv < 0) {
		return rv;
	}
	masked = prefix_masked(&p);
	if (!prefix_equal(&masked, &p)) {
		return err_set(e, ERR_INVALID,
			       "\"%.60s\" has bits set behind its length; meant is "
			       "perhaps %s",
			       text, prefix_format(&masked, meant));
	}
	*ret = p;
	return 0;
}

const char *prefix_format(const struct prefix *p, char out[PREFIX_TEXT])
{
	char addr[IPADDR_TEXT];

	snprintf(out, PREFIX_TEXT, "%s/%u", ipaddr_format(&p->addr, addr), p->len);
	return out;
}

int prefix_cmp(const struct prefix *a, const struct prefix *b)
{
	int c = ipaddr_cmp(&a->addr, &b->addr);

	return c != 0 ? c : (int)a->len - (int)b->len;
}

bool prefix_equal(const struct prefix *a, const struct prefix *b)
{
	return prefix_cmp(a, b) == 0;
}

struct prefix prefix_masked(const struct prefix *p)
{
	struct prefix m = *p;

	for (unsigned i = 0; i < 16; i++) {
		unsigned from = i * 8;

		if (from >= p->len) {
			m.addr.b[i] = 0;
		} else if (p->len - from < 8) {
			m.addr.b[i] &= (uint8_t)(0xff << (8 - (p->len - from)));
		}
	}
	return m;
}

bool prefix_valid(const struct prefix *p)
{
	struct prefix m;

	if (family_bits(&p->addr) == 0 || p->len > family_bits(&p->addr)) {
		return false;
	}
	m = prefix_masked(p);
	return prefix_equal(&m, p);
}

struct prefix prefix_of(const struct ipaddr *a)
{
	return (struct prefix){*a, (uint8_t)family_bits(a)};
}

bool prefix_contains(const struct prefix *p, const struct ipaddr *a)
{
	unsigned bytes = p->len / 8;
	unsigned bits = p->len % 8;

	if (p->addr.family != a->family || a->family == 0 || p->len > family_bits(a)) {
		return false;
	}
	if (memcmp(p->addr.b, a->b, bytes) != 0) {
		return false;
	}
	return bits == 0 || ((p->addr.b[bytes] ^ a->b[bytes]) >> (8 - bits)) == 0;
}

bool prefix_covers(const struct prefix *outer, const struct prefix *inner)
{
	return outer->len <= inner->len && prefix_contains(outer, &inner->addr);
}

bool prefix_overlaps(const struct prefix *a, const struct prefix *b)
{
	return prefix_covers(a, b) || prefix_covers(b, a);
}

bool prefix_is_default(const struct prefix *p)
{
	return p->addr.family != 0 && p->len == 0;
}

uint64_t prefix_size(const struct prefix *p)
{
	unsigned host = family_bits(&p->addr) - p->len;

	return host >= 64 ? UINT64_MAX : 1ull << host;
}

bool prefix_nth(const struct prefix *p, uint64_t n, struct ipaddr *ret)
{
	struct prefix m = prefix_masked(p);
	struct ipaddr a = m.addr;
	unsigned host = family_bits(&a) - p->len;

	if (a.family == 0 || (host < 64 && n >> host != 0)) {
		return false;
	}
	/* The host bits are zero and n fits into them, so nothing carries. */
	for (size_t i = ipaddr_len(&a); i > 0 && n > 0; i--) {
		a.b[i - 1] |= (uint8_t)n;
		n >>= 8;
	}
	*ret = a;
	return true;
}

uint64_t prefix_index(const struct prefix *p, const struct ipaddr *a)
{
	struct prefix m = prefix_masked(p);
	size_t len = ipaddr_len(a);
	uint64_t n = 0;

	PRE(prefix_contains(p, a));
	for (size_t i = 0; i < len; i++) {
		uint8_t host = (uint8_t)(a->b[i] ^ m.addr.b[i]);

		if (n >> 56 != 0) {
			return UINT64_MAX;
		}
		n = n << 8 | host;
	}
	return n;
}

/* Splits at the colon before the port; host gets what is before it, without brackets. */
static int split_port(const char *text, bool need_port, char *host, size_t cap,
		      const char **ret_port, struct err *e)
{
	const char *from = text;
	const char *end;
	const char *port;

	if (*text == '[') {
		from = text + 1;
		end = strchr(from, ']');
		if (end == NULL || (end[1] != ':' && end[1] != '\0')) {
			return err_set(e, ERR_INVALID, "\"%.80s\": expected [address]:port", text);
		}
		port = end[1] == ':' ? end + 2 : NULL;
	} else {
		end = strrchr(text, ':');
		if (end != NULL && strchr(text, ':') != end) {
			return err_set(e, ERR_INVALID,
				       "\"%.80s\": an IPv6 address needs brackets: [address]:port",
				       text);
		}
		port = end != NULL ? end + 1 : NULL;
		if (end == NULL) {
			end = text + strlen(text);
		}
	}
	if (port == NULL && need_port) {
		return err_set(e, ERR_INVALID, "\"%.80s\": the port is missing (host:port)", text);
	}
	if (end == from) {
		return err_set(e, ERR_INVALID, "\"%.80s\": the host is missing (host:port)", text);
	}
	if ((size_t)(end - from) >= cap) {
		return err_set(e, ERR_INVALID, "\"%.80s\": the host is too long", text);
	}
	memcpy(host, from, (size_t)(end - from));
	host[end - from] = '\0';
	*ret_port = port;
	return 0;
}

int ipport_parse(const char *text, struct ipport *ret, struct err *e)
{
	char host[IPADDR_TEXT];
	const char *port_text;
	struct ipport p;
	long port;
	int rv;

	rv = split_port(text, true, host, sizeof(host), &port_text, e);
	if (rv == 0) {
		rv = ipaddr_parse(host, &p.addr, e);
	}
	if (rv < 0) {
		return rv;
	}
	if ((p.addr.family == 6) != (*text == '[')) {
		return err_set(e, ERR_INVALID, "\"%.80s\": brackets belong around IPv6 only", text);
	}
	port = number_parse(port_text, 65535);
	if (port < 0) {
		return err_set(e, ERR_INVALID, "\"%.80s\": the port must be 0 to 65535", text);
	}
	p.port = (uint16_t)port;
	*ret = p;
	return 0;
}

const char *ipport_format(const struct ipport *p, char out[IPPORT_TEXT])
{
	char addr[IPADDR_TEXT];

	snprintf(out, IPPORT_TEXT, p->addr.family == 6 ? "[%s]:%u" : "%s:%u",
		 ipaddr_format(&p->addr, addr), p->port);
	return out;
}

int ipport_cmp(const struct ipport *a, const struct ipport *b)
{
	int c = ipaddr_cmp(&a->addr, &b->addr);

	return c != 0 ? c : (int)a->port - (int)b->port;
}

bool ipport_equal(const struct ipport *a, const struct ipport *b)
{
	return ipport_cmp(a, b) == 0;
}

socklen_t ipport_to_sockaddr(const struct ipport *p, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof(*ss));
	if (p->addr.family == 4) {
		struct sockaddr_in *sin = (struct sockaddr_in *)ss;

		sin->sin_family = AF_INET;
		sin->sin_port = htons(p->port);
		memcpy(&sin->sin_addr, p->addr.b, 4);
		return sizeof(*sin);
	}
	if (p->addr.family == 6) {
		struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)ss;

		sin6->sin6_family = AF_INET6;
		sin6->sin6_port = htons(p->port);
		memcpy(&sin6->sin6_addr, p->addr.b, 16);
		return sizeof(*sin6);
	}
	return 0;
}

bool ipport_from_sockaddr(const struct sockaddr *sa, struct ipport *ret)
{
	struct ipport p = {0};

	if (sa->sa_family == AF_INET) {
		struct sockaddr_in sin;

		memcpy(&sin, sa, sizeof(sin));
		p.addr.family = 4;
		memcpy(p.addr.b, &sin.sin_addr, 4);
		p.port = ntohs(sin.sin_port);
	} else if (sa->sa_family == AF_INET6) {
		struct sockaddr_in6 sin6;

		memcpy(&sin6, sa, sizeof(sin6));
		p.addr.family = 6;
		memcpy(p.addr.b, &sin6.sin6_addr, 16);
		p.addr = ipaddr_unmap(&p.addr);
		p.port = ntohs(sin6.sin6_port);
	} else {
		return false;
	}
	*ret = p;
	return true;
}

int hostport_parse(const char *text, uint16_t default_port, char *out, size_t cap,
		   uint16_t *ret_port, struct err *e)
{
	char host[254];
	const char *port_text;
	struct ipaddr a;
	long port = default_port;
	int rv;

	/* An IPv6 address alone, without brackets and port, is what people write. */
	if (default_port != 0 && ipaddr_parse(text, &a, NULL) == 0) {
		rv = snprintf(host, sizeof(host), "%s", text) < 0 ? ERR_INVALID : 0;
		port_text = NULL;
	} else {
		rv = split_port(text, default_port == 0, host, sizeof(host), &port_text, e);
	}
	if (rv < 0) {
		return rv;
	}
	if (port_text != NULL) {
		port = number_parse(port_text, 65535);
		if (port < 0) {
			return err_set(e, ERR_INVALID, "\"%.80s\": the port must be 0 to 65535",
				       text);
		}
	}
	for (const char *p = host; *p != '\0'; p++) {
		if (*p <= 0x20 || *p >= 0x7f || strchr("/@?#\\\"", *p) != NULL) {
			return err_set(e, ERR_INVALID,
				       "\"%.80s\": the host has a character that no host has",
				       text);
		}
	}
	if (*text == '[' && (ipaddr_parse(host, &a, NULL) < 0 || a.family != 6)) {
		return err_set(e, ERR_INVALID, "\"%.80s\": brackets belong around IPv6 only", text);
	}
	if (strlen(host) >= cap) {
		return err_set(e, ERR_INVALID, "\"%.80s\": the host is too long", text);
	}
	memcpy(out, host, strlen(host) + 1);
	*ret_port = (uint16_t)port;
	return 0;
}
