/* SPDX-License-Identifier: MIT */
/*
 * fds_test.c -- pipes, signals, watched files, and that every other kind of descriptor is read and
 * waited for like a socket.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <poll.h>
#include <reeve/fd.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include "tests/io/pair.h"

#define SOON reeve_in(2 * REEVE_MS)

/* A task that reads once, for what ends its wait. */
struct reading {
    int fd;
    void *buf;
    size_t len;
    ssize_t result;
};

static int read_once(void *arg)
{
    struct reading *r = arg;
    r->result = reeve_read(r->fd, r->buf, r->len, LONG);
    return 0;
}

/* The deadline, the cancellation and the close of a read that finds nothing; fd is closed. */
static void check_read_ends(int fd, size_t len)
{
    unsigned char buf[4096];
    struct reading r = { fd, buf, len, 0 };
    reeve_task *t;
    CHECK_EQ(reeve_read(fd, buf, len, SOON), -ETIMEDOUT);
    CHECK_EQ(reeve_read(fd, buf, len, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_wait_fd(fd, POLLIN, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_spawn(&t, read_once, &r), 0);
    await_waiter(fd, AN_OP);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    CHECK_EQ(reeve_spawn(&t, read_once, &r), 0);
    await_waiter(fd, AN_OP);
    CHECK_EQ(reeve_close(fd), 0);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(r.result, -ECANCELED);
    await_closed(fd);
}

/* ---- pipes ----------------------------------------------------------------------------------- */

TEST(a_pipe_is_closed_on_exec_and_holds_what_it_says)
{
    int ends[2] = { -7, -7 };
    CHECK_EQ(reeve_pipe(ends, ((size_t)1 << 30) + 1), -EINVAL);
    CHECK_EQ(ends[0], -7);
    int holds = (int)CHECK_OK(reeve_pipe(ends, 0));
    CHECK_EQ(holds, fcntl(ends[0], F_GETPIPE_SZ));
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(fcntl(ends[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        close(ends[i]);
    }
    CHECK_GE(reeve_pipe(ends, 300000), 300000);
    CHECK_GE(fcntl(ends[1], F_GETPIPE_SZ), 300000);
    close(ends[0]);
    close(ends[1]);
}

TEST(a_pipe_larger_than_the_system_allows_is_as_large_as_it_does)
{
    if (geteuid() == 0)
        CHECK_EQ(syscall(SYS_setresuid, 65534, 65534, 65534), 0);
    int ends[2], holds = (int)CHECK_OK(reeve_pipe(ends, (size_t)1 << 30));
    CHECK_EQ(holds, fcntl(ends[0], F_GETPIPE_SZ));
    CHECK_GE(holds, 4096);
    CHECK_LT(holds, 1 << 30);
    close(ends[0]);
    close(ends[1]);
}

TEST(without_descriptors_there_is_no_pipe)
{
    struct rlimit was, few;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &was), 0);
    few = (struct rlimit){ 0, was.rlim_max };
    int ends[2] = { -7, -7 };
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    CHECK_EQ(reeve_pipe(ends, 0), -EMFILE);
    CHECK_EQ(ends[0], -7);
    CHECK_EQ(ends[1], -7);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &was), 0);
}

static int pipe_waits(void *arg)
{
    (void)arg;
    int ends[2];
    char buf[16];
    CHECK_OK(reeve_pipe(ends, 0));
    CHECK_EQ(reeve_write(ends[1], "through", 7, LONG), 7);
    CHECK_EQ(reeve_wait_fd(ends[0], POLLIN, LONG), POLLIN);
    CHECK_EQ(reeve_read(ends[0], buf, sizeof buf, LONG), 7);
    CHECK_MEM_EQ(buf, "through", 7);
    check_read_ends(ends[0], 1);
    CHECK_EQ(reeve_close(ends[1]), 0);
    return 0;
}

TEST(a_read_from_an_empty_pipe_ends_by_deadline_cancellation_and_close)
{
    RUN(pipe_waits, .workers = 1);
    RUN(pipe_waits, .workers = 2);
}

/* ---- eventfd, timerfd, pidfd ----------------------------------------------------------------- */

static int eventfds(void *arg)
{
    for (int flags = 0; flags <= EFD_NONBLOCK; flags += EFD_NONBLOCK) {
        uint64_t count = 5;
        int fd = eventfd(0, EFD_CLOEXEC | flags);
        CHECK_EQ(reeve_write(fd, &count, sizeof count, LONG), 8);
        CHECK_EQ(reeve_write(fd, &count, sizeof count, LONG), 8);
        CHECK_EQ(reeve_wait_fd(fd, POLLIN, LONG), POLLIN);
        CHECK_EQ(reeve_read(fd, &count, 4, LONG), -EINVAL); /* less than a count */
        CHECK_EQ(reeve_read(fd, &count, sizeof count, LONG), 8);
        CHECK_EQ(count, 10);
        check_read_ends(fd, 8);
    }
    (void)arg;
    return 0;
}

TEST(an_eventfd_is_read_whether_it_blocks_or_not)
{
    RUN(eventfds, .workers = 1);
    RUN(eventfds, .workers = 2);
}

static int timerfds(void *arg)
{
    for (int flags = 0; flags <= TFD_NONBLOCK; flags += TFD_NONBLOCK) {
        uint64_t count = 0;
        int fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | flags);
        struct itimerspec soon = { .it_value.tv_nsec = 1000000 };
        CHECK_EQ(timerfd_settime(fd, 0, &soon, NULL), 0);
        CHECK_EQ(reeve_read(fd, &count, sizeof count, LONG), 8);
        CHECK_EQ(count, 1);
        CHECK_EQ(timerfd_settime(fd, 0, &soon, NULL), 0);
        CHECK_EQ(reeve_wait_fd(fd, POLLIN, LONG), POLLIN);
        CHECK_EQ(reeve_read(fd, &count, sizeof count, REEVE_POLL), 8);
        check_read_ends(fd, 8);
    }
    (void)arg;
    return 0;
}

TEST(a_timerfd_is_read_whether_it_blocks_or_not)
{
    RUN(timerfds, .workers = 1);
    RUN(timerfds, .workers = 2);
}

static int pidfds(void *arg)
{
    (void)arg;
    siginfo_t info = { 0 };
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    int fd = (int)syscall(SYS_pidfd_open, child, 0);
    CHECK_GE(fd, 0);
    CHECK_EQ(reeve_wait_fd(fd, POLLIN, SOON), -ETIMEDOUT);
    CHECK_EQ(kill(child, SIGKILL), 0);
    CHECK_EQ(reeve_wait_fd(fd, POLLIN, LONG) & POLLIN, POLLIN);
    CHECK_EQ(waitid((idtype_t)3 /* P_PIDFD */, (id_t)fd, &info, WEXITED | WNOHANG), 0);
    CHECK_EQ(info.si_pid, child);
    CHECK_EQ(info.si_status, SIGKILL);
    CHECK_EQ(reeve_close(fd), 0);
    return 0;
}

TEST(a_pidfd_says_when_its_process_has_ended)
{
    RUN(pidfds, .workers = 1);
    RUN(pidfds, .workers = 2);
}

/* ---- signals --------------------------------------------------------------------------------- */

TEST(signals_that_no_descriptor_could_bring_are_refused)
{
    static const int never[] = { 0, -1, 1000, SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
    sigset_t before, after;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    CHECK_EQ(reeve_signal_open(never, 0), -EINVAL);
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        int both[2] = { SIGUSR1, never[i] };
        CHECK_EQ(reeve_signal_open(both, 2), -EINVAL);
    }
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    CHECK_EQ(sigismember(&after, SIGUSR1), sigismember(&before, SIGUSR1)); /* nothing was blocked */
}

static int open_in_a_task(void *arg)
{
    (void)arg;
    return reeve_signal_open((int[]){ SIGUSR1 }, 1);
}

TEST(in_a_task_it_is_too_late_to_block_signals)
{
    uring_or_skip();
    CHECK_EQ(reeve_run(open_in_a_task, NULL), -EPERM);
}

static int read_signals(void *arg)
{
    int fd = *(int *)arg;
    struct signalfd_siginfo info;
    CHECK_EQ(reeve_signal_next(fd, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(kill(getpid(), SIGUSR1), 0);
    CHECK_EQ(reeve_wait_fd(fd, POLLIN, LONG), POLLIN);
    CHECK_EQ(reeve_signal_next(fd, LONG), SIGUSR1);
    CHECK_EQ(kill(getpid(), SIGTERM), 0);
    CHECK_EQ(kill(getpid(), SIGTERM), 0); /* is one signal, as long as nobody reads it */
    CHECK_EQ(reeve_signal_next(fd, LONG), SIGTERM);
    CHECK_EQ(reeve_signal_next(fd, SOON), -ETIMEDOUT);
    CHECK_EQ(kill(getpid(), SIGTERM), 0);
    CHECK_EQ(reeve_read(fd, &info, sizeof info - 1, LONG), -EINVAL); /* less than a record */
    CHECK_EQ(reeve_read(fd, &info, sizeof info, LONG), (ssize_t)sizeof info);
    CHECK_EQ(info.ssi_pid, (uint32_t)getpid());
    int other = eventfd(3, EFD_CLOEXEC);
    CHECK_EQ(reeve_signal_next(other, LONG), -EINVAL);
    CHECK_EQ(reeve_signal_next(-1, LONG), -EBADF);
    close(other);
    check_read_ends(fd, sizeof info);
    return 0;
}

TEST(signals_come_one_after_another_and_kill_nobody)
{
    uring_or_skip();
    for (unsigned workers = 1; workers <= 2; workers++) {
        int fd = (int)CHECK_OK(reeve_signal_open((int[]){ SIGTERM, SIGUSR1 }, 2));
        CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        CHECK_EQ(reeve_run(read_signals, &fd, .workers = workers), 0);
    }
}

/* ---- inotify --------------------------------------------------------------------------------- */

static char directory[64];

static const char *inside(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void touch(const char *name)
{
    int fd = open(inside(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK_GE(fd, 0);
    close(fd);
}

static void make_directory(void)
{
    strcpy(directory, "/tmp/reeve_fds_XXXXXX");
    CHECK(mkdtemp(directory));
}

/* The next event is this one. */
static void expect(struct reeve_inotify *n, int watch, uint32_t mask, const char *name)
{
    struct reeve_inotify_event e;
    CHECK_EQ(reeve_inotify_next(n, &e, LONG), 0);
    CHECK_EQ(e.watch, watch);
    CHECK_EQ(e.mask, mask);
    CHECK_STR_EQ(e.name, name);
}

static int watching(void *arg)
{
    (void)arg;
    struct reeve_inotify n;
    struct reeve_inotify_event e = { .watch = 77 };
    char longest[256];
    memset(longest, 'n', 255);
    longest[255] = 0;
    make_directory();
    CHECK_EQ(reeve_inotify_open(&n), 0);
    CHECK_EQ(fcntl(n.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQ(reeve_inotify_next(&n, &e, SOON), -ETIMEDOUT);
    CHECK_EQ(e.watch, 77);
    CHECK_EQ(reeve_inotify_add(&n, inside("nowhere"), IN_CREATE, LONG), -ENOENT);
    CHECK_EQ(reeve_inotify_add(&n, directory, 0, LONG), -EINVAL);
    int w = (int)CHECK_OK(
        reeve_inotify_add(&n, directory, IN_CREATE | IN_CLOSE_WRITE | IN_DELETE, LONG));
    CHECK_EQ(reeve_inotify_add(&n, directory, IN_CREATE | IN_CLOSE_WRITE | IN_DELETE, LONG), w);
    touch("a");
    touch(longest);
    CHECK_EQ(reeve_wait_fd(n.fd, POLLIN, LONG), POLLIN);
    expect(&n, w, IN_CREATE, "a");
    expect(&n, w, IN_CLOSE_WRITE, "a");
    expect(&n, w, IN_CREATE, longest);
    CHECK_EQ(unlink(inside("a")), 0);
    CHECK_EQ(unlink(inside(longest)), 0);
    expect(&n, w, IN_CLOSE_WRITE, longest);
    expect(&n, w, IN_DELETE, "a");
    expect(&n, w, IN_DELETE, longest);
    CHECK_EQ(reeve_inotify_remove(&n, w + 1), -EINVAL);
    CHECK_EQ(reeve_inotify_remove(&n, w), 0);
    expect(&n, w, IN_IGNORED, "");
    reeve_inotify_close(&n);
    reeve_inotify_close(&n);
    CHECK_EQ(reeve_inotify_next(&n, &e, LONG), -EBADF);
    CHECK_EQ(reeve_inotify_add(&n, directory, IN_CREATE, LONG), -EBADF);
    CHECK_EQ(reeve_inotify_remove(&n, w), -EBADF);
    CHECK_EQ(rmdir(directory), 0);
    return 0;
}

TEST(changes_to_files_come_in_their_order_with_their_names)
{
    RUN(watching, .workers = 1);
    RUN(watching, .workers = 2);
}

enum { MANY = 2000 };

static int many_changes(void *arg)
{
    (void)arg;
    struct reeve_inotify n;
    char name[64];
    make_directory();
    CHECK_EQ(reeve_inotify_open(&n), 0);
    int w = (int)CHECK_OK(reeve_inotify_add(&n, directory, IN_CREATE, LONG));
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "%0*d", 1 + i % 60, i);
        touch(name);
    }
    for (int i = 0; i < MANY; i++) { /* of all lengths, so records end everywhere in the buffer */
        snprintf(name, sizeof name, "%0*d", 1 + i % 60, i);
        expect(&n, w, IN_CREATE, name);
        CHECK_EQ(unlink(inside(name)), 0);
    }
    reeve_inotify_close(&n);
    CHECK_EQ(rmdir(directory), 0);
    return 0;
}

TEST(records_of_all_lengths_are_told_apart)
{
    RUN(many_changes, .workers = 1);
}

static int next_once(void *arg)
{
    struct reeve_inotify_event e;
    return reeve_inotify_next(arg, &e, LONG);
}

static int watch_ends(void *arg)
{
    (void)arg;
    struct reeve_inotify n, none = { 0 };
    reeve_task *t;
    int result;
    reeve_inotify_close(&none);
    CHECK_EQ(reeve_inotify_open(&n), 0);
    CHECK_EQ(reeve_spawn(&t, next_once, &n), 0);
    await_waiter(n.fd, AN_OP);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, -ECANCELED);
    CHECK_EQ(reeve_spawn(&t, next_once, &n), 0);
    await_waiter(n.fd, AN_OP);
    reeve_inotify_close(&n);
    CHECK_EQ(reeve_join(t, &result, LONG), 0);
    CHECK_EQ(result, -ECANCELED);
    await_closed(n.fd);
    return 0;
}

TEST(a_wait_for_changes_ends_by_cancellation_and_close)
{
    RUN(watch_ends, .workers = 1);
    RUN(watch_ends, .workers = 2);
}
