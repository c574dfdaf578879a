/* skerry: the command that people type. */
#include <signal.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/log.h"
#include "cli/cli.h"

int main(int argc, char **argv)
{
	struct cli_io io = {stdout, stderr, isatty(STDOUT_FILENO) == 1};
	int rc;

	signal(SIGPIPE, SIG_IGN);
	log_init(&(struct log_options){.level = LOG_LEVEL_ERROR, .format = LOG_FORMAT_TEXT});
	crypto_init();
	rc = cli_main(argc, argv, &io);
	if (fflush(stdout) != 0 && rc == CLI_OK) {
		perror("skerry: cannot write the answer");
		rc = CLI_FAILED;
	}
	return rc;
}
