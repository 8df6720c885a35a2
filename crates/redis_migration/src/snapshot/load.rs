//! A snapshot's keys on their way to the target: as they are written where the target can take that, taken apart into
//! commands where it cannot, or where they are too long to be held whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use flow_control::clock::SharedClock;
use model::error::{Error, Kind, Result, Side};
use redis_proto::command::{slot, tag};
use redis_proto::rdb::{Family, Item, KeyHeader, Kind as Value, Type, decode, dump, is_empty};
use redis_proto::resp::command;

use crate::checkpoint::keys::KeyNames;
use crate::checkpoint::target_locks;
use crate::connection::RESERVED_PREFIX;
use crate::connection::query_client::QueryClient;
use crate::connection::server::ServerInfo;
use crate::route::Route;
use crate::snapshot::rebuild::Rebuild;
use crate::snapshot::restore::{Conflict, StringBatch, append_restore, append_set};
use crate::stream::existing_keys::ExistingKeys;
use crate::target::Writer;
use crate::target::functions::{self, FunctionPolicy, LibraryCommand};
use crate::target::pipeline::PendingReply;

/// Values longer than this are taken apart on their way, bytes.
pub(crate) const SPLIT_VALUES_ABOVE: u64 = 32 << 20;

/// What a snapshot held, and what became of it.
#[derive(Clone, Debug, Default)]
pub struct LoadStats {
    /// Keys that were sent.
    pub keys: u64,
    /// Libraries of functions.
    pub functions: u64,
    /// Empty keys: servers skip them too.
    pub empty: u64,
    /// What the target does not support, by name, with its count.
    pub unsupported: BTreeMap<String, u64>,
}

/// Adds a count to what was counted before.
pub(crate) fn add_counts(to: &mut BTreeMap<String, u64>, from: impl IntoIterator<Item = (String, u64)>) {
    for (what, n) in from {
        *to.entry(what).or_default() += n;
    }
}

/// Which keys of a snapshot are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFilter {
    /// All of them, as they come.
    #[default]
    All,
    /// Those that do not expire. A server looks each new key up among those that expire, unless it has none: measured with a
    /// fifth of the keys expiring, all takes a seventh less time when those come last.
    Persistent,
    /// The others.
    Expiring,
}

/// A key that is being built from elements.
struct PartialKey {
    rebuild: Rebuild,
    key: Vec<u8>,
    /// Where it is built when it must not replace another: an incomplete key never has its name.
    built_at: Option<Vec<u8>>,
    expire_ms: Option<i64>,
}

/// A name in the slot of a key.
fn temporary_name(key: &[u8]) -> Vec<u8> {
    [RESERVED_PREFIX, b"partial:{", tag(slot(key)).as_bytes(), b"}:", key].concat()
}

/// A hash whose fields may expire.
pub(crate) fn is_hash_with_expiries(kind: Type) -> bool {
    kind.kind() == Some(Value::Hash) && !kind.is_common()
}

/// Brings items to the target.
pub struct Loader<'a> {
    route: &'a Route,
    target: &'a ServerInfo,
    conflict: Conflict,
    writer: &'a mut Writer,
    /// Connections of its own, for queries.
    query: &'a mut QueryClient,
    clock: &'a SharedClock,
    /// Which keys are loaded now.
    pub filter: KeyFilter,
    /// What happens when the target refuses a library of functions.
    pub policy: FunctionPolicy,
    /// Keys that the target held before.
    pub(crate) existing: Option<&'a mut ExistingKeys>,
    /// Added to each expiry, milliseconds ([`crate::import`]).
    pub(crate) held_ms: i64,
    /// Something to know.
    pub notes: Vec<String>,
    /// Keys that are migrated in a later pass.
    pub deferred: u64,
    /// What has been done.
    pub loaded: LoadStats,
    db: u32,
    target_db: Option<u32>,
    selected: Option<u32>,
    partial: Option<PartialKey>,
    /// The elements that follow belong to a key that is not migrated.
    skipping: bool,
    /// Strings that wait to be written together, of the database that is selected.
    strings: StringBatch,
}

impl std::fmt::Debug for Loader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loader({:?})", self.loaded)
    }
}

impl<'a> Loader<'a> {
    /// Begins.
    pub fn new(
        route: &'a Route,
        target: &'a ServerInfo,
        conflict: Conflict,
        writer: &'a mut Writer,
        query: &'a mut QueryClient,
        clock: &'a SharedClock,
    ) -> Self {
        let selected = writer.db();
        Self {
            route,
            target,
            conflict,
            writer,
            query,
            clock,
            filter: KeyFilter::All,
            policy: FunctionPolicy::default(),
            existing: None,
            held_ms: 0,
            notes: Vec::new(),
            deferred: 0,
            loaded: LoadStats::default(),
            db: 0,
            target_db: route.db(0),
            selected,
            partial: None,
            skipping: false,
            strings: StringBatch::default(),
        }
    }

    /// A key that the source has no more.
    ///
    /// # Errors
    /// As [`Loader::load_item`].
    pub async fn remove_key(&mut self, db: u32, key: &[u8]) -> Result<()> {
        // It may have been gathered a moment ago.
        self.flush_strings();
        self.select(db, key).await?;
        let before = self.writer.out().len();
        command(self.writer.out(), &[b"DEL", key]);
        self.push_required(key, 1, before);
        self.writer.apply_backpressure().await
    }

    /// Waits for other work, with signs of life to the target.
    ///
    /// # Errors
    /// As [`Loader::load_item`].
    pub async fn keep_alive_while<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        self.writer.keep_alive_while(work).await
    }

    /// The run that began last holds the token.
    ///
    /// # Errors
    /// As [`KeyNames::verify_token`].
    pub async fn verify_token(&mut self, names: &KeyNames, token: &str) -> Result<()> {
        names.verify_token(self.query.client_of_key(&names.fencing_token).await?, token).await
    }

    /// The lock of a migration is at the target.
    pub(crate) async fn holds_lock(&mut self, names: &KeyNames) -> Result<bool> {
        target_locks::holds(self.query, names).await
    }

    /// Keys that the target has confirmed.
    pub fn keys_confirmed(&self) -> u64 {
        self.writer.shared().keys.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Everything that was sent is answered.
    ///
    /// # Errors
    /// As [`Loader::load_item`].
    pub async fn flush(&mut self) -> Result<()> {
        self.writer.flush().await
    }

    /// What was gathered goes out: nothing follows.
    ///
    /// # Errors
    /// As [`Loader::load_item`].
    pub async fn finish_batch(&mut self) -> Result<()> {
        self.flush_strings();
        self.writer.apply_backpressure().await
    }

    fn flush_strings(&mut self) {
        let before = self.writer.out().len();
        let n = self.strings.write(self.writer.out());
        if n > 0 {
            let bytes = self.writer.out().len() - before;
            self.writer.push_pending(PendingReply::Keys(n), bytes);
        }
    }

    /// Takes the next item of the snapshot.
    ///
    /// # Errors
    /// An error reply of the target, or an error of the connection.
    pub async fn load_item(&mut self, item: Item<'_>) -> Result<()> {
        match item {
            Item::Db(db) => {
                let too_great =
                    |_| Error::new(Kind::Corrupt, "load", format!("a database {db}")).at(Side::Source);
                self.db = u32::try_from(db).map_err(too_great)?;
                self.target_db = self.route.db(self.db);
                if let (Some(db), true) = (self.target_db.filter(|db| *db != 0), !self.target.has_databases())
                {
                    let m = format!(
                        "the data are in database {db}, which the target does not have; hint: map the \
                             database to 0"
                    );
                    return Err(Error::new(Kind::Unsupported, "load", m).at(Side::Target));
                }
            }
            // They came with the first keys.
            Item::Function(_) | Item::ModuleAux(..) if self.filter == KeyFilter::Expiring => {}
            Item::Function(code) => self.function(&code).await?,
            Item::ModuleAux(..) => self.count_unsupported("module data outside of keys"),
            Item::Value(mut head, raw) => {
                head.expire_ms = head.expire_ms.map(|at| at.saturating_add(self.held_ms));
                if let Some(db) = self.target_db_of(&head) {
                    self.value(db, &head, raw).await?;
                }
            }
            Item::Open(mut head) => {
                head.expire_ms = head.expire_ms.map(|at| at.saturating_add(self.held_ms));
                match self.target_db_of(&head) {
                    None => self.skipping = true,
                    Some(db) => self.open(db, &head).await?,
                }
            }
            Item::Element(element) if !self.skipping => {
                if let Some(partial) = &mut self.partial {
                    let before = self.writer.out().len();
                    let n = partial.rebuild.add(self.writer.out(), element);
                    self.push_required_of_partial(n, before);
                }
            }
            Item::Piece(bytes) if !self.skipping => {
                if let Some(partial) = &mut self.partial {
                    let before = self.writer.out().len();
                    let n = partial.rebuild.piece(self.writer.out(), bytes);
                    self.push_required_of_partial(n, before);
                }
            }
            Item::Close if self.skipping => self.skipping = false,
            Item::Close => self.close(),
            _ => {}
        }
        self.writer.apply_backpressure().await
    }

    fn target_db_of(&mut self, head: &KeyHeader<'_>) -> Option<u32> {
        let reserved = head.key.starts_with(RESERVED_PREFIX);
        let db = self
            .target_db
            .filter(|_| !reserved && (!self.route.has_filter() || self.route.includes(&head.key)))?;
        let filter = match self.filter {
            KeyFilter::All => true,
            KeyFilter::Persistent => head.expire_ms.is_none(),
            KeyFilter::Expiring => head.expire_ms.is_some(),
        };
        self.deferred += u64::from(!filter);
        let Some(existing) = self.existing.as_mut().filter(|_| filter) else { return filter.then_some(db) };
        // What was not there before an earlier snapshot is from that snapshot, and is replaced.
        if self.conflict == Conflict::Replace && existing.is_protected(db, &head.key) {
            self.writer.shared().skipped_existing.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return None;
        }
        existing.set_replaced(db, &head.key);
        Some(db)
    }

    fn count_unsupported(&mut self, what: &str) {
        *self.loaded.unsupported.entry(what.to_owned()).or_default() += 1;
    }

    /// So many answers about one key, none of which may be an error.
    fn push_required(&mut self, key: &[u8], replies: usize, before: usize) {
        let bytes = self.writer.out().len() - before;
        let key: Arc<[u8]> = key.into();
        for i in 0..replies {
            self.writer
                .push_pending(PendingReply::KeyPart { key: key.clone() }, if i == 0 { bytes } else { 0 });
        }
    }

    /// The same about the key that is being built.
    fn push_required_of_partial(&mut self, replies: usize, before: usize) {
        if replies > 0 {
            let key = self.partial.as_ref().map(|partial| partial.key.clone()).unwrap_or_default();
            self.push_required(&key, replies, before);
        }
    }

    /// The commands that follow are about a key.
    async fn select(&mut self, db: u32, key: &[u8]) -> Result<()> {
        self.writer.set_key(key);
        // Where there is one database, whatever leads to another is refused before.
        if self.selected != Some(db) && self.target.has_databases() {
            self.flush_strings();
            // What came before is answered in its own database, and nothing follows a refusal.
            self.writer.flush().await?;
            command(self.writer.out(), &[b"SELECT", db.to_string().as_bytes()]);
            self.writer.push_pending(PendingReply::Required("select"), 0);
            self.writer.flush().await?;
            self.selected = Some(db);
            if let Writer::Standalone(one) = &mut self.writer {
                one.db = self.selected;
            }
        }
        Ok(())
    }

    async fn function(&mut self, code: &[u8]) -> Result<()> {
        if !self.target.has_functions() {
            self.count_unsupported("functions (not supported by the target: older than 7.0, or a proxy)");
            return Ok(());
        }
        // They stand before the keys: a rejection that ends the migration arrives before the first of them.
        let load = LibraryCommand::load(code);
        let done = functions::run_at_masters(self.query, &load, self.policy).await?;
        self.notes.extend(done.notes());
        match done.skipped {
            true => self.count_unsupported(functions::SKIPPED_LIBRARIES),
            false => self.loaded.functions += 1,
        }
        Ok(())
    }

    async fn value(&mut self, db: u32, head: &KeyHeader<'_>, raw: &[u8]) -> Result<()> {
        if is_empty(head.kind, raw) {
            self.loaded.empty += 1;
            return Ok(());
        }
        let max = self.target.bulk_len_max;
        let fits = max == 0 || dump::len(raw.len()) as u64 <= max;
        let holds_fields = self.held_ms != 0 && is_hash_with_expiries(head.kind);
        match self.target.accepts(head.kind)
            && !holds_fields
            && (fits || head.kind.kind() == Some(Value::Module))
        {
            true => self.restore(db, head, raw).await,
            false => self.rebuild(db, head, raw).await,
        }
    }

    /// Writes a value as it is.
    async fn restore(&mut self, db: u32, head: &KeyHeader<'_>, raw: &[u8]) -> Result<()> {
        self.select(db, &head.key).await?;
        let expire = head.expire_ms;
        let together = expire.is_none() && self.conflict == Conflict::Replace && self.target.has_databases();
        if together && self.strings.add(head, raw) {
            self.loaded.keys += 1;
            if self.strings.is_full() {
                self.flush_strings();
            }
            return Ok(());
        }
        let before = self.writer.out().len();
        let counts = expire.is_some() && !self.target.restores_absolutely();
        // Servers that count from now are given the moment by a command of its own, unless the key may be another's.
        let later = expire.filter(|_| counts && self.conflict == Conflict::Replace);
        let (expire, now) =
            (expire.filter(|_| later.is_none()), if counts { self.clock.now_ms() } else { 0 });
        let out = self.writer.out();
        let mut bytes = 0;
        if self.conflict != Conflict::Replace || !append_set(out, head, raw, self.target, expire) {
            let insert_at = append_restore(out, head, raw, self.target, self.conflict, expire, now);
            if let Some(at) = insert_at {
                bytes += raw.len();
                self.writer.insert(at, raw).await?;
            }
        }
        // What was inserted may be sent already, and what was before it with it.
        bytes += self.writer.out().len().saturating_sub(before);
        self.writer.push_pending(
            PendingReply::Key {
                key: head.key.as_ref().into(),
                may_exist: self.conflict == Conflict::Skip,
                // Only the target knows whether it has the module.
                may_fail: head.kind.kind() == Some(Value::Module),
            },
            bytes,
        );
        if let Some(at) = later {
            let before = self.writer.out().len();
            command(self.writer.out(), &[b"PEXPIREAT", &head.key, at.to_string().as_bytes()]);
            self.push_required(&head.key, 1, before);
        }
        self.loaded.keys += 1;
        Ok(())
    }

    /// Builds a value from its elements.
    async fn rebuild(&mut self, db: u32, head: &KeyHeader<'_>, raw: &[u8]) -> Result<()> {
        self.open(db, head).await?;
        if self.skipping {
            self.skipping = false;
            return Ok(());
        }
        let before = self.writer.out().len();
        let mut replies = 0;
        if let Some(partial) = &mut self.partial {
            let (out, rebuild) = (self.writer.out(), &mut partial.rebuild);
            if head.kind.kind() == Some(Value::Stream) {
                let missing = decode::pending_of_deleted(head.kind, raw);
                rebuild.missing = missing.map_err(|e| corrupt(&e.behind(head.offset)))?.into();
            }
            decode::elements(head.kind, raw, |element| {
                replies += rebuild.add(out, element);
                Ok(())
            })
            .map_err(|e| corrupt(&e.behind(head.offset)))?;
        }
        self.push_required_of_partial(replies, before);
        self.close();
        Ok(())
    }

    /// Begins a key that is built from elements.
    async fn open(&mut self, db: u32, head: &KeyHeader<'_>) -> Result<()> {
        let kind = match head.kind.kind() {
            Some(Value::Stream) if self.target.missing.transactions => {
                self.count_unsupported("streams (a proxy does not support their commands)");
                self.skipping = true;
                return Ok(());
            }
            Some(kind) if kind != Value::Module => kind,
            _ => {
                self.count_unsupported(&format!(
                    "values of type {} ({:?})",
                    head.kind.number, head.kind.family
                ));
                self.skipping = true;
                return Ok(());
            }
        };
        if self.conflict != Conflict::Replace && self.exists(db, &head.key).await? {
            if self.conflict == Conflict::Fail {
                let m = format!("key `{}` already exists at the target", String::from_utf8_lossy(&head.key));
                return Err(Error::new(Kind::Conflict, "restore", m).at(Side::Target));
            }
            self.writer.shared().skipped_existing.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.skipping = true;
            return Ok(());
        }
        self.select(db, &head.key).await?;
        // A proxy may serve both names by different servers.
        let in_place = self.conflict == Conflict::Replace || self.target.missing.transactions;
        let built_at = (!in_place).then(|| temporary_name(&head.key));
        let name = built_at.as_deref().unwrap_or(&head.key);
        let before = self.writer.out().len();
        command(self.writer.out(), &[b"DEL", name]);
        self.push_required(&head.key, 1, before);
        let mut rebuild = Rebuild::new(name, kind, self.target);
        rebuild.held_ms = self.held_ms;
        self.partial =
            Some(PartialKey { rebuild, key: head.key.to_vec(), built_at, expire_ms: head.expire_ms });
        Ok(())
    }

    async fn exists(&mut self, db: u32, key: &[u8]) -> Result<bool> {
        Ok(self.query.call(db, key, &[b"EXISTS", key]).await?.number() == Some(1))
    }

    fn close(&mut self) {
        let Some(mut partial) = self.partial.take() else { return };
        let before = self.writer.out().len();
        let mut replies = partial.rebuild.end(self.writer.out());
        if let Some(name) = &partial.built_at {
            command(self.writer.out(), &[b"RENAMENX", name, &partial.key]);
            replies += 1;
        }
        if let Some(at) = partial.expire_ms {
            command(self.writer.out(), &[b"PEXPIREAT", &partial.key, at.to_string().as_bytes()]);
            replies += 1;
        }
        self.push_required(&partial.key, replies, before);
        if let Some(what) = partial.rebuild.dropped {
            self.count_unsupported(what);
        }
        self.loaded.keys += 1;
        self.writer.shared().keys.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Operation of the failure that says so: a newer or another server wrote the bytes.
pub const FORMAT: &str = "format";

/// What the bytes of a snapshot are wrong in.
pub fn corrupt(e: &redis_proto::ProtocolError) -> Error {
    let (kind, op) = if e.newer { (Kind::Unsupported, FORMAT) } else { (Kind::Corrupt, "snapshot") };
    Error::new(kind, op, e.to_string()).at(Side::Source)
}

/// A dumped value as a snapshot would hold it.
///
/// # Errors
/// [`Kind::Corrupt`] for a payload that cannot be read.
pub(crate) fn open_dumped<'v>(
    family: Family,
    key: &'v [u8],
    payload: &'v [u8],
    expire_ms: Option<i64>,
) -> Result<(KeyHeader<'v>, &'v [u8])> {
    let (kind, raw) = dump::open(family, payload).map_err(|e| {
        let m = format!("key `{}`: {e}", String::from_utf8_lossy(key));
        Error::new(Kind::Corrupt, "dump", m).at(Side::Source)
    })?;
    Ok((KeyHeader { key: key.into(), kind, expire_ms, idle: None, freq: None, offset: 0 }, raw))
}
