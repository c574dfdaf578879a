#include "dns/server.h"

#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "dns/answer.h"
#include "dns/forward.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/stream.h"
#include "net/udp.h"

enum { TCP_IDLE_MS = 45000, TCP_QUERY_MAX = 4096 };

struct socket {
	struct dns_server *server;
	struct udp *udp;
	struct listener *listener;
	struct ipport local;
};

struct dns_server {
	struct loop *loop;
	struct dns_view *view;
	struct dns_forwarder *forwarder;
	struct socket *sockets;
	size_t n;
	struct list conns;     /* of struct conn */
	struct list datagrams; /* of struct datagram */
	size_t n_conns;
	struct metric *answered, *forwarded, *dropped, *refused;
	uint8_t out[DNS_MESSAGE_MAX];
};

/* A UDP client that waits for a forwarded answer. */
struct datagram {
	struct list link;
	struct socket *socket;
	struct ipport from;
	size_t limit; /* what it takes */
};

/* A TCP client. It is freed when it is closed and nothing is being forwarded for it. */
struct conn {
	struct list link;
	struct dns_server *server;
	struct stream *stream; /* NULL: closed */
	struct buf in;
	struct loop_timer idle;
	size_t waiting; /* forwarded queries */
};

static void datagram_forwarded(void *arg, uint8_t *msg, size_t len)
{
	struct datagram *d = arg;

	len = wire_truncate(msg, len, d->limit);
	IGNORE(udp_send(d->socket->udp, &d->from, msg, len));
	list_remove(&d->link);
	mem_free(d);
}

/* SERVFAIL for a query that was understood. */
static size_t failure(struct dns_server *s, const uint8_t *msg, const struct dns_query *q)
{
	struct dns_answer a;

	wire_begin(&a, s->out, DNS_MESSAGE_MAX, msg, q, false);
	return wire_finish(&a, q, DNS_SERVFAIL);
}

static void udp_query(void *arg, const struct ipport *from, const uint8_t *msg, size_t len)
{
	struct socket *socket = arg;
	struct dns_server *s = socket->server;
	const struct dns_route *route;
	struct dns_query q;
	struct datagram *d;
	size_t n;

	switch (dns_answer(s->view, msg, len, 0, s->out, &n, &q, &route)) {
	case DNS_DROP: counter_add(s->dropped, 1); return;
	case DNS_ANSWERED:
		counter_add(s->answered, 1);
		IGNORE(udp_send(socket->udp, from, s->out, n));
		return;
	case DNS_FORWARD: break;
	}
	d = mem_zalloc(sizeof(*d));
	d->socket = socket;
	d->from = *from;
	d->limit = q.edns_size;
	list_push(&s->datagrams, &d->link);
	if (dns_forward(s->forwarder, msg, len, route, false, datagram_forwarded, d) < 0) {
		counter_add(s->refused, 1);
		list_remove(&d->link);
		mem_free(d);
		n = failure(s, msg, &q);
		IGNORE(udp_send(socket->udp, from, s->out, n));
		return;
	}
	counter_add(s->forwarded, 1);
}

static void conn_release(struct conn *c)
{
	if (c->stream || c->waiting)
		return;
	loop_timer_stop(&c->idle);
	list_remove(&c->link);
	c->server->n_conns--;
	buf_done(&c->in);
	mem_free(c);
}

static void conn_close(struct conn *c)
{
	stream_close(c->stream);
	c->stream = NULL;
	conn_release(c);
}

static void conn_idle(void *arg)
{
	conn_close(arg);
}

static void conn_send(struct conn *c, const uint8_t *msg, size_t len)
{
	uint8_t prefix[2] = {(uint8_t)(len >> 8), (uint8_t)len};

	if (!c->stream)
		return;
	/* A client that does not read its answers is not waited for. */
	if (stream_write(c->stream, prefix, 2) < 0 || stream_write(c->stream, msg, len) < 0) {
		stream_abort(c->stream);
		c->stream = NULL;
	}
}

static void conn_forwarded(void *arg, uint8_t *msg, size_t len)
{
	struct conn *c = arg;

	c->waiting--;
	conn_send(c, msg, len);
	conn_release(c);
}

static void conn_query(struct conn *c, const uint8_t *msg, size_t len)
{
	struct dns_server *s = c->server;
	const struct dns_route *route;
	struct dns_query q;
	size_t n;

	switch (dns_answer(s->view, msg, len, DNS_MESSAGE_MAX, s->out, &n, &q, &route)) {
	case DNS_DROP: counter_add(s->dropped, 1); return;
	case DNS_ANSWERED:
		counter_add(s->answered, 1);
		conn_send(c, s->out, n);
		return;
	case DNS_FORWARD: break;
	}
	if (dns_forward(s->forwarder, msg, len, route, true, conn_forwarded, c) < 0) {
		counter_add(s->refused, 1);
		n = failure(s, msg, &q);
		conn_send(c, s->out, n);
		return;
	}
	counter_add(s->forwarded, 1);
	c->waiting++;
}

static void conn_data(void *arg, const uint8_t *data, size_t len)
{
	struct conn *c = arg;

	buf_append(&c->in, data, len);
	while (c->stream && c->in.len >= 2) {
		size_t want = (size_t)c->in.data[0] << 8 | c->in.data[1];

		if (want > TCP_QUERY_MAX) {
			conn_close(c);
			return;
		}
		if (c->in.len < want + 2)
			break;
		conn_query(c, c->in.data + 2, want);
		buf_consume(&c->in, want + 2);
	}
	if (!c->stream) {
		conn_release(c);
		return;
	}
	loop_timer_start(&c->idle, c->server->loop, TCP_IDLE_MS, conn_idle, c);
}

static void conn_closed(void *arg, const struct err *err)
{
	struct conn *c = arg;

	(void)err;
	c->stream = NULL;
	loop_timer_stop(&c->idle);
	conn_release(c);
}

static void tcp_accepted(void *arg, struct stream *stream)
{
	static const struct stream_handler handler = {.on_data = conn_data,
						      .on_close = conn_closed};
	struct socket *socket = arg;
	struct dns_server *s = socket->server;
	struct conn *c;

	if (s->n_conns >= LIM_DNS_TCP_CONNS) {
		counter_add(s->refused, 1);
		stream_abort(stream);
		return;
	}
	c = mem_zalloc(sizeof(*c));
	c->server = s;
	c->stream = stream;
	list_push(&s->conns, &c->link);
	s->n_conns++;
	loop_timer_start(&c->idle, s->loop, TCP_IDLE_MS, conn_idle, c);
	stream_set_handler(stream, &handler, c);
}

static int socket_open(struct dns_server *s, struct socket *k, const struct ipport *local,
		       struct err *err)
{
	struct listener_opts o = {.exempt_limits = true, .max_conns = LIM_DNS_TCP_CONNS};
	char text[IPPORT_TEXT];
	int rc;

	k->server = s;
	rc = udp_open(s->loop, local, udp_query, k, &k->udp, err);
	if (rc < 0)
		return rc;
	udp_local(k->udp, &k->local);
	o.address = ipport_format(&k->local, text);
	return listener_new(s->loop, &o, tcp_accepted, k, &k->listener, err);
}

int dns_server_new(struct loop *loop, const struct dns_server_opts *opts, struct dns_view *view,
		   struct dns_server **ret_server, struct err *err)
{
	struct dns_server *s = mem_zalloc(sizeof(*s));
	const char *help = "DNS queries by what became of them";
	int rc = 0;

	s->loop = loop;
	s->view = dns_view_ref(view);
	s->forwarder = dns_forwarder_new(loop, opts->mark);
	list_init(&s->conns);
	list_init(&s->datagrams);
	s->answered = metrics_counter("skerry_dns_queries_total", help, "result=\"answered\"");
	s->forwarded = metrics_counter("skerry_dns_queries_total", help, "result=\"forwarded\"");
	s->dropped = metrics_counter("skerry_dns_queries_total", help, "result=\"dropped\"");
	s->refused = metrics_counter("skerry_dns_queries_total", help, "result=\"limit\"");
	s->sockets = mem_calloc(opts->n_listen, sizeof(*s->sockets));
	for (size_t i = 0; rc >= 0 && i < opts->n_listen; i++) {
		s->n = i + 1;
		rc = socket_open(s, &s->sockets[i], &opts->listen[i], err);
	}
	if (rc < 0) {
		dns_server_free(s);
		return rc;
	}
	*ret_server = s;
	return 0;
}

void dns_server_set_view(struct dns_server *server, struct dns_view *view)
{
	struct dns_view *old = server->view;

	server->view = dns_view_ref(view);
	dns_view_unref(old);
}

void dns_server_local(const struct dns_server *server, size_t i, struct ipport *ret)
{
	PRE(i < server->n);
	*ret = server->sockets[i].local;
}

void dns_server_free(struct dns_server *server)
{
	struct list *l;

	if (!server)
		return;
	dns_forwarder_free(server->forwarder);
	while ((l = list_pop(&server->datagrams)))
		mem_free(container_of(l, struct datagram, link));
	while (!list_empty(&server->conns)) {
		struct conn *c = container_of(server->conns.next, struct conn, link);

		c->waiting = 0; /* the forwarder is gone, no callback comes */
		conn_close(c);
	}
	for (size_t i = 0; i < server->n; i++) {
		udp_close(server->sockets[i].udp);
		listener_free(server->sockets[i].listener);
	}
	mem_free(server->sockets);
	dns_view_unref(server->view);
	mem_free(server);
}
