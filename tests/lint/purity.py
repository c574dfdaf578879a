#!/usr/bin/python3
"""Purity lint: the tailnet library (the domain) has no clock, no randomness, no I/O, no log, no thread and no event loop.
Usage: purity.py LIBRARY.a. Looks at the undefined symbols of its objects."""
import re
import subprocess
import sys

FORBIDDEN = """
time time64 gettimeofday clock_gettime clock clock_getres ftime timespec_get localtime localtime_r gmtime gmtime_r mktime
timegm strftime ctime ctime_r asctime tzset nanosleep sleep usleep
rand rand_r srand random srandom random_r drand48 lrand48 mrand48 arc4random arc4random_buf arc4random_uniform getrandom
getentropy randombytes_buf randombytes_random randombytes_uniform randombytes_stir RAND_bytes
socket bind listen accept accept4 connect send sendto sendmsg recv recvfrom recvmsg getaddrinfo gethostbyname shutdown
open open64 openat creat close read pread pread64 write pwrite pwrite64 readv writev fsync fdatasync stat stat64 fstat
fstat64 lstat lstat64 access unlink rename mkdir opendir readdir mmap mmap64 munmap ioctl fcntl fcntl64 poll epoll_wait
epoll_create1 select pipe pipe2 dup dup2 eventfd
fopen fopen64 freopen fdopen fclose fread fwrite fputs fputc putc putchar puts printf fprintf vprintf vfprintf dprintf
vdprintf perror fflush getline getc fgetc fgets scanf fscanf syslog vsyslog stdin stdout stderr
__printf_chk __fprintf_chk __vprintf_chk __vfprintf_chk __dprintf_chk __vdprintf_chk __syslog_chk
log_write log_msg log_debug log_info log_notice log_warn log_error log_emit
getenv secure_getenv setenv putenv unsetenv setlocale uname gethostname getpid getppid getuid geteuid gettid
fork vfork execve execvp posix_spawn system popen kill raise signal sigaction waitpid
thrd_create mtx_lock tss_get sem_wait sem_post
""".split()
PREFIXES = ("pthread_", "uv_", "raft_", "mdb_", "SSL_", "nghttp2_", "llhttp_", "sd_", "nft_", "mnl_", "json_", "yaml_", "log_")


def main():
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    out = subprocess.run(["nm", "-A", "-u", sys.argv[1]], capture_output=True, text=True)
    if out.returncode:
        print(out.stderr)
        return 2
    forbidden = set(FORBIDDEN)
    bad, objects = [], set()
    for line in out.stdout.splitlines():
        m = re.match(r"(.*): +[UwWv] (\S+)$", line)
        if not m:
            continue
        symbol = m[2].split("@")[0]
        objects.add(m[1])
        if symbol in forbidden or symbol.startswith(PREFIXES):
            bad.append(f"{m[1].split('/')[-1]}: uses {symbol}")
    for line in sorted(set(bad)):
        print(line)
    print(f"purity: {len(objects)} objects, {len(bad)} forbidden symbols")
    if not objects:
        print("no object with an undefined symbol: is that the right library?")
        return 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
