/*
 * Registration over one link: Register without proof -> challenge -> Register with the proof of the node key -> registered,
 * or a code that a person has to approve: then the same call with the code again and again. When the connection goes, the
 * next link starts over (with the code). That does nothing twice: a spent key registers the node that exists, with the same
 * machine and node key. Each call has a request id of its own, because the proof in it is another one.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/control_int.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/mem.h"
#include "base/rand.h"
#include "proto/pb_util.h"

void login_done(struct pending_login *login)
{
	secret_str_done(&login->auth_key);
	for (size_t i = 0; i < login->n_tags; i++) {
		mem_free(login->tags[i]);
	}
	mem_free(login->tailnet);
	mem_free(login->code);
	mem_free(login->url);
	*login = (struct pending_login){0};
}

enum {
	PENDING_MIN_MS = 1000,
};

/* Another lighthouse, or the same one later, may say something else. */
static bool worth_a_retry(int code)
{
	switch (err_grpc(code)) {
	case 1:  /* CANCELLED */
	case 2:  /* UNKNOWN */
	case 4:  /* DEADLINE_EXCEEDED */
	case 8:  /* RESOURCE_EXHAUSTED */
	case 10: /* ABORTED */
	case 13: /* INTERNAL */
	case 14: /* UNAVAILABLE */ return true;
	default: return false;
	}
}

static void send_register(struct link *l, const uint8_t *box_key);

static void take_registered(struct link *l, const Skerry__V1__Registered *in)
{
	struct control *c = l->c;
	struct enrolment *en = &c->identity->enrolment;
	char *urls[LIM_LIGHTHOUSE_URLS];
	size_t n_urls = 0;
	struct err e = {0};

	if (in->cluster_id != en->cluster_id || in->tailnet_id == 0 || in->node_id == 0) {
		err_set(&e, ERR_PROTOCOL,
			"%s registered this device in cluster %" PRIu64 ", not in %" PRIu64, l->url,
			in->cluster_id, en->cluster_id);
		control_link_ended(l, &e, true, false);
		return;
	}
	en->registered = true;
	en->pending_code[0] = '\0';
	en->tailnet_id = in->tailnet_id;
	en->node_id = in->node_id;
	en->n_prefixes = 0; /* those of the first netmap */
	snprintf(en->stable_id, sizeof(en->stable_id), "%s", in->stable_id);
	snprintf(en->name, sizeof(en->name), "%s", in->given_name);
	snprintf(en->tailnet_name, sizeof(en->tailnet_name), "%s", in->tailnet_name);
	snprintf(en->user, sizeof(en->user), "%s", in->user);
	en->expire_ms = pb_timestamp_ms(in->expire_time);
	for (size_t i = 0; i < in->n_lighthouses && n_urls < LIM_LIGHTHOUSE_URLS; i++) {
		if (strncmp(in->lighthouses[i]->url, "https://", 8) == 0 &&
		    dial_parse(in->lighthouses[i]->url, NULL, NULL, NULL, NULL) >= 0) {
			urls[n_urls++] = in->lighthouses[i]->url;
		}
	}
	enrolment_set_lighthouses(en, urls, n_urls);
	enrolment_set_last_good(en, l->url);
	if (identity_save_enrolment(c->identity, &e) < 0) {
		LOG_ERROR("cannot write the registration: %s", e.msg);
	}
	LOG_INFO("registered as %s (node %" PRIu64 ") in tailnet %s", en->name, en->node_id,
		 en->tailnet_name);
	control_step(c, CONTROL_STEP_REGISTERED, false, "registered as %s in tailnet %s", en->name,
		     en->tailnet_name);
	login_done(&c->login);
	l->registering = false;
	c->want_full = true;
	link_watch(l);
}

static void on_pending_again(void *arg)
{
	send_register(arg, NULL);
}

static void take_pending(struct link *l, const Skerry__V1__PendingApproval *in)
{
	struct control *c = l->c;
	struct pending_login *login = &c->login;
	bool fresh = login->code == NULL || strcmp(login->code, in->code) != 0;

	if (in->code[0] == '\0') {
		struct err e = {0};

		err_set(&e, ERR_PROTOCOL, "%s answered neither yes nor no", l->url);
		control_link_ended(l, &e, true, false);
		return;
	}
	if (fresh) {
		mem_free(login->code);
		mem_free(login->url);
		login->code = mem_strdup(in->code);
		login->url = mem_strdup(in->url);
		login->expire_ms = pb_timestamp_ms(in->expire_time);
		/* With cluster and pin, which may have been taken on trust: a restart waits on for the same ones. */
		identity_set_pending(c->identity, in->code, login->ephemeral);
	}
	control_set_phase(c, CONTROL_PENDING, NULL);
	if (fresh) {
		control_step(c, CONTROL_STEP_APPROVAL, true,
			     "waiting for approval: skerry node approve %s", in->code);
	}
	/* The lighthouse holds the call; one that does not is not asked more than once a second. */
	if (!fresh && loop_now(c->loop) - l->call_ms < PENDING_MIN_MS) {
		loop_timer_start(&l->subscribe, c->loop, PENDING_MIN_MS, on_pending_again, l);
	} else {
		send_register(l, NULL);
	}
}

static void on_register(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	const Skerry__V1__RegisterResponse *m = (const Skerry__V1__RegisterResponse *)reply;
	struct link *l = arg;
	struct control *c = l->c;

	l->call = NULL;
	if (l->dead) {
		return;
	}
	if (status->code == ERR_DEADLINE && c->login.code != NULL) {
		send_register(l, NULL); /* it was held: nobody has decided yet */
		return;
	}
	if (status->code != 0) {
		if (worth_a_retry(status->code)) {
			control_link_ended(l, status, true, false);
			if (status->code == ERR_LIMIT || status->reason[0] != '\0') {
				c->answered = *status;
			}
			return;
		}
		struct err why = *status;

		if (strcmp(why.reason, "NODE_KEY_IN_USE") == 0 &&
		    c->identity->enrolment.registered) {
			/* Registered already, in another tailnet or for another user. */
			err_reason(
				&why, why.code, "NODE_KEY_IN_USE",
				"this device is registered in tailnet %s already: skerry logout, "
				"then the same skerry up",
				c->identity->enrolment.tailnet_name);
		}
		LOG_WARN("%s refused the registration: %s", l->url, why.msg);
		login_done(&c->login);
		identity_set_pending(c->identity, "", false);
		control_link_ended(l, &why, false, false);
		c->handler->on_refused(c->arg, &why);
		return;
	}
	switch (m->outcome_case) {
	case SKERRY__V1__REGISTER_RESPONSE__OUTCOME_CHALLENGE:
		if (m->challenge->box_key.len != 32 || l->registering) {
			struct err e = {0};

			err_set(&e, ERR_PROTOCOL, "%s asks for proof again and again", l->url);
			control_link_ended(l, &e, true, false);
			return;
		}
		l->registering = true;
		send_register(l, m->challenge->box_key.data);
		break;
	case SKERRY__V1__REGISTER_RESPONSE__OUTCOME_REGISTERED:
		take_registered(l, m->registered);
		break;
	case SKERRY__V1__REGISTER_RESPONSE__OUTCOME_PENDING: take_pending(l, m->pending); break;
	default: {
		struct err e = {0};

		err_set(&e, ERR_PROTOCOL, "%s answered something unknown", l->url);
		control_link_ended(l, &e, true, false);
		break;
	}
	}
}

/* box_key: of the challenge; NULL on the first call, and later the one that was given before. */
static void send_register(struct link *l, const uint8_t *box_key)
{
	struct control *c = l->c;
	const struct identity *id = c->identity;
	struct pending_login *login = &c->login;
	Skerry__V1__RegisterRequest msg = SKERRY__V1__REGISTER_REQUEST__INIT;
	struct rpc_opts opts = {.deadline_ms = CONTROL_CALL_MS};
	Skerry__V1__HostInfo host_info;
	Skerry__V1__Endpoint *endpoints;
	struct buf proof = BUF_INIT;
	uint8_t random[16];
	char request_id[33];

	if (box_key != NULL) {
		memcpy(l->box_key, box_key, sizeof(l->box_key));
	}
	if (l->registering && crypto_x25519_box(id->node_secret, l->box_key, l->exporter,
						sizeof(l->exporter), &proof) < 0) {
		struct err e = {0};

		err_set(&e, ERR_PROTOCOL, "%s asks for proof to an impossible key", l->url);
		control_link_ended(l, &e, true, false);
		return;
	}
	host_info_fill(&host_info, c->hostname);
	endpoints = control_endpoints(c, &msg.endpoints);
	msg.n_endpoints = c->n_endpoints;
	msg.node_key = (ProtobufCBinaryData){32, (uint8_t *)id->node_key};
	msg.node_key_proof = (ProtobufCBinaryData){proof.len, proof.data};
	/* The key goes out with the proof alone, after the pin held. */
	msg.auth_key = l->registering ? (char *)secret_str_reveal(&login->auth_key) : (char *)"";
	msg.hostname = c->hostname;
	msg.host_info = &host_info;
	msg.disco_key = (ProtobufCBinaryData){32, (uint8_t *)id->disco_key};
	msg.requested_tags = login->tags;
	msg.n_requested_tags = login->n_tags;
	msg.ephemeral = login->ephemeral;
	msg.pending_code = login->code != NULL ? login->code : (char *)"";
	msg.tailnet = login->tailnet != NULL ? login->tailnet : (char *)"";
	msg.instance_id = (char *)id->instance_id;
	rand_bytes(random, sizeof(random));
	msg.request_id = hex_encode(request_id, random, sizeof(random));
	l->call_ms = loop_now(c->loop);
	l->call = rpc_unary(l->channel, "/skerry.v1.AgentService/Register", &msg.base,
			    &skerry__v1__register_response__descriptor, &opts, on_register, l);
	buf_done(&proof);
	mem_free(msg.endpoints);
	mem_free(endpoints);
}

void link_register(struct link *l)
{
	struct control *c = l->c;

	control_set_phase(c, c->login.code != NULL ? CONTROL_PENDING : CONTROL_REGISTERING, NULL);
	send_register(l, NULL);
}
