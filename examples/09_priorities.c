/* SPDX-License-Identifier: MIT */
/*
 * 09_priorities.c -- who goes first: classes, deadlines, and what comes too late.
 *
 * Run build/release/examples/09_priorities; you will see:
 *
 *     urgent
 *     due in 1 s
 *     due in 2 s
 *     in no hurry
 *     too late: Connection timed out
 *
 * All of them are ready when the root task waits for the first time. A better class goes first, in
 * a class the earlier deadline. A deadline also bounds what its task may wait for; and a task whose
 * deadline passes before it starts never starts.
 */
#include <reeve/reeve.h>
#include <stdio.h>
#include <string.h>

static int say(void *arg)
{
    puts(arg);
    return 0;
}

static int root(void *arg)
{
    reeve_task *late;
    int result;
    (void)arg;
    int r = reeve_spawn(&late, say, "never seen", .deadline = reeve_in(REEVE_MS));
    if (r < 0)
        return r;
    reeve_go(say, "in no hurry", .priority = REEVE_LOW);
    reeve_go(say, "due in 2 s", .deadline = reeve_in(2 * REEVE_SEC));
    reeve_go(say, "due in 1 s", .deadline = reeve_in(REEVE_SEC));
    reeve_go(say, "urgent", .priority = REEVE_URGENT);
    for (reeve_time end = reeve_in(3 * REEVE_MS); reeve_now() < end;)
        ; /* it computes for so long; with one worker nobody else can run */
    reeve_sleep(reeve_in(REEVE_MS));
    r = reeve_join(late, &result, 0);
    if (r == 0)
        printf("too late: %s\n", strerror(-result));
    return r;
}

int main(void)
{
    int r = reeve_run(root, NULL, .workers = 1);
    return r < 0 ? fprintf(stderr, "09_priorities: %s\n", strerror(-r)), 1 : 0;
}
