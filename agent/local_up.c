/*
 * Up: settings, WireGuard, login; then the call stays open and is told each step until the mesh works. The agent goes on
 * whether somebody waits or not.
 */
#include <stdio.h>
#include <string.h>

#include "agent/local_int.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/stream.h"
#include "proto/pb_util.h"

#define STEP(name) SKERRY__LOCAL__V1__UP_STEP__UP_STEP_##name

enum {
	DEADLINE_EARLY_MS =
		150, /* the answer should reach the caller before the deadline cuts it */
};

void local_up_done(struct up_wait *u)
{
	list_remove(&u->node);
	loop_timer_stop(&u->deadline);
	mem_free(u);
}

static void on_cancel(void *arg, struct rpc_call *call, const struct err *why)
{
	(void)call;
	(void)why;
	local_up_done(arg);
}

static void up_finish(struct up_wait *u, const struct err *e)
{
	struct rpc_call *call = rpc_call_find(u->local->rpc, u->ref);

	local_up_done(u);
	if (call != NULL) {
		rpc_call_finish(call, e);
	}
}

static bool up_tell(struct up_wait *u, int step, bool waiting, const char *text)
{
	Skerry__Local__V1__UpEvent event = SKERRY__LOCAL__V1__UP_EVENT__INIT;
	Skerry__Local__V1__Approval approval = SKERRY__LOCAL__V1__APPROVAL__INIT;
	Google__Protobuf__Timestamp expire;
	struct rpc_call *call = rpc_call_find(u->local->rpc, u->ref);
	struct control_info info;

	if (call == NULL) {
		local_up_done(u);
		return false;
	}
	if (!waiting) {
		u->told |= 1ull << step;
	}
	event.step = (Skerry__Local__V1__UpStep)step;
	event.text = (char *)text;
	event.waiting = waiting;
	event.elapsed_ms = loop_now(u->local->a->loop) - u->started;
	if (step == STEP(APPROVAL)) {
		control_info(u->local->a->control, &info);
		approval.code = (char *)info.pending_code;
		approval.url = (char *)info.pending_url;
		if (info.pending_expire_ms != 0) {
			approval.expire_time = pb_timestamp_set(&expire, info.pending_expire_ms);
		}
		event.approval = &approval;
	}
	if (rpc_call_send(call, &event.base) < 0) {
		struct err e = {0};

		err_set(&e, ERR_LIMIT, "the caller does not read");
		up_finish(u, &e);
		return false;
	}
	return true;
}

static bool was_told(const struct up_wait *u, int step)
{
	return (u->told & (1ull << step)) != 0;
}

/* Tells what is done by now, in order; the end of it is the end of the call. */
static void up_check(struct up_wait *u)
{
	struct agent *a = u->local->a;
	const struct enrolment *en = &a->identity.enrolment;
	struct control_info info;
	char text[256];

	control_info(a->control, &info);
	if (info.phase == CONTROL_ATTACHED && !info.registering) {
		if (!was_told(u, STEP(DIALLED))) {
			snprintf(text, sizeof(text), "connected to %s", info.url);
			if (!up_tell(u, STEP(DIALLED), false, text)) {
				return;
			}
		}
		if (!was_told(u, STEP(REGISTERED))) {
			snprintf(text, sizeof(text), "registered as %.80s in tailnet %.80s%s",
				 en->name, en->tailnet_name,
				 u->key_unused ? " already: the key was not used (--force-register "
						 "uses it)"
					       : "");
			if (!up_tell(u, STEP(REGISTERED), false, text)) {
				return;
			}
		}
	}
	if (info.phase != CONTROL_ATTACHED || info.registering || info.netmap_due ||
	    !a->has_admitted || !a->applied || loop_timer_active(&a->apply_timer) ||
	    !a->actual.up) {
		const char *why = a->wg_problem[0] != '\0'        ? a->wg_problem
				  : a->host_problem[0] != '\0'    ? a->host_problem
				  : info.phase == CONTROL_WAITING ? info.problem
								  : "";

		if (why[0] != '\0' && strcmp(why, u->waiting) != 0) {
			snprintf(u->waiting, sizeof(u->waiting), "%s", why);
			up_tell(u, info.phase == CONTROL_ATTACHED ? STEP(PEERS) : STEP(DIALLED),
				true, why);
		}
		return;
	}
	snprintf(text, sizeof(text), "%zu peer%s, revision %llu", a->admitted.n_peers,
		 a->admitted.n_peers == 1 ? "" : "s", (unsigned long long)a->netmap.revision);
	if (!was_told(u, STEP(PEERS)) && !up_tell(u, STEP(PEERS), false, text)) {
		return;
	}
	if (!was_told(u, STEP(DNS)) && !up_tell(u, STEP(DNS), false, dns_glue_text(a->dns))) {
		return;
	}
	snprintf(text, sizeof(text), "%.100s is up", a->admitted.name);
	if (up_tell(u, STEP(DONE), false, text)) {
		up_finish(u, NULL);
	}
}

static void on_deadline(void *arg)
{
	struct up_wait *u = arg;
	struct agent *a = u->local->a;
	struct control_info info;
	struct err e = {0};

	control_info(a->control, &info);
	if (info.phase == CONTROL_PENDING) {
		err_reason(&e, ERR_DEADLINE, "APPROVAL_TIMEOUT",
			   "nobody has approved this device yet: skerry node approve %s, then the "
			   "same skerry up again",
			   info.pending_code);
	} else if (a->wg_problem[0] != '\0') {
		err_reason(&e, ERR_UNAVAILABLE, "WIREGUARD", "%s", a->wg_problem);
	} else if (info.unknown) {
		err_reason(&e, ERR_PRECONDITION, "NOT_REGISTERED",
			   "the lighthouse does not know this device any more: the same skerry up "
			   "again registers it");
	} else if (info.answered != NULL) {
		/* It was reached and said why not now: too many from here, no quorum. */
		err_reason(&e, info.answered->code, info.answered->reason,
			   "not registered yet: %s; the agent goes on trying", info.answered->msg);
	} else if (strstr(info.problem, "pin not found") != NULL) {
		err_reason(&e, ERR_UNAUTHENTICATED, "WRONG_PIN", "%s", info.problem);
	} else {
		err_reason(&e, ERR_UNAVAILABLE, "LIGHTHOUSE_AWAY",
			   "no lighthouse answered in time: %s",
			   info.problem[0] != '\0' ? info.problem : "still connecting");
	}
	up_finish(u, &e);
}

/* The settings of the request, then up; what fails here changes nothing. */
static int up_settings(struct agent *a, const Skerry__Local__V1__UpRequest *in, bool by_root,
		       struct err *e)
{
	struct settings old;
	int r;

	settings_copy(&a->settings, &old);
	r = settings_update(&a->settings, in->settings, in->update_mask, by_root, e);
	if (r >= 0) {
		a->settings.up = true;
		r = agent_settings_changed(a, e);
	}
	if (r < 0) {
		settings_done(&a->settings);
		a->settings = old;
		return r;
	}
	settings_done(&old);
	return 0;
}

static void on_up(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	const Skerry__Local__V1__UpRequest *in = (const Skerry__Local__V1__UpRequest *)req;
	struct local *local = arg;
	struct agent *a = local->a;
	struct control_login login = {
		.auth_key = in->auth_key,
		.ephemeral = in->ephemeral,
		.force = in->force_register || agent_is_expired(a),
	};
	struct rpc_ref ref = rpc_call_ref(call);
	struct control_info info;
	struct up_wait *u;
	struct err e = {0};
	char text[128];

	if (up_settings(a, in, rpc_call_peer(call)->uid == 0, &e) < 0) {
		rpc_call_finish(call, &e);
		return;
	}
	u = MEM_NEW(struct up_wait);
	u->local = local;
	u->ref = ref;
	u->started = loop_now(a->loop);
	list_push(&local->ups, &u->node);
	rpc_call_set_cancel_cb(call, on_cancel, u);
	rpc_call_send_headers(call);
	if (!agent_wg_ensure(a)) {
		err_reason(&e, ERR_UNAVAILABLE, "WIREGUARD", "%s", a->wg_problem);
		up_finish(u, &e);
		return;
	}
	snprintf(text, sizeof(text), "%s %s", a->config->interface,
		 a->adopted ? "is there" : "was made");
	if (!up_tell(u, STEP(WIREGUARD), false, text)) {
		return;
	}
	control_info(a->control, &info);
	u->key_unused = *in->auth_key && a->identity.enrolment.registered && !login.force &&
			!info.unknown;
	login.tags = (const char *const *)a->settings.tags;
	login.n_tags = a->settings.n_tags;
	login.tailnet = a->settings.tailnet;
	if (control_login(a->control, &login, &e) < 0) {
		up_finish(u, &e);
		return;
	}
	/* control_login() may have told a step to this call, and that may have ended it. */
	call = rpc_call_find(local->rpc, ref);
	if (call == NULL) {
		return;
	}
	if (rpc_call_remaining_ms(call) != UINT64_MAX) {
		uint64_t left = rpc_call_remaining_ms(call);

		loop_timer_start(&u->deadline, a->loop,
				 left > DEADLINE_EARLY_MS ? left - DEADLINE_EARLY_MS : 0,
				 on_deadline, u);
	}
	agent_apply_now(a); /* progress is told from there */
}

const struct rpc_handler local_up_handler = {.on_call = on_up};

void local_step(struct local *local, int step, bool waiting, const char *text)
{
	if (local == NULL) {
		return;
	}
	LIST_FOREACH_SAFE(&local->ups, it, tmp)
	{
		struct up_wait *u = LIST_ENTRY(it, struct up_wait, node);

		if (waiting) {
			if (strcmp(u->waiting, text) == 0) {
				continue;
			}
			snprintf(u->waiting, sizeof(u->waiting), "%s", text);
		}
		up_tell(u, step, waiting, text);
	}
}

void local_refused(struct local *local, const struct err *why)
{
	struct err e = *why;

	if (local == NULL) {
		return;
	}
	if (err_grpc(e.code) == 16 && e.reason[0] == '\0') {
		snprintf(e.reason, sizeof(e.reason), "KEY_REFUSED");
	}
	LIST_FOREACH_SAFE(&local->ups, it, tmp)
	{
		up_finish(LIST_ENTRY(it, struct up_wait, node), &e);
	}
}

void local_progress(struct local *local)
{
	if (local == NULL) {
		return;
	}
	LIST_FOREACH_SAFE(&local->ups, it, tmp)
	{
		up_check(LIST_ENTRY(it, struct up_wait, node));
	}
}
