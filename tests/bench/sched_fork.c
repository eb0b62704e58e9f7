/* SPDX-License-Identifier: MIT */
/*
 * sched_fork.c -- trees of tasks: skynet, fib, n queens, a product of matrices.
 *
 * In all of them a task joins the children it spawned, newest first. One operation is: a leaf of
 * skynet; a call of fib; a task of the others. Each checks its answer.
 */
#include "tests/bench/bench_sched.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- skynet ---------------------------------------------------------------------------------- */

/* Ten children a node down to a million leaves, whose numbers are added up on the way back. */
struct sky {
    long base, leaves, sum;
};

static int skynet(void *arg)
{
    struct sky *sky = arg, child[10];
    reeve_task *t[10];
    if (sky->leaves == 1) {
        sky->sum = sky->base;
        return 0;
    }
    long each = sky->leaves / 10;
    for (int i = 0; i < 10; i++) {
        child[i] = (struct sky){ sky->base + i * each, each, 0 };
        sched_must(reeve_spawn(&t[i], skynet, &child[i]));
    }
    for (int i = 9; i >= 0; i--) {
        sched_must(reeve_join(t[i], NULL, 0));
        sky->sum += child[i].sum;
    }
    return 0;
}

static void skynet_leaves(long n)
{
    struct sky sky = { 0, n, 0 };
    skynet(&sky);
    if (sky.sum != n * (n - 1) / 2)
        sched_must(-EIO);
}

double sched_skynet(void *two_workers)
{
    return sched_measure(two_workers ? 2 : 1, skynet_leaves, 1000000, 1000000);
}

/* ---- fib ------------------------------------------------------------------------------------- */

/* The left child is spawned, the right one called: one spawn for every other call. */
static int fib(void *arg)
{
    long n = (long)(intptr_t)arg;
    reeve_task *t;
    int left;
    if (n < 2)
        return (int)n;
    sched_must(reeve_spawn(&t, fib, (void *)(intptr_t)(n - 1)));
    int right = fib((void *)(intptr_t)(n - 2));
    sched_must(reeve_join(t, &left, 0));
    return left + right;
}

#define FIB_32 2178309
#define FIB_32_CALLS 7049155.0

static void fib_of(long n)
{
    if (fib((void *)(intptr_t)n) != FIB_32)
        sched_must(-EIO);
}

double sched_fib(void *two_workers)
{
    return sched_measure(two_workers ? 2 : 1, fib_of, 32, FIB_32_CALLS);
}

/* ---- n queens -------------------------------------------------------------------------------- */

enum { QUEENS = 11, SOLUTIONS = 2680 };

/* Queens stand in the rows before `row`, each in the column that `at` says. */
struct board {
    int row;
    unsigned char at[QUEENS];
};

static bool is_safe(const struct board *b, int column)
{
    for (int r = 0; r < b->row; r++) {
        int across = column - b->at[r], down = b->row - r;
        if (across == 0 || across == down || across == -down)
            return false;
    }
    return true;
}

/* A task for each square of the next row that no queen attacks. Returns the solutions below. */
static int place_queens(void *arg)
{
    const struct board *b = arg;
    struct board child[QUEENS];
    reeve_task *t[QUEENS];
    int n = 0, sum = 0;
    if (b->row == QUEENS)
        return 1;
    for (int column = 0; column < QUEENS; column++) {
        if (!is_safe(b, column))
            continue;
        child[n] = *b;
        child[n].at[child[n].row++] = (unsigned char)column;
        sched_must(reeve_spawn(&t[n], place_queens, &child[n]));
        n++;
    }
    while (n-- > 0) {
        int found;
        sched_must(reeve_join(t[n], &found, 0));
        sum += found;
    }
    return sum;
}

/* How many tasks that takes. */
static long count_boards(const struct board *b)
{
    long n = 1;
    for (int column = 0; b->row < QUEENS && column < QUEENS; column++) {
        struct board child = *b;
        if (!is_safe(b, column))
            continue;
        child.at[child.row++] = (unsigned char)column;
        n += count_boards(&child);
    }
    return n;
}

static void nqueens(long n)
{
    (void)n;
    if (place_queens(&(struct board){ .row = 0 }) != SOLUTIONS)
        sched_must(-EIO);
}

double sched_nqueens(void *two_workers)
{
    static double boards;
    if (boards == 0)
        boards = (double)count_boards(&(struct board){ .row = 0 });
    return sched_measure(two_workers ? 2 : 1, nqueens, 0, boards);
}

/* ---- the product of two matrices ------------------------------------------------------------- */

enum { SIDE = 512, LEAF = 32 };
/* Eight tasks a level for the four levels above the leaves. */
#define PRODUCT_TASKS (8 + 64 + 512 + 4096.0)

typedef uint32_t matrix[SIDE][SIDE];
static matrix left, right, product;

/* c += a * b for squares of n by n inside of the three matrices. */
struct square {
    uint32_t *c;
    const uint32_t *a, *b;
    int n;
};

static void multiply_leaf(const struct square *s)
{
    for (int i = 0; i < s->n; i++)
        for (int k = 0; k < s->n; k++)
            for (int j = 0; j < s->n; j++)
                s->c[i * SIDE + j] += s->a[i * SIDE + k] * s->b[k * SIDE + j];
}

/* The four quarters of c take the k-th half of a's columns and b's rows, a task each. */
static int multiply(void *arg);
static void multiply_half(const struct square *s, int k)
{
    struct square child[4];
    reeve_task *t[4];
    int half = s->n / 2;
    for (int q = 0; q < 4; q++) {
        int i = q / 2 * half, j = q % 2 * half;
        child[q] = (struct square){ s->c + i * SIDE + j, s->a + i * SIDE + k * half,
                                    s->b + k * half * SIDE + j, half };
        sched_must(reeve_spawn(&t[q], multiply, &child[q]));
    }
    for (int q = 3; q >= 0; q--)
        sched_must(reeve_join(t[q], NULL, 0));
}

static int multiply(void *arg)
{
    const struct square *s = arg;
    if (s->n <= LEAF) {
        multiply_leaf(s);
        return 0;
    }
    multiply_half(s, 0);
    multiply_half(s, 1);
    return 0;
}

static void multiply_all(long n)
{
    (void)n;
    multiply(&(struct square){ product[0], left[0], right[0], SIDE });
}

static void apply(matrix m, const uint32_t in[SIDE], uint32_t out[SIDE])
{
    for (int i = 0; i < SIDE; i++) {
        out[i] = 0;
        for (int j = 0; j < SIDE; j++)
            out[i] += m[i][j] * in[j];
    }
}

/* Applied to a vector, the product must do what its factors do one after the other (Freivalds). */
static void check_product(void)
{
    uint32_t v[SIDE], once[SIDE], twice[SIDE], direct[SIDE];
    for (uint32_t i = 0; i < SIDE; i++)
        v[i] = i * 2654435761u >> 7;
    apply(right, v, once);
    apply(left, once, twice);
    apply(product, v, direct);
    if (memcmp(twice, direct, sizeof direct) != 0)
        sched_must(-EIO);
}

double sched_matmul(void *two_workers)
{
    for (uint32_t i = 0; i < SIDE; i++)
        for (uint32_t j = 0; j < SIDE; j++) {
            left[i][j] = i * 7 + j * 3 + 1;
            right[i][j] = i * 5 + j * 11 + 2;
        }
    memset(product, 0, sizeof product);
    double ns = sched_measure(two_workers ? 2 : 1, multiply_all, 0, PRODUCT_TASKS);
    check_product();
    return ns;
}

/* ---- one worker and two ---------------------------------------------------------------------- */

void sched_two_workers(struct bench *b, const struct bench_case *c)
{
    static double (*const trees[])(void *) = {
        [SCHED_SKYNET] = sched_skynet,
        [SCHED_FIB] = sched_fib,
        [SCHED_NQUEENS] = sched_nqueens,
        [SCHED_MATMUL] = sched_matmul,
    };
    double (*once)(void *) = trees[c->arg];
    struct bench_samples one = { 0 }, two = { 0 }, rss = { 0 }, speedup = { 0 };
    int rounds = b->quick ? 2 : 5, reps = b->quick ? 2 : 5;
    for (int i = 0; i < rounds; i++) {
        int r = bench_ns_alone(&one, NULL, once, NULL, reps, b->cpu_server);
        if (r == 0)
            r = bench_ns_alone(&two, &rss, once, &two, reps, -1);
        if (r < 0) {
            bench_fail(b, c->name, "a round failed");
            return;
        }
    }
    bench_emit(b, c->name, "ns_per_op", &two, "one_worker", &one);
    bench_add(&speedup, bench_median(&one) / bench_median(&two));
    bench_emit(b, c->name, "speedup", &speedup, NULL, NULL);
    bench_emit(b, c->name, "rss_bytes", &rss, NULL, NULL);
}
