//! Propagating deletions: what stands at the target and not at the source is removed, each key only after the
//! source has said once more that it does not have it.

use std::sync::Arc;

use model::count::{Counters, Tally};
use model::failure::{Failure, Kind, Result, Side};
use model::key::Key;
use model::selection::Scope;
use storage::{Entry, ObjectStore};
use store::{Checkpoint, Pass, RangeRow};
use tokio::task::JoinSet;

use crate::feed::Feed;
use crate::glob::Filter;
use crate::job::Job;
use crate::ledger::{Ledger, Report};
use crate::outcome::{self, Outcome};
use crate::records;

/// Removals at once.
const AT_ONCE: usize = 32;

/// The ends of a removal, and which keys it may touch.
struct Pruning {
    source: Arc<dyn ObjectStore>,
    target: Arc<dyn ObjectStore>,
    filter: Filter,
    /// Keys at the target begin with this, keys at the source do not.
    save_prefix: String,
    remove: bool,
}

/// Lists the target and finds what the source does not have; `remove` also removes it. Answers how much that is.
///
/// # Errors
/// When a side cannot be listed or asked, or a removal fails.
pub async fn prune(
    source: Arc<dyn ObjectStore>,
    target: Arc<dyn ObjectStore>,
    filter: Filter,
    remove: bool,
) -> Result<Tally> {
    let pruning = Arc::new(Pruning { source, target, filter, save_prefix: String::new(), remove });
    let scope = Scope::Prefix(String::new());
    let mut pages = Feed::list(pruning.target.clone(), &scope, "", Key::default(), Side::Target);
    let mut pruned = Tally::default();
    while let Some(page) = pages.next().await {
        for (_, size) in pruning.page(page?.entries).await? {
            pruned += Tally::one(size);
        }
    }
    Ok(pruned)
}

impl Pruning {
    /// What of a page the source does not have, by its key at the source, with its size.
    async fn page(self: &Arc<Self>, entries: Vec<Entry>) -> Result<Vec<(Key, u64)>> {
        let mut under_way: JoinSet<Result<Option<(Key, u64)>>> = JoinSet::new();
        let mut found = Vec::new();
        let mut entries = entries.into_iter();
        loop {
            while under_way.len() < AT_ONCE {
                let Some(entry) = entries.next() else { break };
                let Some(bare) = entry.key.as_bytes().strip_prefix(self.save_prefix.as_bytes()) else {
                    continue;
                };
                if records::is_record(entry.key.as_bytes()) || !self.filter.keeps(bare) {
                    continue;
                }
                let (this, key) = (self.clone(), Key::new(bare));
                under_way.spawn(async move { this.one(key, entry).await });
            }
            match under_way.join_next().await {
                None => return Ok(found),
                Some(Err(e)) => return Err(Failure::new(Kind::Internal, "delete", e.to_string())),
                Some(Ok(one)) => found.extend(one?),
            }
        }
    }

    async fn one(&self, key: Key, there: Entry) -> Result<Option<(Key, u64)>> {
        match self.source.head(&key, None).await {
            Ok(_) => Ok(None),
            // A name that the source could never hold is not there either.
            Err(f) if matches!(f.kind, Kind::NotFound | Kind::KeyRefused) => {
                if self.remove {
                    self.target.delete(&there.key).await.map_err(|f| f.at(Side::Target))?;
                }
                Ok(Some((key, there.size)))
            }
            Err(f) => Err(f.at(Side::Source)),
        }
    }
}

impl Job {
    /// The last pass of a task that propagates deletions. It has ranges of its own, so that it goes on after an
    /// interruption and its counts are exact.
    pub(crate) async fn prune(&self, ledger: &Ledger) -> Result<()> {
        let task = &self.task;
        let mut rows = self.store.read().await?.ranges(task.id, Pass::Prune).await?;
        if rows.is_empty() {
            rows = self.begin(Pass::Prune, 2_000_000_000).await?;
        }
        let pruning = Arc::new(Pruning {
            source: self.source.clone(),
            target: self.target.clone(),
            filter: Filter::new(&task.spec.include, &task.spec.exclude),
            save_prefix: task.spec.save_prefix.clone(),
            remove: !task.spec.beyond.dry_run,
        });
        for row in rows.into_iter().filter(|r| !r.done) {
            self.prune_range(ledger, &pruning, row).await?;
        }
        Ok(())
    }

    async fn prune_range(&self, ledger: &Ledger, pruning: &Arc<Pruning>, row: RangeRow) -> Result<()> {
        let save = &pruning.save_prefix;
        let prefix = format!("{save}{}", row.scope.prefix());
        let after = if row.cursor.is_empty() { Key::default() } else { row.cursor.under(save) };
        let scope = Scope::Prefix(row.scope.prefix().to_owned());
        let mut pages = Feed::list(pruning.target.clone(), &scope, &prefix, after, Side::Target);
        let (mut cursor, mut counters) = (row.cursor.clone(), row.counters);
        loop {
            let page = tokio::select! {
                page = pages.next() => page,
                () = self.stop.cancelled() => {
                    return Err(Failure::new(Kind::Stopped, "delete", "the task is stopping"));
                }
            };
            let (done, mut lines) = (page.is_none(), String::new());
            if let Some(page) = page {
                let mut entries = page?.entries;
                if let Scope::Key(only) = &row.scope {
                    entries.retain(|e| e.key == Key::from(only.as_str()).under(save));
                }
                let last = entries.last().map(|e| Key::new(&e.key.as_bytes()[save.len()..]));
                for (key, size) in pruning.page(entries).await? {
                    let gone = |c: &mut Counters| match pruning.remove {
                        true => c.deleted += Tally::one(size),
                        false => c.skipped += Tally::one(size),
                    };
                    let outcome =
                        if pruning.remove { Outcome::Deleted } else { Outcome::Skipped("would be deleted") };
                    gone(&mut counters);
                    self.progress.settled(gone);
                    if self.task.spec.record_outcomes {
                        outcome::line(&mut lines, &outcome, &key, size, 0);
                    }
                }
                cursor = last.unwrap_or(cursor);
            }
            let checkpoint = Checkpoint {
                id: row.id,
                fence: self.fence,
                cursor: cursor.clone(),
                ahead: vec![],
                done,
                counters,
            };
            ledger.report(Report { lines, ..Report::only(checkpoint) }).await?;
            if done {
                return Ok(());
            }
        }
    }
}
