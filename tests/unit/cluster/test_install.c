/* A snapshot on a connection of its own: the bytes of libraft's form, each way to fail, each moment to be cut. */
/* LIBS: cluster */
#include "tests/lib/test.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "cluster/raft_install.h"
#include "cluster/raft_net.h"
#include "net/loop.h"
#include "net/stream.h"

enum { DATA = 3 << 20 };

static struct loop *loop;
static struct raft_net net;
static struct raft_message message;
static uint64_t request;
static bool refuse_at_once;
static int fired, status_seen;

static void on_connect(void *arg, uint64_t r, uint64_t id, const char *address)
{
	(void)arg;
	assert_int_equal(id, 7);
	assert_string_equal(address, "peer:1");
	request = r;
	if (refuse_at_once) {
		raft_net_connected(&net, r, 0, NULL);
	}
}

static void on_end(void *arg, int status)
{
	assert_ptr_equal(arg, &message);
	fired++;
	status_seen = status;
}

static int setup(void **state)
{
	uint8_t *data = raft_malloc(DATA);

	(void)state;
	loop = loop_new("install");
	net = (struct raft_net){.loop = loop, .connect = on_connect};
	raft_net_init(&net);
	for (size_t i = 0; i < DATA; i++) {
		data[i] = (uint8_t)(i * 7 + i / 251);
	}
	memset(&message, 0, sizeof(message));
	message.type = RAFT_INSTALL_SNAPSHOT;
	message.server_id = 7;
	message.server_address = "peer:1";
	message.install_snapshot.version = 1;
	message.install_snapshot.term = 0x0102;
	message.install_snapshot.last_index = 1000;
	message.install_snapshot.last_term = 3;
	message.install_snapshot.conf_index = 900;
	raft_configuration_init(&message.install_snapshot.conf);
	assert_int_equal(
		raft_configuration_add(&message.install_snapshot.conf, 9, "me:1", RAFT_VOTER), 0);
	message.install_snapshot.data = (struct raft_buffer){data, DATA};
	refuse_at_once = false;
	fired = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	raft_net_close(&net);
	loop_free(loop);
	raft_configuration_close(&message.install_snapshot.conf);
	raft_free(message.install_snapshot.data.base);
	return 0;
}

static struct raft_install *start(void)
{
	struct raft_install *i;

	assert_int_equal(raft_install_start(&i, &net, &message, on_end, &message), 0);
	assert_int_equal(fired, 0);
	return i;
}

/* Gives the connection that was asked for; returns the other end. */
static int connected(void)
{
	struct stream *stream;
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	assert_ok(stream_from_fd(loop, fd[0], &stream, NULL));
	raft_net_connected(&net, request, 0, stream);
	return fd[1];
}

static uint64_t word(const uint8_t *d)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--) {
		v = v << 8 | d[i];
	}
	return v;
}

static void all_of_it(void **state)
{
	uint8_t *got = mem_alloc(DATA + 4096);
	struct raft_configuration conf;
	struct raft_buffer buf;
	size_t n = 0, at = 16;
	ssize_t r = 1;
	int fd;

	(void)state;
	IGNORE(start());
	fd = connected();
	while (r != 0) {
		loop_turn(loop, false);
		r = read(fd, got + n, DATA + 4096 - n);
		n += r > 0 ? (size_t)r : 0;
	}
	assert_int_equal(fired, 1);
	assert_int_equal(status_seen, 0);
	assert_int_equal(word(got), RAFT_INSTALL_SNAPSHOT | 1 << 16);
	assert_int_equal(word(got + 8), n - 16 - DATA);
	assert_int_equal(word(got + at), 0x0102);
	assert_int_equal(word(got + at + 8), 1000);
	assert_int_equal(word(got + at + 16), 3);
	assert_int_equal(word(got + at + 24), 900);
	buf.len = word(got + at + 32);
	buf.base = got + at + 40;
	assert_int_equal(raft_configuration_decode(&buf, &conf), 0);
	assert_int_equal(conf.n, 1);
	assert_int_equal(conf.servers[0].id, 9);
	raft_configuration_close(&conf);
	at += 40 + buf.len;
	assert_int_equal(word(got + at), DATA);
	assert_int_equal(word(got + at + 8), 0);
	assert_int_equal(n, at + 16 + DATA);
	assert_memory_equal(got + at + 16, message.install_snapshot.data.base, DATA);
	close(fd);
	mem_free(got);
}

static void no_connection(void **state)
{
	struct raft_install *i;

	(void)state;
	refuse_at_once = true;
	assert_int_equal(raft_install_start(&i, &net, &message, on_end, &message),
			 RAFT_NOCONNECTION);
	assert_int_equal(fired, 0);
	refuse_at_once = false;
	IGNORE(start());
	raft_net_connected(&net, request, 0, NULL);
	assert_int_equal(fired, 1);
	assert_int_equal(status_seen, RAFT_NOCONNECTION);
}

static void the_peer_hangs_up(void **state)
{
	int fd;

	(void)state;
	IGNORE(start());
	fd = connected();
	loop_turn(loop, false);
	assert_int_equal(fired, 0);
	close(fd);
	while (fired == 0) {
		loop_turn(loop, true);
	}
	assert_int_equal(status_seen, RAFT_IOERR);
}

static void cut(void **state)
{
	int fd;

	(void)state;
	raft_install_cancel(NULL);
	/* While it waits for the connection, which comes all the same; and one that never comes. */
	raft_install_cancel(start());
	close(connected());
	raft_install_cancel(start());
	/* While it writes. */
	{
		struct raft_install *i = start();

		fd = connected();
		loop_turn(loop, false);
		raft_install_cancel(i);
	}
	loop_turn(loop, false);
	loop_turn(loop, false);
	close(fd);
	assert_int_equal(fired, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(all_of_it),
		T(no_connection),
		T(the_peer_hangs_up),
		T(cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
