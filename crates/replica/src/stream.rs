//! The stream behind a snapshot while it is followed: applied in transactions, looked at, released, brought to rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::failure::{Failure, Kind, Result, Side};
use redis_proto::resp::Commands;

use crate::apply::{Apply, Taken};
use crate::held::{Expiry, Place, SOON_MS};
use crate::marker::Marker;
use crate::marks::Marks;
use crate::mover::{Ended, Ends, Mover, Until};
use crate::news::News;
use crate::server::Server;
use crate::source::psync::Position;
use crate::spool::Spool;
use crate::target::Writer;
use crate::target::many::Heard;
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
    /// Begins the marks of the slots of a cluster.
    epoch: String,
    /// What one change becomes, before it is divided among slots.
    scratch: Vec<u8>,
    /// Which position is marked for all slots together, and when.
    marks: Marks,
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
    pub(crate) fn new(
        mover: &'a Mover,
        ends: Ends,
        mut apply: Apply,
        epoch: String,
        ack: Arc<tokio::sync::Notify>,
    ) -> Self {
        apply.behind = true;
        let commands = Some(Commands::at(apply.offset()));
        let finishing = mover.options.until == Until::CaughtUp;
        let marks = Marks::new(apply.offset(), apply.db(), apply.travels());
        let scratch = Vec::new();
        Self {
            mover,
            ends,
            apply,
            epoch,
            scratch,
            marks,
            ack,
            commands,
            passed_ms: 0,
            probe: None,
            finishing,
            done: false,
        }
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
                // What a slot's answers let go on is sent before more is taken.
                heard = heard(&mut self.ends.writer) => {
                    if let Writer::Many(many) = &mut self.ends.writer {
                        many.go_on(heard).await?;
                    }
                    continue;
                }
                bytes = spool.pop() => Some(bytes),
            };
            match bytes {
                None => {
                    self.look().await?;
                    if self.done {
                        self.close(true).await?;
                        self.ends.writer.settle().await?;
                        self.unmark().await?;
                        return Ok(Ended::Done);
                    }
                }
                Some(Ok(Some(bytes))) => self.feed(bytes, spool).await?,
                Some(Ok(None)) => {
                    return Err(Failure::new(Kind::Connect, "psync", "the stream ended").at(Side::Source));
                }
                Some(Err(failure)) => {
                    // What has come is applied before the link is opened anew.
                    self.abandon().await?;
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
            // Once for all of them: asking the time would take a fifth of ours.
            let now = self.mover.clock.now_ms();
            loop {
                let begin = commands.offset();
                let command = commands
                    .next_command()
                    .map_err(|e| Failure::new(Kind::Corrupt, "stream", e.to_string()).at(Side::Source))?;
                let Some(command) = command else { break };
                let end = begin + command.raw.len() as u64;
                let mut everywhere = None;
                let taken = match &mut self.ends.writer {
                    Writer::One(one) => {
                        let (before, length) = (self.apply.commands, one.out().len());
                        let taken = self.apply.take(&command, end, one.out(), now)?;
                        if self.apply.is_unnoted() {
                            let bytes = one.out().len() - length;
                            one.expect_changes(self.apply.commands - before, bytes, end);
                            one.pace().await?;
                        }
                        taken
                    }
                    Writer::Many(many) => {
                        let taken = self.apply.take(&command, end, &mut self.scratch, now)?;
                        self.marks.at(end, self.apply.db(), self.apply.travels());
                        everywhere =
                            many.divide(&self.scratch, Some((begin, end)), self.apply.is_within()).await?;
                        self.scratch.clear();
                        taken
                    }
                };
                if let Some(words) = everywhere {
                    self.everywhere(&words, begin).await?;
                }
                if taken == Taken::AckWanted {
                    self.ack.notify_one();
                }
                if let Writer::One(one) = &mut self.ends.writer
                    && self.apply.is_full(one.out())
                {
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
        match &mut self.ends.writer {
            Writer::One(one) => {
                if let Some((about, bytes)) = self.apply.close(one.out()) {
                    one.expect(about, bytes);
                }
                // A transaction that is still open is not sent in parts: its answers are expected as one.
                match self.apply.is_open() && !self.apply.is_unnoted() {
                    true => Ok(()),
                    false if now => one.send().await,
                    false => one.pace().await,
                }
            }
            Writer::Many(many) if now => many.send().await,
            Writer::Many(many) => many.pace().await,
        }
    }

    /// What the mark of all slots together says at an offset.
    fn mark_at(&self, offset: u64) -> String {
        let position = Position { replid: self.apply.replid().to_owned(), offset };
        Marker::Applied(position, self.marks.db_at(offset), Some(self.epoch.clone())).text()
    }

    /// Notes at a cluster up to where all slots are.
    async fn mark(&mut self, offset: u64) -> Result<()> {
        let (key, text) = (&self.mover.names.marker, self.mark_at(offset));
        self.ends.target.ok(key, &[b"SET", key, text.as_bytes()]).await
    }

    /// A command that concerns every server of a cluster, and begins at an offset.
    async fn everywhere(&mut self, words: &[Vec<u8>], begin: u64) -> Result<()> {
        let text = self.mark_at(begin);
        self.marks.is_marked(begin);
        let mark = Some((self.mover.names.marker.as_slice(), text.as_bytes()));
        match &mut self.ends.writer {
            Writer::Many(many) => many.everywhere(words, &mut self.ends.target, mark).await,
            Writer::One(_) => Ok(()),
        }
    }

    /// At the end the one mark says it all: those of the slots go.
    async fn unmark(&mut self) -> Result<()> {
        let Writer::Many(many) = &self.ends.writer else { return Ok(()) };
        let marks: Vec<Vec<u8>> = many.marked().into_iter().map(|s| self.mover.names.marker_at(s)).collect();
        self.mark(self.apply.offset()).await?;
        self.ends.target.each(&marks, &[b"DEL"], &[]).await.map(drop)
    }

    /// What is whole is applied and answered, what is not is forgotten: the source sends it again.
    async fn abandon(&mut self) -> Result<()> {
        match &mut self.ends.writer {
            Writer::One(one) => {
                if !self.apply.is_unnoted() {
                    self.apply.abandon(one.out());
                }
                one.settle().await
            }
            Writer::Many(many) => {
                many.abandon();
                many.settle().await
            }
        }
    }

    /// Looks how far both ends are, and releases what was held back.
    async fn look(&mut self) -> Result<()> {
        if !self.apply.is_open() && self.ends.writer.is_settled() {
            // Signs of life only: they count as applied.
            self.ends.writer.shared().applied.store(self.apply.offset(), Ordering::Release);
        }
        if let Writer::Many(many) = &self.ends.writer {
            let low = many.applied(self.apply.offset());
            if let Some(offset) = self.marks.due(low, Instant::now()) {
                self.mark(offset).await?;
            }
        }
        let applied = self.ends.writer.shared().applied.load(Ordering::Acquire);
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
        let all = expiries.iter().map(|((db, key), at)| (*db, key.as_slice(), *at));
        match &mut self.ends.writer {
            Writer::One(one) => {
                let before = one.out().len();
                let answers = self.apply.release(all, one.out());
                let bytes = one.out().len() - before;
                for i in 0..answers {
                    one.expect(About::Must("expire"), if i == 0 { bytes } else { 0 });
                }
                one.send().await
            }
            Writer::Many(many) => {
                self.apply.release(all, &mut self.scratch);
                many.divide(&self.scratch, None, false).await?;
                self.scratch.clear();
                many.send().await
            }
        }
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
        match tokio::time::timeout(REST, self.abandon()).await {
            Ok(settled) => settled?,
            Err(_) => tracing::warn!("the target did not answer in time; its own mark says how far it is"),
        }
        Ok(Ended::Stopped)
    }
}

/// The next answer of a cluster, when something is under way; a single server's are counted elsewhere.
async fn heard(writer: &mut Writer) -> Heard {
    match writer {
        Writer::Many(many) if !many.is_settled() => many.heard().await,
        _ => std::future::pending().await,
    }
}
