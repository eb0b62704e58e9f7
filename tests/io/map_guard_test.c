/* SPDX-License-Identifier: MIT */
/*
 * map_guard_test.c -- the handler of SIGBUS that a program may ask for: what it mends, what it
 * marks, and what it leaves to others.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <ucontext.h>

#include "io/map.h"
#include "tests/io/map_files.h"

#define RW (REEVE_MAP_WRITE)

static void guard_on(void)
{
    CHECK_EQ(reeve_map_guard(), 0);
}

/* What a compiler must not think it knows. */
static unsigned char touch(const void *p)
{
    return *(const volatile unsigned char *)p;
}

static struct sigaction now_handled(void)
{
    struct sigaction now;
    CHECK_EQ(sigaction(SIGBUS, NULL, &now), 0);
    return now;
}

/* ---- what is mended -------------------------------------------------------------------------- */

static int breaks(void *arg)
{
    struct reeve_map m, other;
    unsigned char byte;
    struct reeve_map_stats before, after;
    (void)arg;
    guard_on();
    reeve_map_stats(&before);
    int fd = file_of(path_of("file"), 8 * PAGE, 0);
    CHECK_EQ(reeve_map_open_fd(&m, fd, RW, 0, LONG), 0);
    CHECK_EQ(reeve_map_open_fd(&other, fd, 0, 0, LONG), 0);
    CHECK_EQ(reeve_map_fetch(&m, 0, m.len, LONG), 0);
    CHECK_EQ(ftruncate(fd, 2 * PAGE + 100), 0);
    const unsigned char *data = m.data;
    errno = 4711;
    CHECK_EQ(touch(data + 5 * PAGE + 1), 0);
    CHECK_EQ(errno, 4711);
    CHECK_EQ(reeve_map_ok(&m), -EIO);
    CHECK_EQ(reeve_map_ok(&other), 0); /* of the same file: nobody touched what it lacks */
    for (int i = 3; i < 8; i++)
        CHECK_EQ(touch(data + i * PAGE), 0);
    check_pattern(data, 2 * PAGE + 100, 0); /* what the file still has is still there */
    CHECK_EQ(reeve_map_fetch(&m, 0, 1, LONG), -EIO);
    CHECK_EQ(reeve_map_prepare(&m, 0, 1, LONG), -EIO);
    CHECK_EQ(reeve_map_read(&m, 0, &byte, 1, LONG), -EIO);
    CHECK_EQ(reeve_map_write(&m, 0, &byte, 1, LONG), -EIO);
    CHECK_EQ(reeve_map_flush(&m, 0, 1, LONG), -EIO);
    CHECK_EQ(reeve_map_flush_start(&m, 0, 1, LONG), -EIO);
    CHECK_EQ(reeve_map_advise(&m, 0, 1, REEVE_MAP_HINT_RANDOM, LONG), -EIO);
    reeve_map_stats(&after);
    CHECK_EQ(after.broken, before.broken + 1);
    reeve_map_close(&m);
    CHECK_EQ(reeve_map_open_fd(&m, fd, 0, 0, LONG), 0); /* its record again, as good as new */
    CHECK_EQ(reeve_map_ok(&m), 0);
    CHECK_EQ(m.len, 2 * PAGE + 100);
    reeve_map_close(&m);
    reeve_map_close(&other);
    close(fd);
    reeve_map_unguard();
    return 0;
}

TEST(what_is_gone_reads_as_zeroes_and_breaks_the_map)
{
    RUN(breaks, .workers = 1);
    RUN(breaks, .workers = 2, .rescue_signal = -1); /* without an alternate stack */
}

static int writes(void *arg)
{
    struct reeve_map m;
    (void)arg;
    guard_on();
    int fd = file_of(path_of("file"), 4 * PAGE, 0);
    CHECK_EQ(reeve_map_open_fd(&m, fd, RW, 0, LONG), 0);
    CHECK_EQ(ftruncate(fd, 0), 0);
    memset(m.data, 'x', m.len);
    CHECK_EQ(touch((char *)m.data + 3 * PAGE), 'x');
    CHECK_EQ(reeve_map_ok(&m), -EIO);
    CHECK_EQ(reeve_map_flush(&m, 0, m.len, LONG), -EIO); /* it went nowhere, and this says so */
    CHECK_EQ(size_of(path_of("file")), 0);
    reeve_map_close(&m);
    close(fd);
    reeve_map_unguard();
    return 0;
}

TEST(what_is_written_to_what_is_gone_is_lost_and_flush_says_so)
{
    RUN(writes, .workers = 1);
}

/* As if the disk could not read one page of a file that is as long as ever. */
static int one_page(void *arg)
{
    struct reeve_map m;
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, file("file", 5 * PAGE), 0, 0, LONG), 0);
    CHECK_EQ(reeve_map_fetch(&m, 0, m.len, LONG), 0);
    CHECK(rv_map_mend((uintptr_t)m.data + 2 * PAGE + 77));
    check_pattern(m.data, 2 * PAGE, 0);
    for (int i = 0; i < PAGE; i++)
        CHECK_EQ(touch((char *)m.data + 2 * PAGE + i), 0);
    check_pattern((unsigned char *)m.data + 3 * PAGE, 2 * PAGE, 3 * PAGE);
    CHECK_EQ(reeve_map_ok(&m), -EIO);
    CHECK(!rv_map_mend((uintptr_t)m.data + 5 * PAGE)); /* just behind the map */
    CHECK(!rv_map_mend((uintptr_t)m.data - 1));
    reeve_map_close(&m);
    return 0;
}

TEST(a_page_that_cannot_be_read_takes_no_other_with_it)
{
    RUN(one_page, .workers = 1);
}

static int mends_large(void *arg)
{
    struct reeve_map m;
    (void)arg;
    guard_on();
    int fd = file_of(path_of("file"), 3 * MIB, 0); /* the pool takes it down, in its parts */
    CHECK_EQ(reeve_map_open_fd(&m, fd, 0, 0, LONG), 0);
    CHECK_EQ(ftruncate(fd, MIB + 1), 0);
    CHECK_EQ(touch((char *)m.data + 2 * MIB), 0);
    check_pattern(m.data, MIB + 1, 0);
    uintptr_t was = (uintptr_t)m.data;
    unsigned char there[3 * MIB / PAGE];
    reeve_map_close(&m);
    await_no_maps();
    CHECK_EQ(mincore((void *)was, 3 * MIB, there), -1);
    close(fd);
    reeve_map_unguard();
    return 0;
}

TEST(a_broken_map_is_taken_down_as_a_whole)
{
    RUN(mends_large, .workers = 1);
}

/* ---- several threads ------------------------------------------------------------------------- */

enum { READERS = 6, PAGES = 64, TURNS = 200 };

static RV_ATOMIC(uint32_t) stop, turns_read, broken_seen;
static char cut[128]; /* the file's path */

/* Sums what it maps, over and over, while the file is cut short and made long again. */
static int sums(void *arg)
{
    (void)arg;
    while (!rv_load_relaxed(&stop)) {
        struct reeve_map m;
        CHECK_EQ(reeve_map_open(&m, cut, 0, 0, LONG), 0);
        const unsigned char *data = m.data;
        for (size_t i = 0; i < m.len; i += 512) {
            unsigned char byte = touch(data + i);
            CHECK(byte == pattern(i) || byte == 0);
        }
        if (reeve_map_ok(&m) < 0)
            (void)rv_add_relaxed(&broken_seen, 1u);
        (void)rv_add_relaxed(&turns_read, 1u);
        reeve_map_close(&m);
        CHECK_OK(reeve_sleep(0));
    }
    return 0;
}

static void *cuts(void *arg)
{
    int fd = *(int *)arg;
    unsigned char page[PAGE];
    for (int i = 0; i < TURNS || rv_load_relaxed(&broken_seen) == 0; i++) {
        CHECK_EQ(ftruncate(fd, (i % 5) * PAGE), 0);
        for (int k = i % 5; k < PAGES; k++) {
            fill_pattern(page, PAGE, (uint64_t)k * PAGE);
            CHECK_EQ(pwrite(fd, page, PAGE, (off_t)k * PAGE), PAGE);
        }
    }
    rv_store_release(&stop, 1u);
    return NULL;
}

static int under_cuts(void *arg)
{
    reeve_group g = { 0 };
    pthread_t thread;
    (void)arg;
    guard_on();
    snprintf(cut, sizeof cut, "%s", path_of("file"));
    int fd = file_of(cut, PAGES * PAGE, 0);
    rv_store_relaxed(&stop, 0u);
    rv_store_relaxed(&broken_seen, 0u);
    for (int i = 0; i < READERS; i++)
        CHECK_EQ(reeve_go(sums, NULL, .group = &g), 0);
    CHECK_EQ(pthread_create(&thread, NULL, cuts, &fd), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_GT(rv_load_relaxed(&turns_read), 0);
    close(fd);
    reeve_map_unguard();
    return 0;
}

TEST(a_file_is_cut_short_under_readers_on_several_threads_and_nobody_dies)
{
    RUN(under_cuts, .workers = 2);
    RUN(under_cuts, .workers = 4);
}

struct same {
    struct reeve_map m;
    RV_ATOMIC(uint32_t) ready;
};

static void *touch_all(void *arg)
{
    struct same *s = arg;
    (void)rv_sub_acq_rel(&s->ready, 1u);
    while (rv_load_acquire(&s->ready))
        rv_cpu_relax();
    for (size_t i = 0; i < s->m.len; i += PAGE)
        CHECK_EQ(touch((char *)s->m.data + i), 0);
    CHECK_EQ(reeve_map_ok(&s->m), -EIO);
    return NULL;
}

static int at_once(void *arg)
{
    (void)arg;
    guard_on();
    for (int i = 0; i < 50; i++) {
        pthread_t threads[4];
        struct same s;
        int fd = file_of(path_of("file"), PAGES * PAGE, 0);
        CHECK_EQ(reeve_map_open_fd(&s.m, fd, 0, 0, LONG), 0);
        CHECK_EQ(ftruncate(fd, 0), 0);
        rv_store_relaxed(&s.ready, 4u);
        for (int k = 0; k < 4; k++)
            CHECK_EQ(pthread_create(&threads[k], NULL, touch_all, &s), 0);
        for (int k = 0; k < 4; k++)
            CHECK_EQ(pthread_join(threads[k], NULL), 0);
        reeve_map_close(&s.m);
        close(fd);
    }
    reeve_map_unguard();
    return 0;
}

TEST(threads_that_are_not_reeves_fault_on_one_map_at_the_same_moment)
{
    RUN(at_once, .workers = 1);
}

/* ---- what is left to others ------------------------------------------------------------------ */

/* A map of the test's own, whose file is gone. */
static char *gone(void)
{
    int fd = file_of(path_of("other"), PAGE, 0);
    char *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    CHECK_EQ(ftruncate(fd, 0), 0);
    close(fd);
    return p;
}

static volatile sig_atomic_t calls, code;

static void put_page(void *at)
{
    void *page = (void *)((uintptr_t)at & ~(uintptr_t)(PAGE - 1));
    calls++;
    mmap(page, PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void theirs(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    code = info->si_code;
    errno = 4712; /* what is none of its business, either */
    if (info->si_code > 0)
        put_page(info->si_addr);
    else
        calls++;
}

static char *volatile plain_at;

static void theirs_plain(int number)
{
    (void)number;
    put_page(plain_at);
}

TEST(what_is_not_in_a_map_goes_to_who_was_there_before)
{
    struct sigaction with_info = { .sa_sigaction = theirs, .sa_flags = SA_SIGINFO };
    struct sigaction plain = { .sa_handler = theirs_plain };
    CHECK_EQ(sigaction(SIGBUS, &with_info, NULL), 0);
    guard_on();
    char *at = gone();
    errno = 4711;
    CHECK_EQ(touch(at), 0);
    CHECK_EQ(errno, 4711);
    CHECK_EQ(calls, 1);
    CHECK_EQ(code, BUS_ADRERR);
    CHECK_EQ(kill(getpid(), SIGBUS), 0); /* sent by somebody */
    CHECK_EQ(calls, 2);
    CHECK_EQ(code, SI_USER);
    reeve_map_unguard();
    CHECK(now_handled().sa_sigaction == theirs);
    CHECK_EQ(sigaction(SIGBUS, &plain, NULL), 0);
    guard_on();
    plain_at = gone();
    CHECK_EQ(touch(plain_at), 0);
    CHECK_EQ(calls, 3);
    reeve_map_unguard();
}

/* A signal that somebody sent says what he wants it to say. */
static int sent_with_address(void *arg)
{
    struct reeve_map m;
    siginfo_t info = { .si_signo = SIGBUS, .si_code = SI_QUEUE };
    (void)arg;
    CHECK_EQ(reeve_map_open(&m, file("file", PAGE), 0, 0, LONG), 0);
    info.si_addr = m.data;
    CHECK_EQ(syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGBUS, &info), 0);
    CHECK_EQ(calls, 1);
    CHECK_EQ(code, SI_QUEUE);
    CHECK_EQ(reeve_map_ok(&m), 0);
    check_map(&m, 0);
    reeve_map_close(&m);
    return 0;
}

TEST(a_signal_that_was_sent_breaks_no_map)
{
    struct sigaction with_info = { .sa_sigaction = theirs, .sa_flags = SA_SIGINFO };
    CHECK_EQ(sigaction(SIGBUS, &with_info, NULL), 0);
    guard_on();
    RUN(sent_with_address, .workers = 1);
    reeve_map_unguard();
}

static int touch_after_unguard(void *arg)
{
    struct reeve_map m;
    (void)arg;
    int fd = file_of(path_of("file"), PAGE, 0);
    CHECK_EQ(reeve_map_open_fd(&m, fd, 0, 0, LONG), 0);
    CHECK_EQ(ftruncate(fd, 0), 0);
    close(fd);
    (void)touch(m.data);
    CHECK_EQ(calls, 1);
    CHECK_EQ(reeve_map_ok(&m), 0);
    reeve_map_close(&m);
    return 0;
}

TEST(who_is_not_guarded_any_more_is_left_to_others)
{
    struct sigaction with_info = { .sa_sigaction = theirs, .sa_flags = SA_SIGINFO };
    CHECK_EQ(sigaction(SIGBUS, &with_info, NULL), 0);
    guard_on();
    guard_on();
    reeve_map_unguard();
    CHECK(now_handled().sa_sigaction != theirs); /* counted */
    reeve_map_unguard();
    RUN(touch_after_unguard, .workers = 1);
}

static struct sigaction ours;

static void on_top(int number, siginfo_t *info, void *context)
{
    calls++;
    ours.sa_sigaction(number, info, context);
}

/* From the top through ours, which mends it or leaves it to the one below, `theirs`. */
static int touch_below(void *arg)
{
    struct reeve_map m;
    bool guarded = arg != NULL;
    int fd = file_of(path_of("file"), PAGE, 0);
    CHECK_EQ(reeve_map_open_fd(&m, fd, 0, 0, LONG), 0);
    CHECK_EQ(ftruncate(fd, 0), 0);
    calls = 0;
    CHECK_EQ(touch(m.data), 0);
    CHECK_EQ(calls, guarded ? 1 : 2);
    CHECK_EQ(reeve_map_ok(&m), guarded ? -EIO : 0);
    reeve_map_close(&m);
    close(fd);
    return 0;
}

TEST(a_handler_on_top_stays_when_the_guard_goes_and_the_guard_may_come_back_below)
{
    struct sigaction top = { .sa_sigaction = on_top, .sa_flags = SA_SIGINFO };
    struct sigaction below = { .sa_sigaction = theirs, .sa_flags = SA_SIGINFO };
    uring_or_skip();
    CHECK_EQ(sigaction(SIGBUS, &below, NULL), 0);
    guard_on();
    CHECK_EQ(sigaction(SIGBUS, &top, &ours), 0);
    reeve_map_unguard();
    CHECK(now_handled().sa_sigaction == on_top);
    CHECK_EQ(reeve_run(touch_below, NULL, .workers = 1), 0);
    guard_on();
    CHECK(now_handled().sa_sigaction == on_top);
    CHECK_EQ(reeve_run(touch_below, &top, .workers = 1), 0);
    reeve_map_unguard();
}

/* In a child: the signal that ended it. */
static int ends_by(void (*fn)(void))
{
    int status;
    pid_t child = fork();
    CHECK_GE(child, 0);
    if (child == 0) {
        struct rlimit none = { 0, 0 };
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGBUS, SIG_DFL);
        guard_on();
        fn();
        _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void touch_gone(void)
{
    (void)touch(gone());
}

static void send_it(void)
{
    kill(getpid(), SIGBUS);
}

static void ignore_and_touch(void)
{
    reeve_map_unguard();
    signal(SIGBUS, SIG_IGN);
    guard_on();
    kill(getpid(), SIGBUS); /* this is ignored */
    touch_gone();           /* this cannot be */
}

TEST(what_nobody_handles_ends_the_process_as_ever)
{
    path_of("first"); /* the folder is this process's */
    CHECK_EQ(ends_by(touch_gone), SIGBUS);
    CHECK_EQ(ends_by(send_it), SIGBUS);
    CHECK_EQ(ends_by(ignore_and_touch), SIGBUS);
}

TEST(nobody_unguards_more_often_than_he_guards)
{
    guard_on();
    reeve_map_unguard();
    CHECK_DIES("more often", reeve_map_unguard());
}

static int no_handler(void *arg)
{
    struct reeve_map m;
    struct sigaction now = now_handled(), *before = arg;
    CHECK_EQ(reeve_map_open(&m, file("file", 100), 0, 0, LONG), 0);
    reeve_map_close(&m);
    CHECK(now.sa_handler == before->sa_handler);
    return 0;
}

TEST(nothing_touches_the_signal_unasked)
{
    struct sigaction before = now_handled();
    uring_or_skip();
    CHECK_EQ(reeve_run(no_handler, &before, .workers = 1), 0);
    guard_on();
    reeve_map_unguard();
    CHECK(now_handled().sa_handler == before.sa_handler);
    CHECK_EQ(now_handled().sa_flags & ~0x4000000, before.sa_flags & ~0x4000000); /* SA_RESTORER */
}
