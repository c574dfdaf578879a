/*
 * Which link is used, when the next one is tried, and what is reported.
 *
 *   OFF -> DIALLING -> [REGISTERING -> [PENDING]] -> SUBSCRIBING -> ATTACHED
 *             ^                                                        |
 *             +--- WAITING (backoff, at most 5 s) <--- a link ended <--+
 *
 * The end of an attached link dials the others at once. The mesh is never touched here: without a lighthouse it goes on.
 */
#include "agent/control.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/control_int.h"
#include "base/clock.h"
#include "base/enc.h"
#include "base/key.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/rand.h"

enum {
	WATCHDOG_MS = 500,
	NEXT_EVERY_MS = 5000, /* between attempts to find a lighthouse with quorum */
	AT_ONCE = 3,
	NEXT_BEAT_MS =
		7000, /* for the first heartbeat of another lighthouse: it sends one every 5 s */
};

void control_set_phase(struct control *c, enum control_phase phase, const char *problem)
{
	bool same = c->phase == phase && (problem == NULL || strcmp(problem, c->problem) == 0);

	c->phase = phase;
	if (problem != NULL) {
		snprintf(c->problem, sizeof(c->problem), "%s", problem);
	}
	if (!same) {
		c->handler->on_change(c->arg);
	}
}

void control_step(struct control *c, enum control_step step, bool waiting, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->handler->on_step(c->arg, step, waiting, text);
}

/* ---- Reports ------------------------------------------------------------------------------------------------------- */

Skerry__V1__Endpoint *control_endpoints(const struct control *c, Skerry__V1__Endpoint ***ret_list)
{
	Skerry__V1__Endpoint *v = mem_calloc(c->n_endpoints + 1, sizeof(*v));
	Skerry__V1__Endpoint **list = mem_calloc(c->n_endpoints + 1, sizeof(*list));

	for (size_t i = 0; i < c->n_endpoints; i++) {
		skerry__v1__endpoint__init(&v[i]);
		v[i].address.data = c->endpoints[i].addr.b;
		v[i].address.len = ipaddr_len(&c->endpoints[i].addr);
		v[i].port = c->endpoints[i].port;
		v[i].kind = SKERRY__V1__ENDPOINT_KIND__ENDPOINT_KIND_LOCAL;
		list[i] = &v[i];
	}
	*ret_list = list;
	return v;
}

static void report_send(struct control *c);

static void on_report(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct control *c = arg;

	(void)reply;
	c->report = NULL;
	c->report_link = NULL;
	if (status->code != 0) {
		LOG_DEBUG("report: %s", status->msg);
		c->report_due = true; /* the watchdog sends it again */
	} else if (c->report_due) {
		report_send(c); /* something changed meanwhile */
	}
}

/* One report at a time; what changes meanwhile goes with the next. */
static void report_send(struct control *c)
{
	Skerry__V1__ReportRequest msg = SKERRY__V1__REPORT_REQUEST__INIT;
	Skerry__V1__HostInfo host_info;
	Skerry__V1__Endpoint *endpoints;

	if (c->main == NULL || c->report != NULL) {
		return;
	}
	host_info_fill(&host_info, c->hostname);
	endpoints = control_endpoints(c, &msg.endpoints);
	msg.session = c->main->session;
	msg.n_endpoints = c->n_endpoints;
	msg.disco_key = (ProtobufCBinaryData){32, c->identity->disco_key};
	msg.host_info = &host_info;
	msg.hostname = c->hostname;
	c->report_due = false;
	c->report_link = c->main;
	c->report = rpc_unary(c->main->channel, "/skerry.v1.AgentService/Report", &msg.base,
			      &skerry__v1__report_response__descriptor, NULL, on_report, c);
	mem_free(msg.endpoints);
	mem_free(endpoints);
}

void control_set_endpoints(struct control *c, const struct ipport *endpoints, size_t n)
{
	if (endpoints_equal(c->endpoints, c->n_endpoints, endpoints, n)) {
		return;
	}
	mem_free(c->endpoints);
	c->endpoints = mem_memdup(endpoints, n * sizeof(*endpoints));
	c->n_endpoints = n;
	c->report_due = true;
	report_send(c);
}

void control_set_hostname(struct control *c, const char *hostname)
{
	if (strcmp(c->hostname, hostname) != 0) {
		snprintf(c->hostname, sizeof(c->hostname), "%s", hostname);
		c->report_due = true;
		report_send(c);
	}
}

/* ---- Dialling ------------------------------------------------------------------------------------------------------ */

static void on_retry(void *arg);

static void wait_and_retry(struct control *c, const char *problem)
{
	control_set_phase(c, CONTROL_WAITING, problem);
	loop_timer_start(&c->retry, c->loop, backoff_next(&c->backoff), on_retry, c);
}

static bool has_work(const struct control *c)
{
	return c->wanted && (c->login.active || c->identity->enrolment.registered);
}

/* Starts the one dial that may be under way, towards all lighthouses but `skip`. */
static void dial_now(struct control *c, const char *skip)
{
	loop_timer_stop(&c->retry);
	if (!has_work(c)) {
		control_set_phase(c, CONTROL_OFF, NULL);
		return;
	}
	if (c->next != NULL) {
		return;
	}
	c->next = link_new(c);
	if (!link_dial(c->next, skip)) {
		link_kill(c->next);
		if (c->main == NULL) {
			wait_and_retry(c, "no lighthouse is known: skerry up --lighthouse URL");
		}
		return;
	}
	if (c->main == NULL) {
		control_set_phase(c, CONTROL_DIALLING, NULL);
	}
}

static void on_retry(void *arg)
{
	dial_now(arg, NULL);
}

void control_seek_other(struct control *c)
{
	if (c->main == NULL || c->next != NULL || loop_now(c->loop) < c->next_after) {
		return;
	}
	c->next_after = loop_now(c->loop) + NEXT_EVERY_MS;
	dial_now(c, c->main->url);
}

static void avoid_url(struct control *c, const char *url)
{
	if (url != NULL && (c->avoid == NULL || strcmp(c->avoid, url) != 0)) {
		mem_free(c->avoid);
		c->avoid = mem_strdup(url);
	}
}

void control_link_ended(struct link *l, const struct err *why, bool avoid, bool retry_now)
{
	struct control *c = l->c;
	bool was_main = c->main == l;
	struct err text = why != NULL ? *why : (struct err){0};

	if (l->dead) {
		return;
	}
	c->answered.code = 0;
	if (avoid) {
		avoid_url(c, l->url);
	}
	if (was_main) {
		uint64_t lived = loop_now(c->loop) - l->open_ms;

		LOG_INFO("lighthouse %s is gone: %s", l->url, err_msg(&text, text.code));
		if (lived >= CONTROL_STEADY_MS) {
			backoff_reset(&c->backoff);
		} else {
			/* A few times at once; lighthouses that end each call have to wait. */
			retry_now = retry_now && c->backoff.attempts < AT_ONCE;
			if (retry_now) {
				(void)backoff_next(&c->backoff);
			}
		}
		c->lost_ms = clock_wall_ms();
		c->lost_mono_ms = loop_now(c->loop);
		c->attached_ms = 0;
		METRICS_COUNT("skerry_agent_lighthouse_lost_total",
			      "connections to lighthouses that ended", 1);
	} else {
		LOG_DEBUG("lighthouse %s: %s", l->url != NULL ? l->url : "",
			  err_msg(&text, text.code));
		/* A link that never opened is no reason to hurry, unless others have not been asked yet. */
		retry_now = retry_now && c->backoff.attempts < 2;
	}
	link_kill(l);
	if (c->main != NULL) {
		return; /* the second link has failed; the first one works on */
	}
	if (!c->wanted) {
		control_set_phase(c, CONTROL_OFF, NULL);
		return;
	}
	if (c->next != NULL) {
		return; /* another one is on its way already */
	}
	if (c->login.active && text.code != 0) {
		control_step(c, CONTROL_STEP_DIALLED, true, "%s", err_msg(&text, text.code));
	}
	if (retry_now) {
		snprintf(c->problem, sizeof(c->problem), "%s", err_msg(&text, text.code));
		if (!was_main) {
			(void)backoff_next(&c->backoff);
		}
		dial_now(c, NULL);
	} else if (has_work(c)) {
		wait_and_retry(c, err_msg(&text, text.code));
	} else {
		control_set_phase(c, CONTROL_OFF, err_msg(&text, text.code));
	}
}

/* ---- Attached ------------------------------------------------------------------------------------------------------ */

static void promote(struct link *l)
{
	struct control *c = l->c;
	struct enrolment *en = &c->identity->enrolment;
	bool new_good = en->last_good == NULL || strcmp(en->last_good, l->url) != 0;

	c->next = NULL;
	link_kill(c->main);
	c->main = l;
	c->attaches++;
	c->attached_ms = clock_wall_ms();
	if (c->lost_mono_ms != 0) {
		c->reattach_ms = loop_now(c->loop) - c->lost_mono_ms;
		c->lost_mono_ms = 0;
	}
	METRICS_COUNT("skerry_agent_attaches_total", "attaches to lighthouses", 1);
	if (new_good) {
		enrolment_set_last_good(en, l->url);
	}
	c->problem[0] = '\0';
	c->unknown = false;
	LOG_INFO("attached to %s (%s), session %llu", l->url, l->peer_text,
		 (unsigned long long)l->session);
	control_set_phase(c, CONTROL_ATTACHED, NULL);
	if (c->report_due) {
		report_send(c);
	}
}

void control_link_open(struct link *l)
{
	/* With a main link that works, another one has to show its quorum first. */
	if (l->c->main == NULL) {
		promote(l);
	}
}

void control_link_beat(struct link *l)
{
	struct control *c = l->c;

	if (l == c->main) {
		if (l->quorum_age_ms >= CONTROL_NO_QUORUM_MS) {
			control_seek_other(c);
		}
	} else if (l == c->next && c->main != NULL) {
		if (l->quorum_age_ms < CONTROL_NO_QUORUM_MS) {
			LOG_INFO("moving to %s", l->url);
			promote(l);
		} else {
			link_kill(l);
		}
	}
}

static void on_watchdog(void *arg)
{
	struct control *c = arg;
	uint64_t now = loop_now(c->loop);

	loop_timer_start(&c->watchdog, c->loop, WATCHDOG_MS, on_watchdog, c);
	if (c->next != NULL && c->next->open && now - c->next->open_ms > NEXT_BEAT_MS) {
		link_kill(c->next);
	}
	if (c->main == NULL) {
		return;
	}
	if (now - c->main->open_ms > CONTROL_STEADY_MS) {
		backoff_reset(&c->backoff);
		mem_free(c->avoid);
		c->avoid = NULL;
	}
	if (now - c->main->heard_ms > CONTROL_SILENT_MS) {
		struct err e = {0};

		err_set(&e, ERR_DEADLINE, "no heartbeat for %d s", CONTROL_SILENT_MS / 1000);
		control_link_ended(c->main, &e, true, true);
	} else if (c->report_due && now - c->main->open_ms > 1000) {
		report_send(c);
	}
}

/* ---- From outside -------------------------------------------------------------------------------------------------- */

struct control *control_new(const struct control_opts *opts)
{
	struct control *c = MEM_NEW(struct control);

	c->loop = opts->loop;
	c->identity = opts->identity;
	c->netmap = opts->netmap;
	c->handler = opts->handler;
	c->arg = opts->arg;
	list_init(&c->graveyard);
	backoff_init(&c->backoff, CONTROL_RETRY_MIN_MS, CONTROL_RETRY_MAX_MS);
	return c;
}

static void urls_free(char **urls, size_t *n)
{
	for (size_t i = 0; i < *n; i++) {
		mem_free(urls[i]);
	}
	*n = 0;
}

void control_free(struct control *c)
{
	if (c == NULL) {
		return;
	}
	rpc_cancel(c->logout);
	loop_timer_stop(&c->logout_timer);
	rpc_cancel(c->report);
	c->report = NULL;
	c->report_link = NULL;
	link_kill(c->main);
	link_kill(c->next);
	loop_timer_stop(&c->bury);
	links_bury(c);
	loop_timer_stop(&c->retry);
	loop_timer_stop(&c->watchdog);
	urls_free(c->urls, &c->n_urls);
	urls_free(c->urls_now, &c->n_urls_now);
	login_done(&c->login);
	mem_free(c->avoid);
	mem_free(c->endpoints);
	tls_unref(c->tls);
	mem_free(c);
}

void control_set_urls(struct control *c, const char *const *urls, size_t n)
{
	urls_free(c->urls, &c->n_urls);
	for (size_t i = 0; i < n && i < LIM_LIGHTHOUSE_URLS; i++) {
		c->urls[c->n_urls++] = mem_strdup(urls[i]);
	}
	if (c->phase == CONTROL_WAITING) {
		dial_now(c, NULL);
	}
}

/* A wait for approval that began before this process did. The lighthouse knows the code, and by it all that was asked for. */
static void login_resume(struct control *c)
{
	const struct enrolment *en = &c->identity->enrolment;

	if (en->registered || en->pending_code[0] == '\0' || c->login.active) {
		return;
	}
	c->login = (struct pending_login){.active = true,
					  .auth_key = secret_str_take(mem_strdup("")),
					  .tailnet = mem_strdup(""),
					  .ephemeral = en->pending_ephemeral,
					  .code = mem_strdup(en->pending_code),
					  .url = mem_strdup("")};
	LOG_INFO("still waiting for approval: skerry node approve %s", en->pending_code);
}

void control_start(struct control *c)
{
	c->wanted = true;
	login_resume(c);
	if (!loop_timer_active(&c->watchdog)) {
		loop_timer_start(&c->watchdog, c->loop, WATCHDOG_MS, on_watchdog, c);
	}
	if (c->main == NULL && c->next == NULL) {
		dial_now(c, NULL);
	}
}

void control_stop(struct control *c)
{
	c->wanted = false;
	loop_timer_stop(&c->retry);
	loop_timer_stop(&c->watchdog);
	link_kill(c->next);
	link_kill(c->main);
	login_done(&c->login);
	c->answered.code = 0;
	c->attached_ms = 0;
	c->lost_ms = 0;
	c->lost_mono_ms = 0;
	c->reattach_ms = 0;
	c->problem[0] = '\0';
	control_set_phase(c, CONTROL_OFF, NULL);
}

static int login_check_key(struct control *c, const struct control_login *login, struct key *key,
			   struct err *e)
{
	const struct enrolment *en = &c->identity->enrolment;
	int r;

	r = key_parse(login->auth_key, key, e);
	if (r < 0) {
		return r;
	}
	if (key->kind != KEY_AUTH) {
		char text[KEY_REDACTED];

		r = err_field(e, ERR_INVALID, "auth_key",
			      "%s is no auth key: it begins with sk-auth-",
			      key_redacted(key, text));
	} else if (key->has_pin && en->registered && !c->unknown &&
		   key->pin.cluster_id != en->cluster_id) {
		/* By force neither: if that registration came to nothing, the present one would be lost. */
		r = err_reason(e, ERR_PRECONDITION, "WRONG_CLUSTER",
			       "the key is of cluster %llu, this device belongs to %llu: skerry "
			       "logout first",
			       (unsigned long long)key->pin.cluster_id,
			       (unsigned long long)en->cluster_id);
	} else if (key->has_pin && en->registered && !c->unknown && en->has_pin &&
		   !enrolment_has_pin(en, key->pin.spki_sha256)) {
		r = err_reason(e, ERR_PRECONDITION, "WRONG_PIN",
			       "the key names another certificate authority than the one that this "
			       "device keeps for cluster %llu: check where the key comes from; to "
			       "trust it, skerry logout first",
			       (unsigned long long)en->cluster_id);
	}
	if (r < 0) {
		key_done(key);
	}
	return r;
}

int control_login(struct control *c, const struct control_login *login, struct err *e)
{
	struct enrolment *en = &c->identity->enrolment;
	bool has_key = login->auth_key != NULL && login->auth_key[0] != '\0';
	struct pending_login *p = &c->login;
	struct key key = {0};
	bool waits;
	int r;

	if (has_key) {
		r = login_check_key(c, login, &key, e);
		if (r < 0) {
			return r;
		}
	}
	if (en->registered && !login->force && !c->unknown) {
		key_done(&key);
		control_start(c);
		return 0;
	}
	if (c->n_urls == 0 && en->n_lighthouses == 0 && en->last_good == NULL) {
		key_done(&key);
		return err_reason(
			e, ERR_PRECONDITION, "NO_LIGHTHOUSE",
			"no lighthouse is known: skerry up --lighthouse https://HOST:8443");
	}
	/* A login that waits for approval goes on; the same call again does not ask for a second code. */
	waits = p->active && p->code != NULL && !has_key;
	if (has_key && key.has_pin) {
		if (en->cluster_id != key.pin.cluster_id) {
			enrolment_set_lighthouses(en, NULL, 0);
			mem_free(en->last_good);
			en->last_good = NULL;
		}
		if (en->cluster_id != key.pin.cluster_id ||
		    !enrolment_has_pin(en, key.pin.spki_sha256)) {
			memcpy(en->pin, key.pin.spki_sha256, 32);
			en->has_pin = true;
			en->has_old_pin = false;
		}
		en->cluster_id = key.pin.cluster_id;
	} else if (!en->registered && !waits) {
		/* What an earlier attempt took on trust is not kept beyond it. */
		en->has_pin = en->has_old_pin = false;
		en->cluster_id = 0;
	}
	c->answered.code = 0;
	if (!waits) {
		login_done(p);
		p->auth_key = secret_str_take(mem_strdup(has_key ? login->auth_key : ""));
		p->key_without_pin = has_key && !key.has_pin;
		for (size_t i = 0; i < login->n_tags && i < LIM_NODE_TAGS; i++) {
			p->tags[p->n_tags++] = mem_strdup(login->tags[i]);
		}
		p->tailnet = mem_strdup(login->tailnet != NULL ? login->tailnet : "");
		p->ephemeral = login->ephemeral;
		p->active = true;
		link_kill(c->main);
		link_kill(c->next);
	} else {
		control_step(c, CONTROL_STEP_APPROVAL, true,
			     "waiting for approval: skerry node approve %s", p->code);
	}
	key_done(&key);
	backoff_reset(&c->backoff);
	c->problem[0] = '\0';
	control_start(c);
	return 0;
}

static void on_logout(void *arg, const struct err *status, const ProtobufCMessage *reply)
{
	struct control *c = arg;
	void (*cb)(void *, const struct err *) = c->logout_cb;

	(void)reply;
	c->logout = NULL;
	c->logout_cb = NULL;
	cb(c->logout_arg, status);
}

static void on_logout_offline(void *arg)
{
	struct control *c = arg;
	void (*cb)(void *, const struct err *) = c->logout_cb;
	struct err e = {0};

	c->logout_cb = NULL;
	err_reason(&e, ERR_UNAVAILABLE, "LIGHTHOUSE_AWAY", "no lighthouse is attached");
	cb(c->logout_arg, &e);
}

void control_logout(struct control *c, void (*cb)(void *arg, const struct err *status), void *arg)
{
	Skerry__V1__LogoutRequest msg = SKERRY__V1__LOGOUT_REQUEST__INIT;
	struct rpc_opts opts = {.deadline_ms = 5000};
	uint8_t random[16];
	char request_id[33];

	PRE(c->logout_cb == NULL);
	c->logout_cb = cb;
	c->logout_arg = arg;
	if (c->main == NULL) {
		loop_timer_start(&c->logout_timer, c->loop, 0, on_logout_offline, c);
		return;
	}
	rand_bytes(random, sizeof(random));
	msg.request_id = hex_encode(request_id, random, sizeof(random));
	c->logout = rpc_unary(c->main->channel, "/skerry.v1.AgentService/Logout", &msg.base,
			      &skerry__v1__logout_response__descriptor, &opts, on_logout, c);
}

void control_network_changed(struct control *c)
{
	if (c->phase == CONTROL_WAITING) {
		backoff_reset(&c->backoff);
		dial_now(c, NULL);
	}
}

void control_info(const struct control *c, struct control_info *ret)
{
	const struct link *l = c->main;
	const struct enrolment *en = &c->identity->enrolment;

	*ret = (struct control_info){
		.phase = c->phase,
		.url = l != NULL ? l->url : "",
		.peer_text = l != NULL ? l->peer_text : "",
		.registering = c->login.active,
		.unknown = c->unknown,
		.netmap_due = c->want_full || !netmap_held(c->netmap),
		.attached_ms = c->attached_ms,
		.lost_ms = c->lost_ms,
		.reattach_ms = c->reattach_ms,
		.attaches = c->attaches,
		.problem = c->problem,
		.answered = c->answered.code != 0 ? &c->answered : NULL,
		.pending_code = c->login.code != NULL ? c->login.code : "",
		.pending_url = c->login.url != NULL ? c->login.url : "",
		.pending_expire_ms = c->login.expire_ms,
		.session = c->identity->session,
	};
	if (l != NULL) {
		ret->peer_addr = l->peer_addr;
		ret->lighthouse_id = l->lighthouse_id;
		ret->session = l->session;
		ret->quorum_age_ms = l->quorum_age_ms;
		ret->heartbeat_age_ms = loop_now(c->loop) - l->heard_ms;
	}
	for (size_t i = 0; i < c->n_urls; i++) {
		ret->urls[ret->n_urls++] = c->urls[i];
	}
	for (size_t i = 0; i < en->n_lighthouses; i++) {
		bool known = false;

		for (size_t j = 0; j < c->n_urls && !known; j++) {
			known = strcmp(c->urls[j], en->lighthouses[i]) == 0;
		}
		if (!known) {
			ret->urls[ret->n_urls++] = en->lighthouses[i];
		}
	}
}
