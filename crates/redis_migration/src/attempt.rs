//! One attempt of a migration: both ends are opened and looked at, and what stands at the target says how it begins.
//!
//! ```text
//!            marker at the target?            backlog holds it?
//! begin ──┬── no, or `full` ──> full: snapshot ─┐      │no
//!         └── `applied` ──────> PSYNC from it ──┴──────┴───> stream: catch up, follow
//! ```

use std::sync::atomic::Ordering;

use model::failure::{Failure, Kind, Result, Side};
use redis_proto::command::SLOTS;
use redis_proto::rdb::Family;
use redis_proto::resp::Reply;

use crate::apply::{Apply, going_round};
use crate::asker::Asker;
use crate::claims::{self, Claim};
use crate::client::Client;
use crate::marker::{Marker, OURS, UNFENCED};
use crate::mover::{CLUSTER, Mover, Until};
use crate::news::News;
use crate::node::Node;
use crate::progress::Summary;
use crate::server::Server;
use crate::source::psync::{self, Begun, Position};
use crate::spool::Spool;
use crate::target::lacks::{BUILT, NOTE};
use crate::target::many::{Fence, Many};
use crate::target::pipeline::{Pipeline, Shared};
use crate::target::{ALIVE, Writer};
use crate::tongue::Tongue;
use crate::topology::Topology;

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
    pub(crate) scripts: bool,
    /// Where the source is asked.
    pub(crate) source_node: Node,
    /// Whose turn it is, where an earlier run cannot be disconnected: it is looked at again and again.
    pub(crate) turn: Option<String>,
}

impl Ends {
    /// The connection for questions to the source was idle while the snapshot was loaded: it is opened again if the source
    /// has closed it.
    pub(crate) async fn wake_source(&mut self) -> Result<()> {
        let idle = self.source.used.elapsed() > ALIVE;
        if idle && self.source.ok(&[b"PING"]).await.is_err_and(|f| f.kind == Kind::Connect) {
            self.source = Client::open(&self.source_node).await.map_err(|f| f.at(Side::Source))?;
        }
        Ok(())
    }
}

impl Mover {
    /// Goes on from the target's mark, or begins with a snapshot, until it is done, stopped or broken.
    pub(crate) async fn attempt(&self, summary: &mut Summary, token: &str, first: bool) -> Result<Ended> {
        let (mut source, source_node) = self.source_client().await.map_err(|f| f.at(Side::Source))?;
        let from = Server::ask(&mut source).await.map_err(|f| f.at(Side::Source))?;
        if from.cluster && self.shard.is_none() {
            let m = "the source is a cluster: all of its masters are migrated together";
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
        self.check(&mut source, &from, &server, first && topology.is_none()).await?;
        if server.has_databases() {
            target.prove(self.options.route.targets(&from.dbs)).await?;
        }
        // Both ends are there: what breaks from here on is tried again.
        self.progress.phase.store(1, Ordering::Relaxed);
        let (mut writer, fenced) = self
            .writer(&mut target, server.lacks.transactions, topology.as_ref(), token, first, summary)
            .await?;
        let turn = (!fenced).then(|| token.to_owned());
        self.say_lacks(turn.is_some(), &server, summary);
        if let Some(id) = claims::coming_from(&mut source, &identities(&server)).await {
            return Err(going_round(&id));
        }
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
        let scripts = !server.lacks.transactions && self.runs_scripts(&mut target, summary).await?;
        let tongue = tongue(&from, &server, &mut target).await?;
        // No snapshot is asked for while the target takes nothing.
        if !server.lacks.transactions {
            let probe = [OURS, b"probe:", self.names.id.as_bytes()].concat();
            target.ok(&probe, &[b"SET", &probe, b"1", b"PX", b"1000"]).await?;
            target.ok(&probe, &[b"DEL", &probe]).await?;
        }
        let position = known.as_ref().map(|(position, ..)| position);
        let link = writer.alive_while(psync::open(&source_node, position)).await??;
        if let (Writer::Many(many), Begun::Continued(_), Some((.., epoch))) =
            (&mut writer, &link.begun, &known)
        {
            let done = self.slots_done(&mut target, epoch).await?;
            many.begin_changes(epoch, &done);
        }
        let mut ends = Ends { source, target, from, server, writer, scripts, source_node, turn };
        match (link.begun.clone(), known) {
            (Begun::Continued(replid), Some((position, db, epoch))) => {
                summary.partial_syncs += 1;
                self.options.teller.tell(News::Continued { offset: position.offset });
                Claim::new(&self.options.route, &replid).note(&mut ends.target, &self.names).await?;
                let position = Position { replid, ..position };
                let mut apply = self.apply(&position, db, tongue);
                let key = &self.names.scripts;
                let kept = ends.target.call(0, key, &[b"HVALS", key]).await?;
                for text in kept.array().unwrap_or_default().iter().filter_map(Reply::text) {
                    apply.scripts.learn(text);
                }
                apply.comes_from = identities(&ends.server);
                self.follow(link, None, ends, apply, epoch, summary).await
            }
            (Begun::Continued(_), None) => Err(Failure::new(
                Kind::Corrupt,
                "psync",
                "the source replied +CONTINUE to a full-sync request",
            )
            .at(Side::Source)),
            (Begun::Full(position), known) => {
                if known.is_some() {
                    let note = "the replication backlog no longer covers the checkpoint; a new full sync was made. \
                         Keys that the source deleted in between may remain at the target";
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
                apply.comes_from = identities(&ends.server);
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

    /// Whether these ends can have this migration; `alone`: the target is one server that was never reached before.
    async fn check(&self, source: &mut Client, from: &Server, server: &Server, alone: bool) -> Result<()> {
        self.options.route.check(&from.dbs)?;
        let beyond = from.dbs.iter().find(|db| self.options.route.db(**db).is_some_and(|to| to != 0));
        if let (Some(db), true) = (beyond, !server.has_databases()) {
            let m = format!(
                "the source has keys in database {db}, which the target does not have; hint: use --db-map {db}=0, or \
                 migrate database 0 only (/0)"
            );
            return Err(Failure::new(Kind::Unsupported, "open", m).at(Side::Target));
        }
        if alone && server.is_replica && !self.options.reconnect.is_always() {
            let m = format!(
                "{} is a read-only replica; hint: use the address of its master",
                self.target.place()
            );
            return Err(Failure::new(Kind::ReadOnly, "open", m).at(Side::Target));
        }
        if let Some(db) = self.options.route.only_db.filter(|db| *db > 0) {
            source.select(db).await.map_err(|f| {
                let m = format!("database {db} does not exist at the source: {}", f.message);
                Failure::new(if f.is_temporary() { f.kind } else { Kind::Invalid }, "open", m)
                    .at(Side::Source)
            })?;
        }
        self.progress.keys_expected.store(from.keys, Ordering::Relaxed);
        if !from.replid.is_empty() && from.replid == server.replid {
            let m = "source and target are the same server, or replicas of the same master";
            return Err(Failure::new(Kind::Invalid, "open", m));
        }
        Ok(())
    }

    /// What the target refuses and can be done without is told once.
    fn say_lacks(&self, unfenced: bool, server: &Server, summary: &mut Summary) {
        let built = server.lacks.restore && !server.lacks.transactions;
        for (_, note) in [(unfenced, UNFENCED), (built, BUILT)].into_iter().filter(|(is, _)| *is) {
            if !summary.notes.iter().any(|known| known == note) {
                self.options.teller.tell(News::Note(note.into()));
                summary.notes.push(note.into());
            }
        }
    }

    /// The writer, when it is our turn at the target; false where earlier runs could not be disconnected.
    async fn writer(
        &self,
        target: &mut Asker,
        lacks_transactions: bool,
        topology: Option<&Topology>,
        token: &str,
        first: bool,
        summary: &mut Summary,
    ) -> Result<(Writer, bool)> {
        let applied = self.progress.applied.clone();
        match topology {
            None => {
                let node = Node { db: None, ..self.target.clone() };
                let mut write = Client::open(&node).await.map_err(|f| f.at(Side::Target))?;
                let mut fenced = true;
                if lacks_transactions {
                    self.without_transactions(target, token, first, summary).await?;
                } else {
                    let ask = target.of(&self.names.owner).await?;
                    fenced = self.names.fence(ask, &mut write, token, first).await?;
                }
                Ok((Writer::One(Pipeline::new(write, applied)), fenced))
            }
            Some(topology) => {
                let fence = Fence { names: self.names.clone(), token: token.to_owned() };
                let shared = Shared::new(applied);
                let mut many = Many::open(self.target.clone(), topology, fence, first, shared).await?;
                many.functions = self.options.functions;
                let fenced = many.fenced;
                Ok((Writer::Many(Box::new(many)), fenced))
            }
        }
    }

    fn apply(&self, position: &Position, db: u32, tongue: Option<Tongue>) -> Apply {
        let mut apply = Apply::new(self.options.route.clone(), Some(self.names.clone()), position, db)
            .without(self.options.skip.clone());
        apply.tongue = tongue;
        apply.functions_apart = true;
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
                    "scripting (EVAL) is not permitted at the target: every key that changes before the target has \
                     caught up is read again, and a write to an expired key may end the migration; {}",
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
}

/// How a server's stream is called, and was before.
fn identities(server: &Server) -> Vec<String> {
    let all = server.masters.iter().chain([&server.replid, &server.replid_before]);
    all.filter(|id| id.bytes().any(|b| b != b'0')).cloned().collect()
}

/// What the target understands; none where it understands all that the source says.
async fn tongue(from: &Server, to: &Server, target: &mut Asker) -> Result<Option<Tongue>> {
    let same = from.family == to.family && from.version <= to.version;
    // Valkey began as Redis 7.2.
    let heir = to.family == Family::Valkey && from.family == Family::Redis && from.version <= (7, 2);
    let understands = !to.lacks.transactions && !to.lacks.restore && (same || heir);
    if understands { Ok(None) } else { Tongue::ask(to, target).await.map(Some) }
}
