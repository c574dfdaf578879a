/* A lighthouse that is a script: AgentService over real TLS on loopback, telling whatever the test wants. */
#pragma once

#include "base/buf.h"
#include "net/loop.h"
#include "net/rpc.h"
#include "skerry/v1/agent.pb-c.h"

#define FAKE_CLUSTER 7340031u
#define FAKE_EPOCH   11
#define FAKE_PEERS   64

struct fake_ca {
	struct x509_key *key;
	char *pem;
	uint8_t pin[32];
};
void fake_ca_init(struct fake_ca *ca);
void fake_ca_done(struct fake_ca *ca);

struct fake {
	struct loop *loop;
	const struct fake_ca *ca;
	uint64_t id;
	uint16_t port;
	char url[64];
	struct listener *listener;
	struct http_router *router;
	struct http_server *http;
	struct rpc_server *rpc;
	struct tls_ctx *tls; /* the cluster's certificate */
	struct tls_ctx *web; /* for every other name, if fake_web() was called */
	struct tls_slot *slot;
	struct loop_timer beat;
	uint8_t box_pub[32], box_sec[32];

	/* Script. */
	const Skerry__V1__NetmapChunk *netmap; /* sent to who asks for a full one; borrowed */
	uint64_t beat_ms;                      /* 0 = 100 */
	uint64_t quorum_age_ms;
	bool no_beats;
	bool mute;          /* takes Watch and never answers */
	bool forgot;        /* Watch: NODE_UNKNOWN until somebody registers */
	bool key_in_use;    /* refuses each registration so */
	bool refuse_key;    /* Register: UNAUTHENTICATED */
	bool too_many;      /* Register: RESOURCE_EXHAUSTED */
	bool want_approval; /* Register: pending until `approved` */
	bool approved;
	uint64_t wrong_cluster; /* Register answers this one */
	int fail_code;          /* every call fails with it */

	/* What was seen. */
	char last_code[64]; /* of a pending approval */
	struct rpc_ref watch;
	uint64_t registers, watches, reports, logouts, connections, bad_proofs;
	uint64_t last_session;
	bool last_had_have;
	uint64_t last_have_revision;
	char last_key[256];
	size_t last_endpoints;
	uint8_t node_key[32];
};

/* Starts on 127.0.0.1; port 0 = any. */
void fake_start(struct fake *f, struct loop *loop, const struct fake_ca *ca, uint64_t id);
/* As if killed: everything is closed at once. fake_restart() listens again on the same port. */
void fake_kill(struct fake *f);
void fake_restart(struct fake *f);
void fake_done(struct fake *f);
/* From now on a certificate of another CA, without any cluster in it, answers for other names than the cluster's. */
void fake_web(struct fake *f, const struct fake_ca *web_ca);

/* Sends an event to the one watcher; false without one. */
bool fake_send(struct fake *f, const Skerry__V1__WatchResponse *msg);
bool fake_send_chunk(struct fake *f, const Skerry__V1__NetmapChunk *chunk);
bool fake_send_delta(struct fake *f, Skerry__V1__NetmapDelta *delta, uint64_t epoch,
		     uint64_t revision);

/* ---- Netmaps ---- */

/* A netmap to play with: node 1 is the device, `n` peers with the ids from 2. All in one struct, edit at will. */
struct fake_map {
	Skerry__V1__NetmapChunk chunk;
	Skerry__V1__Revision revision;
	Skerry__V1__NetmapSelf self;
	uint8_t node_key[32];
	ProtobufCBinaryData self_addrs[2];
	uint8_t self_addr[2][16];
	Skerry__V1__Prefix prefix[2];
	Skerry__V1__Prefix *prefixes[2];
	uint8_t prefix_addr[2][16];
	Skerry__V1__DnsConfig dns;
	Skerry__V1__LighthouseAddress lighthouse[4];
	Skerry__V1__LighthouseAddress *lighthouses[4];
	Skerry__V1__NetmapPeer peer[FAKE_PEERS];
	Skerry__V1__NetmapPeer *peers[FAKE_PEERS];
	char peer_name[FAKE_PEERS][16];
	uint8_t peer_key[FAKE_PEERS][32];
	uint8_t peer_addr[FAKE_PEERS][2][16];
	ProtobufCBinaryData peer_addrs[FAKE_PEERS][2];
	Skerry__V1__Endpoint endpoint[FAKE_PEERS];
	Skerry__V1__Endpoint *endpoints[FAKE_PEERS];
	uint8_t endpoint_addr[FAKE_PEERS][4];
	Skerry__V1__NetmapView view;
	Skerry__V1__PeerRoute route[8];
	Skerry__V1__PeerRoute *routes[8];
	Skerry__V1__Prefix route_prefix[8];
	uint8_t route_addr[8][16];
};

void fake_map_init(struct fake_map *m, const uint8_t node_key[32], size_t n_peers);
void fake_map_route(struct fake_map *m, uint64_t node, const char *prefix);
