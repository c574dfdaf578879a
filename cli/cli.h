/* The command `skerry`: one call runs one command line. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

/* What the process ends with; docs/errors.md is the same table. */
enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,        /* anything that has no number of its own */
	CLI_USAGE = 2,         /* wrong command, flag or value; nothing was changed */
	CLI_TIMEOUT = 3,       /* --timeout passed; what was waited for is said */
	CLI_UNREACHABLE = 4,   /* agent or lighthouse cannot be reached */
	CLI_DENIED = 5,        /* credential or permission refused */
	CLI_NOT_FOUND = 6,     /* no such node, user, key, peer, ... */
	CLI_CONFLICT = 7,      /* exists already, or changed meanwhile */
	CLI_PRECONDITION = 8,  /* the state does not allow it: the message says what comes first */
	CLI_BUSY = 9,          /* reachable, but cannot now: no quorum, queue full */
	CLI_LOST = 10,         /* ping: no answer came back */
	CLI_INTERRUPTED = 130, /* Ctrl-C */
};

/* Where it reads and writes; the environment and stdin (for "-") are the process's. */
struct cli_io {
	FILE *out, *err; /* borrowed */
	bool out_tty;    /* `out` is a terminal: QR codes are drawn */
};

/* argv[0] is the program's name. Returns an enum cli_exit. Not reentrant (getopt). */
int cli_main(int argc, char *const argv[], const struct cli_io *io);
