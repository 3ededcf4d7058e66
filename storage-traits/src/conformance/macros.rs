//! The list of all cases, and how each becomes a test.

/// Makes one test of each case for a message pool; takes the name of a
/// [`PoolHarness`](crate::conformance::PoolHarness) in scope.
#[macro_export]
macro_rules! pool_conformance_tests {
    ($harness:ident) => {
        $crate::conformance_tests! { $harness, PoolHarness::pool, TestPool,
            messages: [
                ids_come_in_posting_order_without_gaps,
                the_text_of_ids_sorts_like_the_queue,
                a_message_is_kept_as_it_was_posted,
                bodies_are_kept_byte_by_byte,
                a_large_body_is_kept,
                a_large_batch_is_kept_in_order,
                posting_to_an_unknown_queue_is_refused,
                an_empty_queue_has_nothing,
                messages_are_got_in_the_order_asked_for,
                claimed_and_delayed_messages_are_got_by_id,
                at_its_expiry_a_message_is_gone_for_every_method,
                a_message_expires_out_of_the_middle,
                a_message_may_live_for_centuries,
                many_expired_messages_are_gone_at_once,
                a_delayed_message_appears_in_its_place_when_due,
                a_message_that_expires_before_it_is_due_is_never_served,
            ],
            listing: [
                pages_cover_everything_once,
                a_page_that_ends_with_the_queue_has_no_more,
                a_page_may_start_behind_a_deleted_message,
                a_page_may_start_anywhere,
                a_reader_at_the_end_finds_what_is_posted_later,
                a_client_does_not_see_what_it_hides,
                claimed_and_delayed_messages_are_listed_when_asked_for,
                hidden_messages_in_front_do_not_shorten_a_page,
                hidden_messages_in_between_do_not_shorten_a_page,
                hidden_messages_behind_a_page_are_no_more,
            ],
            deletes: [
                a_free_message_is_deleted,
                a_delayed_message_is_deleted,
                what_is_missing_is_missing_whatever_the_claim,
                a_claimed_message_stays_without_its_claim,
                a_claim_deletes_what_it_holds,
                a_claim_that_never_was_deletes_nothing,
                a_released_claim_deletes_nothing,
                a_lapsed_claim_deletes_nothing,
                a_claim_does_not_delete_a_free_message,
                a_claim_does_not_delete_what_another_holds,
                many_are_deleted_claimed_or_not,
                a_message_named_twice_is_deleted_once,
                many_are_deleted_with_the_claims_that_hold_them,
                one_wrong_claim_keeps_them_all,
            ],
            claims: [
                the_oldest_are_claimed_first,
                five_claims_of_ten_take_fifty_of_fifty_one,
                a_claim_tells_what_it_took,
                a_claimed_message_is_not_claimed_again,
                a_claim_of_nothing_is_not_recorded,
                delayed_messages_are_not_claimed,
                a_message_that_would_expire_first_lives_on_for_the_grace,
                an_extended_message_stays_extended,
                each_claim_raises_the_claim_count,
                a_claim_outlives_its_messages,
                a_limit_may_exceed_any_queue,
                many_lapsed_messages_are_free_at_once,
                many_messages_that_cannot_be_claimed_hide_none_that_can,
            ],
            leases: [
                a_claim_lapses_at_exactly_its_expiry,
                claims_lapse_one_by_one_into_their_old_places,
                a_lapsed_claim_stays_written_on_the_message,
                a_renewed_claim_starts_anew,
                a_renewal_may_shorten_a_claim,
                a_renewal_extends_messages_as_a_claim_does,
                an_emptied_claim_can_be_renewed,
                what_is_over_is_not_renewed,
                a_release_frees_at_once_and_leaves_no_trace,
                a_release_frees_nothing_of_other_claims,
                releasing_what_is_gone_succeeds,
                a_late_release_changes_nothing,
            ],
            dead_letters: [
                a_message_claimed_too_often_is_moved,
                the_rule_may_set_the_ttl,
                without_a_ttl_in_the_rule_the_message_keeps_its_own,
                what_is_moved_keeps_its_order_and_can_be_claimed,
                a_message_under_a_claim_is_not_moved,
                a_lapsed_message_is_moved,
                a_count_beyond_the_maximum_is_moved,
                a_maximum_of_zero_moves_at_once,
                others_are_handed_out_by_the_same_claim,
                a_claim_that_is_full_moves_nothing_more,
                many_dead_letters_in_front_hide_no_free_message,
                an_expired_message_is_not_moved,
                an_unknown_dead_letter_queue_refuses_the_whole_claim,
                an_unknown_dead_letter_queue_is_refused_though_nothing_is_due,
                a_rule_that_names_the_queue_itself_does_nothing,
                without_a_rule_nothing_is_moved,
            ],
            deduplication: [
                a_second_post_with_an_id_answers_the_first,
                an_id_is_free_again_after_its_window,
                a_duplicate_does_not_open_the_window_anew,
                a_batch_may_hold_new_and_old,
                duplicates_within_a_batch_are_stored_once,
                what_was_deleted_is_still_a_duplicate,
                queues_and_lives_compare_their_own_ids,
                ids_are_compared_exactly,
                many_windows_close_at_once,
            ],
            schedules: [
                a_scheduled_message_is_claimed_at_its_time,
                the_ttl_of_a_scheduled_message_counts_from_its_time,
                a_schedule_in_the_past_means_now,
                scheduled_messages_are_listed_by_themselves,
                a_scheduled_message_can_be_cancelled,
                a_scheduled_message_can_be_moved,
                a_message_moved_to_the_past_is_visible_at_once,
                what_is_visible_is_not_moved,
                what_is_gone_is_not_moved,
            ],
            acknowledgements: [
                what_is_done_is_gone,
                what_failed_is_free_at_once,
                what_failed_waits_for_its_retry,
                a_retry_beyond_the_expiry_never_comes,
                the_rest_of_the_claim_stays,
                each_acknowledgement_stands_by_itself,
                of_a_message_named_twice_the_first_counts,
                a_claim_that_is_over_acknowledges_nothing,
                a_failure_counts_towards_dead_letters,
            ],
            wake_ups: [
                a_post_wakes_a_claimer,
                what_can_be_claimed_already_wakes_a_claimer,
                a_post_wakes_every_reader,
                a_batch_wakes_as_many_claimers_as_it_feeds,
                an_idle_queue_wakes_nobody,
                a_post_to_another_queue_wakes_nobody,
                a_release_wakes_a_claimer,
                a_failure_wakes_a_claimer,
                the_end_of_a_delay_wakes_a_claimer,
                a_delay_that_is_posted_while_it_waits_wakes_a_claimer,
                a_lapsed_claim_wakes_a_claimer,
                a_dropped_queue_wakes_its_watches,
                claimers_that_wait_get_every_message,
            ],
            pops: [
                the_oldest_are_popped_first_and_are_gone,
                claimed_and_delayed_messages_are_not_popped,
                what_is_free_again_is_popped,
                popping_leaves_claims_alone,
            ],
            stats: [
                counts_follow_every_step,
                counts_follow_expiry_and_lapse,
                many_are_settled_at_once,
                delayed_messages_are_counted_as_free,
                the_ends_are_the_first_and_the_last_message,
                the_ends_move_when_messages_go,
            ],
            maintenance: [
                opening_an_open_queue_changes_nothing,
                an_unknown_queue_is_empty,
                a_dropped_queue_is_forgotten_at_once,
                a_dropped_queue_stays_dropped_in_its_life,
                dropping_what_is_unknown_succeeds,
                a_new_life_has_nothing_of_the_old_one,
                a_purge_deletes_all_but_what_is_claimed,
                a_purge_deletes_what_a_lapsed_claim_held,
                a_purge_of_many_deletes_all,
                a_purge_leaves_no_position_to_be_used_again,
                a_sweep_ends_and_touches_nothing_alive,
                a_sweep_changes_no_answer,
                a_sweep_clears_dropped_queues_only,
                expired_messages_are_counted,
                dead_letters_are_counted,
                a_working_pool_passes_its_check,
                a_closed_pool_refuses,
            ],
            isolation: [
                queues_share_no_messages,
                projects_share_no_messages,
                the_id_of_another_queue_finds_nothing,
                the_claim_of_another_queue_does_nothing,
                queues_may_use_the_same_claim_id,
                dropping_a_queue_leaves_the_others,
            ],
            races: [
                claimers_get_each_message_once,
                no_claimer_goes_away_empty_while_messages_are_free,
                poppers_get_each_message_once,
                claimers_and_poppers_share_nothing,
                a_reader_by_position_misses_nothing,
                one_of_many_deletes_succeeds,
                one_of_many_ends_a_message,
                a_lapsed_message_goes_to_one_claimer,
                dead_letters_are_moved_once,
                a_purge_counts_what_it_took_from_posters,
                a_purge_spares_what_is_posted_after_it_began,
                no_message_is_out_of_sight_while_it_changes_hands,
                many_may_open_a_queue,
                of_many_posts_with_an_id_one_is_stored,
                an_acknowledgement_counts_once,
            ],
            model: [every_answer_is_that_of_the_reference],
        }
    };
}

/// Makes one test of each case for a catalog; takes the name of a
/// [`CatalogHarness`](crate::conformance::CatalogHarness) in scope.
#[macro_export]
macro_rules! catalog_conformance_tests {
    ($harness:ident) => {
        $crate::conformance_tests! { $harness, CatalogHarness::catalog, TestCatalog,
            queues: [
                a_queue_is_created_once,
                a_created_queue_can_be_read,
                metadata_are_kept_exactly,
                projects_and_names_are_compared_exactly,
                an_update_replaces_the_metadata,
                an_update_of_what_was_changed_is_a_conflict,
                an_update_of_what_was_deleted_is_refused,
                an_update_of_an_earlier_life_is_refused,
                a_delete_answers_what_was_there,
                each_life_has_its_own_incarnation,
                a_working_catalog_passes_its_check,
                a_closed_catalog_refuses,
            ],
            queue_lists: [
                a_project_without_queues_lists_nothing,
                queues_are_listed_in_byte_order,
                pages_cover_everything_once,
                a_page_may_start_behind_any_text,
                a_name_filter_is_plain_text,
                a_metadata_filter_compares_values,
                any_key_can_be_filtered_by,
                all_filters_hold_at_once,
                a_filtered_page_is_full_while_more_match,
                projects_see_only_their_own,
                deleted_queues_are_not_listed_or_counted,
            ],
            changes: [
                the_feed_starts_at_the_present,
                updates_and_deletions_are_fed_in_order,
                a_reader_goes_on_where_it_stopped,
                many_changes_come_in_pieces,
            ],
            queue_races: [
                one_of_many_creators_sees_a_new_queue,
                one_of_many_updates_wins,
                counting_together_loses_no_step,
                one_of_many_deletes_finds_the_queue,
                a_follower_of_the_feed_misses_nothing,
            ],
        }
    };
}

/// The part that both macros share.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($harness:ident, $trait:ident :: $store:ident, $fixture:ident,
     $($group:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        $(mod $group {
            use super::$harness;
            use $crate::conformance::{$fixture, $trait, $group};

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                let harness = <$harness as $trait>::start().await;
                $group::$case(&$fixture::new(harness.$store())).await;
            })*
        })*
    };
}
