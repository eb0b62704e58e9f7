/* SPDX-License-Identifier: MIT */
/*
 * dir_test.c -- directories: every entry once, by one task at a time.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/file.h>

#include "tests/io/pair.h"
#include "tests/io/scratch.h"


enum { MANY = 3000 }; /* several batches */

static void make_many(void)
{
    char name[256];
    CHECK_EQ(mkdir(scratch("many"), 0700), 0);
    for (int i = 0; i < MANY; i++) {
        /* Names of many lengths; a directory and a link among them. */
        int n = snprintf(name, sizeof name, "many/%d-", i);
        memset(name + n, 'x', (size_t)i % 200);
        name[n + i % 200] = '\0';
        if (i == 7)
            CHECK_EQ(mkdir(scratch(name), 0700), 0);
        else if (i == 8)
            CHECK_EQ(symlink("nowhere", scratch(name)), 0);
        else
            scratch_file(scratch(name), "", 0);
    }
}

/* Marks the entry, which must not have been seen. */
static void see(const struct reeve_dir_entry *e, bool *seen)
{
    int i = atoi(e->name);
    CHECK(i >= 0 && i < MANY);
    CHECK_EQ(seen[i], false);
    CHECK_NE(e->inode, 0);
    size_t len = strlen(e->name);
    CHECK_EQ(len, strcspn(e->name, "-") + 1 + (size_t)(i % 200));
    if (e->type != DT_UNKNOWN)
        CHECK_EQ(e->type, i == 7 ? DT_DIR : i == 8 ? DT_LNK : DT_REG);
    seen[i] = true;
}

static int read_many(void *arg)
{
    (void)arg;
    bool *seen = calloc(MANY, sizeof *seen);
    reeve_dir *d;
    struct reeve_dir_entry e;
    int n = 0, r, before = fds_open();
    CHECK_EQ(reeve_dir_open(&d, scratch("many"), LONG), 0);
    CHECK_EQ(fds_open(), before + 1);
    while ((r = reeve_dir_read(d, &e, LONG)) > 0) {
        CHECK_EQ(r, 1);
        see(&e, seen);
        n++;
    }
    CHECK_EQ(r, 0);
    CHECK_EQ(n, MANY);
    CHECK_EQ(reeve_dir_read(d, &e, LONG), 0); /* the end stays the end */
    reeve_dir_close(d);
    CHECK_EQ(fds_open(), before);
    free(seen);
    return 0;
}

TEST(every_entry_is_read_once)
{
    make_many();
    RUN(read_many, .workers = 1);
    RUN(read_many, .workers = 2);
}

/* As read_many, but others open descriptors meanwhile. */
static int read_beside(void *path)
{
    bool *seen = calloc(MANY, sizeof *seen);
    reeve_dir *d;
    struct reeve_dir_entry e;
    int n = 0, r;
    CHECK_EQ(reeve_dir_open(&d, path, LONG), 0);
    while ((r = reeve_dir_read(d, &e, LONG)) > 0) {
        see(&e, seen);
        n++;
    }
    CHECK_EQ(r, 0);
    CHECK_EQ(n, MANY);
    reeve_dir_close(d);
    free(seen);
    return 0;
}

static int beside(void *arg)
{
    (void)arg;
    struct reeve_group g = { 0 };
    void *path = (void *)(uintptr_t)scratch("many");
    for (int i = 0; i < 6; i++)
        CHECK_EQ(reeve_spawn(NULL, read_beside, path, .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    return 0;
}

TEST(tasks_read_one_directory_each_for_itself)
{
    make_many();
    RUN(beside, .workers = 2);
}

static int empty(void *arg)
{
    (void)arg;
    reeve_dir *d = NULL;
    struct reeve_dir_entry e = { .name = "untouched" };
    CHECK_EQ(mkdir(scratch("empty"), 0700), 0);
    CHECK_EQ(reeve_dir_open(&d, scratch("empty"), LONG), 0);
    CHECK_EQ(reeve_dir_read(d, &e, LONG), 0);
    CHECK_STR_EQ(e.name, "untouched");
    reeve_dir_close(d);
    reeve_dir_close(NULL);
    return 0;
}

TEST(an_empty_directory_has_no_entries)
{
    RUN(empty, .workers = 1);
}

static int refused(void *arg)
{
    (void)arg;
    reeve_dir *d = NULL;
    int before = fds_open();
    scratch_file(scratch("file"), "x", 1);
    CHECK_EQ(reeve_dir_open(&d, scratch("nothing"), LONG), -ENOENT);
    CHECK_EQ(reeve_dir_open(&d, scratch("file"), LONG), -ENOTDIR);
    CHECK_EQ(d == NULL, true);
    CHECK_EQ(fds_open(), before);
    return 0;
}

TEST(what_is_no_directory_is_not_opened)
{
    RUN(refused, .workers = 1);
}

static int removed(void *arg)
{
    (void)arg;
    reeve_dir *d;
    struct reeve_dir_entry e;
    CHECK_EQ(mkdir(scratch("gone"), 0700), 0);
    CHECK_EQ(reeve_dir_open(&d, scratch("gone"), LONG), 0);
    CHECK_EQ(reeve_rmdir(scratch("gone"), LONG), 0);
    int r = reeve_dir_read(d, &e, LONG);
    CHECK(r == -ENOENT || r == 0);
    reeve_dir_close(d);
    return 0;
}

TEST(a_directory_that_was_removed_has_no_entries)
{
    RUN(removed, .workers = 1);
}

static int poolless(void *arg)
{
    (void)arg;
    reeve_dir *d;
    struct reeve_dir_entry e;
    CHECK_EQ(reeve_dir_open(&d, scratch(""), LONG), 0);
    CHECK_EQ(reeve_dir_read(d, &e, LONG), -ENOTSUP);
    reeve_dir_close(d);
    return 0;
}

TEST(without_a_pool_a_directory_cannot_be_read)
{
    RUN(poolless, .workers = 1, .offload_max = REEVE_NONE);
}

static int late(void *arg)
{
    (void)arg;
    reeve_dir *d;
    struct reeve_dir_entry e;
    CHECK_EQ(reeve_dir_open(&d, scratch("many"), LONG), 0);
    CHECK_EQ(reeve_dir_read(d, &e, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(reeve_dir_read(d, &e, LONG), 1);
    CHECK_EQ(reeve_dir_read(d, &e, REEVE_POLL), 1); /* of the batch: it need not wait */
    reeve_dir_close(d);
    return 0;
}

TEST(a_deadline_bounds_the_fetching_and_not_what_has_been_fetched)
{
    make_many();
    RUN(late, .workers = 1);
}

/* ---- two readers ----------------------------------------------------------------------------- */

static RV_ATOMIC(int) holding, may_go;

static int hold_the_pool(void *arg)
{
    (void)arg;
    rv_store_release(&holding, 1);
    while (!rv_load_acquire(&may_go))
        usleep(100);
    return 0;
}

static int hold_in_task(void *arg)
{
    return reeve_offload(hold_the_pool, arg, LONG);
}

static int read_one(void *arg)
{
    struct reeve_dir_entry e;
    return reeve_dir_read(arg, &e, LONG);
}

/* The pool has one thread, which is held: the first reader waits for it. */
static reeve_task *start_reader(reeve_dir *d, reeve_task **ret_holder)
{
    reeve_task *reader;
    rv_store_relaxed(&holding, 0);
    rv_store_relaxed(&may_go, 0);
    CHECK_EQ(reeve_spawn(ret_holder, hold_in_task, NULL), 0);
    while (!rv_load_acquire(&holding))
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(reeve_spawn(&reader, read_one, d), 0);
    return reader;
}

static int two_readers(void *arg)
{
    (void)arg;
    reeve_dir *d;
    reeve_task *reader, *holder;
    struct reeve_dir_entry e;
    int result, r;
    CHECK_EQ(reeve_dir_open(&d, scratch("many"), LONG), 0);
    reader = start_reader(d, &holder);
    while ((r = reeve_dir_read(d, &e, REEVE_POLL)) == -ETIMEDOUT) /* it has not come so far */
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(r, -EBUSY);
    rv_store_release(&may_go, 1);
    CHECK_EQ(reeve_join(holder, NULL, LONG), 0);
    CHECK_EQ(reeve_join(reader, &result, LONG), 0);
    CHECK_EQ(result, 1);
    CHECK_EQ(reeve_dir_read(d, &e, LONG), 1);
    reeve_dir_close(d);
    return 0;
}

TEST(a_second_reader_is_told_so)
{
    make_many();
    RUN(two_readers, .workers = 1, .offload_max = 1);
}

static int closed_under_a_reader(void *arg)
{
    (void)arg;
    reeve_dir *d;
    reeve_task *holder;
    struct reeve_dir_entry e;
    CHECK_EQ(reeve_dir_open(&d, scratch("many"), LONG), 0);
    start_reader(d, &holder);
    while (reeve_dir_read(d, &e, REEVE_POLL) != -EBUSY)
        CHECK_EQ(reeve_sleep(0), 0);
    reeve_dir_close(d);
    return 0;
}

TEST(a_directory_is_not_closed_under_its_reader)
{
    make_many();
    uring_or_skip();
    CHECK_DIES("reeve_dir_close was called while another task reads", {
        reeve_run(closed_under_a_reader, NULL, .workers = 1, .offload_max = 1);
    });
}
