/* skerry cluster doctor, transfer: what is wrong, and leadership moved. */
#include <inttypes.h>
#include <string.h>

#include "cli/cli_int.h"
#include "skerry/v1/admin.pb-c.h"

/* Statuses of `cluster doctor`, by severity; docs/errors.md. */
enum { DOCTOR_FINE = 0, DOCTOR_WARNINGS = 1, DOCTOR_ERRORS = 2 };

static const char *severity_word(Skerry__V1__Severity s)
{
	switch (s) {
	case SKERRY__V1__SEVERITY__SEVERITY_NOTE: return "note";
	case SKERRY__V1__SEVERITY__SEVERITY_WARNING: return "warning";
	default: return "ERROR";
	}
}

/* A severity of a newer lighthouse is taken for the worst. */
static int status_of(Skerry__V1__Severity s)
{
	switch (s) {
	case SKERRY__V1__SEVERITY__SEVERITY_UNSPECIFIED:
	case SKERRY__V1__SEVERITY__SEVERITY_NOTE: return DOCTOR_FINE;
	case SKERRY__V1__SEVERITY__SEVERITY_WARNING: return DOCTOR_WARNINGS;
	default: return DOCTOR_ERRORS;
	}
}

static void print_findings(struct cli *cx, const Skerry__V1__Diagnosis *d)
{
	for (size_t i = 0; i < d->n_findings; i++) {
		const Skerry__V1__Finding *f = d->findings[i];

		fprintf(cx->io->out, "%s: ", severity_word(f->severity));
		if (f->member[0] != '\0') {
			fprintf(cx->io->out, "%s: ", print_safe(cx, f->member));
		}
		fprintf(cx->io->out, "%s", print_safe(cx, f->message));
		fprintf(cx->io->out, " (%s)\n", print_safe(cx, f->code));
		fprintf(cx->io->out, "    %s\n", print_safe(cx, f->remedy));
	}
}

static void print_facts(struct cli *cx, const Skerry__V1__Diagnosis *d)
{
	struct table t;

	table_init(&t, "LIGHTHOUSE", "STATE", "CLOCK", "ROUND TRIP", "LOG WRITE P99", "DISK FREE",
		   "STORE", "VERSION", NULL);
	for (size_t i = 0; i < d->n_members; i++) {
		const Skerry__V1__MemberFacts *m = d->members[i];
		bool self = m->id == d->lighthouse_id;
		bool told = self || (m->connected && m->error[0] == '\0');

		table_cell(&t, "%s%s", m->display_name, self ? " (this)" : "");
		table_cell(&t, "%s",
			   !m->connected ? "away"
			   : m->leader   ? "leader"
			   : m->voter    ? "voter"
					 : "standby");
		if (self || !m->connected) {
			table_cell(&t, "-");
			table_cell(&t, "-");
		} else {
			table_cell(&t, "%+" PRId64 " ms", m->clock_offset_ms);
			table_cell(&t, "%.1f ms", (double)m->round_trip_us / 1000);
		}
		if (told) {
			table_cell(&t, "%.1f ms", (double)m->append_p99_us / 1000);
			table_cell(&t, "%" PRIu64 " MiB", m->disk_free_bytes >> 20);
			table_cell(&t, "%u.%u %%", m->store_used_permille / 10,
				   m->store_used_permille % 10);
			table_cell(&t, "%s", m->version);
		} else {
			for (int k = 0; k < 4; k++) {
				table_cell(&t, "-");
			}
		}
	}
	table_sort(&t);
	table_print(&t, "", cx->io->out);
	table_done(&t);
}

int cmd_cluster_doctor(struct cli *cx)
{
	Skerry__V1__DiagnoseRequest req = SKERRY__V1__DIAGNOSE_REQUEST__INIT;
	Skerry__V1__Diagnosis *d;
	int rc = client_to_lighthouse(cx);

	if (rc == CLI_OK) {
		rc = client_call(cx, "/skerry.v1.ClusterService/Diagnose", &req, &d);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	if (cli_json(cx)) {
		print_json(cx, d);
		return status_of(d->severity);
	}
	print_facts(cx, d);
	fputc('\n', cx->io->out);
	print_findings(cx, d);
	if (d->quorum_margin >= 0) {
		fprintf(cx->io->out, "%s; %d of the voters may fail.\n",
			status_of(d->severity) == DOCTOR_FINE ? "All is well"
							      : "The cluster serves",
			d->quorum_margin);
	} else {
		fprintf(cx->io->out, "The cluster has no quorum: it answers reads only.\n");
	}
	return status_of(d->severity);
}

int cmd_cluster_transfer(struct cli *cx)
{
	Skerry__V1__TransferLeadershipRequest req = SKERRY__V1__TRANSFER_LEADERSHIP_REQUEST__INIT;
	Skerry__V1__TransferLeadershipResponse *r;
	int rc = client_to_lighthouse(cx);

	if (rc == CLI_OK && cx->n_args > 0) {
		rc = admin_resolve(cx, &noun_member, cx->args[0], &req.name);
	}
	if (rc == CLI_OK) {
		rc = client_call(cx, "/skerry.v1.ClusterService/TransferLeadership", &req, &r);
	}
	if (rc != CLI_OK) {
		return rc;
	}
	if (cli_json(cx)) {
		print_json(cx, r);
	} else {
		fprintf(cx->io->out, "%s leads\n",
			r->leader[0] != '\0' ? print_safe(cx, r->leader) : "another lighthouse");
	}
	return CLI_OK;
}
