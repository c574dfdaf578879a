/* Queries of anybody and responses of resolvers: LIBS: dns net base */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dns/answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct dns_view *view(void)
{
	static struct dns_view *v;
	struct ipaddr a = {.family = 4, .b = {100, 64, 0, 7}};
	struct dns_host host = {"laptop", &a, 1};
	struct ipport resolver = {.addr = a, .port = 53};
	struct dns_route route = {"", &resolver, 1};
	struct dns_zone zone = {.base_domain = "home.internal",
				.hosts = &host,
				.n_hosts = 1,
				.routes = &route,
				.n_routes = 1};

	if (!v && dns_view_new(&zone, &v, NULL) < 0)
		abort();
	return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t out[DNS_MESSAGE_MAX];
	const struct dns_route *route;
	struct dns_response r;
	struct dns_query q;
	size_t n = 0;

	if (size > DNS_MESSAGE_MAX)
		return 0;
	for (size_t limit = 0; limit <= DNS_MESSAGE_MAX; limit += DNS_MESSAGE_MAX) {
		if (dns_answer(view(), data, size, limit, out, &n, &q, &route) == DNS_ANSWERED) {
			if (n < DNS_HEADER || n > DNS_MESSAGE_MAX || memcmp(out, data, 2) != 0 ||
			    !(out[2] & 0x80))
				abort();
		}
	}
	if (wire_response(data, size, &r)) {
		memcpy(out, data, size);
		n = wire_truncate(out, size, 100);
		if (n > MAX(size, (size_t)DNS_HEADER) || (size > 100 && n > 100))
			abort();
		(void)wire_same_question(data, size, out, n);
	}
	return 0;
}
