/* One connection to a lighthouse: dialling, the proof of this device, the watch. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/control_int.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/mem.h"
#include "base/metrics.h"

static const char *const alpn_h2[] = {"h2", NULL};

struct link *link_new(struct control *c)
{
	struct link *l = MEM_NEW(struct link);

	l->c = c;
	list_init(&l->node);
	return l;
}

/* ---- The end ------------------------------------------------------------------------------------------------------- */

static void link_free(struct link *l)
{
	loop_timer_stop(&l->subscribe);
	dial_cancel(l->dial);
	rpc_cancel(l->call);
	rpc_cancel(l->watch);
	rpc_channel_free(l->channel);
	netmap_assembly_done(&l->assembly);
	mem_free(l->url);
	secret_wipe(l->exporter, sizeof(l->exporter));
	mem_free(l);
}

void links_bury(void *control)
{
	struct control *c = control;
	struct list *node;

	while ((node = list_pop(&c->graveyard)) != NULL) {
		link_free(LIST_ENTRY(node, struct link, node));
	}
}

void link_kill(struct link *l)
{
	struct control *c;

	if (l == NULL || l->dead) {
		return;
	}
	c = l->c;
	l->dead = true;
	loop_timer_stop(&l->subscribe);
	if (c->main == l) {
		c->main = NULL;
	}
	if (c->next == l) {
		c->next = NULL;
	}
	if (c->report_link == l) {
		rpc_cancel(c->report);
		c->report = NULL;
		c->report_link = NULL;
		c->report_due = true;
	}
	list_push(&c->graveyard, &l->node);
	if (!loop_timer_active(&c->bury)) {
		loop_timer_start(&c->bury, c->loop, 0, links_bury, c);
	}
}

/* ---- Certificates -------------------------------------------------------------------------------------------------- */

bool link_parse_uri(const char *uri, uint64_t *ret_cluster, uint64_t *ret_lighthouse)
{
	uint64_t cluster, id;
	int end = 0;

	if (sscanf(uri, "skerry://%" SCNu64 "/api/%" SCNu64 "%n", &cluster, &id, &end) != 2 ||
	    uri[end] != '\0' || cluster == 0 || id == 0) {
		return false;
	}
	*ret_cluster = cluster;
	*ret_lighthouse = id;
	return true;
}

static bool peer_ids(const struct tls_peer *peer, uint64_t *ret_cluster, uint64_t *ret_lighthouse)
{
	for (size_t i = 0; peer != NULL && i < peer->facts.n_uris; i++) {
		if (link_parse_uri(peer->facts.uris[i], ret_cluster, ret_lighthouse)) {
			return true;
		}
	}
	return false;
}

/* The first contact without a pin: whoever it is, it must be a lighthouse of some cluster and show that cluster's CA. */
static int verify_first(void *arg, const struct tls_peer *peer, struct err *err)
{
	uint64_t cluster, id;

	(void)arg;
	if (!peer_ids(peer, &cluster, &id) || !peer->has_ca) {
		return err_set(
			err, ERR_UNAUTHENTICATED,
			"the certificate does not say which cluster this lighthouse is of: use an "
			"auth key with a pin, which `skerry auth-key create` makes by default");
	}
	return 0;
}

static struct tls_ctx *tls_for(struct control *c, bool learning, struct err *e)
{
	const struct enrolment *en = &c->identity->enrolment;
	struct tls_client_opts opts = {.alpn = alpn_h2, .tls13_only = true};
	struct tls_ctx *ctx;

	if (learning) {
		/* A key is a secret: without a pin only a host that the system's roots vouch for may get it. */
		if (c->login.key_without_pin) {
			opts.trust = TLS_TRUST_SYSTEM;
		} else {
			opts.trust = TLS_TRUST_CALLBACK;
			opts.verify = verify_first;
		}
		return tls_client_new(&opts, &ctx, e) < 0 ? NULL : ctx;
	}
	const uint8_t *too = en->has_old_pin ? en->old_pin : en->pin;

	if (c->tls == NULL || c->tls_cluster != en->cluster_id ||
	    memcmp(c->tls_pin, en->pin, 32) != 0 || memcmp(c->tls_old_pin, too, 32) != 0) {
		opts.trust = TLS_TRUST_PIN;
		memcpy(opts.pin, en->pin, 32);
		opts.pin_too = too;
		if (tls_client_new(&opts, &ctx, e) < 0) {
			return NULL;
		}
		tls_unref(c->tls);
		c->tls = ctx;
		c->tls_cluster = en->cluster_id;
		memcpy(c->tls_pin, en->pin, 32);
		memcpy(c->tls_old_pin, too, 32);
	}
	return tls_ref(c->tls);
}

/* ---- Dialling ------------------------------------------------------------------------------------------------------ */

static void url_add(struct control *c, const char *url)
{
	for (size_t i = 0; i < c->n_urls_now; i++) {
		if (strcmp(c->urls_now[i], url) == 0) {
			return;
		}
	}
	if (c->n_urls_now < CONTROL_URLS) {
		c->urls_now[c->n_urls_now++] = mem_strdup(url);
	}
}

/* The last good one first, then the owner's, then those learnt. */
static void urls_collect(struct control *c)
{
	const struct enrolment *en = &c->identity->enrolment;

	for (size_t i = 0; i < c->n_urls_now; i++) {
		mem_free(c->urls_now[i]);
	}
	c->n_urls_now = 0;
	if (en->last_good != NULL) {
		url_add(c, en->last_good);
	}
	for (size_t i = 0; i < c->n_urls; i++) {
		url_add(c, c->urls[i]);
	}
	for (size_t i = 0; i < en->n_lighthouses; i++) {
		url_add(c, en->lighthouses[i]);
	}
}

static void link_up(struct link *l, struct stream *stream);

static void on_dialled(void *arg, struct stream *stream, size_t which, const struct err *err)
{
	struct link *l = arg;

	l->dial = NULL;
	if (stream == NULL) {
		control_link_ended(l, err, false, false);
		return;
	}
	l->url = mem_strdup(l->targets[which]);
	link_up(l, stream);
}

bool link_dial(struct link *l, const char *skip)
{
	struct control *c = l->c;
	const struct enrolment *en = &c->identity->enrolment;
	struct dial_opts opts = {.timeout_ms = CONTROL_DIAL_MS,
				 .stagger_ms = CONTROL_STAGGER_MS,
				 .user_timeout_ms = 5000};
	char server_name[64];
	struct err e = {0};

	urls_collect(c);
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < c->n_urls_now && l->n_targets < LIM_LIGHTHOUSE_URLS; i++) {
			bool last = c->avoid != NULL && strcmp(c->avoid, c->urls_now[i]) == 0;

			if ((skip == NULL || strcmp(skip, c->urls_now[i]) != 0) &&
			    last == (pass == 1)) {
				l->targets[l->n_targets++] = c->urls_now[i];
			}
		}
	}
	if (l->n_targets == 0) {
		return false;
	}
	l->learning = !en->has_pin;
	if (!l->learning) {
		snprintf(server_name, sizeof(server_name), "%" PRIu64 ".skerry.invalid",
			 en->cluster_id);
		opts.server_name = server_name;
	}
	opts.tls = tls_for(c, l->learning, &e);
	if (opts.tls == NULL) {
		LOG_ERROR("no TLS context: %s", e.msg);
		return false;
	}
	l->dial = dial_race(c->loop, l->targets, l->n_targets, &opts, on_dialled, l);
	tls_unref(opts.tls);
	return true;
}

/* ---- The proof of this device -------------------------------------------------------------------------------------- */

size_t link_metadata(void *link, const char *path, struct rpc_metadata *out, size_t max)
{
	struct link *l = link;

	(void)path;
	if (!l->has_proof || max < 2) {
		return 0;
	}
	out[0] = (struct rpc_metadata){"skerry-machine-key-bin", l->c->identity->machine_key, 32};
	out[1] = (struct rpc_metadata){"skerry-device-proof-bin", l->proof, sizeof(l->proof)};
	return 2;
}

/* Bound to this TLS connection and this lighthouse: of no use anywhere else. */
static int make_proof(struct link *l, struct stream *stream, struct err *e)
{
	static const char label[] = "skerry device proof v1"; /* with its NUL */
	const struct identity *id = l->c->identity;
	uint8_t msg[sizeof(label) + 8 + 8 + 32];
	int r = stream_export(stream, "EXPORTER-skerry-device-v1", id->machine_key, 32, l->exporter,
			      sizeof(l->exporter));

	if (r < 0) {
		return err_set(e, r,
			       "the connection gives no proof: TLS 1.3 is needed up to the "
			       "lighthouse itself");
	}
	memcpy(msg, label, sizeof(label));
	be_put64(msg + sizeof(label), l->cluster_id);
	be_put64(msg + sizeof(label) + 8, l->lighthouse_id);
	memcpy(msg + sizeof(label) + 16, l->exporter, 32);
	crypto_ed25519_sign(l->proof, id->machine_seed, msg, sizeof(msg));
	secret_wipe(msg, sizeof(msg));
	l->has_proof = true;
	return 0;
}

static void on_channel_state(void *arg, enum rpc_channel_state state, const struct err *err)
{
	struct link *l = arg;

	if (!l->dead && (state == RPC_CHANNEL_FAILED || state == RPC_CHANNEL_SHUTDOWN)) {
		control_link_ended(l, err, true, l->open);
	}
}

/* Cluster and pin are known now (written when the registration succeeds): the real connection is made with them. */
static void learnt(struct link *l, uint64_t cluster, const uint8_t pin[32], const char *how)
{
	struct control *c = l->c;
	struct enrolment *en = &c->identity->enrolment;
	char hex[65];

	en->cluster_id = cluster;
	memcpy(en->pin, pin, 32);
	en->has_pin = true;
	en->has_old_pin = false;
	LOG_WARN("cluster %" PRIu64 " was taken %s %s: pin sha256:%s", cluster, how, l->url,
		 hex_encode(hex, en->pin, 32));
	link_kill(l);
	l = link_new(c);
	c->next = l;
	if (!link_dial(l, NULL)) {
		control_link_ended(l, NULL, false, false);
	}
}

static void learn_failed(struct link *l)
{
	struct err e = {0};

	err_set(&e, ERR_UNAUTHENTICATED, "%s does not say which cluster it is of", l->url);
	control_link_ended(l, &e, true, false);
}

/* The answer to a call without proof: a refusal that names the cluster. */
static void on_cluster_told(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct link *l = arg;
	const char *cluster = rpc_response_trailer(l->call, "skerry-cluster");
	const char *pin = rpc_response_trailer(l->call, "skerry-ca-pin");
	uint8_t hash[32];
	uint64_t id;
	char *end;

	(void)status;
	(void)reply;
	l->call = NULL;
	if (l->dead) {
		return;
	}
	id = cluster == NULL ? 0 : strtoull(cluster, &end, 10);
	if (id == 0 || *end != '\0' || pin == NULL ||
	    hex_decode(pin, strlen(pin), hash, 32) != 32) {
		learn_failed(l);
		return;
	}
	learnt(l, id, hash, "from a host that the system's roots vouch for,");
}

static void learn(struct link *l, struct stream *stream)
{
	struct control *c = l->c;
	const struct stream_tls *tls = stream_tls(stream);
	Skerry__V1__RegisterRequest msg = SKERRY__V1__REGISTER_REQUEST__INIT;
	struct rpc_opts opts = {.deadline_ms = CONTROL_CALL_MS};
	struct rpc_channel_opts channel = {.on_state = on_channel_state, .arg = l};
	uint64_t cluster, lighthouse;
	uint8_t pin[32];

	if (c->login.key_without_pin) {
		/* The certificate may be a public one, which knows no cluster: the lighthouse is asked, without the key. */
		l->channel = rpc_channel_over(stream, &channel);
		l->call = rpc_unary(l->channel, "/skerry.v1.AgentService/Register", &msg.base,
				    &skerry__v1__register_response__descriptor, &opts,
				    on_cluster_told, l);
		return;
	}
	if (!peer_ids(tls->peer, &cluster, &lighthouse) || !tls->peer->has_ca) {
		stream_abort(stream);
		learn_failed(l);
		return;
	}
	memcpy(pin, tls->peer->ca_spki_sha256, sizeof(pin));
	stream_abort(stream);
	learnt(l, cluster, pin, "on trust at the first contact with");
}

static void link_up(struct link *l, struct stream *stream)
{
	struct control *c = l->c;
	const struct enrolment *en = &c->identity->enrolment;
	const struct stream_tls *tls = stream_tls(stream);
	struct rpc_channel_opts opts = {
		.ping_ms = CONTROL_PING_MS,
		.ping_timeout_ms = CONTROL_PING_TIMEOUT_MS,
		.metadata = link_metadata,
		.on_state = on_channel_state,
		.arg = l,
	};
	struct err e = {0};

	if (l->learning) {
		learn(l, stream);
		return;
	}
	l->peer_addr = stream_peer(stream)->addr;
	snprintf(l->peer_text, sizeof(l->peer_text), "%s", stream_peer_text(stream));
	control_step(c, CONTROL_STEP_DIALLED, false, "dialled %s (%s)", l->url, l->peer_text);
	if (tls == NULL || !peer_ids(tls->peer, &l->cluster_id, &l->lighthouse_id)) {
		err_set(&e, ERR_UNAUTHENTICATED, "%s: the certificate names no lighthouse", l->url);
	} else if (l->cluster_id != en->cluster_id) {
		err_set(&e, ERR_UNAUTHENTICATED, "%s is of cluster %" PRIu64 ", not of %" PRIu64,
			l->url, l->cluster_id, en->cluster_id);
	} else {
		IGNORE(make_proof(l, stream, &e));
	}
	if (e.code != 0) {
		stream_abort(stream);
		control_link_ended(l, &e, true, false);
		return;
	}
	control_step(c, CONTROL_STEP_TLS, false, "%s, the pin of cluster %" PRIu64 " holds",
		     tls->version, l->cluster_id);
	l->channel = rpc_channel_over(stream, &opts);
	if (c->login.active) {
		link_register(l);
	} else {
		link_watch(l);
	}
}

/* ---- The watch ----------------------------------------------------------------------------------------------------- */

static void on_watch_open(void *arg, struct rpc_request *req)
{
	struct link *l = arg;

	(void)req;
	if (l->dead || l->open) {
		return;
	}
	loop_timer_stop(&l->subscribe);
	l->open = true;
	l->open_ms = l->heard_ms = loop_now(l->c->loop);
	control_link_open(l);
}

/* Reads a full map; the last chunk swaps it in if it may be. */
static void take_chunk(struct link *l, const Skerry__V1__NetmapChunk *chunk)
{
	struct control *c = l->c;
	struct netmap *held = c->netmap;
	struct err e = {0};
	int r = netmap_take_chunk(&l->assembly, chunk, &e);

	if (r == 1) {
		struct netmap *fresh = &l->assembly.map;

		if (netmap_held(held) && fresh->epoch == held->epoch &&
		    fresh->revision < held->revision) {
			r = err_set(&e, ERR_STALE,
				    "%s is behind: it has revision %" PRIu64
				    ", this device %" PRIu64,
				    l->url, fresh->revision, held->revision);
			METRICS_COUNT("skerry_agent_stale_lighthouse_total",
				      "netmaps refused for a lower revision", 1);
		} else if (!c->handler->admit(c->arg, fresh, &e)) {
			r = e.code;
		}
	}
	if (r < 0) {
		netmap_assembly_done(&l->assembly);
		control_link_ended(l, &e, true, false);
		return;
	}
	if (r == 1) {
		netmap_move(held, &l->assembly.map);
		netmap_assembly_done(&l->assembly);
		c->want_full = false;
		c->handler->on_netmap(c->arg, ~0u);
	}
}

static void take_delta(struct link *l, const Skerry__V1__NetmapDelta *delta)
{
	struct control *c = l->c;
	struct err e = {0};
	unsigned changes;
	int r = netmap_apply_delta(c->netmap, delta, &changes, &e);

	if (r >= 0) {
		if (changes != 0) {
			c->handler->on_netmap(c->arg, changes);
		}
		return;
	}
	if (l != c->main) {
		return; /* the other link has brought the map past it */
	}
	/* Another epoch, a gap or nonsense: only a full map helps, from whichever lighthouse. */
	c->want_full = true;
	control_link_ended(l, &e, r != ERR_STALE, true);
}

/*
 * The cluster rotates its CA: said over a connection whose certificate one of our pins vouched for. The old one stays good
 * as long as the cluster says so, since not every lighthouse has a certificate of the new one at once.
 */
static void take_pins(struct link *l, const Skerry__V1__Heartbeat *h)
{
	struct identity *id = l->c->identity;
	struct err e = {0};
	char hex[65];

	if (!enrolment_set_pins(&id->enrolment, h->ca_pins, h->n_ca_pins)) {
		return;
	}
	LOG_INFO("the cluster's certificate authority: pin sha256:%s%s",
		 hex_encode(hex, id->enrolment.pin, 32),
		 id->enrolment.has_old_pin ? ", and the one before for now"
					   : ", alone from now on");
	if (identity_save_enrolment(id, &e) < 0) {
		LOG_ERROR("%s", e.msg);
	}
}

static void on_watch_message(void *arg, struct rpc_request *req, const ProtobufCMessage *msg)
{
	const Skerry__V1__WatchResponse *m = (const Skerry__V1__WatchResponse *)msg;
	struct link *l = arg;

	if (l->dead) {
		return;
	}
	on_watch_open(l, req); /* a lighthouse may send its head together with the first message */
	if (l->dead) {
		return;
	}
	l->heard_ms = loop_now(l->c->loop);
	switch (m->event_case) {
	case SKERRY__V1__WATCH_RESPONSE__EVENT_HEARTBEAT:
		l->beat = true;
		l->quorum_age_ms = m->heartbeat->quorum_age_ms;
		take_pins(l, m->heartbeat);
		control_link_beat(l);
		break;
	case SKERRY__V1__WATCH_RESPONSE__EVENT_CHUNK: take_chunk(l, m->chunk); break;
	case SKERRY__V1__WATCH_RESPONSE__EVENT_DELTA: take_delta(l, m->delta); break;
	case SKERRY__V1__WATCH_RESPONSE__EVENT_MOVE:
		LOG_INFO("%s asks this device to move: %s", l->url, m->move->reason);
		control_seek_other(l->c);
		break;
	default: break; /* a newer lighthouse says something that this agent does not know */
	}
}

static void on_watch_end(void *arg, const struct err *status)
{
	struct link *l = arg;

	l->watch = NULL;
	if (!l->dead) {
		l->c->unknown = strcmp(status->reason, "NODE_UNKNOWN") == 0;
		control_link_ended(l, status, true, l->open);
	}
}

static void on_subscribe_late(void *arg)
{
	struct link *l = arg;
	struct err e = {0};

	err_set(&e, ERR_DEADLINE, "%s took the call and did not answer", l->url);
	control_link_ended(l, &e, true, true);
}

static const struct rpc_stream_handler watch_handler = {
	.on_open = on_watch_open,
	.on_message = on_watch_message,
	.on_end = on_watch_end,
};

void link_watch(struct link *l)
{
	struct control *c = l->c;
	const struct netmap *held = c->netmap;
	Skerry__V1__WatchRequest msg = SKERRY__V1__WATCH_REQUEST__INIT;
	Skerry__V1__Revision have = SKERRY__V1__REVISION__INIT;
	Skerry__V1__HostInfo host_info;
	Skerry__V1__Endpoint *endpoints;
	struct err e = {0};

	if (identity_next_session(c->identity, &l->session, &e) < 0) {
		control_link_ended(l, &e, false, false);
		return;
	}
	if (c->next == l && c->main == NULL) {
		control_set_phase(c, CONTROL_SUBSCRIBING, NULL);
	}
	host_info_fill(&host_info, c->hostname);
	endpoints = control_endpoints(c, &msg.endpoints);
	msg.session = l->session;
	msg.instance_id = c->identity->instance_id;
	msg.node_key = (ProtobufCBinaryData){32, c->identity->node_key};
	msg.disco_key = (ProtobufCBinaryData){32, c->identity->disco_key};
	msg.n_endpoints = c->n_endpoints;
	msg.host_info = &host_info;
	if (netmap_held(held) && !c->want_full) {
		have.epoch = held->epoch;
		have.revision = held->revision;
		msg.have = &have;
	}
	c->report_due = false; /* the call carries what a report would */
	l->watch = rpc_open(l->channel, "/skerry.v1.AgentService/Watch", &msg.base,
			    &skerry__v1__watch_response__descriptor, NULL, &watch_handler, l);
	loop_timer_start(&l->subscribe, c->loop, CONTROL_SUBSCRIBE_MS, on_subscribe_late, l);
	mem_free(msg.endpoints);
	mem_free(endpoints);
}
