/* decode_main.c - kiln-decode: one picture from standard input to pixels on standard output, in a process
 * that may read, write, get memory, and end. reliability F2. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <seccomp.h>

#include "image/apart.h"

#define MEMORY_BYTES (512ul << 20)
#define CPU_SECONDS 5

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1 /* the sanitizer's shadow memory needs more than a real decoder may have */
#else
#define SANITIZED 0
#endif

static void set_limit(int what, rlim_t value)
{
    struct rlimit limit = {value, value};
    if (setrlimit(what, &limit)) _exit(1);
}

static void shut_in(void)
{
    static const int allowed[] = {
        SCMP_SYS(read),      SCMP_SYS(write), SCMP_SYS(exit_group),   SCMP_SYS(exit),
        SCMP_SYS(brk),       SCMP_SYS(mmap),  SCMP_SYS(munmap),       SCMP_SYS(mremap),
        SCMP_SYS(madvise),   SCMP_SYS(futex), SCMP_SYS(rt_sigreturn), SCMP_SYS(clock_gettime),
        SCMP_SYS(getrandom),
    };
    set_limit(RLIMIT_CPU, CPU_SECONDS);
    set_limit(RLIMIT_FSIZE, 0);
    set_limit(RLIMIT_CORE, 0);
    if (SANITIZED) return;
    set_limit(RLIMIT_AS, MEMORY_BYTES);
    set_limit(RLIMIT_NOFILE, 3);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!filter) _exit(1);
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0)) _exit(1);
    if (seccomp_load(filter)) _exit(1);
    /* the filter's memory is not given back: freeing needs nothing more, but nothing is gained */
}

static void put(const void *data, size_t length)
{
    const uint8_t *at = data;
    while (length) {
        ssize_t n = write(STDOUT_FILENO, at, length);
        if (n <= 0) _exit(1);
        at += n;
        length -= (size_t)n;
    }
}

static int read_input(struct buf *in)
{
    for (;;) {
        uint8_t *to = buf_reserve(in, 1 << 16, NULL);
        ssize_t n = to ? read(STDIN_FILENO, to, 1 << 16) : -1;
        if (n < 0) return -1;
        if (n == 0) return 0;
        buf_commit(in, (size_t)n);
    }
}

int main(void)
{
    struct buf in;
    struct pixels p;
    struct error err = {0};
    shut_in();
    buf_init(&in, CODEC_BYTES_MAX + (1 << 16));
    if (read_input(&in)) _exit(1);
    int rc = codec_decode(&p, NULL, "of the job", in.data, in.length, &err);
    struct apart_head head = {.code = (uint32_t)rc};
    if (rc) {
        head.width = (uint32_t)strlen(err.text);
        put(&head, sizeof head);
        put(err.text, strlen(err.text));
    } else {
        head = (struct apart_head){(uint32_t)p.width, (uint32_t)p.height, (uint32_t)p.channels, 0};
        put(&head, sizeof head);
        put(p.data, (size_t)p.width * (size_t)p.height * (size_t)p.channels);
    }
    _exit(0);
}
