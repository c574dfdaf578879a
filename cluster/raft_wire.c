/* Encoder and decoder of libraft's messages; raft_wire.h has the form. */
#include "cluster/raft_wire.h"

#include <string.h>

#include "base/limits.h"

enum {
	WORD = 8,
	APPEND_FIXED = 5 * WORD, /* up to and with the number of entries */
	ENTRY_HEAD = 2 * WORD,
	RESULT_OLD = 3 * WORD,
	RESULT = 4 * WORD,
	VOTE_OLD = 4 * WORD,
	VOTE = 5 * WORD,
	VOTED_OLD = 2 * WORD,
	VOTED = 3 * WORD,
	INSTALL_FIXED = 5 * WORD, /* up to and with the length of the configuration */
	TIMEOUT_NOW = 3 * WORD,
	FLAT_MAX = 256, /* of a head without entries or configuration */
	CONF_FORMAT = 1,
};

/* ---- words ---- */

static uint64_t le64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--) {
		v = v << 8 | p[i];
	}
	return v;
}

static uint32_t le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint16_t le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint64_t word(const uint8_t *p, size_t i)
{
	return le64(p + i * WORD);
}

static void put64(struct buf *out, uint64_t v)
{
	uint8_t *p = buf_reserve(out, WORD);

	for (int i = 0; i < WORD; i++) {
		p[i] = (uint8_t)(v >> (8 * i));
	}
	out->len += WORD;
}

/* ---- AppendEntries and its result ---- */

static void append_put(struct buf *out, const struct raft_append_entries *a)
{
	put64(out, a->term);
	put64(out, a->prev_log_index);
	put64(out, a->prev_log_term);
	put64(out, a->leader_commit);
	put64(out, a->n_entries);
	for (unsigned i = 0; i < a->n_entries; i++) {
		put64(out, a->entries[i].term);
		put64(out, (uint64_t)(uint8_t)a->entries[i].type |
				   (uint64_t)(uint32_t)a->entries[i].buf.len << 32);
	}
	put64(out, 0);
}

static int append_get(const uint8_t *p, size_t len, struct raft_append_entries *a,
		      size_t *ret_payload, struct err *err)
{
	uint64_t n = word(p, 4);
	size_t total = 0;

	a->term = word(p, 0);
	a->prev_log_index = word(p, 1);
	a->prev_log_term = word(p, 2);
	a->leader_commit = word(p, 3);
	if (n > LIM_RAFT_ENTRIES) {
		return err_set(err, ERR_LIMIT, "%llu entries in one message, at most %d are taken",
			       (unsigned long long)n, LIM_RAFT_ENTRIES);
	}
	if (len < APPEND_FIXED + (size_t)n * ENTRY_HEAD) {
		return err_set(err, ERR_PROTOCOL, "%llu entries in a head of %zu bytes",
			       (unsigned long long)n, len);
	}
	for (size_t i = 0; i < n; i++) {
		const uint8_t *e = p + APPEND_FIXED + i * ENTRY_HEAD;

		total += le32(e + WORD + 4);
		if (e[WORD] < RAFT_COMMAND || e[WORD] > RAFT_CHANGE) {
			return err_set(err, ERR_PROTOCOL, "an entry of the unknown type %u",
				       e[WORD]);
		}
		if (le32(e + WORD + 4) % WORD != 0) {
			return err_set(err, ERR_PROTOCOL, "an entry of %u bytes, no multiple of 8",
				       le32(e + WORD + 4));
		}
	}
	if (total > LIM_RAFT_MESSAGE_BYTES) {
		return err_set(err, ERR_LIMIT, "%zu bytes of entries, at most %u are taken", total,
			       LIM_RAFT_MESSAGE_BYTES);
	}
	if (n == 0) {
		return 0;
	}
	a->entries = raft_calloc((size_t)n, sizeof(*a->entries));
	if (a->entries == NULL) {
		return err_set(err, ERR_LIMIT, "no memory for %llu entries", (unsigned long long)n);
	}
	a->n_entries = (unsigned)n;
	for (size_t i = 0; i < n; i++) {
		const uint8_t *e = p + APPEND_FIXED + i * ENTRY_HEAD;

		a->entries[i].term = le64(e);
		a->entries[i].type = e[WORD];
		a->entries[i].buf.len = le32(e + WORD + 4);
	}
	*ret_payload = total;
	return 0;
}

static void result_put(struct buf *out, const struct raft_append_entries_result *a)
{
	put64(out, a->term);
	put64(out, a->rejected);
	put64(out, a->last_log_index);
	put64(out, (uint64_t)a->features | (uint64_t)a->capacity << 16);
}

static void result_get(const uint8_t *p, size_t len, struct raft_append_entries_result *a)
{
	a->term = word(p, 0);
	a->rejected = word(p, 1);
	a->last_log_index = word(p, 2);
	if (len < RESULT) {
		a->version = 0;
		return;
	}
	/* Who says no version and sends the last word is of version 2. */
	a->version = a->version == 0 ? 2 : a->version;
	a->features = le16(p + RESULT_OLD);
	a->capacity = a->version >= 2 ? le16(p + RESULT_OLD + 2) : 0;
}

/* ---- votes ---- */

static void vote_put(struct buf *out, const struct raft_request_vote *v)
{
	put64(out, v->term);
	put64(out, v->candidate_id);
	put64(out, v->last_log_index);
	put64(out, v->last_log_term);
	put64(out, (v->disrupt_leader ? 1 : 0) | (v->pre_vote ? 2 : 0));
}

static void vote_get(const uint8_t *p, size_t len, struct raft_request_vote *v)
{
	uint64_t flags = len >= VOTE ? word(p, 4) : 0;

	if (v->version == 0) {
		v->version = len < VOTE ? 1 : 2;
	}
	v->term = word(p, 0);
	v->candidate_id = word(p, 1);
	v->last_log_index = word(p, 2);
	v->last_log_term = word(p, 3);
	v->disrupt_leader = (flags & 1) != 0;
	v->pre_vote = (flags & 2) != 0;
}

static void voted_put(struct buf *out, const struct raft_request_vote_result *v)
{
	put64(out, v->term);
	put64(out, v->vote_granted);
	put64(out,
	      (v->pre_vote ? 1 : 0) | (uint64_t)v->features << 16 | (uint64_t)v->capacity << 32);
}

static void voted_get(const uint8_t *p, size_t len, struct raft_request_vote_result *v)
{
	v->term = word(p, 0);
	v->vote_granted = word(p, 1) != 0;
	if (len < VOTED || v->version == 1) {
		v->version = 1;
		return;
	}
	v->version = 2;
	v->pre_vote = (p[VOTED_OLD] & 1) != 0;
	v->features = le16(p + VOTED_OLD + 2);
	v->capacity = le16(p + VOTED_OLD + 4);
}

/* ---- configurations and InstallSnapshot ---- */

/* libraft's own reader of configurations trusts their lengths. */
static int conf_get(const uint8_t *p, size_t len, struct raft_configuration *ret, struct err *err)
{
	struct raft_configuration conf;
	size_t at = 1 + WORD;
	uint64_t n;
	int rv = 0;

	if (len < at || p[0] != CONF_FORMAT) {
		return err_set(err, ERR_PROTOCOL, "a configuration in an unknown form");
	}
	n = le64(p + 1);
	if (n > LIM_RAFT_SERVERS) {
		return err_set(err, ERR_LIMIT,
			       "a configuration of %llu servers, at most %d are taken",
			       (unsigned long long)n, LIM_RAFT_SERVERS);
	}
	raft_configuration_init(&conf);
	for (uint64_t i = 0; rv == 0 && i < n; i++) {
		const uint8_t *nul = len - at > WORD ? memchr(p + at + WORD, 0, len - at - WORD)
						     : NULL;

		if (nul == NULL || nul + 1 >= p + len || le64(p + at) == 0) {
			rv = RAFT_MALFORMED;
		} else {
			rv = raft_configuration_add(&conf, le64(p + at),
						    (const char *)p + at + WORD, nul[1]);
			at = (size_t)(nul - p) + 2;
		}
	}
	if (rv != 0) {
		raft_configuration_close(&conf);
		return err_set(err, ERR_PROTOCOL, "a configuration that is none: %s",
			       raft_strerror(rv));
	}
	*ret = conf;
	return 0;
}

static int install_put(struct buf *out, const struct raft_install_snapshot *s)
{
	struct raft_buffer conf;
	int rv = raft_configuration_encode(&s->conf, &conf);

	if (rv != 0) {
		return rv;
	}
	put64(out, s->term);
	put64(out, s->last_index);
	put64(out, s->last_term);
	put64(out, s->conf_index);
	put64(out, conf.len);
	buf_append(out, conf.base, conf.len);
	put64(out, s->data.len);
	put64(out, 0);
	raft_free(conf.base);
	return 0;
}

static int install_get(const uint8_t *p, size_t len, struct raft_install_snapshot *s,
		       size_t *ret_payload, struct err *err)
{
	uint64_t conf = word(p, 4), data;
	int r;

	if (conf > len - INSTALL_FIXED || len - INSTALL_FIXED - conf < WORD) {
		return err_set(err, ERR_PROTOCOL, "a configuration of %llu bytes in a head of %zu",
			       (unsigned long long)conf, len);
	}
	data = le64(p + INSTALL_FIXED + conf);
	if (data > LIM_RAFT_SNAPSHOT_BYTES) {
		return err_set(err, ERR_LIMIT, "a snapshot of %llu bytes, at most %llu are taken",
			       (unsigned long long)data, LIM_RAFT_SNAPSHOT_BYTES);
	}
	r = conf_get(p + INSTALL_FIXED, (size_t)conf, &s->conf, err);
	if (r != 0) {
		return r;
	}
	s->term = word(p, 0);
	s->last_index = word(p, 1);
	s->last_term = word(p, 2);
	s->conf_index = word(p, 3);
	s->data.len = (size_t)data;
	*ret_payload = (size_t)data;
	return 0;
}

/* ---- any message ---- */

static unsigned char version_of(const struct raft_message *m)
{
	switch (m->type) {
	case RAFT_APPEND_ENTRIES: return m->append_entries.version;
	case RAFT_APPEND_ENTRIES_RESULT: return m->append_entries_result.version;
	case RAFT_REQUEST_VOTE: return m->request_vote.version;
	case RAFT_REQUEST_VOTE_RESULT: return m->request_vote_result.version;
	case RAFT_INSTALL_SNAPSHOT: return m->install_snapshot.version;
	case RAFT_TIMEOUT_NOW: return m->timeout_now.version;
	default: return 0;
	}
}

int wire_put(struct buf *out, const struct raft_message *m)
{
	size_t begin = out->len, end;
	int rv = 0;

	put64(out, (uint64_t)(uint8_t)m->type | (uint64_t)version_of(m) << 16);
	put64(out, 0); /* the length, see below */
	switch (m->type) {
	case RAFT_APPEND_ENTRIES: append_put(out, &m->append_entries); break;
	case RAFT_APPEND_ENTRIES_RESULT: result_put(out, &m->append_entries_result); break;
	case RAFT_REQUEST_VOTE: vote_put(out, &m->request_vote); break;
	case RAFT_REQUEST_VOTE_RESULT: voted_put(out, &m->request_vote_result); break;
	case RAFT_INSTALL_SNAPSHOT: rv = install_put(out, &m->install_snapshot); break;
	case RAFT_TIMEOUT_NOW:
		put64(out, m->timeout_now.term);
		put64(out, m->timeout_now.last_log_index);
		put64(out, m->timeout_now.last_log_term);
		break;
	default: rv = RAFT_MALFORMED; break;
	}
	if (rv != 0) {
		out->len = begin;
		return rv;
	}
	end = out->len;
	out->len = begin + WORD;
	put64(out, end - begin - WIRE_PREAMBLE);
	out->len = end;
	return 0;
}

static int preamble_check(struct wire_reader *r, struct err *err)
{
	static const size_t least[] = {
		[RAFT_APPEND_ENTRIES] = APPEND_FIXED,    [RAFT_APPEND_ENTRIES_RESULT] = RESULT_OLD,
		[RAFT_REQUEST_VOTE] = VOTE_OLD,          [RAFT_REQUEST_VOTE_RESULT] = VOTED_OLD,
		[RAFT_INSTALL_SNAPSHOT] = INSTALL_FIXED, [RAFT_TIMEOUT_NOW] = TIMEOUT_NOW,
	};
	uint8_t type = r->preamble[0];
	uint64_t len = word(r->preamble, 1);
	size_t most = type == RAFT_APPEND_ENTRIES || type == RAFT_INSTALL_SNAPSHOT
			      ? LIM_RAFT_HEAD_BYTES
			      : FLAT_MAX;

	if (type >= ARRAY_LEN(least) || least[type] == 0) {
		return err_set(err, ERR_PROTOCOL, "a message of the unknown type %u", type);
	}
	if (len < least[type] || len > most) {
		return err_set(err, len > most ? ERR_LIMIT : ERR_PROTOCOL,
			       "a message of type %u with a head of %llu bytes, not %zu to %zu",
			       type, (unsigned long long)len, least[type], most);
	}
	r->head_len = (size_t)len;
	return 0;
}

/* On failure nothing is held. */
static int head_get(struct wire_reader *r, const uint8_t *p, struct err *err)
{
	struct raft_message *m = &r->message;
	size_t len = r->head_len;
	uint8_t version = r->preamble[2];
	int rc = 0;

	memset(m, 0, sizeof(*m));
	m->type = r->preamble[0];
	r->payload_len = r->payload_have = 0;
	switch (m->type) {
	case RAFT_APPEND_ENTRIES:
		m->append_entries.version = version;
		rc = append_get(p, len, &m->append_entries, &r->payload_len, err);
		break;
	case RAFT_APPEND_ENTRIES_RESULT:
		m->append_entries_result.version = version;
		result_get(p, len, &m->append_entries_result);
		break;
	case RAFT_REQUEST_VOTE:
		m->request_vote.version = version;
		vote_get(p, len, &m->request_vote);
		break;
	case RAFT_REQUEST_VOTE_RESULT:
		m->request_vote_result.version = version;
		voted_get(p, len, &m->request_vote_result);
		break;
	case RAFT_INSTALL_SNAPSHOT:
		m->install_snapshot.version = version;
		rc = install_get(p, len, &m->install_snapshot, &r->payload_len, err);
		break;
	case RAFT_TIMEOUT_NOW:
		m->timeout_now.term = word(p, 0);
		m->timeout_now.last_log_index = word(p, 1);
		m->timeout_now.last_log_term = word(p, 2);
		break;
	}
	if (rc != 0) {
		return rc;
	}
	if (r->payload_len > 0 || (m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries)) {
		/* libraft frees the batch of the entries, also where none has any bytes. */
		r->payload = raft_malloc(MAX(r->payload_len, (size_t)WORD));
		if (r->payload == NULL) {
			wire_message_free(m);
			return err_set(err, ERR_LIMIT, "no memory for a message of %zu bytes",
				       r->payload_len);
		}
	}
	return 0;
}

/* All of it is there: the payload becomes the message's. A configuration among the entries is looked into by libraft. */
static int complete(struct wire_reader *r, struct err *err)
{
	struct raft_message *m = &r->message;
	uint8_t *at = r->payload;
	int rc = 0;

	if (m->type == RAFT_INSTALL_SNAPSHOT) {
		m->install_snapshot.data.base = r->payload;
	} else if (m->type == RAFT_APPEND_ENTRIES) {
		for (unsigned i = 0; i < m->append_entries.n_entries; i++) {
			struct raft_entry *e = &m->append_entries.entries[i];
			struct raft_configuration conf;

			e->batch = r->payload;
			e->buf.base = e->buf.len > 0 ? at : NULL;
			if (e->type == RAFT_CHANGE && rc == 0) {
				rc = conf_get(at, e->buf.len, &conf, err);
				if (rc == 0) {
					raft_configuration_close(&conf);
				}
			}
			at += e->buf.len;
		}
	}
	r->payload = NULL;
	if (rc != 0) {
		wire_message_free(m);
	}
	return rc;
}

int wire_read(struct wire_reader *r, const uint8_t *data, size_t len, size_t *ret_used,
	      struct raft_message *ret, struct err *err)
{
	const uint8_t *head;
	size_t used = 0, n;
	int rc;

	if (r->due == WIRE_PREAMBLE_DUE) {
		n = MIN(len, WIRE_PREAMBLE - r->have);
		memcpy(r->preamble + r->have, data, n);
		r->have += n;
		used = n;
		if (r->have < WIRE_PREAMBLE) {
			*ret_used = used;
			return 0;
		}
		rc = preamble_check(r, err);
		if (rc != 0) {
			return rc;
		}
		r->due = WIRE_HEAD_DUE;
	}
	if (r->due == WIRE_HEAD_DUE) {
		n = MIN(len - used, r->head_len - r->head.len);
		head = data + used;
		used += n;
		if (n < r->head_len) {
			buf_append(&r->head, head, n);
			if (r->head.len < r->head_len) {
				*ret_used = used;
				return 0;
			}
			head = r->head.data;
		}
		rc = head_get(r, head, err);
		if (rc != 0) {
			return rc;
		}
		r->due = WIRE_PAYLOAD_DUE;
	}
	n = MIN(len - used, r->payload_len - r->payload_have);
	if (n > 0) {
		memcpy(r->payload + r->payload_have, data + used, n);
		r->payload_have += n;
		used += n;
	}
	*ret_used = used;
	if (r->payload_have < r->payload_len) {
		return 0;
	}
	r->due = WIRE_PREAMBLE_DUE;
	r->have = 0;
	buf_reset(&r->head);
	rc = complete(r, err);
	if (rc != 0) {
		return rc;
	}
	*ret = r->message;
	return 1;
}

void wire_message_free(struct raft_message *m)
{
	if (m->type == RAFT_INSTALL_SNAPSHOT) {
		raft_free(m->install_snapshot.data.base);
		raft_configuration_close(&m->install_snapshot.conf);
	} else if (m->type == RAFT_APPEND_ENTRIES) {
		if (m->append_entries.n_entries > 0) {
			raft_free(m->append_entries.entries[0].batch);
		}
		raft_free(m->append_entries.entries);
	}
}

void wire_reader_done(struct wire_reader *r)
{
	if (r->due == WIRE_PAYLOAD_DUE) {
		raft_free(r->payload);
		wire_message_free(&r->message);
	}
	buf_done(&r->head);
	*r = (struct wire_reader){0};
}
