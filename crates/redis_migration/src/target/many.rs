//! A cluster as a target: a transaction at a time for each slot, which also says how far that slot is.
//!
//! While the transaction of a slot is under way, what follows for that slot is gathered; slots do not wait for each other. So
//! the order of each key is kept, whatever moves: a transaction that is sent to the wrong server is done nowhere, and is sent
//! again to the right one.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::failure::{Failure, Kind, Result, Side};
use redis_proto::command::{SLOTS, slot};
use redis_proto::resp::{Reply, command};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::ALIVE;
use crate::asker::Asker;
use crate::client::{Client, Outgoing, failure};
use crate::functions::{self, Functions, Libraries};
use crate::marker::{self, Names};
use crate::node::Node;
use crate::scatter::{Piece, scatter};
use crate::target::pipeline::{About, Shared, diverged};
use crate::target::replies::{Outcome, read};
use crate::topology::{Addr, Topology};

/// One write is about this long.
const WRITE: usize = 128 << 10;
/// Bytes that may be gathered or sent and not answered, all slots together.
const UNANSWERED: u64 = 32 << 20;
/// A transaction is not made longer than this.
const LONG: usize = 1 << 20;
/// A slot that is on its way answers so after a while; and how often it is asked.
const AGAIN: Duration = Duration::from_millis(25);
const AGAIN_LONGEST: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(600);
/// Stands for no slot: the answer to a sign of life.
const SIGN_OF_LIFE: u16 = SLOTS;

/// Who fences the connections of this migration.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    pub(crate) names: Names,
    pub(crate) token: String,
}

/// What the transaction of a slot is about.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    commands: u32,
    /// One for each command of a snapshot; none for changes.
    abouts: Vec<About>,
    /// Everything up to here is applied before it; none: it holds no changes of the stream.
    begin: Option<u64>,
    /// Everything up to here is applied with it.
    end: u64,
}

/// A batch that was sent.
#[derive(Debug)]
struct Flight {
    /// As it was sent.
    bytes: Vec<u8>,
    answers: u32,
    abouts: Vec<About>,
    begin: Option<u64>,
    end: u64,
    tries: u32,
    /// Since when it is tried.
    since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Lane {
    pending: Batch,
    flying: Option<Flight>,
    /// Changes up to here are applied in this slot.
    done: u64,
    /// It has a mark at the target.
    marked: bool,
}

/// What no slot can do by itself.
#[derive(Debug, Default)]
pub(crate) struct Apart {
    /// To be done at every server, by [`Many::everywhere`].
    pub(crate) everywhere: Option<Vec<Vec<u8>>>,
    /// Changes whose keys belong to different slots.
    pub(crate) across: Vec<Vec<Vec<u8>>>,
}

/// What was heard while waiting.
#[derive(Debug)]
pub(crate) struct Heard(Option<(u16, Outcome)>);

/// One server's connection.
struct Server {
    addr: Addr,
    out: Vec<u8>,
    outgoing: Outgoing,
    /// Slots whose answers are to come, and how many.
    queue: Arc<Mutex<VecDeque<(u16, u32)>>>,
    /// When something was last sent.
    wrote: Instant,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The writer of a cluster.
pub struct Many {
    node: Node,
    fence: Fence,
    /// Marks of another snapshot do not count: those of this one begin so.
    epoch: String,
    servers: Vec<Server>,
    /// The server of each slot.
    slots: Vec<u16>,
    lanes: Vec<Lane>,
    /// Slots that have something to send and nothing under way.
    ready: Vec<u16>,
    /// Slots to be tried again, and when.
    again: VecDeque<(Instant, u16)>,
    answers: mpsc::UnboundedReceiver<(u16, Outcome)>,
    answered: mpsc::UnboundedSender<(u16, Outcome)>,
    /// Bytes gathered or under way.
    held: u64,
    /// Slots with something under way.
    flying: usize,
    /// What the snapshot writes of one key, until it is known to be whole.
    scratch: Vec<u8>,
    abouts: Vec<About>,
    at: u16,
    /// Within a transaction of the source nothing is sent: its part of a slot stays whole.
    within: bool,
    /// Every server lets earlier runs be disconnected.
    pub(crate) fenced: bool,
    /// It is our turn; whatever server comes later is asked whether it still is.
    is_open: bool,
    /// Changes come from a file: one that is refused is counted, as a server does that loads it.
    pub(crate) from_file: bool,
    /// What happens when the target refuses a library of functions.
    pub(crate) functions: Functions,
    /// What both halves of any writer count.
    pub shared: Arc<Shared>,
}

impl std::fmt::Debug for Many {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Many({}, {} under way)", self.node.place(), self.flying)
    }
}

impl Many {
    /// Connects to every server of a cluster that may be written.
    pub(crate) async fn open(
        node: Node,
        topology: &Topology,
        fence: Fence,
        first: bool,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let (answered, answers) = mpsc::unbounded_channel();
        let mut many = Self {
            node,
            fence,
            epoch: String::new(),
            servers: Vec::new(),
            slots: topology.slots(),
            lanes: (0..SLOTS).map(|_| Lane::default()).collect(),
            ready: Vec::new(),
            again: VecDeque::new(),
            answers,
            answered,
            held: 0,
            flying: 0,
            scratch: Vec::new(),
            abouts: Vec::new(),
            at: 0,
            within: false,
            fenced: true,
            is_open: false,
            from_file: false,
            functions: Functions::default(),
            shared,
        };
        // Whose turn it is stands in one place; every server is fenced.
        let home = usize::from(many.slots[usize::from(slot(&many.fence.names.owner))]);
        if first {
            let mut client = Client::open(&many.node.at(&topology.shards[home].master)).await?;
            client.ok(&[b"SET", &many.fence.names.owner, many.fence.token.as_bytes()]).await?;
        }
        for shard in &topology.shards {
            many.server(&shard.master).await?;
        }
        if !many.fenced {
            marker::turn_over().await;
        }
        many.check_turn().await?;
        many.is_open = true;
        Ok(many)
    }

    /// The place of a server, which is connected to and fenced when it is new.
    async fn server(&mut self, addr: &Addr) -> Result<usize> {
        if let Some(i) = self.servers.iter().position(|s| s.addr == *addr) {
            return Ok(i);
        }
        let at = |f: Failure| f.at(Side::Target);
        let node = Node { db: None, ..self.node.at(addr) };
        let mut client = Client::open(&node).await.map_err(at)?;
        let mut ask = Client::open(&node).await.map_err(at)?;
        self.fenced &= self.fence.names.shut_out(&mut ask, &mut client).await?;
        let place = client.place().to_owned();
        let (incoming, outgoing, _) = client.into_parts();
        let queue: Arc<Mutex<VecDeque<(u16, u32)>>> = Arc::default();
        let reader = tokio::spawn(read(incoming, queue.clone(), self.answered.clone(), place));
        self.servers.push(Server {
            addr: addr.clone(),
            out: Vec::new(),
            outgoing,
            queue,
            wrote: Instant::now(),
            reader,
        });
        if self.is_open {
            self.check_turn().await?;
        }
        Ok(self.servers.len() - 1)
    }

    async fn check_turn(&self) -> Result<()> {
        let home = self.slots[usize::from(slot(&self.fence.names.owner))];
        let addr = &self.servers[usize::from(home)].addr;
        let mut client =
            Client::open(&Node { db: None, ..self.node.at(addr) }).await.map_err(|f| f.at(Side::Target))?;
        self.fence.names.check_turn(&mut client, &self.fence.token).await
    }

    /// Changes from here on are marked so; `done` says how far slots are already.
    pub(crate) fn begin_changes(&mut self, epoch: &str, done: &[(u16, u64)]) {
        self.epoch = epoch.to_owned();
        for (slot, offset) in done {
            let lane = &mut self.lanes[usize::from(*slot)];
            (lane.done, lane.marked) = (*offset, true);
        }
    }

    /// The mark of each slot is gone, and so is everything else.
    fn forget_done(&mut self) {
        for lane in &mut self.lanes {
            (lane.done, lane.marked) = (0, false);
        }
    }

    /// Slots that have a mark at the target.
    pub(crate) fn marked(&self) -> Vec<u16> {
        (0..SLOTS).filter(|s| self.lanes[usize::from(*s)].marked).collect()
    }

    /// Where commands of a snapshot are written.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.scratch
    }

    /// What follows in [`Many::out`] is about this key.
    pub(crate) fn at(&mut self, key: &[u8]) {
        let to = slot(key);
        if to != self.at {
            self.gather();
            self.at = to;
        }
    }

    /// What the answer to a command of a snapshot is about.
    pub(crate) fn expect(&mut self, about: About) {
        self.abouts.push(about);
    }

    /// What was written goes to its slot.
    fn gather(&mut self) {
        if self.scratch.is_empty() {
            return;
        }
        let (bytes, abouts) = (std::mem::take(&mut self.scratch), std::mem::take(&mut self.abouts));
        let commands = u32::try_from(abouts.len()).unwrap_or(u32::MAX);
        self.add(self.at, &bytes, commands, abouts, None);
        // A command that was very long leaves no buffer behind.
        if bytes.capacity() <= 2 * WRITE {
            self.scratch = bytes;
            self.scratch.clear();
        }
    }

    /// A change of the stream between two offsets; one that its slot has already is passed over.
    fn change(&mut self, slot: u16, bytes: &[u8], commands: u32, begin: u64, end: u64) {
        if end > self.lanes[usize::from(slot)].done {
            self.add(slot, bytes, commands, vec![], Some((begin, end)));
        }
    }

    fn add(&mut self, slot: u16, bytes: &[u8], commands: u32, abouts: Vec<About>, span: Option<(u64, u64)>) {
        let lane = &mut self.lanes[usize::from(slot)];
        if lane.pending.commands == 0 && lane.flying.is_none() {
            self.ready.push(slot);
        }
        let batch = &mut lane.pending;
        batch.bytes.extend_from_slice(bytes);
        batch.commands += commands;
        batch.abouts.extend(abouts);
        if let Some((begin, end)) = span {
            batch.begin.get_or_insert(begin);
            batch.end = end;
        }
        self.held += bytes.len() as u64;
    }

    /// Everything of the stream up to here is applied, when `current` is what was taken of it.
    pub(crate) fn low_water(&self, current: u64) -> u64 {
        let begins = |lane: &Lane| {
            let flying = lane.flying.as_ref().and_then(|f| f.begin);
            flying.into_iter().chain(lane.pending.begin).min()
        };
        self.lanes.iter().filter_map(begins).min().unwrap_or(current).min(current)
    }

    /// Takes what is known of the answers.
    pub(crate) async fn hear_all(&mut self) -> Result<()> {
        while let Ok((slot, outcome)) = self.answers.try_recv() {
            self.take(slot, outcome).await?;
        }
        Ok(())
    }

    /// Sends what is ready.
    async fn launch(&mut self) -> Result<()> {
        if self.within {
            return Ok(());
        }
        for slot in std::mem::take(&mut self.ready) {
            let lane = &mut self.lanes[usize::from(slot)];
            let batch = std::mem::take(&mut lane.pending);
            if batch.commands == 0 {
                continue;
            }
            let mut bytes = Vec::with_capacity(batch.bytes.len() + 160);
            bytes.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
            bytes.extend_from_slice(&batch.bytes);
            let mut answers = batch.commands + 2;
            if batch.begin.is_some() {
                let text = format!("{} {}", self.epoch, batch.end);
                command(&mut bytes, &[b"SET", &self.fence.names.marker_at(slot), text.as_bytes()]);
                answers += 1;
                lane.marked = true;
            }
            bytes.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
            self.held = self.held - batch.bytes.len() as u64 + bytes.len() as u64;
            let (abouts, begin, end) = (batch.abouts, batch.begin, batch.end);
            lane.flying = Some(Flight { bytes, answers, abouts, begin, end, tries: 0, since: None });
            self.flying += 1;
            self.dispatch(slot, None).await?;
        }
        Ok(())
    }

    /// Sends the transaction of a slot, to its server or to another.
    async fn dispatch(&mut self, slot: u16, asked: Option<usize>) -> Result<()> {
        let server = asked.unwrap_or(usize::from(self.slots[usize::from(slot)]));
        let Some(flight) = &self.lanes[usize::from(slot)].flying else { return Ok(()) };
        let to = &mut self.servers[server];
        let mut answers = flight.answers;
        if asked.is_some() {
            to.out.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
            answers += 1;
        }
        to.out.extend_from_slice(&flight.bytes);
        to.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back((slot, answers));
        if to.out.len() >= WRITE { self.write(server).await } else { Ok(()) }
    }

    async fn write(&mut self, server: usize) -> Result<()> {
        let to = &mut self.servers[server];
        if to.out.is_empty() {
            return Ok(());
        }
        let written = to.outgoing.write_all(&to.out).await;
        to.wrote = Instant::now();
        to.out.clear();
        if to.out.capacity() > 8 * WRITE {
            to.out.shrink_to(2 * WRITE);
        }
        written.map_err(|e| {
            let m = format!("{}:{}: connection lost: {e}", to.addr.0, to.addr.1);
            Failure::new(Kind::Connect, "write", m).at(Side::Target)
        })
    }

    /// Takes what is known of the answers, and sends what may be sent.
    pub(crate) async fn send(&mut self) -> Result<()> {
        self.gather();
        self.hear_all().await?;
        let now = Instant::now();
        while let Some((at, slot)) = self.again.front().copied().filter(|(at, _)| *at <= now) {
            let _ = (at, self.again.pop_front());
            self.dispatch(slot, None).await?;
        }
        self.launch().await?;
        for server in 0..self.servers.len() {
            self.write(server).await?;
        }
        Ok(())
    }

    /// A sign of life to each server that nothing was sent to for a while.
    pub(crate) async fn keep_alive(&mut self) -> Result<()> {
        if self.within {
            return Ok(());
        }
        self.send().await?;
        for i in 0..self.servers.len() {
            let to = &mut self.servers[i];
            if to.wrote.elapsed() >= ALIVE {
                command(&mut to.out, &[b"PING"]);
                to.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back((SIGN_OF_LIFE, 1));
                self.write(i).await?;
            }
        }
        Ok(())
    }

    /// Waits for an answer, or for the time to try again. May be given up at any moment.
    pub(crate) async fn heard(&mut self) -> Heard {
        let next = self.again.front().map(|(at, _)| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            heard = self.answers.recv() => Heard(heard),
            () = tokio::time::sleep(next.unwrap_or(Duration::from_secs(3600))) => Heard(None),
        }
    }

    /// Goes on with what was heard. Must not be given up.
    pub(crate) async fn go_on(&mut self, heard: Heard) -> Result<()> {
        if let Heard(Some((slot, outcome))) = heard {
            self.take(slot, outcome).await?;
        }
        self.send().await
    }

    async fn step(&mut self) -> Result<()> {
        let heard = self.heard().await;
        self.go_on(heard).await
    }

    /// Changes, as they would be written for one server, go to their slots; `span` is where they stand in the stream, if they
    /// do. Answers what no slot can do by itself.
    pub(crate) async fn divide(
        &mut self,
        bytes: &[u8],
        span: Option<(u64, u64)>,
        within: bool,
    ) -> Result<Apart> {
        self.within = within;
        let mut apart = Apart::default();
        if bytes.is_empty() {
            return Ok(apart);
        }
        for piece in scatter(bytes, &self.fence.names)? {
            match (piece, span) {
                (Piece::Slot(slot, bytes, n), Some((begin, end))) => self.change(slot, &bytes, n, begin, end),
                (Piece::Slot(slot, bytes, n), None) => self.add(slot, &bytes, n, vec![], None),
                (Piece::Everywhere(words), _) => apart.everywhere = Some(words),
                (Piece::Across(words), _) => apart.across.push(words),
            }
        }
        self.pace().await?;
        Ok(apart)
    }

    /// Does the same at every server, when everything before it is done. Interrupted, it is done again. `mark`, a key and
    /// its value, outlives a flush: it stands again in the moment in which the last server is empty.
    pub(crate) async fn everywhere(
        &mut self,
        words: &[Vec<u8>],
        ask: &mut Asker,
        mark: Option<(&[u8], &[u8])>,
    ) -> Result<Libraries> {
        let within = std::mem::replace(&mut self.within, false);
        self.settle().await?;
        self.within = within;
        if let Some((key, value)) = mark {
            ask.ok(key, &[b"SET", key, value]).await?;
        }
        ask.refresh().await?;
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        if words[0].eq_ignore_ascii_case(b"FUNCTION") {
            return functions::everywhere(ask, &words, self.functions).await;
        }
        let flushes = words[0].to_ascii_uppercase().starts_with(b"FLUSH");
        let home = mark.filter(|_| flushes).map(|(key, _)| ask.addr_of(key));
        for addr in ask.masters().into_iter().filter(|addr| Some(addr) != home.as_ref()) {
            ask.server(&addr).await?.ok(&words).await.map_err(|f| f.at(Side::Target))?;
        }
        if let (Some(addr), Some((key, value))) = (home, mark) {
            let mut all = Vec::new();
            for args in [&[b"MULTI".as_slice()][..], &words, &[b"SET", key, value], &[b"EXEC"]] {
                command(&mut all, args);
            }
            let client = ask.server(&addr).await?;
            let place = client.place().to_owned();
            let answers = client.many(&all, 4).await.map_err(|f| f.at(Side::Target))?;
            if let Some(Reply::Error(text)) = answers.into_iter().rev().find(|a| matches!(a, Reply::Error(_)))
            {
                return Err(failure(&place, "flush", &text).at(Side::Target));
            }
        }
        if flushes {
            self.forget_done();
        }
        Ok(Libraries::default())
    }

    /// Sends when enough was gathered, and waits while too much is unanswered.
    pub(crate) async fn pace(&mut self) -> Result<()> {
        if self.scratch.len() >= LONG || self.held >= UNANSWERED / 8 || self.ready.len() >= 256 {
            self.send().await?;
        }
        // What is within a transaction of the source cannot be sent, so there is nothing to wait for.
        while self.held > UNANSWERED && self.flying > 0 {
            self.step().await?;
        }
        Ok(())
    }

    /// True when everything is sent and answered.
    pub(crate) fn is_settled(&self) -> bool {
        self.scratch.is_empty() && self.flying == 0 && self.held == 0
    }

    /// Sends everything and waits for all answers.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        self.send().await?;
        while self.flying > 0 {
            self.step().await?;
        }
        Ok(())
    }

    /// What was gathered and not sent is forgotten: the source sends it again.
    pub(crate) fn abandon(&mut self) {
        self.within = false;
        self.ready.clear();
        for lane in &mut self.lanes {
            let pending = std::mem::take(&mut lane.pending);
            self.held -= pending.bytes.len() as u64;
        }
    }

    async fn take(&mut self, slot: u16, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Done(errors) => self.done(slot, errors),
            Outcome::Failed(failure) => Err(failure.at(Side::Target)),
            Outcome::Moved(addr) => {
                let server = self.server(&addr).await?;
                self.slots[usize::from(slot)] = u16::try_from(server).unwrap_or(0);
                self.once_more(slot, "too many redirections for its slot")?;
                self.dispatch(slot, None).await
            }
            Outcome::Ask(addr) => {
                let server = self.server(&addr).await?;
                self.once_more(slot, "too many redirections for its slot")?;
                self.dispatch(slot, Some(server)).await
            }
            Outcome::Alive => Ok(()),
            Outcome::Again(why) => {
                let pause = self.once_more(slot, &why)?;
                // Kept by time: some wait longer than others.
                let at = Instant::now() + pause;
                let place = self.again.partition_point(|(other, _)| *other <= at);
                self.again.insert(place, (at, slot));
                Ok(())
            }
        }
    }

    /// Counts another try of a slot's transaction; answers the pause before it.
    fn once_more(&mut self, slot: u16, why: &str) -> Result<Duration> {
        let Some(flight) = &mut self.lanes[usize::from(slot)].flying else { return Ok(AGAIN) };
        flight.tries += 1;
        let since = *flight.since.get_or_insert_with(Instant::now);
        if since.elapsed() > AGAIN_MAX {
            let m = format!("{}: slot {slot} rejects writes: {why}", self.node.place());
            return Err(Failure { message: m, ..failure("", "write", why) }.at(Side::Target));
        }
        Ok(AGAIN.saturating_mul(1 << flight.tries.saturating_sub(40).min(6)).min(AGAIN_LONGEST))
    }

    fn done(&mut self, slot: u16, errors: Vec<(usize, String)>) -> Result<()> {
        let lane = &mut self.lanes[usize::from(slot)];
        let Some(flight) = lane.flying.take() else { return Ok(()) };
        self.flying -= 1;
        self.held -= flight.bytes.len() as u64;
        if flight.begin.is_some() {
            lane.done = flight.end;
        }
        if lane.pending.commands > 0 {
            self.ready.push(slot);
        }
        let place = self.node.place();
        if flight.abouts.is_empty() {
            return match errors.first() {
                None => Ok(()),
                Some(_) if self.from_file => {
                    // What was queued is counted behind MULTI.
                    let errors: Vec<_> = errors.into_iter().map(|(i, text)| (i + 1, text)).collect();
                    self.shared.refused(&place, &flight.bytes, &errors).map_err(|f| f.at(Side::Target))
                }
                Some((_, text)) => Err(diverged(&place, text).at(Side::Target)),
            };
        }
        for (i, about) in flight.abouts.iter().enumerate() {
            let error = errors.iter().find(|(at, _)| *at == i).map(|(_, text)| text.as_str());
            self.shared.count(&place, about, error)?;
        }
        Ok(())
    }

    /// Nobody writes any more: the turn is given up.
    pub(crate) async fn leave(&self, ask: &mut Asker) -> Result<()> {
        let owner = &self.fence.names.owner;
        ask.ok(owner, &[b"DEL", owner]).await
    }

    /// Everything of the stream up to here is applied; the same is told to who looks.
    pub(crate) fn applied(&self, current: u64) -> u64 {
        let low = self.low_water(current);
        self.shared.applied.store(low, Ordering::Release);
        low
    }
}
