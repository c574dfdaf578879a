/* Words, flags and values: what is understood, what is refused, and with which line and status.
 * LIBS: cli */
#include "tests/lib/test.h"

#include <dirent.h>

#include "base/buf.h"
#include "base/fileio.h"
#include "base/mem.h"
#include "cli/cli_int.h"

struct run {
	int rc;
	char *out, *err;
};

/* Runs a line of words with single spaces between; '~' stands for an empty word. */
static struct run run(const char *line)
{
	char *copy = mem_strdup(line), *argv[32] = {(char[]){"skerry"}}, *save = NULL;
	struct run r = {0};
	size_t out_len, err_len;
	struct cli_io io = {open_memstream(&r.out, &out_len), open_memstream(&r.err, &err_len),
			    false};
	int argc = 1;

	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		if (strcmp(w, "~") == 0) {
			w[0] = '\0';
		}
		argv[argc++] = w;
	}
	r.rc = cli_main(argc, argv, &io);
	fclose(io.out);
	fclose(io.err);
	mem_free(copy);
	return r;
}

static void run_done(struct run *r)
{
	free(r->out);
	free(r->err);
}

static void refused(void **state)
{
	static const struct {
		const char *line;
		int rc;
		const char *text;
	} cases[] = {
		{"", 2, "On a device:"},
		{"nonsense", 2, "unknown command nonsense"},
		{"statsu", 2, "did you mean status?"},
		{"stat", 2, "did you mean status?"},
		{"-o json status", 2, "flags stand after the command"},
		{"node", 2, "usage: skerry node COMMAND"},
		{"node lst", 2, "did you mean list?"},
		{"node zzzzzz", 2, "unknown command zzzzzz\nskerry help node"},
		{"up --nope", 2, "unknown flag --nope"},
		{"up --hostnam", 2, "--hostname needs a value"}, /* getopt takes what is unique */
		{"up --hostnmae x", 2, "did you mean --hostname?"},
		{"up --hostnmae=x", 2, "unknown flag --hostnmae; did you mean --hostname?"},
		{"up -z", 2, "unknown flag -z"},
		{"status --no-peers=1", 2, "--no-peers takes no value"},
		{"ping", 2, "the NAME is missing"},
		{"ping a b", 2, "one word too many: b"},
		{"ping ~", 2, "the first word is empty"},
		{"node rename a", 2, "the NAME is missing"},
		{"ping a -c", 2, "-c needs a value"},
		{"ping a -c 0", 2, "not a number from 1"},
		{"ping a -c 1x", 2, "not a number from 1"},
		{"ping a -c -1", 2, "not a number from 1"},
		{"ping a -i 9ms", 2, "--interval: at least 10ms"},
		{"status --timeout abc", 2, "--timeout"},
		{"status --timeout 0s", 2, "--timeout: at least 1ms"},
		{"status --timeout -1s", 2, "--timeout"},
		{"status -o yaml", 2, "\"yaml\" is not one of table, json"},
		{"up --accept-dns hots", 2, "did you mean host?"},
		{"up --accept-routes=maybe", 2, "neither on nor off"},
		{"up --lighthouse ftp://x", 2, "ftp://x: a URL like https://host:8443"},
		{"up --lighthouse https://x/path", 2, "path"},
		{"up --lighthouse https://a,,https://b", 2, "an empty value"},
		{"up --lighthouse https://x:99999", 2, "99999"},
		{"up --hostname a_b", 2, "cannot be a name"},
		{"up --auth-key sk-auth-1-zz", 2, "the key is cut"},
		{"up --auth-key nonsense", 2, "not an auth key"},
		{"up --auth-key sk-auth-1-zz", 2, "warning: a key in an argument"},
		{"up --auth-key file:/nonexistent/key", 1, "/nonexistent/key"},
		{"set --hostname -", 2, "cannot be a name"},
		{"status --socket agent.sock", 2, "an absolute path is needed"},
		{"status --socket /nonexistent/s", 4, "is skerry-agent running"},
		{"node list --socket /nonexistent/s", 4, "is skerryd running"},
		{"node list --lighthouse https://a", 2, "needs an API key"},
		{"node list --lighthouse http://a", 2, "a URL like https://"},
		{"node list --api-key x", 2, "--api-key belongs to --lighthouse"},
		{"node list --pin x", 2, "--pin belongs to --lighthouse"},
		{"node list --lighthouse https://a --socket /s", 2, "exclude each other"},
		{"node tag a", 2, "or --clear"},
		{"node tag a b --clear", 2, "exclude each other"},
		{"node expire a --in 1h --never", 2, "exclude each other"},
		{"node rename a -b-", 2, "unknown flag"},
		{"node rename a b_", 2, "the name b_"},
		{"api-key create --role root", 2, "not one of viewer, operator, admin"},
		{"completion tcsh", 2, "bash and zsh"},
		{"help nonsense", 2, "there is no command nonsense"},
		{"help node nonsense", 2, "there is no command node nonsense"},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		struct run r = run(c->line);

		if (r.rc != c->rc || !strstr(r.err, c->text) || r.out[0] != '\0') {
			TEST_FAIL("skerry %s: status %d (expected %d), stdout \"%s\", stderr "
				  "\"%s\" lacks \"%s\"",
				  c->line, r.rc, c->rc, r.out, r.err, c->text);
		}
		run_done(&r);
	}
}

/* Whatever a person types: a terminal shows it, and is not controlled by it. */
static void control_characters(void **state)
{
	struct run r = run("\033[31mred\a");

	(void)state;
	assert_int_equal(r.rc, CLI_USAGE);
	assert_lacks(r.err, "\033");
	assert_lacks(r.err, "\a");
	run_done(&r);
	r = run("up --hostname \xff");
	assert_int_equal(r.rc, CLI_USAGE);
	assert_contains(r.err, "not UTF-8");
	run_done(&r);
}

/* A secret in the wrong place is not repeated on the screen. */
static void secrets_stay_hidden(void **state)
{
	static const char *const lines[] = {
		"up --auth-key sk-api-1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"node list --lighthouse https://a --api-key "
		"sk-auth-1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		struct run r = run(lines[i]);

		assert_int_equal(r.rc, CLI_USAGE);
		assert_lacks(r.err, "aaaaaaaa");
		run_done(&r);
	}
}

/* ---- help ---- */

/* SKERRY_UPDATE=1 in the environment writes the files anew. */
static void golden(const char *line, const char *file)
{
	char *path = mem_printf("%s/unit/cli/golden/%s", SKERRY_TEST_DATA, file);
	struct run r = run(line);
	struct buf want = BUF_INIT;
	struct err e = {0};

	assert_int_equal(r.rc, CLI_OK);
	assert_string_equal(r.err, "");
	if (getenv("SKERRY_UPDATE")) {
		assert_ok(file_write_atomic(path, r.out, strlen(r.out), 0644, &e));
	}
	assert_ok(file_read(path, 1 << 20, &want, &e));
	assert_string_equal(r.out, buf_str(&want));
	buf_done(&want);
	run_done(&r);
	mem_free(path);
}

static void help(void **state)
{
	(void)state;
	golden("--help", "overview.txt");
	golden("help", "overview.txt");
	golden("help up", "up.txt");
	golden("up --help", "up.txt");
	golden("node --help", "node.txt");
	golden("help node", "node.txt");
	golden("help auth-key create", "auth-key-create.txt");
	golden("auth-key create -h --nonsense", "auth-key-create.txt");
	golden("completion bash", "completion.bash");
}

/* The commands' part of the manual is what the table says. */
static void manual(void **state)
{
	static const char begin[] = ".\\\" begin commands\n", end[] = ".\\\" end commands\n";
	const char *path = SKERRY_TEST_DATA "/../docs/man/skerry.1";
	struct buf page = BUF_INIT, want = BUF_INIT;
	struct err e = {0};
	char *text, *from, *to;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	(void)state;
	help_roff(f);
	fclose(f);
	assert_ok(file_read(path, 1 << 20, &page, &e));
	from = strstr(buf_str(&page), begin);
	to = strstr(buf_str(&page), end);
	assert_true(from && to && from < to);
	buf_append(&want, page.data, (size_t)(from - (char *)page.data) + strlen(begin));
	buf_append_str(&want, text);
	buf_append_str(&want, to);
	if (getenv("SKERRY_UPDATE")) {
		assert_ok(file_write_atomic(path, want.data, want.len, 0644, &e));
	} else {
		assert_string_equal(buf_str(&page), buf_str(&want));
	}
	free(text);
	buf_done(&page);
	buf_done(&want);
}

/* The table is consistent: each command has help, no flag stands twice, no letter means two things. */
static void tables(void **state)
{
	uint8_t ids[OPT_N];

	(void)state;
	for (size_t i = 0; i < cli_n_commands; i++) {
		const struct command *c = &cli_commands[i];
		size_t n = command_opts(c, ids);
		char name[64];

		for (size_t j = 0; j < n; j++) {
			const struct opt_def *a = &cli_opts[ids[j]];

			assert_non_null(a->name);
			assert_non_null(a->help);
			assert_true((a->type == OPT_FLAG) == (a->value == NULL));
			assert_true((a->type == OPT_CHOICE) == (a->choices != NULL));
			for (size_t k = 0; k < j; k++) {
				const struct opt_def *b = &cli_opts[ids[k]];

				if (strcmp(a->name, b->name) == 0 ||
				    (a->letter && a->letter == b->letter)) {
					TEST_FAIL("%s: --%s and --%s clash", command_name(c, name),
						  a->name, b->name);
				}
			}
		}
		assert_non_null(c->summary);
		assert_non_null(c->run);
	}
}

static void nearest(void **state)
{
	static const char *const words[] = {"list", "get", "delete", "approve", "rename"};
	static const struct {
		const char *word, *near;
	} cases[] = {
		{"lst", "list"},   {"lsit", "list"},      {"delet", "delete"},
		{"del", "delete"}, {"aprove", "approve"}, {"renmae", "rename"},
		{"xyzzy", NULL},   {"g", NULL},           {"", NULL},
		{"gte", "get"},    {"zz", NULL},          {"approval", "approve"},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		const char *near = cli_nearest(c->word, words, ARRAY_LEN(words));

		if ((near == NULL) != (c->near == NULL) || (near && strcmp(near, c->near) != 0)) {
			TEST_FAIL("%s: %s instead of %s", c->word, near ? near : "none",
				  c->near ? c->near : "none");
		}
	}
}

/* Words after the needed ones, and "--" for what looks like a flag. */
static void arity(void **state)
{
	struct command c = {.args = ""};
	int min, max;

	(void)state;
	command_arity(&c, &min, &max);
	assert_true(min == 0 && max == 0);
	c.args = "NODE NAME";
	command_arity(&c, &min, &max);
	assert_true(min == 2 && max == 2);
	c.args = "NODE [TAG...]";
	command_arity(&c, &min, &max);
	assert_true(min == 1 && max == 1000);
	c.args = "[NAME]";
	command_arity(&c, &min, &max);
	assert_true(min == 0 && max == 1);
}

static int no_env(void **state)
{
	(void)state;
	unsetenv("SKERRY_AUTH_KEY");
	unsetenv("SKERRY_API_KEY");
	unsetenv("SKERRY_LIGHTHOUSE");
	unsetenv("SKERRY_SOCKET");
	unsetenv("SKERRY_AGENT_SOCKET");
	unsetenv("SKERRY_TAILNET");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refused),
		cmocka_unit_test(control_characters),
		cmocka_unit_test(secrets_stay_hidden),
		cmocka_unit_test(help),
		cmocka_unit_test(tables),
		cmocka_unit_test(nearest),
		cmocka_unit_test(arity),
		cmocka_unit_test(manual),
	};

	return cmocka_run_group_tests(tests, no_env, NULL);
}
