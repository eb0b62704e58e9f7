/* SPDX-License-Identifier: MIT */
/*
 * 04_deadlines.c -- a deadline is given once and holds for everything below.
 *
 * Run build/release/examples/04_deadlines; you will see, within a second:
 *
 *     asked in time: answered
 *     waited for a minute: Connection timed out
 *     asked too late: never started
 *
 * The request has half a second, and so has all that it waits for and spawns. What it spawns later
 * never starts: .skipped is called in its place, to release what the task was given.
 */
#include <reeve/reeve.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int answer(void *question)
{
    printf("asked %s: answered\n", (char *)question);
    return 0;
}

static void drop(void *question)
{
    printf("asked %s: never started\n", (char *)question);
}

static int ask(char *question)
{
    reeve_task *task;
    int r = reeve_spawn(&task, answer, question, .skipped = drop);
    return r < 0 ? r : reeve_join(task, NULL, 0);
}

static int request(void *arg)
{
    (void)arg;
    int r = ask("in time");
    printf("waited for a minute: %s\n", strerror(-reeve_sleep(reeve_in(60 * REEVE_SEC))));
    return r < 0 ? r : ask("too late");
}

static int root(void *arg)
{
    (void)arg;
    reeve_task *task;
    int result, r = reeve_spawn(&task, request, NULL, .deadline = reeve_in(500 * REEVE_MS));
    if (r < 0 || (r = reeve_join(task, &result, 0)) < 0)
        return r;
    return result == -ETIMEDOUT ? 0 : result; /* late is what it should be */
}

int main(void)
{
    int r = reeve_run(root, NULL);
    return r < 0 ? fprintf(stderr, "04_deadlines: %s\n", strerror(-r)), 1 : 0;
}
