/* The command against a scripted agent and lighthouse: what it sends, prints and ends with.
 * LIBS: cli */
#include "tests/lib/test.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/key.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli_int.h"
#include "google/protobuf/empty.pb-c.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "net/http.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/rpc.h"
#include "proto/pb_decode.h"
#include "proto/pb_util.h"
#include "skerry/local/v1/agent_local.pb-c.h"
#include "skerry/v1/admin.pb-c.h"

/* ---- the server: a thread that answers from a script, which tests change between commands ---- */

enum { FAILURES = 8, REQUESTS = 16 };

static struct server {
	struct loop *loop;
	struct rpc_server *rpc;
	struct http_router *router;
	struct http_server *http;
	struct listener *listener;
	char dir[TEST_DIR], address[TEST_DIR + 32];

	pthread_mutex_t lock; /* what follows is of both threads */
	struct err fail[FAILURES];
	size_t n_fail; /* the next calls end with these */
	ProtobufCMessage *seen[REQUESTS];
	atomic_size_t n_seen;
	atomic_bool hang;      /* streams do not end by themselves */
	atomic_bool approval;  /* Up waits for a person first */
	atomic_bool interrupt; /* Ctrl-C after the first message */
	atomic_bool lost;      /* no echo comes back */
	atomic_bool two_nodes; /* of one name */
	char authorization[256];
	char read[32]; /* skerry-read */
} s = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Remembers the request; true when the script wants the call to fail. */
static bool scripted(struct rpc_call *call, const ProtobufCMessage *req)
{
	const char *authorization = rpc_call_metadata(call, "authorization");
	const char *level = rpc_call_metadata(call, "skerry-read");
	struct err err = {0};

	pthread_mutex_lock(&s.lock);
	snprintf(s.authorization, sizeof(s.authorization), "%s",
		 authorization ? authorization : "");
	snprintf(s.read, sizeof(s.read), "%s", level ? level : "");
	if (s.n_seen < REQUESTS) {
		s.seen[s.n_seen] = pb_copy(req);
		s.n_seen++;
	}
	if (s.n_fail > 0) {
		err = s.fail[0];
		memmove(s.fail, s.fail + 1, --s.n_fail * sizeof(s.fail[0]));
	}
	pthread_mutex_unlock(&s.lock);
	if (err.code != 0) {
		rpc_call_finish(call, &err);
	}
	return err.code != 0;
}

static char *str(const char *text)
{
	return (char *)text;
}

static void on_status(void *arg UNUSED, struct rpc_call *call, const ProtobufCMessage *req)
{
	Skerry__Local__V1__Status status = SKERRY__LOCAL__V1__STATUS__INIT;
	Skerry__Local__V1__SelfStatus self = SKERRY__LOCAL__V1__SELF_STATUS__INIT;
	Skerry__Local__V1__PeerStatus peer = SKERRY__LOCAL__V1__PEER_STATUS__INIT,
				      *peers[] = {&peer};
	Skerry__Local__V1__ControlStatus control = SKERRY__LOCAL__V1__CONTROL_STATUS__INIT;
	Skerry__Local__V1__Refusal refusal = SKERRY__LOCAL__V1__REFUSAL__INIT,
				   *refusals[] = {&refusal};
	char *own[] = {str("100.64.0.1"), str("fd7a:115c:a1e0::1")},
	     *theirs[] = {str("100.64.0.2")};
	char *urls[] = {str("https://a:8443"), str("https://b:8443")};

	if (scripted(call, req)) {
		return;
	}
	status.state = SKERRY__LOCAL__V1__STATE__STATE_RUNNING;
	self.name = str("d1");
	self.dns_name = str("d1.lab.internal");
	self.addresses = own;
	self.n_addresses = 2;
	self.node_id = 7;
	self.tailnet_name = str("default");
	peer.name = str("d2\033[2J");
	peer.dns_name = str("d2.lab.internal");
	peer.addresses = theirs;
	peer.n_addresses = 1;
	peer.online = true;
	peer.rx_bytes = 2048;
	control.attached = true;
	control.lighthouse_url = urls[0];
	control.lighthouse_name = str("lh1");
	control.lighthouse_urls = urls;
	control.n_lighthouse_urls = 2;
	refusal.kind = str("DEFAULT_ROUTE");
	refusal.text = str("peer d2 offers 0.0.0.0/0");
	refusal.count = 3;
	status.self = &self;
	status.peers = peers;
	status.n_peers = 1;
	status.control = &control;
	status.refusals = refusals;
	status.n_refusals = 1;
	status.filter = str("none");
	rpc_call_reply(call, &status.base);
}

static void on_up(void *arg UNUSED, struct rpc_call *call, const ProtobufCMessage *req)
{
	static const char *const texts[] = {"wireguard is there", "dialled 192.0.2.1:8443 (lh-1)",
					    "registered as d1"};
	Skerry__Local__V1__UpEvent ev = SKERRY__LOCAL__V1__UP_EVENT__INIT;
	Skerry__Local__V1__Approval approval = SKERRY__LOCAL__V1__APPROVAL__INIT;

	if (scripted(call, req)) {
		return;
	}
	if (s.approval) {
		approval.code = str("ABCD-EFGH");
		approval.url = str("https://a:8443/approve/ABCD-EFGH");
		ev.step = SKERRY__LOCAL__V1__UP_STEP__UP_STEP_APPROVAL;
		ev.approval = &approval;
		ev.waiting = true;
		ev.text = str("somebody has to let this device in");
		assert_ok(rpc_call_send(call, &ev.base));
		ev.approval = NULL;
	}
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		ev.step = (Skerry__Local__V1__UpStep)(i + 1);
		ev.text = str(texts[i]);
		ev.elapsed_ms = 100 * i;
		ev.waiting = s.hang && i + 1 == ARRAY_LEN(texts);
		assert_ok(rpc_call_send(call, &ev.base));
	}
	if (s.interrupt) {
		kill(getpid(), SIGINT);
	}
	if (!s.hang) {
		rpc_call_finish(call, NULL);
	}
}

static void on_ping(void *arg UNUSED, struct rpc_call *call, const ProtobufCMessage *req)
{
	Skerry__Local__V1__PingReply r = SKERRY__LOCAL__V1__PING_REPLY__INIT;

	if (scripted(call, req)) {
		return;
	}
	r.name = str("d2");
	r.address = str("100.64.0.2");
	for (uint32_t i = 0; i < 2; i++) {
		r.sequence = i;
		r.lost = s.lost || i == 1;
		r.rtt_us = r.lost ? 0 : 1500;
		assert_ok(rpc_call_send(call, &r.base));
	}
	rpc_call_finish(call, NULL);
}

static void on_set(void *arg UNUSED, struct rpc_call *call, const ProtobufCMessage *req)
{
	Skerry__Local__V1__SetResponse r = SKERRY__LOCAL__V1__SET_RESPONSE__INIT;
	char *notes[] = {str("hostname: at the next registration")};

	if (!scripted(call, req)) {
		r.notes = notes;
		r.n_notes = 1;
		rpc_call_reply(call, &r.base);
	}
}

static void on_tailnets(void *arg UNUSED, struct rpc_call *call, const ProtobufCMessage *req)
{
	Skerry__V1__ListTailnetsResponse r = SKERRY__V1__LIST_TAILNETS_RESPONSE__INIT;
	Skerry__V1__Tailnet t = SKERRY__V1__TAILNET__INIT, *all[] = {&t};

	if (!scripted(call, req)) {
		t.name = str("tailnets/7");
		t.display_name = str("default");
		r.tailnets = all;
		r.n_tailnets = 1;
		rpc_call_reply(call, &r.base);
	}
}

/* Two pages of one node each. */
static void on_nodes(void *arg UNUSED, struct rpc_call *call, const ProtobufCMessage *msg)
{
	const Skerry__V1__ListNodesRequest *req = (const Skerry__V1__ListNodesRequest *)msg;
	Skerry__V1__ListNodesResponse r = SKERRY__V1__LIST_NODES_RESPONSE__INIT;
	Skerry__V1__Node node = SKERRY__V1__NODE__INIT, *all[] = {&node};
	bool first = req->page_token[0] == '\0';

	if (!scripted(call, msg)) {
		node.name = str(first ? "tailnets/7/nodes/42" : "tailnets/7/nodes/43");
		node.given_name = str(first || s.two_nodes ? "alpha" : "beta");
		node.approved = true;
		node.user = str(first ? "tailnets/7/users/2" : "tailnets/7/users/3");
		r.nodes = all;
		r.n_nodes = 1;
		r.next_page_token = str(first ? "more" : "");
		rpc_call_reply(call, &r.base);
	}
}

static void on_users(void *arg UNUSED, struct rpc_call *call, const ProtobufCMessage *req)
{
	Skerry__V1__ListUsersResponse r = SKERRY__V1__LIST_USERS_RESPONSE__INIT;
	Skerry__V1__User u = SKERRY__V1__USER__INIT, *all[] = {&u};

	if (!scripted(call, req)) {
		u.name = str("tailnets/7/users/2");
		u.login_name = str("ann");
		r.users = all;
		r.n_users = 1;
		rpc_call_reply(call, &r.base);
	}
}

static void on_delete(void *arg UNUSED, struct rpc_call *call, const ProtobufCMessage *req)
{
	Google__Protobuf__Empty none = GOOGLE__PROTOBUF__EMPTY__INIT;

	if (!scripted(call, req)) {
		rpc_call_reply(call, &none.base);
	}
}

static void on_auth_key(void *arg UNUSED, struct rpc_call *call, const ProtobufCMessage *req)
{
	Skerry__V1__AuthKey key = SKERRY__V1__AUTH_KEY__INIT;

	if (!scripted(call, req)) {
		key.name = str("tailnets/7/authKeys/5");
		key.secret = str("sk-auth-5-secret");
		rpc_call_reply(call, &key.base);
	}
}

static void on_digests(void *arg UNUSED, struct rpc_call *call, const ProtobufCMessage *req)
{
	Skerry__V1__CompareDigestsResponse r = SKERRY__V1__COMPARE_DIGESTS_RESPONSE__INIT;
	Skerry__V1__MemberDigest d = SKERRY__V1__MEMBER_DIGEST__INIT, *all[] = {&d};

	if (!scripted(call, req)) {
		d.display_name = str("lh1");
		d.digest = str("abcd");
		r.digests = all;
		r.n_digests = 1;
		r.equal = !s.lost;
		rpc_call_reply(call, &r.base);
	}
}

#define LOCAL "/skerry.local.v1.LocalService/"
static const struct {
	const char *path;
	struct rpc_handler handler;
} methods[] = {
	{LOCAL "GetStatus", {.on_call = on_status}},
	{LOCAL "Up", {.on_call = on_up}},
	{LOCAL "Ping", {.on_call = on_ping}},
	{LOCAL "Set", {.on_call = on_set}},
	{"/skerry.v1.TailnetService/ListTailnets", {.on_call = on_tailnets}},
	{"/skerry.v1.NodeService/ListNodes", {.on_call = on_nodes}},
	{"/skerry.v1.UserService/ListUsers", {.on_call = on_users}},
	{"/skerry.v1.NodeService/DeleteNode", {.on_call = on_delete}},
	{"/skerry.v1.AuthKeyService/CreateAuthKey", {.on_call = on_auth_key}},
	{"/skerry.v1.ClusterService/CompareDigests", {.on_call = on_digests}},
};

static void on_accept(void *arg UNUSED, struct stream *stream)
{
	http_server_accept(s.http, stream, NULL);
}

static int server_start(void **state)
{
	struct listener_opts opts = {.address = s.address};
	struct err err = {0};

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	test_dir_make(s.dir);
	snprintf(s.address, sizeof(s.address), "unix:%s/s.sock", s.dir);
	s.loop = loop_new("server");
	s.rpc = rpc_server_new(s.loop, "test");
	for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
		rpc_server_add(s.rpc, methods[i].path, &methods[i].handler, NULL);
	}
	s.router = http_router_new();
	rpc_server_mount(s.rpc, s.router, false);
	s.http = http_server_new(s.loop, s.router);
	if (listener_new(s.loop, &opts, on_accept, NULL, &s.listener, &err) < 0) {
		TEST_FAIL("%s", err.msg);
	}
	setenv("SKERRY_SOCKET", s.address + 5, 1);
	setenv("SKERRY_AGENT_SOCKET", s.address + 5, 1);
	unsetenv("SKERRY_AUTH_KEY");
	unsetenv("SKERRY_API_KEY");
	unsetenv("SKERRY_LIGHTHOUSE");
	unsetenv("SKERRY_TAILNET");
	assert_int_equal(loop_thread_start(s.loop), 0);
	return 0;
}

static int server_stop(void **state)
{
	(void)state;
	loop_stop(s.loop);
	loop_thread_join(s.loop);
	listener_free(s.listener);
	http_server_free(s.http);
	http_router_free(s.router);
	rpc_server_free(s.rpc);
	loop_free(s.loop);
	test_dir_remove(s.dir);
	return 0;
}

/* Forgets what was seen and asked for. */
static int reset(void **state)
{
	(void)state;
	pthread_mutex_lock(&s.lock);
	for (size_t i = 0; i < s.n_seen; i++) {
		pb_free(s.seen[i]);
	}
	s.n_seen = 0;
	s.n_fail = 0;
	s.hang = false;
	s.approval = false;
	s.interrupt = false;
	s.lost = false;
	s.two_nodes = false;
	pthread_mutex_unlock(&s.lock);
	unsetenv("SKERRY_AUTH_KEY");
	return 0;
}

/* ---- the command ---- */

struct run {
	int rc;
	char *out, *err;
};

static struct run run_on(bool tty, const char *line)
{
	char *copy = mem_strdup(line), *argv[32] = {(char[]){"skerry"}}, *save = NULL;
	struct run r = {0};
	size_t out_len, err_len;
	struct cli_io io = {open_memstream(&r.out, &out_len), open_memstream(&r.err, &err_len),
			    tty};
	int argc = 1;

	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		argv[argc++] = w;
	}
	r.rc = cli_main(argc, argv, &io);
	fclose(io.out);
	fclose(io.err);
	mem_free(copy);
	return r;
}

static void run_done(struct run *r)
{
	free(r->out);
	free(r->err);
}

/* Runs it and checks status and parts of both outputs. */
static void expect(const char *line, int rc, const char *out, const char *err)
{
	struct run r = run_on(false, line);

	if (r.rc != rc || !strstr(r.out, out) || !strstr(r.err, err)) {
		TEST_FAIL("skerry %s: status %d (expected %d)\n%s--- lacks \"%s\"\n%s--- lacks "
			  "\"%s\"",
			  line, r.rc, rc, r.out, out, r.err, err);
	}
	run_done(&r);
}

static void fail_next(int code, const char *reason, const char *msg, size_t times)
{
	pthread_mutex_lock(&s.lock);
	while (times-- > 0) {
		struct err *e = &s.fail[s.n_fail++];

		err_clear(e);
		err_reason(e, code, reason, "%s", msg);
	}
	pthread_mutex_unlock(&s.lock);
}

static const void *seen(size_t i, const ProtobufCMessageDescriptor *desc)
{
	assert_true(i < s.n_seen);
	assert_ptr_equal(s.seen[i]->descriptor, desc);
	return s.seen[i];
}

/* ---- tests: the agent ---- */

static void status_for_people(void **state)
{
	struct run r = run_on(false, "status");

	(void)state;
	assert_int_equal(r.rc, CLI_OK);
	assert_contains(r.out, "state       running\n");
	assert_contains(r.out, "name        d1.lab.internal\n");
	assert_contains(r.out, "lighthouse  https://a:8443 (lh1), attached");
	assert_contains(r.out, "refused     peer d2 offers 0.0.0.0/0 (3 times)\n");
	assert_contains(r.out, "filter      none\n");
	assert_contains(r.out, "2.0 KiB");
	assert_lacks(r.out, "\033");
	run_done(&r);
	expect("status -o json", CLI_OK, "\"lighthouseUrl\": \"https://a:8443\"", "");
	expect("status -o json", CLI_OK, "\"state\": \"STATE_RUNNING\"", "");
	expect("status --no-peers", CLI_OK, "", "");
	assert_true(((const Skerry__Local__V1__GetStatusRequest *)seen(
			     3, &skerry__local__v1__get_status_request__descriptor))
			    ->no_peers);
}

static void addresses(void **state)
{
	(void)state;
	expect("ip", CLI_OK, "100.64.0.1\nfd7a:115c:a1e0::1\n", "");
	expect("ip -4", CLI_OK, "100.64.0.1\n", "");
	expect("ip -o json", CLI_OK, "[\"100.64.0.1\", \"fd7a:115c:a1e0::1\"]\n", "");
	expect("ip D2.lab.internal.", CLI_OK, "100.64.0.2\n", "");
	expect("ip -6 d2.lab.internal", CLI_NOT_FOUND, "", "no address of that kind");
	expect("ip d9", CLI_NOT_FOUND, "", "no peer is called d9");
}

/* Only what was named goes out: nothing is silently reset. */
static void up_sends_what_was_named(void **state)
{
	const Skerry__Local__V1__UpRequest *req;
	struct key key;
	struct buf text = BUF_INIT;

	(void)state;
	key_generate(&key, KEY_AUTH, 5);
	key_format(&key, &text);
	setenv("SKERRY_AUTH_KEY", buf_str(&text), 1);
	expect("up --lighthouse https://a:8443,https://b:8443 --accept-dns=host --hostname d1",
	       CLI_OK, "dialled 192.0.2.1:8443 (lh-1)\n", "");
	req = seen(0, &skerry__local__v1__up_request__descriptor);
	assert_string_equal(req->auth_key, buf_str(&text));
	assert_int_equal(req->update_mask->n_paths, 3);
	assert_true(pb_mask_contains(req->update_mask, "lighthouses"));
	assert_true(pb_mask_contains(req->update_mask, "hostname"));
	assert_true(pb_mask_contains(req->update_mask, "accept_dns"));
	assert_int_equal(req->settings->n_lighthouses, 2);
	assert_string_equal(req->settings->lighthouses[1], "https://b:8443");
	assert_int_equal(req->settings->accept_dns, SKERRY__LOCAL__V1__ACCEPT_DNS__ACCEPT_DNS_HOST);
	unsetenv("SKERRY_AUTH_KEY");
	expect("up", CLI_OK, "registered as d1", "");
	req = seen(1, &skerry__local__v1__up_request__descriptor);
	assert_int_equal(req->update_mask ? req->update_mask->n_paths : 0, 0);
	assert_string_equal(req->auth_key, "");
	buf_done(&text);
	key_done(&key);
}

static void key_of_another_kind(void **state)
{
	struct key key;
	struct buf text = BUF_INIT;

	(void)state;
	key_generate(&key, KEY_API, 5);
	key_format(&key, &text);
	setenv("SKERRY_AUTH_KEY", buf_str(&text), 1);
	expect("up --lighthouse https://a:8443", CLI_USAGE, "", "SKERRY_AUTH_KEY holds an API key");
	assert_int_equal(s.n_seen, 0);
	buf_done(&text);
	key_done(&key);
}

static void approval(void **state)
{
	struct run r;

	(void)state;
	s.approval = true;
	expect("up", CLI_OK, "https://a:8443/approve/ABCD-EFGH", "");
	expect("up", CLI_OK, "skerry node approve ABCD-EFGH", "");
	r = run_on(false, "up");
	assert_lacks(r.out, "\033");
	run_done(&r);
	r = run_on(true, "up");
	assert_contains(r.out, "\033[40;97m"); /* a QR code */
	run_done(&r);
}

static void up_waits_and_says_for_what(void **state)
{
	(void)state;
	s.hang = true;
	expect("up --timeout 200ms", CLI_TIMEOUT, "", "not done within 200ms: registered as d1");
	expect("up --timeout 200ms", CLI_TIMEOUT, "waiting: registered as d1", "the agent goes on");
}

static void interrupted(void **state)
{
	(void)state;
	s.hang = true;
	s.interrupt = true;
	expect("up", CLI_INTERRUPTED, "", "interrupted; the agent goes on");
}

static void ping(void **state)
{
	const Skerry__Local__V1__PingRequest *req;

	(void)state;
	expect("ping d2 -c 2 -i 20ms -6", CLI_OK, "d2 (100.64.0.2): seq=0 time=1.50 ms\n", "");
	req = seen(0, &skerry__local__v1__ping_request__descriptor);
	assert_true(req->count == 2 && req->interval_ms == 20 && req->ipv6 && req->size == 0);
	expect("ping d2 -c 2", CLI_OK,
	       "d2: 2 sent, 1 received, 1 lost; min/avg/max 1.50/1.50/1.50 ms\n", "");
	s.lost = true;
	expect("ping d2 -c 2", CLI_LOST, "d2: 2 sent, 0 received, 2 lost\n", "");
	fail_next(ERR_NOT_FOUND, "NO_SUCH_PEER", "no peer is called nobody", 1);
	expect("ping nobody", CLI_NOT_FOUND, "", "skerry ping: no peer is called nobody\n");
}

static void set(void **state)
{
	(void)state;
	expect("set --accept-routes=off --hostname x", CLI_OK,
	       "hostname: at the next registration\n", "");
	const Skerry__Local__V1__SetRequest *req =
		seen(0, &skerry__local__v1__set_request__descriptor);

	assert_int_equal(req->update_mask->n_paths, 2);
	assert_false(req->settings->accept_routes);
}

/* ---- tests: what a server says, and the status ---- */

static void statuses(void **state)
{
	static const struct {
		int code;
		const char *reason;
		int rc;
	} cases[] = {
		{ERR_INVALID, "", 2},
		{ERR_NOT_FOUND, "NODE_UNKNOWN", 6},
		{ERR_EXISTS, "", 7},
		{ERR_ABORTED, "", 7},
		{ERR_DENIED, "NOT_OPERATOR", 5},
		{ERR_UNAUTHENTICATED, "KEY_REFUSED", 5},
		{ERR_PRECONDITION, "NOT_REGISTERED", 8},
		{ERR_LIMIT, "", 9},
		{ERR_UNAVAILABLE, "LIGHTHOUSE_AWAY", 4},
		{ERR_UNAVAILABLE, "WIREGUARD", 1},
		{ERR_UNAVAILABLE, "NO_QUORUM", 9},
		{ERR_DEADLINE, "APPROVAL_TIMEOUT", 3},
		{ERR_INTERNAL, "", 1},
	};

	(void)state;
	TEST_TABLE(c, cases)
	{
		fail_next(c->code, c->reason, "this is\033[31m why", 1);
		expect("status", c->rc, "", "this is [31m why");
	}
}

static void field_of_error(void **state)
{
	(void)state;
	err_field(&s.fail[0], ERR_INVALID, "settings.tags", "not a tag");
	s.n_fail = 1;
	expect("status", CLI_USAGE, "", "skerry status: settings.tags: not a tag\n");
}

/* ---- tests: the lighthouse ---- */

static void pages_are_joined(void **state)
{
	struct run r = run_on(false, "node list");

	(void)state;
	assert_int_equal(r.rc, CLI_OK);
	assert_contains(r.out, "NAME   ID");
	assert_contains(r.out, "\nalpha  42");
	assert_contains(r.out, "\nbeta   43");
	assert_contains(r.out, "never    ann\n");
	assert_contains(r.out, "never    3\n");
	run_done(&r);
	assert_string_equal(((const Skerry__V1__ListNodesRequest *)seen(
				     2, &skerry__v1__list_nodes_request__descriptor))
				    ->page_token,
			    "more");
	r = run_on(false, "node list -o json");
	assert_contains(r.out, "tailnets/7/nodes/42");
	assert_contains(r.out, "tailnets/7/nodes/43");
	assert_contains(r.out, "\"nextPageToken\": \"\"");
	run_done(&r);
}

static void names(void **state)
{
	(void)state;
	expect("node delete Beta", CLI_OK, "deleted tailnets/7/nodes/43\n", "");
	assert_string_equal(((const Skerry__V1__DeleteNodeRequest *)seen(
				     3, &skerry__v1__delete_node_request__descriptor))
				    ->name,
			    "tailnets/7/nodes/43");
	reset(NULL);
	expect("node delete 99", CLI_OK, "deleted tailnets/7/nodes/99\n", "");
	reset(NULL);
	expect("node delete 99 --tailnet 3", CLI_OK, "deleted tailnets/3/nodes/99\n", "");
	assert_int_equal(s.n_seen, 1);
	expect("node delete tailnets/8/nodes/1", CLI_OK, "deleted tailnets/8/nodes/1\n", "");
	expect("node delete bta", CLI_NOT_FOUND, "", "there is no node bta; did you mean beta?");
	expect("node list --tailnet work", CLI_NOT_FOUND, "", "there is no tailnet work");
	expect("auth-key revoke foo", CLI_USAGE, "", "a number is needed");
	s.two_nodes = true;
	expect("node delete alpha", CLI_CONFLICT, "", "2 nodes are called alpha");
}

static void auth_key(void **state)
{
	const Skerry__V1__CreateAuthKeyRequest *req;
	struct run r =
		run_on(false, "auth-key create --reusable --tags a,tag:b --expiry 2h --no-pin");

	(void)state;
	assert_int_equal(r.rc, CLI_OK);
	assert_string_equal(r.out, "sk-auth-5-secret\n");
	run_done(&r);
	req = seen(1, &skerry__v1__create_auth_key_request__descriptor);
	assert_string_equal(req->parent, "tailnets/7");
	assert_true(req->auth_key->reusable && !req->auth_key->needs_approval && req->no_pin);
	assert_int_equal(req->auth_key->n_tags, 2);
	assert_string_equal(req->auth_key->tags[0], "tag:a");
	assert_string_equal(req->auth_key->tags[1], "tag:b");
	assert_int_equal(req->lifetime->seconds, 7200);
	expect("auth-key create -o json", CLI_OK, "\"secret\": \"sk-auth-5-secret\"", "");
}

static void digest(void **state)
{
	(void)state;
	expect("cluster digest", CLI_OK, "are equal", "");
	s.lost = true;
	expect("cluster digest", CLI_FAILED, "DIFFER", "");
}

/* A write is repeated with the request id of the first attempt. */
static void retries(void **state)
{
	const Skerry__V1__DeleteNodeRequest *first, *last;

	(void)state;
	fail_next(ERR_UNAVAILABLE, "NO_QUORUM", "no leader", 3);
	expect("node delete tailnets/7/nodes/1", CLI_OK, "deleted", "");
	assert_int_equal(s.n_seen, 4);
	first = seen(0, &skerry__v1__delete_node_request__descriptor);
	last = seen(3, &skerry__v1__delete_node_request__descriptor);
	assert_int_equal(strlen(first->request_id), 32);
	assert_string_equal(first->request_id, last->request_id);
}

/* Without a quorum reads say how they are answered nevertheless. */
static void local_reads(void **state)
{
	(void)state;
	fail_next(ERR_UNAVAILABLE, "NO_QUORUM", "no leader", FAILURES);
	expect("node list --tailnet 7 --timeout 300ms", CLI_BUSY, "", "no leader: add --local");
	assert_string_equal(s.read, "");
	reset(NULL);
	expect("node list --tailnet 7 --local", CLI_OK, "NAME", "");
	assert_string_equal(s.read, "local");
	expect("node delete tailnets/7/nodes/1 --local", CLI_USAGE, "", "--local");
	reset(NULL);
}

static void retries_end(void **state)
{
	(void)state;
	fail_next(ERR_UNAVAILABLE, "NO_QUORUM", "no leader", FAILURES);
	expect("node delete tailnets/7/nodes/1 --timeout 300ms", CLI_BUSY, "", "no leader");
	assert_in_range(s.n_seen, 2, 3);
	reset(NULL);
	fail_next(ERR_DENIED, "ROLE_TOO_LOW", "asks for a role", 1);
	expect("node delete tailnets/7/nodes/1", CLI_DENIED, "", "asks for a role");
	assert_int_equal(s.n_seen, 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, reset, reset)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(status_for_people),
		TEST(addresses),
		TEST(up_sends_what_was_named),
		TEST(key_of_another_kind),
		TEST(approval),
		TEST(up_waits_and_says_for_what),
		TEST(interrupted),
		TEST(ping),
		TEST(set),
		TEST(statuses),
		TEST(field_of_error),
		TEST(pages_are_joined),
		TEST(names),
		TEST(auth_key),
		TEST(digest),
		TEST(retries),
		TEST(local_reads),
		TEST(retries_end),
	};

	return cmocka_run_group_tests(tests, server_start, server_stop);
}
