//! Deletion of extra objects after a copy in the foreground.

use std::sync::Arc;

use flow_control::backoff::Backoff;
use model::count::Tally;
use model::error::{Error, Kind, Result, Side};
use object_migration::listed_keys::ListedKeys;
use storage::retrying::RetryingStore;

use super::ASKED_ABOUT;
use crate::args::Copy;
use crate::open_store::EndPair;
use crate::printer::Printer;

/// Deletes from the target what the source does not have, after a confirmation. Only objects that were found before
/// the confirmation are deleted, and none that this run has listed at the source.
///
/// What was deleted is given back also when a removal was refused.
///
/// # Errors
/// When a side cannot be asked; [`Kind::DeletesTooMuch`].
pub(super) async fn delete(
    args: &Copy,
    ends: &EndPair,
    listed: Option<Arc<ListedKeys>>,
    printer: &Printer,
) -> Result<(Tally, Option<Error>)> {
    let (source, target) = (ends.probe(Side::Source).await?.store, ends.probe(Side::Target).await?.store);
    if ends.names_one() {
        let m =
            "--delete: the source is a single object, so every other object at the target would be deleted";
        return Err(Error::new(Kind::Invalid, "usage", m));
    }
    let source = RetryingStore::alone(source, Side::Source, Backoff::default());
    let target = RetryingStore::alone(target, Side::Target, Backoff::default());
    let mut found = object_migration::job::delete_extras::find_extras(
        object_migration::job::delete_extras::DeletionEnds {
            source: source.clone(),
            target: target.clone(),
            from: String::new(),
            to: String::new(),
            filter: object_migration::glob::Filter::new(&args.ends.include, &args.ends.exclude)?,
            listed,
        },
    )
    .await?;
    let objects = found.extra.objects;
    if found.source_is_empty() {
        printer.note("Nothing was deleted: the source is empty. Check the source path.");
        return Ok((Tally::default(), None));
    }
    if objects == 0 {
        return Ok((Tally::default(), None));
    }
    if found.is_most() && !args.delete_most {
        let m = format!(
            "nothing was deleted: {objects} of {} objects at the target would be deleted, which is more than half",
            found.at_target
        );
        return Err(Error::new(Kind::DeletesTooMuch, "delete", m).at(Side::Target));
    }
    if !args.yes {
        for key in found.sample(ASKED_ABOUT)? {
            printer.note(&format!("  delete {key}"));
        }
        if objects > ASKED_ABOUT as u64 {
            printer.note(&format!(
                "  … and {} more; --dry-run --delete lists all",
                objects - ASKED_ABOUT as u64
            ));
        }
        let ask = format!("Delete {objects} objects at the target that the source does not have?");
        if !printer.confirms(&ask) {
            printer.note("Nothing was deleted. --yes deletes without asking.");
            return Ok((Tally::default(), None));
        }
    }
    let (removed, broke) = object_migration::job::delete_extras::delete_extras(source, target, found).await;
    printer.note(&format!("{} objects deleted at the target", removed.objects));
    Ok((removed, broke))
}
