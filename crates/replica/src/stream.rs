//! The stream behind a snapshot while it is followed: applied in transactions, looked at, released, brought to rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::failure::{Failure, Kind, Result, Side};
use redis_proto::resp::Commands;

use crate::apply::{Apply, Taken};
use crate::held::{Expiry, Place, SOON_MS};
use crate::mover::{Ended, Ends, Mover, Until};
use crate::news::News;
use crate::server::Server;
use crate::spool::Spool;
use crate::target::pipeline::About;

/// How often the source is asked how far it is.
const PROBE: Duration = Duration::from_millis(100);
/// The same when somebody waits for the end.
const LAST_PROBE: Duration = Duration::from_millis(4);
/// Answers to a stop are waited for so long.
const REST: Duration = Duration::from_millis(400);
/// Pieces of the stream that are taken before the clock is looked at.
const PIECES: usize = 64;

/// What the source was asked, and when.
#[derive(Clone, Copy, Debug)]
struct Probe {
    offset: u64,
    at_ms: i64,
    began: Instant,
}

/// The stream while it is followed.
pub(crate) struct Stream<'a> {
    mover: &'a Mover,
    ends: Ends,
    apply: Apply,
    ack: Arc<tokio::sync::Notify>,
    commands: Option<Commands>,
    /// Everything that the source did until then is applied, milliseconds since the epoch.
    passed_ms: i64,
    probe: Option<Probe>,
    /// Done as soon as nothing is behind.
    finishing: bool,
    done: bool,
}

impl<'a> Stream<'a> {
    /// Begins behind what `apply` has taken; until it has caught up, near expiries are held back.
    pub(crate) fn new(mover: &'a Mover, ends: Ends, mut apply: Apply, ack: Arc<tokio::sync::Notify>) -> Self {
        apply.behind = true;
        let commands = Some(Commands::at(apply.offset()));
        let finishing = mover.options.until == Until::CaughtUp;
        Self { mover, ends, apply, ack, commands, passed_ms: 0, probe: None, finishing, done: false }
    }

    /// Follows until it is done or stopped, or something breaks.
    pub(crate) async fn run(mut self, spool: &Spool) -> Result<Ended> {
        let mut tick = tokio::time::interval(PROBE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (stop, finish) = (self.mover.stop.clone(), self.mover.finish.clone());
        let mut asked = false;
        loop {
            let bytes = tokio::select! {
                biased;
                () = stop.cancelled() => return self.rest().await,
                () = finish.cancelled(), if !asked => {
                    // What was known of the source before does not count: it may have gone on since.
                    (asked, self.finishing, self.probe) = (true, true, None);
                    tick = tokio::time::interval(LAST_PROBE);
                    None
                }
                _ = tick.tick() => None,
                bytes = spool.pop() => Some(bytes),
            };
            match bytes {
                None => {
                    self.look().await?;
                    if self.done {
                        self.close(true).await?;
                        self.ends.pipeline.settle().await?;
                        return Ok(Ended::Done);
                    }
                }
                Some(Ok(Some(bytes))) => self.feed(bytes, spool).await?,
                Some(Ok(None)) => {
                    return Err(Failure::new(Kind::Connect, "psync", "the stream ended").at(Side::Source));
                }
                Some(Err(failure)) => {
                    // What has come is applied before the link is opened anew.
                    self.apply.abandon(self.ends.pipeline.out());
                    self.ends.pipeline.settle().await?;
                    return Err(failure);
                }
            }
        }
    }

    async fn feed(&mut self, bytes: bytes::Bytes, spool: &Spool) -> Result<()> {
        let Some(mut commands) = self.commands.take() else { return Ok(()) };
        let mut next = Some(bytes);
        let mut pieces = 0;
        while let Some(bytes) = next.take() {
            let progress = &self.mover.progress;
            progress.stream_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.mover.options.bandwidth.pass(bytes.len() as u64).await;
            commands.push(&bytes);
            loop {
                let begin = commands.offset();
                let command = commands
                    .next_command()
                    .map_err(|e| Failure::new(Kind::Corrupt, "stream", e.to_string()).at(Side::Source))?;
                let Some(command) = command else { break };
                let end = begin + command.raw.len() as u64;
                let now = self.mover.clock.now_ms();
                let taken = self.apply.take(&command, end, self.ends.pipeline.out(), now)?;
                if taken == Taken::AckWanted {
                    self.ack.notify_one();
                }
                if self.apply.is_full(self.ends.pipeline.out()) {
                    self.close(false).await?;
                }
            }
            progress.commands.store(self.apply.commands, Ordering::Relaxed);
            pieces += 1;
            if pieces < PIECES {
                next = spool.try_pop().ok().flatten().flatten();
            }
        }
        self.commands = Some(commands);
        self.close(true).await
    }

    /// Ends the open transaction; `now`: nothing else waits, so it is sent at once.
    async fn close(&mut self, now: bool) -> Result<()> {
        if let Some((about, bytes)) = self.apply.close(self.ends.pipeline.out()) {
            self.ends.pipeline.expect(about, bytes);
        }
        // A transaction that is still open is not sent in parts: its answers are expected as one.
        match self.apply.is_open() {
            true => Ok(()),
            false if now => self.ends.pipeline.send().await,
            false => self.ends.pipeline.pace().await,
        }
    }

    /// Looks how far both ends are, and releases what was held back.
    async fn look(&mut self) -> Result<()> {
        if !self.apply.is_open() && self.ends.pipeline.is_settled() {
            // Signs of life only: they count as applied.
            self.ends.pipeline.shared.applied.store(self.apply.offset(), Ordering::Release);
        }
        let applied = self.ends.pipeline.shared.applied.load(Ordering::Acquire);
        let progress = &self.mover.progress;
        if let Some(probe) = self.probe {
            progress.lag_bytes.store(probe.offset.saturating_sub(applied), Ordering::Relaxed);
            if applied < probe.offset {
                let lag = u64::try_from(probe.began.elapsed().as_millis()).unwrap_or(u64::MAX);
                progress.lag_ms.store(lag, Ordering::Relaxed);
                return Ok(());
            }
            progress.lag_ms.store(0, Ordering::Relaxed);
            self.passed_ms = probe.at_ms;
            if std::mem::replace(&mut self.apply.behind, false) {
                self.mover.options.teller.tell(News::CaughtUp);
            }
            if self.finishing && !self.apply.is_open() {
                let all = self.apply.held.take_all();
                self.release(all, true).await?;
                self.done = true;
                return Ok(());
            }
            if !self.apply.held.is_empty() && !self.apply.is_open() {
                let due = self.apply.held.due(self.passed_ms, self.mover.clock.now_ms());
                self.release(due, false).await?;
            }
        }
        let at_ms = self.mover.clock.now_ms();
        let began = Instant::now();
        let server = Server::ask(&mut self.ends.source).await.map_err(|f| f.at(Side::Source))?;
        self.probe = Some(Probe { offset: server.offset, at_ms, began });
        Ok(())
    }

    /// Writes expiries that were held back; `last`: no stream follows that would renew them.
    async fn release(&mut self, due: Vec<(Place, Expiry)>, last: bool) -> Result<()> {
        let mut expiries: Vec<(Place, i64)> = Vec::with_capacity(due.len());
        let mut asked: Option<u32> = None;
        for (place, expiry) in due {
            let at = match expiry {
                Expiry::At(at) => at,
                Expiry::Ask => self.expiry_at_source(&place, &mut asked).await?,
            };
            // The source has told of the future: it waits as any other does.
            let soon = at > self.passed_ms && at <= self.mover.clock.now_ms() + SOON_MS;
            if expiry == Expiry::Ask && soon && !last {
                self.apply.held.again(place, at);
            } else {
                expiries.push((place, at));
            }
        }
        if expiries.is_empty() {
            return Ok(());
        }
        let before = self.ends.pipeline.out().len();
        let all = expiries.iter().map(|((db, key), at)| (*db, key.as_slice(), *at));
        let answers = self.apply.release(all, self.ends.pipeline.out());
        let bytes = self.ends.pipeline.out().len() - before;
        for i in 0..answers {
            self.ends.pipeline.expect(About::Must("expire"), if i == 0 { bytes } else { 0 });
        }
        self.ends.pipeline.send().await
    }

    /// When a key expires at the source, by its name at the target; 0: never, or it is not there.
    async fn expiry_at_source(&mut self, (db, key): &Place, asked: &mut Option<u32>) -> Result<i64> {
        let route = &self.mover.options.route;
        let from = route.db_map.iter().find(|(_, to)| *to == db).map_or(*db, |(from, _)| *from);
        let source = &mut self.ends.source;
        if *asked != Some(from) {
            source.ok(&[b"SELECT", from.to_string().as_bytes()]).await.map_err(|f| f.at(Side::Source))?;
            *asked = Some(from);
        }
        if self.ends.from.tells_expiry_time() {
            let at = source.call(&[b"PEXPIRETIME", key]).await.map_err(|f| f.at(Side::Source))?;
            return Ok(at.number().unwrap_or(0).max(0));
        }
        let now = self.mover.clock.now_ms();
        let left = source.call(&[b"PTTL", key]).await.map_err(|f| f.at(Side::Source))?.number().unwrap_or(-1);
        Ok(if left < 0 { 0 } else { now + left })
    }

    /// After a stop: what is under way is answered, so that the position at the target is exact.
    async fn rest(&mut self) -> Result<Ended> {
        self.apply.abandon(self.ends.pipeline.out());
        match tokio::time::timeout(REST, self.ends.pipeline.settle()).await {
            Ok(settled) => settled?,
            Err(_) => tracing::warn!("the target did not answer in time; its own mark says how far it is"),
        }
        Ok(Ended::Stopped)
    }
}
