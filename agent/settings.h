/* What the device's owner decided by `skerry up` and `skerry set`; kept in <state>/settings.json. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "agent/admit.h"
#include "base/err.h"
#include "base/macros.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "skerry/local/v1/agent_local.pb-c.h"

struct agent_config;

struct settings {
	bool up;                                /* `skerry up` was the last of up and down */
	char *lighthouses[LIM_LIGHTHOUSE_URLS]; /* owned */
	size_t n_lighthouses;
	char *hostname; /* "" = the host's */
	enum accept_dns accept_dns;
	bool accept_routes;
	char *operator_name; /* as given, "" = none */
	bool has_operator;
	uid_t operator_uid;
	char *tags[LIM_NODE_TAGS]; /* owned */
	size_t n_tags;
	char *tailnet; /* "" = the default one */
};

/* Defaults of the configuration, then the file over them. A missing file is fine; ERR_CORRUPT else. */
MUST_CHECK int settings_load(const char *path, const struct agent_config *config,
			     struct settings *ret, struct err *e);
MUST_CHECK int settings_save(const char *path, const struct settings *s, struct err *e);
void settings_done(struct settings *s);
void settings_copy(const struct settings *from, struct settings *ret);

/*
 * Sets what the mask names; everything is checked before anything is changed. by_root: the caller is root and may set the
 * operator. ERR_INVALID with the field.
 */
MUST_CHECK int settings_update(struct settings *s, const Skerry__Local__V1__Settings *from,
			       const Google__Protobuf__FieldMask *mask, bool by_root,
			       struct err *e);

/* The message form; borrows from s. */
void settings_message(const struct settings *s, Skerry__Local__V1__Settings *ret);
