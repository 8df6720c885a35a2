//! `whimbrel verify SRC DST`: compares without writing.

use flow_control::backoff::Backoff;
use model::error::{Result, Side};
use object_migration::glob::Filter;
use object_migration::verify::{Comparison, Depth, Difference};
use storage::ObjectStore;
use storage::retrying::RetryingStore;

use crate::args::Verify;
use crate::exit::Exit;
use crate::open_store::EndPair;
use crate::printer::Printer;

pub(crate) async fn run(args: &Verify, printer: &Printer) -> Result<Exit> {
    let ends = EndPair::new(&args.source, &args.target, &args.ends, flow_control::clock::system())?;
    let source =
        RetryingStore::alone(ends.probe(Side::Source).await?.store, Side::Source, Backoff::default());
    let target =
        RetryingStore::alone(ends.probe(Side::Target).await?.store, Side::Target, Backoff::default());
    let (left, right) = (source.clone(), target.clone());
    let comparison = Comparison {
        source,
        target,
        from: String::new(),
        to: String::new(),
        filter: Filter::new(&args.ends.include, &args.ends.exclude)?,
        depth: if args.check == "digest" { Depth::Bytes } else { Depth::Tags },
    };
    let found = comparison
        .run(|difference| {
            printer.result(&match difference {
                Difference::Missing(key) => format!("missing {key}"),
                Difference::Extra(key, _) => format!("extra {key}"),
                Difference::Differs(key, why) => format!("differs {key}: {why}"),
            });
        })
        .await?;
    if found.witnesses.is_empty() {
        ends.check_selects().await?;
    }
    printer.note(&format!(
        "{} equal, {} equal in size only, {} differ, {} missing, {} extra",
        found.equal, found.equal_size, found.differ, found.missing, found.extra
    ));
    if found.records > 0 {
        printer.note(&format!("note: the target has {} record files of migrations", found.records));
    }
    for ignored in left.ignored_entries().iter().chain(&right.ignored_entries()) {
        printer.note(&format!("skipped: {ignored}"));
    }
    if args.ends.json {
        printer.result(&serde_json::to_string(&found).unwrap_or_default());
    }
    Ok(if found.is_equal() { Exit::Done } else { Exit::Differs })
}
