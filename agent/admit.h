/* What this device takes of a netmap: a pure judgement of (netmap, local consent) that trusts no lighthouse. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/netmap.h"
#include "base/limits.h"
#include "base/name.h"
#include "base/prefix.h"

/* X(name, word for machines, what it means). The first ones refuse the whole netmap. */
#define ADMIT_MAP(X)                                                                               \
	X(REFUSE_NO_SELF, "NO_SELF", "the netmap does not say who this device is")                 \
	X(REFUSE_CLUSTER, "CLUSTER", "the netmap is of another cluster")                           \
	X(REFUSE_TAILNET, "TAILNET", "the netmap is of another tailnet")                           \
	X(REFUSE_NODE, "NODE", "the netmap is for another node")                                   \
	X(REFUSE_SELF_KEY, "SELF_KEY", "the netmap is for another node key")                       \
	X(REFUSE_REVISION, "REVISION", "the netmap is older than the one held")                    \
	X(REFUSE_PREFIX, "PREFIX", "tailnet prefix outside 100.64.0.0/10 and fd7a:115c:a1e0::/48") \
	X(REFUSE_PREFIX_CHANGED, "PREFIX_CHANGED", "tailnet prefix changed since enrolment")       \
	X(REFUSE_OWN_ADDRESS, "OWN_ADDRESS", "own address that cannot be")                         \
	X(REFUSE_PEER_ID, "PEER_ID", "peer with an impossible id")                                 \
	X(REFUSE_PEER_KEY, "PEER_KEY", "peer with an impossible key")                              \
	X(REFUSE_OWN_KEY, "OWN_KEY", "own key as a peer")                                          \
	X(REFUSE_KEY_TWICE, "KEY_TWICE", "one key at two peers")                                   \
	X(REFUSE_PEER_ADDRESS, "PEER_ADDRESS", "peer address outside the tailnet or reserved")     \
	X(REFUSE_ADDRESS_TWICE, "ADDRESS_TWICE", "one address at two nodes")                       \
	X(REFUSE_PEER_NAME, "PEER_NAME", "peer name that nobody may have")                         \
	X(REFUSE_NAME_TWICE, "NAME_TWICE", "one name at two nodes")                                \
	X(REFUSE_ENDPOINT, "ENDPOINT", "endpoint that cannot be right")                            \
	X(REFUSE_ROUTE_OFF, "ROUTE_OFF", "routes are not accepted on this device")                 \
	X(REFUSE_ROUTE_PEER, "ROUTE_PEER", "route of a node that is no peer")                      \
	X(REFUSE_ROUTE_FORM, "ROUTE_FORM", "route that is no prefix")                              \
	X(REFUSE_DEFAULT_ROUTE, "DEFAULT_ROUTE", "default route, whole or in parts")               \
	X(REFUSE_ROUTE_SPECIAL, "ROUTE_SPECIAL", "route over loopback, link-local or multicast")   \
	X(REFUSE_ROUTE_TAILNET, "ROUTE_TAILNET", "route over the tailnet's own addresses")         \
	X(REFUSE_ROUTE_CONNECTED, "ROUTE_CONNECTED", "route over a network this device is in")     \
	X(REFUSE_ROUTE_GATEWAY, "ROUTE_GATEWAY", "route over the gateway")                         \
	X(REFUSE_ROUTE_IN_USE, "ROUTE_IN_USE", "route over a lighthouse, relay or resolver")       \
	X(REFUSE_ROUTE_TWICE, "ROUTE_TWICE", "one prefix at two peers")                            \
	X(REFUSE_LIGHTHOUSE_URL, "LIGHTHOUSE_URL", "lighthouse address that cannot be")            \
	X(REFUSE_LIGHTHOUSE_NAME, "LIGHTHOUSE_NAME", "lighthouse inside the tailnet's names")      \
	X(REFUSE_DNS_DOMAIN, "DNS_DOMAIN", "base domain that nobody may have")                     \
	X(REFUSE_DNS_RECORD, "DNS_RECORD", "DNS record that cannot be")                            \
	X(REFUSE_DNS_ZONE, "DNS_ZONE", "DNS record outside the base domain")                       \
	X(REFUSE_DNS_LABEL, "DNS_LABEL", "DNS name that nobody may take over")                     \
	X(REFUSE_DNS_ROUTE, "DNS_ROUTE", "split route that cannot be")                             \
	X(REFUSE_DNS_ROUTE_WIDE, "DNS_ROUTE_WIDE", "split route for the root or a single label")   \
	X(REFUSE_DNS_RESOLVER, "DNS_RESOLVER", "resolver that cannot be right")                    \
	X(REFUSE_DNS_TAKE_OVER, "DNS_TAKE_OVER", "resolvers for everything are not accepted here") \
	X(REFUSE_LIMIT, "LIMIT", "more than the limits allow")

enum refuse_kind {
#define ADMIT_ENUM_(name, word, text) name,
	ADMIT_MAP(ADMIT_ENUM_)
#undef ADMIT_ENUM_
		REFUSE_KIND_NR,
};
/* Kinds up to this one refuse the whole netmap. */
#define REFUSE_FATAL_LAST REFUSE_REVISION

/* "PEER_ADDRESS" and what it means; never NULL. */
const char *refuse_word(enum refuse_kind kind);
const char *refuse_meaning(enum refuse_kind kind);

/* Limits of what is admitted, beside base/limits.h. */
#define ADMIT_PEER_ADDRESSES 8
#define ADMIT_PREFIXES       8
#define ADMIT_DNS_RESOLVERS  16
#define ADMIT_DNS_ROUTES     256
#define ADMIT_LINES          256
#define ADMIT_TEXT           200

struct refusal {
	enum refuse_kind kind;
	uint64_t node_id; /* 0: not about a peer */
	char text[ADMIT_TEXT];
};

/* What this device's owner allows about DNS; the values of skerry.local.v1.AcceptDns. */
enum accept_dns {
	ACCEPT_DNS_OFF = 1,
	ACCEPT_DNS_SERVE = 2,
	ACCEPT_DNS_HOST = 3,
	ACCEPT_DNS_ALL = 4
};

/* An address that no route may cover, and why. */
enum in_use_kind { IN_USE_GATEWAY, IN_USE_LIGHTHOUSE, IN_USE_RELAY, IN_USE_RESOLVER };
struct in_use {
	struct ipaddr addr;
	enum in_use_kind kind;
};

/* All that the judgement knows of this device. Everything is borrowed for the call. */
struct consent {
	uint8_t node_key[32]; /* own public key */
	uint64_t cluster_id;  /* 0: not enrolled yet, any is taken */
	uint64_t tailnet_id;
	uint64_t node_id;
	const struct prefix
		*prefixes; /* the tailnet's at enrolment; none: the first netmap's are taken */
	size_t n_prefixes;
	uint64_t epoch; /* revision held; another epoch cannot be compared */
	uint64_t revision;
	bool accept_routes;
	uint64_t exit_node; /* node id chosen here, 0 = none */
	enum accept_dns dns;
	bool allow_loopback; /* endpoints on loopback: the device has no other address */
	const struct prefix
		*connected; /* networks this device is in, without the tailnet's interface */
	size_t n_connected;
	const struct in_use *in_use;
	size_t n_in_use;
	const char *const *lighthouse_hosts; /* host names of lighthouses in use */
	size_t n_lighthouse_hosts;
};

struct admitted_peer {
	uint64_t id;
	char name[NAME_LABEL_MAX + 1]; /* "" if refused */
	uint8_t key[32];
	struct prefix *allowed; /* owned: addresses first, then routes */
	size_t n_allowed;
	size_t n_addresses;
	struct ipport *endpoints; /* owned */
	size_t n_endpoints;
	int64_t expire_ms; /* unix ms, 0 = never: the caller leaves expired ones out */
};

struct admitted_record {
	char name[NAME_DOMAIN_MAX + 1];
	struct ipaddr addr;
};

struct admitted_dns_route {
	char domain[NAME_DOMAIN_MAX + 1]; /* "" = the root */
	struct ipport *resolvers;         /* owned */
	size_t n_resolvers;
};

/* What may be used. Holds no pointer into the netmap. */
struct admitted {
	bool refused; /* the whole netmap: everything else is empty */
	uint64_t cluster_id, tailnet_id, node_id;
	char name[NAME_LABEL_MAX + 1];
	int64_t expire_ms; /* own key; 0 = never */
	struct prefix prefixes[ADMIT_PREFIXES];
	size_t n_prefixes;
	struct ipaddr addresses[ADMIT_PEER_ADDRESSES];
	size_t n_addresses;
	struct admitted_peer *peers; /* rising id */
	size_t n_peers;
	struct prefix *routes; /* of all peers, rising, each once */
	size_t n_routes;
	char base_domain[NAME_DOMAIN_MAX + 1]; /* "" = no names */
	struct admitted_record *records;
	size_t n_records;
	struct ipport resolvers[ADMIT_DNS_RESOLVERS];
	size_t n_resolvers;
	struct admitted_dns_route *dns_routes;
	size_t n_dns_routes;
	char **lighthouses; /* URLs */
	size_t n_lighthouses;
};

/* Every refusal of one judgement: counts of all, lines of the first ADMIT_LINES. */
struct refusals {
	struct refusal *lines; /* owned */
	size_t n_lines;
	uint64_t count[REFUSE_KIND_NR];
};

/*
 * Judges. ret_admitted and ret_refusals are overwritten and are the caller's (admitted_done, refusals_done). Pure: no I/O,
 * no clock, no global state. Returns true unless the netmap as a whole is refused.
 */
bool netmap_admit(const struct netmap *nm, const struct consent *consent,
		  struct admitted *ret_admitted, struct refusals *ret_refusals);

void admitted_done(struct admitted *a);
void refusals_done(struct refusals *r);
