//! Removals by a transfer: of an object that events say is gone, and of a copy that is known to be wrong.

use model::error::{Error, Kind, Result, Side};
use model::key::Key;
use storage::{Entry, ListRequest, ObjectStore};

use super::{ObjectCopier, TransferEnd};
use crate::ledger::outcome::Outcome;
use crate::listing::lister::is_listed;

impl ObjectCopier {
    /// Deletes at the target what an event says is gone at the source. "Not found" alone says nothing about a key: a bucket
    /// may be gone, a disk not mounted, an index ahead of its data. The listing must be there and must not show the key.
    pub(super) async fn delete_missing(&self, key: &Key, failure: Error, size: u64) -> TransferEnd {
        match self.is_gone(key).await {
            Ok(true) => {}
            Ok(false) => {
                let message = format!("{}: the object is still listed", failure.message);
                return TransferEnd::Outcome(Outcome::Failed(Error { message, ..failure }), size);
            }
            Err(failure) => return self.end_of_failure(failure.at(Side::Source), size),
        }
        let to = key.under(&self.spec.save_prefix);
        match self.target.delete(&to).await {
            Ok(()) => TransferEnd::Outcome(Outcome::Deleted, 0),
            Err(failure) => self.end_of_failure(failure, 0),
        }
    }

    /// Whether the source lists other keys and not this one. A source that lists nothing at all is taken to be missing, unless
    /// the task may delete most of the target.
    async fn is_gone(&self, key: &Key) -> Result<bool> {
        let source = match self.source.listed_store() {
            Some(bucket) => bucket,
            None => self.source.clone(),
        };
        if is_listed(source.clone(), key, Side::Source).await? {
            return Ok(false);
        }
        let one = ListRequest { max: 1, ..ListRequest::default() };
        let mut page = source.list(&one).await?;
        // Pages without keys may be followed by others.
        while page.entries.is_empty()
            && let Some(from) = page.next.take()
        {
            page = source.list(&ListRequest { from, ..one.clone() }).await?;
        }
        if page.entries.is_empty() && !self.spec.extensions.delete_most {
            let m = format!(
                "{} lists no object at all, so nothing is deleted at the target; hint: if the source is empty on purpose, \
                 use delete_most",
                self.source.location()
            );
            return Err(Error::new(Kind::NoBucket, "delete", m));
        }
        Ok(true)
    }

    /// This transfer wrote an object that is not the source's, and that is younger: the next run would take it for a copy. It
    /// is removed, and the failure says so.
    pub(super) async fn remove_wrong_copy(&self, entry: &Entry, failure: Error) -> Error {
        let to = entry.key.under(&self.spec.save_prefix);
        let message = match self.target.delete(&to).await {
            Ok(()) => format!("{}; the wrong object was deleted at the target", failure.message),
            Err(f) => format!("{}; the wrong object is still at the target: {}", failure.message, f.message),
        };
        Error { message, ..failure }
    }
}
