/* skerry cluster finalize-upgrade, ca, seal: the level raised, and what the cluster trusts renewed. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli_int.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"

int cmd_cluster_finalize(struct cli *cx)
{
	Skerry__V1__FinalizeUpgradeRequest req = SKERRY__V1__FINALIZE_UPGRADE_REQUEST__INIT;
	const Skerry__V1__FinalizeUpgradeResponse *r;
	void *reply;
	int rc = client_to_lighthouse(cx);

	if (rc == CLI_OK) {
		rc = client_call(cx, "/skerry.v1.ClusterService/FinalizeUpgrade", &req, &reply);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	r = reply;
	if (cli_json(cx)) {
		print_json(cx, reply);
	} else if (r->feature_level == r->previous_level) {
		fprintf(cx->io->out,
			"feature level %u already: the highest that the lighthouses know\n",
			r->feature_level);
	} else {
		fprintf(cx->io->out,
			"feature level %u, it was %u: versions that do not know it are refused "
			"from "
			"now on\n",
			r->feature_level, r->previous_level);
	}
	return CLI_OK;
}

static void print_trust(struct cli *cx, const Skerry__V1__Trust *t)
{
	char text[TIME_TEXT];
	struct table table;

	fprintf(cx->io->out, "certificate authority %u, made %s: pin %s\n", t->ca_generation,
		t->ca_create_time
			? print_ago(pb_timestamp_ms(t->ca_create_time), clock_wall_ms(), text)
			: "-",
		print_safe(cx, t->ca_pin));
	if (t->old_ca_pin[0] != '\0') {
		fprintf(cx->io->out, "the one before is accepted as well: pin %s\n",
			print_safe(cx, t->old_ca_pin));
		fprintf(cx->io->out,
			"%" PRIu64 " of %" PRIu64
			" devices have not been seen since and know only that one\n",
			t->devices_unseen, t->devices);
	}
	fprintf(cx->io->out, "cluster.key number %u\n\n", t->seal_generation);
	table_init(&table, "LIGHTHOUSE", "HAS THE CA", "HAS CLUSTER.KEY", NULL);
	for (size_t i = 0; i < t->n_members; i++) {
		const Skerry__V1__MemberTrust *m = t->members[i];

		table_cell(&table, "%s", m->display_name);
		table_cell(&table, "%s", m->ca_generation == t->ca_generation ? "yes" : "not yet");
		table_cell(&table, "%s",
			   m->seal_generation == t->seal_generation ? "yes" : "not yet");
	}
	table_sort(&table);
	table_print(&table, "", cx->io->out);
	table_done(&table);
}

int cmd_cluster_ca(struct cli *cx)
{
	Skerry__V1__RotateCaRequest rotate = SKERRY__V1__ROTATE_CA_REQUEST__INIT;
	Skerry__V1__GetTrustRequest get = SKERRY__V1__GET_TRUST_REQUEST__INIT;
	bool status = strcmp(cx->args[0], "status") == 0;
	void *reply;
	int rc;

	rotate.retire = cli_given(cx, OPT_RETIRE);
	rotate.force = cli_given(cx, OPT_RETIRE_FORCE);
	rotate.request_id = client_request_id(cx);
	if (!status && strcmp(cx->args[0], "rotate") != 0) {
		return cli_usage(cx, "\"%s\" is neither rotate nor status", cx->args[0]);
	}
	if ((status && (rotate.retire || rotate.force)) || (rotate.force && !rotate.retire)) {
		return cli_usage(cx, "--retire goes with rotate, and --force with --retire");
	}
	rc = client_to_lighthouse(cx);
	if (rc == CLI_OK && status) {
		rc = client_call(cx, "/skerry.v1.ClusterService/GetTrust", &get, &reply);
	} else if (rc == CLI_OK) {
		rc = client_call(cx, "/skerry.v1.ClusterService/RotateCa", &rotate, &reply);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	if (cli_json(cx)) {
		print_json(cx, reply);
		return CLI_OK;
	}
	print_trust(cx, reply);
	if (!status && !rotate.retire) {
		cli_note(cx,
			 "Lighthouses and attached devices learn the new one by themselves. When "
			 "`skerry cluster ca status` says that all have it: skerry cluster ca "
			 "rotate "
			 "--retire");
	}
	return CLI_OK;
}

int cmd_cluster_seal(struct cli *cx)
{
	Skerry__V1__RotateSealRequest req = SKERRY__V1__ROTATE_SEAL_REQUEST__INIT;
	const Skerry__V1__RotateSealResponse *r;
	void *reply;
	int rc;

	if (strcmp(cx->args[0], "rotate") != 0) {
		return cli_usage(cx, "\"%s\" is not rotate", cx->args[0]);
	}
	req.request_id = client_request_id(cx);
	rc = client_to_lighthouse(cx);
	if (rc == CLI_OK) {
		rc = client_call(cx, "/skerry.v1.ClusterService/RotateSeal", &req, &reply);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	r = reply;
	if (cli_json(cx)) {
		print_json(cx, reply);
		return CLI_OK;
	}
	fprintf(cx->io->out, "%s\n", print_safe(cx, r->recovery_string));
	cli_note(cx,
		 "This is the recovery string of the new cluster.key (number %u). Write it down: "
		 "it is "
		 "shown only now. Backups from before need the old one.\n"
		 "%u of %u lighthouses have the new key; the others get it when they come back.",
		 r->seal_generation, r->holders, r->lighthouses);
	return CLI_OK;
}
