//! Detects listings that repeat themselves.

use std::collections::{HashSet, VecDeque};

use model::error::Result;
use model::key::Key;
use storage::{Page, Position};

use super::{REMEMBERED_PAGES, out_of_order};

/// Notices a circle of tokens with one token in hand (Brent's algorithm).
#[derive(Debug, Default)]
pub(super) struct CycleDetector {
    kept: Option<Position>,
    steps: u64,
}

impl CycleDetector {
    pub(super) fn step(&mut self, next: Option<&Position>) -> Result<()> {
        if next.is_some() && next == self.kept.as_ref() {
            return Err(out_of_order("the continuation tokens of the listing repeat".into()));
        }
        self.steps += 1;
        if self.steps.is_power_of_two() {
            self.kept = next.cloned();
        }
        Ok(())
    }
}

/// The keys of the last pages.
#[derive(Debug, Default)]
pub(super) struct RecentKeys {
    pages: VecDeque<Vec<Key>>,
    pub(super) keys: HashSet<Key>,
}

impl RecentKeys {
    pub(super) fn remove_duplicates(&mut self, page: &mut Page) {
        page.entries.retain(|e| self.keys.insert(e.key.clone()));
        self.pages.push_back(page.entries.iter().map(|e| e.key.clone()).collect());
        if self.pages.len() > REMEMBERED_PAGES {
            for key in self.pages.pop_front().unwrap_or_default() {
                self.keys.remove(&key);
            }
        }
    }
}
