/* UDP sockets on a loop. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/prefix.h"

struct loop;
struct udp;

/* One datagram; borrowed until return. The callback may close the socket. */
typedef void (*udp_cb)(void *arg, const struct ipport *from, const uint8_t *data, size_t len);

/*
 * Opens a socket bound to `local` (port 0: any; family 4 or 6) and receives until udp_close(). IPv6 sockets are v6-only.
 * Datagrams above 64 KiB - 1 cannot arrive. Errors name the address.
 */
MUST_CHECK int udp_open(struct loop *loop, const struct ipport *local, udp_cb cb, void *arg,
			struct udp **ret_udp, struct err *err);

/*
 * Sends one datagram now (copied by the kernel). Returns 0 or -errno; a full socket buffer (-EAGAIN) drops the datagram,
 * as the network may.
 */
MUST_CHECK int udp_send(struct udp *udp, const struct ipport *to, const void *data, size_t len);

/* The bound address. */
void udp_local(const struct udp *udp, struct ipport *ret);

/* SO_MARK; needs CAP_NET_ADMIN. Returns 0 or -errno. */
MUST_CHECK int udp_set_mark(struct udp *udp, uint32_t mark);

/* No callback comes any more; the pointer is dead. NULL ok. */
void udp_close(struct udp *udp);
