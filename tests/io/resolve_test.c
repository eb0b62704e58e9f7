/* SPDX-License-Identifier: MIT */
/*
 * resolve_test.c -- names: looked up once for all, remembered for a while, and never waited for
 * longer than who asks can wait.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "io/sim.h"
#include "mem/fault.h"
#include "tests/io/names.h"

#define SOON reeve_in(3 * REEVE_MS)

static uint64_t count(RV_ATOMIC(uint64_t) *counter)
{
    return rv_load_relaxed(counter);
}

/* Names that are known and not in use. */
static uint32_t known_now(struct rv_resolver *r)
{
    rv_lock_acquire(&r->lock);
    uint32_t n = r->known;
    rv_lock_release(&r->lock);
    return n;
}

/* Lets others run until nobody is asked any more. */
static void await_idle(struct rv_resolver *r)
{
    for (bool idle = false; !idle;) {
        CHECK_OK(reeve_sleep(0));
        rv_lock_acquire(&r->lock);
        idle = r->asked == 0 && !r->line_first;
        rv_lock_release(&r->lock);
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

static struct rv_names names_of(const char *const *text)
{
    struct rv_names names;
    rv_names_init(&names);
    while (*text)
        add_address(&names, *text++);
    return names;
}

static const char *text_of(const struct rv_host *host)
{
    static char text[INET6_ADDRSTRLEN];
    return inet_ntop(host->family, host->bytes, text, sizeof text);
}

static void check_order(const char *const *given, const char *const *wanted)
{
    struct rv_names names = names_of(given);
    for (uint32_t i = 0; i < names.n; i++) {
        CHECK(wanted[i]);
        CHECK_STR_EQ(text_of(&names.host[i]), wanted[i]);
    }
    CHECK(!wanted[names.n]);
}

TEST(the_families_take_turns_beginning_with_the_preferred_one)
{
    check_order((const char *const[]){ "::1", "::2", "::3", "1.0.0.1", "1.0.0.2", NULL },
                (const char *const[]){ "::1", "1.0.0.1", "::2", "1.0.0.2", "::3", NULL });
    check_order((const char *const[]){ "1.0.0.1", "1.0.0.2", "1.0.0.3", "::1", NULL },
                (const char *const[]){ "1.0.0.1", "::1", "1.0.0.2", "1.0.0.3", NULL });
    check_order((const char *const[]){ "1.0.0.1", "::1", "1.0.0.2", NULL },
                (const char *const[]){ "1.0.0.1", "::1", "1.0.0.2", NULL });
    check_order((const char *const[]){ "::1", NULL }, (const char *const[]){ "::1", NULL });
    check_order((const char *const[]){ NULL }, (const char *const[]){ NULL });
}

/* The k-th of the first one's family at 2 k, of the other at 2 k + 1, gaps closed, the first 16. */
TEST(of_very_many_addresses_those_that_would_be_tried_first_are_kept)
{
    uint32_t random = 1;
    for (int round = 0; round < 2000; round++) {
        struct rv_names names;
        unsigned char wanted[200] = { 0 };
        uint32_t n = round % 100, seen[2] = { 0 }, first = 0, at = 0;
        rv_names_init(&names);
        for (uint32_t i = 0; i < n; i++) {
            random = random * 1103515245u + 12345;
            bool v6 = random >> 16 & 1;
            struct sockaddr_in in = { .sin_family = AF_INET };
            struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
            in.sin_addr.s_addr = htonl(i + 1);
            in6.sin6_addr.s6_addr[3] = (unsigned char)(i + 1);
            rv_names_add(&names, v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in);
            first = i == 0 ? v6 : first;
            bool other = v6 != first;
            wanted[2 * seen[other]++ + other] = (unsigned char)(i + 1);
        }
        CHECK_EQ(names.n, n < RV_NAMES_MAX ? n : RV_NAMES_MAX);
        for (uint32_t i = 0; i < names.n; i++, at++) {
            while (!wanted[at])
                at++;
            CHECK_EQ(names.host[i].bytes[3], wanted[at]);
            CHECK_EQ(names.host[i].family, (at & 1) != first ? AF_INET6 : AF_INET);
        }
    }
}

TEST(an_address_of_another_kind_is_left_out)
{
    struct rv_names names;
    rv_names_init(&names);
    rv_names_add(&names, &(struct sockaddr){ .sa_family = AF_UNIX });
    CHECK_EQ(names.n, 0);
}

TEST(an_address_goes_to_the_kernel_with_its_port_and_its_scope)
{
    struct rv_names names;
    struct sockaddr_storage to;
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_scope_id = 7 };
    rv_names_init(&names);
    inet_pton(AF_INET6, "fe80::1", &in6.sin6_addr);
    rv_names_add(&names, (struct sockaddr *)&in6);
    add_address(&names, "127.1.2.3");
    CHECK_EQ(rv_host_sockaddr(&names.host[0], 443, &to), sizeof in6);
    in6.sin6_port = htons(443);
    CHECK_MEM_EQ(&to, &in6, sizeof in6);
    CHECK_EQ(rv_host_sockaddr(&names.host[1], 80, &to), sizeof(struct sockaddr_in));
    const struct sockaddr_in *in = (struct sockaddr_in *)&to;
    CHECK_EQ(in->sin_family, AF_INET);
    CHECK_EQ(ntohs(in->sin_port), 80);
    CHECK_EQ(ntohl(in->sin_addr.s_addr), 0x7f010203);
}

TEST(what_getaddrinfo_complains_of_has_a_number)
{
    CHECK_EQ(rv_lookup_error(EAI_NONAME, 0), -ENOENT);
    CHECK_EQ(rv_lookup_error(EAI_NODATA, 0), -ENOENT);
    CHECK_EQ(rv_lookup_error(EAI_AGAIN, 0), -EAGAIN);
    CHECK_EQ(rv_lookup_error(EAI_FAIL, 0), -EREMOTEIO);
    CHECK_EQ(rv_lookup_error(EAI_MEMORY, 0), -ENOMEM);
    CHECK_EQ(rv_lookup_error(EAI_SYSTEM, EMFILE), -EMFILE);
    CHECK_EQ(rv_lookup_error(EAI_SYSTEM, 0), -EREMOTEIO);
    CHECK_EQ(rv_lookup_error(EAI_BADFLAGS, 0), -EINVAL);
    for (int eai = -300; eai < 0; eai++)
        CHECK_LT(rv_lookup_error(eai, 0), 0);
}

TEST(the_hosts_own_lookup_finds_numbers_without_a_name_server)
{
    struct rv_names names;
    rv_names_init(&names);
    CHECK_EQ(rv_lookup_libc("127.0.0.7", &names), 0);
    CHECK_EQ(names.n, 1);
    CHECK_STR_EQ(text_of(&names.host[0]), "127.0.0.7");
    CHECK_LT(names.ttl_ns, 0);
    rv_names_init(&names);
    CHECK_EQ(rv_lookup_libc("::1", &names), 0);
    CHECK_STR_EQ(text_of(&names.host[0]), "::1");
}

/* ---- the cache ------------------------------------------------------------------------------- */

static int known(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct rv_names names;
    PLAY(.host = "two.test", .addr = { "::1", "127.0.0.2" });
    for (int i = 0; i < 3; i++) {
        memset(&names, 0xee, sizeof names);
        CHECK_EQ(resolve("two.test", &names, LONG), 0);
        CHECK_EQ(names.n, 2);
        CHECK_STR_EQ(text_of(&names.host[1]), "127.0.0.2");
    }
    CHECK_EQ(resolve("other.test", &names, LONG), 0);
    CHECK_STR_EQ(text_of(&names.host[0]), "127.0.0.1");
    CHECK_EQ(rv_load_relaxed(&play.calls), 2);
    CHECK_EQ(count(&r->lookups), 2);
    CHECK_EQ(count(&r->hits), 2);
    return 0;
}

TEST(a_name_is_looked_up_once_and_then_known)
{
    RUN(known, .workers = 1);
}

static int expires(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct rv_names names;
    static const struct {
        const char *host;
        int64_t life_ns;
        int result;
    } one[] = {
        { "silent.test", 30 * REEVE_SEC, 0 },       { "brief.test", 5 * REEVE_SEC, 0 },
        { "eternal.test", 300 * REEVE_SEC, 0 },     { "none.test", 1 * REEVE_SEC, -ENOENT },
        { "nobody.test", 1 * REEVE_SEC, -EAGAIN },  { "failed.test", 1 * REEVE_SEC, -EREMOTEIO },
        { "nomem.test", 0, -ENOMEM },               { "fleeting.test", 0, 0 },
    };
    PLAY(.host = "silent.test", .addr = { "::1" });
    PLAY(.host = "brief.test", .addr = { "::1" }, .ttl_ns = 5 * REEVE_SEC);
    PLAY(.host = "eternal.test", .addr = { "::1" }, .ttl_ns = 9999 * REEVE_SEC);
    PLAY(.host = "none.test", .error = -ENOENT);
    PLAY(.host = "nobody.test", .error = -EAGAIN);
    PLAY(.host = "failed.test", .error = -EREMOTEIO);
    PLAY(.host = "nomem.test", .error = -ENOMEM);
    PLAY(.host = "fleeting.test", .addr = { "::1" }, .ttl_ns = -1);
    r->now = played_now;
    for (unsigned i = 0; i < sizeof one / sizeof *one; i++) {
        uint32_t calls = rv_load_relaxed(&play.calls);
        CHECK_EQ(resolve(one[i].host, &names, LONG), one[i].result);
        if (one[i].life_ns) {
            rv_add_relaxed(&play.now_ns, one[i].life_ns - 1);
            CHECK_EQ(resolve(one[i].host, &names, LONG), one[i].result);
            rv_add_relaxed(&play.now_ns, 1);
        }
        CHECK_EQ(rv_load_relaxed(&play.calls), calls + 1);
        CHECK_EQ(resolve(one[i].host, &names, LONG), one[i].result);
        CHECK_EQ(rv_load_relaxed(&play.calls), calls + 2);
    }
    return 0;
}

TEST(an_answer_is_forgotten_when_its_time_is_over)
{
    RUN(expires, .workers = 1);
}

static int bounded(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct rv_names names;
    char host[32];
    r->known_max = 4;
    for (int i = 0; i < 20; i++) {
        snprintf(host, sizeof host, "h%d.test", i);
        CHECK_EQ(resolve(host, &names, LONG), 0);
        CHECK_EQ(resolve("h0.test", &names, LONG), 0); /* always the latest but one */
        CHECK_LE(known_now(r), 4);
    }
    CHECK_EQ(count(&r->lookups), 20);
    CHECK_EQ(resolve("h19.test", &names, LONG), 0);
    CHECK_EQ(resolve("h17.test", &names, LONG), 0);
    CHECK_EQ(count(&r->lookups), 20);
    CHECK_EQ(resolve("h16.test", &names, LONG), 0);
    CHECK_EQ(count(&r->lookups), 21);
    return 0;
}

TEST(the_cache_is_bounded_and_drops_what_was_not_used_for_longest)
{
    RUN(bounded, .workers = 1);
    RUN(bounded, .workers = 2);
}

static int polls(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct rv_names names;
    CHECK_EQ(resolve("a.test", &names, REEVE_POLL), -ETIMEDOUT);
    CHECK_EQ(count(&r->lookups), 0);
    CHECK_EQ(resolve("a.test", &names, LONG), 0);
    CHECK_EQ(resolve("a.test", &names, REEVE_POLL), 0);
    return 0;
}

TEST(a_deadline_that_has_passed_still_gets_what_is_known)
{
    RUN(polls, .workers = 1);
}

/* ---- sharing --------------------------------------------------------------------------------- */

enum { CROWD = 1000 };

struct asker {
    const char *host;
    reeve_time until;
    int result;
    struct rv_names names;
};

static int ask_it(void *arg)
{
    struct asker *a = arg;
    a->result = resolve(a->host, &a->names, a->until);
    return 0;
}

static int shares(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct played *p = PLAY(.host = "slow.test", .gated = true, .addr = { "::1" });
    struct asker *a = calloc(CROWD, sizeof *a);
    struct reeve_group g = { 0 };
    CHECK(a);
    for (int i = 0; i < CROWD; i++) {
        a[i] = (struct asker){ .host = "slow.test" };
        CHECK_EQ(reeve_spawn(NULL, ask_it, &a[i], .group = &g), 0);
    }
    await_inside(p, 1);
    await_count(&r->shared, CROWD - 1);
    set_gate(true);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < CROWD; i++) {
        CHECK_EQ(a[i].result, 0);
        CHECK_EQ(a[i].names.n, 1);
    }
    CHECK_EQ(rv_load_relaxed(&play.calls), 1);
    CHECK_EQ(count(&r->lookups), 1);
    set_gate(false);
    rv_store_relaxed(&play.calls, 0u);
    play.n = 0;
    free(a);
    return 0;
}

TEST(a_thousand_tasks_share_one_lookup)
{
    RUN(shares, .workers = 1);
    RUN(shares, .workers = 2);
}

static int shares_failure(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct played *p = PLAY(.host = "slow.test", .gated = true, .error = -ENOMEM);
    struct asker a[20];
    struct reeve_group g = { 0 };
    for (int i = 0; i < 20; i++) {
        a[i] = (struct asker){ .host = "slow.test" };
        memset(&a[i].names, 0xee, sizeof a[i].names);
        CHECK_EQ(reeve_spawn(NULL, ask_it, &a[i], .group = &g), 0);
    }
    await_inside(p, 1);
    await_count(&r->shared, 19);
    set_gate(true);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(a[i].result, -ENOMEM);
        CHECK_EQ(a[i].names.n, 0xeeeeeeee); /* untouched */
    }
    CHECK_EQ(rv_load_relaxed(&p->calls), 1);
    CHECK_EQ(known_now(r), 0);
    return 0;
}

TEST(a_failure_is_for_all_who_waited_for_it)
{
    RUN(shares_failure, .workers = 2);
}

/* ---- deadlines and cancellation -------------------------------------------------------------- */

static int hangs(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct played *p = PLAY(.host = "slow.test", .gated = true, .addr = { "::1" });
    struct asker patient = { .host = "slow.test" }, late = { .host = "slow.test" },
                 cancelled = { .host = "slow.test" };
    reeve_task *t[3];
    CHECK_EQ(reeve_spawn(&t[0], ask_it, &patient), 0);
    await_inside(p, 1);
    CHECK_EQ(reeve_spawn(&t[1], ask_it, &cancelled), 0);
    await_count(&r->shared, 1);
    late.until = SOON;
    CHECK_EQ(reeve_spawn(&t[2], ask_it, &late), 0);
    CHECK_EQ(reeve_join(t[2], NULL, LONG), 0);
    CHECK_EQ(late.result, -ETIMEDOUT);
    reeve_cancel(t[1]);
    CHECK_EQ(reeve_join(t[1], NULL, LONG), 0);
    CHECK_EQ(cancelled.result, -ECANCELED);
    await_inside(p, 1); /* it hangs still */
    set_gate(true);
    CHECK_EQ(reeve_join(t[0], NULL, LONG), 0);
    CHECK_EQ(patient.result, 0);
    CHECK_EQ(rv_load_relaxed(&p->calls), 1);
    return 0;
}

TEST(a_lookup_that_hangs_holds_each_only_to_his_own_deadline)
{
    RUN(hangs, .workers = 1);
    play.n = 0;
    set_gate(false);
    RUN(hangs, .workers = 2);
}

static int abandons(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct rv_names names;
    struct played *p = PLAY(.host = "slow.test", .gated = true, .addr = { "::1" });
    CHECK_EQ(resolve("slow.test", &names, SOON), -ETIMEDOUT);
    CHECK_EQ(resolve("slow.test", &names, SOON), -ETIMEDOUT); /* joins it, and leaves it */
    set_gate(true);
    CHECK_EQ(resolve("slow.test", &names, LONG), 0);
    CHECK_EQ(rv_load_relaxed(&p->calls), 1);
    CHECK_EQ(count(&r->lookups), 1);
    return 0;
}

TEST(what_an_abandoned_lookup_comes_to_is_known)
{
    RUN(abandons, .workers = 1);
}

static int one_at_a_time(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct rv_names names;
    struct played *slow = PLAY(.host = "slow.test", .gated = true, .addr = { "::1" });
    struct played *never = PLAY(.host = "never.test", .addr = { "::1" });
    struct played *later = PLAY(.host = "later.test", .addr = { "::2" });
    struct asker first = { .host = "slow.test" }, third = { .host = "later.test" };
    reeve_task *t[2];
    r->asked_max = 1;
    CHECK_EQ(reeve_spawn(&t[0], ask_it, &first), 0);
    await_inside(slow, 1);
    CHECK_EQ(reeve_spawn(&t[1], ask_it, &third), 0);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(resolve("never.test", &names, SOON), -ETIMEDOUT);
    CHECK_EQ(rv_load_relaxed(&later->calls), 0); /* it stands in line */
    set_gate(true);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
    CHECK_EQ(first.result, 0);
    CHECK_EQ(third.result, 0);
    CHECK_EQ(rv_load_relaxed(&never->calls), 0);
    CHECK_EQ(count(&r->lookups), 2);
    CHECK_EQ(known_now(r), 2);
    return 0;
}

TEST(a_lookup_that_everybody_left_before_it_began_is_never_made)
{
    RUN(one_at_a_time, .workers = 1);
    play.n = 0;
    set_gate(false);
    RUN(one_at_a_time, .workers = 2);
}

static int half(void *arg)
{
    return *(int *)arg;
}

static int leaves_half(void *arg)
{
    (void)arg;
    playing();
    struct played *p[4];
    struct asker a[4];
    static const char *const host[] = { "a.test", "b.test", "c.test", "d.test" };
    struct reeve_group g = { 0 };
    int answer = 42;
    for (int i = 0; i < 4; i++)
        p[i] = PLAY(.host = host[i], .gated = true, .addr = { "::1" });
    for (int i = 0; i < 4; i++) {
        a[i] = (struct asker){ .host = host[i] };
        CHECK_EQ(reeve_spawn(NULL, ask_it, &a[i], .group = &g), 0);
        CHECK_EQ(reeve_sleep(0), 0);
    }
    while (rv_load_relaxed(&play.calls) < 2)
        CHECK_EQ(reeve_sleep(0), 0);
    CHECK_EQ(reeve_offload(half, &answer, LONG), 42); /* two of four threads hang, and no more */
    CHECK_EQ(rv_load_relaxed(&play.calls), 2);
    set_gate(true);
    CHECK_EQ(reeve_group_wait(&g, LONG), 0);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(a[i].result, 0);
        CHECK_EQ(rv_load_relaxed(&p[i]->calls), 1);
    }
    return 0;
}

TEST(lookups_that_hang_leave_half_of_the_pool_to_others)
{
    RUN(leaves_half, .workers = 1, .offload_max = 4);
}

static RV_ATOMIC(bool) begun;

static int ask_when_cancelled(void *arg)
{
    struct asker *a = arg;
    rv_store_release(&begun, true);
    while (reeve_sleep(0) == 0)
        ;
    return ask_it(a);
}

static int already_cancelled(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct asker a = { .host = "a.test" };
    reeve_task *t;
    CHECK_EQ(reeve_spawn(&t, ask_when_cancelled, &a), 0);
    while (!rv_load_acquire(&begun)) /* who is cancelled before never begins */
        CHECK_EQ(reeve_sleep(0), 0);
    reeve_cancel(t);
    CHECK_EQ(reeve_join(t, NULL, LONG), 0);
    CHECK_EQ(a.result, -ECANCELED);
    CHECK_EQ(count(&r->lookups), 0);
    return 0;
}

TEST(a_task_that_is_cancelled_already_asks_nobody)
{
    RUN(already_cancelled, .workers = 1);
}

/* ---- no pool, no thread, no memory ----------------------------------------------------------- */

static int no_pool(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct rv_names names;
    CHECK_EQ(resolve("a.test", &names, LONG), -ENOTSUP);
    CHECK_EQ(resolve("a.test", &names, LONG), -ENOTSUP);
    CHECK_EQ(rv_load_relaxed(&play.calls), 0);
    await_idle(r);
    CHECK_EQ(known_now(r), 0);
    return 0;
}

TEST(without_a_pool_nobody_can_be_asked)
{
    RUN(no_pool, .workers = 1, .offload_max = REEVE_NONE);
}

static int no_thread(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct rv_names names;
    rv_fault_only("offload.thread");
    for (int i = 0; i < 3; i++) {
        rv_fault_fail_nth(1);
        CHECK_EQ(resolve("a.test", &names, LONG), -EAGAIN);
        CHECK(rv_fault_last_name());
        CHECK_EQ(known_now(r), 0);
    }
    rv_fault_off();
    CHECK_EQ(resolve("a.test", &names, LONG), 0);
    CHECK_EQ(rv_load_relaxed(&play.calls), 1);
    return 0;
}

TEST(a_pool_that_cannot_make_a_thread_is_no_answer_and_is_not_remembered)
{
    if (!rv_fault_available())
        SKIP("this build has no fault points");
    RUN(no_thread, .workers = 1);
}

static int no_memory(void *arg)
{
    (void)arg;
    struct rv_resolver *r = playing();
    struct rv_names names;
    rv_fault_only("alloc");
    rv_fault_fail_nth(1);
    CHECK_EQ(resolve("a.test", &names, LONG), -ENOMEM);
    rv_fault_off();
    CHECK_EQ(count(&r->lookups), 0);
    CHECK_EQ(resolve("a.test", &names, LONG), 0);
    return 0;
}

TEST(without_memory_a_lookup_says_so)
{
    if (!rv_fault_available())
        SKIP("this build has no fault points");
    RUN(no_memory, .workers = 1);
}

static void *open_later(void *arg)
{
    (void)arg;
    while (rv_load_relaxed(&play.now_ns) == 0)
        sched_yield();
    set_gate(true);
    return NULL;
}

static int ends_first(void *arg)
{
    (void)arg;
    playing();
    struct rv_names names;
    PLAY(.host = "slow.test", .gated = true, .addr = { "::1" });
    CHECK_EQ(resolve("slow.test", &names, SOON), -ETIMEDOUT);
    rv_store_relaxed(&play.now_ns, INT64_C(1));
    return 0;
}

TEST(a_runtime_may_end_before_a_lookup_that_was_abandoned)
{
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, open_later, NULL), 0);
    RUN(ends_first, .workers = 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

static int dial_in_sim(void *arg)
{
    (void)arg;
    playing();
    PLAY(.host = "nobody.test", .error = -ENOENT);
    CHECK_EQ(reeve_dial("nobody.test:80", 0), -ENOENT);
    return reeve_dial("somebody.test:80", 0); /* 127.0.0.1, where nobody listens */
}

TEST(a_simulation_looks_names_up_in_its_own_pool)
{
    struct rv_sim_opts opts = { .seed = 1, .fn = dial_in_sim };
    struct rv_sim_result result;
    CHECK_EQ(rv_sim_run(&opts, &result), 0);
    CHECK_EQ(result.result, -ECONNREFUSED);
    CHECK_EQ(result.leaks.fds, 0);
}

/* ---- everything at once ---------------------------------------------------------------------- */

enum { ASKERS = 24, HOSTS = 6 };
#define BUSY_NS (600 * REEVE_MS)

static RV_ATOMIC(uint64_t) told[3]; /* answers, deadlines, cancellations */
static RV_ATOMIC(bool) enough;      /* of each */

/* Answers, refusals and failures, at once or after a moment, by the name and the turn. */
static int moody_lookup(const char *host, struct rv_names *ret)
{
    uint32_t turn = rv_add_relaxed(&play.calls, 1u) * 2654435761u + (unsigned char)host[0];
    for (uint32_t i = 0; i < (turn >> 8) % 64; i++)
        sched_yield();
    static const int error[] = { 0, 0, 0, -ENOENT, -ENOMEM, -EAGAIN };
    int r = error[(turn >> 20) % 6];
    if (r == 0)
        add_address(ret, "127.0.0.1");
    ret->ttl_ns = (turn >> 24) % 2 ? -1 : 0;
    return r;
}

static int asks_on(void *arg)
{
    struct asker *a = arg;
    uint32_t random = (uint32_t)(uintptr_t)a->host;
    char host[] = "?.test";
    while (!rv_load_relaxed(&enough)) {
        random = random * 1103515245u + 12345;
        host[0] = (char)('a' + (random >> 16) % HOSTS);
        int64_t wait = (random >> 20) % 4 ? 20 * REEVE_SEC : (random >> 8) % 100000;
        int r = resolve(host, &a->names, reeve_in(wait));
        if (r == 0)
            CHECK_EQ(a->names.n, 1);
        else
            CHECK(r == -ENOENT || r == -ENOMEM || r == -EAGAIN || r == -ETIMEDOUT ||
                  r == -ECANCELED);
        rv_add_relaxed(&told[r == -ETIMEDOUT ? 1 : r == -ECANCELED ? 2 : 0], 1u);
        if (r == -ECANCELED)
            return 0;
    }
    return 0;
}

static int busy(void *arg)
{
    (void)arg;
    struct rv_resolver *r = my_io()->io->resolver;
    r->lookup = moody_lookup;
    r->ttl_ns = r->negative_ns = 50 * REEVE_US;
    r->known_max = 3;
    reeve_time end = reeve_in(BUSY_NS);
    static struct asker a[ASKERS];
    reeve_task *t[ASKERS];
    rv_store_relaxed(&enough, false);
    for (int i = 0; i < ASKERS; i++) {
        a[i] = (struct asker){ .host = (char *)(uintptr_t)(i + 1) };
        CHECK_EQ(reeve_spawn(&t[i], asks_on, &a[i]), 0);
    }
    for (uint32_t i = 0; reeve_now() < end || !count(&told[0]) || !count(&told[1]) ||
                         !count(&told[2]);
         i = (i + 1) % ASKERS) {
        CHECK_EQ(reeve_sleep(reeve_in(100 * REEVE_US)), 0);
        reeve_cancel(t[i]);
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
        CHECK_EQ(reeve_spawn(&t[i], asks_on, &a[i]), 0);
        CHECK_LE(known_now(r), 3);
    }
    rv_store_relaxed(&enough, true);
    for (int i = 0; i < ASKERS; i++)
        CHECK_EQ(reeve_join(t[i], NULL, LONG), 0);
    await_idle(r);
    CHECK_LE(known_now(r), 3);
    return 0;
}

TEST(answers_deadlines_and_cancellations_race_without_losing_anybody)
{
    RUN(busy, .workers = 2, .offload_max = 6);
    for (int i = 0; i < 3; i++)
        CHECK_GT(count(&told[i]), 0);
}

/* ---- c-ares ---------------------------------------------------------------------------------- */

#ifdef RV_CARES
struct server {
    int fd;
    unsigned char rcode;
    bool silent;
};

/* Appends a record that answers the question, by a pointer to its name. */
static size_t put_record(unsigned char *at, unsigned type, uint32_t ttl, const void *data,
                         unsigned len)
{
    unsigned char head[] = { 0xc0, 12, 0, (unsigned char)type, 0, 1,
                             0, 0, 0, (unsigned char)ttl, 0, (unsigned char)len };
    memcpy(at, head, sizeof head);
    memcpy(at + sizeof head, data, len);
    return sizeof head + len;
}

/* A name server that says the same of every name: 127.0.0.9 for 20 s, ::9 for 10 s. */
static void *serve_names(void *arg)
{
    struct server *s = arg;
    unsigned char packet[600], v6[16] = { [15] = 9 };
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    ssize_t n;
    while ((n = recvfrom(s->fd, packet, 512, 0, (struct sockaddr *)&from, &from_len)) > 12) {
        size_t end = 12;
        while (packet[end])
            end += packet[end] + 1u;
        unsigned type = packet[end + 2];
        end += 5;
        packet[2] = 0x81;
        packet[3] = (unsigned char)(0x80 | s->rcode);
        memset(packet + 6, 0, 6);
        packet[7] = s->rcode == 0;
        if (s->rcode == 0 && type == 1)
            end += put_record(packet + end, 1, 20, "\x7f\0\0\x09", 4);
        else if (s->rcode == 0)
            end += put_record(packet + end, 28, 10, v6, 16);
        if (!s->silent)
            sendto(s->fd, packet, end, 0, (struct sockaddr *)&from, from_len);
    }
    return NULL;
}

static int ask_server(struct server *s, struct rv_names *names)
{
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof in;
    pthread_t thread;
    char servers[40];
    s->fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_EQ(bind(s->fd, (struct sockaddr *)&in, len), 0);
    CHECK_EQ(getsockname(s->fd, (struct sockaddr *)&in, &len), 0);
    CHECK_EQ(pthread_create(&thread, NULL, serve_names, s), 0);
    snprintf(servers, sizeof servers, "127.0.0.1:%u", ntohs(in.sin_port));
    rv_names_init(names);
    int r = rv_lookup_cares_from(servers, "example.test", names);
    CHECK_EQ(sendto(s->fd, "", 1, 0, (struct sockaddr *)&in, len), 1); /* the end */
    pthread_join(thread, NULL);
    close(s->fd);
    return r;
}
#endif

TEST(c_ares_brings_both_families_and_says_how_long_that_is_true)
{
#ifndef RV_CARES
    SKIP("this build does without c-ares");
#else
    struct rv_names names;
    CHECK_EQ(ask_server(&(struct server){ .rcode = 0 }, &names), 0);
    CHECK_EQ(names.n, 2);
    CHECK_NE(names.host[0].family, names.host[1].family);
    CHECK_EQ(names.ttl_ns, 10 * REEVE_SEC); /* the shorter one */
#endif
}

TEST(c_ares_says_what_is_wrong)
{
#ifndef RV_CARES
    SKIP("this build does without c-ares");
#else
    struct rv_names names;
    CHECK_EQ(ask_server(&(struct server){ .rcode = 3 }, &names), -ENOENT);
    CHECK_EQ(ask_server(&(struct server){ .rcode = 2 }, &names), -EAGAIN);
    CHECK_EQ(ask_server(&(struct server){ .silent = true }, &names), -EAGAIN);
    CHECK_EQ(rv_lookup_cares_from("127.0.0.1:1", "example.test", &names), -EAGAIN);
#endif
}
