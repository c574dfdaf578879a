/* The tables: every flag once, every command with its flags. Parsing, help, completion and manual follow from them. */
#include <string.h>

#include "cli/cli_int.h"

static const char *const outputs[] = {"table", "json", NULL};
static const char *const dns_choices[] = {"off", "serve", "host", "all", NULL};
static const char *const roles[] = {"viewer", "operator", "admin", NULL};

const struct opt_def cli_opts[OPT_N] = {
	[OPT_HELP] = {.name = "help", .letter = 'h', .help = "show this help"},
	[OPT_TIMEOUT] = {.name = "timeout",
			 .type = OPT_DURATION,
			 .value = "TIME",
			 .min = 1,
			 .help = "give up after this time (default 30s)"},
	[OPT_OUTPUT] = {.name = "output",
			.letter = 'o',
			.type = OPT_CHOICE,
			.value = "FORM",
			.choices = outputs,
			.help = "form of the answer: table (default) or json"},
	[OPT_AGENT_SOCKET] = {.name = "socket",
			      .type = OPT_TEXT,
			      .value = "PATH",
			      .help = "the agent's socket (default " CLI_AGENT_SOCKET
				      "; environment SKERRY_AGENT_SOCKET)"},
	[OPT_UP_LIGHTHOUSE] = {.name = "lighthouse",
			       .type = OPT_LIST,
			       .value = "URL[,URL...]",
			       .help = "lighthouses of the tailnet: https://host:port"},
	[OPT_AUTH_KEY] =
		{.name = "auth-key",
		 .type = OPT_TEXT,
		 .value = "KEY",
		 .help = "register with this key: file:PATH, - (standard input) or the key itself "
			 "(environment SKERRY_AUTH_KEY)"},
	[OPT_HOSTNAME] = {.name = "hostname",
			  .type = OPT_TEXT,
			  .value = "NAME",
			  .help = "name asked for at registration (default: the host's)"},
	[OPT_ACCEPT_DNS] = {.name = "accept-dns",
			    .type = OPT_CHOICE,
			    .value = "HOW",
			    .choices = dns_choices,
			    .help = "names of the tailnet: off; serve (at 100.100.100.100); host "
				    "(the host's resolver "
				    "uses it); all (split routes too)"},
	[OPT_ACCEPT_ROUTES] = {.name = "accept-routes",
			       .type = OPT_ON_OFF,
			       .value = "on|off",
			       .help = "take routes that peers offer"},
	[OPT_OPERATOR] = {.name = "operator",
			  .type = OPT_TEXT,
			  .value = "USER",
			  .help = "local user who may change this device; set by root"},
	[OPT_ASK_TAGS] = {.name = "tags",
			  .type = OPT_LIST,
			  .value = "tag:A[,tag:B...]",
			  .help = "tags asked for at registration"},
	[OPT_UP_TAILNET] = {.name = "tailnet",
			    .type = OPT_TEXT,
			    .value = "NAME",
			    .help = "tailnet to join without a key (default: default)"},
	[OPT_UP_EPHEMERAL] = {.name = "ephemeral",
			      .help = "the node is removed when it has been away for a while"},
	[OPT_FORCE] = {.name = "force-register",
		       .help = "register anew even if this device is registered"},
	[OPT_NO_PEERS] = {.name = "no-peers", .help = "leave the peers out"},
	[OPT_IPV4] = {.name = "ipv4", .letter = '4', .help = "the IPv4 address only"},
	[OPT_IPV6] = {.name = "ipv6", .letter = '6', .help = "the IPv6 address only"},
	[OPT_COUNT] = {.name = "count",
		       .letter = 'c',
		       .type = OPT_NUMBER,
		       .value = "N",
		       .min = 1,
		       .max = 1000000,
		       .help = "stop after N echoes (default: go on until Ctrl-C)"},
	[OPT_INTERVAL] = {.name = "interval",
			  .letter = 'i',
			  .type = OPT_DURATION,
			  .value = "TIME",
			  .min = 10,
			  .help = "between echoes (default 1s, at least 10ms)"},
	[OPT_SIZE] = {.name = "size",
		      .letter = 's',
		      .type = OPT_NUMBER,
		      .value = "BYTES",
		      .min = 1,
		      .max = 1200,
		      .help = "payload of an echo (default 56)"},
	[OPT_SOCKET] = {.name = "socket",
			.type = OPT_TEXT,
			.value = "PATH",
			.help = "the lighthouse's socket (default " CLI_LIGHTHOUSE_SOCKET
				"; environment SKERRY_SOCKET)"},
	[OPT_LIGHTHOUSE] =
		{.name = "lighthouse",
		 .type = OPT_LIST,
		 .value = "URL[,URL...]",
		 .help = "call a lighthouse over the network, with an API key (environment "
			 "SKERRY_LIGHTHOUSE)"},
	[OPT_API_KEY] = {.name = "api-key",
			 .type = OPT_TEXT,
			 .value = "KEY",
			 .help = "the API key: file:PATH, - (standard input) or the key itself "
				 "(environment "
				 "SKERRY_API_KEY)"},
	[OPT_CA] = {.name = "ca",
		    .type = OPT_TEXT,
		    .value = "FILE",
		    .help = "trust these certificate authorities (PEM) instead of the system's"},
	[OPT_PIN] = {.name = "pin",
		     .type = OPT_TEXT,
		     .value = "[ID:]SHA256",
		     .help = "trust the CA with this key hash (hex) only; ID is the cluster's"},
	[OPT_TAILNET] = {.name = "tailnet",
			 .letter = 't',
			 .type = OPT_TEXT,
			 .value = "NAME",
			 .help = "tailnet by name or number (default: default; environment "
				 "SKERRY_TAILNET)"},
	[OPT_DOMAIN] = {.name = "domain",
			.type = OPT_TEXT,
			.value = "DOMAIN",
			.help = "base domain of the names of nodes (default: NAME.internal)"},
	[OPT_NODE_EXPIRY] = {.name = "node-expiry",
			     .type = OPT_DURATION,
			     .value = "TIME",
			     .min = 1000,
			     .help = "how long a node's registration lasts (default 180d)"},
	[OPT_DELETE_ALL] = {.name = "force", .help = "also delete its users, nodes and keys"},
	[OPT_DISPLAY_NAME] = {.name = "display-name",
			      .type = OPT_TEXT,
			      .value = "TEXT",
			      .help = "name for people"},
	[OPT_USER_ROLE] = {.name = "role",
			   .type = OPT_CHOICE,
			   .value = "ROLE",
			   .choices = roles,
			   .help = "viewer, operator or admin"},
	[OPT_USER] = {.name = "user",
		      .letter = 'u',
		      .type = OPT_TEXT,
		      .value = "USER",
		      .help = "user the nodes belong to (default: admin)"},
	[OPT_IN] = {.name = "in",
		    .type = OPT_DURATION,
		    .value = "TIME",
		    .min = 1000,
		    .help = "not now but after this time"},
	[OPT_NEVER] = {.name = "never", .help = "the registration does not expire"},
	[OPT_CLEAR] = {.name = "clear", .help = "take all tags away"},
	[OPT_REUSABLE] = {.name = "reusable",
			  .help = "registers any number of nodes (default: one)"},
	[OPT_EPHEMERAL] = {.name = "ephemeral",
			   .help = "its nodes are removed when they have been away for a while"},
	[OPT_NEEDS_APPROVAL] = {.name = "needs-approval",
				.help = "its nodes wait until somebody approves them"},
	[OPT_TAGS] = {.name = "tags",
		      .type = OPT_LIST,
		      .value = "tag:A[,tag:B...]",
		      .help = "its nodes carry these tags"},
	[OPT_EXPIRY] = {.name = "expiry",
			.type = OPT_DURATION,
			.value = "TIME",
			.min = 1000,
			.help = "how long it is good (auth key 24h, API key 90d, join token 1h)"},
	[OPT_NO_PIN] =
		{.name = "no-pin",
		 .help = "without the cluster's pin: devices trust the system's authorities once"},
	[OPT_DESCRIPTION] = {.name = "description",
			     .type = OPT_TEXT,
			     .value = "TEXT",
			     .help = "what it is for"},
	[OPT_KEY_ROLE] = {.name = "role",
			  .type = OPT_CHOICE,
			  .value = "ROLE",
			  .choices = roles,
			  .help = "what its holder may do: viewer (default), operator or admin"},
	[OPT_SYSTEM] = {.name = "system", .help = "of the system: lighthouses and every tailnet"},
	[OPT_LIMIT] = {.name = "limit",
		       .letter = 'n',
		       .type = OPT_NUMBER,
		       .value = "N",
		       .min = 1,
		       .max = 1000000,
		       .help = "the N newest entries at most (default 100)"},
	[OPT_OVERWRITE] = {.name = "force", .help = "replace the file if it is there"},
	[OPT_RETIRE] = {.name = "retire",
			.help = "end the certificate authority before the present one"},
	[OPT_RETIRE_FORCE] = {.name = "force",
			      .help = "with --retire: although devices were not seen since"},
	[OPT_LOCAL] = {.name = "local",
		       .help = "what this lighthouse has, also without a quorum; may lag behind"},
	[OPT_NO_FILL] = {.name = "no-fill", .help = "no standby takes the place"},
	[OPT_WITH] = {.name = "with",
		      .type = OPT_TEXT,
		      .value = "STANDBY",
		      .help = "this standby takes its place, at once"},
};

#define OPTS(...) ((const uint8_t[]){__VA_ARGS__, OPT_NONE})
#define NO_OPTS   ((const uint8_t[]){OPT_NONE})

static const char up_text[] = "Prints a line per step. Without a key a device that is not "
			      "registered yet prints a URL and a code and waits\n"
			      "until somebody lets it in by `skerry node approve CODE`. A setting "
			      "that is not named stays as it is. Ctrl-C\n"
			      "ends the waiting, not the registration: the agent goes on. Keys in "
			      "an argument are seen by other users of\n"
			      "the machine: prefer SKERRY_AUTH_KEY, file:PATH or - .\n";

const struct command cli_commands[] = {
	{NULL, "up", "", "switch the device on, register it if needed",
	 OPTS(OPT_UP_LIGHTHOUSE, OPT_AUTH_KEY, OPT_HOSTNAME, OPT_ACCEPT_DNS, OPT_ACCEPT_ROUTES,
	      OPT_OPERATOR, OPT_ASK_TAGS, OPT_UP_TAILNET, OPT_UP_EPHEMERAL, OPT_FORCE, OPT_OUTPUT,
	      OPT_AGENT_SOCKET),
	 false, up_text, cmd_up},
	{NULL, "set", "", "change settings of this device",
	 OPTS(OPT_UP_LIGHTHOUSE, OPT_HOSTNAME, OPT_ACCEPT_DNS, OPT_ACCEPT_ROUTES, OPT_OPERATOR,
	      OPT_ASK_TAGS, OPT_UP_TAILNET, OPT_OUTPUT, OPT_AGENT_SOCKET),
	 false, "What is not named stays as it is. Without flags: shows the settings.\n", cmd_set},
	{NULL, "down", "", "switch the device off; it stays registered",
	 OPTS(OPT_OUTPUT, OPT_AGENT_SOCKET), false, NULL, cmd_down},
	{NULL, "status", "", "show the device, its lighthouse and its peers",
	 OPTS(OPT_OUTPUT, OPT_NO_PEERS, OPT_AGENT_SOCKET), false, NULL, cmd_status},
	{NULL, "ping", "NAME", "send echoes through the tunnel to a peer",
	 OPTS(OPT_COUNT, OPT_INTERVAL, OPT_SIZE, OPT_IPV6, OPT_OUTPUT, OPT_AGENT_SOCKET), false,
	 "--timeout bounds the whole run if --count is given, else the wait for the first "
	 "answer.\n",
	 cmd_ping},
	{NULL, "ip", "[NAME]", "print the tailnet addresses of this device or of a peer",
	 OPTS(OPT_IPV4, OPT_IPV6, OPT_OUTPUT, OPT_AGENT_SOCKET), false, NULL, cmd_ip},
	{NULL, "logout", "", "end the registration of this device",
	 OPTS(OPT_OUTPUT, OPT_AGENT_SOCKET), false, NULL, cmd_logout},
	{NULL, "version", "", "print the versions of this command and of the agent",
	 OPTS(OPT_OUTPUT, OPT_AGENT_SOCKET), false, NULL, cmd_version},

	{"node", "list", "", "list the nodes of a tailnet", OPTS(OPT_TAILNET, OPT_LOCAL), true,
	 NULL, cmd_list},
	{"node", "get", "NODE", "show a node", OPTS(OPT_TAILNET, OPT_LOCAL), true, NULL, cmd_get},
	{"node", "approve", "CODE", "let the device in that waits with this code",
	 OPTS(OPT_USER, OPT_TAILNET), true, NULL, cmd_node_approve},
	{"node", "rename", "NODE NAME", "give a node another name", OPTS(OPT_TAILNET), true, NULL,
	 cmd_node_rename},
	{"node", "tag", "NODE [TAG...]", "set the tags of a node", OPTS(OPT_CLEAR, OPT_TAILNET),
	 true, NULL, cmd_node_tag},
	{"node", "expire", "NODE", "end a node's registration now or later",
	 OPTS(OPT_IN, OPT_NEVER, OPT_TAILNET), true, NULL, cmd_node_expire},
	{"node", "delete", "NODE", "delete a node", OPTS(OPT_TAILNET), true, NULL, cmd_delete},

	{"auth-key", "create", "", "make a key with which devices register",
	 OPTS(OPT_REUSABLE, OPT_EPHEMERAL, OPT_TAGS, OPT_EXPIRY, OPT_USER, OPT_NEEDS_APPROVAL,
	      OPT_NO_PIN, OPT_DESCRIPTION, OPT_TAILNET),
	 true,
	 "The key is printed once, alone on standard output. Default: good for one node and 24 "
	 "h.\n",
	 cmd_auth_key_create},
	{"auth-key", "list", "", "list the auth keys, without their secrets",
	 OPTS(OPT_TAILNET, OPT_LOCAL), true, NULL, cmd_list},
	{"auth-key", "get", "KEY", "show an auth key", OPTS(OPT_TAILNET, OPT_LOCAL), true, NULL,
	 cmd_get},
	{"auth-key", "revoke", "KEY", "the key registers nothing from now on", OPTS(OPT_TAILNET),
	 true, NULL, cmd_delete},

	{"api-key", "create", "", "make a key for administration over the network",
	 OPTS(OPT_KEY_ROLE, OPT_EXPIRY, OPT_SYSTEM, OPT_DESCRIPTION, OPT_TAILNET), true,
	 "The key is printed once, alone on standard output. It is of one tailnet, or with "
	 "--system of the system.\n",
	 cmd_api_key_create},
	{"api-key", "list", "", "list the API keys, without their secrets",
	 OPTS(OPT_SYSTEM, OPT_TAILNET, OPT_LOCAL), true, NULL, cmd_list},
	{"api-key", "get", "KEY", "show an API key", OPTS(OPT_SYSTEM, OPT_TAILNET, OPT_LOCAL), true,
	 NULL, cmd_get},
	{"api-key", "revoke", "KEY", "the key opens nothing from now on",
	 OPTS(OPT_SYSTEM, OPT_TAILNET), true, NULL, cmd_delete},

	{"user", "create", "NAME", "add a user", OPTS(OPT_USER_ROLE, OPT_DISPLAY_NAME, OPT_TAILNET),
	 true, NULL, cmd_user_create},
	{"user", "list", "", "list the users of a tailnet", OPTS(OPT_TAILNET, OPT_LOCAL), true,
	 NULL, cmd_list},
	{"user", "get", "USER", "show a user", OPTS(OPT_TAILNET, OPT_LOCAL), true, NULL, cmd_get},
	{"user", "delete", "USER", "delete a user", OPTS(OPT_TAILNET), true, NULL, cmd_delete},

	{"tailnet", "create", "NAME", "add a tailnet", OPTS(OPT_DOMAIN, OPT_NODE_EXPIRY), true,
	 NULL, cmd_tailnet_create},
	{"tailnet", "list", "", "list the tailnets", OPTS(OPT_LOCAL), true, NULL, cmd_list},
	{"tailnet", "get", "TAILNET", "show a tailnet", OPTS(OPT_LOCAL), true, NULL, cmd_get},
	{"tailnet", "delete", "TAILNET", "delete a tailnet", OPTS(OPT_DELETE_ALL), true, NULL,
	 cmd_delete},

	{"cluster", "status", "", "show the lighthouses as this one sees them", NO_OPTS, true, NULL,
	 cmd_cluster_status},
	{"cluster", "token", "", "make a token with which one lighthouse may join",
	 OPTS(OPT_EXPIRY), true,
	 "The token is printed once, alone on standard output. Default: good for 1 h.\n",
	 cmd_cluster_token},
	{"cluster", "remove", "LIGHTHOUSE...", "remove lighthouses from the cluster for good",
	 OPTS(OPT_NO_FILL), true,
	 "A standby takes the place of a voter. The removed one is told, and stops; its directory "
	 "is worth nothing\nfrom then on. Any of them may be removed, the leader too.\n",
	 cmd_cluster_remove},
	{"cluster", "replace", "LIGHTHOUSE", "put another lighthouse into the place of one",
	 OPTS(OPT_WITH, OPT_EXPIRY), true,
	 "Without --with prints a token for the new host, alone on standard output: when it has "
	 "joined (skerryd join\nTOKEN) and caught up, the old one is removed and the new one gets "
	 "its vote, without a further command.\n",
	 cmd_cluster_replace},
	{"cluster", "digest", "", "compare the state of all lighthouses", NO_OPTS, true,
	 "Ends with status 1 when they differ or one did not report.\n", cmd_cluster_digest},
	{"cluster", "doctor", "",
	 "say what is wrong with the cluster, or close to it, and what to do", NO_OPTS, true,
	 "Asks every lighthouse, through the one that is called; works without a quorum. Ends with "
	 "status 0 when all is well, 1 with warnings, 2 with errors.\n",
	 cmd_cluster_doctor},
	{"cluster", "transfer", "[LIGHTHOUSE]", "hand leadership over to another lighthouse",
	 NO_OPTS, true,
	 "Without LIGHTHOUSE to the voter that is best prepared. Calls under way are not "
	 "disturbed.\n",
	 cmd_cluster_transfer},
	{"cluster", "finalize-upgrade", "",
	 "raise the feature level to the highest that every lighthouse supports", NO_OPTS, true,
	 "The last step of an upgrade, once every lighthouse runs the new version. There is no way "
	 "back: older versions are refused from then on.\n",
	 cmd_cluster_finalize},
	{"cluster", "ca", "rotate|status",
	 "renew the cluster's certificate authority, in two steps",
	 OPTS(OPT_RETIRE, OPT_RETIRE_FORCE), true,
	 "rotate makes a new one; old and new are accepted, and lighthouses and devices learn the "
	 "new "
	 "one by themselves.\n"
	 "rotate --retire ends the old one, once status says that everybody has the new one.\n",
	 cmd_cluster_ca},
	{"cluster", "seal", "rotate",
	 "renew cluster.key, under which the cluster's secrets are sealed", NO_OPTS, true,
	 "The new recovery string is printed once, alone on standard output. Backups from before "
	 "need "
	 "the old one.\n",
	 cmd_cluster_seal},
	{"cluster", "promote", "LIGHTHOUSE...", "make standbys that have caught up voters", NO_OPTS,
	 true,
	 "Standbys become voters by themselves when that makes 3 or 5 of them. Refused when the "
	 "cluster would be the worse for it.\n",
	 cmd_cluster_promote},
	{"cluster", "demote", "LIGHTHOUSE...", "take the vote of lighthouses; they stay standbys",
	 OPTS(OPT_NO_FILL), true,
	 "A standby takes the place, if there is one; else name two, so that 3 of 5 or 1 of 3 "
	 "voters are left.\n",
	 cmd_cluster_demote},
	{"cluster", "cancel", "", "give up the change of the members that is under way", NO_OPTS,
	 true,
	 "What was done stays, but an even number of voters is not left behind if that can be "
	 "helped.\n",
	 cmd_cluster_cancel},

	{"backup", "create", "FILE", "save the state of the whole cluster into a file",
	 OPTS(OPT_OVERWRITE, OPT_LOCAL), true,
	 "The state at one revision, while everything goes on. Secrets in it stay sealed: a "
	 "restore "
	 "(skerryd restore)\n"
	 "also needs cluster.key or the recovery string. skerryd backup verify checks the file.\n",
	 cmd_backup_create},

	{"audit", "list", "", "list who changed what",
	 OPTS(OPT_LIMIT, OPT_SYSTEM, OPT_TAILNET, OPT_LOCAL), true, NULL, cmd_list},

	{NULL, "completion", "bash|zsh", "print a completion script for a shell", NO_OPTS, false,
	 NULL, cmd_completion},
	{NULL, "help", "[COMMAND...]", "show help for a command", NO_OPTS, false, NULL, cmd_help},
};
const size_t cli_n_commands = ARRAY_LEN(cli_commands);

size_t command_opts(const struct command *cmd, uint8_t out[OPT_N])
{
	static const uint8_t where[] = {OPT_OUTPUT, OPT_LIGHTHOUSE, OPT_API_KEY,
					OPT_PIN,    OPT_CA,         OPT_SOCKET};
	size_t n = 0;

	for (const uint8_t *o = cmd->opts; *o != OPT_NONE; o++) {
		out[n++] = *o;
	}
	if (cmd->admin) {
		memcpy(out + n, where, sizeof(where));
		n += sizeof(where);
	}
	out[n++] = OPT_TIMEOUT;
	out[n++] = OPT_HELP;
	return n;
}

const char *command_name(const struct command *cmd, char out[64])
{
	snprintf(out, 64, "%s%s%s", cmd->group ? cmd->group : "", cmd->group ? " " : "", cmd->name);
	return out;
}

void command_arity(const struct command *cmd, int *ret_min, int *ret_max)
{
	int min = 0, max = 0;

	for (const char *p = cmd->args; *p;) {
		size_t len = strcspn(p, " ");

		if (*p != '[') {
			min++;
		}
		max = len > 4 && memmem(p, len, "...", 3) ? 1000 : max + 1;
		p += len + strspn(p + len, " ");
	}
	*ret_min = min;
	*ret_max = max;
}
