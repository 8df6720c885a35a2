//! What a migration tells of itself while it runs, for logs.

use std::time::Duration;

use model::failure::Failure;
use tokio::sync::mpsc;

/// News that wait to be read; what finds no room is dropped, for nobody waits for a reader.
pub const WAITING_MAX: usize = 1000;

/// Something worth a line of a log.
#[derive(Clone, Debug)]
pub enum News {
    /// A snapshot begins: the copy is the state of the source at this offset.
    Snapshot {
        /// Identity of the source's stream.
        replid: String,
        /// Offset at which the snapshot stands.
        offset: u64,
        /// Keys that the source says it has.
        keys: u64,
        /// The source no longer held what came behind the position that was known.
        again: bool,
    },
    /// The snapshot is applied and answered.
    Loaded {
        /// Keys that were sent.
        keys: u64,
        /// How long it took.
        seconds: f64,
    },
    /// The stream goes on from where it was.
    Continued {
        /// That offset.
        offset: u64,
    },
    /// Nothing is behind for the first time.
    CaughtUp,
    /// Something to know.
    Note(String),
    /// A connection was lost, or something else that passes.
    Lost {
        /// Why.
        failure: Failure,
        /// When it is tried again.
        delay: Duration,
    },
}

/// Where news go.
#[derive(Clone, Debug, Default)]
pub struct Teller(Option<mpsc::Sender<News>>);

impl Teller {
    /// A teller and its listener.
    pub fn channel() -> (Self, mpsc::Receiver<News>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(Some(sender)), receiver)
    }

    pub(crate) fn tell(&self, news: News) {
        if let Some(sender) = &self.0 {
            let _ = sender.try_send(news);
        }
    }
}
