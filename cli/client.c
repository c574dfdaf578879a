/* Calls to the agent and to lighthouses: where, with which trust, how long, and what to say when it fails. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/enc.h"
#include "base/fileio.h"
#include "base/key.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/rand.h"
#include "cli/cli_int.h"
#include "net/loop.h"
#include "net/rpc_client.h"
#include "net/tls.h"
#include "proto/methods.h"

enum { RETRY_MIN_MS = 100, RETRY_MAX_MS = 2000, TICK_MS = 50, CA_BYTES = 1 << 20 };

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

/* ---- the connection ---- */

static size_t on_metadata(void *arg, const char *path, struct rpc_metadata *out, size_t max)
{
	struct cli *cx = arg;

	size_t n = 0;

	(void)path;
	if (cx->bearer && n < max) {
		out[n++] = (struct rpc_metadata){"authorization", cx->bearer, 0};
	}
	if (cli_given(cx, OPT_LOCAL) && n < max) {
		out[n++] = (struct rpc_metadata){"skerry-read", "local", 0};
	}
	return n;
}

static void on_state(void *arg, enum rpc_channel_state state, const struct err *err)
{
	struct cli *cx = arg;

	if (state == RPC_CHANNEL_READY) {
		cx->connected = true;
	} else if (state == RPC_CHANNEL_FAILED && err) {
		cx->dial_err = *err;
	}
}

static void open_channel(struct cli *cx, const char *const *targets, size_t n, struct tls_ctx *tls,
			 const char *server_name)
{
	struct rpc_channel_opts opts = {
		.targets = targets,
		.n_targets = n,
		.dial = {.tls = tls,
			 .server_name = server_name,
			 .timeout_ms = MIN((uint64_t)cx->timeout_ms, (uint64_t)LIM_DIAL_MS)},
		.user_agent = "skerry-cli/" SKERRY_VERSION,
		.metadata = on_metadata,
		.on_state = on_state,
		.arg = cx,
	};

	cx->loop = loop_new("cli");
	cx->channel = rpc_channel_new(cx->loop, &opts);
}

static const char *or_env(const struct cli *cx, enum opt_id id, const char *name,
			  const char *otherwise)
{
	const char *text = cli_given(cx, id) ? cx->opt[id].text : getenv(name);

	return text && *text ? text : otherwise;
}

/* The socket is there and may be opened: said in plain words before any dial. */
static int open_socket(struct cli *cx, const char *path, const char *absent, const char *refused)
{
	const char *target = cli_printf(cx, "unix:%s", path);
	struct err e = {0};

	if (path[0] != '/' || dial_parse(target, NULL, NULL, NULL, &e) < 0) {
		return cli_usage(cx, "--socket %s: %s", print_safe(cx, path),
				 path[0] != '/' ? "an absolute path is needed" : e.msg);
	}
	cx->where = cli_printf(cx, "%s at %s", cx->agent ? "the agent" : "the lighthouse", path);
	if (access(path, F_OK) != 0) {
		return cli_fail(cx, errno == EACCES ? CLI_DENIED : CLI_UNREACHABLE, "%s: %s; %s",
				cx->where, strerror(errno), errno == EACCES ? refused : absent);
	}
	if (access(path, W_OK) != 0 && errno == EACCES) {
		return cli_fail(cx, CLI_DENIED, "%s: permission denied; %s", cx->where, refused);
	}
	open_channel(cx, &target, 1, NULL, NULL);
	return CLI_OK;
}

int client_to_agent(struct cli *cx)
{
	cx->agent = true;
	return open_socket(cx,
			   or_env(cx, OPT_AGENT_SOCKET, "SKERRY_AGENT_SOCKET", CLI_AGENT_SOCKET),
			   "is skerry-agent running on this device?",
			   "be root or a member of the group skerry");
}

/* ---- a lighthouse over the network ---- */

static int read_api_key(struct cli *cx, struct key *ret)
{
	const char *spec = cli_given(cx, OPT_API_KEY) ? cx->opt[OPT_API_KEY].text
						      : "env:SKERRY_API_KEY";
	const char *source = cli_given(cx, OPT_API_KEY) ? "--api-key" : "SKERRY_API_KEY";
	struct secret_str text = {0};
	struct key key;
	struct err e = {0};
	bool literal = false;
	int rc;

	if (!cli_given(cx, OPT_API_KEY) && !getenv("SKERRY_API_KEY")) {
		return cli_usage(cx,
				 "a lighthouse over the network needs an API key: SKERRY_API_KEY, "
				 "--api-key file:PATH or "
				 "--api-key -; `skerry api-key create` on a lighthouse makes one");
	}
	rc = secret_read(spec, &text, &literal, &e);
	if (rc < 0) {
		return cli_fail(cx, rc == ERR_INVALID ? CLI_USAGE : CLI_FAILED, "%s: %s", source,
				err_msg(&e, rc));
	}
	if (literal) {
		cli_note(cx, "warning: a key in an argument is seen by other users of this "
			     "machine; better: SKERRY_API_KEY, "
			     "file:PATH or -");
	}
	rc = key_parse(secret_str_reveal(&text), &key, &e);
	if (rc < 0) {
		rc = cli_fail(cx, CLI_USAGE, "%s: %s: %s", source,
			      strcmp(e.reason, "KEY_CUT") == 0 ? "the key is cut"
							       : "not an API key",
			      err_msg(&e, rc));
	} else if (key.kind != KEY_API) {
		rc = cli_fail(
			cx, CLI_USAGE,
			"%s holds %s key (sk-%s-...): administration needs an API key (sk-api-...)",
			source, key.kind == KEY_AUTH ? "an auth" : "a join",
			key_kind_text(key.kind));
		key_done(&key);
	} else {
		cx->bearer = mem_printf("Bearer %s", secret_str_reveal(&text));
		*ret = key;
		rc = CLI_OK;
	}
	secret_str_done(&text);
	return rc;
}

/* "HEX" or "ID:HEX". */
static int parse_pin(struct cli *cx, const char *text, struct key *key)
{
	const char *colon = strchr(text, ':');
	char *end = NULL;
	uint64_t id = 0;

	if (colon) {
		id = strtoull(text, &end, 10);
	}
	if ((colon && (end != colon || text[0] < '0' || text[0] > '9')) ||
	    strlen(colon ? colon + 1 : text) != 64 ||
	    hex_decode(colon ? colon + 1 : text, 64, key->pin.spki_sha256, 32) != 32) {
		return cli_usage(cx,
				 "--pin: 64 hexadecimal digits are needed, or CLUSTER-ID:DIGITS");
	}
	key->has_pin = true;
	key->pin.cluster_id = id;
	return CLI_OK;
}

static int trust(struct cli *cx, struct key *key, struct tls_ctx **ret_tls, char name[64])
{
	static const char *const alpn[] = {"h2", NULL};
	struct tls_client_opts opts = {.trust = TLS_TRUST_SYSTEM, .alpn = alpn};
	struct buf pem = BUF_INIT;
	struct err e = {0};
	int rc;

	name[0] = '\0';
	if (cli_given(cx, OPT_PIN) && cli_given(cx, OPT_CA)) {
		return cli_usage(cx, "--pin and --ca exclude each other");
	}
	if (cli_given(cx, OPT_PIN)) {
		rc = parse_pin(cx, cx->opt[OPT_PIN].text, key);
		if (rc != CLI_OK) {
			return rc;
		}
	}
	if (cli_given(cx, OPT_CA)) {
		rc = file_read(cx->opt[OPT_CA].text, CA_BYTES, &pem, &e);
		if (rc < 0) {
			buf_done(&pem);
			return cli_fail(cx, CLI_USAGE, "--ca: %s", err_msg(&e, rc));
		}
		opts.trust = TLS_TRUST_CA;
		opts.ca_pem = buf_str(&pem);
	} else if (key->has_pin) {
		opts.trust = TLS_TRUST_PIN;
		memcpy(opts.pin, key->pin.spki_sha256, sizeof(opts.pin));
		if (key->pin.cluster_id != 0) {
			snprintf(name, 64, "%" PRIu64 ".skerry.invalid", key->pin.cluster_id);
		}
	}
	rc = tls_client_new(&opts, ret_tls, &e);
	buf_done(&pem);
	return rc < 0 ? cli_fail(cx, CLI_USAGE, "%s: %s", cli_given(cx, OPT_CA) ? "--ca" : "TLS",
				 err_msg(&e, rc))
		      : CLI_OK;
}

static int to_network(struct cli *cx, const char *const *urls, size_t n)
{
	struct tls_ctx *tls = NULL;
	struct key key = {0};
	struct err e = {0};
	char name[64];
	int rc;

	for (size_t i = 0; i < n; i++) {
		bool https = strncmp(urls[i], "https://", 8) == 0;

		if (!https || dial_parse(urls[i], NULL, NULL, NULL, &e) < 0) {
			return cli_usage(cx, "--lighthouse: %s: %s", print_safe(cx, urls[i]),
					 https ? e.msg : "a URL like https://host:8443 is needed");
		}
	}
	cx->where = n == 1 ? urls[0] : cli_printf(cx, "one of %zu lighthouses", n);
	rc = read_api_key(cx, &key);
	if (rc == CLI_OK) {
		rc = trust(cx, &key, &tls, name);
	}
	if (rc == CLI_OK) {
		open_channel(cx, urls, n, tls, name[0] ? name : NULL);
		tls_unref(tls);
	}
	key_done(&key);
	return rc;
}

int client_to_lighthouse(struct cli *cx)
{
	struct opt_value *v = &cx->opt[OPT_LIGHTHOUSE];
	const char *env = getenv("SKERRY_LIGHTHOUSE");
	const char *urls[CLI_LIST_VALUES];

	if (!v->given && !cli_given(cx, OPT_SOCKET) && env && *env) {
		for (const char *p = env; *p && v->n < CLI_LIST_VALUES;) {
			size_t len = strcspn(p, ",");

			v->list[v->n++] = cli_printf(cx, "%.*s", (int)len, p);
			p += len + (p[len] == ',');
		}
	}
	if (v->n > 0 && cli_given(cx, OPT_SOCKET)) {
		return cli_usage(cx, "--socket and --lighthouse exclude each other");
	}
	if (v->n == 0) {
		for (enum opt_id id = OPT_API_KEY; id <= OPT_PIN; id++) {
			if (cli_given(cx, id)) {
				return cli_usage(cx, "--%s belongs to --lighthouse URL",
						 cli_opts[id].name);
			}
		}
		return open_socket(cx,
				   or_env(cx, OPT_SOCKET, "SKERRY_SOCKET", CLI_LIGHTHOUSE_SOCKET),
				   "is skerryd running on this host? From elsewhere: --lighthouse "
				   "URL and an API key",
				   "be root or a member of the group skerry-admin");
	}
	for (size_t i = 0; i < v->n; i++) {
		urls[i] = v->list[i];
	}
	return to_network(cx, urls, v->n);
}

void client_done(struct cli *cx)
{
	rpc_channel_free(cx->channel);
	loop_free(cx->loop);
	cx->channel = NULL;
	cx->loop = NULL;
	if (cx->bearer) {
		explicit_bzero(cx->bearer, strlen(cx->bearer));
		mem_free(cx->bearer);
		cx->bearer = NULL;
	}
}

/* ---- calls ---- */

uint64_t client_remaining_ms(const struct cli *cx)
{
	uint64_t now = clock_mono_ms();

	return cx->deadline > now ? cx->deadline - now : 0;
}

char *client_request_id(struct cli *cx)
{
	uint8_t random[16];
	char text[33];

	rand_bytes(random, sizeof(random));
	return cli_printf(cx, "%s", hex_encode(text, random, sizeof(random)));
}

static void set_flag(void *arg)
{
	*(bool *)arg = true;
}

static void pause_ms(struct cli *cx, uint64_t ms)
{
	struct loop_timer timer = {0};
	bool fired = false;

	loop_update_time(cx->loop);
	loop_timer_start(&timer, cx->loop, ms, set_flag, &fired);
	while (!fired) {
		loop_turn(cx->loop, true);
	}
}

/* A lighthouse that was there and went, or that has no leader for a moment. */
static bool worth_retrying(const struct cli *cx)
{
	return !cx->agent && cx->connected &&
	       (err_grpc(cx->err.code) == 14 || cx->err.code == ERR_FATE_UNKNOWN);
}

int client_try(struct cli *cx, const char *path, const void *req, void *ret_reply)
{
	const struct proto_method *m = proto_method_find(path);
	uint64_t began = clock_mono_ms(), wait = RETRY_MIN_MS;
	ProtobufCMessage *reply = NULL;
	bool told = false;

	POST(m != NULL);
	for (;;) {
		struct rpc_opts opts = {.deadline_ms = MAX(client_remaining_ms(cx), (uint64_t)1),
					.wait_for_ready = false};
		int rc;

		err_clear(&cx->err);
		loop_update_time(cx->loop);
		rc = rpc_unary_wait(cx->loop, cx->channel, path, req, m->output, &opts, &cx->arena,
				    &reply, &cx->err);
		if (rc == 0) {
			if (ret_reply) {
				*(ProtobufCMessage **)ret_reply = reply;
			}
			return 0;
		}
		if (!worth_retrying(cx) || client_remaining_ms(cx) <= wait ||
		    clock_mono_ms() - began + wait > CLI_RETRY_MS) {
			return rc;
		}
		if (!told && clock_mono_ms() - began > 1000) {
			told = true;
			cli_note(cx, "waiting: %s", print_safe(cx, err_msg(&cx->err, rc)));
		}
		pause_ms(cx, wait);
		wait = MIN(wait * 2, (uint64_t)RETRY_MAX_MS);
	}
}

/* No connection ever stood. */
static bool undialled(const struct cli *cx)
{
	return !cx->connected && cx->dial_err.code != 0;
}

/* Somebody answered, but not with a certificate that we trust. */
static bool distrusted(const struct cli *cx)
{
	return undialled(cx) && cx->dial_err.code == ERR_UNAUTHENTICATED;
}

int client_exit(const struct cli *cx, const struct err *e)
{
	if (undialled(cx)) {
		return distrusted(cx) || e->code == -EACCES || e->code == -EPERM ? CLI_DENIED
										 : CLI_UNREACHABLE;
	}
	switch (err_grpc(e->code)) {
	case 0: return CLI_OK;
	case 3:
	case 11: return CLI_USAGE;
	case 4: return CLI_TIMEOUT;
	case 5: return CLI_NOT_FOUND;
	case 6:
	case 10: return CLI_CONFLICT;
	case 7:
	case 16: return CLI_DENIED;
	case 8: return CLI_BUSY;
	case 9: return CLI_PRECONDITION;
	case 14:
		if (strcmp(e->reason, "WIREGUARD") == 0) {
			return CLI_FAILED;
		}
		return e->reason[0] == '\0' || strcmp(e->reason, "LIGHTHOUSE_AWAY") == 0
			       ? CLI_UNREACHABLE
			       : CLI_BUSY;
	default: return CLI_FAILED;
	}
}

static bool takes(const struct command *cmd, enum opt_id id)
{
	const uint8_t *o = cmd->opts;

	while (*o != OPT_NONE && *o != id) {
		o++;
	}
	return *o == id;
}

/* What to do, where the message does not say it. */
static const char *remedy(const struct cli *cx)
{
	bool plain = !cli_given(cx, OPT_CA) && !cli_given(cx, OPT_PIN);

	if (distrusted(cx)) {
		return plain ? "; the cluster's own certificate is trusted by an API key with a "
			       "pin, --pin (skerry cluster status on a lighthouse shows it) or --ca"
			     : "";
	}
	if (undialled(cx)) {
		return cx->agent ? "; is skerry-agent running on this device?"
				 : "; is skerryd running there, and the address right?";
	}
	if (strcmp(cx->err.reason, "OUT_OF_SCOPE") == 0 && cx->bearer && !cx->parent &&
	    takes(cx->cmd, OPT_TAILNET)) {
		return "; a key of one tailnet names it by number: --tailnet 1";
	}
	if (strcmp(cx->err.reason, "NO_QUORUM") == 0 && takes(cx->cmd, OPT_LOCAL) &&
	    !cli_given(cx, OPT_LOCAL)) {
		return ": add --local";
	}
	return "";
}

int client_explain(struct cli *cx)
{
	struct err *e = &cx->err;
	const char *text = print_safe(cx, err_msg(e, e->code));
	int code = client_exit(cx, e);

	if (undialled(cx)) {
		return cli_fail(cx, code, "%s: %s%s",
				distrusted(cx) ? "not trusted" : "cannot be reached", text,
				remedy(cx));
	}
	if (code == CLI_TIMEOUT) {
		char limit[DURATION_TEXT];

		duration_format(cx->timeout_ms, limit);
		return cli_fail(cx, code,
				"no answer from %s within %s: %s; --timeout sets another time",
				cx->where, limit, text);
	}
	if (e->field[0] && !strstr(e->msg, e->field)) {
		return cli_fail(cx, code, "%s: %s%s", print_safe(cx, e->field), text, remedy(cx));
	}
	return cli_fail(cx, code, "%s%s", text, remedy(cx));
}

int client_call(struct cli *cx, const char *path, const void *req, void *ret_reply)
{
	return client_try(cx, path, req, ret_reply) < 0 ? client_explain(cx) : CLI_OK;
}

/* ---- streams ---- */

struct stream_run {
	struct client_stream *s;
	struct cli *cx;
	bool over;
};

static void stream_message(void *arg, struct rpc_request *req, const ProtobufCMessage *msg)
{
	struct stream_run *run = arg;

	(void)req;
	run->s->on_message(run->s->arg, msg);
}

static void stream_end(void *arg, const struct err *status)
{
	struct stream_run *run = arg;

	run->over = true;
	run->cx->err = *status;
}

static void no_tick(void *arg)
{
	(void)arg;
}

int client_stream(struct cli *cx, const char *path, const void *req, struct client_stream *s,
		  bool *ret_interrupted)
{
	static const struct rpc_stream_handler handler = {.on_message = stream_message,
							  .on_end = stream_end};
	const struct proto_method *m = proto_method_find(path);
	struct stream_run run = {.s = s, .cx = cx};
	struct sigaction act = {.sa_handler = on_signal}, old_int, old_term;
	struct rpc_opts opts = {.deadline_ms = s->deadline_ms};
	uint64_t began = clock_mono_ms();
	struct loop_timer tick = {0};
	struct rpc_request *call;

	POST(m != NULL);
	interrupted = 0;
	sigaction(SIGINT, &act, &old_int);
	sigaction(SIGTERM, &act, &old_term);
	err_clear(&cx->err);
	loop_update_time(cx->loop);
	call = rpc_open(cx->channel, path, req, m->output, &opts, &handler, &run);
	while (!run.over) {
		bool late = s->wait_ms != 0 && clock_mono_ms() - began >= s->wait_ms;

		if (interrupted || late) {
			rpc_cancel(call);
			if (late) {
				err_set(&cx->err, ERR_DEADLINE, "the time is over");
			}
			break;
		}
		/* A handler of signals may only set a flag: it is looked at every few milliseconds. */
		loop_timer_start(&tick, cx->loop, TICK_MS, no_tick, NULL);
		loop_turn(cx->loop, true);
	}
	loop_timer_stop(&tick);
	sigaction(SIGINT, &old_int, NULL);
	sigaction(SIGTERM, &old_term, NULL);
	*ret_interrupted = interrupted != 0 && !run.over;
	return cx->err.code;
}
