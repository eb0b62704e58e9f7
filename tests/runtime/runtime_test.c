/* SPDX-License-Identifier: MIT */
/*
 * runtime_test.c -- runtime/runtime.c: running, creating, shutting down and destroying runtimes,
 * and where they cannot run at all.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <grp.h>

#include "runtime/runtime.h"
#include "tests/io/seccomp.h"
#include "tests/runtime/server.h"

#define FOR_EVER reeve_in(INT64_MAX)

/* Whether the runtime has cancelled its work by now. */
static bool is_cancelled(reeve *rt)
{
    return rv_load_acquire(&rt->sched.work->ctl) & RV_CTL_CANCELLED;
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

/* Posts are refused by now. */
static void await_closing(reeve *rt)
{
    int r;
    while ((r = reeve_post(rt, &(struct reeve_spawn){ .fn = nothing })) != -ESHUTDOWN) {
        CHECK_EQ(r, 0);
        pause_ms(1);
    }
}

/* ---- run ------------------------------------------------------------------------------------- */

static int give_back(void *arg)
{
    return *(int *)arg;
}

TEST(run_returns_what_the_root_task_returned)
{
    uring_or_skip();
    static const int results[] = { 0, 1, 42, INT_MAX, -EIO, INT_MIN };
    for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        int result = results[i];
        CHECK_EQ(reeve_run(give_back, &result), result);
        CHECK_EQ(reeve_run(give_back, &result, .workers = 1), result);
    }
}

static int run_inside(void *arg)
{
    return reeve_run(give_back, arg);
}

TEST(run_needs_a_function_and_a_thread_that_is_no_worker)
{
    int zero = 0;
    CHECK_EQ(reeve_run_with(NULL), -EINVAL);
    CHECK_EQ(reeve_run_with(&(struct reeve_opts){ .workers = 1 }), -EINVAL);
    uring_or_skip();
    CHECK_EQ(reeve_run(run_inside, &zero, .workers = 1), -EDEADLK);
}

static int self_is(void *arg)
{
    return reeve_self() == *(reeve **)arg;
}

TEST(self_is_the_runtime_of_the_task_and_nothing_outside)
{
    uring_or_skip();
    CHECK_EQ(reeve_self(), NULL);
    reeve *one, *two;
    CHECK_OK(reeve_create(&one, NULL));
    CHECK_OK(reeve_create(&two, &(struct reeve_opts){ .workers = 1 }));
    CHECK_EQ(reeve_call(one, self_is, &one, 0), 1);
    CHECK_EQ(reeve_call(two, self_is, &two, 0), 1);
    CHECK_EQ(reeve_call(two, self_is, &one, 0), 0);
    CHECK_EQ(reeve_run(self_is, &one), 0);
    CHECK_EQ(reeve_self(), NULL);
    reeve_destroy(two);
    reeve_destroy(one);
}

enum { TASKS = 10 };
static RV_ATOMIC(int) ended;

static int end_later(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++)
        CHECK_OK(reeve_sleep(0));
    rv_add_acq_rel(&ended, 1);
    return 0;
}

static int leave_children(void *arg)
{
    for (int i = 0; i < TASKS; i++)
        CHECK_OK(reeve_go(end_later, NULL));
    return *(int *)arg;
}

TEST(run_ends_when_the_root_is_done_and_so_are_its_children)
{
    uring_or_skip();
    int result = 5;
    CHECK_EQ(reeve_run(leave_children, &result), 5);
    CHECK_EQ(rv_load_acquire(&ended), TASKS);
}

/* Waits until it is cancelled. */
static int wait_for_ever(void *arg)
{
    if (arg)
        sem_post(arg);
    int r = reeve_sleep(FOR_EVER);
    CHECK_EQ(r, -ECANCELED);
    rv_add_acq_rel(&ended, 1);
    return r;
}

static void note_skip(void *arg)
{
    (void)arg;
    CHECK_EQ(reeve_self(), NULL); /* it runs outside any task */
    rv_add_acq_rel(&ended, 1);
}

static int post_waiters(void *arg)
{
    for (int i = 0; i < TASKS; i++)
        CHECK_OK(reeve_post(reeve_self(),
                            &(struct reeve_spawn){ .fn = wait_for_ever, .skipped = note_skip }));
    return *(int *)arg;
}

TEST(what_the_root_posted_is_cancelled_or_skipped_at_its_end)
{
    uring_or_skip();
    int result = 6;
    CHECK_EQ(reeve_run(post_waiters, &result, .workers = 2), 6);
    CHECK_EQ(rv_load_acquire(&ended), TASKS);
    CHECK_EQ(reeve_run(post_waiters, &result, .workers = 1), 6);
    CHECK_EQ(rv_load_acquire(&ended), 2 * TASKS);
}

/* ---- several runtimes ------------------------------------------------------------------------ */

struct dialogue {
    struct server sv;
    int rounds;
};

/* In a task: dials the server and echoes some rounds. */
static int talk(void *arg)
{
    struct dialogue *d = arg;
    char addr[32], out[64], back[64];
    snprintf(addr, sizeof addr, "127.0.0.1:%d", d->sv.port);
    int fd = (int)CHECK_OK(reeve_dial(addr, LONG));
    for (int i = 0; i < d->rounds; i++) {
        int n = snprintf(out, sizeof out, "round %d", i), at = 0;
        CHECK_EQ(reeve_write(fd, out, (size_t)n, LONG), n);
        while (at < n) {
            ssize_t got = reeve_read(fd, back + at, (size_t)(n - at), LONG);
            CHECK_GT(got, 0);
            at += (int)got;
        }
        CHECK_MEM_EQ(out, back, n);
    }
    CHECK_EQ(reeve_close(fd), 0);
    return 9;
}

static void *run_a_client(void *arg)
{
    CHECK_EQ(reeve_run(talk, arg, .workers = 2), 9);
    return NULL;
}

TEST(runtimes_live_side_by_side_and_talk_to_each_other)
{
    struct dialogue a = { .rounds = 200, .sv.how.handler = echo }, b = a;
    server_start(&a.sv, 2);
    server_start(&b.sv, 1);
    pthread_t thread[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, run_a_client, i % 2 ? &a : &b), 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    CHECK_EQ(server_stop(&a.sv), 0);
    CHECK_EQ(server_stop(&b.sv), 0);
    server_end(&a.sv);
    server_end(&b.sv);
}

/* Makes a runtime, lets it work, and takes it down, in the two ways that there are. */
static void live_once(bool shut_down)
{
    struct dialogue d = { .rounds = 1, .sv.how.handler = echo };
    server_start(&d.sv, 2);
    CHECK_EQ(reeve_call(d.sv.rt, talk, &d, 0), 9);
    run_a_client(&d);
    if (shut_down) {
        CHECK_EQ(server_stop(&d.sv), 0);
        server_end(&d.sv);
    } else {
        reeve_destroy(d.sv.rt);
        server_free(&d.sv);
    }
}

TEST(two_hundred_lives_leak_no_descriptor_thread_or_mapping)
{
    enum { WARM_UP = 10 };
    unsigned rounds = times(200);
    uring_or_skip();
    for (unsigned i = 0; i < WARM_UP; i++)
        live_once(i % 2);
    struct census was = census_take();
    for (unsigned i = 0; i < rounds; i++)
        live_once(i % 2);
    census_compare(&was);
    struct census is = census_take();
    CHECK_LE(is.maps, was.maps + 20 + rounds / 4); /* allocators come and go by a few */
    CHECK_LE(is.mapped_kib, was.mapped_kib + (uint64_t)rounds * 256);
}

/* ---- shutting down from outside -------------------------------------------------------------- */

TEST(a_shutdown_waits_for_all_work_and_refuses_more)
{
    reeve *rt;
    uring_or_skip();
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .fn = end_later, .workers = 2 }));
    for (int i = 1; i < TASKS; i++)
        CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = end_later }));
    CHECK_EQ(reeve_shutdown(rt, 0), 0);
    CHECK_EQ(rv_load_acquire(&ended), TASKS);
    CHECK_EQ(reeve_post(rt, &(struct reeve_spawn){ .fn = end_later }), -ESHUTDOWN);
    CHECK_EQ(reeve_call(rt, end_later, NULL, 0), -ESHUTDOWN);
    CHECK_EQ(reeve_shutdown(rt, 0), 0); /* again: it was all over */
    CHECK_EQ(reeve_shutdown(rt, REEVE_POLL), 0);
    CHECK_EQ(rv_load_acquire(&ended), TASKS);
    reeve_destroy(rt);
}

/* A runtime in which TASKS tasks wait. */
static reeve *with_waiters(unsigned workers)
{
    reeve *rt;
    sem_t waits;
    sem_init(&waits, 0, 0);
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = workers }));
    for (int i = 0; i < TASKS; i++)
        CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = wait_for_ever, .arg = &waits }));
    for (int i = 0; i < TASKS; i++)
        await_sem(&waits);
    sem_destroy(&waits);
    return rt;
}

TEST(a_shutdown_cancels_what_is_left_when_its_time_has_come)
{
    uring_or_skip();
    for (unsigned workers = 1; workers <= 3; workers++) {
        reeve *rt = with_waiters(workers);
        reeve_time until = reeve_in(10 * REEVE_MS);
        CHECK_EQ(reeve_shutdown(rt, until), -ETIMEDOUT);
        CHECK_GE(reeve_now(), until);
        CHECK_EQ(rv_load_acquire(&ended), (int)workers * TASKS);
        CHECK_EQ(reeve_shutdown(rt, 0), -ETIMEDOUT); /* the same verdict */
        reeve_destroy(rt);
    }
}

struct blocker {
    sem_t running, go;
};

/* Keeps its worker's thread from doing anything else. */
static int block_worker(void *arg)
{
    struct blocker *b = arg;
    sem_post(&b->running);
    await_sem(&b->go);
    return 0;
}

static void *shut_down_at_once(void *arg)
{
    CHECK_EQ(reeve_shutdown(arg, REEVE_POLL), -ETIMEDOUT);
    return NULL;
}

TEST(what_has_not_started_when_a_shutdown_cancels_is_skipped)
{
    uring_or_skip();
    struct blocker b;
    reeve *rt;
    pthread_t thread;
    sem_init(&b.running, 0, 0);
    sem_init(&b.go, 0, 0);
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 1 }));
    CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = block_worker, .arg = &b }));
    await_sem(&b.running);
    for (int i = 0; i < TASKS; i++)
        CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = end_later, .skipped = note_skip }));
    CHECK_EQ(pthread_create(&thread, NULL, shut_down_at_once, rt), 0);
    AWAIT(is_cancelled(rt));
    sem_post(&b.go);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(rv_load_acquire(&ended), TASKS);
    CHECK_EQ(stats_of(rt).skipped, TASKS);
    CHECK_EQ(stats_of(rt).completed, 1);
    reeve_destroy(rt);
}

static void *shut_down_without_bound(void *arg)
{
    CHECK_EQ(reeve_shutdown(arg, 0), -ETIMEDOUT);
    return NULL;
}

TEST(of_two_shutdowns_the_earlier_deadline_counts_for_both)
{
    uring_or_skip();
    reeve *rt = with_waiters(2);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, shut_down_without_bound, rt), 0);
    await_closing(rt);
    CHECK(!is_cancelled(rt));
    CHECK_EQ(reeve_shutdown(rt, reeve_in(REEVE_MS)), -ETIMEDOUT);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(rv_load_acquire(&ended), TASKS);
    reeve_destroy(rt);
}

static int shut_down_another(void *arg)
{
    return reeve_shutdown(arg, REEVE_POLL);
}

TEST(a_task_may_shut_down_another_runtime)
{
    uring_or_skip();
    reeve *rt = with_waiters(1);
    CHECK_EQ(reeve_run(shut_down_another, rt, .workers = 1), -ETIMEDOUT);
    CHECK_EQ(rv_load_acquire(&ended), TASKS);
    reeve_destroy(rt);
}

/* ---- shutting down from inside --------------------------------------------------------------- */

struct inside {
    int64_t first_ns, then_ns; /* the deadlines of two calls, from now; 0: none */
    bool twice;
};

static reeve_time in_or_none(int64_t ns)
{
    return ns ? reeve_in(ns) : 0;
}

static int shut_down_inside(void *arg)
{
    struct inside *in = arg;
    CHECK_EQ(reeve_shutdown(reeve_self(), in_or_none(in->first_ns)), 0);
    if (in->twice)
        CHECK_EQ(reeve_shutdown(reeve_self(), in_or_none(in->then_ns)), 0);
    CHECK_EQ(reeve_post(reeve_self(), &(struct reeve_spawn){ .fn = nothing }), -ESHUTDOWN);
    rv_add_acq_rel(&ended, 1);
    return 0;
}

static void check_inside(struct inside in)
{
    rv_store_release(&ended, 0);
    reeve *rt = with_waiters(2);
    CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = shut_down_inside, .arg = &in }));
    AWAIT(rv_load_acquire(&ended) == 1 + TASKS); /* without anybody outside */
    CHECK_EQ(reeve_shutdown(rt, 0), -ETIMEDOUT);
    reeve_destroy(rt);
}

TEST(a_shutdown_inside_a_task_returns_at_once_and_cancels_at_its_deadline)
{
    uring_or_skip();
    check_inside((struct inside){ .first_ns = 10 * REEVE_MS });
    check_inside((struct inside){ .first_ns = REEVE_POLL });
}

TEST(of_two_shutdowns_inside_the_earlier_deadline_counts)
{
    uring_or_skip();
    int64_t soon = 5 * REEVE_MS, hour = 3600 * REEVE_SEC;
    check_inside((struct inside){ .twice = true, .first_ns = hour, .then_ns = soon });
    check_inside((struct inside){ .twice = true, .first_ns = soon, .then_ns = hour });
    check_inside((struct inside){ .twice = true, .first_ns = soon, .then_ns = 0 });
    check_inside((struct inside){ .twice = true, .first_ns = 0, .then_ns = soon });
}

TEST(a_shutdown_inside_drains_when_all_ends_by_itself)
{
    uring_or_skip();
    struct inside in = { .first_ns = 3600 * REEVE_SEC };
    for (int i = 0; i < 2; i++) {
        reeve *rt;
        rv_store_release(&ended, 0);
        CHECK_OK(reeve_create(&rt, NULL));
        for (int k = 0; k < TASKS; k++)
            CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = end_later }));
        CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = shut_down_inside, .arg = &in }));
        AWAIT(rv_load_acquire(&ended) == 1 + TASKS);
        CHECK_EQ(reeve_shutdown(rt, 0), 0);
        reeve_destroy(rt);
        in.first_ns = 0;
    }
}

static int shut_down_self(void *arg)
{
    (void)arg;
    CHECK_EQ(reeve_shutdown(reeve_self(), REEVE_POLL), 0);
    return reeve_sleep(FOR_EVER);
}

TEST(a_root_that_shuts_down_its_own_runtime_is_cancelled_with_the_rest)
{
    uring_or_skip();
    CHECK_EQ(reeve_run(shut_down_self, NULL), -ECANCELED);
    CHECK_EQ(reeve_run(shut_down_self, NULL, .workers = 1), -ECANCELED);
}

/* ---- destroying ------------------------------------------------------------------------------ */

TEST(destroying_nothing_does_nothing)
{
    reeve_destroy(NULL);
}

TEST(destroying_cancels_what_was_not_shut_down)
{
    uring_or_skip();
    reeve_destroy(with_waiters(2));
    CHECK_EQ(rv_load_acquire(&ended), TASKS);
}

TEST(destroying_waits_for_a_shutdown_that_was_begun_inside)
{
    uring_or_skip();
    reeve *rt;
    struct inside in = { 0 };
    CHECK_OK(reeve_create(&rt, NULL));
    for (int i = 0; i < TASKS; i++)
        CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = end_later }));
    CHECK_EQ(reeve_call(rt, shut_down_inside, &in, 0), 0);
    reeve_destroy(rt); /* no bound was given: nothing is cancelled */
    CHECK_EQ(rv_load_acquire(&ended), 1 + TASKS);
}

static int destroy_self(void *arg)
{
    (void)arg;
    reeve_destroy(reeve_self());
    return 0;
}

static int destroy_another(void *arg)
{
    reeve_destroy(arg);
    return 3;
}

TEST(destroying_inside_a_task_of_the_runtime_aborts_with_a_sentence)
{
    uring_or_skip();
    CHECK_DIES("reeve_destroy was called inside a task", reeve_run(destroy_self, NULL));
    reeve *rt;
    CHECK_OK(reeve_create(&rt, NULL));
    CHECK_EQ(reeve_run(destroy_another, rt), 3); /* of another runtime it is fine */
}

/* ---- the host -------------------------------------------------------------------------------- */

static int read_mask(void *arg)
{
    return pthread_sigmask(SIG_BLOCK, NULL, arg);
}

TEST(signals_to_the_process_are_left_to_the_threads_of_the_host)
{
    uring_or_skip();
    sigset_t mask, before, after;
    reeve *rt;
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &before), 0);
    CHECK_OK(reeve_create(&rt, NULL));
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &after), 0);
    CHECK_EQ(reeve_call(rt, read_mask, &mask, 0), 0);
    static const int hosts[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGALRM, SIGPIPE, SIGUSR1 };
    static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT };
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        CHECK_EQ(sigismember(&mask, hosts[i]), 1);
        CHECK_EQ(sigismember(&after, hosts[i]), sigismember(&before, hosts[i]));
    }
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        CHECK_EQ(sigismember(&mask, own[i]), 0);
    reeve_destroy(rt);
}

static int must_not_run(void *arg)
{
    (void)arg;
    check_failed(__FILE__, __LINE__, "the root ran although there is no io_uring");
}

static void check_refusal(int error)
{
    char why[512] = "", cut[8];
    reeve *rt = (reeve *)why;
    CHECK_EQ(reeve_run(must_not_run, NULL), -error);
    CHECK_EQ(reeve_create(&rt, &(struct reeve_opts){ .fn = must_not_run }), -error);
    CHECK_EQ(rt, (reeve *)why);
    CHECK_EQ(reeve_check(why, sizeof why), -error);
    CHECK(strstr(why, "io_uring"));
    CHECK(strstr(why, "seccomp"));                         /* the cause */
    CHECK(strstr(why, "profile") || strstr(why, "allow")); /* the remedy */
    CHECK_EQ(strchr(why, '\n'), NULL);
    CHECK_EQ(why[strlen(why) - 1], '.');
    CHECK_EQ(reeve_check(cut, sizeof cut), -error); /* cut, with its final 0 */
    CHECK_EQ(strlen(cut), sizeof cut - 1);
    CHECK_MEM_EQ(cut, why, sizeof cut - 1);
}

TEST(where_io_uring_is_not_permitted_nothing_starts_and_check_says_why)
{
    uring_or_skip();
    seccomp_refuse(__NR_io_uring_setup, SECCOMP_ANY_ARGUMENT, EPERM);
    check_refusal(EPERM);
}

TEST(where_there_is_no_io_uring_nothing_starts_and_check_says_why)
{
    uring_or_skip();
    seccomp_refuse(__NR_io_uring_setup, SECCOMP_ANY_ARGUMENT, ENOSYS);
    check_refusal(ENOSYS);
}

TEST(where_io_uring_works_check_says_nothing)
{
    uring_or_skip();
    char why[64] = "untouched";
    CHECK_EQ(reeve_check(why, sizeof why), 0);
    CHECK_STR_EQ(why, "untouched");
}

/* Becomes nobody, with so much memory to lock, and does what a program does. The exit status. */
static int live_as_nobody(rlim_t memlock, unsigned workers)
{
    struct rlimit lim = { memlock, memlock };
    if (setrlimit(RLIMIT_MEMLOCK, &lim) < 0 || setgroups(0, NULL) < 0 || setgid(65534) < 0 ||
        setuid(65534) < 0)
        return 77;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char why[512];
    if (reeve_check(why, sizeof why) == -EPERM)
        return 77; /* the sysctl io_uring_disabled: for the privileged only */
    struct dialogue d = { .rounds = 10, .sv.how.handler = echo };
    server_start(&d.sv, workers);
    CHECK_EQ(reeve_call(d.sv.rt, talk, &d, 0), 9);
    CHECK_EQ(server_stop(&d.sv), 0);
    server_end(&d.sv);
    return 0;
}

TEST(an_ordinary_user_who_may_lock_little_memory_can_run)
{
    uring_or_skip();
    if (geteuid() != 0)
        SKIP("only root can become somebody else");
    static const struct {
        rlim_t memlock;
        unsigned workers;
    } lives[] = { { 8 << 20, 8 }, { 1 << 20, 8 }, { 256 << 10, 2 }, { 128 << 10, 1 } };
    for (size_t i = 0; i < sizeof lives / sizeof *lives; i++) {
        fflush(NULL);
        pid_t child = fork();
        CHECK_OK(child);
        if (child == 0)
            _exit(live_as_nobody(lives[i].memlock, lives[i].workers));
        int status;
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK(WIFEXITED(status));
        if (WEXITSTATUS(status) == 77)
            SKIP("this sandbox lets nobody become nobody, or nobody use io_uring");
        CHECK_EQ(WEXITSTATUS(status), 0);
    }
}
