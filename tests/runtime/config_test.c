/* SPDX-License-Identifier: MIT */
/*
 * config_test.c -- runtime/config.c: which options are refused, what zero means, and that each of
 * the others changes something.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "runtime/runtime.h"
#include "sched/cpus.h"
#include "tests/runtime/server.h"
#include "tests/turns.h"

/* ---- out of range ---------------------------------------------------------------------------- */

static int never(void *arg)
{
    (void)arg;
    check_failed(__FILE__, __LINE__, "ran with options that are out of range");
}

static void check_refused(struct reeve_opts opts, int error)
{
    struct reeve *rt = (struct reeve *)&opts; /* must stay as it is */
    opts.fn = never;
    CHECK_EQ(reeve_run_with(&opts), error);
    CHECK_EQ(reeve_create(&rt, &opts), error);
    CHECK_EQ(rt, (struct reeve *)&opts);
}

TEST(options_out_of_range_are_refused_before_anything_starts)
{
    static const int below[] = { -1 }, above[] = { CPU_SETSIZE }, good[] = { 0 };
    static const struct reeve_opts wrong[] = {
        { .workers = 10000 },
        { .workers = 1025 },
        { .workers = REEVE_NONE },
        { .cpus = good },
        { .cpus = below, .workers = 1 },
        { .cpus = above, .workers = 1 },
        { .preset = -1 },
        { .preset = REEVE_LATENCY + 1 },
        { .tasks_max = (1u << 28) + 1 },
        { .tasks_max = REEVE_NONE },
        { .stack_bytes = 1 },
        { .stack_bytes = 4095 },
        { .stack_bytes = (1 << 20) + 1 },
        { .stack_bytes = SIZE_MAX },
        { .injector_every = UINT_MAX },
        { .pass_picks = UINT_MAX },
        { .pass_ns = -1 },
        { .pass_ns = INT64_MIN },
        { .offload_max = RV_OFFLOAD_MAX + 1 },
        { .offload_max = REEVE_NONE - 1 },
        { .rescue_signal = -2 },
        { .rescue_signal = 65 },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_refused(wrong[i], -EINVAL);
    check_refused((struct reeve_opts){ .embed = true }, -ENOTSUP);
}

TEST(buffers_beyond_what_the_kernel_can_pick_from_are_refused)
{
    uring_or_skip();
    check_refused((struct reeve_opts){ .bufs = 32769 }, -EINVAL);
    check_refused((struct reeve_opts){ .bufs = SIZE_MAX }, -EINVAL);
    check_refused((struct reeve_opts){ .buf_bytes = SIZE_MAX }, -EINVAL);
}

static int nothing(void *arg)
{
    (void)arg;
    return 7;
}

TEST(what_is_at_the_edge_of_its_range_works)
{
    static const int cpu[] = { 0 };
    static const struct reeve_opts good[] = {
        { .workers = 1, .stack_bytes = 4096 },
        { .workers = 1, .stack_bytes = 1 << 20 },
        { .workers = 1, .tasks_max = 4 },
        { .workers = 1, .cpus = cpu },
        { .workers = 1, .injector_every = 1, .pass_picks = 1, .pass_ns = 1 },
        { .workers = 1,
          .injector_every = INT32_MAX,
          .pass_picks = INT32_MAX,
          .pass_ns = INT64_MAX },
        { .workers = 1, .offload_max = REEVE_NONE, .rescue_signal = -1 },
        { .workers = 1, .offload_max = RV_OFFLOAD_MAX },
        { .workers = 1, .rescue_signal = 64, .preset = REEVE_LATENCY },
        { .workers = 1, .bufs = 1, .buf_bytes = 1 },
        { .workers = 1, .bufs = 32768, .buf_bytes = 256 },
        { .workers = 17, .tasks_max = 100 },
    };
    uring_or_skip();
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct reeve_opts opts = good[i];
        opts.fn = nothing;
        CHECK_EQ(reeve_run_with(&opts), 7);
    }
}

/* ---- zero ------------------------------------------------------------------------------------ */

TEST(zero_is_the_default_of_every_option)
{
    struct rv_config none, zero;
    CHECK_EQ(rv_config_fill(&none, NULL), 0);
    CHECK_EQ(rv_config_fill(&zero, &(struct reeve_opts){ 0 }), 0);
    CHECK_EQ(none.sched.workers, rv_cpus_usable());
    CHECK_EQ(zero.sched.workers, rv_cpus_usable());
    CHECK_EQ(zero.sched.tasks_max, 1 << 20);
    CHECK_EQ(zero.sched.stack_class, rv_stack_class(65536));
    CHECK_EQ(zero.sched.injector_every, 61);
    CHECK_EQ(zero.sched.pass_picks, 61);
    CHECK_EQ(zero.sched.pass_ns, 100000);
    CHECK_EQ(zero.offload_max, 4 * rv_cpus_usable());
    CHECK_STR_EQ(zero.name, "reeve");
    CHECK_EQ(zero.cpus, NULL);
}

TEST(the_default_is_a_worker_for_each_cpu_of_the_affinity)
{
    cpu_set_t all, one;
    CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    CHECK_LE(rv_cpus_usable(), CPU_COUNT(&all));
    CHECK_GE(rv_cpus_usable(), 1);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK_EQ(rv_cpus_usable(), 1);
    uring_or_skip();
    reeve *rt;
    CHECK_OK(reeve_create(&rt, NULL));
    CHECK_EQ(stats_of(rt).workers, 1);
    reeve_destroy(rt);
}

/* Plays the cgroup file system in a mount namespace of its own: cpu.max in the process's group. */
static void play_cgroup(const char *group, const char *cpu_max)
{
    char path[700];
    FILE *f = fopen("/tmp/reeve_cgroup_of_self", "we");
    CHECK(f);
    fprintf(f, "1:cpu:/elsewhere\n0::%s\n", group);
    fclose(f);
    CHECK_EQ(mount("/tmp/reeve_cgroup_of_self", "/proc/self/cgroup", NULL, MS_BIND, NULL), 0);
    for (const char *end = group; *end; end++) { /* /sys/fs/cgroup, and each folder below it */
        if (end[1] && end[1] != '/')
            continue;
        snprintf(path, sizeof path, "/sys/fs/cgroup%.*s", (int)(end - group + 1), group);
        mkdir(path, 0755);
    }
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group);
    f = fopen(path, "we");
    CHECK(f);
    fprintf(f, "%s\n", cpu_max);
    fclose(f);
}

TEST(a_cgroup_quota_bounds_the_default_from_any_level)
{
    if (rv_cpus_usable() < 2)
        SKIP("one CPU leaves nothing to bound");
    if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/tmp", "tmpfs", 0, NULL) < 0 ||
        mount("none", "/sys/fs/cgroup", "tmpfs", 0, NULL) < 0)
        SKIP("needs a mount namespace of its own");
    unsigned cpus = rv_cpus_usable();
    play_cgroup("/", "max 100000");
    CHECK_EQ(rv_cpus_usable(), cpus);
    play_cgroup("/", "100000 100000");
    CHECK_EQ(rv_cpus_usable(), 1);
    play_cgroup("/", "100001 100000"); /* rounded up */
    CHECK_EQ(rv_cpus_usable(), 2);
    play_cgroup("/", "1000 100000");
    CHECK_EQ(rv_cpus_usable(), 1);
    play_cgroup("/", "max 100000");
    play_cgroup("/outer/inner", "max 100000");
    CHECK_EQ(rv_cpus_usable(), cpus);
    play_cgroup("/outer", "50000 100000");
    play_cgroup("/outer/inner", "max 100000");
    CHECK_EQ(rv_cpus_usable(), 1); /* the tightest counts */
    play_cgroup("/outer/inner", "900000 100000");
    CHECK_EQ(rv_cpus_usable(), 1);
    play_cgroup("/outer", "max 100000");
    play_cgroup("/outer/inner", "9000000 1000");
    CHECK_EQ(rv_cpus_usable(), cpus); /* no more than the affinity */
}

/* ---- what each option changes ---------------------------------------------------------------- */

/* How many threads of this process have the name. */
static unsigned threads_named(const char *name)
{
    DIR *dir = opendir("/proc/self/task");
    CHECK(dir);
    unsigned n = 0;
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        char path[320], line[64] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *f = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (f == NULL)
            continue;
        if (fgets(line, sizeof line, f))
            line[strcspn(line, "\n")] = 0;
        fclose(f);
        n += strcmp(line, name) == 0;
    }
    closedir(dir);
    return n;
}

TEST(threads_bear_the_name_and_their_number)
{
    uring_or_skip();
    reeve *rt, *other;
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .name = "web", .workers = 3 }));
    CHECK_OK(reeve_create(&other, &(struct reeve_opts){ .workers = 12 }));
    AWAIT(threads_named("web/0") && threads_named("web/1") && threads_named("web/2"));
    AWAIT(threads_named("reeve/0") && threads_named("reeve/11"));
    CHECK_EQ(threads_named("web/3"), 0);
    CHECK_EQ(threads_named("reeve/12"), 0);
    reeve_destroy(other);
    reeve_destroy(rt);
    const char *name = "a-name-that-is-too-long-for-the-kernel";
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .name = name, .workers = 2 }));
    AWAIT(threads_named("a-name-tha/0") && threads_named("a-name-tha/1"));
    reeve_destroy(rt);
}

struct spot {
    int cpu;
    uint32_t worker;
};

static int note_spot(void *arg)
{
    struct spot *s = arg;
    s->cpu = sched_getcpu();
    s->worker = rv_worker_self()->index;
    return 0;
}

/* Where a task that asks for each worker finds itself. */
static int visit_workers(void *arg)
{
    struct spot *s = arg;
    for (int i = 0; i < 2; i++) {
        reeve_task *t;
        CHECK_OK(reeve_spawn(&t, note_spot, &s[i], .worker = 1 + i));
        CHECK_OK(reeve_join(t, NULL, LONG));
        CHECK_EQ(s[i].worker, i);
    }
    return 0;
}

TEST(workers_run_on_the_cpus_that_they_are_given_and_the_caller_gets_its_own_back)
{
    cpu_set_t was, is;
    CHECK_EQ(sched_getaffinity(0, sizeof was, &was), 0);
    int cpus[2], n = 0;
    for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
        if (CPU_ISSET(i, &was))
            cpus[n++] = i;
    if (n < 2)
        SKIP("needs two CPUs");
    uring_or_skip();
    struct spot s[2];
    CHECK_EQ(reeve_run(visit_workers, s, .workers = 2, .cpus = cpus), 0);
    CHECK_EQ(s[0].cpu, cpus[0]);
    CHECK_EQ(s[1].cpu, cpus[1]);
    CHECK_EQ(sched_getaffinity(0, sizeof is, &is), 0);
    CHECK(CPU_EQUAL(&was, &is));
    int swapped[2] = { cpus[1], cpus[0] };
    CHECK_EQ(reeve_run(visit_workers, s, .workers = 2, .cpus = swapped), 0);
    CHECK_EQ(s[0].cpu, cpus[1]);
    CHECK_EQ(s[1].cpu, cpus[0]);
}

static int wait_for_ever(void *arg)
{
    sem_post(arg);
    return reeve_sleep(reeve_in(INT64_MAX));
}

/* How many tasks that wait can be posted until one more is refused. */
static unsigned posts_until_refused(unsigned tasks_max)
{
    reeve *rt;
    sem_t started;
    sem_init(&started, 0, 0);
    CHECK_OK(reeve_create(&rt, &(struct reeve_opts){ .workers = 1, .tasks_max = tasks_max }));
    unsigned n = 0;
    int r;
    while ((r = reeve_post(rt, &(struct reeve_spawn){ .fn = wait_for_ever, .arg = &started })) == 0)
        n++;
    CHECK_EQ(r, -EAGAIN);
    for (unsigned i = 0; i < n; i++)
        await_sem(&started);
    CHECK_EQ(reeve_shutdown(rt, REEVE_POLL), -ETIMEDOUT);
    reeve_destroy(rt);
    sem_destroy(&started);
    return n;
}

/* A worker's thread may hold back up to 128 free descriptors, so there are as many more. */
TEST(tasks_max_can_be_had_and_beyond_it_spawns_are_refused)
{
    uring_or_skip();
    unsigned few = posts_until_refused(10), more = posts_until_refused(1000);
    CHECK_GE(few, 10);
    CHECK_GE(more, 1000);
    CHECK_EQ(more - few, 990);
}

__attribute__((noinline)) static int use_stack(void *arg)
{
    volatile char frame[8192];
    size_t left = *(size_t *)arg;
    memset((void *)(uintptr_t)frame, (int)left, sizeof frame);
    if (left > sizeof frame + 256) {
        left -= sizeof frame + 256;
        use_stack(&left);
    }
    return frame[100] == 77;
}

static int spawn_user(void *arg)
{
    reeve_task *t;
    int r;
    CHECK_OK(reeve_spawn(&t, use_stack, arg, .worker = 1));
    give_turns(); /* it runs on a stack of its own, not on ours */
    CHECK_OK(reeve_join(t, &r, LONG));
    return r;
}

static bool survives(size_t stack_bytes, size_t used)
{
    fflush(NULL);
    pid_t child = fork();
    CHECK_OK(child);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        signal(SIGSEGV, SIG_DFL); /* a sanitizer would report what is expected here */
        signal(SIGBUS, SIG_DFL);
        _exit(reeve_run(spawn_user, &used, .workers = 1, .stack_bytes = stack_bytes) < 0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status))
        CHECK(WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
    else
        CHECK_EQ(WEXITSTATUS(status), 0);
    return WIFEXITED(status);
}

TEST(stack_bytes_is_what_a_task_may_use)
{
    uring_or_skip();
    struct rv_caps caps;
    CHECK_OK(rv_caps_probe(&caps, NULL));
    size_t slack = 10240; /* frames of the library, and of a sanitizer */
    CHECK(survives(0, 65536 - slack));
    CHECK(survives(1 << 20, (1 << 20) - slack));
    CHECK(survives(200000, 200000 - slack));
    if (caps.guard_install) /* four times what is promised ends at a guard */
        CHECK(!survives(16384, 5 * 16384));
}

struct supply {
    size_t bufs, bytes;
};

static int count_buffers(void *arg)
{
    struct supply *want = arg;
    struct reeve_buf *buf[64], *one_more;
    CHECK_LE(want->bufs, 64);
    for (size_t i = 0; i < want->bufs; i++) {
        CHECK_OK(reeve_buf_borrow(&buf[i], LONG));
        CHECK_EQ(buf[i]->len, 0);
        CHECK_EQ(buf[i]->cap, want->bytes);
        memset(buf[i]->data, 1, buf[i]->cap);
    }
    CHECK_EQ(reeve_buf_borrow(&one_more, REEVE_POLL), -ETIMEDOUT);
    for (size_t i = 0; i < want->bufs; i++)
        reeve_buf_return(buf[i]);
    return 0;
}

TEST(bufs_and_buf_bytes_say_how_many_leases_there_are_and_how_large)
{
    uring_or_skip();
    struct supply small = { 4, 512 }, large = { 32, 65536 };
    CHECK_EQ(reeve_run(count_buffers, &small, .workers = 1, .bufs = 4, .buf_bytes = 512), 0);
    CHECK_EQ(reeve_run(count_buffers, &large, .workers = 1, .bufs = 32, .buf_bytes = 65536), 0);
    large.bufs = 64;
    CHECK_EQ(reeve_run(count_buffers, &large, .workers = 2, .bufs = 32, .buf_bytes = 65536), 0);
}

/* ---- passes ---------------------------------------------------------------------------------- */

enum { YIELDERS = 4, YIELDS = 500 };

static int yield_often(void *arg)
{
    (void)arg;
    for (int i = 0; i < YIELDS; i++)
        CHECK_OK(reeve_sleep(0));
    return 0;
}

/* The picks that each pass took, on the average, while there was always somebody ready. */
static int picks_a_pass(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    struct reeve_stats a = stats_of(reeve_self());
    for (int i = 0; i < YIELDERS; i++)
        CHECK_OK(reeve_go(yield_often, NULL, .group = &g));
    CHECK_OK(reeve_group_wait(&g, 0));
    struct reeve_stats b = stats_of(reeve_self());
    CHECK_GE(b.polls - a.polls, YIELDERS * YIELDS);
    return (int)((b.polls - a.polls) / (b.passes - a.passes + 1));
}

#define FOR_EVER (1000000 * REEVE_SEC) /* of a pass */

TEST(a_pass_ends_after_pass_picks)
{
    uring_or_skip();
    int few = reeve_run(picks_a_pass, NULL, .workers = 1, .pass_picks = 5, .pass_ns = FOR_EVER);
    int many = reeve_run(picks_a_pass, NULL, .workers = 1, .pass_picks = 500, .pass_ns = FOR_EVER);
    CHECK_GE(few, 4);
    CHECK_LE(few, 5);
    CHECK_GE(many, 250);
    CHECK_LE(many, 500);
}

TEST(a_pass_ends_after_pass_ns_within_eight_picks)
{
    uring_or_skip();
    int r = reeve_run(picks_a_pass, NULL, .workers = 1, .pass_picks = 100000, .pass_ns = 1);
    CHECK_LE(r, 8);
    r = reeve_run(picks_a_pass, NULL, .workers = 1, .pass_picks = 100000, .pass_ns = FOR_EVER);
    CHECK_GE(r, 250);
}

/* ---- the injector ---------------------------------------------------------------------------- */

struct injection {
    reeve *rt;
    uint64_t picked; /* the number of the pick that started the posted task */
    bool done;
};

static int note_pick(void *arg)
{
    struct injection *in = arg;
    in->picked = stats_of(in->rt).polls;
    in->done = true;
    return 0;
}

static void *post_one(void *arg)
{
    struct injection *in = arg;
    CHECK_OK(reeve_post(in->rt, &(struct reeve_spawn){ .fn = note_pick, .arg = in }));
    return NULL;
}

static bool over; /* not a local of the root: its children outlive its function */

static int yield_until_over(void *arg)
{
    (void)arg;
    while (!over)
        CHECK_OK(reeve_sleep(0));
    return 0;
}

/* The most picks that a task posted from outside had to wait, in ten tries, while others were
 * always ready. Each is posted while the one worker stands still, so no pick goes uncounted. */
static int longest_wait(void *arg)
{
    (void)arg;
    struct injection in = { .rt = reeve_self() };
    uint64_t longest = 0;
    over = false;
    for (int i = 0; i < YIELDERS; i++)
        CHECK_OK(reeve_go(yield_until_over, NULL));
    for (int i = 0; i < 10; i++) {
        pthread_t thread;
        in.done = false;
        CHECK_EQ(pthread_create(&thread, NULL, post_one, &in), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        uint64_t posted = stats_of(in.rt).polls;
        while (!in.done)
            CHECK_OK(reeve_sleep(0));
        if (in.picked - posted > longest)
            longest = in.picked - posted;
    }
    over = true;
    return (int)longest;
}

TEST(posted_work_is_served_every_injector_every_picks)
{
#ifdef RV_RANDOM_SCHED
    SKIP("this build picks in any order");
#endif
    uring_or_skip();
    int often = reeve_run(longest_wait, NULL, .workers = 1, .injector_every = 3);
    int rarely = reeve_run(longest_wait, NULL, .workers = 1, .injector_every = 1000);
    CHECK_GE(often, 1);
    CHECK_LE(often, 3);
    CHECK_GT(rarely, 100);
    CHECK_LE(rarely, 1000);
}

static RV_ATOMIC(uint32_t) unblocked; /* a futex */

static int block(void *arg)
{
    (void)arg;
    while (rv_load_acquire(&unblocked) == 0) /* pairs with unblock() */
        syscall(SYS_futex, &unblocked, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    return 0;
}

static void unblock(void)
{
    rv_store_release(&unblocked, 1u);
    syscall(SYS_futex, &unblocked, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static int offload_block(void *arg)
{
    return reeve_offload(block, arg, 0);
}

static int block_five(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    for (int i = 0; i < 5; i++)
        CHECK_OK(reeve_go(offload_block, NULL, .group = &g));
    while (stats_of(reeve_self()).offload_queued_live != 3)
        CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    while (threads_named("lane/off") != 2) /* each names itself, once it runs */
        CHECK_OK(reeve_sleep(reeve_in(REEVE_MS)));
    CHECK_EQ(stats_of(reeve_self()).offload_threads_live, 2);
    unblock();
    return reeve_group_wait(&g, LONG);
}

static int block_in_vain(void *arg)
{
    return reeve_offload(block, arg, LONG);
}

TEST(offload_max_is_how_many_calls_block_at_a_time)
{
    uring_or_skip();
    CHECK_OK(reeve_run(block_five, NULL, .workers = 2, .offload_max = 2, .name = "lane"));
    CHECK_EQ(reeve_run(block_in_vain, NULL, .workers = 1, .offload_max = REEVE_NONE), -ENOTSUP);
}
