/* Replays a fuzz corpus with an ordinary compiler: runs each file named, or each file of a folder named. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned replayed;

/* Exactly as many bytes as the file has are allocated, so that a sanitizer sees a read past the end. */
static int replay_file(const char *path, size_t size)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data = malloc(size ? size : 1);
	int rv = -1;

	if (file && data && fread(data, 1, size, file) == size) {
		printf("%s (%zu bytes)\n", path, size);
		fflush(stdout);
		(void)LLVMFuzzerTestOneInput(data, size);
		replayed++;
		rv = 0;
	} else {
		fprintf(stderr, "%s: cannot read: %s\n", path, strerror(errno));
	}
	free(data);
	if (file)
		fclose(file);
	return rv;
}

static int replay(const char *path)
{
	char child[4096];
	struct dirent *entry;
	struct stat st;
	int rv = 0;
	DIR *dir;

	if (stat(path, &st)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	if (!S_ISDIR(st.st_mode))
		return replay_file(path, (size_t)st.st_size);
	dir = opendir(path);
	if (!dir)
		return -1;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		rv |= replay(child);
	}
	closedir(dir);
	return rv;
}

int main(int argc, char **argv)
{
	int rv = 0;

	(void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
	for (int i = 1; i < argc; i++)
		rv |= replay(argv[i]);
	printf("%u inputs replayed\n", replayed);
	if (argc > 1 && !replayed) {
		fprintf(stderr, "the corpus is empty\n");
		return 1;
	}
	return rv ? 1 : 0;
}
