/* SPDX-License-Identifier: MIT */
/*
 * rescue_test.c -- what a worker owes to others is done by another one while a task keeps its
 * thread: sched/loan.c and the engine together, and the signal that it takes.
 *
 * Each claim is one of order. The task that keeps worker 0 does so until that has happened which,
 * without rescue, could happen only afterwards; so without it the test would never end.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <sched.h>
#include <sys/syscall.h>

#include "runtime/runtime.h"
#include "sched/loan.h"
#include "tests/runtime/server.h"

/* One turn of a loop that computes: it never comes to reeve, and lets other threads have the CPU.
 * ThreadSanitizer delivers signals only in calls that it knows. */
static void compute(void)
{
#if defined(RV_TSAN)
    nanosleep(&(struct timespec){ 0, 10000 }, NULL);
#else
    sched_yield();
#endif
}

#define COMPUTE_UNTIL(cond)                                                                        \
    while (!(cond))                                                                                \
    compute()

/* ---- a scene on two workers ------------------------------------------------------------------ */

enum { N = 6, PINNED = N };

/* Tasks that wait on worker 0, pinned or not, and one that then computes there. */
struct scene {
    int (*wait)(struct scene *sc, uint32_t i);  /* of waiter i */
    void (*happen)(struct scene *sc);           /* right before worker 0 is kept */
    bool pinned;                                /* one more waiter, at home on worker 0 */
    bool sleeps;                                /* it is kept by a call that blocks */
    int64_t ms;                                 /* in how many a timer comes up */
    uint64_t lent;                              /* how often worker 1 acted for worker 0 */
    reeve *rt;
    int fd[N + 1][2];
    reeve_task *task[N + 1];
    int result[N + 1];
    uint32_t ran_on[N + 1];
    bool early[N + 1]; /* before worker 0 was kept, as a timer may */
    bool too_early;
    int bell[2];
    RV_ATOMIC(uint32_t) number, armed, done, blocked, placed, free_again;
};

static uint32_t self_index(void)
{
    return rv_worker_self()->index;
}

static int waiter(void *arg)
{
    struct scene *sc = arg;
    uint32_t i = rv_add_acq_rel(&sc->number, 1u);
    CHECK_EQ(self_index(), 0);
    rv_add_acq_rel(&sc->armed, 1u);
    sc->result[i] = sc->wait(sc, i);
    sc->ran_on[i] = self_index();
    sc->early[i] = !rv_load_acquire(&sc->placed);
    if (i == PINNED)
        sc->too_early = !rv_load_acquire(&sc->free_again);
    if (rv_add_acq_rel(&sc->done, 1u) + 1 == N && sc->sleeps)
        CHECK_EQ(write(sc->bell[1], "!", 1), 1);
    return 0;
}

/* Keeps worker 1, so that what is spawned on worker 0 starts there. */
static int blocker(void *arg)
{
    struct scene *sc = arg;
    rv_store_release(&sc->blocked, 1u);
    COMPUTE_UNTIL(rv_load_acquire(&sc->placed));
    return 0;
}

static int keeper(void *arg)
{
    struct scene *sc = arg;
    reeve_task *other;
    uint32_t n = N + sc->pinned;
    CHECK_OK(reeve_spawn(&other, blocker, sc, .worker = 2));
    COMPUTE_UNTIL(rv_load_acquire(&sc->blocked));
    for (uint32_t i = 0; i < n; i++) {
        CHECK_OK(reeve_spawn(&sc->task[i], waiter, sc, .worker = i == PINNED));
        while (rv_load_acquire(&sc->armed) <= i)
            CHECK_OK(reeve_sleep(REEVE_POLL));
    }
    rv_store_release(&sc->placed, 1u);
    sc->happen(sc);

    char byte;
    if (sc->sleeps) /* restarted after a signal */
        CHECK_EQ(read(sc->bell[0], &byte, 1), 1);
    else
        COMPUTE_UNTIL(rv_load_acquire(&sc->done) >= N);
    rv_store_release(&sc->free_again, 1u);
    for (uint32_t i = 0; i < n; i++)
        CHECK_OK(reeve_join(sc->task[i], NULL, 0));
    CHECK_OK(reeve_join(other, NULL, 0));
    return 0;
}

/* Plays it. Whoever waits then is woken on worker 1, since worker 0 is kept until that. */
static void play(struct scene *sc)
{
    uring_or_skip();
    CHECK_OK(reeve_create(&sc->rt, &(struct reeve_opts){ .workers = 2 }));
    CHECK_EQ(pipe2(sc->bell, O_CLOEXEC), 0);
    for (int i = 0; i <= N; i++)
        CHECK_EQ(pipe2(sc->fd[i], O_CLOEXEC), 0);
    CHECK_OK(reeve_post(sc->rt, &(struct reeve_spawn){ .fn = keeper, .arg = sc, .worker = 1 }));
    CHECK_EQ(reeve_shutdown(sc->rt, 0), 0);
    struct reeve_stats st = stats_of(sc->rt);
    CHECK_LE(st.loans_taken, st.loans_given);
    CHECK_LE(st.loans_given, st.rescue_signals);
    for (int i = 0; i < N; i++)
        CHECK(sc->early[i] || sc->ran_on[i] == 1);
    sc->lent = st.loans_taken;
    reeve_destroy(sc->rt);
    for (int i = 0; i <= N; i++)
        for (int k = 0; k < 2; k++)
            close(sc->fd[i][k]);
    close(sc->bell[0]);
    close(sc->bell[1]);
}

static int read_byte(struct scene *sc, uint32_t i)
{
    char byte;
    return (int)reeve_read(sc->fd[i][0], &byte, 1, LONG);
}

static void write_bytes(struct scene *sc)
{
    for (int i = N; i >= 0; i--) /* the pinned one's first: it is not behind the others */
        CHECK_EQ(write(sc->fd[i][1], "x", 1), 1);
}

static void check_all(const struct scene *sc, int result)
{
    for (int i = 0; i < N; i++)
        CHECK_EQ(sc->result[i], result);
}

/* What does not come about by itself comes after worker 0 is kept, and by way of worker 1. */
static void check_none_early(const struct scene *sc)
{
    for (int i = 0; i < N; i++)
        CHECK(!sc->early[i]);
    CHECK_GT(sc->lent, 0);
}

/* Plays it with timers, until some come up while worker 0 is kept. If it stood still for that long,
 * they have all done so before. */
static void play_timed(int (*wait)(struct scene *sc, uint32_t i), void (*happen)(struct scene *sc),
                       int result)
{
    for (int64_t ms = 50 * SLOWER, lent = 0; lent == 0; ms *= 2) {
        struct scene sc = { .wait = wait, .happen = happen, .ms = ms };
        play(&sc);
        for (int i = 0; i < N; i++)
            CHECK_EQ(sc.result[i], result);
        lent = (int64_t)sc.lent;
    }
}

TEST(completions_of_a_worker_that_computes_reach_their_tasks)
{
    struct scene sc = { .wait = read_byte, .happen = write_bytes };
    play(&sc);
    check_all(&sc, 1);
    check_none_early(&sc);
}

TEST(completions_of_a_worker_that_blocks_reach_their_tasks)
{
#if defined(RV_TSAN)
    SKIP("ThreadSanitizer keeps a signal back until the blocking call has ended");
#endif
    struct scene sc = { .wait = read_byte, .happen = write_bytes, .sleeps = true };
    play(&sc);
    check_all(&sc, 1);
    check_none_early(&sc);
}

TEST(what_is_pinned_to_a_worker_that_computes_waits_for_it)
{
    struct scene sc = { .wait = read_byte, .happen = write_bytes, .pinned = true };
    play(&sc);
    check_all(&sc, 1);
    check_none_early(&sc);
    CHECK_EQ(sc.result[PINNED], 1);
    CHECK_EQ(sc.ran_on[PINNED], 0);
    CHECK(!sc.too_early);
}

static int sleep_a_little(struct scene *sc, uint32_t i)
{
    return reeve_sleep(reeve_in((sc->ms + i) * REEVE_MS));
}

static void nothing(struct scene *sc)
{
    (void)sc;
}

TEST(timers_of_a_worker_that_computes_fire)
{
    play_timed(sleep_a_little, nothing, 0);
}

static int read_in_vain(struct scene *sc, uint32_t i)
{
    char byte;
    return (int)reeve_read(sc->fd[i][0], &byte, 1, reeve_in((sc->ms + i) * REEVE_MS));
}

TEST(deadlines_of_operations_on_a_worker_that_computes_are_kept)
{
    play_timed(read_in_vain, nothing, -ETIMEDOUT);
}

static void cancel_here(struct scene *sc)
{
    for (int i = 0; i < N; i++)
        reeve_cancel(sc->task[i]);
}

TEST(what_a_task_asked_for_before_it_computes_is_done_meanwhile)
{
    struct scene sc = { .wait = read_byte, .happen = cancel_here };
    play(&sc);
    check_all(&sc, -ECANCELED);
    check_none_early(&sc);
}

static int cancel_there(void *arg)
{
    CHECK_EQ(self_index(), 1);
    cancel_here(arg);
    return 0;
}

static void spawn_canceller(struct scene *sc)
{
    CHECK_OK(reeve_go(cancel_there, sc, .worker = 2));
}

TEST(a_cancellation_from_elsewhere_reaches_a_worker_that_computes)
{
    struct scene sc = { .wait = read_byte, .happen = spawn_canceller };
    play(&sc);
    check_all(&sc, -ECANCELED);
    check_none_early(&sc);
}

static int close_there(void *arg)
{
    struct scene *sc = arg;
    for (int i = 0; i < N; i++)
        CHECK_OK(reeve_close(sc->fd[i][0]));
    return 0;
}

static void spawn_closer(struct scene *sc)
{
    CHECK_OK(reeve_go(close_there, sc, .worker = 2));
}

TEST(a_close_from_elsewhere_reaches_a_worker_that_computes)
{
    struct scene sc = { .wait = read_byte, .happen = spawn_closer };
    uring_or_skip();
    play(&sc);
    check_all(&sc, -ECANCELED);
    check_none_early(&sc);
}

/* ---- the end of a runtime one of whose workers is kept --------------------------------------- */

struct last {
    int fd[2];
    int result;
    RV_ATOMIC(uint32_t) waits, ended;
};

static int wait_to_be_cancelled(void *arg)
{
    struct last *l = arg;
    char byte;
    rv_add_acq_rel(&l->waits, 1u);
    l->result = (int)reeve_read(l->fd[0], &byte, 1, 0);
    rv_store_release(&l->ended, 1u);
    return 0;
}

static int compute_to_the_end(void *arg)
{
    struct last *l = arg;
    CHECK_OK(reeve_go(wait_to_be_cancelled, l));
    while (rv_load_acquire(&l->waits) == 0)
        CHECK_OK(reeve_sleep(REEVE_POLL));
    rv_add_acq_rel(&l->waits, 1u);
    COMPUTE_UNTIL(rv_load_acquire(&l->ended));
    return 0;
}

TEST(a_shutdown_cancels_what_waits_on_a_worker_that_computes)
{
    reeve *rt;
    struct last l = { 0 };
    uring_or_skip();
    CHECK_EQ(pipe2(l.fd, O_CLOEXEC), 0);
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 2 }));
    CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = compute_to_the_end, .arg = &l }));
    AWAIT(rv_load_acquire(&l.waits) == 2);
    CHECK_EQ(reeve_shutdown(rt, reeve_in(10 * REEVE_MS)), -ETIMEDOUT);
    CHECK_EQ(l.result, -ECANCELED);
    reeve_destroy(rt);
    close(l.fd[0]);
    close(l.fd[1]);
}

/* ---- servers --------------------------------------------------------------------------------- */

static RV_ATOMIC(uint32_t) computing, enough;

/* Echoes; but a message that begins with 'S' is answered after the test has said that it may be. */
static int echo_or_compute(int fd, void *ctx)
{
    struct reeve_buf *buf;
    ssize_t n;
    (void)ctx;
    while ((n = reeve_buf_recv(fd, &buf, 0)) > 0) {
        if (((const char *)buf->data)[0] == 'S') {
            rv_add_acq_rel(&computing, 1u);
            COMPUTE_UNTIL(rv_load_acquire(&enough));
        }
        if ((n = reeve_buf_send(fd, buf, LONG)) < 0)
            break;
    }
    return (int)n;
}

/* Of so many connections, some keep a worker each; all others are answered meanwhile. */
static void serve_while_some_compute(unsigned workers, int stuck)
{
    enum { CONNS = 16 };
    struct server sv = { .how.handler = echo_or_compute };
    int fd[CONNS];
    server_start(&sv, workers);
    for (int i = 0; i < CONNS; i++) {
        fd[i] = peer_connect(sv.port);
        peer_echo(fd[i], "hello", 5);
    }
    for (int i = 0; i < stuck; i++) {
        peer_send(fd[i], "S", 1);
        AWAIT(rv_load_acquire(&computing) == (uint32_t)i + 1);
    }
    for (unsigned round = 0; round < times(40); round++)
        for (int i = stuck; i < CONNS; i++)
            peer_echo(fd[i], &round, sizeof round);
    int late = peer_connect(sv.port);
    peer_echo(late, "late", 4);
    rv_store_release(&enough, 1u);
    char byte;
    for (int i = 0; i < stuck; i++) {
        peer_receive(fd[i], &byte, 1);
        CHECK_EQ(byte, 'S');
    }
    close(late);
    for (int i = 0; i < CONNS; i++)
        close(fd[i]);
    CHECK_EQ(server_stop(&sv), 0);
    CHECK_GT(stats_of(sv.rt).loans_taken, 0);
    server_end(&sv);
}

TEST(connections_of_a_worker_that_computes_are_served)
{
    serve_while_some_compute(2, 1);
}

TEST(one_worker_serves_for_two_that_compute)
{
    serve_while_some_compute(3, 2);
}

/* ---- the signal ------------------------------------------------------------------------------ */

static intptr_t action_of(int number)
{
    struct sigaction now;
    CHECK_EQ(sigaction(number, NULL, &now), 0);
    return now.sa_flags & SA_SIGINFO ? (intptr_t)now.sa_sigaction : (intptr_t)now.sa_handler;
}

static unsigned signals_taken(void)
{
    unsigned n = 0;
    for (int i = SIGRTMIN; i <= SIGRTMAX; i++)
        n += action_of(i) != (intptr_t)SIG_DFL;
    return n;
}

static int return_at_once(void *arg)
{
    (void)arg;
    return 0;
}

TEST(the_signal_is_taken_with_the_first_runtime_and_given_back_with_the_last)
{
    reeve *a, *b;
    stack_t before, after;
    uring_or_skip();
    CHECK_EQ(signals_taken(), 0);
    CHECK_OK(reeve_create(&a, &(struct reeve_opts){ .workers = 2 }));
    CHECK_EQ(signals_taken(), 1);
    CHECK_OK(reeve_create(&b, &(struct reeve_opts){ .workers = 2 }));
    CHECK_EQ(signals_taken(), 1);
    reeve_destroy(a);
    CHECK_EQ(signals_taken(), 1);
    reeve_destroy(b);
    CHECK_EQ(signals_taken(), 0);
    CHECK_EQ(sigaltstack(NULL, &before), 0);
    CHECK_EQ(reeve_run(return_at_once, NULL, .workers = 2), 0);
    CHECK_EQ(sigaltstack(NULL, &after), 0);
    CHECK_EQ(after.ss_sp, before.ss_sp);
    CHECK_EQ(after.ss_flags, before.ss_flags);
    CHECK_EQ(signals_taken(), 0);
}

TEST(without_rescue_or_with_one_worker_no_signal_is_taken)
{
    reeve *rt;
    uring_or_skip();
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 2, .rescue_signal = -1 }));
    CHECK_EQ(signals_taken(), 0);
    reeve_destroy(rt);
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 1 }));
    CHECK_EQ(signals_taken(), 0);
    reeve_destroy(rt);
}

static void handle(int number)
{
    (void)number;
}

TEST(a_signal_that_is_taken_or_none_is_refused)
{
    reeve *rt;
    uring_or_skip();
    signal(SIGUSR1, handle);
    signal(SIGUSR2, SIG_IGN);
    static const struct {
        int number, error;
    } bad[] = { { SIGUSR1, -EBUSY },  { SIGUSR2, -EBUSY },  { SIGKILL, -EINVAL },
                { SIGSTOP, -EINVAL }, { SIGSEGV, -EINVAL }, { SIGABRT, -EINVAL },
                { 32, -EINVAL },      { 65, -EINVAL },      { -2, -EINVAL } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ(reeve_create(&rt, &(struct reeve_opts){ .workers = 2,
                                                         .rescue_signal = bad[i].number }),
                 bad[i].error);
    CHECK_EQ(action_of(SIGUSR1), (intptr_t)handle);
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 2, .rescue_signal = SIGRTMAX }));
    CHECK_NE(action_of(SIGRTMAX), (intptr_t)SIG_DFL);
    reeve_destroy(rt);
    CHECK_EQ(action_of(SIGRTMAX), (intptr_t)SIG_DFL);
}

TEST(a_program_that_has_taken_every_signal_does_without_rescue)
{
    reeve *rt;
    uring_or_skip();
    for (int i = SIGRTMIN; i <= SIGRTMAX; i++)
        signal(i, handle);
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 2 }));
    reeve_destroy(rt);
    for (int i = SIGRTMIN; i <= SIGRTMAX; i++)
        CHECK_EQ(action_of(i), (intptr_t)handle);
}

TEST(a_stray_signal_does_no_harm)
{
    struct server sv = { .how.handler = echo };
    server_start(&sv, 2);
    int number = 0, fd = peer_connect(sv.port);
    for (int i = SIGRTMIN; i <= SIGRTMAX; i++)
        if (action_of(i) != (intptr_t)SIG_DFL)
            number = i;
    CHECK_NE(number, 0);
    for (int k = 0; k < 2; k++) /* it serves already, but one of the threads may begin only now */
        AWAIT(rv_load_relaxed(&sv.rt->sched.workers[k]->loan.tid) != 0);
    for (unsigned i = 0; i < times(2000); i++) {
        if (i % 2)
            CHECK_EQ(kill(getpid(), number), 0);
        else
            for (int k = 0; k < 2; k++)
                CHECK_EQ(syscall(SYS_tgkill, getpid(),
                                 rv_load_relaxed(&sv.rt->sched.workers[k]->loan.tid), number),
                         0);
        peer_echo(fd, &i, sizeof i);
    }
    close(fd);
    CHECK_EQ(server_stop(&sv), 0);
    server_end(&sv);
}

/* ---- stress ---------------------------------------------------------------------------------- */

enum { CLIENTS = 24, MESSAGE_MAX = 300 };

static RV_ATOMIC(uint32_t) rounds_left;

static int64_t cpu_ns(void)
{
    struct timespec t;
    CHECK_EQ(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t), 0);
    return t.tv_sec * REEVE_SEC + t.tv_nsec;
}

/* The first byte of a message says how long to compute, in half milliseconds; the second, how long
 * the message is. */
static int echo_slowly(int fd, void *ctx)
{
    struct server *sv = ctx;
    unsigned char m[MESSAGE_MAX];
    ssize_t n = 0;
    handler_enters(sv);
    for (;;) {
        size_t len = 2, have = 0;
        while (have < len && (n = reeve_read(fd, m + have, len - have, LONG)) > 0) {
            have += (size_t)n;
            len = have < 2 ? 2 : 2 + (size_t)m[1];
        }
        if (have < len)
            break;
        for (int64_t end = cpu_ns() + m[0] * (REEVE_MS / 2); cpu_ns() < end;)
            ;
        if ((n = reeve_write(fd, m, len, LONG)) < 0)
            break;
    }
    handler_leaves(sv);
    return (int)n;
}

static unsigned draw(unsigned *state, unsigned below)
{
    *state = *state * 1103515245u + 12345u;
    return (*state >> 8) % below;
}

/* Talks, and hangs up in all manners. What comes back is what went out. */
static void *client(void *arg)
{
    struct server *sv = arg;
    static RV_ATOMIC(uint32_t) clients;
    unsigned state = 7919 * (rv_add_relaxed(&clients, 1u) + 1), sent = 0;
    int fd = peer_connect(sv->port);
    for (;;) {
        uint32_t left = rv_load_relaxed(&rounds_left);
        while (left > 0 && !rv_cas(&rounds_left, &left, left - 1))
            ;
        if (left == 0)
            break;
        unsigned char m[MESSAGE_MAX], back[MESSAGE_MAX];
        size_t len = 2 + draw(&state, 200);
        m[0] = draw(&state, 10) == 0 ? (unsigned char)(2 + draw(&state, 38)) : 0;
        m[1] = (unsigned char)(len - 2);
        fill_pattern(m + 2, len - 2, ++sent * 1000);
        peer_send(fd, m, len);
        if (draw(&state, 12) == 0) { /* without waiting for the answer */
            if (draw(&state, 2))
                peer_reset(fd);
            else
                close(fd);
            fd = peer_connect(sv->port);
            continue;
        }
        peer_receive(fd, back, len);
        CHECK_MEM_EQ(back, m, len);
    }
    close(fd);
    return NULL;
}

TEST(every_byte_comes_back_while_workers_come_and_go)
{
    struct server sv = { .how = { .handler = echo_slowly, .idle_ns = 20 * REEVE_SEC } };
    pthread_t threads[CLIENTS];
    server_start(&sv, 2);
    rv_store_relaxed(&rounds_left, times(800));
    for (int i = 0; i < CLIENTS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, client, &sv), 0);
    for (int i = 0; i < CLIENTS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    AWAIT(rv_load_acquire(&sv.live) == 0);
    CHECK_EQ(server_stop(&sv), 0);
    struct reeve_stats st = stats_of(sv.rt);
    CHECK_LE(st.loans_taken, st.loans_given); /* how many depends on who else wants the CPUs */
    server_end(&sv);
}
