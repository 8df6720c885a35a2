//! One migration from one server to another: how it begins, what comes after what, and how it goes on when something
//! breaks.
//!
//! ```text
//!            marker at the target?            backlog holds it?
//! begin ──┬── no, or `full` ──> full: snapshot ─┐      │no
//!         └── `applied` ──────> PSYNC from it ──┴──────┴───> stream: catch up, follow
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::failure::{Failure, Kind, Result, Side};
use pace::backoff::Backoff;
use pace::budget::Bandwidth;
use pace::clock::SharedClock;
use redis_proto::rdb::Parser;
use tokio_util::sync::CancellationToken;

use crate::apply::{Apply, place};
use crate::client::Client;
use crate::held::{Expiry, Held};
use crate::load::{Load, Loaded, corrupt};
use crate::marker::{Marker, Names};
use crate::news::{News, Teller};
use crate::node::Node;
use crate::patience::{Patience, Reconnect};
use crate::restore::Conflict;
use crate::route::Route;
use crate::server::Server;
use crate::source::psync::{self, Begun, Link, Position};
use crate::spool::{Bounds, Spool};
use crate::stream::Stream;
use crate::target::pipeline::{DIVERGED, Pipeline};

/// How long a last word to the target may take.
const LEAVE: Duration = Duration::from_millis(300);
/// Whoever waits for an end that does not answer is let go after so long: what stands at the target is exact all the same.
const REST: Duration = Duration::from_millis(550);
/// Values longer than this are taken apart on their way, bytes.
pub(crate) const OPEN_ABOVE: u64 = 16 << 20;

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
#[derive(Debug)]
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
}

/// What a migration is doing, for whoever looks.
#[derive(Debug, Default)]
pub struct Progress {
    /// 0: connecting; 1: snapshot; 2: stream.
    pub phase: AtomicU64,
    /// Keys of the snapshot that the target has confirmed.
    pub keys: AtomicU64,
    /// Keys that the source has, by its own words.
    pub keys_expected: AtomicU64,
    /// Bytes of the snapshot.
    pub full_bytes: AtomicU64,
    /// Commands that went on.
    pub commands: AtomicU64,
    /// Bytes of the stream.
    pub stream_bytes: AtomicU64,
    /// Offset of the source's stream up to which the target has confirmed it.
    pub applied: Arc<AtomicU64>,
    /// How far the target is behind, bytes.
    pub lag_bytes: AtomicU64,
    /// How far the target is behind, milliseconds.
    pub lag_ms: AtomicU64,
}

/// What a migration did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// It is done; else it was stopped and can go on.
    pub done: bool,
    /// Keys of snapshots.
    pub full: Loaded,
    /// Keys that the target had and that were left alone.
    pub left_alone: u64,
    /// Keys whose module the target does not have.
    pub failed: Vec<String>,
    /// How long snapshots took.
    pub full_seconds: f64,
    /// Snapshots taken.
    pub full_syncs: u64,
    /// Times that the stream went on where it was.
    pub partial_syncs: u64,
    /// Something to know.
    pub notes: Vec<String>,
}

/// One migration.
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
}

impl std::fmt::Debug for Mover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mover({} to {})", self.source.place(), self.target.place())
    }
}

/// Why one attempt ended well.
pub(crate) enum Ended {
    Done,
    Stopped,
}

/// Connections of one attempt.
pub(crate) struct Ends {
    /// For questions to the source.
    pub(crate) source: Client,
    /// For questions to the target.
    pub(crate) target: Client,
    /// What the source is.
    pub(crate) from: Server,
    /// What the target is.
    pub(crate) server: Server,
    /// For writing to the target.
    pub(crate) pipeline: Pipeline,
}

impl Mover {
    /// Works until it is done, stopped, or cannot go on.
    ///
    /// # Errors
    /// What cannot be overcome by trying again, or was tried long enough.
    pub async fn run(&self) -> Result<Summary> {
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
            tracing::debug!("the target was left without a word");
        }
        done
    }

    /// The turn at the target is given up, unless another run has taken it.
    async fn leave(&self, token: &str) -> Result<()> {
        let mut target = Client::open(&Node { db: None, ..self.target.clone() }).await?;
        let owner = target.call(&[b"GET", &self.names.owner]).await?;
        if owner.text() == Some(token.as_bytes()) {
            target.ok(&[b"DEL", &self.names.owner]).await?;
        }
        Ok(())
    }

    async fn attempts(&self, token: &str) -> Result<Summary> {
        let mut summary = Summary::default();
        let (mut patience, began) = (Patience::default(), Instant::now());
        let mut first = true;
        loop {
            let failure = match self.attempt(&mut summary, token, std::mem::take(&mut first)).await {
                Ok(ended) => {
                    summary.done = matches!(ended, Ended::Done);
                    return Ok(summary);
                }
                Err(f) if f.kind == Kind::Stopped => return Ok(summary),
                Err(f) if f.op == DIVERGED => {
                    self.note_divergence(&f).await;
                    return Err(f);
                }
                Err(failure) => failure,
            };
            let reached = self.progress.phase.swap(0, Ordering::Relaxed) > 0;
            let applied = self.progress.applied.load(Ordering::Relaxed);
            let (backoff, now) = (&self.options.backoff, began.elapsed());
            // What is wrong with the bytes themselves is not waited out for ever.
            let patient = Reconnect::default();
            let reconnect = if failure.kind == Kind::Corrupt { &patient } else { &*self.options.reconnect };
            let delay = patience.after(reached, applied, reconnect, backoff, now, fastrand::f64());
            let Some(delay) = delay.filter(|_| passes(&failure, reached)) else { return Err(failure) };
            tracing::warn!("{failure}; going on in {delay:?}");
            self.options.teller.tell(News::Lost { failure, delay });
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => return Ok(summary),
            }
        }
    }

    /// What follows must not be built on a target that is not what the source was: whoever comes next is told.
    async fn note_divergence(&self, failure: &Failure) {
        let noted = async {
            let mut target = Client::open(&Node { db: None, ..self.target.clone() }).await?;
            let text = format!("diverged: {}", failure.message);
            target.ok(&[b"SET", &self.names.marker, text.as_bytes()]).await
        };
        if let Err(f) = noted.await {
            tracing::warn!("the divergence could not be noted at the target: {f}");
        }
    }

    async fn attempt(&self, summary: &mut Summary, token: &str, first: bool) -> Result<Ended> {
        let mut source =
            Client::open(&Node { db: None, ..self.source.clone() }).await.map_err(|f| f.at(Side::Source))?;
        let mut target =
            Client::open(&Node { db: None, ..self.target.clone() }).await.map_err(|f| f.at(Side::Target))?;
        let from = Server::ask(&mut source).await.map_err(|f| f.at(Side::Source))?;
        let mut server = Server::ask(&mut target).await.map_err(|f| f.at(Side::Target))?;
        // What a killed run left of its turn is no data.
        let left = target.call(&[b"EXISTS", &self.names.owner]).await.map_err(|f| f.at(Side::Target))?;
        server.keys -= u64::from(left.number() == Some(1)).min(server.keys);
        for (server, side) in [(&from, Side::Source), (&server, Side::Target)] {
            if server.cluster {
                let m = "this server is part of a cluster, which is not supported yet";
                return Err(Failure::new(Kind::Unsupported, "open", m).at(side));
            }
        }
        self.options.route.check(&from.dbs)?;
        self.progress.keys_expected.store(from.keys, Ordering::Relaxed);
        if !from.replid.is_empty() && from.replid == server.replid {
            let m = "source and target are one server, or replicas of one";
            return Err(Failure::new(Kind::Invalid, "open", m));
        }
        let mut write =
            Client::open(&Node { db: None, ..self.target.clone() }).await.map_err(|f| f.at(Side::Target))?;
        // Both ends are there: what breaks from here on is tried again.
        self.progress.phase.store(1, Ordering::Relaxed);
        self.names.fence(&mut target, &mut write, token, first).await?;
        let marker = Marker::read(&mut target, &self.names).await?;
        let known = match &marker {
            Some(Marker::Applied(position, db)) if self.options.until != Until::Full => {
                Some((position.clone(), *db))
            }
            _ => None,
        };
        let link = psync::open(&self.source, known.as_ref().map(|(position, _)| position)).await?;
        let pipeline = Pipeline::new(write, self.progress.applied.clone());
        let mut ends = Ends { source, target, from, server, pipeline };
        match (link.begun.clone(), known) {
            (Begun::Continued(replid), Some((position, db))) => {
                summary.partial_syncs += 1;
                self.options.teller.tell(News::Continued { offset: position.offset });
                let held = self.remembered(&mut ends.target).await?;
                let position = Position { replid, ..position };
                let apply =
                    Apply::new(self.options.route.clone(), Some(self.names.clone()), &position, db, held);
                self.follow(link, None, ends, apply, summary).await
            }
            (Begun::Continued(_), None) => {
                Err(Failure::new(Kind::Corrupt, "psync", "the source goes on though nothing was asked for")
                    .at(Side::Source))
            }
            (Begun::Full(position), known) => {
                if known.is_some() {
                    let note = "the source no longer holds what came behind the last position: a new snapshot was taken; \
                                keys that it deleted meanwhile may remain at the target";
                    summary.notes.push(note.into());
                }
                self.options.teller.tell(News::Snapshot {
                    replid: position.replid.clone(),
                    offset: position.offset,
                    keys: ends.from.keys,
                    again: known.is_some(),
                });
                self.begin_full(&mut ends, marker).await?;
                summary.full_syncs += 1;
                let route = self.options.route.clone();
                let apply = Apply::new(route, Some(self.names.clone()), &position, 0, Held::default());
                let dir = &self.options.spool_dir;
                let snapshot = Spool::new(dir, self.options.spool)?;
                self.follow(link, Some(snapshot), ends, apply, summary).await
            }
        }
    }

    /// Keys whose expiry an earlier run held back.
    async fn remembered(&self, target: &mut Client) -> Result<Held> {
        let mut held = Held::default();
        let reply =
            target.call(&[b"ZRANGE", &self.names.held, b"0", b"-1"]).await.map_err(|f| f.at(Side::Target))?;
        for one in reply.array().unwrap_or_default() {
            if let Some((db, key)) = one.text().and_then(place) {
                held.remember(db, key);
            }
        }
        Ok(held)
    }

    /// Notes that a snapshot begins. What an interrupted snapshot left at a target that was empty before goes first.
    async fn begin_full(&self, ends: &mut Ends, marker: Option<Marker>) -> Result<()> {
        let at = |f: Failure| f.at(Side::Target);
        let target = &mut ends.target;
        let again = marker == Some(Marker::Full);
        if again {
            // Half of a snapshot: nobody works with that yet.
            for db in &ends.server.dbs {
                target.ok(&[b"SELECT", db.to_string().as_bytes()]).await.map_err(at)?;
                target.ok(&[b"FLUSHDB"]).await.map_err(at)?;
            }
            target.ok(&[b"SELECT", b"0"]).await.map_err(at)?;
        }
        target.ok(&[b"DEL", &self.names.held, &self.names.marker]).await.map_err(at)?;
        if again || (marker.is_none() && ends.server.keys == 0) {
            target.ok(&[b"SET", &self.names.marker, Marker::Full.text().as_bytes()]).await.map_err(at)?;
        }
        Ok(())
    }

    /// The snapshot, where there is one, and the stream behind it.
    async fn follow(
        &self,
        mut link: Link,
        snapshot: Option<Arc<Spool>>,
        mut ends: Ends,
        mut apply: Apply,
        summary: &mut Summary,
    ) -> Result<Ended> {
        let applied = ends.pipeline.shared.applied.clone();
        applied.store(apply.offset(), Ordering::Release);
        let stream = Spool::new(&self.options.spool_dir, self.options.spool)?;
        let ack = Arc::new(tokio::sync::Notify::new());
        let receiver = {
            let (snapshot, stream, applied, ack) = (snapshot.clone(), stream.clone(), applied, ack.clone());
            tokio::spawn(async move {
                if let Some(snapshot) = snapshot {
                    let received = link.snapshot(&snapshot).await;
                    snapshot.end(received.clone());
                    if let Err(failure) = received {
                        return stream.end(Err(failure));
                    }
                }
                let broke = link.stream(&stream, applied, ack).await;
                stream.end(broke);
            })
        };
        // Whatever happens here, the link goes with it.
        let _link = Aborted(receiver);
        if let Some(snapshot) = snapshot {
            self.progress.phase.store(1, Ordering::Relaxed);
            let began = Instant::now();
            apply.held = self.load(&snapshot, &mut ends, summary).await?;
            let seconds = began.elapsed().as_secs_f64();
            summary.full_seconds += seconds;
            self.options.teller.tell(News::Loaded { keys: summary.full.keys, seconds });
            if self.options.until == Until::Full {
                return self.end_full(&mut ends).await;
            }
            self.begin_stream(&mut ends, &apply).await?;
        }
        self.progress.phase.store(2, Ordering::Relaxed);
        Stream::new(self, ends, apply, ack).run(&stream).await
    }

    async fn load(&self, snapshot: &Spool, ends: &mut Ends, summary: &mut Summary) -> Result<Held> {
        let mut parser = Parser::new(OPEN_ABOVE);
        let shared = ends.pipeline.shared.clone();
        let hold = self.options.until != Until::Full;
        let (route, conflict) = (&self.options.route, self.options.conflict);
        let mut load =
            Load::new(route, &ends.server, conflict, &mut ends.pipeline, &mut ends.target, &self.clock, hold);
        loop {
            let bytes = tokio::select! {
                bytes = snapshot.pop() => bytes?,
                () = self.stop.cancelled() => return Err(stopped()),
            };
            let Some(bytes) = bytes else { break };
            self.progress.full_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.options.bandwidth.pass(bytes.len() as u64).await;
            parser.push(&bytes);
            while let Some(item) = parser.next_item().map_err(|e| corrupt(&e))? {
                load.item(item).await?;
            }
            self.progress.keys.store(shared.keys.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        if !parser.is_over() {
            return Err(
                Failure::new(Kind::Connect, "snapshot", "the snapshot was cut short").at(Side::Source)
            );
        }
        let (held, loaded) = (std::mem::take(&mut load.held), std::mem::take(&mut load.loaded));
        ends.pipeline.settle().await?;
        self.progress.keys.store(shared.keys.load(Ordering::Relaxed), Ordering::Relaxed);
        summary.left_alone = shared.left.load(Ordering::Relaxed);
        summary.failed = shared.failed();
        if held.beyond > 0 {
            summary.notes.push(format!("{} near expiries found no room to be held back", held.beyond));
        }
        summary.full = loaded;
        Ok(held)
    }

    /// After the snapshot the held keys are listed at the target, and then the position counts.
    async fn begin_stream(&self, ends: &mut Ends, apply: &Apply) -> Result<()> {
        ends.target.ok(&[b"SELECT", b"0"]).await?;
        let all: Vec<(Vec<u8>, i64)> = apply
            .held
            .all()
            .filter_map(|((db, key), expiry)| match expiry {
                Expiry::At(at) => Some((crate::apply::member(*db, key), at)),
                Expiry::Ask => None,
            })
            .collect();
        for some in all.chunks(500) {
            let scores: Vec<String> = some.iter().map(|(_, at)| at.to_string()).collect();
            let mut args: Vec<&[u8]> = vec![b"ZADD", &self.names.held];
            for ((member, _), score) in some.iter().zip(&scores) {
                args.extend([score.as_bytes(), member.as_slice()]);
            }
            ends.target.ok(&args).await.map_err(|f| f.at(Side::Target))?;
        }
        let position = Position { replid: apply.replid().to_owned(), offset: apply.offset() };
        let text = Marker::Applied(position, 0).text();
        ends.target.ok(&[b"SET", &self.names.marker, text.as_bytes()]).await.map_err(|f| f.at(Side::Target))
    }

    /// Only the snapshot was wanted: nothing of ours stays at the target.
    async fn end_full(&self, ends: &mut Ends) -> Result<Ended> {
        ends.target.ok(&[b"SELECT", b"0"]).await?;
        ends.target
            .ok(&[b"DEL", &self.names.marker, &self.names.held, &self.names.owner])
            .await
            .map_err(|f| f.at(Side::Target))?;
        Ok(Ended::Done)
    }
}

/// A target that was written to and may not be any more is failing over: that passes.
fn passes(failure: &Failure, reached: bool) -> bool {
    failure.is_temporary() || (reached && failure.kind == Kind::ReadOnly)
}

fn stopped() -> Failure {
    Failure::new(Kind::Stopped, "redis", "the migration is stopping")
}

/// A task that ends with its owner.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}
