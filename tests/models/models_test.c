/* SPDX-License-Identifier: MIT */
/*
 * models_test.c -- the Spin models of parking, of the loan and of the wait word: they hold, and
 * without any one of the things that they are about they do not.
 *
 * For each case: spin makes a verifier of the model, the C compiler compiles it, and its last words
 * are read. The switches of a model, and what it leaves out, are in its opening comment. Everything
 * happens in a temporary folder. Without `spin`, a Debian package, all of it is skipped; so it is
 * under a sanitizer, which would watch this driver and not the models.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <ftw.h>
#include <sys/stat.h>

#include "mem/rv_atomic.h"

#ifndef MODELS_DIR
#define MODELS_DIR "tests/models"
#endif

#define MEMORY_MB "1500"
#define DEPTH "100000" /* of the search; one that would go deeper says so, and fails the case */

enum verdict { HOLDS, FAILS };

struct outcome {
    long errors; /* -1: the verifier gave no verdict */
    double states;
    bool whole; /* nothing was cut off by depth or memory */
};

static char folder[] = "/tmp/reeve-models-XXXXXX";

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st, (void)kind, (void)walk;
    return remove(path);
}

static void remove_folder(void)
{
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void models_or_skip(void)
{
#if defined(RV_TSAN) || defined(__SANITIZE_ADDRESS__)
    SKIP("a sanitizer does not see into the models");
#endif
    if (system("command -v spin >/dev/null && command -v cc >/dev/null") != 0)
        SKIP("spin is not installed (on Debian: the package spin)");
    if (!mkdtemp(folder))
        check_failed(__FILE__, __LINE__, "mkdtemp: %s", strerror(errno));
    atexit(remove_folder);
}

static void run(const char *command)
{
    if (system(command) != 0) {
        remove_folder();
        check_failed(__FILE__, __LINE__, "this failed: %s", command);
    }
}

/* "State-vector 108 byte, depth reached 82, errors: 1", "   80 states, stored". */
static struct outcome read_outcome(FILE *said)
{
    struct outcome out = { .errors = -1, .whole = true };
    char line[512];
    while (fgets(line, sizeof line, said)) {
        const char *errors = strstr(line, "errors: ");
        if (errors)
            out.errors = strtol(errors + 8, NULL, 10);
        if (strstr(line, "states, stored"))
            out.states = strtod(line, NULL);
        if (strstr(line, "out of memory") || strstr(line, "max search depth too small") ||
            strstr(line, "reached limit"))
            out.whole = false;
    }
    return out;
}

/* claim: the name of the LTL formula that is checked, with weak fairness; NULL: assertions, and
 * that nothing ends where it must not. options: the model's switches. search: how the verifier is
 * to go about it; -DREVERSE is for failures that it meets late in its usual order. */
static struct outcome verify(const char *model, const char *claim, const char *options,
                             const char *search)
{
    char command[1024];
    const char *kind = claim ? "-DNFAIR=3" : "-DSAFETY -DNOCLAIM";
    snprintf(command, sizeof command,
             "m=$(realpath '%s/%s.pml') && cd %s && spin -a %s \"$m\" >spin.out 2>&1", MODELS_DIR,
             model, folder, options);
    run(command);
    snprintf(command, sizeof command, "cd %s && cc -w -O1 %s %s -DMEMLIM=%s -o pan pan.c", folder,
             kind, search, MEMORY_MB);
    run(command);
    snprintf(command, sizeof command, "cd %s && ./pan -w20 -m%s %s%s 2>&1", folder, DEPTH,
             claim ? "-a -f -N " : "", claim ? claim : "");
    FILE *said = popen(command, "r");
    CHECK(said);
    struct outcome out = read_outcome(said);
    pclose(said);
    printf("# %s %s%s%s: %.0f states, %ld errors\n", model, options, claim ? " " : "",
           claim ? claim : "", out.states, out.errors);
    return out;
}

static void expect(enum verdict verdict, const char *model, const char *claim, const char *options,
                   const char *search)
{
    struct outcome out = verify(model, claim, options, search);
    remove_folder();
    CHECK(mkdir(folder, 0700) == 0); /* for the next case */
    if (verdict == HOLDS && (out.errors != 0 || !out.whole || out.states < 2))
        rmdir(folder), check_failed(__FILE__, __LINE__, "%s %s does not hold: %ld errors, %s",
                                    model, options, out.errors,
                                    out.whole ? "all states seen" : "not all states seen");
    if (verdict == FAILS && out.errors <= 0)
        rmdir(folder), check_failed(__FILE__, __LINE__, "%s %s must fail, and does not", model,
                                    options);
}

static void holds(const char *model, const char *claim, const char *options)
{
    expect(HOLDS, model, claim, options, "");
}

static void fails(const char *model, const char *options)
{
    expect(FAILS, model, NULL, options, "");
}

/* ---- parking --------------------------------------------------------------------------------- */

TEST(no_post_waits_beside_a_sleeping_worker)
{
    models_or_skip();
    holds("park", NULL, "-DPOST");
}

TEST(no_spawned_task_waits_beside_a_sleeping_worker)
{
    models_or_skip();
    holds("park", NULL, "-DSPAWN");
    holds("park", NULL, "-DSPAWN -DPRODUCER_FENCES");
}

TEST(every_message_is_seen_by_its_worker)
{
    models_or_skip();
    holds("park", NULL, "-DSEND");
    holds("park", NULL, "-DSEND -DWEAK_RMW");
    holds("park", "sent", "-DSEND");
}

TEST(parking_needs_the_duties_of_those_who_search)
{
    models_or_skip();
    fails("park", "-DPOST -DNO_LAST_SEARCHER");
    fails("park", "-DPOST -DNO_EARLY_LEAVE");
    fails("park", "-DPOST -DNO_BACK_OUT_DUTY");
}

TEST(parking_needs_its_second_look_and_a_latched_wake)
{
    models_or_skip();
    fails("park", "-DPOST -DNO_RESCAN");
    fails("park", "-DPOST -DNO_LATCH");
}

TEST(parking_needs_membarrier_or_a_fence_in_the_producer)
{
    models_or_skip();
    fails("park", "-DSPAWN -DNO_MEMBARRIER");
    fails("park", "-DSPAWN -DPRODUCER_FENCES -DNO_PRODUCER_FENCE");
}

TEST(parking_needs_each_of_its_fences)
{
    models_or_skip();
    fails("park", "-DSEND -DWEAK_RMW -DNO_SENDER_FENCE");
    fails("park", "-DSEND -DWEAK_RMW -DNO_PARKER_FENCE");
    fails("park", "-DPOST -DWEAK_RMW -DNO_POSTER_FENCE");
    expect(FAILS, "park", NULL, "-DPOST -DWEAK_RMW -DNO_LEAVER_FENCE", "-DREVERSE");
}

/* ---- the loan -------------------------------------------------------------------------------- */

TEST(what_is_lent_is_touched_by_one_at_a_time_and_completions_get_through)
{
    models_or_skip();
    holds("loan", NULL, "-DROUNDS=0");
    holds("loan", NULL, "-DTHIEVES=1 -DCOMPLETIONS=2");
    holds("loan", NULL, "-DTHIEVES=1 -DWEAK_RMW");
    holds("loan", "dispatched", "-DTHIEVES=1");
}

TEST(the_loan_needs_the_marks_of_its_owner)
{
    models_or_skip();
    fails("loan", "-DNO_IN_RT_CHECK");
    fails("loan", "-DNO_ENTRY_CHECK");
    fails("loan", "-DNO_ENTRY_BARRIER");
}

TEST(the_loan_needs_to_be_taken_back_or_awaited)
{
    models_or_skip();
    fails("loan", "-DNO_TAKE_BACK");
    fails("loan", "-DNO_AWAIT");
    fails("loan", "-DNO_AWAITED");
    fails("loan", "-DNO_FUTEX_WAKE");
}

TEST(the_loan_needs_its_handler_to_fetch_and_to_wake_who_called)
{
    models_or_skip();
    expect(FAILS, "loan", "dispatched", "-DTHIEVES=1 -DNO_FETCH", "");
    fails("loan", "-DNO_CALLER_WAKE");
    fails("loan", "-DNO_LAST_LOOK");
    fails("loan", "-DNO_THIEF_FENCE");
    fails("loan", "-DTHIEVES=1 -DWEAK_RMW -DNO_HANDLER_FENCE");
}

/* ---- the wait word --------------------------------------------------------------------------- */

TEST(a_wait_is_ended_once_and_by_who_may_end_it)
{
    models_or_skip();
    holds("wait", NULL, "");
}

TEST(the_wait_word_needs_its_arm_number_and_its_swaps)
{
    models_or_skip();
    fails("wait", "-DNO_ARM_CHECK");
    fails("wait", "-DNO_UNTIL_RESET");
    expect(FAILS, "wait", NULL, "-DPLAIN_PARKED", "-DREVERSE");
    fails("wait", "-DALWAYS_READY");
}

TEST(the_wait_word_needs_the_flag_first_and_a_look_at_it)
{
    models_or_skip();
    fails("wait", "-DNO_FLAG_LOOK");
    fails("wait", "-DKICK_FIRST");
    fails("wait", "-DWEAK_RMW");
}
