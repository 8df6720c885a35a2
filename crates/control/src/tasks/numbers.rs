//! Counters, progress and speed of a task, as every face shows them.

use model::count::{Counters, Tally};
use model::task::Visible;

use super::TaskView;

/// What a task has settled and how long it may still take (oms.md §4.13).
#[derive(Clone, Debug)]
pub struct TaskNumbers {
    /// Objects of the source that are known so far.
    pub total_num: u64,
    /// Objects that were copied.
    pub successful: u64,
    /// Objects that failed.
    pub failed: u64,
    /// Objects that were skipped.
    pub skipped: u64,
    /// Bytes of the source that are known so far.
    pub total_size: u64,
    /// Bytes of copied and skipped objects.
    pub complete_size: u64,
    /// Bytes to copy.
    pub real_size: u64,
    /// 0 to 1.
    pub progress: f64,
    /// Bytes per second: recently while it runs, else on average.
    pub speed: u64,
    /// Milliseconds that it still takes at this speed; 0: not known.
    pub left_ms: i64,
    /// Milliseconds that it has run.
    pub total_ms: i64,
    /// Everything is counted.
    pub precount_done: bool,
}

impl TaskView {
    /// What is settled, what is counted, and whether the count is complete: live where the task runs in this process.
    pub fn settled(&self) -> (Counters, Tally, bool) {
        let task = &self.task;
        match &self.live {
            Some(live) => (live.settled, live.precounted, live.precount_done || task.precount_done),
            None => (task.counters, task.precounted, task.precount_done),
        }
    }

    /// The numbers at an instant, milliseconds.
    pub fn numbers(&self, now: i64) -> TaskNumbers {
        let task = &self.task;
        let (settled, precounted, precount_done) = self.settled();
        // Objects that were gone when they were read are no longer part of the source.
        let done = settled.copied + settled.skipped + settled.failed;
        let ended = matches!(task.state.visible(), Visible::Failed | Visible::Succeeded);
        let total_num = if ended { done.objects } else { done.objects.max(precounted.objects) };
        let total_size = if ended { done.bytes } else { done.bytes.max(precounted.bytes) };
        let complete_size = settled.copied.bytes + settled.skipped.bytes;
        let progress = match (task.state.visible(), total_size) {
            (Visible::Succeeded, _) => 1.0,
            (_, 0) if total_num == 0 => {
                if ended {
                    1.0
                } else {
                    0.0
                }
            }
            // Of a list by the number of its keys (oms.md §4.13).
            _ if task.spec.selection.list_file().is_some() => {
                (done.objects as f64 / total_num as f64).min(1.0)
            }
            (_, 0) => done.objects as f64 / total_num as f64,
            (_, total) => (complete_size as f64 / total as f64).min(1.0),
        };
        let running = matches!(task.state.visible(), Visible::Running | Visible::Pausing);
        let this_run = if running { task.started_at.map_or(0, |s| (now - s).max(0)) } else { 0 };
        let total_ms = task.running_ms + this_run;
        let speed = match &self.live {
            Some(live) => live.speed.max(0.0) as u64,
            None if total_ms > 0 => settled.copied.bytes * 1000 / total_ms.unsigned_abs().max(1),
            None => 0,
        };
        let left = total_size.saturating_sub(complete_size);
        let left_ms = if running && speed > 0 { i64::try_from(left * 1000 / speed).unwrap_or(0) } else { 0 };
        TaskNumbers {
            total_num,
            successful: settled.copied.objects,
            failed: settled.failed.objects,
            skipped: settled.skipped.objects,
            total_size,
            complete_size,
            real_size: total_size.saturating_sub(settled.skipped.bytes),
            progress,
            speed,
            left_ms,
            total_ms,
            precount_done: precount_done || ended,
        }
    }
}
