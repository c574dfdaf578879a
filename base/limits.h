/* Named limits of everything a remote party can make grow, one place for all folders. */
#pragma once

/* Names: LIM_<AREA>_<WHAT>[_BYTES|_MS|_PER_...]. Each one has a counter and a test that reaches it
 * in the folder that enforces it. Append to the section of your area. */

/* --- consensus (architecture: threads and flow, consensus) --- */
/* Commands that wait for the log, per lighthouse. */
#define LIM_CMD_QUEUE_ITEMS 4096
#define LIM_CMD_QUEUE_BYTES (16u << 20)
/* Share of the two that one tailnet may hold: one in so many. */
#define LIM_CMD_QUEUE_TAILNET_SHARE 4
/* Presence, ticks and membership wait in a share of their own. */
#define LIM_CMD_QUEUE_SYSTEM_ITEMS 1024
/* Group commit stops adding to an entry here. */
#define LIM_ENTRY_GROUP_BYTES (64u << 10)
/* A single command; larger is refused before the log. */
#define LIM_COMMAND_BYTES (1u << 20)
/* Members of a cluster, voters and others. */
#define LIM_MEMBERS 16
/* Of them with and without a vote. */
#define LIM_VOTERS   5
#define LIM_STANDBYS 9
/* Whole replicated state. */
#define LIM_STATE_BYTES (1ull << 30)
/* With less than that free below its state directory a leader takes no command that makes the state grow. */
#define LIM_DISK_FREE_BYTES (64ull << 20)
/* History kept per tailnet. */
#define LIM_HISTORY_BYTES (64u << 20)
#define LIM_HISTORY_MS    (30ll * 24 * 3600 * 1000)
/* How long a request id is remembered, in log time, and how many per tailnet. */
#define LIM_REQUEST_ID_MS (5ll * 60 * 1000)
#define LIM_REQUEST_IDS   65536
/* Length of a request id. */
#define LIM_REQUEST_ID_BYTES 64
/* Released addresses and names rest so long. */
#define LIM_RELEASE_REST_MS (24ll * 3600 * 1000)
/* Largest id that leaves JSON readers unharmed. */
#define LIM_ID_MAX ((1ull << 53) - 1)

/* --- quotas per tailnet (state: limits) --- */
#define LIM_TAILNETS            1024
#define LIM_TAILNET_NODES       16384
#define LIM_TAILNET_USERS       16384
#define LIM_TAILNET_AUTH_KEYS   4096
#define LIM_TAILNET_API_KEYS    1024
#define LIM_TAILNET_DNS_RECORDS 4096
#define LIM_TAILNET_PENDING     1024
#define LIM_TAILNET_AUDIT_BYTES (64u << 20)
#define LIM_POLICY_BYTES        (512u << 10)
/* Refused commands a tailnet may cause. */
#define LIM_TAILNET_REFUSED_PER_MIN 600
/* What one node reports. */
#define LIM_NODE_ENDPOINTS      64
#define LIM_NODE_TAGS           64
#define LIM_NODE_ROUTES         256
#define LIM_NODE_HOSTINFO_BYTES (16u << 10)
#define LIM_NODE_CAPABILITIES   128

/* --- the domain: times and portions of tailnet/ --- */
/* Life of a node key if the tailnet says nothing, of an auth key and of an API key. */
#define LIM_NODE_EXPIRY_MS (180ll * 24 * 3600 * 1000)
#define LIM_AUTH_KEY_MS    (24ll * 3600 * 1000)
#define LIM_API_KEY_MS     (90ll * 24 * 3600 * 1000)
/* The longest that may be asked for. */
#define LIM_LIFETIME_MS (3660ll * 24 * 3600 * 1000)
/* An expired key stays in the lists so long. */
#define LIM_KEY_KEEP_MS (30ll * 24 * 3600 * 1000)
/* How long a device waits for a person. */
#define LIM_PENDING_MS (3600ll * 1000)
/* A lost session becomes offline after it; after a clean close; an ephemeral node goes. */
#define LIM_PRESENCE_GRACE_MS 15000
#define LIM_PRESENCE_CLEAN_MS 10000
#define LIM_EPHEMERAL_MS      (30ll * 60 * 1000)
/* Tombstones of the change index: age, and how many per tailnet. */
#define LIM_TOMBSTONE_MS (3ll * 24 * 3600 * 1000)
#define LIM_TOMBSTONES   16384
/* Deadlines, and records of a deleted tailnet, that one Tick works through. */
#define LIM_TICK_ITEMS 256
/* Sequence numbers above the lowest unanswered one that a lighthouse may use. */
#define LIM_ORIGIN_WINDOW 16384
/* Names that are tried with a number, addresses that are tried. */
#define LIM_NAME_PROBES    64
#define LIM_ADDRESS_PROBES 65536
/* Texts: login and display names, descriptions, instance ids, reason. */
#define LIM_TEXT_BYTES 256
/* Resolvers and routes of a tailnet's DNS, and its prefixes. */
#define LIM_DNS_RESOLVERS    16
#define LIM_DNS_ROUTES       256
#define LIM_TAILNET_PREFIXES 16
/* A sealed secret and a certificate in the state. */
#define LIM_SEALED_BYTES      8192
#define LIM_CERTIFICATE_BYTES 16384

/* --- watch (architecture: watch) --- */
#define LIM_NETMAP_CHUNK_BYTES (256u << 10)
/* Full netmaps that are built at the same time per lighthouse. */
#define LIM_NETMAP_FULL_BUILDS 64
/* What an agent takes from a lighthouse. */
#define LIM_NETMAP_BYTES  (64u << 20)
#define LIM_NETMAP_PEERS  16384
#define LIM_NETMAP_CHUNKS 1024
/* Presence is sent to one watcher at most so often. */
#define LIM_PRESENCE_FANOUT_MS 1000
#define LIM_WATCHES_PER_CONN   16
/* Records that one flush of the watch hub may decode. */
#define LIM_WATCH_ARENA_BYTES (256u << 20)

/* --- peer port (trust: lighthouses) --- */
/* The one request on a join connection. */
#define LIM_JOIN_REQUEST_BYTES      (16u << 10)
#define LIM_JOIN_PER_SOURCE_PER_MIN 10
#define LIM_JOIN_PER_MIN            60
#define LIM_JOIN_MS                 15000
/* Validity of a join token. */
#define LIM_JOIN_TOKEN_MS (3600ll * 1000)
/* A message between the raft threads of two lighthouses: its head, the entries in it and their bytes, a configuration, the
 * snapshot that follows one. */
#define LIM_RAFT_HEAD_BYTES     (128u << 10)
#define LIM_RAFT_ENTRIES        4096
#define LIM_RAFT_MESSAGE_BYTES  (128u << 20)
#define LIM_RAFT_SERVERS        64
#define LIM_RAFT_SNAPSHOT_BYTES (4ull << 30)
/* Messages that wait for the link to a peer, or until it takes more; and of those, how many survive a failed attempt. */
#define LIM_RAFT_WAITING 256
#define LIM_RAFT_KEPT    3
/* Commands that a lighthouse hands to the leader in one call. */
#define LIM_FORWARD_COMMANDS 128
/* Bytes that wait for a peer that does not read. */
#define LIM_PEER_SEND_BYTES (64u << 20)

/* --- listeners, per source address (trust: callers) --- */
#define LIM_CONNS_PER_SOURCE   64
#define LIM_HANDSHAKES_PER_SEC 20
/* The peer port: the questions of a follower that does not hear its leader, and links that are made anew. */
#define LIM_PEER_HANDSHAKES_PER_SEC 60
#define LIM_BAD_CREDENTIALS_PER_MIN 10
/* Requests for approval: at once, and then one a minute. A person answers each. */
#define LIM_PENDING_PER_SOURCE 32
/* Sources that are remembered at a time; the least recently seen goes. */
#define LIM_SOURCES 65536
/* Connections of a process (the unit sets LimitNOFILE=65536). */
#define LIM_CONNS        20000
#define LIM_HANDSHAKE_MS 10000
/* A connection without any call. */
#define LIM_IDLE_MS 120000
/* The first line and headers of HTTP/1.1, PROXY header included. */
#define LIM_HTTP1_HEAD_BYTES (16u << 10)
#define LIM_HTTP1_BODY_BYTES (4u << 20)
#define LIM_HTTP1_HEADERS    64
/* Body handed to a handler that has not acknowledged it: then the client's bytes stay with the kernel. */
#define LIM_HTTP1_WINDOW_BYTES (256u << 10)
/* Requests sent ahead of the answer: reading pauses; the connection ends. */
#define LIM_HTTP1_AHEAD_BYTES      (32u << 10)
#define LIM_HTTP1_AHEAD_HARD_BYTES (1u << 20)
/* Of a body whose request is answered already. */
#define LIM_HTTP1_DISCARD_BYTES (256u << 10)
/* Sizes and extensions of chunks; on top of it 8 bytes per byte of body. */
#define LIM_HTTP1_CHUNK_BYTES (64u << 10)
/* Time for a head; a body brings at least so many bytes in so much time. */
#define LIM_HTTP1_HEAD_MS        10000
#define LIM_HTTP1_PROGRESS_MS    20000
#define LIM_HTTP1_PROGRESS_BYTES 4096

/* --- gRPC and HTTP/2 --- */
#define LIM_H2_STREAMS            100
#define LIM_H2_FRAME_BYTES        16384
#define LIM_H2_HEADER_TABLE_BYTES 4096
#define LIM_H2_HEADER_LIST_BYTES  8192
#define LIM_H2_HEADERS            64
/* RST_STREAM: burst and rate (CVE-2023-44487). */
#define LIM_H2_RESET_BURST   100
#define LIM_H2_RESET_PER_SEC 10
#define LIM_H2_CONTINUATIONS 4
#define LIM_H2_ACK_QUEUE     100
/* PRIORITY, WINDOW_UPDATE, empty DATA and unknown frames: burst and rate. */
#define LIM_H2_GLITCH_BURST    10000
#define LIM_H2_GLITCH_PER_SEC  330
#define LIM_H2_OUTBOUND_FRAMES 5000
/* Message sizes; stock clients take 4 MiB. */
#define LIM_GRPC_MESSAGE_BYTES (4u << 20)
#define LIM_GRPC_REQUEST_BYTES (64u << 10)
/* Bytes that wait in one stream, and in one connection, for a reader that does not read. */
#define LIM_GRPC_STREAM_QUEUE_BYTES (4u << 20)
#define LIM_GRPC_CONN_QUEUE_BYTES   (16u << 20)
/* Ceiling of the deadline of a unary call. */
#define LIM_GRPC_UNARY_MS 60000
/* Decoding: memory per received byte is bounded by the arena, recursion by the depth. */
#define LIM_PB_ARENA_BYTES (16u << 20)
#define LIM_PB_DEPTH       100
#define LIM_PB_FIELDS      200000
/* Unknown fields of one message (a newer peer). */
#define LIM_PB_UNKNOWN 64
/* Text of grpc-message. */
#define LIM_GRPC_STATUS_BYTES 1024
/* Connect-style JSON over POST. */
#define LIM_JSON_BYTES (1u << 20)
#define LIM_JSON_DEPTH 64
/* JSON may be so many times as long as what a method takes in the wire form. */
#define LIM_JSON_FACTOR 4

/* --- loops, streams, connections (net) --- */
/* Posts from other threads that wait for a loop, and jobs of a loop in the thread pool. */
#define LIM_LOOP_POSTS 65536
#define LIM_LOOP_WORK  1024
/* Output of one stream: when its writer is told to wait, and when a write is refused. */
#define LIM_STREAM_HIGH_BYTES (256u << 10)
#define LIM_STREAM_HARD_BYTES (32u << 20)
/* What a closed stream may take to send its rest. */
#define LIM_STREAM_LINGER_MS 2000
/* HTTP engines stop moving output to a stream that has so much waiting. */
#define LIM_CONN_PENDING_BYTES (256u << 10)
#define LIM_DIAL_MS            10000
#define LIM_DIAL_TARGETS       32
#define LIM_DIAL_ADDRESSES     16
#define LIM_HTTP_PATH_BYTES    2048
/* A request of plain HTTP whose body does not end. */
#define LIM_HTTP_BODY_MS 60000
/* HTTP/2: client preface and settings; a header block; pings (RFC 9113 and gRPC's ping rules). */
#define LIM_H2_PREFACE_MS      5000
#define LIM_H2_HEADERS_MS      10000
#define LIM_H2_PING_MS         30000
#define LIM_H2_PING_TIMEOUT_MS 20000
#define LIM_H2_PING_MIN_MS     10000
#define LIM_H2_PING_STRIKES    2
/* Header bytes of one block at which the connection, not the request, is ended. */
#define LIM_H2_HEADER_ABUSE_BYTES (64u << 10)
#define LIM_H2_WINDOW_BYTES       (64u << 10)
#define LIM_H2_CONN_WINDOW_BYTES  (1u << 20)
/* Output that waits and of which not a byte leaves. */
#define LIM_CONN_STALL_MS 30000
/* Calls of one server, and requests of one channel, at a time. */
#define LIM_RPC_CALLS    100000
#define LIM_RPC_REQUESTS 4096
/* Metadata of one call, ours included. */
#define LIM_RPC_METADATA_BYTES (32u << 10)

/* --- calls --- */
/* Report of one device: a token bucket. */
#define LIM_REPORT_BURST   20
#define LIM_REPORT_PER_MIN 60
#define LIM_PAGE_SIZE      1000
/* A page ends early at so many bytes, encoded or decoded (stock clients take 4 MiB); what one call may decode at all. */
#define LIM_PAGE_BYTES         (2u << 20)
#define LIM_PAGE_RECORDS_BYTES (8u << 20)
#define LIM_CALL_RECORDS_BYTES (64u << 20)
#define LIM_WAITING_READS      4096

/* --- local sockets --- */
#define LIM_UNIX_CONNS 64

/* --- config, keys, names, files --- */
#define LIM_CONFIG_BYTES (1u << 20)
#define LIM_CONFIG_DEPTH 32
#define LIM_CONFIG_NODES 65536
/* Longest key text: a join token with its addresses. */
#define LIM_KEY_TEXT 2400
/* Peer addresses in a join token. */
#define LIM_KEY_ADDRS 5
/* host:port as text, without NUL: its length travels in one byte. */
#define LIM_HOST_PORT 255
#define LIM_LABEL     63
#define LIM_DOMAIN    253
/* A secret read from a file, stdin or the environment. */
#define LIM_SECRET_BYTES 4096
/* Series of metrics in the process; the ones beyond share an overflow series. */
#define LIM_METRIC_SERIES 10000

/* --- agent --- */
#define LIM_LIGHTHOUSE_URLS 32
#define LIM_PEER_ENDPOINTS  64
/* Endpoints reported by this device that wait for a lighthouse. */
#define LIM_AGENT_REPORTS 1

/* --- dns --- */
#define LIM_DNS_UDP_BYTES   1232
#define LIM_DNS_TCP_CONNS   64
#define LIM_DNS_PENDING     1024
#define LIM_DNS_CACHE_BYTES (4u << 20)

/* --- relay --- */
#define LIM_RELAY_PACKET_BYTES  65536
#define LIM_RELAY_QUEUE_PACKETS 512
