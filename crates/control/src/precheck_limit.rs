//! How many checks before the start a project has under way: each of them holds connections to servers that somebody named.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Checks of one project at once; none waits for those of another.
pub const MAX_PRECHECKS: usize = 4;

/// Counts by project.
#[derive(Debug, Default)]
pub struct PrecheckLimit(Mutex<HashMap<String, usize>>);

/// One check; it counts until it is dropped.
#[derive(Debug)]
pub(crate) struct RunningPrecheck {
    all: Arc<PrecheckLimit>,
    project: String,
}

impl PrecheckLimit {
    fn counts(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Begins one; none when too many are under way.
    pub(crate) fn acquire(self: &Arc<Self>, project: &str) -> Option<RunningPrecheck> {
        let mut counts = self.counts();
        let count = counts.entry(project.to_owned()).or_default();
        if *count >= MAX_PRECHECKS {
            return None;
        }
        *count += 1;
        Some(RunningPrecheck { all: self.clone(), project: project.to_owned() })
    }
}

impl Drop for RunningPrecheck {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        if let Some(count) = counts.get_mut(&self.project) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.project);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_f14_prechecks_are_limited_per_project() {
        let checks = Arc::new(PrecheckLimit::default());
        let mut held: Vec<RunningPrecheck> = (0..MAX_PRECHECKS).filter_map(|_| checks.acquire("a")).collect();
        assert_eq!(held.len(), MAX_PRECHECKS);
        assert!(checks.acquire("a").is_none() && checks.acquire("b").is_some());
        held.pop();
        assert!(checks.acquire("a").is_some());
        held.clear();
        assert!(checks.counts().is_empty());
    }
}
