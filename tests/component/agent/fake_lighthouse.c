#include "tests/component/agent/fake_lighthouse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/mem.h"
#include "base/prefix.h"
#include "net/http.h"
#include "net/listen.h"
#include "net/stream.h"
#include "net/tls.h"
#include "net/x509.h"
#include "proto/pb_util.h"

static void must(int r, const struct err *e)
{
	if (r < 0) {
		fprintf(stderr, "fake lighthouse: %d %s\n", r, e->msg);
		IMPOSSIBLE("the fake lighthouse cannot be set up");
	}
}

/* ---- Certificates -------------------------------------------------------------------------------------------------- */

void fake_ca_init(struct fake_ca *ca)
{
	struct x509_spec spec = {.subject = "fake cluster CA",
				 .not_before_ms = clock_wall_ms() - 3600000,
				 .not_after_ms = clock_wall_ms() + 86400000,
				 .ca = true};
	struct buf pem = BUF_INIT;
	struct err e = {0};

	must(x509_key_new(X509_KEY_P256, &ca->key, &e), &e);
	must(x509_make_ca(ca->key, &spec, &pem, &e), &e);
	x509_key_spki_sha256(ca->key, ca->pin);
	ca->pem = buf_take(&pem, NULL);
}

void fake_ca_done(struct fake_ca *ca)
{
	x509_key_free(ca->key);
	mem_free(ca->pem);
}

/* A certificate of the CA for 127.0.0.1; `uri` and `name` may be NULL. */
static struct tls_ctx *make_ctx(const struct fake_ca *ca, const char *uri, const char *name,
				tls_sni_fn sni, void *arg)
{
	static const char *const alpn[] = {"h2", NULL};
	const char *const uris[] = {uri, NULL}, *const dns[] = {name, NULL};
	struct ipaddr ip = {.family = 4, .b = {127, 0, 0, 1}};
	struct x509_spec spec = {.subject = "fake lighthouse",
				 .uris = uris,
				 .dns = dns,
				 .ips = &ip,
				 .n_ips = 1,
				 .not_before_ms = clock_wall_ms() - 3600000,
				 .not_after_ms = clock_wall_ms() + 86400000,
				 .server = true};
	struct tls_server_opts opts = {.alpn = alpn, .sni = sni, .sni_arg = arg};
	struct buf chain = BUF_INIT, key_pem = BUF_INIT;
	uint8_t pub[X509_PUB_MAX];
	struct x509_key *key;
	struct tls_ctx *ctx;
	struct err e = {0};
	size_t len;

	must(x509_key_new(X509_KEY_P256, &key, &e), &e);
	len = x509_key_pub(key, pub);
	must(x509_issue(ca->key, ca->pem, X509_KEY_P256, pub, len, &spec, &chain, &e), &e);
	buf_append_str(&chain, ca->pem);
	must(x509_key_pem(key, &key_pem), &e);
	opts.cert.chain_pem = buf_str(&chain);
	opts.cert.key_pem = buf_str(&key_pem);
	must(tls_server_new(&opts, &ctx, &e), &e);
	x509_key_free(key);
	buf_done(&chain);
	buf_done(&key_pem);
	return ctx;
}

static void make_tls(struct fake *f)
{
	char uri[96], name[64];

	snprintf(uri, sizeof(uri), "skerry://%u/api/%" PRIu64, FAKE_CLUSTER, f->id);
	snprintf(name, sizeof(name), "%u.skerry.invalid", FAKE_CLUSTER);
	f->tls = make_ctx(f->ca, uri, name, NULL, NULL);
	f->slot = tls_slot_new(f->tls);
}

static struct tls_ctx *choose(void *arg, const char *server_name)
{
	struct fake *f = arg;

	return strstr(server_name, ".skerry.invalid") != NULL ? f->tls : NULL;
}

void fake_web(struct fake *f, const struct fake_ca *web_ca)
{
	f->web = make_ctx(web_ca, NULL, NULL, choose, f);
	tls_slot_set(f->slot, f->web);
}

/* ---- Calls --------------------------------------------------------------------------------------------------------- */

static void exporter(struct rpc_call *call, const uint8_t *machine_key, uint8_t out[32])
{
	must(stream_export(rpc_call_stream(call), "EXPORTER-skerry-device-v1", machine_key, 32, out,
			   32),
	     &(struct err){0});
}

/* The proof of the machine key, as the header of agent.proto says. */
static const uint8_t *check_proof(struct fake *f, struct rpc_call *call)
{
	static const char label[] = "skerry device proof v1";
	size_t key_len, proof_len;
	const uint8_t *key = rpc_call_metadata_bin(call, "skerry-machine-key-bin", &key_len);
	const uint8_t *proof = rpc_call_metadata_bin(call, "skerry-device-proof-bin", &proof_len);
	struct buf msg = BUF_INIT;
	uint8_t value[32];
	char cluster[24], pin[65];
	bool good = key != NULL && proof != NULL && key_len == 32 && proof_len == 64;

	if (good) {
		exporter(call, key, value);
		buf_append(&msg, label, sizeof(label));
		buf_u64be(&msg, FAKE_CLUSTER);
		buf_u64be(&msg, f->id);
		buf_append(&msg, value, 32);
		good = crypto_ed25519_verify(proof, key, msg.data, msg.len);
		buf_done(&msg);
	}
	if (!good) {
		snprintf(cluster, sizeof(cluster), "%u", FAKE_CLUSTER);
		rpc_call_add_trailer(call, "skerry-cluster", cluster, strlen(cluster));
		rpc_call_add_trailer(call, "skerry-ca-pin", hex_encode(pin, f->ca->pin, 32), 64);
		f->bad_proofs += key != NULL;
		rpc_call_fail(call, ERR_UNAUTHENTICATED, "no proof of the machine key");
		return NULL;
	}
	if (f->fail_code != 0) {
		rpc_call_fail(call, f->fail_code, "the fake was told to fail");
		return NULL;
	}
	return key;
}

static void on_register(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__RegisterRequest *req = (const Skerry__V1__RegisterRequest *)msg;
	Skerry__V1__RegisterResponse reply = SKERRY__V1__REGISTER_RESPONSE__INIT;
	Skerry__V1__Challenge challenge = SKERRY__V1__CHALLENGE__INIT;
	Skerry__V1__PendingApproval pending = SKERRY__V1__PENDING_APPROVAL__INIT;
	Skerry__V1__Registered registered = SKERRY__V1__REGISTERED__INIT;
	struct fake *f = arg;
	const uint8_t *machine_key = check_proof(f, call);
	struct buf opened = BUF_INIT;
	uint8_t value[32];
	struct err e = {0};

	if (machine_key == NULL) {
		return;
	}
	f->registers++;
	if (req->auth_key[0] != '\0') {
		snprintf(f->last_key, sizeof(f->last_key), "%s", req->auth_key);
	}
	if (req->node_key_proof.len == 0) {
		challenge.box_key = (ProtobufCBinaryData){32, f->box_pub};
		reply.outcome_case = SKERRY__V1__REGISTER_RESPONSE__OUTCOME_CHALLENGE;
		reply.challenge = &challenge;
		rpc_call_reply(call, &reply.base);
		return;
	}
	exporter(call, machine_key, value);
	if (crypto_x25519_box_open(f->box_sec, req->node_key.data, req->node_key_proof.data,
				   req->node_key_proof.len, &opened) < 0 ||
	    opened.len != 32 || memcmp(opened.data, value, 32) != 0) {
		f->bad_proofs++;
		buf_done(&opened);
		rpc_call_fail(call, ERR_UNAUTHENTICATED, "no proof of the node key");
		return;
	}
	buf_done(&opened);
	snprintf(f->last_code, sizeof(f->last_code), "%s", req->pending_code);
	if (f->too_many) {
		err_reason(&e, ERR_LIMIT, "TOO_MANY_PENDING",
			   "too many devices wait for approval from this address");
		rpc_call_finish(call, &e);
		return;
	}
	if (f->refuse_key) {
		err_reason(&e, ERR_UNAUTHENTICATED, "KEY_UNKNOWN", "there is no such key");
		rpc_call_finish(call, &e);
		return;
	}
	if (f->key_in_use) {
		err_reason(&e, ERR_EXISTS, "NODE_KEY_IN_USE", "the node key is in use");
		rpc_call_finish(call, &e);
		return;
	}
	memcpy(f->node_key, req->node_key.data, 32);
	if (f->want_approval && !f->approved) {
		pending.code = (char *)"abcd-efgh";
		pending.url = (char *)"https://lighthouse.example/approve/abcd-efgh";
		reply.outcome_case = SKERRY__V1__REGISTER_RESPONSE__OUTCOME_PENDING;
		reply.pending = &pending;
		rpc_call_reply(call, &reply.base);
		return;
	}
	f->forgot = false;
	registered.cluster_id = f->wrong_cluster != 0 ? f->wrong_cluster : FAKE_CLUSTER;
	registered.tailnet_id = 3;
	registered.node_id = 1;
	registered.name = (char *)"tailnets/3/nodes/1";
	registered.given_name = (char *)"device";
	registered.stable_id = (char *)"nstable";
	registered.tailnet_name = (char *)"default";
	reply.outcome_case = SKERRY__V1__REGISTER_RESPONSE__OUTCOME_REGISTERED;
	reply.registered = &registered;
	rpc_call_reply(call, &reply.base);
}

bool fake_send(struct fake *f, const Skerry__V1__WatchResponse *msg)
{
	struct rpc_call *call = f->rpc == NULL ? NULL : rpc_call_find(f->rpc, f->watch);

	return call != NULL && rpc_call_send(call, &msg->base) >= 0;
}

bool fake_send_chunk(struct fake *f, const Skerry__V1__NetmapChunk *chunk)
{
	Skerry__V1__WatchResponse msg = SKERRY__V1__WATCH_RESPONSE__INIT;

	msg.event_case = SKERRY__V1__WATCH_RESPONSE__EVENT_CHUNK;
	msg.chunk = (Skerry__V1__NetmapChunk *)chunk;
	return fake_send(f, &msg);
}

bool fake_send_delta(struct fake *f, Skerry__V1__NetmapDelta *delta, uint64_t epoch,
		     uint64_t revision)
{
	Skerry__V1__WatchResponse msg = SKERRY__V1__WATCH_RESPONSE__INIT;
	Skerry__V1__Revision at = SKERRY__V1__REVISION__INIT;

	at.epoch = epoch;
	at.revision = revision;
	delta->revision = &at;
	msg.event_case = SKERRY__V1__WATCH_RESPONSE__EVENT_DELTA;
	msg.delta = delta;
	return fake_send(f, &msg);
}

static void on_beat(void *arg)
{
	struct fake *f = arg;
	Skerry__V1__WatchResponse msg = SKERRY__V1__WATCH_RESPONSE__INIT;
	Skerry__V1__Heartbeat beat = SKERRY__V1__HEARTBEAT__INIT;

	beat.quorum_age_ms = f->quorum_age_ms;
	msg.event_case = SKERRY__V1__WATCH_RESPONSE__EVENT_HEARTBEAT;
	msg.heartbeat = &beat;
	if (!f->no_beats) {
		fake_send(f, &msg);
	}
	loop_timer_start(&f->beat, f->loop, f->beat_ms != 0 ? f->beat_ms : 100, on_beat, f);
}

static void on_watch(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__WatchRequest *req = (const Skerry__V1__WatchRequest *)msg;
	struct fake *f = arg;

	if (check_proof(f, call) == NULL) {
		return;
	}
	if (f->forgot) {
		struct err e = {0};

		err_reason(&e, ERR_NOT_FOUND, "NODE_UNKNOWN", "this device is not registered here");
		rpc_call_finish(call, &e);
		return;
	}
	f->watches++;
	f->last_session = req->session;
	f->last_had_have = req->have != NULL;
	f->last_have_revision = req->have != NULL ? req->have->revision : 0;
	f->last_endpoints = req->n_endpoints;
	if (f->mute) {
		return;
	}
	f->watch = rpc_call_ref(call);
	rpc_call_send_headers(call);
	if (f->netmap != NULL &&
	    (req->have == NULL || req->have->epoch != f->netmap->revision->epoch ||
	     req->have->revision != f->netmap->revision->revision)) {
		fake_send_chunk(f, f->netmap);
	}
	on_beat(f);
}

static void on_report(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__ReportRequest *req = (const Skerry__V1__ReportRequest *)msg;
	Skerry__V1__ReportResponse reply = SKERRY__V1__REPORT_RESPONSE__INIT;
	struct fake *f = arg;

	if (check_proof(f, call) != NULL) {
		f->reports++;
		f->last_endpoints = req->n_endpoints;
		rpc_call_reply(call, &reply.base);
	}
}

static void on_logout(void *arg, struct rpc_call *call, const ProtobufCMessage *msg)
{
	Skerry__V1__LogoutResponse reply = SKERRY__V1__LOGOUT_RESPONSE__INIT;
	struct fake *f = arg;

	(void)msg;
	if (check_proof(f, call) != NULL) {
		f->logouts++;
		rpc_call_reply(call, &reply.base);
	}
}

/* ---- Life ---------------------------------------------------------------------------------------------------------- */

static void on_stream(void *arg, struct stream *stream)
{
	struct fake *f = arg;

	f->connections++;
	http_server_accept(f->http, stream, NULL);
}

static void serve(struct fake *f)
{
	static const struct rpc_handler handlers[] = {{.on_call = on_register},
						      {.on_call = on_watch},
						      {.on_call = on_report},
						      {.on_call = on_logout}};
	static const char *const paths[] = {
		"/skerry.v1.AgentService/Register", "/skerry.v1.AgentService/Watch",
		"/skerry.v1.AgentService/Report", "/skerry.v1.AgentService/Logout"};
	char address[32];
	struct listener_opts opts = {.address = address, .tls = f->slot, .exempt_limits = true};
	struct err e = {0};

	f->rpc = rpc_server_new(f->loop, "fake");
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		rpc_server_add(f->rpc, paths[i], &handlers[i], f);
	}
	f->router = http_router_new();
	rpc_server_mount(f->rpc, f->router, true);
	f->http = http_server_new(f->loop, f->router);
	snprintf(address, sizeof(address), "127.0.0.1:%u", f->port);
	must(listener_new(f->loop, &opts, on_stream, f, &f->listener, &e), &e);
	f->port = listener_port(f->listener);
	snprintf(f->url, sizeof(f->url), "https://127.0.0.1:%u", f->port);
}

void fake_start(struct fake *f, struct loop *loop, const struct fake_ca *ca, uint64_t id)
{
	*f = (struct fake){.loop = loop, .ca = ca, .id = id};
	crypto_x25519_keypair(f->box_pub, f->box_sec);
	make_tls(f);
	serve(f);
}

void fake_kill(struct fake *f)
{
	if (f->rpc == NULL) {
		return;
	}
	loop_timer_stop(&f->beat);
	listener_free(f->listener);
	http_server_free(f->http);
	http_router_free(f->router);
	rpc_server_free(f->rpc);
	f->rpc = NULL;
}

void fake_restart(struct fake *f)
{
	serve(f);
}

void fake_done(struct fake *f)
{
	fake_kill(f);
	tls_slot_free(f->slot);
	tls_unref(f->tls);
	tls_unref(f->web);
}

/* ---- Netmaps ------------------------------------------------------------------------------------------------------- */

static void put_addr(const char *text, uint8_t out[16], ProtobufCBinaryData *ret)
{
	struct ipaddr addr;

	must(ipaddr_parse(text, &addr, NULL), &(struct err){0});
	memcpy(out, addr.b, 16);
	*ret = (ProtobufCBinaryData){ipaddr_len(&addr), out};
}

void fake_map_init(struct fake_map *m, const uint8_t node_key[32], size_t n_peers)
{
	char text[64];

	*m = (struct fake_map){.chunk = SKERRY__V1__NETMAP_CHUNK__INIT};
	skerry__v1__revision__init(&m->revision);
	skerry__v1__netmap_self__init(&m->self);
	skerry__v1__dns_config__init(&m->dns);
	skerry__v1__netmap_view__init(&m->view);
	m->revision.epoch = FAKE_EPOCH;
	m->revision.revision = 100;
	m->chunk.revision = &m->revision;
	m->chunk.last = true;
	m->chunk.self = &m->self;
	m->chunk.view = &m->view;
	m->view.routes = m->routes;
	m->self.cluster_id = FAKE_CLUSTER;
	m->self.tailnet_id = 3;
	m->self.node_id = 1;
	m->self.stable_id = (char *)"nstable";
	m->self.given_name = (char *)"device";
	m->self.tailnet_name = (char *)"default";
	m->self.user = (char *)"admin";
	m->self.approved = true;
	memcpy(m->node_key, node_key, 32);
	m->self.node_key = (ProtobufCBinaryData){32, m->node_key};
	m->self.dns = &m->dns;
	m->dns.base_domain = (char *)"home.internal";
	put_addr("100.64.0.1", m->self_addr[0], &m->self_addrs[0]);
	put_addr("fd7a:115c:a1e0::1", m->self_addr[1], &m->self_addrs[1]);
	m->self.addresses = m->self_addrs;
	m->self.n_addresses = 2;
	for (size_t i = 0; i < 2; i++) {
		skerry__v1__prefix__init(&m->prefix[i]);
		put_addr(i == 0 ? "100.64.0.0" : "fd7a:115c:a1e0::", m->prefix_addr[i],
			 &m->prefix[i].address);
		m->prefix[i].length = i == 0 ? 10 : 48;
		m->prefixes[i] = &m->prefix[i];
	}
	m->self.prefixes = m->prefixes;
	m->self.n_prefixes = 2;
	m->self.lighthouses = m->lighthouses;
	for (size_t i = 0; i < 4; i++) {
		skerry__v1__lighthouse_address__init(&m->lighthouse[i]);
		m->lighthouses[i] = &m->lighthouse[i];
	}
	m->chunk.peers = m->peers;
	m->chunk.n_peers = n_peers;
	for (size_t i = 0; i < n_peers; i++) {
		Skerry__V1__NetmapPeer *p = &m->peer[i];

		skerry__v1__netmap_peer__init(p);
		p->node_id = i + 2;
		p->stable_id = (char *)"npeer";
		snprintf(m->peer_name[i], sizeof(m->peer_name[i]), "peer-%zu", i + 2);
		p->given_name = m->peer_name[i];
		memset(m->peer_key[i], (int)i + 2, 32);
		p->node_key = (ProtobufCBinaryData){32, m->peer_key[i]};
		snprintf(text, sizeof(text), "100.64.0.%zu", i + 2);
		put_addr(text, m->peer_addr[i][0], &m->peer_addrs[i][0]);
		snprintf(text, sizeof(text), "fd7a:115c:a1e0::%zu", i + 2);
		put_addr(text, m->peer_addr[i][1], &m->peer_addrs[i][1]);
		p->addresses = m->peer_addrs[i];
		p->n_addresses = 2;
		skerry__v1__endpoint__init(&m->endpoint[i]);
		memcpy(m->endpoint_addr[i], (uint8_t[]){192, 0, 2, (uint8_t)(i + 2)}, 4);
		m->endpoint[i].address = (ProtobufCBinaryData){4, m->endpoint_addr[i]};
		m->endpoint[i].port = 41641;
		m->endpoints[i] = &m->endpoint[i];
		p->endpoints = &m->endpoints[i];
		p->n_endpoints = 1;
		m->peers[i] = p;
	}
}

void fake_map_route(struct fake_map *m, uint64_t node, const char *text)
{
	size_t i = m->view.n_routes++;
	struct prefix prefix;

	must(prefix_parse(text, &prefix, NULL), &(struct err){0});
	skerry__v1__peer_route__init(&m->route[i]);
	skerry__v1__prefix__init(&m->route_prefix[i]);
	memcpy(m->route_addr[i], prefix.addr.b, 16);
	m->route_prefix[i].address =
		(ProtobufCBinaryData){ipaddr_len(&prefix.addr), m->route_addr[i]};
	m->route_prefix[i].length = prefix.len;
	m->route[i].node_id = node;
	m->route[i].prefix = &m->route_prefix[i];
	m->routes[i] = &m->route[i];
}
