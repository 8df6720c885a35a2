//! The target's history is the source's: a writer whose every step leads to a state of its own, a migration that is killed, cut
//! off, held up, doubled and led to other servers, and a reader that sees one state of the target after another.
//!
//! Every state that the reader sees while the stream is followed must be one that the source had, no earlier than the one
//! before it, with the expiries that keys had then; the end must be equal. While a snapshot is applied, the target's checkpoint
//! says so, and states are not compared. The source's backlog holds everything from its beginning, also behind a failover: a
//! second snapshot, behind which deleted keys may remain, is wrong, too.
//!
//! `WHIMBREL_HISTORY_SEED=N cargo test -p redis_migration --test history` repeats what is drawn for one run; when things happen is
//! not repeated. `cargo x soak history` makes 1,000 runs.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by panicking; its writer and reader are threads of their own, and pauses are faults"
)]

mod ends;
mod link;
mod model;
mod pair;
mod planted;
mod run;
#[allow(dead_code, reason = "shared with the tests in `main.rs`")]
#[path = "../support.rs"]
mod support;

use std::time::Instant;

use planted::Planted;

/// Runs of the ordinary test.
const RUNS: u64 = 12;
/// Runs of the soak, unless `WHIMBREL_HISTORY_RUNS` says otherwise.
const SOAK_RUNS: u64 = 1000;
/// Runs within which a planted fault must be found.
const PLANTED_RUNS: u64 = 50;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn no_run_has_an_anomaly(first: u64, count: u64) {
    let (began, mut compared, mut steps, mut troubles) = (Instant::now(), 0, 0, 0);
    for seed in first..first + count {
        let (report, done) = run::run(seed, None).await;
        assert!(done.is_ok(), "seed {seed}: {}\n{report:?}", done.unwrap_err());
        assert!(report.compared > 10, "seed {seed} compared nothing: {report:?}");
        compared += report.compared;
        steps += report.steps;
        troubles += report.troubles.len();
        if (seed - first) % 50 == 49 {
            println!("{} runs, {compared} states compared", seed - first + 1);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} runs from {first} on in {seconds:.1} s: {steps} steps, {troubles} faults, {compared} states compared, no anomaly"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_shows_only_states_that_the_source_had() {
    match number("WHIMBREL_HISTORY_SEED") {
        Some(seed) => no_run_has_an_anomaly(seed, 1).await,
        None => no_run_has_an_anomaly(0, RUNS).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: cargo x soak history"]
async fn soak_target_shows_only_states_of_the_source_in_1000_runs() {
    let first = number("WHIMBREL_HISTORY_FIRST").unwrap_or(0);
    no_run_has_an_anomaly(first, number("WHIMBREL_HISTORY_RUNS").unwrap_or(SOAK_RUNS)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_faults_are_detected() {
    for planted in Planted::ALL {
        let mut found = None;
        for seed in 0..PLANTED_RUNS {
            if let (_, Err(what)) = run::run(seed, Some(planted)).await {
                found = Some((seed + 1, what));
                break;
            }
        }
        let (runs, what) =
            found.unwrap_or_else(|| panic!("{planted:?} was not found in {PLANTED_RUNS} runs"));
        println!("{planted:?}: found in run {runs}: {what:.200}");
    }
}
