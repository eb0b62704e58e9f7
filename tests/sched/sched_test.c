/* SPDX-License-Identifier: MIT */
/*
 * sched_test.c -- sched/sched.c: a scheduler from beginning to end, what is posted to it, and what
 * becomes of everything when an allocation fails anywhere.
 */
#define CHECK_MAIN
#include "tests/sched/host.h"

/* ---- beginnings ---- */

static struct rv_sched_opts good_opts(void)
{
    return (struct rv_sched_opts){ .engine = &host_engine,
                                   .workers = 2,
                                   .tasks_max = 100,
                                   .stack_class = 1,
                                   .injector_every = 61,
                                   .pass_picks = 61,
                                   .pass_ns = 100000 };
}

static struct rv_sched *zeroed(void)
{
    struct rv_sched *s = rv_alloc_aligned(sizeof *s, RV_CACHE_LINE);
    CHECK(s != NULL);
    memset(s, 0, sizeof *s);
    return s;
}

TEST(options_out_of_range_are_refused)
{
    struct rv_sched_opts good = good_opts(), bad[9];
    for (int i = 0; i < 9; i++)
        bad[i] = good;
    bad[0].workers = 0;
    bad[1].workers = RV_WORKERS_MAX + 1;
    bad[2].tasks_max = 0;
    bad[3].tasks_max = UINT32_MAX;
    bad[4].stack_class = RV_STACK_CLASSES;
    bad[5].injector_every = 0;
    bad[6].pass_picks = 0;
    bad[7].pass_picks = -1;
    bad[8].pass_ns = -1;
    struct rv_sched *s = zeroed();
    for (int i = 0; i < 9; i++)
        CHECK_EQ(rv_sched_init(s, &bad[i]), -EINVAL);
    rv_sched_finish(s);
    rv_free(s);
}

TEST(finish_takes_what_init_made_and_nothing_too)
{
    struct rv_sched_opts good = good_opts();
    struct rv_sched *s = zeroed();
    rv_sched_finish(s);
    for (int i = 0; i < 3; i++) {
        CHECK_OK(rv_sched_init(s, &good));
        rv_sched_finish(s);
        memset(s, 0, sizeof *s);
    }
    rv_free(s);
}

TEST(a_beginning_without_memory_gives_back_what_it_had)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    struct rv_sched_opts good = good_opts();
    struct rv_sched *s = zeroed();
    unsigned refused = 0, done_without = 0;
    bool failed = true;
    for (uint64_t n = 1; failed; n++) {
        rv_fault_fail_nth(n);
        int r = rv_sched_init(s, &good);
        failed = rv_fault_last_name() != NULL;
        CHECK(r == 0 || (failed && r == -ENOMEM));
        refused += r < 0;
        done_without += failed && r == 0;
        if (r == 0)
            rv_sched_finish(s);
        memset(s, 0, sizeof *s);
    }
    rv_fault_off();
    CHECK_GT(refused, 8);
    CHECK_LE(done_without, 1); /* the probe for stack guards */
    rv_free(s);
}

TEST(many_workers_and_many_tasks_cost_address_space_only)
{
    struct rusage before, after;
    CHECK_EQ(getrusage(RUSAGE_SELF, &before), 0);
    struct host *h = host_create_with(
        &(struct host_opts){ .workers = 64, .tasks_max = 1 << 20, .virtual = true });
    CHECK_EQ(host_run_on(h, host_nothing, NULL), 0);
    host_destroy(h);
    CHECK_EQ(getrusage(RUSAGE_SELF, &after), 0);
    if (HOST_SLOWER == 1)
        CHECK_LT(after.ru_maxrss - before.ru_maxrss, 16 * 1024);
}

/* ---- posts ---- */

static RV_ATOMIC(unsigned) runs, skips;

static int count(void *arg)
{
    (void)arg;
    rv_add_relaxed(&runs, 1u);
    return 0;
}

static void count_skip(void *arg)
{
    (void)arg;
    rv_add_relaxed(&skips, 1u);
}

static void forget(void)
{
    rv_store_relaxed(&runs, 0u);
    rv_store_relaxed(&skips, 0u);
}

static int post(struct host *h)
{
    return rv_sched_post(&h->s, &(struct reeve_spawn){ .fn = count, .skipped = count_skip });
}

TEST(what_is_posted_before_the_workers_run_waits_for_them)
{
    struct host *h = host_create(2, 100);
    for (int i = 0; i < 50; i++)
        CHECK_OK(post(h));
    CHECK_EQ(rv_load_relaxed(&runs), 0);
    CHECK_EQ(host_run_on(h, host_nothing, NULL), 0);
    CHECK_EQ(rv_load_relaxed(&runs), 50);
    CHECK_EQ(rv_load_relaxed(&h->s.posted), 51);
    host_destroy(h);
}

TEST(a_post_says_what_is_wrong_with_it)
{
    struct host *h = host_create(2, 100);
    reeve_group g = { 0 };
    int x = 0;
    const struct reeve_spawn bad[] = {
        { .fn = NULL },
        { .fn = count, .group = &g },
        { .fn = count, .deadline = -5 },
        { .fn = count, .priority = 9 },
        { .fn = count, .worker = 3 },
        { .fn = count, .stack_bytes = 100 },
        { .fn = count, .copy = 4 },
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_EQ(rv_sched_post(&h->s, &bad[i]), -EINVAL);
    CHECK_EQ(rv_sched_post(&h->s, &(struct reeve_spawn){ .fn = count, .arg = &x, .copy = 65537 }),
             -E2BIG);
    CHECK_EQ(host_run_on(h, host_nothing, NULL), 0);
    CHECK_EQ(rv_load_relaxed(&h->s.posted), 1);
    host_destroy(h);
}

TEST(at_tasks_max_a_post_says_eagain)
{
    struct host *h = host_create(1, 100);
    unsigned n = 0;
    int r;
    forget();
    while ((r = post(h)) == 0)
        n++;
    CHECK_EQ(r, -EAGAIN);
    CHECK_GE(n, 100);
    rv_sched_close(&h->s);
    host_run_threads(h);
    CHECK_EQ(rv_load_relaxed(&runs), n);
    host_destroy(h);
}

static int posts_inside(void *arg)
{
    struct host *h = arg;
    for (int i = 0; i < 20; i++)
        CHECK_OK(post(h));
    return 0;
}

TEST(a_task_may_post_too_and_does_not_wait_for_it)
{
    struct host *h = host_create_with(&(struct host_opts){ .virtual = true });
    forget();
    CHECK_EQ(host_run_on(h, posts_inside, h), 0);
    CHECK_EQ(rv_load_relaxed(&runs), 20);
    host_destroy(h);
}

static int inherits_nothing(void *arg)
{
    struct rv_task *cur = rv_worker_self()->cur;
    (void)arg;
    CHECK_EQ(cur->deadline, 0);
    CHECK_EQ(rv_cls(cur), REEVE_NORMAL);
    return count(NULL);
}

static int posts_with_a_deadline_of_its_own(void *arg)
{
    return rv_sched_post(&((struct host *)arg)->s, &(struct reeve_spawn){ .fn = inherits_nothing });
}

static int spawns_a_poster(void *arg)
{
    reeve_task *t;
    CHECK_OK(reeve_spawn(&t, posts_with_a_deadline_of_its_own, arg,
                         .deadline = reeve_in(REEVE_SEC), .priority = REEVE_HIGH));
    return reeve_join(t, NULL, 0);
}

TEST(a_posted_task_inherits_nothing_from_the_task_that_posts_it)
{
    struct host *h = host_create_with(&(struct host_opts){ .virtual = true });
    forget();
    CHECK_EQ(host_run_on(h, spawns_a_poster, h), 0);
    CHECK_EQ(rv_load_relaxed(&runs), 1);
    host_destroy(h);
}

TEST(the_deadline_of_a_post_holds)
{
    struct host *h = host_create_with(&(struct host_opts){ .virtual = true });
    forget();
    CHECK_OK(rv_sched_post(&h->s, &(struct reeve_spawn){ .fn = count, .skipped = count_skip,
                                                         .deadline = REEVE_SEC }));
    CHECK_OK(rv_sched_post(&h->s, &(struct reeve_spawn){ .fn = count, .skipped = count_skip,
                                                         .deadline = REEVE_SEC + 1 }));
    CHECK_EQ(host_run_on(h, host_nothing, NULL), 0);
    CHECK_EQ(rv_load_relaxed(&runs), 1);
    CHECK_EQ(rv_load_relaxed(&skips), 1);
    host_destroy(h);
}

/* ---- the end ---- */

TEST(after_the_close_posts_are_refused)
{
    struct host *h = host_create(2, 100);
    forget();
    CHECK_OK(post(h));
    for (int i = 0; i < 3; i++) {
        rv_sched_close(&h->s);
        CHECK_EQ(post(h), -ESHUTDOWN);
    }
    host_run_threads(h);
    CHECK_EQ(rv_load_relaxed(&runs), 1);
    CHECK_EQ(post(h), -ESHUTDOWN);
    host_destroy(h);
}

TEST(a_scheduler_that_was_closed_before_it_ran_ends_at_once)
{
    for (uint32_t workers = 1; workers <= 4; workers += 3) {
        struct host *h = host_create(workers, 100);
        rv_sched_close(&h->s);
        host_run_threads(h);
        host_destroy(h);
    }
}

/* Threads post until they are refused, while another closes: what was accepted runs, nothing else
 * does, and the workers end after the last of it. */
struct closing {
    struct host *h;
    RV_ATOMIC(unsigned) accepted;
};

static void *posts_until_refused(void *arg)
{
    struct closing *c = arg;
    int r;
    while ((r = post(c->h)) != -ESHUTDOWN) {
        CHECK(r == 0 || r == -EAGAIN);
        if (r == 0)
            rv_add_relaxed(&c->accepted, 1u);
    }
    for (int i = 0; i < 100; i++)
        CHECK_EQ(post(c->h), -ESHUTDOWN);
    return NULL;
}

static void *closes(void *arg)
{
    struct closing *c = arg;
    while (rv_load_relaxed(&c->accepted) < 200)
        sched_yield();
    rv_sched_close(&c->h->s);
    rv_sched_close(&c->h->s);
    return NULL;
}

TEST(what_is_accepted_while_the_scheduler_closes_runs)
{
    for (unsigned round = 0; round < host_times(200); round++) {
        struct closing c = { .h = host_create(3, 100) };
        pthread_t threads[3];
        forget();
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, i ? posts_until_refused : closes, &c), 0);
        host_run_threads(c.h);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(rv_load_relaxed(&runs), rv_load_relaxed(&c.accepted));
        CHECK_EQ(rv_load_relaxed(&skips), 0);
        host_destroy(c.h);
    }
}

/* Who watches over the end of the work is in a scope of its own, which ends later. */
struct watch {
    struct host *h;
    struct host_event over;
    unsigned order, work_ended, on_done, watcher_ended;
};

static struct watch *watching;

static void work_is_done(struct rv_sched *s, struct rv_worker *w)
{
    (void)w;
    CHECK(s == &watching->h->s);
    watching->on_done = ++watching->order;
    host_set(watching->h, &watching->over);
}

static int watches(void *arg)
{
    struct watch *w = arg;
    CHECK_OK(host_wait(&w->over, 0));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC))); /* the workers still run */
    w->watcher_ended = ++w->order;
    return 0;
}

static int is_the_work(void *arg)
{
    struct watch *w = arg;
    CHECK_OK(reeve_sleep(reeve_in(REEVE_SEC)));
    w->work_ended = ++w->order;
    return 0;
}

TEST(when_the_work_is_done_the_watchers_are_told_and_may_go_on)
{
    for (uint32_t workers = 1; workers <= 3; workers += 2) {
        struct watch w = { 0 };
        w.h = host_create_with(&(struct host_opts){ .workers = workers, .virtual = true });
        watching = &w;
        w.h->s.on_done = work_is_done;
        CHECK_OK(rv_sched_keep(&w.h->s, &(struct reeve_spawn){ .fn = watches, .arg = &w }));
        CHECK_EQ(host_run_on(w.h, is_the_work, &w), 0);
        CHECK_EQ(w.work_ended, 1);
        CHECK_EQ(w.on_done, 2);
        CHECK_EQ(w.watcher_ended, 3);
        host_destroy(w.h);
    }
}

static int waits_for_an_hour(void *arg)
{
    int *cancelled = arg;
    int r = reeve_sleep(reeve_in(3600 * REEVE_SEC));
    *cancelled += r == -ECANCELED;
    return r;
}

static int cancels_the_work(void *arg)
{
    struct host *h = host_self();
    CHECK_OK(rv_sched_post(&h->s, &(struct reeve_spawn){ .fn = waits_for_an_hour, .arg = arg }));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    rv_sched_cancel(&h->s, rv_worker_self());
    CHECK_OK(post(h)); /* accepted, and skipped */
    CHECK_EQ(reeve_sleep(reeve_in(REEVE_SEC)), -ECANCELED);
    return 8;
}

TEST(cancelling_the_work_reaches_all_that_was_posted)
{
    int cancelled = 0;
    struct host *h = host_create_with(&(struct host_opts){ .virtual = true });
    forget();
    CHECK_EQ(host_run_on(h, cancels_the_work, &cancelled), 8);
    CHECK_EQ(cancelled, 1);
    CHECK_EQ(rv_load_relaxed(&runs), 0);
    CHECK_EQ(rv_load_relaxed(&skips), 1);
    CHECK_LT(rv_load_relaxed(&h->now), 10 * REEVE_SEC);
    host_destroy(h);
}

/* ---- two schedulers in one process ---- */

struct other {
    struct host *h;
    unsigned posts;
};

static int posts_to_the_other(void *arg)
{
    struct other *o = arg;
    for (unsigned i = 0; i < o->posts; i++) {
        int r;
        while ((r = rv_sched_post(&o->h->s, &(struct reeve_spawn){ .fn = count })) == -EAGAIN)
            CHECK_OK(reeve_sleep(0));
        CHECK_OK(r);
    }
    rv_sched_close(&o->h->s);
    return 0;
}

static void *runs_a_kept_one(void *arg)
{
    host_run_threads(arg);
    return NULL;
}

TEST(a_task_of_one_scheduler_may_post_to_another)
{
    struct other o = { .h = host_create(2, 500), .posts = host_times(20000) };
    pthread_t thread;
    forget();
    CHECK_EQ(pthread_create(&thread, NULL, runs_a_kept_one, o.h), 0);
    CHECK_EQ(host_run(2, 500, posts_to_the_other, &o), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(rv_load_relaxed(&runs), o.posts);
    host_destroy(o.h);
}

/* ---- every allocation fails once ---- */

/* A little of everything. Errors may come from the calls that allocate; whatever they are, what was
 * accepted is started or skipped, and host_destroy() finds nothing left behind. */
static RV_ATOMIC(unsigned) accepted;

static int note_spawn(int r)
{
    CHECK(r == 0 || r == -EAGAIN || r == -ENOMEM);
    rv_add_relaxed(&accepted, (unsigned)(r == 0));
    return r;
}

static int sleeps_a_little(void *arg)
{
    (void)arg;
    rv_add_relaxed(&runs, 1u);
    CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    return 0;
}

static int reads_its_copy(void *arg)
{
    for (int i = 0; i < 100; i++)
        CHECK_EQ(((unsigned char *)arg)[i], 7);
    return sleeps_a_little(arg);
}

/* Is cancelled when another member gets no stack. */
static int is_a_member(void *arg)
{
    rv_add_relaxed(&runs, 1u);
    int r = reeve_sleep(reeve_in(REEVE_MS));
    CHECK(r == 0 || r == -ECANCELED);
    CHECK_EQ(((unsigned char *)arg)[99], 7);
    return r;
}

static void skips_and_reads_its_copy(void *arg)
{
    CHECK_EQ(*(unsigned char *)arg, 7);
    rv_add_relaxed(&skips, 1u);
}

static int leaves_a_child(void *arg)
{
    (void)arg;
    rv_add_relaxed(&runs, 1u);
    (void)note_spawn(reeve_go(sleeps_a_little, NULL, .skipped = count_skip));
    return 0;
}

static int does_a_little_of_everything(void *arg)
{
    unsigned char bytes[100];
    reeve_task *t[4];
    bool have[4];
    reeve_group g = { 0 };
    (void)arg;
    memset(bytes, 7, sizeof bytes);
    for (int i = 0; i < 4; i++)
        have[i] = note_spawn(reeve_spawn(&t[i], i % 2 ? leaves_a_child : reads_its_copy, bytes,
                                         .copy = i % 2 ? 0 : sizeof bytes,
                                         .skipped = i % 2 ? count_skip : skips_and_reads_its_copy,
                                         .stack_bytes = i == 3 ? 1 << 20 : 0)) == 0;
    for (int i = 0; i < 3; i++)
        (void)note_spawn(reeve_go(is_a_member, bytes, .copy = sizeof bytes, .group = &g,
                                  .skipped = skips_and_reads_its_copy,
                                  .worker = i == 1, .stack_bytes = (size_t)4096 << 2 * i));
    (void)note_spawn(reeve_go(leaves_a_child, NULL, .skipped = count_skip));
    CHECK_OK(reeve_sleep(reeve_in(REEVE_US)));
    int r = reeve_group_wait(&g, 0);
    CHECK(r == 0 || r == -ENOMEM);
    for (int i = 0; i < 4; i++) {
        int result = 77;
        if (have[i]) {
            CHECK_OK(reeve_join(t[i], &result, 0));
            CHECK(result == 0 || result == -ENOMEM);
        }
    }
    return 0;
}

static void fail_each(const struct host_opts *o)
{
    unsigned skipped = 0;
    bool failed = true;
    /* How many points threads pass, and what they find no stack for, is different each time. */
    for (uint64_t n = 1; failed || (!o->virtual && n <= 20); n++) {
        struct host *h = host_create_with(o);
        forget();
        rv_store_relaxed(&accepted, 0u);
        rv_fault_fail_nth(n);
        int r = rv_sched_post(&h->s, &(struct reeve_spawn){ .fn = does_a_little_of_everything });
        CHECK(r == 0 || r == -EAGAIN);
        rv_sched_close(&h->s);
        if (h->virtual)
            host_run_virtual_on(h);
        else
            host_run_threads(h);
        failed = rv_fault_last_name() != NULL;
        rv_fault_off();
        CHECK_EQ(rv_load_relaxed(&runs) + rv_load_relaxed(&skips),
                 rv_load_relaxed(&accepted));
        skipped += rv_load_relaxed(&skips) != 0;
        host_destroy(h);
        CHECK_LT(n, 1000);
        if (!failed && o->virtual)
            CHECK_GT(n, 20);
    }
    if (o->pass_picks == 1 && o->virtual)
        CHECK_GT(skipped, 2);
}

TEST(wherever_an_allocation_fails_nothing_is_lost_and_nothing_is_left)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    fail_each(&(struct host_opts){ .workers = 1, .virtual = true });
    fail_each(&(struct host_opts){ .workers = 1, .virtual = true, .pass_picks = 1 });
    fail_each(&(struct host_opts){ .workers = 3, .virtual = true });
}

TEST(wherever_an_allocation_fails_on_real_threads_nothing_is_lost_and_nothing_is_left)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    fail_each(&(struct host_opts){ .workers = 3 });
    fail_each(&(struct host_opts){ .workers = 3, .pass_picks = 1 });
}
