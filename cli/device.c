/* skerry down, ping, ip, logout, version: short conversations with the agent. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli_int.h"
#include "skerry/local/v1/agent_local.pb-c.h"

#define LOCAL "/skerry.local.v1.LocalService/"

int cmd_down(struct cli *cx)
{
	Skerry__Local__V1__DownRequest req = SKERRY__LOCAL__V1__DOWN_REQUEST__INIT;
	Skerry__Local__V1__DownResponse *r;
	int rc = client_to_agent(cx);

	if (rc == CLI_OK) {
		rc = client_call(cx, LOCAL "Down", &req, &r);
	}
	if (rc == CLI_OK && cli_json(cx)) {
		print_json(cx, r);
	} else if (rc == CLI_OK) {
		fprintf(cx->io->out, r->unchanged ? "was down already\n"
						  : "down; `skerry up` switches it on again\n");
	}
	return rc;
}

int cmd_logout(struct cli *cx)
{
	Skerry__Local__V1__LogoutRequest req = SKERRY__LOCAL__V1__LOGOUT_REQUEST__INIT;
	Skerry__Local__V1__LogoutResponse *r;
	int rc = client_to_agent(cx);

	if (rc == CLI_OK) {
		rc = client_call(cx, LOCAL "Logout", &req, &r);
	}
	if (rc == CLI_OK && cli_json(cx)) {
		print_json(cx, r);
	} else if (rc == CLI_OK) {
		fprintf(cx->io->out, r->lighthouse_told
					     ? "logged out\n"
					     : "logged out here; no lighthouse could be told: the "
					       "node stays there "
					       "until it expires or `skerry node delete`\n");
	}
	return rc;
}

/* Without an agent the own version is an answer as well. */
int cmd_version(struct cli *cx)
{
	Skerry__Local__V1__GetVersionRequest req = SKERRY__LOCAL__V1__GET_VERSION_REQUEST__INIT;
	Skerry__Local__V1__Version *v = NULL, none = SKERRY__LOCAL__V1__VERSION__INIT;
	struct cli_io quiet = *cx->io;
	const struct cli_io *io = cx->io;
	char *text = NULL;
	size_t len;
	int rc;

	quiet.err = open_memstream(&text, &len);
	POST(quiet.err != NULL);
	cx->io = &quiet;
	rc = client_to_agent(cx);
	cx->io = io;
	fclose(quiet.err);
	free(text);
	if (rc != CLI_OK || client_try(cx, LOCAL "GetVersion", &req, &v) < 0) {
		v = &none;
	}
	if (cli_json(cx)) {
		fprintf(cx->io->out, "{\n  \"command\": \"%s\",\n  \"agent\": \"%s\"\n}\n",
			SKERRY_VERSION, print_safe(cx, v->version));
		return CLI_OK;
	}
	fprintf(cx->io->out, "skerry        %s\nskerry-agent  %s%s%s\n", SKERRY_VERSION,
		v->version[0] ? print_safe(cx, v->version) : "does not answer",
		v->commit[0] ? " " : "", print_safe(cx, v->commit));
	return CLI_OK;
}

/* ---- ip ---- */

static bool same_name(const char *text, const char *name, const char *dns_name)
{
	size_t len = strlen(text);

	len -= len > 0 && text[len - 1] == '.';
	return (strlen(name) == len && strncasecmp(text, name, len) == 0) ||
	       (strlen(dns_name) == len && strncasecmp(text, dns_name, len) == 0);
}

static int print_addresses(struct cli *cx, char *const *v, size_t n)
{
	bool v4 = !cli_given(cx, OPT_IPV6), v6 = !cli_given(cx, OPT_IPV4);
	size_t shown = 0;

	if (cli_given(cx, OPT_IPV4) && cli_given(cx, OPT_IPV6)) {
		v4 = v6 = true;
	}
	if (cli_json(cx)) {
		fputs("[", cx->io->out);
	}
	for (size_t i = 0; i < n; i++) {
		if (strchr(v[i], ':') ? !v6 : !v4) {
			continue;
		}
		fprintf(cx->io->out, cli_json(cx) ? "%s\"%s\"" : "%s%s\n",
			cli_json(cx) && shown ? ", " : "", print_safe(cx, v[i]));
		shown++;
	}
	if (cli_json(cx)) {
		fputs("]\n", cx->io->out);
	}
	return shown > 0 ? CLI_OK : cli_fail(cx, CLI_NOT_FOUND, "there is no address of that kind");
}

int cmd_ip(struct cli *cx)
{
	Skerry__Local__V1__GetStatusRequest req = SKERRY__LOCAL__V1__GET_STATUS_REQUEST__INIT;
	const char *names[512];
	Skerry__Local__V1__Status *s;
	const char *mean;
	size_t n = 0;
	int rc = client_to_agent(cx);

	req.no_peers = cx->n_args == 0;
	if (rc == CLI_OK) {
		rc = client_call(cx, LOCAL "GetStatus", &req, &s);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	if (!s->self || s->self->n_addresses == 0) {
		return cli_fail(cx, CLI_PRECONDITION,
				"this device has no address yet: `skerry up` registers it");
	}
	if (cx->n_args == 0 || same_name(cx->args[0], s->self->name, s->self->dns_name)) {
		return print_addresses(cx, s->self->addresses, s->self->n_addresses);
	}
	for (size_t i = 0; i < s->n_peers; i++) {
		if (same_name(cx->args[0], s->peers[i]->name, s->peers[i]->dns_name)) {
			return print_addresses(cx, s->peers[i]->addresses,
					       s->peers[i]->n_addresses);
		}
		if (n < ARRAY_LEN(names)) {
			names[n++] = s->peers[i]->name;
		}
	}
	mean = cli_nearest(cx->args[0], names, n);
	return cli_fail(cx, CLI_NOT_FOUND, "no peer is called %s%s%s%s",
			print_safe(cx, cx->args[0]), mean ? "; did you mean " : "",
			mean ? print_safe(cx, mean) : "", mean ? "?" : "");
}

/* ---- ping ---- */

struct ping {
	struct cli *cx;
	struct client_stream stream;
	uint32_t sent, received;
	uint64_t min, max, sum; /* us */
	char name[80];
};

static void on_reply(void *arg, const ProtobufCMessage *msg)
{
	const Skerry__Local__V1__PingReply *r = (const Skerry__Local__V1__PingReply *)msg;
	struct ping *p = arg;
	struct cli *cx = p->cx;

	if (!cli_given(cx, OPT_COUNT)) {
		p->stream.wait_ms = 0; /* it only bounds the wait for the first answer */
	}
	p->sent++;
	snprintf(p->name, sizeof(p->name), "%s", print_safe(cx, r->name));
	if (!r->lost) {
		p->received++;
		p->min = p->received == 1 ? r->rtt_us : MIN(p->min, r->rtt_us);
		p->max = MAX(p->max, r->rtt_us);
		p->sum += r->rtt_us;
	}
	if (cli_json(cx)) {
		print_json(cx, msg);
	} else if (r->lost) {
		fprintf(cx->io->out, "%s (%s): seq=%" PRIu32 " lost\n", p->name,
			print_safe(cx, r->address), r->sequence);
	} else {
		fprintf(cx->io->out, "%s (%s): seq=%" PRIu32 " time=%.2f ms%s%s\n", p->name,
			print_safe(cx, r->address), r->sequence, (double)r->rtt_us / 1000,
			r->endpoint[0] ? " via " : "", print_safe(cx, r->endpoint));
	}
	fflush(cx->io->out);
}

static void print_sum(struct ping *p)
{
	double min = (double)p->min / 1000, max = (double)p->max / 1000;

	fprintf(p->cx->io->out, "%s: %" PRIu32 " sent, %" PRIu32 " received, %" PRIu32 " lost",
		p->name, p->sent, p->received, p->sent - p->received);
	if (p->received > 0) {
		fprintf(p->cx->io->out, "; min/avg/max %.2f/%.2f/%.2f ms", min,
			(double)p->sum / p->received / 1000, max);
	}
	fputc('\n', p->cx->io->out);
}

int cmd_ping(struct cli *cx)
{
	Skerry__Local__V1__PingRequest req = SKERRY__LOCAL__V1__PING_REQUEST__INIT;
	struct ping p = {.cx = cx};
	bool interrupted = false;
	int rc = client_to_agent(cx);

	if (rc != CLI_OK) {
		return rc;
	}
	req.target = cx->args[0];
	req.count = (uint32_t)cx->opt[OPT_COUNT].num;
	req.interval_ms = (uint32_t)MIN(cx->opt[OPT_INTERVAL].num, (int64_t)UINT32_MAX);
	req.size = (uint32_t)cx->opt[OPT_SIZE].num;
	req.ipv6 = cli_given(cx, OPT_IPV6);
	p.stream = (struct client_stream){
		.on_message = on_reply, .arg = &p, .wait_ms = (uint64_t)cx->timeout_ms};
	if (cli_given(cx, OPT_COUNT) && !cli_given(cx, OPT_TIMEOUT)) {
		/* The default shall not cut a count that takes longer. */
		uint64_t need =
			(uint64_t)req.count * (req.interval_ms ? req.interval_ms : 1000) + 5000;

		p.stream.wait_ms = MAX(p.stream.wait_ms, need);
	}
	rc = client_stream(cx, LOCAL "Ping", &req, &p.stream, &interrupted);
	if (p.sent > 0 && !cli_json(cx)) {
		print_sum(&p);
	}
	if (rc < 0 && !interrupted) {
		return client_explain(cx);
	}
	if (interrupted && p.sent == 0) {
		return CLI_INTERRUPTED;
	}
	return p.received > 0 ? CLI_OK : CLI_LOST;
}
