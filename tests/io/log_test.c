/* SPDX-License-Identifier: MIT */
/*
 * log_test.c -- an append-only log: order, durability, few writes for many, and days when the disk
 * fails.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/file.h>

#include "mem/fault.h"
#include "tests/io/pair.h"
#include "tests/io/scratch.h"

#define SOON reeve_in(2 * REEVE_MS)

static reeve_log *open_log(const char *name)
{
    reeve_log *log = NULL;
    CHECK_EQ(reeve_log_open(&log, &(struct reeve_log_opts){ .path = scratch(name) }, LONG), 0);
    return log;
}

static struct reeve_log_stats stats(reeve_log *log)
{
    struct reeve_log_stats st;
    reeve_log_stats(log, &st);
    return st;
}

/* Everything in the file, with a 0 behind it. */
static char *contents(const char *name, size_t *ret_len)
{
    struct stat st;
    int fd = open(scratch(name), O_RDONLY | O_CLOEXEC);
    CHECK_GE(fd, 0);
    CHECK_EQ(fstat(fd, &st), 0);
    char *text = calloc(1, (size_t)st.st_size + 1);
    CHECK_EQ(pread(fd, text, (size_t)st.st_size, 0), st.st_size);
    close(fd);
    *ret_len = (size_t)st.st_size;
    return text;
}

static void check_contents(const char *name, const char *want)
{
    size_t len;
    char *text = contents(name, &len);
    CHECK_EQ(len, strlen(want));
    CHECK_STR_EQ(text, want);
    free(text);
}

/* ---- one task -------------------------------------------------------------------------------- */

static int alone(void *arg)
{
    (void)arg;
    reeve_log *log = open_log("log");
    struct stat st;
    CHECK_EQ(reeve_log_append(log, "one ", 4, LONG), 0);
    CHECK_EQ(reeve_log_append(log, "two ", 4, LONG), 4);
    CHECK_EQ(reeve_log_append_later(log, "three ", 6, LONG), 8);
    CHECK_EQ(stats(log).syncs, 2);
    CHECK_EQ(reeve_log_sync(log, LONG), 0);
    CHECK_EQ(stats(log).syncs, 3);
    CHECK_EQ(reeve_log_sync(log, LONG), 0); /* nothing is new */
    CHECK_EQ(stats(log).syncs, 3);
    CHECK_EQ(reeve_log_append(log, "", 0, LONG), 14);
    CHECK_EQ(stats(log).records, 3);
    CHECK_EQ(stats(log).bytes, 14);
    CHECK_EQ(stats(log).waiting, 0);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_contents("log", "one two three ");
    CHECK_EQ(stat(scratch("log"), &st), 0);
    CHECK_EQ(st.st_mode & 0777, 0600);

    log = open_log("log"); /* appends to what is there */
    CHECK_EQ(reeve_log_append(log, "four", 4, LONG), 14);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_contents("log", "one two three four");
    CHECK_EQ(reeve_log_close(NULL, LONG), 0);
    return 0;
}

TEST(records_stand_one_after_the_other)
{
    umask(0);
    RUN(alone, .workers = 1);
}

static int refused(void *arg)
{
    (void)arg;
    reeve_log *log = NULL;
    int before = fds_open();
    CHECK_EQ(reeve_log_open(&log, &(struct reeve_log_opts){ 0 }, LONG), -EINVAL);
    CHECK_EQ(reeve_log_open(&log, &(struct reeve_log_opts){ .path = scratch("") }, LONG), -EISDIR);
    CHECK_EQ(reeve_log_open(&log, &(struct reeve_log_opts){ .path = scratch("no/log") }, LONG),
             -ENOENT);
    CHECK_EQ(reeve_log_open(&log, &(struct reeve_log_opts){ .path = "/dev/null" }, LONG), -EINVAL);
    CHECK_EQ(log == NULL, true);
    CHECK_EQ(fds_open(), before);
    log = open_log("log");
    CHECK_EQ(reeve_log_append(log, "x", (size_t)1 << 31, LONG), -ERANGE);
    CHECK_EQ(reeve_log_append(log, "x", 1, LONG), 0); /* that was its own fault only */
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    CHECK_EQ(fds_open(), before);
    return 0;
}

TEST(what_is_no_log_is_not_opened)
{
    RUN(refused, .workers = 1);
}

/* ---- many tasks ------------------------------------------------------------------------------ */

/* A few where each record has a sync of its own: a disk may need a tenth of a second for one. */
enum { TASKS = 64, FEW = 8, EACH = 40 };

struct appender {
    reeve_log *log;
    int index, later_each; /* every so many need not be durable; 0: none */
    RV_ATOMIC(unsigned char) *place; /* by offset: which record begins there */
};

/* "index:round" and letters of some length; where each stands is noted. */
static int append_records(void *arg)
{
    struct appender *a = arg;
    char text[128];
    int64_t last = -1;
    for (int i = 0; i < EACH; i++) {
        int n = snprintf(text, sizeof text, "<%d:%d:", a->index, i);
        int letters = (a->index * 7 + i * 13) % 60;
        memset(text + n, 'a' + a->index % 26, (size_t)letters);
        n += letters;
        text[n++] = '>';
        bool later = a->later_each && i % a->later_each == 0;
        int64_t at = later ? reeve_log_append_later(a->log, text, (size_t)n, LONG)
                           : reeve_log_append(a->log, text, (size_t)n, LONG);
        CHECK_GE(at, 0);
        CHECK_GT(at, last); /* one task's records are in its order */
        last = at;
        CHECK_EQ(rv_xchg_relaxed(&a->place[at], (unsigned char)1), 0);
    }
    return 0;
}

/* Every record is whole, in its place, and there is nothing else. */
static void check_records(const RV_ATOMIC(unsigned char) *place, int tasks)
{
    size_t len, at = 0;
    char *text = contents("log", &len);
    static int next[TASKS];
    memset(next, 0, sizeof next);
    while (at < len) {
        int index, round, n = 0;
        CHECK_EQ(rv_load_relaxed(&place[at]), 1);
        CHECK_EQ(sscanf(text + at, "<%d:%d:%n", &index, &round, &n), 2);
        CHECK_EQ(next[index]++, round);
        size_t letters = (size_t)((index * 7 + round * 13) % 60);
        for (size_t k = 0; k < letters; k++)
            CHECK_EQ(text[at + (size_t)n + k], 'a' + index % 26);
        at += (size_t)n + letters;
        CHECK_EQ(text[at++], '>');
    }
    for (int i = 0; i < tasks; i++)
        CHECK_EQ(next[i], EACH);
    free(text);
}

static struct reeve_log_stats append_by_many(int tasks, int later_each,
                                             const struct reeve_log_opts *more)
{
    struct appender a[TASKS];
    struct reeve_group g = { 0 };
    struct reeve_log_opts opts = *more;
    RV_ATOMIC(unsigned char) *place = calloc((size_t)tasks * EACH * 128, sizeof *place);
    reeve_log *log;
    opts.path = scratch("log");
    CHECK_EQ(reeve_log_open(&log, &opts, LONG), 0);
    for (int i = 0; i < tasks; i++) {
        a[i] = (struct appender){ log, i, later_each, place };
        CHECK_EQ(reeve_spawn(NULL, append_records, &a[i], .group = &g), 0);
    }
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    struct reeve_log_stats st = stats(log);
    CHECK_EQ(st.records, tasks * EACH);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_records(place, tasks);
    free(place);
    CHECK_EQ(reeve_unlink(scratch("log"), LONG), 0);
    return st;
}

static int together(void *arg)
{
    (void)arg;
    struct reeve_log_stats st = append_by_many(TASKS, 0, &(struct reeve_log_opts){ 0 });
    /* The first of each round may be alone; the others gather while it is written. */
    CHECK_LE(st.syncs, st.records / 8);
    CHECK_LE(st.writes, st.records / 8);
    return 0;
}

TEST(appends_of_many_tasks_share_writes_and_syncs)
{
    RUN(together, .workers = 1);
    RUN(together, .workers = 2);
}

static int mixed(void *arg)
{
    (void)arg;
    append_by_many(TASKS, 2, &(struct reeve_log_opts){ 0 });
    struct reeve_log_stats st = append_by_many(TASKS, 1, &(struct reeve_log_opts){ 0 });
    CHECK_EQ(st.syncs, 0); /* nobody asked for one */
    st = append_by_many(TASKS, 1, &(struct reeve_log_opts){ .unsynced_bytes = 2000 });
    CHECK_GE(st.syncs, st.bytes / (2000 + TASKS * 128)); /* the bound did */
    append_by_many(FEW, 3, &(struct reeve_log_opts){ .batch_bytes = 1 });
    return 0;
}

TEST(records_that_may_be_late_do_not_wait_for_the_disk)
{
    RUN(mixed, .workers = 1);
    RUN(mixed, .workers = 2);
}

static int one_by_one(void *arg)
{
    (void)arg;
    struct reeve_log_opts each_alone = { .batch_bytes = 1 };
    struct reeve_log_stats st = append_by_many(FEW, 0, &each_alone);
    CHECK_EQ(st.writes, st.records);
    return 0;
}

TEST(a_batch_is_no_larger_than_asked_for)
{
    RUN(one_by_one, .workers = 2);
}

/* More than one request takes, at once. */
enum { CROWD = 3000 };

static int append_one(void *log)
{
    return (int)(reeve_log_append(log, "12345678", 8, LONG) % 8);
}

static int crowd(void *arg)
{
    (void)arg;
    reeve_log *log = open_log("log");
    struct reeve_group g = { 0 };
    size_t len;
    for (int i = 0; i < CROWD; i++)
        CHECK_EQ(reeve_spawn(NULL, append_one, log, .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(stats(log).records, CROWD);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    char *text = contents("log", &len);
    CHECK_EQ(len, CROWD * 8);
    for (size_t i = 0; i < len; i++)
        CHECK_EQ(text[i], '1' + (char)(i % 8));
    free(text);
    CHECK_EQ(reeve_unlink(scratch("log"), LONG), 0);
    return 0;
}

TEST(a_crowd_larger_than_a_batch_is_served)
{
    RUN(crowd, .workers = 1);
    RUN(crowd, .workers = 2);
}

/* ---- two runtimes ---------------------------------------------------------------------------- */

static struct appender shared[2];

static int append_apart(void *arg)
{
    return append_records(arg);
}

static void *another_runtime(void *arg)
{
    CHECK_EQ(reeve_run(append_apart, arg, .workers = 1), 0);
    return NULL;
}

static int shared_log(void *arg)
{
    (void)arg;
    pthread_t thread;
    RV_ATOMIC(unsigned char) *place = calloc(2 * EACH * 128, sizeof *place);
    reeve_log *log = open_log("log");
    for (int i = 0; i < 2; i++)
        shared[i] = (struct appender){ log, i, 3, place };
    CHECK_EQ(pthread_create(&thread, NULL, another_runtime, &shared[1]), 0);
    CHECK_EQ(append_records(&shared[0]), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(stats(log).records, 2 * EACH);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_records(place, 2);
    free(place);
    return 0;
}

TEST(tasks_of_two_runtimes_append_to_one_log)
{
    RUN(shared_log, .workers = 1);
}

/* ---- leaving the queue ----------------------------------------------------------------------- */

struct one {
    reeve_log *log;
    const char *text;
    reeve_time until;
    int64_t result;
};

static int append_text(void *arg)
{
    struct one *o = arg;
    o->result = reeve_log_append(o->log, o->text, strlen(o->text), o->until);
    return 0;
}

static RV_ATOMIC(int) appended;

static int append_and_tell(void *arg)
{
    append_text(arg);
    rv_add_acq_rel(&appended, 1);
    return 0;
}

/* While the first record is made durable the others wait, and some of them leave. How many of them
 * came too late for that, and were appended, depends on the disk. */
static int leave(void *arg)
{
    (void)arg;
    reeve_log *log = open_log("log");
    struct one first = { log, "first ", LONG, -1 }, never = { log, "never ", LONG, -1 };
    struct one past = { log, "past ", REEVE_POLL, -1 }, last = { log, "last ", LONG, -1 };
    struct one *const all[] = { &first, &never, &past, &last };
    reeve_task *t[4];
    size_t len, want = 0;
    CHECK_EQ(reeve_spawn(&t[0], append_text, &first), 0);
    while (stats(log).syncs == 0)
        CHECK_EQ(reeve_sleep(0), 0);
    rv_store_relaxed(&appended, 0);
    CHECK_EQ(reeve_spawn(&t[1], append_and_tell, &never), 0);
    while (stats(log).waiting == 0 && !rv_load_acquire(&appended))
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(reeve_spawn(&t[2], append_text, &past), 0);
    CHECK_EQ(reeve_spawn(&t[3], append_text, &last), 0);
    reeve_cancel(t[1]);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    char *text = contents("log", &len);
    CHECK_EQ(first.result, 0);
    CHECK_GT(last.result, 0);
    CHECK(never.result == -ECANCELED || never.result > 0);
    CHECK(past.result == -ETIMEDOUT || past.result > 0);
    for (int i = 0; i < 4; i++) {
        want += all[i]->result >= 0 ? strlen(all[i]->text) : 0;
        if (all[i]->result >= 0)
            CHECK_MEM_EQ(text + all[i]->result, all[i]->text, strlen(all[i]->text));
    }
    CHECK_EQ(len, want);
    free(text);
    CHECK_EQ(reeve_unlink(scratch("log"), LONG), 0);
    return 0;
}

TEST(who_leaves_the_queue_is_not_in_the_log)
{
    RUN(leave, .workers = 1);
    RUN(leave, .workers = 2);
}

static RV_ATOMIC(int) begun;

static int never_in(void *arg)
{
    struct one *o = arg;
    rv_store_release(&begun, 1);
    while (reeve_sleep(0) == 0)
        ;
    return append_text(o);
}

static int cancelled(void *arg)
{
    (void)arg;
    reeve_log *log = open_log("log");
    struct one o = { log, "never", LONG, 1 };
    reeve_task *t;
    rv_store_relaxed(&begun, 0);
    CHECK_EQ(reeve_spawn(&t, never_in, &o), 0);
    while (!rv_load_acquire(&begun)) /* who is cancelled before never begins */
        CHECK_EQ(reeve_sleep(0), 0);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(o.result, -ECANCELED);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_contents("log", "");
    return 0;
}

TEST(a_cancelled_task_appends_nothing)
{
    RUN(cancelled, .workers = 1);
}

enum { STORM = 48, STORM_ROUNDS = 40 };

struct storm {
    reeve_log *log;
    int index, written;
};

/* Appends under deadlines of all kinds: what succeeded is in the file, once, and nothing else. */
static int storm_appends(void *arg)
{
    struct storm *s = arg;
    char text[32];
    uint64_t seed = (uint64_t)s->index + 1;
    for (int i = 0; i < STORM_ROUNDS; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        snprintf(text, sizeof text, "%03d:%03d;", s->index, i);
        reeve_time until = i % 3 == 0 ? LONG : reeve_in((int64_t)(seed >> 40) % REEVE_MS);
        int64_t at = i % 5 ? reeve_log_append(s->log, text, 8, until)
                           : reeve_log_append_later(s->log, text, 8, until);
        CHECK(at >= 0 || at == -ETIMEDOUT || at == -ECANCELED);
        CHECK(at < 0 || at % 8 == 0);
        s->written += at >= 0;
        if (at == -ECANCELED)
            break;
    }
    return 0;
}

static int storms(void *arg)
{
    (void)arg;
    static bool seen[STORM][STORM_ROUNDS];
    struct storm s[STORM];
    reeve_task *t[STORM];
    reeve_log *log = open_log("log");
    size_t len, written = 0;
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < STORM; i++) {
        s[i] = (struct storm){ log, i, 0 };
        CHECK_EQ(reeve_spawn(&t[i], storm_appends, &s[i]), 0);
    }
    CHECK_EQ(reeve_sleep(SOON), 0);
    for (int i = 0; i < STORM; i += 4)
        reeve_cancel(t[i]);
    for (int i = 0; i < STORM; i++)
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    char *text = contents("log", &len);
    for (int i = 0; i < STORM; i++)
        written += (size_t)s[i].written;
    CHECK_EQ(len, written * 8);
    for (size_t at = 0; at < len; at += 8) {
        int index = atoi(text + at), round = atoi(text + at + 4);
        CHECK_EQ(text[at + 7], ';');
        CHECK_EQ(seen[index][round], false);
        seen[index][round] = true;
    }
    free(text);
    CHECK_EQ(reeve_unlink(scratch("log"), LONG), 0);
    return 0;
}

TEST(appends_under_deadlines_are_in_the_log_or_are_not)
{
    RUN(storms, .workers = 1);
    RUN(storms, .workers = 2);
}

/* ---- zeroes ahead ---------------------------------------------------------------------------- */

enum { AHEAD = 64 << 10 };

static uint64_t size_of(const char *name)
{
    struct stat st;
    CHECK_EQ(stat(scratch(name), &st), 0);
    return (uint64_t)st.st_size;
}

static reeve_log *open_ahead(const char *name, size_t ahead)
{
    reeve_log *log = NULL;
    struct reeve_log_opts opts = { .path = scratch(name), .ahead_bytes = ahead };
    CHECK_EQ(reeve_log_open(&log, &opts, LONG), 0);
    return log;
}

/* The records, and nothing but zeroes behind them. */
static void check_ahead(const char *name, const char *want)
{
    size_t len, n = strlen(want);
    char *text = contents(name, &len);
    CHECK_GE(len, n + AHEAD);
    CHECK_EQ(len % 4096, 0);
    CHECK_MEM_EQ(text, want, n);
    while (n < len)
        CHECK_EQ(text[n++], 0);
    free(text);
}

static int ahead(void *arg)
{
    (void)arg;
    reeve_log *log = open_ahead("log", AHEAD);
    CHECK_EQ(size_of("log"), 0); /* none before they are of use */
    CHECK_EQ(reeve_log_append(log, "one ", 4, LONG), 0);
    check_ahead("log", "one ");
    uint64_t size = size_of("log");
    CHECK_EQ(reeve_log_append(log, "two ", 4, LONG), 4);
    CHECK_EQ(reeve_log_append_later(log, "three ", 6, LONG), 8);
    CHECK_EQ(size_of("log"), size); /* into the zeroes */
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_contents("log", "one two three ");

    log = open_ahead("log", AHEAD); /* more than one piece of zeroes, and to where it goes on */
    for (int i = 0; i < 40; i++)
        CHECK_EQ(reeve_log_append(log, "0123456789", 10, LONG), 14 + 10 * i);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    CHECK_EQ(size_of("log"), 14 + 400);
    log = open_ahead("log", SIZE_MAX); /* as many as there may be */
    CHECK_EQ(reeve_log_append(log, "x", 1, LONG), 414);
    CHECK_EQ(size_of("log"), (32 << 20) + 4096);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    CHECK_EQ(size_of("log"), 415);
    CHECK_EQ(reeve_unlink(scratch("log"), LONG), 0);
    return 0;
}

TEST(zeroes_ahead_are_replaced_and_what_is_left_is_cut_off)
{
    RUN(ahead, .workers = 1);
}

static int ahead_of_many(void *arg)
{
    (void)arg;
    /* Often at their end. */
    append_by_many(TASKS, 0, &(struct reeve_log_opts){ .ahead_bytes = 4096 });
    append_by_many(TASKS, 2, &(struct reeve_log_opts){ .ahead_bytes = AHEAD });
    append_by_many(FEW, 3, &(struct reeve_log_opts){ .ahead_bytes = AHEAD, .batch_bytes = 1 });
    return 0;
}

TEST(records_of_many_tasks_replace_zeroes_in_their_order)
{
    RUN(ahead_of_many, .workers = 1);
    RUN(ahead_of_many, .workers = 2);
}

static int large_records(void *arg)
{
    (void)arg;
    static char record[AHEAD];
    memset(record, 'r', sizeof record);
    reeve_log *log = open_ahead("log", AHEAD);
    CHECK_EQ(reeve_log_append(log, record, sizeof record, LONG), 0);
    CHECK_EQ(size_of("log"), sizeof record); /* they would have been written for nothing */
    CHECK_EQ(reeve_log_append(log, record, 8, LONG), sizeof record);
    CHECK_GE(size_of("log"), sizeof record + 8 + AHEAD);
    CHECK_EQ(reeve_log_append(log, record, sizeof record, LONG), sizeof record + 8);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    size_t len;
    char *text = contents("log", &len);
    CHECK_EQ(len, 2 * sizeof record + 8);
    for (size_t i = 0; i < len; i++)
        CHECK_EQ(text[i], 'r');
    free(text);
    CHECK_EQ(reeve_unlink(scratch("log"), LONG), 0);
    return 0;
}

TEST(large_records_are_written_without_zeroes)
{
    RUN(large_records, .workers = 1);
}

static int append_and_die(void *arg)
{
    reeve_log *log = open_ahead("log", AHEAD);
    CHECK_EQ(reeve_log_append(log, "durable ", 8, LONG), 0);
    CHECK_EQ(reeve_log_append(log, "too ", 4, LONG), 8);
    kill(getpid(), SIGKILL);
    return arg != NULL;
}

static int after_the_crash(void *arg)
{
    (void)arg;
    check_ahead("log", "durable too ");
    CHECK_EQ(truncate(scratch("log"), 12), 0); /* as a reader does who finds no record there */
    reeve_log *log = open_ahead("log", AHEAD);
    CHECK_EQ(reeve_log_append(log, "again", 5, LONG), 12);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_contents("log", "durable too again");
    return 0;
}

TEST(after_a_crash_zeroes_are_behind_what_was_appended)
{
    int status;
    uring_or_skip();
    scratch("log");
    pid_t child = fork();
    CHECK_GE(child, 0);
    if (child == 0)
        _exit(reeve_run(append_and_die, NULL, .workers = 1));
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    RUN(after_the_crash, .workers = 1);
}

/* The signal of a file that has become too long would end this test. */
static int ahead_of_a_limit(void *arg)
{
    (void)arg;
    struct rlimit was;
    reeve_log *log = open_ahead("log", AHEAD);
    CHECK_EQ(getrlimit(RLIMIT_FSIZE, &was), 0);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &(struct rlimit){ AHEAD, was.rlim_max }), 0);
    CHECK_EQ(reeve_log_append(log, "fits ", 5, LONG), 0);
    CHECK_EQ(size_of("log"), 5);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &was), 0);
    CHECK_EQ(reeve_log_append(log, "too ", 4, LONG), 5);
    CHECK_EQ(size_of("log"), 9); /* it does not try again */
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_contents("log", "fits too ");
    CHECK_EQ(reeve_unlink(scratch("log"), LONG), 0);
    return 0;
}

TEST(a_limit_on_the_size_of_files_leaves_no_room_for_zeroes)
{
    RUN(ahead_of_a_limit, .workers = 1);
}

static int ahead_fails(void *arg)
{
    (void)arg;
    reeve_log *log = open_ahead("log", AHEAD);
    rv_fault_only("log.ahead");
    rv_fault_fail_nth(1);
    CHECK_EQ(reeve_log_append(log, "one ", 4, LONG), 0);
    CHECK(rv_fault_last_name());
    rv_fault_off();
    CHECK_EQ(size_of("log"), 4);
    CHECK_EQ(reeve_log_append(log, "two ", 4, LONG), 4);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_contents("log", "one two ");

    log = open_ahead("log", AHEAD); /* a write into the zeroes */
    CHECK_EQ(reeve_log_append(log, "three ", 6, LONG), 8);
    rv_fault_only("log.write");
    rv_fault_fail_nth(1);
    CHECK_EQ(reeve_log_append(log, "bad ", 4, LONG), -EIO);
    rv_fault_off();
    CHECK_EQ(size_of("log"), 14);
    CHECK_EQ(reeve_log_append(log, "four", 4, LONG), 14);
    check_ahead("log", "one two three four");
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_contents("log", "one two three four");
    return 0;
}

TEST(zeroes_that_cannot_be_written_or_replaced_are_cut_off)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    RUN(ahead_fails, .workers = 1);
}

static int ahead_stays(void *arg)
{
    (void)arg;
    rv_fault_only("log.");
    for (uint64_t n = 1;; n++) { /* zeroes, write, sync, zeroes again, write, sync, cut */
        rv_fault_off();
        unlink(scratch("log"));
        reeve_log *log = open_ahead("log", 4096);
        rv_fault_only("log.");
        rv_fault_fail_nth(n);
        int64_t first = reeve_log_append(log, "first ", 6, LONG);
        int64_t second = reeve_log_append(log, "second ", 7, LONG);
        int closed = reeve_log_close(log, LONG);
        bool failed = rv_fault_last_name() != NULL;
        rv_fault_off();
        size_t len;
        char *text = contents("log", &len);
        CHECK(first >= 0 || first == -EIO);
        CHECK(second >= 0 || second == -EIO);
        CHECK(closed == 0 || closed == -EIO);
        if (first >= 0)
            CHECK_MEM_EQ(text + first, "first ", 6);
        if (second >= 0)
            CHECK_MEM_EQ(text + second, "second ", 7);
        CHECK_EQ(strnlen(text, len), len); /* no zero is left: all cuts have really been made */
        free(text);
        if (!failed) {
            CHECK_EQ(first + second + closed, 6);
            CHECK_GE(n, 6);
            return 0;
        }
    }
}

TEST(every_call_of_a_log_with_zeroes_may_fail)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    RUN(ahead_stays, .workers = 1);
}

/* ---- bad days -------------------------------------------------------------------------------- */

static int sync_fails(void *arg)
{
    (void)arg;
    reeve_log *log = open_log("log");
    struct one o[20];
    struct reeve_group g = { 0 };
    CHECK_EQ(reeve_log_append(log, "good ", 5, LONG), 0);
    rv_fault_only("log.sync");
    rv_fault_fail_nth(1);
    for (int i = 0; i < 20; i++) {
        o[i] = (struct one){ log, "lost ", LONG, 1 };
        CHECK_EQ(reeve_spawn(NULL, append_text, &o[i], .group = &g), 0);
    }
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK(rv_fault_last_name());
    rv_fault_off();
    for (int i = 0; i < 20; i++)
        CHECK_EQ(o[i].result, -EIO);
    uint64_t syncs = stats(log).syncs, writes = stats(log).writes;
    CHECK_EQ(reeve_log_append(log, "later ", 6, LONG), -EIO); /* though a sync would succeed now */
    CHECK_EQ(reeve_log_append_later(log, "later ", 6, LONG), -EIO);
    CHECK_EQ(reeve_log_append(log, "", 0, LONG), -EIO);
    CHECK_EQ(reeve_log_sync(log, LONG), -EIO);
    CHECK_EQ(stats(log).syncs, syncs); /* nothing was tried again */
    CHECK_EQ(stats(log).writes, writes);
    CHECK_EQ(reeve_log_close(log, LONG), -EIO);
    CHECK_EQ(reeve_unlink(scratch("log"), LONG), 0);
    return 0;
}

TEST(after_a_failed_sync_every_append_gets_the_error)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    RUN(sync_fails, .workers = 1);
    RUN(sync_fails, .workers = 2);
}

static int write_fails(void *arg)
{
    (void)arg;
    reeve_log *log = open_log("log");
    CHECK_EQ(reeve_log_append(log, "good ", 5, LONG), 0);
    rv_fault_only("log.write");
    rv_fault_fail_nth(1);
    CHECK_EQ(reeve_log_append(log, "bad ", 4, LONG), -EIO);
    rv_fault_off();
    CHECK_EQ(reeve_log_append(log, "again ", 6, LONG), 5); /* the log goes on */
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_contents("log", "good again ");

    log = open_log("log");
    rv_fault_only("log."); /* the write, and the cutting off of what it left */
    rv_fault_fail_nth(1);
    CHECK_EQ(reeve_log_append(log, "bad ", 4, LONG), -EIO);
    rv_fault_off();
    CHECK_EQ(reeve_log_append(log, "fine ", 5, LONG), 11);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    check_contents("log", "good again fine ");
    CHECK_EQ(reeve_unlink(scratch("log"), LONG), 0);
    return 0;
}

TEST(a_failed_write_leaves_nothing_in_the_log)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    RUN(write_fails, .workers = 1);
}

/* A file that may not grow: the write stops in the middle of a record, and then fails. */
static int full_disk(void *arg)
{
    (void)arg;
    enum { LIMIT = 10000, RECORD = 4000 };
    static char record[RECORD];
    struct rlimit was;
    memset(record, 'r', sizeof record);
    reeve_log *log = open_log("log");
    CHECK_EQ(getrlimit(RLIMIT_FSIZE, &was), 0);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &(struct rlimit){ LIMIT, was.rlim_max }), 0);
    CHECK_EQ(reeve_log_append(log, record, RECORD, LONG), 0);
    CHECK_EQ(reeve_log_append(log, record, RECORD, LONG), RECORD);
    CHECK_EQ(reeve_log_append(log, record, RECORD, LONG), -EFBIG);
    struct statx st;
    CHECK_EQ(reeve_stat(scratch("log"), &st, LONG), 0);
    CHECK_EQ(st.stx_size, 2 * RECORD); /* the torn part is gone */
    CHECK_EQ(reeve_log_append(log, record, 100, LONG), 2 * RECORD); /* a small one fits */
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &was), 0);
    CHECK_EQ(reeve_log_append(log, record, RECORD, LONG), 2 * RECORD + 100);
    CHECK_EQ(reeve_log_close(log, LONG), 0);
    return 0;
}

TEST(a_write_that_stopped_in_the_middle_is_cut_off)
{
    signal(SIGXFSZ, SIG_IGN);
    RUN(full_disk, .workers = 1);
}

static int cut_fails(void *arg)
{
    (void)arg;
    struct rlimit was;
    static char record[4000];
    reeve_log *log = open_log("log");
    CHECK_EQ(getrlimit(RLIMIT_FSIZE, &was), 0);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 1000, was.rlim_max }), 0);
    rv_fault_only("log.cut");
    rv_fault_fail_nth(1);
    CHECK_EQ(reeve_log_append(log, record, sizeof record, LONG), -EFBIG);
    rv_fault_off();
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &was), 0);
    CHECK_EQ(reeve_log_append(log, "x", 1, LONG), -EFBIG); /* spoilt */
    CHECK_EQ(reeve_log_close(log, LONG), -EFBIG);
    return 0;
}

TEST(a_torn_part_that_cannot_be_cut_off_spoils_the_log)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    signal(SIGXFSZ, SIG_IGN);
    RUN(cut_fails, .workers = 1);
}

static int late_close(void *arg)
{
    (void)arg;
    reeve_log *log = open_log("log");
    int before = fds_open();
    CHECK_EQ(reeve_log_append_later(log, "x", 1, LONG), 0);
    rv_fault_only("log.sync");
    rv_fault_fail_nth(1);
    CHECK_EQ(reeve_log_close(log, LONG), -EIO); /* closed all the same */
    rv_fault_off();
    CHECK_EQ(fds_open(), before - 1);
    return 0;
}

TEST(a_close_says_what_did_not_become_durable)
{
    if (!rv_fault_available())
        SKIP("built without fault points");
    RUN(late_close, .workers = 1);
}

static int close_in_use(void *arg)
{
    (void)arg;
    reeve_log *log = open_log("log");
    struct one o;
    do { /* until a sync takes so long that it is seen */
        o = (struct one){ log, "x", LONG, -1 };
        uint64_t syncs = stats(log).syncs;
        CHECK_EQ(reeve_spawn(NULL, append_text, &o), 0);
        while (stats(log).syncs == syncs)
            CHECK_EQ(reeve_sleep(0), 0);
    } while (o.result >= 0);
    reeve_log_close(log, LONG);
    return 0;
}

TEST(a_log_is_not_closed_under_an_append)
{
    uring_or_skip();
    scratch_file(scratch("log"), "", 0);
    CHECK_DIES("reeve_log_close was called while another task uses the log",
               { reeve_run(close_in_use, NULL, .workers = 1); });
}
