/* Feature levels: what a field of a command needs, and the refusal below it. */
#include "base/limits.h"
#include "proto/pb_util.h"
#include "tailnet/commands_int.h"

/*
 * Fields that came after level 1, in commands and in the records that these carry. A kind of command has its level in its
 * row of apply.c; its own fields need none here.
 */
static const struct level_field {
	const ProtobufCMessageDescriptor *message;
	uint32_t tag, level;
} fields[] = {
	{&skerry__internal__v1__sealed_secret__descriptor, 4, 2},  /* seal */
	{&skerry__internal__v1__ca_record__descriptor, 4, 2},      /* cross_der */
	{&skerry__internal__v1__ca_record__descriptor, 5, 2},      /* retire_ms */
	{&skerry__internal__v1__member_record__descriptor, 30, 2}, /* ca_generation */
	{&skerry__internal__v1__member_record__descriptor, 31, 2}, /* seal */
	{&skerry__internal__v1__member_record__descriptor, 32, 2}, /* backup_ms */
	{&skerry__internal__v1__member_record__descriptor, 33, 2}, /* backup_revision */
	{&skerry__internal__v1__member_record__descriptor, 18, 2}, /* keep_standby */
};

/* As proto3 puts it on the wire: what has its default is not there. */
static bool is_set(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
	const uint8_t *base = (const uint8_t *)m;

	if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
		return *(const uint32_t *)(base + f->quantifier_offset) == f->id;
	}
	if (f->label == PROTOBUF_C_LABEL_REPEATED) {
		return *(const size_t *)(base + f->quantifier_offset) > 0;
	}
	return !pb_is_default(f, base + f->offset);
}

/* Of the fields of the message itself. */
static uint32_t own_level(const ProtobufCMessage *m)
{
	uint32_t level = 1;

	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		if (fields[i].message == m->descriptor &&
		    is_set(m,
			   protobuf_c_message_descriptor_get_field(m->descriptor, fields[i].tag))) {
			level = MAX(level, fields[i].level);
		}
	}
	return level;
}

static uint32_t level_in(const ProtobufCMessage *m, unsigned depth)
{
	const uint8_t *base = (const uint8_t *)m;
	uint32_t level = depth <= LIM_PB_DEPTH ? own_level(m) : 1;

	for (unsigned i = 0; i < m->descriptor->n_fields && depth <= LIM_PB_DEPTH; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		ProtobufCMessage *const *subs;
		size_t n = 1;

		if (f->type != PROTOBUF_C_TYPE_MESSAGE || !is_set(m, f)) {
			continue;
		}
		subs = (ProtobufCMessage *const *)(base + f->offset);
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			n = *(const size_t *)(base + f->quantifier_offset);
			subs = *(ProtobufCMessage *const *const *)(base + f->offset);
		}
		for (size_t j = 0; j < n; j++) {
			level = MAX(level, level_in(subs[j], depth + 1));
		}
	}
	return level;
}

bool level_fields_above(uint32_t level)
{
	bool above = false;

	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		above |= fields[i].level > level;
	}
	return above;
}

uint32_t level_of_fields(const ProtobufCMessage *m)
{
	return level_in(m, 1);
}

int feature_level_needed(uint32_t level, uint32_t now, struct err *err)
{
	return err_reason(
		err, ERR_FEATURE_LEVEL, "FEATURE_LEVEL",
		"this needs feature level %u, the cluster is at %u: once every lighthouse "
		"runs a version that has it, run `skerry cluster finalize-upgrade`",
		level, now);
}

int feature_level_known(uint32_t level, const char *what, struct err *err)
{
	return level >= FEATURE_LEVEL_MIN && level <= FEATURE_LEVEL_MAX
		       ? 0
		       : err_reason(err, ERR_FEATURE_LEVEL, "FEATURE_LEVEL",
				    "%s feature level %u, this build knows %d to %d: install the "
				    "build that the other lighthouses run",
				    what, level, FEATURE_LEVEL_MIN, FEATURE_LEVEL_MAX);
}

int level_needs(struct state *st, uint32_t level)
{
	struct err err = {0};

	if (st->meta->feature_level >= level) {
		return ACCEPT;
	}
	feature_level_needed(level, st->meta->feature_level, &err);
	return refuse(st, CODE_PRECONDITION, err.reason, "", "%s", err.msg);
}
