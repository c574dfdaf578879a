/* What libraft reserves is written with zeros where that makes appends quicker. LIBS: cluster */
#include "tests/lib/test.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "cluster/raft_blocks.h"

enum { SEGMENT = 8 << 20, EXTENTS = 64 };

static int file_make(int flags)
{
	char path[] = "/tmp/skerry-blocks-XXXXXX";
	int fd = mkstemp(path), ret;

	assert_true(fd >= 0);
	ret = open(path, flags);
	assert_true(ret >= 0);
	close(fd);
	unlink(path);
	return ret;
}

/* Bytes that are reserved and not written; -1: the file system does not tell. */
static long unwritten(int fd)
{
	size_t size = sizeof(struct fiemap) + EXTENTS * sizeof(struct fiemap_extent);
	struct fiemap *map = mem_zalloc(size);
	long n = 0;

	map->fm_length = FIEMAP_MAX_OFFSET;
	map->fm_extent_count = EXTENTS;
	if (ioctl(fd, FS_IOC_FIEMAP, map) != 0) {
		n = -1;
	}
	for (unsigned i = 0; n >= 0 && i < map->fm_mapped_extents; i++) {
		if ((map->fm_extents[i].fe_flags & FIEMAP_EXTENT_UNWRITTEN) != 0) {
			n += (long)map->fm_extents[i].fe_length;
		}
	}
	mem_free(map);
	return n;
}

static bool on_ext4(int fd)
{
	struct statfs f;

	return fstatfs(fd, &f) == 0 && f.f_type == EXT4_SUPER_MAGIC;
}

static void a_segment(void **state)
{
	int fd = file_make(O_WRONLY);
	int flags = fcntl(fd, F_GETFL);
	struct stat st;

	(void)state;
	raft_blocks_init();
	assert_int_equal(posix_fallocate(fd, 0, SEGMENT), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, SEGMENT);
	assert_int_equal(fcntl(fd, F_GETFL), flags);
	/* A disk that is very slow gets only a part of it; none is that slow before the first chunk. */
	if (on_ext4(fd) && unwritten(fd) >= 0) {
		assert_true(unwritten(fd) < SEGMENT);
	}
	close(fd);
}

static void what_is_no_segment(void **state)
{
	int fd = file_make(O_RDWR);

	(void)state;
	assert_int_equal(pwrite(fd, "x", 1, 5), 1);
	assert_int_equal(posix_fallocate(fd, 0, SEGMENT), 0);
	if (on_ext4(fd) && unwritten(fd) >= 0) {
		assert_true(unwritten(fd) > 0);
	}
	char c = 0;

	assert_int_equal(pread(fd, &c, 1, 5), 1);
	assert_int_equal(c, 'x');
	close(fd);
	assert_int_not_equal(posix_fallocate(fd, 0, SEGMENT), 0);
}

static void the_library_as_it_is(void **state)
{
	int fd = file_make(O_WRONLY);

	(void)state;
	assert_int_equal(raft_blocks_reserve(fd, 0, SEGMENT), 0);
	if (on_ext4(fd) && unwritten(fd) >= 0) {
		assert_int_equal(unwritten(fd), SEGMENT);
	}
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_segment),
		cmocka_unit_test(what_is_no_segment),
		cmocka_unit_test(the_library_as_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
