/*
 * The interoperability server. Listens with TLS and plain on free ports of 127.0.0.1, prints one
 * line
 *
 *   tls=PORT h2c=PORT ca=FILE
 *
 * and serves until its standard input ends; then it drains and exits 0. Lines on standard input:
 * "stats".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "net/health.h"
#include "net/http.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/reflection.h"
#include "net/stream.h"
#include "tests/lib/certs.h"
#include "test_service.h"

struct server {
	struct loop *loop;
	struct http_router *router;
	struct http_server *http;
	struct rpc_server *rpc;
	struct health *health;
	struct listener *tls, *plain;
	uv_pipe_t in;
	char in_buf[64];
};

static void on_conn(void *arg, struct stream *stream)
{
	struct server *s = arg;

	http_server_accept(s->http, stream, NULL);
}

static void on_drained(void *arg)
{
	struct server *s = arg;

	loop_stop(s->loop);
}

static long rss_kib(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long size, rss = 0;

	if (f != NULL) {
		if (fscanf(f, "%ld %ld", &size, &rss) != 2) {
			rss = 0;
		}
		fclose(f);
	}
	return rss * (sysconf(_SC_PAGESIZE) / 1024);
}

static void on_alloc(uv_handle_t *handle, size_t want, uv_buf_t *ret)
{
	struct server *s = handle->data;

	(void)want;
	*ret = uv_buf_init(s->in_buf, sizeof(s->in_buf));
}

static void on_input(uv_stream_t *in, ssize_t n, const uv_buf_t *data)
{
	struct server *s = in->data;

	for (ssize_t i = 0; i < n; i++) {
		if (data->base[i] == '\n') {
			printf("conns=%zu calls=%zu streams=%u cancelled=%u rss=%ld\n",
			       http_server_conns(s->http), rpc_server_calls(s->rpc),
			       test_service_stats.open_streams, test_service_stats.cancelled,
			       rss_kib());
			fflush(stdout);
		}
	}
	if (n < 0) {
		uv_close((uv_handle_t *)in, NULL);
		listener_stop(s->tls);
		listener_stop(s->plain);
		rpc_server_drain(s->rpc, 100);
		http_server_drain(s->http, 3000, on_drained, s);
	}
}

static void healthz(void *arg, struct http_request *req)
{
	(void)arg;
	http_set_handler(req, &http_ignore_handler, NULL);
	http_reply_text(req, 200, "ok\n");
}

int main(int argc, char **argv)
{
	struct server s = {0};
	struct test_ca ca;
	struct test_cert cert;
	struct tls_ctx *ctx;
	struct err err = {0};
	const char *const alpn[] = {"h2", "http/1.1", NULL};

	if (argc != 2) {
		fprintf(stderr, "usage: interop_server CA-FILE < control > answers\n");
		return 2;
	}
	crypto_init();
	s.loop = loop_new("interop");
	s.router = http_router_new();
	s.rpc = rpc_server_new(s.loop, "interop");
	test_service_add(s.rpc);
	s.health = health_new(s.rpc);
	reflection_add(s.rpc);
	rpc_server_mount(s.rpc, s.router, true);
	http_mount(s.router, HTTP_MATCH_EXACT, "/healthz", healthz, NULL);
	s.http = http_server_new(s.loop, s.router);

	test_ca_init(&ca, "interop CA");
	test_cert_init(&cert, &ca, X509_KEY_P256, "localhost", NULL);
	FILE *f = fopen(argv[1], "w");
	if (f == NULL || fputs(ca.pem, f) < 0 || fclose(f) != 0) {
		perror(argv[1]);
		return 1;
	}
	const struct tls_server_opts tls_opts = {
		.cert = {.chain_pem = cert.chain, .key_pem = cert.key_pem},
		.alpn = alpn,
		.alpn_optional = true,
	};
	if (tls_server_new(&tls_opts, &ctx, &err) != 0) {
		fprintf(stderr, "%s\n", err.msg);
		return 1;
	}
	struct tls_slot *slot = tls_slot_new(ctx);
	const struct listener_opts with_tls = {.address = "127.0.0.1:0", .tls = slot};
	const struct listener_opts without = {.address = "127.0.0.1:0"};
	if (listener_new(s.loop, &with_tls, on_conn, &s, &s.tls, &err) != 0 ||
	    listener_new(s.loop, &without, on_conn, &s, &s.plain, &err) != 0) {
		fprintf(stderr, "%s\n", err.msg);
		return 1;
	}
	uv_pipe_init(loop_uv(s.loop), &s.in, 0);
	uv_pipe_open(&s.in, 0);
	s.in.data = &s;
	uv_read_start((uv_stream_t *)&s.in, on_alloc, on_input);
	printf("tls=%u h2c=%u ca=%s\n", (unsigned)listener_port(s.tls),
	       (unsigned)listener_port(s.plain), argv[1]);
	fflush(stdout);
	loop_run(s.loop);

	listener_free(s.tls);
	listener_free(s.plain);
	http_server_free(s.http);
	rpc_server_free(s.rpc);
	health_free(s.health);
	http_router_free(s.router);
	tls_slot_free(slot);
	tls_unref(ctx);
	test_cert_done(&cert);
	test_ca_done(&ca);
	loop_free(s.loop);
	return 0;
}
