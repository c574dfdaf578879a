/* skerry cluster promote, demote, remove, replace, cancel: who votes and who is a member. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "cli/cli_int.h"
#include "proto/pb_util.h"
#include "skerry/v1/admin.pb-c.h"

static const char *list(struct cli *cx, char *const *names, size_t n)
{
	const char *text = "";

	for (size_t i = 0; i < n; i++) {
		text = cli_printf(cx, "%s%s%s", text, i == 0 ? "" : ", ", print_safe(cx, names[i]));
	}
	return text;
}

void print_change(struct cli *cx, const Skerry__V1__MemberChange *c)
{
	char ago[TIME_TEXT], left[TIME_TEXT];
	int64_t now = clock_wall_ms();

	fprintf(cx->io->out, "%s %s", print_safe(cx, c->kind), list(cx, c->leave, c->n_leave));
	if (c->n_enter > 0) {
		fprintf(cx->io->out, "%s%s", c->n_leave > 0 ? " by " : "",
			list(cx, c->enter, c->n_enter));
	}
	fprintf(cx->io->out, ": %s, for %s (begun by %s)\n", print_safe(cx, c->text),
		print_ago(pb_timestamp_ms(c->step_time), now, ago), print_safe(cx, c->actor));
	if (strcmp(c->step, "join") == 0) {
		fprintf(cx->io->out, "the token expires %s\n",
			print_left(c->expire_time, now, left));
	}
	fprintf(cx->io->out, "`skerry cluster cancel` gives it up\n");
}

/* It ended, or goes on without us: both are a success. */
static int say_change(struct cli *cx, const Skerry__V1__MemberChange *c, const char *done)
{
	if (c != NULL && c->outcome[0] == '\0' && c->id != 0) {
		print_change(cx, c);
		cli_note(cx, "it goes on by itself; `skerry cluster status` shows it");
	} else {
		fprintf(cx->io->out, "%s\n", done);
	}
	return CLI_OK;
}

/* Calls; with --json that is all. True: *ret is still to be put into words. Else the result is in *rc. */
static bool called(struct cli *cx, const char *path, const void *req, void *ret, int *rc)
{
	void **reply = ret;

	if (*rc == CLI_OK) {
		*rc = client_call(cx, path, req, ret);
	}
	if (*rc == CLI_OK && cli_json(cx)) {
		print_json(cx, *reply);
		return false;
	}
	return *rc == CLI_OK;
}

/* The first name and the others, as members/<id>. */
static int resolve(struct cli *cx, char **ret_name, char ***ret_more, size_t *ret_n)
{
	int rc = client_to_lighthouse(cx);

	if (rc == CLI_OK) {
		rc = admin_resolve(cx, &noun_member, cx->args[0], ret_name);
	}
	if (ret_more == NULL) {
		return rc;
	}
	*ret_more = arena_alloc(&cx->arena, (size_t)cx->n_args * sizeof(char *));
	for (int i = 1; rc == CLI_OK && i < (int)cx->n_args; i++) {
		rc = admin_resolve(cx, &noun_member, cx->args[i], &(*ret_more)[(*ret_n)++]);
	}
	return rc;
}

static const char *arguments(struct cli *cx)
{
	const char *text = "";

	for (int i = 0; i < (int)cx->n_args; i++) {
		text = cli_printf(cx, "%s%s%s", text, i == 0 ? "" : ", ",
				  print_safe(cx, cx->args[i]));
	}
	return text;
}

int cmd_cluster_promote(struct cli *cx)
{
	Skerry__V1__PromoteMemberRequest req = SKERRY__V1__PROMOTE_MEMBER_REQUEST__INIT;
	Skerry__V1__PromoteMemberResponse *r;
	int rc = resolve(cx, &req.name, &req.more, &req.n_more);

	if (!called(cx, "/skerry.v1.ClusterService/PromoteMember", &req, &r, &rc)) {
		return rc;
	}
	if (cx->n_args > 1) {
		return say_change(cx, r->change, cli_printf(cx, "%s are voters", arguments(cx)));
	}
	return say_change(cx, r->change,
			  cli_printf(cx, "%s is a voter, one of %u", arguments(cx), r->voters));
}

int cmd_cluster_demote(struct cli *cx)
{
	Skerry__V1__DemoteMemberRequest req = SKERRY__V1__DEMOTE_MEMBER_REQUEST__INIT;
	Skerry__V1__MemberChange *r;
	int rc = resolve(cx, &req.name, &req.more, &req.n_more);

	req.no_fill = cli_given(cx, OPT_NO_FILL);
	if (!called(cx, "/skerry.v1.ClusterService/DemoteMember", &req, &r, &rc)) {
		return rc;
	}
	return say_change(cx, r,
			  r->n_enter > 0 ? cli_printf(cx, "%s: standby; voter: %s", arguments(cx),
						      list(cx, r->enter, r->n_enter))
					 : cli_printf(cx, "%s: standby", arguments(cx)));
}

int cmd_cluster_remove(struct cli *cx)
{
	Skerry__V1__DeleteMemberRequest req = SKERRY__V1__DELETE_MEMBER_REQUEST__INIT;
	void *reply;
	int rc = resolve(cx, &req.name, &req.more, &req.n_more);

	if (rc != CLI_OK) {
		return rc;
	}
	req.no_fill = cli_given(cx, OPT_NO_FILL);
	req.request_id = client_request_id(cx);
	if (called(cx, "/skerry.v1.ClusterService/DeleteMember", &req, &reply, &rc)) {
		fprintf(cx->io->out, "removed %s\n", arguments(cx));
	}
	return rc;
}

int cmd_cluster_replace(struct cli *cx)
{
	Skerry__V1__ReplaceMemberRequest req = SKERRY__V1__REPLACE_MEMBER_REQUEST__INIT;
	Skerry__V1__ReplaceMemberResponse *r;
	Google__Protobuf__Duration lifetime;
	char left[TIME_TEXT];
	int rc = resolve(cx, &req.name, NULL, NULL);

	if (rc == CLI_OK && cli_given(cx, OPT_WITH)) {
		rc = admin_resolve(cx, &noun_member, cx->opt[OPT_WITH].text, &req.with);
	}
	if (rc == CLI_OK && cli_given(cx, OPT_EXPIRY)) {
		req.lifetime = pb_duration_set(&lifetime, cx->opt[OPT_EXPIRY].num);
	}
	if (!called(cx, "/skerry.v1.ClusterService/ReplaceMember", &req, &r, &rc)) {
		return rc;
	}
	if (r->token == NULL) {
		return say_change(cx, r->change,
				  cli_printf(cx, "%s replaced by %s", arguments(cx),
					     print_safe(cx, cx->opt[OPT_WITH].text)));
	}
	fprintf(cx->io->out, "%s\n", r->token->secret);
	cli_note(cx,
		 "for the new host alone, expires %s. There: skerryd join TOKEN, then skerryd run. "
		 "The "
		 "rest goes by itself; `skerry cluster status` shows it, `skerry cluster cancel` "
		 "gives "
		 "it up",
		 print_left(r->token->expire_time, clock_wall_ms(), left));
	return CLI_OK;
}

int cmd_cluster_cancel(struct cli *cx)
{
	Skerry__V1__CancelChangeRequest req = SKERRY__V1__CANCEL_CHANGE_REQUEST__INIT;
	Skerry__V1__MemberChange *r;
	int rc = client_to_lighthouse(cx);

	if (!called(cx, "/skerry.v1.ClusterService/CancelChange", &req, &r, &rc)) {
		return rc;
	}
	if (strcmp(r->outcome, "done") == 0) {
		fprintf(cx->io->out, "it was done before it could be given up\n");
		return CLI_OK;
	}
	fprintf(cx->io->out, "given up: %s %s\n", print_safe(cx, r->kind),
		list(cx, r->n_leave > 0 ? r->leave : r->enter,
		     r->n_leave > 0 ? r->n_leave : r->n_enter));
	/* The leader is at it, or this lighthouse has not heard of the end. */
	if (r->outcome[0] == '\0' && r->id != 0) {
		cli_note(cx, "`skerry cluster status` shows it until the leader has ended it");
	}
	return CLI_OK;
}
