//! A migration: what is to be done, and with which limits. How it runs: [`crate::session`].

use std::sync::Arc;

use flow_control::backoff::Backoff;
use flow_control::budget::Bandwidth;
use flow_control::clock::SharedClock;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::keys::KeyNames;
use crate::checkpoint::slot_layout::Ranges;
use crate::connection::node::Node;
use crate::events::EventSender;
use crate::progress::Progress;
use crate::reconnect::Reconnect;
use crate::route::Route;
use crate::snapshot::restore::Conflict;
use crate::source::spool::SpoolLimits;
use crate::target::functions::FunctionPolicy;

/// Which of the masters of a cluster the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterRank {
    /// What all of them have alike, functions, is taken from this one.
    First,
    /// Any other.
    Other,
}

/// When a migration is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// It follows until it is stopped.
    #[default]
    Stopped,
    /// When the snapshot is applied and answered.
    Full,
    /// When nothing has been behind.
    CaughtUp,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which keys are migrated, and where to.
    pub route: Route,
    /// What happens to keys that the target has.
    pub conflict: Conflict,
    /// When it is done.
    pub until: Until,
    /// Bytes per second that are read of the source; may change at any time.
    pub bandwidth: Arc<Bandwidth>,
    /// Bounds of what waits between both ends.
    pub spool: SpoolLimits,
    /// Where that waits on the disk.
    pub spool_dir: std::path::PathBuf,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// What follows a lost connection.
    pub reconnect: Arc<Reconnect>,
    /// Where events are sent.
    pub event_sender: EventSender,
    /// Names of commands of the stream that are skipped, in upper case; those that control transactions and databases cannot be skipped.
    pub skip_commands: Arc<std::collections::BTreeSet<String>>,
    /// What happens when the target refuses a library of functions.
    pub functions: FunctionPolicy,
}

/// Which master of a cluster a source is.
#[derive(Clone, Debug)]
pub struct SourceMaster {
    /// Any nodes of the cluster, to ask for its slot layout.
    pub cluster: Node,
    /// The slots that it serves.
    pub ranges: Ranges,
    /// The target held nothing else when the migration began: what stands there in these slots, we brought.
    pub target_was_empty: bool,
    /// It is the first of them: what all masters have alike is taken from it.
    pub is_first: bool,
}

impl SourceMaster {
    /// What all masters have alike is taken from one of them; slot 0 may not be served.
    pub(crate) fn rank(&self) -> MasterRank {
        if self.is_first { MasterRank::First } else { MasterRank::Other }
    }

    pub(crate) fn first(&self) -> u16 {
        self.ranges.first().map_or(0, |(from, _)| *from)
    }
}

/// One migration.
#[derive(Clone)]
pub struct Migration {
    /// Where from.
    pub source: Node,
    /// Where to.
    pub target: Node,
    /// How.
    pub options: Options,
    /// Time.
    pub clock: SharedClock,
    /// Live numbers.
    pub progress: Arc<Progress>,
    /// Cancelled: stop.
    pub stop: CancellationToken,
    /// If cancelled, the migration ends as soon as it is caught up.
    pub finish: CancellationToken,
    /// What stands at the target is called so.
    pub names: KeyNames,
    /// The source is one master of a cluster; others of the migration move the others.
    pub shard: Option<SourceMaster>,
}

impl std::fmt::Debug for Migration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Migration({} to {})", self.source.display_url(), self.target.display_url())
    }
}
