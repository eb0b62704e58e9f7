/* SPDX-License-Identifier: MIT */
/*
 * sync_test.c -- what else tasks meet on, in every order: condition, semaphore, rwlock, once,
 * barrier, wait group and watch. No wake-up is lost, nobody gets what is another's.
 */
#include "tests/explore/explore_main.h"
#include "tests/explore/task_model.h"

#include <reeve/sync.h>
#include <reeve/watch.h>

static struct reeve_mutex mutex;
static struct reeve_cond cond;
static struct reeve_sem sem;
static struct reeve_rwlock rwlock;
static struct reeve_once once;
static struct reeve_barrier barrier;
static struct reeve_waitgroup group;
static reeve_watch *watch;
static uint32_t items;

static void tasks(reeve_fn *a, reeve_fn *b, reeve_fn *c)
{
    model_task(0, a);
    model_task(1, b);
    if (c)
        model_task(2, c);
}

static int cancel_zero(void *arg)
{
    (void)arg;
    model_cancel(0);
    return 0;
}

#define TASKS_2 MODEL_TASK(0), MODEL_TASK(1)
#define TASKS_3 TASKS_2, MODEL_TASK(2)

/* ---- condition ---- */

static int take_item(void *arg)
{
    int r = 0;
    (void)arg;
    int64_t until = model.count[7] ? explore_now() + 1000 : 0;
    if (reeve_mutex_lock(&mutex, 0) < 0)
        return -ECANCELED; /* before it has begun */
    while (r == 0 && items == 0)
        r = reeve_cond_wait(&cond, &mutex, until);
    model_alone();
    RV_MUST(r == 0 || (r == -ETIMEDOUT && until) || r == -ECANCELED);
    if (items > 0) {
        items--;
        model.count[0]++;
    }
    reeve_mutex_unlock(&mutex);
    return r;
}

static int put_item(void *arg)
{
    (void)arg;
    RV_MUST(reeve_mutex_lock(&mutex, 0) == 0);
    model_alone();
    items++;
    reeve_mutex_unlock(&mutex);
    reeve_cond_signal(&cond);
    return 0;
}

static int put_two_items(void *arg)
{
    (void)arg;
    RV_MUST(reeve_mutex_lock(&mutex, 0) == 0);
    items += 2;
    reeve_cond_broadcast(&cond);
    reeve_mutex_unlock(&mutex);
    return 0;
}

static void cond_is_idle(void)
{
    RV_MUST(mutex.opaque[0] == 0 && mutex.opaque[1] == 0);
    RV_MUST(cond.opaque[0] == 0);
}

static void one_taken(void)
{
    cond_is_idle();
    RV_MUST(model.count[0] == 1 && items == 0);
}

static void two_taken(void)
{
    cond_is_idle();
    RV_MUST(model.count[0] == 2 && items == 0);
}

static void none_lost(void)
{
    cond_is_idle();
    RV_MUST(model.count[0] + items == 1);
}

static void signal_one(void)
{
    tasks(take_item, put_item, NULL);
}

static void broadcast_two(void)
{
    tasks(take_item, take_item, put_two_items);
}

static void signal_late(void)
{
    model.count[7] = 1;
    tasks(take_item, put_item, cancel_zero);
}

static const struct explore signalled = {
    .name = "cond: wait and signal",
    .setup = signal_one,
    .threads = { TASKS_2 },
    .finish = one_taken,
    .preemptions = 4,
    .delays = 1,
};

static const struct explore broadcast = {
    .name = "cond: two wait, broadcast",
    .setup = broadcast_two,
    .threads = { TASKS_3 },
    .finish = two_taken,
    .preemptions = 2,
};

static const struct explore signalled_late = {
    .name = "cond: signal, deadline and cancellation",
    .setup = signal_late,
    .threads = { TASKS_3 },
    .finish = none_lost,
    .preemptions = 2,
};

TEST(a_signal_reaches_who_waits_or_has_not_looked)
{
    explore(&signalled);
    explore(&broadcast);
}

TEST(a_condition_left_early_keeps_its_mutex)
{
    explore(&signalled_late);
}

/* ---- semaphore ---- */

static int wait_sem(void *arg)
{
    (void)arg;
    RV_MUST(reeve_sem_wait(&sem, 0) == 0);
    model.count[0]++;
    return 0;
}

static int wait_sem_late(void *arg)
{
    (void)arg;
    int r = reeve_sem_wait(&sem, explore_now() + 1000);
    RV_MUST(r == 0 || r == -ETIMEDOUT);
    if (r == 0)
        RV_MUST(reeve_sem_post(&sem) == 0); /* for the other one */
    return r;
}

static int post_sem(void *arg)
{
    (void)arg;
    RV_MUST(reeve_sem_post(&sem) == 0);
    return 0;
}

static int post_sem_twice(void *arg)
{
    post_sem(arg);
    return post_sem(arg);
}

static void two_permits(void)
{
    RV_MUST(reeve_sem_init(&sem, 0, 2) == 0);
    tasks(wait_sem, wait_sem, post_sem_twice);
}

static void one_permit_late(void)
{
    RV_MUST(reeve_sem_init(&sem, 0, 2) == 0);
    tasks(wait_sem_late, wait_sem, post_sem);
}

static void two_came(void)
{
    RV_MUST(model.count[0] == 2);
}

static void one_came(void)
{
    RV_MUST(model.count[0] == 1);
}

static const struct explore posts = {
    .name = "sem: two wait, two posts",
    .setup = two_permits,
    .threads = { TASKS_3 },
    .finish = two_came,
    .preemptions = 3,
};

static const struct explore post_late = {
    .name = "sem: one leaves at its deadline",
    .setup = one_permit_late,
    .threads = { TASKS_3 },
    .finish = one_came,
    .preemptions = 3,
};

TEST(each_permit_lets_one_in)
{
    explore(&posts);
    explore(&post_late);
}

/* ---- rwlock ---- */

static int read_it(void *arg)
{
    (void)arg;
    RV_MUST(reeve_rwlock_read(&rwlock, 0) == 0);
    RV_MUST(rv_load_relaxed(&model.busy) == 0); /* no writer is in */
    model.count[0]++;
    reeve_rwlock_unlock(&rwlock);
    return 0;
}

static int write_it(void *arg)
{
    (void)arg;
    RV_MUST(reeve_rwlock_write(&rwlock, 0) == 0);
    model_alone();
    model.count[0]++;
    reeve_rwlock_unlock(&rwlock);
    return 0;
}

static int write_late(void *arg)
{
    (void)arg;
    int r = reeve_rwlock_write(&rwlock, explore_now() + 1000);
    RV_MUST(r == 0 || r == -ETIMEDOUT);
    if (r == 0) {
        model_alone();
        reeve_rwlock_unlock(&rwlock);
    }
    return r;
}

static void two_readers(void)
{
    tasks(write_it, read_it, read_it);
}

static void two_writers(void)
{
    tasks(write_it, write_it, read_it);
}

static void writer_leaves(void)
{
    tasks(write_late, read_it, read_it);
}

static void three_came(void)
{
    RV_MUST(model.count[0] == 3);
}

static const struct explore readers = {
    .name = "rwlock: a writer, two readers",
    .setup = two_readers,
    .threads = { TASKS_3 },
    .finish = three_came,
    .preemptions = 3,
};

static const struct explore writers = {
    .name = "rwlock: two writers, a reader",
    .setup = two_writers,
    .threads = { TASKS_3 },
    .finish = three_came,
    .preemptions = 3,
};

static const struct explore writer_left = {
    .name = "rwlock: a writer leaves at its deadline",
    .setup = writer_leaves,
    .threads = { TASKS_3 },
    .finish = two_came,
    .preemptions = 3,
};

TEST(readers_share_and_writers_do_not)
{
    explore(&readers);
    explore(&writers);
    explore(&writer_left);
}

/* ---- once, barrier, wait group ---- */

static int do_it(void *arg)
{
    (void)arg;
    model_alone();
    model.count[0]++;
    return 0;
}

static int run_once(void *arg)
{
    (void)arg;
    RV_MUST(reeve_once_run(&once, do_it, NULL, 0) == 0);
    RV_MUST(model.count[0] == 1);
    return 0;
}

static void three_want_it(void)
{
    tasks(run_once, run_once, run_once);
}

static const struct explore run_by_one = {
    .name = "once: three come",
    .setup = three_want_it,
    .threads = { TASKS_3 },
    .finish = one_came,
    .preemptions = 3,
};

TEST(what_is_to_be_done_once_is_done_before_anybody_goes_on)
{
    explore(&run_by_one);
}

static int meet_twice(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 2; i++) {
        model.count[i]++;
        int r = reeve_barrier_wait(&barrier, 0);
        RV_MUST(r == 0 || r == 1);
        model.count[2] += (unsigned)r;
        RV_MUST(model.count[i] == 2);
    }
    return 0;
}

static void two_meet(void)
{
    RV_MUST(reeve_barrier_init(&barrier, 2) == 0);
    tasks(meet_twice, meet_twice, NULL);
}

static void last_was_last(void)
{
    RV_MUST(model.count[2] == 2);
}

static const struct explore met = {
    .name = "barrier: two meet twice",
    .setup = two_meet,
    .threads = { TASKS_2 },
    .finish = last_was_last,
    .preemptions = 4,
    .delays = 1,
};

TEST(nobody_passes_a_barrier_before_all_have_come)
{
    explore(&met);
}

static int work_and_tell(void *arg)
{
    (void)arg;
    rv_add_relaxed(&model.busy, 1u);
    reeve_waitgroup_done(&group);
    return 0;
}

static int wait_for_all(void *arg)
{
    (void)arg;
    RV_MUST(reeve_waitgroup_wait(&group, 0) == 0);
    RV_MUST(rv_load_relaxed(&model.busy) == 2);
    memset(&group, 0xdd, sizeof group); /* it may be gone after the wait */
    return 0;
}

static void group_of_two(void)
{
    reeve_waitgroup_add(&group, 2);
    tasks(wait_for_all, work_and_tell, work_and_tell);
}

static const struct explore all_done = {
    .name = "waitgroup: two done, one waits and ends it",
    .setup = group_of_two,
    .threads = { TASKS_3 },
    .preemptions = 4,
};

TEST(a_wait_group_may_be_gone_when_its_wait_ends)
{
    explore(&all_done);
}

/* ---- watch ---- */

static int set_twice(void *arg)
{
    (void)arg;
    for (uint64_t v = 1; v <= 2; v++) {
        uint64_t both[2] = { v, ~v };
        RV_MUST(reeve_watch_set(watch, both) == 0);
    }
    return 0;
}

static int watch_it(void *arg)
{
    uint64_t version = 0, last = 0;
    (void)arg;
    while (last != 2) {
        uint64_t both[2];
        RV_MUST(reeve_watch_wait(watch, both, &version, 0) == 0);
        RV_MUST(both[1] == ~both[0]); /* not torn */
        RV_MUST(both[0] > last);
        last = both[0];
    }
    return 0;
}

static void one_watches(void)
{
    watch = reeve_watch_create(2 * sizeof(uint64_t));
    RV_MUST(watch != NULL);
    tasks(watch_it, set_twice, NULL);
}

static const struct explore watched = {
    .name = "watch: two values",
    .setup = one_watches,
    .threads = { TASKS_2 },
    .preemptions = 4,
    .delays = 1,
};

TEST(the_latest_value_is_seen_and_whole)
{
    explore(&watched);
}
