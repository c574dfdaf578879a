/* MagicDNS: what to do with one query. No allocation, no lock, no I/O. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "dns/view.h"
#include "dns/wire.h"

enum dns_verdict {
	DNS_ANSWERED, /* ret_len bytes are ready to send */
	DNS_FORWARD,  /* ask ret_route's resolvers */
	DNS_DROP,     /* answer nothing */
};

enum { DNS_TTL = 5, DNS_NEGATIVE_TTL = 10 };

/*
 * Answers from the view, or says whom to ask. `out` holds DNS_MESSAGE_MAX bytes; `limit` is 0 for UDP (the client's EDNS
 * size counts) or the most bytes that TCP may carry. *ret_query is set for DNS_FORWARD.
 */
enum dns_verdict dns_answer(const struct dns_view *view, const uint8_t *msg, size_t len,
			    size_t limit, uint8_t *out, size_t *ret_len,
			    struct dns_query *ret_query, const struct dns_route **ret_route);
