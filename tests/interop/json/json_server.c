/*
 * A server for clients of others: NodeService in a small form, health and reflection; gRPC, JSON and protobuf over POST, on
 * HTTP/2 and HTTP/1.1, with TLS and without. Prints "PORT-TLS PORT-PLAIN" and writes DIR/ca.pem; ends with its stdin.
 *
 *   json_server DIR
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/fileio.h"
#include "base/macros.h"
#include "base/mem.h"
#include "net/connect.h"
#include "net/health.h"
#include "net/http.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/reflection.h"
#include "net/rpc.h"
#include "net/tls.h"
#include "net/x509.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"

struct server {
	struct loop *loop;
	struct http_server *http;
};

static void NORETURN fail(const char *what, const struct err *err)
{
	fprintf(stderr, "json_server: %s: %s\n", what, err->msg);
	_exit(1);
}

static void get_node(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__GetNodeRequest *req = (const Skerry__V1__GetNodeRequest *)msg;
	Skerry__V1__Node node = SKERRY__V1__NODE__INIT;
	Google__Protobuf__Timestamp time;
	const char *echo = rpc_call_metadata(call, "x-echo");
	struct err err = {0};

	(void)arg;
	if (!strcmp(req->name, "missing")) {
		err_reason(&err, ERR_NOT_FOUND, "NO_NODE",
			   "there is no node \xe2\x80\x9cmissing\xe2\x80\x9d");
		snprintf(err.field, sizeof(err.field), "name");
		rpc_call_finish(call, &err);
		return;
	}
	if (!strcmp(req->name, "never"))
		return;
	if (echo)
		rpc_call_add_header(call, "x-echo", echo, strlen(echo));
	node.name = req->name;
	node.online = true;
	node.create_time = pb_timestamp_set(&time, 1700000000250);
	rpc_call_reply(call, &node.base);
}

static void list_nodes(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__ListNodesRequest *req = (const Skerry__V1__ListNodesRequest *)msg;
	Skerry__V1__ListNodesResponse answer = SKERRY__V1__LIST_NODES_RESPONSE__INIT;
	Skerry__V1__Node node = SKERRY__V1__NODE__INIT, **nodes;
	size_t n = req->page_size > 0 && req->page_size < 20000 ? (size_t)req->page_size : 3;

	(void)arg;
	nodes = mem_calloc(n, sizeof(*nodes));
	for (size_t i = 0; i < n; i++)
		nodes[i] = &node;
	node.name = req->parent;
	node.given_name = (char[]){"a-node-with-a-name-that-takes-some-room-in-the-answer"};
	answer.n_nodes = n;
	answer.nodes = nodes;
	rpc_call_reply(call, &answer.base);
	mem_free(nodes);
}

static void create_node(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__CreateNodeRequest *req = (const Skerry__V1__CreateNodeRequest *)msg;

	(void)arg;
	if (!req->node)
		rpc_call_fail(call, ERR_INVALID, "node is missing");
	else
		rpc_call_reply(call, &req->node->base);
}

static void accepted(void *arg, struct stream *stream)
{
	http_server_accept(((struct server *)arg)->http, stream, NULL);
}

static struct tls_ctx *make_tls(const char *dir)
{
	static const char *const alpn[] = {"h2", "http/1.1", NULL}, *const dns[] = {"localhost",
										    NULL};
	struct ipaddr ip = {.family = 4, .b = {127, 0, 0, 1}};
	int64_t now = clock_wall_ms();
	struct x509_spec ca_spec = {.subject = "test CA",
				    .not_before_ms = now - 3600000,
				    .not_after_ms = now + 86400000,
				    .ca = true};
	struct x509_spec spec = {.subject = "json_server",
				 .dns = dns,
				 .ips = &ip,
				 .n_ips = 1,
				 .not_before_ms = now - 3600000,
				 .not_after_ms = now + 86400000,
				 .server = true};
	struct buf ca_pem = BUF_INIT, pem = BUF_INIT, key_pem = BUF_INIT;
	struct x509_key *ca, *key;
	uint8_t pub[X509_PUB_MAX];
	struct tls_server_opts opts = {.alpn = alpn, .alpn_optional = true};
	struct tls_ctx *ctx;
	struct err err = {0};
	char path[4096];
	size_t len;

	if (x509_key_new(X509_KEY_P256, &ca, &err) < 0 ||
	    x509_key_new(X509_KEY_P256, &key, &err) < 0 ||
	    x509_make_ca(ca, &ca_spec, &ca_pem, &err) < 0)
		fail("CA", &err);
	len = x509_key_pub(key, pub);
	if (x509_issue(ca, buf_str(&ca_pem), X509_KEY_P256, pub, len, &spec, &pem, &err) < 0 ||
	    x509_key_pem(key, &key_pem) < 0)
		fail("certificate", &err);
	opts.cert.chain_pem = buf_str(&pem);
	opts.cert.key_pem = buf_str(&key_pem);
	if (tls_server_new(&opts, &ctx, &err) < 0)
		fail("TLS", &err);
	snprintf(path, sizeof(path), "%s/ca.pem", dir);
	if (file_write_atomic(path, ca_pem.data, ca_pem.len, 0644, &err) < 0)
		fail(path, &err);
	x509_key_free(ca);
	x509_key_free(key);
	buf_done(&ca_pem);
	buf_done(&pem);
	buf_done(&key_pem);
	return ctx;
}

static void on_stdin(uv_poll_t *poll, int status, int events)
{
	struct server *s = poll->data;
	char byte;

	(void)status;
	(void)events;
	if (read(0, &byte, 1) <= 0) {
		uv_poll_stop(poll);
		loop_stop(s->loop);
	}
}

static void serve(const char *dir)
{
	static const struct rpc_handler get = {.on_call = get_node}, list = {.on_call = list_nodes},
					create = {.on_call = create_node};
	struct server s = {.loop = loop_new("json")};
	struct rpc_server *rpc = rpc_server_new(s.loop, "json");
	struct http_router *router = http_router_new();
	struct tls_ctx *ctx = make_tls(dir);
	struct tls_slot *slot = tls_slot_new(ctx);
	struct listener_opts tls = {.address = "127.0.0.1:0", .tls = slot},
			     plain = {.address = "127.0.0.1:0"};
	struct listener *tls_listener, *plain_listener;
	struct health *health;
	struct err err = {0};
	uv_poll_t poll;

	rpc_server_add(rpc, "/skerry.v1.NodeService/GetNode", &get, NULL);
	rpc_server_add(rpc, "/skerry.v1.NodeService/ListNodes", &list, NULL);
	rpc_server_add(rpc, "/skerry.v1.NodeService/CreateNode", &create, NULL);
	health = health_new(rpc);
	reflection_add(rpc);
	rpc_server_mount(rpc, router, false);
	connect_mount(rpc, router);
	s.http = http_server_new(s.loop, router);
	if (listener_new(s.loop, &tls, accepted, &s, &tls_listener, &err) < 0 ||
	    listener_new(s.loop, &plain, accepted, &s, &plain_listener, &err) < 0)
		fail("listen", &err);
	printf("%u %u\n", listener_port(tls_listener), listener_port(plain_listener));
	fflush(stdout);
	uv_poll_init(loop_uv(s.loop), &poll, 0);
	poll.data = &s;
	uv_poll_start(&poll, UV_READABLE, on_stdin);
	loop_run(s.loop);

	listener_free(tls_listener);
	listener_free(plain_listener);
	http_server_free(s.http);
	http_router_free(router);
	rpc_server_free(rpc);
	health_free(health);
	tls_slot_free(slot);
	tls_unref(ctx);
	uv_close((uv_handle_t *)&poll, NULL);
	loop_free(s.loop);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: json_server DIR\n");
		return 64;
	}
	crypto_init();
	serve(argv[1]);
	return 0;
}
