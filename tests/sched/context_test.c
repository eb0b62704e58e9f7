/* SPDX-License-Identifier: MIT */
/*
 * context_test.c -- sched/context.h: what survives a switch, where backtraces end, and that a
 * context may go on on another thread.
 *
 * A lane is a stack of its own with a context on it. Contexts have no argument, so the lane that
 * shall run is left in `running` before a switch; tests with threads have one lane each.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <fenv.h>
#include <pthread.h>
#include <time.h>
#include <unwind.h>

#include "mem/alloc.h"
#include "sched/context.h"

#define LANE_BYTES ((size_t)64 * 1024)

/* Valgrind takes a jump of rsp for a change of stacks if it is longer than 2 MB. */
#define LANE_APART ((size_t)4 << 20)

struct lane {
    struct rv_stack st;
    void *map;
    struct rv_stack *back;      /* the context to return to */
    uint64_t seed, count;
};

static struct lane *running;

static void lane_open(struct lane *lane, struct rv_stack *back, void (*entry)(void))
{
    memset(lane, 0, sizeof *lane);
    lane->map = rv_map_lazy(LANE_APART);
    CHECK(lane->map != NULL);
    lane->st.low = lane->map;
    lane->st.top = lane->st.low + LANE_BYTES;
    lane->back = back;
    rv_context_build(&lane->st, entry);
}

static void lane_close(struct lane *lane)
{
    rv_context_retire(&lane->st);
    CHECK(lane->st.sp == NULL);
    rv_unmap(lane->map, LANE_APART);
}

static void run(struct rv_stack *self, struct lane *lane)
{
    running = lane;
    rv_switch(self, &lane->st);
}

static bool on_stack(const struct rv_stack *st, const void *p)
{
    return (const unsigned char *)p >= st->low && (const unsigned char *)p < st->top;
}

/* ---- entering ---- */

__attribute__((noinline)) static void look_around(struct lane *me)
{
    const char *here = __builtin_frame_address(0);
    CHECK(on_stack(&me->st, here));
    CHECK_EQ((uintptr_t)here % 16, 0);
    me->count++;
}

static void enter(void)
{
    struct lane *me = running;
    rv_switch_entered(&me->st);
    for (;;) {
        look_around(me);
        rv_switch(&me->st, me->back);
    }
}

TEST(the_first_switch_enters_the_function_and_later_ones_resume_it)
{
    struct rv_stack self = {0};
    struct lane lane;
    rv_context_adopt(&self);
    lane_open(&lane, &self, enter);
    for (uint64_t i = 0; i < 3; i++) {
        CHECK_EQ(lane.count, i);
        run(&self, &lane);
    }
    CHECK_EQ(lane.count, 3);
    CHECK(on_stack(&lane.st, lane.st.sp));
    lane_close(&lane);
}

/* ---- values ---- */

static void mix(void)
{
    struct lane *me = running;
    rv_switch_entered(&me->st);
    uint64_t a = me->seed, b = ~a, c = a * 3, d = b * 5;
    double x = (double)(a % 1000), y = x / 3;
    for (uint64_t i = 0;; i++) {
        a = a * 6364136223846793005u + i;
        b ^= a >> 7;
        c += b;
        d = (d << 1 | d >> 63) ^ c;
        x += y;
        me->count = a ^ b ^ c ^ d ^ (uint64_t)x;
        rv_switch(&me->st, me->back);
    }
}

/* What mix() leaves in count after n rounds, without a switch. */
static uint64_t mix_expected(uint64_t seed, uint64_t n)
{
    uint64_t a = seed, b = ~a, c = a * 3, d = b * 5, count = 0;
    double x = (double)(a % 1000), y = x / 3;
    for (uint64_t i = 0; i < n; i++) {
        a = a * 6364136223846793005u + i;
        b ^= a >> 7;
        c += b;
        d = (d << 1 | d >> 63) ^ c;
        x += y;
        count = a ^ b ^ c ^ d ^ (uint64_t)x;
    }
    return count;
}

TEST(local_values_survive_switches_among_many_contexts)
{
    enum { LANES = 50, ROUNDS = 2000 };
    static struct lane lanes[LANES];
    struct rv_stack self = {0};
    rv_context_adopt(&self);
    for (uint64_t i = 0; i < LANES; i++) {
        lane_open(&lanes[i], &self, mix);
        lanes[i].seed = i * 7919;
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < LANES; i++)
            run(&self, &lanes[i]);
    for (int i = 0; i < LANES; i++) {
        CHECK_EQ(lanes[i].count, mix_expected(lanes[i].seed, ROUNDS));
        lane_close(&lanes[i]);
    }
}

static void spin(void)
{
    struct lane *me = running;
    rv_switch_entered(&me->st);
    for (;;) {
        me->count++;
        rv_switch(&me->st, me->back);
    }
}

/* Also says what one switch costs, for whoever reads the output. */
TEST(a_million_round_trips_lose_none)
{
    enum { TRIPS = 1000000 };
    struct rv_stack self = {0};
    struct lane lane;
    struct timespec from, to;
    rv_context_adopt(&self);
    lane_open(&lane, &self, spin);
    running = &lane;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (uint64_t i = 0; i < TRIPS; i++)
        rv_switch(&self, &lane.st);
    clock_gettime(CLOCK_MONOTONIC, &to);
    CHECK_EQ(lane.count, TRIPS);
    double ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
    printf("# %.2f ns per switch\n", ns / (2.0 * TRIPS));
    lane_close(&lane);
}

/* ---- depth ---- */

static uint64_t dive(struct lane *me, unsigned depth)
{
    volatile uint64_t mark[4] = {depth, ~(uint64_t)depth, me->seed, depth ^ me->seed};
    rv_switch(&me->st, me->back);
    uint64_t below = depth > 0 ? dive(me, depth - 1) : 0;
    rv_switch(&me->st, me->back);
    CHECK_EQ(mark[0], depth);
    CHECK_EQ(mark[1], ~(uint64_t)depth);
    CHECK_EQ(mark[2], me->seed);
    return below + (mark[3] ^ mark[2]);
}

static void dive_entry(void)
{
    struct lane *me = running;
    rv_switch_entered(&me->st);
    me->count = dive(me, 100);
    for (;;)
        rv_switch(&me->st, me->back);
}

TEST(frames_at_every_depth_survive_switches)
{
    struct rv_stack self = {0};
    struct lane a, b;
    rv_context_adopt(&self);
    lane_open(&a, &self, dive_entry);
    lane_open(&b, &self, dive_entry);
    a.seed = 111;
    b.seed = 222;
    for (int i = 0; i < 2 * 101 + 1; i++) {
        CHECK_EQ(a.count, 0);
        run(&self, &a);
        run(&self, &b);
    }
    CHECK_EQ(a.count, 100 * 101 / 2);
    CHECK_EQ(b.count, 100 * 101 / 2);
    lane_close(&a);
    lane_close(&b);
}

/* Context i starts context i + 1 and is resumed by it: nobody returns to the thread in between. */
enum { CHAIN = 40 };
static struct lane chain[CHAIN];

static void link_entry(void)
{
    struct lane *me = running;
    rv_switch_entered(&me->st);
    uint64_t mine = me->seed;
    if (me + 1 < chain + CHAIN)
        run(&me->st, me + 1);
    CHECK_EQ(mine, me->seed);
    me->count = mine;
    rv_switch(&me->st, me->back);
    CHECK(!"resumed after the end");
}

TEST(contexts_switch_to_each_other_directly)
{
    struct rv_stack self = {0};
    rv_context_adopt(&self);
    for (int i = 0; i < CHAIN; i++) {
        lane_open(&chain[i], i > 0 ? &chain[i - 1].st : &self, link_entry);
        chain[i].seed = 1000 + (uint64_t)i;
    }
    run(&self, &chain[0]);
    for (int i = 0; i < CHAIN; i++) {
        CHECK_EQ(chain[i].count, chain[i].seed);
        lane_close(&chain[i]);
    }
}

/* ---- registers ---- */

#if defined(__x86_64__) && !defined(RV_TSAN) && !defined(RV_ASAN)
#define HAVE_REGISTERS 1
/* void swap_with_registers(void **save_sp, void *load_sp, uint64_t ret_seen[6], uint64_t seed):
 * puts seed + 1 .. seed + 6 into rbx, rbp, r12 .. r15, switches, and stores what is there then. */
void swap_with_registers(void **save_sp, void *load_sp, uint64_t *ret_seen, uint64_t seed);
__asm__(".text\n"
        ".type swap_with_registers, @function\n"
        "swap_with_registers:\n"
        "pushq %rbx\n pushq %rbp\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "pushq %rdx\n"
        "leaq 1(%rcx), %rbx\n leaq 2(%rcx), %rbp\n leaq 3(%rcx), %r12\n"
        "leaq 4(%rcx), %r13\n leaq 5(%rcx), %r14\n leaq 6(%rcx), %r15\n"
        "leaq 1f(%rip), %rax\n jmp rv_context_jump\n 1:\n"
        "popq %rdx\n"
        "movq %rbx, (%rdx)\n movq %rbp, 8(%rdx)\n movq %r12, 16(%rdx)\n"
        "movq %r13, 24(%rdx)\n movq %r14, 32(%rdx)\n movq %r15, 40(%rdx)\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbp\n popq %rbx\n"
        "ret\n"
        ".size swap_with_registers, . - swap_with_registers\n");

static void check_registers(const uint64_t seen[6], uint64_t seed)
{
    for (uint64_t i = 0; i < 6; i++)
        CHECK_EQ(seen[i], seed + 1 + i);
}

static void fill_registers(void)
{
    struct lane *me = running;
    uint64_t seen[6];
    for (;; me->count++) {
        uint64_t seed = 0xbbbb000000000000u + me->count * 16;
        swap_with_registers(&me->st.sp, me->back->sp, seen, seed);
        check_registers(seen, seed);
    }
}
#endif

TEST(every_callee_saved_register_is_preserved)
{
#ifdef HAVE_REGISTERS
    struct rv_stack self = {0};
    struct lane lane;
    uint64_t seen[6];
    rv_context_adopt(&self);
    lane_open(&lane, &self, fill_registers);
    running = &lane;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t seed = 0xaaaa000000000000u + i * 16;
        swap_with_registers(&self.sp, lane.st.sp, seen, seed);
        check_registers(seen, seed);
    }
    CHECK_EQ(lane.count, 999);
    lane_close(&lane);
#else
    SKIP("the bare swap is not for sanitizer builds or other architectures");
#endif
}

static void round_up(void)
{
    struct lane *me = running;
    rv_switch_entered(&me->st);
    me->seed = (uint64_t)fegetround();
    fesetround(FE_UPWARD);
    rv_switch(&me->st, me->back);
    CHECK(!"resumed");
}

TEST(the_rounding_mode_belongs_to_the_thread)
{
    struct rv_stack self = {0};
    struct lane lane;
    rv_context_adopt(&self);
    lane_open(&lane, &self, round_up);
    CHECK_EQ(fesetround(FE_DOWNWARD), 0);
    run(&self, &lane);
    CHECK_EQ(fegetround(), FE_UPWARD);
    CHECK_EQ(lane.seed, FE_DOWNWARD);
    fesetround(FE_TONEAREST);
    lane_close(&lane);
}

/* ---- backtraces ---- */

static _Unwind_Reason_Code count_frame(struct _Unwind_Context *context, void *arg)
{
    struct lane *lane = arg;
    CHECK(on_stack(&lane->st, (void *)_Unwind_GetCFA(context)));
    lane->count++;
    return lane->count < 100 ? _URC_NO_REASON : _URC_FOREIGN_EXCEPTION_CAUGHT;
}

__attribute__((noinline)) static void walk(struct lane *me, unsigned depth)
{
    volatile unsigned char pad[64] = {0};
    if (depth > 0)
        walk(me, depth - 1);
    else
        me->seed = (uint64_t)_Unwind_Backtrace(count_frame, me);
    CHECK_EQ(pad[depth % 64], 0);
}

static void walk_entry(void)
{
    struct lane *me = running;
    rv_switch_entered(&me->st);
    rv_switch(&me->st, me->back);       /* a resumed context has the same end */
    walk(me, 10);
    rv_switch(&me->st, me->back);
    CHECK(!"resumed");
}

TEST(a_backtrace_ends_above_the_entry_function)
{
    struct rv_stack self = {0};
    struct lane lane;
    rv_context_adopt(&self);
    lane_open(&lane, &self, walk_entry);
    void **above = (void **)(lane.st.top - 64);     /* what a walk that went too far would follow */
    for (int i = 0; i < 8; i++)
        above[i] = __builtin_return_address(0);
    run(&self, &lane);
    run(&self, &lane);
    CHECK_EQ(lane.seed, _URC_END_OF_STACK);
    CHECK_GE(lane.count, 12);           /* eleven times walk(), and the entry function */
    CHECK_LE(lane.count, 16);           /* perhaps the unwinder itself, and where it began */
    lane_close(&lane);
}

/* ---- threads ---- */

static void *adopt_on_thread(void *arg)
{
    struct rv_stack self = {0};
    rv_context_adopt(&self);
    CHECK(on_stack(&self, __builtin_frame_address(0)));
    CHECK(!on_stack(&self, arg));               /* a frame of the main thread */
    CHECK(self.top - self.low >= 120 * 1024);   /* of 128 that were asked for */
    return NULL;
}

TEST(an_adopted_stack_is_the_threads_own)
{
    struct rv_stack self = {0};
    pthread_attr_t attr;
    pthread_t thread;
    void *here = __builtin_frame_address(0);
    errno = 0;
    rv_context_adopt(&self);
    CHECK_EQ(errno, 0);
    CHECK(on_stack(&self, here));
    CHECK(self.sp == NULL);
    pthread_attr_init(&attr);
    CHECK_EQ(pthread_attr_setstacksize(&attr, 128 * 1024), 0);
    CHECK_EQ(pthread_create(&thread, &attr, adopt_on_thread, here), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
}

/* One context that two threads run in turn; `turn` says whose turn it is and hands it over. */
static struct lane shared;
static RV_ATOMIC(uint32_t) turn;
static uint64_t plain;          /* written by the context, on either thread, without atomics */

enum { TURNS = 2000 };

static void wander(void)
{
    struct lane *me = running;
    rv_switch_entered(&me->st);
    uint64_t local = 0;
    for (;;) {
        CHECK_EQ(local, plain);
        local++;
        plain++;
        me->count = local;
        rv_switch(&me->st, me->back);
    }
}

static void *take_turns(void *arg)
{
    struct rv_stack self = {0};
    uint32_t parity = (uint32_t)(uintptr_t)arg;
    rv_context_adopt(&self);
    for (uint32_t t = parity; t < TURNS; t += 2) {
        while (rv_load_acquire(&turn) != t)     /* pairs with the other thread's release */
            rv_cpu_relax();
        shared.back = &self;
        running = &shared;
        rv_switch(&self, &shared.st);
        CHECK_EQ(shared.count, t + 1);
        rv_store_release(&turn, t + 1);
    }
    return NULL;
}

TEST(a_context_goes_on_on_another_thread)
{
    struct rv_stack unused = {0};
    pthread_t threads[2];
    lane_open(&shared, &unused, wander);
    for (uintptr_t i = 0; i < 2; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, take_turns, (void *)i), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(plain, TURNS);
    lane_close(&shared);
}

#if defined(RV_TSAN)
/* The classical mistake, in an order that does no harm: the context publishes itself while it still
 * runs; the taker waits, unseen by the sanitizer, until it has been left. */
static RV_ATOMIC(bool) published, left;

static void publish_self(void)
{
    struct lane *me = running;
    rv_switch_entered(&me->st);
    struct rv_stack *back = me->back;
    if (me->seed)
        rv_store_release(&published, true);
    rv_switch(&me->st, back);
    me->count++;
    rv_switch(&me->st, me->back);
}

static void *resume_published(void *arg)
{
    struct rv_stack self = {0};
    (void)arg;
    rv_context_adopt(&self);
    while (!rv_load_relaxed(&left))
        rv_cpu_relax();
    while (!rv_load_acquire(&published))
        rv_cpu_relax();
    shared.back = &self;
    rv_switch(&self, &shared.st);
    return NULL;
}

/* The exit status of a process that publishes a context too early, or at the right moment. */
static int publish_in_child(bool early)
{
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct rv_stack self = {0};
        pthread_t thread;
        if (early && !freopen("/dev/null", "w", stderr))
            _exit(3);
        rv_context_adopt(&self);
        lane_open(&shared, &self, publish_self);
        shared.seed = early;
        if (pthread_create(&thread, NULL, resume_published, NULL) != 0)
            _exit(4);
        run(&self, &shared);
        if (!early)
            rv_store_release(&published, true);
        rv_store_relaxed(&left, true);
        pthread_join(thread, NULL);
        exit(shared.count == 1 ? 0 : 5);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
#endif

TEST(a_context_published_before_it_was_left_is_reported)
{
#if defined(RV_TSAN)
    CHECK_EQ(publish_in_child(false), 0);
    CHECK_EQ(publish_in_child(true), 66);       /* what ThreadSanitizer exits with */
#else
    SKIP("only ThreadSanitizer can tell");
#endif
}

/* ---- ending ---- */

static void park_with_locals(void)
{
    struct lane *me = running;
    rv_switch_entered(&me->st);
    volatile unsigned char bytes[100];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    me->count = bytes[99];
    rv_switch(&me->st, me->back);
    CHECK_EQ(bytes[me->seed], 0);
}

/* AddressSanitizer keeps red zones around the locals of the frames that never return. */
TEST(the_stack_of_a_retired_context_is_plain_memory)
{
    struct rv_stack self = {0};
    struct lane lane;
    rv_context_adopt(&self);
    lane_open(&lane, &self, park_with_locals);
    run(&self, &lane);
    CHECK_EQ(lane.count, 99);
    rv_context_retire(&lane.st);
    memset(lane.st.low, 0xee, LANE_BYTES);
    lane_close(&lane);
}

/* More than ThreadSanitizer has fibers at a time. */
TEST(retiring_gives_back_what_building_took)
{
    struct rv_stack self = {0};
    struct lane lane;
    rv_context_adopt(&self);
    lane_open(&lane, &self, enter);
    for (int i = 0; i < 20000; i++) {
        run(&self, &lane);
        if (i % 2)
            run(&self, &lane);
        rv_context_retire(&lane.st);
        rv_context_retire(&lane.st);            /* a record without a context is left alone */
        rv_context_build(&lane.st, enter);
    }
    CHECK_EQ(lane.count, 30000);
    lane_close(&lane);
}
