/* The subcommands of skerryd. */
#pragma once

#include "base/err.h"

/* Exit codes, those of sysexits.h where one fits; skerryd(8) lists them. */
enum lighthouse_exit {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE_ERROR = 64, /* wrong arguments */
	EXIT_DATA = 65,        /* a damaged log, store or file */
	EXIT_NOT_READY = 69, /* another lighthouse did not answer, or there is nothing to run yet */
	EXIT_FAIL_STOP = 70, /* the disk or the log failed under the running daemon */
	EXIT_OUT_OF_MEMORY = 71,
	EXIT_REMOVED = 76, /* this lighthouse was removed from its cluster */
	EXIT_CONFIG = 78,  /* configuration, modes of files */
};

/* What every subcommand takes: NULL where it was not given. */
struct lighthouse_args {
	const char *config, *dir, *name, *cluster_name, *base_domain;
	const char *api_address, *peer_address;
	const char *token;
	const char *dump_entry;
	const char *timeout;
};

/* Each returns an exit code and has printed what there is to say. */
int command_init(const struct lighthouse_args *a);
int command_join(const struct lighthouse_args *a);
int command_run(const struct lighthouse_args *a);
int command_check(const struct lighthouse_args *a);

/* Prints "skerryd: message (at field)" to stderr and returns the exit code that fits. */
int command_fail(const struct err *err);
