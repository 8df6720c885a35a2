//! `whimbrel verify SRC DST`: compares without writing.

use copy::glob::Filter;
use copy::verify::{Comparison, Difference};
use model::failure::{Result, Side};

use crate::args::Verify;
use crate::exit::Exit;
use crate::places::BothEnds;
use crate::printer::Printer;

pub(crate) async fn run(args: &Verify, printer: &Printer) -> Result<Exit> {
    let ends = BothEnds::new(&args.source, &args.target, &args.ends, pace::clock::system())?;
    let source = ends.open(Side::Source).await?;
    let target = ends.open(Side::Target).await?;
    let comparison = Comparison {
        source: source.store,
        target: target.store,
        from: String::new(),
        to: String::new(),
        filter: Filter::new(&args.ends.include, &args.ends.exclude),
        digest: args.check == "digest",
    };
    let found = comparison
        .run(|difference| {
            printer.result(&match difference {
                Difference::Missing(key) => format!("missing {key}"),
                Difference::Extra(key) => format!("extra {key}"),
                Difference::Differs(key, why) => format!("differs {key}: {why}"),
            });
        })
        .await?;
    printer.note(&format!(
        "{} equal, {} equal in size only, {} differ, {} missing, {} extra",
        found.equal, found.equal_size, found.differ, found.missing, found.extra
    ));
    if args.ends.json {
        printer.result(&serde_json::to_string(&found).unwrap_or_default());
    }
    Ok(if found.same() { Exit::Done } else { Exit::Differs })
}
