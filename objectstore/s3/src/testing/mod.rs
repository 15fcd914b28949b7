//! What engines are tested with: a server that answers what a test says, an instance's metadata service, and real servers.
//!
//! Each function of [`behaviour`], [`secrets`] and [`server`] is a test; [`engine_tests!`](crate::engine_tests) makes them
//! tests of an engine's crate.
#![cfg_attr(
    not(test),
    expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine")
)]
#![allow(missing_docs, reason = "a test's name says what it shows")]

#[cfg(feature = "testing")]
pub mod behaviour;
pub(crate) mod ear;
#[cfg(feature = "testing")]
pub mod secrets;
#[cfg(feature = "testing")]
pub mod server;
pub mod stub;

/// Makes tests of an engine: `engine_tests!(behaviour, Engine::new; one_test another_test)`.
#[macro_export]
macro_rules! engine_tests {
    ($place:ident, $make:path; $($name:ident)*) => {
        $(#[test]
        fn $name() {
            $crate::testing::$place::$name($make);
        })*
    };
}

/// All of [`behaviour`] and [`secrets`], against servers that are made up: `behaves!(Engine::new)`.
#[macro_export]
macro_rules! behaves {
    ($make:path) => {
        $crate::engine_tests!(behaviour, $make;
            a_stumbling_server_is_asked_again
            a_conditional_put_is_not_repeated_blindly
            a_conditional_put_is_repeated_where_nothing_was_done
            a_conditional_put_without_a_connection_is_soon_given_up
            refusals_are_final_and_quote_the_server
            a_hanging_server_costs_an_attempt_and_then_the_call
            a_server_that_stops_reading_is_given_up
            a_server_that_stops_sending_is_given_up
            a_failed_multipart_upload_is_aborted
            what_has_time_takes_it_after_a_stall_too
            an_error_behind_a_200_completes_nothing
            foreign_keys_in_a_listing_are_left_out
            a_conditional_upload_is_completed_on_its_condition
            ranges_are_held_to_their_length
            a_server_that_is_not_there_is_a_passing_fault
            an_instance_role_signs_and_is_renewed_when_the_store_calls_it_expired
            without_credentials_the_error_names_every_place_in_order
            what_is_put_has_a_checksum_and_is_encrypted_as_the_url_says
            the_host_names_the_bucket_where_the_url_says_so
            a_read_that_hangs_is_asked_twice_once_there_is_credit
            stale_uploads_of_the_prefix_are_aborted_and_no_others
        );
        $crate::engine_tests!(secrets, $make; nothing_secret_is_logged_or_shown_of_requests);
    };
}

/// All of [`server`], against real servers: `serves!(Engine::new)`.
#[macro_export]
macro_rules! serves {
    ($make:path) => {
        $crate::engine_tests!(server, $make;
            s3s_fs_keeps_the_contract
            moto_keeps_the_contract
            futures_may_be_polled_outside_of_tokio
            a_wrong_secret_and_a_missing_bucket_are_refused
        );
    };
}
