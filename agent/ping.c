/* Ping: ICMP echoes from the agent through the tunnel, one event per echo. */
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/local_int.h"
#include "base/clock.h"
#include "base/enc.h"
#include "base/mem.h"
#include "base/rand.h"
#include "net/poll.h"

enum {
	PINGS_MAX = 32, /* at a time */
	RING = 4096, /* echoes that may be out: the longest timeout over the shortest interval is less */
	INTERVAL_MIN_MS = 10,
	TIMEOUT_MAX_MS = 30000,
	SIZE_MAX_BYTES = 1200,
};

struct echo {
	uint64_t sent_ns; /* 0: none, or answered */
};

struct ping {
	struct list node;
	struct local *local;
	struct rpc_ref ref;
	int fd;
	struct loop_poll *poll;
	struct loop_timer send;
	struct loop_timer expire;
	char name[LIM_DOMAIN + 1];
	uint64_t node_id; /* 0: this device */
	struct ipaddr addr;
	uint16_t id;
	uint32_t count; /* 0 = endless */
	uint32_t interval_ms;
	uint32_t timeout_ms;
	uint32_t size;
	uint32_t next;   /* sequence to send */
	uint32_t oldest; /* first that is not settled */
	struct echo ring[RING];
};

void ping_free(struct ping *p)
{
	list_remove(&p->node);
	loop_timer_stop(&p->send);
	loop_timer_stop(&p->expire);
	loop_poll_free(p->poll);
	if (p->fd >= 0) {
		close(p->fd);
	}
	mem_free(p);
}

void pings_free(struct local *local)
{
	struct list *node;

	while ((node = list_pop(&local->pings)) != NULL) {
		ping_free(LIST_ENTRY(node, struct ping, node));
	}
}

static void on_cancel(void *arg, struct rpc_call *call, const struct err *why)
{
	(void)call;
	(void)why;
	ping_free(arg);
}

/* ---- Who ----------------------------------------------------------------------------------------------------------- */

static bool pick_address(const struct ipaddr *addrs, size_t stride, size_t n, bool ipv6,
			 struct ipaddr *ret)
{
	for (size_t i = 0; i < n; i++) {
		const struct ipaddr *addr =
			(const struct ipaddr *)((const char *)addrs + i * stride);

		if (addr->family == (ipv6 ? 6 : 4)) {
			*ret = *addr;
			return true;
		}
	}
	return false;
}

/* "name" or "name.base-domain" against a node's name. */
static bool name_matches(const struct admitted *ad, const char *target, const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || strncasecmp(target, name, len) != 0) {
		return false;
	}
	target += len;
	if (*target == '.' && ad->base_domain[0] != '\0' &&
	    strncasecmp(target + 1, ad->base_domain, strlen(ad->base_domain)) == 0) {
		target += 1 + strlen(ad->base_domain);
	}
	return target[0] == '\0' || strcmp(target, ".") == 0;
}

static bool has_address(const struct ipaddr *addrs, size_t stride, size_t n,
			const struct ipaddr *addr)
{
	for (size_t i = 0; i < n; i++) {
		if (ipaddr_equal((const struct ipaddr *)((const char *)addrs + i * stride), addr)) {
			return true;
		}
	}
	return false;
}

static int find_target(struct ping *p, const char *target, bool ipv6, struct err *e)
{
	const struct admitted *ad = &p->local->a->admitted;
	struct ipaddr addr;
	bool is_addr = ipaddr_parse(target, &addr, NULL) >= 0;

	if (is_addr ? has_address(ad->addresses, sizeof(*ad->addresses), ad->n_addresses, &addr)
		    : name_matches(ad, target, ad->name)) {
		strcpy(p->name, ad->name);
		if (is_addr) {
			p->addr = addr;
			return 0;
		}
		if (pick_address(ad->addresses, sizeof(*ad->addresses), ad->n_addresses, ipv6,
				 &p->addr)) {
			return 0;
		}
		return err_reason(e, ERR_NOT_FOUND, "NO_SUCH_PEER", "%s has no such address",
				  target);
	}
	for (size_t i = 0; i < ad->n_peers; i++) {
		const struct admitted_peer *peer = &ad->peers[i];
		const struct ipaddr *first = peer->n_addresses > 0 ? &peer->allowed->addr : NULL;

		if (first == NULL ||
		    !(is_addr ? has_address(first, sizeof(*peer->allowed), peer->n_addresses, &addr)
			      : name_matches(ad, target, peer->name))) {
			continue;
		}
		strcpy(p->name, peer->name);
		p->node_id = peer->id;
		if (is_addr) {
			p->addr = addr;
			return 0;
		}
		if (pick_address(first, sizeof(*peer->allowed), peer->n_addresses, ipv6,
				 &p->addr)) {
			return 0;
		}
		return err_reason(e, ERR_NOT_FOUND, "NO_SUCH_PEER", "%s has no IPv%c address",
				  target, ipv6 ? '6' : '4');
	}
	return err_reason(e, ERR_NOT_FOUND, "NO_SUCH_PEER",
			  "no node is called %.200s: see skerry status", target);
}

/* ---- Events -------------------------------------------------------------------------------------------------------- */

static void settle(struct ping *p)
{
	while (p->oldest < p->next && p->ring[p->oldest % RING].sent_ns == 0) {
		p->oldest++;
	}
}

/* False: the ping is over and gone. */
static bool tell(struct ping *p, uint32_t sequence, bool lost, uint64_t rtt_us)
{
	Skerry__Local__V1__PingReply reply = SKERRY__LOCAL__V1__PING_REPLY__INIT;
	struct agent *a = p->local->a;
	struct rpc_call *call = rpc_call_find(p->local->rpc, p->ref);
	char addr[IPADDR_TEXT], endpoint[IPPORT_TEXT];

	if (call == NULL) {
		ping_free(p);
		return false;
	}
	reply.name = p->name;
	reply.address = (char *)ipaddr_format(&p->addr, addr);
	reply.sequence = sequence;
	reply.lost = lost;
	reply.rtt_us = rtt_us;
	for (size_t i = 0; i < a->admitted.n_peers && p->node_id != 0; i++) {
		if (a->admitted.peers[i].id == p->node_id) {
			const struct mesh_peer *wg =
				mesh_find_peer(&a->actual, a->admitted.peers[i].key);

			if (wg != NULL && wg->endpoint.addr.family != 0) {
				reply.endpoint = (char *)ipport_format(&wg->endpoint, endpoint);
			}
		}
	}
	p->ring[sequence % RING].sent_ns = 0;
	settle(p);
	/* A caller that does not read loses lines, not memory. */
	IGNORE(rpc_call_send(call, &reply.base));
	if (p->count != 0 && p->next == p->count && p->oldest == p->next) {
		ping_free(p);
		rpc_call_finish(call, NULL);
		return false;
	}
	return true;
}

static void on_expire(void *arg)
{
	struct ping *p = arg;
	uint64_t now = clock_mono_ns(), limit = (uint64_t)p->timeout_ms * 1000000;

	while (p->oldest < p->next && now - p->ring[p->oldest % RING].sent_ns >= limit) {
		if (!tell(p, p->oldest, true, 0)) {
			return;
		}
	}
	if (p->oldest < p->next) {
		uint64_t due = p->ring[p->oldest % RING].sent_ns + limit;

		loop_timer_start(&p->expire, p->local->a->loop,
				 due > now ? (due - now) / 1000000 + 1 : 1, on_expire, p);
	}
}

static uint16_t checksum(const uint8_t *data, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < len; i += 2) {
		sum += be_get16(data + i);
	}
	if (len & 1) {
		sum += (uint32_t)data[len - 1] << 8;
	}
	while (sum >> 16) {
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return (uint16_t)~sum;
}

static void on_send(void *arg)
{
	struct ping *p = arg;
	uint8_t packet[8 + SIZE_MAX_BYTES] = {0};
	struct ipport to = {p->addr, 0};
	struct sockaddr_storage ss;
	socklen_t ss_len = ipport_to_sockaddr(&to, &ss);
	uint32_t sequence = p->next++;
	size_t len = 8 + p->size;

	packet[0] = p->addr.family == 4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST;
	be_put16(packet + 4, p->id);
	be_put16(packet + 6, (uint16_t)sequence);
	for (size_t i = 8; i < len; i++) {
		packet[i] = (uint8_t)i;
	}
	if (p->addr.family == 4) {
		be_put16(packet + 2, checksum(packet, len)); /* for IPv6 the kernel does it */
	}
	p->ring[sequence % RING].sent_ns = clock_mono_ns();
	/* What cannot be sent is a lost echo. */
	IGNORE(sendto(p->fd, packet, len, MSG_NOSIGNAL, (struct sockaddr *)&ss, ss_len) < 0);
	if (p->count == 0 || p->next < p->count) {
		loop_timer_start(&p->send, p->local->a->loop, p->interval_ms, on_send, p);
	}
	if (!loop_timer_active(&p->expire)) {
		loop_timer_start(&p->expire, p->local->a->loop, p->timeout_ms, on_expire, p);
	}
}

static void on_readable(void *arg)
{
	struct ping *p = arg;
	uint8_t packet[2048];

	for (;;) {
		struct sockaddr_storage ss;
		socklen_t ss_len = sizeof(ss);
		struct ipport from;
		ssize_t n = recvfrom(p->fd, packet, sizeof(packet), MSG_DONTWAIT,
				     (struct sockaddr *)&ss, &ss_len);
		size_t head = 0;
		uint32_t sequence;
		uint64_t sent;

		if (n < 0) {
			return;
		}
		if (p->addr.family == 4) {
			head = n > 0 ? (size_t)(packet[0] & 15) * 4
				     : 0; /* a raw socket shows the IP header */
		}
		if ((size_t)n < head + 8 ||
		    packet[head] != (p->addr.family == 4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY) ||
		    be_get16(packet + head + 4) != p->id ||
		    !ipport_from_sockaddr((struct sockaddr *)&ss, &from) ||
		    !ipaddr_equal(&from.addr, &p->addr)) {
			continue;
		}
		/* The low 16 bits, of one that is out. */
		sequence = (p->oldest & ~0xffffu) | be_get16(packet + head + 6);
		if (sequence < p->oldest) {
			sequence += 0x10000;
		}
		sent = sequence < p->next ? p->ring[sequence % RING].sent_ns : 0;
		if (sent != 0 && !tell(p, sequence, false, (clock_mono_ns() - sent) / 1000)) {
			return;
		}
	}
}

/* ---- The call ------------------------------------------------------------------------------------------------------ */

static int open_socket(struct ping *p, struct err *e)
{
	bool v4 = p->addr.family == 4;

	p->fd = socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
		       v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	if (p->fd < 0) {
		return err_errno(e, "the agent cannot open an ICMP socket");
	}
	if (!v4) {
		struct icmp6_filter filter;

		ICMP6_FILTER_SETBLOCKALL(&filter);
		ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
		IGNORE(setsockopt(p->fd, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof(filter)) <
		       0);
	}
	p->poll = loop_poll_new(p->local->a->loop, p->fd, on_readable, p);
	if (p->poll == NULL) {
		return err_set(e, ERR_INTERNAL, "the agent cannot watch its ICMP socket");
	}
	return 0;
}

static int check_request(const Skerry__Local__V1__PingRequest *in, const struct local *local,
			 struct err *e)
{
	const struct agent *a = local->a;

	if (!a->identity.enrolment.registered) {
		return err_reason(e, ERR_PRECONDITION, "NOT_REGISTERED",
				  "this device is not registered: skerry up");
	}
	if (!agent_is_up(a) || !a->has_admitted) {
		return err_reason(e, ERR_PRECONDITION, "IS_DOWN",
				  "the device is switched off: skerry up");
	}
	if (in->target[0] == '\0') {
		return err_field(e, ERR_INVALID, "target",
				 "say whom to ping: a name or an address of the tailnet");
	}
	if (in->interval_ms != 0 && in->interval_ms < INTERVAL_MIN_MS) {
		return err_field(e, ERR_INVALID, "interval_ms", "at least %d ms", INTERVAL_MIN_MS);
	}
	if (in->timeout_ms > TIMEOUT_MAX_MS) {
		return err_field(e, ERR_INVALID, "timeout_ms", "at most %d ms", TIMEOUT_MAX_MS);
	}
	if (in->size > SIZE_MAX_BYTES) {
		return err_field(e, ERR_INVALID, "size", "at most %d bytes", SIZE_MAX_BYTES);
	}
	if (list_len(&local->pings) >= PINGS_MAX) {
		return err_set(e, ERR_LIMIT, "%d pings are running already", PINGS_MAX);
	}
	return 0;
}

static void on_ping(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	const Skerry__Local__V1__PingRequest *in = (const Skerry__Local__V1__PingRequest *)req;
	struct local *local = arg;
	struct err e = {0};
	struct ping *p;

	if (check_request(in, local, &e) < 0) {
		rpc_call_finish(call, &e);
		return;
	}
	p = MEM_NEW(struct ping);
	p->local = local;
	p->fd = -1;
	list_init(&p->node);
	p->ref = rpc_call_ref(call);
	p->id = (uint16_t)rand_u64();
	p->count = in->count;
	p->interval_ms = in->interval_ms != 0 ? in->interval_ms : 1000;
	p->timeout_ms = in->timeout_ms != 0 ? in->timeout_ms : 2000;
	p->size = in->size != 0 ? in->size : 56;
	if (find_target(p, in->target, in->ipv6, &e) < 0 || open_socket(p, &e) < 0) {
		ping_free(p);
		rpc_call_finish(call, &e);
		return;
	}
	list_push(&local->pings, &p->node);
	rpc_call_set_cancel_cb(call, on_cancel, p);
	rpc_call_send_headers(call);
	on_send(p);
}

const struct rpc_handler local_ping_handler = {.on_call = on_ping};
