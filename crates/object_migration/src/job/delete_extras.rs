//! Propagating deletions: what stands at the target and not at the source is removed, each key only after the
//! source has said once more that it does not have it.
//!
//! What a page condemns is in the ledger before the first of it is removed: whatever interrupts a removal, the
//! counts are exact, and each key that went has its line.

mod range;

use std::sync::Arc;

use flow_control::clock::SharedClock;
use model::count::Tally;
use model::error::{Error, Kind, Policy, Result, Side};
use model::key::Key;
use model::selection::Scope;
use storage::{Entry, ObjectStore};
use store::{Pass, RangeRow};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::glob::Filter;
use crate::job::{Job, MAX_LISTINGS};
use crate::ledger::Ledger;
use crate::listed_keys::ListedKeys;
use crate::listing::lister::{fall_back_to_weaker_order, is_listed};
use crate::report::records;
use crate::verify::{Comparison, Depth, Difference};
use key_spool::KeySpool;
use range::DeletionRange;

/// Questions or removals at once.
const MAX_CONCURRENT: usize = 32;
/// Refused removals that are kept before they are counted.
const MAX_HELD_REFUSALS: usize = 10_000;
/// Removals between two looks at whether the source is there.
const BATCH_KEYS: usize = 100;

/// The ends of a removal, and which keys it may touch.
struct ExtraDeletion {
    source: Arc<dyn ObjectStore>,
    target: Arc<dyn ObjectStore>,
    filter: Filter,
    /// Keys at the target begin with this, keys at the source do not.
    save_prefix: String,
    /// Some keys that the source has listed in this run.
    witnesses: Vec<Key>,
    /// All that the copy pass of this run has settled.
    listed: Option<Arc<ListedKeys>>,
}

/// A key at the source's name that only the target has, and its size there, bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ExtraObject {
    key: Key,
    size: u64,
}

/// What a removal would take, found by listing both sides.
#[derive(Debug)]
pub struct FoundExtras {
    /// Objects and bytes that only the target has.
    pub extra: Tally,
    /// Objects at the target, those included.
    pub at_target: u64,
    /// Some keys that the source listed.
    witnesses: Vec<Key>,
    /// Their keys.
    keys: KeySpool,
}

impl FoundExtras {
    /// True when more than half of the target would go: that is more often a mistake than meant.
    pub fn is_most(&self) -> bool {
        self.extra.objects * 2 > self.at_target
    }

    /// True when the source has no object at all.
    pub fn source_is_empty(&self) -> bool {
        self.witnesses.is_empty()
    }

    /// The first of the keys that would go.
    ///
    /// # Errors
    /// When they cannot be read back from the disk.
    pub fn sample(&mut self, n: usize) -> Result<Vec<Key>> {
        self.keys.rewind()?;
        Ok(self.keys.next(n)?.into_iter().map(|one| one.key).collect())
    }
}

/// Finds what of the target the source does not have.
///
/// # Errors
/// When a side cannot be listed or asked.
pub async fn find_extras(ends: DeletionEnds) -> Result<FoundExtras> {
    let mut keys = KeySpool::new()?;
    let (mut extra, mut broke) = (Tally::default(), None);
    let (listed, from) = (ends.listed, ends.from.clone());
    let comparison = Comparison {
        source: ends.source,
        target: ends.target,
        from: ends.from,
        to: ends.to,
        filter: ends.filter,
        depth: Depth::Presence,
    };
    let found = comparison.run(|difference| {
        if let Difference::Extra(key, size) = difference
            && !listed.as_ref().is_some_and(|listed| listed.contains(&key.under(&from)))
        {
            extra += Tally::one(*size);
            if let Err(failure) = keys.push(&ExtraObject { key: key.clone(), size: *size }) {
                broke.get_or_insert(failure);
            }
        }
    });
    let found = found.await?;
    match broke {
        Some(failure) => Err(failure),
        None => Ok(FoundExtras { extra, at_target: found.at_target, witnesses: found.witnesses, keys }),
    }
}

/// The two ends of a removal.
pub struct DeletionEnds {
    /// Where from.
    pub source: Arc<dyn ObjectStore>,
    /// Where to.
    pub target: Arc<dyn ObjectStore>,
    /// Keys at the source begin with this.
    pub from: String,
    /// Keys at the target begin with this.
    pub to: String,
    /// Keys that may be removed.
    pub filter: Filter,
    /// Keys that the run has settled, at their names at the source: none of them is removed.
    pub listed: Option<Arc<ListedKeys>>,
}

/// Removes what was found and nothing else: each key only after the source has said twice more that it does not have
/// it.
///
/// # Errors
/// When a side cannot be asked, or the source is not there any more. A refused removal does not end it: the first refusal is
/// given back when all others were tried. Whatever happens, what was removed is counted.
pub async fn delete_extras(
    source: Arc<dyn ObjectStore>,
    target: Arc<dyn ObjectStore>,
    mut found: FoundExtras,
) -> (Tally, Option<Error>) {
    let witnesses = std::mem::take(&mut found.witnesses);
    let deletion = Arc::new(ExtraDeletion {
        source,
        target,
        filter: Filter::default(),
        save_prefix: String::new(),
        witnesses,
        listed: None,
    });
    let (mut removed, mut refused) = (Tally::default(), None);
    let ended = delete_batches(&deletion, &mut found.keys, &mut removed, &mut refused).await;
    (removed, ended.err().or(refused))
}

async fn delete_batches(
    deletion: &Arc<ExtraDeletion>,
    keys: &mut KeySpool,
    removed: &mut Tally,
    refused: &mut Option<Error>,
) -> Result<()> {
    keys.rewind()?;
    loop {
        let batch = keys.next(BATCH_KEYS)?;
        if batch.is_empty() {
            return Ok(());
        }
        let still = deletion.still_extra(batch).await?;
        let mut broke = None;
        for (one, went) in deletion.delete(&still, &CancellationToken::new()).await? {
            match went {
                Ok(()) => *removed += Tally::one(one.size),
                Err(f) if f.kind.policy() == Policy::StopTask => broke = Some(f),
                Err(f) => drop(refused.get_or_insert(f)),
            }
        }
        if let Some(failure) = broke {
            return Err(failure);
        }
    }
}

impl ExtraDeletion {
    /// What of a page the source does not have.
    async fn extras_of_page(self: &Arc<Self>, entries: Vec<Entry>) -> Result<Vec<ExtraObject>> {
        let asked = entries.into_iter().filter_map(|entry| {
            let bare = entry.key.as_bytes().strip_prefix(self.save_prefix.as_bytes())?;
            let key = Key::new(bare);
            let listed = self.listed.as_ref().is_some_and(|listed| listed.contains(&key));
            let is_selected = !records::is_record(entry.key.as_bytes()) && self.filter.keeps(bare);
            (is_selected && !listed).then_some(ExtraObject { key, size: entry.size })
        });
        let never = CancellationToken::new();
        let found = for_each_concurrent(asked, &never, |one| {
            let source = self.source.clone();
            async move {
                match source.head(&one.key, None).await {
                    Ok(_) => Ok(None),
                    // A name that the source could never hold is not there either.
                    Err(f) if matches!(f.kind, Kind::NotFound | Kind::InvalidKey) => Ok(Some(one)),
                    // Something of this name that is not an object, such as a broken link, is not missing.
                    Err(f) if f.kind == Kind::Unsupported => Ok(None),
                    // One that may not be asked about is there when it is listed.
                    Err(f) if f.kind == Kind::Forbidden => {
                        match is_listed(source, &one.key, Side::Source).await? {
                            true => Ok(None),
                            false => Err(f.at(Side::Source)),
                        }
                    }
                    Err(f) => Err(f.at(Side::Source)),
                }
            }
        });
        found.await?.into_iter().filter_map(Result::transpose).collect()
    }

    /// The source is there and still lists something that this run has seen. An answer of "not found" says nothing about
    /// a key when the whole bucket is gone, or a disk is not mounted.
    async fn verify_source(&self) -> Result<()> {
        for witness in &self.witnesses {
            if is_listed(self.source.clone(), witness, Side::Source).await? {
                return Ok(());
            }
        }
        let m = format!(
            "{} no longer lists any of the objects that it listed in this run",
            self.source.location()
        );
        Err(Error::new(Kind::NoBucket, "delete", m).at(Side::Source))
    }

    /// What of a batch the source still does not have, by its own answer and by its listing.
    async fn still_extra(self: &Arc<Self>, batch: Vec<ExtraObject>) -> Result<Vec<ExtraObject>> {
        self.verify_source().await?;
        let never = CancellationToken::new();
        let looked = for_each_concurrent(batch.into_iter(), &never, |one| {
            let source = self.source.clone();
            async move {
                match source.head(&one.key, None).await {
                    Ok(_) => Ok(None),
                    // A name that the source could never hold is not there either.
                    Err(f) if f.kind == Kind::InvalidKey => Ok(Some(one)),
                    Err(f) if f.kind == Kind::Unsupported => Ok(None),
                    Err(f) if matches!(f.kind, Kind::NotFound | Kind::Forbidden) => {
                        let listed = is_listed(source, &one.key, Side::Source).await?;
                        match f.kind {
                            Kind::Forbidden if !listed => Err(f.at(Side::Source)),
                            _ => Ok((!listed).then_some(one)),
                        }
                    }
                    Err(f) => Err(f.at(Side::Source)),
                }
            }
        });
        looked.await?.into_iter().filter_map(Result::transpose).collect()
    }

    /// Removes what was found; what a stop came before is not among the answers.
    async fn delete(
        self: &Arc<Self>,
        found: &[ExtraObject],
        stop: &CancellationToken,
    ) -> Result<Vec<(ExtraObject, Result<()>)>> {
        for_each_concurrent(found.iter().cloned(), stop, |one| {
            let this = self.clone();
            async move {
                let removed = this.target.delete(&one.key.under(&this.save_prefix)).await;
                (one, removed.map_err(|f| f.at(Side::Target)))
            }
        })
        .await
    }

    /// Which of the pending_delete keys are gone: an interrupted run has removed them.
    async fn deleted_before(self: &Arc<Self>, pending_delete: &[Key]) -> Result<Vec<ExtraObject>> {
        let pending_delete = pending_delete.iter().filter_map(ExtraObject::from_ledger);
        let never = CancellationToken::new();
        let gone = for_each_concurrent(pending_delete, &never, |one| {
            let this = self.clone();
            async move {
                match this.target.head(&one.key.under(&this.save_prefix), None).await {
                    Err(f) if f.kind == Kind::NotFound => Ok(Some(one)),
                    // One that may not be asked about is taken to be there: it is counted when it is removed.
                    Err(f) if f.kind.policy() != Policy::GiveUp => Err(f.at(Side::Target)),
                    _ => Ok(None),
                }
            }
        });
        gone.await?.into_iter().filter_map(Result::transpose).collect()
    }
}

impl ExtraObject {
    /// As it stands among a range's keys ahead: eight bytes of size, then the key.
    fn to_ledger(&self) -> Key {
        Key::new([&self.size.to_be_bytes(), self.key.as_bytes()].concat())
    }

    fn from_ledger(pending_delete: &Key) -> Option<Self> {
        let (size, key) = pending_delete.as_bytes().split_first_chunk()?;
        Some(Self { key: Key::new(key), size: u64::from_be_bytes(*size) })
    }
}

/// Works on all of `items`, [`MAX_CONCURRENT`] together; those that have not begun at a stop are skipped.
async fn for_each_concurrent<T, F, R>(
    items: impl Iterator<Item = T>,
    stop: &CancellationToken,
    work: impl Fn(T) -> F,
) -> Result<Vec<R>>
where
    F: Future<Output = R> + Send + 'static,
    R: Send + 'static,
{
    let (mut under_way, mut ended) = (JoinSet::new(), Vec::new());
    let mut items = items.take_while(|_| !stop.is_cancelled());
    loop {
        while under_way.len() < MAX_CONCURRENT
            && let Some(item) = items.next()
        {
            under_way.spawn(work(item));
        }
        match under_way.join_next().await {
            None => return Ok(ended),
            Some(Err(e)) => return Err(Error::new(Kind::Internal, "delete", e.to_string())),
            Some(Ok(one)) => ended.push(one),
        }
    }
}

fn stopped() -> Error {
    Error::stopped("delete")
}

impl Job {
    /// The last pass of a task that propagates deletions. It has ranges of its own, so that it goes on after an
    /// interruption. If the copy found nothing at the source, nothing is extra: the selection is wrong.
    pub(crate) async fn delete_extras(&self, ledger: &Ledger, clock: &SharedClock) -> Result<()> {
        let task = &self.task;
        let mut tx = self.store.read().await?;
        let copied = tx.ranges(task.id, Pass::Copy).await?;
        let mut rows = tx.ranges(task.id, Pass::DeleteExtras).await?;
        drop(tx);
        if rows.is_empty() {
            rows = self.begin_pass(Pass::DeleteExtras, 2_000_000_000).await?;
        }
        let (rows, empty): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|r| copied_anything(&copied, &r.scope));
        if !empty.is_empty() {
            let some: Vec<_> = empty.iter().take(5).map(|r| format!("`{}`", r.scope.prefix())).collect();
            let m = format!("nothing was deleted under {}: the source has no object there", some.join(", "));
            let mut tx = self.begin_write().await?;
            tx.set_note(task.id, &m).await?;
            tx.commit().await?;
        }
        let filter = Filter::new(&task.spec.include, &task.spec.exclude)?;
        let (witnesses, most) = self.measure_deletion(&rows, &filter).await?;
        if witnesses.is_empty() && !rows.is_empty() {
            let note = "nothing was deleted at the target: the source no longer has any object there";
            let mut tx = self.begin_write().await?;
            tx.set_note(task.id, note).await?;
            return tx.commit().await;
        }
        if most && !task.spec.extensions.delete_most && !task.spec.extensions.dry_run {
            return self.refuse_deletion().await;
        }
        let deletion = Arc::new(ExtraDeletion {
            source: self.source.clone(),
            target: self.target.clone(),
            filter,
            save_prefix: task.spec.save_prefix.clone(),
            witnesses,
            listed: self.progress.listed.clone(),
        });
        for row in rows.into_iter().filter(|r| !r.done) {
            self.delete_extras_in(row, &deletion, ledger, clock).await?;
        }
        Ok(())
    }
}

impl Job {
    /// Walks one range, and again in a weaker order when the target's listing keeps no promise: at last without any.
    async fn delete_extras_in(
        &self,
        mut row: RangeRow,
        deletion: &Arc<ExtraDeletion>,
        ledger: &Ledger,
        clock: &SharedClock,
    ) -> Result<()> {
        for walk in 1.. {
            let id = row.id;
            let strip = DeletionRange {
                job: self,
                ledger,
                clock,
                row,
                lines: String::new(),
                failed: vec![],
                held_refusals: vec![],
            };
            match strip.run(deletion, !self.task.spec.extensions.dry_run).await {
                // Without an order a token was refused: the walk begins again at the first key.
                Err(f)
                    if f.kind == Kind::OutOfOrderListing
                        && (fall_back_to_weaker_order(&*self.target, &f)
                            || f.side == Side::Target && walk < MAX_LISTINGS) => {}
                done => return done,
            }
            // What was removed and counted so far is in the ledger.
            ledger.flush().await?;
            let rows = self.store.read().await?.ranges(self.task.id, Pass::DeleteExtras).await?;
            let again = rows.into_iter().find(|r| r.id == id);
            row = again
                .ok_or_else(|| Error::new(Kind::Internal, "delete", "a range is missing from the ledger"))?;
        }
        Ok(())
    }

    /// Keys that the source lists now, and whether more than half of the target would go.
    async fn measure_deletion(&self, rows: &[RangeRow], filter: &Filter) -> Result<(Vec<Key>, bool)> {
        let (mut witnesses, mut going, mut at_target) = (Vec::new(), 0, 0);
        for row in rows {
            let Scope::Prefix(prefix) = &row.scope else { continue };
            let found = find_extras(DeletionEnds {
                source: self.source.clone(),
                target: self.target.clone(),
                from: prefix.clone(),
                to: format!("{}{prefix}", self.task.spec.save_prefix),
                filter: filter.within(prefix),
                listed: self.progress.listed.clone(),
            });
            let found = tokio::select! {
                found = found => found?,
                () = self.stop.cancelled() => return Err(stopped()),
            };
            witnesses.extend(found.witnesses.iter().map(|key| key.under(prefix)));
            going += found.extra.objects;
            at_target += found.at_target;
        }
        let removed = rows.iter().map(|r| r.counters.deleted.objects).sum::<u64>();
        Ok((witnesses, (going + removed) * 2 > at_target + removed))
    }

    /// A removal of most of the target is refused, and the task says so.
    async fn refuse_deletion(&self) -> Result<()> {
        let note = "nothing was deleted at the target: more than half of its objects would be deleted; hint: use \
             delete_most (--delete-most)";
        let mut tx = self.begin_write().await?;
        tx.set_note(self.task.id, note).await?;
        tx.commit().await
    }
}

/// True when the copy settled at least one object of a scope. A range of restored objects (id below 1) is of all
/// scopes.
fn copied_anything(copied: &[RangeRow], scope: &Scope) -> bool {
    copied.iter().any(|r| {
        let inside = r.id < 1 || r.scope.prefix().starts_with(scope.prefix());
        inside && r.counters.settled().objects > 0
    })
}

mod key_spool;
#[cfg(test)]
mod tests;
