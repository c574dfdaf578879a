/* skerry cluster: what the lighthouses are, and who joins and leaves. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli_int.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"

static void print_members(struct cli *cx, const Skerry__V1__Cluster *c)
{
	int64_t now = clock_wall_ms();
	char text[TIME_TEXT], role[64];
	struct table t;

	table_init(&t, "LIGHTHOUSE", "ROLE", "STATE", "API", "PEER", "DEVICES", "STARTED",
		   "VERSION", NULL);
	for (size_t i = 0; i < c->n_members; i++) {
		const Skerry__V1__Member *m = c->members[i];

		table_cell(&t, "%s%s", m->display_name, m->id == c->lighthouse_id ? " (this)" : "");
		table_cell(&t, "%s",
			   m->leader ? "leader"
				     : print_enum(&skerry__v1__member_role__descriptor,
						  (int)m->role, role));
		table_cell(&t, "%s", m->connected ? "connected" : "away");
		table_cell(&t, "%s", m->api_url);
		table_cell(&t, "%s", m->peer_address);
		/* Those of a lighthouse that is away are elsewhere by now. */
		if (m->connected)
			table_cell(&t, "%" PRIu64, m->devices);
		else
			table_cell(&t, "-");
		table_cell(&t, "%s",
			   m->start_time && m->connected
				   ? print_ago(pb_timestamp_ms(m->start_time), now, text)
				   : "-");
		table_cell(&t, "%s", m->version);
	}
	table_sort(&t);
	table_print(&t, "", cx->io->out);
	table_done(&t);
	for (size_t i = 0; i < c->n_members; i++) {
		if (c->members[i]->note[0] != '\0')
			fprintf(cx->io->out, "%s: %s\n",
				print_safe(cx, c->members[i]->display_name),
				print_safe(cx, c->members[i]->note));
	}
}

int cmd_cluster_status(struct cli *cx)
{
	Skerry__V1__GetClusterRequest req = SKERRY__V1__GET_CLUSTER_REQUEST__INIT;
	const Skerry__V1__Cluster *c;
	void *reply;
	int rc = client_to_lighthouse(cx);

	if (rc == CLI_OK) {
		rc = client_call(cx, "/skerry.v1.ClusterService/GetCluster", &req, &reply);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	if (cli_json(cx)) {
		print_json(cx, reply);
		return CLI_OK;
	}
	c = reply;
	fprintf(cx->io->out,
		"cluster %s: %s, term %" PRIu64 ", revision %" PRIu64 ", digest %.16s\n"
		"pin %s\n\n",
		print_safe(cx, c->display_name),
		c->quorum ? "has a quorum" : "NO QUORUM: reads only", c->term, c->revision,
		print_safe(cx, c->digest), print_safe(cx, c->ca_pin));
	print_members(cx, c);
	for (size_t i = 0; i < c->n_members; i++) {
		if (c->members[i]->disk_low) {
			fprintf(cx->io->out,
				"\n%s: its disk is nearly full; free space in the file system of "
				"its "
				"state directory\n",
				print_safe(cx, c->members[i]->display_name));
		}
	}
	if (c->change) {
		fprintf(cx->io->out, "\n");
		print_change(cx, c->change);
	}
	return CLI_OK;
}

int cmd_cluster_token(struct cli *cx)
{
	Skerry__V1__CreateJoinTokenRequest req = SKERRY__V1__CREATE_JOIN_TOKEN_REQUEST__INIT;
	Skerry__V1__JoinToken *token;
	Google__Protobuf__Duration lifetime;
	char left[TIME_TEXT];
	int rc = client_to_lighthouse(cx);

	if (rc != CLI_OK) {
		return rc;
	}
	if (cli_given(cx, OPT_EXPIRY)) {
		req.lifetime = pb_duration_set(&lifetime, cx->opt[OPT_EXPIRY].num);
	}
	req.request_id = client_request_id(cx);
	rc = client_call(cx, "/skerry.v1.ClusterService/CreateJoinToken", &req, &token);
	if (rc != CLI_OK) {
		return rc;
	}
	if (cli_json(cx)) {
		print_json(cx, token);
	} else if (token->secret[0] != '\0') {
		fprintf(cx->io->out, "%s\n", token->secret);
		cli_note(cx,
			 "good for one lighthouse, expires %s. On the new host: skerryd join TOKEN",
			 print_left(token->expire_time, clock_wall_ms(), left));
	}
	return token->secret[0] != '\0'
		       ? CLI_OK
		       : cli_fail(cx, CLI_FAILED,
				  "it was made, but its secret was lost on the way: "
				  "make another");
}

int cmd_cluster_digest(struct cli *cx)
{
	Skerry__V1__CompareDigestsRequest req = SKERRY__V1__COMPARE_DIGESTS_REQUEST__INIT;
	Skerry__V1__CompareDigestsResponse *r;
	struct table t;
	int rc = client_to_lighthouse(cx);

	if (rc == CLI_OK) {
		rc = client_call(cx, "/skerry.v1.ClusterService/CompareDigests", &req, &r);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	if (cli_json(cx)) {
		print_json(cx, r);
		return r->equal ? CLI_OK : CLI_FAILED;
	}
	table_init(&t, "LIGHTHOUSE", "DIGEST", NULL);
	for (size_t i = 0; i < r->n_digests; i++) {
		table_cell(&t, "%s", r->digests[i]->display_name);
		table_cell(&t, "%s",
			   r->digests[i]->error[0] ? r->digests[i]->error : r->digests[i]->digest);
	}
	fprintf(cx->io->out, "revision %" PRIu64 ": the digests %s\n", r->revision,
		r->equal ? "are equal" : "DIFFER");
	table_sort(&t);
	table_print(&t, "", cx->io->out);
	table_done(&t);
	return r->equal ? CLI_OK : CLI_FAILED;
}
