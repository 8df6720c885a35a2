//! One migration from one server to another: attempt after attempt, until it is done or stopped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::failure::{Failure, Kind, Result, Side};
use pace::backoff::Backoff;
use pace::budget::Bandwidth;
use pace::clock::SharedClock;
use tokio_util::sync::CancellationToken;

use crate::apply::{ANEW, Part};
use crate::asker::Asker;
use crate::attempt::Ended;
use crate::fleet;
use crate::functions::Functions;
use crate::marker::Names;
use crate::news::{News, Teller};
use crate::node::Node;
use crate::parts::Ranges;
use crate::patience::{Patience, Reconnect};
use crate::progress::{Progress, Summary};
use crate::restore::Conflict;
use crate::route::Route;
use crate::server::Server;
use crate::spool::Bounds;
use crate::target::lacks::{NOTE, SNAPSHOTS_MAX};
use crate::target::pipeline::DIVERGED;
use crate::topology::Topology;

/// How long a last word to the target may take.
const LEAVE: Duration = Duration::from_millis(300);
/// Whoever waits for an end that does not answer is let go after so long: what stands at the target is exact all the same.
const REST: Duration = Duration::from_millis(550);

/// The source turned out to be a cluster.
pub(crate) const CLUSTER: &str = "cluster source";
/// How often a source is looked at that turned out to be one and cannot say yet who serves what, and after which time.
const LOOKS: u32 = 60;
const LOOK: Duration = Duration::from_secs(1);

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
    /// Which keys travel where.
    pub route: Route,
    /// What happens to keys that the target has.
    pub conflict: Conflict,
    /// When it is done.
    pub until: Until,
    /// Bytes per second that are read of the source; may change at any time.
    pub bandwidth: Arc<Bandwidth>,
    /// Bounds of what waits between both ends.
    pub spool: Bounds,
    /// Where that waits on the disk.
    pub spool_dir: std::path::PathBuf,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// What follows a lost connection.
    pub reconnect: Arc<Reconnect>,
    /// Who is told.
    pub teller: Teller,
    /// Names of commands of the stream that are left out, in upper case; those that rule transactions and databases cannot be.
    pub skip: Arc<std::collections::BTreeSet<String>>,
    /// What happens when the target refuses a library of functions.
    pub functions: Functions,
}

/// Which master of a cluster a source is.
#[derive(Clone, Debug)]
pub struct Master {
    /// Whoever can say who has which slots.
    pub whole: Node,
    /// The slots that it serves.
    pub ranges: Ranges,
    /// The target held nothing else when the migration began: what stands there in these slots, we brought.
    pub alone: bool,
    /// It is the first of them: what all masters have alike is taken from it.
    pub leads: bool,
}

impl Master {
    /// What all masters have alike is taken from one of them; slot 0 may be served by nobody.
    pub(crate) fn part(&self) -> Part {
        if self.leads { Part::First } else { Part::Other }
    }

    pub(crate) fn first(&self) -> u16 {
        self.ranges.first().map_or(0, |(from, _)| *from)
    }
}

/// One migration.
#[derive(Clone)]
pub struct Mover {
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
    /// Cancelled: come to rest.
    pub stop: CancellationToken,
    /// Cancelled: be done as soon as nothing is behind, whatever was to follow.
    pub finish: CancellationToken,
    /// What stands at the target is called so.
    pub names: Names,
    /// The source is one master of a cluster; others of the migration move the others.
    pub shard: Option<Master>,
}

impl std::fmt::Debug for Mover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mover({} to {})", self.source.place(), self.target.place())
    }
}

impl Mover {
    /// Works until it is done, stopped, or cannot go on.
    ///
    /// # Errors
    /// What cannot be overcome by trying again, or was tried long enough.
    pub async fn run(&self) -> Result<Summary> {
        let found = tokio::select! {
            found = self.asker() => found,
            () = self.stop.cancelled() => return Ok(Summary::default()),
        };
        let mut this = self.clone();
        if let Ok((_, _, Some(topology))) = found {
            // Whoever is left of the target can say who serves what.
            this.target = this.target.with(topology.everybody());
        }
        this.run_anywhere().await
    }

    async fn run_anywhere(&self) -> Result<Summary> {
        let mut looks = 0;
        loop {
            let found = tokio::select! {
                found = Asker::open(&self.source, Side::Source) => found,
                () = self.stop.cancelled() => return Ok(Summary::default()),
            };
            let why = match found {
                Ok((_, _, Some(_))) => return fleet::run(self).await,
                Ok((_, _, None)) => None,
                // What it says of itself does not change with another question.
                Err(failure) if failure.op == "sentinel" => return Err(failure),
                Err(failure) => Some(failure),
            };
            // A source that does not answer now may be waited for, and be a cluster then.
            let failure = match self.run_link().await {
                Err(f) if f.op == CLUSTER => why.unwrap_or(f),
                done => return done,
            };
            looks += 1;
            if looks > LOOKS && !self.options.reconnect.is_always() {
                return Err(failure);
            }
            self.options.teller.tell(News::Lost { failure, delay: LOOK });
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.stop.cancelled() => return Ok(Summary::default()),
            }
        }
    }

    /// The same for one server of the source.
    pub(crate) async fn run_link(&self) -> Result<Summary> {
        // Unlike that of any other run.
        let token = format!("{:032x}", fastrand::u128(..));
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(REST).await;
        };
        let done = tokio::select! {
            done = self.attempts(&token) => done,
            () = stopped => Ok(Summary::default()),
        };
        if tokio::time::timeout(LEAVE, self.leave(&token)).await.is_err() {
            tracing::debug!("disconnected from the target without releasing the lock (timeout)");
        }
        done
    }

    /// The turn at the target is given up, unless another run has taken it.
    async fn leave(&self, token: &str) -> Result<()> {
        let mut target = self.asker().await?.0;
        let owner = &self.names.owner;
        if target.call(0, owner, &[b"GET", owner]).await?.text() == Some(token.as_bytes()) {
            target.ok(owner, &[b"DEL", owner]).await?;
        }
        Ok(())
    }

    async fn attempts(&self, token: &str) -> Result<Summary> {
        let mut summary = Summary::default();
        let (mut patience, began) = (Patience::default(), Instant::now());
        let (mut first, mut tried) = (true, 0u32);
        loop {
            let failure = match self.attempt(&mut summary, token, std::mem::take(&mut first)).await {
                Ok(ended) => {
                    summary.done = matches!(ended, Ended::Done);
                    return Ok(summary);
                }
                Err(f) if f.kind == Kind::Stopped => return Ok(summary),
                Err(f) if f.op == CLUSTER || f.op == ANEW => return Err(f),
                Err(f) if f.op == DIVERGED => {
                    self.note_divergence(&f).await;
                    let key = String::from_utf8_lossy(&self.names.marker);
                    let m =
                        format!("{}; its checkpoint key `{key}` at the target is no longer valid", f.message);
                    return Err(Failure { message: m, ..f });
                }
                Err(failure) => failure,
            };
            let worn = summary.full_syncs >= SNAPSHOTS_MAX && summary.notes.iter().any(|note| note == NOTE);
            if worn && !self.options.reconnect.is_always() {
                let m =
                    format!("{}; some proxies close the connection on an unknown command", failure.message);
                return Err(Failure { message: m, ..failure });
            }
            let reached = self.progress.phase.swap(0, Ordering::Relaxed) > 0;
            let applied = self.progress.applied.load(Ordering::Relaxed);
            let (backoff, now) = (&self.options.backoff, began.elapsed());
            // What is wrong with the bytes themselves is not waited out for ever.
            let patient = Reconnect::default();
            let reconnect = if failure.kind == Kind::Corrupt { &patient } else { &*self.options.reconnect };
            // Somebody is there and says that it passes.
            let lasts = matches!(failure.kind, Kind::Unavailable | Kind::NoSpace);
            let delay = patience.after(reached, applied, lasts, reconnect, backoff, now, fastrand::f64());
            let Some(delay) = delay.filter(|_| passes(&failure, reached)) else {
                return Err(given_up(failure, tried, began.elapsed()));
            };
            tried += 1;
            // Whoever listens to the news says it to people.
            tracing::debug!("{failure}; retrying in {delay:?}");
            self.options.teller.tell(News::Lost { failure, delay });
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => return Ok(summary),
            }
        }
    }

    pub(crate) async fn asker(&self) -> Result<(Asker, Server, Option<Topology>)> {
        Asker::open(&self.target, Side::Target).await
    }

    /// What follows must not be built on a target that is not what the source was: whoever comes next is told.
    async fn note_divergence(&self, failure: &Failure) {
        let noted = async {
            let (mut target, server, _) = self.asker().await?;
            if server.lacks.transactions {
                return Ok(());
            }
            let text = format!("diverged: {}", failure.message);
            target.ok(&self.names.marker, &[b"SET", &self.names.marker, text.as_bytes()]).await
        };
        if let Err(f) = noted.await {
            tracing::warn!("cannot record at the target that it diverged: {f}");
        }
    }
}

/// What was told before each pause is not told again as if it were new.
fn given_up(failure: Failure, tried: u32, after: Duration) -> Failure {
    if tried == 0 {
        return failure;
    }
    let m = format!("given up after {tried} more attempts in {} s: {}", after.as_secs(), failure.message);
    Failure { message: m, ..failure }
}

/// A target that was written to and may not be any more is failing over: that passes.
fn passes(failure: &Failure, reached: bool) -> bool {
    failure.is_temporary() || (reached && matches!(failure.kind, Kind::ReadOnly | Kind::NoSpace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_24_an_error_that_was_told_is_not_told_twice() {
        let failure =
            || Failure::new(Kind::Connect, "read", "redis://h:1: the connection broke: it was closed");
        assert_eq!(given_up(failure(), 0, Duration::ZERO).message, failure().message);
        let said = given_up(failure(), 3, Duration::from_secs(7));
        assert!(said.message.starts_with("given up after 3 more attempts in 7 s: redis://h:1"), "{said}");
        assert!(said.remedy().contains("`timeout`"), "{said}");
    }
}
