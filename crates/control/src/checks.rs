//! How many checks before the start a project has under way: each of them holds connections to servers that somebody named.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Checks of one project at once; none waits for those of another.
pub const CHECKS_MAX: usize = 4;

/// Counts by project.
#[derive(Debug, Default)]
pub struct Checks(Mutex<HashMap<String, usize>>);

/// One check; it counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Check {
    all: Arc<Checks>,
    project: String,
}

impl Checks {
    fn counts(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Begins one; none when too many are under way.
    pub(crate) fn begin(self: &Arc<Self>, project: &str) -> Option<Check> {
        let mut counts = self.counts();
        let count = counts.entry(project.to_owned()).or_default();
        if *count >= CHECKS_MAX {
            return None;
        }
        *count += 1;
        Some(Check { all: self.clone(), project: project.to_owned() })
    }
}

impl Drop for Check {
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
    fn sec_f14_checks_are_counted_by_project() {
        let checks = Arc::new(Checks::default());
        let mut held: Vec<Check> = (0..CHECKS_MAX).filter_map(|_| checks.begin("a")).collect();
        assert_eq!(held.len(), CHECKS_MAX);
        assert!(checks.begin("a").is_none() && checks.begin("b").is_some());
        held.pop();
        assert!(checks.begin("a").is_some());
        held.clear();
        assert!(checks.counts().is_empty());
    }
}
