/* SPDX-License-Identifier: MIT */
/*
 * canary_test.c -- bugs planted in reeve's own code, each of which the explorer must find.
 *
 * canaries.cmake plants them; each makes another executable of a test beside this file. Here that
 * runs, one claim of it, which must fail by what the explorer found, and by nothing else. How it
 * was found (with so many preemptions and delays, after so many executions) is printed.
 */
#define CHECK_MAIN
#include "tests/check.h"

static const struct {
    const char *name, *executable, *file;
    int planted;
} canaries[] = {
#include "canaries.inc"
    { NULL, NULL, NULL, 0 },
};

static void found(const char *name, const char *test)
{
    char command[1024], line[1024];
    size_t i = 0, n = sizeof canaries / sizeof canaries[0] - 1;
#if defined(__SANITIZE_THREAD__)
    SKIP("models do not run under ThreadSanitizer");
#endif
    while (i < n && strcmp(canaries[i].name, name) != 0)
        i++;
    CHECK(i < n);
    if (!canaries[i].planted)
        check_failed(canaries[i].file, 0, "does not hold what the canary %s changes", name);
    snprintf(command, sizeof command, "EXPLORE_ALL=1 '%s' %s 2>&1", canaries[i].executable, test);
    FILE *run = popen(command, "r");
    CHECK(run != NULL);
    bool said = false;
    while (fgets(line, sizeof line, run))
        if (strncmp(line, "explore: ", 9) == 0 && strstr(line, ": found")) {
            said = true;
            fputs(line, stderr);
        }
    int status = pclose(run);
    CHECK(WIFEXITED(status));
    if (!said || WEXITSTATUS(status) != 1)
        check_failed(canaries[i].file, 0, "the canary %s was not found (exit status %d)", name,
                     WEXITSTATUS(status));
}

TEST(a_deque_whose_owner_does_not_fence_is_found)
{
    found("deque_pop_without_fence", "a_pop_gives_what_was_seen_or_nothing");
}

TEST(a_deque_whose_owner_does_not_swap_for_the_last_entry_is_found)
{
    found("deque_last_entry_without_swap", "the_last_entry_goes_to_one_of_them");
}

TEST(a_thief_that_does_not_look_again_is_found)
{
    found("runq_steal_without_swap", "an_entry_comes_out_once_whoever_takes_it");
}

TEST(a_thief_that_copies_after_its_swap_is_found)
{
    found("runq_steal_copies_too_late", "a_slot_is_not_used_again_before_its_thief_has_read_it");
}

TEST(an_inbox_that_loses_a_message_is_found)
{
    found("inbox_lost_message", "every_message_comes_once_in_its_senders_order");
}

TEST(a_lock_released_without_a_wake_is_found)
{
    found("lock_release_without_wake", "one_holds_it_and_whoever_sleeps_is_woken");
}

TEST(a_lock_that_two_can_hold_is_found)
{
    found("lock_taken_by_two", "one_holds_it_and_whoever_sleeps_is_woken");
}

TEST(a_parker_that_does_not_fence_is_found)
{
    found("park_without_fence", "a_message_wakes_the_worker_that_it_is_for_with_store_buffers");
}

TEST(a_parker_that_does_not_look_again_is_found)
{
    found("park_without_looking_again", "a_post_from_outside_wakes_a_sleeper");
}

TEST(a_parker_that_fences_only_itself_is_found)
{
    found("park_without_membarrier", "stealable_work_is_found_when_only_parkers_fence");
}

TEST(a_producer_that_does_not_fence_is_found)
{
    found("notify_without_fence", "stealable_work_is_found_with_store_buffers");
}

TEST(a_last_searcher_that_leaves_silently_is_found)
{
    found("last_searcher_leaves_silently", "two_posts_wake_two_workers");
}

TEST(a_searcher_that_computes_before_it_says_so_is_found)
{
    found("search_left_after_the_task", "two_posts_wake_two_workers");
}

TEST(a_sleeper_claimed_by_two_wakers_is_found)
{
    found("claim_without_swap", "two_messages_wake_their_worker_once_each");
}

TEST(a_parking_task_that_ignores_its_cancellation_is_found)
{
    found("parked_without_looking_at_the_flag", "a_cancellation_ends_the_wait_whenever_it_comes");
}

TEST(a_parking_task_that_overwrites_its_waker_is_found)
{
    found("parked_over_fired", "a_waker_ends_the_wait_whenever_it_comes");
}

TEST(a_waker_that_ends_the_wrong_wait_is_found)
{
    found("fire_without_arm_number", "a_late_token_does_not_end_the_next_wait");
}

TEST(a_task_that_ends_without_its_joiner_is_found)
{
    found("done_without_joiner", "a_join_gets_the_result_of_a_child_elsewhere");
}

TEST(a_late_canceller_that_ignores_the_generation_is_found)
{
    found("cancel_without_generation", "a_cancel_while_the_child_ends_meets_nobody_else");
}

TEST(a_child_that_links_itself_too_late_is_found)
{
    found("link_without_looking_at_the_scope", "a_cancellation_finds_what_waits_below");
}

TEST(a_child_counted_out_twice_is_found)
{
    found("scope_left_without_its_last_child", "a_group_ends_with_its_last_member");
}

TEST(a_called_waiter_that_leaves_a_free_mutex_is_found)
{
    found("mutex_called_leaves_it_free", "who_leaves_at_its_deadline_leaves_no_gap");
}

TEST(a_waiter_for_a_mutex_that_does_not_look_again_is_found)
{
    found("mutex_queued_without_another_look", "one_task_holds_it_and_the_next_gets_it");
}

TEST(a_sender_that_does_not_look_again_is_found)
{
    found("chan_full_without_another_look", "elements_pass_a_slot_in_order");
}

TEST(a_receiver_that_does_not_look_again_is_found)
{
    found("chan_empty_without_another_look", "elements_pass_a_slot_in_order");
}

TEST(a_sender_that_serves_who_has_given_up_is_found)
{
    found("chan_serves_who_gave_up", "an_element_is_not_lost_to_a_receiver_that_gives_up");
}

TEST(a_stranger_who_draws_an_old_ticket_is_found)
{
    found("grace_without_another_look_at_the_phase",
          "a_scheduler_outlives_the_strangers_who_found_its_tasks");
}

TEST(a_select_that_does_not_look_again_is_found)
{
    found("select_queues_what_became_ready", "a_select_takes_one_of_two");
}

TEST(an_owner_that_does_not_ask_for_its_loan_back_is_found)
{
    found("loan_not_asked_back", "owner_and_holder_are_never_both_in");
}

TEST(an_owner_that_does_not_await_its_holder_is_found)
{
    found("loan_not_awaited", "owner_and_holder_are_never_both_in");
}

TEST(a_loan_given_in_the_middle_of_reeve_code_is_found)
{
    found("loan_given_in_reeve_code", "owner_and_holder_are_never_both_in");
}

TEST(a_loan_that_ends_without_a_wake_is_found)
{
    found("loan_ended_without_wake", "owner_and_holder_are_never_both_in");
}

TEST(a_loan_offered_to_a_sleeper_is_found)
{
    found("loan_offered_to_a_sleeper", "a_loan_is_taken_by_who_has_gone_to_sleep");
}

TEST(a_pool_that_takes_what_came_back_in_two_steps_is_found)
{
    found("pool_back_taken_in_two_steps", "what_strangers_return_has_one_owner");
}

TEST(a_pool_that_takes_room_in_two_steps_is_found)
{
    found("pool_room_taken_in_two_steps", "never_more_lie_idle_than_allowed");
}

TEST(a_pool_that_collects_without_its_lock_is_found)
{
    found("pool_collected_without_lock", "what_comes_back_is_taken_by_one");
}

TEST(a_pool_whose_workers_give_without_its_lock_is_found)
{
    found("pool_given_without_lock", "what_workers_exchange_through_the_depot_has_one_owner");
}

TEST(an_account_that_is_closed_without_a_swap_is_found)
{
    found("bias_closed_without_swap", "what_one_other_returns_is_over_once");
}

TEST(a_table_that_believes_a_miss_at_once_is_found)
{
    found("table_miss_believed_at_once", "what_is_there_is_found_while_its_set_moves");
}

TEST(a_table_that_shows_its_sides_in_the_other_order_is_found)
{
    found("table_sides_in_the_other_order", "one_of_two_is_found_while_one_replaces_the_other");
}

TEST(a_table_that_pins_an_entry_that_has_ended_is_found)
{
    found("table_ended_entry_pinned", "one_of_two_is_found_while_one_replaces_the_other");
}

TEST(a_table_that_reads_outside_of_a_section_is_found)
{
    found("table_read_without_a_section", "nothing_is_freed_that_a_reader_can_still_see");
}
