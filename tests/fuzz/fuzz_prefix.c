/* LIBS: base
 * Addresses, prefixes and endpoints: what is accepted keeps its meaning through its text. */
#include "base/err.h"
#include "base/mem.h"
#include "base/prefix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = mem_strndup((const char *)data, size);
	char out[PREFIX_TEXT];
	char port_out[IPPORT_TEXT];
	char host[254];
	struct ipaddr a, a2;
	struct prefix p, p2;
	struct ipport i, i2;
	struct err e = {0};
	uint16_t port;

	if (ipaddr_parse(text, &a, &e) == 0) {
		POST(ipaddr_parse(ipaddr_format(&a, out), &a2, &e) == 0 && ipaddr_equal(&a, &a2));
		IGNORE(ipaddr_is_unicast(&a));
	}
	if (prefix_parse(text, &p, &e) == 0) {
		POST(prefix_valid(&p) && prefix_contains(&p, &p.addr) && prefix_covers(&p, &p));
		POST(prefix_parse(prefix_format(&p, out), &p2, &e) == 0 && prefix_equal(&p, &p2));
		POST(prefix_index(&p, &p.addr) == 0);
	}
	if (prefix_parse_host(text, &p, &e) == 0) {
		p2 = prefix_masked(&p);
		POST(prefix_valid(&p2) && prefix_contains(&p2, &p.addr));
	}
	if (ipport_parse(text, &i, &e) == 0) {
		POST(ipport_parse(ipport_format(&i, port_out), &i2, &e) == 0);
		POST(ipport_equal(&i, &i2));
	}
	IGNORE(hostport_parse(text, 0, host, sizeof(host), &port, &e) < 0);
	IGNORE(hostport_parse(text, 80, host, sizeof(host), &port, NULL) < 0);
	mem_free(text);
	return 0;
}
