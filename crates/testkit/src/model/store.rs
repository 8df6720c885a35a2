//! The store itself.

mod object_store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use model::error::{Error, Kind, Result};
use model::key::Key;
use storage::checksum::{Checksums, DigestSet, Hasher};
use storage::{Body, Capability, Entry, Etag, Meta, Page, Written};

use super::behaviour::{Behaviour, EtagKind, ModelFault};

/// An object as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its bytes.
    pub bytes: Bytes,
    /// Last modification, milliseconds.
    pub modified_ms: i64,
    /// Standard headers and user metadata.
    pub headers: Headers,
    /// It was written by a request, not put there.
    pub written: bool,
    md5: [u8; 16],
    /// Parts that it was made of; 0: none.
    parts: u32,
    serial: u64,
}

/// Headers that are kept with an object.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

/// Bytes that headers count for where they are limited: names and values of user metadata.
pub fn headers_len(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

#[derive(Debug, Default)]
struct Upload {
    key: Key,
    headers: Headers,
    parts: BTreeMap<u32, Bytes>,
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    objects: BTreeMap<Key, Object>,
    uploads: BTreeMap<String, Upload>,
    random: fastrand::Rng,
    requests: u64,
    /// Walks through a listing that were begun.
    walks: u64,
    serial: u64,
    now_ms: i64,
    /// Keys at which what happens once has happened.
    happened: BTreeSet<Key>,
    removed: Vec<Key>,
    /// When bytes of writes and parts arrived, and how many; in order.
    arrived: Vec<(Instant, u64)>,
}

type StopSignal = (u64, Box<dyn Fn() + Send + Sync>);

/// A store in memory.
pub struct Model {
    capability: Capability,
    state: Mutex<State>,
    alarm: Mutex<Option<StopSignal>>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({} objects)", self.state().objects.len())
    }
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    let mut hasher = Hasher::new(DigestSet { md5: true, ..DigestSet::default() });
    hasher.update(bytes);
    hasher.finish().md5.unwrap_or_default()
}

impl Model {
    /// An empty store; what happens in it by chance follows from `seed`.
    pub fn new(behaviour: Behaviour, seed: u64, now_ms: i64) -> Arc<Self> {
        let capability = behaviour.capability;
        let now_ms = now_ms + behaviour.skew_ms;
        let state = State {
            behaviour,
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            random: fastrand::Rng::with_seed(seed),
            requests: 0,
            walks: 0,
            serial: 0,
            now_ms,
            happened: BTreeSet::new(),
            removed: Vec::new(),
            arrived: Vec::new(),
        };
        Arc::new(Self { capability, state: Mutex::new(state), alarm: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Puts an object there.
    pub fn put(&self, key: &Key, bytes: impl Into<Bytes>, modified_ms: i64, headers: Headers) {
        let mut state = self.state();
        let made = state.made(bytes.into(), 0, None, modified_ms);
        state.objects.insert(key.clone(), Object { headers, written: false, ..made });
    }

    /// What is there.
    pub fn objects(&self) -> BTreeMap<Key, Object> {
        self.state().objects.clone()
    }

    /// Keys that were removed, in order.
    pub fn removed(&self) -> Vec<Key> {
        self.state().removed.clone()
    }

    /// When bytes of writes and parts have arrived since this was asked last, and how many; in order.
    pub fn take_arrived(&self) -> Vec<(Instant, u64)> {
        std::mem::take(&mut self.state().arrived)
    }

    /// Uploads that were begun and neither completed nor given up.
    pub fn uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// The time by our clock of what is written from here on, milliseconds.
    pub fn set_now(&self, now_ms: i64) {
        let mut state = self.state();
        state.now_ms = now_ms + state.behaviour.skew_ms;
    }

    /// Requests that were made.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// Nothing goes wrong by chance from here on.
    pub fn heal(&self) {
        let mut state = self.state();
        state.behaviour.faults.clear();
        state.behaviour.tokens_expire = 0;
        state.behaviour.ends_at = None;
    }

    /// Calls something at a request to come.
    pub fn at_request(&self, n: u64, call: impl Fn() + Send + Sync + 'static) {
        *self.alarm.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((n, Box::new(call)));
    }

    /// One request begins: whether it may, and what goes wrong with it.
    async fn begin(
        &self,
        op: &'static str,
        key: Option<&Key>,
        can: &[fn(&ModelFault) -> bool],
    ) -> Result<Option<ModelFault>> {
        let (n, turns, done) = {
            let mut state = self.state();
            state.requests += 1;
            let turns = state.random.u32(0..3);
            (state.requests, turns, state.decide(op, key, can))
        };
        let alarm = {
            let mut alarm = self.alarm.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            alarm.take_if(|(at, _)| n >= *at)
        };
        if let Some((_, call)) = alarm {
            call();
        }
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        done
    }
}

fn is_refused(fault: &ModelFault) -> bool {
    matches!(fault, ModelFault::Refused(_))
}
fn is_lost(fault: &ModelFault) -> bool {
    *fault == ModelFault::Lost
}
fn is_of_body(fault: &ModelFault) -> bool {
    matches!(fault, ModelFault::Short | ModelFault::Cut | ModelFault::Changed | ModelFault::Slow)
}

/// A body whose reader must wait for each piece.
fn slow(bytes: Bytes) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let (len, piece) = (bytes.len() as u64, bytes.len().div_ceil(4).max(1));
    tokio::spawn(async move {
        let mut left = bytes;
        while !left.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            if sender.send(Ok(left.split_to(piece.min(left.len())))).await.is_err() {
                return;
            }
        }
    });
    Body::channel(receiver, len)
}

fn refused<T>(kind: Kind, op: &'static str) -> Result<T> {
    Err(Error::new(kind, op, format!("the model answers {kind:?}")))
}

/// Loses the answer, if that is what happens.
fn answered<T>(fault: Option<ModelFault>, op: &'static str, value: T) -> Result<T> {
    match fault {
        Some(ModelFault::Lost) => refused(Kind::Connect, op),
        _ => Ok(value),
    }
}

impl State {
    fn decide(
        &mut self,
        op: &'static str,
        key: Option<&Key>,
        can: &[fn(&ModelFault) -> bool],
    ) -> Result<Option<ModelFault>> {
        if self.behaviour.ends_at.is_some_and(|at| self.requests >= at) {
            return refused(Kind::NoBucket, op);
        }
        if let Some((_, kind)) =
            key.and_then(|key| self.behaviour.broken.iter().find(|(broken, _)| broken == key))
        {
            return refused(*kind, op);
        }
        for (per_mille, fault) in self.behaviour.faults.clone() {
            if can.iter().any(|is| is(&fault)) && self.random.u32(0..1000) < per_mille {
                return match fault {
                    ModelFault::Refused(kind) => refused(kind, op),
                    fault => Ok(Some(fault)),
                };
            }
        }
        Ok(None)
    }

    fn made(&mut self, bytes: Bytes, parts: u32, md5_of: Option<[u8; 16]>, modified_ms: i64) -> Object {
        self.serial += 1;
        Object {
            md5: md5_of.unwrap_or_else(|| md5(&bytes)),
            bytes,
            modified_ms,
            headers: Vec::new(),
            written: true,
            parts,
            serial: self.serial,
        }
    }

    fn etag(&self, object: &Object) -> Etag {
        match self.behaviour.etag {
            EtagKind::Md5 if object.parts > 0 => Etag::Parts(object.md5, object.parts),
            EtagKind::Md5 => Etag::Md5(object.md5),
            EtagKind::Opaque => Etag::Md5(md5(&object.serial.to_le_bytes())).opaque(),
            EtagKind::None => Etag::None,
        }
    }

    fn sums(&self, bytes: &[u8]) -> Checksums {
        let keeps = self.behaviour.keeps;
        let mut hasher =
            Hasher::new(DigestSet { crc64_nvme: keeps.crc64, crc32c: keeps.crc32c, ..DigestSet::default() });
        hasher.update(bytes);
        hasher.finish().sums
    }

    fn meta(&self, object: &Object) -> Meta {
        Meta {
            size: object.bytes.len() as u64,
            modified_ms: Some(object.modified_ms),
            headers: object.headers.clone(),
            etag: self.etag(object),
            parts: (object.parts > 0).then_some(object.parts),
            sums: self.sums(&object.bytes),
            ..Meta::default()
        }
    }

    /// An object that is asked for: what happens once happens now.
    fn find(&mut self, op: &'static str, key: &Key, reads: bool) -> Result<Object> {
        if reads && self.happened.insert(key.clone()) {
            if self.behaviour.vanishing.contains(key) {
                self.objects.remove(key);
            }
            if self.behaviour.changing.contains(key)
                && let Some(old) = self.objects.get(key)
            {
                let bytes: Vec<u8> = old.bytes.iter().map(|b| b ^ 0x55).chain(*b"new").collect();
                let (at, headers) = (self.now_ms, old.headers.clone());
                let object = self.made(bytes.into(), 0, None, at);
                self.objects.insert(key.clone(), Object { headers, ..object });
            }
        }
        match self.objects.get(key) {
            Some(object) if !self.behaviour.hidden.contains(key) => Ok(object.clone()),
            _ => refused(Kind::NotFound, op),
        }
    }

    /// Refuses to change what is locked.
    fn unlocked(&self, key: &Key, op: &'static str) -> Result<()> {
        match self.objects.contains_key(key) && self.behaviour.locked.contains(key) {
            true => refused(Kind::Forbidden, op),
            false => Ok(()),
        }
    }

    /// Refuses headers that are too long.
    fn takes(&self, headers: &Headers, op: &'static str) -> Result<()> {
        match headers_len(headers) > self.behaviour.headers_max {
            // AWS "Error responses": MetadataTooLarge.
            true => refused(Kind::Invalid, op),
            false => Ok(()),
        }
    }

    fn written(&self, object: &Object) -> Written {
        Written { etag: self.etag(object), sums: self.sums(&object.bytes) }
    }
}

impl State {
    fn entry(&self, key: &Key) -> Option<Entry> {
        let object = self.objects.get(key)?;
        Some(Entry {
            key: key.clone(),
            size: object.bytes.len() as u64,
            modified_ms: object.modified_ms,
            written_ms: object.modified_ms,
            etag: if self.behaviour.listed_etags { self.etag(object) } else { Etag::None },
            class: None,
        })
    }

    /// One level of a folder tree, all on one page.
    fn folders(&self, prefix: &str, delimiter: char, keys: impl Iterator<Item = Key>) -> Page {
        let mut page = Page::default();
        for key in keys {
            let text = key.to_text().into_owned();
            match text.get(prefix.len()..).and_then(|rest| rest.find(delimiter)) {
                Some(at) => {
                    let folder = text[..prefix.len() + at + 1].to_owned();
                    if !page.folders.contains(&folder) {
                        page.folders.push(folder);
                    }
                }
                None => page.entries.extend(self.entry(&key)),
            }
        }
        page
    }
}
