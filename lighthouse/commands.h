/* The subcommands of skerryd. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/name.h"
#include "lighthouse/config.h"

/* Exit codes, those of sysexits.h where one fits; skerryd(8) lists them. */
enum lighthouse_exit {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE_ERROR = 64, /* wrong arguments */
	EXIT_DATA = 65,        /* a damaged log, store or file */
	EXIT_NOT_READY = 69, /* another lighthouse did not answer, or there is nothing to run yet */
	EXIT_FAIL_STOP = 70, /* the disk or the log failed under the running daemon */
	EXIT_OUT_OF_MEMORY = 71,
	EXIT_REMOVED = 76,   /* this lighthouse was removed from its cluster */
	EXIT_OLD_BUILD = 77, /* the cluster's feature level is above this build's */
	EXIT_CONFIG = 78,    /* configuration, modes of files */
};

/* What every subcommand takes: NULL where it was not given. */
struct lighthouse_args {
	const char *config, *dir, *name, *cluster_name, *base_domain;
	const char *api_address, *peer_address;
	const char *argument; /* the positional one */
	const char *dump_entry;
	const char *cluster_key, *recovery_string;
	bool replay, yes;
	const char *timeout;
};

/* Each returns an exit code and has printed what there is to say. */
int command_init(const struct lighthouse_args *a);
int command_join(const struct lighthouse_args *a);
int command_run(const struct lighthouse_args *a);
int command_check(const struct lighthouse_args *a);
int command_restore(const struct lighthouse_args *a);
int command_recover(const struct lighthouse_args *a);
int command_backup_verify(const struct lighthouse_args *a);

/* Who this lighthouse will be, as init, join and restore take it from arguments, configuration and host. */
struct place {
	struct lighthouse_config config;
	const char *dir;
	char *api_url, *peer_address;
	char name[NAME_LABEL_MAX + 1];
};
MUST_CHECK int place_init(const struct lighthouse_args *a, struct place *p, struct err *err);
void place_done(struct place *p);
/* "skerryd run" with the options that name the same place, and a newline. */
void place_print_run(const struct lighthouse_args *a);

/* Prints "skerryd: message (at field)" to stderr and returns the exit code that fits. */
int command_fail(const struct err *err);
