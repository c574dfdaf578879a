/* Help, completion scripts and the manual's reference: all written from the tables. */
#include <ctype.h>
#include <string.h>

#include "cli/cli_int.h"

static void usage_line(FILE *out, const struct command *cmd)
{
	char name[64];

	fprintf(out, "skerry %s%s%s [flags]", command_name(cmd, name), cmd->args[0] ? " " : "",
		cmd->args);
}

static int left_of(const struct command *cmd, char *buf, size_t size)
{
	char name[64];

	return snprintf(buf, size, "%s%s%s", command_name(cmd, name), cmd->args[0] ? " " : "",
			cmd->args);
}

/* The column of the summaries: all commands of a group, or of all groups for NULL, fit before it. */
static int left_width(const char *group)
{
	char left[128];
	int width = 0;

	for (size_t i = 0; i < cli_n_commands; i++) {
		const char *its = cli_commands[i].group;

		if (!group || (its && strcmp(its, group) == 0)) {
			int n = left_of(&cli_commands[i], left, sizeof(left));

			width = MAX(width, n);
		}
	}
	return width;
}

static void summary_line(FILE *out, const struct command *cmd, int width)
{
	char left[128];

	left_of(cmd, left, sizeof(left));
	fprintf(out, "  %-*s  %s\n", width, left, cmd->summary);
}

void help_overview(FILE *out)
{
	const char *group = NULL;
	int width = left_width(NULL);

	fprintf(out, "skerry: a highly available WireGuard mesh\n\nOn a device:\n");
	for (size_t i = 0; i < cli_n_commands; i++) {
		const struct command *cmd = &cli_commands[i];

		if (cmd->group && !group) {
			fprintf(out, "\nAdministration, on a lighthouse or with --lighthouse URL "
				     "and an API key:\n");
		} else if (!cmd->group && group) {
			fprintf(out, "\nAnd:\n");
		}
		group = cmd->group;
		summary_line(out, cmd, width);
	}
	fprintf(out, "\nskerry help COMMAND says more. Exit status: 0 done, 1 failed, 2 usage, 3 "
		     "timeout, 4 not reachable,\n"
		     "5 refused, 6 not found, 7 conflict, 8 something else comes first, 9 cannot "
		     "now.\n");
}

bool help_group(FILE *out, const char *group)
{
	int width = left_width(group);
	bool found = false;

	for (size_t i = 0; i < cli_n_commands; i++) {
		if (!cli_commands[i].group || strcmp(cli_commands[i].group, group) != 0) {
			continue;
		}
		if (!found) {
			fprintf(out, "usage: skerry %s COMMAND [flags]\n\n", group);
		}
		found = true;
		summary_line(out, &cli_commands[i], width);
	}
	return found;
}

static void opt_text(const struct opt_def *d, char *out, size_t cap)
{
	char letter[8] = "    ";

	if (d->letter) {
		snprintf(letter, sizeof(letter), "-%c, ", d->letter);
	}
	snprintf(out, cap, "%s--%s%s%s%s", letter, d->name,
		 d->type == OPT_FLAG     ? ""
		 : d->type == OPT_ON_OFF ? "[="
					 : " ",
		 d->type == OPT_FLAG ? "" : d->value, d->type == OPT_ON_OFF ? "]" : "");
}

void help_command(FILE *out, const struct command *cmd)
{
	uint8_t ids[OPT_N];
	size_t n = command_opts(cmd, ids), width = 0;
	char left[128];

	fprintf(out, "usage: ");
	usage_line(out, cmd);
	fprintf(out, "\n\n%c%s.\n", toupper((unsigned char)cmd->summary[0]), cmd->summary + 1);
	if (cmd->text) {
		fprintf(out, "\n%s", cmd->text);
	}
	fprintf(out, "\nFlags:\n");
	for (size_t i = 0; i < n; i++) {
		opt_text(&cli_opts[ids[i]], left, sizeof(left));
		width = MAX(width, strlen(left));
	}
	for (size_t i = 0; i < n; i++) {
		opt_text(&cli_opts[ids[i]], left, sizeof(left));
		fprintf(out, "  %-*s  %s\n", (int)width, left, cli_opts[ids[i]].help);
	}
}

int cmd_help(struct cli *cx)
{
	if (cx->n_args == 0) {
		help_overview(cx->io->out);
		return CLI_OK;
	}
	for (size_t i = 0; i < cli_n_commands; i++) {
		const struct command *c = &cli_commands[i];
		bool alone = cx->n_args == 1 && !c->group && strcmp(c->name, cx->args[0]) == 0;

		if (alone || (cx->n_args == 2 && c->group && strcmp(c->group, cx->args[0]) == 0 &&
			      strcmp(c->name, cx->args[1]) == 0)) {
			help_command(cx->io->out, c);
			return CLI_OK;
		}
	}
	if (cx->n_args == 1 && help_group(cx->io->out, cx->args[0])) {
		return CLI_OK;
	}
	return cli_usage(cx, "there is no command %s%s%s", print_safe(cx, cx->args[0]),
			 cx->n_args > 1 ? " " : "",
			 cx->n_args > 1 ? print_safe(cx, cx->args[1]) : "");
}

/* ---- completion ---- */

static void opt_words(FILE *out, const struct command *cmd)
{
	uint8_t ids[OPT_N];
	size_t n = command_opts(cmd, ids);

	for (size_t i = 0; i < n; i++) {
		fprintf(out, "%s--%s", i ? " " : "", cli_opts[ids[i]].name);
	}
}

static void group_words(FILE *out, const char *group)
{
	const char *last = "";

	for (size_t i = 0; i < cli_n_commands; i++) {
		const struct command *c = &cli_commands[i];
		const char *word = !group ? (c->group ? c->group : c->name) : c->name;

		if (group && (!c->group || strcmp(c->group, group) != 0)) {
			continue;
		}
		if (strcmp(word, last) != 0) {
			fprintf(out, "%s%s", *last ? " " : "", word);
		}
		last = word;
	}
}

static void choice_cases(FILE *out)
{
	for (size_t i = 1; i < OPT_N; i++) {
		const struct opt_def *d = &cli_opts[i];
		bool before = false;

		for (size_t j = 1; j < i; j++) {
			before |= strcmp(cli_opts[j].name, d->name) == 0;
		}
		if (!d->choices || before) {
			continue;
		}
		fprintf(out, "\t--%s%s%.1s)\n\t\tCOMPREPLY=($(compgen -W \"", d->name,
			d->letter ? "|-" : "", &d->letter);
		for (size_t j = 0; d->choices[j]; j++) {
			fprintf(out, "%s%s", j ? " " : "", d->choices[j]);
		}
		fprintf(out, "\" -- \"$cur\"))\n\t\treturn ;;\n");
	}
	fprintf(out,
		"\t--socket|--ca)\n\t\tCOMPREPLY=($(compgen -f -- \"$cur\"))\n\t\treturn ;;\n");
}

int completion_write(FILE *out, const char *shell)
{
	const char *group = "";

	if (strcmp(shell, "bash") != 0 && strcmp(shell, "zsh") != 0) {
		return CLI_USAGE;
	}
	if (shell[0] == 'z') {
		fprintf(out, "#compdef skerry\nautoload -U +X bashcompinit && bashcompinit\n");
	}
	fprintf(out, "_skerry()\n{\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} "
		     "prev=${COMP_WORDS[COMP_CWORD-1]}\n"
		     "\tlocal word=${COMP_WORDS[1]} sub=${COMP_WORDS[2]:-} "
		     "words=\n\tCOMPREPLY=()\n\tcase $prev in\n");
	choice_cases(out);
	fprintf(out, "\tesac\n\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n\t\twords=\"");
	group_words(out, NULL);
	fprintf(out, "\"\n\telse\n\t\tcase $word in\n");
	for (size_t i = 0; i < cli_n_commands; i++) {
		const struct command *c = &cli_commands[i];

		if (!c->group) {
			fprintf(out, "\t\t%s) words=\"", c->name);
			opt_words(out, c);
			if (c->run == cmd_completion) {
				fprintf(out, " bash zsh");
			} else if (c->run == cmd_help) {
				fprintf(out, " ");
				group_words(out, NULL);
			}
			fprintf(out, "\" ;;\n");
			continue;
		}
		if (strcmp(group, c->group) == 0) {
			continue;
		}
		group = c->group;
		fprintf(out, "\t\t%s)\n\t\t\tif [ \"$COMP_CWORD\" -eq 2 ]; then\n\t\t\t\twords=\"",
			group);
		group_words(out, group);
		fprintf(out, "\"\n\t\t\telse\n\t\t\t\tcase $sub in\n");
		for (size_t j = i; j < cli_n_commands && cli_commands[j].group &&
				   strcmp(cli_commands[j].group, group) == 0;
		     j++) {
			fprintf(out, "\t\t\t\t%s) words=\"", cli_commands[j].name);
			opt_words(out, &cli_commands[j]);
			fprintf(out, "\" ;;\n");
		}
		fprintf(out, "\t\t\t\tesac\n\t\t\tfi ;;\n");
	}
	fprintf(out, "\t\tesac\n\tfi\n\tCOMPREPLY=($(compgen -W \"$words\" -- "
		     "\"$cur\"))\n}\ncomplete -F _skerry skerry\n");
	return CLI_OK;
}

int cmd_completion(struct cli *cx)
{
	if (completion_write(cx->io->out, cx->args[0]) != CLI_OK) {
		return cli_usage(cx, "%s: there are scripts for bash and zsh",
				 print_safe(cx, cx->args[0]));
	}
	return CLI_OK;
}

/* ---- manual ---- */

static void roff_text(FILE *out, const char *text)
{
	for (const char *p = text; *p; p++) {
		if (*p == '-') {
			fputs("\\-", out);
		} else if (*p == '\\') {
			fputs("\\e", out);
		} else if (*p == '\'' && p == text) {
			fputs("\\(aq", out);
		} else {
			fputc(*p, out);
		}
	}
}

void help_roff(FILE *out)
{
	char left[128];

	for (size_t i = 0; i < cli_n_commands; i++) {
		const struct command *cmd = &cli_commands[i];

		fprintf(out, ".SS \"");
		roff_text(out, command_name(cmd, left));
		if (cmd->args[0]) {
			fprintf(out, " %s", cmd->args);
		}
		fprintf(out, "\"\n%c", toupper((unsigned char)cmd->summary[0]));
		roff_text(out, cmd->summary + 1);
		fprintf(out, ".\n");
		if (cmd->text) {
			roff_text(out, cmd->text);
		}
		for (const uint8_t *o = cmd->opts; *o != OPT_NONE; o++) {
			opt_text(&cli_opts[*o], left, sizeof(left));
			fprintf(out, ".TP\n.B ");
			roff_text(out, left + strspn(left, " "));
			fputc('\n', out);
			roff_text(out, cli_opts[*o].help);
			fputc('\n', out);
		}
	}
}
