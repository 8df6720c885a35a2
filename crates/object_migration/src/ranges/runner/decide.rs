//! Decides what an object needs, with a look at the target where the listing does not say enough.

use std::collections::VecDeque;

use model::error::{Error, Kind, Side};
use model::key::Order;
use model::policy::Overwrite;
use model::selection::Scope;
use storage::{Entry, ObjectStore};
use store::RangeRow;

use super::{RangeContext, transfer};
use crate::compare::{Action, EntrySource};
use crate::ledger::outcome::Outcome;
use crate::listing::feed::{Feed, TargetLookup, entry_of};
use crate::listing::lister::Lister;
use crate::ranges::scheduler::ActiveRange;
use crate::transfer::{Permits, TransferEnd};

impl RangeContext {
    /// Decides about one key, whatever stands at the target.
    pub(super) fn decide_action(
        &self,
        entry: &Entry,
        at_target: Option<&Entry>,
        interrupted: bool,
        known: EntrySource,
    ) -> Action {
        if self.copier.spec.extensions.versions {
            // What stands at the target is compared version by version, when the key's turn comes.
            return if self.rule.is_too_old(entry) {
                Action::Skip("not modified since")
            } else {
                Action::Copy
            };
        }
        let action = self.rule.decide(entry, at_target, interrupted, known);
        // An unfinished upload of this task is resumed, whatever is at the target.
        match action {
            Action::Skip(_) if self.copier.ledger.upload_of(&entry.key).is_some() => Action::Copy,
            action => action,
        }
    }

    /// Asks about one key, at the source where its listing tells nothing, then at the target where the rule wants to
    /// know, and does what the rule says.
    pub(super) async fn head_then_transfer(
        &self,
        entry: Entry,
        permits: Permits,
        interrupted: bool,
    ) -> (Entry, TransferEnd) {
        let copier = &self.copier;
        let entry = match copier.source.capability().list_keys_only {
            false => entry,
            true => match copier.source.head(&entry.key, None).await {
                Ok(meta) => entry_of(entry.key, meta),
                Err(f) => {
                    let end = self.end_without_head(&entry, f, 0).await;
                    return (entry, end);
                }
            },
        };
        let (mut entry, mut at_target) = (entry, None);
        if self.needs_target_entry() {
            let to = entry.key.under(&copier.spec.save_prefix);
            match copier.target.head(&to, None).await {
                Ok(meta) => at_target = Some((meta.sums, entry_of(to, meta))),
                // A key that the target cannot even be asked about fails when it is written, with that reason.
                Err(f) if matches!(f.kind, Kind::NotFound | Kind::InvalidKey | Kind::Invalid) => {}
                Err(f) => {
                    let end = copier.end_of_failure(f, entry.size);
                    return (entry, end);
                }
            }
        }
        let there = at_target.as_ref().map(|(_, there)| there);
        let mut action = self.decide_action(&entry, there, interrupted, EntrySource::Listing);
        let comparable = |t: &Entry| t.size == entry.size && entry.etag.proves(&t.etag).is_none();
        let crc_decides = self.needs_crc() && !self.rule.is_too_old(&entry) && there.is_some_and(comparable);
        if action == Action::Head || crc_decides {
            // Only the object's own answer tells whether its ETag is a digest, and which checksums it has.
            match copier.source.head(&entry.key, None).await {
                Ok(meta) => {
                    let equal = at_target.as_ref().and_then(|(sums, _)| meta.sums.agree(sums));
                    let class = entry.class.take();
                    entry = Entry { class, ..entry_of(entry.key, meta) };
                    action = match equal {
                        Some(true) if !interrupted => Action::Skip("same checksum"),
                        Some(false) if self.rule.overwrite != Overwrite::Never => Action::Copy,
                        _ => self.decide_action(&entry, there, interrupted, EntrySource::Head),
                    };
                }
                Err(f) => {
                    let end = self.end_without_head(&entry, f, entry.size).await;
                    return (entry, end);
                }
            }
        }
        let end = match action {
            Action::Copy | Action::Head => transfer(copier.clone(), entry.clone(), permits).await,
            Action::Skip(why) => TransferEnd::Outcome(Outcome::Skipped(why), entry.size),
            Action::Adopt(proof) => TransferEnd::Outcome(Outcome::Copied(proof), entry.size),
        };
        (entry, end)
    }

    /// The end of an object about which the source could not be asked.
    async fn end_without_head(&self, entry: &Entry, failure: Error, size: u64) -> TransferEnd {
        match failure.kind {
            Kind::NotFound => self.copier.source_missing(&entry.key, failure, size).await,
            _ => self.copier.end_of_failure(failure, size),
        }
    }

    /// True when what stands at the target matters.
    fn needs_target_entry(&self) -> bool {
        !self.copier.spec.extensions.versions && (self.rule.needs_target() || self.resumed)
    }

    /// True when the rule may compare the CRC-64 that both stores keep, which only a HEAD tells.
    fn needs_crc(&self) -> bool {
        let (source, target) = (self.copier.source.capability(), self.copier.target.capability());
        matches!(self.rule.overwrite, Overwrite::Checksum | Overwrite::Crc64)
            && source.crc64_ecma
            && target.crc64_ecma
    }

    pub(super) fn target_lookup(&self, range: &ActiveRange, row: &RangeRow) -> TargetLookup {
        let (source, target) = (self.copier.source.capability(), self.copier.target.capability());
        if source.list_keys_only || self.needs_crc() {
            return TargetLookup::Head;
        }
        if !self.needs_target_entry() {
            return TargetLookup::NotNeeded;
        }
        let single = matches!(range.scope, Scope::Key(_)) || row.id <= 0;
        if !target.list_allowed
            || source.list_order != target.list_order
            || source.list_order == Order::Unknown
            || single
        {
            return TargetLookup::Head;
        }
        let save = &self.copier.spec.save_prefix;
        let prefix = format!("{save}{}", range.scope.prefix());
        let after = if row.cursor.is_empty() { row.cursor.clone() } else { row.cursor.under(save) };
        let feed = Feed::of_listing(
            Lister::after(self.copier.target.clone(), &prefix, after, Side::Target).with_checked_order(),
        );
        TargetLookup::Merge { feed, held: VecDeque::new(), over: false, order: target.list_order }
    }
}

/// What the runner waits for before the next key can go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A free permit at both ends.
    Permits,
    /// The next page of the target's listing.
    TargetPage,
    /// Room in the window, or another page of the source.
    Nothing,
}
