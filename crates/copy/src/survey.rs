//! The cheap pass: lists only, to know how much there is. Copying never waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::count::{Counters, Tally};
use model::failure::{Result, Side};
use model::key::Key;
use storage::{Page, SharedStore};
use store::{Checkpoint, RangeRow};
use tokio_util::sync::CancellationToken;

use crate::feed::{fetch, one};
use crate::field::{Extent, Field};
use crate::glob::Filter;
use crate::ledger::{Ledger, Report};
use crate::progress::Progress;

pub(crate) struct Survey {
    pub(crate) field: Arc<Field>,
    pub(crate) source: SharedStore,
    pub(crate) ledger: Ledger,
    pub(crate) progress: Arc<Progress>,
    pub(crate) filter: Filter,
    pub(crate) stop: CancellationToken,
    pub(crate) fence: i64,
}

impl Survey {
    /// Counts one range to its end, or until stopped.
    pub(crate) async fn run(
        self: Arc<Self>,
        extent: Arc<Extent>,
        row: RangeRow,
        first: Option<Page>,
    ) -> Result<()> {
        let prefix = extent.scope.prefix().to_owned();
        let mut at = row.cursor.clone();
        let mut counted = row.counters.copied;
        let mut first = first;
        let mut told = Instant::now();
        loop {
            let page = match first.take() {
                Some(page) => page,
                None => {
                    let next = async {
                        match &extent.scope {
                            model::selection::Scope::Key(k) => {
                                one(&*self.source, Key::from(k.as_str())).await
                            }
                            model::selection::Scope::Prefix(_) => {
                                fetch(&*self.source, &prefix, &at, Side::Source).await
                            }
                        }
                    };
                    tokio::select! {
                        () = self.stop.cancelled() => return self.tell(&row, at, counted, false).await,
                        page = next => page?,
                    }
                }
            };
            let (entries, over) = self.field.take(&extent, page);
            let mut more = Tally::default();
            for entry in entries.iter().filter(|e| self.filter.keeps(e.key.as_bytes())) {
                more += Tally::one(entry.size);
            }
            if let Some(last) = entries.last() {
                at = last.key.clone();
            }
            counted += more;
            self.progress.counted(more);
            if over {
                return self.tell(&row, at, counted, true).await;
            }
            if told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                self.tell(&row, at.clone(), counted, false).await?;
            }
        }
    }

    async fn tell(&self, row: &RangeRow, cursor: Key, counted: Tally, done: bool) -> Result<()> {
        let counters = Counters { copied: counted, ..Counters::default() };
        let checkpoint = Checkpoint { id: row.id, fence: self.fence, cursor, ahead: vec![], done, counters };
        self.ledger.report(Report::only(checkpoint)).await
    }
}
