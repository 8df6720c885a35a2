//! A snapshot's keys on their way to the target: as they are written where the target can take that, taken apart into
//! commands where it cannot, or where they are too long to be held whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::failure::{Failure, Kind, Result, Side};
use pace::clock::SharedClock;
use redis_proto::rdb::{Head, Item, Kind as Value, decode, dump, is_empty};
use redis_proto::resp::command;

use crate::asker::Asker;
use crate::functions::{self, Functions};
use crate::marker::{Names, OURS};
use crate::rebuild::Rebuild;
use crate::restore::{Conflict, Strings, restore, set};
use crate::route::Route;
use crate::server::Server;
use crate::target::Writer;
use crate::target::pipeline::About;

/// What a snapshot held, and what became of it.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Keys that were sent.
    pub keys: u64,
    /// Libraries of functions.
    pub functions: u64,
    /// Keys that held nothing: servers pass over them too.
    pub empty: u64,
    /// What the target has no place for, by its name, and how often that was met.
    pub left_out: BTreeMap<String, u64>,
}

/// Which keys of a snapshot are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// All of them, as they come.
    #[default]
    All,
    /// Those that do not expire. A server looks each new key up among those that expire, unless it has none: measured with a
    /// fifth of the keys expiring, all takes a seventh less time when those come last.
    Lasting,
    /// The others.
    Expiring,
}

/// A key that is being built from elements.
struct Building {
    rebuild: Rebuild,
    key: Vec<u8>,
    expire_ms: Option<i64>,
}

/// Brings items to the target.
pub struct Load<'a> {
    route: &'a Route,
    target: &'a Server,
    conflict: Conflict,
    pipeline: &'a mut Writer,
    /// Connections of its own, for questions.
    ask: &'a mut Asker,
    clock: &'a SharedClock,
    /// Which keys are loaded now.
    pub wanted: Wanted,
    /// What happens when the target refuses a library of functions.
    pub policy: Functions,
    /// Something to know.
    pub notes: Vec<String>,
    /// Keys that travel and were not wanted.
    pub passed: u64,
    /// What has been done.
    pub loaded: Loaded,
    db: u32,
    travels: Option<u32>,
    selected: Option<u32>,
    building: Option<Building>,
    /// The elements that follow belong to a key that does not travel.
    passing: bool,
    /// Strings that wait to be written together, of the database that is selected.
    strings: Strings,
}

impl std::fmt::Debug for Load<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Load({:?})", self.loaded)
    }
}

impl<'a> Load<'a> {
    /// Begins.
    pub fn new(
        route: &'a Route,
        target: &'a Server,
        conflict: Conflict,
        pipeline: &'a mut Writer,
        ask: &'a mut Asker,
        clock: &'a SharedClock,
    ) -> Self {
        let selected = pipeline.db();
        Self {
            route,
            target,
            conflict,
            pipeline,
            ask,
            clock,
            wanted: Wanted::All,
            policy: Functions::default(),
            notes: Vec::new(),
            passed: 0,
            loaded: Loaded::default(),
            db: 0,
            travels: route.db(0),
            selected,
            building: None,
            passing: false,
            strings: Strings::default(),
        }
    }

    /// A key that the source has no more.
    ///
    /// # Errors
    /// As [`Load::item`].
    pub async fn remove(&mut self, db: u32, key: &[u8]) -> Result<()> {
        // It may have been gathered a moment ago.
        self.write_strings();
        self.select(db, key).await?;
        let before = self.pipeline.out().len();
        command(self.pipeline.out(), &[b"DEL", key]);
        self.expect(key, 1, before);
        self.pipeline.pace().await
    }

    /// Waits for other work, with signs of life to the target.
    ///
    /// # Errors
    /// As [`Load::item`].
    pub async fn alive_while<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        self.pipeline.alive_while(work).await
    }

    /// The run that began last has its turn.
    ///
    /// # Errors
    /// As [`Names::check_turn`].
    pub async fn check_turn(&mut self, names: &Names, token: &str) -> Result<()> {
        names.check_turn(self.ask.of(&names.owner).await?, token).await
    }

    /// Keys that the target has confirmed.
    pub fn keys_done(&self) -> u64 {
        self.pipeline.shared().keys.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Everything that was sent is answered.
    ///
    /// # Errors
    /// As [`Load::item`].
    pub async fn settle(&mut self) -> Result<()> {
        self.pipeline.settle().await
    }

    /// What was gathered goes out: nothing follows.
    ///
    /// # Errors
    /// As [`Load::item`].
    pub async fn end(&mut self) -> Result<()> {
        self.write_strings();
        self.pipeline.pace().await
    }

    fn write_strings(&mut self) {
        let before = self.pipeline.out().len();
        let n = self.strings.write(self.pipeline.out());
        if n > 0 {
            let bytes = self.pipeline.out().len() - before;
            self.pipeline.expect(About::Keys(n), bytes);
        }
    }

    /// Takes the next item of the snapshot.
    ///
    /// # Errors
    /// What the target answered, or its connection met.
    pub async fn item(&mut self, item: Item<'_>) -> Result<()> {
        match item {
            Item::Db(db) => {
                let too_great =
                    |_| Failure::new(Kind::Corrupt, "load", format!("a database {db}")).at(Side::Source);
                self.db = u32::try_from(db).map_err(too_great)?;
                self.travels = self.route.db(self.db);
                if let (Some(db), true) = (self.travels.filter(|db| *db != 0), !self.target.has_databases()) {
                    let m = format!(
                        "the data are in database {db}, which the target does not have; hint: map the \
                             database to 0"
                    );
                    return Err(Failure::new(Kind::Unsupported, "load", m).at(Side::Target));
                }
            }
            // They came with the first keys.
            Item::Function(_) | Item::ModuleAux(..) if self.wanted == Wanted::Expiring => {}
            Item::Function(code) => self.function(&code).await?,
            Item::ModuleAux(..) => self.left_out("module data outside of keys"),
            Item::Value(head, span) => {
                if let Some(db) = self.travels_to(&head) {
                    self.value(db, &head, span).await?;
                }
            }
            Item::Open(head) => match self.travels_to(&head) {
                None => self.passing = true,
                Some(db) => self.open(db, &head).await?,
            },
            Item::Element(element) if !self.passing => {
                if let Some(building) = &mut self.building {
                    let before = self.pipeline.out().len();
                    let n = building.rebuild.add(self.pipeline.out(), element);
                    self.expect_built(n, before);
                }
            }
            Item::Piece(bytes) if !self.passing => {
                if let Some(building) = &mut self.building {
                    let before = self.pipeline.out().len();
                    let n = building.rebuild.piece(self.pipeline.out(), bytes);
                    self.expect_built(n, before);
                }
            }
            Item::Close if self.passing => self.passing = false,
            Item::Close => self.close(),
            _ => {}
        }
        self.pipeline.pace().await
    }

    fn travels_to(&mut self, head: &Head<'_>) -> Option<u32> {
        let ours = head.key.starts_with(OURS);
        let db =
            self.travels.filter(|_| !ours && (!self.route.has_filter() || self.route.keeps(&head.key)))?;
        let wanted = match self.wanted {
            Wanted::All => true,
            Wanted::Lasting => head.expire_ms.is_none(),
            Wanted::Expiring => head.expire_ms.is_some(),
        };
        self.passed += u64::from(!wanted);
        wanted.then_some(db)
    }

    fn left_out(&mut self, what: &str) {
        *self.loaded.left_out.entry(what.to_owned()).or_default() += 1;
    }

    /// So many answers about one key, none of which may be an error.
    fn expect(&mut self, key: &[u8], answers: usize, before: usize) {
        let bytes = self.pipeline.out().len() - before;
        let key: Arc<[u8]> = key.into();
        for i in 0..answers {
            self.pipeline.expect(About::Part { key: key.clone() }, if i == 0 { bytes } else { 0 });
        }
    }

    /// The same about the key that is being built.
    fn expect_built(&mut self, answers: usize, before: usize) {
        if answers > 0 {
            let key = self.building.as_ref().map(|building| building.key.clone()).unwrap_or_default();
            self.expect(&key, answers, before);
        }
    }

    /// The commands that follow are about a key.
    async fn select(&mut self, db: u32, key: &[u8]) -> Result<()> {
        self.pipeline.at(key);
        // Where there is one database, whatever leads to another is refused before.
        if self.selected != Some(db) && self.target.has_databases() {
            self.write_strings();
            // What came before is answered in its own database, and nothing follows a refusal.
            self.pipeline.settle().await?;
            command(self.pipeline.out(), &[b"SELECT", db.to_string().as_bytes()]);
            self.pipeline.expect(About::Must("select"), 0);
            self.pipeline.settle().await?;
            self.selected = Some(db);
            if let Writer::One(one) = &mut self.pipeline {
                one.db = self.selected;
            }
        }
        Ok(())
    }

    async fn function(&mut self, code: &[u8]) -> Result<()> {
        if !self.target.has_functions() {
            self.left_out("functions (not supported by the target: older than 7.0, or a proxy)");
            return Ok(());
        }
        // They stand before the keys: a refusal that ends the migration is met before the first of them.
        let words: [&[u8]; 4] = [b"FUNCTION", b"LOAD", b"REPLACE", code];
        let done = functions::everywhere(self.ask, &words, self.policy).await?;
        self.notes.extend(done.notes());
        match done.skipped {
            true => self.left_out(functions::LEFT_OUT),
            false => self.loaded.functions += 1,
        }
        Ok(())
    }

    async fn value(&mut self, db: u32, head: &Head<'_>, span: &[u8]) -> Result<()> {
        if is_empty(head.kind, span) {
            self.loaded.empty += 1;
            return Ok(());
        }
        let max = self.target.argument_max;
        let fits = max == 0 || dump::len(span.len()) as u64 <= max;
        if self.target.takes(head.kind) && (fits || head.kind.kind() == Some(Value::Module)) {
            self.select(db, &head.key).await?;
            let expire = head.expire_ms;
            let together =
                expire.is_none() && self.conflict == Conflict::Replace && self.target.has_databases();
            if together && self.strings.add(head, span) {
                self.loaded.keys += 1;
                if self.strings.is_full() {
                    self.write_strings();
                }
                return Ok(());
            }
            let before = self.pipeline.out().len();
            let counts = expire.is_some() && !self.target.restores_absolutely();
            // Servers that count from now are told the moment itself by a command of its own, unless the key may be another's.
            let later = expire.filter(|_| counts && self.conflict == Conflict::Replace);
            let (expire, now) =
                (expire.filter(|_| later.is_none()), if counts { self.clock.now_ms() } else { 0 });
            let out = self.pipeline.out();
            let mut bytes = 0;
            if self.conflict != Conflict::Replace || !set(out, head, span, self.target, expire) {
                let place = restore(out, head, span, self.target, self.conflict, expire, now);
                if let Some(at) = place {
                    bytes += span.len();
                    self.pipeline.insert(at, span).await?;
                }
            }
            // What was inserted may have gone already, and what was before it with it.
            bytes += self.pipeline.out().len().saturating_sub(before);
            self.pipeline.expect(
                About::Key {
                    key: head.key.as_ref().into(),
                    may_exist: self.conflict == Conflict::Skip,
                    // Only the target knows whether it has the module.
                    may_fail: head.kind.kind() == Some(Value::Module),
                },
                bytes,
            );
            if let Some(at) = later {
                let before = self.pipeline.out().len();
                command(self.pipeline.out(), &[b"PEXPIREAT", &head.key, at.to_string().as_bytes()]);
                self.expect(&head.key, 1, before);
            }
            self.loaded.keys += 1;
            return Ok(());
        }
        self.open(db, head).await?;
        if self.passing {
            self.passing = false;
            return Ok(());
        }
        let before = self.pipeline.out().len();
        let mut answers = 0;
        if let Some(building) = &mut self.building {
            let (out, rebuild) = (self.pipeline.out(), &mut building.rebuild);
            if head.kind.kind() == Some(Value::Stream) {
                let missing = decode::pending_of_deleted(head.kind, span);
                rebuild.missing = missing.map_err(|e| corrupt(&e.behind(head.offset)))?.into();
            }
            decode::elements(head.kind, span, |element| {
                answers += rebuild.add(out, element);
                Ok(())
            })
            .map_err(|e| corrupt(&e.behind(head.offset)))?;
        }
        self.expect_built(answers, before);
        self.close();
        Ok(())
    }

    /// Begins a key that is built from elements.
    async fn open(&mut self, db: u32, head: &Head<'_>) -> Result<()> {
        let kind = match head.kind.kind() {
            Some(Value::Stream) if self.target.lacks.transactions => {
                self.left_out("streams (a proxy does not support their commands)");
                self.passing = true;
                return Ok(());
            }
            Some(kind) if kind != Value::Module => kind,
            _ => {
                self.left_out(&format!("values of type {} ({:?})", head.kind.number, head.kind.family));
                self.passing = true;
                return Ok(());
            }
        };
        if self.conflict != Conflict::Replace && self.exists(db, &head.key).await? {
            if self.conflict == Conflict::Fail {
                let m = format!("key `{}` already exists at the target", String::from_utf8_lossy(&head.key));
                return Err(Failure::new(Kind::Conflict, "restore", m).at(Side::Target));
            }
            self.pipeline.shared().left.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.passing = true;
            return Ok(());
        }
        self.select(db, &head.key).await?;
        if self.conflict == Conflict::Replace {
            let before = self.pipeline.out().len();
            command(self.pipeline.out(), &[b"DEL", &head.key]);
            self.expect(&head.key, 1, before);
        }
        let rebuild = Rebuild::new(&head.key, kind, self.target);
        self.building = Some(Building { rebuild, key: head.key.to_vec(), expire_ms: head.expire_ms });
        Ok(())
    }

    async fn exists(&mut self, db: u32, key: &[u8]) -> Result<bool> {
        Ok(self.ask.call(db, key, &[b"EXISTS", key]).await?.number() == Some(1))
    }

    fn close(&mut self) {
        let Some(mut building) = self.building.take() else { return };
        let before = self.pipeline.out().len();
        let mut answers = building.rebuild.end(self.pipeline.out());
        if let Some(at) = building.expire_ms {
            command(self.pipeline.out(), &[b"PEXPIREAT", &building.key, at.to_string().as_bytes()]);
            answers += 1;
        }
        self.expect(&building.key, answers, before);
        if let Some(what) = building.rebuild.dropped {
            self.left_out(what);
        }
        self.loaded.keys += 1;
        self.pipeline.shared().keys.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Operation of the failure that says so: a newer or another server wrote the bytes.
pub const FORMAT: &str = "format";

/// What the bytes of a snapshot are wrong in.
pub fn corrupt(e: &redis_proto::Error) -> Failure {
    let (kind, op) = if e.newer { (Kind::Unsupported, FORMAT) } else { (Kind::Corrupt, "snapshot") };
    Failure::new(kind, op, e.to_string()).at(Side::Source)
}
