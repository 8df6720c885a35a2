//! The stream behind a snapshot while it is followed: applied in transactions, looked at, released, brought to rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::failure::{Failure, Kind, Result, Side};
use redis_proto::resp::Commands;

use crate::apply::{Apply, Taken};
use crate::attempt::{Ended, Ends};
use crate::functions;
use crate::marker::{Marker, TURN};
use crate::marks::Marks;
use crate::mend::Mend;
use crate::mover::{Mover, Until};
use crate::news::News;
use crate::progress::Summary;
use crate::server::Server;
use crate::source::psync::Position;
use crate::spool::Spool;
use crate::target::Writer;
use crate::target::many::Heard;

/// How often the source is asked how far it is.
const PROBE: Duration = Duration::from_millis(100);
/// The same when somebody waits for the end.
const LAST_PROBE: Duration = Duration::from_millis(4);
/// Answers to a stop are waited for so long.
const REST: Duration = Duration::from_millis(400);
/// When it is longer ago that nothing was behind, changes are watched again.
const BEHIND: Duration = Duration::from_millis(200);
/// Pieces of the stream that are taken before the clock is looked at.
const PIECES: usize = 64;

/// What the source was asked, and when.
#[derive(Clone, Copy, Debug)]
struct Probe {
    offset: u64,
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
    /// What is doubted at the target.
    mend: Mend,
    /// When it was last looked whether it is our turn.
    turn_at: Instant,
    /// Everything that the source did until then is applied.
    level_at: Instant,
    probe: Option<Probe>,
    /// It was told that nothing is behind.
    told: bool,
    /// Done as soon as nothing is behind.
    finishing: bool,
    done: bool,
}

impl<'a> Stream<'a> {
    /// Begins behind what `apply` has taken; until it has caught up, changes are watched.
    pub(crate) fn new(
        mover: &'a Mover,
        ends: Ends,
        mut apply: Apply,
        epoch: String,
        ack: Arc<tokio::sync::Notify>,
    ) -> Self {
        let noted = !ends.server.lacks.transactions;
        apply.set_selected(ends.writer.db());
        apply.watch.begin(noted.then(|| mover.names.doubted.clone()), ends.scripts);
        let commands = Some(Commands::at(apply.offset()).at_most(mover.options.spool.command));
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
            mend: Mend::default(),
            turn_at: Instant::now(),
            level_at: Instant::now(),
            probe: None,
            told: false,
            finishing,
            done: false,
        }
    }

    /// Follows until it is done or stopped, or something breaks; what the target has no place for is added to the summary.
    pub(crate) async fn run(mut self, spool: &Spool, summary: &mut Summary) -> Result<Ended> {
        let ended = self.steps(spool).await;
        summary.notes.append(&mut self.apply.notes);
        for (what, n) in self.apply.left_out.into_iter().chain(self.mend.left_out) {
            *summary.full.left_out.entry(what).or_default() += n;
        }
        ended
    }

    async fn steps(&mut self, spool: &Spool) -> Result<Ended> {
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
                    return Err(
                        Failure::new(Kind::Connect, "psync", "the replication stream ended").at(Side::Source)
                    );
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
        if !self.apply.watch.is_behind() && self.level_at.elapsed() > BEHIND {
            self.apply.watch.behind();
        }
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
                let command = commands.next_command().map_err(|e| match e.long {
                    // Asking again would bring the same.
                    true => {
                        let m =
                            format!("{e}; hint: raise limits.memory (one command may use a quarter of it)");
                        Failure::new(Kind::TooLarge, "stream", m).at(Side::Source)
                    }
                    false => Failure::new(Kind::Corrupt, "stream", e.to_string()).at(Side::Source),
                })?;
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
                        let (span, within) = (Some((begin, end)), self.apply.is_within());
                        let apart = many.divide(&self.scratch, span, within).await?;
                        self.scratch.clear();
                        for words in &apart.across {
                            self.apply.doubt_across(words, &mut self.scratch)?;
                            many.divide(&self.scratch, span, within).await?;
                            self.scratch.clear();
                        }
                        everywhere = apart.everywhere;
                        taken
                    }
                };
                if !self.apply.to_prove.is_empty() {
                    // The open transaction has not been sent: when this fails, nothing was done.
                    self.ends.target.prove(self.apply.to_prove.clone()).await?;
                    self.apply.prove();
                }
                if let Some(pair) = self.apply.swapped.take() {
                    self.mend.swap(pair, self.apply.watch.list().is_some());
                }
                if let Some(words) = everywhere {
                    self.everywhere(&words, begin).await?;
                }
                if let Some(words) = self.apply.library.take() {
                    self.library(&words, end).await?;
                }
                if taken == Taken::AckWanted {
                    self.ack.notify_one();
                }
                if let Writer::One(one) = &mut self.ends.writer
                    && self.apply.is_full(one.out())
                {
                    self.close(false).await?;
                }
                self.write_if_due(end).await?;
            }
            progress.commands.store(self.apply.commands, Ordering::Relaxed);
            self.check_turn().await?;
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
                    one.db = self.apply.selected();
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
            Writer::Many(many) => {
                self.apply.told(&many.everywhere(words, &mut self.ends.target, mark).await?);
                Ok(())
            }
            Writer::One(_) => Ok(()),
        }
    }

    /// A command about libraries of functions that ends at an offset: everything before it is applied, and it is no part of a
    /// transaction, whose other changes its refusal would undo.
    async fn library(&mut self, words: &[Vec<u8>], end: u64) -> Result<()> {
        self.close(true).await?;
        self.ends.writer.settle().await?;
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let policy = self.mover.options.functions;
        let done = functions::everywhere(&mut self.ends.target, &words, policy).await?;
        for note in done.notes() {
            self.mover.options.teller.tell(News::Note(note));
        }
        self.apply.told(&done);
        self.apply.pass(end);
        Ok(())
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

    /// Looks how far both ends are, and brings in order what is doubted.
    async fn look(&mut self) -> Result<()> {
        self.check_turn().await?;
        // Another run that has taken over, or a lost connection, is noticed when nothing is to be written too.
        self.ends.writer.check().await?;
        if !self.apply.is_open() {
            self.ends.writer.keep_alive().await?;
        }
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
            self.level_at = probe.began;
            if self.apply.watch.is_behind() {
                self.apply.watch.caught_up(self.apply.offset());
            }
            if self.apply.watch.is_readable(applied) && !self.apply.is_open() {
                self.mend().await?;
            }
            if self.finishing && !self.apply.is_open() && !self.apply.watch.is_on() {
                self.done = true;
                return Ok(());
            }
        }
        let began = Instant::now();
        let server = Server::ask(&mut self.ends.source).await.map_err(|f| f.at(Side::Source))?;
        self.probe = Some(Probe { offset: server.offset, began });
        Ok(())
    }

    /// An earlier run ends by itself where nobody can disconnect it.
    async fn check_turn(&mut self) -> Result<()> {
        let Some(token) = self.ends.turn.clone().filter(|_| self.turn_at.elapsed() > TURN) else {
            return Ok(());
        };
        let names = &self.mover.names;
        names.check_turn(self.ends.target.of(&names.owner).await?, &token).await?;
        self.turn_at = Instant::now();
        Ok(())
    }

    /// Brings what is doubted in order, step by step; to be called again until nothing is.
    async fn mend(&mut self) -> Result<()> {
        self.mend.pass(self.apply.offset());
        if !self.mend.waits() {
            if !self.mend.list(&mut self.ends, &self.mover.names, &mut self.apply.watch).await? {
                let applied = self.ends.writer.shared().applied.load(Ordering::Acquire);
                if applied >= self.apply.watch.last() {
                    self.level();
                }
                return Ok(());
            }
            self.ask().await?;
        }
        self.write_if_due(self.apply.offset()).await
    }

    async fn ask(&mut self) -> Result<()> {
        let absolute = self.ends.from.tells_expiry_time();
        let asked = self.mend.ask(&mut self.ends.source, absolute).await.map_err(|f| f.at(Side::Source));
        match asked {
            // It worked until now, and goes on working.
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => {
                let m = format!("cannot read keys again that may have expired early at the target: {f}");
                self.mover.options.teller.tell(News::Note(m));
                self.level();
                Ok(())
            }
            asked => asked,
        }
    }

    /// Nothing is behind and nothing is doubted.
    fn level(&mut self) {
        let written = self.mend.rest();
        if written > 0 {
            tracing::info!("{written} keys were read again from the source and rewritten");
        }
        let beyond = self.apply.watch.level();
        if beyond > 0 {
            let m = format!(
                "{beyond} keys may have expired early at the target and exceeded the tracking limit; hint: run \
                 `whimbrel redis verify`"
            );
            self.mover.options.teller.tell(News::Note(m));
        }
        if !std::mem::replace(&mut self.told, true) {
            self.mover.options.teller.tell(News::CaughtUp);
        }
    }

    /// Writes what the source said when the stream is where it said so, and asks for what is left.
    async fn write_if_due(&mut self, offset: u64) -> Result<()> {
        while self.mend.is_due(offset) && !self.apply.is_within() {
            self.close(true).await?;
            self.ends.writer.settle().await?;
            let (route, names, clock) = (&self.mover.options.route, &self.mover.names, &self.mover.clock);
            self.mend.write(&mut self.ends, route, names, clock, &mut self.apply.watch).await?;
            self.apply.set_selected(self.ends.writer.db());
            self.ask().await?;
        }
        Ok(())
    }

    /// After a stop: what is under way is answered, so that the position at the target is exact.
    async fn rest(&mut self) -> Result<Ended> {
        match tokio::time::timeout(REST, self.abandon()).await {
            Ok(settled) => settled?,
            Err(_) => tracing::warn!(
                "the target did not acknowledge before shutdown; the stored checkpoint is \
                 authoritative"
            ),
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
