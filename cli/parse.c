/* From words to a command: the dispatcher, flags, values, and what to say when something does not fit. */
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "cli/cli_int.h"

enum { LETTER_BASE = 256 };

bool cli_given(const struct cli *cx, enum opt_id id)
{
	return cx->opt[id].given;
}

bool cli_json(const struct cli *cx)
{
	return cx->opt[OPT_OUTPUT].given && cx->opt[OPT_OUTPUT].num == 1;
}

void *cli_alloc(struct cli *cx, size_t size)
{
	void *p = arena_zalloc(&cx->arena, size);

	POST(p); /* its budget is the address space */
	return p;
}

char *cli_printf(struct cli *cx, const char *fmt, ...)
{
	va_list ap;
	char *out;

	va_start(ap, fmt);
	out = arena_vprintf(&cx->arena, fmt, ap);
	va_end(ap);
	POST(out); /* its budget is the address space */
	return out;
}

static void say(struct cli *cx, const char *between, const char *fmt, va_list ap)
{
	fprintf(cx->io->err, "skerry%s%s%s", cx->name[0] ? " " : "", cx->name, between);
	vfprintf(cx->io->err, fmt, ap);
}

int cli_usage(struct cli *cx, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(cx, ": ", fmt, ap);
	va_end(ap);
	if (cx->cmd) {
		fprintf(cx->io->err, "\nusage: skerry %s%s%s [flags]; skerry help %s\n", cx->name,
			cx->cmd->args[0] ? " " : "", cx->cmd->args, cx->name);
	} else {
		fprintf(cx->io->err, "\nskerry help%s%s lists the commands\n",
			cx->name[0] ? " " : "", cx->name);
	}
	return CLI_USAGE;
}

int cli_fail(struct cli *cx, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(cx, ": ", fmt, ap);
	va_end(ap);
	fputc('\n', cx->io->err);
	return code;
}

void cli_note(struct cli *cx, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(cx->io->err, fmt, ap);
	va_end(ap);
	fputc('\n', cx->io->err);
	fflush(cx->io->err);
}

/* ---- nearness ---- */

static size_t distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b), row[64];

	if (la > 60 || lb > 60) {
		return 60;
	}
	for (size_t j = 0; j <= lb; j++) {
		row[j] = j;
	}
	for (size_t i = 1; i <= la; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t above = row[j], change = diagonal + (a[i - 1] != b[j - 1]);

			row[j] = MIN(change, MIN(above + 1, row[j - 1] + 1));
			diagonal = above;
		}
	}
	return row[lb];
}

const char *cli_nearest(const char *word, const char *const *words, size_t n)
{
	const char *best = NULL;
	size_t best_d = SIZE_MAX, len = strlen(word);

	for (size_t i = 0; i < n; i++) {
		size_t d = distance(word, words[i]);

		if (len >= 2 && strncmp(words[i], word, len) == 0) {
			d = 0;
		}
		if (d < best_d) {
			best_d = d;
			best = words[i];
		}
	}
	return best && best_d <= MAX((size_t)1, MIN(len, strlen(best)) / 3 + 1) && best_d < len
		       ? best
		       : NULL;
}

/* "; did you mean X?" or "". */
static const char *suggestion(struct cli *cx, const char *word, const char *const *words, size_t n,
			      const char *before)
{
	const char *near = cli_nearest(word, words, n);

	return near ? cli_printf(cx, "; did you mean %s%s?", before, near) : "";
}

static char *shown(struct cli *cx, const char *word)
{
	char *out = print_safe(cx, word);
	size_t len = strlen(out);

	if (len > 60) {
		out[utf8_cut(out, len, 60)] = '\0';
	}
	return out;
}

/* ---- which command ---- */

static int find_command(struct cli *cx, int argc, char *const argv[], int *ret_used)
{
	const char *words[128];
	size_t n = 0;
	const char *group = NULL;

	for (size_t i = 0; i < cli_n_commands; i++) {
		const struct command *c = &cli_commands[i];
		const char *first = c->group ? c->group : c->name;

		if (n == 0 || strcmp(words[n - 1], first) != 0) {
			words[n++] = first;
		}
		if (strcmp(first, argv[0]) != 0) {
			continue;
		}
		if (!c->group) {
			cx->cmd = c;
			*ret_used = 1;
			return 0;
		}
		group = c->group;
		if (argc > 1 && strcmp(c->name, argv[1]) == 0) {
			cx->cmd = c;
			*ret_used = 2;
			return 0;
		}
	}
	if (!group && argv[0][0] == '-') {
		return cli_usage(cx, "%s: flags stand after the command", shown(cx, argv[0]));
	}
	if (!group) {
		return cli_usage(cx, "unknown command %s%s", shown(cx, argv[0]),
				 suggestion(cx, argv[0], words, n, ""));
	}
	n = 0;
	for (size_t i = 0; i < cli_n_commands; i++) {
		if (cli_commands[i].group && strcmp(cli_commands[i].group, group) == 0) {
			words[n++] = cli_commands[i].name;
		}
	}
	snprintf(cx->name, sizeof(cx->name), "%s", group);
	if (argc < 2 || argv[1][0] == '-') {
		help_group(cx->io->err, group);
		return CLI_USAGE;
	}
	return cli_usage(cx, "unknown command %s%s", shown(cx, argv[1]),
			 suggestion(cx, argv[1], words, n, ""));
}

/* ---- flags ---- */

static int take_list(struct cli *cx, struct opt_value *v, const struct opt_def *d, const char *text)
{
	for (const char *p = text;;) {
		size_t len = strcspn(p, ",");

		if (len == 0) {
			return cli_usage(cx, "--%s: an empty value in \"%s\"", d->name,
					 shown(cx, text));
		}
		if (v->n == CLI_LIST_VALUES) {
			return cli_usage(cx, "--%s: more than %d values", d->name, CLI_LIST_VALUES);
		}
		v->list[v->n++] = cli_printf(cx, "%.*s", (int)len, p);
		if (p[len] == '\0') {
			return 0;
		}
		p += len + 1;
	}
}

static int take_number(struct cli *cx, struct opt_value *v, const struct opt_def *d,
		       const char *text)
{
	char *end;
	long long n;

	n = strtoll(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || n < d->min || n > d->max) {
		return cli_usage(cx, "--%s: \"%s\" is not a number from %lld to %lld", d->name,
				 shown(cx, text), (long long)d->min, (long long)d->max);
	}
	v->num = n;
	return 0;
}

static int take_value(struct cli *cx, enum opt_id id, const char *text)
{
	static const char *const yes_no[] = {"on", "off", "true", "false", "yes", "no"};
	const struct opt_def *d = &cli_opts[id];
	struct opt_value *v = &cx->opt[id];
	struct err e = {0};
	size_t n = 0;

	v->given = true;
	v->text = text;
	if (text && !utf8_valid(text, strlen(text), true)) {
		return cli_usage(cx, "--%s: the value is not UTF-8", d->name);
	}
	switch (d->type) {
	case OPT_FLAG:
	case OPT_TEXT: return 0;
	case OPT_LIST: return take_list(cx, v, d, text);
	case OPT_NUMBER: return take_number(cx, v, d, text);
	case OPT_DURATION:
		if (duration_parse(text, &v->num, &e) < 0) {
			return cli_usage(cx, "--%s: %s", d->name, print_safe(cx, e.msg));
		}
		if (v->num < d->min) {
			char least[DURATION_TEXT];

			return cli_usage(cx, "--%s: at least %s", d->name,
					 duration_format(d->min, least));
		}
		return 0;
	case OPT_ON_OFF:
		v->num = 1;
		for (n = 0; text && n < ARRAY_LEN(yes_no); n++) {
			if (strcmp(text, yes_no[n]) == 0) {
				v->num = n % 2 == 0;
				return 0;
			}
		}
		return text ? cli_usage(cx, "--%s: \"%s\" is neither on nor off", d->name,
					shown(cx, text))
			    : 0;
	case OPT_CHOICE:
		for (n = 0; d->choices[n]; n++) {
			if (strcmp(text, d->choices[n]) == 0) {
				v->num = (int64_t)n;
				return 0;
			}
		}
		return cli_usage(
			cx, "--%s: \"%s\" is not one of %s%s%s%s%s%s%s%s", d->name, shown(cx, text),
			d->choices[0], n > 1 ? ", " : "", n > 1 ? d->choices[1] : "",
			n > 2 ? ", " : "", n > 2 ? d->choices[2] : "", n > 3 ? ", " : "",
			n > 3 ? d->choices[3] : "", suggestion(cx, text, d->choices, n, ""));
	}
	IMPOSSIBLE("type of a flag");
}

static int unknown_flag(struct cli *cx, const char *flag, const uint8_t *ids, size_t n)
{
	const char *words[OPT_N];

	for (size_t i = 0; i < n; i++) {
		words[i] = cli_opts[ids[i]].name;
	}
	if (strncmp(flag, "--", 2) != 0) {
		return cli_usage(cx, "unknown flag %s", shown(cx, flag));
	}
	flag = cli_printf(cx, "%.*s", (int)strcspn(flag, "="), flag);
	return cli_usage(cx, "unknown flag %s%s", shown(cx, flag),
			 suggestion(cx, flag + 2, words, n, "--"));
}

static int parse_flags(struct cli *cx, int argc, char **argv)
{
	struct option longs[OPT_N + 1] = {{0}};
	char shorts[2 * OPT_N + 2] = ":";
	uint8_t ids[OPT_N];
	size_t n = command_opts(cx->cmd, ids), s = 1;
	int c, rc, which;

	for (size_t i = 0; i < n; i++) {
		const struct opt_def *d = &cli_opts[ids[i]];

		longs[i] = (struct option){d->name,
					   d->type == OPT_FLAG     ? no_argument
					   : d->type == OPT_ON_OFF ? optional_argument
								   : required_argument,
					   NULL, LETTER_BASE + ids[i]};
		if (d->letter) {
			shorts[s++] = d->letter;
			if (d->type != OPT_FLAG) {
				shorts[s++] = ':';
			}
		}
	}
	opterr = 0;
	optind = 0;
	while (which = optind > 0 ? optind : 1,
	       (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		enum opt_id id = c >= LETTER_BASE ? (enum opt_id)(c - LETTER_BASE) : OPT_NONE;

		if (c == '?') {
			const char *word = optopt > 0 && optopt < LETTER_BASE
						   ? cli_printf(cx, "-%c", optopt)
						   : argv[optind > 1 ? optind - 1 : which];

			if (optopt >= LETTER_BASE) {
				return cli_usage(cx, "--%s takes no value",
						 cli_opts[optopt - LETTER_BASE].name);
			}
			return unknown_flag(cx, word, ids, n);
		}
		if (c == ':') {
			return optopt >= LETTER_BASE
				       ? cli_usage(cx, "--%s needs a value: %s",
						   cli_opts[optopt - LETTER_BASE].name,
						   cli_opts[optopt - LETTER_BASE].value)
				       : cli_usage(cx, "-%c needs a value", optopt);
		}
		for (size_t i = 0; id == OPT_NONE && i < n; i++) {
			if (cli_opts[ids[i]].letter == c) {
				id = ids[i];
			}
		}
		if (id == OPT_HELP) {
			cx->opt[OPT_HELP].given = true;
			return 0;
		}
		rc = take_value(cx, id, optarg);
		if (rc != 0) {
			return rc;
		}
	}
	cx->args = argv + optind;
	cx->n_args = argc - optind;
	return 0;
}

static int check_args(struct cli *cx)
{
	int min, max;

	command_arity(cx->cmd, &min, &max);
	if (cx->n_args < min) {
		const char *p = cx->cmd->args;

		for (int i = 0; i < cx->n_args; i++) {
			p += strcspn(p, " ");
			p += strspn(p, " ");
		}
		return cli_usage(cx, "the %.*s is missing", (int)strcspn(p, " "), p);
	}
	if (cx->n_args > max) {
		return cli_usage(cx, "one word too many: %s", shown(cx, cx->args[max]));
	}
	for (int i = 0; i < cx->n_args; i++) {
		if (!utf8_valid(cx->args[i], strlen(cx->args[i]), true) || cx->args[i][0] == '\0') {
			return cli_usage(cx, "the %s word is empty or not UTF-8",
					 i == 0 ? "first" : "second");
		}
	}
	return 0;
}

static int dispatch(struct cli *cx, int argc, char **argv)
{
	int used = 0, rc;

	if (argc == 0) {
		help_overview(cx->io->err);
		return CLI_USAGE;
	}
	if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0) {
		help_overview(cx->io->out);
		return CLI_OK;
	}
	if (strcmp(argv[0], "--version") == 0) {
		fprintf(cx->io->out, "skerry %s\n", SKERRY_VERSION);
		return CLI_OK;
	}
	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) &&
	    help_group(cx->io->out, argv[0])) {
		return CLI_OK;
	}
	rc = find_command(cx, argc, argv, &used);
	if (rc != 0) {
		return rc;
	}
	command_name(cx->cmd, cx->name);
	/* getopt wants a program's name in front: the command's own word stands there. */
	rc = parse_flags(cx, argc - used + 1, argv + used - 1);
	if (rc != 0) {
		return rc;
	}
	if (cli_given(cx, OPT_HELP)) {
		help_command(cx->io->out, cx->cmd);
		return CLI_OK;
	}
	rc = check_args(cx);
	if (rc != 0) {
		return rc;
	}
	cx->timeout_ms = cli_given(cx, OPT_TIMEOUT) ? cx->opt[OPT_TIMEOUT].num : CLI_TIMEOUT_MS;
	cx->deadline = clock_mono_ms() + (uint64_t)cx->timeout_ms;
	return cx->cmd->run(cx);
}

int cli_main(int argc, char *const argv[], const struct cli_io *io)
{
	struct cli *cx = MEM_NEW(struct cli);
	char **words = mem_calloc((size_t)argc + 1, sizeof(*words));
	int rc;

	PRE(argc > 0);
	cx->io = io;
	arena_init(&cx->arena, SIZE_MAX / 2);
	memcpy(words, argv, (size_t)argc * sizeof(*words));
	rc = dispatch(cx, argc - 1, words + 1);
	client_done(cx);
	arena_done(&cx->arena);
	mem_free(words);
	mem_free(cx);
	return rc;
}
