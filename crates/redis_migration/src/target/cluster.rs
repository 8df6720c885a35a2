//! A cluster as a target: a transaction at a time for each slot, which also says how far that slot is.
//!
//! While the transaction of a slot is under way, what follows for that slot is gathered; slots do not wait for each other. So
//! the order of each key is kept, whatever moves: a transaction that is sent to the wrong server is done nowhere, and is sent
//! again to the right one.
//!
//! Decision: ADR 0012, `docs/adr/0012-a-transaction-for-each-slot.md`.

mod encode;
mod replies;
mod send;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::error::{Error, Result, Side};
use redis_proto::command::{SLOTS, slot};
use tokio::sync::mpsc;

use crate::checkpoint::fencing;
use crate::checkpoint::keys::KeyNames;
use crate::connection::client::{Client, Outgoing};
use crate::connection::node::Node;
use crate::connection::query_client::QueryClient;
use crate::connection::topology::{Addr, Topology};
use crate::target::functions::FunctionPolicy;
use crate::target::pipeline::{PendingReply, Shared};
use crate::target::replies::{Outcome, read};
use crate::target::slot_router::Broadcast;

/// One write is about this long.
const WRITE_BYTES: usize = 128 << 10;
/// Bytes that may be gathered or sent and not answered, all slots together.
const UNANSWERED_MAX: u64 = 32 << 20;
/// A transaction is not made longer than this.
const SCRATCH_BYTES: usize = 1 << 20;
/// First delay before a retry for a slot that is being migrated.
const RETRY_DELAY: Duration = Duration::from_millis(25);
/// Longest delay before a retry for a slot that is being migrated.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);
/// A slot that is still unavailable after this time fails the session.
const RETRY_TIMEOUT: Duration = Duration::from_secs(600);
/// Stands for no slot: the answer to a sign of life.
const PING_SLOT: u16 = SLOTS;

/// Who fences the connections of this migration.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    pub(crate) names: KeyNames,
    pub(crate) token: String,
}

/// What the transaction of a slot is about.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    commands: u32,
    /// One for each command of a snapshot; none for changes.
    pending_replies: Vec<PendingReply>,
    /// Everything up to here is applied before it; none: it holds no changes of the stream.
    begin: Option<u64>,
    /// Everything up to here is applied with it.
    end: u64,
}

/// A batch that was sent.
#[derive(Debug)]
struct InFlight {
    /// As it was sent.
    bytes: Vec<u8>,
    replies: u32,
    pending_replies: Vec<PendingReply>,
    begin: Option<u64>,
    end: u64,
    tries: u32,
    /// Since when it is tried.
    since: Option<Instant>,
}

#[derive(Debug, Default)]
struct SlotQueue {
    pending: Batch,
    in_flight: Option<InFlight>,
    /// Changes up to here are applied in this slot.
    done: u64,
    /// It has a checkpoint at the target.
    has_checkpoint: bool,
}

/// A reply that was received while waiting, if any.
#[derive(Debug)]
pub(crate) struct Received(Option<(u16, Outcome)>);

/// One server's connection.
struct ServerConnection {
    addr: Addr,
    out: Vec<u8>,
    outgoing: Outgoing,
    /// Slots whose answers are to come, and how many.
    waiting: Arc<Mutex<VecDeque<(u16, u32)>>>,
    /// When something was last sent.
    wrote: Instant,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for ServerConnection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The writer of a cluster.
pub struct ClusterWriter {
    node: Node,
    fence: Arc<Fence>,
    /// Slot checkpoints of another snapshot do not count: those of this one begin with this.
    epoch: String,
    servers: Vec<ServerConnection>,
    /// The server of each slot.
    slots: Vec<u16>,
    queues: Vec<SlotQueue>,
    /// Slots that have something to send and nothing under way.
    ready: Vec<u16>,
    /// Slots to be tried again, and when.
    retries: VecDeque<(Instant, u16)>,
    replies: mpsc::UnboundedReceiver<(u16, Outcome)>,
    outcome_sender: mpsc::UnboundedSender<(u16, Outcome)>,
    /// Bytes gathered or under way.
    queued_bytes: u64,
    /// Slots with something under way.
    in_flight: usize,
    /// What the snapshot writes of one key, until it is known to be whole.
    scratch: Vec<u8>,
    pending_replies: Vec<PendingReply>,
    current_slot: u16,
    /// Within a transaction of the source nothing is sent: its part of a slot stays whole.
    in_source_transaction: bool,
    /// Where the command that is being taken stands in the stream; none: it is not part of one.
    span: Option<(u64, u64)>,
    /// A command for every server, for [`ClusterWriter::broadcast`].
    pub(crate) to_broadcast: Option<Broadcast>,
    /// Changes whose keys belong to different slots.
    pub(crate) cross_slot: Vec<Vec<Vec<u8>>>,
    /// Every server lets earlier runs be disconnected.
    pub(crate) fenced: bool,
    /// The token was verified; it is verified again for each server that is connected later.
    is_open: bool,
    /// Changes come from a file: one that is refused is counted, as a server does that loads it.
    pub(crate) from_file: bool,
    /// What happens when the target refuses a library of functions.
    pub(crate) functions: FunctionPolicy,
    /// What both halves of any writer count.
    pub shared: Arc<Shared>,
}

impl std::fmt::Debug for ClusterWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClusterWriter({}, {} under way)", self.node.display_url(), self.in_flight)
    }
}

impl ClusterWriter {
    /// Connects to every server of a cluster that may be written.
    pub(crate) async fn open(
        node: Node,
        topology: &Topology,
        fence: Fence,
        first: bool,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let (outcome_sender, replies) = mpsc::unbounded_channel();
        let mut cluster = Self {
            node,
            fence: Arc::new(fence),
            epoch: String::new(),
            servers: Vec::new(),
            slots: topology.slots(),
            queues: (0..SLOTS).map(|_| SlotQueue::default()).collect(),
            ready: Vec::new(),
            retries: VecDeque::new(),
            replies,
            outcome_sender,
            queued_bytes: 0,
            in_flight: 0,
            scratch: Vec::new(),
            pending_replies: Vec::new(),
            current_slot: 0,
            in_source_transaction: false,
            span: None,
            to_broadcast: None,
            cross_slot: Vec::new(),
            fenced: true,
            is_open: false,
            from_file: false,
            functions: FunctionPolicy::default(),
            shared,
        };
        // The fencing token is one key; every server is fenced.
        let home = usize::from(cluster.slots[usize::from(slot(&cluster.fence.names.fencing_token))]);
        if first {
            let mut client = Client::open(&cluster.node.at_addr(&topology.shards[home].master)).await?;
            client
                .execute(&[b"SET", &cluster.fence.names.fencing_token, cluster.fence.token.as_bytes()])
                .await?;
        }
        for shard in &topology.shards {
            cluster.connect_server(&shard.master).await?;
        }
        if !cluster.fenced {
            fencing::wait_for_stale_writers().await;
        }
        cluster.verify_token().await?;
        cluster.is_open = true;
        Ok(cluster)
    }

    /// The place of a server, which is connected to and fenced when it is new.
    async fn connect_server(&mut self, addr: &Addr) -> Result<usize> {
        if let Some(i) = self.servers.iter().position(|s| s.addr == *addr) {
            return Ok(i);
        }
        let at = |f: Error| f.at(Side::Target);
        let node = Node { db: None, ..self.node.at_addr(addr) };
        let mut client = Client::open(&node).await.map_err(at)?;
        let mut query = Client::open(&node).await.map_err(at)?;
        self.fenced &= self.fence.names.evict_stale_writers(&mut query, &mut client).await?;
        let url = client.display_url().to_owned();
        let (incoming, outgoing, _) = client.into_parts();
        let waiting: Arc<Mutex<VecDeque<(u16, u32)>>> = Arc::default();
        let reader = tokio::spawn(read(incoming, waiting.clone(), self.outcome_sender.clone(), url));
        self.servers.push(ServerConnection {
            addr: addr.clone(),
            out: Vec::new(),
            outgoing,
            waiting,
            wrote: Instant::now(),
            reader,
        });
        if self.is_open {
            self.verify_token().await?;
        }
        Ok(self.servers.len() - 1)
    }

    async fn verify_token(&self) -> Result<()> {
        let home = self.slots[usize::from(slot(&self.fence.names.fencing_token))];
        let addr = &self.servers[usize::from(home)].addr;
        let mut client = Client::open(&Node { db: None, ..self.node.at_addr(addr) })
            .await
            .map_err(|f| f.at(Side::Target))?;
        self.fence.names.verify_token(&mut client, &self.fence.token).await
    }

    /// Slot checkpoints from here on begin with `epoch`; `done` holds the offsets that slots have already.
    pub(crate) fn begin_changes(&mut self, epoch: &str, done: &[(u16, u64)]) {
        self.epoch = epoch.to_owned();
        for (slot, offset) in done {
            let queue = &mut self.queues[usize::from(*slot)];
            (queue.done, queue.has_checkpoint) = (*offset, true);
        }
    }

    /// Forgets the offset of each slot: the target is empty.
    fn reset_offsets(&mut self) {
        for queue in &mut self.queues {
            (queue.done, queue.has_checkpoint) = (0, false);
        }
    }

    /// Slots that have a checkpoint at the target.
    pub(crate) fn slots_with_checkpoint(&self) -> Vec<u16> {
        (0..SLOTS).filter(|s| self.queues[usize::from(*s)].has_checkpoint).collect()
    }

    /// Where commands of a snapshot are written.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.scratch
    }

    /// What follows in [`ClusterWriter::out`] is about this key.
    pub(crate) fn set_key(&mut self, key: &[u8]) {
        let to = slot(key);
        if to != self.current_slot {
            self.flush_scratch();
            self.current_slot = to;
        }
    }

    /// What the answer to a command of a snapshot is about.
    pub(crate) fn push_pending(&mut self, pending: PendingReply) {
        self.pending_replies.push(pending);
    }

    /// What was written goes to its slot.
    fn flush_scratch(&mut self) {
        if self.scratch.is_empty() {
            return;
        }
        let (mut bytes, replies) =
            (std::mem::take(&mut self.scratch), std::mem::take(&mut self.pending_replies));
        let commands = u32::try_from(replies.len()).unwrap_or(u32::MAX);
        self.enqueue(self.current_slot, commands, |batch| {
            batch.bytes.extend_from_slice(&bytes);
            batch.pending_replies.extend(replies);
        });
        // A command that was very long leaves no buffer behind.
        if bytes.capacity() <= 2 * WRITE_BYTES {
            bytes.clear();
            self.scratch = bytes;
        }
    }

    /// Adds commands to what is gathered for a slot.
    fn enqueue(&mut self, slot: u16, commands: u32, add: impl FnOnce(&mut Batch)) {
        let queue = &mut self.queues[usize::from(slot)];
        if queue.pending.commands == 0 && queue.in_flight.is_none() {
            self.ready.push(slot);
        }
        let batch = &mut queue.pending;
        let before = batch.bytes.len();
        add(batch);
        batch.commands += commands;
        self.queued_bytes += (batch.bytes.len() - before) as u64;
    }

    /// Everything of the stream up to here is applied, when `current` is what was taken of it.
    pub(crate) fn low_water(&self, current: u64) -> u64 {
        let begins = |queue: &SlotQueue| {
            let in_flight = queue.in_flight.as_ref().and_then(|f| f.begin);
            in_flight.into_iter().chain(queue.pending.begin).min()
        };
        self.queues.iter().filter_map(begins).min().unwrap_or(current).min(current)
    }

    async fn step(&mut self) -> Result<()> {
        let received = self.next_reply().await;
        self.handle_reply(received).await
    }

    /// Sends when enough was gathered, and waits while too much is unanswered.
    pub(crate) async fn apply_backpressure(&mut self) -> Result<()> {
        if self.scratch.len() >= SCRATCH_BYTES
            || self.queued_bytes >= UNANSWERED_MAX / 8
            || self.ready.len() >= 256
        {
            self.send().await?;
        }
        // What is within a transaction of the source cannot be sent, so there is nothing to wait for.
        while self.queued_bytes > UNANSWERED_MAX && self.in_flight > 0 {
            self.step().await?;
        }
        Ok(())
    }

    /// True when everything is sent and answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.scratch.is_empty() && self.in_flight == 0 && self.queued_bytes == 0
    }

    /// Sends everything and waits for all answers.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.send().await?;
        while self.in_flight > 0 {
            self.step().await?;
        }
        Ok(())
    }

    /// True within a transaction of the source.
    pub(crate) fn is_in_source_transaction(&self) -> bool {
        self.in_source_transaction
    }

    /// What was gathered and not sent is forgotten: the source sends it again.
    pub(crate) fn abandon(&mut self) {
        self.in_source_transaction = false;
        self.ready.clear();
        for queue in &mut self.queues {
            let pending = std::mem::take(&mut queue.pending);
            self.queued_bytes -= pending.bytes.len() as u64;
        }
    }

    /// Removes the fencing token when no writer is left.
    pub(crate) async fn release_token(&self, query: &mut QueryClient) -> Result<()> {
        let fencing_token = &self.fence.names.fencing_token;
        query.execute(fencing_token, &[b"DEL", fencing_token]).await
    }

    /// The offset up to which the stream is applied, which is also published for other tasks.
    pub(crate) fn publish_applied(&self, current: u64) -> u64 {
        let low = self.low_water(current);
        self.shared.applied.store(low, Ordering::Release);
        low
    }
}
