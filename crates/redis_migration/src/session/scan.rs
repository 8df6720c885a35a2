//! Scan mode, for sources that refuse replicas: all keys are scanned and copied one by one, and those that change are copied
//! again, by keyspace notifications (`notify-keyspace-events`).
//!
//! ```text
//! listen to events ─> SCAN ─> DUMP, expiry ─> load ─> target
//!        └── keys that changed ──┘ (again and again, each as it stands now)
//! ```
//!
//! Only states are copied, never commands: an interrupted migration starts over without harm. Changes of a key between two reads
//! are not seen, and keys that disappear without an event (`FLUSHALL`) stay at the target.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flow_control::clock::SharedClock;
use model::error::{Error, Kind, Result, Side};
use redis_proto::rdb::Item;
use redis_proto::resp::{Replies, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::keys::{KeyNames, new_token};
use crate::checkpoint::target_locks::{self, TargetLock};
use crate::connection::RESERVED_PREFIX;
use crate::connection::client::{Client, VALUE_MAX};
use crate::connection::node::Node;
use crate::connection::query_client::QueryClient;
use crate::connection::server::ServerInfo;
use crate::connection::topology::{Addr, Topology};
use crate::migration::{Options, Until};
use crate::progress::{Progress, Summary};
use crate::session::replids;
use crate::snapshot::load::{LoadStats, Loader, add_counts, open_dumped};
use crate::snapshot::restore::Conflict;
use crate::stream::apply::replication_loop;
use crate::target::{Writer, functions};
use crate::verify::endpoint::Endpoint;

/// Keys that are asked about together.
const BATCH_KEYS: usize = 200;
/// Keys that have changed and wait to be copied again; with more, all keys are scanned again.
const CHANGED_MAX: usize = 2_000_000;
/// How often it is looked whether something has changed.
const IDLE_POLL: Duration = Duration::from_millis(20);
/// How often it is checked that no other migration of the same keys has begun.
const LOCK_CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How often it is checked that the source sends notifications of every change.
const SOURCE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two `PING` commands while the source sends no notifications.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A source that sends nothing for this long is disconnected.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// The note about a second run, or any other keys at the target.
const LEFTOVERS_NOTE: &str = "the target is not empty: keys that the source deleted before this run may remain there; hint: run \
     `whimbrel redis verify`";
/// The note about a second scan.
const RESCAN_NOTE: &str = "the change buffer overflowed; a complete rescan was made";

/// A migration in scan mode.
pub struct ScanMigration {
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
    /// Cancelled: stop.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for ScanMigration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScanMigration({} to {})", self.source.display_url(), self.target.display_url())
    }
}

/// Keys that wait to be copied again.
#[derive(Debug, Default)]
struct PendingKeys {
    keys: HashSet<(u32, Vec<u8>)>,
    /// Since when the oldest of them has waited.
    since: Option<Instant>,
}

/// Keys that changed, as the source tells.
#[derive(Debug, Default)]
struct ChangedKeys {
    pending: Mutex<PendingKeys>,
    /// There were too many to remember, or some may have been missed.
    missed: AtomicBool,
    arrived: Notify,
    broke: Mutex<Option<Error>>,
}

impl ChangedKeys {
    fn pending(&self) -> std::sync::MutexGuard<'_, PendingKeys> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, db: u32, key: &[u8]) {
        let mut pending = self.pending();
        if pending.keys.len() >= CHANGED_MAX {
            self.missed.store(true, Ordering::Release);
            return;
        }
        pending.keys.insert((db, key.to_vec()));
        pending.since.get_or_insert_with(Instant::now);
        drop(pending);
        self.arrived.notify_one();
    }

    /// Everything that waits, by database.
    fn drain(&self) -> BTreeMap<u32, Vec<Vec<u8>>> {
        let PendingKeys { keys, .. } = std::mem::take(&mut *self.pending());
        let mut by_db: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        for (db, key) in keys {
            by_db.entry(db).or_default().push(key);
        }
        by_db
    }

    /// How long the oldest change has waited.
    fn oldest(&self) -> Option<Duration> {
        self.pending().since.map(|at| at.elapsed())
    }

    fn check(&self) -> Result<()> {
        match &*self.broke.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }
}

/// Both ends of a copy.
struct Ends<'a> {
    source: &'a mut Endpoint,
    server: &'a ServerInfo,
    topology: Option<&'a Topology>,
}

/// The lock at the target, and when it was last seen there.
struct HeldLock<'a> {
    names: Option<&'a KeyNames>,
    verified_at: Instant,
    /// Masters of the source that are listened to.
    masters: Vec<Addr>,
    source_verified_at: Instant,
}

impl<'a> HeldLock<'a> {
    fn new(names: Option<&'a KeyNames>, masters: &[Addr]) -> Self {
        let now = Instant::now();
        Self { names, verified_at: now, masters: masters.to_vec(), source_verified_at: now }
    }
}

/// Listeners end with the migration.
struct Listeners(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Listeners {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Adds what one pass over all keys loaded to the summary.
fn record_scan(loaded: LoadStats, summary: &mut Summary) {
    summary.full_syncs += 1;
    summary.full.keys += loaded.keys;
    summary.full.functions = loaded.functions;
    summary.full.empty += loaded.empty;
    add_counts(&mut summary.full.unsupported, loaded.unsupported);
}

impl ScanMigration {
    /// Copies everything, and then what changes, until it is done or stopped.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where the source tells of no events and changes are to be followed; else what the ends answer.
    pub async fn run(&self) -> Result<Summary> {
        let mut source = Endpoint::open(&self.source, Side::Source).await?;
        let (mut query, server, topology) = QueryClient::open(&self.target, Side::Target).await?;
        self.check_ends(&mut source, &server, &mut query).await?;
        let lock = self.take_lock(&source.server, &server, &mut query).await?;
        let ends = Ends { source: &mut source, server: &server, topology: topology.as_ref() };
        let done = self.copy_and_follow(ends, lock.as_ref(), &mut query).await;
        if let Some(names) = &lock {
            // It is removed whatever became of the copy.
            let released = target_locks::release(&mut query, names).await;
            return done.and_then(|summary| released.map(|()| summary));
        }
        done
    }

    /// Ends the migrations that write the same keys from this source, and keeps others from doing so unnoticed.
    async fn take_lock(
        &self,
        source: &ServerInfo,
        server: &ServerInfo,
        query: &mut QueryClient,
    ) -> Result<Option<KeyNames>> {
        let stream = source.masters.first().unwrap_or(&source.replid);
        if server.missing.transactions || stream.is_empty() {
            return Ok(None);
        }
        let lock = TargetLock::new(&self.options.route, stream);
        let names = KeyNames::new(&format!("scan-{}", new_token()));
        lock.supersede(query, &names, &self.target, Some(source)).await?;
        lock.record(query, &names).await?;
        Ok(Some(names))
    }

    /// Fails when another migration of the same keys has released the lock.
    async fn verify_lock(&self, lock: &mut HeldLock<'_>, loader: &mut Loader<'_>) -> Result<()> {
        let Some(names) = lock.names.filter(|_| lock.verified_at.elapsed() > LOCK_CHECK_INTERVAL) else {
            return Ok(());
        };
        lock.verified_at = Instant::now();
        if loader.holds_lock(names).await? {
            return Ok(());
        }
        let m = "another migration of the same keys has taken over at the target";
        Err(Error::new(Kind::Conflict, "fence", m).at(Side::Target))
    }

    /// Fails when changes may have been missed: a master without a listener has joined, or one does not notify any more.
    async fn verify_source(&self, source: &mut Endpoint, watch: &mut HeldLock<'_>) -> Result<()> {
        if self.options.until == Until::Full || watch.source_verified_at.elapsed() < SOURCE_CHECK_INTERVAL {
            return Ok(());
        }
        watch.source_verified_at = Instant::now();
        // While a master fails over, nothing can be said; its listener ends.
        if source.server.cluster
            && let Ok(topology) = Topology::query(&self.source).await
            && topology.masters().iter().any(|master| !watch.masters.contains(master))
        {
            let m = "another master has joined the source cluster, and its changes were not followed; hint: run the same \
                 command again to start from the beginning";
            return Err(Error::new(Kind::Changed, "scan", m).at(Side::Source));
        }
        for addr in watch.masters.clone() {
            let url = self.source.at_addr(&addr).display_url();
            require_notifications(source.query.client_at(&addr).await?, &url).await?;
        }
        Ok(())
    }

    async fn copy_and_follow(
        &self,
        Ends { source, server, topology }: Ends<'_>,
        lock: Option<&KeyNames>,
        query: &mut QueryClient,
    ) -> Result<Summary> {
        let route = &self.options.route;
        let masters = source.query.masters();
        let mut lock = HeldLock::new(lock, &masters);
        let follows = self.options.until != Until::Full;
        let changed = Arc::new(ChangedKeys::default());
        // Before the first key is read, so that no change is missed in between.
        let listeners = match follows {
            true => self.listen_to_all(&masters, &changed).await?,
            false => Listeners(Vec::new()),
        };
        let mut writer = Writer::for_restartable_work(&self.target, topology, "scan").await?;
        let mut summary = Summary::default();
        summary.full.unsupported.extend(source.query.uncovered_slots());
        if follows && server.keys > 0 {
            summary.notes.push(LEFTOVERS_NOTE.into());
        }
        self.progress.keys_expected.store(source.server.keys, Ordering::Relaxed);
        let mut conflict = self.options.conflict;
        loop {
            self.progress.phase.store(1, Ordering::Relaxed);
            let began = Instant::now();
            let mut loader = Loader::new(route, server, conflict, &mut writer, query, &self.clock);
            loader.policy = self.options.functions;
            let complete = self.copy_all(source, &masters, &mut loader, &changed, &mut lock).await?;
            loader.finish_batch().await?;
            let loaded = std::mem::take(&mut loader.loaded);
            summary.notes.append(&mut loader.notes);
            writer.flush().await?;
            summary.full_seconds += began.elapsed().as_secs_f64();
            record_scan(loaded, &mut summary);
            if !complete || !follows {
                summary.done = complete;
                break;
            }
            // What comes now is newer than what we wrote ourselves.
            conflict = Conflict::Replace;
            self.progress.phase.store(2, Ordering::Relaxed);
            let mut loader = Loader::new(route, server, conflict, &mut writer, query, &self.clock);
            if self.follow_changes(source, &mut loader, &changed, &mut lock).await? {
                summary.done = self.options.until == Until::CaughtUp && !self.stop.is_cancelled();
                writer.flush().await?;
                break;
            }
            if !summary.notes.iter().any(|n| n == RESCAN_NOTE) {
                summary.notes.push(RESCAN_NOTE.into());
            }
            // Whatever waits is seen on the way.
            changed.drain();
            changed.missed.store(false, Ordering::Release);
        }
        drop(listeners);
        self.finish(&writer, query, &mut summary).await?;
        Ok(summary)
    }

    /// Removes the token at the target and adds what the writer counted to the summary.
    async fn finish(&self, writer: &Writer, query: &mut QueryClient, summary: &mut Summary) -> Result<()> {
        if let Writer::Cluster(cluster) = writer {
            cluster.release_token(query).await?;
        }
        summary.failed = writer.shared().failed();
        summary.skipped_existing = writer.shared().skipped_existing.load(Ordering::Relaxed);
        self.progress.keys.store(writer.shared().keys.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(())
    }

    /// Fails when both ends are the same data, or the target lacks a database.
    async fn check_ends(
        &self,
        source: &mut Endpoint,
        server: &ServerInfo,
        query: &mut QueryClient,
    ) -> Result<()> {
        let route = &self.options.route;
        source.server.check_distinct(server)?;
        if let Some(addr) = source.query.masters().first() {
            let client = source.query.client_at(addr).await?;
            if let Some(id) = target_locks::running_migration_from(client, &replids(server)).await {
                return Err(replication_loop(&id));
            }
        }
        route.check(&source.server.dbs)?;
        if server.has_databases() {
            query.verify_dbs(route.targets(&source.server.dbs)).await?;
        }
        Ok(())
    }

    async fn listen_to_all(&self, masters: &[Addr], changed: &Arc<ChangedKeys>) -> Result<Listeners> {
        let mut listeners = Listeners(Vec::new());
        for addr in masters {
            listeners.0.push(listen(&self.source.at_addr(addr), changed.clone()).await?);
        }
        Ok(listeners)
    }

    /// Looks through all keys; false when a stop came.
    async fn copy_all(
        &self,
        source: &mut Endpoint,
        masters: &[Addr],
        loader: &mut Loader<'_>,
        changed: &ChangedKeys,
        lock: &mut HeldLock<'_>,
    ) -> Result<bool> {
        if source.server.tells_expiry_time() {
            let listed =
                source.query.client_at(&masters[0]).await?.call(&[b"FUNCTION", b"LIST", b"WITHCODE"]).await;
            for (_, code) in functions::libraries(&listed.map_err(|f| f.at(Side::Source))?) {
                loader.load_item(Item::Function(code.into())).await?;
            }
        }
        let route = &self.options.route;
        for db in source.server.dbs.clone().into_iter().filter(|db| route.db(*db).is_some()) {
            if !source.select(db).await? {
                continue;
            }
            loader.load_item(Item::Db(u64::from(db))).await?;
            for addr in masters {
                let mut cursor = Some(b"0".to_vec());
                while let Some(at) = cursor {
                    changed.check()?;
                    self.verify_lock(lock, loader).await?;
                    self.verify_source(source, lock).await?;
                    let (keys, next) = loader.keep_alive_while(source.scan(addr, &at)).await??;
                    let keys: Vec<Vec<u8>> = keys
                        .into_iter()
                        .filter(|k| !k.starts_with(RESERVED_PREFIX) && route.includes(k))
                        .collect();
                    for some in keys.chunks(BATCH_KEYS) {
                        if self.stop.is_cancelled() {
                            return Ok(false);
                        }
                        self.copy_keys(source, loader, some, None).await?;
                    }
                    cursor = next;
                }
            }
        }
        Ok(true)
    }

    /// Copies keys of the database that is selected, as they stand now; a key that is not there any more goes at the target
    /// too, where that is database `remove_from`.
    async fn copy_keys(
        &self,
        source: &mut Endpoint,
        loader: &mut Loader<'_>,
        keys: &[Vec<u8>],
        remove_from: Option<u32>,
    ) -> Result<()> {
        let absolute = source.server.tells_expiry_time();
        let family = source.server.family;
        let found = source.read_keys(keys, absolute).await?;
        let now = self.clock.now_ms();
        for (key, state) in keys.iter().zip(found) {
            let Some(state) = state else {
                if let Some(db) = remove_from {
                    loader.remove_key(db, key).await?;
                }
                continue;
            };
            let expire_ms = match state.expiry {
                at if at < 0 => None,
                at if absolute => Some(at),
                left => Some(now + left),
            };
            let (head, raw) = open_dumped(family, key, &state.payload, expire_ms)?;
            self.progress.full_bytes.fetch_add(raw.len() as u64, Ordering::Relaxed);
            self.options.bandwidth.acquire(raw.len() as u64).await;
            loader.load_item(Item::Value(head, raw)).await?;
        }
        self.progress.keys.store(loader.keys_confirmed(), Ordering::Relaxed);
        Ok(())
    }

    /// Follows changes; false when all keys must be scanned again.
    async fn follow_changes(
        &self,
        source: &mut Endpoint,
        loader: &mut Loader<'_>,
        changed: &ChangedKeys,
        lock: &mut HeldLock<'_>,
    ) -> Result<bool> {
        let route = &self.options.route;
        loop {
            changed.check()?;
            self.verify_lock(lock, loader).await?;
            self.verify_source(source, lock).await?;
            if changed.missed.load(Ordering::Acquire) {
                return Ok(false);
            }
            if self.stop.is_cancelled() {
                return Ok(true);
            }
            let waited = changed.oldest().unwrap_or_default();
            self.progress
                .lag_ms
                .store(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            let by_db = changed.drain();
            if by_db.is_empty() {
                loader.finish_batch().await?;
                loader.flush().await?;
                self.progress.lag_ms.store(0, Ordering::Relaxed);
                if self.options.until == Until::CaughtUp {
                    return Ok(true);
                }
                loader.keep_alive_while(std::future::ready(())).await?;
                tokio::select! {
                    () = changed.arrived.notified() => {}
                    () = self.stop.cancelled() => {}
                    () = tokio::time::sleep(IDLE_POLL) => {}
                }
                continue;
            }
            for (db, keys) in by_db {
                let Some(to) = route.db(db) else { continue };
                source.record_db(db, route)?;
                if !source.select(db).await? {
                    continue;
                }
                loader.load_item(Item::Db(u64::from(db))).await?;
                let keys: Vec<Vec<u8>> = keys
                    .into_iter()
                    .filter(|k| !k.starts_with(RESERVED_PREFIX) && route.includes(k))
                    .collect();
                for some in keys.chunks(BATCH_KEYS) {
                    self.copy_keys(source, loader, some, Some(to)).await?;
                    self.progress.commands.fetch_add(some.len() as u64, Ordering::Relaxed);
                }
            }
            // What is gathered of these keys must not come behind what they are next time.
            loader.finish_batch().await?;
        }
    }
}

/// Fails when a source does not send a notification for every change.
async fn require_notifications(client: &mut Client, url: &str) -> Result<()> {
    let setting = client.call(&[b"CONFIG", b"GET", b"notify-keyspace-events"]).await;
    // Where settings cannot be read, the operator is believed.
    let Ok(setting) = setting else { return Ok(()) };
    let value = setting.array().and_then(|a| a.get(1)?.text()).unwrap_or_default().to_vec();
    let all = value.contains(&b'A') || b"g$lshzxet".iter().all(|c| value.contains(c));
    if value.contains(&b'K') && all {
        return Ok(());
    }
    let m = format!(
        "keyspace notifications are off at {url}; hint: set notify-keyspace-events to KA there, or use --full-only"
    );
    Err(Error::new(Kind::Unsupported, "scan", m).at(Side::Source))
}

/// Listens to the events of one server, from the moment that this returns.
async fn listen(node: &Node, changed: Arc<ChangedKeys>) -> Result<tokio::task::JoinHandle<()>> {
    let at = |f: Error| f.at(Side::Source);
    let mut client = Client::open(&Node { db: None, ..node.clone() }).await.map_err(at)?;
    require_notifications(&mut client, &node.display_url()).await?;
    client.call(&[b"PSUBSCRIBE", b"__keyspace@*__:*"]).await.map_err(at)?;
    let url = node.display_url();
    let (mut incoming, mut outgoing, rest) = client.into_parts();
    Ok(tokio::spawn(async move {
        let mut last_event_at = Instant::now();
        let mut tick = tokio::time::interval(PING_INTERVAL);
        let mut replies = Replies::with_limit(VALUE_MAX);
        replies.push(&rest);
        let mut buf = vec![0; 64 << 10];
        let why = loop {
            loop {
                match replies.next_reply() {
                    Ok(Some(Reply::Array(parts) | Reply::Push(parts))) => record_event(&parts, &changed),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(e) => return record_failure(&changed, &url, &e.to_string()),
                }
            }
            // Without messages, an idle source cannot be told from a lost one.
            tokio::select! {
                read = incoming.read(&mut buf) => match read {
                    Ok(0) => break "closed by the source".to_owned(),
                    Ok(n) => {
                        last_event_at = Instant::now();
                        replies.push(&buf[..n]);
                    }
                    Err(e) => break e.to_string(),
                },
                _ = tick.tick() => {
                    if last_event_at.elapsed() > SILENCE_TIMEOUT {
                        break format!("no reply from the source for {} s", SILENCE_TIMEOUT.as_secs());
                    }
                    if let Err(e) = outgoing.write_all(b"*1\r\n$4\r\nPING\r\n").await {
                        break e.to_string();
                    }
                }
            }
        };
        record_failure(&changed, &url, &why);
    }))
}

fn record_failure(changed: &ChangedKeys, url: &str, why: &str) {
    let m = format!(
        "{url}: the keyspace-notification connection was lost: {why}; hint: run the same command again \
         to start from the beginning"
    );
    let failure = Error::new(Kind::Connect, "scan", m).at(Side::Source);
    changed.broke.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    changed.arrived.notify_one();
}

/// `pmessage`, pattern, `__keyspace@DB__:KEY`, event: whichever it was, the key is read again.
fn record_event(parts: &[Reply], changed: &ChangedKeys) {
    let [kind, _, channel, _] = parts else { return };
    if kind.text() != Some(b"pmessage") {
        return;
    }
    let Some(rest) = channel.text().and_then(|c| c.strip_prefix(b"__keyspace@")) else { return };
    let Some(end) = rest.windows(3).position(|w| w == b"__:") else { return };
    if let Some(db) = std::str::from_utf8(&rest[..end]).ok().and_then(|n| n.parse().ok()) {
        changed.record(db, &rest[end + 3..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyspace_events_name_database_and_key() {
        let changed = ChangedKeys::default();
        let text = |t: &str| Reply::Bulk(t.as_bytes().to_vec());
        for channel in ["__keyspace@3__:a__:b", "__keyspace@0__:x", "__keyevent@0__:set", "__keyspace@y__:k"]
        {
            record_event(&[text("pmessage"), text("p"), text(channel), text("set")], &changed);
        }
        assert!(changed.oldest().is_some());
        let taken = changed.drain();
        assert_eq!(taken[&3], [b"a__:b".to_vec()]);
        assert_eq!((taken[&0].len(), taken.len()), (1, 2));
        assert!(changed.oldest().is_none());
    }
}
