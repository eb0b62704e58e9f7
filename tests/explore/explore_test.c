/* SPDX-License-Identifier: MIT */
/*
 * explore_test.c -- the explorer itself: textbook programs whose outcomes are known.
 *
 * A model that must hold is explored to the end; one that must not is found at the number of
 * preemptions and delays that it needs, and not before.
 */
#include "tests/explore/explore_main.h"

#include "mem/rv_atomic.h"
#include "mem/die.h"

static struct {
    RV_ATOMIC(uint32_t) x, y, turn;
    RV_ATOMIC(uint8_t) small;
    uint32_t got[3];
    uint32_t word;
} m;

static struct explore_result found(struct explore model)
{
    struct explore_result r;
    model.expect_failure = true;
#if defined(RV_TSAN)
    SKIP("one thread runs them all: there is nothing for ThreadSanitizer to see");
#endif
    explore_run(&model, &r);
    CHECK(r.failed);
    return r;
}

static struct explore_result holds(struct explore model)
{
    struct explore_result r;
#if defined(RV_TSAN)
    SKIP("one thread runs them all: there is nothing for ThreadSanitizer to see");
#endif
    explore_run(&model, &r);
    CHECK(!r.failed);
    CHECK(r.complete);
    return r;
}

/* ---- a lost update ---- */

static void add_one_badly(void *arg)
{
    (void)arg;
    rv_store_relaxed(&m.x, rv_load_relaxed(&m.x) + 1);
}

static void add_one(void *arg)
{
    (void)arg;
    rv_add_relaxed(&m.x, 1u);
}

static void x_is_two(void)
{
    RV_MUST(rv_load_relaxed(&m.x) == 2);
}

TEST(a_lost_update_needs_one_preemption)
{
    struct explore model = { .name = "two badly",
                             .threads = { { "a", add_one_badly, NULL },
                                          { "b", add_one_badly, NULL } },
                             .finish = x_is_two };
    holds(model);
    model.preemptions = 2;
    struct explore_result r = found(model);
    CHECK_EQ(r.preemptions, 1);
    CHECK(strstr(r.why, "at the end: "));
}

TEST(an_atomic_update_is_not_lost)
{
    holds((struct explore){ .name = "two",
                            .threads = { { "a", add_one, NULL }, { "b", add_one, NULL } },
                            .finish = x_is_two,
                            .preemptions = 3 });
}

static void touch_three_times(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++)
        rv_add_relaxed(&m.x, 1u);
}

TEST(every_order_is_tried_once)
{
    struct explore model = { .name = "three each",
                             .threads = { { "a", touch_three_times, NULL },
                                          { "b", touch_three_times, NULL } } };
    /* Without preemptions: one after the other. The first execution learns that the word is shared
     * and is made again. */
    CHECK_EQ(holds(model).executions, 1 + 2);
    model.preemptions = 6;
    struct explore_result r = holds(model);
    /* Two times three accesses can be mixed in 20 ways. With 2, 3, 4, 5, 6 turns: 2, 4, 8, 4, 2;
     * the last turn costs no preemption, as the other thread is done. Each round repeats the
     * former. */
    CHECK_EQ(r.executions, 1 + 2 + 6 + 14 + 18 + 20 + 20 + 20);
}

/* ---- store buffers ---- */

static void dekker_one(void *fence)
{
    rv_store_relaxed(&m.x, 1u);
    if (fence)
        rv_fence_seqcst();
    m.got[0] = rv_load_relaxed(&m.y);
}

static void dekker_other(void *fence)
{
    rv_store_relaxed(&m.y, 1u);
    if (fence)
        rv_fence_seqcst();
    m.got[1] = rv_load_relaxed(&m.x);
}

static void one_saw_the_other(void)
{
    RV_MUST(m.got[0] == 1 || m.got[1] == 1);
}

static struct explore dekker(void *one, void *other)
{
    return (struct explore){ .name = "Dekker",
                             .threads = { { "one", dekker_one, one },
                                          { "other", dekker_other, other } },
                             .finish = one_saw_the_other,
                             .preemptions = 2,
                             .delays = 1 };
}

TEST(a_missing_fence_is_found_with_store_buffers)
{
    struct explore_result r = found(dekker(NULL, &m));
    CHECK_EQ(r.preemptions, 0);
    CHECK_EQ(r.delays, 1);
    found(dekker(&m, NULL));
    found(dekker(NULL, NULL));
    holds(dekker(&m, &m));
}

TEST(without_store_buffers_it_is_not)
{
    struct explore model = dekker(NULL, NULL);
    model.delays = 0;
    holds(model);
}

static void publish(void *arg)
{
    (void)arg;
    rv_store_relaxed(&m.x, 1u);
    rv_store_relaxed(&m.y, 1u);
    m.got[2] = rv_load_relaxed(&m.turn);
}

static void read_backwards(void *arg)
{
    (void)arg;
    m.got[0] = rv_load_relaxed(&m.y);
    m.got[1] = rv_load_relaxed(&m.x);
    rv_store_relaxed(&m.turn, 1u);
}

static void in_order(void)
{
    RV_MUST(!(m.got[0] == 1 && m.got[1] == 0));
}

TEST(stores_become_visible_in_their_order)
{
    holds((struct explore){ .name = "message",
                            .threads = { { "writer", publish, NULL },
                                         { "reader", read_backwards, NULL } },
                            .finish = in_order,
                            .preemptions = 3,
                            .delays = 2 });
}

static void read_own(void *arg)
{
    (void)arg;
    rv_store_relaxed(&m.small, 7);
    RV_MUST(rv_load_relaxed(&m.small) == 7);
    rv_store_relaxed(&m.small, 8);
    RV_MUST(rv_load_relaxed(&m.small) == 8);
    RV_MUST(rv_add_relaxed(&m.small, 250) == 8);
    RV_MUST(rv_load_relaxed(&m.small) == 2); /* 258 in eight bits */
}

static void watch(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++)
        m.got[1] += rv_load_relaxed(&m.small);
}

TEST(a_thread_sees_its_own_stores_at_once)
{
    holds((struct explore){ .name = "own",
                            .threads = { { "writer", read_own, NULL }, { "reader", watch, NULL } },
                            .preemptions = 3,
                            .delays = 2 });
}

/* ---- waiting ---- */

static void spin_for_x(void *arg)
{
    (void)arg;
    while (rv_load_acquire(&m.x) == 0)
        rv_cpu_relax();
}

static void set_x(void *arg)
{
    (void)arg;
    rv_store_release(&m.y, 1u);
    rv_store_release(&m.x, 1u);
}

TEST(who_spins_lets_the_others_run)
{
    holds((struct explore){ .name = "spin",
                            .threads = { { "spinner", spin_for_x, NULL },
                                         { "setter", set_x, NULL },
                                         { "spinner 2", spin_for_x, NULL } },
                            .preemptions = 2,
                            .delays = 1 });
}

TEST(spinning_for_what_never_comes_is_found)
{
    struct explore_result r = found((struct explore){
        .name = "spin for ever", .threads = { { "spinner", spin_for_x, NULL } } });
    CHECK(strstr(r.why, "all threads wait: spinner (spins, after "));
}

static void turn_for_ever(void *arg)
{
    (void)arg;
    for (;;)
        rv_add_relaxed(&m.x, 1u);
}

TEST(an_execution_that_does_not_end_is_found)
{
    struct explore_result r = found((struct explore){
        .name = "for ever", .threads = { { "turner", turn_for_ever, NULL } }, .steps_max = 100 });
    CHECK(strstr(r.why, "does not end"));
}

/* The sleeper looks, then sleeps; the waker sets, then wakes: word and look are two things. */
static void sleep_badly(void *arg)
{
    (void)arg;
    if (rv_load_acquire(&m.x) == 0)
        explore_wait(&m.word, 0, INT64_MAX, "the word");
}

static void sleep_well(void *arg)
{
    (void)arg;
    while (rv_load_acquire(&m.x) == 0)
        explore_wait(&m.x, 0, INT64_MAX, "x");
}

static void wake_word(void *arg)
{
    (void)arg;
    rv_store_release(&m.x, 1u);
    explore_wake(&m.word, 1);
}

static void wake_x(void *arg)
{
    (void)arg;
    rv_store_release(&m.x, 1u);
    explore_wake(&m.x, 1);
}

TEST(a_lost_wake_up_is_found_and_names_who_waits)
{
    struct explore_result r =
        found((struct explore){ .name = "lost",
                                .threads = { { "sleeper", sleep_badly, NULL },
                                             { "waker", wake_word, NULL } },
                                .preemptions = 2 });
    CHECK_EQ(r.preemptions, 1);
    CHECK(strstr(r.why, "sleeper (the word, after the word)"));
    holds((struct explore){
        .name = "not lost",
        .threads = { { "sleeper", sleep_well, NULL }, { "waker", wake_x, NULL } },
        .preemptions = 3,
        .delays = 1 });
}

static void sleep_a_while(void *arg)
{
    int64_t until = explore_now() + (int64_t)(intptr_t)arg;
    m.got[0] += explore_wait(&m.word, 0, until, "a while");
    RV_MUST(m.got[0] || explore_now() >= until);
}

static void woken_or_late(void)
{
    RV_MUST(m.got[0] <= 1);
}

static void never_woken(void)
{
    RV_MUST(m.got[0] == 0);
}

static void wake_without_word(void *arg)
{
    (void)arg;
    explore_wake(&m.word, 1);
    rv_store_relaxed(&m.x, 1u);
}

TEST(time_comes_when_all_sleep_or_for_a_preemption)
{
    struct explore model = { .name = "sleep",
                             .threads = { { "a", sleep_a_while, (void *)(intptr_t)10 },
                                          { "b", sleep_a_while, (void *)(intptr_t)20 },
                                          { "waker", wake_without_word, NULL } },
                             .finish = woken_or_late,
                             .preemptions = 2 };
    holds(model);
    model.finish = never_woken;
    found(model);
}

static void choose(void *arg)
{
    (void)arg;
    m.got[0] = explore_choose(3);
    m.got[1] = explore_choose(3);
}

static void not_two_and_one(void)
{
    RV_MUST(m.got[0] != 2 || m.got[1] != 1);
}

TEST(every_choice_is_tried)
{
    struct explore model = { .name = "choices", .threads = { { "one", choose, NULL } } };
    CHECK_EQ(holds(model).executions, 9);
    model.finish = not_two_and_one;
    CHECK_EQ(found(model).executions, 8);
}

/* ---- replay and chance ---- */

TEST(a_found_execution_is_made_again_from_its_schedule)
{
    struct explore model = dekker(NULL, &m);
    struct explore_result first = found(model), again;
    explore_replay = first.schedule;
    again = found(model);
    explore_replay = NULL;
    CHECK_STR_EQ(again.why, first.why);
    CHECK_STR_EQ(again.schedule, first.schedule);
    CHECK_EQ(again.steps, first.steps);
}

TEST(random_executions_find_it_too_and_can_be_made_again)
{
    struct explore model = dekker(NULL, NULL);
    explore_random = "1";
    struct explore_result first = found(model);
    explore_random = NULL;
    explore_replay = first.schedule;
    struct explore_result again = found(model);
    CHECK_STR_EQ(again.why, first.why);
}

/* ---- what is left out ---- */

enum { PROGRAM_THREADS = 3, PROGRAM_STEPS = 3, PROGRAM_WORDS = 3 };

/* A random program: in each step a thread does something to a word, and keeps what it saw. */
static struct {
    uint8_t what[PROGRAM_THREADS][PROGRAM_STEPS], word[PROGRAM_THREADS][PROGRAM_STEPS];
    RV_ATOMIC(uint32_t) words[PROGRAM_WORDS];
    uint64_t saw[PROGRAM_THREADS];
} program;

static uint32_t program_rng = 1;

static uint32_t random_below(uint32_t n)
{
    program_rng = program_rng * 1664525u + 1013904223u;
    return (program_rng >> 16) % n;
}

static void run_program(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < PROGRAM_STEPS; i++) {
        RV_ATOMIC(uint32_t) *p = &program.words[program.word[me][i]];
        uint32_t v = 1 + me * PROGRAM_STEPS + i, saw = 0;
        switch (program.what[me][i]) {
        case 0:
        case 1:
            saw = rv_load_relaxed(p);
            break;
        case 2:
        case 3:
            rv_store_release(p, v);
            break;
        case 4:
            saw = rv_xchg_acq_rel(p, v);
            break;
        case 5:
            rv_fence_seqcst();
            break;
        case 6: /* waits, if it is the first to come here */
            if (rv_cas(p, &saw, 0))
                explore_wait(p, 0, explore_now() + 5 + me, "a word");
            saw = (uint32_t)explore_now() % 16;
            break;
        default:
            rv_store_release(p, v);
            explore_wake(p, 1);
        }
        program.saw[me] = program.saw[me] * 17 + saw;
    }
}

static void note_outcome(void)
{
    uint64_t all = 0;
    for (unsigned i = 0; i < PROGRAM_WORDS; i++)
        all = all * 31 + rv_load_relaxed(&program.words[i]);
    for (unsigned i = 0; i < PROGRAM_THREADS; i++)
        all = all * UINT64_C(1000003) + program.saw[i];
    explore_note(all);
}

static void draw_program(unsigned kinds)
{
    memset(&program, 0, sizeof program);
    for (unsigned t = 0; t < PROGRAM_THREADS; t++)
        for (unsigned i = 0; i < PROGRAM_STEPS; i++) {
            program.what[t][i] = (uint8_t)random_below(kinds);
            program.word[t][i] = (uint8_t)random_below(PROGRAM_WORDS);
        }
}

/* With and without: the same outcomes, at each bound, of many random programs. */
static void same_outcomes(unsigned kinds, unsigned preemptions, unsigned delays, int programs)
{
    uint64_t all = 0, some = 0;
#if defined(__SANITIZE_ADDRESS__)
    programs = 1 + programs / 10;
#endif
    for (int i = 0; i < programs; i++) {
        struct explore model = { .name = "random",
                                 .threads = { { "a", run_program, (void *)0 },
                                              { "b", run_program, (void *)1 },
                                              { "c", run_program, (void *)2 } },
                                 .finish = note_outcome,
                                 .preemptions = preemptions,
                                 .delays = delays };
        draw_program(kinds);
        struct explore_result r = holds(model);
        model.everything = true;
        struct explore_result every = holds(model);
        CHECK_EQ(r.outcomes, every.outcomes);
        CHECK_EQ(r.outcomes_sum, every.outcomes_sum);
        some += r.executions;
        all += every.executions;
    }
    CHECK_LT(some, all);
    fprintf(stderr, "explore: %" PRIu64 " executions instead of %" PRIu64 "\n", some, all);
}

TEST(what_is_left_out_has_no_outcome_of_its_own)
{
    same_outcomes(5, 1, 0, 200);
    same_outcomes(5, 3, 0, 60);
}

TEST(nor_has_it_with_store_buffers)
{
    same_outcomes(6, 1, 1, 100);
    same_outcomes(6, 2, 2, 30);
}

TEST(nor_has_it_where_threads_sleep_and_wake)
{
    same_outcomes(8, 1, 0, 200);
    same_outcomes(8, 2, 0, 100);
    same_outcomes(8, 2, 1, 30);
}
