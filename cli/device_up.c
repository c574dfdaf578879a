/* skerry up, set: the settings of this device, and the steps until it is on. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fileio.h"
#include "base/key.h"
#include "base/name.h"
#include "cli/cli_int.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "net/dial.h"
#include "skerry/local/v1/agent_local.pb-c.h"

#define LOCAL "/skerry.local.v1.LocalService/"

/* ---- settings: only what was named is sent ---- */

static void mask_add(struct cli *cx, Google__Protobuf__FieldMask *mask, const char *path)
{
	mask->paths[mask->n_paths++] = cli_printf(cx, "%s", path);
}

static int take_lighthouses(struct cli *cx, Skerry__Local__V1__Settings *s)
{
	struct opt_value *v = &cx->opt[OPT_UP_LIGHTHOUSE];

	for (size_t i = 0; i < v->n; i++) {
		bool https = strncmp(v->list[i], "https://", 8) == 0;
		struct err e = {0};

		if (!https || dial_parse(v->list[i], NULL, NULL, NULL, &e) < 0) {
			return cli_usage(cx, "--lighthouse: %s: %s", print_safe(cx, v->list[i]),
					 https ? e.msg : "a URL like https://host:8443 is needed");
		}
	}
	s->lighthouses = v->list;
	s->n_lighthouses = v->n;
	return CLI_OK;
}

static int take_settings(struct cli *cx, Skerry__Local__V1__Settings *s,
			 Google__Protobuf__FieldMask *mask)
{
	struct opt_value *tags = &cx->opt[OPT_ASK_TAGS];

	mask->paths = cli_alloc(cx, 16 * sizeof(*mask->paths));
	if (cli_given(cx, OPT_UP_LIGHTHOUSE)) {
		int rc = take_lighthouses(cx, s);

		if (rc != CLI_OK) {
			return rc;
		}
		mask_add(cx, mask, "lighthouses");
	}
	if (cli_given(cx, OPT_HOSTNAME)) {
		const char *name = cx->opt[OPT_HOSTNAME].text;
		struct err e = {0};

		/* "" is the host's own name again. */
		if (name[0] != '\0' && name_valid_label(name, strlen(name), &e) < 0) {
			return cli_usage(cx, "--hostname: \"%s\" cannot be a name: %s",
					 print_safe(cx, name), e.msg);
		}
		s->hostname = cli_printf(cx, "%s", name);
		mask_add(cx, mask, "hostname");
	}
	if (cli_given(cx, OPT_ACCEPT_DNS)) {
		s->accept_dns = (Skerry__Local__V1__AcceptDns)(cx->opt[OPT_ACCEPT_DNS].num + 1);
		mask_add(cx, mask, "accept_dns");
	}
	if (cli_given(cx, OPT_ACCEPT_ROUTES)) {
		s->accept_routes = cx->opt[OPT_ACCEPT_ROUTES].num != 0;
		mask_add(cx, mask, "accept_routes");
	}
	if (cli_given(cx, OPT_OPERATOR)) {
		s->operator_ = cli_printf(cx, "%s", cx->opt[OPT_OPERATOR].text);
		mask_add(cx, mask, "operator");
	}
	if (cli_given(cx, OPT_ASK_TAGS)) {
		s->tags = cli_alloc(cx, (tags->n + 1) * sizeof(*s->tags));
		for (size_t i = 0; i < tags->n; i++) {
			s->tags[s->n_tags++] = cli_printf(
				cx, "%s%s", strncmp(tags->list[i], "tag:", 4) == 0 ? "" : "tag:",
				tags->list[i]);
		}
		mask_add(cx, mask, "tags");
	}
	if (cli_given(cx, OPT_UP_TAILNET)) {
		s->tailnet = cli_printf(cx, "%s", cx->opt[OPT_UP_TAILNET].text);
		mask_add(cx, mask, "tailnet");
	}
	return CLI_OK;
}

/* ---- the key ---- */

static int read_auth_key(struct cli *cx, struct secret_str *ret)
{
	bool given = cli_given(cx, OPT_AUTH_KEY), literal = false;
	const char *source = given ? "--auth-key" : "SKERRY_AUTH_KEY",
		   *env = getenv("SKERRY_AUTH_KEY");
	struct err e = {0};
	struct key key;
	int rc;

	if (!given && (!env || !*env)) {
		return CLI_OK;
	}
	rc = secret_read(given ? cx->opt[OPT_AUTH_KEY].text : "env:SKERRY_AUTH_KEY", ret, &literal,
			 &e);
	if (rc < 0) {
		return cli_fail(cx, rc == ERR_INVALID ? CLI_USAGE : CLI_FAILED, "%s: %s", source,
				err_msg(&e, rc));
	}
	if (literal) {
		cli_note(cx, "warning: a key in an argument is seen by other users of this "
			     "machine; better: SKERRY_AUTH_KEY, "
			     "file:PATH or -");
	}
	rc = key_parse(secret_str_reveal(ret), &key, &e);
	if (rc < 0) {
		return cli_fail(cx, CLI_USAGE, "%s: %s: %s", source,
				strcmp(e.reason, "KEY_CUT") == 0 ? "the key is cut"
								 : "not an auth key",
				err_msg(&e, rc));
	}
	if (key.kind != KEY_AUTH) {
		rc = cli_fail(cx, CLI_USAGE,
			      "%s holds %s (sk-%s-...): a device registers with an auth key "
			      "(sk-auth-...), which "
			      "`skerry auth-key create` makes",
			      source, key.kind == KEY_API ? "an API key" : "a join token",
			      key_kind_text(key.kind));
	}
	key_done(&key);
	return rc;
}

/* ---- up ---- */

struct up {
	struct cli *cx;
	struct client_stream stream;
	bool shown_approval;
	char waiting[300]; /* what the last step waits for */
};

static void show_approval(struct up *up, const Skerry__Local__V1__Approval *a)
{
	struct cli *cx = up->cx;
	FILE *out = cx->io->out;

	up->shown_approval = true;
	fprintf(out,
		"\nTo let this device in, open\n\n    %s\n\nor on a lighthouse:\n\n    skerry node "
		"approve %s\n\n",
		print_safe(cx, a->url), print_safe(cx, a->code));
	if (cx->io->out_tty) {
		print_qr(out, a->url);
		fputc('\n', out);
	}
	/* A person is not a machine: without --timeout the wait grows. */
	if (!cli_given(cx, OPT_TIMEOUT)) {
		up->stream.wait_ms = CLI_APPROVAL_MS;
		cx->timeout_ms = CLI_APPROVAL_MS;
	}
}

static void on_up_event(void *arg, const ProtobufCMessage *msg)
{
	const Skerry__Local__V1__UpEvent *ev = (const Skerry__Local__V1__UpEvent *)msg;
	struct up *up = arg;
	struct cli *cx = up->cx;
	char *text = print_safe(cx, ev->text);

	snprintf(up->waiting, sizeof(up->waiting), "%s", ev->waiting ? text : "");
	if (cli_json(cx)) {
		print_json(cx, msg);
	}
	if (cli_json(cx) && !ev->approval) {
		fflush(cx->io->out);
		return;
	}
	if (!cli_json(cx)) {
		fprintf(cx->io->out, "%5.1fs  %s%s\n", (double)ev->elapsed_ms / 1000,
			ev->waiting && strncmp(text, "waiting", 7) != 0 ? "waiting: " : "", text);
	}
	if (ev->approval && !up->shown_approval) {
		if (cli_json(cx)) {
			up->stream.wait_ms = cli_given(cx, OPT_TIMEOUT) ? up->stream.wait_ms
									: CLI_APPROVAL_MS;
		} else {
			show_approval(up, ev->approval);
		}
	}
	fflush(cx->io->out);
}

int cmd_up(struct cli *cx)
{
	Skerry__Local__V1__UpRequest req = SKERRY__LOCAL__V1__UP_REQUEST__INIT;
	Skerry__Local__V1__Settings settings = SKERRY__LOCAL__V1__SETTINGS__INIT;
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	struct secret_str key = {0};
	struct up up = {.cx = cx};
	bool interrupted = false;
	int rc = take_settings(cx, &settings, &mask);

	if (rc == CLI_OK) {
		rc = read_auth_key(cx, &key);
	}
	if (rc == CLI_OK) {
		rc = client_to_agent(cx);
	}
	if (rc != CLI_OK) {
		secret_str_done(&key);
		return rc;
	}
	req.settings = &settings;
	req.update_mask = &mask;
	req.auth_key = (char *)secret_str_reveal(&key);
	req.ephemeral = cli_given(cx, OPT_UP_EPHEMERAL);
	req.force_register = cli_given(cx, OPT_FORCE);
	/* The agent hears how long we may wait at most; how long we do is decided here, step by step. */
	up.stream = (struct client_stream){
		.on_message = on_up_event,
		.arg = &up,
		.deadline_ms =
			(uint64_t)(cli_given(cx, OPT_TIMEOUT) ? cx->timeout_ms : CLI_APPROVAL_MS),
		.wait_ms = (uint64_t)cx->timeout_ms,
	};
	rc = client_stream(cx, LOCAL "Up", &req, &up.stream, &interrupted);
	secret_str_done(&key);
	if (interrupted) {
		return cli_fail(cx, CLI_INTERRUPTED,
				"interrupted; the agent goes on: `skerry status` shows how far it "
				"is, `skerry down` stops it");
	}
	if (rc == ERR_DEADLINE && up.waiting[0] != '\0') {
		char limit[DURATION_TEXT];

		duration_format(cx->timeout_ms, limit);
		return cli_fail(
			cx, CLI_TIMEOUT,
			"not done within %s: %s; the agent goes on, the same command waits on",
			limit, up.waiting);
	}
	return rc < 0 ? client_explain(cx) : CLI_OK;
}

/* ---- set ---- */

static int show_settings(struct cli *cx)
{
	Skerry__Local__V1__GetStatusRequest req = SKERRY__LOCAL__V1__GET_STATUS_REQUEST__INIT;
	Skerry__Local__V1__Status *status;
	int rc;

	req.no_peers = true;
	rc = client_call(cx, LOCAL "GetStatus", &req, &status);
	if (rc == CLI_OK && status->settings) {
		print_reply(cx, status->settings);
	}
	return rc;
}

int cmd_set(struct cli *cx)
{
	Skerry__Local__V1__SetRequest req = SKERRY__LOCAL__V1__SET_REQUEST__INIT;
	Skerry__Local__V1__Settings settings = SKERRY__LOCAL__V1__SETTINGS__INIT;
	Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
	Skerry__Local__V1__SetResponse *r;
	int rc = take_settings(cx, &settings, &mask);

	if (rc == CLI_OK) {
		rc = client_to_agent(cx);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	if (mask.n_paths == 0) {
		return show_settings(cx);
	}
	req.settings = &settings;
	req.update_mask = &mask;
	rc = client_call(cx, LOCAL "Set", &req, &r);
	if (rc != CLI_OK) {
		return rc;
	}
	if (cli_json(cx)) {
		print_json(cx, r);
		return CLI_OK;
	}
	for (size_t i = 0; i < r->n_notes; i++) {
		fprintf(cx->io->out, "%s\n", print_safe(cx, r->notes[i]));
	}
	return CLI_OK;
}
