/* The end of a context of asynchronous writes keeps nobody waiting; other calls of the system are as they were. LIBS: cluster */
#include "tests/lib/test.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "cluster/raft_aio.h"

enum { WAIT_MS = 60000 };

static void a_context_ends_elsewhere(void **state)
{
	uint64_t until = clock_mono_ms() + WAIT_MS;
	unsigned before = raft_aio_ended(), first = raft_aio_handed();
	aio_context_t ctx = 0;

	(void)state;
	raft_aio_init();
	if (syscall(SYS_io_setup, 8, &ctx) != 0) {
		skip(); /* a kernel without them: libraft does without, too */
	}
	assert_int_equal(syscall(SYS_io_destroy, ctx), 0);
	assert_int_equal(raft_aio_handed(), first + 1);
	while (raft_aio_ended() == before && clock_mono_ms() < until) {
		usleep(1000);
	}
	assert_int_equal(raft_aio_ended(), before + 1);
	/* It is gone: the kernel does not know it any more. */
	assert_int_equal(syscall(SYS_io_getevents, ctx, 0, 0, NULL, NULL), -1);
	assert_int_equal(errno, EINVAL);
}

static void other_calls(void **state)
{
	int end[2];
	char c = 0;

	(void)state;
	assert_int_equal(syscall(SYS_getpid), getpid());
	assert_int_equal(pipe(end), 0);
	assert_int_equal(syscall(SYS_write, end[1], "x", 1), 1);
	assert_int_equal(syscall(SYS_read, end[0], &c, 1), 1);
	assert_int_equal(c, 'x');
	close(end[0]);
	close(end[1]);
	assert_int_equal(syscall(SYS_close, -1), -1);
	assert_int_equal(errno, EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_context_ends_elsewhere),
		cmocka_unit_test(other_calls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
