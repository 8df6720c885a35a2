//! `whimbrel copy --dry-run`: what a copy would do.

use std::sync::Arc;

use flow_control::backoff::Backoff;
use model::error::{Kind, Result, Side};
use storage::ObjectStore;
use storage::retrying::RetryingStore;

use super::tempdir;
use crate::args::Copy;
use crate::exit::Exit;
use crate::open_store::{CliUrl, EndPair};
use crate::printer::Printer;

/// Compares both sides and says what a copy would do.
pub(super) async fn dry_run(args: &Copy, ends: &EndPair, printer: &Printer) -> Result<Exit> {
    let source = ends.probe(Side::Source).await?;
    let target = match ends.probe(Side::Target).await {
        // Nothing stands there yet.
        Err(f) if f.kind == Kind::NoBucket && matches!(ends.url(Side::Target), CliUrl::Directory(_)) => None,
        target => Some(target?.store),
    };
    // An empty directory stands for a target that is still to be made.
    let nothing = tempdir()?;
    let empty: storage::SharedStore = Arc::new(storage::fs::Fs::open(&nothing, true)?);
    let alone = |store, side| RetryingStore::alone(store, side, Backoff::default()) as Arc<dyn ObjectStore>;
    let comparison = object_migration::verify::Comparison {
        source: alone(source.store, Side::Source),
        target: alone(target.unwrap_or(empty), Side::Target),
        from: String::new(),
        to: String::new(),
        filter: object_migration::glob::Filter::new(&args.ends.include, &args.ends.exclude)?,
        depth: object_migration::verify::Depth::Tags,
    };
    let say = |line: &str| printer.result(line);
    let found = comparison
        .run(|difference| match difference {
            object_migration::verify::Difference::Missing(key) => say(&format!("copy {key}")),
            object_migration::verify::Difference::Differs(key, why) => say(&format!("replace {key} ({why})")),
            object_migration::verify::Difference::Extra(key, _) if args.delete => {
                say(&format!("delete {key}"))
            }
            object_migration::verify::Difference::Extra(..) => {}
        })
        .await?;
    let _ = std::fs::remove_dir_all(&nothing);
    if found.witnesses.is_empty() {
        ends.check_selects().await?;
    }
    let source = found.missing + found.differ + found.equal + found.equal_size;
    let removed = if args.delete && source > 0 { found.extra } else { 0 };
    if args.delete && source == 0 {
        printer.note("Nothing would be deleted: the source is empty. Check the source path.");
    }
    printer.note(&format!(
        "{} would be copied, {} differ, {removed} would be deleted; nothing was written",
        found.missing, found.differ
    ));
    if args.ends.json {
        printer.result(&serde_json::to_string(&found).unwrap_or_default());
    }
    Ok(Exit::Done)
}
