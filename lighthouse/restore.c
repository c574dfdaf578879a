/* restore, recover and backup verify: a cluster that goes on after its lighthouses are gone. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/enc.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/backup.h"
#include "cluster/keyfile.h"
#include "lighthouse/commands.h"

enum { KEY_FILE_MAX = 4096 };

static int read_key_file(const char *path, uint8_t key[PKI_KEY], struct err *err)
{
	struct buf b = BUF_INIT;
	int rc;

	buf_reserve(&b, KEY_FILE_MAX + 1);
	rc = file_read(path, KEY_FILE_MAX, &b, err);
	if (rc >= 0)
		rc = keyfile_cluster_key_parse((const char *)b.data, b.len, key, err);
	if (rc < 0)
		err_prefix(err, "--cluster-key %s", path);
	buf_wipe(&b);
	return rc;
}

static int read_recovery_string(const char *source, uint8_t key[PKI_KEY], struct err *err)
{
	struct secret_str text = {0};
	bool literal = false;
	int rc = secret_read(source, &text, &literal, err);

	if (rc >= 0)
		rc = keyfile_recovery_parse(secret_str_reveal(&text), key, err);
	if (rc < 0)
		err_prefix(err, "--recovery-string");
	else if (literal)
		fprintf(stderr,
			"skerryd: warning: a recovery string in an argument is seen by other "
			"users of this machine; better: file:PATH, env:NAME or -\n");
	secret_str_done(&text);
	return rc;
}

/* *ret is guarded memory (secret_free), or NULL when neither option was given. */
static int read_key(const struct lighthouse_args *a, bool needed, uint8_t **ret, struct err *err)
{
	uint8_t *key;
	int rc;

	*ret = NULL;
	if (a->cluster_key && a->recovery_string)
		return err_set(err, ERR_INVALID,
			       "--cluster-key and --recovery-string exclude each other");
	if (!a->cluster_key && !a->recovery_string)
		return needed ? err_set(err, ERR_INVALID,
					"the secrets in a backup are sealed: give --cluster-key "
					"FILE "
					"(cluster.key of a lighthouse it had) or --recovery-string "
					"SOURCE (what init printed)")
			      : 0;
	key = secret_alloc(PKI_KEY);
	rc = a->cluster_key ? read_key_file(a->cluster_key, key, err)
			    : read_recovery_string(a->recovery_string, key, err);
	if (rc < 0)
		secret_free(key);
	else
		*ret = key;
	return rc;
}

static void print_backup(const struct backup_facts *f)
{
	char time[CLOCK_TEXT], digest[65];

	printf("backup of cluster %" PRIu64 ", taken %s by lighthouse %" PRIu64 "\nepoch %" PRIu64
	       ", revision %" PRIu64 ", feature level %u\n%" PRIu64 " lighthouses, %" PRIu64
	       " tailnets, %" PRIu64 " users, %" PRIu64 " nodes; %" PRIu64 " records, %" PRIu64
	       " bytes\ndigest %s\n",
	       f->cluster_id, clock_format((int64_t)f->time_ms, time), f->lighthouse_id, f->epoch,
	       f->revision, f->feature_level, f->members, f->tailnets, f->users, f->nodes,
	       f->records, f->bytes, hex_encode(digest, f->digest, sizeof(f->digest)));
}

int command_backup_verify(const struct lighthouse_args *a)
{
	const char *tmp = getenv("TMPDIR");
	struct backup_facts f;
	struct err err = {0};
	uint8_t *key = NULL;
	int rc = read_key(a, false, &key, &err);

	if (rc >= 0)
		rc = cluster_backup_verify(a->argument, tmp && *tmp ? tmp : "/tmp", key, &f, &err);
	if (rc >= 0) {
		print_backup(&f);
		printf("restored and compared: everything is in order%s\n",
		       key ? ", and the key opens it" : "");
	}
	secret_free(key);
	return rc < 0 ? command_fail(&err) : EXIT_OK;
}

int command_restore(const struct lighthouse_args *a)
{
	struct cluster_restore_options o = {.file = a->argument, .version = SKERRY_VERSION};
	struct cluster_restore_facts f;
	struct err err = {0};
	uint8_t *key = NULL;
	struct place p;
	int rc = place_init(a, &p, &err);

	if (rc < 0)
		return command_fail(&err);
	rc = read_key(a, true, &key, &err);
	if (rc >= 0) {
		o.dir = p.dir;
		o.cluster_key = key;
		o.name = p.name;
		o.peer_address = p.peer_address;
		o.api_url = p.api_url;
		rc = cluster_restore(&o, &f, &err);
	}
	secret_free(key);
	if (rc < 0) {
		place_done(&p);
		return command_fail(&err);
	}
	print_backup(&f.backup);
	printf("\nRestored: lighthouse \"%s\" (%" PRIu64 ") is alone in epoch %" PRIu64
	       ". Devices will reach it at %s, other lighthouses at %s.\n"
	       "The lighthouses before it are removed: never start one of them again; join them "
	       "anew "
	       "with empty directories.\n\nNext:\n  1. start it:            ",
	       p.name, f.lighthouse_id, f.epoch, p.api_url, p.peer_address);
	place_print_run(a);
	printf("  2. two more lighthouses: skerry cluster token, and on each host skerryd join "
	       "TOKEN\n\nDevices come back by themselves where they knew this address; others: "
	       "skerry up --lighthouse %s\n",
	       p.api_url);
	place_done(&p);
	return EXIT_OK;
}

int command_recover(const struct lighthouse_args *a)
{
	struct cluster_recover_facts f = {0};
	struct lighthouse_config config;
	struct err err = {0};
	int rc = lighthouse_config_load(a->config, &config, &err);

	if (rc < 0)
		return command_fail(&err);
	rc = cluster_recover(a->dir ? a->dir : config.state_dir, SKERRY_VERSION, !a->yes, &f, &err);
	lighthouse_config_done(&config);
	if (rc < 0)
		return command_fail(&err);
	if (!a->yes) {
		fprintf(stderr,
			"skerryd recover: this would make lighthouse %" PRIu64
			" go on alone from revision %" PRIu64 " (entry %" PRIu64
			" of its log), and remove the %zu others for good. What they acknowledged "
			"and this one never received is lost. With one of them alive the cluster "
			"would split in two. Nothing was changed; --yes does it.\n",
			f.lighthouse_id, f.revision, f.last_index, f.removed);
		return EXIT_USAGE_ERROR;
	}
	printf("Recovered: lighthouse %" PRIu64 " is alone in epoch %" PRIu64
	       ", from revision %" PRIu64 "; %zu others are removed.\n"
	       "The former log is kept in %s.\n\nNext:\n  1. start it:            ",
	       f.lighthouse_id, f.epoch, f.revision, f.removed, f.kept);
	place_print_run(a);
	printf("  2. two more lighthouses: skerry cluster token, and on each host skerryd join "
	       "TOKEN (with an empty directory)\n");
	mem_free(f.kept);
	return EXIT_OK;
}
