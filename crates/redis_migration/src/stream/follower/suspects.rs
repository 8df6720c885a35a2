//! Repairs keys that the target's own clock may have removed.

use std::sync::atomic::Ordering;

use model::error::{Kind, Result, Side};

use super::Follower;
use crate::events::Event;
use crate::stream::key_repair::UNREADABLE;

impl<'a> Follower<'a> {
    /// Repairs suspect keys, step by step; to be called again until there are none.
    pub(super) async fn repair_suspects(&mut self) -> Result<()> {
        self.repair.advance_to(self.applier.offset());
        if !self.repair.is_pending() {
            if !self
                .repair
                .load_suspects(&mut self.connections, &self.migration.names, &mut self.applier.expiry_guard)
                .await?
            {
                let applied = self.connections.writer.shared().applied.load(Ordering::Acquire);
                if applied >= self.applier.expiry_guard.last_offset() {
                    self.report_caught_up();
                }
                return Ok(());
            }
            self.refetch().await?;
        }
        self.write_if_due(self.applier.offset()).await
    }

    pub(super) async fn refetch(&mut self) -> Result<()> {
        let absolute = self.connections.source_info.tells_expiry_time();
        let left = self.repair.suspect_keys();
        let refetched =
            self.repair.refetch(&mut self.connections.source, absolute).await.map_err(|f| f.at(Side::Source));
        match refetched {
            // The migration works without it.
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => {
                let m = format!("cannot read keys again that may have expired early at the target: {f}");
                self.migration.options.event_sender.send(Event::Note(m));
                let counted = self.repair.unsupported.entry(UNREADABLE.to_owned()).or_default();
                *counted = left.max(*counted);
                self.report_caught_up();
                Ok(())
            }
            refetched => refetched,
        }
    }
}
