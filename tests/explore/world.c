/* SPDX-License-Identifier: MIT */
/*
 * world.c -- the kernel, the clocks and the memory that code in a model sees.
 *
 *     futex           explore_wait() and explore_wake()
 *     tgkill          explore_interrupt()
 *     membarrier      there: empties every store buffer; or refused, see world_light_fences
 *     clocks          stand still, see explore.h; before the threads run they tick
 *     memory          one arena, handed out from its beginning, at the same addresses each time
 *
 * A page of the arena is unreadable until it is touched for the first time. So the pages that
 * matter are known, few, and put back by copying them. Freed blocks are filled with 0xdd; nothing
 * is handed out twice.
 *
 * Threads: one.
 */
#include "tests/explore/world.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "mem/stack.h"
#include "tests/explore/explore.h"

#if defined(RV_ASAN)
#include <sanitizer/asan_interface.h>
#endif

#define ARENA_BYTES ((size_t)64 << 30)
enum { PAGE = 4096, PAGES_MAX = 16384, HEAD = 64, STACK_BYTES = 65536 };

bool world_light_fences;
void (*world_handler)(void);

static struct {
    unsigned char *base;
    size_t used, used_saved;
    struct {
        unsigned char *at, *saved;      /* saved NULL: it was not touched then, and is zero */
    } page[PAGES_MAX];
    unsigned pages;
    void *signal_stack;
} arena;

struct world_own world_own(void)
{
    return (struct world_own){ (unsigned char *)&arena, (unsigned char *)(&arena + 1) };
}

static void touched(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    unsigned char *at = info->si_addr;
    bool ours = arena.base && at >= arena.base && at < arena.base + ARENA_BYTES;
    unsigned char *page = arena.base + (ours ? (size_t)(at - arena.base) / PAGE * PAGE : 0);
    if (!ours || arena.pages == PAGES_MAX || mprotect(page, PAGE, PROT_READ | PROT_WRITE) < 0) {
        signal(signal_number, SIG_DFL);
        explore_crashed();
        return;
    }
    arena.page[arena.pages].saved = NULL;
    arena.page[arena.pages++].at = page;
}

static void make_arena(void)
{
    arena.signal_stack = malloc(STACK_BYTES);
    stack_t stack = { .ss_sp = arena.signal_stack, .ss_size = STACK_BYTES };
    struct sigaction action = { .sa_sigaction = touched, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    arena.base = mmap(NULL, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                      0);
    if (arena.base == MAP_FAILED || arena.signal_stack == NULL || sigaltstack(&stack, NULL) < 0 ||
        sigaction(SIGSEGV, &action, NULL) < 0) {
        perror("explore: the arena");
        abort();
    }
}

void world_clear(void)
{
    if (!arena.base)
        make_arena();
    for (unsigned i = 0; i < arena.pages; i++) {
        madvise(arena.page[i].at, PAGE, MADV_DONTNEED);
        mprotect(arena.page[i].at, PAGE, PROT_NONE);
        free(arena.page[i].saved);
    }
    arena.pages = 0;
    arena.used = 0;
}

void world_save(void)
{
    for (unsigned i = 0; i < arena.pages; i++) {
        arena.page[i].saved = malloc(PAGE);
        if (arena.page[i].saved == NULL)
            abort();
        memcpy(arena.page[i].saved, arena.page[i].at, PAGE);
    }
    arena.used_saved = arena.used;
}

void world_restore(void)
{
    for (unsigned i = 0; i < arena.pages; i++) {
#if defined(RV_ASAN)
        __asan_unpoison_memory_region(arena.page[i].at, PAGE);
#endif
        if (arena.page[i].saved)
            memcpy(arena.page[i].at, arena.page[i].saved, PAGE);
        else
            memset(arena.page[i].at, 0, PAGE);
    }
    arena.used = arena.used_saved;
}

static void *take(size_t bytes, size_t align)
{
    arena.used = (arena.used + align - 1) & ~(align - 1);
    void *at = arena.base + arena.used;
    arena.used += bytes;
    if (arena.used > ARENA_BYTES)
        explore_fail("takes more memory than the arena has");
    return at;
}

/* ---- memory ---- */

void *world_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
    (void)at, (void)prot, (void)flags, (void)fd, (void)offset;
    return take(bytes, 65536);
}

int world_munmap(void *start, size_t bytes)
{
    (void)start, (void)bytes;
    return 0;
}

int world_mprotect(void *start, size_t bytes, int prot)
{
    (void)start, (void)bytes, (void)prot;
    return 0;
}

/* No guards: mem/stack.c falls back on canaries. */
int world_madvise(void *start, size_t bytes, int advice)
{
    (void)start, (void)bytes, (void)advice;
    errno = EINVAL;
    return -1;
}

/* The size of a block stands before it. */
static void *block(size_t bytes, size_t align)
{
    if (align < HEAD)
        align = HEAD;
    unsigned char *at = (unsigned char *)take(bytes + align, align) + align;
    memcpy(at - sizeof bytes, &bytes, sizeof bytes);
    return at;
}

void *world_malloc(size_t bytes)
{
    return memset(block(bytes, HEAD), 0xdd, bytes);
}

void *world_calloc(size_t n, size_t bytes)
{
    return memset(block(n * bytes, HEAD), 0, n * bytes);
}

int world_posix_memalign(void **ret_block, size_t align, size_t bytes)
{
    *ret_block = memset(block(bytes, align), 0xdd, bytes);
    return 0;
}

void world_free(void *start)
{
    size_t bytes;
    if (start == NULL)
        return;
    memcpy(&bytes, (unsigned char *)start - sizeof bytes, sizeof bytes);
    if (bytes == SIZE_MAX)
        explore_fail("a block was freed twice");
    memset(start, 0xdd, bytes);
    bytes = SIZE_MAX;
    memcpy((unsigned char *)start - sizeof bytes, &bytes, sizeof bytes);
}

/* ---- the clocks ---- */

static int64_t ticking(void)
{
    static int64_t outside = INT64_C(500000000);
    return explore_self() < 0 ? outside += 1000 : explore_now();
}

int world_clock_gettime(clockid_t clock, struct timespec *ret_time)
{
    (void)clock;
    int64_t now = ticking();
    *ret_time = (struct timespec){ now / 1000000000, now % 1000000000 };
    return 0;
}

/* One tick is a nanosecond. */
unsigned long long world_rdtsc(void)
{
    return (unsigned long long)ticking();
}

/* The others go on; it is tried again when one of them has written something. */
int world_relax(void)
{
    explore_relax();
    return 0;
}

/* The bounds of the stack are not known: context.c then takes narrower ones. */
int world_getattr(pthread_t thread, pthread_attr_t *ret_attr)
{
    (void)thread, (void)ret_attr;
    return ENOSYS;
}

/* ---- system calls ---- */

static long futex(uint32_t *word, int op, uint32_t v, const struct timespec *timeout)
{
    if (op == FUTEX_WAKE_PRIVATE)
        return explore_wake(word, (int)v);
    int64_t until = INT64_MAX;
    if (op != FUTEX_WAIT_PRIVATE)
        explore_fail("a futex call that the explorer does not know");
    if (timeout)
        until = explore_now() + timeout->tv_sec * INT64_C(1000000000) + timeout->tv_nsec;
    if (explore_wait(word, v, until, "a futex"))
        return 0;
    errno = ETIMEDOUT;
    return -1;
}

static long membarrier(int cmd)
{
    if (!world_light_fences) {
        errno = ENOSYS;
        return -1;
    }
    if (cmd == MEMBARRIER_CMD_PRIVATE_EXPEDITED)
        explore_membarrier();
    return 0;
}

long world_syscall(long nr, ...)
{
    va_list args;
    va_start(args, nr);
    long r = -1;
    if (nr == SYS_futex) {
        uint32_t *word = va_arg(args, uint32_t *);
        int op = va_arg(args, int);
        uint32_t v = (uint32_t)va_arg(args, int);
        r = futex(word, op, v, va_arg(args, const struct timespec *));
    } else if (nr == SYS_tgkill) {
        (void)va_arg(args, long);
        explore_interrupt((unsigned)va_arg(args, long) - 1, world_handler);
        r = 0;
    } else if (nr == SYS_membarrier) {
        r = membarrier(va_arg(args, int));
    } else {
        explore_fail("system call %ld, which the explorer does not know", nr);
    }
    va_end(args);
    return r;
}
