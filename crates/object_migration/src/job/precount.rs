//! The cheap pass: lists only, to know how much there is. Copying never waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::count::{Counters, Tally};
use model::error::{Result, Side};
use model::key::{Key, Order};
use model::selection::Scope;
use storage::SharedStore;
use store::{Checkpoint, RangeRow};
use tokio_util::sync::CancellationToken;

use crate::glob::Filter;
use crate::ledger::{Ledger, Report};
use crate::listing::feed::head_page;
use crate::listing::lister::Lister;
use crate::progress::Progress;
use crate::ranges::scheduler::{ActiveRange, OpenListing, RangePage, RangeScheduler};

pub(crate) struct Precount {
    pub(crate) scheduler: Arc<RangeScheduler>,
    pub(crate) source: SharedStore,
    pub(crate) ledger: Ledger,
    pub(crate) progress: Arc<Progress>,
    pub(crate) filter: Filter,
    pub(crate) stop: CancellationToken,
    pub(crate) fence: i64,
}

impl Precount {
    /// Counts one range to its end, or until stopped.
    pub(crate) async fn run(
        self: Arc<Self>,
        range: Arc<ActiveRange>,
        row: RangeRow,
        opened: Option<OpenListing>,
    ) -> Result<()> {
        let prefix = range.scope.prefix().to_owned();
        let mut at = row.cursor.clone();
        let resumes = self.source.capability().list_order != Order::Unknown;
        let mut counted = if resumes { row.counters.copied } else { Tally::default() };
        let (mut first, mut lister) = match (opened, &range.scope) {
            (Some(OpenListing { page, lister }), _) => (Some(page), lister),
            (None, Scope::Prefix(_)) => (None, self.lister(&prefix, &row)),
            (None, Scope::Key(key)) => {
                let page = head_page(&*self.source, Key::from(key.as_str())).await?;
                (Some(page), Lister::new(self.source.clone(), &prefix, Side::Source))
            }
        };
        let mut told = Instant::now();
        loop {
            let page = match first.take() {
                Some(page) => Some(page),
                None => tokio::select! {
                    () = self.stop.cancelled() => return self.report(&row, at, counted, None).await,
                    listed = lister.next() => listed?.map(|l| l.page),
                },
            };
            let Some(page) = page else {
                self.scheduler.verify_end(self.scheduler.listing_ended(&range)).await?;
                return self.report(&row, at, counted, Some(range.finish())).await;
            };
            let RangePage { entries, finished: over, missing_end } = self.scheduler.take_page(&range, page);
            let mut more = Tally::default();
            for entry in entries.iter().filter(|e| self.filter.keeps(e.key.as_bytes())) {
                more += Tally::one(entry.size);
            }
            if let Some(last) = entries.last() {
                at = last.key.clone();
            }
            counted += more;
            self.progress.add_precounted(more);
            if over {
                self.scheduler.verify_end(missing_end).await?;
                return self.report(&row, at, counted, Some(range.finish())).await;
            }
            if told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                self.report(&row, at.clone(), counted, None).await?;
            }
        }
    }

    /// Where a range goes on; without an order it is counted again from its first key.
    fn lister(&self, prefix: &str, row: &RangeRow) -> Lister {
        match self.source.capability().list_order {
            Order::Unknown => Lister::new(self.source.clone(), prefix, Side::Source),
            _ => Lister::after(self.source.clone(), prefix, row.cursor.clone(), Side::Source),
        }
    }

    async fn report(
        &self,
        row: &RangeRow,
        cursor: Key,
        counted: Tally,
        end: Option<Option<Key>>,
    ) -> Result<()> {
        let (done, upto) = (end.is_some(), end.flatten());
        let counters = Counters { copied: counted, ..Counters::default() };
        let checkpoint =
            Checkpoint { id: row.id, fence: self.fence, cursor, ahead: vec![], done, upto, counters };
        self.ledger.report(Report::only(checkpoint)).await
    }
}
