//! Events of a migration while it runs, for logs.

use std::time::Duration;

use model::error::Error;
use tokio::sync::mpsc;

/// Events that wait to be read; an event that finds no room is dropped, so that the migration never waits for a reader.
pub const EVENTS_MAX: usize = 1000;

/// Something worth a line of a log.
#[derive(Clone, Debug)]
pub enum Event {
    /// A snapshot begins: the copy is the state of the source at this offset.
    SnapshotStarted {
        /// Identity of the source's stream.
        replid: String,
        /// Offset at which the snapshot stands.
        offset: u64,
        /// Keys that the source says it has.
        keys: u64,
        /// The source no longer held what came behind the position that was known.
        resync: bool,
    },
    /// The snapshot is applied and answered.
    SnapshotLoaded {
        /// Keys that were sent.
        keys: u64,
        /// How long it took.
        seconds: f64,
    },
    /// The stream continues from the checkpoint.
    Resumed {
        /// That offset.
        offset: u64,
    },
    /// Caught up for the first time.
    CaughtUp,
    /// Something to know.
    Note(String),
    /// A connection was lost, or something else that passes.
    Disconnected {
        /// Why.
        failure: Error,
        /// When it is tried again.
        delay: Duration,
    },
}

/// Where events are sent.
#[derive(Clone, Debug, Default)]
pub struct EventSender(Option<mpsc::Sender<Event>>);

impl EventSender {
    /// A sender and its receiver.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        (Self(Some(sender)), receiver)
    }

    pub(crate) fn send(&self, event: Event) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(event);
        }
    }
}
