/* SPDX-License-Identifier: MIT */
/*
 * The timing wheel: by the clock of the test, against a plain array.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include "runtime/cache_wheel.h"

static uint64_t random_state;

static uint64_t random_u64(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return random_state >> 11 ^ random_state << 29;
}

static const int64_t ms = INT64_C(1000000), hour = INT64_C(3600) * 1000 * 1000000;

static size_t length(const struct rv_spoke *head)
{
    size_t n = 0;
    for (const struct rv_spoke *s = head->next; s != head; s = s->next)
        n++;
    return n;
}

static size_t count(const struct rv_wheel *w)
{
    size_t n = length(&w->spill) + length(&w->never) + length(&w->old);
    for (int level = 0; level < RV_WHEEL_LEVELS; level++)
        for (int slot = 0; slot < RV_WHEEL_SLOTS; slot++)
            n += length(&w->slot[level][slot]);
    return n;
}

/* All that has expired, however often it takes. */
static unsigned take_all(struct rv_wheel *w, int64_t now)
{
    unsigned n = 0, looks = 1 << 30;
    struct rv_spoke *s;
    while ((s = rv_wheel_due(w, now, &looks)) != NULL) {
        CHECK_LE(s->expires, now);
        n++;
    }
    return n;
}

TEST(what_has_expired_comes_out_once)
{
    struct rv_wheel w;
    struct rv_spoke s[3] = { { .expires = 10 * ms }, { .expires = 5 * ms }, { .expires = hour } };
    rv_wheel_init(&w, 0);
    for (int i = 0; i < 3; i++)
        rv_wheel_add(&w, &s[i]);
    CHECK_EQ(take_all(&w, 4 * ms), 0);
    CHECK_EQ(take_all(&w, 8 * ms), 1);
    CHECK_EQ(take_all(&w, 8 * ms), 0);
    CHECK_EQ(take_all(&w, 20 * ms), 1);
    CHECK_EQ(count(&w), 1);
    CHECK_EQ(take_all(&w, hour - 3 * ms), 0);
    CHECK_EQ(take_all(&w, hour + 3 * ms), 1);
    CHECK_EQ(count(&w), 0);
}

TEST(what_is_removed_does_not_come_out)
{
    struct rv_wheel w;
    struct rv_spoke s[4] = { { .expires = 3 * ms },
                             { .expires = 3 * ms },
                             { .expires = 3 * ms },
                             { .expires = hour } };
    rv_wheel_init(&w, 0);
    for (int i = 0; i < 4; i++)
        rv_wheel_add(&w, &s[i]);
    rv_wheel_remove(&s[1]);
    unsigned looks = 1;
    CHECK(rv_wheel_due(&w, 9 * ms, &looks) == &s[0]);
    rv_wheel_remove(&s[2]); /* which lies in the spill now */
    rv_wheel_remove(&s[3]);
    rv_wheel_remove(&s[3]);
    CHECK_EQ(take_all(&w, 2 * hour), 0);
    CHECK_EQ(count(&w), 0);
}

TEST(one_look_is_one_entry)
{
    struct rv_wheel w;
    struct rv_spoke s[10] = { { 0 } };
    rv_wheel_init(&w, 0);
    for (int i = 0; i < 10; i++) {
        s[i].expires = i < 5 ? hour : ms;
        rv_wheel_add(&w, &s[i]);
    }
    unsigned looks = 3, n = 0;
    while (rv_wheel_due(&w, hour - 30 * 60 * 1000 * ms, &looks) != NULL)
        n++;
    CHECK_EQ(looks, 0);
    CHECK_LE(n, 3);
    CHECK_EQ(count(&w), 10 - n);
}

TEST(a_clock_that_jumps_back_loses_nothing)
{
    struct rv_wheel w;
    struct rv_spoke s[2] = { { .expires = 100 * hour + 1000 * ms }, { .expires = 2 * hour } };
    rv_wheel_init(&w, 100 * hour);
    rv_wheel_add(&w, &s[0]);
    CHECK_EQ(take_all(&w, 101 * hour - ms), 1);
    unsigned looks = 100;
    rv_wheel_add(&w, &s[1]); /* the clock says 1 hour now */
    CHECK(rv_wheel_due(&w, hour, &looks) == NULL);
    CHECK_EQ(count(&w), 1);
    CHECK_EQ(take_all(&w, 2 * hour + ms), 1);
}

TEST(a_clock_that_jumps_far_ahead_takes_everything_along)
{
    enum { N = 1000 };
    static struct rv_spoke s[N];
    struct rv_wheel w;
    random_state = 7;
    rv_wheel_init(&w, 12345 * ms);
    for (int i = 0; i < N; i++) {
        s[i].expires = 12345 * ms + (int64_t)(random_u64() % (uint64_t)(1000 * 24 * hour));
        rv_wheel_add(&w, &s[i]);
    }
    CHECK_EQ(take_all(&w, INT64_MAX / 2), N);
}

/* At random times, what the wheel gives is what a look at each entry finds: all of it, but for the
 * last millisecond or two. */
TEST(the_wheel_agrees_with_a_look_at_every_entry)
{
    enum { N = 300, STEPS = 20000 };
    for (uint64_t seed = 1; seed <= 5; seed++) {
        static struct rv_spoke s[N];
        struct rv_wheel w;
        int64_t now = (int64_t)seed * 1000003 * ms;
        memset(s, 0, sizeof s);
        random_state = seed;
        rv_wheel_init(&w, now);
        for (int i = 0; i < STEPS; i++) {
            struct rv_spoke *one = &s[random_u64() % N];
            if (one->next == NULL) {
                one->expires = now + (int64_t)(random_u64() >> (random_u64() % 40 + 12));
                rv_wheel_add(&w, one);
            } else if (random_u64() % 4 == 0) {
                rv_wheel_remove(one);
            }
            now += (int64_t)(random_u64() >> (random_u64() % 40 + 24));
            if (random_u64() % 8 != 0)
                continue;
            take_all(&w, now);
            size_t in = 0;
            for (int k = 0; k < N; k++) {
                in += s[k].next != NULL;
                if (s[k].next != NULL && s[k].expires <= now - 2 * ms)
                    check_failed(__FILE__, __LINE__, "seed %" PRIu64 ": one was forgotten", seed);
            }
            CHECK_EQ(in, count(&w));
        }
    }
}

TEST(what_is_there_ages_at_once_and_comes_out_by_itself)
{
    enum { N = 20 };
    struct rv_spoke s[N] = { { 0 } }, young = { .expires = 3 * ms }, *one;
    struct rv_wheel w;
    rv_wheel_init(&w, 0);
    for (int i = 0; i < N; i++) {
        s[i].expires = i % 3 == 0 ? INT64_MAX : i * hour / 7;
        rv_wheel_add(&w, &s[i]);
    }
    rv_wheel_age(&w);
    rv_wheel_add(&w, &young);
    rv_wheel_remove(&s[7]);
    CHECK_EQ(take_all(&w, 100 * hour), 1);
    int n = 0;
    while ((one = rv_wheel_old(&w)) != NULL) {
        CHECK(one >= s && one < s + N && one != &s[7]);
        CHECK(one->next == NULL);
        n++;
    }
    CHECK_EQ(n, N - 1);
    CHECK_EQ(count(&w), 0);
}
