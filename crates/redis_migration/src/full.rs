//! The full phase: a snapshot of the source is loaded, and what comes behind it waits; then the stream is followed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use model::failure::{Failure, Kind, Result, Side};
use redis_proto::command::SLOTS;
use redis_proto::rdb::{Item, Parser};

use crate::apply::{Apply, Part};
use crate::attempt::{Ended, Ends};
use crate::claims::{self, Claim};
use crate::load::{Load, corrupt};
use crate::marker::{Marker, TURN};
use crate::mover::{Mover, Until};
use crate::news::News;
use crate::parts;
use crate::progress::Summary;
use crate::source::psync::{Link, Position};
use crate::spool::Spool;
use crate::stream::Stream;
use crate::target::Writer;

/// Values longer than this are taken apart on their way, bytes.
pub(crate) const OPEN_ABOVE: u64 = 32 << 20;

/// What cannot be overcome says how much of the snapshot stands at the target.
pub(crate) fn how_far(failure: Failure, keys: u64) -> Failure {
    if failure.is_temporary() || failure.kind == Kind::Stopped || keys == 0 {
        return failure;
    }
    let m = format!(
        "{}; {keys} keys of the snapshot were written; running the same command again writes them again",
        failure.message
    );
    Failure { message: m, ..failure }
}

impl Mover {
    /// Notes that a snapshot begins. What an interrupted snapshot left at a target that was empty before goes first.
    pub(crate) async fn begin_full(
        &self,
        ends: &mut Ends,
        marker: Option<Marker>,
        replid: &str,
    ) -> Result<()> {
        if ends.server.lacks.transactions {
            return Ok(());
        }
        let target = &mut ends.target;
        let claim = Claim::new(&self.options.route, replid);
        claim.prevail(target, &self.names, &self.target, &ends.from).await?;
        // Whoever keeps no position claims none.
        if self.options.until != Until::Full {
            claim.note(target, &self.names).await?;
        }
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
    pub(crate) async fn follow(
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
            let shared = ends.writer.shared().clone();
            self.load(&snapshot, &mut ends, &mut apply, summary)
                .await
                .map_err(|f| how_far(f, shared.keys.load(Ordering::Relaxed)))?;
            let seconds = began.elapsed().as_secs_f64();
            summary.full_seconds += seconds;
            self.options.teller.tell(News::Loaded { keys: summary.full.keys, seconds });
            if self.options.until == Until::Full {
                return self.end_full(&mut ends).await;
            }
            self.begin_stream(&mut ends, &apply, &epoch).await?;
            ends.wake_source().await?;
        }
        self.progress.phase.store(2, Ordering::Relaxed);
        summary.resumable = !ends.server.lacks.transactions;
        Stream::new(self, ends, apply, epoch, ack).run(&stream, summary).await
    }

    async fn load(
        &self,
        snapshot: &Spool,
        ends: &mut Ends,
        apply: &mut Apply,
        summary: &mut Summary,
    ) -> Result<()> {
        let mut parser = Parser::new(OPEN_ABOVE);
        let shared = ends.writer.shared().clone();
        let (route, conflict) = (&self.options.route, self.options.conflict);
        let mut load =
            Load::new(route, &ends.server, conflict, &mut ends.writer, &mut ends.target, &self.clock);
        load.policy = self.options.functions;
        let mut turn_at = Instant::now();
        loop {
            if let Some(token) = ends.turn.as_ref().filter(|_| turn_at.elapsed() > TURN) {
                load.check_turn(&self.names, token).await?;
                turn_at = Instant::now();
            }
            let next = async {
                let bytes = snapshot.pop().await?;
                let length = bytes.as_ref().map_or(0, |b| b.len() as u64);
                self.options.bandwidth.pass(length).await;
                Ok::<_, Failure>(bytes)
            };
            let bytes = tokio::select! {
                bytes = load.alive_while(next) => bytes??,
                () = self.stop.cancelled() => return Err(stopped()),
            };
            let Some(bytes) = bytes else { break };
            self.progress.full_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            parser.push(&bytes);
            while let Some(item) = parser.next_item().map_err(|e| corrupt(&e))? {
                if let Item::Aux(name, text) = &item
                    && **name == b"lua"[..]
                {
                    apply.scripts.learn(text);
                }
                let alike = matches!(item, Item::Function(_));
                if !alike || self.shard.as_ref().is_none_or(|master| master.part() == Part::First) {
                    load.item(item).await?;
                }
            }
            self.progress.keys.store(shared.keys.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        if !parser.is_over() {
            return Err(Failure::new(Kind::Connect, "snapshot", "the snapshot is truncated").at(Side::Source));
        }
        load.end().await?;
        let (loaded, notes) = (std::mem::take(&mut load.loaded), std::mem::take(&mut load.notes));
        summary.notes.extend(notes);
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
        let scripts = apply.scripts.keep(&self.names.scripts, None);
        if !scripts.is_empty() {
            ends.target.ok(&self.names.scripts, &scripts).await?;
        }
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

fn stopped() -> Failure {
    Failure::new(Kind::Stopped, "redis", "the migration was stopped")
}

/// A task that ends with its owner.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}
