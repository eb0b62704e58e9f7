/* SPDX-License-Identifier: MIT */
/*
 * 08_channels.c -- channels: jobs for three workers, and one reader of two channels.
 *
 * Run build/release/examples/08_channels; you will see:
 *
 *     12 jobs, the sum of their squares is 650
 *     3 workers said goodbye
 *
 * The channel of jobs holds two. Who sends a third waits, so the jobs never pile up. Closing it is
 * how the workers learn that there is no more: what is in it is still received.
 */
#include <reeve/reeve.h>
#include <stdio.h>
#include <string.h>

enum { JOBS = 12, WORKERS = 3 };

static reeve_chan *jobs, *squares, *goodbyes;

static int worker(void *arg)
{
    int n;
    (void)arg;
    while (reeve_chan_recv(jobs, &n, 0) == 0) {
        int square = n * n;
        reeve_chan_send(squares, &square, 0);
    }
    return reeve_chan_send(goodbyes, NULL, 0); /* a channel of nothing carries signals */
}

static int hand_out(void *arg)
{
    (void)arg;
    for (int n = 1; n <= JOBS; n++)
        reeve_chan_send(jobs, &n, 0);
    reeve_chan_close(jobs);
    return 0;
}

static int root(void *arg)
{
    int square, sum = 0, left = WORKERS;
    (void)arg;
    for (int i = 0; i < WORKERS; i++)
        reeve_go(worker, NULL);
    reeve_go(hand_out, NULL);
    while (left > 0) {
        struct reeve_case cases[] = { { .chan = squares, .recv = &square }, { .chan = goodbyes } };
        if (reeve_chan_select(cases, 2, 0) == 0)
            sum += square;
        else
            left--;
    }
    printf("%d jobs, the sum of their squares is %d\n", JOBS, sum);
    printf("%d workers said goodbye\n", WORKERS);
    return 0;
}

int main(void)
{
    jobs = reeve_chan_create(sizeof(int), 2);
    squares = reeve_chan_create(sizeof(int), 0);
    goodbyes = reeve_chan_create(0, 0);
    int r = jobs && squares && goodbyes ? reeve_run(root, NULL) : -1;
    reeve_chan_destroy(goodbyes);
    reeve_chan_destroy(squares);
    reeve_chan_destroy(jobs);
    return r < 0 ? fprintf(stderr, "08_channels: %s\n", strerror(-r)), 1 : 0;
}
