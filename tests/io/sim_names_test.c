/* SPDX-License-Identifier: MIT */
/*
 * sim_names_test.c -- names in the simulator: many tasks ask for few names while answers grow old,
 * lookups fail, the pool has no threads, deadlines pass and tasks are cancelled; and dial them,
 * where some of a name's addresses refuse and some never answer.
 *
 * Each lookup is a new answer that says whose it is and the how manieth. So who gets one can tell
 * whether it was his to have, and whether it was still true; and each lookup can tell whether it
 * was needed.
 */
#define CHECK_MAIN
#include "tests/io/sim_seeds.h"

#include <reeve/net.h>
#include <reeve/offload.h>
#include <reeve/reeve.h>

#include "io/sim_world.h"
#include "sched/sched.h"
#include "tests/io/names.h"

#define HOSTS 12
#define ADDRS 4
#define ACTORS 10
#define ASKS 12
#define ANSWERS 512
#define POOL_LATE (3 * REEVE_SEC) /* no call of the pool takes as long */
#define LATE (1 * REEVE_SEC)      /* a wait without an operation ends that late at most */
#define DIAL_LATE (20 * REEVE_SEC) /* one with a few operations */
#define PORT 7000

enum kind { OPEN, REFUSES, DEAF, KINDS };

/* What a name means, drawn anew for each run. */
struct host {
    int64_t ttl_ns; /* < 0: it does not tell */
    int error;      /* 0: it has addresses */
    uint32_t answers;
    struct {
        int64_t at; /* when it was given */
        int error;
    } answer[ANSWERS];
    int addrs; /* to dial; 0: the answer says its number */
    struct {
        bool v6;
        enum kind kind;
    } addr[ADDRS];
};

static struct scene {
    bool wild, gives_up;
    bool faults;     /* of a wild run; without them tasks are cancelled, and no more */
    int hosts, actors;
    uint32_t most;   /* lookups at a time */
    bool all_known;  /* no name is forgotten before its time */
    int answer;      /* what one operation answers in place of its result; 0: none does */
    uint64_t lookups;
    struct rv_resolver *r;
    struct host host[HOSTS];
} scene;

struct actor {
    int asks;
    bool cancelled;
};

enum seen { KNOWN, ASKED, REFUSED, LATE_ONES, CANCELLED, NO_POOL, OLD, WON, LOST, SEEN };
static uint64_t *seen; /* shared with the process that runs the seeds */

static void saw(enum seen what)
{
    seen[what]++;
}

static int64_t sim_now(void)
{
    return rv_sched_now(rv_sim_sched());
}

/* ---- lookups --------------------------------------------------------------------------------- */

static int add_one(void *arg)
{
    return ++*(int *)arg;
}

static int64_t lifetime(const struct host *h, int error)
{
    if (error < 0)
        return scene.r->negative_ns;
    return h->ttl_ns < 0 ? scene.r->ttl_ns : h->ttl_ns;
}

/* The pool's calls that are lookups: never more than it may have, and none twice. */
static void check_pool(void)
{
    const struct rv_offload *o = rv_sim_sched()->offload;
    const struct rv_offload_job *job[64];
    uint32_t n = 0;
    for (uint32_t i = 0; i < RV_SIM_CALLS; i++)
        if (rv_sim_world->calls[i].job && rv_sim_world->calls[i].job->fn != add_one)
            job[n++] = rv_sim_world->calls[i].job;
    const struct rv_offload_job *j = o->first;
    for (bool more = j != NULL; more && n < 64; j = j->next, more = j != o->first)
        if (j->fn != add_one)
            job[n++] = j;
    CHECK_LE(n, scene.most);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < i; k++)
            CHECK_NE(job[i], job[k]);
}

static void add_host(struct rv_names *names, bool v6, int host, uint32_t number)
{
    char text[64];
    snprintf(text, sizeof text, v6 ? "fd00::%x:%x" : "10.%u.0.%u", (unsigned)host, number);
    if (!v6 && number > 255)
        snprintf(text, sizeof text, "10.%d.%u.%u", host, number / 256, number % 256);
    add_address(names, text);
}

/* A rv_lookup_fn. */
static int lookup(const char *name, struct rv_names *ret)
{
    int i = atoi(name + 1);
    CHECK_LT(i, scene.hosts);
    struct host *h = &scene.host[i];
    uint32_t n = h->answers++;
    CHECK_LT(n, ANSWERS);
    scene.lookups++;
    check_pool();
    if (n > 0 && scene.all_known && h->answer[n - 1].error != -ENOMEM)
        CHECK_GE(sim_now(), h->answer[n - 1].at + lifetime(h, h->answer[n - 1].error));
    h->answer[n].at = sim_now();
    h->answer[n].error = h->error && rv_sim_chance(800) ? h->error : 0;
    rv_sim_note((uint64_t)i, h->answer[n].error);
    for (int k = 0; k < h->addrs; k++)
        add_host(ret, h->addr[k].v6, i, (uint32_t)k);
    if (h->addrs == 0)
        add_host(ret, n % 2, i, n);
    if (h->ttl_ns >= 0)
        ret->ttl_ns = h->ttl_ns;
    return h->answer[n].error;
}

static void draw_names(void)
{
    static const int64_t ttl[] = { -1, 0, REEVE_MS, 5 * REEVE_SEC, 60 * REEVE_SEC };
    static const int errors[] = { -ENOENT, -EAGAIN, -EREMOTEIO, -ENOMEM };
    struct rv_resolver *r = my_io()->io->resolver;
    scene.r = r;
    r->lookup = lookup;
    r->now = sim_now;
    r->ttl_ns = 10 * REEVE_SEC;
    r->negative_ns = rv_sim_chance(512) ? 2 * REEVE_SEC : 5 * REEVE_MS;
    r->asked_max = rv_sim_draw(6);
    r->known_max = rv_sim_chance(512) ? HOSTS : rv_sim_draw(4);
    scene.most = r->asked_max ? r->asked_max : 1; /* half of a pool of RV_SIM_CALLS */
    scene.all_known = r->known_max >= HOSTS;
    for (int i = 0; i < scene.hosts; i++) {
        scene.host[i].ttl_ns = ttl[rv_sim_draw(5)];
        scene.host[i].error = rv_sim_chance(300) ? errors[rv_sim_draw(4)] : 0;
    }
}

static void check_resolver(void)
{
    struct rv_resolver *r = scene.r;
    rv_lock_acquire(&r->lock);
    CHECK_LE(r->known, r->known_max);
    CHECK_LE(r->asked, scene.most);
    rv_lock_release(&r->lock);
    check_pool();
}

/* ---- tasks that ask -------------------------------------------------------------------------- */

/* An answer that was given to nobody else's question, and was true when it was asked for. */
static void check_answer(int i, const struct rv_names *names, int64_t asked_at)
{
    const struct host *h = &scene.host[i];
    const unsigned char *b = names->host[0].bytes;
    bool v6 = names->host[0].family == AF_INET6;
    uint32_t n = v6 ? (uint32_t)b[14] << 8 | b[15] : (uint32_t)b[2] << 8 | b[3];
    CHECK_EQ(names->n, 1);
    CHECK_EQ(v6 ? b[13] : b[1], i);
    CHECK_EQ(v6, n % 2);
    CHECK_LT(n, h->answers);
    CHECK_EQ(h->answer[n].error, 0);
    CHECK_LT(asked_at, h->answer[n].at + lifetime(h, 0) + POOL_LATE);
    saw(asked_at > h->answer[n].at ? KNOWN : ASKED);
    if (n > 0)
        saw(OLD);
}

static void check_refusal(const struct actor *a, int i, int error, int64_t asked_at,
                          reeve_time until)
{
    const struct host *h = &scene.host[i];
    if (error == -ETIMEDOUT) {
        CHECK(until != 0 && sim_now() >= until);
        saw(LATE_ONES);
    } else if (error == -ECANCELED) {
        CHECK(a->cancelled);
        saw(CANCELLED);
    } else {
        bool found = false;
        for (uint32_t n = 0; n < h->answers && !found; n++)
            found = h->answer[n].error == error &&
                    asked_at < h->answer[n].at + lifetime(h, error) + POOL_LATE;
        CHECK(found || (scene.wild && (error == -ENOMEM || error == -EAGAIN)));
        saw(found ? REFUSED : NO_POOL);
    }
}

static void pause_some(void)
{
    static const uint32_t most[] = { 1000, 1000000, 50000000, 3000000000u };
    (void)reeve_sleep(reeve_in(rv_sim_draw(most[rv_sim_draw(4)])));
}

static int ask(void *arg)
{
    struct actor *a = arg;
    for (int n = 0; n < a->asks; n++) {
        struct rv_names names;
        char name[16];
        int i = (int)rv_sim_draw((uint32_t)scene.hosts);
        snprintf(name, sizeof name, "h%d.test", i);
        int64_t asked_at = sim_now();
        reeve_time until = rv_sim_chance(300) ? reeve_in(rv_sim_draw(200000)) : 0;
        if (rv_sim_chance(100))
            until = REEVE_POLL;
        int r = resolve(name, &names, until);
        rv_sim_note((uint64_t)i, r);
        if (until > 0)
            CHECK_LE(sim_now(), until + LATE);
        if (r == 0)
            check_answer(i, &names, asked_at);
        else
            check_refusal(a, i, r, asked_at, until);
        check_resolver();
        pause_some();
    }
    return 0;
}

/* Calls of others get through, whatever becomes of the lookups. */
static int call(void *arg)
{
    int done = 0;
    for (int n = 0; n < ASKS; n++) {
        int before = done, r = reeve_offload(add_one, &done, 0);
        if (r > 0)
            CHECK_EQ(done, before + 1);
        else
            CHECK(scene.wild && (r == -ENOMEM || r == -EAGAIN));
        pause_some();
    }
    (void)arg;
    return 0;
}

static void await_quiet(void)
{
    struct rv_resolver *r = scene.r;
    for (bool quiet = false; !quiet;) {
        CHECK_EQ(reeve_sleep(reeve_in(REEVE_MS)), 0);
        rv_lock_acquire(&r->lock);
        quiet = r->asked == 0 && !r->line_first;
        rv_lock_release(&r->lock);
    }
    check_resolver();
    CHECK_GE(rv_load_relaxed(&r->lookups), scene.lookups);
    if (!scene.wild)
        CHECK_EQ(rv_load_relaxed(&r->lookups), scene.lookups);
}

/* A while, or a few turns of the others: between two of those no time need pass. */
static void pause_or_yield(void)
{
    if (rv_sim_chance(512)) {
        pause_some();
        return;
    }
    for (uint32_t n = rv_sim_draw(100); n > 0; n--)
        (void)reeve_sleep(0);
}

/* Runs the actors; in a wild run some are cancelled. */
static void run_actors(reeve_fn *fn, struct actor *actor)
{
    reeve_task *t[ACTORS];
    for (int i = 0; i < scene.actors; i++) {
        actor[i] = (struct actor){ .asks = 1 + (int)rv_sim_draw(ASKS) };
        CHECK_EQ(reeve_spawn(&t[i], fn, &actor[i]), 0);
    }
    for (uint32_t n = scene.wild ? rv_sim_draw(4) : 0; n > 0; n--) {
        pause_or_yield();
        uint32_t which = rv_sim_draw((uint32_t)scene.actors);
        actor[which].cancelled = true;
        reeve_cancel(t[which]);
    }
    for (int i = 0; i < scene.actors; i++)
        CHECK_EQ(reeve_join(t[i], NULL, 0), 0);
}

static int asking_root(void *arg)
{
    static struct actor actor[ACTORS];
    reeve_task *caller;
    draw_names();
    CHECK_EQ(reeve_spawn(&caller, call, arg), 0);
    run_actors(ask, actor);
    CHECK_EQ(reeve_join(caller, NULL, 0), 0);
    if (!scene.gives_up) /* else lookups that nobody waits for are under way at the end */
        await_quiet();
    return 0;
}

/* ---- tasks that dial ------------------------------------------------------------------------- */

static void write_addr(char *text, size_t len, bool v6, int host, int number)
{
    snprintf(text, len, v6 ? "[fd00::%x:%x]:%d" : "10.%u.0.%u:%d", (unsigned)host,
             (unsigned)number, PORT);
}

struct door {
    int listener, host, number, full[2];
    bool closing;
    reeve_task *porter; /* NULL: nobody comes to open */
};

/* Says to each who comes where he is. */
static int porter(void *arg)
{
    const struct door *d = arg;
    const unsigned char sign[2] = { (unsigned char)d->host, (unsigned char)d->number };
    for (;;) {
        int fd = reeve_accept(d->listener, 0);
        if (fd == -ECANCELED && d->closing)
            return 0;
        if (fd < 0) {
            CHECK(scene.wild);
            continue;
        }
        (void)reeve_write(fd, sign, sizeof sign, 0); /* who lost the race is gone by now */
        CHECK_EQ(reeve_close(fd), 0);
    }
}

static void open_door(struct door *d, bool v6, bool deaf)
{
    char addr[64];
    write_addr(addr, sizeof addr, v6, d->host, d->number);
    while ((d->listener = reeve_listen(addr, deaf ? 1 : 1 + (int)rv_sim_draw(4))) < 0)
        CHECK(scene.wild);
    if (!deaf)
        CHECK_EQ(reeve_spawn(&d->porter, porter, d), 0);
    for (int i = 0; i < 2 && deaf; i++) /* there is no room for a third */
        while ((d->full[i] = reeve_dial(addr, 0)) < 0)
            CHECK(scene.wild);
}

static void close_door(struct door *d)
{
    d->closing = true;
    if (d->porter) {
        reeve_cancel(d->porter);
        CHECK_EQ(reeve_join(d->porter, NULL, 0), 0);
    } else {
        CHECK_EQ(reeve_close(d->full[0]), 0);
        CHECK_EQ(reeve_close(d->full[1]), 0);
    }
    CHECK_EQ(reeve_close(d->listener), 0);
}

static bool has(const struct host *h, enum kind kind)
{
    for (int k = 0; k < h->addrs; k++)
        if (h->addr[k].kind == kind)
            return true;
    return false;
}

/* It is one of the name's addresses that answers, and one that does so. */
static void check_connection(int i, int fd)
{
    const struct host *h = &scene.host[i];
    unsigned char sign[2];
    ssize_t n = 0, r = 1;
    while (n < 2 && r > 0) {
        r = reeve_read(fd, sign + n, sizeof sign - (size_t)n, 0);
        n += r > 0 ? r : 0;
    }
    CHECK(n == 2 || scene.wild);
    if (n == 2) {
        CHECK_EQ(sign[0], i);
        CHECK_LT(sign[1], h->addrs);
        CHECK_EQ(h->addr[sign[1]].kind, OPEN);
        if (sign[1] > 0)
            saw(WON);
    }
    CHECK_EQ(reeve_close(fd), 0);
}

static void check_failure(const struct actor *a, int i, int error, reeve_time until)
{
    const struct host *h = &scene.host[i];
    if (until > 0)
        CHECK_LE(sim_now(), until + DIAL_LATE);
    if (error == -ETIMEDOUT && until != 0 && sim_now() >= until) {
        saw(LATE_ONES);
    } else if (error == -ECANCELED) {
        CHECK(a->cancelled || scene.answer == error);
        saw(CANCELLED);
    } else if (!scene.wild) {
        bool none = h->error != 0;
        CHECK(none ? error == h->error || (error == -ECONNREFUSED && !has(h, OPEN))
                   : error == -ECONNREFUSED);
        CHECK(none || (!has(h, OPEN) && !has(h, DEAF)));
        saw(LOST);
    } else if (!scene.faults) {
        CHECK(error == -ECONNREFUSED || error == h->error);
    }
}

static int dial(void *arg)
{
    struct actor *a = arg;
    for (int n = 0; n < a->asks; n++) {
        char addr[32];
        int i = (int)rv_sim_draw((uint32_t)scene.hosts);
        const struct host *h = &scene.host[i];
        bool hangs = has(h, DEAF) && (scene.wild || !has(h, OPEN));
        snprintf(addr, sizeof addr, "h%d.test:%d", i, PORT);
        reeve_time until = hangs || rv_sim_chance(200) ? reeve_in(rv_sim_draw(2000000000)) : 0;
        int fd = reeve_dial(addr, until);
        rv_sim_note((uint64_t)i, fd < 0 ? fd : 0);
        if (fd >= 0)
            check_connection(i, fd);
        else
            check_failure(a, i, fd, until);
        check_resolver();
        pause_some();
    }
    return 0;
}

static int dialling_root(void *arg)
{
    static struct actor actor[ACTORS];
    static struct door door[HOSTS * ADDRS];
    uint32_t doors = 0;
    (void)arg;
    draw_names();
    for (int i = 0; i < scene.hosts; i++) {
        struct host *h = &scene.host[i];
        h->addrs = 1 + (int)rv_sim_draw(ADDRS);
        for (int k = 0; k < h->addrs; k++) {
            h->addr[k].v6 = rv_sim_chance(512);
            h->addr[k].kind = (enum kind)rv_sim_draw(KINDS);
            if (h->addr[k].kind == REFUSES)
                continue;
            door[doors] = (struct door){ .host = i, .number = k };
            open_door(&door[doors++], h->addr[k].v6, h->addr[k].kind == DEAF);
        }
    }
    if (scene.answer)
        rv_sim_answer(rv_sim_draw(100), scene.answer);
    run_actors(dial, actor);
    await_quiet();
    while (doors > 0)
        close_door(&door[--doors]);
    return 0;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static void simulate(reeve_fn *fn, bool wild, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    static const int answers[] = { -ECANCELED, -EINTR, -ENOMEM, -EAGAIN, -ECONNRESET, -EPIPE,
                                   -ENOBUFS,   -EMFILE, -EIO,   -EFAULT, -ENOSPC };
    uint64_t x = seeds_mix(opts->seed);
    int hosts = fn == asking_root ? HOSTS : HOSTS / 2;
    scene = (struct scene){ .wild = wild, .faults = wild && x / 131072 % 3,
                            .gives_up = x % 4 == 0,
                            .hosts = 1 + (int)(x / 4 % (uint64_t)hosts),
                            .actors = 1 + (int)(x / 64 % ACTORS) };
    opts->fn = fn;
    opts->fds_max = 1024;
    if (scene.faults) {
        opts->faults.nomem = x / 1024 % 4 == 0 ? 500 : x / 1024 % 2 ? 5 : 0;
        opts->faults.eintr = opts->faults.eagain = x / 4096 % 2 ? 10 : 0;
        opts->faults.refuse = opts->faults.abort = x / 8192 % 2 ? 50 : 0;
        opts->faults.reset = opts->faults.mfile = x / 16384 % 2 ? 10 : 0;
        if (x / 32768 % 2)
            scene.answer = answers[x / 65536 % (sizeof answers / sizeof *answers)];
    }
    seeds_simulate(opts, ret);
    CHECK_EQ(ret->result, 0);
}

/* Twice, since a run depends on its seed alone. */
static void run_twice(reeve_fn *fn, bool wild, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    struct rv_sim_result before;
    simulate(fn, wild, opts, &before);
    simulate(fn, wild, opts, ret);
    CHECK_EQ(ret->events, before.events);
    CHECK_EQ(ret->hash, before.hash);
    CHECK_EQ(ret->virtual_ns, before.virtual_ns);
}

static void ask_quietly(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    run_twice(asking_root, false, opts, ret);
}

static void ask_wildly(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    run_twice(asking_root, true, opts, ret);
}

static void dial_quietly(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    run_twice(dialling_root, false, opts, ret);
}

static void dial_wildly(uint64_t seed, struct rv_sim_opts *opts, struct rv_sim_result *ret)
{
    (void)seed;
    run_twice(dialling_root, true, opts, ret);
}

/* All seeds, which together see what they are for. */
static void under_seeds(uint64_t n, seeds_run *run, const enum seen *wanted)
{
    struct rv_sim_result sum;
    seen = mmap(NULL, SEEN * sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                0);
    CHECK(seen != MAP_FAILED);
    bool all = seeds_all(n, run, &sum);
    for (; all && *wanted != SEEN; wanted++)
        CHECK_GT(seen[*wanted], 0);
}

TEST(who_asks_for_a_name_gets_that_names_answer_while_it_is_true)
{
    static const enum seen wanted[] = { KNOWN, ASKED, REFUSED, LATE_ONES, OLD, SEEN };
    under_seeds(200, ask_quietly, wanted);
}

TEST(nothing_that_goes_wrong_with_lookups_outlasts_who_asked)
{
    static const enum seen wanted[] = { KNOWN,     ASKED,   REFUSED, LATE_ONES, OLD,
                                        CANCELLED, NO_POOL, SEEN };
    under_seeds(300, ask_wildly, wanted);
}

TEST(a_name_is_dialled_where_somebody_answers)
{
    static const enum seen wanted[] = { WON, LOST, LATE_ONES, SEEN };
    under_seeds(200, dial_quietly, wanted);
}

TEST(a_dialled_name_leaves_nothing_whatever_goes_wrong)
{
    static const enum seen wanted[] = { WON, LATE_ONES, CANCELLED, SEEN };
    under_seeds(200, dial_wildly, wanted);
}
