/* The agent and its lighthouses: registration, failover, staleness. */
#include "tests/component/agent/world.h"

static void registers_and_applies(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__Status *s;
	struct arena arena;
	int at;

	up(w);
	at = attached_to(w);
	assert_true(at >= 0);
	assert_string_equal(w->lh[at].last_key, w->key);
	assert_int_equal(w->lh[at].bad_proofs, 0);
	assert_int_equal(w->wg.mesh.n_peers, 3);
	assert_int_equal(w->wg.mesh.listen_port, 41641);
	assert_memory_equal(w->wg.mesh.private_key, w->agent->identity.node_secret, 32);
	assert_true(w->host.mesh.up);
	assert_int_equal(w->host.mesh.mtu, 1280);
	assert_int_equal(w->host.mesh.n_addrs, 4); /* own two, service two */
	assert_int_equal(w->host.mesh.n_routes, 2);
	assert_int_equal(w->wg.mesh.peers[0].endpoint.port, 41641);
	RUN_UNTIL(w, 3000, w->lh[at].last_endpoints == 1);
	for (const char *const *step =
		     (const char *const[]){"1:", "2:", "3:", "4:", "6:", "7:", "8:", NULL};
	     *step; step++) {
		assert_contains(w->up_text, *step);
	}

	s = status(w, &arena);
	assert_int_equal(s->state, SKERRY__LOCAL__V1__STATE__STATE_RUNNING);
	assert_int_equal(s->n_peers, 3);
	assert_string_equal(s->self->dns_name, "device.home.internal");
	assert_string_equal(s->peers[0]->addresses[0], "100.64.0.2");
	assert_string_equal(s->filter, "none");
	assert_int_equal(s->n_refusals, 0);
	assert_int_equal(s->control->revision->revision, 100);
	arena_done(&arena);
}

static void refused_key_is_told(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].refuse_key = true;
	}
	up_start(w, w->key, 10000);
	RUN_UNTIL(w, 5000, w->up_done);
	assert_int_equal(w->up_status.code, ERR_UNAUTHENTICATED);
	assert_string_equal(w->up_status.reason, "KEY_UNKNOWN");
	assert_int_equal(w->wg.mesh.n_peers, 0);
	assert_false(w->host.mesh.up);
	assert_int_equal(info(w).phase, CONTROL_OFF);
}

/* A wrong pin: the handshake fails, Register is never called, so the key was never sent. */
static void wrong_pin_gets_no_key(void **state)
{
	struct world *w = *state;
	uint8_t pin[32] = {1};

	make_key(w, pin, FAKE_CLUSTER);
	up_start(w, w->key, 10000);
	RUN_UNTIL(w, 11000, w->up_done);
	assert_int_equal(w->up_status.code, ERR_UNAUTHENTICATED);
	assert_string_equal(w->up_status.reason, "WRONG_PIN");
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		assert_int_equal(w->lh[i].registers, 0);
		assert_int_equal(w->lh[i].connections, 0);
	}
}

static void cut_key_is_refused_before_traffic(void **state)
{
	struct world *w = *state;

	w->key[strlen(w->key) - 3] = '\0';
	up_start(w, w->key, 5000);
	RUN_UNTIL(w, 5000, w->up_done);
	assert_int_equal(w->up_status.code, ERR_INVALID);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		assert_int_equal(w->lh[i].connections, 0);
	}
}

/* A key without a pin goes to a host that the system's roots vouch for: there the pin is learnt, then all is as ever. */
static void key_without_pin_learns_it(void **state)
{
	struct world *w = *state;
	struct fake_ca web;
	struct key key;
	struct buf text = BUF_INIT;
	char *roots = mem_printf("%s/roots.pem", w->dir);

	fake_ca_init(&web);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		fake_web(&w->lh[i], &web);
	}
	key_generate(&key, KEY_AUTH, 6);
	key_format(&key, &text);
	/* Roots that do not know the host: the key is not sent. */
	setenv("SSL_CERT_FILE", "/nonexistent", 1);
	up_start(w, buf_str(&text), 1500);
	RUN_UNTIL(w, 30000, w->up_done);
	assert_string_equal(w->up_status.reason, "LIGHTHOUSE_AWAY");
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		assert_int_equal(w->lh[i].registers, 0);
		assert_string_equal(w->lh[i].last_key, "");
	}
	assert_ok(file_write_atomic(roots, web.pem, strlen(web.pem), 0644, NULL));
	setenv("SSL_CERT_FILE", roots, 1);
	up_start(w, buf_str(&text), 8000);
	RUN_UNTIL(w, 9000, w->up_done);
	assert_int_equal(w->up_status.code, 0);
	assert_memory_equal(w->agent->identity.enrolment.pin, w->ca.pin, 32);
	assert_int_equal(w->agent->identity.enrolment.cluster_id, FAKE_CLUSTER);
	assert_string_equal(w->lh[attached_to(w)].last_key, buf_str(&text));
	unsetenv("SSL_CERT_FILE");
	mem_free(roots);
	buf_done(&text);
	fake_ca_done(&web);
}

static void waits_for_approval(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__Status *s;
	struct arena arena;

	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].want_approval = true;
	}
	up_start(w, "", 20000); /* no key, no pin: the first contact is taken on trust */
	RUN_UNTIL(w, 5000, strstr(w->up_text, "abcd-efgh") != NULL);
	assert_int_equal(info(w).phase, CONTROL_PENDING);
	s = status(w, &arena);
	assert_int_equal(s->state, SKERRY__LOCAL__V1__STATE__STATE_NEEDS_APPROVAL);
	assert_string_equal(s->approval->code, "abcd-efgh");
	arena_done(&arena);
	assert_int_equal(w->wg.mesh.n_peers, 0);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].approved = true;
	}
	RUN_UNTIL(w, 8000, w->up_done);
	assert_int_equal(w->up_status.code, 0);
	assert_int_equal(w->wg.mesh.n_peers, 3);
	assert_memory_equal(w->agent->identity.enrolment.pin, w->ca.pin, 32);
}

static void approval_timeout_names_the_code(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].want_approval = true;
	}
	up_start(w, "", 60000);
	RUN_UNTIL(w, 30000, info(w).phase == CONTROL_PENDING);
	/* The code is known by now, however slow the machine is: what is left is the wait. */
	up_start(w, "", 400);
	RUN_UNTIL(w, 30000, w->up_done);
	assert_int_equal(w->up_status.code, ERR_DEADLINE);
	assert_string_equal(w->up_status.reason, "APPROVAL_TIMEOUT");
	assert_contains(w->up_status.msg, "abcd-efgh");
}

/* The agent ends while a person is asked: the next one waits on, for the same code and the same cluster, and comes up. */
static void waits_on_after_a_restart(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].want_approval = true;
	}
	up_start(w, "", 60000);
	RUN_UNTIL(w, 30000, info(w).phase == CONTROL_PENDING);
	agent_end(w);
	agent_begin(w);
	assert_true(w->agent->identity.enrolment.has_pin);
	assert_string_equal(info(w).pending_code, "abcd-efgh");
	RUN_UNTIL(w, 30000,
		  strcmp(w->lh[0].last_code, "abcd-efgh") == 0 ||
			  strcmp(w->lh[1].last_code, "abcd-efgh") == 0 ||
			  strcmp(w->lh[2].last_code, "abcd-efgh") == 0);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].approved = true;
	}
	RUN_UNTIL(w, 30000, attached_to(w) >= 0);
	RUN_UNTIL(w, 30000, w->wg.mesh.n_peers == 3);
	assert_string_equal(w->agent->identity.enrolment.pending_code, "");
	/* Once is enough: the next start is that of any registered device. */
	agent_end(w);
	agent_begin(w);
	assert_string_equal(info(w).pending_code, "");
}

/* Refused meanwhile: it does not ask again by itself. */
static void a_refusal_ends_the_wait(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].want_approval = true;
	}
	up_start(w, "", 60000);
	RUN_UNTIL(w, 30000, info(w).phase == CONTROL_PENDING);
	agent_end(w);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].refuse_key = true;
	}
	agent_begin(w);
	RUN_UNTIL(w, 30000, info(w).phase == CONTROL_OFF);
	assert_string_equal(w->agent->identity.enrolment.pending_code, "");
	agent_end(w);
	agent_begin(w);
	assert_string_equal(info(w).pending_code, "");
	assert_int_equal(info(w).phase, CONTROL_OFF);
}

/* A lighthouse that answers "too many" has answered. */
static void a_rate_limit_is_told(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].too_many = true;
	}
	up_start(w, "", 60000);
	RUN_UNTIL(w, 30000, info(w).answered != NULL);
	while (!w->up_done) {
		up_start(w, "", 2000);
		RUN_UNTIL(w, 30000, w->up_done);
		/* A slow machine may not have come to an answer: then the next one. */
		if (w->up_status.code != ERR_LIMIT) {
			w->up_done = false;
		}
	}
	assert_string_equal(w->up_status.reason, "TOO_MANY_PENDING");
	assert_contains(w->up_status.msg, "not registered yet: too many devices");
}

/* A key that this device cannot use, even by force, costs it nothing; one that it does not need is not used in silence. */
static void useless_keys_change_nothing(void **state)
{
	struct world *w = *state;
	const struct enrolment *en = &w->agent->identity.enrolment;
	uint8_t pin[32] = {1};

	up(w);
	up(w);
	assert_contains(w->up_text, "the key was not used");
	w->force = true;
	make_key(w, pin, FAKE_CLUSTER + 1);
	up_start(w, w->key, 3000);
	RUN_UNTIL(w, 5000, w->up_done);
	assert_string_equal(w->up_status.reason, "WRONG_CLUSTER");
	make_key(w, pin, FAKE_CLUSTER);
	up_start(w, w->key, 3000);
	RUN_UNTIL(w, 5000, w->up_done);
	assert_string_equal(w->up_status.reason, "WRONG_PIN");
	assert_int_equal(en->cluster_id, FAKE_CLUSTER);
	assert_memory_equal(en->pin, w->ca.pin, 32);

	make_key(w, w->ca.pin, FAKE_CLUSTER);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].key_in_use = true;
	}
	up_start(w, w->key, 3000);
	RUN_UNTIL(w, 5000, w->up_done);
	assert_string_equal(w->up_status.reason, "NODE_KEY_IN_USE");
	assert_contains(w->up_status.msg, "skerry logout");
	RUN_UNTIL(w, 5000, attached_to(w) >= 0);
	assert_true(en->registered);
	assert_int_equal(w->wg.mesh.n_peers, 3);
}

/* The killed lighthouse is replaced at once, with a higher session number, and nothing of the mesh is touched. */
static void killed_lighthouse_is_replaced(void **state)
{
	struct world *w = *state;
	uint64_t worst = 0;

	up(w);
	for (int round = 0; round < 3; round++) {
		int at = attached_to(w);
		size_t ops = w->wg.ops, before;
		uint64_t session = info(w).session, took;

		assert_true(at >= 0);
		before = clock_mono_ms();
		fake_kill(&w->lh[at]);
		RUN_UNTIL(w, 2000, attached_to(w) >= 0 && attached_to(w) != at);
		took = clock_mono_ms() - before;
		worst = MAX(worst, took);
		assert_true(info(w).session > session);
		assert_true(w->lh[attached_to(w)]
				    .last_had_have); /* resumes, does not ask for everything */
		assert_int_equal(w->lh[attached_to(w)].last_have_revision, 100);
		assert_int_equal(w->wg.ops, ops);
		fake_restart(&w->lh[at]);
	}
	print_message("reattach after a kill: at most %d ms\n", (int)worst);
	assert_true(worst < 500);
}

static void all_away_and_back(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__Status *s;
	struct arena arena;
	size_t ops;

	up(w);
	ops = w->wg.ops;
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		fake_kill(&w->lh[i]);
	}
	RUN_UNTIL(w, 2000, info(w).phase == CONTROL_WAITING);
	s = status(w, &arena);
	assert_int_equal(s->state, SKERRY__LOCAL__V1__STATE__STATE_DETACHED);
	assert_true(s->control->problem[0] != '\0');
	arena_done(&arena);
	run_for(w, 1000);
	assert_int_equal(w->wg.mesh.n_peers, 3);
	assert_int_equal(w->wg.ops, ops);
	fake_restart(&w->lh[1]);
	RUN_UNTIL(w, 6000, attached_to(w) == 1);
}

/* A lighthouse whose call ends each time is not hammered. */
static void failing_lighthouse_is_not_hammered(void **state)
{
	struct world *w = *state;

	up(w);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].fail_code = ERR_UNAVAILABLE;
	}
	fake_kill(&w->lh[attached_to(w)]);
	RUN_UNTIL(w, 2000, attached_to(w) < 0);
	run_for(w, 2000);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		assert_true(w->lh[i].connections < 25);
		w->lh[i].fail_code = 0;
	}
	RUN_UNTIL(w, 6000, attached_to(w) >= 0);
}

/* The node was deleted: the mesh stays, the status says what to do, and `up` with a key registers anew. */
static void deleted_node_registers_anew(void **state)
{
	struct world *w = *state;
	Skerry__Local__V1__Status *s;
	struct arena arena;

	up(w);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		fake_kill(&w->lh[i]);
	}
	w->lh[0].forgot = true;
	fake_restart(&w->lh[0]);
	RUN_UNTIL(w, 6000, info(w).unknown);
	s = status(w, &arena);
	assert_int_equal(s->state, SKERRY__LOCAL__V1__STATE__STATE_NEEDS_LOGIN);
	assert_contains(s->control->problem, "not registered");
	arena_done(&arena);
	assert_int_equal(w->wg.mesh.n_peers, 3);
	w->lh[0].last_key[0] = '\0';
	up(w);
	assert_string_equal(w->lh[0].last_key, w->key);
	assert_int_equal(attached_to(w), 0);
	assert_false(info(w).unknown);
}

static void mute_lighthouse_is_left(void **state)
{
	struct world *w = *state;

	w->lh[0].mute = w->lh[1].mute = true;
	fake_kill(&w->lh[2]);
	up_start(w, w->key, 20000);
	run_for(w, 1000);
	w->lh[0].mute = w->lh[1].mute = false;
	RUN_UNTIL(w, 8000, w->up_done);
	assert_int_equal(w->up_status.code, 0);
}

/* Pings are answered, heartbeats do not come: no, the other way: no quorum, and another one has it. */
static void moves_away_without_quorum(void **state)
{
	struct world *w = *state;
	int at;

	up(w);
	at = attached_to(w);
	w->lh[at].quorum_age_ms = 6000;
	RUN_UNTIL(w, 5000, attached_to(w) != at && attached_to(w) >= 0);
	/* Nobody has a quorum: it stays where it is. */
	at = attached_to(w);
	for (size_t i = 0; i < LIGHTHOUSES; i++) {
		w->lh[i].quorum_age_ms = 6000;
	}
	run_for(w, 1500);
	assert_int_equal(attached_to(w), at);
}

static void stale_lighthouse_is_refused(void **state)
{
	struct world *w = *state;
	struct fake_map old;
	int at;

	up(w);
	at = attached_to(w);
	fake_map_init(&old, w->agent->identity.node_key, 1);
	old.revision.revision = 50;
	for (int i = 0; i < LIGHTHOUSES; i++) {
		if (i != at && i != (at + 1) % LIGHTHOUSES) {
			w->lh[i].netmap = &old.chunk;
		}
	}
	fake_kill(&w->lh[at]);
	/* It may ask the stale one first; it ends at the other, with the map that it had. */
	RUN_UNTIL(w, 5000, attached_to(w) == (at + 1) % LIGHTHOUSES);
	run_for(w, 300);
	assert_int_equal(attached_to(w), (at + 1) % LIGHTHOUSES);
	assert_int_equal(w->agent->netmap.revision, 100);
	assert_int_equal(w->wg.mesh.n_peers, 3);
}

static void deltas_are_applied(void **state)
{
	struct world *w = *state;
	Skerry__V1__NetmapDelta delta = SKERRY__V1__NETMAP_DELTA__INIT;
	Skerry__V1__NetmapPeer *peers[1];
	uint64_t removed[] = {3}, visible[] = {4};
	struct fake_map more;
	int at;

	up(w);
	at = attached_to(w);
	fake_map_init(&more, w->agent->identity.node_key, 5);
	peers[0] = more.peers[4];
	delta.peers = peers;
	delta.n_peers = 1;
	delta.removed = removed;
	delta.n_removed = 1;
	assert_true(fake_send_delta(&w->lh[at], &delta, FAKE_EPOCH, 101));
	RUN_UNTIL(w, 2000,
		  w->agent->netmap.revision == 101 &&
			  mesh_find_peer(&w->wg.mesh, more.peer_key[4]) != NULL);
	assert_null(mesh_find_peer(&w->wg.mesh, more.peer_key[1]));
	assert_int_equal(w->wg.mesh.n_peers, 3);

	skerry__v1__netmap_delta__init(&delta);
	delta.visible_complete = true;
	delta.visible = visible;
	delta.n_visible = 1;
	assert_true(fake_send_delta(&w->lh[at], &delta, FAKE_EPOCH, 102));
	RUN_UNTIL(w, 2000, w->wg.mesh.n_peers == 1);
	assert_non_null(mesh_find_peer(&w->wg.mesh, more.peer_key[2]));

	/* A delta of another epoch is no use: everything is asked for anew. */
	w->map.revision.epoch = FAKE_EPOCH + 1;
	w->map.revision.revision = 7;
	skerry__v1__netmap_delta__init(&delta);
	assert_true(fake_send_delta(&w->lh[at], &delta, FAKE_EPOCH + 1, 7));
	RUN_UNTIL(w, 5000, w->agent->netmap.epoch == FAKE_EPOCH + 1 && w->wg.mesh.n_peers == 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(registers_and_applies),
		T(refused_key_is_told),
		T(wrong_pin_gets_no_key),
		T(cut_key_is_refused_before_traffic),
		T(key_without_pin_learns_it),
		T(waits_for_approval),
		T(approval_timeout_names_the_code),
		T(waits_on_after_a_restart),
		T(a_refusal_ends_the_wait),
		T(a_rate_limit_is_told),
		T(useless_keys_change_nothing),
		T(killed_lighthouse_is_replaced),
		T(all_away_and_back),
		T(failing_lighthouse_is_not_hammered),
		T(deleted_node_registers_anew),
		T(mute_lighthouse_is_left),
		T(moves_away_without_quorum),
		T(stale_lighthouse_is_refused),
		T(deltas_are_applied),
	};

	world_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
