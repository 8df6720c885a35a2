//! SIGKILL and stop requests while objects are copied: the short forms of the soaks in `soak`.

use std::time::Duration;

use crate::soak::{self, Load};

#[test]
fn c12_killed_copy_leaves_no_upload_and_exact_counters() {
    soak::copy_through_kills(&Load {
        small_objects: 3_000,
        large_objects: 2,
        response_delay: Duration::from_millis(1),
        interruptions: 6,
        max_run: Duration::from_millis(900),
        seed: 1,
    });
}

#[test]
fn stopped_task_writes_no_finished_object_again() {
    soak::copy_through_stops(&Load {
        small_objects: 4_000,
        large_objects: 2,
        response_delay: Duration::from_millis(1),
        interruptions: 6,
        max_run: Duration::from_millis(700),
        seed: 7,
    });
}

#[test]
fn key_list_copy_through_kills_is_complete_in_bounded_memory() {
    soak::copy_key_list_through_kills(20_000, 4, 1, 50..900);
}

/// Each stop reads at most what was under way a second time, so three stops read less than the objects a second time.
#[test]
fn c13_stops_of_large_objects_do_not_read_all_bytes_again() {
    let more = soak::stops_of_large(3, 4, 96 << 20);
    assert!(more < 1.0, "{more}");
}
