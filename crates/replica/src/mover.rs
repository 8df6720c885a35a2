//! One migration from one server to another: how it begins, what comes after what, and how it goes on when something
//! breaks.
//!
//! ```text
//!            marker at the target?            backlog holds it?
//! begin ──┬── no, or `full` ──> full: snapshot ─┐      │no
//!         └── `applied` ──────> PSYNC from it ──┴──────┴───> stream: catch up, follow
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::failure::{Failure, Kind, Result, Side};
use pace::backoff::Backoff;
use pace::budget::Bandwidth;
use pace::clock::SharedClock;
use redis_proto::command::SLOTS;
use redis_proto::rdb::{Family, Item, Parser};
use redis_proto::resp::Reply;
use tokio_util::sync::CancellationToken;

use crate::apply::{ANEW, Apply, Part};
use crate::asker::Asker;
use crate::claims::{self, Claim};
use crate::client::Client;
use crate::fleet;
use crate::load::{Load, corrupt};
use crate::marker::{Marker, Names};
use crate::news::{News, Teller};
use crate::node::Node;
use crate::parts::{self, Ranges};
use crate::patience::{Patience, Reconnect};
use crate::progress::{Progress, Summary};
use crate::restore::Conflict;
use crate::route::Route;
use crate::server::Server;
use crate::source::psync::{self, Begun, Link, Position};
use crate::spool::{Bounds, Spool};
use crate::stream::Stream;
use crate::target::Writer;
use crate::target::lacks::{NOTE, SNAPSHOTS_MAX};
use crate::target::many::{Fence, Many};
use crate::target::pipeline::{DIVERGED, Pipeline, Shared};
use crate::tongue::Tongue;
use crate::topology::Topology;

/// How long a last word to the target may take.
const LEAVE: Duration = Duration::from_millis(300);
/// Whoever waits for an end that does not answer is let go after so long: what stands at the target is exact all the same.
const REST: Duration = Duration::from_millis(550);
/// Values longer than this are taken apart on their way, bytes.
pub(crate) const OPEN_ABOVE: u64 = 32 << 20;

/// The source turned out to be a cluster.
const CLUSTER: &str = "cluster source";
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
}

impl Master {
    /// What all masters have alike is taken from that of the first slot.
    fn part(&self) -> Part {
        if self.first() == 0 { Part::First } else { Part::Other }
    }

    fn first(&self) -> u16 {
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
    pub(crate) target: Asker,
    /// What the source is.
    pub(crate) from: Server,
    /// What the target is.
    pub(crate) server: Server,
    /// For writing to the target.
    pub(crate) writer: Writer,
    /// The target runs scripts, by which keys are watched there.
    pub(crate) watches: bool,
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
            tracing::debug!("the target was left without a word");
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
        let mut first = true;
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
                    let m = format!(
                        "{}; its position, which counts no more, is the key `{key}` there",
                        f.message
                    );
                    return Err(Failure { message: m, ..f });
                }
                Err(failure) => failure,
            };
            let worn = summary.full_syncs >= SNAPSHOTS_MAX && summary.notes.iter().any(|note| note == NOTE);
            if worn && !self.options.reconnect.is_always() {
                let m =
                    format!("{}; a proxy may end a connection upon what it does not know", failure.message);
                return Err(Failure { message: m, ..failure });
            }
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
            let (mut target, server, _) = self.asker().await?;
            if server.lacks.transactions {
                return Ok(());
            }
            let text = format!("diverged: {}", failure.message);
            target.ok(&self.names.marker, &[b"SET", &self.names.marker, text.as_bytes()]).await
        };
        if let Err(f) = noted.await {
            tracing::warn!("the divergence could not be noted at the target: {f}");
        }
    }

    async fn attempt(&self, summary: &mut Summary, token: &str, first: bool) -> Result<Ended> {
        let (mut source, source_node) = self.source_client().await.map_err(|f| f.at(Side::Source))?;
        let from = Server::ask(&mut source).await.map_err(|f| f.at(Side::Source))?;
        if from.cluster && self.shard.is_none() {
            let m = "the source is a cluster: all of its masters are moved together";
            return Err(Failure::new(Kind::Unavailable, CLUSTER, m).at(Side::Source));
        }
        let (mut target, mut server, topology) = self.asker().await?;
        // What a killed run left of its turn is no data.
        let owner = &self.names.owner;
        let left = target.call(0, owner, &[b"EXISTS", owner]).await?;
        let mut ours = u64::from(left.number() == Some(1));
        if !server.lacks.transactions {
            ours += claims::keys(&mut target).await?;
        }
        server.keys = server.keys.saturating_sub(ours);
        self.options.route.check(&from.dbs)?;
        let beyond = from.dbs.iter().find(|db| self.options.route.db(**db).is_some_and(|to| to != 0));
        if let (Some(db), true) = (beyond, !server.has_databases()) {
            let m = format!(
                "the source has keys in database {db}, of which the target has none: --db-map {db}=0, or name /0 only"
            );
            return Err(Failure::new(Kind::Unsupported, "open", m).at(Side::Target));
        }
        if first && server.is_replica && topology.is_none() && !self.options.reconnect.is_always() {
            let m = format!("{} is a replica, which takes no writes: name its master", self.target.place());
            return Err(Failure::new(Kind::ReadOnly, "open", m).at(Side::Target));
        }
        if let Some(db) = self.options.route.only_db.filter(|db| *db > 0) {
            source.ok(&[b"SELECT", db.to_string().as_bytes()]).await.map_err(|f| {
                let m = format!("the source has no database {db}: {}", f.message);
                Failure::new(if f.is_temporary() { f.kind } else { Kind::Invalid }, "open", m)
                    .at(Side::Source)
            })?;
        }
        self.progress.keys_expected.store(from.keys, Ordering::Relaxed);
        if !from.replid.is_empty() && from.replid == server.replid {
            let m = "source and target are one server, or replicas of one";
            return Err(Failure::new(Kind::Invalid, "open", m));
        }
        // Both ends are there: what breaks from here on is tried again.
        self.progress.phase.store(1, Ordering::Relaxed);
        let applied = self.progress.applied.clone();
        let mut writer = match &topology {
            None => {
                let node = Node { db: None, ..self.target.clone() };
                let mut write = Client::open(&node).await.map_err(|f| f.at(Side::Target))?;
                if server.lacks.transactions {
                    self.without_transactions(&mut target, token, first, summary).await?;
                } else {
                    self.names.fence(target.of(owner).await?, &mut write, token, first).await?;
                }
                Writer::One(Pipeline::new(write, applied))
            }
            Some(topology) => {
                let fence = Fence { names: self.names.clone(), token: token.to_owned() };
                let shared = Shared::new(applied);
                Writer::Many(Box::new(Many::open(self.target.clone(), topology, fence, first, shared).await?))
            }
        };
        let marker = match server.lacks.transactions {
            true => None,
            false => Marker::read(&mut target, &self.names).await?,
        };
        let known = match &marker {
            Some(Marker::Applied(position, db, epoch)) if self.options.until != Until::Full => {
                Some((position.clone(), *db, epoch.clone().unwrap_or_default()))
            }
            _ => None,
        };
        let watches = !server.lacks.transactions && self.runs_scripts(&mut target, summary).await?;
        let tongue = tongue(&from, &server, &mut target).await?;
        let link = psync::open(&source_node, known.as_ref().map(|(position, ..)| position)).await?;
        if let (Writer::Many(many), Begun::Continued(_), Some((.., epoch))) =
            (&mut writer, &link.begun, &known)
        {
            let done = self.slots_done(&mut target, epoch).await?;
            many.begin_changes(epoch, &done);
        }
        let mut ends = Ends { source, target, from, server, writer, watches };
        match (link.begun.clone(), known) {
            (Begun::Continued(replid), Some((position, db, epoch))) => {
                summary.partial_syncs += 1;
                self.options.teller.tell(News::Continued { offset: position.offset });
                Claim::new(&self.options.route, &replid).note(&mut ends.target, &self.names).await?;
                let position = Position { replid, ..position };
                let apply = self.apply(&position, db, tongue);
                self.follow(link, None, ends, apply, epoch, summary).await
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
                self.begin_full(&mut ends, marker, &position.replid).await?;
                summary.full_syncs += 1;
                let mut apply = self.apply(&position, 0, tongue);
                if ends.server.lacks.transactions {
                    apply = apply.unnoted();
                }
                let dir = &self.options.spool_dir;
                let snapshot = Spool::new(dir, self.options.spool)?;
                let epoch = format!("{:016x}", fastrand::u64(..));
                self.follow(link, Some(snapshot), ends, apply, epoch, summary).await
            }
        }
    }

    fn apply(&self, position: &Position, db: u32, tongue: Option<Tongue>) -> Apply {
        let mut apply = Apply::new(self.options.route.clone(), Some(self.names.clone()), position, db);
        apply.tongue = tongue;
        match &self.shard {
            Some(master) => apply.part_of_many(master.part()),
            None => apply,
        }
    }

    /// Whether the target runs scripts; the user is told what it means when it does not.
    async fn runs_scripts(&self, target: &mut Asker, summary: &mut Summary) -> Result<bool> {
        let owner = &self.names.owner;
        match target.call(0, owner, &[b"EVAL", b"return 1", b"1", owner]).await {
            Ok(_) => Ok(true),
            Err(f) if f.is_temporary() => Err(f),
            Err(f) => {
                let note = format!(
                    "the target lets nobody run scripts (EVAL): keys that expire there while the migration is interrupted, \
                     and are renewed at the source, may be wrong afterwards; {}",
                    f.message
                );
                if !summary.notes.contains(&note) {
                    self.options.teller.tell(News::Note(note.clone()));
                    summary.notes.push(note);
                }
                Ok(false)
            }
        }
    }

    /// How far each slot of a cluster is, by its own mark.
    async fn slots_done(&self, target: &mut Asker, epoch: &str) -> Result<Vec<(u16, u64)>> {
        let marks: Vec<Vec<u8>> = (0..SLOTS).map(|slot| self.names.marker_at(slot)).collect();
        let found = target.each(&marks, &[b"GET"], &[]).await?;
        let offset = |reply: &Reply| {
            let text = String::from_utf8_lossy(reply.text()?).into_owned();
            text.split_once(' ').filter(|(e, _)| *e == epoch)?.1.parse().ok()
        };
        Ok((0..SLOTS).zip(&found).filter_map(|(slot, reply)| Some((slot, offset(reply)?))).collect())
    }

    /// The source, at the first of its addresses that is no replica; replicas of it are followed by none of ours.
    async fn source_client(&self) -> Result<(Client, Node)> {
        let mut addrs = self.source.addrs.clone();
        if let Some(master) = &self.shard
            && let Ok(topology) = Topology::ask(&master.whole).await
            && let Some(shard) = topology.of_slot(master.first())
        {
            // Who has the slots now: a replica may have taken its master's place.
            addrs = std::iter::once(&shard.master).chain(&shard.replicas).cloned().collect();
        }
        let mut last = Failure::new(Kind::Connect, "connect", "the source has no address");
        for (i, addr) in addrs.iter().enumerate() {
            let node = Node { db: None, ..self.source.at(addr) };
            match Client::open(&node).await {
                Ok(mut client) => {
                    let last_one = i + 1 == addrs.len();
                    if last_one || !Server::ask(&mut client).await?.is_replica {
                        return Ok((client, node));
                    }
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn asker(&self) -> Result<(Asker, Server, Option<Topology>)> {
        Asker::open(&self.target, Side::Target).await
    }

    /// It is our turn at a target where no other writer can be ended, and the user is told what that means.
    async fn without_transactions(
        &self,
        target: &mut Asker,
        token: &str,
        first: bool,
        summary: &mut Summary,
    ) -> Result<()> {
        let owner = &self.names.owner;
        if first {
            target.ok(owner, &[b"SET", owner, token.as_bytes()]).await?;
            self.options.teller.tell(News::Note(NOTE.into()));
            summary.notes.push(NOTE.into());
        }
        self.names.check_turn(target.of(owner).await?, token).await
    }

    /// Notes that a snapshot begins. What an interrupted snapshot left at a target that was empty before goes first.
    async fn begin_full(&self, ends: &mut Ends, marker: Option<Marker>, replid: &str) -> Result<()> {
        if ends.server.lacks.transactions {
            return Ok(());
        }
        let target = &mut ends.target;
        let claim = Claim::new(&self.options.route, replid);
        claim.prevail(target, &self.names, &self.target, &ends.from).await?;
        claim.note(target, &self.names).await?;
        let again = marker == Some(Marker::Full);
        if again {
            // Half of a snapshot: nobody works with that yet.
            if let Some(master) = &self.shard {
                if let Some(db) = self.options.route.db(0) {
                    parts::sweep(target, db, &master.ranges).await?;
                }
            } else if ends.writer.is_cluster() {
                target.everywhere(&[b"FLUSHALL"]).await?;
            } else {
                for db in &ends.server.dbs {
                    target.call(*db, b"", &[b"FLUSHDB"]).await?;
                }
            }
        } else if ends.writer.is_cluster() && marker.is_some() {
            // What an earlier run doubted is none of this one's.
            let lists: Vec<Vec<u8>> = (0..SLOTS).map(|slot| self.names.doubted_at(slot)).collect();
            target.each(&lists, &[b"DEL"], &[]).await?;
        }
        let (doubted, mark) = (&self.names.doubted, &self.names.marker);
        target.ok(doubted, &[b"DEL", doubted]).await?;
        target.ok(mark, &[b"DEL", mark]).await?;
        // What others of the same migration have brought is none of ours.
        let alone = self.shard.as_ref().map_or(ends.server.keys == 0, |master| master.alone);
        if again || (marker.is_none() && alone) {
            target.ok(mark, &[b"SET", mark, Marker::Full.text().as_bytes()]).await?;
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
        epoch: String,
        summary: &mut Summary,
    ) -> Result<Ended> {
        if ends.writer.is_cluster() {
            apply = apply.bare();
        }
        let applied = ends.writer.shared().applied.clone();
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
            self.load(&snapshot, &mut ends, summary).await?;
            let seconds = began.elapsed().as_secs_f64();
            summary.full_seconds += seconds;
            self.options.teller.tell(News::Loaded { keys: summary.full.keys, seconds });
            if self.options.until == Until::Full {
                return self.end_full(&mut ends).await;
            }
            self.begin_stream(&mut ends, &apply, &epoch).await?;
        }
        self.progress.phase.store(2, Ordering::Relaxed);
        summary.resumable = !ends.server.lacks.transactions;
        Stream::new(self, ends, apply, epoch, ack).run(&stream, summary).await
    }

    async fn load(&self, snapshot: &Spool, ends: &mut Ends, summary: &mut Summary) -> Result<()> {
        let mut parser = Parser::new(OPEN_ABOVE);
        let shared = ends.writer.shared().clone();
        let (route, conflict) = (&self.options.route, self.options.conflict);
        let mut load =
            Load::new(route, &ends.server, conflict, &mut ends.writer, &mut ends.target, &self.clock);
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
                let alike = matches!(item, Item::Function(_));
                if !alike || self.shard.as_ref().is_none_or(|master| master.part() == Part::First) {
                    load.item(item).await?;
                }
            }
            self.progress.keys.store(shared.keys.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        if !parser.is_over() {
            return Err(
                Failure::new(Kind::Connect, "snapshot", "the snapshot was cut short").at(Side::Source)
            );
        }
        load.end().await?;
        let loaded = std::mem::take(&mut load.loaded);
        ends.writer.settle().await?;
        self.progress.keys.store(shared.keys.load(Ordering::Relaxed), Ordering::Relaxed);
        summary.left_alone = shared.left.load(Ordering::Relaxed);
        summary.failed = shared.failed();
        summary.full = loaded;
        Ok(())
    }

    /// After the snapshot the position counts.
    async fn begin_stream(&self, ends: &mut Ends, apply: &Apply, epoch: &str) -> Result<()> {
        if ends.server.lacks.transactions {
            return Ok(());
        }
        let position = Position { replid: apply.replid().to_owned(), offset: apply.offset() };
        let mut epoch_of_slots = None;
        if let Writer::Many(many) = &mut ends.writer {
            many.begin_changes(epoch, &[]);
            epoch_of_slots = Some(epoch.to_owned());
        }
        let text = Marker::Applied(position, 0, epoch_of_slots).text();
        ends.target.ok(&self.names.marker, &[b"SET", &self.names.marker, text.as_bytes()]).await
    }

    /// Only the snapshot was wanted: nothing of ours stays at the target.
    async fn end_full(&self, ends: &mut Ends) -> Result<Ended> {
        for key in [&self.names.marker, &self.names.doubted, &self.names.owner] {
            ends.target.ok(key, &[b"DEL", key]).await?;
        }
        if !ends.server.lacks.transactions {
            claims::withdraw(&mut ends.target, &self.names).await?;
        }
        Ok(Ended::Done)
    }
}

/// What the target understands; none where it understands all that the source says.
async fn tongue(from: &Server, to: &Server, target: &mut Asker) -> Result<Option<Tongue>> {
    let same = !to.lacks.transactions && from.family == to.family && from.version <= to.version;
    // Valkey began as Redis 7.2.
    if same || (to.family == Family::Valkey && from.family == Family::Redis && from.version <= (7, 2)) {
        return Ok(None);
    }
    Tongue::ask(to, target).await.map(Some)
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
