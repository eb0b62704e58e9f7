/* SPDX-License-Identifier: MIT */
/*
 * 10_locks.c -- a lock, a semaphore, and calls that block.
 *
 * Run build/release/examples/10_locks; you will see:
 *
 *     20 calls, never more than 3 at a time
 *
 * Each call blocks a thread for 5 ms, as a library would that knows nothing of tasks. It runs on a
 * thread of the offload pool, so the one worker of this program goes on with its other tasks. The
 * semaphore bounds how many are under way, the mutex guards the count.
 */
#include <reeve/reeve.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { CALLS = 20, AT_A_TIME = 3 };

static struct reeve_mutex lock; /* {0} is unlocked */
static struct reeve_sem places;
static int now, most;

static int blocks(void *arg)
{
    (void)arg;
    return nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
}

static int count(int change)
{
    int r = reeve_mutex_lock(&lock, 0);
    if (r < 0)
        return r;
    now += change;
    most = now > most ? now : most;
    reeve_mutex_unlock(&lock);
    return 0;
}

static int call(void *arg)
{
    int r = reeve_sem_wait(&places, 0);
    if (r < 0)
        return r;
    if ((r = count(1)) == 0) {
        r = reeve_offload(blocks, arg, 0);
        count(-1);
    }
    reeve_sem_post(&places);
    return r;
}

static int root(void *arg)
{
    reeve_group calls = { 0 };
    int r = reeve_sem_init(&places, AT_A_TIME, AT_A_TIME);
    for (int i = 0; i < CALLS && r == 0; i++)
        r = reeve_go(call, arg, .group = &calls);
    int end = reeve_group_wait(&calls, 0);
    printf("%d calls, never more than %d at a time\n", CALLS, most);
    return r < 0 ? r : end;
}

int main(void)
{
    int r = reeve_run(root, NULL, .workers = 1);
    return r < 0 ? fprintf(stderr, "10_locks: %s\n", strerror(-r)), 1 : 0;
}
