#include <stdlib.h>
#include <string.h>

#include "base/enc.h"
#include "base/err.h"
#include "net/listen_int.h"

/* The PROXY protocol header, text (version 1) and binary (version 2), as the haproxy project's
 * specification has it. */

enum { V1_MAX = 107, V2_HEAD = 16, V2_MAX = 512, V2_INET = 0x11, V2_INET6 = 0x21 };

static const uint8_t v2_signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
					 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

static int parse_v1(const uint8_t *data, size_t len, struct ipport *ret_from, bool *ret_local)
{
	char line[V1_MAX + 1];
	const uint8_t *end = memchr(data, '\n', len < V1_MAX ? len : V1_MAX);

	if (end == NULL) {
		return len >= V1_MAX ? ERR_INVALID : 0;
	}
	size_t n = (size_t)(end - data);
	if (n < 1 || data[n - 1] != '\r' || memchr(data, '\0', n) != NULL) {
		return ERR_INVALID;
	}
	memcpy(line, data, n - 1);
	line[n - 1] = '\0';
	char *save;
	const char *word = strtok_r(line, " ", &save); /* "PROXY", by the caller */
	word = strtok_r(NULL, " ", &save);
	if (word == NULL) {
		return ERR_INVALID;
	}
	if (strcmp(word, "UNKNOWN") == 0) {
		*ret_local = true;
		return (int)n + 1;
	}
	int family = strcmp(word, "TCP4") == 0 ? 4 : strcmp(word, "TCP6") == 0 ? 6 : 0;
	const char *from = strtok_r(NULL, " ", &save);
	const char *to = strtok_r(NULL, " ", &save);
	const char *from_port = strtok_r(NULL, " ", &save);
	const char *to_port = strtok_r(NULL, " ", &save);
	struct ipport ip = {.port = 0};
	char *tail;

	if (family == 0 || to == NULL || to_port == NULL || strtok_r(NULL, " ", &save) != NULL ||
	    ipaddr_parse(from, &ip.addr, NULL) != 0 || ip.addr.family != family) {
		return ERR_INVALID;
	}
	unsigned long port = strtoul(from_port, &tail, 10);
	if (from_port[0] < '0' || from_port[0] > '9' || *tail != '\0' || port > 65535) {
		return ERR_INVALID;
	}
	ip.port = (uint16_t)port;
	*ret_from = ip;
	return (int)n + 1;
}

static int parse_v2(const uint8_t *data, size_t len, struct ipport *ret_from, bool *ret_local)
{
	if (len < V2_HEAD) {
		return 0;
	}
	size_t body = be_get16(data + 14);
	if ((data[12] >> 4) != 2 || body > V2_MAX) {
		return ERR_INVALID;
	}
	if (len < V2_HEAD + body) {
		return 0;
	}
	struct ipport ip = {.port = 0};
	const uint8_t *p = data + V2_HEAD;
	switch (data[12] & 0x0f) {
	case 0: *ret_local = true; break; /* LOCAL */
	case 1:
		if (data[13] == V2_INET && body >= 12 && ipaddr_from_bytes(p, 4, &ip.addr)) {
			ip.port = be_get16(p + 8);
		} else if (data[13] == V2_INET6 && body >= 36 &&
			   ipaddr_from_bytes(p, 16, &ip.addr)) {
			ip.addr = ipaddr_unmap(&ip.addr);
			ip.port = be_get16(p + 32);
		} else {
			return ERR_INVALID; /* datagrams, Unix sockets: nothing that comes here */
		}
		*ret_from = ip;
		break;
	default: return ERR_INVALID;
	}
	return (int)(V2_HEAD + body);
}

int proxy_parse(const uint8_t *data, size_t len, struct ipport *ret_from, bool *ret_local)
{
	*ret_local = false;
	if (memcmp(data, v2_signature, len < sizeof(v2_signature) ? len : sizeof(v2_signature)) ==
	    0) {
		return parse_v2(data, len, ret_from, ret_local);
	}
	if (memcmp(data, "PROXY ", len < 6 ? len : 6) == 0) {
		return len < 6 ? 0 : parse_v1(data, len, ret_from, ret_local);
	}
	return ERR_INVALID;
}
