//! SIGKILL and Ctrl-C, short forms of the long proofs in `soak`.

use crate::soak;

#[test]
fn c12_a_copy_that_is_killed_leaves_no_upload_and_exact_counters() {
    soak::kill_storm(6, 3_000, 2, 1);
}

#[test]
fn stopped_a_few_times_it_repeats_nothing() {
    soak::stop_storm(6, 4_000, 2, 7);
}

#[test]
fn a_list_of_keys_survives_kills_in_bounded_memory() {
    soak::list_storm(20_000, 4, 1);
}
