/*
 * How many unary calls a second one server thread answers over TLS, and what an idle connection with an open stream
 * costs in memory. usage: bench_rpc [calls in flight] [seconds] [idle connections]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/rpc_client.h"
#include "net/stream.h"
#include "test_service.h"
#include "tests/lib/certs.h"

static struct loop *server_loop, *client_loop;
static struct http_server *http;
static unsigned long answered;
static bool stop;
static struct rpc_channel *channel;
static unsigned opened;

static void on_conn(void *arg, struct stream *stream)
{
	(void)arg;
	http_server_accept(http, stream, NULL);
}

static void call(void);

static void on_reply(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	(void)arg;
	(void)reply;
	if (status->code != 0) {
		if (!stop) {
			fprintf(stderr, "%s\n", status->msg);
			exit(1);
		}
		return;
	}
	answered++;
	if (!stop) {
		call();
	}
}

static void call(void)
{
	Grpc__Testing__SimpleRequest req = GRPC__TESTING__SIMPLE_REQUEST__INIT;

	req.response_size = 100;
	rpc_unary(channel, TEST_SERVICE "UnaryCall", &req.base,
		  &grpc__testing__simple_response__descriptor, NULL, on_reply, NULL);
}

static void on_stop(void *arg)
{
	(void)arg;
	stop = true;
	loop_stop(client_loop);
}

static long rss_kib(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long size, rss = 0;

	if (f != NULL && fscanf(f, "%ld %ld", &size, &rss) != 2) {
		rss = 0;
	}
	fclose(f);
	return rss * (sysconf(_SC_PAGESIZE) / 1024);
}

static void on_open(void *arg, struct rpc_request *req)
{
	(void)arg;
	(void)req;
	opened++;
}

static void on_message(void *arg, struct rpc_request *req, const ProtobufCMessage *msg)
{
	(void)arg;
	(void)req;
	(void)msg;
	opened++;
}

static void on_end(void *arg, const struct err *status)
{
	(void)arg;
	if (!stop) {
		fprintf(stderr, "stream: %s\n", status->msg);
	}
}

static const struct rpc_stream_handler handler = {
	.on_open = on_open, .on_message = on_message, .on_end = on_end};

int main(int argc, char **argv)
{
	unsigned flight = argc > 1 ? (unsigned)atoi(argv[1]) : 64;
	unsigned seconds = argc > 2 ? (unsigned)atoi(argv[2]) : 3;
	unsigned idle = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
	static const char *const alpn[] = {"h2", NULL};
	struct test_ca ca;
	struct test_cert cert;
	struct tls_ctx *sctx, *cctx;
	struct err err = {0};
	struct listener *l;
	char target[64];
	const char *targets[] = {target};

	crypto_init();
	server_loop = loop_new("server");
	client_loop = loop_new("client");
	struct http_router *router = http_router_new();
	struct rpc_server *rpc = rpc_server_new(server_loop, "bench");
	test_service_add(rpc);
	rpc_server_mount(rpc, router, true);
	http = http_server_new(server_loop, router);
	test_ca_init(&ca, "CA");
	test_cert_init(&cert, &ca, X509_KEY_P256, "localhost", NULL);
	const struct tls_server_opts so = {
		.cert = {.chain_pem = cert.chain, .key_pem = cert.key_pem}, .alpn = alpn};
	const struct tls_client_opts co = {.trust = TLS_TRUST_CA, .ca_pem = ca.pem, .alpn = alpn};
	if (tls_server_new(&so, &sctx, &err) != 0 || tls_client_new(&co, &cctx, &err) != 0) {
		return 1;
	}
	struct tls_slot *slot = tls_slot_new(sctx);
	const struct listener_opts lo = {
		.address = "127.0.0.1:0", .tls = slot, .exempt_limits = true};
	if (listener_new(server_loop, &lo, on_conn, NULL, &l, &err) != 0) {
		return 1;
	}
	snprintf(target, sizeof(target), "https://localhost:%u", (unsigned)listener_port(l));
	const struct rpc_channel_opts ro = {
		.targets = targets, .n_targets = 1, .dial = {.tls = cctx, .timeout_ms = 60000}};
	if (loop_thread_start(server_loop) != 0) {
		return 1;
	}
	channel = rpc_channel_new(client_loop, &ro);
	struct loop_timer timer = {0};
	for (unsigned i = 0; i < flight; i++) {
		call();
	}
	loop_timer_start(&timer, client_loop, seconds * 1000ull, on_stop, NULL);
	struct timespec a, b, ca0, ca1;
	clock_gettime(CLOCK_MONOTONIC, &a);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ca0);
	loop_run(client_loop);
	clock_gettime(CLOCK_MONOTONIC, &b);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ca1);
	double t = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
	double cpu = (double)(ca1.tv_sec - ca0.tv_sec) + (double)(ca1.tv_nsec - ca0.tv_nsec) / 1e9;
	printf("%u in flight: %.0f calls/s, %.1f us CPU per call (client and server)\n", flight,
	       (double)answered / t, cpu / (double)answered * 1e6);
	rpc_channel_free(channel);
	if (idle > 0) {
		struct rpc_channel **channels = mem_calloc(idle, sizeof(*channels));
		long before = rss_kib();

		for (unsigned i = 0; i < idle; i++) {
			channels[i] = rpc_channel_new(client_loop, &ro);
			rpc_open(channels[i], TEST_SERVICE "FullDuplexCall", NULL,
				 &grpc__testing__streaming_output_call_response__descriptor, NULL,
				 &handler, NULL);
			if (i % 20 == 19) {
				for (int k = 0; k < 40; k++) {
					loop_turn(client_loop, false);
					usleep(500);
				}
			}
		}
		for (int k = 0; k < 4000; k++) {
			loop_turn(client_loop, false);
			usleep(500);
		}
		printf("%zu idle connections, both ends in this process: %.1f KiB each\n",
		       http_server_conns(http), (double)(rss_kib() - before) / idle);
	}
	fflush(stdout);
	_exit(0);
}
