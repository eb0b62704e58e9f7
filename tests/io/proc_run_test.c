/* SPDX-License-Identifier: MIT */
/*
 * proc_run_test.c -- programs run on bytes, alone and in chains: nothing stands still, nothing is
 * lost, and nothing is left, however it ends.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <reeve/sync.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "io/proc.h"
#include "mem/fault.h"
#include "tests/io/programs.h"

#define MUCH (8u << 20)
static unsigned char in[MUCH + 1], out[MUCH + 1], err[MUCH + 1];

static int run(char *const *argv, struct reeve_io *io, reeve_time until)
{
    int r = reeve_proc_run(&(struct reeve_exec){ .argv = argv }, io, until);
    check_no_children();
    return r;
}

/* ---- one program ----------------------------------------------------------------------------- */

static int both_ways(void *arg)
{
    (void)arg;
    static const size_t sizes[] = { 0, 1, 4096, 65535, 65536, 65537, 1 << 20, MUCH };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct reeve_io io = { .in = { in, sizes[i] }, .out = out, .out_max = sizes[i] };
        CHECK_EQ(run(ARGV("cat"), &io, LONG), 0);
        CHECK_EQ(io.status, 0);
        CHECK_EQ(io.out_len, sizes[i]);
        CHECK(!io.out_cut);
        CHECK_MEM_EQ(out, in, sizes[i]);
    }
    return 0;
}

TEST(more_than_any_pipe_holds_goes_both_ways)
{
    fill_pattern(in, MUCH, 0);
    RUN(both_ways, .workers = 1);
    RUN(both_ways, .workers = 2);
}

static int two_outputs(void *arg)
{
    (void)arg;
    struct reeve_io io = {
        .in = { in, MUCH }, .out = out, .out_max = sizeof out, .err = err, .err_max = sizeof err
    };
    CHECK_EQ(run(ARGV("tee", "/dev/stderr"), &io, LONG), 0);
    CHECK_EQ(io.out_len, MUCH);
    CHECK_EQ(io.err_len, MUCH);
    CHECK_MEM_EQ(out, in, MUCH);
    CHECK_MEM_EQ(err, in, MUCH);
    /* All of the one before any of the other. */
    CHECK_EQ(run(SH("head -c 1000000 /dev/zero >&2; cat"), &io, LONG), 0);
    CHECK_EQ(io.err_len, 1000000);
    CHECK_EQ(io.out_len, MUCH);
    CHECK_GT(io.cpu_ns, 0);
    return 0;
}

TEST(output_and_errors_are_collected_at_once)
{
    fill_pattern(in, MUCH, 7);
    RUN(two_outputs, .workers = 1);
}

static int unread(void *arg)
{
    (void)arg;
    struct reeve_io io = { .in = { in, MUCH }, .out = out, .out_max = sizeof out };
    CHECK_EQ(run(ARGV("true"), &io, LONG), 0);
    CHECK_EQ(io.status, 0);
    CHECK_EQ(run(ARGV("head", "-c", "10"), &io, LONG), 0);
    CHECK_EQ(io.out_len, 10);
    CHECK_EQ(run(SH("exec <&-; sleep 0.01; echo on"), &io, LONG), 0);
    CHECK_EQ(io.out_len, 3);
    CHECK_EQ(run(SH("exit 9"), &io, LONG), 0);
    CHECK_EQ(WEXITSTATUS(io.status), 9);
    return 0;
}

TEST(input_that_nobody_reads_is_no_error_and_no_sigpipe)
{
    signal(SIGPIPE, SIG_DFL);
    RUN(unread, .workers = 1);
    setenv("REEVE_CAPS_OFF", "rwf_nosignal", 1);
    RUN(unread, .workers = 1);
}

static int nothing_asked(void *arg)
{
    (void)arg;
    struct reeve_io io = { .out_len = 77, .status = 77 };
    CHECK_EQ(run(SH("cat; echo x; echo y >&2"), &io, LONG), 0);
    CHECK_EQ(io.status, 0);
    CHECK_EQ(io.out_len, 0);
    return 0;
}

TEST(what_is_not_asked_for_is_null)
{
    RUN(nothing_asked, .workers = 1);
}

static int bounded(void *arg)
{
    (void)arg;
    struct reeve_io io = { .out = out, .out_max = 1000 };
    out[1000] = 'z';
    CHECK_EQ(run(ARGV("yes"), &io, LONG), -E2BIG);
    CHECK_EQ(io.out_len, 1000);
    CHECK_EQ(io.out_cut, true);
    CHECK_EQ(io.status, SIGKILL);
    CHECK_MEM_EQ(out, "y\ny\ny\ny\n", 8);
    CHECK_EQ(out[1000], 'z');
    CHECK_EQ(run(ARGV("head", "-c", "1000", "/dev/zero"), &io, LONG), 0);
    CHECK_EQ(io.out_len, 1000);
    CHECK_EQ(io.out_cut, false);
    io.cut = true;
    CHECK_EQ(run(ARGV("head", "-c", "300000", "/dev/zero"), &io, LONG), 0);
    CHECK_EQ(io.status, 0);
    CHECK_EQ(io.out_len, 1000);
    CHECK_EQ(io.out_cut, true);
    struct reeve_io none = { .out = out, .out_max = 0, .err = err, .err_max = 5 };
    CHECK_EQ(run(SH("echo; sleep 100"), &none, LONG), -E2BIG);
    CHECK_EQ(run(SH("echo >&2 123456; sleep 100"), &none, LONG), -E2BIG);
    CHECK_EQ(none.err_len, 5);
    CHECK_EQ(none.err_cut, true);
    CHECK_EQ(none.out_cut, false);
    return 0;
}

TEST(output_is_bounded_or_cut)
{
    RUN(bounded, .workers = 1);
}

static int contradictions(void *arg)
{
    (void)arg;
    int fds[] = { 0, 1, 2 };
    struct reeve_exec exec = { .argv = ARGV("true"), .fds = fds, .fds_n = 3 };
    struct reeve_io wrong[] = {
        { .in = { in, 1 } }, { .out = out },        { .err = err },     { .out_max = 1 },
        { .err_max = 1 },    { .in = { NULL, 1 } }, { .grace_ns = -1 },
    };
    int open_ones = count_fds();
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_EQ(reeve_proc_run(&exec, &wrong[i], LONG), -EINVAL);
    CHECK_EQ(reeve_proc_run(&exec, NULL, LONG), -EINVAL);
    CHECK_EQ(reeve_proc_run(NULL, &(struct reeve_io){ 0 }, LONG), -EINVAL);
    CHECK_EQ(reeve_proc_run(&exec, &(struct reeve_io){ 0 }, LONG), 0);
    exec.argv = ARGV("/no/such");
    CHECK_EQ(reeve_proc_run(&exec, &(struct reeve_io){ 0 }, LONG), -ENOENT);
    exec = (struct reeve_exec){ .argv = NULL };
    struct reeve_io all = { .in = { in, MUCH }, .out = out, .err = err };
    CHECK_EQ(reeve_proc_run(&exec, &all, LONG), -EINVAL);
    exec.argv = ARGV("/no/such");
    CHECK_EQ(reeve_proc_run(&exec, &all, LONG), -ENOENT);
    CHECK_EQ(count_fds(), open_ones);
    check_no_children();
    return 0;
}

TEST(what_contradicts_itself_is_refused_and_leaves_nothing)
{
    RUN(contradictions, .workers = 1);
}

/* ---- early ends ------------------------------------------------------------------------------ */

static int deadline(void *arg)
{
    (void)arg;
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    int fds[] = { -1, -1, -1, ends[1] };
    struct reeve_io io = { .out = out, .out_max = sizeof out };
    struct reeve_exec exec = { .argv = SH("trap '' TERM; sleep 100 & sleep 100"),
                               .fds = fds,
                               .fds_n = 4 };
    do { /* it may be late before it has started anything */
        io.status = 0;
        CHECK_EQ(reeve_proc_run(&exec, &io, reeve_in(30 * REEVE_MS)), -ETIMEDOUT);
    } while (io.status == 0);
    CHECK_EQ(io.status, SIGKILL);
    /* The program ends at once; who keeps its output open is killed at the deadline. */
    exec.argv = SH("sleep 100 & echo x");
    CHECK_EQ(reeve_proc_run(&exec, &io, reeve_in(300 * REEVE_MS)), -ETIMEDOUT);
    CHECK_EQ(reeve_proc_run(&exec, &io, REEVE_POLL), -ETIMEDOUT);
    close(ends[1]);
    await_last_writer(ends[0]); /* all of them have gone */
    close(ends[0]);
    check_no_children();
    return 0;
}

TEST(a_deadline_kills_the_whole_group)
{
    RUN(deadline, .workers = 1);
    RUN(deadline, .workers = 2);
}

struct job {
    struct reeve_exec exec;
    struct reeve_io io;
    int r;
};

static int do_job(void *arg)
{
    struct job *j = arg;
    j->r = reeve_proc_run(&j->exec, &j->io, 0);
    return 0;
}

static int with_grace(void *arg)
{
    (void)arg;
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    int fds[] = { -1, -1, -1, ends[1] };
    struct job j = { .exec = { .fds = fds, .fds_n = 4 }, .io = { .grace_ns = 30 * REEVE_SEC } };
    char *const *scripts[] = { SH("trap 'exit 3' TERM; echo >&3; while :; do sleep 0.01; done"),
                               SH("trap '' TERM; echo >&3; while :; do sleep 1; done") };
    static const int want[] = { 3 << 8, SIGKILL };
    for (int i = 0; i < 2; i++) {
        reeve_task *t;
        j.exec.argv = scripts[i];
        CHECK_EQ(reeve_spawn(&t, do_job, &j), 0);
        await_byte(ends[0]);
        reeve_cancel(t);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK_EQ(j.r, -ECANCELED);
        CHECK_EQ(j.io.status, want[i]);
        j.io.grace_ns = 10 * REEVE_MS;
    }
    close(ends[0]);
    close(ends[1]);
    check_no_children();
    return 0;
}

TEST(a_program_may_end_well_in_its_grace_and_is_killed_after_it)
{
    RUN(with_grace, .workers = 1);
    RUN(with_grace, .workers = 2);
}

/* The same ones for all, and a test's own to change. */
static struct reeve_exec *chain_of_cats(void)
{
    static struct reeve_exec cats[REEVE_CHAIN_MAX + 1];
    static char *const argv[] = { "cat", NULL };
    for (size_t i = 0; !cats[REEVE_CHAIN_MAX].argv; i++)
        cats[i] = (struct reeve_exec){ .argv = argv };
    return cats;
}

static int chain_job(void *arg)
{
    struct job *j = arg;
    j->r = reeve_proc_chain(chain_of_cats(), 3, &j->io, 0);
    return 0;
}

/* Cancelled after ever more turns: before it starts, between two starts, while it feeds, collects,
 * waits. */
static int cancelled(void *arg)
{
    (void)arg;
    struct job j = { .io = { .in = { in, MUCH }, .out = out, .out_max = sizeof out } };
    int fds = count_fds(), finished = 0;
    for (int turns = 0; turns < 100000 && finished < 3; turns += 1 + turns / 4) {
        reeve_task *t;
        j.r = -ECANCELED; /* never started */
        CHECK_EQ(reeve_spawn(&t, chain_job, &j), 0);
        for (int i = 0; i < turns; i++)
            CHECK_EQ(reeve_sleep(0), 0);
        reeve_cancel(t);
        CHECK_EQ(reeve_join(t, NULL, LONG), 0);
        CHECK(j.r == -ECANCELED || j.r == 0);
        if (j.r == 0) {
            finished++;
            CHECK_EQ(j.io.out_len, MUCH);
        }
        check_no_children();
        CHECK_EQ(count_fds(), fds);
    }
    return 0;
}

TEST(cancelled_in_any_state_it_leaves_no_program_and_no_descriptor)
{
    RUN(cancelled, .workers = 1);
    RUN(cancelled, .workers = 2);
}

static int own_deadline(void *arg)
{
    int64_t *ns = arg;
    struct reeve_io io = { .in = { in, MUCH }, .out = out, .out_max = sizeof out };
    int r = reeve_proc_chain(chain_of_cats(), 3, &io, 0);
    CHECK(r == 0 || r == -ETIMEDOUT);
    if (r == 0)
        CHECK_EQ(io.out_len, MUCH);
    return *ns >= 0 ? r : 0;
}

static int timed(void *arg)
{
    (void)arg;
    int fds = count_fds();
    for (int64_t ns = 10 * REEVE_US; ns < 500 * REEVE_MS; ns += ns / 2) {
        reeve_task *t;
        int r;
        CHECK_EQ(reeve_spawn(&t, own_deadline, &ns, .deadline = reeve_in(ns)), 0);
        CHECK_EQ(reeve_join(t, &r, LONG), 0);
        check_no_children();
        CHECK_EQ(count_fds(), fds);
    }
    return 0;
}

TEST(a_task_that_is_late_anywhere_returns_all_or_the_error)
{
    RUN(timed, .workers = 1);
    RUN(timed, .workers = 2);
}

/* ---- chains ---------------------------------------------------------------------------------- */

static int chains(void *arg)
{
    (void)arg;
    static const char text[] = "pear\napple\npear\nplum\napple\npear\n";
    struct reeve_ended each[3];
    struct reeve_exec sorted[] = { { .argv = ARGV("sort") },
                                   { .argv = ARGV("uniq", "-c") },
                                   { .argv = SH("sort -rn; echo done >&2; exit 4") } };
    struct reeve_io io = { .in = { text, sizeof text - 1 },
                           .out = out,
                           .out_max = sizeof out,
                           .err = err,
                           .err_max = sizeof err,
                           .each = each };
    CHECK_EQ(reeve_proc_chain(sorted, 3, &io, LONG), 0);
    out[io.out_len] = err[io.err_len] = '\0';
    CHECK_STR_EQ((char *)out, "      3 pear\n      2 apple\n      1 plum\n");
    CHECK_STR_EQ((char *)err, "done\n");
    CHECK_EQ(io.status, 4 << 8);
    CHECK_EQ(each[0].status, 0);
    CHECK_EQ(each[1].status, 0);
    CHECK_EQ(each[2].status, 4 << 8);
    CHECK_EQ(io.cpu_ns, each[0].cpu_ns + each[1].cpu_ns + each[2].cpu_ns);
    /* The last one ends early: those before it die of SIGPIPE, as they should. */
    struct reeve_exec early[] = { { .argv = ARGV("yes") }, { .argv = ARGV("head", "-n", "1") } };
    io.in.len = 0;
    CHECK_EQ(reeve_proc_chain(early, 2, &io, LONG), 0);
    CHECK_EQ(io.out_len, 2);
    CHECK_EQ(each[0].status, SIGPIPE);
    CHECK_EQ(each[1].status, 0);
    check_no_children();
    return 0;
}

TEST(a_chain_is_a_pipeline_with_every_status)
{
    RUN(chains, .workers = 1);
    RUN(chains, .workers = 2);
}

static int depth(void *arg)
{
    (void)arg;
    struct reeve_io io = { .in = { in, 1 << 20 }, .out = out, .out_max = sizeof out };
    struct reeve_exec *cats = chain_of_cats();
    CHECK_EQ(reeve_proc_chain(cats, 0, &io, LONG), -EINVAL);
    CHECK_EQ(reeve_proc_chain(cats, REEVE_CHAIN_MAX + 1, &io, LONG), -E2BIG);
    CHECK_EQ(reeve_proc_chain(cats, REEVE_CHAIN_MAX, &io, LONG), 0);
    CHECK_EQ(io.out_len, 1 << 20);
    CHECK_MEM_EQ(out, in, 1 << 20);
    return 0;
}

TEST(a_chain_has_a_greatest_depth)
{
    fill_pattern(in, MUCH, 3);
    RUN(depth, .workers = 1);
}

static int broken(void *arg)
{
    (void)arg;
    int ends[2], fds = count_fds();
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    int given[] = { -1, -1, -1, ends[1] }, two[] = { 0, 1 };
    struct reeve_exec chain[] = { { .argv = SH("sleep 100"), .fds = given, .fds_n = 4 },
                                  { .argv = ARGV("/no/such") },
                                  { .argv = ARGV("cat") } };
    struct reeve_io io = { .in = { in, MUCH }, .out = out, .out_max = sizeof out };
    CHECK_EQ(reeve_proc_chain(chain, 3, &io, LONG), -ENOENT);
    close(ends[1]);
    await_last_writer(ends[0]);
    close(ends[0]);
    for (int i = 0; i < 3; i++) { /* its place in the chain is taken */
        struct reeve_exec *cats = chain_of_cats();
        cats[i].fds = two;
        cats[i].fds_n = 2;
        CHECK_EQ(reeve_proc_chain(cats, 3, &io, LONG), -EINVAL);
    }
    CHECK_EQ(count_fds(), fds);
    check_no_children();
    return 0;
}

TEST(a_chain_that_cannot_be_started_as_a_whole_does_not_run)
{
    RUN(broken, .workers = 1);
}

static int past_us(void *arg)
{
    (void)arg;
    FILE *from = tmpfile(), *to = tmpfile();
    CHECK(from && to);
    CHECK_EQ(fwrite(in, 1, MUCH, from), MUCH);
    rewind(from);
    int first[] = { fileno(from) }, last[] = { -1, fileno(to) };
    struct reeve_exec *cats = chain_of_cats();
    cats[0].fds = first;
    cats[0].fds_n = 1;
    cats[2].fds = last;
    cats[2].fds_n = 2;
    struct reeve_io io = { .status = 1 };
    CHECK_EQ(reeve_proc_chain(cats, 3, &io, LONG), 0);
    CHECK_EQ(io.status, 0);
    rewind(to);
    CHECK_EQ(fread(out, 1, sizeof out, to), MUCH);
    CHECK_MEM_EQ(out, in, MUCH);
    fclose(from);
    fclose(to);
    return 0;
}

TEST(a_chain_can_go_from_file_to_file)
{
    fill_pattern(in, MUCH, 5);
    RUN(past_us, .workers = 1);
}

static int narrow_job(void *arg)
{
    (void)arg;
    struct reeve_io io = { .in = { "x", 1 } };
    for (int i = 0; i < 5; i++)
        CHECK_EQ(reeve_proc_chain(chain_of_cats(), 3, &io, LONG), 0);
    return 0;
}

static int narrow(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    chain_of_cats();
    CHECK_EQ(rv_proc_admit(NULL, REEVE_PROGRAMS_MAX - 4, LONG), 0);
    for (int i = 0; i < 6; i++)
        CHECK_EQ(reeve_go(narrow_job, NULL, .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(rv_proc_admit(NULL, 4, REEVE_POLL), 0); /* every place came back */
    CHECK_EQ(rv_proc_admit(NULL, 1, REEVE_POLL), -ETIMEDOUT);
    rv_proc_dismiss(NULL, REEVE_PROGRAMS_MAX);
    check_no_children();
    return 0;
}

TEST(chains_that_compete_for_the_last_places_do_not_block_each_other)
{
    RUN(narrow, .workers = 2);
}

static int one_permit(void *arg)
{
    (void)arg;
    static struct reeve_sem one;
    CHECK_EQ(reeve_sem_init(&one, 1, 1), 0);
    struct reeve_exec *cats = chain_of_cats();
    cats[0].permits = &one;
    struct reeve_io io = { .in = { "x", 1 }, .out = out, .out_max = 1 };
    for (int i = 0; i < 3; i++)
        CHECK_EQ(reeve_proc_chain(cats, 3, &io, LONG), 0);
    cats[2].argv = ARGV("/no/such");
    CHECK_EQ(reeve_proc_chain(cats, 3, &io, LONG), -ENOENT);
    CHECK_EQ(reeve_sem_wait(&one, REEVE_POLL), 0);
    CHECK_EQ(reeve_proc_chain(cats, 3, &io, reeve_in(REEVE_MS)), -ETIMEDOUT);
    CHECK_EQ(reeve_sem_post(&one), 0);
    CHECK_EQ(reeve_sem_post(&one), -EINVAL); /* it came back once each time */
    return 0;
}

TEST(a_chain_holds_one_permit)
{
    RUN(one_permit, .workers = 1);
}

/* ---- bad days -------------------------------------------------------------------------------- */

static int failing(void *arg)
{
    (void)arg;
    struct reeve_io io = {
        .in = { in, 1 << 20 }, .out = out, .out_max = sizeof out, .err = err, .err_max = sizeof err
    };
    CHECK_EQ(reeve_proc_chain(chain_of_cats(), 2, &io, LONG), 0);
    int fds = count_fds(), n = 1;
    rv_fault_only(NULL);
    for (;; n++) {
        rv_fault_fail_nth((uint64_t)n);
        int r = reeve_proc_chain(chain_of_cats(), 2, &io, LONG);
        bool failed = rv_fault_last_name() != NULL;
        rv_fault_off();
        CHECK(r == 0 || r == -ENOMEM || r == -EAGAIN || r == -EMFILE);
        if (r == 0)
            CHECK_EQ(io.out_len, 1 << 20);
        check_no_children();
        CHECK_EQ(count_fds(), fds);
        if (!failed)
            break;
        CHECK_LT(n, 1000);
    }
    CHECK_GT(n, 8);
    return 0;
}

TEST(whatever_fails_the_run_ends_and_leaves_nothing)
{
    if (!rv_fault_available())
        SKIP("the library is built without fault points");
    RUN(failing, .workers = 1, .offload_max = REEVE_NONE);
}

static struct reeve_sem over;
static int wait_over(void *arg)
{
    (void)arg;
    return reeve_sem_wait(&over, LONG);
}

static int crowded(void *arg)
{
    (void)arg;
    int others = 0;
    reeve_group g = { 0 };
    struct reeve_io io = { .in = { in, MUCH }, .out = out, .out_max = sizeof out };
    while (reeve_go(wait_over, NULL, .group = &g) == 0)
        others++;
    CHECK_EQ(run(ARGV("cat"), &io, LONG), -EAGAIN);
    struct reeve_io small = { .in = { in, 10 } };
    CHECK_EQ(run(ARGV("cat"), &small, LONG), 0);
    while (others-- > 0)
        CHECK_EQ(reeve_sem_post(&over), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    CHECK_EQ(run(ARGV("cat"), &io, LONG), 0);
    return 0;
}

TEST(without_room_for_its_tasks_a_run_says_so_and_leaves_nothing)
{
    RUN(crowded, .workers = 1, .tasks_max = 64);
}

/* Why input is copied into the pipe: the facts of vmsplice, see io/proc_run.c. */
TEST(a_page_that_was_lent_to_a_pipe_is_read_even_after_the_pipe_has_run_empty)
{
    static char page[4096] __attribute__((aligned(4096)));
    int a[2], b[2], left = -1;
    CHECK_EQ(pipe2(a, O_CLOEXEC), 0);
    CHECK_EQ(pipe2(b, O_CLOEXEC), 0);
    memset(page, 'o', sizeof page);
    struct iovec v = { page, sizeof page };
    CHECK_EQ(vmsplice(a[1], &v, 1, 0), sizeof page);
    CHECK_EQ(splice(a[0], NULL, b[1], NULL, sizeof page, 0), sizeof page); /* by the reader */
    CHECK_EQ(ioctl(a[1], FIONREAD, &left), 0);
    CHECK_EQ(left, 0); /* as far as its owner can see, nobody has it any more */
    memset(page, 'n', sizeof page);
    char got[4096];
    CHECK_EQ(read(b[0], got, sizeof got), sizeof got);
    CHECK_EQ(got[0], 'n');
}

struct client {
    unsigned seed;
};

static int client(void *arg)
{
    struct client *c = arg;
    unsigned char *mine = malloc(2 << 16);
    CHECK(mine);
    for (int i = 0; i < 12; i++) {
        size_t len = 1 + (c->seed * 7919u + (unsigned)i * 104729u) % (2 << 16);
        struct reeve_io io = { .in = { in, len }, .out = mine, .out_max = len };
        size_t n = 1 + (size_t)i % 3;
        CHECK_EQ(reeve_proc_chain(chain_of_cats(), n, &io, LONG), 0);
        CHECK_EQ(io.out_len, len);
        CHECK_MEM_EQ(mine, in, len);
    }
    free(mine);
    return 0;
}

static int crowd(void *arg)
{
    (void)arg;
    reeve_group g = { 0 };
    chain_of_cats();
    for (unsigned i = 0; i < 6; i++)
        CHECK_EQ(
            reeve_go(client, &(struct client){ i }, .copy = sizeof(struct client), .group = &g), 0);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    check_no_children();
    return 0;
}

TEST(many_runs_at_once_each_get_their_own_bytes)
{
    fill_pattern(in, MUCH, 11);
    RUN(crowd, .workers = 2);
}
