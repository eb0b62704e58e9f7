/* SPDX-License-Identifier: MIT */
/*
 * post_test.c -- runtime/post.c: work from threads that are not the runtime's.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "runtime/runtime.h"
#include "tests/runtime/server.h"

/* ---- post ------------------------------------------------------------------------------------ */

enum { THREADS = 8, PER_THREAD = 10000 };

static struct {
    reeve *rt;
    RV_ATOMIC(int) runs[THREADS * PER_THREAD];
    RV_ATOMIC(int) skips[THREADS * PER_THREAD];
} tally;

static int count_run(void *arg)
{
    uint32_t id = *(uint32_t *)arg;
    int r = id % 7 == 0 ? reeve_sleep(0) : 0;
    CHECK(r == 0 || r == -ECANCELED);
    rv_add_acq_rel(&tally.runs[id], 1);
    return 0;
}

static void count_skip(void *arg)
{
    rv_add_acq_rel(&tally.skips[*(uint32_t *)arg], 1);
}

static void post_number(uint32_t id)
{
    struct reeve_spawn how = { .fn = count_run,
                               .arg = &id,
                               .copy = sizeof id,
                               .worker = id % 5 == 0 ? 1 + (int)(id % 3) : 0,
                               .skipped = count_skip };
    CHECK_OK(reeve_post(tally.rt, &how));
}

static void *post_many(void *arg)
{
    uint32_t first = (uint32_t)(intptr_t)arg * PER_THREAD;
    for (uint32_t i = 0; i < times(PER_THREAD); i++)
        post_number(first + i);
    return NULL;
}

/* Each of what the threads posted ran once, or was skipped once where that may be. */
static void check_tally(bool may_skip)
{
    for (uint32_t thread = 0; thread < THREADS; thread++)
        for (uint32_t i = 0; i < PER_THREAD; i++) {
            uint32_t id = thread * PER_THREAD + i;
            int runs = rv_load_acquire(&tally.runs[id]), skips = rv_load_acquire(&tally.skips[id]);
            CHECK_EQ(runs + skips, i < times(PER_THREAD));
            if (!may_skip)
                CHECK_EQ(skips, 0);
        }
}

static void post_from_all(pthread_t thread[THREADS])
{
    uring_or_skip();
    CHECK_OK(reeve_create(&tally.rt, &(struct reeve_opts){ .workers = 3 }));
    for (intptr_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, post_many, (void *)i), 0);
}

TEST(what_eight_threads_post_runs_exactly_once)
{
    pthread_t thread[THREADS];
    post_from_all(thread);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    CHECK_EQ(reeve_shutdown(tally.rt, 0), 0);
    CHECK_EQ(stats_of(tally.rt).spawned, THREADS * times(PER_THREAD));
    reeve_destroy(tally.rt);
    check_tally(false);
}

TEST(what_was_posted_before_a_shutdown_runs_or_is_skipped_exactly_once)
{
    pthread_t thread[THREADS];
    post_from_all(thread);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    int r = reeve_shutdown(tally.rt, REEVE_POLL);
    CHECK(r == 0 || r == -ETIMEDOUT);
    reeve_destroy(tally.rt);
    check_tally(true);
}

/* Posts until it is refused; what came before that counts. */
static void *post_until_refused(void *arg)
{
    uint32_t first = (uint32_t)(intptr_t)arg * PER_THREAD;
    int r = 0;
    for (uint32_t i = 0; i < PER_THREAD && r == 0; i++) {
        uint32_t id = first + i;
        r = reeve_post(tally.rt,
                       &(struct reeve_spawn){
                           .fn = count_run, .arg = &id, .copy = sizeof id, .skipped = count_skip });
        if (r == 0)
            rv_sub_acq_rel(&tally.runs[id], 1); /* so that it ends at 0 */
    }
    CHECK(r == 0 || r == -ESHUTDOWN);
    return NULL;
}

TEST(posts_that_race_a_shutdown_are_refused_or_kept)
{
    uring_or_skip();
    for (unsigned round = 0; round < times(40); round++) {
        pthread_t thread[THREADS];
        memset(&tally, 0, sizeof tally);
        CHECK_OK(reeve_create(&tally.rt, &(struct reeve_opts){ .workers = 2 }));
        for (intptr_t i = 0; i < THREADS; i++)
            CHECK_EQ(pthread_create(&thread[i], NULL, post_until_refused, (void *)i), 0);
        AWAIT(stats_of(tally.rt).spawned > round * 10);
        int r = reeve_shutdown(tally.rt, round % 2 ? REEVE_POLL : 0);
        CHECK(r == 0 || (r == -ETIMEDOUT && round % 2));
        for (int i = 0; i < THREADS; i++)
            CHECK_EQ(pthread_join(thread[i], NULL), 0);
        reeve_destroy(tally.rt);
        for (uint32_t id = 0; id < THREADS * PER_THREAD; id++)
            CHECK_EQ(rv_load_acquire(&tally.runs[id]) + rv_load_acquire(&tally.skips[id]), 0);
    }
}

static int post_inside(void *arg)
{
    for (uint32_t id = 0; id < 1000; id++)
        post_number(id);
    return *(int *)arg;
}

TEST(a_task_may_post_too)
{
    uring_or_skip();
    int result = 4;
    CHECK_OK(reeve_create(&tally.rt, &(struct reeve_opts){ .workers = 3 }));
    CHECK_EQ(reeve_call(tally.rt, post_inside, &result, 0), 4);
    CHECK_EQ(reeve_shutdown(tally.rt, 0), 0);
    reeve_destroy(tally.rt);
    for (uint32_t id = 0; id < 1000; id++)
        CHECK_EQ(rv_load_acquire(&tally.runs[id]), 1);
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

TEST(a_post_says_what_is_wrong_with_it)
{
    uring_or_skip();
    reeve *rt;
    reeve_group group = { 0 };
    char byte = 0;
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 2 }));
    static const struct reeve_spawn wrong[] = {
        { .fn = NULL },
        { .fn = nothing, .copy = 1 },
        { .fn = nothing, .deadline = -1 },
        { .fn = nothing, .priority = -1 },
        { .fn = nothing, .priority = REEVE_URGENT + 1 },
        { .fn = nothing, .worker = -1 },
        { .fn = nothing, .worker = 3 },
        { .fn = nothing, .stack_bytes = 4095 },
        { .fn = nothing, .stack_bytes = (1 << 20) + 1 },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_EQ(reeve_post(rt, &wrong[i]), -EINVAL);
    CHECK_EQ(reeve_post(rt, &(struct reeve_spawn){ .fn = nothing, .group = &group }), -EINVAL);
    CHECK_EQ(reeve_post(rt, &(struct reeve_spawn){ .fn = nothing, .arg = &byte, .copy = 65537 }),
             -E2BIG);
    CHECK_EQ(stats_of(rt).spawned, 0);
    reeve_destroy(rt);
}

static int must_not_run(void *arg)
{
    (void)arg;
    check_failed(__FILE__, __LINE__, "a task ran that should have been skipped");
}

TEST(a_posted_task_whose_deadline_has_passed_is_skipped)
{
    uring_or_skip();
    uint32_t id = 11;
    CHECK_OK(reeve_create(&tally.rt, NULL));
    CHECK_OK(reeve_post(tally.rt, &(struct reeve_spawn){ .fn = must_not_run,
                                                         .arg = &id,
                                                         .copy = sizeof id,
                                                         .deadline = 1,
                                                         .skipped = count_skip }));
    CHECK_EQ(reeve_shutdown(tally.rt, 0), 0);
    CHECK_EQ(rv_load_acquire(&tally.skips[11]), 1);
    CHECK_EQ(stats_of(tally.rt).expired, 1);
    CHECK_EQ(stats_of(tally.rt).skipped, 1);
    reeve_destroy(tally.rt);
}

/* ---- call ------------------------------------------------------------------------------------ */

static int add_one(void *arg)
{
    int *n = arg;
    CHECK_OK(reeve_sleep(0));
    return ++*n;
}

struct caller {
    reeve *rt;
    unsigned calls;
};

static void *call_often(void *arg)
{
    struct caller *c = arg;
    int n = 0;
    for (unsigned i = 0; i < c->calls; i++) {
        int before = n;
        CHECK_EQ(reeve_call(c->rt, add_one, &n, i % 2 ? LONG : 0), before + 1);
        CHECK_EQ(n, before + 1);
    }
    return NULL;
}

TEST(a_call_returns_what_its_function_returned_on_many_threads_at_a_time)
{
    uring_or_skip();
    reeve *rt;
    pthread_t thread[THREADS];
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 2 }));
    struct caller c = { rt, times(1000) };
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, call_often, &c), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    CHECK_EQ(reeve_call(rt, nothing, NULL, 0), 0);
    reeve_destroy(rt);
}

static int give_back(void *arg)
{
    return *(int *)arg;
}

TEST(a_negative_result_is_the_callers_too)
{
    uring_or_skip();
    reeve *rt;
    int result = -EXDEV;
    CHECK_OK(reeve_create(&rt, NULL));
    CHECK_EQ(reeve_call(rt, give_back, &result, 0), -EXDEV);
    CHECK_EQ(reeve_call(rt, NULL, NULL, 0), -EINVAL);
    reeve_destroy(rt);
}

static RV_ATOMIC(int) ended;

static int end_later(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++)
        CHECK_OK(reeve_sleep(0));
    rv_add_acq_rel(&ended, 1);
    return 0;
}

static int leave_a_child(void *arg)
{
    CHECK_OK(reeve_go(end_later, arg));
    return 1;
}

TEST(a_call_returns_when_the_children_of_its_task_are_done_too)
{
    uring_or_skip();
    reeve *rt;
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 2 }));
    for (int i = 1; i <= 50; i++) {
        CHECK_EQ(reeve_call(rt, leave_a_child, NULL, 0), 1);
        CHECK_EQ(rv_load_acquire(&ended), i);
    }
    reeve_destroy(rt);
}

static int sleep_for_ever(void *arg)
{
    (void)arg;
    return reeve_sleep(reeve_in(INT64_MAX));
}

static int wait_long(void *arg)
{
    (void)arg;
    struct reeve_buf *buf;
    reeve_time until = reeve_in(3600 * REEVE_SEC);
    CHECK_EQ(reeve_sleep(until), -ETIMEDOUT);
    CHECK_EQ(reeve_accept(*(int *)arg, until), -ETIMEDOUT);
    CHECK_EQ(reeve_buf_borrow(&buf, until), 0); /* what is there beats a deadline */
    reeve_buf_return(buf);
    return 8;
}

TEST(the_deadline_of_a_call_becomes_its_tasks)
{
    uring_or_skip();
    reeve *rt;
    CHECK_OK(reeve_create(&rt, NULL));
    int listener = (int)CHECK_OK(reeve_listen("127.0.0.1:0", 0));
    CHECK_EQ(reeve_call(rt, sleep_for_ever, NULL, reeve_in(5 * REEVE_MS)), -ETIMEDOUT);
    int64_t ns = 5 * REEVE_MS;
    int r;
    while ((r = reeve_call(rt, wait_long, &listener, reeve_in(ns))) == -ETIMEDOUT)
        ns *= 2; /* it did not even start in time */
    CHECK_EQ(r, 8);
    CHECK_EQ(reeve_call(rt, must_not_run, NULL, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_call(rt, must_not_run, NULL, 1), -ETIMEDOUT);
    CHECK_EQ(reeve_close(listener), 0);
    reeve_destroy(rt);
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

static void block(reeve *rt, struct blocker *b)
{
    sem_init(&b->running, 0, 0);
    sem_init(&b->go, 0, 0);
    CHECK_OK(reeve_post(rt, &(struct reeve_spawn){ .fn = block_worker, .arg = b }));
    await_sem(&b->running);
}

struct queued_call {
    reeve *rt;
    reeve_time until;
    int result;
};

static void *call_it(void *arg)
{
    struct queued_call *c = arg;
    c->result = reeve_call(c->rt, must_not_run, NULL, c->until);
    return NULL;
}

TEST(a_call_whose_deadline_passes_in_the_queue_never_starts)
{
    uring_or_skip();
    struct blocker b;
    pthread_t thread;
    struct queued_call c = { .until = reeve_in(20 * REEVE_MS) };
    CHECK_OK(reeve_create(&c.rt, &(struct reeve_opts){ .workers = 1 }));
    block(c.rt, &b);
    CHECK_EQ(pthread_create(&thread, NULL, call_it, &c), 0);
    AWAIT(reeve_now() > c.until + RV_FASTCLOCK_LAG_NS); /* by the worker's clock, too */
    sem_post(&b.go);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(c.result, -ETIMEDOUT);
    reeve_destroy(c.rt);
}

static void *shut_down_at_once(void *arg)
{
    CHECK_EQ(reeve_shutdown(arg, REEVE_POLL), -ETIMEDOUT);
    return NULL;
}

TEST(a_call_that_is_queued_when_a_shutdown_cancels_never_starts)
{
    uring_or_skip();
    struct blocker b;
    pthread_t caller, closer;
    struct queued_call c = { 0 };
    CHECK_OK(reeve_create(&c.rt, &(struct reeve_opts){ .workers = 1 }));
    block(c.rt, &b);
    CHECK_EQ(pthread_create(&caller, NULL, call_it, &c), 0);
    AWAIT(stats_of(c.rt).spawned == 2); /* the call is in the queue */
    CHECK_EQ(pthread_create(&closer, NULL, shut_down_at_once, c.rt), 0);
    AWAIT(rv_load_acquire(&c.rt->sched.work->ctl) & RV_CTL_CANCELLED);
    sem_post(&b.go);
    CHECK_EQ(pthread_join(caller, NULL), 0);
    CHECK_EQ(pthread_join(closer, NULL), 0);
    CHECK_EQ(c.result, -ECANCELED);
    reeve_destroy(c.rt);
}

static void *call_and_be_cancelled(void *arg)
{
    CHECK_EQ(reeve_call(arg, sleep_for_ever, NULL, 0), -ECANCELED);
    return NULL;
}

TEST(a_call_that_runs_when_a_shutdown_cancels_sees_it_and_returns)
{
    uring_or_skip();
    reeve *rt;
    pthread_t thread;
    CHECK_OK(reeve_create(&rt, NULL));
    CHECK_EQ(pthread_create(&thread, NULL, call_and_be_cancelled, rt), 0);
    AWAIT(stats_of(rt).spawned >= 2); /* the call, and the function in it */
    CHECK_EQ(reeve_shutdown(rt, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(reeve_call(rt, must_not_run, NULL, 0), -ESHUTDOWN);
    CHECK_EQ(reeve_call(rt, must_not_run, NULL, LONG), -ESHUTDOWN);
    reeve_destroy(rt);
}

static int call_inside(void *arg)
{
    reeve **other = arg;
    CHECK_EQ(reeve_call(reeve_self(), must_not_run, NULL, 0), -EDEADLK);
    CHECK_EQ(reeve_call(*other, must_not_run, NULL, 0), -EDEADLK); /* it would block this worker */
    return 2;
}

static int call_result;
static void call_in_skipped(void *arg)
{
    call_result = reeve_call(*(reeve **)arg, must_not_run, NULL, 0);
}

TEST(a_call_inside_a_task_or_a_skipped_is_refused)
{
    uring_or_skip();
    reeve *rt;
    CHECK_OK(reeve_create(&rt, NULL));
    CHECK_EQ(reeve_call(rt, call_inside, &rt, 0), 2);
    CHECK_EQ(reeve_run(call_inside, &rt), 2);
    CHECK_OK(reeve_post(
        rt, &(struct reeve_spawn){
                .fn = must_not_run, .arg = &rt, .deadline = 1, .skipped = call_in_skipped }));
    CHECK_EQ(reeve_shutdown(rt, 0), 0);
    CHECK_EQ(call_result, -EDEADLK);
    reeve_destroy(rt);
}

TEST(posts_and_calls_are_refused_when_all_descriptors_are_taken)
{
    uring_or_skip();
    reeve *rt;
    int r;
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 1, .tasks_max = 20 }));
    while ((r = reeve_post(rt, &(struct reeve_spawn){ .fn = sleep_for_ever })) == 0)
        ;
    CHECK_EQ(r, -EAGAIN);
    CHECK_EQ(reeve_call(rt, must_not_run, NULL, 0), -EAGAIN);
    reeve_destroy(rt);
}
