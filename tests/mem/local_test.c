/* SPDX-License-Identifier: MIT */
/*
 * local_test.c -- the record belongs to the thread that runs, not to the one that ran before.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <pthread.h>
#include <ucontext.h>

#include "mem/local.h"

static void *record_of_a_new_thread(void *arg)
{
    struct rv_local *before = rv_local_get();
    rv_local_set(arg);
    return before != NULL ? before : rv_local_get();
}

TEST(each_thread_has_its_own_record_and_none_at_first)
{
    static struct rv_local mine, theirs;
    pthread_t thread;
    void *seen;
    CHECK(rv_local_get() == NULL);
    rv_local_set(&mine);
    CHECK_EQ(pthread_create(&thread, NULL, record_of_a_new_thread, &theirs), 0);
    CHECK_EQ(pthread_join(thread, &seen), 0);
    CHECK(seen == &theirs);
    CHECK(rv_local_get() == &mine);
    CHECK(rv_local_peek() == &mine);
    rv_local_set(NULL);
    CHECK(rv_local_get() == NULL);
    CHECK(rv_local_peek() == NULL);
}

/* ---- a context that is suspended on one thread and resumed on another ------------------------ */

static struct {
    ucontext_t task, main, other;
    ucontext_t *back;
    struct rv_local *seen[2], *peeked[2];
    unsigned char stack[256 * 1024];
} moved;

static void look_suspend_look(void)
{
    moved.seen[0] = rv_local_get();
    moved.peeked[0] = rv_local_peek();
    swapcontext(&moved.task, moved.back);
    moved.peeked[1] = rv_local_peek();
    moved.seen[1] = rv_local_get();
    swapcontext(&moved.task, moved.back);
}

static void *resume_here(void *record)
{
    rv_local_set(record);
    moved.back = &moved.other;
    swapcontext(&moved.other, &moved.task);
    return NULL;
}

TEST(a_context_that_moved_finds_the_record_of_its_new_thread)
{
#ifdef RV_TSAN
    SKIP("ThreadSanitizer does not follow swapcontext");
#endif
    static struct rv_local here, there;
    pthread_t thread;
    rv_local_set(&here);
    getcontext(&moved.task);
    moved.task.uc_stack.ss_sp = moved.stack;
    moved.task.uc_stack.ss_size = sizeof moved.stack;
    makecontext(&moved.task, look_suspend_look, 0);
    moved.back = &moved.main;
    swapcontext(&moved.main, &moved.task);
    CHECK_EQ(pthread_create(&thread, NULL, resume_here, &there), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(moved.seen[0] == &here);
    CHECK(moved.seen[1] == &there);
    CHECK(moved.peeked[0] == &here);
    CHECK(moved.peeked[1] == &there);
}
