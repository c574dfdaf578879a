/* The agent's socket: gRPC for the programs of this device. Who calls is told by the kernel; who may change is root, the
 * group and the operator. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/local_int.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/listen.h"
#include "net/stream.h"
#include "skerry/v1/options.pb-c.h"

/* ---- Who may ------------------------------------------------------------------------------------------------------- */

static bool in_group(const struct stream_peer *peer, const char *name)
{
	struct group *group = getgrnam(name);
	struct passwd *user;

	if (group == NULL) {
		return false;
	}
	if (group->gr_gid == peer->gid) {
		return true;
	}
	user = getpwuid(peer->uid);
	for (char **member = group->gr_mem; user != NULL && *member != NULL; member++) {
		if (strcmp(*member, user->pw_name) == 0) {
			return true;
		}
	}
	return false;
}

static int gate(void *arg, struct rpc_call *call, const struct proto_method *method,
		struct err *err)
{
	struct local *local = arg;
	const struct agent *a = local->a;
	const struct stream_peer *peer = rpc_call_peer(call);

	if (!peer->is_unix) {
		return err_reason(err, ERR_DENIED, "NOT_OPERATOR", "only over the Unix socket");
	}
	if (method->role <= SKERRY__V1__ROLE__ROLE_VIEWER || peer->uid == 0) {
		return 0;
	}
	if (method->role == SKERRY__V1__ROLE__ROLE_OPERATOR &&
	    ((a->settings.has_operator && a->settings.operator_uid == peer->uid) ||
	     in_group(peer, a->config->socket_group))) {
		return 0;
	}
	return err_reason(err, ERR_DENIED, "NOT_OPERATOR",
			  "uid %u may not change this device: use root, join the group %s, or let "
			  "root run skerry set --operator",
			  (unsigned)peer->uid, a->config->socket_group);
}

/* ---- Small calls --------------------------------------------------------------------------------------------------- */

static void on_version(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	Skerry__Local__V1__Version reply = SKERRY__LOCAL__V1__VERSION__INIT;

	(void)arg;
	(void)req;
	reply.version = (char *)SKERRY_VERSION;
	rpc_call_reply(call, &reply.base);
}

static void on_down(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	Skerry__Local__V1__DownResponse reply = SKERRY__LOCAL__V1__DOWN_RESPONSE__INIT;
	struct local *local = arg;
	struct agent *a = local->a;
	struct err e = {0};

	(void)req;
	reply.unchanged = !a->settings.up;
	a->settings.up = false;
	if (agent_settings_changed(a, &e) < 0) {
		rpc_call_finish(call, &e);
		return;
	}
	err_reason(&e, ERR_PRECONDITION, "IS_DOWN", "the device was switched off");
	local_refused(local, &e);
	control_stop(a->control);
	agent_apply_now(a);
	if (!reply.unchanged) {
		LOG_INFO("switched off by uid %u", (unsigned)rpc_call_peer(call)->uid);
	}
	rpc_call_reply(call, &reply.base);
}

static void on_set(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	const Skerry__Local__V1__SetRequest *in = (const Skerry__Local__V1__SetRequest *)req;
	Skerry__Local__V1__SetResponse reply = SKERRY__LOCAL__V1__SET_RESPONSE__INIT;
	Skerry__Local__V1__Settings settings;
	struct local *local = arg;
	struct agent *a = local->a;
	struct settings old;
	char *notes[2];
	struct err e = {0};
	int r;

	settings_copy(&a->settings, &old);
	r = settings_update(&a->settings, in->settings, in->update_mask,
			    rpc_call_peer(call)->uid == 0, &e);
	if (r >= 0) {
		r = agent_settings_changed(a, &e);
		if (r < 0) {
			settings_done(&a->settings);
			settings_copy(&old, &a->settings);
		}
	}
	if (r < 0) {
		settings_done(&old);
		rpc_call_finish(call, &e);
		return;
	}
	if (old.n_tags != a->settings.n_tags) {
		notes[reply.n_notes++] = (char *)"tags are asked for at the next registration";
	}
	if (strcmp(old.tailnet, a->settings.tailnet) != 0) {
		notes[reply.n_notes++] =
			(char *)"the tailnet is asked for at the next registration";
	}
	reply.notes = notes;
	settings_message(&a->settings, &settings);
	reply.settings = &settings;
	rpc_call_reply(call, &reply.base);
	settings_done(&old);
}

static void on_logged_out(void *arg, const struct err *status)
{
	Skerry__Local__V1__LogoutResponse reply = SKERRY__LOCAL__V1__LOGOUT_RESPONSE__INIT;
	struct local *local = arg;
	struct agent *a = local->a;
	struct rpc_call *call = rpc_call_find(local->rpc, local->logout);
	struct err e = {0};

	local->logout_busy = false;
	reply.lighthouse_told = status->code == 0;
	a->settings.up = false;
	LOG_INFO("logged out%s%s", reply.lighthouse_told ? "" : ", the lighthouse was not told: ",
		 reply.lighthouse_told ? "" : status->msg);
	agent_forget(a);
	if (agent_settings_changed(a, &e) < 0) {
		LOG_ERROR("%s", e.msg);
	}
	if (call != NULL) {
		rpc_call_reply(call, &reply.base);
	}
}

static void on_logout(void *arg, struct rpc_call *call, const ProtobufCMessage *req)
{
	struct local *local = arg;
	struct agent *a = local->a;
	struct err e = {0};

	(void)req;
	if (!a->identity.enrolment.registered) {
		err_reason(&e, ERR_PRECONDITION, "NOT_REGISTERED", "this device is not registered");
	} else if (local->logout_busy) {
		err_set(&e, ERR_ABORTED, "a logout is under way");
	}
	if (e.code != 0) {
		rpc_call_finish(call, &e);
		return;
	}
	err_reason(&e, ERR_PRECONDITION, "NOT_REGISTERED", "the device was logged out");
	local_refused(local, &e);
	local->logout = rpc_call_ref(call);
	local->logout_busy = true;
	control_logout(a->control, on_logged_out, local);
}

static const struct rpc_handler version_handler = {.on_call = on_version};
static const struct rpc_handler down_handler = {.on_call = on_down};
static const struct rpc_handler set_handler = {.on_call = on_set};
static const struct rpc_handler logout_handler = {.on_call = on_logout};

/* ---- The server ---------------------------------------------------------------------------------------------------- */

static void on_stream(void *arg, struct stream *stream)
{
	struct local *local = arg;

	http_server_accept(local->http, stream, "h2");
}

int local_new(struct agent *a, struct local **ret_local, struct err *e)
{
	static const struct {
		const char *path;
		const struct rpc_handler *handler;
	} methods[] = {
		{"/skerry.local.v1.LocalService/Up", &local_up_handler},
		{"/skerry.local.v1.LocalService/Down", &down_handler},
		{"/skerry.local.v1.LocalService/Set", &set_handler},
		{"/skerry.local.v1.LocalService/GetStatus", &local_status_handler},
		{"/skerry.local.v1.LocalService/Ping", &local_ping_handler},
		{"/skerry.local.v1.LocalService/Logout", &logout_handler},
		{"/skerry.local.v1.LocalService/GetVersion", &version_handler},
	};
	struct local *local = MEM_NEW(struct local);
	char *address = mem_printf("unix:%s", a->config->socket),
	     *dir = mem_strdup(a->config->socket), *slash;
	/* Everybody may connect: the gate says who may do what. */
	struct listener_opts opts = {.address = address,
				     .unix_mode = 0666,
				     .exempt_limits = true,
				     .max_conns = LIM_UNIX_CONNS};
	int r;

	local->a = a;
	list_init(&local->ups);
	list_init(&local->pings);
	local->rpc = rpc_server_new(a->loop, "local");
	for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
		rpc_server_add(local->rpc, methods[i].path, methods[i].handler, local);
	}
	rpc_server_set_gate(local->rpc, gate, local);
	local->router = http_router_new();
	rpc_server_mount(local->rpc, local->router, true);
	local->http = http_server_new(a->loop, local->router);
	slash = strrchr(dir, '/');
	*slash = '\0';
	r = dir[0] == '\0' ? 0 : dir_ensure(dir, 0755, e);
	if (r >= 0) {
		r = listener_new(a->loop, &opts, on_stream, local, &local->listener, e);
	}
	mem_free(address);
	mem_free(dir);
	if (r < 0) {
		local_free(local);
		return r;
	}
	*ret_local = local;
	return 0;
}

void local_free(struct local *local)
{
	struct list *node;

	if (local == NULL) {
		return;
	}
	listener_free(local->listener);
	/* The calls end with their connections and clean up after themselves. */
	http_server_free(local->http);
	pings_free(local);
	while ((node = list_pop(&local->ups)) != NULL) {
		local_up_done(LIST_ENTRY(node, struct up_wait, node));
	}
	http_router_free(local->router);
	rpc_server_free(local->rpc);
	mem_free(local);
}
