/* SPDX-License-Identifier: MIT */
/*
 * proc_test.c -- starting programs, waiting for them and ending them; what they find when they
 * start, and that nothing of them is left.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/cpus.h>
#include <reeve/offload.h>
#include <reeve/sync.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/stat.h>

#include "io/proc.h"
#include "io/sim.h"
#include "mem/fault.h"
#include "sched/cpus.h"
#include "sched/offload.h"
#include "tests/io/programs.h"

static struct reeve_ended wait_for(const struct reeve_exec *exec)
{
    reeve_proc *p;
    struct reeve_ended ended;
    CHECK_EQ(reeve_proc_start(&p, exec, LONG), 0);
    CHECK_EQ(reeve_proc_wait(p, &ended, LONG), 0);
    return ended;
}

/* ---- ends ------------------------------------------------------------------------------------ */

static int statuses(void *arg)
{
    (void)arg;
    int status = wait_for(&(struct reeve_exec){ .argv = SH("exit 7") }).status;
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 7);
    status = wait_for(&(struct reeve_exec){ .argv = SH("kill -9 $$") }).status;
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), SIGKILL);
    check_no_children();
    return 0;
}

TEST(how_a_program_ended_is_told)
{
    RUN(statuses, .workers = 1);
    RUN(statuses, .workers = 2);
}

TEST(programs_run_without_a_pool_of_threads)
{
    RUN(statuses, .workers = 1, .offload_max = REEVE_NONE);
}

static int usage(void *arg)
{
    (void)arg;
    char *const *argv =
        ARGV("dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=2", "iflag=fullblock");
    struct reeve_ended big = wait_for(&(struct reeve_exec){ .argv = argv });
    CHECK_EQ(big.status, 0);
    CHECK_GT(big.cpu_ns, 0);
    struct rusage ours;
    CHECK_EQ(getrusage(RUSAGE_SELF, &ours), 0);
    if (ours.ru_maxrss < 200 << 10) /* else it is hidden behind our own, as ThreadSanitizer's is */
        CHECK_GE(big.peak_bytes, 256u << 20);
    CHECK(big.peak_bytes == 0 || big.peak_bytes >= 256u << 20);
    struct reeve_ended small = wait_for(&(struct reeve_exec){ .argv = ARGV("true") });
    CHECK_EQ(small.peak_bytes, 0); /* it is less than this process's own */
    return 0;
}

TEST(cpu_time_and_peak_memory_are_the_programs_own)
{
    static char ours[64 << 20];
    memset(ours, 1, sizeof ours);
    RUN(usage, .workers = 1);
}

static int cannot(void *arg)
{
    (void)arg;
    static char text[] = "/tmp/reeve-proc-XXXXXX";
    static char huge[4 << 20];
    int fd = mkstemp(text), none[65] = { 0 };
    CHECK_GE(fd, 0);
    CHECK_EQ(write(fd, "not a program\n", 14), 14);
    CHECK_EQ(fchmod(fd, 0600), 0);
    close(fd);
    memset(huge, 'x', sizeof huge - 1);
    reeve_proc *p = (reeve_proc *)&none;
    struct {
        struct reeve_exec exec;
        int r;
    } wrong[] = {
        { { .argv = NULL }, -EINVAL },
        { { .argv = (char *const[]){ NULL } }, -EINVAL },
        { { .argv = ARGV("") }, -ENOENT },
        { { .argv = ARGV("/no/such/program") }, -ENOENT },
        { { .argv = ARGV("no-such-program-anywhere") }, -ENOENT },
        { { .argv = ARGV("/bin/sh/x") }, -ENOTDIR },
        { { .argv = ARGV("/") }, -EACCES },
        { { .argv = ARGV(text) }, -EACCES },
        { { .argv = ARGV("true", huge) }, -E2BIG },
        { { .argv = ARGV("true"), .cwd = "/no/such/folder" }, -ENOENT },
        { { .argv = ARGV("true"), .cwd = "/bin/sh" }, -ENOTDIR },
        { { .argv = ARGV("true"), .fds = (int[]){ -1, 987654 }, .fds_n = 2 }, -EBADF },
        { { .argv = ARGV("true"), .fds = (int[]){ -1, 1, 2, -2 }, .fds_n = 4 }, -EBADF },
        { { .argv = ARGV("true"), .fds_n = 1 }, -EINVAL },
        { { .argv = ARGV("true"), .fds = none, .fds_n = 65 }, -EINVAL },
        { { .argv = ARGV("true"), .cpus_n = 1 }, -EINVAL },
        { { .argv = ARGV("true"), .cpus = (int[]){ -1 }, .cpus_n = 1 }, -EINVAL },
        { { .argv = ARGV("true"), .cpus = (int[]){ CPU_SETSIZE }, .cpus_n = 1 }, -EINVAL },
        { { .argv = ARGV("true"), .cpus = (int[]){ CPU_SETSIZE - 1 }, .cpus_n = 1 }, -EINVAL },
        { { .argv = ARGV("true"), .placer = &(struct reeve_placer){ 0 } }, -EINVAL },
    };
    int fds = count_fds();
    for (int round = 0; round < 2; round++) /* from the pool, and from the worker */
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            int r = reeve_proc_start(&p, &wrong[i].exec, round ? REEVE_POLL : LONG);
            if (r != wrong[i].r)
                check_failed(__FILE__, __LINE__, "case %zu: %d, not %d", i, r, wrong[i].r);
            CHECK_EQ((uintptr_t)p, (uintptr_t)&none);
        }
    CHECK_EQ(chmod(text, 0700), 0);
    CHECK_EQ(reeve_proc_start(&p, &(struct reeve_exec){ .argv = ARGV(text) }, LONG), -ENOEXEC);
    CHECK_EQ(unlink(text), 0);
    CHECK_EQ(count_fds(), fds);
    check_no_children();
    return 0;
}

TEST(what_cannot_be_started_is_told_at_once_and_leaves_nothing)
{
    RUN(cannot, .workers = 1);
}

static volatile sig_atomic_t sigchld;
static void on_sigchld(int signo)
{
    (void)signo;
    sigchld++;
}

static int start_in_vain(void *arg)
{
    (void)arg;
    reeve_proc *p;
    for (int i = 0; i < 5; i++)
        CHECK_EQ(reeve_proc_start(&p, &(struct reeve_exec){ .argv = ARGV("/no/such") },
                                  i % 2 ? REEVE_POLL : LONG),
                 -ENOENT);
    CHECK_EQ(sigchld, 0);
    wait_for(&(struct reeve_exec){ .argv = ARGV("true") });
    while (sigchld == 0) /* another thread may be the one that is told */
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(sigchld, 1);
    return 0;
}

TEST(the_host_hears_nothing_of_a_start_that_failed)
{
    signal(SIGCHLD, on_sigchld);
    RUN(start_in_vain, .workers = 1);
}

static int lost(void *arg)
{
    (void)arg;
    reeve_proc *p;
    CHECK_EQ(reeve_proc_start(&p, &(struct reeve_exec){ .argv = ARGV("true") }, LONG), 0);
    CHECK_EQ(reeve_proc_wait(p, NULL, LONG), -ECHILD);
    CHECK_EQ(reeve_proc_kill(p, 0), -ESRCH);
    return 0;
}

TEST(a_host_that_ignores_sigchld_loses_statuses_and_nothing_else)
{
    signal(SIGCHLD, SIG_IGN);
    RUN(lost, .workers = 1);
}

/* ---- what it finds --------------------------------------------------------------------------- */

static int inherits(void *arg)
{
    (void)arg;
    int open_ones[3] = { open("/dev/null", O_RDONLY), dup(1), fcntl(2, F_DUPFD, 200) };
    CHECK_STR_EQ(said(&(struct reeve_exec){ .argv = ARGV("ls", "/proc/self/fd") }), "0\n1\n2\n3\n");
    CHECK_STR_EQ(said(&(struct reeve_exec){ .argv = SH("readlink /proc/self/fd/0 /proc/$$/fd/2") }),
                 "/dev/null\n/dev/null\n");
    int fds[] = { -1, -1, -1, -1, open_ones[1], -1, open_ones[2] };
    struct reeve_exec some = { .argv = ARGV("ls", "/proc/self/fd"), .fds = fds, .fds_n = 7 };
    CHECK_STR_EQ(said(&some), "0\n1\n2\n3\n4\n6\n");
    for (int i = 0; i < 3; i++)
        close(open_ones[i]);
    return 0;
}

/* /dev/null was opened above all that it was given: it must not stay there. */
static int null_alone(void *arg)
{
    (void)arg;
    static const int lists[][3] = { { 0, 1, 2 }, { -1, 1, 2 }, { -1, -1, 2 }, { 2, -1, -1 } };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        char *const *argv = SH("for i in 3 4 5 6; do test ! -e /proc/self/fd/$i || exit $i; done");
        struct reeve_exec exec = { .argv = argv, .fds = lists[i], .fds_n = 3 };
        CHECK_EQ(wait_for(&exec).status, 0);
    }
    return 0;
}

TEST(of_dev_null_it_has_the_three_numbers_and_no_fourth)
{
    while (dup(0) < 2) /* 0 to 2 are open, as they are given */
        continue;
    RUN(null_alone, .workers = 1);
}

TEST(nothing_is_inherited_unasked)
{
    RUN(inherits, .workers = 1);
}

static int file_with(const char *text, int at)
{
    FILE *f = tmpfile();
    CHECK(f);
    CHECK_GT(fprintf(f, "%s", text), 0);
    CHECK_EQ(fflush(f), 0);
    int fd = fcntl(fileno(f), F_DUPFD_CLOEXEC, at);
    CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
    fclose(f);
    return fd;
}

static int arrives(void *arg)
{
    (void)arg;
    int three = file_with("three ", 20), four = file_with("four ", 20),
        five = file_with("five ", 20);
    CHECK_EQ(dup3(five, 18, O_CLOEXEC), 18);
    /* One in the way of the other, one in its place, one twice. */
    int fds[20];
    for (int i = 0; i < 20; i++)
        fds[i] = -1;
    CHECK_EQ(dup3(three, 17, O_CLOEXEC), 17);
    CHECK_EQ(dup3(four, 16, O_CLOEXEC), 16);
    fds[16] = 17;
    fds[17] = 16;
    fds[18] = 18;
    fds[3] = 18;
    char *const *argv = SH("cat /dev/fd/16; cat /dev/fd/17; cat /dev/fd/18; cat /dev/fd/3");
    struct reeve_exec exec = { .argv = argv, .fds = fds, .fds_n = 20 };
    CHECK_STR_EQ(said(&exec), "three four five five ");
    return 0;
}

TEST(descriptors_arrive_at_their_numbers_even_crosswise)
{
    while (dup(0) < 20) /* the runtime's own come above, so 16 .. 18 can be used */
        continue;
    RUN(arrives, .workers = 1);
}

static int signals(void *arg)
{
    (void)arg;
    struct reeve_exec ask = { .argv = ARGV("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status") };
    CHECK_STR_EQ(said(&ask), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    return 0;
}

static void be_a_messy_host(void)
{
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGALRM); /* the test's own */
    CHECK_EQ(sigprocmask(SIG_BLOCK, &all, NULL), 0);
    static const int ignored[] = { SIGPIPE, SIGINT, SIGHUP, SIGUSR2 };
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    signal(SIGUSR1, on_sigchld);
}

TEST(no_signal_is_blocked_and_none_ignored)
{
    be_a_messy_host();
    RUN(signals, .workers = 1);
    RUN(signals, .workers = 2);
}

static int without_clone3(void *arg)
{
    rv_fault_only("proc.clone3");
    rv_fault_fail_nth(1);
    signals(arg);
    CHECK_STR_EQ(rv_fault_last_name(), "proc.clone3");
    rv_fault_fail_nth(1);
    inherits(arg);
    rv_fault_fail_nth(1);
    reeve_proc *p;
    CHECK_EQ(reeve_proc_start(&p, &(struct reeve_exec){ .argv = ARGV("/no/such") }, LONG), -ENOENT);
    CHECK_STR_EQ(rv_fault_last_name(), "proc.clone3");
    rv_fault_off();
    sigset_t mask;
    CHECK_EQ(sigprocmask(SIG_BLOCK, NULL, &mask), 0);
    CHECK_EQ(sigismember(&mask, SIGALRM), 0); /* it was blocked for a moment only */
    check_no_children();
    return 0;
}

TEST(the_same_holds_where_there_is_no_clone3)
{
    if (!rv_fault_available())
        SKIP("the library is built without fault points");
    be_a_messy_host();
    RUN(without_clone3, .workers = 1, .offload_max = REEVE_NONE);
}

static int surroundings(void *arg)
{
    (void)arg;
    CHECK_STR_EQ(said(&(struct reeve_exec){ .argv = ARGV("pwd"), .cwd = "/usr" }), "/usr\n");
    struct reeve_exec one = { .argv = ARGV("env"), .envp = ARGV("A=b") };
    CHECK_STR_EQ(said(&one), "A=b\n");
    CHECK(strstr(said(&(struct reeve_exec){ .argv = ARGV("env") }), "REEVE_TEST_WORD=of ours\n"));
    CHECK_STR_EQ(said(&(struct reeve_exec){ .argv = ARGV("bin/echo", "x"), .cwd = "/" }), "x\n");
    return 0;
}

TEST(folder_and_environment_are_as_asked)
{
    setenv("REEVE_TEST_WORD", "of ours", 1);
    RUN(surroundings, .workers = 1);
}

static int found(void *arg)
{
    (void)arg;
    CHECK_STR_EQ(said(&(struct reeve_exec){ .argv = ARGV("echo", "$HOME;*") }), "$HOME;*\n");
    return 0;
}

TEST(a_name_is_looked_for_in_path_and_nothing_is_expanded)
{
    static const char *const paths[] = { "/bin", "/no/such::/dev/null:/root:/bin", "", NULL };
    for (int i = 0; i < 4; i++) {
        if (paths[i])
            setenv("PATH", paths[i], 1);
        else
            unsetenv("PATH");
        RUN(found, .workers = 1);
    }
}

static int group(void *arg)
{
    (void)arg;
    int pid, pgrp;
    const char *stat = said(&(struct reeve_exec){ .argv = ARGV("cat", "/proc/self/stat") });
    CHECK_EQ(sscanf(stat, "%d (cat) %*c %*d %d", &pid, &pgrp), 2);
    CHECK_EQ(pid, pgrp);
    return 0;
}

TEST(a_program_leads_a_group_of_its_own)
{
    RUN(group, .workers = 1);
}

/* ---- CPUs ------------------------------------------------------------------------------------ */

static cpu_set_t at_first;

static const char *cpu_list(const struct reeve_exec *how)
{
    static char list[4096];
    struct reeve_exec exec = *how;
    exec.argv = ARGV("grep", "Cpus_allowed_list", "/proc/self/status");
    CHECK_EQ(sscanf(said(&exec), "Cpus_allowed_list: %4095s", list), 1);
    return list;
}

static int cpus(void *arg)
{
    (void)arg;
    int all[CPU_SETSIZE], n = 0;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &at_first))
            all[n++] = i;
    int listed[CPU_SETSIZE];
    CHECK_EQ(reeve_cpus_parse(cpu_list(&(struct reeve_exec){ 0 }), listed, CPU_SETSIZE), n);
    CHECK_MEM_EQ(listed, all, (size_t)n * sizeof *all);
    char want[16];
    struct reeve_placer placer;
    CHECK_EQ(reeve_placer_init(&placer, all, (unsigned)n), 0);
    for (int i = 0; i < n + 1 && i < 5; i++) {
        snprintf(want, sizeof want, "%d", all[i % n]);
        CHECK_STR_EQ(cpu_list(&(struct reeve_exec){ .placer = &placer }), want);
        CHECK_STR_EQ(cpu_list(&(struct reeve_exec){ .cpus = &all[i % n], .cpus_n = 1 }), want);
    }
    struct reeve_exec both = { .argv = ARGV("true"), .cpus = all, .cpus_n = 1, .placer = &placer };
    reeve_proc *p;
    CHECK_EQ(reeve_proc_start(&p, &both, LONG), -EINVAL);
    return 0;
}

TEST(a_program_runs_where_it_is_told_and_not_where_the_worker_is_pinned)
{
    rv_cpus_allowed(&at_first);
    RUN(cpus, .workers = 1);
    int first = 0;
    while (!CPU_ISSET(first, &at_first))
        first++;
    RUN(cpus, .workers = 1, .cpus = &first);
}

/* ---- signals and stopping -------------------------------------------------------------------- */

/* A program that says by a byte in its descriptor 3 that it is ready. */
struct talker {
    reeve_proc *proc;
    int fd;
};

static struct talker start_talker(char *script)
{
    struct talker t;
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    int fds[] = { -1, -1, -1, ends[1] };
    struct reeve_exec exec = { .argv = SH(script), .fds = fds, .fds_n = 4 };
    CHECK_EQ(reeve_proc_start(&t.proc, &exec, LONG), 0);
    close(ends[1]);
    t.fd = ends[0];
    await_byte(t.fd);
    return t;
}

static int killed(void *arg)
{
    (void)arg;
    struct reeve_ended ended;
    struct talker t = start_talker("sleep 100 & sleep 100 & echo >&3; wait");
    CHECK_EQ(reeve_proc_kill(t.proc, 0), 0);
    CHECK_EQ(reeve_proc_kill(t.proc, 12345), -EINVAL);
    CHECK_GT(reeve_proc_pid(t.proc), 0);
    CHECK_EQ(reeve_proc_kill(t.proc, SIGKILL), 0);
    await_last_writer(t.fd); /* all three of them have gone */
    CHECK_EQ(reeve_proc_wait(t.proc, &ended, LONG), 0);
    CHECK_EQ(WTERMSIG(ended.status), SIGKILL);
    CHECK_EQ(reeve_proc_kill(t.proc, SIGKILL), -ESRCH);
    CHECK_EQ(reeve_proc_pid(t.proc), -ESRCH);
    close(t.fd);
    check_no_children();
    return 0;
}

TEST(a_kill_reaches_what_the_program_started)
{
    RUN(killed, .workers = 1);
}

static int stopped(void *arg)
{
    (void)arg;
    struct reeve_ended ended;
    struct talker t = start_talker("trap 'exit 5' TERM; echo >&3; while :; do sleep 0.01; done");
    CHECK_EQ(reeve_proc_stop(t.proc, &ended, LONG), 0);
    CHECK_EQ(ended.status, 5 << 8);
    close(t.fd);
    t = start_talker("trap '' TERM; echo >&3; while :; do sleep 1; done");
    CHECK_EQ(reeve_proc_stop(t.proc, &ended, reeve_in(10 * REEVE_MS)), 0);
    CHECK_EQ(ended.status, SIGKILL);
    await_last_writer(t.fd);
    close(t.fd);
    t = start_talker("trap 'exit 5' TERM; echo >&3; while :; do sleep 0.01; done");
    CHECK_EQ(reeve_proc_stop(t.proc, &ended, REEVE_POLL), 0);
    CHECK_EQ(ended.status, SIGKILL);
    close(t.fd);
    CHECK_EQ(reeve_proc_start(&t.proc, &(struct reeve_exec){ .argv = ARGV("true") }, LONG), 0);
    CHECK_EQ(reeve_proc_stop(t.proc, NULL, LONG), 0); /* whether it still ran or not */
    check_no_children();
    return 0;
}

TEST(a_stop_asks_and_then_kills)
{
    RUN(stopped, .workers = 1);
}

/* It joins the test's group, so a signal to its own reaches it no more. */
static int left(void *arg)
{
    (void)arg;
    struct reeve_ended ended;
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    const int fds[] = { -1, ends[1], -1 };
    struct reeve_exec exec = { .fds = fds, .fds_n = 3 };
    exec.argv = ARGV("perl", "-e", "setpgrp(0, getpgrp(getppid())); syswrite(STDOUT, 'x'); "
                                   "$SIG{USR1} = sub { exit 6 }; syswrite(STDOUT, 'x'); "
                                   "select(undef, undef, undef, 1) while 1");
    reeve_proc *p;
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(reeve_proc_start(&p, &exec, LONG), 0);
        await_byte(ends[0]);
        await_byte(ends[0]);
        CHECK_NE(getpgid(reeve_proc_pid(p)), reeve_proc_pid(p));
        if (i == 0)
            CHECK_EQ(reeve_proc_kill(p, SIGUSR1), 0);
        CHECK_EQ(i == 0 ? reeve_proc_wait(p, &ended, LONG) : reeve_proc_stop(p, &ended, REEVE_POLL),
                 0);
        CHECK_EQ(ended.status, i == 0 ? 6 << 8 : SIGKILL);
    }
    close(ends[0]);
    close(ends[1]);
    check_no_children();
    return 0;
}

TEST(a_program_that_has_left_its_group_is_reached_all_the_same)
{
    if (access("/usr/bin/perl", X_OK) < 0)
        SKIP("there is no program at hand that changes its group");
    RUN(left, .workers = 1);
}

static int give_up(void *arg)
{
    struct talker *t = arg;
    struct reeve_ended ended;
    CHECK_EQ(reeve_proc_wait(t->proc, &ended, 0), -ECANCELED);
    CHECK_EQ(reeve_proc_wait(t->proc, &ended, 0), -ECANCELED);
    CHECK_EQ(reeve_proc_stop(t->proc, &ended, LONG), 0);
    CHECK_EQ(ended.status, SIGKILL);
    reeve_proc *p;
    CHECK_EQ(reeve_proc_start(&p, &(struct reeve_exec){ .argv = ARGV("true") }, 0), -ECANCELED);
    return 0;
}

static int cancelled(void *arg)
{
    (void)arg;
    struct talker t = start_talker("trap '' TERM; echo >&3; while :; do sleep 1; done");
    reeve_task *task;
    CHECK_EQ(reeve_spawn(&task, give_up, &t), 0);
    await_asleep(task); /* who is cancelled before it begins stops nothing */
    reeve_cancel(task);
    CHECK_EQ(reeve_join(task, NULL, LONG), 0);
    await_last_writer(t.fd);
    close(t.fd);
    check_no_children();
    return 0;
}

TEST(a_cancelled_task_can_give_up_its_program)
{
    RUN(cancelled, .workers = 1);
    RUN(cancelled, .workers = 2);
}

static int late(void *arg)
{
    (void)arg;
    struct reeve_ended ended = { .status = 12345 };
    struct talker t = start_talker("echo >&3; sleep 100");
    CHECK_EQ(reeve_proc_wait(t.proc, &ended, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_proc_wait(t.proc, &ended, reeve_in(2 * REEVE_MS)), -ETIMEDOUT);
    CHECK_EQ(ended.status, 12345);
    CHECK_EQ(reeve_proc_kill(t.proc, SIGUSR1), 0);
    CHECK_EQ(reeve_proc_wait(t.proc, &ended, LONG), 0);
    CHECK_EQ(ended.status, SIGUSR1);
    close(t.fd);
    return 0;
}

TEST(a_wait_that_was_late_can_be_repeated)
{
    RUN(late, .workers = 1);
}

static int wait_twice(void *arg)
{
    (void)arg;
    reeve_proc *p;
    CHECK_EQ(reeve_proc_start(&p, &(struct reeve_exec){ .argv = ARGV("true") }, LONG), 0);
    CHECK_EQ(reeve_proc_wait(p, NULL, LONG), 0);
    return reeve_proc_wait(p, NULL, LONG);
}

static int just_wait(void *arg)
{
    return reeve_proc_wait(arg, NULL, 0);
}

static int wait_both(void *arg)
{
    (void)arg;
    int ends[2];
    reeve_proc *p;
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    struct reeve_exec cat = { .argv = ARGV("cat"), .fds = ends, .fds_n = 1 };
    CHECK_EQ(reeve_proc_start(&p, &cat, LONG), 0); /* it ends when this process does */
    CHECK_EQ(reeve_go(just_wait, p), 0);
    CHECK_EQ(reeve_go(just_wait, p), 0);
    return reeve_sleep(LONG);
}

TEST(misuse_of_a_handle_is_recognised)
{
    uring_or_skip();
    CHECK_DIES("waited for already", reeve_run(wait_twice, NULL, .workers = 1));
    CHECK_DIES("another task waits for", reeve_run(wait_both, NULL, .workers = 1));
    CHECK_DIES("outside", reeve_proc_wait(NULL, NULL, 0));
}

/* ---- bounds ---------------------------------------------------------------------------------- */

static struct reeve_sem two;
static RV_ATOMIC(int) alive, most;

static int one_of_many(void *arg)
{
    (void)arg;
    reeve_proc *p;
    struct reeve_exec exec = { .argv = ARGV("true"), .permits = &two };
    CHECK_EQ(reeve_proc_start(&p, &exec, LONG), 0);
    int n = rv_add_acq_rel(&alive, 1) + 1, seen = rv_load_relaxed(&most);
    while (n > seen && !rv_cas(&most, &seen, n))
        continue;
    while (rv_load_relaxed(&most) < 2)
        CHECK_EQ(reeve_sleep(0), 0);
    rv_sub_acq_rel(&alive, 1);
    return reeve_proc_wait(p, NULL, LONG);
}

static int permitted(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    CHECK_EQ(reeve_sem_init(&two, 2, 2), 0);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(reeve_go(one_of_many, NULL, .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(rv_load_relaxed(&most), 2);
    /* What fails gives its permit back. */
    reeve_proc *p;
    struct reeve_exec wrong = { .argv = ARGV("/no/such"), .permits = &two };
    for (int i = 0; i < 5; i++)
        CHECK_EQ(reeve_proc_start(&p, &wrong, LONG), -ENOENT);
    CHECK_EQ(reeve_sem_wait(&two, REEVE_POLL), 0);
    CHECK_EQ(reeve_sem_wait(&two, REEVE_POLL), 0);
    CHECK_EQ(reeve_proc_start(&p, &wrong, reeve_in(REEVE_MS)), -ETIMEDOUT);
    return 0;
}

TEST(programs_wait_for_their_permits)
{
    RUN(permitted, .workers = 2);
}

static int full(void *arg)
{
    (void)arg;
    reeve_proc *p;
    struct reeve_exec exec = { .argv = ARGV("true") };
    CHECK_EQ(rv_proc_admit(NULL, REEVE_PROGRAMS_MAX, LONG), 0);
    CHECK_EQ(reeve_proc_start(&p, &exec, reeve_in(REEVE_MS)), -ETIMEDOUT);
    rv_proc_dismiss(NULL, 1);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(reeve_proc_start(&p, &exec, LONG), 0);
        CHECK_EQ(reeve_proc_wait(p, NULL, LONG), 0);
    }
    rv_proc_dismiss(NULL, REEVE_PROGRAMS_MAX - 1);
    return 0;
}

TEST(more_programs_than_the_bound_wait)
{
    RUN(full, .workers = 1);
}

/* ---- where a start runs ---------------------------------------------------------------------- */

static uint64_t offloaded(void)
{
    struct rv_offload_stats st;
    struct rv_proc_counts n;
    rv_offload_stats(rv_worker_self()->sched->offload, &st);
    rv_proc_counts(&n);
    CHECK_EQ(n.pooled, st.run);
    return st.run;
}

static int by_whom(void *arg)
{
    (void)arg;
    /* A name that no other test starts. */
    char *const *argv = ARGV("/usr/../bin/true");
    wait_for(&(struct reeve_exec){ .argv = argv });
    CHECK_EQ(offloaded(), 1);
    for (int i = 0; i < 50; i++)
        wait_for(&(struct reeve_exec){ .argv = argv });
    CHECK_EQ(offloaded(), 1);
    return 0;
}

/* By a clock that stands still while a program starts: whatever the machine does, it is quick. */
TEST(the_first_start_of_a_program_is_the_pools_and_later_ones_are_the_workers)
{
    struct rv_sim_opts opts = { .seed = 1, .workers = 1, .fn = by_whom };
    struct rv_sim_result result;
    CHECK_EQ(rv_sim_run(&opts, &result), 0);
    CHECK_EQ(result.result, 0);
}

static int counted(void *arg)
{
    (void)arg;
    struct rv_proc_counts n;
    struct reeve_exec no = { .argv = ARGV("/no/such") };
    reeve_proc *p;
    wait_for(&(struct reeve_exec){ .argv = ARGV("true") });
    CHECK_EQ(reeve_proc_start(&p, &no, REEVE_POLL), -ENOENT);
    CHECK_EQ(reeve_proc_start(&p, &(struct reeve_exec){ .argv = ARGV("true") }, LONG), 0);
    rv_proc_counts(&n);
    CHECK_EQ(n.started, 2);
    CHECK_EQ(n.ended, 1);
    CHECK_EQ(n.refused, 1);
    CHECK_EQ(reeve_proc_stop(p, NULL, LONG), 0);
    rv_proc_counts(&n);
    CHECK_EQ(n.ended, 2);
    return 0;
}

TEST(programs_are_counted)
{
    RUN(counted, .workers = 1);
}

static int many_open(void *arg)
{
    (void)arg;
    CHECK_STR_EQ(said(&(struct reeve_exec){ .argv = ARGV("ls", "/proc/self/fd") }), "0\n1\n2\n3\n");
    reeve_proc *p;
    for (int i = 0; i < 2; i++) { /* without a descriptor of ours, the program has a small table */
        CHECK_EQ(reeve_proc_start(&p, &(struct reeve_exec){ .argv = ARGV("cat") }, LONG), 0);
        char path[64], line[256];
        int size = 0;
        snprintf(path, sizeof path, "/proc/%d/status", reeve_proc_pid(p));
        FILE *f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f))
            sscanf(line, "FDSize: %d", &size);
        if (f)
            fclose(f);
        if (size) /* 0: it has ended already */
            CHECK_LE(size, 256);
        CHECK_EQ(reeve_proc_wait(p, NULL, LONG), 0);
    }
    return 0;
}

TEST(open_descriptors_do_not_reach_the_program_however_many)
{
    struct rlimit lim;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &lim), 0);
    if (lim.rlim_max < 4096)
        SKIP("this process may not open enough files");
    lim.rlim_cur = lim.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &lim), 0);
    for (int i = 0; i < 3000; i++)
        CHECK_GE(dup(0), 0);
    RUN(many_open, .workers = 1);
}

/* ---- bad days -------------------------------------------------------------------------------- */

static int traced(void *arg)
{
    (void)arg;
    rv_fault_only("proc.traced");
    for (int i = 1; i <= 3; i++) {
        rv_fault_fail_nth(1);
        CHECK_EQ(wait_for(&(struct reeve_exec){ .argv = SH("exit 3") }).status, 3 << 8);
        CHECK_STR_EQ(rv_fault_last_name(), "proc.traced");
    }
    rv_fault_off();
    check_no_children();
    return 0;
}

TEST(a_program_that_another_process_traces_is_waited_for_too)
{
    if (!rv_fault_available())
        SKIP("the library is built without fault points");
    RUN(traced, .workers = 1);
    setenv("REEVE_CAPS_OFF", "waitid", 1);
    RUN(traced, .workers = 1);
}

/* Whoever traces it has not looked yet that it has ended, and may never do. */
static int held_by_tracer(void *arg)
{
    (void)arg;
    struct talker t = start_talker("echo >&3; sleep 1000");
    struct reeve_ended ended;
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = reeve_proc_pid(t.proc), tracer = fork();
    if (tracer == 0) {
        alarm(30); /* whatever becomes of the test */
        char can = ptrace(PTRACE_SEIZE, pid, 0, 0) == 0 ? 'y' : 'n';
        _exit(write(ends[1], &can, 1) == 1 ? pause() : 1);
    }
    char can;
    CHECK_EQ(reeve_read(ends[0], &can, 1, LONG), 1);
    CHECK_EQ(reeve_proc_kill(t.proc, SIGKILL), 0);
    if (can == 'y')
        CHECK_EQ(reeve_proc_wait(t.proc, &ended, reeve_in(20 * REEVE_MS)), -ETIMEDOUT);
    kill(tracer, SIGKILL);
    CHECK_EQ(waitpid(tracer, NULL, 0), tracer);
    CHECK_EQ(reeve_proc_wait(t.proc, &ended, LONG), 0);
    CHECK_EQ(ended.status, SIGKILL);
    close(t.fd);
    close(ends[0]);
    close(ends[1]);
    check_no_children();
    if (can != 'y')
        SKIP("this system lets nobody trace");
    return 0;
}

TEST(a_tracer_that_holds_a_program_does_not_hold_who_waits_past_his_deadline)
{
    RUN(held_by_tracer, .workers = 1);
}

static int failing(void *arg)
{
    (void)arg;
    wait_for(&(struct reeve_exec){ .argv = ARGV("true") });
    int fds = count_fds(), n = 1;
    rv_fault_only(NULL);
    for (;; n++) {
        reeve_proc *p;
        rv_fault_fail_nth((uint64_t)n);
        int r = reeve_proc_start(&p, &(struct reeve_exec){ .argv = ARGV("true") }, LONG);
        bool failed = rv_fault_last_name() != NULL;
        if (r == 0) {
            while ((r = reeve_proc_wait(p, NULL, LONG)) == -ENOMEM)
                failed = true;
            CHECK_EQ(r, 0);
            failed = failed || rv_fault_last_name() != NULL;
        } else {
            CHECK(r == -ENOMEM || r == -EAGAIN);
        }
        rv_fault_off();
        if (!failed)
            break;
        CHECK_LT(n, 500);
    }
    CHECK_GT(n, 3);
    CHECK_EQ(count_fds(), fds);
    check_no_children();
    return 0;
}

TEST(whatever_fails_no_program_is_lost)
{
    if (!rv_fault_available())
        SKIP("the library is built without fault points");
    RUN(failing, .workers = 1, .offload_max = REEVE_NONE);
}

static int start_and_end(void *arg)
{
    for (int i = 0; i < *(int *)arg; i++) {
        reeve_proc *p;
        CHECK_EQ(reeve_proc_start(&p, &(struct reeve_exec){ .argv = ARGV("sleep", "100") }, LONG),
                 0);
        if (i % 2)
            CHECK_EQ(reeve_proc_wait(p, NULL, REEVE_POLL), -ETIMEDOUT);
        CHECK_EQ(reeve_proc_stop(p, NULL, i % 3 ? LONG : REEVE_POLL), 0);
    }
    return 0;
}

static int at_once(void *arg)
{
    (void)arg;
    int each = 20;
    reeve_group g = { 0 };
    for (int i = 0; i < 8; i++)
        CHECK_EQ(reeve_go(start_and_end, &each, .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    check_no_children();
    return 0;
}

TEST(many_tasks_start_and_stop_programs_at_once)
{
    RUN(at_once, .workers = 2);
}
