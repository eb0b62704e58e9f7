/* SPDX-License-Identifier: MIT */
/*
 * sim_proc_test.c -- programs in the simulator: many tasks run real ones, alone and in chains, by
 * bytes and by descriptors, while deadlines pass, tasks are cancelled, operations fail and the pool
 * has no threads.
 *
 * What a program makes of its input is worked out beforehand, so each call's outcome is known: all
 * of that, or its beginning and an error. Afterwards nothing may be left: no child, no descriptor,
 * no permit.
 */
#define CHECK_MAIN
#include "tests/io/sim_seeds.h"

#include <reeve/fd.h>
#include <reeve/reeve.h>
#include <reeve/sync.h>

#include "io/proc.h"
#include "mem/fault.h"
#include "tests/io/programs.h"

#define ACTORS 6
#define CHAIN 4
#define BYTES 24000u  /* so much fits into a pipe, however it is cut into pieces: see sim_real.c */
#define LARGE 150000u /* and this does not */
#define ERRS 64u
#define LATE (30 * REEVE_SEC) /* no operation takes as long, and few follow a deadline */

/* ---- programs, and what they make of their input --------------------------------------------- */

enum what { CAT, HEAD, TRUE, FALSE, SAY, LINE, WHINE, DIE, KINDS };

struct program {
    enum what what;
    uint32_t n; /* of HEAD */
    char number[16];
    const char *argv[6];
};

static const char *const scripts[KINDS] = {
    [SAY] = "printf 'so it is'; exit 3",
    [LINE] = "IFS= read -r x; printf '%s\n' \"$x\"; exit 4",
    [WHINE] = "printf alas >&2; exit 5",
    [DIE] = "kill -9 $$",
};

static void draw_program(struct program *p)
{
    *p = (struct program){ .what = rv_sim_chance(400) ? CAT : (enum what)rv_sim_draw(KINDS) };
    p->n = rv_sim_draw(rv_sim_chance(512) ? 20 : BYTES);
    snprintf(p->number, sizeof p->number, "%u", p->n);
    const char *const plain[][3] = { [CAT] = { "cat" },
                                     [HEAD] = { "head", "-c", p->number },
                                     [TRUE] = { "true" },
                                     [FALSE] = { "false" } };
    const char *const shell[3] = { "/bin/sh", "-c", scripts[p->what] };
    memcpy(p->argv, scripts[p->what] ? shell : plain[p->what], sizeof shell);
}

static int status_of(const struct program *p)
{
    static const int status[KINDS] = { [FALSE] = 1 << 8, [SAY] = 3 << 8, [LINE] = 4 << 8,
                                       [WHINE] = 5 << 8, [DIE] = SIGKILL };
    return status[p->what];
}

/* In place: n bytes of input become so many of output. */
static uint32_t transform(const struct program *p, char *bytes, uint32_t n)
{
    static const char said[] = "so it is";
    switch (p->what) {
    case CAT:
        return n;
    case HEAD:
        return n < p->n ? n : p->n;
    case SAY:
        memcpy(bytes, said, sizeof said - 1);
        return sizeof said - 1;
    case LINE: {
        const char *end = memchr(bytes, '\n', n);
        n = end ? (uint32_t)(end - bytes) : n;
        bytes[n] = '\n';
        return n + 1;
    }
    default:
        return 0;
    }
}

/* ---- the scenario ---------------------------------------------------------------------------- */

enum seen {
    WHOLE,
    CUT,
    TOO_BIG,
    LATE_ONES,
    CANCELLED,
    FAILED,
    KILLED,
    ANSWERED,
    WITHOUT_POOL,
    REFUSED,
    SEEN
};

struct scene {
    bool wild;
    int answer;  /* what one operation answers in place of its result; 0 too: see `loose` */
    bool answers, loose;
    uint32_t fault; /* which of the points of proc.* fails; 0: none does */
    struct reeve_sem permits;
    uint32_t permits_n; /* 0: none are needed */
    int actors;
};

struct actor {
    struct scene *scene;
    int id, jobs;
    bool cancelled;
    char in[LARGE + 1], want[LARGE + 1], got[LARGE + 1], err[ERRS];
};

#define ANSWERS 12
static const int answers[ANSWERS] = { -ECANCELED,  -EINTR, -ENOMEM,  -EAGAIN, 0,    -ECONNRESET,
                                      -EPIPE, -ENOBUFS, -EMFILE, -EIO, -EFAULT, -ENOSPC };

static uint64_t *seen; /* shared with the process that runs the seeds */

static void saw(enum seen what)
{
    seen[what]++;
}

static void draw_input(struct actor *a, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        a->in[i] = (char)(i % 97 == 96 ? '\n' : 'a' + (i * 7 + i / 97 + (uint32_t)a->id) % 26);
}

static reeve_time sometimes_soon(const struct scene *s)
{
    uint32_t most = rv_sim_chance(512) ? 9000 : 9000000;
    return s->wild && rv_sim_chance(300) ? reeve_in(rv_sim_draw(most)) : 0;
}

static struct reeve_sem *permits_of(struct scene *s)
{
    return s->permits_n ? &s->permits : NULL;
}

/* An error that may be: the world's, or one's own. */
static void check_error(const struct actor *a, int r, reeve_time until)
{
    const struct scene *s = a->scene;
    bool answered = s->answers && (r == s->answer || (s->answer == 0 && r == -EIO));
    CHECK_LE(reeve_now(), until ? until + LATE : INT64_MAX);
    if (r == -ETIMEDOUT) {
        CHECK(until != 0 && until <= reeve_now());
        saw(LATE_ONES);
    } else if (r == -ECANCELED) {
        CHECK(a->cancelled || answered);
        saw(CANCELLED);
    } else {
        CHECK(s->wild);
        CHECK(answered || r == -ENOMEM || r == -EAGAIN || r == -EINTR || r == -EMFILE);
        saw(FAILED);
    }
}

/* The beginning of what was to come. Who reads a line may have seen the end of it too early. */
static void check_begins(const struct actor *a, uint32_t want, size_t got, bool line)
{
    if (line && got > 0 && a->got[got - 1] == '\n')
        got--;
    CHECK_LE(got, want);
    CHECK_EQ(memcmp(a->got, a->want, got), 0);
}

/* ---- runs and chains ------------------------------------------------------------------------- */

struct job {
    uint32_t n, in, want, whines;
    bool line;
    struct program program[CHAIN];
    struct reeve_exec exec[CHAIN];
    struct reeve_ended each[CHAIN];
    struct reeve_io io;
};

static void draw_job(struct actor *a, struct job *j)
{
    *j = (struct job){ .n = rv_sim_chance(512) ? 1 : 1 + rv_sim_draw(CHAIN) };
    uint32_t most = j->n == 1 && rv_sim_chance(300) ? LARGE : rv_sim_chance(512) ? 40 : BYTES;
    j->in = rv_sim_chance(100) ? 0 : 1 + rv_sim_draw(most);
    draw_input(a, j->in);
    memcpy(a->want, a->in, j->in);
    j->want = j->in;
    for (uint32_t i = 0; i < j->n; i++) {
        draw_program(&j->program[i]);
        j->exec[i].argv = (char *const *)(uintptr_t)j->program[i].argv;
        j->want = transform(&j->program[i], a->want, j->want);
        j->line |= j->program[i].what == LINE;
        j->whines += j->program[i].what == WHINE;
    }
    j->exec[0].permits = permits_of(a->scene);
    j->io = (struct reeve_io){ .in = { a->in, j->in }, .each = j->each };
    if (!rv_sim_chance(100)) {
        j->io.out = a->got;
        j->io.out_max = rv_sim_chance(400) ? rv_sim_draw(j->want + 1) : sizeof a->got;
    }
    if (rv_sim_chance(400)) {
        j->io.err = a->err;
        j->io.err_max = ERRS;
    }
    j->io.cut = rv_sim_chance(512);
    j->io.grace_ns = rv_sim_chance(300) ? rv_sim_draw(100000) : 0;
}

static void check_whole(const struct actor *a, const struct job *j)
{
    const struct reeve_io *io = &j->io;
    for (uint32_t i = 0; i < j->n; i++) {
        int status = j->each[i].status;
        bool unheard = i + 1 < j->n && WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE;
        CHECK(unheard || status == status_of(&j->program[i]));
    }
    CHECK_EQ(io->status, j->each[j->n - 1].status);
    if (io->out) {
        bool cut = j->want > io->out_max;
        CHECK_EQ(io->out_cut, cut);
        CHECK(!cut || io->cut);
        CHECK_EQ(io->out_len, cut ? io->out_max : j->want);
        CHECK_EQ(memcmp(a->got, a->want, io->out_len), 0);
        saw(cut ? CUT : WHOLE);
    }
    if (io->err)
        CHECK_EQ(io->err_len, 4 * j->whines);
}

static void run_on_bytes(struct actor *a)
{
    struct job j;
    draw_job(a, &j);
    reeve_time until = sometimes_soon(a->scene);
    int r = j.n == 1 && rv_sim_chance(512) ? reeve_proc_run(j.exec, &j.io, until)
                                           : reeve_proc_chain(j.exec, j.n, &j.io, until);
    rv_sim_note(j.io.out_len, r);
    if (j.io.out)
        check_begins(a, j.want, j.io.out_len, j.line && r < 0);
    if (r == 0 && !a->scene->loose) {
        rv_sim_note(j.io.err_len, j.io.status);
        check_whole(a, &j);
    } else if (r == -E2BIG) {
        CHECK(j.io.out && !j.io.cut);
        CHECK_EQ(j.io.out_len, j.io.out_max);
        CHECK_LT(j.io.out_max, j.want);
        saw(TOO_BIG);
    } else if (r != 0) {
        check_error(a, r, until);
    }
}

/* ---- programs that never end ----------------------------------------------------------------- */

static const char *const deaf[] = { "read x <&3", "trap '' TERM; read x <&3; read x <&3" };

static bool was_killed(int status)
{
    return WIFSIGNALED(status) && (WTERMSIG(status) == SIGTERM || WTERMSIG(status) == SIGKILL);
}

static bool make_pipe(struct actor *a, int fds[2])
{
    int r = reeve_pipe(fds, 0);
    if (r < 0)
        check_error(a, r, 0);
    return r >= 0;
}

/* One of a chain hears of nothing, neither what is written to it nor that the others have gone. */
static void run_in_vain(struct actor *a)
{
    int pipe[2];
    if (!make_pipe(a, pipe))
        return;
    uint32_t n = 1 + rv_sim_draw(CHAIN), who = rv_sim_draw(n);
    int fds[] = { -1, -1, -1, pipe[0] };
    char *const *cat = ARGV("cat");
    struct reeve_exec execs[CHAIN];
    for (uint32_t i = 0; i < CHAIN; i++)
        execs[i] = (struct reeve_exec){ .argv = cat };
    execs[who].argv = SH((char *)(uintptr_t)deaf[rv_sim_draw(2)]);
    execs[who].fds = fds;
    execs[who].fds_n = 4;
    execs[0].permits = permits_of(a->scene);
    struct reeve_io io = { .out = a->got, .out_max = 9, .grace_ns = rv_sim_draw(2) * 5000 };
    reeve_time until = reeve_in(rv_sim_draw(2000000));
    int r = reeve_proc_chain(execs, n, &io, until);
    rv_sim_note(io.out_len, r);
    CHECK_EQ(io.out_len, 0);
    CHECK(r < 0);
    check_error(a, r, until);
    CHECK_EQ(reeve_close(pipe[0]), 0);
    CHECK_EQ(reeve_close(pipe[1]), 0);
}

/* ---- started, then waited for, killed, stopped ----------------------------------------------- */

/* It ends, whatever comes. */
static void stop(struct actor *a, reeve_proc *p, bool waited)
{
    struct reeve_ended ended;
    reeve_time until = rv_sim_chance(512) ? REEVE_POLL : reeve_in(rv_sim_draw(50000));
    if (!waited)
        rv_sim_note(0, reeve_proc_wait(p, NULL, REEVE_POLL));
    CHECK_EQ(reeve_proc_stop(p, &ended, until), 0);
    CHECK(was_killed(ended.status));
    rv_sim_note(1, ended.status);
    saw(KILLED);
    (void)a;
}

static void wait_in_vain(struct actor *a, reeve_proc *p, bool ends_by_term)
{
    struct reeve_ended ended;
    reeve_time until = reeve_in(rv_sim_draw(100000));
    int r = reeve_proc_wait(p, &ended, until);
    rv_sim_note(2, r);
    CHECK(r < 0);
    check_error(a, r, until);
    if (ends_by_term && rv_sim_chance(512)) {
        CHECK_EQ(reeve_proc_kill(p, SIGTERM), 0);
        r = reeve_proc_wait(p, &ended, 0);
        if (r == 0) {
            CHECK_EQ(ended.status, SIGTERM);
            CHECK_EQ(reeve_proc_kill(p, SIGTERM), -ESRCH);
            return;
        }
        check_error(a, r, 0);
    }
    stop(a, p, true);
}

static void start_in_vain(struct actor *a)
{
    int pipe[2];
    if (!make_pipe(a, pipe))
        return;
    uint32_t which = rv_sim_draw(2);
    int fds[] = { -1, -1, -1, pipe[0] };
    struct reeve_exec exec = { .argv = SH((char *)(uintptr_t)deaf[which]), .fds = fds, .fds_n = 4,
                               .permits = permits_of(a->scene) };
    reeve_time until = sometimes_soon(a->scene);
    reeve_proc *p;
    int r = reeve_proc_start(&p, &exec, until);
    rv_sim_note(3, r);
    if (r < 0)
        check_error(a, r, until);
    else if (rv_sim_chance(512))
        wait_in_vain(a, p, which == 0);
    else
        stop(a, p, rv_sim_chance(512));
    CHECK_EQ(reeve_close(pipe[0]), 0);
    CHECK_EQ(reeve_close(pipe[1]), 0);
}

/* Reads what it writes up to its end; 0 or why not. */
static int read_all(struct actor *a, int fd, size_t *len)
{
    ssize_t n = 1;
    for (*len = 0; n > 0; *len += n > 0 ? (size_t)n : 0)
        n = reeve_read(fd, a->got + *len, sizeof a->got - *len, 0);
    return (int)n;
}

static void await_one(struct actor *a, reeve_proc *p, const struct program *it, int fd,
                      uint32_t want)
{
    struct reeve_ended ended;
    size_t got;
    int r = read_all(a, fd, &got);
    rv_sim_note(got, r);
    check_begins(a, want, got, false);
    if (r < 0)
        check_error(a, r, 0);
    else if (!a->scene->loose)
        CHECK_EQ(got, want);
    r = reeve_proc_wait(p, &ended, 0);
    if (r < 0) {
        check_error(a, r, 0);
        CHECK_EQ(reeve_proc_stop(p, &ended, REEVE_POLL), 0);
    }
    CHECK(ended.status == status_of(it) || (r < 0 && was_killed(ended.status)));
}

static void start_on_pipes(struct actor *a)
{
    int in[2], out[2];
    struct program it;
    uint32_t n = 1 + rv_sim_draw(3000);
    if (!make_pipe(a, in))
        return;
    if (make_pipe(a, out)) {
        draw_program(&it);
        draw_input(a, n);
        CHECK_EQ(write(in[1], a->in, n), n);
        memcpy(a->want, a->in, n);
        uint32_t want = transform(&it, a->want, n);
        const int fds[] = { in[0], out[1] };
        struct reeve_exec exec = { .argv = (char *const *)(uintptr_t)it.argv, .fds = fds,
                                   .fds_n = 2, .permits = permits_of(a->scene) };
        reeve_time until = sometimes_soon(a->scene);
        reeve_proc *p;
        int r = reeve_proc_start(&p, &exec, until);
        rv_sim_note(4, r);
        CHECK_EQ(reeve_close(out[1]), 0);
        CHECK_EQ(reeve_close(in[1]), 0);
        in[1] = -1;
        if (r == 0)
            await_one(a, p, &it, out[0], want);
        else
            check_error(a, r, until);
        CHECK_EQ(reeve_close(out[0]), 0);
    }
    if (in[1] >= 0)
        CHECK_EQ(reeve_close(in[1]), 0);
    CHECK_EQ(reeve_close(in[0]), 0);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int act(void *arg)
{
    static void (*const jobs[])(struct actor *) = { run_on_bytes, run_on_bytes, run_on_bytes,
                                                    run_in_vain, start_in_vain, start_on_pipes };
    struct actor *a = arg;
    for (int i = 0; i < a->jobs; i++)
        jobs[rv_sim_draw(sizeof jobs / sizeof *jobs)](a);
    return 0;
}

static int root(void *arg)
{
    static struct actor actors[ACTORS];
    struct scene *s = arg;
    reeve_task *t[ACTORS];
    if (s->answers)
        rv_sim_answer(rv_sim_draw(60), s->answer);
    rv_fault_only("proc.");
    rv_fault_fail_nth(s->fault);
    for (int i = 0; i < s->actors; i++) {
        actors[i].scene = s;
        actors[i].id = i;
        actors[i].jobs = 1 + (int)rv_sim_draw(3);
        actors[i].cancelled = false;
        CHECK_EQ(reeve_spawn(&t[i], act, &actors[i]), 0);
    }
    for (uint32_t i = s->wild ? rv_sim_draw(3) : 0; i > 0; i--) {
        CHECK_EQ(reeve_sleep(reeve_in(rv_sim_draw(rv_sim_chance(512) ? 5000 : 5000000))), 0);
        uint32_t which = rv_sim_draw((uint32_t)s->actors);
        actors[which].cancelled = true;
        reeve_cancel(t[which]);
    }
    for (int i = 0; i < s->actors; i++)
        CHECK_EQ(reeve_join(t[i], NULL, 0), 0);
    for (uint32_t i = 0; i < s->permits_n; i++)
        CHECK_EQ(reeve_sem_wait(&s->permits, REEVE_POLL), 0); /* every one is back */
    if (s->answers && rv_sim_answered(NULL))
        saw(ANSWERED);
    if (rv_fault_last_name())
        saw(REFUSED);
    rv_fault_off();
    return 0;
}

static void simulate(bool wild, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    uint64_t x = seeds_mix(opts->seed);
    struct rv_proc_counts before, after;
    struct scene s = { .wild = wild, .actors = 1 + (int)(x % ACTORS),
                       .permits_n = (uint32_t)(x / 8 % 4) };
    CHECK_EQ(reeve_sem_init(&s.permits, s.permits_n, s.permits_n ? s.permits_n : 1), 0);
    opts->fn = root;
    opts->arg = &s;
    opts->faults.shorter = (uint16_t)(x / 64 % 3 * 300);
    if (wild) {
        opts->faults.eintr = x / 256 % 2 ? 10 : 0;
        opts->faults.eagain = x / 512 % 2 ? 10 : 0;
        opts->faults.nomem = x / 1024 % 8 == 0 ? 1000 : x / 1024 % 2 ? 5 : 0; /* no pool, too */
        s.answers = x / 8192 % 2;
        s.answer = answers[x / 16384 % ANSWERS];
        s.loose = s.answers && s.answer == 0;
        s.fault = x / 262144 % 2 ? (uint32_t)(x / 524288 % 20) : 0;
    }
    rv_proc_counts(&before);
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
    rv_proc_counts(&after);
    CHECK_EQ(after.started, after.ended);
    if (after.started > before.started && after.pooled == before.pooled)
        saw(WITHOUT_POOL);
}

/* Twice, since a run depends on its seed alone. */
static void run_twice(bool wild, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    struct rv_sim_result before;
    int fds = count_fds();
    simulate(wild, opts, &before);
    simulate(wild, opts, ret);
    CHECK_EQ(ret->events, before.events);
    CHECK_EQ(ret->hash, before.hash);
    CHECK_EQ(ret->virtual_ns, before.virtual_ns);
    check_no_children();
    CHECK_EQ(count_fds(), fds);
}

static void run_quiet(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    run_twice(false, opts, ret);
}

static void run_wild(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    run_twice(true, opts, ret);
}

static void all_seeds(uint64_t n, seeds_run *run, const enum seen *wanted)
{
    struct rv_sim_result sum;
    seen = mmap(NULL, SEEN * sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                0);
    CHECK(seen != MAP_FAILED);
    seeds_all(n, run, &sum);
    bool all = SEEDS_SHARE == 1 && !getenv("REEVE_SIM_SEED") && !getenv("REEVE_SIM_SEEDS");
    for (; all && *wanted != SEEN; wanted++)
        CHECK(seen[*wanted] > 0 || (*wanted == REFUSED && !rv_fault_available()));
}

TEST(programs_do_what_they_are_for_in_any_order)
{
    static const enum seen wanted[] = { WHOLE, CUT, TOO_BIG, LATE_ONES, KILLED, SEEN };
    all_seeds(12, run_quiet, wanted);
}

TEST(programs_leave_nothing_whatever_goes_wrong)
{
    static const enum seen wanted[] = { WHOLE,  CUT,    TOO_BIG,  LATE_ONES,    CANCELLED,
                                        FAILED, KILLED, ANSWERED, WITHOUT_POOL, REFUSED, SEEN };
    all_seeds(40, run_wild, wanted);
}

/* ---- every operation, every answer ----------------------------------------------------------- */

/* One operation of what fn does answers something else; which, is told in *row. */
struct row {
    void (*fn)(struct actor *a);
    struct scene scene;
    unsigned skip;
    bool met;
};

static int answer_one(void *arg)
{
    static struct actor a;
    struct row *row = arg;
    a.scene = &row->scene;
    a.id = 1;
    rv_sim_answer(row->skip, row->scene.answer);
    row->fn(&a);
    row->met = rv_sim_answered(NULL);
    return 0;
}

static void walk(void (*fn)(struct actor *a))
{
    int fds = count_fds();
    for (size_t i = 0; i < ANSWERS; i += SEEDS_SHARE > 2 ? 3 : 1) {
        struct row row = { .fn = fn, .met = true };
        row.scene = (struct scene){ .wild = true, .answers = true, .answer = answers[i],
                                    .loose = answers[i] == 0 };
        for (; row.met; row.skip++) {
            struct rv_sim_opts opts = { .seed = 1 + row.skip, .workers = 1, .fn = answer_one,
                                        .arg = &row };
            struct rv_sim_result result;
            seeds_simulate(&opts, &result);
            check_no_children();
        }
        CHECK_GT(row.skip, 2);
        CHECK_EQ(count_fds(), fds);
    }
}

static void run_cats(struct actor *a, size_t n)
{
    const struct reeve_exec cats[] = { { .argv = ARGV("cat") }, { .argv = ARGV("cat") } };
    uint32_t bytes = n == 1 ? LARGE / 2 : BYTES;
    struct reeve_io io = { .in = { a->in, bytes }, .out = a->got, .out_max = sizeof a->got,
                           .err = a->err, .err_max = ERRS };
    draw_input(a, bytes);
    memcpy(a->want, a->in, bytes);
    int r = reeve_proc_chain(cats, n, &io, 0);
    check_begins(a, bytes, io.out_len, false);
    if (r < 0)
        check_error(a, r, 0);
    else if (!a->scene->loose)
        CHECK_EQ(io.out_len, bytes);
}

static void run_a_cat(struct actor *a)
{
    run_cats(a, 1);
}

static void run_two_cats(struct actor *a)
{
    run_cats(a, 2);
}

static void stop_a_deaf_one(struct actor *a)
{
    int pipe[2];
    reeve_proc *p;
    struct reeve_ended ended;
    if (!make_pipe(a, pipe))
        return;
    int fds[] = { -1, -1, -1, pipe[0] };
    struct reeve_exec exec = { .argv = SH((char *)(uintptr_t)deaf[1]), .fds = fds, .fds_n = 4 };
    CHECK_EQ(reeve_proc_start(&p, &exec, 0), 0);
    reeve_time until = reeve_in(REEVE_MS);
    int r = reeve_proc_wait(p, &ended, until);
    CHECK(r < 0);
    check_error(a, r, until);
    CHECK_EQ(reeve_proc_stop(p, &ended, reeve_in(REEVE_MS)), 0);
    CHECK_EQ(ended.status, SIGKILL);
    CHECK_EQ(reeve_close(pipe[0]), 0);
    CHECK_EQ(reeve_close(pipe[1]), 0);
}

TEST(a_run_has_an_end_whatever_its_operations_answer)
{
    seen = (uint64_t[SEEN]){ 0 };
    walk(run_a_cat);
}

TEST(a_chain_has_an_end_whatever_its_operations_answer)
{
    seen = (uint64_t[SEEN]){ 0 };
    walk(run_two_cats);
}

TEST(a_program_can_be_stopped_whatever_its_operations_answer)
{
    seen = (uint64_t[SEEN]){ 0 };
    walk(stop_a_deaf_one);
}

/* It reads nothing, writes nothing and does not end: so the run's operations are one write, one
 * read and one wait. */
static int run_a_deaf_one(void *arg)
{
    static struct actor a;
    int pipe[2];
    CHECK_OK(reeve_pipe(pipe, 0));
    int fds[] = { -1, -1, -1, pipe[0] };
    struct reeve_exec exec = { .argv = SH((char *)(uintptr_t)deaf[1]), .fds = fds, .fds_n = 4 };
    struct reeve_io io = { .in = { a.in, LARGE }, .out = a.got, .out_max = LARGE };
    rv_sim_answer(*(unsigned *)arg, -EIO);
    CHECK_EQ(reeve_proc_run(&exec, &io, 0), -EIO);
    CHECK(rv_sim_answered(NULL));
    CHECK_EQ(reeve_close(pipe[0]), 0);
    return reeve_close(pipe[1]);
}

TEST(an_operation_that_fails_ends_the_run)
{
    for (unsigned skip = 0; skip < 3; skip++) {
        struct rv_sim_opts opts = { .seed = 1, .workers = 1, .fn = run_a_deaf_one, .arg = &skip };
        struct rv_sim_result result;
        seeds_simulate(&opts, &result);
        CHECK_EQ(result.result, 0);
        check_no_children();
    }
}

/* ---- what the simulator relies on ------------------------------------------------------------ */

static struct rv_proc_counts at_the_call;

static void count_at_call(void *ctx, const struct rv_sim_event *e)
{
    (void)ctx;
    if (e->kind == RV_SIM_CALL && e->worker == UINT32_MAX && e->result == 0)
        rv_proc_counts(&at_the_call);
}

static int start_one(void *arg)
{
    reeve_proc *p;
    CHECK_EQ(reeve_proc_start(&p, &(struct reeve_exec){ .argv = ARGV("true") }, 0), 0);
    memcpy(arg, &at_the_call, sizeof at_the_call);
    return reeve_proc_wait(p, NULL, 0);
}

TEST(a_program_that_the_pool_started_is_known_before_its_task_hears_of_it)
{
    struct rv_proc_counts counts = { 0 };
    struct rv_sim_opts opts = { .seed = 1, .workers = 1, .fn = start_one, .arg = &counts,
                                .trace = count_at_call };
    struct rv_sim_result result;
    seeds_simulate(&opts, &result);
    CHECK_EQ(result.result, 0);
    CHECK_EQ(counts.started, 1);
    CHECK_EQ(counts.ended, 0);
}
