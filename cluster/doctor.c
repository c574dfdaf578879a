#include "cluster/doctor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

#define DAY_MS (INT64_C(86400) * 1000)

struct judge {
	const struct doctor_input *in;
	struct doctor_result *out;
};

static void find(struct judge *j, enum doctor_severity severity, const char *code, uint64_t id,
		 const char *remedy, const char *fmt, ...) PRINTF_LIKE(6, 7);

static void find(struct judge *j, enum doctor_severity severity, const char *code, uint64_t id,
		 const char *remedy, const char *fmt, ...)
{
	struct doctor_finding *f = &j->out->finding[j->out->n];
	va_list ap;

	if (j->out->n >= DOCTOR_MAX) {
		return;
	}
	j->out->n++;
	f->severity = severity;
	f->code = code;
	f->id = id;
	snprintf(f->remedy, sizeof(f->remedy), "%s", remedy);
	va_start(ap, fmt);
	vsnprintf(f->message, sizeof(f->message), fmt, ap);
	va_end(ap);
}

/* Did it say how it is? */
static bool known(const struct cluster_facts *f)
{
	return f->self || (f->connected && f->error[0] == '\0');
}

static bool there(const struct cluster_facts *f)
{
	return f->self || f->connected;
}

/* ---- the cluster ---- */

static void quorum(struct judge *j)
{
	size_t voters = 0, up = 0;

	for (size_t i = 0; i < j->in->n; i++) {
		voters += j->in->facts[i].voter;
		up += j->in->facts[i].voter && there(&j->in->facts[i]);
	}
	j->out->quorum_margin = up > voters / 2 ? (int)(up - voters / 2 - 1) : -1;
	if (up <= voters / 2) {
		find(j, DOCTOR_ERROR, "QUORUM_LOST", 0,
		     "start the other lighthouses, or bring their network back",
		     "%zu of %zu voters are reached, %zu are needed: reads are answered, writes "
		     "are "
		     "not",
		     up, voters, voters / 2 + 1);
	} else if (!j->in->quorum) {
		j->out->quorum_margin = -1;
		find(j, DOCTOR_ERROR, "NO_LEADER", 0,
		     "wait some seconds; if it stays, look at clocks, disks and the log of each "
		     "lighthouse",
		     "%zu of %zu voters are reached, but none leads: writes wait", up, voters);
	} else if (voters == 1) {
		find(j, DOCTOR_WARNING, "SINGLE_VOTER", 0,
		     "join two more lighthouses: `skerry cluster token`, then `skerryd join TOKEN` "
		     "on each",
		     "there is one voter: without its host nothing is changed, and without its "
		     "disk "
		     "all is lost");
	} else if (j->out->quorum_margin == 0) {
		find(j, DOCTOR_WARNING, "QUORUM_MARGIN", 0,
		     "bring the missing lighthouses back, or replace them by new ones",
		     "%zu of %zu voters are reached: if one more fails, writes stop", up, voters);
	} else if (voters % 2 == 0) {
		find(j, DOCTOR_NOTE, "EVEN_VOTERS", 0, "join one more lighthouse",
		     "%zu voters survive no more failures than %zu would", voters, voters - 1);
	}
}

static void versions(struct judge *j)
{
	const struct cluster_facts *first = NULL;
	uint32_t common = UINT32_MAX;

	for (size_t i = 0; i < j->in->n; i++) {
		common = MIN(common, known(&j->in->facts[i]) ? j->in->facts[i].feature_max : 0);
	}
	if (j->in->n > 0 && common > j->in->feature_level) {
		find(j, DOCTOR_NOTE, "FEATURE_LEVEL", 0,
		     "when there is no way back to be kept: `skerry cluster finalize-upgrade`",
		     "every lighthouse knows feature level %u, the cluster is at %u", common,
		     j->in->feature_level);
	}

	for (size_t i = 0; i < j->in->n; i++) {
		const struct cluster_facts *f = &j->in->facts[i];

		if (!known(f)) {
			continue;
		}
		if (f->feature_max < j->in->feature_level ||
		    f->feature_min > j->in->feature_level) {
			find(j, DOCTOR_ERROR, "FEATURE_SKEW", f->id,
			     "install the build that the others run",
			     "its build knows feature levels %u to %u, the state has %u",
			     f->feature_min, f->feature_max, j->in->feature_level);
		}
		if (first == NULL) {
			first = f;
		} else if (strcmp(first->version, f->version) != 0) {
			find(j, DOCTOR_WARNING, "VERSION_SKEW", f->id,
			     "finish the upgrade: run the same build on every lighthouse",
			     "it runs version %s, %s runs %s", f->version, first->name,
			     first->version);
		}
	}
}

/* Who was away while the CA or cluster.key was rotated holds up the end of the rotation. Linked ones take both at once. */
static void rotation(struct judge *j)
{
	uint32_t ca = 0, seal = 0;

	for (size_t i = 0; i < j->in->n; i++) {
		ca = MAX(ca, j->in->facts[i].ca_generation);
		seal = MAX(seal, j->in->facts[i].seal);
	}
	for (size_t i = 0; i < j->in->n; i++) {
		const struct cluster_facts *f = &j->in->facts[i];

		if (!f->self && !f->connected && (f->ca_generation < ca || f->seal < seal)) {
			find(j, DOCTOR_WARNING, "ROTATION_OPEN", f->id,
			     "start it, or remove it: the old one is kept until then",
			     "it was away when %s was rotated, and has not taken the new one",
			     f->ca_generation < ca ? "the certificate authority" : "cluster.key");
		}
	}
}

static void backups(struct judge *j)
{
	int64_t last = 0, every = 0, late;

	for (size_t i = 0; i < j->in->n; i++) {
		const struct cluster_facts *f = &j->in->facts[i];

		last = MAX(last, f->backup_ms);
		if (f->backup_every_ms > 0) {
			every = every == 0 ? f->backup_every_ms : MIN(every, f->backup_every_ms);
		}
		if (f->backup_error[0] != '\0') {
			find(j, DOCTOR_ERROR, "BACKUP_FAILED", f->id,
			     "repair it: it is tried again by itself",
			     "its last backup by schedule failed: %s", f->backup_error);
		}
	}
	/* Twice the period, and an hour: a hand-over of leadership at the wrong moment is none of a fault. */
	late = every > 0 ? 2 * every + 3600 * 1000 : DOCTOR_BACKUP_DAYS * DAY_MS;
	if (last == 0 && every > 0) {
		return; /* the first one is under way, or has failed */
	}
	if (last == 0) {
		find(j, DOCTOR_NOTE, "NO_BACKUP", 0,
		     "make one regularly: `skerry backup create FILE`, and keep it on another host",
		     "no backup is known: no schedule is configured");
	} else if (j->in->now_ms - last > late) {
		find(j, DOCTOR_WARNING, "BACKUP_AGE", 0,
		     "make a backup, and see why the last failed",
		     "the last backup is %" PRId64 " hours old",
		     (j->in->now_ms - last) / (3600 * 1000));
	}
}

/* A value that a minority has is the wrong one; without a majority nobody can say. */
static void digests(struct judge *j)
{
	const struct cluster_digest *d = j->in->digests, *most = NULL;
	size_t votes = 0, valid = 0;

	if (j->in->n_digests == 0) {
		find(j, DOCTOR_NOTE, "DIGEST_UNKNOWN", 0, "ask again when there is a quorum",
		     "the states were not compared: %s",
		     j->in->no_digests != NULL ? j->in->no_digests : "nobody answered");
		return;
	}
	for (size_t i = 0; i < j->in->n_digests; i++) {
		size_t same = 0;

		if (d[i].error[0] != '\0') {
			continue;
		}
		valid++;
		for (size_t k = 0; k < j->in->n_digests; k++) {
			same += d[k].error[0] == '\0' && memcmp(d[i].digest, d[k].digest, 32) == 0;
		}
		if (same > votes) {
			votes = same;
			most = &d[i];
		}
	}
	if (most == NULL || votes == valid) {
		return;
	}
	if (votes <= valid / 2) {
		find(j, DOCTOR_ERROR, "DIGEST_DIFFERS", 0,
		     "change nothing; keep copies of all state directories and report this",
		     "the states of the lighthouses differ, and no majority says which is right");
		return;
	}
	for (size_t i = 0; i < j->in->n_digests; i++) {
		if (d[i].error[0] == '\0' && memcmp(d[i].digest, most->digest, 32) != 0) {
			find(j, DOCTOR_ERROR, "DIGEST_DIFFERS", d[i].id,
			     "the leader has it rebuild its store within 10 min; if it ends with "
			     "status 65 then, remove it (`skerry cluster remove`) and join anew",
			     "its state differs from that of %zu others", votes);
		}
	}
}

/* ---- each lighthouse ---- */

static int by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* The clock that the others are measured by: the median; of two nobody knows which one is right. */
static int64_t reference_clock(const struct doctor_input *in)
{
	int64_t all[CLUSTER_MEMBERS_MAX];
	size_t n = 0;

	for (size_t i = 0; i < in->n && n < CLUSTER_MEMBERS_MAX; i++) {
		if (there(&in->facts[i])) {
			all[n++] = in->facts[i].self ? 0 : in->facts[i].clock_offset_ms;
		}
	}
	if (n < 3) {
		return 0;
	}
	qsort(all, n, sizeof(all[0]), by_size);
	return all[n / 2];
}

static void clocks(struct judge *j, const struct cluster_facts *f, int64_t reference)
{
	int64_t off = (f->self ? 0 : f->clock_offset_ms) - reference;
	int64_t size = off < 0 ? -off : off;

	if (size >= DOCTOR_CLOCK_WARN_MS) {
		find(j, size >= DOCTOR_CLOCK_ERROR_MS ? DOCTOR_ERROR : DOCTOR_WARNING, "CLOCK_SKEW",
		     f->id, "set the clock: run a time service (chrony, systemd-timesyncd) on it",
		     "its clock is %" PRId64 ".%01" PRId64 " s %s the others'", size / 1000,
		     size % 1000 / 100, off < 0 ? "behind" : "ahead of");
	}
}

static void disk(struct judge *j, const struct cluster_facts *f)
{
	if (f->append_n >= DOCTOR_APPENDS && f->append_p99_us >= DOCTOR_APPEND_WARN_US) {
		find(j, f->append_p99_us >= DOCTOR_APPEND_ERROR_US ? DOCTOR_ERROR : DOCTOR_WARNING,
		     "SLOW_DISK", f->id,
		     "give the state directory a faster disk, or one of its own",
		     "1 of 100 writes to its log takes longer than %" PRIu64 " ms (of %" PRIu64
		     " in 10 min)",
		     f->append_p99_us / 1000, f->append_n);
	}
	if (f->disk_bytes != 0 && f->disk_free < DOCTOR_DISK_WARN) {
		bool out = f->disk_free < LIM_DISK_FREE_BYTES;

		find(j, out ? DOCTOR_ERROR : DOCTOR_WARNING, "DISK_SPACE", f->id,
		     "free space in the file system of the state directory",
		     "%" PRIu64 " MiB are free on the disk of its state%s", f->disk_free >> 20,
		     out ? ": what would make the state grow is refused" : "");
	}
}

static void damage(struct judge *j, const struct cluster_facts *f)
{
	if (f->store_rebuilt[0] != '\0') {
		find(j, DOCTOR_WARNING, "STORE_REBUILT", f->id,
		     "test memory and disk of this host; it is forgotten at the next start",
		     "its store was found wrong (%s) and rebuilt from the log", f->store_rebuilt);
	}
}

static void space(struct judge *j, const struct cluster_facts *f)
{
	uint64_t part = f->state_limit != 0 ? f->state_bytes / (f->state_limit / 1000 + 1) : 0;

	if (f->map_permille >= DOCTOR_FULL_WARN) {
		find(j, f->map_permille >= DOCTOR_FULL_ERROR ? DOCTOR_ERROR : DOCTOR_WARNING,
		     "MAP_SPACE", f->id,
		     "delete what is not needed; see that no backup or read stays open "
		     "(skerry_store_oldest_read_seconds)",
		     "%u.%u %% of its store's map are used", f->map_permille / 10,
		     f->map_permille % 10);
	}
	/* The state is the same everywhere: once is enough. */
	if (f->self && part >= DOCTOR_FULL_WARN) {
		find(j, part >= DOCTOR_FULL_ERROR ? DOCTOR_ERROR : DOCTOR_WARNING, "STATE_SPACE", 0,
		     "delete nodes, keys or tailnets that are not needed",
		     "the state has %" PRIu64 " of %" PRIu64 " MiB", f->state_bytes >> 20,
		     f->state_limit >> 20);
	}
}

static void certificate(struct judge *j, const struct cluster_facts *f, const char *what,
			int64_t end_ms, int days, bool fatal, const char *remedy)
{
	int64_t left = (end_ms - j->in->now_ms) / DAY_MS;

	if (end_ms == 0) {
		return;
	}
	if (end_ms <= j->in->now_ms) {
		find(j, fatal ? DOCTOR_ERROR : DOCTOR_WARNING, "CERTIFICATE", f->id, remedy,
		     "its %s has expired", what);
	} else if (left < days) {
		find(j, DOCTOR_WARNING, "CERTIFICATE", f->id, remedy,
		     "its %s expires in %" PRId64 " days", what, left);
	}
}

static void certificates(struct judge *j, const struct cluster_facts *f)
{
	static const char renewal[] =
		"it should have been renewed: look for certificate renewal in its log, and "
		"restart it";

	certificate(j, f, "API certificate", f->api_cert_ms, DOCTOR_API_CERT_DAYS, true, renewal);
	/* The dates of peer certificates are not judged between lighthouses. */
	certificate(j, f, "peer certificate", f->peer_cert_ms, DOCTOR_PEER_CERT_DAYS, false,
		    renewal);
	if (f->self) {
		certificate(j, f, "CA certificate", f->ca_cert_ms, DOCTOR_CA_CERT_DAYS, true,
			    "plan a new CA: devices and lighthouses trust this one by its key");
	}
}

static void member(struct judge *j, const struct cluster_facts *f, uint64_t commit)
{
	uint64_t lag = commit > f->applied_index ? commit - f->applied_index : 0;

	disk(j, f);
	space(j, f);
	damage(j, f);
	certificates(j, f);
	if (lag >= DOCTOR_LAG_WARN) {
		find(j, lag >= DOCTOR_LAG_ERROR ? DOCTOR_ERROR : DOCTOR_WARNING, "MEMBER_BEHIND",
		     f->id, "if this does not shrink, look at its disk, CPU and network",
		     "it has applied %" PRIu64 " of %" PRIu64 " entries", f->applied_index, commit);
	}
}

static void members(struct judge *j)
{
	int64_t reference = reference_clock(j->in);
	uint64_t commit = 0;

	for (size_t i = 0; i < j->in->n; i++) {
		if (known(&j->in->facts[i])) {
			commit = MAX(commit, j->in->facts[i].commit_index);
		}
	}
	for (size_t i = 0; i < j->in->n; i++) {
		const struct cluster_facts *f = &j->in->facts[i];

		if (!there(f)) {
			find(j, DOCTOR_ERROR, "NOT_CONNECTED", f->id,
			     "see that skerryd runs there and that its peer port is reached; a "
			     "host "
			     "that is gone for good is replaced by `skerry cluster replace`",
			     "this %s is not reached", f->voter ? "voter" : "standby");
			continue;
		}
		clocks(j, f, reference);
		if (known(f)) {
			member(j, f, commit);
		} else {
			find(j, DOCTOR_WARNING, "NO_ANSWER", f->id,
			     "if it runs an older build, finish the upgrade; else look at its log",
			     "it did not say how it is: %s", f->error);
		}
	}
}

static void change(struct judge *j)
{
	bool stuck = !j->in->change_waits && j->in->change_ms >= DOCTOR_CHANGE_MS;

	if (j->in->change == NULL) {
		return;
	}
	find(j, stuck ? DOCTOR_WARNING : DOCTOR_NOTE, stuck ? "CHANGE_STUCK" : "CHANGE_RUNS", 0,
	     stuck ? "bring back what it waits for, or give it up: `skerry cluster cancel`"
		   : "see `skerry cluster status`; `skerry cluster cancel` gives it up",
	     "a change of the members is under way: %s, for %" PRId64 " s", j->in->change,
	     MAX(j->in->change_ms, 0) / 1000);
}

static int worst_first(const void *a, const void *b)
{
	const struct doctor_finding *x = a, *y = b;
	int by_code;

	if (x->severity != y->severity) {
		return x->severity > y->severity ? -1 : 1;
	}
	by_code = strcmp(x->code, y->code);
	return by_code != 0 ? by_code : (x->id > y->id) - (x->id < y->id);
}

void doctor_judge(const struct doctor_input *in, struct doctor_result *ret)
{
	struct judge j = {.in = in, .out = ret};

	ret->n = 0;
	ret->severity = DOCTOR_NOTE;
	ret->quorum_margin = -1;
	quorum(&j);
	members(&j);
	versions(&j);
	digests(&j);
	rotation(&j);
	backups(&j);
	change(&j);
	qsort(ret->finding, ret->n, sizeof(ret->finding[0]), worst_first);
	if (ret->n > 0) {
		ret->severity = ret->finding[0].severity;
	}
}
