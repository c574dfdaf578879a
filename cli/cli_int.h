/* Inside of the command: the tables of commands and flags, the context of one run, calls and printing. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/macros.h"
#include "cli/cli.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "skerry/v1/admin.pb-c.h"

#define CLI_AGENT_SOCKET      "/run/skerry/agent.sock"
#define CLI_LIGHTHOUSE_SOCKET "/run/skerry/skerryd.sock"

enum {
	CLI_TIMEOUT_MS = 30 * 1000,
	/* A lighthouse remembers request ids for at least 5 minutes: retries of ours end before that. */
	CLI_RETRY_MS = 4 * 60 * 1000,
	CLI_APPROVAL_MS = 15 * 60 * 1000, /* how long `up` waits for a person */
	CLI_LIST_VALUES = 64,
};

/* ---- flags ---- */

enum opt_id {
	OPT_NONE,
	OPT_HELP,
	OPT_TIMEOUT,
	OPT_OUTPUT,
	OPT_AGENT_SOCKET,
	/* a device's settings */
	OPT_UP_LIGHTHOUSE,
	OPT_AUTH_KEY,
	OPT_HOSTNAME,
	OPT_ACCEPT_DNS,
	OPT_ACCEPT_ROUTES,
	OPT_OPERATOR,
	OPT_ASK_TAGS,
	OPT_UP_TAILNET,
	OPT_UP_EPHEMERAL,
	OPT_FORCE,
	/* status, ip, ping */
	OPT_NO_PEERS,
	OPT_IPV4,
	OPT_IPV6,
	OPT_COUNT,
	OPT_INTERVAL,
	OPT_SIZE,
	/* administration: where */
	OPT_SOCKET,
	OPT_LIGHTHOUSE,
	OPT_API_KEY,
	OPT_CA,
	OPT_PIN,
	OPT_TAILNET,
	/* administration: what */
	OPT_DOMAIN,
	OPT_NODE_EXPIRY,
	OPT_DELETE_ALL,
	OPT_DISPLAY_NAME,
	OPT_USER_ROLE,
	OPT_USER,
	OPT_IN,
	OPT_NEVER,
	OPT_CLEAR,
	OPT_REUSABLE,
	OPT_EPHEMERAL,
	OPT_NEEDS_APPROVAL,
	OPT_TAGS,
	OPT_EXPIRY,
	OPT_NO_PIN,
	OPT_DESCRIPTION,
	OPT_KEY_ROLE,
	OPT_SYSTEM,
	OPT_LIMIT,
	OPT_OVERWRITE,
	OPT_LOCAL,
	OPT_RETIRE,
	OPT_RETIRE_FORCE,
	OPT_NO_FILL,
	OPT_WITH,
	OPT_N,
};

enum opt_type {
	OPT_FLAG,
	OPT_TEXT,
	OPT_LIST,     /* values with commas between, may be repeated */
	OPT_DURATION, /* num in ms */
	OPT_NUMBER,   /* min..max */
	OPT_CHOICE,   /* num is the index */
	OPT_ON_OFF,   /* num 1 or 0; without a value: on */
};

struct opt_def {
	const char *name; /* long, without "--" */
	char letter;      /* or 0 */
	enum opt_type type;
	const char *value; /* its name in the help */
	const char *help;
	const char *const *choices; /* NULL-terminated */
	int64_t min, max;
};

extern const struct opt_def cli_opts[OPT_N];

struct opt_value {
	bool given;
	const char *text; /* the last one given */
	int64_t num;
	char *list[CLI_LIST_VALUES];
	size_t n;
};

/* ---- commands ---- */

struct cli;

struct command {
	const char *group; /* "node"; NULL: stands alone */
	const char *name;
	const char
		*args; /* "NAME", "[NAME]": for usage; words that are not in brackets are needed */
	const char *summary;
	const uint8_t *
		opts; /* own flags, OPT_NONE at the end; --help and --timeout are every command's */
	bool admin;   /* of the lighthouse: has the flags that say where */
	const char *text; /* further help, or NULL */
	int (*run)(struct cli *cx);
};

extern const struct command cli_commands[];
extern const size_t cli_n_commands;

/* All flags of a command, the common ones included; returns how many. */
size_t command_opts(const struct command *cmd, uint8_t out[OPT_N]);
/* "node list". */
const char *command_name(const struct command *cmd, char out[64]);
/* The number of words that args needs and allows. */
void command_arity(const struct command *cmd, int *ret_min, int *ret_max);

/* ---- the context of one run ---- */

struct cli {
	const struct cli_io *io;
	const struct command *cmd;
	char name[64]; /* of the command */
	char **args;
	int n_args;
	struct opt_value opt[OPT_N];
	struct arena arena; /* everything that lives as long as the run */
	int64_t timeout_ms;
	uint64_t deadline; /* clock_mono_ms() */
	/* the connection */
	struct loop *loop;
	struct rpc_channel *channel;
	bool agent;          /* to the agent, not to a lighthouse */
	const char *where;   /* for messages */
	bool connected;      /* was, at least once */
	struct err dial_err; /* of the last dial that failed */
	char *bearer;        /* "Bearer sk-api-…"; wiped at the end */
	struct err err;      /* of the last call */
	void **users;        /* of the tailnet, for the tables that name them */
	size_t n_users;
	char *parent; /* tailnets/N, once resolved */
};

bool cli_given(const struct cli *cx, enum opt_id id);
bool cli_json(const struct cli *cx);

/* Memory of the run; never NULL. */
void *cli_alloc(struct cli *cx, size_t size);
char *cli_printf(struct cli *cx, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* "skerry COMMAND: text" and a pointer to the help, on stderr. Returns CLI_USAGE. */
int cli_usage(struct cli *cx, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* "skerry COMMAND: text" on stderr. Returns code. */
int cli_fail(struct cli *cx, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* A line on stderr that is no error. */
void cli_note(struct cli *cx, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* ---- texts ---- */

/* The nearest of n words, or NULL when none is near. */
const char *cli_nearest(const char *word, const char *const *words, size_t n);
void help_overview(FILE *out);
/* False: there is no such group. */
bool help_group(FILE *out, const char *group);
void help_command(FILE *out, const struct command *cmd);
/* CLI_OK, or CLI_USAGE for another shell. */
int completion_write(FILE *out, const char *shell);
/* The reference of all commands in roff, for skerry.1. */
void help_roff(FILE *out);

/* ---- calls ---- */

/* Prepares the connection; CLI_OK, or the exit code after the message was printed. */
int client_to_agent(struct cli *cx);
int client_to_lighthouse(struct cli *cx);
void client_done(struct cli *cx);

/*
 * One unary call with retries: 0, or an error code with cx->err and nothing printed. The reply lives in cx->arena.
 * Used before client_explain().
 */
MUST_CHECK int client_try(struct cli *cx, const char *path, const void *req, void *ret_reply);
/* Prints cx->err as one line with what to do; returns the exit code. */
int client_explain(struct cli *cx);
/* Both. */
MUST_CHECK int client_call(struct cli *cx, const char *path, const void *req, void *ret_reply);
/* The exit code of an error as a call returned it. */
int client_exit(const struct cli *cx, const struct err *e);
uint64_t client_remaining_ms(const struct cli *cx);
/* 128 bits in hex. */
char *client_request_id(struct cli *cx);

/* A stream to the agent: on_message per message until the end. Ctrl-C cancels: CLI_INTERRUPTED and nothing is printed. */
struct client_stream {
	void (*on_message)(void *arg, const ProtobufCMessage *msg);
	void *arg;
	uint64_t deadline_ms; /* sent; 0: none */
	uint64_t wait_ms; /* ends the wait here, ERR_DEADLINE; 0: never; on_message may change it */
};
int client_stream(struct cli *cx, const char *path, const void *req, struct client_stream *s,
		  bool *ret_interrupted);

/* ---- printing ---- */

/* Text from elsewhere without control characters, so that no name plays with the terminal. */
char *print_safe(struct cli *cx, const char *text);

enum { TABLE_COLUMNS = 10 };
struct table {
	size_t columns;
	const char *head[TABLE_COLUMNS];
	char **cells;
	size_t n, cap;
};
/* Headers until NULL. */
void table_init(struct table *t, const char *first, ...);
void table_cell(struct table *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Orders the rows by their first cells, numbers in them by their values. */
void table_sort(struct table *t);
/* Aligned, two spaces between, nothing at the ends of lines. */
void table_print(const struct table *t, const char *indent, FILE *out);
void table_done(struct table *t);

/* "3m ago", "in 89d", "never". */
enum { TIME_TEXT = 32 };
const char *print_ago(int64_t then_ms, int64_t now_ms, char out[TIME_TEXT]);
const char *print_left(const Google__Protobuf__Timestamp *ts, int64_t now_ms, char out[TIME_TEXT]);
/* 1.5 MiB */
const char *print_bytes(uint64_t n, char out[TIME_TEXT]);
/* MEMBER_ROLE_VOTER -> voter */
const char *print_enum(const ProtobufCEnumDescriptor *desc, int value, char out[64]);

/* A message as JSON with a newline. */
void print_json(struct cli *cx, const void *msg);
/* A message as aligned lines "name  value"; what is empty is left out. */
void print_fields(struct cli *cx, const void *msg);
/* One of the two, as -o says. */
void print_reply(struct cli *cx, const void *msg);
/* A QR code of half blocks; false: the text is too long. */
bool print_qr(FILE *out, const char *text);

/* ---- what is administered ---- */

struct noun {
	const char *word; /* "node" */
	const char *
		collection; /* "nodes", in resource names; NULL: tailnets and members stand alone */
	const char *get, *list, *remove;
	/* The names by which a person may call it, up to 4 (an empty one does not count). */
	size_t (*names)(const void *msg, const char *out[4]);
	void (*columns)(struct table *t);
	void (*row)(struct cli *cx, struct table *t, const void *msg, int64_t now_ms);
};

extern const struct noun noun_tailnet, noun_user, noun_node, noun_auth_key, noun_api_key,
	noun_member, noun_audit;

/* tailnets/N of --tailnet; exit code. */
int admin_parent(struct cli *cx);
/* The resource name of what a person calls `text`; exit code after the message. */
int admin_resolve(struct cli *cx, const struct noun *noun, const char *text, char **ret_name);
/* All pages of a list as one message of the response's type; at most `limit` elements unless 0. Exit code. */
int admin_list(struct cli *cx, const struct noun *noun, size_t limit, void **ret_response,
	       void ***ret_items, size_t *ret_n);
/* Sets a string or message field of a request by its name. */
void msg_set(void *msg, const char *field, const void *value);
void *msg_new(struct cli *cx, const ProtobufCMessageDescriptor *desc);
const char *msg_str(const void *msg, const char *field);

/* ---- the commands ---- */

int cmd_up(struct cli *cx);
int cmd_set(struct cli *cx);
int cmd_down(struct cli *cx);
int cmd_status(struct cli *cx);
int cmd_ping(struct cli *cx);
int cmd_ip(struct cli *cx);
int cmd_logout(struct cli *cx);
int cmd_version(struct cli *cx);
int cmd_help(struct cli *cx);
int cmd_completion(struct cli *cx);

int cmd_list(struct cli *cx);
int cmd_get(struct cli *cx);
int cmd_delete(struct cli *cx);
int cmd_tailnet_create(struct cli *cx);
int cmd_user_create(struct cli *cx);
int cmd_node_rename(struct cli *cx);
int cmd_node_expire(struct cli *cx);
int cmd_node_tag(struct cli *cx);
int cmd_node_approve(struct cli *cx);
int cmd_auth_key_create(struct cli *cx);
int cmd_api_key_create(struct cli *cx);
int cmd_cluster_status(struct cli *cx);
int cmd_cluster_token(struct cli *cx);
int cmd_cluster_digest(struct cli *cx);
int cmd_backup_create(struct cli *cx);
int cmd_cluster_finalize(struct cli *cx);
int cmd_cluster_ca(struct cli *cx);
int cmd_cluster_seal(struct cli *cx);
int cmd_cluster_doctor(struct cli *cx);
int cmd_cluster_transfer(struct cli *cx);
/* admin_members.c */
int cmd_cluster_promote(struct cli *cx);
int cmd_cluster_demote(struct cli *cx);
int cmd_cluster_remove(struct cli *cx);
int cmd_cluster_replace(struct cli *cx);
int cmd_cluster_cancel(struct cli *cx);
/* A change of the members that is under way, in a line or two. */
void print_change(struct cli *cx, const Skerry__V1__MemberChange *c);
