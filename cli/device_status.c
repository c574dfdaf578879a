/* skerry status: what a person wants to know first, then the peers. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "proto/pb_util.h"
#include "skerry/local/v1/agent_local.pb-c.h"

static const char *state_text(const Skerry__Local__V1__Status *s)
{
	switch (s->state) {
	case SKERRY__LOCAL__V1__STATE__STATE_NEEDS_LOGIN:
		return "not registered: `skerry up --lighthouse URL`";
	case SKERRY__LOCAL__V1__STATE__STATE_NEEDS_APPROVAL: return "waits for approval";
	case SKERRY__LOCAL__V1__STATE__STATE_DOWN: return "down: `skerry up` switches it on";
	case SKERRY__LOCAL__V1__STATE__STATE_DETACHED:
		return "running without a lighthouse, from the stored netmap";
	case SKERRY__LOCAL__V1__STATE__STATE_RUNNING: return "running";
	case SKERRY__LOCAL__V1__STATE__STATE_EXPIRED: return "expired: `skerry up` registers again";
	default: return "unknown to this version of the command";
	}
}

static void line(struct cli *cx, const char *label, const char *text)
{
	if (text && text[0] != '\0') {
		fprintf(cx->io->out, "%-11s %s\n", label, print_safe(cx, text));
	}
}

static char *joined(struct cli *cx, char *const *v, size_t n)
{
	char *out = cli_printf(cx, "%s", n > 0 ? v[0] : "");

	for (size_t i = 1; i < n; i++) {
		out = cli_printf(cx, "%s, %s", out, v[i]);
	}
	return out;
}

static void print_control(struct cli *cx, const Skerry__Local__V1__ControlStatus *c, int64_t now)
{
	char ago[TIME_TEXT];

	if (c->attached) {
		line(cx, "lighthouse",
		     cli_printf(cx, "%s%s%s%s, attached %s, revision %" PRIu64 "%s",
				c->lighthouse_url, c->lighthouse_name[0] ? " (" : "",
				c->lighthouse_name, c->lighthouse_name[0] ? ")" : "",
				print_ago(pb_timestamp_ms(c->attached_time), now, ago),
				c->revision ? c->revision->revision : 0,
				c->quorum_age_ms >= 5000 ? "; it has no quorum" : ""));
	} else {
		line(cx, "lighthouse",
		     cli_printf(cx, "none%s%s", c->problem[0] ? ": " : "", c->problem));
	}
	if (c->attaches > 1 && c->lost_time) {
		line(cx, "",
		     cli_printf(cx, "connection lost %s, back after %" PRIu64 " ms",
				print_ago(pb_timestamp_ms(c->lost_time), now, ago),
				c->reattach_ms));
	}
	if (c->n_lighthouse_urls > 0) {
		line(cx, "known", joined(cx, c->lighthouse_urls, c->n_lighthouse_urls));
	}
}

static void print_self(struct cli *cx, const Skerry__Local__V1__SelfStatus *self, int64_t now)
{
	char left[TIME_TEXT];

	line(cx, "name", self->dns_name[0] ? self->dns_name : self->name);
	line(cx, "addresses", joined(cx, self->addresses, self->n_addresses));
	if (self->node_id != 0) {
		line(cx, "node",
		     cli_printf(cx, "%" PRIu64 " in tailnet %s%s%s%s%s, expires %s", self->node_id,
				self->tailnet_name, self->user[0] ? ", user " : "", self->user,
				self->n_tags ? ", " : "", joined(cx, self->tags, self->n_tags),
				print_left(self->expire_time, now, left)));
	}
	line(cx, "endpoints", joined(cx, self->endpoints, self->n_endpoints));
}

static void print_wireguard(struct cli *cx, const Skerry__Local__V1__WireguardStatus *w)
{
	if (w->problem[0] != '\0') {
		line(cx, "wireguard", cli_printf(cx, "%s: %s", w->interface, w->problem));
	} else if (w->listen_port != 0) {
		line(cx, "wireguard",
		     cli_printf(cx, "%s, port %" PRIu32 ", MTU %" PRIu32 "%s%s", w->interface,
				w->listen_port, w->mtu, w->adopted ? ", adopted" : "",
				w->failed_operations ? ", some changes failed" : ""));
	}
}

static void print_peers(struct cli *cx, const Skerry__Local__V1__Status *s, int64_t now)
{
	char seen[TIME_TEXT], shake[TIME_TEXT], rx[TIME_TEXT], tx[TIME_TEXT];
	struct table t;

	if (s->n_peers == 0) {
		return;
	}
	table_init(&t, "PEER", "ADDRESS", "STATE", "ENDPOINT", "HANDSHAKE", "RECEIVED", "SENT",
		   NULL);
	for (size_t i = 0; i < s->n_peers; i++) {
		const Skerry__Local__V1__PeerStatus *p = s->peers[i];

		table_cell(&t, "%s", p->name);
		table_cell(&t, "%s", p->n_addresses > 0 ? p->addresses[0] : "-");
		if (p->expired || p->online) {
			table_cell(&t, "%s", p->expired ? "expired" : "online");
		} else {
			table_cell(&t, "offline, seen %s",
				   print_ago(pb_timestamp_ms(p->last_seen_time), now, seen));
		}
		table_cell(&t, "%s", p->endpoint[0] ? p->endpoint : "-");
		table_cell(&t, "%s",
			   print_ago(pb_timestamp_ms(p->last_handshake_time), now, shake));
		table_cell(&t, "%s", print_bytes(p->rx_bytes, rx));
		table_cell(&t, "%s", print_bytes(p->tx_bytes, tx));
	}
	fputc('\n', cx->io->out);
	table_print(&t, "", cx->io->out);
	table_done(&t);
}

static void print_status(struct cli *cx, const Skerry__Local__V1__Status *s)
{
	int64_t now = clock_wall_ms();

	line(cx, "state", state_text(s));
	if (s->approval && s->approval->code[0] != '\0') {
		line(cx, "approval",
		     cli_printf(cx, "%s or `skerry node approve %s`", s->approval->url,
				s->approval->code));
	}
	if (s->self) {
		print_self(cx, s->self, now);
	}
	if (s->control) {
		print_control(cx, s->control, now);
	}
	if (s->wireguard) {
		print_wireguard(cx, s->wireguard);
	}
	if (s->dns) {
		line(cx, "dns", s->dns->text);
	}
	line(cx, "filter", s->filter);
	for (size_t i = 0; i < s->n_refusals; i++) {
		line(cx, "refused",
		     cli_printf(cx, "%s (%" PRIu64 " times)", s->refusals[i]->text,
				s->refusals[i]->count));
	}
	for (size_t i = 0; i < s->n_warnings; i++) {
		line(cx, "warning", s->warnings[i]);
	}
	print_peers(cx, s, now);
}

int cmd_status(struct cli *cx)
{
	Skerry__Local__V1__GetStatusRequest req = SKERRY__LOCAL__V1__GET_STATUS_REQUEST__INIT;
	void *reply;
	int rc = client_to_agent(cx);

	req.no_peers = cli_given(cx, OPT_NO_PEERS);
	if (rc == CLI_OK) {
		rc = client_call(cx, "/skerry.local.v1.LocalService/GetStatus", &req, &reply);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	if (cli_json(cx)) {
		print_json(cx, reply);
	} else {
		print_status(cx, reply);
	}
	return CLI_OK;
}
