/* Which endpoint of a peer is used. Today: one of those that the peer reported; relays and hole punching come behind this. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/admit.h"
#include "agent/host.h"
#include "agent/mesh.h"
#include "base/prefix.h"

/*
 * Rules. Candidates are the admitted endpoints that the host can reach, best first: in a network of this host, by a
 * gateway; IPv6 and IPv4 alike, in the order reported. A peer without endpoint in WireGuard gets the first.
 *   - Handshakes that succeed are left alone: WireGuard follows a peer that moves.
 *   - The endpoint in use has left the peer's list: the first candidate, at once.
 *   - Packets go out and none comes in (no session: PATH_TRY_MS, with one: PATH_STALL_MS): the next candidate.
 */
#define PATH_TRY_MS   4000
#define PATH_STALL_MS 12000
/* A session older than this is none (WireGuard's REJECT_AFTER_TIME). */
#define PATH_SESSION_MS 180000

struct paths;

struct paths *paths_new(struct host *host);
void paths_free(struct paths *paths);

/* The host's network changed: routes are looked up again and stuck peers start over. */
void paths_network_changed(struct paths *paths);

/*
 * Sets `endpoint` and `move_endpoint` of a wanted peer from what was admitted and what WireGuard has (`actual`, NULL if it
 * has no such peer). Times in ms: monotonic and unix.
 */
void paths_choose(struct paths *paths, const struct admitted_peer *peer,
		  const struct mesh_peer *actual, uint64_t mono_ms, int64_t wall_ms,
		  struct mesh_peer *wanted);

/* Forgets peers that were not chosen for since the last call. */
void paths_sweep(struct paths *paths);
